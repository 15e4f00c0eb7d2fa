//! The tree as a mounted file system. The only files that import fuser.
//!
//! Owns the mount: clearing our own dead one, refusing others, saying when it answers, taking it away. One
//! loop thread reads requests in order; a handler that would have to wait parks its reply instead.

mod attrs;
mod handles;
mod interrupt;
mod mounts;
mod ops;
mod parked;
mod state;

pub use interrupt::install_interrupt_logger;

use crate::tree::Tree;
use attrs::Kernel;
use fuser::BackgroundSession;
use fuser::Config;
use fuser::MountOption;
use fuser::SessionACL;
use mounts::Mounted as Found;
use parked::Parked;
use state::ZedFs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

/// How long the mount may take to answer its first request.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// How long an unmount waits for the loop to end; clients that still have files open keep it going.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Takes a mount away that this process may not take away itself (a normal user's, through fusermount3).
pub type UnmountHelper = Arc<dyn Fn(&Path) -> io::Result<()> + Send + Sync>;

/// How to mount.
#[derive(Clone, Default)]
pub struct MountSettings {
    /// Other users may use the tree; file modes decide what they may do. Always so for root; a normal user
    /// needs `user_allow_other` in /etc/fuse.conf.
    pub allow_other: bool,
    /// Used on our own dead mount when this process has no right to unmount.
    pub unmount_helper: Option<UnmountHelper>,
}

/// Why the tree cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The mount point cannot be made or used.
    #[error("mount point {}: it must be a folder that this user can use", path.display())]
    Folder {
        /// The mount point.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another daemon serves it.
    #[error("{} is a zed tree that answers: another zedd serves it; stop that one, or mount elsewhere", path.display())]
    Busy {
        /// The mount point.
        path: PathBuf,
    },
    /// Something else is mounted there.
    #[error("{} has a {fs_type} mounted on it, which is not ours to remove; mount elsewhere", path.display())]
    Foreign {
        /// The mount point.
        path: PathBuf,
        /// Its type.
        fs_type: String,
    },
    /// Our own dead mount stays.
    #[error("{} is the dead mount of a zedd that was killed and cannot be removed; run: fusermount3 -u -z {}", path.display(), path.display())]
    Stale {
        /// The mount point.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The logger that interrupts need is not there.
    #[error("clients that wait could not be interrupted: {0}")]
    NoInterrupts(&'static str),
    /// The kernel refuses.
    #[error("cannot mount on {}; is /dev/fuse there, and fusermount3 for a normal user?", path.display())]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A mounted tree. Dropping it takes the mount away.
pub struct Mounted {
    session: Option<BackgroundSession>,
    tree: Arc<Tree>,
    parked: Arc<Parked>,
    path: PathBuf,
}

/// Mounts the tree, and returns when it answers requests.
///
/// # Errors
/// See [`MountError`]. Our own dead mount is cleared; nothing else that is mounted there is touched.
pub fn mount(tree: &Arc<Tree>, folder: &Path, settings: &MountSettings) -> Result<Mounted, MountError> {
    if !interrupt::is_installed() {
        return Err(MountError::NoInterrupts(
            "install_interrupt_logger was not called, or another logger is there",
        ));
    }
    let in_folder = |source| MountError::Folder { path: folder.to_path_buf(), source };
    let path = std::path::absolute(folder).map_err(in_folder)?;
    clear(&path, settings)?;
    std::fs::create_dir_all(&path).map_err(in_folder)?;
    let path = path.canonicalize().map_err(in_folder)?;
    // A link may have led to a mount.
    clear(&path, settings)?;
    let failed = |source| MountError::Mount { path: path.clone(), source };
    keep_standard_descriptors().map_err(failed)?;
    let parked = Parked::start().map_err(failed)?;
    let kernel = Arc::new(Kernel::default());
    let fs = ZedFs::new(Arc::clone(tree), Arc::clone(&parked), Arc::clone(&kernel));
    let session = fuser::spawn_mount(fs, &path, &config(settings)).map_err(failed)?;
    let mounted = Mounted { tree: Arc::clone(tree), parked, path: path.clone(), session: Some(session) };
    // fuser has shaken hands with the kernel: it answers. Nothing is asked of the mount to see that: a request of this
    // very process would keep it from dying while the kernel waits for its answer.
    if let Some(session) = &mounted.session {
        kernel.attach(session.notifier(), tree);
    }
    Ok(mounted)
}

fn config(settings: &MountSettings) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(mounts::FS_NAME.to_owned()),
        // fuser's own `Subtype` reaches fusermount only; the kernel knows the option too.
        MountOption::CUSTOM(format!("subtype={}", mounts::SUBTYPE)),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoExec,
        MountOption::NoAtime,
    ];
    if cfg!(target_os = "linux") {
        config.mount_options.push(MountOption::NoDev);
    }
    if settings.allow_other || nix::unistd::geteuid().is_root() {
        config.acl = SessionACL::All;
    }
    // More loops are slower on few cores, and would break the order that interrupts rely on.
    config.n_threads = Some(1);
    config
}

/// Takes our own dead mount away; refuses whatever else is mounted there.
fn clear(path: &Path, settings: &MountSettings) -> Result<(), MountError> {
    let stale = |source| MountError::Stale { path: path.to_path_buf(), source };
    // Dead mounts may be stacked.
    for _ in 0..16 {
        match mounts::mounted_at(path).map_err(stale)? {
            Found::Nothing => return Ok(()),
            Found::Other(fs_type) => return Err(MountError::Foreign { path: path.to_path_buf(), fs_type }),
            Found::Ours => {}
        }
        if !is_dead(path).map_err(stale)? {
            return Err(MountError::Busy { path: path.to_path_buf() });
        }
        tracing::warn!(mount = %path.display(), "clearing the dead mount of a zedd that was killed");
        detach(path, settings).map_err(stale)?;
    }
    Err(stale(io::Error::other("it is still there after 16 attempts")))
}

/// Lists the folder, which no cache answers. One that neither answers nor fails is a daemon that is stuck, not a
/// dead one.
fn is_dead(path: &Path) -> io::Result<bool> {
    let (answer, wait) = mpsc::channel();
    let target = path.to_path_buf();
    std::thread::Builder::new().name("zed-look".to_owned()).spawn(move || {
        let listed = std::fs::read_dir(target).err().and_then(|error| error.raw_os_error());
        // Nobody may be waiting any more.
        let _ = answer.send(listed);
    })?;
    Ok(wait.recv_timeout(READY_LIMIT) == Ok(Some(nix::libc::ENOTCONN)))
}

fn detach(path: &Path, settings: &MountSettings) -> io::Result<()> {
    match (unmount_now(path), &settings.unmount_helper) {
        (Err(error), Some(helper)) if error.kind() == io::ErrorKind::PermissionDenied => helper(path),
        (result, _) => result,
    }
}

#[cfg(target_os = "linux")]
fn unmount_now(path: &Path) -> io::Result<()> {
    Ok(nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH)?)
}

