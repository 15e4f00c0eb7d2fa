//! The tree as zedctl uses it, whatever carries it, and how its refusals become errors.

use std::io;
use std::time::Duration;
use zed_ctl::Code;
use zed_ctl::CtlError;

/// One way to reach the tree. Paths are below its root, without a leading slash.
pub(crate) trait Tree: Send + Sync {
    /// For messages: `/zed`, `socket /run/zed/zedd.sock`.
    fn place(&self) -> String;

    /// The names in a folder, sorted.
    fn list(&self, path: &str) -> Result<Vec<String>, CtlError>;

    /// What a file says now. Blocks for `NAME.wait`.
    fn read(&self, path: &str) -> Result<String, CtlError>;

    /// Writes one verb and waits until it has been carried out.
    fn verb(&self, path: &str, verb: &str) -> Result<(), CtlError>;

    /// Puts a spec file in place, at once and completely.
    fn save(&self, folder: &str, file: &str, text: &[u8]) -> Result<(), CtlError>;

    /// Hands a job to a queue and gives its reply, when it is there.
    fn submit(&self, path: &str, job: &[u8]) -> Result<Vec<u8>, CtlError>;

    /// Gives the lines of a stream to `sink`, from the last `tail` of them (all when absent). Ends at the end
    /// of what there is, or, when following, only when the sink fails.
    fn stream(&self, path: &str, tail: Option<usize>, follow: bool, sink: Sink<'_>) -> Result<(), CtlError>;
}

/// Takes lines without their newline.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&str) -> Result<(), CtlError>;

/// How often something is looked at that has no way to wake a waiter.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// The kind of a refusal, from what a system call said.
pub(crate) fn code_of(error: &io::Error) -> Code {
    use rustix::io::Errno;
    let Some(raw) = error.raw_os_error() else {
        return match error.kind() {
            io::ErrorKind::NotFound => Code::NotFound,
            io::ErrorKind::PermissionDenied => Code::NotPermitted,
            _ => Code::Failed,
        };
    };
    match Errno::from_raw_os_error(raw) {
        Errno::INVAL => Code::BadArgument,
        Errno::NOENT | Errno::NOTDIR => Code::NotFound,
        Errno::BUSY => Code::Busy,
        Errno::PERM | Errno::ACCESS | Errno::ROFS => Code::NotPermitted,
        Errno::BADMSG => Code::BadSpec,
        Errno::STALE => Code::Stale,
        Errno::HOSTUNREACH | Errno::CONNREFUSED | Errno::NOTCONN => Code::Unreachable,
        Errno::NOTSUP | Errno::NOSYS => Code::Unsupported,
        Errno::NOSPC | Errno::DQUOT => Code::NoSpace,
        Errno::FBIG => Code::TooLarge,
        Errno::AGAIN => Code::Full,
        _ => Code::Failed,
    }
}

/// The error of a call that failed, in the system's words. A dead mount is told as such.
pub(crate) fn io_error(operation: &str, path: &str, error: &io::Error) -> CtlError {
    let message = format!("failed to {operation} `{path}`: {}", system_words(error));
    let failed = CtlError::new(code_of(error), message);
    if error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error()) {
        return failed
            .hint("zedd is not running behind this mount: start it again, it clears the dead mount");
    }
    match failed.code {
        Code::NotPermitted => failed.hint("ask as the owner of the file, or as root"),
        _ => failed,
    }
}

/// `Invalid argument`, without Rust's `(os error 22)`.
fn system_words(error: &io::Error) -> String {
    let words = error.to_string();
    match words.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => words,
    }
}

/// The error whose text an `error` file holds: the message, and the hint below it.
pub(crate) fn told_error(code: Code, told: &str) -> CtlError {
    let told = told.trim_end();
    match told.rsplit_once("\nhint: ") {
        Some((message, hint)) => CtlError::new(code, message).hint(hint),
        None => CtlError::new(code, told),
    }
}

/// Where the reason of a refusal is told: `error` in the folder of a verb file.
pub(crate) fn error_file(verb_file: &str) -> String {
    match verb_file.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/error"),
        None => "error".to_owned(),
    }
}

/// The last `tail` lines of a text.
pub(crate) fn last_lines(text: &str, tail: Option<usize>) -> impl Iterator<Item = &str> {
    let count = text.lines().count();
    text.lines().skip(tail.map_or(0, |tail| count.saturating_sub(tail)))
}

/// Cuts bytes that arrive in pieces into lines.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Gives every line that is complete now to the sink.
    pub(crate) fn push(&mut self, bytes: &[u8], sink: Sink<'_>) -> Result<(), CtlError> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            sink(&String::from_utf8_lossy(line))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut lines = Vec::new();
        let mut cutter = Lines::default();
        for piece in [&b"a"[..], b"b\nc", b"\n\n", b"d\xff\ne"] {
            cutter
                .push(piece, &mut |line| {
                    lines.push(line.to_owned());
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(lines, ["ab", "c", "", "d\u{fffd}"]);
    }
}
