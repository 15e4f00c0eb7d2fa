//! Open files: what each kind of handle does with a read, a write, a close and an fsync.

use super::Tree;
use super::gpu::GpuHandle;
use super::node::AppFile;
use super::node::HostFile;
use super::node::Node;
use super::node::RootFile;
use super::node::ViewFile;
use super::node::deploy_of;
use crate::Caller;
use crate::Fault;
use crate::SpecDir;
use crate::VerbFile;
use crate::WaitFor;
use crate::spec::Meta;
use crate::stream::Stream;
use crate::verb::PlanHandle;
use crate::verb::VerbHandle;
use crate::wait::Chunk;
use crate::wait::Finish;
use crate::wait::Late;
use crate::wait::Step;
use crate::wait::Verdict;
use crate::wait::Waiting;
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::SystemTime;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
}

/// Changes of attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SystemTime>,
    /// Last change.
    pub mtime: Option<SystemTime>,
}

/// What a client may keep of what a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Nothing: each read asks.
    Never,
    /// Nothing, and offsets mean nothing.
    Stream,
    /// All of it, for ever.
    Kept,
}

/// One open file.
pub struct Handle {
    kind: Kind,
}

enum Kind {
    /// A snapshot, taken at open.
    Text(Arc<[u8]>),
    /// A verb file, with what a read gives.
    Verb(VerbHandle, Arc<[u8]>),
    /// `deploy/NAME.plan` for writing, with what a read gives.
    Plan(PlanHandle, Arc<[u8]>),
    Stream(Arc<Stream>),
    /// A real file that is not written to any more.
    Real(File),
    /// `NAME.wait`: the verdict, once it is known.
    Wait {
        name: Arc<str>,
        verdict: Verdict,
    },
    Gpu(GpuHandle),
    Spec {
        dir: SpecDir,
        ino: u64,
        write: bool,
    },
}

impl Handle {
    /// True when a close has nothing to do.
    pub fn is_read_only(&self) -> bool {
        match &self.kind {
            Kind::Text(_) | Kind::Stream(_) | Kind::Real(_) | Kind::Wait { .. } => true,
            Kind::Verb(..) | Kind::Plan(..) => false,
            Kind::Spec { write, .. } => !write,
            Kind::Gpu(gpu) => gpu.is_read_only(),
        }
    }

    /// What may be kept of what a read gave.
    pub fn caching(&self) -> Caching {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.caching(),
            _ => Caching::Never,
        }
    }

    /// The snapshot, when that is all that the handle is.
    pub fn snapshot(&self) -> Option<&Arc<[u8]>> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The stream, when it is one.
    pub fn stream(&self) -> Option<&Arc<Stream>> {
        match &self.kind {
            Kind::Stream(stream) => Some(stream),
            _ => None,
        }
    }
}

/// Of what a client asked for, at most what one answer may hold.
pub(super) fn read_real(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size.min(crate::stream::MAX_READ)];
    let count = file.read_at(&mut bytes, offset)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// The verb file that a node is.
fn verb_file(node: &Node) -> Option<VerbFile> {
    match node {
        Node::RootFile(RootFile::Ctl) => Some(VerbFile::Root),
        Node::AppFile(app, AppFile::Ctl) => Some(VerbFile::App(app.to_string())),
        Node::AppFile(app, AppFile::Rollback) => Some(VerbFile::Rollback(app.to_string())),
        Node::HostFile(host, HostFile::Ctl) => Some(VerbFile::Host(host.to_string())),
        Node::Gpu(node) => node.verb_file(),
        _ => None,
    }
}

