//! Verb files and plans copied into `deploy/`: what is written is judged at once, and a close waits for what
//! was accepted.
//!
//! The kernel holds the inode's lock during a write, so a write never waits: the close does.

use crate::Caller;
use crate::Control;
use crate::Fault;
use crate::Outcome;
use crate::Ticket;
use crate::VerbFile;
use crate::WaitFor;
use crate::tree::Errors;
use crate::tree::Node;
use crate::wait::Finish;
use crate::wait::Late;
use crate::wait::Step;
use crate::wait::Waiting;
use nix::errno::Errno;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How long a close or an fsync waits for an accepted verb. After that the close succeeds, because the
/// operation still goes on and `status` shows it; fsync says ETIMEDOUT.
pub const TICKET_LIMIT: Duration = Duration::from_secs(60);

/// The longest plan that can be copied into `deploy/`, in bytes.
const MAX_PLAN: usize = 4 << 20;

/// What was accepted through one handle, and what became of it.
#[derive(Default)]
struct Progress {
    /// A write was refused: all later ones are too.
    refused: Option<Errno>,
    /// Something accepted has failed.
    failed: Option<Errno>,
    running: usize,
    waiters: Vec<Finish<()>>,
}

/// Shared with the waits that outlive the handle.
struct Shared {
    control: Arc<dyn Control>,
    errors: Arc<Errors>,
    error_file: Node,
    progress: Mutex<Progress>,
}

impl Shared {
    /// Waits for a ticket in the background; one that fails later still leaves its text.
    fn follow(self: &Arc<Self>, ticket: Ticket) {
        self.progress.lock().running += 1;
        let shared = Arc::clone(self);
        self.control.when(WaitFor::Ticket(ticket), Box::new(move |outcome| shared.ended(outcome)));
    }

    fn ended(&self, outcome: Outcome) {
        let mut progress = self.progress.lock();
        progress.running -= 1;
        match outcome {
            Ok(_) => self.errors.clear(&self.error_file),
            Err(error) => {
                let fault = Fault::from(error);
                self.errors.set(&self.error_file, fault.text.as_deref().unwrap_or_default());
                progress.failed = Some(fault.errno);
            }
        }
        if progress.running > 0 {
            return;
        }
        let failed = progress.failed;
        let waiters = std::mem::take(&mut progress.waiters);
        drop(progress);
        for finish in waiters {
            finish(result_of(failed));
        }
    }

    fn accept(self: &Arc<Self>, accepted: Result<Option<Ticket>, Fault>) -> Result<(), Fault> {
        match accepted {
            Ok(Some(ticket)) => self.follow(ticket),
            Ok(None) => self.errors.clear(&self.error_file),
            Err(fault) => {
                self.errors.set(&self.error_file, fault.text.as_deref().unwrap_or_default());
                self.progress.lock().refused = Some(fault.errno);
                return Err(fault);
            }
        }
        Ok(())
    }

    fn settled(self: &Arc<Self>, late: Late<()>) -> Step<()> {
        {
            let progress = self.progress.lock();
            if progress.running == 0 {
                return Step::Done(result_of(progress.failed));
            }
        }
        let shared = Arc::clone(self);
        let start = move |finish: Finish<()>| {
            let mut progress = shared.progress.lock();
            if progress.running > 0 {
                progress.waiters.push(finish);
                return;
            }
            let failed = progress.failed;
            drop(progress);
            finish(result_of(failed));
        };
        Step::Wait(Waiting { start: Box::new(start), limit: TICKET_LIMIT, late })
    }
}

fn result_of(failed: Option<Errno>) -> Result<(), Fault> {
    failed.map_or(Ok(()), |errno| Err(errno.into()))
}

/// An open verb file.
pub(crate) struct VerbHandle {
    file: VerbFile,
    shared: Arc<Shared>,
}

