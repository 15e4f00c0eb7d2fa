//! The traffic front: one small process an app, which clients connect to and which forwards to the healthy instances.
//!
//! Owns the way into it (`zedd front DIR`), its listener and its end. It runs under a supervisor like an app, outlives
//! the daemon, and never decides where traffic goes: `route.json` and the lines on its socket say so. It starts no
//! process, reads no spec and no store, writes no file, and logs only what is wrong.
//!
//! One thread: what it does is move bytes, and the instances behind it are what needs the processors.

mod accept;
mod body;
mod connect;
mod control;
mod forward;
mod headers;
mod http;
mod pool;
mod routes;

use crate::http::Http;
use crate::routes::Routes;
use std::io;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::watch;
use zed_host::front::RouteRecord;
use zed_host::front::explain_bind;
use zed_host::front::listen_control;

/// Connections that the kernel keeps for a front that is busy.
const BACKLOG: u32 = 1024;
/// What POSIX promises, where the system does not say.
const FEWEST_FILES: usize = 20;
/// Time for what is open when the front is told to end; its supervisor kills it a little later.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why a front cannot work.
#[derive(Debug, thiserror::Error)]
enum FrontError {
    #[error("usage: front DIR, started by zedd and not by hand")]
    Usage,
    #[error("{0}")]
    Route(String),
    #[error("{0}")]
    Listen(String),
    #[error("the socket in `{folder}` cannot be listened on: {error}")]
    Control { folder: String, error: io::Error },
    #[error("cannot become the app's user: {0}")]
    Privileges(io::Error),
    #[error("the system has no room for it: {0}")]
    Runtime(io::Error),
}

/// The program behind `zedd front`: call it first thing in `main`, with the arguments after `front`, while the process
/// has a single thread.
pub fn front_main(args: &[String]) -> ExitCode {
    match front(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// One line for the front's log, which its supervisor writes.
fn report(line: &str) {
    use std::io::Write;
    // Nobody may be reading: the front goes on all the same.
    let _ = writeln!(io::stderr(), "zed front: {line}");
}

fn front(args: &[String]) -> Result<(), FrontError> {
    let [folder] = args else { return Err(FrontError::Usage) };
    let folder = Path::new(folder);
    let record = RouteRecord::read(folder).map_err(FrontError::Route)?;
    #[cfg(target_os = "linux")]
    // Only what `ps` shows.
    let _ = nix::sys::prctl::set_name(c"zedd-front");
    let clients = accept::Clients::new(raise_open_files());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(FrontError::Runtime)?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let address = record.listen.address;
        let listener = listen(address).map_err(|e| FrontError::Listen(explain_bind(address, &e)))?;
        let control = listen_control(folder)
            .and_then(UnixListener::from_std)
            .map_err(|error| FrontError::Control { folder: folder.display().to_string(), error })?;
        // Both sockets are there: from here on it needs to be nobody.
        record.drop_privileges().map_err(FrontError::Privileges)?;
        let (terminate, interrupt) = (
            signal(SignalKind::terminate()).map_err(FrontError::Runtime)?,
            signal(SignalKind::interrupt()).map_err(FrontError::Runtime)?,
        );
        serve(&record, listener, control, clients, [terminate, interrupt]).await;
        Ok(())
    })
}

/// As many open files as the system allows; how many that are.
fn raise_open_files() -> usize {
    use nix::sys::resource::Resource;
    let Ok((now, most)) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE) else { return FEWEST_FILES };
    let raised = nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, most, most);
    usize::try_from(if raised.is_ok() { most } else { now }).unwrap_or(usize::MAX)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) {
        // `[::]` means every client, on systems as well where it would mean those with IPv6.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6V6Only, &false)?;
    }
    // Connections of a front that was here before may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn serve(
    record: &RouteRecord,
    listener: TcpListener,
    control: UnixListener,
    clients: accept::Clients,
    [mut terminate, mut interrupt]: [Signal; 2],
) {
    let routes = Rc::new(Routes::new(record.ports.clone()));
    let http = record.listen.http.then(|| Http::new(&routes));
    let (end, ending) = watch::channel(false);
    tokio::task::spawn_local(control::serve(control, Rc::clone(&routes), record.listen));
    let spawn = |stream: TcpStream, peer: SocketAddr| {
        let guard = clients.enter();
        match &http {
            Some(http) => {
                let one = Rc::clone(http).serve(stream, peer, ending.clone());
                tokio::task::spawn_local(async move {
                    one.await;
                    drop(guard);
                });
            }
            None => {
                let routes = Rc::clone(&routes);
                tokio::task::spawn_local(async move {
                    forward::serve(&routes, stream).await;
                    drop(guard);
                });
            }
        }
    };
    tokio::select! {
        () = accept::accept_all(listener, &routes, &clients, spawn) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // The listener is closed. Idle connections of HTTP clients are closed in order, the rest may finish.
    let _ = end.send(true);
    tokio::select! {
        () = clients.all_gone() => {}
        () = tokio::time::sleep(LAST_WORDS) => {}
    }
}