impl Tree {
    /// Opens a file. Who may is not asked here: the kernel or the socket has done so.
    ///
    /// # Errors
    /// ENOENT when it is gone, EISDIR, EACCES for writing what cannot be written.
    pub fn open(&self, node: &Node, access: Access) -> Result<Arc<Handle>, Fault> {
        if node.is_dir() {
            return Err(Errno::EISDIR.into());
        }
        if let Node::Gpu(gpu) = node
            && let Some(gpus) = self.control.gpus()
            && let Some(handle) = gpu.open(&gpus, &self.errors, access)?
        {
            return Ok(Arc::new(Handle { kind: Kind::Gpu(handle) }));
        }
        let kind = match node {
            Node::Spec(dir, ino) => {
                self.specs(*dir).open_file(*ino, access.write)?;
                Kind::Spec { dir: *dir, ino: *ino, write: access.write }
            }
            Node::View(SpecDir::Deploy, name, ViewFile::Plan) if access.write => {
                let text = if access.read { self.text(node)? } else { Arc::new([]) };
                Kind::Plan(self.plan_handle(name), text)
            }
            Node::View(SpecDir::Deploy, name, ViewFile::Wait) if !access.write => {
                Kind::Wait { name: Arc::clone(name), verdict: Verdict::default() }
            }
            _ => match (verb_file(node), self.stream_path(node)) {
                (Some(file), _) if access.write => {
                    let text = if access.read { self.text(node)? } else { Arc::new([]) };
                    let handle = VerbHandle::new(Arc::clone(&self.control), Arc::clone(&self.errors), file);
                    Kind::Verb(handle, text)
                }
                // Root passes the kernel's check of the permission bits, and learns it here.
                _ if access.write => return Err(Errno::EACCES.into()),
                (_, Some(path)) => Kind::Stream(Arc::new(Stream::open(&path))),
                _ => match self.old_log(node) {
                    Some(path) => Kind::Real(File::open(path)?),
                    None => Kind::Text(self.text(node)?),
                },
            },
        };
        Ok(Arc::new(Handle { kind }))
    }

    fn plan_handle(&self, name: &Arc<str>) -> PlanHandle {
        PlanHandle::new(Arc::clone(&self.control), Arc::clone(&self.errors), Arc::clone(name))
    }

    /// Makes a file and opens it for writing: a spec, a scratch file, or `deploy/NAME.plan` that does not
    /// exist yet.
    ///
    /// # Errors
    /// EPERM outside the folders of specs and for names that zed makes itself; see `SpecFolder::create`.
    pub fn create(
        &self,
        parent: &Node,
        name: &str,
        mode: u32,
        caller: Caller,
    ) -> Result<(Node, Arc<Handle>), Fault> {
        let Node::Specs(dir) = parent else { return Err(Errno::EPERM.into()) };
        if let (SpecDir::Deploy, Some((deploy, ViewFile::Plan))) = (dir, ViewFile::split(name)) {
            let node = Node::View(*dir, deploy.into(), ViewFile::Plan);
            let kind = Kind::Plan(self.plan_handle(&deploy.into()), Arc::new([]));
            return Ok((node, Arc::new(Handle { kind })));
        }
        let now = SystemTime::now();
        let folder = self.specs(*dir);
        let real = std::fs::metadata(folder.real())?;
        // A folder with the set-group-id bit hands its group down, as on any other file system.
        let gid = if real.permissions().mode() & 0o2000 == 0 {
            caller.gid
        } else {
            std::os::unix::fs::MetadataExt::gid(&real)
        };
        let meta = Meta { mode: mode & 0o7777, uid: caller.uid, gid, mtime: now, atime: now };
        let ino = self.note(folder.create(name, meta))?;
        let kind = Kind::Spec { dir: *dir, ino, write: true };
        Ok((Node::Spec(*dir, ino), Arc::new(Handle { kind })))
    }

    /// Reads. `nonblock` is what the reader's descriptor says now.
    pub fn read(&self, handle: &Handle, offset: u64, size: usize, nonblock: bool) -> Step<Chunk> {
        match &handle.kind {
            Kind::Text(text) | Kind::Verb(_, text) | Kind::Plan(_, text) => {
                Step::Done(Ok(Chunk::of(text, offset, size)))
            }
            Kind::Stream(stream) => stream.read(&self.hub, offset, size, nonblock, self.settings.quiet),
            Kind::Spec { dir, ino, .. } => self.specs(*dir).read(*ino, offset, size).map(Chunk::Own).into(),
            Kind::Real(file) => read_real(file, offset, size).map(Chunk::Own).map_err(Fault::from).into(),
            Kind::Wait { name, verdict } => self.read_verdict(name, verdict, offset, size, nonblock),
            Kind::Gpu(gpu) => gpu.read(offset, size, nonblock),
        }
    }

    fn read_verdict(
        &self,
        name: &Arc<str>,
        verdict: &Verdict,
        offset: u64,
        size: usize,
        nonblock: bool,
    ) -> Step<Chunk> {
        if let Some(chunk) = verdict.known(offset, size) {
            return Step::Done(Ok(chunk));
        }
        if nonblock {
            // Somebody who does not want to wait gets the verdict of now.
            let node = Node::View(SpecDir::Deploy, Arc::clone(name), ViewFile::Wait);
            return self.text(&node).map(|text| Chunk::of(&text, offset, size)).into();
        }
        let (control, name) = (Arc::clone(&self.control), name.to_string());
        verdict.wait((offset, size), self.settings.settle, move |done| {
            control.when(WaitFor::Settled(name), done);
        })
    }

