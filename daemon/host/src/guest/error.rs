//! Why an operation on a guest failed: one type, which names the guest, the cause and what to do.

use super::commands::Output;
use super::commands::ToolCommand;
use zed_plan::GuestId;

/// Why a guest could not be observed or made.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} {object}: {kind}")]
pub struct GuestError {
    /// `start`, `stop`, ...
    pub operation: &'static str,
    /// `jail:shop`, or `the guests of this host`.
    pub object: String,
    /// What kind.
    pub kind: GuestErrorKind,
}

/// Kinds of failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestErrorKind {
    /// A tool could not be run.
    #[error("`{command}` cannot be run: {problem}")]
    Tool {
        /// The command.
        command: String,
        /// Why.
        problem: String,
    },
    /// A tool said what is not understood.
    #[error("`{tool}` printed `{line}`, which is not understood")]
    Output {
        /// The tool.
        tool: &'static str,
        /// The line.
        line: String,
    },
    /// After a command the state is not what was wanted.
    #[error("`{command}` ended with {said}, and {state}")]
    State {
        /// The command.
        command: String,
        /// What it said.
        said: String,
        /// What is there instead.
        state: String,
    },
    /// It belongs to somebody else.
    #[error("{0}")]
    NotOurs(String),
    /// Something is needed that only an operator can give.
    #[error("{0}")]
    Missing(String),
    /// A file could not be read or written.
    #[error("`{path}`: {problem}")]
    File {
        /// Which.
        path: String,
        /// Why.
        problem: String,
    },
    /// This host has no guests of this kind.
    #[error("this host has no {0}s")]
    Unsupported(&'static str),
}

impl GuestErrorKind {
    /// A command after which the state is not what was wanted.
    pub(crate) fn state(command: &ToolCommand, output: &Output, state: impl Into<String>) -> Self {
        Self::State { command: command.line(), said: output.summary(), state: state.into() }
    }

    /// A file that could not be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), problem: error.to_string() }
    }

    /// With the operation and the guest.
    pub(crate) fn of(self, operation: &'static str, guest: &GuestId) -> GuestError {
        GuestError { operation, object: guest.to_string(), kind: self }
    }
}
