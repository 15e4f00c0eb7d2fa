//! Symbolic error numbers: what `write(2)`, `fsync(2)` and `rename(2)` on the tree fail with.
//!
//! Names only. The numbers differ between systems; the file tree maps them with its own libc.

use std::fmt;

/// The error numbers that the tree gives for refusals of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Errno {
    /// Invalid argument.
    Einval,
    /// No such file or directory.
    Enoent,
    /// Device or resource busy.
    Ebusy,
    /// Operation not permitted.
    Eperm,
    /// Bad message.
    Ebadmsg,
    /// Stale file handle.
    Estale,
    /// No route to host.
    Ehostunreach,
    /// Operation not supported.
    Enotsup,
    /// No space left on device.
    Enospc,
    /// File too large.
    Efbig,
    /// Resource temporarily unavailable.
    Eagain,
    /// Input/output error.
    Eio,
}

impl Errno {
    /// All of them, in the order of the documentation.
    pub const ALL: [Errno; 12] = [
        Errno::Einval,
        Errno::Enoent,
        Errno::Ebusy,
        Errno::Eperm,
        Errno::Ebadmsg,
        Errno::Estale,
        Errno::Ehostunreach,
        Errno::Enotsup,
        Errno::Enospc,
        Errno::Efbig,
        Errno::Eagain,
        Errno::Eio,
    ];

    /// The name as in `errno(3)`.
    pub fn name(self) -> &'static str {
        match self {
            Errno::Einval => "EINVAL",
            Errno::Enoent => "ENOENT",
            Errno::Ebusy => "EBUSY",
            Errno::Eperm => "EPERM",
            Errno::Ebadmsg => "EBADMSG",
            Errno::Estale => "ESTALE",
            Errno::Ehostunreach => "EHOSTUNREACH",
            Errno::Enotsup => "ENOTSUP",
            Errno::Enospc => "ENOSPC",
            Errno::Efbig => "EFBIG",
            Errno::Eagain => "EAGAIN",
            Errno::Eio => "EIO",
        }
    }

    /// The inverse of [`Errno::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|errno| errno.name() == name)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
