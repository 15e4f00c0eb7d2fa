//! The tree on a Unix socket: for hosts without FUSE, for `zedctl --socket`, and for peers on the same host.
//!
//! The same tree and the same permission bits as the mount, checked against the peer's credentials. Owns the
//! socket file and a bounded number of threads, one a connection; may wait, unlike everything below `tree`.

mod peer;
mod protocol;
mod session;
mod submit;

pub use protocol::*;

use crate::Caller;
use crate::Fault;
use crate::tree::Tree;
use nix::errno::Errno;
use parking_lot::Mutex;
use session::Session;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::JoinHandle;

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 128;
/// The most of them for one user that is not root and not the daemon's own.
const MAX_PER_USER: usize = 16;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another daemon serves it.
    #[error("{} answers: another zedd serves it; stop that one, or use another path", path.display())]
    Busy {
        /// The path.
        path: PathBuf,
    },
    /// There is a file in its place.
    #[error("{} is there already and is no socket; remove it, or use another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot serve on {}", path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A served socket. Dropping it closes it; connections that are open are shut down.
pub struct Served {
    path: PathBuf,
    /// The socket file that is ours: a successor's is left alone.
    file: (u64, u64),
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    tree: Arc<Tree>,
    closing: AtomicBool,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, (u32, UnixStream)>,
}

/// Serves the tree. The file has mode 0666: who may do what is asked for each request, as on the mount.
///
/// # Errors
/// See [`SocketError`]. The file of a daemon that was killed is replaced.
pub fn serve(tree: &Arc<Tree>, path: &Path) -> Result<Served, SocketError> {
    let failed = |source| SocketError::Listen { path: path.to_path_buf(), source };
    clear(path)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
    let found = fs::symlink_metadata(path).map_err(failed)?;
    let shared = Arc::new(Shared {
        tree: Arc::clone(tree),
        closing: AtomicBool::new(false),
        connections: Mutex::default(),
    });
    let for_thread = Arc::clone(&shared);
    let accepting = std::thread::Builder::new()
        .name("zed-socket".to_owned())
        .spawn(move || accept(&for_thread, &listener))
        .map_err(failed)?;
    let file = (found.dev(), found.ino());
    Ok(Served { path: path.to_path_buf(), file, shared, accepting: Some(accepting) })
}

/// Removes the socket of a daemon that is gone.
fn clear(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Listen { path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Busy { path: path.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    loop {
        let accepted = listener.accept();
        if shared.closing.load(SeqCst) {
            return;
        }
        let served = accepted.and_then(|(stream, _)| shared.start(stream));
        if let Err(error) = served {
            tracing::warn!(%error, "a connection was not served");
            if error.raw_os_error() == Some(Errno::EMFILE as i32) {
                // Until somebody closes one: a loop would only burn the processor.
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

impl Shared {
    fn start(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        let caller = peer::peer_of(&stream)?;
        let number = match self.admit(caller, &stream)? {
            Ok(number) => number,
            Err(fault) => {
                let mut line = serde_json::to_vec(&Answer::from(fault))?;
                line.push(b'\n');
                return (&stream).write_all(&line);
            }
        };
        let shared = Arc::clone(self);
        let started = std::thread::Builder::new().name(format!("zed-socket-{number}")).spawn(move || {
            if let Err(error) = Session::new(Arc::clone(&shared.tree), caller, stream).run() {
                tracing::debug!(%error, "a connection ended early");
            }
            shared.connections.lock().open.remove(&number);
        });
        if started.is_err() {
            self.connections.lock().open.remove(&number);
        }
        started.map(drop)
    }

    /// A number for the connection, or why there is none.
    fn admit(&self, caller: Caller, stream: &UnixStream) -> io::Result<Result<u64, Fault>> {
        let mut connections = self.connections.lock();
        let own = connections.open.values().filter(|(uid, _)| *uid == caller.uid).count();
        let trusted = caller.uid == 0 || caller.uid == nix::unistd::geteuid().as_raw();
        if connections.open.len() >= MAX_CONNECTIONS || (!trusted && own >= MAX_PER_USER) {
            return Ok(Err(Fault::new(Errno::EBUSY, "too many connections; close one and try again")));
        }
        let number = connections.next;
        connections.next += 1;
        connections.open.insert(number, (caller.uid, stream.try_clone()?));
        Ok(Ok(number))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        self.shared.tree.commit_removals();
        for (_, stream) in self.shared.connections.lock().open.values() {
            // It may be closed already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // Wakes the thread that accepts.
        let woken = UnixStream::connect(&self.path).is_ok();
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file stays");
        }
        if let (true, Some(accepting)) = (woken && ours, self.accepting.take()) {
            // It has nothing to say.
            let _ = accepting.join();
        }
    }
}
