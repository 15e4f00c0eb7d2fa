//! Error numbers of libzfs and of the kernel, turned into the store's kinds.

use super::nvlist::NulByte;
use crate::StoreError;
use crate::StoreErrorKind;

/// What to tell a user who may not.
const ALLOW: &str =
    "run as root, or delegate with `zfs allow` (docs/OPERATIONS.md, \"Running without root\")";

/// A failed libzfs or libzfs_core call, not yet tied to an operation.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: StoreErrorKind,
}

impl Refusal {
    pub(super) fn new(kind: StoreErrorKind) -> Self {
        Self { kind }
    }

    /// An errno from libzfs_core or a system call.
    pub(super) fn errno(errno: i32) -> Self {
        use StoreErrorKind as K;
        let text = || std::io::Error::from_raw_os_error(errno).to_string();
        Self::new(match errno {
            libc::ENOENT => K::NotFound,
            libc::EEXIST => K::Exists,
            libc::EBUSY => K::Busy("by a mount, a process, a clone or a hold".into()),
            libc::ENOSPC | libc::EDQUOT => K::NoSpace,
            libc::EPERM | libc::EACCES => K::Permission(ALLOW.into()),
            libc::EINVAL | libc::ENAMETOOLONG | libc::E2BIG | libc::ERANGE => K::Invalid(text()),
            libc::ENOTSUP | libc::ENOSYS => K::Unsupported(text()),
            _ => K::Io(text()),
        })
    }

    /// `libzfs_errno` and the library's own sentence. Numbers from libzfs.h, stable since 0.7.
    pub(super) fn libzfs(code: i32, text: String) -> Self {
        use StoreErrorKind as K;
        Self::new(match code {
            2007 | 2028 => K::Busy(text),
            2008 => K::Exists,
            2009 => K::NotFound,
            2031 => K::Permission(format!("{text}; {ALLOW}")),
            2005 | 2032 => K::NoSpace,
            2001..=2004 | 2006 | 2012 | 2013 => K::Invalid(text),
            _ => K::Io(text),
        })
    }

    /// Says what was being done, and to what.
    pub(super) fn during(self, operation: &'static str, object: impl Into<String>) -> StoreError {
        fail(operation, object, self.kind)
    }
}

impl From<NulByte> for Refusal {
    fn from(error: NulByte) -> Self {
        Self::new(StoreErrorKind::Invalid(error.to_string()))
    }
}

/// A [`StoreError`] without a cause below.
pub(super) fn fail(operation: &'static str, object: impl Into<String>, kind: StoreErrorKind) -> StoreError {
    StoreError { operation, object: object.into(), kind, source: None }
}
