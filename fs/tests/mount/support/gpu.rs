//! GPUs for tests: jobs that end when the test says so, arrays in real files.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::SystemTime;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::GpuJobView;
use zed_ctl::GpuStats;
use zed_ctl::GpuSuspects;
use zed_ctl::GpuVerb;
use zed_ctl::GpuView;
use zed_ctl::ShaderView;
use zed_fs::BufferContent;
use zed_fs::BufferPlace;
use zed_fs::Caller;
use zed_fs::EndDone;
use zed_fs::Gpus;
use zed_fs::JobKey;
use zed_fs::JobPlace;
use zed_fs::ReplyDone;
use zed_fs::Side;

/// Bytes of the arrays of a job.
pub(crate) const ARRAY: u64 = 1 << 20;

struct Job {
    caller: Caller,
    written: Vec<u8>,
    ended: bool,
    replies: Vec<ReplyDone>,
    waiters: Vec<EndDone>,
}

/// Takes `Job(...)`. One that says `slow` ends when the test wants, others at once; one that says `text` replies with
/// its result instead of its id; `Raw(N)` takes N bytes; what says `bad` is none; `full` is not taken while it is full.
pub(crate) struct FakeGpus {
    jobs: Mutex<BTreeMap<u64, Job>>,
    next: AtomicU64,
    pub(crate) full: AtomicBool,
    pub(crate) commits: AtomicU64,
    folder: PathBuf,
}

impl FakeGpus {
    /// Arrays are files in this folder.
    pub(crate) fn new(folder: PathBuf) -> Arc<Self> {
        std::fs::create_dir_all(&folder).unwrap();
        Arc::new(Self {
            jobs: Mutex::default(),
            next: AtomicU64::new(1),
            full: AtomicBool::new(true),
            commits: AtomicU64::new(0),
            folder,
        })
    }

    /// What was handed over, job by job.
    pub(crate) fn written(&self) -> Vec<Vec<u8>> {
        self.jobs.lock().values().map(|job| job.written.clone()).collect()
    }

    pub(crate) fn forget(&self) {
        self.jobs.lock().clear();
    }

    /// Fills the list with jobs that have ended.
    pub(crate) fn fill(&self, count: u64) {
        let caller = Caller { uid: 0, gid: 0, pid: 1 };
        for _ in 0..count {
            self.add(caller, b"Job()");
        }
    }

    pub(crate) fn end(&self, id: u64) {
        let (written, replies, waiters) = {
            let mut jobs = self.jobs.lock();
            let job = jobs.get_mut(&id).unwrap();
            job.ended = true;
            (job.written.clone(), std::mem::take(&mut job.replies), std::mem::take(&mut job.waiters))
        };
        for done in replies {
            done(reply(id, &written));
        }
        for done in waiters {
            done(outcome(&written));
        }
    }

    fn add(&self, caller: Caller, written: &[u8]) -> u64 {
        let id = self.next.fetch_add(1, SeqCst);
        let ended = !has(written, "slow");
        let job = Job { caller, written: written.to_vec(), ended, replies: Vec::new(), waiters: Vec::new() };
        self.jobs.lock().insert(id, job);
        id
    }

    fn of<T>(&self, key: JobKey, what: impl FnOnce(&Job) -> T) -> Option<T> {
        self.jobs.lock().get(&key.id).filter(|_| key.gpu == 0).map(what)
    }

    fn array(&self, key: JobKey, side: Side) -> File {
        let path = self.folder.join(format!("{}-{side:?}", key.id));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(ARRAY).unwrap();
        file
    }
}

fn has(written: &[u8], word: &str) -> bool {
    written.windows(word.len()).any(|part| part == word.as_bytes())
}

fn reply(id: u64, written: &[u8]) -> Result<Arc<[u8]>, CtlError> {
    if has(written, "boom") {
        return Err(CtlError::new(Code::Failed, format!("job {id}: it burst")));
    }
    let text = if has(written, "long") { "x".repeat(300_000) + "\n" } else { format!("result of {id}\n") };
    let text = if has(written, "text") { text } else { format!("{id}\n") };
    Ok(text.into_bytes().into())
}

fn outcome(written: &[u8]) -> zed_fs::Outcome {
    if has(written, "boom") { Err(CtlError::new(Code::Failed, "it burst")) } else { Ok("done".to_owned()) }
}

fn judge(text: &[u8]) -> Result<(), CtlError> {
    if has(text, "bad") || !text.trim_ascii_end().ends_with(b")") {
        return Err(CtlError::new(Code::BadSpec, "job:1:5: this is bad"));
    }
    Ok(())
}

impl Gpus for FakeGpus {
    fn gpus(&self) -> Vec<u32> {
        vec![0]
    }

