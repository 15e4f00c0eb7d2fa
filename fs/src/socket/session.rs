//! One connection: reads requests, asks the tree, writes answers. Its thread waits where the mount would park.

use super::peer::Want;
use super::peer::may;
use super::protocol::Answer;
use super::protocol::Listed;
use super::protocol::MAX_DATA;
use super::protocol::MAX_LINE;
use super::protocol::PROTOCOL;
use super::protocol::Request;
use super::protocol::bytes_of;
use crate::Caller;
use crate::Fault;
use crate::tree::Access;
use crate::tree::Attr;
use crate::tree::Handle;
use crate::tree::Node;
use crate::tree::Rename;
use crate::tree::Tree;
use crate::wait::Step;
use nix::errno::Errno;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::Duration;
use std::time::UNIX_EPOCH;

/// How often somebody who waits is looked at: a client that went away frees its thread.
const LOOK: Duration = Duration::from_secs(1);

/// Who is served, and how.
pub(super) struct Session {
    pub(super) tree: Arc<Tree>,
    pub(super) caller: Caller,
    stream: UnixStream,
}

/// What a step of a request fails with.
pub(super) type Refused<T> = Result<T, Fault>;

impl Session {
    pub(super) fn new(tree: Arc<Tree>, caller: Caller, stream: UnixStream) -> Self {
        Self { tree, caller, stream }
    }

