//! What came with a message, and whether a job in it fits: files and ranges are looked at before anything is read.

use super::engine::Running;
use super::error::JobError;
use crate::ops::PlanError;
use crate::program::KernelId;
use crate::wire::MAX_PART;
use crate::wire::Payload;
use crate::wire::Run;
use std::borrow::Cow;
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use zed_spec::job::Job;

/// The bytes and files of one message, shared by its jobs.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) raw: Vec<u8>,
    pub(super) files: Vec<File>,
}

/// A job that waits for its turn.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) run: Run,
    pub(super) from: Rc<Message>,
}

/// Why a job failed, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) error: String,
    pub(super) kernel: Option<KernelId>,
}

impl Failure {
    /// Without a kernel to blame.
    pub(super) fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), kernel: None }
    }

    /// Of an error, with what caused it.
    pub(super) fn of(error: &JobError) -> Self {
        let kernel = match error {
            JobError::Compile(error) => Some(error.kernel.clone()),
            JobError::Plan(PlanError::Shader { error, .. }) => Some(error.kernel.clone()),
            JobError::Pipeline { kernel, .. } => Some(kernel.clone()),
            _ => None,
        };
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self { error: text, kernel }
    }
}

impl Waiting {
    /// Checks that the message has what the job says: ranges, files and their sizes.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let (job, run) = (&self.run.job, &self.run);
        check_ids(job)?;
        if run.inputs.len() != job.inputs.len() || run.outputs.len() != job.outputs.len() {
            return Err(Failure::new("the message has another number of arrays than the job"));
        }
        for ((_, array, _), payload) in job.inputs().zip(&run.inputs) {
            let (name, wanted) = (&array.name, array.bytes());
            match payload {
                Payload::Raw(begin) => {
                    let end = u64::from(*begin).checked_add(wanted);
                    if end.is_none_or(|end| end > self.from.raw.len() as u64) {
                        return Err(Failure::new(format!(
                            "the message does not hold the bytes of \"{name}\""
                        )));
                    }
                }
                Payload::File(number) => {
                    let found = self.file(*number)?.metadata();
                    let found =
                        found.map_err(|error| Failure::new(format!("the file of \"{name}\": {error}")))?;
                    if found.len() != wanted {
                        let found = found.len();
                        let error =
                            format!("the file of \"{name}\" has {found} bytes; its array has {wanted}");
                        return Err(Failure::new(error));
                    }
                }
            }
        }
        let mut raw = 0_u64;
        for ((_, array), file) in job.outputs().zip(&run.outputs) {
            match file {
                Some(number) => drop(self.file(*number)?),
                None => raw = raw.saturating_add(array.bytes()),
            }
        }
        if raw > MAX_PART as u64 {
            return Err(Failure::new(format!(
                "outputs of {raw} bytes do not fit a message; they need files"
            )));
        }
        Ok(())
    }

    fn file(&self, number: u32) -> Result<&File, Failure> {
        let file = self.from.files.get(number as usize);
        file.ok_or_else(|| Failure::new("the message does not have a file that the job names"))
    }

    /// Reads an input to where it is wanted.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub(super) fn read(&self, input: usize, place: &mut [u8]) -> Result<(), Failure> {
        match self.run.inputs.get(input) {
            Some(Payload::Raw(begin)) => {
                let from = self.from.raw.get(*begin as usize..).and_then(|rest| rest.get(..place.len()));
                place.copy_from_slice(from.ok_or_else(|| Failure::new("the message is too short"))?);
                Ok(())
            }
            Some(Payload::File(number)) => self
                .file(*number)?
                .read_exact_at(place, 0)
                .map_err(|error| Failure::new(format!("input {input} cannot be read: {error}"))),
            None => Err(Failure::new("the message lacks an input")),
        }
    }

    /// The bytes of an input.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub(super) fn input(&self, input: usize, bytes: u64) -> Result<Cow<'_, [u8]>, Failure> {
        let length = usize::try_from(bytes).map_err(|_| Failure::new("an input is too large"))?;
        if let Some(Payload::Raw(begin)) = self.run.inputs.get(input) {
            let raw = self.from.raw.get(*begin as usize..).and_then(|rest| rest.get(..length));
            return raw.map(Cow::Borrowed).ok_or_else(|| Failure::new("the message is too short"));
        }
        let mut whole = vec![0; length];
        self.read(input, &mut whole)?;
        Ok(Cow::Owned(whole))
    }

    /// Writes an output to its file, or says that it has none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, output: usize, bytes: &[u8]) -> Result<bool, Failure> {
        let Some(number) = self.run.outputs.get(output).copied().flatten() else { return Ok(false) };
        let written = self.file(number)?.write_all_at(bytes, 0);
        written.map_err(|error| Failure::new(format!("output {output} cannot be written: {error}")))?;
        Ok(true)
    }

    /// Reads all inputs to where kernels find them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn fill(&self, running: &mut Running) -> Result<(), Failure> {
        for input in 0..self.run.inputs.len() {
            if let Some(place) = running.input(input) {
                self.read(input, place)?;
            }
        }
        Ok(())
    }
}

/// All arrays that a job names are there: what computes it looks them up without asking.
fn check_ids(job: &Job) -> Result<(), Failure> {
    let results = job.steps.iter().flat_map(|step| &step.results);
    let there = |id: &zed_spec::job::ArrayId| (id.0 as usize) < job.arrays.len();
    if job.inputs.len() <= job.arrays.len() && results.chain(&job.outputs).all(there) {
        Ok(())
    } else {
        Err(Failure::new("the job names an array that it does not have"))
    }
}
