//! One table from what went wrong to errno, exit status, retryable and hint.

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
    /// It was tried and failed; what was before is back: EIO.
    Failed,
    /// Half done and could not be taken back: EIO.
    NeedsOperator,
    /// A defect of zed: EIO.
    Internal,
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
}
