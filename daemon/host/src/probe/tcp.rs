//! Connections with a deadline: the Tcp probe, and what a BeamPing stands on.

use super::Seen;
use super::aside::no_answer;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::ToSocketAddrs;
use std::time::Duration;
use std::time::Instant;

/// A connection is accepted.
pub(super) fn ask(address: &str, timeout: Duration, until: Instant) -> Seen {
    let addresses = address.to_socket_addrs().map_err(|e| format!("no such address: {e}"))?;
    connect(addresses, timeout, until).map(|(_, to)| format!("connected to {to}"))
}

/// Connects to the first address that accepts.
pub(super) fn connect(
    addresses: impl Iterator<Item = SocketAddr>,
    timeout: Duration,
    until: Instant,
) -> Result<(TcpStream, SocketAddr), String> {
    let mut last = "the name has no address".to_owned();
    for candidate in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("{}; {last}", no_answer(timeout)));
        }
        match TcpStream::connect_timeout(&candidate, left) {
            Ok(stream) => return Ok((stream, candidate)),
            Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
                last = format!("{candidate}: {}", no_answer(timeout));
            }
            Err(e) => last = format!("{candidate}: {e}"),
        }
    }
    Err(last)
}
