//! BeamPing: epmd is asked where the app's node listens, and the distribution handshake is made with it.
//!
//! The node sees a hidden connection that ends with the handshake: `nodes()` never shows it, and nothing is sent but
//! the handshake. Every name that a node ever hears of stays in its atom table, so the names that zed uses are few and
//! used again.

mod wire;

use super::Seen;
use super::aside::no_answer;
use super::tcp::connect;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::ToSocketAddrs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use wire::Port;
use wire::Status;

/// epmd's own port.
const EPMD_PORT: u16 = 4369;
/// Where a release keeps the cookie that was made when it was built.
const RELEASE_COOKIE: &str = "releases/COOKIE";
/// Longest cookie file, and longest answer of epmd.
const SHORT: u64 = 4096;
/// How long the node may take to close its end when the handshake is over.
const GOODBYE: Duration = Duration::from_millis(200);

/// Which node, and what it takes to shake hands with it.
#[derive(Debug, Clone)]
pub(super) struct BeamProbe {
    /// Its name before the `@`.
    alive: String,
    /// Its host; this one when absent.
    host: Option<String>,
    cookie: String,
    epmd: u16,
}

impl BeamProbe {
    /// As the app itself is told, in its environment and in its release.
    pub(super) fn of(environment: &BTreeMap<String, String>, directory: &Path) -> Result<Self, String> {
        let name = environment.get("RELEASE_NODE").filter(|name| !name.is_empty());
        let name = name.ok_or("the app has no `node_name`")?;
        let (alive, host) = match name.split_once('@') {
            Some((alive, host)) => (alive.to_owned(), Some(host.to_owned())),
            None => (name.clone(), None),
        };
        let cookie = match environment.get("RELEASE_COOKIE").filter(|cookie| !cookie.is_empty()) {
            Some(cookie) => cookie.clone(),
            None => cookie_of_release(directory)?,
        };
        let epmd = match environment.get("ERL_EPMD_PORT") {
            Some(port) => port.parse().map_err(|_| format!("ERL_EPMD_PORT is `{port}`, not a port"))?,
            None => EPMD_PORT,
        };
        Ok(Self { alive, host, cookie, epmd })
    }

    /// Blocks until `until` at most, a lookup of a name aside.
    pub(super) fn ask(&self, timeout: Duration, until: Instant) -> Seen {
        let addresses = self.addresses()?;
        let port = self.ask_epmd(&addresses, timeout, until)?;
        let at = addresses.iter().map(|address| SocketAddr::new(*address, port));
        let (stream, at) = connect(at, timeout, until).map_err(|why| {
            format!("epmd says that node `{}` listens on port {port}, but {why}", self.alive)
        })?;
        let mut talk = Talk { stream, timeout, until };
        let own = OwnName::take();
        let name = self
            .shake_hands(&mut talk, &own)
            .map_err(|why| format!("node `{}` at {at}: {why}", self.alive))?;
        talk.leave();
        Ok(format!("{name} completed the handshake"))
    }

    /// A node of this host is looked for at the loopback address too: its name need not resolve.
    fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let Some(host) = &self.host else { return Ok(vec![loopback]) };
        let own = nix::unistd::gethostname().unwrap_or_default();
        let own = own.to_string_lossy();
        let is_own = own == host.as_str() || own.split('.').next() == Some(host.as_str());
        let found = (host.as_str(), 0).to_socket_addrs();
        let mut addresses = match found {
            Ok(found) => found.map(|address| address.ip()).collect(),
            Err(_) if is_own => Vec::new(),
            Err(e) => return Err(format!("no such host `{host}`: {e}")),
        };
        if is_own && !addresses.contains(&loopback) {
            addresses.push(loopback);
        }
        Ok(addresses)
    }

    fn ask_epmd(&self, addresses: &[IpAddr], timeout: Duration, until: Instant) -> Result<u16, String> {
        let at = addresses.iter().map(|address| SocketAddr::new(*address, self.epmd));
        let (stream, at) = connect(at, timeout, until).map_err(|why| format!("no epmd answers: {why}"))?;
        let mut talk = Talk { stream, timeout, until };
        let failed = |why: String| format!("epmd at {at}: {why}");
        talk.send(&wire::frame(&wire::port_please(&self.alive))).map_err(failed)?;
        let answer = talk.read_to_end().map_err(failed)?;
        match wire::parse_port(&answer).map_err(|e| failed(e.to_string()))? {
            Port::Unknown => Err(format!("epmd at {at} knows no node `{}`", self.alive)),
            Port::At { port, lowest, highest } if (lowest..=highest).contains(&wire::VERSION) => Ok(port),
            Port::At { lowest, highest, .. } => Err(format!(
                "node `{}` speaks versions {lowest} to {highest} of the distribution protocol, and not {}: OTP 23 or \
                 newer is needed",
                self.alive,
                wire::VERSION
            )),
        }
    }

    /// Gives the node's full name.
    fn shake_hands(&self, talk: &mut Talk, own: &OwnName) -> Result<String, String> {
        let here = self.host.clone().unwrap_or_else(own_host);
        let name = format!("zed-{}-{}@{here}", std::process::id(), own.0);
        // Only a published node is asked for its creation.
        talk.send(&wire::frame(&wire::send_name(wire::CAPABILITIES, 1, &name)))?;
        match wire::parse_status(&talk.receive("our name")?).map_err(|e| e.to_string())? {
            Status::Ok => {}
            Status::Alive => talk.send(&wire::frame(&wire::go_on()))?,
            Status::Refused(word) => return Err(format!("it refuses the connection: {word}")),
        }
        let challenge = wire::parse_challenge(&talk.receive("our name")?).map_err(|e| e.to_string())?;
        if challenge.name.split('@').next() != Some(&*self.alive) {
            return Err(format!("another node is there: {}", challenge.name));
        }
        let ours = unpredictable();
        let digest = wire::digest(&self.cookie, challenge.challenge);
        talk.send(&wire::frame(&wire::challenge_reply(ours, digest)))?;
        let ack = match talk.receive_or_end("our answer to its challenge")? {
            Some(message) => wire::parse_ack(&message).map_err(|e| e.to_string())?,
            None => return Err("the cookie is wrong: it refuses our answer to its challenge".to_owned()),
        };
        if ack != wire::digest(&self.cookie, ours) {
            return Err("it does not know the cookie: its answer to our challenge is wrong".to_owned());
        }
        Ok(challenge.name)
    }
}

