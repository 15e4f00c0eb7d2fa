//! One device's queue: the lock, who is called when it is released, and how a job comes in.

use super::files::JobFiles;
use super::host::Notices;
use super::inner::Call;
use super::inner::Finished;
use super::inner::Inner;
use super::inner::disk_error;
use super::inner::now_ms;
use super::kernels::ShapeHasher;
use super::record::Input;
use super::record::Outputs;
use super::record::Record;
use super::record::SMALL;
use super::record::State;
use super::record::Waiter;
use crate::wire::MAX_FILES;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_fs::Caller;
use zed_fs::Side;
use zed_spec::job::Array;
use zed_spec::job::Job;
use zed_spec::job::Parsed;
use zed_spec::job::Reply;
use zed_spec::job::Source;

/// The most bytes of a result that a handle gives raw.
const MAX_REPLY: u64 = 64 << 20;

/// One device's queue.
pub(super) struct Device {
    pub(super) gpu: u32,
    /// Its folder.
    pub(super) dir: PathBuf,
    pub(super) inner: Mutex<Inner>,
    /// Rung when the device's thread should look.
    pub(super) bell: Condvar,
    pub(super) files: JobFiles,
    pub(super) shapes: ShapeHasher,
    /// Of all devices: the next job's id.
    pub(super) ids: Arc<AtomicU64>,
    pub(super) notices: Arc<dyn Notices>,
}

/// A job that has been judged, and where its arrays will be.
struct Judged {
    job: Job,
    bytes: Arc<[u8]>,
    tail: u64,
    inputs: Vec<Input>,
}

impl Device {
    /// With the lock; then calls whoever is to be called, without it.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.inner.lock();
        let result = work(&mut inner);
        let calls = std::mem::take(&mut inner.calls);
        if std::mem::take(&mut inner.wake) {
            self.bell.notify_one();
        }
        drop(inner);
        self.call(calls);
        result
    }

    pub(super) fn call(&self, calls: Vec<Call>) {
        for call in calls {
            match call {
                Call::Notice(kind, text) => self.notices.notice(kind, Some(self.gpu), &text),
                Call::Waiters(waiters, finished) => {
                    for waiter in waiters {
                        self.answer(waiter, &finished);
                    }
                }
            }
        }
    }

    /// Tells one who waits.
    pub(super) fn answer(&self, waiter: Waiter, finished: &Finished) {
        match waiter {
            Waiter::End(done) => done(finished.outcome.clone()),
            Waiter::Reply(done) => done(match &finished.outcome {
                Ok(_) => self.reply_bytes(finished),
                Err(error) => Err(error.clone()),
            }),
        }
    }

    fn reply_bytes(&self, finished: &Finished) -> Result<Arc<[u8]>, CtlError> {
        match finished.job.reply {
            Reply::Id => Ok(format!("{}\n", finished.id).into_bytes().into()),
            Reply::Text => self.text(finished),
            Reply::Raw => match &finished.outputs {
                Outputs::Memory(outputs) => match outputs.as_slice() {
                    [one] => Ok(Arc::clone(one)),
                    several => Ok(several.concat().into()),
                },
                Outputs::Files => Ok(self.outputs_of(finished, u64::MAX)?.concat().into()),
            },
        }
    }

    /// The outputs as text.
    pub(super) fn text(&self, finished: &Finished) -> Result<Arc<[u8]>, CtlError> {
        let outputs = self.outputs_of(finished, crate::result::MOST_VALUES)?;
        let outputs: Vec<&[u8]> = outputs.iter().map(AsRef::as_ref).collect();
        Ok(render(&finished.job, &outputs).into_bytes().into())
    }

    /// Of each output at most so many values; of those after the first that has more, none.
    fn outputs_of(&self, finished: &Finished, most: u64) -> Result<Vec<Arc<[u8]>>, CtlError> {
        match &finished.outputs {
            Outputs::Memory(outputs) => Ok(outputs.clone()),
            Outputs::Files => {
                let mut left = most;
                let mut read = |array: &Array| {
                    let wanted = array.bytes().min(left.saturating_mul(array.dtype.size()));
                    left = if wanted < array.bytes() { 0 } else { left };
                    let file = self.files.open(finished.id, Side::Out, &array.name, false)?;
                    let mut bytes = Vec::new();
                    file.take(wanted).read_to_end(&mut bytes)?;
                    Ok(Arc::from(bytes))
                };
                let all: std::io::Result<Vec<Arc<[u8]>>> =
                    finished.job.outputs().map(|(_, array)| read(array)).collect();
                all.map_err(|error| {
                    disk_error(&format!("the outputs of job {} cannot be read", finished.id), &error)
                })
            }
        }
    }

    /// Takes a job. It is in the journal when this returns, and with an idle node already on its way.
    pub(super) fn submit(&self, caller: Caller, bytes: &[u8], parsed: Parsed) -> Result<u64, CtlError> {
        let raw = parsed.raw.clone();
        let judged = judge(bytes, parsed)?;
        let shape = self.shapes.shape(&judged.job);
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let record = record(id, caller, shape, judged);
        if record.inputs.iter().any(|input| matches!(input, Input::File)) {
            // Before room is made on disk; looked at again when it comes in.
            self.with(|inner| inner.admit(record.uid, record.cost()))?;
            let raw = raw.and_then(|range| bytes.get(range)).unwrap_or_default();
            if let Err(error) = self.make_files(&record, raw) {
                self.files.remove(id);
                return Err(disk_error("the inputs could not be written", &error));
            }
        }
        let has_files = record.has_files();
        let taken = self.with(|inner| {
            inner.admit(record.uid, record.cost())?;
            inner.insert(record)
        });
        if has_files && taken.is_err() {
            self.files.remove(id);
        }
        taken.map(|()| id)
    }

    /// The files of the inputs: with their bytes, or for an upload without.
    fn make_files(&self, record: &Record, raw: &[u8]) -> std::io::Result<()> {
        let mut rest = raw;
        for ((_, array, source), input) in record.job.inputs().zip(&record.inputs) {
            let mut content: &[u8] = &[];
            if source == Source::Raw {
                let size = usize::try_from(array.bytes()).unwrap_or(usize::MAX).min(rest.len());
                (content, rest) = rest.split_at(size);
            }
            if matches!(input, Input::File) {
                self.files.make(record.id, Side::In, &array.name, array.bytes(), content)?;
            }
        }
        Ok(())
    }
}

