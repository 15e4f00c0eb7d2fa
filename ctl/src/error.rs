//! One table from what went wrong to errno, exit status, retryable and hint.

use crate::errno::Errno;
use serde::Deserialize;
use serde::Serialize;

/// What went wrong, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Unknown verb or bad argument: EINVAL.
    BadArgument,
    /// No such app, release, deploy: ENOENT.
    NotFound,
    /// Another operation holds it: EBUSY.
    Busy,
    /// Not allowed for the caller: EPERM.
    NotPermitted,
    /// A spec that does not parse or validate: EBADMSG.
    BadSpec,
    /// The plan or generation is old: ESTALE.
    Stale,
    /// A peer cannot be reached: EHOSTUNREACH.
    Unreachable,
    /// This host or store cannot do it: ENOTSUP.
    Unsupported,
    /// Disk, pool or quota full: ENOSPC.
    NoSpace,
    /// More than the limit in one write: EFBIG.
    TooLarge,
    /// A queue takes no more now: EAGAIN.
    Full,
    /// It was tried and failed; what was before is back: EIO.
    Failed,
    /// Half done and could not be taken back: EIO.
    NeedsOperator,
    /// A defect of zed: EIO.
    Internal,
}

/// Exit status of a command that did what was asked.
pub const EXIT_OK: u8 = 0;
/// Exit status of a command that failed or was refused.
pub const EXIT_FAILED: u8 = 1;
/// Exit status of a command that was not understood.
pub const EXIT_USAGE: u8 = 2;

impl Code {
    /// All of them, in the order of the documentation.
    pub const ALL: [Code; 14] = [
        Code::BadArgument,
        Code::NotFound,
        Code::Busy,
        Code::NotPermitted,
        Code::BadSpec,
        Code::Stale,
        Code::Unreachable,
        Code::Unsupported,
        Code::NoSpace,
        Code::TooLarge,
        Code::Full,
        Code::Failed,
        Code::NeedsOperator,
        Code::Internal,
    ];

    /// The word used in JSON and in the `code` line of documents: `bad-argument`.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadArgument => "bad-argument",
            Code::NotFound => "not-found",
            Code::Busy => "busy",
            Code::NotPermitted => "not-permitted",
            Code::BadSpec => "bad-spec",
            Code::Stale => "stale",
            Code::Unreachable => "unreachable",
            Code::Unsupported => "unsupported",
            Code::NoSpace => "no-space",
            Code::TooLarge => "too-large",
            Code::Full => "full",
            Code::Failed => "failed",
            Code::NeedsOperator => "needs-operator",
            Code::Internal => "internal",
        }
    }

    /// What a system call on the tree fails with.
    pub fn errno(self) -> Errno {
        match self {
            Code::BadArgument => Errno::Einval,
            Code::NotFound => Errno::Enoent,
            Code::Busy => Errno::Ebusy,
            Code::NotPermitted => Errno::Eperm,
            Code::BadSpec => Errno::Ebadmsg,
            Code::Stale => Errno::Estale,
            Code::Unreachable => Errno::Ehostunreach,
            Code::Unsupported => Errno::Enotsup,
            Code::NoSpace => Errno::Enospc,
            Code::TooLarge => Errno::Efbig,
            Code::Full => Errno::Eagain,
            Code::Failed | Code::NeedsOperator | Code::Internal => Errno::Eio,
        }
    }

    /// Exit status of a command line that met it: [`EXIT_USAGE`] when the words were wrong, else
    /// [`EXIT_FAILED`].
    pub fn exit_status(self) -> u8 {
        match self {
            Code::BadArgument => EXIT_USAGE,
            Code::NotFound
            | Code::Busy
            | Code::NotPermitted
            | Code::BadSpec
            | Code::Stale
            | Code::Unreachable
            | Code::Unsupported
            | Code::NoSpace
            | Code::TooLarge
            | Code::Full
            | Code::Failed
            | Code::NeedsOperator
            | Code::Internal => EXIT_FAILED,
        }
    }

    /// True when the same request may succeed later without anybody changing it.
    pub fn retryable(self) -> bool {
        match self {
            Code::Busy | Code::Unreachable | Code::NoSpace | Code::Full => true,
            Code::BadArgument
            | Code::NotFound
            | Code::NotPermitted
            | Code::BadSpec
            | Code::Stale
            | Code::Unsupported
            | Code::TooLarge
            | Code::Failed
            | Code::NeedsOperator
            | Code::Internal => false,
        }
    }

    /// What to do when nobody gave a better hint.
    pub fn default_hint(self) -> &'static str {
        match self {
            Code::BadArgument => "the file `help` at the top of the tree lists the verbs and their arguments",
            Code::NotFound => {
                "reading the file that was written to, or listing its folder, shows what there is"
            }
            Code::Busy => "wait until the running operation has ended (`zedctl events -f`), then try again",
            Code::NotPermitted => "ask as the owner of the file, or as root",
            Code::BadSpec => "correct the lines shown and save the spec again",
            Code::Stale => "make the plan again and look at it before applying it",
            Code::Unreachable => "check that zedd runs there and that the address is right, then try again",
            Code::Unsupported => "`hosts/HOST/facts` in the tree shows what this host can do",
            Code::NoSpace => "free space in the store, or raise the quota, then try again",
            Code::TooLarge => "write less at once",
            Code::Full => {
                "wait until the queue is shorter (`stats` beside it says how long it is), then write again"
            }
            Code::Failed => "the verdict and the log say why; correct the cause and save the spec again",
            Code::NeedsOperator => {
                "a step could not be taken back: put right what the verdict names, then write `retry`"
            }
            Code::Internal => {
                "this is a defect of zed: please report it with the output of `zedctl bugreport`"
            }
        }
    }
}

/// A refusal with all that its reader needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CtlError {
    /// What kind.
    pub code: Code,
    /// Object and cause, one line or several.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl CtlError {
    /// A refusal without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The message, and below it `hint: ...`; newline-terminated. What an `error` file holds.
    pub fn render(&self) -> String {
        let hint = self.hint.as_deref().unwrap_or_else(|| self.code.default_hint());
        format!("{}\nhint: {hint}\n", self.message.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_one_word_and_every_errno_a_code() {
        let words: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        let errnos: BTreeSet<Errno> = Code::ALL.iter().map(|code| code.errno()).collect();
        assert_eq!(errnos.into_iter().collect::<Vec<_>>(), Errno::ALL);
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(Errno::from_name(code.errno().name()), Some(code.errno()));
        }
    }

    #[test]
    fn an_error_is_rendered_with_a_hint() {
        let error = CtlError::new(Code::NotFound, "app `x` is not declared");
        assert_eq!(
            error.render(),
            "app `x` is not declared\nhint: reading the file that was written to, or listing its folder, shows what there is\n"
        );
        assert_eq!(error.hint("try `y`").render(), "app `x` is not declared\nhint: try `y`\n");
    }
}
