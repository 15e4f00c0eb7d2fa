//! Putting files, folders and links below one folder, and never outside it.
//!
//! Every path is walked component by component from the open folder, without following links, so that neither a name
//! nor a link of the archive leads out, whoever changes the tree meanwhile. Set-user-id, set-group-id and sticky bits
//! are dropped: an artifact gives nobody a privilege.

use crate::error::Problem;
use crate::limits::Limits;
use crate::marker::MARKER;
use crate::marker::Owner;
use crate::remove::names;
use crate::remove::open_folder;
use crate::remove::remove_tree;
use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::Uid;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Symbolic links on the way to one entry of an image: Linux' own limit.
const MAX_LINKS: u32 = 40;

/// Where artifacts of different kinds differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// A release: no path leads through a link, a folder is not replaced by something else.
    Release,
    /// A file system in layers: a link on the way is followed as inside the container, and a later layer replaces
    /// what is there.
    Layers,
}

/// Why an entry was not placed.
#[derive(Debug)]
pub(crate) enum PlaceError {
    /// The entry's fault.
    Entry(Problem),
    /// The system's.
    Io(io::Error),
}

impl From<Problem> for PlaceError {
    fn from(problem: Problem) -> Self {
        Self::Entry(problem)
    }
}

impl From<Errno> for PlaceError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<io::Error> for PlaceError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Mode, owner and time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: Mode,
    pub(crate) owner: Option<Owner>,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
}

/// The nine permission bits of a mode.
pub(crate) fn permissions(mode: Mode) -> Mode {
    mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO)
}

/// A folder that is being filled.
pub(crate) struct Place {
    root: OwnedFd,
    rules: Rules,
    limits: Limits,
    /// Owner of folders that no entry names.
    owner: Option<Owner>,
    /// Set at the end: a folder that forbids writing would forbid its own content, and content changes times.
    folders: BTreeMap<Vec<u8>, Attributes>,
    /// Where the last entry went, since the next one mostly goes there, too.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Paths of the current layer.
    layer: BTreeSet<Vec<u8>>,
}

/// Splits a path of an archive. `./`, doubled and closing slashes mean nothing.
fn components<'p>(path: &'p [u8], limits: &Limits) -> Result<Vec<&'p [u8]>, Problem> {
    if path.starts_with(b"/") {
        return Err(Problem::Absolute);
    }
    if path.len() > limits.path {
        return Err(Problem::Long(limits.path));
    }
    if path.contains(&0) {
        return Err(Problem::Name("its name contains a zero byte"));
    }
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(Problem::Parent);
    }
    if parts.len() > limits.depth {
        return Err(Problem::Long(limits.depth));
    }
    Ok(parts)
}

fn change_owner(at: &OwnedFd, name: &[u8], owner: Owner) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

impl Place {
    pub(crate) fn new(root: OwnedFd, rules: Rules, limits: Limits, owner: Option<Owner>) -> Self {
        Self { root, rules, limits, owner, folders: BTreeMap::new(), last: None, layer: BTreeSet::new() }
    }

