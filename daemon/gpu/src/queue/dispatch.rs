//! To the node: which jobs, when, in one message.
//!
//! A job goes to an idle node at once, from the thread that submitted it. While the node works, more follow, so that it never
//! waits and can put small ones into one submit; few enough that priorities and shares still mean something, and that
//! nothing blocks in the socket.

use super::host::NoticeKind;
use super::inner::Inner;
use super::inner::micros;
use super::inner::now_ms;
use super::journal::How;
use super::node::Phase;
use super::node::Sent;
use super::record::Outputs;
use super::record::Record;
use super::record::SMALL;
use super::record::State;
use super::schedule::Turn;
use crate::wire::JobTimes;
use crate::wire::MAX_FILES;
use crate::wire::Payload;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Instant;
use zed_fs::Side;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Step;

/// Bytes that may be on their way to the node: a socket takes as much without waiting.
const WINDOW_BYTES: usize = SMALL as usize;

/// About what the value of a job takes in a message, beside its arrays.
const VALUE_BYTES: usize = 512;

/// Bytes of the shaders that a job brings along: the only part of its value that can be long.
fn sources(job: &Job) -> usize {
    let source = |step: &Step| if let Op::Wgsl { source, .. } = &step.op { source.len() } else { 0 };
    job.steps.iter().map(source).sum()
}

/// `wire::Run` without owning the job. Encoded the same.
#[derive(Serialize)]
struct RunRef<'a> {
    id: u64,
    job: &'a Job,
    on_cpu: bool,
    inputs: Vec<Payload>,
    outputs: Vec<Option<u32>>,
}

/// `wire::ToNode` of those.
#[derive(Serialize)]
enum ToNodeRef<'a> {
    Run(Vec<RunRef<'a>>),
}

/// What is to be done with a job whose turn it is.
enum Decision {
    Device,
    Cpu(String),
    Fail(String),
}

/// A job that goes into the next message, and the files that go with it.
struct Chosen {
    turn: Turn,
    bytes: usize,
    alone: bool,
    files: Vec<File>,
    inputs: Vec<Option<u32>>,
    outputs: Vec<Option<u32>>,
}

impl Inner {
    /// Sends what may be sent now. After the end of a job (`fresh` is false) only when half of the window is free: then
    /// several go together.
    pub(super) fn pump(&mut self, fresh: bool) {
        if self.node.no_cpu {
            self.fail_all_queued();
            return;
        }
        if !fresh && self.node.link.as_ref().is_some_and(|link| link.has() > self.limits.window / 2) {
            return;
        }
        while self.may_send() {
            let chosen = self.choose();
            if chosen.is_empty() {
                return;
            }
            self.send(chosen);
        }
    }

    fn may_send(&self) -> bool {
        let stopped = self.paused || self.stopping || self.restart || self.node.phase == Phase::Lost;
        let link = self.node.link.as_ref();
        !stopped
            && !self.schedule.is_empty()
            && link.is_some_and(|link| {
                link.broken.is_none()
                    && link.stopped.is_none()
                    && !link.alone()
                    && link.has() < self.limits.window
                    && (link.has() == 0 || link.estimate() < self.limits.window_us)
            })
    }

    /// The jobs of the next message.
    fn choose(&mut self) -> Vec<Chosen> {
        let Some(link) = &self.node.link else { return Vec::new() };
        let (mut has, mut bytes, mut estimate) = (link.has(), link.bytes(), link.estimate());
        let cpu_only = link.cpu_only;
        let mut chosen: Vec<Chosen> = Vec::new();
        // Of all that it has: a process may have a thousand files open, not thousands.
        let mut held = link.files();
        let mut files = 0;
        while has < self.limits.window && (has == 0 || estimate < self.limits.window_us) {
            let Some(turn) = self.next_turn() else { break };
            self.cpu_allowed.remove(&turn.id);
            let decision = self.decide(turn.id, cpu_only);
            let Some(record) = self.records.get_mut(&turn.id) else {
                self.schedule.settle(turn, 0);
                continue;
            };
            if let Decision::Fail(error) = decision {
                self.schedule.settle(turn, 0);
                self.fail(turn.id, error);
                continue;
            }
            record.on_cpu = if let Decision::Cpu(why) = decision { Some(why) } else { None };
            let job_bytes = record.raw_bytes() + VALUE_BYTES + sources(&record.job);
            let job_files = if record.has_files() { file_count(record) } else { 0 };
            let fits = bytes + job_bytes <= WINDOW_BYTES && held + job_files <= MAX_FILES && !record.alone;
            if has > 0 && !fits {
                let priority = record.priority;
                if record.allows_cpu() {
                    self.cpu_allowed.insert(turn.id);
                }
                self.schedule.give_back(turn, priority);
                break;
            }
            match self.open_files(turn, job_bytes, files) {
                Ok(one) => {
                    files += one.files.len();
                    held += one.files.len();
                    has += 1;
                    bytes += job_bytes;
                    estimate += turn.charged;
                    let alone = one.alone;
                    chosen.push(one);
                    if alone {
                        break;
                    }
                }
                Err(error) => {
                    self.schedule.settle(turn, 0);
                    self.fail(turn.id, format!("its files cannot be opened: {error}"));
                }
            }
        }
        chosen
    }

