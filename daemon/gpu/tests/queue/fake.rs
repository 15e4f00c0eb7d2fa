//! A host without GPUs: nodes are threads that speak the real wire, and hang, die and lie by the operation of a job.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;
use zed_gpu::device::DeviceInfo;
use zed_gpu::device::DeviceKind;
use zed_gpu::device::DeviceUuid;
use zed_gpu::device::Limits;
use zed_gpu::program::KernelId;
use zed_gpu::queue::NodeHandle;
use zed_gpu::queue::NodeHost;
use zed_gpu::queue::NodeProcess;
use zed_gpu::queue::NoticeKind;
use zed_gpu::queue::Notices;
use zed_gpu::wire::CacheState;
use zed_gpu::wire::FromNode;
use zed_gpu::wire::JobTimes;
use zed_gpu::wire::Payload;
use zed_gpu::wire::Run;
use zed_gpu::wire::Sender;
use zed_gpu::wire::StartTimes;
use zed_gpu::wire::ToNode;
use zed_gpu::wire::split;

/// What a job does to the fake, by its last operation. Everything else copies the first input to each output.
pub(crate) const HANG: &str = "Sqrt";
pub(crate) const DIE: &str = "Abs";
pub(crate) const LIE: &str = "Neg";
pub(crate) const REFUSE: &str = "Floor";
pub(crate) const SLOW: &str = "Ceil";
pub(crate) const LOSE: &str = "Tanh";

/// How the fakes of a host behave.
#[derive(Default)]
pub(crate) struct Settings {
    /// Jobs that came together are one submit.
    pub(crate) batch: AtomicBool,
    /// The device cannot be used.
    pub(crate) unusable: AtomicBool,
    /// So many of the next starts fail.
    pub(crate) failing_starts: AtomicU64,
    /// Microseconds of the device for each job.
    pub(crate) takes_us: AtomicU64,
    /// Nothing is begun while it is set.
    pub(crate) held: AtomicBool,
    /// How many nodes were started.
    pub(crate) starts: AtomicU64,
    /// Of the CPU.
    pub(crate) cpu_starts: AtomicU64,
    /// Ids in the order in which they were begun.
    pub(crate) begun: Mutex<Vec<u64>>,
    /// Of the node that runs now.
    pub(crate) current: Mutex<Option<UnixStream>>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeHost(pub(crate) Arc<Settings>);

impl FakeHost {
    /// As `kill -9` of the node would.
    pub(crate) fn kill_node(&self) {
        if let Some(socket) = self.0.current.lock().take() {
            socket.shutdown(Shutdown::Both).unwrap();
        }
    }
}

pub(crate) fn device(kind: DeviceKind, first: u8) -> DeviceInfo {
    let mut uuid = [0; 16];
    uuid[0] = first;
    DeviceInfo {
        uuid: DeviceUuid(uuid),
        kind,
        model: "Fake 9000".to_owned(),
        vendor_id: 0x10de,
        device_id: 1,
        driver: "fake".to_owned(),
        driver_version: "1.0".to_owned(),
        driver_number: 1,
        driver_uuid: [1; 16],
        api_version: "1.3.0".to_owned(),
        pci_address: None,
        memory: 8 << 30,
        limits: Limits {
            push_bytes: 128,
            workgroup_threads: 1024,
            groups: [65_535; 3],
            shared_bytes: 32 << 10,
            buffer_bytes: 1 << 30,
            bindings: 16,
            f64: true,
        },
    }
}

impl NodeHost for FakeHost {
    fn devices(&self) -> Result<Vec<DeviceInfo>, String> {
        Ok(vec![device(DeviceKind::Discrete, 0xab)])
    }

    fn stop(&self) {}