    /// A path's components. The last one of an entry of a release must not be zed's own name.
    fn split<'p>(&self, path: &'p [u8]) -> Result<Vec<&'p [u8]>, Problem> {
        let parts = components(path, &self.limits)?;
        if self.rules == Rules::Release && parts.first().is_some_and(|part| *part == MARKER.as_bytes()) {
            return Err(Problem::Name("its name is one that zed uses itself"));
        }
        Ok(parts)
    }

    /// The open folder that these components lead to.
    fn folder_of(&mut self, parts: &[&[u8]]) -> Result<OwnedFd, PlaceError> {
        let key = parts.join(&b'/');
        if let Some((last, fd)) = &self.last
            && *last == key
        {
            return Ok(fd.try_clone()?);
        }
        let fd = self.walk(parts)?;
        self.last = Some((key, fd.try_clone()?));
        Ok(fd)
    }

    /// Walks from the root; what is missing on the way is made.
    fn walk(&mut self, parts: &[&[u8]]) -> Result<OwnedFd, PlaceError> {
        let mut open: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut todo: VecDeque<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                // Only from a link of an image; the root's parent is the root, as in the container.
                open.pop();
                continue;
            }
            let at = open.last().map_or(&self.root, |(_, fd)| fd);
            let fd = match open_folder(at, name.as_slice()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(at, name.as_slice(), Mode::RWXU)?;
                    let mut path: Vec<u8> =
                        open.iter().flat_map(|(name, _)| [name.as_slice(), b"/"].concat()).collect();
                    path.extend_from_slice(&name);
                    let mode = Mode::from_raw_mode(0o755);
                    let attributes = Attributes { mode, owner: self.owner, mtime: 0 };
                    self.folders.entry(path).or_insert(attributes);
                    open_folder(at, name.as_slice())?
                }
                Err(e) => {
                    let Ok(target) = rustix::fs::readlinkat(at, name.as_slice(), Vec::new()) else {
                        return Err(if e == Errno::NOTDIR { Problem::NotFolder.into() } else { e.into() });
                    };
                    if self.rules == Rules::Release {
                        return Err(Problem::ThroughLink.into());
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Problem::Links.into());
                    }
                    let target = target.into_bytes();
                    if target.starts_with(b"/") {
                        open.clear();
                    }
                    let inside =
                        target.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
                    for part in inside.rev() {
                        todo.push_front(part.to_vec());
                    }
                    continue;
                }
            };
            open.push((name, fd));
            if open.len() + todo.len() > self.limits.depth {
                return Err(Problem::Long(self.limits.depth).into());
            }
        }
        match open.pop() {
            Some((_, fd)) => Ok(fd),
            None => Ok(self.root.try_clone()?),
        }
    }

    /// Makes room for an entry: what is there goes, where the rules allow it. True when a folder stays.
    fn make_room(&mut self, at: &OwnedFd, name: &[u8], folder: bool) -> Result<bool, PlaceError> {
        let there = match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        if there == FileType::Directory {
            if folder {
                return Ok(true);
            }
            if self.rules == Rules::Release {
                return Err(Problem::FolderThere.into());
            }
        }
        self.last = None;
        remove_tree(at, name)?;
        Ok(false)
    }

    /// Parent and name of an entry that is about to be placed.
    fn target(&mut self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>), PlaceError> {
        let parts = self.split(path)?;
        let Some((name, parents)) = parts.split_last() else {
            return Err(Problem::Name("it is the top folder itself").into());
        };
        if self.rules == Rules::Layers {
            for end in 1..=parts.len() {
                self.layer.insert(parts[..end].join(&b'/'));
            }
        }
        Ok((self.folder_of(parents)?, name.to_vec()))
    }

    /// Places a folder. The top folder itself is there already.
    pub(crate) fn folder(&mut self, path: &[u8], attributes: Attributes) -> Result<(), PlaceError> {
        let parts = self.split(path)?;
        let key = parts.join(&b'/');
        if parts.is_empty() {
            return Ok(());
        }
        let (at, name) = self.target(path)?;
        if !self.make_room(&at, &name, true)? {
            rustix::fs::mkdirat(&at, name.as_slice(), Mode::RWXU)?;
        }
        self.folders.insert(key, attributes);
        Ok(())
    }

    /// Places a file; `fill` writes its content.
    pub(crate) fn file<E: From<PlaceError>>(
        &mut self,
        path: &[u8],
        attributes: Attributes,
        fill: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<(), E> {
        let placed = |e: Errno| E::from(PlaceError::from(e));
        let (at, name) = self.target(path)?;
        self.make_room(&at, &name, false)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&at, name.as_slice(), flags, Mode::RUSR | Mode::WUSR).map_err(placed)?;
        let mut file = File::from(fd);
        fill(&mut file)?;
        if let Some(owner) = attributes.owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(placed)?;
        }
        // After the owner: a change of owner may drop bits.
        rustix::fs::fchmod(&file, permissions(attributes.mode)).map_err(placed)?;
        rustix::fs::futimens(&file, &times(attributes.mtime)).map_err(placed)
    }

    /// Places a symbolic link, with its target as it is: it is never followed here.
    pub(crate) fn link(
        &mut self,
        path: &[u8],
        target: &[u8],
        attributes: Attributes,
    ) -> Result<(), PlaceError> {
        if target.len() > self.limits.path {
            return Err(Problem::Long(self.limits.path).into());
        }
        let target = CString::new(target).map_err(|_| Problem::Name("its target contains a zero byte"))?;
        let (at, name) = self.target(path)?;
        self.make_room(&at, &name, false)?;
        rustix::fs::symlinkat(target.as_c_str(), &at, name.as_slice())?;
        if let Some(owner) = attributes.owner {
            change_owner(&at, &name, owner)?;
        }
        Ok(rustix::fs::utimensat(&at, name.as_slice(), &times(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Places another name of a file that was placed before.
    pub(crate) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), PlaceError> {
        let shown = || String::from_utf8_lossy(target).into_owned();
        let outside = || PlaceError::Entry(Problem::HardLink(shown()));
        // Image builders write absolute targets; inside an image they mean the image's root.
        let inside = match self.rules {
            Rules::Layers => target.strip_prefix(b"/").unwrap_or(target),
            Rules::Release => target,
        };
        let parts = self.split(inside).map_err(|_| outside())?;
        let Some((of, parents)) = parts.split_last() else { return Err(outside()) };
        let from = match self.walk_existing(parents) {
            Err(PlaceError::Entry(_)) => return Err(outside()),
            other => other?,
        };
        let stat = rustix::fs::statat(&from, *of, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| outside())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(outside());
        }
        let (at, name) = self.target(path)?;
        let there = rustix::fs::statat(&at, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        self.make_room(&at, &name, false)?;
        Ok(rustix::fs::linkat(&from, *of, &at, name.as_slice(), AtFlags::empty())?)
    }

    /// Like [`Place::walk`], for a folder that must be there.
    fn walk_existing(&mut self, parts: &[&[u8]]) -> Result<OwnedFd, PlaceError> {
        let before = self.folders.len();
        let found = self.walk(parts)?;
        // It made folders: then the target cannot be there. They are as harmless as empty.
        if self.folders.len() > before { Err(Problem::NotFolder.into()) } else { Ok(found) }
    }

    /// Begins the next layer.
    pub(crate) fn begin_layer(&mut self) {
        self.layer.clear();
    }

    /// A whiteout: what lower layers have under this path goes.
    pub(crate) fn white_out(&mut self, path: &[u8]) -> Result<(), PlaceError> {
        let parts = self.split(path)?;
        let Some((name, parents)) = parts.split_last() else { return Ok(()) };
        let at = self.folder_of(parents)?;
        self.last = None;
        self.remove_lower(&at, name, &parts.join(&b'/'))
    }

    /// An opaque folder: what lower layers have in it goes.
    pub(crate) fn make_opaque(&mut self, path: &[u8]) -> Result<(), PlaceError> {
        let parts = self.split(path)?;
        let at = self.folder_of(&parts)?;
        self.last = None;
        self.remove_lower_in(&at, &parts.join(&b'/'))
    }

    fn remove_lower(&self, at: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), PlaceError> {
        if !self.layer.contains(path) {
            return Ok(remove_tree(at, name)?);
        }
        match open_folder(at, name) {
            Ok(folder) => self.remove_lower_in(&folder, path),
            // A file or a link of this layer: it has replaced what was there.
            Err(_) => Ok(()),
        }
    }

    fn remove_lower_in(&self, folder: &OwnedFd, path: &[u8]) -> Result<(), PlaceError> {
        for name in names(folder)? {
            let name = name.to_bytes();
            let child = if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
            self.remove_lower(folder, name, &child)?;
        }
        Ok(())
    }

    /// Owner, mode and time of folders, deepest first.
    pub(crate) fn finish(self) -> Result<(), PlaceError> {
        for (path, attributes) in self.folders.iter().rev() {
            let mut at = self.root.try_clone()?;
            let mut there = true;
            for part in path.split(|byte| *byte == b'/') {
                match open_folder(&at, part) {
                    Ok(fd) => at = fd,
                    // Removed or replaced by a later entry.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => {
                        there = false;
                        break;
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            if !there {
                continue;
            }
            if let Some(owner) = attributes.owner {
                rustix::fs::fchown(&at, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
            }
            rustix::fs::fchmod(&at, permissions(attributes.mode))?;
            rustix::fs::futimens(&at, &times(attributes.mtime))?;
        }
        Ok(())
    }
}
