//! What the handlers share: the tables of one mount, and the steps that several requests take.
//!
//! Answers nothing by itself; see `ops` for the requests.

use super::attrs::Kernel;
use super::handles::Handles;
use super::interrupt;
use super::parked::Parked;
use super::parked::Reply;
use super::parked::answer_empty;
use crate::Caller;
use crate::Fault;
use crate::tree::Caching;
use crate::tree::Entry;
use crate::tree::Handle;
use crate::tree::Node;
use crate::tree::Op;
use crate::tree::Rename;
use crate::tree::Tree;
use crate::wait::Step;
use fuser::Errno;
use fuser::FileHandle;
use fuser::FopenFlags;
use fuser::INodeNo;
use fuser::RenameFlags;
use fuser::ReplyEmpty;
use fuser::ReplyStatfs;
use fuser::Request;
use fuser::TimeOrNow;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// The tree as fuser wants it.
pub(super) struct ZedFs {
    pub(super) tree: Arc<Tree>,
    pub(super) parked: Arc<Parked>,
    pub(super) weak_parked: Weak<Parked>,
    pub(super) kernel: Arc<Kernel>,
    pub(super) files: Handles<Handle>,
    pub(super) folders: Handles<Vec<(u64, Entry)>>,
}

/// Counts a request when it is dropped.
pub(super) struct Count<'a> {
    fs: &'a ZedFs,
    op: Op,
    begun: Instant,
    pub(super) failed: bool,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.fs.tree.meter.count(self.op, self.begun, self.failed);
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

pub(super) fn text(name: &OsStr) -> Result<&str, Fault> {
    // No file of the tree has a name that is not UTF-8, and none can be made.
    name.to_str().ok_or_else(|| nix::errno::Errno::ENOENT.into())
}

pub(super) fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl ZedFs {
    pub(super) fn new(tree: Arc<Tree>, parked: Arc<Parked>, kernel: Arc<Kernel>) -> Self {
        let weak_parked = Arc::downgrade(&parked);
        Self { tree, parked, weak_parked, kernel, files: Handles::default(), folders: Handles::default() }
    }

    pub(super) fn count(&self, op: Op) -> Count<'_> {
        Count { fs: self, op, begun: Instant::now(), failed: false }
    }

    pub(super) fn node(&self, ino: INodeNo) -> Result<Node, Fault> {
        self.tree.node(ino.0).ok_or_else(|| nix::errno::Errno::ESTALE.into())
    }

    pub(super) fn handle(&self, handle: FileHandle) -> Result<Arc<Handle>, Fault> {
        self.files.get(handle.0).ok_or_else(|| nix::errno::Errno::EBADF.into())
    }

    pub(super) fn find(&self, parent: INodeNo, name: &OsStr) -> Result<Node, Fault> {
        self.tree.child(&self.node(parent)?, text(name)?)
    }

    /// Answers a flush or an fsync, now or later.
    pub(super) fn finish(&self, request: &Request, step: Step<()>, reply: ReplyEmpty, count: &mut Count<'_>) {
        match step {
            Step::Done(result) => {
                count.failed = result.is_err();
                answer_empty(reply, result);
            }
            Step::Wait(waiting) => {
                let unique = request.unique().0;
                self.park(unique, Reply::Empty(reply, waiting.late), waiting.limit);
                let parked = Weak::clone(&self.weak_parked);
                (waiting.start)(Box::new(move |result| {
                    parked.upgrade().is_some_and(|parked| parked.finish_empty(unique, result))
                }));
            }
        }
    }

    /// The real folder of specs says how much room there is.
    pub(super) fn answer_statfs(&self, reply: ReplyStatfs) {
        let real = self.tree.specs(crate::SpecDir::Deploy).real();
        match nix::sys::statvfs::statvfs(real) {
            #[expect(clippy::useless_conversion, reason = "the widths of statvfs differ between platforms")]
            Ok(found) => reply.statfs(
                found.blocks().into(),
                found.blocks_free().into(),
                found.blocks_available().into(),
                found.files().into(),
                found.files_free().into(),
                u32::try_from(found.block_size()).unwrap_or(4096),
                255,
                u32::try_from(found.fragment_size()).unwrap_or(4096),
            ),
            Err(error) => reply.error(Errno::from_i32(error as i32)),
        }
    }

    pub(super) fn park(&self, unique: u64, reply: Reply, limit: Duration) {
        interrupt::serve(&self.weak_parked);
        self.parked.park(unique, reply, limit);
        self.tree.waiting.store(self.parked.waiting(), Relaxed);
    }
}

/// Direct I/O: what a read gives is what the tree says, never what a page remembers. A close of what was only
/// read has nothing to say.
pub(super) fn open_flags(handle: &Handle) -> FopenFlags {
    let caching = match handle.caching() {
        Caching::Never => FopenFlags::FOPEN_DIRECT_IO,
        // Without a position a reader that waits keeps no writer of the same descriptor waiting.
        Caching::Stream => {
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_STREAM | FopenFlags::FOPEN_NONSEEKABLE
        }
        Caching::Kept => FopenFlags::FOPEN_KEEP_CACHE,
    };
    let closing = if handle.is_read_only() { FopenFlags::FOPEN_NOFLUSH } else { FopenFlags::empty() };
    caching | closing
}

#[cfg(target_os = "linux")]
pub(super) fn rename_of(flags: RenameFlags) -> Result<Rename, Fault> {
    match flags {
        flags if flags.is_empty() => Ok(Rename::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(Rename::Exclusive),
        RenameFlags::RENAME_EXCHANGE => Ok(Rename::Exchange),
        _ => Err(nix::errno::Errno::EINVAL.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn rename_of(flags: RenameFlags) -> Result<Rename, Fault> {
    if flags.is_empty() { Ok(Rename::Replace) } else { Err(nix::errno::Errno::EINVAL.into()) }
}
