//! What is behind the lock of one device's queue: its jobs, from submission to the end of their retention.
//!
//! Every change is in the journal before anybody is told of it. Whoever waits is called after the lock is released. Never
//! waits for a device; `dispatch.rs` sends to the node, `messages.rs` understands what it says.

use super::files::JobFiles;
use super::histogram::Histogram;
use super::host::NoticeKind;
use super::journal::End;
use super::journal::Entry;
use super::journal::How;
use super::journal::Journal;
use super::kernels::Kernels;
use super::node::NodeState;
use super::record::Outputs;
use super::record::Record;
use super::record::State;
use super::record::Waiter;
use super::schedule::Schedule;
use super::suspects::Suspects;
use crate::device::DeviceInfo;
use crate::wire::JobTimes;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_fs::Outcome;
use zed_spec::job::Job;

/// How much is taken and kept, and how long is waited.
#[derive(Debug, Clone)]
pub struct QueueLimits {
    /// Jobs that have not ended.
    pub jobs: usize,
    /// Bytes of memory that they hold.
    pub bytes: u64,
    /// The part of both that one user may have, in percent.
    pub user_percent: u32,
    /// Ended jobs that are kept.
    pub retain: u32,
    /// Bytes of memory that they hold.
    pub retain_bytes: u64,
    /// From a node's start to its first message.
    pub start_deadline: Duration,
    /// Without a word of a node that has work which it has not begun.
    pub stall: Duration,
    /// From the cancellation of a running job to the end of its node.
    pub cancel_grace: Duration,
    /// Jobs that a node has at a time.
    pub window: usize,
    /// What they are taken to need together, in microseconds.
    pub window_us: u64,
    /// Starts that fail in a row make a device unusable.
    pub failed_starts: u32,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            jobs: 16_384,
            bytes: 256 << 20,
            user_percent: 75,
            retain: 16_384,
            retain_bytes: 256 << 20,
            start_deadline: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(1),
            window: 64,
            window_us: 20_000,
            failed_starts: 5,
        }
    }
}

/// What is counted since this zedd saw the device.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) submitted: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) refused: u64,
    pub(super) timeouts: u64,
    pub(super) fallbacks: u64,
    pub(super) batches: u64,
}

/// One user.
#[derive(Debug, Clone, Default)]
pub(super) struct UserCount {
    pub(super) jobs: usize,
    pub(super) bytes: u64,
    pub(super) ended: u64,
    pub(super) device_us: u64,
}

/// What is done when the lock is released.
pub(super) enum Call {
    Waiters(Vec<Waiter>, Finished),
    Notice(NoticeKind, String),
}

/// A job's end, for those who wait for it.
#[derive(Clone)]
pub(super) struct Finished {
    pub(super) id: u64,
    pub(super) job: Arc<Job>,
    pub(super) outcome: Outcome,
    pub(super) outputs: Outputs,
}

/// Behind the lock.
pub(super) struct Inner {
    pub(super) gpu: u32,
    pub(super) info: DeviceInfo,
    /// The device's uuid as text.
    pub(super) device: String,
    pub(super) limits: QueueLimits,
    pub(super) files: JobFiles,
    /// Nothing only while it is being replayed.
    pub(super) journal: Option<Journal>,
    pub(super) records: BTreeMap<u64, Record>,
    pub(super) schedule: Schedule,
    /// Queued jobs that may run on the CPU.
    pub(super) cpu_allowed: BTreeSet<u64>,
    pub(super) users: BTreeMap<u32, UserCount>,
    pub(super) open_jobs: usize,
    /// Those of them that wait for inputs.
    pub(super) waiting_jobs: usize,
    pub(super) open_bytes: u64,
    /// In the order of their ends.
    pub(super) ended: VecDeque<u64>,
    pub(super) ended_bytes: u64,
    pub(super) retain: u32,
    pub(super) counts: Counts,
    pub(super) queue_us: Histogram,
    pub(super) device_us: Histogram,
    pub(super) total_us: Histogram,
    pub(super) suspects: Suspects,
    pub(super) suspects_changed: bool,
    pub(super) kernels: Kernels,
    pub(super) node: NodeState,
    pub(super) paused: bool,
    pub(super) restart: bool,
    pub(super) stopping: bool,
    /// Jobs whose files are to be removed.
    pub(super) removed: Vec<u64>,
    pub(super) calls: Vec<Call>,
    /// The device's thread has something to do.
    pub(super) wake: bool,
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Microseconds, as many as there are.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the disk refused, for whoever asked for it.
pub(super) fn disk_error(what: &str, error: &io::Error) -> CtlError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::NoSpace,
        _ => Code::Failed,
    };
    CtlError::new(code, format!("{what}: {error}"))
}