    fn start(&self, uuid: Option<DeviceUuid>) -> io::Result<NodeProcess> {
        let settings = Arc::clone(&self.0);
        let started = if uuid.is_some() { &settings.starts } else { &settings.cpu_starts };
        let pid = u32::try_from(1000 + started.fetch_add(1, SeqCst)).unwrap();
        if settings.failing_starts.load(SeqCst) > 0 {
            settings.failing_starts.fetch_sub(1, SeqCst);
            return Err(io::Error::other("the fake does not start"));
        }
        let (ours, theirs) = UnixStream::pair()?;
        let handle = Handle { killed: Arc::default(), done: Arc::default(), socket: theirs.try_clone()? };
        *settings.current.lock() = Some(theirs.try_clone()?);
        let (killed, done) = (Arc::clone(&handle.killed), Arc::clone(&handle.done));
        thread::spawn(move || {
            // However it ends: its socket is closed, and it is gone.
            let closed = theirs.try_clone();
            let mut node = Node { settings, killed, shapes: BTreeSet::new() };
            let _ = node.run(theirs, uuid);
            if let Ok(closed) = closed {
                let _ = closed.shutdown(Shutdown::Both);
            }
            done.store(true, SeqCst);
        });
        Ok(NodeProcess { socket: ours, pid, handle: Box::new(handle) })
    }
}

struct Handle {
    killed: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    socket: UnixStream,
}

impl NodeHandle for Handle {
    fn kill(&mut self) {
        self.killed.store(true, SeqCst);
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn ended(&mut self) -> Option<String> {
        self.done.load(SeqCst).then(|| "signal 9".to_owned())
    }
}

struct Node {
    settings: Arc<Settings>,
    killed: Arc<AtomicBool>,
    shapes: BTreeSet<String>,
}

/// The name of the kernel that the fake has for an operation.
pub(crate) fn kernel_of(job: &zed_spec::job::Job) -> Vec<KernelId> {
    match zed_gpu::ops::program(job, &device(DeviceKind::Discrete, 0).limits) {
        Ok(program) if !program.dispatches.is_empty() => {
            let mut kernels: Vec<KernelId> =
                program.dispatches.iter().map(|dispatch| dispatch.kernel.id.clone()).collect();
            kernels.dedup();
            kernels
        }
        _ => vec![KernelId(format!("{}-fake", last_op(job).to_lowercase()).into())],
    }
}

fn last_op(job: &zed_spec::job::Job) -> &'static str {
    job.steps.last().map_or("", |step| step.op.name())
}

impl Node {
    fn run(&mut self, socket: UnixStream, uuid: Option<DeviceUuid>) -> io::Result<()> {
        let (mut sender, mut receiver) = split(socket)?;
        if uuid.is_some() && self.settings.unusable.load(SeqCst) {
            return sender.send(&FromNode::Unusable("the driver lacks everything".to_owned()), &[], &[]);
        }
        let info = Box::new(device(DeviceKind::Discrete, 0xab));
        let ready = FromNode::Ready { info, times: StartTimes::default(), cache: CacheState::Absent };
        sender.send(&ready, &[], &[])?;
        while let Some(message) = receiver.receive::<ToNode>()? {
            let ToNode::Run(runs) = message.value else { return Ok(()) };
            while self.settings.held.load(SeqCst) && !self.killed.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            let files: Vec<std::fs::File> = message.files.into_iter().map(Into::into).collect();
            for run in &runs {
                let kernels = kernel_of(&run.job);
                if self.shapes.insert(format!("{:?}{:?}", run.job.arrays, run.job.steps)) {
                    sender.send(&FromNode::Kernels { id: run.id, kernels }, &[], &[])?;
                }
            }
            let size = if self.settings.batch.load(SeqCst) { runs.len() } else { 1 };
            for batch in runs.chunks(size) {
                self.submit(&mut sender, batch, &message.raw, &files)?;
            }
        }
        Ok(())
    }

    fn submit(
        &mut self,
        sender: &mut Sender,
        batch: &[Run],
        raw: &[u8],
        files: &[std::fs::File],
    ) -> io::Result<()> {
        let ids: Vec<u64> = batch.iter().map(|run| run.id).collect();
        self.settings.begun.lock().extend(&ids);
        sender.send(&FromNode::Began(ids), &[], &[])?;
        let takes = self.settings.takes_us.load(SeqCst);
        if takes > 0 {
            thread::sleep(Duration::from_micros(takes * batch.len() as u64));
        }
        for run in batch {
            match last_op(&run.job) {
                HANG => {
                    while !self.killed.load(SeqCst) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    return Err(io::ErrorKind::Interrupted.into());
                }
                DIE => return Err(io::ErrorKind::BrokenPipe.into()),
                LOSE => {
                    sender.send(&FromNode::Lost("the device fell off the bus".to_owned()), &[], &[])?;
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                SLOW => thread::sleep(Duration::from_millis(20)),
                _ => {}
            }
        }
        for run in batch {
            answer(sender, run, batch.len(), raw, files, takes)?;
        }
        Ok(())
    }
}

fn answer(
    sender: &mut Sender,
    run: &Run,
    batch: usize,
    raw: &[u8],
    files: &[std::fs::File],
    takes: u64,
) -> io::Result<()> {
    if last_op(&run.job) == REFUSE {
        let error = "it does not compile".to_owned();
        return sender.send(&FromNode::Failed { id: run.id, error, kernel: None }, &[], &[]);
    }
    let input = run.job.inputs().zip(&run.inputs).next();
    let content = match input {
        Some(((_, array, _), Payload::Raw(at))) => {
            raw[*at as usize..*at as usize + array.bytes() as usize].to_vec()
        }
        Some(((_, array, _), Payload::File(number))) => {
            let mut bytes = vec![0; array.bytes() as usize];
            files[*number as usize].read_exact_at(&mut bytes, 0)?;
            bytes
        }
        None => Vec::new(),
    };
    let mut pieces = Vec::new();
    let (mut offsets, mut at) = (Vec::new(), 0);
    for ((_, array), file) in run.job.outputs().zip(&run.outputs) {
        let mut bytes = content.clone();
        bytes.resize(array.bytes() as usize, 0);
        match file {
            Some(number) => {
                files[*number as usize].write_all_at(&bytes, 0)?;
                offsets.push(None);
            }
            None => {
                offsets.push(Some(at));
                at += bytes.len() as u32;
                pieces.push(bytes);
            }
        }
    }
    let times = JobTimes {
        device: takes * batch as u64,
        batch: u32::try_from(batch).unwrap(),
        ..JobTimes::default()
    };
    let id = if last_op(&run.job) == LIE { run.id + 1_000_000 } else { run.id };
    let pieces: Vec<&[u8]> = pieces.iter().map(AsRef::as_ref).collect();
    sender.send(&FromNode::Done { id, outputs: offsets, times, on_cpu: run.on_cpu }, &pieces, &[])
}

/// Keeps what operators would be told.
#[derive(Clone, Default)]
pub(crate) struct Told(pub(crate) Arc<Mutex<Vec<(NoticeKind, String)>>>);

impl Notices for Told {
    fn notice(&self, kind: NoticeKind, _gpu: Option<u32>, text: &str) {
        self.0.lock().push((kind, text.to_owned()));
    }
}
