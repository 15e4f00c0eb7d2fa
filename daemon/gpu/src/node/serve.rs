//! The loop of a node: takes jobs from the socket, runs them in their order, says how they went.
//!
//! A job that is wrong fails; only the loss of the device and the end of the socket end the loop. Jobs that are small and
//! already there share a submit.

use super::batch::Batch;
use super::batch::MAX_JOBS;
use super::engine::Engine;
use super::engine::Output;
use super::engine::Running;
use super::error::JobError;
use super::message::Failure;
use super::message::Message;
use super::message::Waiting;
use super::process::Presence;
use super::start::micros;
use crate::ops;
use crate::program::KernelId;
use crate::vk::VkError;
use crate::wire::FromNode;
use crate::wire::JobTimes;
use crate::wire::Receiver;
use crate::wire::Sender;
use crate::wire::ToNode;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

/// How long a node is idle before it writes a pipeline cache that has something new.
const QUIET: Duration = Duration::from_secs(2);

/// How long it waits for that when it is never idle.
const NEVER_QUIET: Duration = Duration::from_secs(60);

/// How long it is idle before it gives up the memory that it keeps for the next jobs, if that is much.
const IDLE: Duration = Duration::from_secs(30);

/// So many bytes are much.
const MUCH: u64 = 256 << 20;

/// How long jobs may take before it is said that they began. Deadlines are longer by this.
const PATIENCE: Duration = Duration::from_millis(1);

/// Why the loop ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was told to.
    Stop,
    /// Nobody is there any more.
    Closed,
    /// The device is lost, and that was said.
    Lost,
    /// The socket failed, or what came is no message.
    Socket(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                End::Closed
            }
            _ => End::Socket(error),
        }
    }
}

/// A job of a submit, or one that failed before it.
struct Entry {
    waiting: Waiting,
    state: Result<Running, Failure>,
    /// That it began was said already.
    began: bool,
}

/// The node.
pub(super) struct Node {
    engine: Engine,
    sender: Sender,
    receiver: Receiver,
    presence: Arc<Presence>,
    waiting: VecDeque<Waiting>,
    stop: bool,
    saved: Instant,
}

impl Node {
    /// On a device that is open.
    pub(super) fn new(engine: Engine, sender: Sender, receiver: Receiver, presence: Arc<Presence>) -> Self {
        let (waiting, stop, saved) = (VecDeque::new(), false, Instant::now());
        Self { engine, sender, receiver, presence, waiting, stop, saved }
    }

    /// Keeps the caches, and ends.
    pub(super) fn close(self) {
        self.engine.close();
    }

    /// Serves until there is a reason to end.
    pub(super) fn serve(&mut self) -> End {
        loop {
            if let Err(end) = self.turn() {
                return end;
            }
        }
    }

    fn turn(&mut self) -> Result<(), End> {
        self.receive()?;
        if self.presence.gone() {
            return Err(End::Closed);
        }
        match self.waiting.front() {
            Some(next) if next.run.on_cpu => self.on_cpu(),
            Some(_) => self.on_device(),
            None if self.stop => Err(End::Stop),
            None => Ok(()),
        }
    }

    /// Takes what is there; waits only when there is nothing to do.
    fn receive(&mut self) -> Result<(), End> {
        if self.engine.unsaved() && self.saved.elapsed() > NEVER_QUIET {
            self.save();
        }
        if self.waiting.is_empty() && !self.stop {
            if self.engine.unsaved() && !self.receiver.wait(Some(QUIET))? {
                self.save();
            }
            if self.engine.memory().device.held > MUCH && !self.receiver.wait(Some(IDLE))? {
                self.engine.forget_idle();
            }
            self.take()?;
        }
        while self.waiting.len() < MAX_JOBS && !self.stop && self.receiver.wait(Some(Duration::ZERO))? {
            self.take()?;
        }
        Ok(())
    }

    fn save(&mut self) {
        self.engine.save();
        self.saved = Instant::now();
    }

    fn take(&mut self) -> Result<(), End> {
        let received = self.receiver.receive::<ToNode>()?.ok_or(End::Closed)?;
        match received.value {
            ToNode::Stop => self.stop = true,
            ToNode::Run(runs) => {
                let files = received.files.into_iter().map(File::from).collect();
                let from = Rc::new(Message { raw: received.raw, files });
                self.waiting.extend(runs.into_iter().map(|run| Waiting { run, from: Rc::clone(&from) }));
            }
        }
        Ok(())
    }

