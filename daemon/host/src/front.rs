//! What the daemon and a traffic front say to each other: the file `route.json` and the lines on `front.sock`.
//!
//! Owns both formats and the daemon's side of them. The front itself, with everything that touches clients, is
//! another crate: this one must not know an asynchronous runtime.
//!
//! The file is written by the daemon before it speaks to the front, so that a front which is started again goes on
//! with what was last wanted; the front, which may have dropped its privileges, only reads it, once.

use crate::identity::Identity;
use crate::record::AppFiles;
use crate::record::RecordError;
use crate::record::read_record;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use zed_spec::Listen;

/// Longest request and answer on the socket: room for the most ports that an app can have.
pub const MAX_LINE: usize = 16 * 1024;

/// `route.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRecord {
    /// Version of the file, as of the other files of an app.
    pub(crate) format: u32,
    /// Where clients connect.
    pub listen: Listen,
    /// Where the app's instances listen, on 127.0.0.1.
    pub ports: Vec<u16>,
    /// Whom the front becomes once it listens, when not the daemon's user.
    pub(crate) identity: Option<Identity>,
}

impl RouteRecord {
    /// The record in a front's folder.
    ///
    /// # Errors
    /// When it is not there, damaged or newer than this program; the text names the file.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = AppFiles::new(folder.to_owned()).route();
        let found: Result<Option<Self>, RecordError> = read_record(&path);
        found
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("`{}` is not there: a front is started by zedd only", path.display()))
    }

    /// Makes the calling process the user that the front is to be, for good.
    ///
    /// # Errors
    /// The system's.
    pub fn drop_privileges(&self) -> io::Result<()> {
        match &self.identity {
            Some(identity) => Identity::switch(identity.uid, identity.gid, &identity.group_ids()),
            None => Ok(()),
        }
    }
}

/// What the daemon asks a front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrontRequest {
    /// New connections and requests go to these ports from now on. Answer: `routed`.
    Route(Vec<u16>),
    /// How many connections (with HTTP: requests) to this port are open? Answer: the number.
    Connections(u16),
    /// The same, answered when none is left or the time has passed.
    Drain(u16, Duration),
    /// Answer: one line of JSON.
    Status,
}

impl FrontRequest {
    /// Reads one request, without its newline.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split(' ');
        let request = match words.next() {
            Some("route") => {
                let ports: Result<Vec<u16>, String> = words.by_ref().map(parse_port).collect();
                FrontRequest::Route(ports?)
            }
            Some("connections") => FrontRequest::Connections(parse_port(words.next().unwrap_or_default())?),
            Some("drain") => {
                let port = parse_port(words.next().unwrap_or_default())?;
                let millis = words.next().unwrap_or_default();
                let millis =
                    millis.parse().map_err(|_| format!("`{millis}` is not a number of milliseconds"))?;
                FrontRequest::Drain(port, Duration::from_millis(millis))
            }
            Some("status") => FrontRequest::Status,
            _ => {
                let known = "`route PORT..`, `connections PORT`, `drain PORT MILLISECONDS` and `status`";
                return Err(format!("the requests are {known}"));
            }
        };
        match words.next() {
            None => Ok(request),
            Some(word) => Err(format!("`{word}` is one word too many")),
        }
    }
}

