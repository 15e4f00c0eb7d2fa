//! The GPUs of this host, as the tree sees them.

use super::device::Device;
use super::host::NodeHost;
use super::host::NoticeKind;
use super::host::Notices;
use super::inner::Finished;
use super::inner::QueueLimits;
use super::inner::disk_error;
use super::journal::JournalError;
use super::metrics::Metrics;
use super::record::Outputs;
use super::record::State;
use super::record::Waiter;
use super::store;
use super::store::Common;
use super::supervisor::supervise;
use crate::chain;
use crate::device::DeviceInfo;
use crate::device::DeviceKind;
use parking_lot::Mutex;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
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
use zed_spec::Diagnostics;
use zed_spec::job::Reply;
use zed_spec::job::Source;

/// Which devices are used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Use {
    /// All but drivers that compute on the CPU.
    #[default]
    Hardware,
    /// All.
    Any,
    /// Those whose UUID begins so, in hexadecimal digits; a driver that computes on the CPU too.
    Uuid(String),
}

impl FromStr for Use {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "hardware" => Ok(Use::Hardware),
            "any" => Ok(Use::Any),
            _ => match text.strip_prefix("uuid:") {
                Some(prefix) if prefix.len() >= 4 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    Ok(Use::Uuid(prefix.to_ascii_lowercase()))
                }
                Some(_) => Err("a UUID's beginning has four hexadecimal digits or more".to_owned()),
                None => Err(format!("`{text}` is none of hardware, any and uuid:PREFIX")),
            },
        }
    }
}

impl Use {
    /// The devices that are used, in the order of their numbers.
    fn choose(&self, devices: Vec<DeviceInfo>) -> Vec<DeviceInfo> {
        let mut seen = BTreeSet::new();
        let used = |info: &DeviceInfo| match self {
            Use::Hardware => info.kind != DeviceKind::Cpu,
            Use::Any => true,
            Use::Uuid(prefix) => info.uuid.to_string().starts_with(prefix),
        };
        // A device that two drivers serve is there twice: the first one has it.
        let mut chosen: Vec<DeviceInfo> =
            devices.into_iter().filter(used).filter(|info| seen.insert(info.uuid)).collect();
        chosen.sort_by(|one, other| {
            let key = |info: &DeviceInfo| (info.kind, info.pci_address.clone(), info.uuid);
            key(one).cmp(&key(other))
        });
        chosen
    }
}

/// The GPUs of this host.
pub struct GpuSet {
    root: PathBuf,
    host: Arc<dyn NodeHost>,
    common: Common,
    devices: RwLock<BTreeMap<u32, Arc<Device>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopping: std::sync::atomic::AtomicBool,
}

impl GpuSet {
    /// With its state below `root`. No device is there before [`GpuSet::start`] has found it.
    ///
    /// # Errors
    /// When the folder cannot be made or read, or is of a newer zedd.
    pub fn open(
        root: &Path,
        host: Arc<dyn NodeHost>,
        notices: Arc<dyn Notices>,
        limits: QueueLimits,
    ) -> Result<Arc<Self>, JournalError> {
        store::make_folder(root)?;
        let ids = Arc::new(AtomicU64::new(store::next_id(root)?));
        Ok(Arc::new(Self {
            root: root.to_owned(),
            host,
            common: Common { limits, notices, ids },
            devices: RwLock::default(),
            threads: Mutex::default(),
            stopping: false.into(),
        }))
    }

    /// Looks for devices and starts their nodes, in the background.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(self: &Arc<Self>, which: Use) -> io::Result<()> {
        let set = Arc::clone(self);
        let thread = thread::Builder::new().name("gpu-start".to_owned()).spawn(move || set.find(&which))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn find(self: &Arc<Self>, which: &Use) {
        let warn = |text: &str| self.common.notices.notice(NoticeKind::Warning, None, text);
        let devices = match self.host.devices() {
            Ok(devices) => devices,
            Err(error) => {
                // Most hosts have none, and no loader either; the inventory says so, too.
                return tracing::info!("the GPUs of this host cannot be listed: {error}");
            }
        };
        for (gpu, info) in (0..).zip(which.choose(devices)) {
            let model = info.model.clone();
            let opened = store::open(&self.root, gpu, info, &self.common);
            let device = match opened {
                Ok(device) => device,
                Err(error) => {
                    warn(&format!("gpu {gpu} ({model}) is not used: {}", chain(&error)));
                    continue;
                }
            };
            let mut devices = self.devices.write();
            if self.stopping.load(std::sync::atomic::Ordering::SeqCst) {
                return;
            }
            devices.insert(gpu, Arc::clone(&device));
            drop(devices);
            // What the journal told.
            device.with(|_| {});
            let host = Arc::clone(&self.host);
            let thread = thread::Builder::new().name(format!("gpu-{gpu}"));
            match thread.spawn(move || supervise(&device, &host)) {
                Ok(thread) => self.threads.lock().push(thread),
                Err(error) => warn(&format!("gpu {gpu} is not watched: {error}")),
            }
        }
    }

