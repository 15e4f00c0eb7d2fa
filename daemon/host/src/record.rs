//! The files of an app under `STATE/apps/APP`, and their formats.
//!
//! `run.json` says what is wanted and is written by the daemon; `status.json` says what is and is written by the
//! supervisor, or by the daemon when there is no supervisor. Both are replaced atomically. Neither ever holds a
//! value of the environment: those may be secrets, and travel to the supervisor through a pipe.

use crate::types::HostErrorKind;
use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use zed_plan::ProcessStatus;
use zed_plan::RunSpec;

/// Version of `run.json`, `status.json` and of the request that a supervisor reads. A newer one is refused.
pub(crate) const FORMAT: u32 = 1;

/// The files of one app.
#[derive(Debug, Clone)]
pub(crate) struct AppFiles {
    /// `STATE/apps/APP`.
    pub(crate) folder: PathBuf,
}

impl AppFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// What is wanted.
    pub(crate) fn run(&self) -> PathBuf {
        self.folder.join("run.json")
    }

    /// What is.
    pub(crate) fn status(&self) -> PathBuf {
        self.folder.join("status.json")
    }

    /// The app's output.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// How its last runs ended unexpectedly, for people.
    pub(crate) fn crash(&self) -> PathBuf {
        self.folder.join("crash")
    }

    /// The same, for programs.
    pub(crate) fn crash_json(&self) -> PathBuf {
        self.folder.join("crash.json")
    }

    /// Locked by the supervisor for its whole life.
    pub(crate) fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// Locked by whoever starts or stops the app, while it does.
    pub(crate) fn starter(&self) -> PathBuf {
        self.folder.join("starter")
    }

    /// The supervisor listens here.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("sock")
    }

    /// Where a traffic front forwards to.
    pub(crate) fn route(&self) -> PathBuf {
        self.folder.join("route.json")
    }

    /// A traffic front listens here.
    pub(crate) fn front_socket(&self) -> PathBuf {
        self.folder.join("front.sock")
    }
}

/// `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// The start that is wanted; absent when the app is to be stopped. A supervisor that was launched with
    /// another token than this one does nothing.
    pub(crate) token: Option<String>,
    /// What runs.
    pub(crate) run: RunSpec,
    /// Where it runs.
    pub(crate) directory: PathBuf,
    /// Names of its variables.
    pub(crate) environment_names: Vec<String>,
}

/// `status.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatusRecord {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Of the run.
    pub(crate) run_hash: String,
    /// Of the run.
    pub(crate) version: String,
    /// True for a one-shot: it is never restarted.
    pub(crate) one_shot: bool,
    /// Where it is in its life.
    pub(crate) state: State,
    /// The program's process id, while it runs.
    pub(crate) pid: Option<u32>,
    /// Its start time: with the process id, its identity.
    pub(crate) pid_start: Option<u64>,
    /// The supervisor's process id, also the id of its session.
    pub(crate) supervisor: u32,
    /// The supervisor's start time.
    pub(crate) supervisor_start: u64,
    /// The boot that all of these belong to.
    pub(crate) boot_id: String,
    /// Seconds since 1970 of the last start of the program.
    pub(crate) since: Option<i64>,
    /// Restarts since it was started on purpose.
    pub(crate) restarts: u32,
    /// Restarts without a stable run in between.
    pub(crate) in_a_row: u32,
    /// How the program ended the last time.
    pub(crate) last_exit: Option<String>,
    /// The cgroups that hold the app's processes.
    #[serde(default)]
    pub(crate) cgroups: Vec<PathBuf>,
}

/// Where a supervised app is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Not executed yet.
    Starting,
    /// Runs.
    Running,
    /// Ended; waits for its restart.
    Backoff,
    /// Is being stopped.
    Stopping,
    /// Ended well, for good.
    Completed,
    /// Ended badly, for good.
    Failed(String),
    /// Stopped on purpose.
    Stopped,
    /// Its supervisor was told to end (by a signal, as at a shutdown): it should still run.
    Interrupted,
}

