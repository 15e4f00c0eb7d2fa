//! What a read of `hosts/H/status` costs: against the smallest fuser filesystem that serves the same bytes, with
//! and without the log that interrupts need. Run: `cargo bench -p zed-fs --bench read`.
//!
//! Rounds of the candidates take turns, so that a busy machine is unfair to all of them alike; medians are shown.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints, and ends at the first surprise"
)]

#[cfg(target_os = "linux")]
#[path = "../mount/support/mod.rs"]
#[expect(
    dead_code,
    clippy::disallowed_methods,
    reason = "the bench uses the mount of the tests and not their shell"
)]
mod support;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("NOT RUN: this bench mounts as Linux does");
}

#[cfg(target_os = "linux")]
mod linux {
    use super::support::Rig;
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
    use std::fs::File;
    use std::io::Read;
    use std::path::Path;
    use std::time::Duration;
    use std::time::Instant;
    use std::time::UNIX_EPOCH;

    const TTL: Duration = Duration::from_secs(1);
    const ROUNDS: usize = 40;
    const READS: usize = 500;

    /// Folders 1, 2 and 3, and file 4: `hosts/h1/status`.
    struct Minimal {
        text: Vec<u8>,
    }

    impl Minimal {
        fn attr(&self, ino: u64) -> FileAttr {
            let file = ino == 4;
            FileAttr {
                ino: INodeNo(ino),
                size: if file { self.text.len() as u64 } else { 0 },
                blocks: 1,
                atime: UNIX_EPOCH,
                mtime: UNIX_EPOCH,
                ctime: UNIX_EPOCH,
                crtime: UNIX_EPOCH,
                kind: if file { FileType::RegularFile } else { FileType::Directory },
                perm: 0o755,
                nlink: 1,
                uid: 0,
                gid: 0,
                rdev: 0,
                blksize: 4096,
                flags: 0,
            }
        }
    }

    impl Filesystem for Minimal {
        fn lookup(&self, _request: &Request, parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
            reply.entry(&TTL, &self.attr(parent.0 + 1), Generation(0));
        }

        fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
            reply.attr(&TTL, &self.attr(ino.0));
        }

        fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
        }

        fn read(
            &self,
            _request: &Request,
            _ino: INodeNo,
            _handle: FileHandle,
            offset: u64,
            _size: u32,
            _flags: OpenFlags,
            _owner: Option<LockOwner>,
            reply: ReplyData,
        ) {
            let start = usize::try_from(offset).unwrap().min(self.text.len());
            reply.data(&self.text[start..]);
        }
    }

    /// Microseconds for one open, read and close, in the mean of a round.
    fn round(path: &Path) -> f64 {
        let mut buffer = [0; 4096];
        let begun = Instant::now();
        for _ in 0..READS {
            let count = File::open(path).unwrap().read(&mut buffer).unwrap();
            assert!(count > 100);
        }
        begun.elapsed().as_secs_f64() * 1e6 / READS as f64
    }

    fn median(mut times: Vec<f64>) -> f64 {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    pub(super) fn main() {
        let Some(rig) = Rig::new() else { return };
        let text = rig.read("hosts/h1/status").into_bytes();
        let folder = rig.real("minimal");
        std::fs::create_dir(&folder).unwrap();
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::DefaultPermissions];
        let minimal = fuser::spawn_mount(Minimal { text }, &folder, &config).unwrap();
        let (smallest, ours) = (folder.join("hosts/h1/status"), rig.path("hosts/h1/status"));
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            for (log, at) in [(log::LevelFilter::Debug, 0), (log::LevelFilter::Off, 2)] {
                log::set_max_level(log);
                times[at].push(round(&smallest));
                times[at + 1].push(round(&ours));
            }
        }
        log::set_max_level(log::LevelFilter::Debug);
        let [base_log, ours_log, base, ours] = times.map(median);
        println!("open+read+close of 158 bytes, microseconds at the median of {ROUNDS} rounds of {READS}:");
        println!("  smallest fuser filesystem            {base:6.2}");
        println!(
            "  zed, interrupts on (as it runs)      {ours_log:6.2}  {:.2} of the smallest",
            ours_log / base
        );
        println!("  zed, log off (no interrupts)         {ours:6.2}  {:.2} of the smallest", ours / base);
        println!(
            "  smallest with the log on             {base_log:6.2}  {:.2} of the smallest",
            base_log / base
        );
        minimal.umount_and_join().unwrap();
    }
}
