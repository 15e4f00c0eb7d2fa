//! Removing a tree without following anything in it.
//!
//! The owner of what is removed may change it meanwhile: every step is relative to an open folder.

use rustix::fs::AtFlags;
use rustix::fs::Dir;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::io::Result;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

/// Opens a folder below `at`, never through a link.
pub(crate) fn open_folder<P: rustix::path::Arg>(at: impl AsFd, name: P) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Names in a folder, in no order.
pub(crate) fn names(folder: impl AsFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes `name` below `at`, with all that is in it. Nothing there is as good.
pub(crate) fn remove_tree<P: rustix::path::Arg + Copy>(at: impl AsFd, name: P) -> Result<()> {
    let at = at.as_fd();
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says ISDIR, POSIX PERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    let folder = match open_folder(at, name) {
        Err(Errno::ACCESS) => {
            // A folder of our own that forbids us to read it. Who is not root needs this.
            rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
            open_folder(at, name)?
        }
        other => other?,
    };
    let names = names(&folder)?;
    let mut writable = false;
    for child in &names {
        match remove_tree(&folder, child.as_c_str()) {
            Err(Errno::ACCESS) if !writable => {
                rustix::fs::fchmod(&folder, Mode::RWXU)?;
                writable = true;
                remove_tree(&folder, child.as_c_str())?;
            }
            other => other?,
        }
    }
    match rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