    /// Whose turn it is. While the brake is set only jobs that may run on the CPU have one; the others wait for it.
    fn next_turn(&mut self) -> Option<Turn> {
        if self.suspects.brake() && self.suspects.look(now_ms()) {
            self.suspects_changed = true;
            self.wake = true;
            self.notice(NoticeKind::Released, "no longer too many timeouts: the device takes all jobs again");
        }
        let on_device = self.node.link.as_ref().is_some_and(|link| !link.cpu_only);
        if !self.suspects.brake() || !on_device {
            return self.schedule.pop();
        }
        let id = *self.cpu_allowed.first()?;
        let record = self.records.get(&id)?;
        self.schedule.take(record.uid, id, record.priority)
    }

    fn decide(&mut self, id: u64, cpu_only: bool) -> Decision {
        let Some(record) = self.records.get(&id) else { return Decision::Device };
        let why = if cpu_only {
            format!("gpu {} is unusable: {}", self.gpu, self.node.error)
        } else if self.suspects.brake() {
            format!("too many jobs of gpu {} did not end in time; the brake is set", self.gpu)
        } else if self.suspects.any_evicted() {
            let kernels = self.kernels.of(record.shape, &record.job, &self.info.limits);
            let evicted = kernels
                .as_deref()
                .unwrap_or_default()
                .iter()
                .find(|known| self.suspects.get(&known.name).is_some_and(|suspect| suspect.evicted));
            let Some(evicted) = evicted else { return Decision::Device };
            format!(
                "the kernel {} was evicted: it did not end in time three times in a row; `forgive {}` in gpu/{}/ctl \
                 lets it back",
                evicted.name, evicted.name, self.gpu
            )
        } else {
            return Decision::Device;
        };
        if record.allows_cpu() {
            return Decision::Cpu(why);
        }
        // A user's shader has no version for the CPU, and its text may not ask for one.
        let is_users = record.job.steps.iter().any(|step| matches!(step.op, Op::Wgsl { .. }));
        let other = if is_users { "" } else { " (with `fallback: Allow` the job would run on the CPU)" };
        Decision::Fail(format!("{why}{other}"))
    }

    fn open_files(&mut self, turn: Turn, bytes: usize, before: usize) -> io::Result<Chosen> {
        let Some(record) = self.records.get(&turn.id) else { return Err(io::ErrorKind::NotFound.into()) };
        let alone = record.alone;
        let mut chosen =
            Chosen { turn, bytes, alone, files: Vec::new(), inputs: Vec::new(), outputs: Vec::new() };
        let add = |files: &mut Vec<File>, file: File| {
            files.push(file);
            u32::try_from(before + files.len() - 1).ok()
        };
        for ((_, array, _), input) in record.job.inputs().zip(&record.inputs) {
            let number = match record.input_bytes(input) {
                Some(_) => None,
                None => {
                    let file = self.files.open(turn.id, Side::In, &array.name, false)?;
                    add(&mut chosen.files, file)
                }
            };
            chosen.inputs.push(number);
        }
        for (_, array) in record.job.outputs() {
            let number = if record.small_outputs() {
                None
            } else {
                let file = self.files.make(turn.id, Side::Out, &array.name, array.bytes(), &[])?;
                add(&mut chosen.files, file)
            };
            chosen.outputs.push(number);
        }
        Ok(chosen)
    }