impl Inner {
    pub(super) fn notice(&mut self, kind: NoticeKind, text: impl Into<String>) {
        self.calls.push(Call::Notice(kind, text.into()));
    }

    fn append(&mut self, entry: &Entry, raw: &[&[u8]]) -> io::Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.append(entry, raw))
    }

    /// The files of the journal that are not on disk for certain.
    pub(super) fn log_files(&self) -> Vec<Arc<File>> {
        self.journal.as_ref().map(Journal::files).unwrap_or_default()
    }

    /// Appends to the journal what nobody waits for. A disk that is full costs the memory of it, not the work.
    pub(super) fn log(&mut self, entry: &Entry, raw: &[&[u8]]) {
        if let Err(error) = self.append(entry, raw) {
            self.notice(
                NoticeKind::Warning,
                format!("the GPU queue's journal could not be written: {error}"),
            );
        }
    }

    /// Whether a job of that cost may come in now.
    ///
    /// # Errors
    /// [`Code::Full`], counted.
    pub(super) fn admit(&mut self, uid: u32, cost: u64) -> Result<(), CtlError> {
        let part = |all: u64| all * u64::from(self.limits.user_percent) / 100;
        let user = self.users.get(&uid).cloned().unwrap_or_default();
        let (jobs, bytes) = (self.limits.jobs, self.limits.bytes);
        let full = if self.open_jobs >= jobs || self.open_bytes + cost > bytes {
            format!(
                "the queue of gpu {} is full: {} jobs with {} bytes",
                self.gpu, self.open_jobs, self.open_bytes
            )
        } else if user.jobs as u64 >= part(jobs as u64) || user.bytes + cost > part(bytes) {
            format!(
                "user {uid} has {} jobs with {} bytes in the queue of gpu {}",
                user.jobs, user.bytes, self.gpu
            )
        } else {
            return Ok(());
        };
        self.counts.refused += 1;
        Err(CtlError::new(Code::Full, full).hint("try again when some of them have ended"))
    }

    /// Takes a job that was admitted.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(super) fn insert(&mut self, record: Record) -> Result<(), CtlError> {
        let (id, uid, gid, at_ms, tail) = (record.id, record.uid, record.gid, record.at_ms, record.tail);
        self.append(&Entry::Submitted { id, uid, gid, at_ms, tail }, &[&record.bytes])
            .map_err(|error| disk_error("the job could not be written to the journal", &error))?;
        self.counts.submitted += 1;
        self.add(record);
        self.pump(true);
        Ok(())
    }

    /// Makes a job known, as new or from the journal.
    pub(super) fn add(&mut self, record: Record) {
        let cost = record.cost();
        let user = self.users.entry(record.uid).or_default();
        user.jobs += 1;
        user.bytes += cost;
        self.open_jobs += 1;
        self.open_bytes += cost;
        let id = record.id;
        let queued = matches!(record.state, State::Queued);
        self.waiting_jobs += usize::from(matches!(record.state, State::Waiting));
        self.records.insert(id, record);
        if queued {
            self.enqueue(id);
        }
    }

    /// A job waits for its turn.
    pub(super) fn enqueue(&mut self, id: u64) {
        let Some(record) = self.records.get_mut(&id) else { return };
        self.waiting_jobs -= usize::from(matches!(record.state, State::Waiting));
        record.state = State::Queued;
        self.schedule.push(record.uid, id, record.priority);
        if record.allows_cpu() {
            self.cpu_allowed.insert(id);
        }
    }

    /// A job does not wait for its turn any more.
    fn dequeue(&mut self, id: u64) {
        let Some(record) = self.records.get(&id) else { return };
        self.schedule.remove(record.uid, id, record.priority);
        self.cpu_allowed.remove(&id);
    }

    /// A job has ended. Its outputs come along when they are in memory.
    pub(super) fn end(&mut self, id: u64, how: How, times: JobTimes, outputs: Outputs) {
        let Some(record) = self.records.get_mut(&id) else { return };
        if record.ended() {
            return;
        }
        let at_ms = now_ms();
        let mut end = record.end_of(how, times, at_ms);
        match &end.how {
            How::Done { fallback, .. } => {
                self.counts.done += 1;
                self.counts.fallbacks += u64::from(!fallback.is_empty());
            }
            How::Failed(_) => self.counts.failed += 1,
            How::Cancelled => self.counts.cancelled += 1,
        }
        record.changed_ms = at_ms;
        let total = micros(record.submitted.elapsed());
        if let Outputs::Memory(raw) = &outputs {
            end.outputs = raw.iter().map(|bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX)).collect();
        }
        if let Some(user) = self.users.get_mut(&record.uid) {
            user.ended += 1;
        }
        self.total_us.observe(total);
        let raw: Vec<&[u8]> = match &outputs {
            Outputs::Memory(raw) => raw.iter().map(AsRef::as_ref).collect(),
            Outputs::Files => Vec::new(),
        };
        if let Err(error) = self.append(&Entry::Ended(id, end.clone()), &raw) {
            let text = format!("the end of job {id} could not be written to the journal: {error}");
            self.calls.push(Call::Notice(NoticeKind::Warning, text));
        }
        self.settle_end(id, end, outputs);
    }

    /// An end that is in the journal.
    pub(super) fn settle_end(&mut self, id: u64, end: End, outputs: Outputs) {
        self.dequeue(id);
        let Some(record) = self.records.get_mut(&id) else { return };
        let cost = record.cost();
        self.waiting_jobs -= usize::from(matches!(record.state, State::Waiting));
        record.state = State::Ended(end, outputs.clone());
        let waiters = std::mem::take(&mut record.waiters);
        if let (false, Some(outcome)) = (waiters.is_empty(), record.outcome()) {
            let finished = Finished { id, job: Arc::clone(&record.job), outcome, outputs };
            self.calls.push(Call::Waiters(waiters, finished));
        }
        if let Some(user) = self.users.get_mut(&record.uid) {
            user.jobs = user.jobs.saturating_sub(1);
            user.bytes = user.bytes.saturating_sub(cost);
        }
        self.open_jobs = self.open_jobs.saturating_sub(1);
        self.open_bytes = self.open_bytes.saturating_sub(cost);
        self.ended.push_back(id);
        self.ended_bytes += cost;
        self.trim();
    }

    /// Forgets the ended jobs that are too many, oldest first. The journal need not say so: a replay comes to the same.
    pub(super) fn trim(&mut self) {
        while self.ended.len() > self.retain as usize || self.ended_bytes > self.limits.retain_bytes {
            let Some(id) = self.ended.pop_front() else { return };
            let Some(record) = self.records.remove(&id) else { continue };
            self.ended_bytes = self.ended_bytes.saturating_sub(record.cost());
            if record.has_files() {
                self.removed.push(id);
                self.wake = true;
            }
        }
    }

    /// Nobody wants a job any more. False when it has ended.
    pub(super) fn cancel(&mut self, id: u64) -> bool {
        let Some(record) = self.records.get(&id) else { return false };
        match record.state {
            State::Ended(..) => return false,
            State::Waiting | State::Queued => {}
            // The device may go on with it for a moment: what comes of it is thrown away.
            State::Sent | State::Running => {
                self.node.cancelled(id, Instant::now() + self.limits.cancel_grace)
            }
        }
        self.wake = true;
        let outputs = Outputs::Memory(Vec::new());
        self.end(id, How::Cancelled, JobTimes::default(), outputs);
        true
    }

    /// Another priority for a job that has not been sent. False when it has.
    pub(super) fn set_priority(&mut self, id: u64, priority: i8) -> bool {
        let Some(record) = self.records.get_mut(&id) else { return false };
        match record.state {
            State::Waiting => record.priority = priority,
            State::Queued => {
                self.schedule.remove(record.uid, id, record.priority);
                record.priority = priority;
                self.schedule.push(record.uid, id, priority);
            }
            State::Sent | State::Running | State::Ended(..) => return false,
        }
        self.log(&Entry::Priority(id, priority), &[]);
        true
    }

    /// The inputs of a job are complete. False when it did not wait for them.
    pub(super) fn start(&mut self, id: u64) -> bool {
        let Some(record) = self.records.get_mut(&id) else { return false };
        if !matches!(record.state, State::Waiting) {
            return false;
        }
        record.queued = Instant::now();
        record.changed_ms = now_ms();
        self.log(&Entry::Started(id), &[]);
        self.enqueue(id);
        self.pump(true);
        true
    }
}