/// Decides which arrays are files, and refuses what cannot be carried.
fn judge(bytes: &[u8], parsed: Parsed) -> Result<Judged, CtlError> {
    let Parsed { job, data, raw } = parsed;
    let raw_length = raw.as_ref().map_or(0, |range| range.len() as u64);
    let in_files = raw_length > SMALL;
    let kept = match &raw {
        Some(range) if in_files => bytes.get(..range.start).unwrap_or(bytes),
        _ => bytes,
    };
    let mut at = raw.as_ref().map_or(0, |range| range.start);
    let mut inputs = Vec::with_capacity(job.inputs.len());
    for ((_, array, source), data) in job.inputs().zip(data) {
        inputs.push(match (source, data) {
            (Source::Text, data) => Input::Memory(data.unwrap_or_default().into()),
            (Source::Raw, _) if !in_files => {
                let end = at + usize::try_from(array.bytes()).unwrap_or(0);
                let range = at..end;
                at = end;
                Input::Bytes(range)
            }
            _ => Input::File,
        });
    }
    let files = inputs.iter().filter(|input| matches!(input, Input::File)).count()
        + if job.output_bytes() > SMALL { job.outputs.len() } else { 0 };
    if files > MAX_FILES {
        let text = format!("{files} of its arrays are files; a job may have at most {MAX_FILES}");
        return Err(
            CtlError::new(Code::BadSpec, text).hint("put several arrays into one, or use several jobs")
        );
    }
    if job.reply == Reply::Raw && job.output_bytes() > MAX_REPLY {
        let text = format!("a raw reply of {} bytes; it may have at most {MAX_REPLY}", job.output_bytes());
        return Err(CtlError::new(Code::BadSpec, text).hint("read the files out/NAME of the job instead"));
    }
    let tail = if in_files { raw_length } else { 0 };
    Ok(Judged { job, bytes: kept.into(), tail, inputs })
}

fn record(id: u64, caller: Caller, shape: u64, judged: Judged) -> Record {
    let Judged { job, bytes, tail, inputs } = judged;
    let waits = job.inputs.contains(&Source::Upload);
    let (now, at_ms) = (Instant::now(), now_ms());
    Record {
        id,
        uid: caller.uid,
        gid: caller.gid,
        at_ms,
        changed_ms: at_ms,
        priority: job.priority,
        job: Arc::new(job),
        bytes,
        tail,
        inputs,
        state: if waits { State::Waiting } else { State::Queued },
        shape,
        submitted: now,
        queued: now,
        queued_us: 0,
        attempts: 0,
        interrupted: 0,
        alone: false,
        on_cpu: None,
        waiters: Vec::new(),
    }
}

/// A job from the journal: what was written, without what is files now.
pub(super) fn record_again(
    id: u64,
    caller: Caller,
    text: &[u8],
    tail: u64,
    shapes: &ShapeHasher,
) -> Result<Record, String> {
    let parsed = if tail == 0 {
        zed_spec::job::parse(text)
    } else {
        // Zeros in the place of what is files now: the parser only looks at their number, so no memory is touched.
        let length = usize::try_from(tail).ok().and_then(|tail| text.len().checked_add(tail));
        let mut whole = vec![0; length.ok_or_else(|| "it is larger than this host's memory".to_owned())?];
        if let Some(place) = whole.get_mut(..text.len()) {
            place.copy_from_slice(text);
        }
        zed_spec::job::parse(&whole)
    };
    let parsed = parsed.map_err(|findings| findings.render("job"))?;
    let Parsed { job, data, raw } = parsed;
    let mut at = raw.map_or(0, |range| range.start);
    let mut inputs = Vec::with_capacity(job.inputs.len());
    for ((_, array, source), data) in job.inputs().zip(data) {
        inputs.push(match source {
            Source::Text => Input::Memory(data.unwrap_or_default().into()),
            Source::Raw if tail == 0 => {
                let end = at + usize::try_from(array.bytes()).unwrap_or(0);
                let range = at..end;
                at = end;
                Input::Bytes(range)
            }
            Source::Raw | Source::Upload => Input::File,
        });
    }
    let shape = shapes.shape(&job);
    Ok(record(id, caller, shape, Judged { job, bytes: text.into(), tail, inputs }))
}

fn render(job: &Job, outputs: &[&[u8]]) -> String {
    crate::result::render_result(job, outputs)
}
