//! The smallest FUSE filesystem that serves one file which may change at any time: what a read through FUSE
//! costs at least. A yardstick for the benches; it shares no code with zed.
//!
//! Usage: `minimal-fs MOUNT PATH CONTENT-FILE`. Prints `ready`; ends on SIGTERM.

#[cfg(target_os = "illumos")]
fn main() {
    eprintln!("minimal-fs: this system has no FUSE");
    std::process::exit(1);
}

#[cfg(not(target_os = "illumos"))]
fn main() {
    if let Err(why) = served::run() {
        eprintln!("minimal-fs: {why}");
        std::process::exit(1);
    }
}

#[cfg(not(target_os = "illumos"))]
mod served {
    use fuser::Errno;
    use fuser::FileAttr;
    use fuser::FileHandle;
    use fuser::FileType;
    use fuser::Filesystem;
    use fuser::FopenFlags;
    use fuser::Generation;
    use fuser::INodeNo;
    use fuser::LockOwner;
    use fuser::OpenFlags;
    use fuser::ReplyAttr;
    use fuser::ReplyData;
    use fuser::ReplyEntry;
    use fuser::ReplyOpen;
    use fuser::Request;
    use std::ffi::OsStr;
    use std::ffi::OsString;
    use std::io::Write;
    use std::path::Path;
    use std::time::Duration;
    use std::time::UNIX_EPOCH;

    /// Names and folders never change: the kernel may keep them. What the file holds may not be kept.
    const TTL: Duration = Duration::from_secs(1);

    /// A chain of folders, inodes 1 to n, and one file in the last.
    struct Chain {
        names: Vec<OsString>,
        content: Vec<u8>,
    }

    impl Chain {
        fn attr(&self, ino: u64) -> FileAttr {
            let is_file = ino == self.file();
            FileAttr {
                ino: INodeNo(ino),
                size: if is_file { self.content.len() as u64 } else { 0 },
                blocks: 0,
                atime: UNIX_EPOCH,
                mtime: UNIX_EPOCH,
                ctime: UNIX_EPOCH,
                crtime: UNIX_EPOCH,
                kind: if is_file { FileType::RegularFile } else { FileType::Directory },
                perm: if is_file { 0o444 } else { 0o555 },
                nlink: 1,
                uid: 0,
                gid: 0,
                rdev: 0,
                flags: 0,
                blksize: 4096,
            }
        }

        fn file(&self) -> u64 {
            self.names.len() as u64 + 1
        }
    }

    impl Filesystem for Chain {
        fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
            let parent = u64::from(parent);
            let wanted = usize::try_from(parent).ok().and_then(|p| self.names.get(p - 1));
            if wanted.is_some_and(|w| w == name) {
                reply.entry(&TTL, &self.attr(parent + 1), Generation(0));
            } else {
                reply.error(Errno::ENOENT);
            }
        }

        fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
            let ino = u64::from(ino);
            let ttl = if ino == self.file() { Duration::ZERO } else { TTL };
            reply.attr(&ttl, &self.attr(ino));
        }

        fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
        }

        fn read(
            &self,
            _: &Request,
            _: INodeNo,
            _: FileHandle,
            offset: u64,
            size: u32,
            _: OpenFlags,
            _: Option<LockOwner>,
            reply: ReplyData,
        ) {
            let len = self.content.len();
            let start = usize::try_from(offset).unwrap_or(len).min(len);
            let end = start.saturating_add(size as usize).min(len);
            reply.data(&self.content[start..end]);
        }
    }

    pub(super) fn run() -> Result<(), String> {
        let args: Vec<_> = std::env::args_os().skip(1).collect();
        let [mount, path, content] = args.as_slice() else {
            return Err("usage: minimal-fs MOUNT PATH CONTENT-FILE".into());
        };
        let content = std::fs::read(content).map_err(|e| format!("cannot read the content: {e}"))?;
        let names = Path::new(path).iter().map(OsStr::to_os_string).collect();
        let mut signals = nix::sys::signal::SigSet::empty();
        signals.add(nix::sys::signal::Signal::SIGTERM);
        signals.thread_block().map_err(|e| format!("cannot block SIGTERM: {e}"))?;
        // After the signal is blocked: the session's thread inherits that.
        let session = fuser::spawn_mount(Chain { names, content }, mount, &fuser::Config::default());
        let session = session.map_err(|e| format!("cannot mount: {e}"))?;
        let mut out = std::io::stdout();
        writeln!(out, "ready").and_then(|()| out.flush()).map_err(|e| format!("cannot print: {e}"))?;
        signals.wait().map_err(|e| format!("cannot wait for SIGTERM: {e}"))?;
        drop(session);
        Ok(())
    }
}
