//! Why an operation on the tree was refused: an error number, and the text for the `error` file.
//!
//! Owns the one table from the control plane's symbolic errors to this system's numbers. Never performs I/O.

use nix::errno::Errno;
use zed_ctl::CtlError;

/// A refusal: what the system call fails with, and what the `error` file beside it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The error number.
    pub errno: Errno,
    /// Object, cause and hint, newline-terminated; absent where the number says it all (ENOENT of a lookup).
    pub text: Option<String>,
}

impl Fault {
    /// A refusal with its text.
    pub fn new(errno: Errno, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Self { errno, text: Some(text) }
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self { errno, text: None }
    }
}

impl From<CtlError> for Fault {
    fn from(error: CtlError) -> Self {
        Self::new(errno_of(error.code.errno()), error.render())
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Self { errno, text: None }
    }
}

/// The number that this system gives a symbolic error.
pub fn errno_of(errno: zed_ctl::Errno) -> Errno {
    match errno {
        zed_ctl::Errno::Einval => Errno::EINVAL,
        zed_ctl::Errno::Enoent => Errno::ENOENT,
        zed_ctl::Errno::Ebusy => Errno::EBUSY,
        zed_ctl::Errno::Eperm => Errno::EPERM,
        zed_ctl::Errno::Ebadmsg => Errno::EBADMSG,
        zed_ctl::Errno::Estale => Errno::ESTALE,
        zed_ctl::Errno::Ehostunreach => Errno::EHOSTUNREACH,
        zed_ctl::Errno::Enotsup => Errno::ENOTSUP,
        zed_ctl::Errno::Enospc => Errno::ENOSPC,
        zed_ctl::Errno::Efbig => Errno::EFBIG,
        zed_ctl::Errno::Eagain => Errno::EAGAIN,
        zed_ctl::Errno::Eio => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zed_ctl::Code;

    #[test]
    fn every_code_keeps_the_name_of_its_errno() {
        for code in Code::ALL {
            let here = errno_of(code.errno());
            let name = format!("{here:?}");
            // EOPNOTSUPP is ENOTSUP by another name on Linux.
            assert!(name == code.errno().name() || here == Errno::ENOTSUP, "{code:?}: {name}");
        }
    }

    #[test]
    fn a_refusal_ends_with_a_newline() {
        assert_eq!(Fault::new(Errno::EINVAL, "no").text.as_deref(), Some("no\n"));
        assert_eq!(Fault::new(Errno::EINVAL, "no\n").text.as_deref(), Some("no\n"));
    }
}
