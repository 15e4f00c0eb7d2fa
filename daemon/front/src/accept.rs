//! Accepting clients, and knowing when the last has gone.

use crate::routes::Routes;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// After the system had no descriptor or memory for a client: it stays in the backlog so long.
const PAUSE: Duration = Duration::from_millis(50);

/// Counts the clients that are connected, and says when there is room for another.
#[derive(Clone)]
pub(crate) struct Clients {
    inner: Rc<Inner>,
    most: usize,
}

#[derive(Default)]
struct Inner {
    count: Cell<usize>,
    gone: Notify,
}

/// Open files that are not for clients.
const SPARE: usize = 512;

/// One client, for as long as this lives.
pub(crate) struct Client {
    inner: Rc<Inner>,
}

impl Clients {
    /// As many as so many open files allow: each client needs a second one for its instance, and one that was
    /// accepted without it would wait in vain. Some are left for idle connections and for the daemon.
    pub(crate) fn new(open_files: usize) -> Self {
        let spare = (open_files / 4).min(SPARE);
        Self { inner: Rc::default(), most: ((open_files - spare) / 2).max(1) }
    }

    /// Waits until there is room for another.
    async fn room(&self) {
        while self.inner.count.get() >= self.most {
            self.inner.gone.notified().await;
        }
    }

    pub(crate) fn enter(&self) -> Client {
        self.inner.count.set(self.inner.count.get() + 1);
        Client { inner: Rc::clone(&self.inner) }
    }

    pub(crate) async fn all_gone(&self) {
        while self.inner.count.get() > 0 {
            self.inner.gone.notified().await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.inner.count.set(self.inner.count.get() - 1);
        self.inner.gone.notify_one();
    }
}

/// Hands on every client that connects. Never returns.
pub(crate) async fn accept_all(
    listener: TcpListener,
    routes: &Routes,
    clients: &Clients,
    each: impl Fn(TcpStream, SocketAddr),
) {
    let mut complained = false;
    loop {
        clients.room().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                complained = false;
                routes.accepted.set(routes.accepted.get() + 1);
                // A small answer must not wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                // A client whose machine has gone is noticed, if late.
                let _ = nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::KeepAlive, &true);
                each(stream, peer);
            }
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                if !complained {
                    complained = true;
                    crate::report(&format!("clients have to wait: {error}"));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// True when the next client may fare better at once.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