    /// Ends all nodes: what runs gets a moment, what waits goes on when zedd is back. Returns when they have ended.
    pub fn stop(&self) {
        self.stopping.store(true, std::sync::atomic::Ordering::SeqCst);
        self.host.stop();
        for device in self.devices.read().values() {
            device.with(super::inner::Inner::stop);
        }
        // The one that looks for devices starts others.
        loop {
            let Some(thread) = self.threads.lock().pop() else { return };
            if thread.join().is_err() {
                tracing::error!("a thread of the GPU queues ended with a panic");
            }
        }
    }

    /// All queues in Prometheus' text form.
    pub fn metrics(&self) -> String {
        let mut metrics = Metrics::new();
        for device in self.devices.read().values() {
            device.look(|inner| metrics.add(inner));
        }
        metrics.render()
    }

    fn device(&self, gpu: u32) -> Option<Arc<Device>> {
        self.devices.read().get(&gpu).cloned()
    }

    fn there(&self, gpu: u32) -> Result<Arc<Device>, CtlError> {
        self.device(gpu).ok_or_else(|| CtlError::new(Code::NotFound, format!("this host has no gpu {gpu}")))
    }
}

fn no_job(key: JobKey) -> CtlError {
    CtlError::new(Code::NotFound, format!("gpu {} has no job {}", key.gpu, key.id))
        .hint("jobs that ended long ago are forgotten: see `retain`")
}

fn no_job_text(findings: &Diagnostics) -> CtlError {
    CtlError::new(Code::BadSpec, findings.render("job"))
        .hint("correct the lines shown and write the job again")
}

impl Gpus for GpuSet {
    fn gpus(&self) -> Vec<u32> {
        self.devices.read().keys().copied().collect()
    }

    fn info(&self, gpu: u32) -> Option<GpuView> {
        Some(self.device(gpu)?.look(super::inner::Inner::view))
    }

    fn stats(&self, gpu: u32) -> Option<GpuStats> {
        Some(self.device(gpu)?.look(super::inner::Inner::stats))
    }

    fn suspects(&self, gpu: u32) -> Option<GpuSuspects> {
        Some(self.device(gpu)?.look(super::inner::Inner::suspects_view))
    }

    fn shaders(&self, gpu: u32) -> Vec<String> {
        let names =
            |inner: &super::inner::Inner| inner.kernels.seen().keys().map(ToString::to_string).collect();
        self.device(gpu).map(|device| device.look(names)).unwrap_or_default()
    }

    fn shader(&self, gpu: u32, name: &str) -> Option<ShaderView> {
        self.device(gpu)?.look(|inner| inner.shader(name))
    }

    fn jobs(&self, gpu: u32) -> Vec<u64> {
        let ids = |inner: &super::inner::Inner| inner.records.keys().copied().collect();
        self.device(gpu).map(|device| device.look(ids)).unwrap_or_default()
    }

    fn job_place(&self, key: JobKey) -> Option<JobPlace> {
        self.device(key.gpu)?.look(|inner| {
            let record = inner.records.get(&key.id)?;
            let changed = Duration::from_millis(u64::try_from(record.changed_ms).unwrap_or(0));
            let changed: SystemTime = UNIX_EPOCH + changed;
            Some(JobPlace { uid: record.uid, gid: record.gid, changed })
        })
    }

    fn job(&self, key: JobKey) -> Option<GpuJobView> {
        self.device(key.gpu)?.look(|inner| Some(inner.records.get(&key.id)?.view(&inner.device)))
    }

    fn result(&self, key: JobKey) -> Option<Arc<[u8]>> {
        let device = self.device(key.gpu)?;
        let finished = device.look(|inner| {
            let record = inner.records.get(&key.id)?;
            Some(record.finished().filter(|finished| finished.outcome.is_ok()))
        })?;
        let empty = || Arc::from(&[][..]);
        let Some(finished) = finished else { return Some(empty()) };
        Some(device.text(&finished).unwrap_or_else(|error| format!("{error}\n").into_bytes().into()))
    }

