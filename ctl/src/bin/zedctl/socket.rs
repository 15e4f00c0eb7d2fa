//! The tree on a Unix socket: one JSON object a line, requests answered in order (see zed-fs, `socket`).
//!
//! A request that waits keeps its connection to itself; idle ones are used again.

use crate::tree::Lines;
use crate::tree::Sink;
use crate::tree::Tree;
use crate::tree::io_error;
use crate::tree::last_lines;
use crate::tree::told_error;
use serde::Deserialize;
use serde::Serialize;
use std::fmt::Write as _;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::Errno;

/// The version of the protocol that is spoken here.
const PROTOCOL: u32 = 1;

/// How much of the end of a stream is looked at first for its last lines, in bytes.
const TAIL: u64 = 64 * 1024;

/// What is asked for.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Request<'a> {
    Read { path: &'a str, offset: u64 },
    Write { path: &'a str, data: &'a str },
    List { path: &'a str },
    Stat { path: &'a str },
    Follow { path: &'a str, offset: u64 },
    Put { path: &'a str, data: &'a str },
    Submit { path: &'a str, data: &'a str, hex: bool },
}

/// What comes back. Fields that are not needed here are not named.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Zed { protocol: u32 },
    Ok {},
    Data(Data),
    Entries(Vec<Listed>),
    Stat(Listed),
    Error { errno: String, message: String },
}

#[derive(Debug, Deserialize)]
struct Data {
    text: Option<String>,
    hex: Option<String>,
    next: u64,
    end: bool,
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    size: u64,
}

/// A socket that answers.
pub(crate) struct Socket {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    input: BufReader<UnixStream>,
}

impl Connection {
    fn send(&mut self, request: Request<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        self.input.get_mut().write_all(&line)
    }

    fn receive(&mut self) -> io::Result<Answer> {
        let mut line = Vec::new();
        if self.input.read_until(b'\n', &mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "zedd closed the connection"));
        }
        serde_json::from_slice(&line).map_err(|error| {
            let text = format!("the answer is not what this zedctl understands: {error}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

impl Socket {
    /// Connects; the error is one line.
    pub(crate) fn connect(path: &Path) -> Result<Self, String> {
        let socket = Self { path: path.to_owned(), idle: Mutex::default() };
        let first = socket.open().map_err(|error| error.message)?;
        socket.give_back(first);
        Ok(socket)
    }

    fn open(&self) -> Result<Connection, CtlError> {
        let unreachable = |error: &io::Error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "no such socket".to_owned(),
                io::ErrorKind::ConnectionRefused => "nobody answers: zedd is not running".to_owned(),
                _ => error.to_string(),
            };
            CtlError::new(Code::Unreachable, why)
        };
        let stream = UnixStream::connect(&self.path).map_err(|error| unreachable(&error))?;
        let mut connection = Connection { input: BufReader::new(stream) };
        match connection.receive().map_err(|error| unreachable(&error))? {
            Answer::Zed { protocol: PROTOCOL } => Ok(connection),
            Answer::Zed { protocol } => {
                let message =
                    format!("zedd speaks version {protocol} of the protocol, this zedctl {PROTOCOL}");
                Err(CtlError::new(Code::Unsupported, message)
                    .hint("use the zedctl that came with the daemon"))
            }
            Answer::Error { errno, message } => Err(told_error(code_named(&errno), &message)),
            _ => Err(CtlError::new(Code::Unreachable, "what answers there is not zedd")),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // Nothing that holds the lock can leave the list half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<Connection, CtlError> {
        let idle = self.idle().pop();
        idle.map_or_else(|| self.open(), Ok)
    }

    fn give_back(&self, connection: Connection) {
        self.idle().push(connection);
    }

    /// One request and its answer; a refusal becomes the error.
    fn ask(&self, request: Request<'_>) -> Result<Answer, CtlError> {
        let mut connection = self.take()?;
        let answer = connection.send(request).and_then(|()| connection.receive());
        let answer = answer.map_err(|error| self.broken(&error))?;
        self.give_back(connection);
        match answer {
            Answer::Error { errno, message } => Err(told_error(code_named(&errno), &message)),
            answer => Ok(answer),
        }
    }

    fn broken(&self, error: &io::Error) -> CtlError {
        let broken = io_error("talk to zedd on", &self.path.display().to_string(), error);
        CtlError { code: Code::Unreachable, ..broken }
    }

    fn unexpected(&self, path: &str, answer: &Answer) -> CtlError {
        CtlError::new(Code::Internal, format!("{} answered for `{path}`: {answer:?}", self.place()))
    }

    /// What a file says from an offset to its end.
    fn read_from(&self, path: &str, mut offset: u64) -> Result<Vec<u8>, CtlError> {
        let mut bytes = Vec::new();
        loop {
            match self.ask(Request::Read { path, offset })? {
                Answer::Data(data) => {
                    let (next, end) = (data.next, data.end);
                    bytes.extend(self.bytes_of(path, data)?);
                    if end || next <= offset {
                        return Ok(bytes);
                    }
                    offset = next;
                }
                other => return Err(self.unexpected(path, &other)),
            }
        }
    }

    fn bytes_of(&self, path: &str, data: Data) -> Result<Vec<u8>, CtlError> {
        match data {
            Data { text: Some(text), .. } => Ok(text.into_bytes()),
            Data { hex: Some(hex), .. } => unhex(&hex).ok_or_else(|| {
                CtlError::new(
                    Code::Internal,
                    format!("{} answered for `{path}` with bad bytes", self.place()),
                )
            }),
            Data { text: None, hex: None, .. } => Ok(Vec::new()),
        }
    }

    /// The last `tail` lines of a stream as it is now, and where it ends.
    fn tail(&self, path: &str, tail: Option<usize>) -> Result<(Vec<u8>, u64), CtlError> {
        let size = match self.ask(Request::Stat { path })? {
            Answer::Stat(listed) => listed.size,
            other => return Err(self.unexpected(path, &other)),
        };
        let mut window = TAIL;
        loop {
            let start = if tail.is_some() { size.saturating_sub(window) } else { 0 };
            let bytes = self.read_from(path, start)?;
            let end = start + bytes.len() as u64;
            // The first line is whole only when one more begins before it.
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            if start == 0 || tail.is_some_and(|tail| lines > tail) {
                return Ok((bytes, end));
            }
            window = window.saturating_mul(4);
        }
    }
}

impl Tree for Socket {
    fn place(&self) -> String {
        format!("socket {}", self.path.display())
    }

    fn list(&self, path: &str) -> Result<Vec<String>, CtlError> {
        match self.ask(Request::List { path })? {
            Answer::Entries(entries) => {
                let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
                names.sort();
                Ok(names)
            }
            other => Err(self.unexpected(path, &other)),
        }
    }

    fn read(&self, path: &str) -> Result<String, CtlError> {
        Ok(String::from_utf8_lossy(&self.read_from(path, 0)?).into_owned())
    }

    fn verb(&self, path: &str, verb: &str) -> Result<(), CtlError> {
        match self.ask(Request::Write { path, data: &format!("{verb}\n") })? {
            Answer::Ok {} => Ok(()),
            other => Err(self.unexpected(path, &other)),
        }
    }

    fn submit(&self, path: &str, job: &[u8]) -> Result<Vec<u8>, CtlError> {
        let hex: String;
        let (data, is_hex) = match std::str::from_utf8(job) {
            Ok(text) => (text, false),
            Err(_) => {
                hex = job.iter().fold(String::with_capacity(2 * job.len()), |mut hex, byte| {
                    // Writing to a String cannot fail.
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
                (hex.as_str(), true)
            }
        };
        let mut connection = self.take()?;
        connection.send(Request::Submit { path, data, hex: is_hex }).map_err(|error| self.broken(&error))?;
        let mut reply = Vec::new();
        loop {
            match connection.receive().map_err(|error| self.broken(&error))? {
                Answer::Data(data) => {
                    let end = data.end;
                    reply.extend(self.bytes_of(path, data)?);
                    if end {
                        self.give_back(connection);
                        return Ok(reply);
                    }
                }
                Answer::Error { errno, message } => {
                    self.give_back(connection);
                    return Err(told_error(code_named(&errno), &message));
                }
                other => return Err(self.unexpected(path, &other)),
            }
        }
    }

    fn save(&self, folder: &str, file: &str, text: &[u8]) -> Result<(), CtlError> {
        let data = std::str::from_utf8(text).map_err(|error| {
            let message = format!("error: `{file}` is not UTF-8, from byte {}", error.valid_up_to());
            CtlError::new(Code::BadSpec, message)
        })?;
        let path = format!("{folder}/{file}");
        match self.ask(Request::Put { path: &path, data }) {
            Ok(Answer::Ok {}) => Ok(()),
            Ok(other) => Err(self.unexpected(&path, &other)),
            Err(mut refused) => {
                // Nobody has to know the name it had on the way.
                if let Some((_, told)) = refused.message.split_once(&format!(" cannot become {file}: ")) {
                    refused.message = told.to_owned();
                }
                Err(refused)
            }
        }
    }

    fn stream(&self, path: &str, tail: Option<usize>, follow: bool, sink: Sink<'_>) -> Result<(), CtlError> {
        let (bytes, mut offset) = self.tail(path, tail)?;
        // A line that is not complete yet is left to what follows.
        let whole = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(last) if follow => last + 1,
            None if follow => 0,
            _ => bytes.len(),
        };
        offset -= (bytes.len() - whole) as u64;
        let text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default()).into_owned();
        last_lines(&text, tail).try_for_each(&mut *sink)?;
        if !follow {
            return Ok(());
        }
        let mut connection = self.take()?;
        connection.send(Request::Follow { path, offset }).map_err(|error| self.broken(&error))?;
        let mut lines = Lines::default();
        loop {
            match connection.receive().map_err(|error| self.broken(&error))? {
                Answer::Data(data) => lines.push(&self.bytes_of(path, data)?, sink)?,
                Answer::Error { errno, message } => return Err(told_error(code_named(&errno), &message)),
                other => return Err(self.unexpected(path, &other)),
            }
        }
    }
}

/// The kind of a refusal, from the name of its errno.
fn code_named(name: &str) -> Code {
    match Errno::from_name(name) {
        Some(errno) => Code::ALL.into_iter().find(|code| code.errno() == errno).unwrap_or(Code::Failed),
        // The names that the system gives and the control plane never does.
        None => match name {
            "EACCES" | "EROFS" => Code::NotPermitted,
            "ENOTDIR" => Code::NotFound,
            "EAGAIN" => Code::Busy,
            "EOPNOTSUPP" | "ENOSYS" => Code::Unsupported,
            "EDQUOT" => Code::NoSpace,
            _ => Code::Failed,
        },
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high * 16 + low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_their_kind_over_the_socket() {
        for code in Code::ALL.into_iter().filter(|code| code.errno() != Errno::Eio) {
            assert_eq!(code_named(code.errno().name()), code);
        }
        for (name, code) in [
            ("EIO", Code::Failed),
            ("ETIMEDOUT", Code::Failed),
            ("EACCES", Code::NotPermitted),
            ("", Code::Failed),
        ] {
            assert_eq!(code_named(name), code, "{name}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_come_in_hexadecimal() {
        assert_eq!(unhex("00fF10"), Some(vec![0, 255, 16]));
        assert_eq!(unhex(""), Some(vec![]));
        for bad in ["0", "0g", "\u{e9}0"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
