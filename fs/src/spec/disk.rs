//! The real files behind `deploy/` and `plan/`: whole files placed by rename, with mode, owner and time.
//!
//! Never leaves half a file under a name that counts.

use nix::sys::stat::UtimensatFlags;
use nix::sys::stat::utimensat;
use nix::sys::time::TimeSpec;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// What a client may set of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, without the file type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: SystemTime,
    /// Last access; set only by clients.
    pub atime: SystemTime,
}

/// Tells one state of a real file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    ino: u64,
    size: u64,
    mtime: (i64, i64),
}

/// A time of `stat`; years before 1970 included.
pub(crate) fn time_of(seconds: i64, nanoseconds: i64) -> SystemTime {
    let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::new(seconds, nanoseconds),
        Err(_) => UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + Duration::new(0, nanoseconds),
    }
}

/// The other way round.
pub(crate) fn timespec(time: SystemTime) -> TimeSpec {
    let (seconds, nanoseconds) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanoseconds => (seconds - 1, 1_000_000_000 - nanoseconds),
            }
        }
    };
    // The widths of both fields differ between platforms; both values fit the narrowest.
    #[cfg_attr(
        target_pointer_width = "64",
        expect(clippy::useless_conversion, reason = "time_t is narrower elsewhere")
    )]
    TimeSpec::new(seconds.try_into().unwrap_or(0), nanoseconds.into())
}

/// What a regular file is now; nothing for what is absent or of another kind.
pub(crate) fn look(path: &Path) -> io::Result<Option<(Meta, Stamp)>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !found.is_file() {
        return Ok(None);
    }
    let meta = Meta {
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        mtime: time_of(found.mtime(), found.mtime_nsec()),
        atime: time_of(found.atime(), found.atime_nsec()),
    };
    let stamp = Stamp { ino: found.ino(), size: found.size(), mtime: (found.mtime(), found.mtime_nsec()) };
    Ok(Some((meta, stamp)))
}

/// Size in bytes by stamp, without reading.
impl Stamp {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// Reads a whole file, at most `limit` bytes of it.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Places a complete file: temporary name, mode, owner and time, `fsync` when it has to last, rename.
pub(crate) fn place(
    temporary: &Path,
    target: &Path,
    bytes: &[u8],
    meta: &Meta,
    lasting: bool,
) -> io::Result<()> {
    let placed = write_whole(temporary, bytes, meta, lasting).and_then(|()| fs::rename(temporary, target));
    if placed.is_err() {
        // The error that counts is the first one; a leftover is swept at the next start.
        let _ = fs::remove_file(temporary);
        return placed;
    }
    if lasting { sync_parent(target) } else { Ok(()) }
}

fn write_whole(path: &Path, bytes: &[u8], meta: &Meta, lasting: bool) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (meta.uid, meta.gid) {
        std::os::unix::fs::fchown(&file, Some(meta.uid), Some(meta.gid))?;
    }
    // After the owner: chown clears bits of the mode.
    file.set_permissions(fs::Permissions::from_mode(meta.mode))?;
    nix::sys::stat::futimens(&file, &timespec(meta.atime), &timespec(meta.mtime))?;
    if lasting { file.sync_all() } else { Ok(()) }
}

/// Gives an existing file another mode, owner or time.
pub(crate) fn change(path: &Path, old: &Meta, new: &Meta) -> io::Result<()> {
    if (old.uid, old.gid) != (new.uid, new.gid) {
        std::os::unix::fs::lchown(path, Some(new.uid), Some(new.gid))?;
    }
    if old.mode != new.mode || (old.uid, old.gid) != (new.uid, new.gid) {
        fs::set_permissions(path, fs::Permissions::from_mode(new.mode))?;
    }
    if (old.atime, old.mtime) != (new.atime, new.mtime) {
        utimensat(
            nix::fcntl::AT_FDCWD,
            path,
            &timespec(new.atime),
            &timespec(new.mtime),
            UtimensatFlags::NoFollowSymlink,
        )?;
    }
    Ok(())
}

/// Removes a file and makes that last; false when there was none.
pub(crate) fn remove(path: &Path, lasting: bool) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    if lasting {
        sync_parent(path)?;
    }
    Ok(true)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