    fn buffers(&self, key: JobKey, side: Side) -> Option<Vec<BufferPlace>> {
        self.device(key.gpu)?.look(|inner| {
            let record = inner.records.get(&key.id)?;
            let waits = matches!(record.state, State::Waiting);
            let place = |name: &str, bytes, writable| BufferPlace { name: name.to_owned(), bytes, writable };
            Some(match side {
                Side::In => record
                    .job
                    .inputs()
                    .map(|(_, array, from)| {
                        place(&array.name, array.bytes(), waits && from == Source::Upload)
                    })
                    .collect(),
                Side::Out if !record.done() => Vec::new(),
                Side::Out => {
                    record.job.outputs().map(|(_, array)| place(&array.name, array.bytes(), false)).collect()
                }
            })
        })
    }

    fn open_buffer(
        &self,
        key: JobKey,
        side: Side,
        name: &str,
        write: bool,
    ) -> Result<BufferContent, CtlError> {
        let device = self.there(key.gpu)?;
        let memory = device.look(|inner| {
            let record = inner.records.get(&key.id).ok_or_else(|| no_job(key))?;
            record.buffer(side, name, write)
        })?;
        match memory {
            Some(bytes) => Ok(BufferContent::Memory(bytes)),
            None => {
                device.files.open(key.id, side, name, write).map(BufferContent::File).map_err(|error| {
                    disk_error(&format!("`{name}` of job {} cannot be opened", key.id), &error)
                })
            }
        }
    }

    fn raw_bytes(&self, gpu: u32, text: &[u8]) -> Result<u64, CtlError> {
        self.there(gpu)?;
        zed_spec::job::raw_bytes(text).map_err(|findings| no_job_text(&findings))
    }

    fn submit(&self, caller: Caller, gpu: u32, bytes: &[u8]) -> Result<u64, CtlError> {
        let device = self.there(gpu)?;
        let parsed = zed_spec::job::parse(bytes).map_err(|findings| no_job_text(&findings))?;
        device.submit(caller, bytes, parsed)
    }

    fn commit(&self, gpu: u32) -> Result<(), CtlError> {
        let files = self.there(gpu)?.look(|inner| inner.log_files());
        for file in files {
            file.sync_data().map_err(|error| disk_error("the journal cannot be synced", &error))?;
        }
        Ok(())
    }

    fn reply(&self, key: JobKey, done: ReplyDone) {
        let Some(device) = self.device(key.gpu) else { return done(Err(no_job(key))) };
        device.wait(key, |job| job.reply != Reply::Id, Waiter::Reply(done));
    }

    fn when_ended(&self, key: JobKey, done: EndDone) {
        let Some(device) = self.device(key.gpu) else { return done(Err(no_job(key))) };
        device.wait(key, |_| true, Waiter::End(done));
    }

    fn verb(&self, caller: Caller, gpu: u32, job: Option<u64>, verb: GpuVerb) -> Result<(), CtlError> {
        self.there(gpu)?.verb(caller, job, &verb)
    }
}

impl Device {
    /// Calls the waiter when the job has ended, or at once when it has, is not kept, or need not be waited for.
    fn wait(&self, key: JobKey, waits: impl FnOnce(&zed_spec::job::Job) -> bool, waiter: Waiter) {
        let now = self.with(|inner| {
            let Some(record) = inner.records.get_mut(&key.id) else {
                return Some((waiter, Err(no_job(key))));
            };
            if let Some(finished) = record.finished() {
                return Some((waiter, Ok(finished)));
            }
            if waits(&record.job) {
                record.waiters.push(waiter);
                return None;
            }
            let (id, job) = (record.id, Arc::clone(&record.job));
            let outputs = Outputs::Memory(Vec::new());
            Some((waiter, Ok(Finished { id, job, outcome: Ok(String::new()), outputs })))
        });
        match now {
            None => {}
            // The id is known whatever became of the job.
            Some((Waiter::Reply(done), Ok(finished))) if finished.job.reply == Reply::Id => {
                done(Ok(format!("{}\n", finished.id).into_bytes().into()));
            }
            Some((waiter, Ok(finished))) => self.answer(waiter, &finished),
            Some((Waiter::Reply(done), Err(error))) => done(Err(error)),
            Some((Waiter::End(done), Err(error))) => done(Err(error)),
        }
    }
}
