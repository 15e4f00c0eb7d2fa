//! Copies and removes trees of files that belong to somebody else.
//!
//! Works relative to open folders and never follows a symlink, because the owner of the files may change
//! them while root copies. Keeps modes, owners, times, symlinks, hard links within the tree, extended
//! attributes (where the platform's calls for them exist), holes and fifos. Sockets and device nodes are left
//! out and counted; what is mounted inside the tree is left out too, an empty folder is in its place.

use super::failure::Failure;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::UtimensatFlags;
use nix::sys::time::TimeSpec;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::Whence;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

/// Two descriptors a level: this stays well below the usual limit of 1024.
const DEEPEST: usize = 256;
/// So many files are synced one by one. More are cheaper with one sync of the filesystem (which Linux can do),
/// although that waits for what everybody else wrote too.
const SYNCED_ONE_BY_ONE: u64 = 64;

/// What a copy holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    /// Bytes of file content, holes left out.
    pub(super) bytes: u64,
    /// Files, folders and links.
    pub(super) entries: u64,
    /// Sockets, device nodes.
    pub(super) left_out: u64,
    /// Owners and attributes that this user may not give.
    pub(super) not_kept: u64,
}

/// Copies the folder `from` with all that is in it to `to`, which must not exist, and makes the copy durable.
/// After an error the unfinished copy is left to the caller.
pub(super) fn copy(from: &Path, to: &Path) -> Result<Copied, Failure> {
    let source = Dir::open(from, FOLDER, Mode::empty()).map_err(Failure::at("open", from))?;
    let stat = nix::sys::stat::fstat(&source).map_err(Failure::at("stat", from))?;
    std::fs::create_dir(to).map_err(Failure::at("create", to))?;
    let target = open_folder(to)?;
    let mut copier = Copier {
        root: target.try_clone().map_err(Failure::at("open", to))?,
        device: stat.st_dev,
        links: HashMap::new(),
        copied: Copied::default(),
    };
    copier.folder(source, &target, Path::new(""), 0)?;
    copier.folder_attributes(&target, &stat, from)?;
    copier.sync_all(to)?;
    let Copied { left_out, not_kept, .. } = copier.copied;
    if left_out + not_kept > 0 {
        tracing::warn!(from = %from.display(), left_out, not_kept,
            "a copy leaves sockets and devices out, or owners and attributes that this user may not set");
    }
    Ok(copier.copied)
}

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Opening a fifo that took a file's place must not wait for a writer.
const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);
const NEW_FILE: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_CLOEXEC);

fn open_folder(path: &Path) -> Result<OwnedFd, Failure> {
    nix::fcntl::open(path, FOLDER, Mode::empty()).map_err(Failure::at("open", path))
}

struct Copier {
    root: OwnedFd,
    device: nix::libc::dev_t,
    /// Where a file with several names was copied to, relative to the root.
    links: HashMap<(nix::libc::dev_t, nix::libc::ino_t), PathBuf>,
    copied: Copied,
}

/// Where in the two trees the copier is.
struct At<'a> {
    from: &'a Dir,
    to: &'a OwnedFd,
    name: &'a OsStr,
    /// Relative to both roots.
    path: &'a Path,
}

