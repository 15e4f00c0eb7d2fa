//! One process at a time: the lock of an embedded store. Held by the kernel, so a dead holder is no obstacle.

use super::failure::Failure;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::rules::refuse;
use std::fs::File;
use std::fs::TryLockError;
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

/// Takes the lock of the store. The kernel gives it back when the process ends, however it ends.
pub(super) fn lock(dir: &Path) -> Result<File, LockFailure> {
    let path = dir.join("lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|e| LockFailure::Io(Failure::at("open", &path)(e)))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            let who = match holder.trim() {
                "" => "another process has it open".to_owned(),
                pid => format!("process {pid} has it open"),
            };
            return Err(LockFailure::HeldBy(who));
        }
        Err(TryLockError::Error(e)) => return Err(LockFailure::Io(Failure::at("lock", &path)(e))),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|e| LockFailure::Io(Failure::at("write", &path)(e)))?;
    Ok(file)
}
