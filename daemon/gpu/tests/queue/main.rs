//! Queues with fake nodes: what is promised of jobs when nodes hang, die and lie, and when zedd is killed.

#![expect(clippy::unwrap_used, reason = "a test stops at what is wrong")]
#![expect(clippy::print_stdout, reason = "a test that does not run says so")]

mod fake;
mod faults;
mod lifecycle;
mod real;
mod restart;
mod shares;

use fake::FakeHost;
use fake::Told;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use zed_ctl::CtlError;
use zed_ctl::GpuJobView;
use zed_ctl::GpuVerb;
use zed_fs::Caller;
use zed_fs::Gpus;
use zed_fs::JobKey;
use zed_fs::Outcome;
use zed_gpu::queue::GpuSet;
use zed_gpu::queue::QueueLimits;
use zed_gpu::queue::Use;

/// Nothing takes that long unless it never happens.
const PATIENCE: Duration = Duration::from_secs(60);

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 0 };

fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, pid: 1 }
}

/// A daemon's GPUs, with a fake host.
struct Bench {
    set: Arc<GpuSet>,
    host: FakeHost,
    told: Told,
}

impl Bench {
    fn on(root: &Path, limits: QueueLimits) -> Self {
        let (host, told) = (FakeHost::default(), Told::default());
        Self::with(root, limits, host, told)
    }

    fn with(root: &Path, limits: QueueLimits, host: FakeHost, told: Told) -> Self {
        let set = GpuSet::open(root, Arc::new(host.clone()), Arc::new(told.clone()), limits).unwrap();
        set.start(Use::Hardware).unwrap();
        let bench = Self { set, host, told };
        bench.until("the device is there", || !bench.set.gpus().is_empty());
        bench
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "{what}: {:?} {:?}", self.set.info(0), self.set.stats(0));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn ready(&self) {
        self.until("the node is ready", || self.set.info(0).is_some_and(|info| info.state == "ready"));
    }

    fn submit(&self, caller: Caller, text: &str) -> u64 {
        self.set.submit(caller, 0, text.as_bytes()).unwrap()
    }

    fn outcome(&self, id: u64) -> Outcome {
        let (sender, receiver) = mpsc::channel();
        self.set.when_ended(key(id), Box::new(move |outcome| drop(sender.send(outcome))));
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("job {id} did not end: {:?}", self.job(id)))
    }

    fn reply(&self, id: u64) -> Result<Arc<[u8]>, CtlError> {
        let (sender, receiver) = mpsc::channel();
        self.set.reply(key(id), Box::new(move |reply| drop(sender.send(reply))));
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("job {id} did not end: {:?}", self.job(id)))
    }

    fn job(&self, id: u64) -> GpuJobView {
        self.set.job(key(id)).unwrap()
    }

    fn say(&self, verb: GpuVerb) {
        self.set.verb(ROOT, 0, None, verb).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.set.stop();
    }
}

fn key(id: u64) -> JobKey {
    JobKey { gpu: 0, id }
}

/// A job of one operation on one array.
fn job(op: &str) -> String {
    format!("(inputs: {{\"a\": F32([1, 2])}}, op: {op}(\"a\"))")
}

fn job_with(op: &str, more: &str) -> String {
    format!("(inputs: {{\"a\": F32([1, 2])}}, op: {op}(\"a\"), {more})")
}
