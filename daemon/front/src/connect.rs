//! Connecting to an instance: in turn, the next when one does not accept, and waiting while none does.

use crate::routes::Open;
use crate::routes::Routes;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long a client waits for an instance that accepts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// More clients do not wait at once; the next are turned away.
const MAX_WAITING: usize = 1024;
/// One attempt; longer only for an instance whose backlog is full, when there may be another.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between two attempts while no instance accepts.
const PAUSE: Duration = Duration::from_millis(20);

/// No instance accepted in time, or too many clients wait already.
#[derive(Debug)]
pub(crate) struct NoInstance;

/// A connection to an instance.
///
/// # Errors
/// When there is none in time.
pub(crate) async fn connect(routes: &Rc<Routes>) -> Result<(TcpStream, Open), NoInstance> {
    connect_in_order(routes, routes.in_turn()).await
}

/// The same, beginning with these ports.
pub(crate) async fn connect_in_order(
    routes: &Rc<Routes>,
    ports: Vec<u16>,
) -> Result<(TcpStream, Open), NoInstance> {
    if let Some(found) = try_each(routes, ports).await {
        return Ok(found);
    }
    let found = wait(routes).await;
    if found.is_none() {
        routes.refused.set(routes.refused.get() + 1);
    }
    found.ok_or(NoInstance)
}

/// One who waits; with `probes`, the one who tries for all.
struct Place<'a> {
    routes: &'a Routes,
    probes: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.routes.waiting.set(self.routes.waiting.get() - 1);
        if self.probes {
            self.routes.probed.set(false);
            // An instance accepts, or somebody else has to try now.
            self.routes.look_again.notify_waiters();
        }
    }
}

async fn wait(routes: &Rc<Routes>) -> Option<(TcpStream, Open)> {
    if routes.waiting.get() >= MAX_WAITING {
        return None;
    }
    routes.waiting.set(routes.waiting.get() + 1);
    let mut place = Place { routes, probes: false };
    let until = Instant::now() + PATIENCE;
    loop {
        if !routes.probed.get() {
            routes.probed.set(true);
            place.probes = true;
        }
        let look_again = routes.look_again.notified();
        let pause = if place.probes { (Instant::now() + PAUSE).min(until) } else { until };
        tokio::select! {
            () = look_again => {}
            () = tokio::time::sleep_until(pause) => {}
        }
        if let Ok(Some(found)) = tokio::time::timeout_at(until, try_each(routes, routes.in_turn())).await {
            return Some(found);
        }
        if Instant::now() >= until {
            return None;
        }
    }
}

async fn try_each(routes: &Rc<Routes>, ports: Vec<u16>) -> Option<(TcpStream, Open)> {
    for port in ports {
        // The set may have changed during the attempt before.
        let Some(open) = routes.enter(port) else { continue };
        if let Ok(stream) = connect_to(port).await {
            return Some((stream, open));
        }
    }
    None
}

async fn connect_to(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = tokio::time::timeout(ATTEMPT, TcpStream::connect(address)).await??;
    // Where nobody listens, the kernel may choose the very port for this end: the connection is with itself.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}