    /// Runs the first jobs that wait, in one submit.
    fn on_device(&mut self) -> Result<(), End> {
        let mut entries = self.gather()?;
        let runs = entries.iter().filter(|entry| entry.state.is_ok());
        let batch = u32::try_from(runs.clone().count()).unwrap_or(u32::MAX);
        let ids: Vec<u64> = runs.filter(|entry| !entry.began).map(|entry| entry.waiting.run.id).collect();
        let (mut began, mut device) = ((!ids.is_empty()).then_some(FromNode::Began(ids)), 0);
        if batch > 0 {
            let mut running: Vec<&mut Running> =
                entries.iter_mut().filter_map(|entry| entry.state.as_mut().ok()).collect();
            let started = Instant::now();
            let mut sent = Ok(());
            // What takes long is said to have begun, so that its deadline is watched; of the rest both is said at once,
            // because waking somebody up costs as much as a small job.
            let result = self.engine.run_with(&mut running, PATIENCE, || {
                sent = began.take().map_or(Ok(()), |began| self.sender.send(&began, &[], &[]));
            });
            device = micros(started);
            match result {
                Ok(()) => sent?,
                Err(JobError::Device(VkError::Lost(call))) => return self.lost(began, call),
                Err(error) => {
                    let failure = Failure::of(&error);
                    let running = entries.iter_mut().filter(|entry| entry.state.is_ok());
                    running.for_each(|entry| entry.state = Err(failure.clone()));
                }
            }
        }
        let answers = entries.iter().map(|entry| answer(entry, device, batch));
        let messages: Vec<_> = began.into_iter().map(|began| (began, Vec::new())).chain(answers).collect();
        let borrowed: Vec<(&FromNode, Vec<&[u8]>)> = messages
            .iter()
            .map(|(message, raw)| (message, raw.iter().map(AsRef::as_ref).collect()))
            .collect();
        self.sender.send_many(&borrowed)?;
        drop(borrowed);
        drop(messages);
        for running in entries.into_iter().filter_map(|entry| entry.state.ok()) {
            self.engine.end(running);
        }
        Ok(())
    }

    fn lost<T>(&mut self, began: Option<FromNode>, call: &str) -> Result<T, End> {
        let lost = FromNode::Lost(format!("the device was lost in {call}"));
        // Whether or not anybody hears it.
        for message in began.iter().chain([&lost]) {
            let _ = self.sender.send(message, &[], &[]);
        }
        Err(End::Lost)
    }

    /// Prepares the jobs of the next submit; at least one.
    fn gather(&mut self) -> Result<Vec<Entry>, End> {
        let mut batch = Batch::default();
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(next) = self.waiting.pop_front() {
            if next.run.on_cpu || !batch.admit(&next.run.job) {
                self.waiting.push_front(next);
                break;
            }
            let mut began = false;
            let state = match self.prepare(&next, &mut began)? {
                Err(Unprepared::Lost(call)) => return self.lost(None, call),
                // Those before it hold memory, which they give back after their run.
                Err(Unprepared::Memory(_)) if entries.iter().any(|entry| entry.state.is_ok()) => {
                    self.waiting.push_front(next);
                    break;
                }
                Err(Unprepared::Memory(failure) | Unprepared::Failed(failure)) => Err(failure),
                Ok(running) => Ok(running),
            };
            entries.push(Entry { waiting: next, state, began });
        }
        Ok(entries)
    }

    /// Gives a job its memory and reads its inputs. Of a user's job it is said that it began before its kernels are
    /// compiled, so that its deadline watches the compilers too.
    fn prepare(&mut self, waiting: &Waiting, began: &mut bool) -> Result<Result<Running, Unprepared>, End> {
        if let Err(failure) = waiting.check() {
            return Ok(Err(Unprepared::Failed(failure)));
        }
        let id = waiting.run.id;
        let mut said = Ok(());
        let planned = |kernels: &[KernelId], user: bool| {
            *began = user;
            let kernels = (FromNode::Kernels { id, kernels: kernels.to_vec() }, Vec::new());
            let messages =
                std::iter::once(kernels).chain(user.then(|| (FromNode::Began(vec![id]), Vec::new())));
            said = self.sender.send_many(&messages.collect::<Vec<_>>());
        };
        // What a fault of ours makes of one job must not take the others along.
        let begun = catch_unwind(AssertUnwindSafe(|| self.engine.begin_with(&waiting.run.job, planned)));
        said?;
        let mut running = match begun {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => {
                return Ok(Err(match &error {
                    JobError::Device(VkError::Lost(call)) => Unprepared::Lost(call),
                    JobError::Device(VkError::Memory { .. }) => Unprepared::Memory(Failure::of(&error)),
                    _ => Unprepared::Failed(Failure::of(&error)),
                }));
            }
            Err(_) => {
                return Ok(Err(Unprepared::Failed(Failure::new("preparing the job panicked; report this"))));
            }
        };
        match waiting.fill(&mut running) {
            Ok(()) => Ok(Ok(running)),
            Err(failure) => {
                self.engine.end(running);
                Ok(Err(Unprepared::Failed(failure)))
            }
        }
    }

