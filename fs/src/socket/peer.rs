//! Who is at the other end of a connection, and what the tree's permission bits let them do.
//!
//! The mount leaves this to the kernel; here the same bits are checked by the same rule.

use crate::Caller;
use crate::tree::Attr;
use std::io;
use std::os::unix::net::UnixStream;

/// What somebody wants to do with a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Read a file, list a folder.
    Read,
    /// Write a file, change a folder.
    Write,
    /// Go through a folder.
    Pass,
}

/// True when the permission bits allow it. Root may do everything. Of the caller's groups only the primary
/// one is known here.
pub(super) fn may(caller: Caller, attr: &Attr, want: Want) -> bool {
    let bit = match want {
        Want::Read => 4,
        Want::Write => 2,
        Want::Pass => 1,
    };
    let shift = if caller.uid == attr.uid {
        6
    } else if caller.gid == attr.gid {
        3
    } else {
        0
    };
    caller.uid == 0 || (attr.mode >> shift) & bit != 0
}

/// Asks the system who connected.
///
/// # Errors
/// When the system does not know.
#[cfg(target_os = "linux")]
pub(super) fn peer_of(stream: &UnixStream) -> io::Result<Caller> {
    let found = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?;
    let pid = u32::try_from(found.pid()).unwrap_or(0);
    Ok(Caller { uid: found.uid(), gid: found.gid(), pid })
}

/// Asks the system who connected.
///
/// # Errors
/// When the system does not know.
#[cfg(not(any(target_os = "linux", target_os = "illumos")))]
pub(super) fn peer_of(stream: &UnixStream) -> io::Result<Caller> {
    let (uid, gid) = nix::unistd::getpeereid(stream)?;
    Ok(Caller { uid: uid.as_raw(), gid: gid.as_raw(), pid: 0 })
}

/// Asks the system who connected.
///
/// # Errors
/// When the system does not know.
#[cfg(target_os = "illumos")]
pub(super) fn peer_of(stream: &UnixStream) -> io::Result<Caller> {
    use std::os::fd::AsRawFd;
    let mut credentials = std::ptr::null_mut();
    // SAFETY: the descriptor is open for the length of the call, and the pointer is ours to be set.
    if unsafe { nix::libc::getpeerucred(stream.as_raw_fd(), &mut credentials) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: getpeerucred has succeeded, so these are valid credentials; they are freed once, after use.
    let (uid, gid, pid) = unsafe {
        let found = (
            nix::libc::ucred_geteuid(credentials),
            nix::libc::ucred_getegid(credentials),
            nix::libc::ucred_getpid(credentials),
        );
        nix::libc::ucred_free(credentials);
        found
    };
    Ok(Caller { uid, gid, pid: u32::try_from(pid).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Lasts;
    use std::time::UNIX_EPOCH;

    #[test]
    fn the_first_class_that_fits_decides() {
        let attr = |mode| Attr {
            is_dir: false,
            mode,
            uid: 10,
            gid: 20,
            size: 0,
            mtime: UNIX_EPOCH,
            atime: UNIX_EPOCH,
            fixed_name: false,
            lasts: Lasts::Now,
        };
        let caller = |uid, gid| Caller { uid, gid, pid: 1 };
        for (mode, uid, gid, want, expected) in [
            (0o644, 10, 20, Want::Write, true),
            (0o644, 11, 20, Want::Write, false),
            (0o644, 11, 21, Want::Read, true),
            (0o640, 11, 21, Want::Read, false),
            (0o640, 11, 20, Want::Read, true),
            // The owner is not looked for among the others.
            (0o077, 10, 20, Want::Read, false),
            (0o000, 0, 0, Want::Write, true),
            (0o711, 11, 21, Want::Pass, true),
        ] {
            assert_eq!(may(caller(uid, gid), &attr(mode), want), expected, "{mode:o} {uid} {gid} {want:?}");
        }
    }

    #[test]
    fn a_peer_is_known() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer_of(&one).unwrap();
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(peer.gid, nix::unistd::getegid().as_raw());
    }
}
