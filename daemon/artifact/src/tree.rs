//! A folder as an artifact: walking it, its digest, copying it.
//!
//! Owns the digest's definition. Records in the order of a walk that takes each folder's names sorted by their bytes:
//!
//! ```text
//! zed tree 1\n
//! d <mode> <length of path> <path>                        a folder
//! f <mode> <length of path> <path> <size> <sha256>        a file, with its content
//! l <length of path> <path> <length of target> <target>   a symbolic link
//! ```
//!
//! The mode is what is unpacked: nine permission bits. Times and owners do not count, and the top folder's own mode
//! does not either. Numbers are 64 bits, big end first. A file with several names counts, and is copied, once a name.

use crate::digest::hex;
use crate::digest::missing_or;
use crate::digest::stat_line;
use crate::error::Problem;
use crate::error::UnpackError;
use crate::limits::Budget;
use crate::limits::Limits;
use crate::marker::Owner;
use crate::place::Attributes;
use crate::place::Place;
use crate::place::PlaceError;
use crate::place::permissions;
use crate::remove::names;
use crate::remove::open_folder;
use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::io::Errno;
use sha2::Digest;
use sha2::Sha256;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// One thing in a tree.
struct Node<'a> {
    /// From the top of the tree.
    path: &'a [u8],
    /// The open folder it is in, and its name there.
    at: BorrowedFd<'a>,
    name: &'a [u8],
    stat: &'a Stat,
    kind: FileType,
}

type Visit<'v> = dyn FnMut(Node<'_>) -> Result<(), UnpackError> + 'v;

/// Visits everything below a folder, sorted. Never follows a link, except to the top folder itself.
fn walk(top: &Path, budget: &Budget<'_>, visit: &mut Visit<'_>) -> Result<(), UnpackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(top, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOTDIR) if top.exists() => {
            let why = "it is no folder; `Dir` names a folder, `Tar` an archive".to_owned();
            return Err(UnpackError::Unusable { artifact: top.to_owned(), why });
        }
        Err(e) => return Err(missing_or(top, "open", e.into())),
    };
    walk_in(fd.as_fd(), &mut Vec::new(), 0, budget, visit)
}