impl Copier {
    /// Copies what is in a folder.
    fn folder(&mut self, mut from: Dir, to: &OwnedFd, path: &Path, depth: usize) -> Result<(), Failure> {
        if depth > DEEPEST {
            let why = io::Error::other(format!("folders are nested deeper than {DEEPEST}"));
            return Err(Failure::at("copy", path)(why));
        }
        let mut names: Vec<OsString> = Vec::new();
        for entry in from.iter() {
            let entry = entry.map_err(Failure::at("read the folder", path))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        for name in names {
            let path = path.join(&name);
            self.entry(&At { from: &from, to, name: &name, path: &path }, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, at: &At, depth: usize) -> Result<(), Failure> {
        let stat = match nix::sys::stat::fstatat(at.from, at.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Removed since the folder was read: it is not part of this instant.
            Err(Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(Failure::at("stat", at.path)(e)),
        };
        self.copied.entries += 1;
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => self.file(at, &stat),
            SFlag::S_IFDIR => self.subfolder(at, &stat, depth),
            SFlag::S_IFLNK => self.symlink(at, &stat),
            SFlag::S_IFIFO => self.fifo(at, &stat),
            _ => {
                self.copied.left_out += 1;
                Ok(())
            }
        }
    }

    fn subfolder(&mut self, at: &At, stat: &FileStat, depth: usize) -> Result<(), Failure> {
        let failed = || Failure::at::<Errno>("copy the folder", at.path);
        nix::sys::stat::mkdirat(at.to, at.name, Mode::S_IRWXU).map_err(failed())?;
        let target = nix::fcntl::openat(at.to, at.name, FOLDER, Mode::empty()).map_err(failed())?;
        if stat.st_dev == self.device {
            match Dir::openat(at.from, at.name, FOLDER, Mode::empty()) {
                Ok(source) => self.folder(source, &target, at.path, depth + 1)?,
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(failed()(e)),
            }
        }
        self.folder_attributes(&target, stat, at.path)
    }

    fn folder_attributes(&mut self, to: &OwnedFd, stat: &FileStat, path: &Path) -> Result<(), Failure> {
        self.attributes(to, stat, path)?;
        self.sync(to, path)
    }

    fn file(&mut self, at: &At, stat: &FileStat) -> Result<(), Failure> {
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&key)
        {
            return nix::unistd::linkat(&self.root, first.as_path(), at.to, at.name, AtFlags::empty())
                .map_err(Failure::at("link", at.path));
        }
        let source = match nix::fcntl::openat(at.from, at.name, FILE, Mode::empty()) {
            Ok(source) => source,
            Err(Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(Failure::at("open", at.path)(e)),
        };
        // What was opened counts, not what had this name a moment ago.
        let stat = nix::sys::stat::fstat(&source).map_err(Failure::at("stat", at.path))?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            self.copied.left_out += 1;
            return Ok(());
        }
        let target = nix::fcntl::openat(at.to, at.name, NEW_FILE, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(Failure::at("create the copy of", at.path))?;
        let (source, target) = (File::from(source), File::from(target));
        self.copied.bytes += content(&source, &target).map_err(Failure::at("copy", at.path))?;
        self.extended_attributes(&source, &target);
        let target = OwnedFd::from(target);
        self.attributes(&target, &stat, at.path)?;
        self.sync(&target, at.path)?;
        if stat.st_nlink > 1 {
            self.links.insert(key, at.path.to_owned());
        }
        Ok(())
    }

    fn symlink(&mut self, at: &At, stat: &FileStat) -> Result<(), Failure> {
        let failed = || Failure::at::<Errno>("copy the symlink", at.path);
        let target = match nix::fcntl::readlinkat(at.from, at.name) {
            Ok(target) => target,
            Err(Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(failed()(e)),
        };
        nix::unistd::symlinkat(target.as_os_str(), at.to, at.name).map_err(failed())?;
        self.named_attributes(at, stat)
    }

    fn fifo(&mut self, at: &At, stat: &FileStat) -> Result<(), Failure> {
        let failed = || Failure::at::<Errno>("copy the fifo", at.path);
        let mode = Mode::from_bits_truncate(stat.st_mode);
        nix::unistd::mkfifoat(at.to, at.name, mode).map_err(failed())?;
        self.named_attributes(at, stat)?;
        nix::sys::stat::fchmodat(at.to, at.name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)
            .map_err(failed())
    }

    /// Owner and times of what cannot be opened.
    fn named_attributes(&mut self, at: &At, stat: &FileStat) -> Result<(), Failure> {
        let failed = || Failure::at::<Errno>("set the attributes of", at.path);
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let owned = nix::unistd::fchownat(at.to, at.name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW);
        self.unless_forbidden(owned).map_err(failed())?;
        let (accessed, modified) = times(stat);
        nix::sys::stat::utimensat(at.to, at.name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)
            .map_err(failed())
    }

    /// Owner, mode and times. The owner first: a change of owner clears setuid bits.
    fn attributes(&mut self, to: &OwnedFd, stat: &FileStat, path: &Path) -> Result<(), Failure> {
        let failed = || Failure::at::<Errno>("set the attributes of", path);
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        self.unless_forbidden(nix::unistd::fchown(to, Some(uid), Some(gid))).map_err(failed())?;
        nix::sys::stat::fchmod(to, Mode::from_bits_truncate(stat.st_mode)).map_err(failed())?;
        let (accessed, modified) = times(stat);
        nix::sys::stat::futimens(to, &accessed, &modified).map_err(failed())
    }

    /// Only root may give files away; for others the copy belongs to them, and that is counted.
    fn unless_forbidden(&mut self, result: nix::Result<()>) -> nix::Result<()> {
        match result {
            Err(Errno::EPERM) => {
                self.copied.not_kept += 1;
                Ok(())
            }
            other => other,
        }
    }

    /// ACLs and capabilities among them. What the filesystem or the user may not have is counted.
    fn extended_attributes(&mut self, from: &File, to: &File) {
        use xattr::FileExt;
        let Ok(names) = from.list_xattr() else { return };
        for name in names {
            let copied = match from.get_xattr(&name) {
                Ok(Some(value)) => to.set_xattr(&name, &value),
                Ok(None) => Ok(()),
                Err(e) => Err(e),
            };
            self.copied.not_kept += u64::from(copied.is_err());
        }
    }

    fn sync(&self, what: &OwnedFd, path: &Path) -> Result<(), Failure> {
        match self.syncs_at_the_end() {
            true => Ok(()),
            false => nix::unistd::fsync(what).map_err(Failure::at("sync", path)),
        }
    }

    fn syncs_at_the_end(&self) -> bool {
        cfg!(target_os = "linux") && self.copied.entries > SYNCED_ONE_BY_ONE
    }

    #[cfg(target_os = "linux")]
    fn sync_all(&self, path: &Path) -> Result<(), Failure> {
        match self.syncs_at_the_end() {
            true => nix::unistd::syncfs(&self.root).map_err(Failure::at("sync the filesystem of", path)),
            false => Ok(()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn sync_all(&self, _path: &Path) -> Result<(), Failure> {
        Ok(())
    }
}

fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

/// Copies a file's content: shares its blocks where the filesystem can, else byte for byte without the holes.
/// Gives the bytes of data.
fn content(from: &File, to: &File) -> io::Result<u64> {
    let length = from.metadata()?.len();
    if reflink(from, to) {
        return Ok(length);
    }
    let mut copied = 0;
    let mut at: u64 = 0;
    while let Some(data) = seek(from, at, Whence::SeekData)? {
        let hole = seek(from, data, Whence::SeekHole)?.unwrap_or(length);
        let (mut source, mut target) = (from, to);
        source.seek(SeekFrom::Start(data))?;
        target.seek(SeekFrom::Start(data))?;
        let n = io::copy(&mut source.take(hole - data), &mut target)?;
        copied += n;
        at = data + n;
        if n == 0 {
            // Truncated meanwhile.
            break;
        }
    }
    // A hole at the end has no data that would give the file its length.
    to.set_len(length.max(at))?;
    Ok(copied)
}

/// The next data or hole from `at` on; `None` when there is none before the end.
fn seek(file: &File, at: u64, whence: Whence) -> io::Result<Option<u64>> {
    let offset = i64::try_from(at).map_err(io::Error::other)?;
    match nix::unistd::lseek(file.as_fd(), offset, whence) {
        Ok(found) => u64::try_from(found).map(Some).map_err(io::Error::other),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Makes `to` share all blocks of `from`; false where that is not possible.
#[cfg(target_os = "linux")]
fn reflink(from: &File, to: &File) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: FICLONE takes a descriptor as its argument and touches no memory; both descriptors are open
    // for as long as the references live.
    unsafe { nix::libc::ioctl(to.as_raw_fd(), nix::libc::FICLONE, from.as_raw_fd()) == 0 }
}

/// Other platforms share blocks inside `copy_file_range`, which `io::copy` and the kernel choose.
#[cfg(not(target_os = "linux"))]
fn reflink(_from: &File, _to: &File) -> bool {
    false
}

/// True when the filesystem of `dir` can share blocks between files.
pub(super) fn can_share(dir: &Path) -> bool {
    let (a, b) = (dir.join("probe-1.part"), dir.join("probe-2.part"));
    let shared = std::fs::write(&a, [0u8; 4096]).and_then(|()| Ok((File::open(&a)?, File::create(&b)?)));
    let shared = shared.is_ok_and(|(from, to)| reflink(&from, &to));
    // Left over ones are swept at the next open.
    drop(std::fs::remove_file(&a));
    drop(std::fs::remove_file(&b));
    shared
}

/// Removes a tree, whatever modes its folders have. One that is not there is accepted.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    let removed = match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path).and_then(|()| std::fs::remove_dir_all(path))
        }
        other => other,
    };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            std::fs::remove_file(path).map_err(Failure::at("remove", path))
        }
        other => other.map_err(Failure::at("remove", path)),
    }
}

/// Lets the owner remove what is in read-only folders. Root never needs it.
fn open_up(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