    /// Writes.
    ///
    /// # Errors
    /// What the verb is refused with; EFBIG; EBADF for a handle that only reads.
    pub fn write(&self, handle: &Handle, caller: Caller, offset: u64, data: &[u8]) -> Result<usize, Fault> {
        match &handle.kind {
            Kind::Verb(verb, _) => verb.write(caller, data),
            Kind::Plan(plan, _) => plan.write(offset, data),
            Kind::Gpu(gpu) => gpu.write(caller, offset, data),
            Kind::Spec { dir, ino, write: true } => self.note(self.specs(*dir).write(*ino, offset, data)),
            _ => Err(Errno::EBADF.into()),
        }
    }

    /// A close of one descriptor.
    pub fn flush(&self, handle: &Handle, caller: Caller) -> Step<()> {
        match &handle.kind {
            Kind::Verb(verb, _) => verb.flush(),
            Kind::Plan(plan, _) => plan.flush(caller),
            Kind::Gpu(gpu) => gpu.flush(caller).into(),
            Kind::Spec { dir, ino, write: true } => self.note(self.specs(*dir).flush(*ino)).into(),
            _ => Step::Done(Ok(())),
        }
    }

    /// `fsync`: through a handle that wrote, the save is durable and judged; through one that only reads, the
    /// save has converged.
    pub fn fsync(&self, handle: &Handle, caller: Caller) -> Step<()> {
        match &handle.kind {
            Kind::Verb(verb, _) => verb.fsync(),
            Kind::Plan(plan, _) => plan.fsync(caller),
            Kind::Gpu(gpu) => gpu.fsync(),
            Kind::Spec { dir, ino, write: true } => self.note(self.specs(*dir).commit(*ino)).into(),
            Kind::Spec { dir: SpecDir::Plan, ino, .. } => self.specs(SpecDir::Plan).commit(*ino).into(),
            Kind::Spec { ino, .. } => match self.deploy.deploy(*ino) {
                Some(deploy) => self.wait_settled(deploy),
                // Who waits for this file expects it to be applied, which it never is.
                None => Step::Done(Err(self.not_a_spec())),
            },
            _ => Step::Done(Ok(())),
        }
    }

    fn not_a_spec(&self) -> Fault {
        let text = "this file is no spec, so it is never applied: a spec's name is [a-z0-9][a-z0-9-]*.ron\n";
        self.errors.set(&Node::RootFile(RootFile::Error), text);
        Fault::from(Errno::EINVAL)
    }

    fn wait_settled(&self, deploy: String) -> Step<()> {
        let (control, errors) = (Arc::clone(&self.control), Arc::clone(&self.errors));
        let start = move |finish: Finish<()>| {
            let done = move |outcome: crate::Outcome| match outcome {
                Ok(_) => {
                    finish(Ok(()));
                }
                Err(error) => {
                    let fault = Fault::from(error);
                    errors.set(&Node::RootFile(RootFile::Error), fault.text.as_deref().unwrap_or_default());
                    // Whatever the cause: the save did not converge, and `sync` prints that best as EIO.
                    finish(Err(Fault { errno: Errno::EIO, ..fault }));
                }
            };
            control.when(WaitFor::Settled(deploy), Box::new(done));
        };
        let late = Late::Fail(Errno::ETIMEDOUT);
        Step::Wait(Waiting { start: Box::new(start), limit: self.settings.settle, late })
    }

    /// The last descriptor of a handle is closed.
    pub fn release(&self, handle: &Handle) {
        if let Kind::Gpu(gpu) = &handle.kind {
            gpu.release();
        }
        if let Kind::Spec { dir, ino, write } = &handle.kind
            && let Err(fault) = self.note(self.specs(*dir).release(*ino, *write))
        {
            let cause = fault.text.unwrap_or_else(|| fault.errno.to_string());
            tracing::warn!(cause = cause.trim_end(), "a save at the last close was not good");
        }
    }

