//! One job as zedd remembers it.
//!
//! Plain values and what can be read off them; the queue's lock is around all of it.

use super::inner::Finished;
use super::journal::End;
use super::journal::Entry;
use super::journal::How;
use super::journal::Snapshot;
use crate::wire::JobTimes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::GpuArrayView;
use zed_ctl::GpuJobView;
use zed_fs::EndDone;
use zed_fs::Outcome;
use zed_fs::ReplyDone;
use zed_fs::Side;
use zed_spec::job::Array;
use zed_spec::job::Fallback;
use zed_spec::job::Job;
use zed_spec::job::Source;

/// Bytes of all inputs, or of all outputs, up to which they stay in memory and in the journal.
pub(super) const SMALL: u64 = 64 << 10;

/// What one job costs in memory beside its text and its arrays, about.
const OVERHEAD: u64 = 1024;

/// Where an input is.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// It was in the text.
    Memory(Arc<[u8]>),
    /// It followed the text.
    Bytes(Range<usize>),
    /// `in/NAME`.
    File,
}

/// Where the outputs of a job that is done are.
#[derive(Debug, Clone)]
pub(super) enum Outputs {
    /// Here, in order.
    Memory(Vec<Arc<[u8]>>),
    /// `out/NAME`.
    Files,
}

/// How far a job is.
#[derive(Debug)]
pub(super) enum State {
    /// For its inputs.
    Waiting,
    /// In the schedule.
    Queued,
    /// The node has it, and has not begun it.
    Sent,
    /// The node has begun it.
    Running,
    /// It has ended.
    Ended(End, Outputs),
}

/// Who is told the end of a job.
pub(super) enum Waiter {
    /// The handle that submitted it.
    Reply(ReplyDone),
    /// A reader of `wait`.
    End(EndDone),
}

/// One job.
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) at_ms: i64,
    pub(super) changed_ms: i64,
    pub(super) job: Arc<Job>,
    /// What was written, without what is files now.
    pub(super) bytes: Arc<[u8]>,
    /// Bytes that followed the text and are files now.
    pub(super) tail: u64,
    pub(super) inputs: Vec<Input>,
    pub(super) state: State,
    pub(super) priority: i8,
    /// Names what decides the job's program.
    pub(super) shape: u64,
    pub(super) submitted: Instant,
    pub(super) queued: Instant,
    pub(super) queued_us: u64,
    pub(super) attempts: u32,
    /// How often zedd died while it ran.
    pub(super) interrupted: u32,
    /// It is run with nothing beside it: it was running beside something that did not end.
    pub(super) alone: bool,
    /// Why it is run on the CPU.
    pub(super) on_cpu: Option<String>,
    pub(super) waiters: Vec<Waiter>,
}

impl Record {
    /// What it costs in memory, about: the text once as it was written and once as a value.
    pub(super) fn cost(&self) -> u64 {
        let memory = |input: &Input| if let Input::Memory(bytes) = input { bytes.len() as u64 } else { 0 };
        let inputs: u64 = self.inputs.iter().map(memory).sum();
        let outputs = if self.small_outputs() { self.job.output_bytes() } else { 0 };
        OVERHEAD + 2 * self.bytes.len() as u64 + inputs + outputs
    }

    /// Its outputs come back in the message.
    pub(super) fn small_outputs(&self) -> bool {
        self.job.output_bytes() <= SMALL
    }

    /// Some of its arrays are files.
    pub(super) fn has_files(&self) -> bool {
        !self.small_outputs() || self.inputs.iter().any(|input| matches!(input, Input::File))
    }

    /// Bytes of its inputs that travel in the message.
    pub(super) fn raw_bytes(&self) -> usize {
        self.inputs.iter().filter_map(|input| self.input_bytes(input)).map(<[u8]>::len).sum()
    }