    fn info(&self, gpu: u32) -> Option<GpuView> {
        (gpu == 0).then(|| GpuView { model: "fake".to_owned(), ..GpuView::default() })
    }

    fn stats(&self, gpu: u32) -> Option<GpuStats> {
        (gpu == 0).then(|| GpuStats { kept: self.jobs.lock().len() as u64, ..GpuStats::default() })
    }

    fn suspects(&self, gpu: u32) -> Option<GpuSuspects> {
        (gpu == 0).then(GpuSuspects::default)
    }

    fn shaders(&self, _gpu: u32) -> Vec<String> {
        vec!["add.f32".to_owned()]
    }

    fn shader(&self, gpu: u32, name: &str) -> Option<ShaderView> {
        (gpu == 0 && name == "add.f32").then(|| ShaderView {
            name: name.to_owned(),
            state: "ok".to_owned(),
            ..ShaderView::default()
        })
    }

    fn jobs(&self, _gpu: u32) -> Vec<u64> {
        self.jobs.lock().keys().copied().collect()
    }

    fn job_place(&self, key: JobKey) -> Option<JobPlace> {
        let changed = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        self.of(key, |job| JobPlace { uid: job.caller.uid, gid: job.caller.gid, changed })
    }

    fn job(&self, key: JobKey) -> Option<GpuJobView> {
        self.of(key, |job| GpuJobView {
            id: key.id,
            state: if job.ended { "done" } else { "running" }.to_owned(),
            ended_at: i64::from(job.ended) * 1_700_000_000,
            ..GpuJobView::default()
        })
    }

    fn result(&self, key: JobKey) -> Option<Arc<[u8]>> {
        self.of(key, |job| {
            let text = if job.ended { format!("result of {}\n", key.id) } else { String::new() };
            text.into_bytes().into()
        })
    }

    fn buffers(&self, key: JobKey, side: Side) -> Option<Vec<BufferPlace>> {
        self.of(key, |job| {
            let place = |name: &str, writable| BufferPlace { name: name.to_owned(), bytes: ARRAY, writable };
            match side {
                Side::In => vec![place("a", !job.ended)],
                Side::Out if job.ended => vec![place("c", false)],
                Side::Out => Vec::new(),
            }
        })
    }

    fn open_buffer(
        &self,
        key: JobKey,
        side: Side,
        name: &str,
        write: bool,
    ) -> Result<BufferContent, CtlError> {
        let job = self.of(key, |job| (job.ended, has(&job.written, "small")));
        let (ended, small) =
            job.ok_or_else(|| CtlError::new(Code::NotFound, format!("there is no job {}", key.id)))?;
        if write && ended {
            return Err(CtlError::new(Code::Busy, format!("in/{name}: job {} has been started", key.id)));
        }
        let mut file = self.array(key, side);
        if !small {
            return Ok(BufferContent::File(file));
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        Ok(BufferContent::Memory(bytes.into()))
    }

    fn raw_bytes(&self, _gpu: u32, text: &[u8]) -> Result<u64, CtlError> {
        judge(text)?;
        let text = std::str::from_utf8(text).unwrap();
        let raw = text.split("Raw(").nth(1).and_then(|rest| rest.split(')').next());
        Ok(raw.map_or(0, |raw| raw.parse().unwrap()))
    }

    fn submit(&self, caller: Caller, _gpu: u32, bytes: &[u8]) -> Result<u64, CtlError> {
        let text = bytes.split(|byte| *byte == 0).next().unwrap();
        judge(text)?;
        if has(text, "full") && self.full.load(SeqCst) {
            return Err(CtlError::new(Code::Full, "the queue of GPU 0 is full: 8 jobs"));
        }
        Ok(self.add(caller, bytes))
    }

    fn commit(&self, _gpu: u32) -> Result<(), CtlError> {
        self.commits.fetch_add(1, SeqCst);
        Ok(())
    }

    fn reply(&self, key: JobKey, done: ReplyDone) {
        let now = {
            let mut jobs = self.jobs.lock();
            let job = jobs.get_mut(&key.id).unwrap();
            if has(&job.written, "text") && !job.ended {
                job.replies.push(done);
                return;
            }
            reply(key.id, &job.written)
        };
        done(now);
    }

    fn when_ended(&self, key: JobKey, done: EndDone) {
        let now = {
            let mut jobs = self.jobs.lock();
            let job = jobs.get_mut(&key.id).unwrap();
            if !job.ended {
                job.waiters.push(done);
                return;
            }
            outcome(&job.written)
        };
        done(now);
    }

    fn verb(&self, _caller: Caller, _gpu: u32, _job: Option<u64>, _verb: GpuVerb) -> Result<(), CtlError> {
        Err(CtlError::new(Code::Unsupported, "verbs go through the daemon here"))
    }
}
