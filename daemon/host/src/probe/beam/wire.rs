//! The bytes of epmd's PORT_PLEASE2 and of the distribution handshake, version 6, of OTP 23 and newer.
//!
//! Pure: values to bytes and back, no sockets. Source: "Distribution Protocol" in the manual of erts
//! (<https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html>). Every integer is big-endian.

use md5::Digest as _;
use md5::Md5;
use std::fmt;

/// The newest version of the distribution protocol, and the only one that is spoken here.
pub(super) const VERSION: u16 = 6;

/// What zed says it can do: all that nodes of OTP 23 to 28 ask for, and not DFLAG_PUBLISHED, so that the connection is
/// hidden and `nodes()` of the app does not show it. Nothing of it is ever used: the connection ends with the handshake.
pub(super) const CAPABILITIES: u64 = 0x4 // EXTENDED_REFERENCES
    | 0x10 // FUN_TAGS
    | 0x80 // NEW_FUN_TAGS
    | 0x100 // EXTENDED_PIDS_PORTS
    | 0x200 // EXPORT_PTR_TAG
    | 0x400 // BIT_BINARIES
    | 0x800 // NEW_FLOATS
    | 0x1_0000 // UTF8_ATOMS
    | 0x2_0000 // MAP_TAG
    | 0x4_0000 // BIG_CREATION
    | 0x100_0000 // HANDSHAKE_23
    | 0x200_0000 // UNLINK_ID
    | (1 << 34) // V4_NC
    | (1 << 36); // MANDATORY_25_DIGEST

/// Bytes that are no message of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not what the protocol says: {bytes}")]
pub(super) struct WireError {
    what: &'static str,
    bytes: String,
}

fn not(what: &'static str, bytes: &[u8]) -> WireError {
    let shown: Vec<String> = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    WireError { what, bytes: if shown.is_empty() { "nothing".to_owned() } else { shown.join(" ") } }
}

/// Reads integers and texts from the front of a message.
struct Reader<'a> {
    what: &'static str,
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(what: &'static str, all: &'a [u8]) -> Self {
        Self { what, all, rest: all }
    }

    fn wrong<T>(&self) -> Result<T, WireError> {
        Err(not(self.what, self.all))
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        match self.rest.split_at_checked(count) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => self.wrong(),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn text(&mut self, length: usize) -> Result<String, WireError> {
        let bytes = self.bytes(length)?;
        String::from_utf8(bytes.to_vec()).or_else(|_| self.wrong())
    }
}

/// A message behind its length, as epmd's requests and the handshake have it.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    // Names are at most 255 bytes long, so a message always fits.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}

/// PORT_PLEASE2_REQ: where is the node of this name, without `@HOST`?
pub(super) fn port_please(alive: &str) -> Vec<u8> {
    let mut message = vec![b'z'];
    message.extend_from_slice(alive.as_bytes());
    message
}

/// PORT2_RESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Port {
    /// No node of this name is registered.
    Unknown,
    /// It is.
    At {
        /// Where it listens.
        port: u16,
        /// Newest version of the protocol that it speaks.
        highest: u16,
        /// Oldest one.
        lowest: u16,
    },
}

/// Reads what epmd has said before it closed the connection.
pub(super) fn parse_port(bytes: &[u8]) -> Result<Port, WireError> {
    let mut reader = Reader::new("epmd's answer", bytes);
    if reader.u8()? != b'w' {
        return reader.wrong();
    }
    if reader.u8()? != 0 {
        return Ok(Port::Unknown);
    }
    let port = reader.u16()?;
    // Kind of node and kind of transport: neither matters for a handshake.
    reader.bytes(2)?;
    Ok(Port::At { port, highest: reader.u16()?, lowest: reader.u16()? })
}

/// send_name: who wants to connect.
pub(super) fn send_name(capabilities: u64, creation: u32, name: &str) -> Vec<u8> {
    let mut message = vec![b'N'];
    message.extend_from_slice(&capabilities.to_be_bytes());
    message.extend_from_slice(&creation.to_be_bytes());
    message.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend_from_slice(name.as_bytes());
    message
}

/// What the node says to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    /// `ok` or `ok_simultaneous`: the handshake goes on.
    Ok,
    /// `alive`: it believes that an earlier connection of this name still is there, and asks whether to go on.
    Alive,
    /// `nok` or `not_allowed`.
    Refused(String),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Ok => f.write_str("ok"),
            Status::Alive => f.write_str("alive"),
            Status::Refused(word) => f.write_str(word),
        }
    }
}

/// recv_status.
pub(super) fn parse_status(message: &[u8]) -> Result<Status, WireError> {
    match message {
        b"sok" | b"sok_simultaneous" => Ok(Status::Ok),
        b"salive" => Ok(Status::Alive),
        b"snok" | b"snot_allowed" => Ok(Status::Refused(String::from_utf8_lossy(&message[1..]).into_owned())),
        other => Err(not("the status", other)),
    }
}

/// The answer to `alive`: go on, the earlier connection is of no use to us.
pub(super) fn go_on() -> Vec<u8> {
    b"strue".to_vec()
}

/// send_challenge of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// What the node can do.
    pub(super) capabilities: u64,
    /// The number to be digested with the cookie.
    pub(super) challenge: u32,
    /// The node's full name.
    pub(super) name: String,
}

/// recv_challenge.
pub(super) fn parse_challenge(message: &[u8]) -> Result<Challenge, WireError> {
    let mut reader = Reader::new("the challenge", message);
    if reader.u8()? != b'N' {
        return reader.wrong();
    }
    let capabilities = reader.u64()?;
    let challenge = reader.u32()?;
    let _creation = reader.u32()?;
    let length = reader.u16()?;
    let name = reader.text(usize::from(length))?;
    Ok(Challenge { capabilities, challenge, name })
}

/// send_challenge_reply: the digest of the node's challenge, and a challenge of ours.
pub(super) fn challenge_reply(ours: u32, digest: [u8; 16]) -> Vec<u8> {
    let mut message = vec![b'r'];
    message.extend_from_slice(&ours.to_be_bytes());
    message.extend_from_slice(&digest);
    message
}

/// recv_challenge_ack: the digest of our challenge.
pub(super) fn parse_ack(message: &[u8]) -> Result<[u8; 16], WireError> {
    let mut reader = Reader::new("the acknowledgement", message);
    match reader.u8()? {
        b'a' if message.len() == 17 => reader.array(),
        _ => reader.wrong(),
    }
}

/// gen_digest: MD5 of the cookie and the challenge in decimal digits. The protocol knows no better one.
pub(super) fn digest(cookie: &str, challenge: u32) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(cookie.as_bytes());
    hash.update(challenge.to_string().as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