#[cfg(not(target_os = "linux"))]
fn unmount_now(path: &Path) -> io::Result<()> {
    Ok(nix::mount::unmount(path, nix::mount::MntFlags::MNT_FORCE)?)
}

/// fuser insists that the device is none of descriptors 0 to 2: whoever started us with them closed gets
/// /dev/null there, so that no file is taken for standard output either.
fn keep_standard_descriptors() -> io::Result<()> {
    loop {
        let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        if file.as_raw_fd() > 2 {
            return Ok(());
        }
        std::mem::forget(file);
    }
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many requests wait for something.
    pub fn waiting(&self) -> usize {
        self.parked.waiting()
    }

    /// Ends all waits and takes the mount away. Clients that have files open keep what they have open until
    /// they close it, and get ENOTCONN when this process ends.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn unmount(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        self.parked.close();
        self.tree.commit_removals();
        let detached = match unmount_now(&self.path) {
            // A normal user's mount: fuser asks fusermount3.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            result => Some(result),
        };
        let (ended, wait) = mpsc::channel();
        let joined = std::thread::Builder::new().name("zed-unmount".to_owned()).spawn(move || {
            let result = session.umount_and_join();
            // Nobody may be waiting any more.
            let _ = ended.send(result);
        });
        joined?;
        let last = match wait.recv_timeout(END_LIMIT) {
            Ok(result) => result,
            // Clients hold files open: the mount itself is gone.
            Err(_) => Ok(()),
        };
        detached.unwrap_or(last)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(mount = %self.path.display(), %error, "the mount stays");
        }
    }
}