    /// Computes the first job that waits without the device.
    fn on_cpu(&mut self) -> Result<(), End> {
        let Some(waiting) = self.waiting.pop_front() else { return Ok(()) };
        let id = waiting.run.id;
        self.sender.send(&FromNode::Began(vec![id]), &[], &[])?;
        let started = Instant::now();
        match compute_on_cpu(&waiting) {
            Ok((outputs, kept)) => {
                let times = JobTimes { device: micros(started), batch: 1, ..JobTimes::default() };
                let raw: Vec<&[u8]> = kept.iter().map(Vec::as_slice).collect();
                Ok(self.sender.send(&FromNode::Done { id, outputs, times, on_cpu: true }, &raw, &[])?)
            }
            Err(Failure { error, kernel }) => {
                Ok(self.sender.send(&FromNode::Failed { id, error, kernel }, &[], &[])?)
            }
        }
    }
}

/// Why a job is not ready to run.
enum Unprepared {
    Failed(Failure),
    Memory(Failure),
    Lost(&'static str),
}

/// What is said of a job after its run, with the bytes that go with it.
fn answer(entry: &Entry, device: u64, batch: u32) -> (FromNode, Vec<Cow<'_, [u8]>>) {
    let id = entry.waiting.run.id;
    let done = entry.state.as_ref().map_err(Clone::clone).and_then(|running| {
        let (outputs, raw) = collect(&entry.waiting, running)?;
        let prepared = &running.prepared;
        let times = JobTimes {
            compile: prepared.compile,
            device,
            batch,
            cache_hits: prepared.cache_hits,
            pipelines: prepared.pipelines,
            shader_hits: prepared.shader_hits,
        };
        Ok((FromNode::Done { id, outputs, times, on_cpu: false }, raw))
    });
    done.unwrap_or_else(|Failure { error, kernel }| (FromNode::Failed { id, error, kernel }, Vec::new()))
}

/// Where in the raw bytes each output begins, and the pieces of these.
pub(super) type Outputs<T> = (Vec<Option<u32>>, Vec<T>);

/// Writes outputs to their files, and hands back the others.
fn collect<'a>(waiting: &'a Waiting, running: &'a Running) -> Result<Outputs<Cow<'a, [u8]>>, Failure> {
    let (mut places, mut raw, mut length) = (Vec::new(), Vec::new(), 0);
    for output in 0..running.output_bytes().len() {
        let bytes = match running.output(output) {
            Some(Output::Bytes(bytes)) => Cow::Borrowed(bytes),
            Some(Output::Input(input)) => {
                waiting.input(input, running.input_bytes().get(input).copied().unwrap_or(0))?
            }
            None => return Err(Failure::new(format!("output {output} cannot be read"))),
        };
        place(waiting, output, bytes, (&mut places, &mut raw, &mut length))?;
    }
    Ok((places, raw))
}

/// Puts one output into its file or to the raw bytes.
fn place<T: AsRef<[u8]>>(
    waiting: &Waiting,
    output: usize,
    bytes: T,
    (places, raw, length): (&mut Vec<Option<u32>>, &mut Vec<T>, &mut u32),
) -> Result<(), Failure> {
    if waiting.write(output, bytes.as_ref())? {
        places.push(None);
        return Ok(());
    }
    places.push(Some(*length));
    // Bounded by what a message holds.
    *length = length.saturating_add(u32::try_from(bytes.as_ref().len()).unwrap_or(u32::MAX));
    raw.push(bytes);
    Ok(())
}

/// Computes a job by the reference implementation.
pub(super) fn compute_on_cpu(waiting: &Waiting) -> Result<Outputs<Vec<u8>>, Failure> {
    waiting.check()?;
    let job = &waiting.run.job;
    let inputs: Vec<Cow<'_, [u8]>> = job
        .inputs()
        .enumerate()
        .map(|(number, (_, array, _))| waiting.input(number, array.bytes()))
        .collect::<Result<_, _>>()?;
    let inputs: Vec<&[u8]> = inputs.iter().map(AsRef::as_ref).collect();
    let computed = catch_unwind(AssertUnwindSafe(|| ops::on_cpu(job, &inputs)));
    let computed = computed.map_err(|_| Failure::new("computing the job panicked; report this"))?;
    let computed = computed.map_err(|error| Failure::new(error.to_string()))?;
    let (mut places, mut raw, mut length) = (Vec::new(), Vec::new(), 0);
    for (output, bytes) in computed.into_iter().enumerate() {
        place(waiting, output, bytes, (&mut places, &mut raw, &mut length))?;
    }
    Ok((places, raw))
}
