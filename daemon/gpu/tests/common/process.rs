//! A node as a process, and what is said to it.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use zed_gpu::wire::CacheState;
use zed_gpu::wire::FromNode;
use zed_gpu::wire::JobTimes;
use zed_gpu::wire::Payload;
use zed_gpu::wire::Received;
use zed_gpu::wire::Receiver;
use zed_gpu::wire::Run;
use zed_gpu::wire::Sender;
use zed_gpu::wire::StartTimes;
use zed_gpu::wire::ToNode;
use zed_gpu::wire::split;
use zed_spec::job::Job;

/// A process. Killed when it goes out of scope.
pub(crate) struct Process(pub(crate) Child);

/// A node.
pub(crate) struct Node {
    pub(crate) child: Process,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    seen: VecDeque<Received<FromNode>>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    Done(Vec<Option<Vec<u8>>>, JobTimes),
    Failed(String, Option<String>),
}

/// The program of this crate.
pub(crate) fn command() -> Command {
    #[expect(clippy::disallowed_methods, reason = "a test starts the program that it tests")]
    let command = Command::new(env!("CARGO_BIN_EXE_zed-gpu-node"));
    command
}

/// Ends within ten seconds, or is said not to.
pub(crate) fn ended(Process(child): &mut Process) -> Option<ExitStatus> {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

impl Node {
    /// Starts one on the first device, with its caches in a folder.
    pub(crate) fn start(cache: &Path) -> Self {
        let cache = cache.to_str().unwrap();
        Self::start_with(&["--rank", "0", "--allow-cpu", "--cache", cache], |_| ())
    }

    /// Starts one with such arguments and environment.
    pub(crate) fn start_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let (ours, its) = UnixStream::pair().unwrap();
        let mut command = command();
        command.arg("node").args(arguments).stdin(Stdio::from(OwnedFd::from(its)));
        change(&mut command);
        let child = Process(command.spawn().unwrap());
        let (sender, receiver) = split(ours).unwrap();
        Self { child, sender, receiver, seen: VecDeque::new() }
    }

    /// What it says next; nothing when it says nothing for so long, or ended.
    pub(crate) fn next(&mut self, time: Duration) -> Option<Received<FromNode>> {
        if let Some(seen) = self.seen.pop_front() {
            return Some(seen);
        }
        if !self.receiver.wait(Some(time)).unwrap() {
            return None;
        }
        self.receiver.receive().unwrap()
    }

    /// The first thing that it says.
    pub(crate) fn first(&mut self) -> FromNode {
        self.next(Duration::from_secs(60)).expect("a node says at first how it is").value
    }

    /// It is ready.
    pub(crate) fn ready(&mut self) -> (StartTimes, CacheState) {
        match self.first() {
            FromNode::Ready { times, cache, .. } => (times, cache),
            other => panic!("{other:?}"),
        }
    }

    /// Sends jobs in one message, all of their arrays in it.
    pub(crate) fn send(&mut self, jobs: &[(u64, &Job, &[&[u8]])]) {
        let mut raw: Vec<&[u8]> = Vec::new();
        let mut length = 0;
        let mut runs = Vec::new();
        for (id, job, inputs) in jobs {
            let mut payloads = Vec::new();
            for input in *inputs {
                payloads.push(Payload::Raw(length));
                length += u32::try_from(input.len()).unwrap();
                raw.push(input);
            }
            let outputs = vec![None; job.outputs.len()];
            runs.push(Run { id: *id, job: (*job).clone(), on_cpu: false, inputs: payloads, outputs });
        }
        self.sender.send(&ToNode::Run(runs), &raw, &[]).unwrap();
    }

    /// Sends one run with files.
    pub(crate) fn send_run(&mut self, run: Run, raw: &[u8], files: &[BorrowedFd<'_>]) {
        self.sender.send(&ToNode::Run(vec![run]), &[raw], files).unwrap();
    }

    /// How the next job ends, and which it is. Skips what is said before.
    pub(crate) fn end_of_next(&mut self, time: Duration) -> Option<(u64, Ended)> {
        loop {
            let said = self.next(time)?;
            match said.value {
                FromNode::Began(_) | FromNode::Kernels { .. } => {}
                FromNode::Done { id, outputs, times, .. } => {
                    let mut ends: Vec<usize> =
                        outputs.iter().flatten().map(|begin| *begin as usize).collect();
                    ends.push(said.raw.len());
                    let mut ends = ends.into_iter().skip(1);
                    let pieces = outputs
                        .iter()
                        .map(|begin| {
                            begin.map(|begin| said.raw[begin as usize..ends.next().unwrap()].to_vec())
                        })
                        .collect();
                    return Some((id, Ended::Done(pieces, times)));
                }
                FromNode::Failed { id, error, kernel } => {
                    return Some((id, Ended::Failed(error, kernel.map(|kernel| kernel.to_string()))));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Runs one job, and gives its only output.
    pub(crate) fn compute(&mut self, job: &Job, inputs: &[&[u8]]) -> (Vec<u8>, JobTimes) {
        self.send(&[(1, job, inputs)]);
        match self.end_of_next(Duration::from_secs(60)) {
            Some((1, Ended::Done(mut outputs, times))) => (outputs.remove(0).unwrap(), times),
            other => panic!("{other:?}"),
        }
    }

    /// Closes the socket, as the end of zedd does.
    pub(crate) fn abandon(self) -> Process {
        self.child
    }

    /// Tells it to end.
    pub(crate) fn stop(mut self) {
        self.sender.send(&ToNode::Stop, &[], &[]).unwrap();
        let status = ended(&mut self.child).expect("it ends when it is told to");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