/// A conversation with a deadline for all of it.
struct Talk {
    stream: TcpStream,
    timeout: Duration,
    until: Instant,
}

impl Talk {
    /// A peer that gives a byte now and then does not get more time by it.
    fn limit(&self) -> Result<(), String> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(no_answer(self.timeout));
        }
        let set = self.stream.set_read_timeout(Some(left));
        set.and_then(|()| self.stream.set_write_timeout(Some(left))).map_err(|e| e.to_string())
    }

    fn explain(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => no_answer(self.timeout),
            _ => error.to_string(),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.limit()?;
        self.stream.write_all(bytes).map_err(|e| self.explain(&e))
    }

    /// Fills the buffer; false when the peer has closed before the first byte of it.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, String> {
        let mut have = 0;
        while have < buffer.len() {
            self.limit()?;
            match self.stream.read(&mut buffer[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err("it closes the connection in the middle of a message".to_owned()),
                Ok(count) => have += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // What a node does that has closed while something of ours was still on its way.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset && have == 0 => return Ok(false),
                Err(e) => return Err(self.explain(&e)),
            }
        }
        Ok(true)
    }

    /// One message of the handshake; `None` when the peer has closed instead.
    fn receive_or_end(&mut self, after: &str) -> Result<Option<Vec<u8>>, String> {
        let mut length = [0; 2];
        if !self.fill(&mut length)? {
            return Ok(None);
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        if message.is_empty() || self.fill(&mut message)? {
            return Ok(Some(message));
        }
        Err(format!("it closes the connection in the middle of its answer to {after}"))
    }

    fn receive(&mut self, after: &str) -> Result<Vec<u8>, String> {
        self.receive_or_end(after)?.ok_or_else(|| {
            format!(
                "it closes the connection after {after}; does it speak the distribution protocol without TLS?"
            )
        })
    }

    fn read_to_end(&mut self) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        let mut piece = [0; 256];
        while (all.len() as u64) < SHORT {
            self.limit()?;
            match self.stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => all.extend_from_slice(&piece[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.explain(&e)),
            }
        }
        Ok(all)
    }

    /// Closes our end and waits until the node has closed its own, so that it sees an orderly end and not a reset.
    fn leave(mut self) {
        self.until = self.until.min(Instant::now() + GOODBYE);
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.read_to_end();
    }
}

/// A number that no other probe uses at the same time; the lowest that is free.
struct OwnName(u32);

static OWN_NAMES: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

impl OwnName {
    fn take() -> Self {
        let mut used = OWN_NAMES.lock();
        let free = (1..).find(|number| !used.contains(number)).unwrap_or(u32::MAX);
        used.insert(free);
        Self(free)
    }
}

impl Drop for OwnName {
    fn drop(&mut self) {
        OWN_NAMES.lock().remove(&self.0);
    }
}

fn own_host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    name.split('.').next().filter(|name| !name.is_empty()).unwrap_or("localhost").to_owned()
}

/// A challenge that the node cannot have heard before: hash keys of the standard library are random.
fn unpredictable() -> u32 {
    let hash = RandomState::new().hash_one(Instant::now()).to_be_bytes();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// The cookie that every start script of a release falls back to.
fn cookie_of_release(directory: &Path) -> Result<String, String> {
    let path = directory.join(RELEASE_COOKIE);
    let missing = |e: io::Error| {
        format!("the app has no `cookie`, and that of its release, `{}`, cannot be read: {e}", path.display())
    };
    // The app owns its folder: neither a link nor a pipe that it puts there leads anywhere.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(missing)?;
    if !file.metadata().map_err(missing)?.is_file() {
        return Err(missing(io::Error::other("it is not a file")));
    }
    let mut text = String::new();
    file.take(SHORT).read_to_string(&mut text).map_err(missing)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests;
