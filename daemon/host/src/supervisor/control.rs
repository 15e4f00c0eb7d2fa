//! The supervisor's socket: one line asks, one line answers.
//!
//! `stop MILLISECONDS` stops the app with that grace and answers `stopped` when no process of it is left;
//! `status` answers with the record of `status.json` in one line. The socket is in a folder that only the daemon's
//! user can enter. A client that is slow, silent or gone never holds the supervisor up.

use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// More clients at once are turned away.
const MAX_CLIENTS: usize = 16;
/// Longest request.
const MAX_REQUEST: usize = 64;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Stop, with this grace.
    Stop(Duration),
    /// Tell.
    Status,
}

/// Reads one request, without its newline.
pub(crate) fn parse_request(line: &str) -> Result<Request, String> {
    match line.split_once(' ') {
        None if line == "status" => Ok(Request::Status),
        Some(("stop", grace)) => match grace.parse() {
            Ok(millis) => Ok(Request::Stop(Duration::from_millis(millis))),
            Err(_) => Err(format!("`{grace}` is not a number of milliseconds")),
        },
        _ => Err("the requests are `stop MILLISECONDS` and `status`".to_owned()),
    }
}

struct Client {
    stream: UnixStream,
    read: Vec<u8>,
    /// Has asked to stop: answered at the end.
    waits: bool,
}

/// The listening socket and its clients.
pub(crate) struct Control {
    path: PathBuf,
    listener: UnixListener,
    clients: Vec<Client>,
}

impl Control {
    /// Listens. The lock is held, so what is there is left over from a supervisor that was killed.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let listener = bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { path: path.to_owned(), listener, clients: Vec::new() })
    }

    /// What to poll for reading.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let waiting = self.clients.iter().filter(|client| !client.waits);
        std::iter::once(self.listener.as_fd()).chain(waiting.map(|client| client.stream.as_fd()))
    }

    /// Accepts, reads, answers `status` with the given line, and returns the graces of the stops asked for.
    pub(crate) fn serve(&mut self, status: impl Fn() -> String) -> Vec<Duration> {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, read: Vec::new(), waits: false });
            }
        }
        let mut stops = Vec::new();
        self.clients.retain_mut(|client| {
            if client.waits {
                return true;
            }
            match client.next_request() {
                Ok(None) => true,
                Ok(Some(Ok(Request::Stop(grace)))) => {
                    client.waits = true;
                    stops.push(grace);
                    true
                }
                Ok(Some(Ok(Request::Status))) => {
                    client.answer(&status());
                    false
                }
                Ok(Some(Err(text))) => {
                    client.answer(&format!("error {text}"));
                    false
                }
                Err(_) => false,
            }
        });
        stops
    }

    /// Answers those who asked to stop, and goes away.
    pub(crate) fn finish(mut self) {
        let _ = std::fs::remove_file(&self.path);
        for client in self.clients.iter_mut().filter(|client| client.waits) {
            client.answer("stopped");
        }
    }
}

impl Client {
    fn next_request(&mut self) -> io::Result<Option<Result<Request, String>>> {
        let mut chunk = [0u8; MAX_REQUEST];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.read.extend_from_slice(&chunk[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(parse_request(&String::from_utf8_lossy(&self.read[..end]))));
            }
            if self.read.len() > MAX_REQUEST {
                return Ok(Some(Err("the request is too long".to_owned())));
            }
        }
    }

    fn answer(&mut self, line: &str) {
        // The answer fits the socket's buffer; a client that has gone does not want it.
        let _ = self.stream.write_all(format!("{line}\n").as_bytes());
    }
}

/// A socket's path has room for about a hundred bytes; a longer one is reached through the folder's descriptor.
const MAX_PATH: usize = 100;

fn with_short_path<T>(path: &Path, use_it: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= MAX_PATH {
        return use_it(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = std::fs::File::open(folder)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&folder);
    // Linux; elsewhere /dev/fd has no folders, and the system says that the path is too long or not there.
    let short = Path::new("/proc/self/fd").join(fd.to_string()).join(name);
    use_it(&short)
}

/// Listens at a path.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    with_short_path(path, |short| UnixListener::bind(short))
}

/// Connects to a supervisor.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    with_short_path(path, |short| UnixStream::connect(short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        let cases = [
            ("status", Ok(Request::Status)),
            ("stop 0", Ok(Request::Stop(Duration::ZERO))),
            ("stop 1500", Ok(Request::Stop(Duration::from_millis(1500)))),
        ];
        for (line, expect) in cases {
            assert_eq!(parse_request(line), expect, "{line:?}");
        }
        for line in ["", "stop", "stop ", "stop -1", "stop 1 2", "status now", "halt"] {
            assert!(parse_request(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn long_paths_are_reached_too() {
        let folder = tempfile::tempdir().expect("tempdir");
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).expect("mkdir");
        let path = deep.join("sock");
        let mut control = Control::listen(&path).expect("listen");
        let mut client = connect(&path).expect("connect");
        client.write_all(b"status\n").expect("write");
        while !control.clients.is_empty() || control.serve(|| "fine".to_owned()).is_empty() {
            let mut answer = String::new();
            client.set_nonblocking(true).expect("nonblocking");
            if client.read_to_string(&mut answer).is_ok() {
                assert_eq!(answer, "fine\n");
                break;
            }
        }
        control.finish();
        assert!(!path.exists());
    }
}
