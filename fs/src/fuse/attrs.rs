//! Attributes as the kernel gets them, and how long it may keep them without ever being wrong.
//!
//! What changes only with the world is kept by the kernel until the world changes: then, before the daemon goes
//! on, the kernel is told. Everything else is asked for each time.

use crate::tree::Attr;
use crate::tree::Lasts;
use crate::tree::Tree;
use fuser::FileAttr;
use fuser::FileType;
use fuser::INodeNo;
use fuser::Notifier;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::time::Duration;

/// How long the kernel may keep what cannot change unnoticed. Not longer, because it would go on showing it
/// after the daemon was killed.
const LONG: Duration = Duration::from_secs(1);

/// The most nodes whose attributes the kernel keeps between changes of the world, so that a change costs at
/// most as many notifications (about 1 us each).
const MAX_KEPT: usize = 256;

/// The kernel's side of one mount.
#[derive(Default)]
pub(super) struct Kernel {
    notifier: OnceLock<Notifier>,
    kept: Mutex<HashSet<u64>>,
}

impl Kernel {
    /// From here on attributes may be kept.
    pub(super) fn attach(self: &Arc<Self>, notifier: Notifier, tree: &Arc<Tree>) {
        if self.notifier.set(notifier).is_err() {
            return;
        }
        let kernel: Weak<Self> = Arc::downgrade(self);
        tree.control().on_change(Box::new(move |_| {
            if let Some(kernel) = kernel.upgrade() {
                kernel.world_changed();
            }
        }));
    }

    /// Takes back what the kernel keeps. Only attributes are invalidated, which takes no lock that a client
    /// could hold while it waits for us, so this may be called from any thread.
    fn world_changed(&self) {
        let kept = std::mem::take(&mut *self.kept.lock());
        for ino in kept {
            self.invalidate(ino);
        }
    }

    fn invalidate(&self, ino: u64) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(ino), -1, 0)
            && error.raw_os_error() != Some(nix::libc::ENODEV)
        {
            tracing::warn!(ino, %error, "the kernel may show an old size");
        }
    }

    /// Answers with attributes: `read` gets them, `reply` sends them with how long they may be kept.
    pub(super) fn answer<E>(
        &self,
        tree: &Tree,
        ino: u64,
        read: impl FnOnce() -> Result<Attr, E>,
        reply: impl FnOnce(Result<(&Attr, Duration), E>),
    ) {
        // Whoever changes the world after this line takes the attributes back.
        let before = tree.control().world().version;
        let may_keep = self.notifier.get().is_some() && {
            let mut kept = self.kept.lock();
            kept.contains(&ino) || (kept.len() < MAX_KEPT && kept.insert(ino))
        };
        let attr = match read() {
            Ok(attr) => attr,
            Err(error) => return reply(Err(error)),
        };
        match attr.lasts {
            Lasts::Run => reply(Ok((&attr, LONG))),
            Lasts::World if may_keep => {
                reply(Ok((&attr, LONG)));
                // A change in between may have been told to a kernel that did not know the inode yet.
                if tree.control().world().version != before {
                    self.invalidate(ino);
                }
                return;
            }
            Lasts::World | Lasts::Now => reply(Ok((&attr, Duration::ZERO))),
        }
        if may_keep {
            self.kept.lock().remove(&ino);
        }
    }
}

/// How long a name may be kept.
pub(super) fn name_ttl(attr: &Attr) -> Duration {
    if attr.fixed_name { LONG } else { Duration::ZERO }
}

/// The same in fuser's form.
pub(super) fn file_attr(ino: u64, attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.mtime,
        crtime: attr.mtime,
        kind: kind(attr.is_dir),
        // Twelve bits.
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or(0),
        // One link for folders too: find(1) then does not guess how many folders are inside.
        nlink: 1,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// The type of a node.
pub(super) fn kind(is_dir: bool) -> FileType {
    if is_dir { FileType::Directory } else { FileType::RegularFile }
}
