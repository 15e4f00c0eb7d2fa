//! The requests of the kernel, each handed to the tree.
//!
//! A handler answers at once or parks its reply. What the tree does not have (links, folders, extended
//! attributes) is refused here, quietly: fuser's own defaults write a warning each time.

use super::attrs::file_attr;
use super::attrs::kind;
use super::attrs::name_ttl;
use super::parked::Reply;
use super::parked::answer_data;
use super::parked::answer_empty;
use super::parked::errno;
use super::state::ZedFs;
use super::state::caller;
use super::state::open_flags;
use super::state::rename_of;
use super::state::text;
use super::state::time;
use crate::tree::Access;
use crate::tree::Op;
use crate::tree::SetAttr;
use crate::wait::Step;
use fuser::BsdFileFlags;
use fuser::Errno;
use fuser::FileHandle;
use fuser::Filesystem;
use fuser::FopenFlags;
use fuser::Generation;
use fuser::INodeNo;
use fuser::KernelConfig;
use fuser::LockOwner;
use fuser::OpenAccMode;
use fuser::OpenFlags;
use fuser::PollEvents;
use fuser::PollFlags;
use fuser::PollNotifier;
use fuser::RenameFlags;
use fuser::ReplyAttr;
use fuser::ReplyCreate;
use fuser::ReplyData;
use fuser::ReplyDirectory;
use fuser::ReplyEmpty;
use fuser::ReplyEntry;
use fuser::ReplyOpen;
use fuser::ReplyPoll;
use fuser::ReplyStatfs;
use fuser::ReplyWrite;
use fuser::ReplyXattr;
use fuser::Request;
use fuser::TimeOrNow;
use fuser::WriteFlags;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::SystemTime;

/// The largest write that the kernel sends in one piece: a spec that is too big is refused at once.
const MAX_WRITE: u32 = 2 << 20;