    /// Calls `notify` once when a read of the handle would give something; true when it would now. Nothing for a
    /// handle that never waits.
    pub fn poll(&self, handle: &Handle, notify: Option<Box<dyn FnOnce() + Send>>) -> Option<bool> {
        let stream = match &handle.kind {
            Kind::Stream(stream) => stream,
            Kind::Gpu(GpuHandle::Queue(queue)) => return Some(queue.poll(notify)),
            _ => return None,
        };
        if stream.ready() {
            return Some(true);
        }
        if let Some(notify) = notify {
            stream.when_ready(&self.hub, notify);
        }
        Some(false)
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// EPERM for what is not a client's to change; EFBIG.
    pub fn set_attr(&self, node: &Node, set: SetAttr) -> Result<(), Fault> {
        match node {
            Node::Spec(dir, ino) => {
                if let Some(size) = set.size {
                    self.note(self.specs(*dir).resize(*ino, size))?;
                }
                self.specs(*dir).set_meta(*ino, |meta| {
                    meta.mode = set.mode.map_or(meta.mode, |mode| mode & 0o7777);
                    meta.uid = set.uid.unwrap_or(meta.uid);
                    meta.gid = set.gid.unwrap_or(meta.gid);
                    meta.mtime = set.mtime.unwrap_or(meta.mtime);
                    meta.atime = set.atime.unwrap_or(meta.atime);
                })
            }
            // Whom the folder belongs to is the administrator's: it decides who may deploy.
            Node::Specs(dir) => self.set_folder(*dir, set),
            // `echo x > ctl` and `cp -p` of a plan cut, touch and chmod what has no content of its own.
            Node::View(SpecDir::Deploy, _, ViewFile::Plan) => Ok(()),
            Node::Gpu(gpu) if verb_file(node).is_none() => {
                let gpus = self.control.gpus().ok_or(Errno::ENOENT)?;
                gpu.set_attr(&*gpus, set)
            }
            _ if verb_file(node).is_some() && set.mode.or(set.uid).or(set.gid).is_none() => Ok(()),
            _ => Err(Errno::EPERM.into()),
        }
    }

    fn set_folder(&self, dir: SpecDir, set: SetAttr) -> Result<(), Fault> {
        let real = self.specs(dir).real();
        if set.uid.or(set.gid).is_some() {
            std::os::unix::fs::chown(real, set.uid, set.gid)?;
        }
        if let Some(mode) = set.mode {
            std::fs::set_permissions(real, std::fs::Permissions::from_mode(mode & 0o7777))?;
        }
        Ok(())
    }

    /// Removes a file of a folder of specs.
    ///
    /// # Errors
    /// EPERM elsewhere and for virtual files; ENOENT.
    pub fn unlink(&self, parent: &Node, name: &str) -> Result<(), Fault> {
        match (parent, self.child(parent, name)?) {
            (Node::Specs(dir), Node::Spec(..)) => {
                self.specs(*dir).unlink(name)?;
                // It waits for the end of the grace.
                let _ = self.janitor.send(());
                Ok(())
            }
            _ => Err(Errno::EPERM.into()),
        }
    }

    /// Renames inside a folder of specs.
    ///
    /// # Errors
    /// EXDEV between folders, EPERM elsewhere; see `SpecFolder::rename`.
    pub fn rename(
        &self,
        from: (&Node, &str),
        to: (&Node, &str),
        how: Rename,
        caller: Caller,
    ) -> Result<(), Fault> {
        let (Node::Specs(dir), Node::Specs(to_dir)) = (from.0, to.0) else { return Err(Errno::EPERM.into()) };
        if dir != to_dir {
            return Err(Errno::EXDEV.into());
        }
        let Node::Spec(..) = self.child(from.0, from.1)? else { return Err(Errno::EPERM.into()) };
        let folder = self.specs(*dir);
        if let (SpecDir::Deploy, Some((deploy, ViewFile::Plan))) = (dir, ViewFile::split(to.1)) {
            // What rsync does with a plan: a temporary file, then its name. The outcome is in `status`.
            let plan = self.plan_handle(&deploy.into());
            plan.write(0, &folder.content_of(from.1)?)?;
            if let Step::Done(Err(fault)) = plan.flush(caller) {
                return Err(fault);
            }
            return folder.unlink(from.1);
        }
        let renamed = match how {
            Rename::Replace => folder.rename(from.1, to.1, false),
            Rename::Exclusive => folder.rename(from.1, to.1, true),
            Rename::Exchange => folder.exchange(from.1, to.1),
        };
        self.note(renamed)?;
        if deploy_of(to.1).is_some() {
            self.note_success();
        }
        // A spec that went away waits for the end of the grace.
        let _ = self.janitor.send(());
        Ok(())
    }
}

/// How a rename treats what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rename {
    /// Replaces it.
    Replace,
    /// Fails with EEXIST.
    Exclusive,
    /// Swaps the two.
    Exchange,
}