fn walk_in(
    folder: BorrowedFd<'_>,
    path: &mut Vec<u8>,
    depth: usize,
    budget: &Budget<'_>,
    visit: &mut Visit<'_>,
) -> Result<(), UnpackError> {
    let failed = |path: &[u8], e: Errno| read_error(budget, path, e.into());
    let refuse = |path: &[u8], problem| Err(refused(budget, path, problem));
    if depth > budget.limits.depth {
        return refuse(path, Problem::Long(budget.limits.depth));
    }
    let mut names = names(folder).map_err(|e| failed(path, e))?;
    names.sort();
    let above = path.len();
    for name in &names {
        let name = name.to_bytes();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        budget.entry()?;
        if path.len() > budget.limits.path {
            return refuse(path, Problem::Long(budget.limits.path));
        }
        let stat =
            rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let what = match kind {
            FileType::RegularFile | FileType::Directory | FileType::Symlink => None,
            FileType::Fifo => Some("named pipe"),
            FileType::Socket => Some("socket"),
            FileType::CharacterDevice => Some("character device"),
            FileType::BlockDevice => Some("block device"),
            FileType::Unknown => Some("thing of unknown type"),
        };
        if let Some(what) = what {
            return refuse(path, Problem::Kind(what));
        }
        visit(Node { path, at: folder, name, stat: &stat, kind })?;
        if kind == FileType::Directory {
            let below = open_folder(folder, name).map_err(|e| failed(path, e))?;
            walk_in(below.as_fd(), path, depth + 1, budget, visit)?;
        }
        path.truncate(above);
    }
    Ok(())
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn refused(budget: &Budget<'_>, path: &[u8], problem: Problem) -> UnpackError {
    UnpackError::Entry { artifact: budget.artifact().to_owned(), entry: shown(path), problem }
}

fn read_error(budget: &Budget<'_>, path: &[u8], source: io::Error) -> UnpackError {
    UnpackError::Io { doing: "read", path: budget.artifact().join(shown(path)), source }
}

/// What stat says of everything in a folder, as a digest, and when it last changed.
pub(crate) fn stamp(top: &Path, limits: Limits) -> Result<(String, i64), UnpackError> {
    let never = AtomicBool::new(false);
    let mut hash = Sha256::new();
    let mut newest = i64::MIN;
    walk(top, &Budget::new(top, limits, &never), &mut |node| {
        let (line, changed) = stat_line(node.stat);
        hash.update((node.path.len() as u64).to_be_bytes());
        hash.update(node.path);
        hash.update(line);
        newest = newest.max(changed);
        Ok(())
    })?;
    Ok((hex(hash), newest))
}

/// Bytes of all files in a folder.
pub(crate) fn size(top: &Path, budget: &Budget<'_>) -> Result<u64, UnpackError> {
    let mut bytes = 0_u64;
    walk(top, budget, &mut |node| {
        if node.kind == FileType::RegularFile {
            bytes = bytes.saturating_add(u64::try_from(node.stat.st_size).unwrap_or(0));
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Where a tree is copied to.
pub(crate) struct Copy<'a> {
    pub(crate) place: &'a mut Place,
    pub(crate) owner: Option<Owner>,
    /// Makes an error of what went wrong with an entry.
    pub(crate) failed: Failed<'a>,
}

/// The digest of a folder; with `copy`, of exactly what was copied.
pub(crate) fn digest(
    top: &Path,
    budget: &Budget<'_>,
    mut copy: Option<Copy<'_>>,
) -> Result<String, UnpackError> {
    let mut hash = Sha256::new();
    hash.update(b"zed tree 1\n");
    walk(top, budget, &mut |node| {
        let mode = permissions(Mode::from_raw_mode(node.stat.st_mode));
        let owner = copy.as_ref().and_then(|copy| copy.owner);
        let attributes = Attributes { mode, owner, mtime: node.stat.st_mtime };
        let record = |hash: &mut Sha256, kind: &[u8], mode: Option<Mode>| {
            hash.update(kind);
            if let Some(mode) = mode {
                hash.update(u64::from(mode.bits()).to_be_bytes());
            }
            hash.update((node.path.len() as u64).to_be_bytes());
            hash.update(node.path);
        };
        match node.kind {
            FileType::Directory => {
                record(&mut hash, b"d", Some(mode));
                if let Some(Copy { place, failed, .. }) = &mut copy {
                    place.folder(node.path, attributes).map_err(|e| failed(node.path, e))?;
                }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(node.at, node.name, Vec::new());
                let target = target.map_err(|e| read_error(budget, node.path, e.into()))?;
                record(&mut hash, b"l", None);
                hash.update((target.as_bytes().len() as u64).to_be_bytes());
                hash.update(target.as_bytes());
                if let Some(Copy { place, failed, .. }) = &mut copy {
                    place.link(node.path, target.as_bytes(), attributes).map_err(|e| failed(node.path, e))?;
                }
            }
            _ => {
                record(&mut hash, b"f", Some(mode));
                let (size, content) = match &mut copy {
                    None => read_file(budget, &node, None)?,
                    Some(Copy { place, failed, .. }) => {
                        let mut done = None;
                        let placed = place.file(node.path, attributes, |file| {
                            done =
                                Some(read_file(budget, &node, Some((file, *failed))).map_err(Either::Read)?);
                            Ok(())
                        });
                        match (placed, done) {
                            (Ok(()), Some(done)) => done,
                            (Err(Either::Read(e)), _) => return Err(e),
                            (Err(Either::Place(e)), _) => return Err(failed(node.path, e)),
                            // A file that was placed was filled.
                            (Ok(()), None) => return Ok(()),
                        }
                    }
                };
                hash.update(size.to_be_bytes());
                hash.update(content);
            }
        }
        Ok(())
    })?;
    Ok(hex(hash))
}

/// Says where an entry could not be placed.
type Failed<'a> = &'a dyn Fn(&[u8], PlaceError) -> UnpackError;

/// An error while a file is placed: of reading it, or of placing it.
enum Either {
    Read(UnpackError),
    Place(PlaceError),
}

impl From<PlaceError> for Either {
    fn from(e: PlaceError) -> Self {
        Self::Place(e)
    }
}

/// Size and sha256 of a file's content, written to `to` on the way.
fn read_file(
    budget: &Budget<'_>,
    node: &Node<'_>,
    mut to: Option<(&mut File, Failed<'_>)>,
) -> Result<(u64, Vec<u8>), UnpackError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(node.at, node.name, flags, Mode::empty());
    let mut file = File::from(fd.map_err(|e| read_error(budget, node.path, e.into()))?);
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hash.finalize().to_vec())),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(read_error(budget, node.path, e)),
        };
        budget.bytes(n as u64)?;
        hash.update(&buffer[..n]);
        size += n as u64;
        if let Some((to, failed)) = &mut to {
            to.write_all(&buffer[..n]).map_err(|e| failed(node.path, PlaceError::Io(e)))?;
        }
    }
}