impl StatusRecord {
    /// What the planner is told. `supervised`: its supervisor lives.
    pub(crate) fn process_status(&self, supervised: bool, boot_id: &str) -> ProcessStatus {
        match &self.state {
            State::Completed => ProcessStatus::Completed,
            State::Failed(how) => ProcessStatus::Failed(how.clone()),
            State::Stopped => ProcessStatus::Stopped,
            _ if !supervised => ProcessStatus::Gone { rebooted: self.boot_id != boot_id },
            State::Starting | State::Running | State::Backoff | State::Stopping | State::Interrupted => {
                match self.pid {
                    Some(pid) => ProcessStatus::Running { pid },
                    None => ProcessStatus::Backoff { restarts: self.in_a_row },
                }
            }
        }
    }
}

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` {reason}")]
pub(crate) struct RecordError {
    pub(crate) path: String,
    pub(crate) reason: String,
    newer: bool,
}

impl RecordError {
    fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.display().to_string(), reason: reason.into(), newer: false }
    }

    /// The file is of a newer program, and not to be written by this one.
    pub(crate) fn is_newer(&self) -> bool {
        self.newer
    }
}

impl From<RecordError> for HostErrorKind {
    fn from(error: RecordError) -> Self {
        HostErrorKind::Io(error.to_string())
    }
}

/// Reads one of the files; `None` when there is none.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(RecordError::new(path, format!("cannot be read: {e}"))),
    };
    let damaged = |e: serde_json::Error| RecordError::new(path, format!("is damaged: {e}"));
    let head: Head = serde_json::from_slice(&bytes).map_err(damaged)?;
    if head.format > FORMAT {
        let reason = format!("has format {}, and this program knows formats up to {FORMAT}", head.format);
        return Err(RecordError { newer: true, ..RecordError::new(path, reason) });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Replaces one of the files: a reader sees the old one or the new one, also after a power failure.
pub(crate) fn write_record<T: Serialize>(path: &Path, value: &T) -> Result<(), RecordError> {
    let failed = |e: serde_json::Error| RecordError::new(path, format!("cannot be written: {e}"));
    let mut bytes = serde_json::to_vec_pretty(value).map_err(failed)?;
    bytes.push(b'\n');
    write_file(path, &bytes)
}

/// The same for a file that is no record.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let failed = |e: io::Error| RecordError::new(path, format!("cannot be written: {e}"));
    // Two writers never meet: the supervisor's lock or the starter's lock is held. The name is the same each
    // time, so that a writer killed half way leaves one file, which the next one overwrites.
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let scratch = PathBuf::from(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&scratch)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    std::fs::rename(&scratch, path).map_err(failed)
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The kinds of lock in the type of the field that holds them: the constants are wider on Linux.
const WRITE: libc::c_short = libc::F_WRLCK as libc::c_short;
const NONE: libc::c_short = libc::F_UNLCK as libc::c_short;

/// A lock for writing on a whole file.
fn whole_file() -> libc::flock {
    // SAFETY: an all-zero flock is a valid value of this plain C struct: from the start, to the end.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = WRITE;
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or(0);
    lock
}

/// Takes the supervisor's lock for the life of this process. `None` when another process has it. The lock is a
/// POSIX record lock: it ends with the process, is not inherited by what the process starts, and can be tested
/// without being taken.
pub(crate) fn take_lock(path: &Path) -> io::Result<Option<File>> {
    let file = open_lock(path)?;
    match nix::fcntl::fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The process id of the supervisor that holds the lock, if one does.
pub(crate) fn lock_holder(path: &Path) -> io::Result<Option<u32>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut lock = whole_file();
    nix::fcntl::fcntl(&file, FcntlArg::F_GETLK(&mut lock))?;
    if lock.l_type == NONE {
        return Ok(None);
    }
    Ok(Some(lock.l_pid.cast_unsigned()))
}

/// Waits for the starter's lock and holds it until the file is dropped or the process ends.
pub(crate) fn take_starter(path: &Path) -> io::Result<File> {
    let file = open_lock(path)?;
    file.lock()?;
    Ok(file)
}
