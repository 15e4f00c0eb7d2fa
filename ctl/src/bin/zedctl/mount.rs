//! The tree as a folder: plain file operations, nothing that `cat` and `cp` could not do.

use crate::tree::Lines;
use crate::tree::POLL;
use crate::tree::Sink;
use crate::tree::Tree;
use crate::tree::code_of;
use crate::tree::error_file;
use crate::tree::io_error;
use crate::tree::last_lines;
use crate::tree::told_error;
use std::fs;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use zed_ctl::Code;
use zed_ctl::CtlError;

/// A mounted tree.
pub(crate) struct Mount {
    root: PathBuf,
}

/// Bytes of one read of a stream.
const CHUNK: usize = 64 * 1024;

impl Mount {
    /// The tree below this folder.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn error(&self, operation: &str, path: &str, error: &io::Error) -> CtlError {
        io_error(operation, &self.root.join(path).display().to_string(), error)
    }

    /// What the file `error` in the verb file's folder says about a refused write, else the system's words.
    fn refusal(&self, operation: &str, path: &str, error: &io::Error) -> CtlError {
        self.told_in(&error_file(path), operation, path, error)
    }

    fn told_in(&self, error_file: &str, operation: &str, path: &str, error: &io::Error) -> CtlError {
        let told = fs::read_to_string(self.root.join(error_file)).unwrap_or_default();
        if told.trim().is_empty() {
            return self.error(operation, path, error);
        }
        told_error(code_of(error), &told)
    }

    /// Where the last `tail` lines of a file of this length begin.
    fn tail_offset(file: &mut fs::File, length: u64, tail: Option<usize>) -> io::Result<u64> {
        let Some(tail) = tail else { return Ok(0) };
        let mut end = length;
        let mut newlines = 0;
        // A newline at the very end closes the last line, it does not begin another.
        let mut ends_line = true;
        while end > 0 {
            let start = end.saturating_sub(CHUNK as u64);
            let mut part = vec![0; usize::try_from(end - start).unwrap_or(CHUNK)];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut part)?;
            for (at, byte) in part.iter().enumerate().rev() {
                if *byte == b'\n' && !ends_line {
                    newlines += 1;
                    if newlines == tail {
                        return Ok(start + at as u64 + 1);
                    }
                }
                ends_line = false;
            }
            end = start;
        }
        Ok(if tail == 0 { length } else { 0 })
    }
}

impl Tree for Mount {
    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn list(&self, path: &str) -> Result<Vec<String>, CtlError> {
        let failed = |error| self.error("list", path, &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(path)).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, path: &str) -> Result<String, CtlError> {
        let bytes = fs::read(self.root.join(path)).map_err(|error| self.error("read", path, &error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn verb(&self, path: &str, verb: &str) -> Result<(), CtlError> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(self.root.join(path))
            .map_err(|error| self.error("open", path, &error))?;
        let line = format!("{verb}\n");
        // One write is one verb: a loop over partial writes would send the rest as another.
        let written = file.write(line.as_bytes()).map_err(|error| self.refusal("write", path, &error))?;
        if written != line.len() {
            let message = format!("`{path}` took {written} of {} bytes", line.len());
            return Err(CtlError::new(Code::Internal, message));
        }
        // fsync is commit: it returns when the verb has been carried out. What takes longer than the daemon
        // parks a request for is asked for again.
        loop {
            match file.sync_all() {
                Ok(()) => return Ok(()),
                Err(error) if is_late(&error) => {}
                Err(error) => return Err(self.refusal("carry out the verb in", path, &error)),
            }
        }
    }

    fn submit(&self, path: &str, job: &[u8]) -> Result<Vec<u8>, CtlError> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.root.join(path))
            .map_err(|error| self.error("open", path, &error))?;
        file.write_all(job).map_err(|error| self.refusal("submit a job to", path, &error))?;
        let mut reply = Vec::new();
        file.read_to_end(&mut reply)
            .map_err(|error| self.refusal("read the reply of a job from", path, &error))?;
        if reply.is_empty() {
            // No job was complete: the queue says why, as it would at the close.
            file.sync_all().map_err(|error| self.refusal("submit a job to", path, &error))?;
        }
        Ok(reply)
    }