    /// Serves until the client has closed the connection.
    pub(super) fn run(&self) -> io::Result<()> {
        let version = self.tree.control().world().host.zed_version.clone();
        self.send(&Answer::Zed { protocol: PROTOCOL, version })?;
        let mut input = BufReader::new(self.stream.try_clone()?);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = u64::try_from(MAX_LINE + 1).unwrap_or(u64::MAX);
            if (&mut input).take(limit).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.len() > MAX_LINE {
                let text = format!("a request has at most {MAX_LINE} bytes");
                // Where the next request would begin is not known.
                return self.send(&Fault::new(Errno::EFBIG, text).into());
            }
            let answer = match serde_json::from_slice(&line) {
                Ok(Request::Follow { path, offset }) => match self.follow(&path, offset)? {
                    Ok(()) => return Ok(()),
                    Err(fault) => fault.into(),
                },
                Ok(Request::Submit { path, data, hex }) => match self.submit(&path, data, hex)? {
                    Ok(last) => last,
                    Err(fault) => fault.into(),
                },
                Ok(request) => self.answer(request).unwrap_or_else(Answer::from),
                Err(error) => Fault::new(Errno::EINVAL, format!("not a request: {error}")).into(),
            };
            self.send(&answer)?;
        }
    }

    pub(super) fn send(&self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        (&self.stream).write_all(&line)
    }

    fn answer(&self, request: Request) -> Refused<Answer> {
        match request {
            Request::Read { path, offset } => self.read(&path, offset),
            Request::Write { path, data, hex, offset, wait } => {
                self.write(&path, offset, &bytes_of(data, hex)?, wait)
            }
            Request::List { path } => self.list(&path),
            Request::Stat { path } => {
                let (_, attr) = self.find(&path)?;
                Ok(Answer::Stat(listed(path, &attr)))
            }
            Request::Put { path, data } => self.put(&path, data.as_bytes()),
            Request::Remove { path } => {
                let (parent, name) = self.parent(&path)?;
                self.tree.unlink(&parent, name)?;
                Ok(Answer::Ok {})
            }
            Request::Sync { path } => {
                let handle = self.open(&path, Access { read: true, write: false })?;
                let step = self.tree.fsync(&handle, self.caller);
                let done = self.wait(step);
                self.tree.release(&handle);
                done.map(|()| Answer::Ok {})
            }
            // Answered where the connection is.
            Request::Follow { .. } | Request::Submit { .. } => Err(Errno::EINVAL.into()),
        }
    }

    /// Walks to a node, through folders that the caller may pass.
    fn find(&self, path: &str) -> Refused<(Node, Attr)> {
        let mut node = Node::Root;
        let mut attr = self.tree.attr(&node)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            self.check(&attr, Want::Pass, path)?;
            node = self.tree.child(&node, name).map_err(|fault| named(fault, path))?;
            attr = self.tree.attr(&node)?;
        }
        Ok((node, attr))
    }

    /// The folder that a name is in, which the caller wants to change.
    fn parent<'a>(&self, path: &'a str) -> Refused<(Node, &'a str)> {
        let path = path.trim_matches('/');
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (node, attr) = self.find(folder)?;
        self.check(&attr, Want::Pass, path)?;
        self.check(&attr, Want::Write, path)?;
        Ok((node, name))
    }

    fn check(&self, attr: &Attr, want: Want, path: &str) -> Refused<()> {
        if may(self.caller, attr, want) {
            return Ok(());
        }
        let Caller { uid, gid, .. } = self.caller;
        Err(Fault::new(
            Errno::EACCES,
            format!(
                "{path}: mode {:03o} of {}:{} does not let {uid}:{gid} do that",
                attr.mode, attr.uid, attr.gid
            ),
        ))
    }

    pub(super) fn open(&self, path: &str, access: Access) -> Refused<Arc<Handle>> {
        let (node, attr) = self.find(path)?;
        if access.read {
            self.check(&attr, Want::Read, path)?;
        }
        if access.write {
            self.check(&attr, Want::Write, path)?;
        }
        self.tree.open(&node, access).map_err(|fault| named(fault, path))
    }

    fn read(&self, path: &str, offset: u64) -> Refused<Answer> {
        let handle = self.open(path, Access { read: true, write: false })?;
        // Of a stream only what is there; everything else does not wait, or is read in order to wait.
        let nonblock = handle.stream().is_some();
        let mut bytes = Vec::new();
        let read = loop {
            let at = offset + bytes.len() as u64;
            let step = self.tree.read(&handle, at, MAX_DATA - bytes.len(), nonblock);
            match self.wait(step) {
                Ok(chunk) if chunk.is_empty() => break Ok(()),
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(fault) => break Err(fault),
            }
            if bytes.len() >= MAX_DATA {
                break Ok(());
            }
        };
        self.tree.release(&handle);
        read.map(|()| Answer::data(&bytes, offset + bytes.len() as u64, bytes.len() < MAX_DATA))
    }

    fn write(&self, path: &str, offset: u64, data: &[u8], wait: bool) -> Refused<Answer> {
        let handle = match self.open(path, Access { read: false, write: true }) {
            // A plan for a deploy that does not exist yet.
            Err(Fault { errno: Errno::ENOENT, .. }) if path.ends_with(".plan") => {
                let (parent, name) = self.parent(path)?;
                self.tree.create(&parent, name, 0o644, self.caller)?.1
            }
            opened => opened?,
        };
        let done = self.write_all(&handle, offset, data).and_then(|()| {
            match self.tree.flush(&handle, self.caller) {
                Step::Wait(_) if !wait => Ok(()),
                step => self.wait(step),
            }
        });
        self.tree.release(&handle);
        match done {
            Ok(()) => Ok(Answer::Ok {}),
            // What failed later has its text in the `error` file only.
            Err(Fault { errno, text: None }) => Err(Fault::new(errno, self.why(path, errno))),
            Err(fault) => Err(fault),
        }
    }

    /// Verb files and plans take a write whole; arrays and queues take what they can.
    pub(super) fn write_all(&self, handle: &Handle, offset: u64, data: &[u8]) -> Refused<()> {
        let mut written = 0;
        loop {
            let rest = data.get(written..).unwrap_or_default();
            written += self.tree.write(handle, self.caller, offset + written as u64, rest)?;
            if written >= data.len() {
                return Ok(());
            }
        }
    }

    pub(super) fn why(&self, path: &str, errno: Errno) -> String {
        let path = path.trim_matches('/');
        let beside =
            path.rsplit_once('/').map_or("error".to_owned(), |(folder, _)| format!("{folder}/error"));
        let text = self.find(&beside).and_then(|(node, _)| self.tree.text(&node));
        match text {
            Ok(text) if !text.is_empty() => String::from_utf8_lossy(&text).into_owned(),
            _ => format!("{path}: {}", errno.desc()),
        }
    }

    fn list(&self, path: &str) -> Refused<Answer> {
        let (node, attr) = self.find(path)?;
        self.check(&attr, Want::Read, path)?;
        let mut entries = Vec::new();
        for entry in self.tree.list(&node).map_err(|fault| named(fault, path))? {
            // One that went away in between is left out.
            if let Ok(attr) = self.tree.attr(&entry.node) {
                entries.push(listed(entry.name, &attr));
            }
        }
        Ok(Answer::Entries(entries))
    }

    /// A scratch file and a rename, like any careful tool.
    fn put(&self, path: &str, data: &[u8]) -> Refused<Answer> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (parent, name) = self.parent(path)?;
        let scratch = format!(".socket-{}-{name}", NEXT.fetch_add(1, Relaxed));
        let (_, handle) = self.tree.create(&parent, &scratch, 0o644, self.caller)?;
        let written = self.tree.write(&handle, self.caller, 0, data);
        self.tree.release(&handle);
        let placed = written.and_then(|_| {
            self.tree.rename((&parent, &scratch), (&parent, name), Rename::Replace, self.caller)
        });
        if let Err(fault) = placed {
            self.tree.unlink(&parent, &scratch)?;
            return Err(fault);
        }
        Ok(Answer::Ok {})
    }

    /// Sends news until the client is gone. The outer error is the connection's.
    fn follow(&self, path: &str, offset: u64) -> io::Result<Refused<()>> {
        let handle = match self.open(path, Access { read: true, write: false }) {
            Ok(handle) => handle,
            Err(fault) => return Ok(Err(fault)),
        };
        if handle.stream().is_none() {
            self.tree.release(&handle);
            return Ok(Err(Fault::new(Errno::EINVAL, format!("{path} is not a stream"))));
        }
        let mut at = offset;
        loop {
            let step = self.tree.read(&handle, at, MAX_DATA, false);
            match self.wait(step) {
                Ok(chunk) if chunk.is_empty() => {
                    // Quiet for long: is the client still there?
                    if self.is_gone() {
                        return Ok(Ok(()));
                    }
                }
                Ok(chunk) => {
                    at += chunk.len() as u64;
                    self.send(&Answer::data(&chunk, at, false))?;
                }
                Err(fault) => return Ok(Err(fault)),
            }
        }
    }

    /// Waits here for what the mount would park.
    pub(super) fn wait<T: Send + 'static>(&self, step: Step<T>) -> Refused<T> {
        let waiting = match step {
            Step::Done(result) => return result,
            Step::Wait(waiting) => waiting,
        };
        let (finish, ended) = mpsc::channel();
        (waiting.start)(Box::new(move |result| finish.send(result).is_ok()));
        let mut left = waiting.limit;
        loop {
            match ended.recv_timeout(left.min(LOOK)) {
                Ok(result) => return result,
                Err(_) if left <= LOOK => return waiting.late.into_result(),
                Err(_) if self.is_gone() => return Err(Errno::EINTR.into()),
                Err(_) => left -= LOOK,
            }
        }
    }

    /// True when the client has closed its side for good.
    fn is_gone(&self) -> bool {
        use nix::poll::PollFd;
        use nix::poll::PollFlags;
        use nix::poll::PollTimeout;
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let ready = nix::poll::poll(&mut fds, PollTimeout::ZERO);
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        ready.is_err() || fds.iter().any(|fd| fd.revents().is_some_and(|events| events.intersects(gone)))
    }
}

fn listed(name: String, attr: &Attr) -> Listed {
    let mtime = attr.mtime.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Listed {
        name,
        dir: attr.is_dir,
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        size: attr.size,
        mtime: i64::try_from(mtime).unwrap_or(i64::MAX),
    }
}

/// Says what it is about, when nobody has yet.
fn named(fault: Fault, path: &str) -> Fault {
    match fault.text {
        None => Fault::new(fault.errno, format!("{path}: {}", fault.errno.desc())),
        Some(_) => fault,
    }
}