    /// An input that is in memory.
    pub(super) fn input_bytes<'a>(&'a self, input: &'a Input) -> Option<&'a [u8]> {
        match input {
            Input::Memory(bytes) => Some(bytes),
            Input::Bytes(range) => self.bytes.get(range.clone()),
            Input::File => None,
        }
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self.state, State::Ended(..))
    }

    pub(super) fn allows_cpu(&self) -> bool {
        self.job.fallback == Fallback::Allow
    }

    fn state_word(&self) -> &'static str {
        match &self.state {
            State::Waiting => "waiting",
            State::Queued | State::Sent => "queued",
            State::Running => "running",
            State::Ended(end, _) => match end.how {
                How::Done { .. } => "done",
                How::Failed(_) => "failed",
                How::Cancelled => "cancelled",
            },
        }
    }

    /// `status`.
    pub(super) fn view(&self, device: &str) -> GpuJobView {
        let ops: Vec<&str> = self.job.steps.iter().map(|step| step.op.name()).collect();
        let mut view = GpuJobView {
            id: self.id,
            state: self.state_word().to_owned(),
            uid: self.uid,
            priority: self.priority,
            ops: ops.join(" "),
            submitted_at: self.at_ms.div_euclid(1000),
            queued_us: self.queued_us,
            attempts: self.attempts,
            inputs: self.job.inputs().map(|(_, array, source)| array_view(array, Some(source))).collect(),
            outputs: self.job.outputs().map(|(_, array)| array_view(array, None)).collect(),
            ..GpuJobView::default()
        };
        if let State::Running = self.state {
            view.ran_on = if self.on_cpu.is_some() { "cpu" } else { "gpu" }.to_owned();
            view.fallback = self.on_cpu.clone().unwrap_or_default();
        }
        if let State::Ended(end, _) = &self.state {
            view.ended_at = end.at_ms.div_euclid(1000);
            view.queued_us = end.queued_us;
            view.compile_us = end.compile_us;
            view.device_us = end.device_us;
            view.attempts = end.attempts;
            match &end.how {
                How::Done { on_cpu, fallback } => {
                    view.ran_on = if *on_cpu { "cpu" } else { "gpu" }.to_owned();
                    view.fallback.clone_from(fallback);
                    if !on_cpu {
                        device.clone_into(&mut view.device);
                    }
                }
                How::Failed(error) => view.error.clone_from(error),
                How::Cancelled => {}
            }
        }
        view
    }

    /// How it ended, for those who wait; nothing while it has not.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let State::Ended(end, _) = &self.state else { return None };
        Some(match &end.how {
            How::Done { .. } => Ok("done\n".to_owned()),
            How::Failed(error) => Err(self.not_done(format!("job {}: {error}", self.id))),
            How::Cancelled => Err(self.not_done(format!("job {} was cancelled", self.id))),
        })
    }

    fn not_done(&self, text: String) -> CtlError {
        CtlError::new(Code::Failed, text).hint(format!("jobs/{}/status says what it was", self.id))
    }

    /// Its end, for those who wait; nothing while it has not ended.
    pub(super) fn finished(&self) -> Option<Finished> {
        let State::Ended(_, outputs) = &self.state else { return None };
        let outcome = self.outcome()?;
        Some(Finished { id: self.id, job: Arc::clone(&self.job), outcome, outputs: outputs.clone() })
    }

    /// It has outputs.
    pub(super) fn done(&self) -> bool {
        matches!(&self.state, State::Ended(End { how: How::Done { .. }, .. }, _))
    }

    /// No node has begun it.
    pub(super) fn not_begun(&self) -> bool {
        matches!(self.state, State::Waiting | State::Queued | State::Sent)
    }

    /// An array that is in memory; nothing when it is a file.
    ///
    /// # Errors
    /// There is none of that name, or not yet; it cannot be written (any more).
    pub(super) fn buffer(&self, side: Side, name: &str, write: bool) -> Result<Option<Arc<[u8]>>, CtlError> {
        let none = || CtlError::new(Code::NotFound, format!("job {} has no array `{name}` there", self.id));
        match side {
            Side::In => {
                let mut inputs = self.job.inputs().zip(&self.inputs);
                let ((_, _, source), input) =
                    inputs.find(|((_, array, _), _)| array.name == name).ok_or_else(none)?;
                if write && source != Source::Upload {
                    let text = format!("`{name}` of job {} came with the job", self.id);
                    return Err(CtlError::new(Code::NotPermitted, text));
                }
                if write && !matches!(self.state, State::Waiting) {
                    let text = format!("job {} is {}: its inputs are complete", self.id, self.state_word());
                    return Err(CtlError::new(Code::Busy, text));
                }
                Ok(self.input_bytes(input).map(Arc::from))
            }
            Side::Out => {
                let place = self.job.outputs().position(|(_, array)| array.name == name).ok_or_else(none)?;
                if write {
                    let text = format!("`{name}` of job {} is a result", self.id);
                    return Err(CtlError::new(Code::NotPermitted, text));
                }
                match &self.state {
                    State::Ended(End { how: How::Done { .. }, .. }, Outputs::Memory(outputs)) => {
                        Ok(Some(outputs.get(place).cloned().ok_or_else(none)?))
                    }
                    State::Ended(End { how: How::Done { .. }, .. }, Outputs::Files) => Ok(None),
                    _ => {
                        let text = format!("job {} is {}: it has no results", self.id, self.state_word());
                        Err(CtlError::new(Code::NotFound, text))
                    }
                }
            }
        }
    }

    /// Its end as it is kept.
    pub(super) fn end_of(&self, how: How, times: JobTimes, at_ms: i64) -> End {
        let device_us = times.device;
        End {
            at_ms,
            how,
            queued_us: self.queued_us,
            compile_us: times.compile,
            device_us,
            attempts: self.attempts,
            outputs: Vec::new(),
        }
    }

    /// All that has to be known of it, as entries.
    pub(super) fn snapshot(&self, into: &mut Snapshot) {
        let (id, uid, gid, at_ms, tail) = (self.id, self.uid, self.gid, self.at_ms, self.tail);
        into.push((Entry::Submitted { id, uid, gid, at_ms, tail }, vec![Arc::clone(&self.bytes)]));
        if self.interrupted > 0 {
            into.push((Entry::Interrupted(id, self.interrupted), Vec::new()));
        }
        if self.priority != self.job.priority {
            into.push((Entry::Priority(id, self.priority), Vec::new()));
        }
        let uploads = self.job.inputs.contains(&Source::Upload);
        if uploads && !matches!(self.state, State::Waiting) {
            into.push((Entry::Started(id), Vec::new()));
        }
        match &self.state {
            State::Waiting | State::Queued | State::Sent => {}
            State::Running => into.push((Entry::Begun(vec![id]), Vec::new())),
            State::Ended(end, outputs) => {
                let raw = if let Outputs::Memory(raw) = outputs { raw.clone() } else { Vec::new() };
                into.push((Entry::Ended(id, end.clone()), raw));
            }
        }
    }
}

fn array_view(array: &Array, source: Option<Source>) -> GpuArrayView {
    let source = match source {
        Some(Source::Text) => "text",
        Some(Source::Raw) => "raw",
        Some(Source::Upload) => "upload",
        None => "",
    };
    GpuArrayView {
        name: array.name.clone(),
        dtype: array.dtype.name().to_owned(),
        shape: array.shape.clone(),
        bytes: array.bytes(),
        source: source.to_owned(),
    }
}