    fn save(&self, folder: &str, file: &str, text: &[u8]) -> Result<(), CtlError> {
        let target = format!("{folder}/{file}");
        let scratch = format!(".zedctl-{}-{file}", std::process::id());
        let (from, to) = (self.root.join(folder).join(&scratch), self.root.join(&target));
        let placed = write_synced(&from, text).and_then(|()| fs::rename(&from, &to));
        placed.map_err(|error| {
            // What is left is scratch, which is never applied; the error that matters is the first one.
            let _ = fs::remove_file(&from);
            // The diagnostics of a spec that was refused: what it would have replaced is still there, and
            // `NAME.errors` speaks of that.
            if code_of(&error) != Code::BadSpec {
                return self.error("save", &target, &error);
            }
            let mut told = self.told_in("error", "save", &target, &error);
            // Nobody has to know the name it had on the way.
            if let Some(rest) = told.message.strip_prefix(&format!("{scratch} cannot become {file}: ")) {
                told.message = rest.to_owned();
            }
            told
        })
    }

    fn stream(&self, path: &str, tail: Option<usize>, follow: bool, sink: Sink<'_>) -> Result<(), CtlError> {
        let failed = |error: io::Error| self.error("read", path, &error);
        let full = self.root.join(path);
        let mut file = open_stream(&full, follow).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let at = Self::tail_offset(&mut file, length, tail).map_err(failed)?;
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        if !follow {
            let mut bytes = Vec::new();
            match file.take(length - at).read_to_end(&mut bytes) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(failed(error)),
                _ => {}
            }
            return last_lines(&String::from_utf8_lossy(&bytes), None).try_for_each(sink);
        }
        let mut lines = Lines::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            if count == 0 {
                std::thread::sleep(POLL);
                // A plain file was rotated away: go on with the one that took its place. The daemon's streams
                // do that by themselves and keep their inode.
                let inode = |file: fs::Metadata| file.ino();
                if fs::metadata(&full)
                    .is_ok_and(|now| file.metadata().is_ok_and(|old| inode(now) != inode(old)))
                {
                    file = open_stream(&full, follow).map_err(failed)?;
                }
                continue;
            }
            lines.push(buffer.get(..count).unwrap_or_default(), sink)?;
        }
    }
}

/// A stream blocks at its end; when only what is there is wanted, it must not.
fn open_stream(path: &Path, follow: bool) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    if !follow {
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    options.open(path)
}

fn is_late(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::TIMEDOUT.raw_os_error())
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(text: &str, tail: Option<usize>) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log"), text).unwrap();
        let mut lines = Vec::new();
        Mount::new(dir.path().to_owned())
            .stream("log", tail, false, &mut |line| {
                lines.push(line.to_owned());
                Ok(())
            })
            .unwrap();
        lines
    }

    #[test]
    fn the_last_lines_are_found() {
        let long = "x".repeat(CHUNK);
        let cases: [(String, Option<usize>, Vec<&str>); 9] = [
            (String::new(), Some(3), vec![]),
            ("a\nb\nc\n".to_owned(), None, vec!["a", "b", "c"]),
            ("a\nb\nc\n".to_owned(), Some(0), vec![]),
            ("a\nb\nc\n".to_owned(), Some(1), vec!["c"]),
            ("a\nb\nc".to_owned(), Some(2), vec!["b", "c"]),
            ("a\nb\nc\n".to_owned(), Some(3), vec!["a", "b", "c"]),
            ("a\n".to_owned(), Some(30), vec!["a"]),
            ("a\n\n\n".to_owned(), Some(2), vec!["", ""]),
            (format!("a\n{long}\nc\n"), Some(2), vec![&long, "c"]),
        ];
        for (text, tail, expected) in &cases {
            assert_eq!(streamed(text, *tail), *expected, "{tail:?}");
        }
    }
}
