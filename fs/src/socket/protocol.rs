//! The line protocol: one JSON object a line, requests from the client, answers in the same order.
//!
//! Sizes are bounded before anything is parsed. Version 1; a field that is not known is an error, so that a
//! newer client hears that it asked for more than there is.

use crate::Fault;
use nix::errno::Errno;
use serde::Deserialize;
use serde::Serialize;

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;

/// The longest request line, in bytes: a spec of the greatest size whose every byte has to be escaped.
pub const MAX_LINE: usize = 8 << 20;

/// The most bytes of a file in one answer. The rest is read with `offset`.
pub const MAX_DATA: usize = 1 << 20;

/// What a client asks for. Paths are below the top, with or without a slash in front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// What a file says. Of a stream: what is there, without waiting. Of `NAME.wait`: waits for the verdict.
    Read {
        /// The file.
        path: String,
        /// Where to begin.
        #[serde(default)]
        offset: u64,
    },
    /// Writes to a verb file, a plan to `deploy/NAME.plan`, a range of `in/NAME` of a job.
    Write {
        /// The file.
        path: String,
        /// What to write.
        data: String,
        /// `data` is in hexadecimal: bytes that are no text.
        #[serde(default)]
        hex: bool,
        /// Where the bytes go, in a file that has places.
        #[serde(default)]
        offset: u64,
        /// Answer when all that was accepted has ended, as a close of the file does.
        #[serde(default = "yes")]
        wait: bool,
    },
    /// The names in a folder.
    List {
        /// The folder.
        path: String,
    },
    /// Attributes.
    Stat {
        /// The file or folder.
        path: String,
    },
    /// A stream as it grows: one `data` answer after another until the client closes the connection.
    Follow {
        /// The stream.
        path: String,
        /// Where to begin.
        #[serde(default)]
        offset: u64,
    },
    /// Saves a spec in one step, judged before it replaces anything, as a rename does.
    Put {
        /// `deploy/NAME.ron` or `plan/NAME.ron`.
        path: String,
        /// The whole file.
        data: String,
    },
    /// Removes a file of `deploy/` or `plan/`.
    Remove {
        /// The file.
        path: String,
    },
    /// Writes jobs to `gpu/N/queue` and gives their replies: `data` answers as they come, the last one empty and with
    /// `end`.
    Submit {
        /// The queue.
        path: String,
        /// What to write.
        data: String,
        /// `data` is in hexadecimal: a job with raw bytes.
        #[serde(default)]
        hex: bool,
    },
    /// Waits until the last save of a spec has converged, as `sync` does.
    Sync {
        /// `deploy/NAME.ron`.
        path: String,
    },
}

fn yes() -> bool {
    true
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// First line of a connection.
    Zed {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Version of zedd.
        version: String,
    },
    /// Done, and nothing to tell.
    Ok {},
    /// Bytes of a file.
    Data {
        /// Them, when they are UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Them in hexadecimal, when not.
        #[serde(skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
        /// Where they end in the file.
        next: u64,
        /// The file ends there.
        end: bool,
    },
    /// A folder.
    Entries(Vec<Listed>),
    /// Attributes.
    Stat(Listed),
    /// A refusal.
    Error {
        /// `EINVAL`: what the system call would have failed with.
        errno: String,
        /// Cause and hint, as in the `error` file.
        message: String,
    },
}

/// A name and its attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The name, or the path that was asked for.
    pub name: String,
    /// A folder.
    pub dir: bool,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Last change, in seconds since 1970.
    pub mtime: i64,
}

/// The bytes that a request carries.
pub(super) fn bytes_of(data: String, hex: bool) -> Result<Vec<u8>, Fault> {
    if !hex {
        return Ok(data.into_bytes());
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Option<Vec<u8>> = data.as_bytes().iter().map(digit).collect();
    let bytes = digits.as_deref().map(<[u8]>::as_chunks::<2>).filter(|(_, rest)| rest.is_empty());
    match bytes {
        Some((pairs, _)) => Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect()),
        None => Err(Fault::new(Errno::EINVAL, "`data` is not hexadecimal: two digits a byte")),
    }
}

impl Answer {
    /// Bytes, as text where they are.
    pub fn data(bytes: &[u8], next: u64, end: bool) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Answer::Data { text: Some(text.to_owned()), hex: None, next, end },
            Err(_) => {
                let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                Answer::Data { text: None, hex: Some(hex), next, end }
            }
        }
    }
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Self {
        let message = fault.text.unwrap_or_else(|| format!("{}\n", fault.errno.desc()));
        Answer::Error { errno: format!("{:?}", fault.errno), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire format: a change here is a new version of the protocol.
    #[test]
    fn the_lines_are_as_documented() {
        for (line, request) in [
            (r#"{"op":"read","path":"version"}"#, Request::Read { path: "version".into(), offset: 0 }),
            (
                r#"{"op":"write","path":"ctl","data":"reload\n"}"#,
                Request::Write {
                    path: "ctl".into(),
                    data: "reload\n".into(),
                    hex: false,
                    offset: 0,
                    wait: true,
                },
            ),
            (
                r#"{"op":"submit","path":"gpu/0/queue","data":"00fF","hex":true}"#,
                Request::Submit { path: "gpu/0/queue".into(), data: "00fF".into(), hex: true },
            ),
            (r#"{"op":"list","path":"/"}"#, Request::List { path: "/".into() }),
            (
                r#"{"op":"follow","path":"events","offset":7}"#,
                Request::Follow { path: "events".into(), offset: 7 },
            ),
            (r#"{"op":"sync","path":"deploy/a.ron"}"#, Request::Sync { path: "deploy/a.ron".into() }),
        ] {
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request, "{line}");
        }
        for (answer, line) in [
            (Answer::Ok {}, r#"{"ok":{}}"#),
            (Answer::data(b"a\n", 2, true), r#"{"data":{"text":"a\n","next":2,"end":true}}"#),
            (Answer::data(b"\xff", 1, false), r#"{"data":{"hex":"ff","next":1,"end":false}}"#),
            (Fault::new(Errno::EINVAL, "no").into(), r#"{"error":{"errno":"EINVAL","message":"no\n"}}"#),
        ] {
            assert_eq!(serde_json::to_string(&answer).unwrap(), line);
        }
    }

    #[test]
    fn bytes_come_as_text_or_in_hexadecimal() {
        assert_eq!(bytes_of("00fF10".to_owned(), true), Ok(vec![0, 255, 16]));
        assert_eq!(bytes_of("00fF10".to_owned(), false), Ok(b"00fF10".to_vec()));
        for bad in ["0", "0g", "\u{e9}0"] {
            assert_eq!(bytes_of(bad.to_owned(), true).unwrap_err().errno, Errno::EINVAL, "{bad}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in
            [r#"{"op":"read","path":"a","follow":true}"#, r#"{"op":"format","path":"/"}"#, "{}", "[]", "\0"]
        {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }
}