fn parse_port(word: &str) -> Result<u16, String> {
    match word.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{word}` is not a port from 1 to 65535")),
    }
}

impl fmt::Display for FrontRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrontRequest::Route(ports) => {
                f.write_str("route")?;
                ports.iter().try_for_each(|port| write!(f, " {port}"))
            }
            FrontRequest::Connections(port) => write!(f, "connections {port}"),
            FrontRequest::Drain(port, time) => write!(f, "drain {port} {}", time.as_millis()),
            FrontRequest::Status => f.write_str("status"),
        }
    }
}

/// The front's answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontStatus {
    /// Where clients connect.
    pub listen: Listen,
    /// Where new connections go.
    pub ports: Vec<u16>,
    /// Open connections (with HTTP: requests) by port, without those that have none.
    pub open: std::collections::BTreeMap<u16, usize>,
    /// Clients that wait for an instance now.
    pub waiting: usize,
    /// Connections accepted since the front was started.
    pub accepted: u64,
    /// Connections or requests that found no instance in time.
    pub refused: u64,
}

/// Listens on the front's socket. The supervisor starts one front at a time, so what is there is left over.
///
/// # Errors
/// The system's.
pub fn listen_control(folder: &Path) -> io::Result<UnixListener> {
    let path = AppFiles::new(folder.to_owned()).front_socket();
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = crate::supervisor::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Asks a front, and waits for its answer, without its newline.
pub(crate) fn ask(socket: &Path, request: &FrontRequest, until: Instant) -> io::Result<String> {
    let mut stream = crate::supervisor::connect(socket)?;
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_LINE as u64).read_to_string(&mut answer)?;
    match answer.strip_suffix('\n') {
        Some(line) => match line.strip_prefix("error ") {
            Some(text) => Err(io::Error::other(text.to_owned())),
            None => Ok(line.to_owned()),
        },
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Why an address cannot be listened on, for people: who has it, or what would be needed.
pub fn explain_bind(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = who_listens(address);
            format!("the address {address} is taken: {holder}; stop it, or give the app another `listen`")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this host does not have the address {}; `ip address` shows those it has", address.ip())
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "only root may listen on port {}; run zedd as root, or use a port above 1023",
                address.port()
            )
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

/// Why an app that is told to listen on this port of 127.0.0.1 could not; nothing when it can. Else the one that has the
/// port answers the app's probes, and a deploy succeeds with another program's answers.
pub(crate) fn explain_taken(port: u16) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let taken = TcpListener::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    taken.then(|| {
        let holder = who_listens(address);
        format!("the port {address} is taken: {holder}; stop it, or give the app another `PORT`")
    })
}

fn who_listens(address: SocketAddr) -> String {
    match holder_of(address) {
        Some(holder) => format!("{holder} listens there"),
        None => "another process listens there".to_owned(),
    }
}

/// The process that listens at a TCP address, `nginx (pid 7)`, where the system lets this one see it.
#[cfg(target_os = "linux")]
fn holder_of(address: SocketAddr) -> Option<String> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let sockets: Vec<String> = tables
        .iter()
        .flat_map(|table| listening_inodes(table, address))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let is_one = |link: &Path| sockets.iter().any(|socket| link.as_os_str() == socket.as_str());
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        // Those of other users cannot be looked into without being root.
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        if open.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| is_one(&link))) {
            let program = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", program.trim_end()));
        }
    }
    None
}

#[cfg(not(target_os = "linux"))]
fn holder_of(_address: SocketAddr) -> Option<String> {
    None
}

/// Inodes of the listening sockets that take the connections of this address, from the kernel's table: those at the
/// address itself, and those at every address of the host.
#[cfg_attr(
    not(any(test, target_os = "linux")),
    expect(dead_code, reason = "Linux's format; tested everywhere")
)]
fn listening_inodes(table: &str, address: SocketAddr) -> Vec<&str> {
    const LISTEN: &str = "0A";
    let takes = |local: &str| {
        let Some((ip, port)) = local.split_once(':') else { return false };
        let everywhere = ip.bytes().all(|digit| digit == b'0');
        port == format!("{:04X}", address.port()) && (everywhere || ip == table_ip(address.ip()))
    };
    let lines = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    lines
        .filter(|fields| fields.get(1).is_some_and(|local| takes(local)) && fields.get(3) == Some(&LISTEN))
        .filter_map(|fields| fields.get(9).copied())
        .collect()
}

/// An address as the kernel's table writes it: words of four bytes in the machine's own order.
fn table_ip(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let word = |four: &[u8]| four.try_into().map(u32::from_ne_bytes).unwrap_or_default();
    bytes.chunks(4).map(|four| format!("{:08X}", word(four))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back_as_they_are_written() {
        for request in [
            FrontRequest::Route(vec![]),
            FrontRequest::Route(vec![1, 65535]),
            FrontRequest::Connections(80),
            FrontRequest::Drain(80, Duration::from_millis(1500)),
            FrontRequest::Status,
        ] {
            assert_eq!(FrontRequest::parse(&request.to_string()), Ok(request));
        }
        for line in
            ["", "route 0", "route x", "route 1  2", "drain 80", "drain 80 -1", "drain 80 1 2", "status x"]
        {
            assert!(FrontRequest::parse(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let error = std::net::TcpListener::bind(address).expect_err("taken");
        let text = explain_bind(address, &error);
        assert!(text.contains(&address.to_string()), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
        }
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 111 1 0 100 0 0 10 0\n\
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  0 0 222 1 0 20 4 30 10 -1\n\
            2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 333 1 0 100 0 0 10 0\n\
            3: 0F49007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 444 1 0 100 0 0 10 0\n";
        let inodes = |address: &str| listening_inodes(table, address.parse().expect("an address"));
        if cfg!(target_endian = "little") {
            assert_eq!(inodes("127.0.0.1:8080"), ["111"], "not that of 127.0.73.15");
        }
        assert_eq!(inodes("10.0.0.1:22"), ["333"], "it listens everywhere");
        assert!(inodes("127.0.0.1:81").is_empty());
    }
}
