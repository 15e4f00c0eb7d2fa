//! One process at a time: the lock of an embedded store. Held by the kernel, so a dead holder is no obstacle.

use super::failure::Failure;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::rules::refuse;
use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Why the store's lock was not had.
pub(super) enum LockFailure {
    HeldBy(String),
    Io(Failure),
}

impl LockFailure {
    pub(super) fn into_store_error(self, dir: &Path) -> StoreError {
        match self {
            Self::HeldBy(who) => refuse("open", dir.display(), StoreErrorKind::Busy(who)),
            Self::Io(failure) => failure.into_store_error("open", dir.display()),
        }
    }
}

/// The lock, held until it is dropped.
pub(super) type Lock = Flock<File>;

/// Takes the lock of the store. The kernel gives it back when the process ends, however it ends.
pub(super) fn lock(dir: &Path) -> Result<Lock, LockFailure> {
    let path = dir.join("lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(|e| LockFailure::Io(Failure::at("open", &path)(e)))?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            let who = match holder.trim() {
                "" => "another process has it open".to_owned(),
                pid => format!("process {pid} has it open"),
            };
            return Err(LockFailure::HeldBy(who));
        }
        Err((_, e)) => return Err(LockFailure::Io(Failure::at("lock", &path)(e))),
    };
    let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(|e| LockFailure::Io(Failure::at("write", &path)(e)))?;
    Ok(lock)
}
