//! A device's folder: opened, with its queue as it was.

use super::device::Device;
use super::files::JobFiles;
use super::histogram::Histogram;
use super::host::Notices;
use super::inner::Call;
use super::inner::Counts;
use super::inner::Inner;
use super::inner::QueueLimits;
use super::journal;
use super::journal::Journal;
use super::journal::JournalError;
use super::kernels::Kernels;
use super::kernels::ShapeHasher;
use super::node::NodeState;
use super::restore::Replay;
use super::schedule::Schedule;
use super::suspects::Suspects;
use crate::device::DeviceInfo;
use parking_lot::Condvar;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Changes with the form of the suspects' file.
const SUSPECTS_FORMAT: u32 = 1;

/// The suspects as they are kept.
#[derive(Serialize, Deserialize)]
struct SuspectsFile {
    format: u32,
    suspects: Suspects,
}

/// What all devices share.
pub(super) struct Common {
    pub(super) limits: QueueLimits,
    pub(super) notices: Arc<dyn Notices>,
    pub(super) ids: Arc<AtomicU64>,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { operation, path, source }
}

/// The first id that no job had which any journal below `root` remembers.
///
/// # Errors
/// What cannot be read.
pub(super) fn next_id(root: &Path) -> Result<u64, JournalError> {
    let mut next = 1;
    for entry in fs::read_dir(root).map_err(failed("list", root))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            journal::replay(&entry.path(), &mut |entry, _| match entry {
                journal::Entry::Next(id) => next = next.max(id),
                journal::Entry::Submitted { id, .. } => next = next.max(id + 1),
                _ => {}
            })?;
        }
    }
    Ok(next)
}

/// A folder for nobody else's eyes.
pub(super) fn make_folder(dir: &Path) -> Result<(), JournalError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))
}

/// Opens the queue of a device below `root`, as it was.
///
/// # Errors
/// What cannot be read or written, and a newer zedd's journal.
pub(super) fn open(
    root: &Path,
    gpu: u32,
    info: DeviceInfo,
    common: &Common,
) -> Result<Arc<Device>, JournalError> {
    let name = info.uuid.to_string();
    let dir = root.join(&name);
    make_folder(&dir)?;
    let shapes = ShapeHasher::default();
    let (suspects, complaint) = read_suspects(&dir);
    let mut inner = inner(gpu, info, name, &dir, common);
    inner.suspects = suspects;
    if let Some(text) = complaint {
        inner.notice(super::host::NoticeKind::Warning, text);
    }
    let mut replay = Replay::default();
    let found = journal::replay(&dir, &mut |entry, raw| replay.entry(&mut inner, &shapes, entry, &raw))?;
    for (path, at) in &found.damaged {
        let text = format!(
            "`{}` is damaged at byte {at}: jobs of after that are lost; the file is kept as `.damaged`",
            path.display()
        );
        inner.calls.push(Call::Notice(super::host::NoticeKind::Warning, text));
    }
    common.ids.fetch_max(replay.next_id, Ordering::Relaxed);
    let lost = replay.finish(&mut inner);
    let next = common.ids.load(Ordering::Relaxed);
    inner.journal = Some(Journal::start(&dir, &found, &inner.snapshot(next))?);
    lost.into_iter().for_each(|id| inner.fail_interrupted(id));
    inner.remove_strays(next);
    let device = Device {
        gpu,
        files: JobFiles::new(&dir),
        dir,
        inner: Mutex::new(inner),
        bell: Condvar::new(),
        shapes,
        ids: Arc::clone(&common.ids),
        notices: Arc::clone(&common.notices),
    };
    Ok(Arc::new(device))
}

fn inner(gpu: u32, info: DeviceInfo, device: String, dir: &Path, common: &Common) -> Inner {
    Inner {
        gpu,
        info,
        device,
        limits: common.limits.clone(),
        files: JobFiles::new(dir),
        journal: None,
        records: BTreeMap::new(),
        schedule: Schedule::default(),
        cpu_allowed: BTreeSet::new(),
        users: BTreeMap::new(),
        open_jobs: 0,
        waiting_jobs: 0,
        open_bytes: 0,
        ended: VecDeque::new(),
        ended_bytes: 0,
        retain: common.limits.retain,
        counts: Counts::default(),
        queue_us: Histogram::default(),
        device_us: Histogram::default(),
        total_us: Histogram::default(),
        suspects: Suspects::default(),
        suspects_changed: false,
        kernels: Kernels::default(),
        node: NodeState::default(),
        paused: false,
        restart: false,
        stopping: false,
        removed: Vec::new(),
        calls: Vec::new(),
        wake: false,
    }
}

/// What was known of kernels that hang; what cannot be read is said and begun anew.
fn read_suspects(dir: &Path) -> (Suspects, Option<String>) {
    let path = dir.join("suspects.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Suspects::default(), None),
        Err(error) => {
            return (Suspects::default(), Some(format!("`{}` cannot be read: {error}", path.display())));
        }
    };
    match serde_json::from_slice::<SuspectsFile>(&bytes) {
        Ok(file) if file.format <= SUSPECTS_FORMAT => (file.suspects, None),
        Ok(file) => {
            let text = format!("`{}` is of a newer zedd (format {}): ignored", path.display(), file.format);
            (Suspects::default(), Some(text))
        }
        Err(error) => (Suspects::default(), Some(format!("`{}` is damaged: {error}", path.display()))),
    }
}

/// Keeps them, in one step.
///
/// # Errors
/// When the disk refuses; then what was kept before still is.
pub(super) fn write_suspects(dir: &Path, suspects: &Suspects) -> io::Result<()> {
    let file = SuspectsFile { format: SUSPECTS_FORMAT, suspects: suspects.clone() };
    let text = serde_json::to_vec_pretty(&file).map_err(io::Error::other)?;
    let (path, temp) = (dir.join("suspects.json"), dir.join(".suspects.new"));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temp, &path)?;
    File::open(dir)?.sync_all()
}