impl Filesystem for ZedFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A kernel that wants less says so.
        if let Err(nearest) = config.set_max_write(MAX_WRITE) {
            let _ = config.set_max_write(nearest);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut count = self.count(Op::Lookup);
        let node = match self.find(parent, name) {
            Ok(node) => node,
            Err(fault) => {
                count.failed = true;
                return reply.error(errno(&fault));
            }
        };
        let ino = self.tree.number(&node);
        let read = || self.tree.attr(&node);
        self.kernel.answer(&self.tree, ino, read, |attr| match attr {
            Ok((attr, ttl)) => {
                let ino = self.tree.remember(&node);
                reply.entry_with_ttls(&ttl, &name_ttl(attr), &file_attr(ino, attr), Generation(0));
            }
            Err(fault) => reply.error(errno(&fault)),
        });
    }

    fn forget(&self, _request: &Request, ino: INodeNo, lookups: u64) {
        self.tree.forget(ino.0, lookups);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let _count = self.count(Op::Getattr);
        let read = || self.tree.attr(&self.node(ino)?);
        self.kernel.answer(&self.tree, ino.0, read, |attr| match attr {
            Ok((attr, ttl)) => reply.attr(&ttl, &file_attr(ino.0, attr)),
            Err(fault) => reply.error(errno(&fault)),
        });
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut count = self.count(Op::Setattr);
        let set = SetAttr { mode, uid, gid, size, atime: atime.map(time), mtime: mtime.map(time) };
        let done = self.node(ino).and_then(|node| {
            self.tree.set_attr(&node, set)?;
            self.tree.attr(&node)
        });
        match done {
            Ok(attr) => reply.attr(&Duration::ZERO, &file_attr(ino.0, &attr)),
            Err(fault) => {
                count.failed = true;
                reply.error(errno(&fault));
            }
        }
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut count = self.count(Op::Unlink);
        let done = self.node(parent).and_then(|parent| self.tree.unlink(&parent, text(name)?));
        count.failed = done.is_err();
        answer_empty(reply, done);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut count = self.count(Op::Rename);
        let done = rename_of(flags).and_then(|how| {
            let (from, to) = (self.node(parent)?, self.node(new_parent)?);
            self.tree.rename((&from, text(name)?), (&to, text(new_name)?), how, caller(request))
        });
        count.failed = done.is_err();
        answer_empty(reply, done);
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mut count = self.count(Op::Open);
        let access = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Access { read: true, write: false },
            OpenAccMode::O_WRONLY => Access { read: false, write: true },
            OpenAccMode::O_RDWR => Access { read: true, write: true },
        };
        match self.node(ino).and_then(|node| self.tree.open(&node, access)) {
            Ok(handle) => {
                let flags = open_flags(&handle);
                reply.opened(FileHandle(self.files.insert(handle)), flags);
            }
            Err(fault) => {
                count.failed = true;
                reply.error(errno(&fault));
            }
        }
    }

    fn read(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut count = self.count(Op::Read);
        let handle = match self.handle(handle) {
            Ok(handle) => handle,
            Err(fault) => return reply.error(errno(&fault)),
        };
        let nonblock = flags.0 & nix::libc::O_NONBLOCK != 0;
        match self.tree.read(&handle, offset, usize::try_from(size).unwrap_or(usize::MAX), nonblock) {
            Step::Done(result) => {
                count.failed = result.is_err();
                answer_data(reply, result);
            }
            Step::Wait(waiting) => {
                let unique = request.unique().0;
                self.park(unique, Reply::Data(reply, waiting.late), waiting.limit);
                let parked = Weak::clone(&self.weak_parked);
                (waiting.start)(Box::new(move |result| {
                    parked.upgrade().is_some_and(|parked| parked.finish_data(unique, result))
                }));
            }
        }
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut count = self.count(Op::Write);
        let done =
            self.handle(handle).and_then(|handle| self.tree.write(&handle, caller(request), offset, data));
        match done {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
            Err(fault) => {
                count.failed = true;
                reply.error(errno(&fault));
            }
        }
    }

    fn flush(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let mut count = self.count(Op::Flush);
        let step = match self.handle(handle) {
            Ok(handle) => self.tree.flush(&handle, caller(request)),
            Err(fault) => Step::Done(Err(fault)),
        };
        self.finish(request, step, reply, &mut count);
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(handle) = self.files.remove(handle.0) {
            self.tree.release(&handle);
        }
        reply.ok();
    }

    fn fsync(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let mut count = self.count(Op::Fsync);
        let step = match self.handle(handle) {
            Ok(handle) => self.tree.fsync(&handle, caller(request)),
            Err(fault) => Step::Done(Err(fault)),
        };
        self.finish(request, step, reply, &mut count);
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let listed = self.node(ino).and_then(|node| self.tree.list(&node));
        match listed {
            Ok(entries) => {
                let numbers = entries.into_iter().map(|entry| (self.tree.number(&entry.node), entry));
                let folder = self.folders.insert(Arc::new(numbers.collect()));
                reply.opened(FileHandle(folder), FopenFlags::empty());
            }
            Err(fault) => reply.error(errno(&fault)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _count = self.count(Op::Readdir);
        let Some(entries) = self.folders.get(handle.0) else { return reply.error(Errno::EBADF) };
        // Every folder is at most two steps from others by name; the kernel knows its parent itself.
        let dots = [(ino.0, "."), (crate::tree::ROOT_INO, "..")].map(|(ino, name)| (ino, true, name));
        let all = dots
            .into_iter()
            .chain(entries.iter().map(|(ino, entry)| (*ino, entry.node.is_dir(), entry.name.as_str())));
        for ((ino, is_dir, name), next) in all.zip(1..).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.add(INodeNo(ino), next, kind(is_dir), name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.folders.remove(handle.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // Each save has synced the real folder already.
        self.tree.commit_removals();
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.answer_statfs(reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut count = self.count(Op::Create);
        let made = self.node(parent).and_then(|parent| {
            let (node, handle) = self.tree.create(&parent, text(name)?, mode, caller(request))?;
            // A plan that is being copied has no text yet.
            let attr = self.tree.attr(&node)?;
            Ok((node, handle, attr))
        });
        match made {
            Ok((node, handle, attr)) => {
                let ino = self.tree.remember(&node);
                let flags = open_flags(&handle);
                let number = FileHandle(self.files.insert(handle));
                let attr = file_attr(ino, &attr);
                reply.created(&Duration::ZERO, &attr, Generation(0), number, flags);
            }
            Err(fault) => {
                count.failed = true;
                reply.error(errno(&fault));
            }
        }
    }

    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        notifier: PollNotifier,
        events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let _count = self.count(Op::Poll);
        let Ok(handle) = self.handle(handle) else { return reply.error(Errno::EBADF) };
        let notify = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY).then(|| {
            Box::new(move || {
                // ENOENT: the poller has gone.
                let _ = notifier.notify();
            }) as Box<dyn FnOnce() + Send>
        });
        let (reading, writing) =
            (PollEvents::POLLIN | PollEvents::POLLRDNORM, PollEvents::POLLOUT | PollEvents::POLLWRNORM);
        let ready = match self.tree.poll(&handle, notify) {
            Some(false) => PollEvents::empty(),
            Some(true) => reading,
            None => reading | writing,
        };
        let always = if handle.stream().is_some() { PollEvents::empty() } else { writing };
        reply.poll((ready | always) & events);
    }

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn symlink(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn link(&self, _request: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    // ENOSYS to any of these makes the kernel answer EOPNOTSUPP itself from then on, without asking: it would
    // ask for security.capability before every write. POSIX ACLs are extended attributes too.

    fn setxattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    // The kernel emulates or refuses these by itself after one ENOSYS.

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: fuser::IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: fuser::ReplyIoctl,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: fuser::ReplyLseek,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        _handle_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _handle_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