    /// One message.
    fn send(&mut self, chosen: Vec<Chosen>) {
        let mut raw: Vec<&[u8]> = Vec::new();
        let mut offset = 0;
        let mut runs = Vec::with_capacity(chosen.len());
        let mut sent = Vec::with_capacity(chosen.len());
        for one in &chosen {
            let Some(record) = self.records.get(&one.turn.id) else { continue };
            let inputs = record.inputs.iter().zip(&one.inputs).map(|(input, file)| match file {
                Some(number) => Payload::File(*number),
                None => {
                    let bytes = record.input_bytes(input).unwrap_or_default();
                    raw.push(bytes);
                    let at = offset;
                    offset += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    Payload::Raw(at)
                }
            });
            let inputs = inputs.collect();
            let (id, on_cpu) = (record.id, record.on_cpu.is_some());
            runs.push(RunRef { id, job: &record.job, on_cpu, inputs, outputs: one.outputs.clone() });
            let (turn, bytes, alone, deadline) = (one.turn, one.bytes, one.alone, record.job.deadline);
            let files = one.files.len();
            sent.push(Sent { id, turn, bytes, files, alone, deadline, cancelled: None });
        }
        let files: Vec<BorrowedFd<'_>> = chosen.iter().flat_map(|one| &one.files).map(AsFd::as_fd).collect();
        let Some(link) = &mut self.node.link else { return };
        if link.has() == 0 {
            link.heard = Instant::now();
        }
        let result = link.sender.send(&ToNodeRef::Run(runs), &raw, &files);
        if let Err(error) = result {
            // It is ended; what it was sent is sent to the next one.
            link.broken = Some(format!("it does not take messages: {error}"));
            self.wake = true;
        }
        for one in &sent {
            if let Some(record) = self.records.get_mut(&one.id) {
                record.state = State::Sent;
                record.queued_us = micros(record.queued.elapsed());
            }
        }
        let look = link.heard + self.limits.stall;
        link.window.extend(sent);
        self.look_by(look);
    }

    /// The device's thread must look again by then.
    pub(super) fn look_by(&mut self, by: Instant) {
        if self.node.next_look.is_none_or(|next| by < next) {
            self.wake = true;
        }
    }

    pub(super) fn fail(&mut self, id: u64, error: String) {
        self.end(id, How::Failed(error), JobTimes::default(), Outputs::Memory(Vec::new()));
    }

    /// The device is unusable, and there is nothing that could run a job on the CPU either.
    fn fail_all_queued(&mut self) {
        while let Some(turn) = self.schedule.pop() {
            self.schedule.settle(turn, 0);
            self.fail(turn.id, format!("gpu {} is unusable: {}", self.gpu, self.node.error));
        }
    }
}

fn file_count(record: &Record) -> usize {
    let inputs = record.inputs.iter().filter(|input| record.input_bytes(input).is_none()).count();
    inputs + if record.small_outputs() { 0 } else { record.job.outputs.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Run;
    use crate::wire::ToNode;
    use std::time::Duration;
    use zed_spec::job::Array;
    use zed_spec::job::ArrayId;
    use zed_spec::job::DType;
    use zed_spec::job::Fallback;
    use zed_spec::job::Op;
    use zed_spec::job::Reply;
    use zed_spec::job::Source;
    use zed_spec::job::Step;
    use zed_spec::job::Unary;

    #[test]
    fn a_job_is_encoded_the_same_without_being_owned() {
        let array = |name: &str| Array { name: name.to_owned(), dtype: DType::F64, shape: vec![3, 4] };
        let job = Job {
            arrays: vec![array("a"), array("b")],
            inputs: vec![Source::Raw],
            steps: vec![Step { op: Op::Unary(Unary::Exp, ArrayId(0)), results: vec![ArrayId(1)] }],
            outputs: vec![ArrayId(1)],
            deadline: Duration::from_millis(1500),
            priority: -7,
            fallback: Fallback::Allow,
            reply: Reply::Raw,
        };
        let inputs = vec![Payload::Raw(300), Payload::File(2)];
        let outputs = vec![None, Some(3)];
        let run =
            RunRef { id: 400, job: &job, on_cpu: true, inputs: inputs.clone(), outputs: outputs.clone() };
        let owned = Run { id: 400, job: job.clone(), on_cpu: true, inputs, outputs };
        assert_eq!(
            postcard::to_allocvec(&ToNodeRef::Run(vec![run])).unwrap(),
            postcard::to_allocvec(&ToNode::Run(vec![owned])).unwrap()
        );
    }
}