impl VerbHandle {
    /// Opens a verb file.
    pub(crate) fn new(control: Arc<dyn Control>, errors: Arc<Errors>, file: VerbFile) -> Self {
        let error_file = Errors::beside(&file);
        let shared = Shared { control, errors, error_file, progress: Mutex::default() };
        Self { file, shared: Arc::new(shared) }
    }

    /// One write: each line is a verb; the first that is refused ends it.
    ///
    /// # Errors
    /// EINVAL, EFBIG and whatever the verb is refused with; again for every later write of the handle.
    pub(crate) fn write(&self, caller: Caller, data: &[u8]) -> Result<usize, Fault> {
        if let Some(errno) = self.shared.progress.lock().refused {
            return Err(errno.into());
        }
        let lines = match zed_ctl::verb_lines(data) {
            Ok(lines) => lines,
            Err(error) => {
                self.shared.accept(Err(error.into()))?;
                return Ok(data.len());
            }
        };
        for (line, number) in lines.iter().zip(1..) {
            let accepted = self.shared.control.submit(caller, &self.file, line).map_err(|mut error| {
                if lines.len() > 1 {
                    error.message = format!("line {number}: {}", error.message);
                }
                error.into()
            });
            self.shared.accept(accepted)?;
        }
        Ok(data.len())
    }

    /// A close: waits until all that was accepted has ended, at most [`TICKET_LIMIT`].
    pub(crate) fn flush(&self) -> Step<()> {
        self.shared.settled(Late::Value(()))
    }

    /// The same; ETIMEDOUT when the time has passed.
    pub(crate) fn fsync(&self) -> Step<()> {
        self.shared.settled(Late::Fail(Errno::ETIMEDOUT))
    }
}

/// `deploy/NAME.plan`, opened for writing: the plan that is copied there is applied when it is complete.
pub(crate) struct PlanHandle {
    name: Arc<str>,
    shared: Arc<Shared>,
    buffer: Mutex<Buffer>,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    dirty: bool,
}

impl PlanHandle {
    /// Opens the file for a plan.
    pub(crate) fn new(control: Arc<dyn Control>, errors: Arc<Errors>, name: Arc<str>) -> Self {
        let error_file = Errors::beside(&VerbFile::Root);
        let shared = Shared { control, errors, error_file, progress: Mutex::default() };
        Self { name, shared: Arc::new(shared), buffer: Mutex::default() }
    }

    /// Keeps what is written until the close.
    ///
    /// # Errors
    /// EFBIG above 4 MiB.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<usize, Fault> {
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let end = start.checked_add(data.len()).filter(|end| *end <= MAX_PLAN).ok_or(Errno::EFBIG)?;
        let mut buffer = self.buffer.lock();
        if buffer.bytes.len() < end {
            buffer.bytes.resize(end, 0);
        }
        if let Some(place) = buffer.bytes.get_mut(start..end) {
            place.copy_from_slice(data);
        }
        buffer.dirty = true;
        Ok(data.len())
    }

    /// A close: hands a complete plan over and waits for it, at most [`TICKET_LIMIT`].
    pub(crate) fn flush(&self, caller: Caller) -> Step<()> {
        self.hand_over(caller, Late::Value(()))
    }

    /// The same; ETIMEDOUT when the time has passed.
    pub(crate) fn fsync(&self, caller: Caller) -> Step<()> {
        self.hand_over(caller, Late::Fail(Errno::ETIMEDOUT))
    }

    fn hand_over(&self, caller: Caller, late: Late<()>) -> Step<()> {
        let mut buffer = self.buffer.lock();
        if std::mem::replace(&mut buffer.dirty, false) {
            let accepted = self.shared.control.apply_plan(caller, &self.name, &buffer.bytes);
            if let Err(fault) = self.shared.accept(accepted.map_err(Fault::from)) {
                return Step::Done(Err(fault));
            }
        }
        drop(buffer);
        self.shared.settled(late)
    }
}
