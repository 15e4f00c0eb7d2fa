//! Release folders of a dataset: unpack, take back, clear up, and the link to the current one.
//!
//! Owns the names below a dataset's mountpoint and the order of renames, so that a reader, and a zedd that was killed,
//! find a whole release or none. Everything may be repeated. What carries no marker is not zed's and is left alone.

use crate::error::ReleaseError;
use crate::error::UnpackError;
use crate::extract::prepare;
use crate::extract::write_new;
use crate::limits::Budget;
use crate::limits::Limits;
use crate::marker::MARKER;
use crate::marker::Marker;
use crate::marker::Owner;
use crate::remove::names;
use crate::remove::open_folder;
use crate::remove::remove_tree;
use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Uid;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use zed_spec::Artifact;

/// Folder below a dataset's mountpoint that holds its releases.
pub const RELEASES: &str = "releases";
/// Link below a dataset's mountpoint to the release that runs.
pub const CURRENT: &str = "current";
/// Beginning of the name of a release that is not complete, or no longer.
const NEW: &str = ".new-";
/// Beginning of the name of a release that was moved aside.
const OLD: &str = ".old-";
/// Name under which the link is made before it is moved into place.
const NEXT_LINK: &str = ".current-next";

/// What to unpack where.
#[derive(Debug)]
pub struct Unpack<'a> {
    /// From what.
    pub artifact: &'a Artifact,
    /// The digest that the plan was made with: 64 hex digits.
    pub digest: &'a str,
    /// Mountpoint of the dataset.
    pub dataset: &'a Path,
    /// Name of the release folder.
    pub folder: &'a str,
    /// The app's version.
    pub version: &'a str,
    /// The run that does it.
    pub run: &'a str,
    /// Whose the files shall be; the daemon's when absent (of an image: as in the image, where the daemon is root).
    pub owner: Option<Owner>,
    /// Limits.
    pub limits: Limits,
    /// Looked at between pieces; ends it early and clean.
    pub cancel: &'a AtomicBool,
}

/// A name that is one component, and none of the hidden ones.
fn check_name(name: &str) -> Result<(), ReleaseError> {
    let bad = name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']);
    if bad { Err(ReleaseError::Name { name: name.to_owned() }) } else { Ok(()) }
}

/// `releases` of a dataset; nothing when it is not there.
fn open_releases(dataset: &Path) -> Result<Option<OwnedFd>, ReleaseError> {
    let path = dataset.join(RELEASES);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = match rustix::fs::open(dataset, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(ReleaseError::io("open", dataset))?,
    };
    match open_folder(&top, RELEASES) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => {
            Err(ReleaseError::InTheWay { path, why: "is there, and no folder" })
        }
        Err(e) => Err(ReleaseError::io("open", &path)(e)),
    }
}

fn ensure_releases(dataset: &Path) -> Result<OwnedFd, ReleaseError> {
    if let Some(there) = open_releases(dataset)? {
        return Ok(there);
    }
    let path = dataset.join(RELEASES);
    rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).map_err(ReleaseError::io("make", &path))?;
    open_releases(dataset)?.ok_or(ReleaseError::NoRelease { path })
}

/// What is under a name in `releases`.
enum There {
    Nothing,
    Release(Marker),
    /// Not zed's.
    Foreign,
}

fn look(releases: &OwnedFd, name: &str) -> Result<There, Errno> {
    match open_folder(releases, name) {
        Ok(folder) => Ok(Marker::read(&folder).map_or(There::Foreign, There::Release)),
        Err(Errno::NOENT) => Ok(There::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => Ok(There::Foreign),
        Err(e) => Err(e),
    }
}

/// Unpacks an artifact into a release folder. When it returns, the folder is complete and on disk; when it fails,
/// what was there before is there, and nothing else. A folder that holds this artifact already is accepted as it is.
///
/// # Errors
///
/// The artifact is missing, is not what the plan says, is refused, or does not fit. See [`UnpackError`].
pub fn unpack(request: &Unpack<'_>) -> Result<(), UnpackError> {
    check_name(request.folder)?;
    check_name(request.run)?;
    if let Some(releases) = open_releases(request.dataset)?
        && let There::Release(marker) = look(&releases, request.folder)
            .map_err(ReleaseError::io("open", &request.dataset.join(RELEASES).join(request.folder)))?
        && marker.digest == request.digest
        && marker.owner == request.owner
    {
        return Ok(());
    }
    let (Artifact::Tar { path, .. } | Artifact::Dir { path } | Artifact::Oci { path, .. }) = request.artifact;
    let budget = Budget::new(Path::new(path), request.limits, request.cancel);
    let prepared = prepare(request.artifact, request.digest, &budget, request.cancel)?;
    let needed = prepared.size(&budget, request.cancel)?;

    let releases = ensure_releases(request.dataset)?;
    let directory = request.dataset.join(RELEASES);
    let room = rustix::fs::fstatvfs(&releases).map_err(ReleaseError::io("look at", &directory))?;
    let available = room.f_bavail.saturating_mul(room.f_frsize);
    if needed > available {
        return Err(UnpackError::NoSpace { artifact: path.into(), directory, needed, available });
    }
    let new = format!("{NEW}{}", request.run);
    remove_tree(&releases, new.as_str()).map_err(ReleaseError::io("remove", &directory.join(&new)))?;
    let filled = make(request, &releases, &new, |into| {
        prepared.fill(request.digest, into, &directory.join(&new), request.owner, &budget)
    });
    let done = filled.and_then(|()| Ok(move_in(request, &releases, &new)?));
    if done.is_err() {
        // The first error is the one to tell; what cannot be removed now is removed by the next prune.
        let _ = remove_tree(&releases, new.as_str());
    }
    done
}

/// Makes and fills the folder `new`, completely and durably.
fn make(
    request: &Unpack<'_>,
    releases: &OwnedFd,
    new: &str,
    fill: impl FnOnce(OwnedFd) -> Result<(), UnpackError>,
) -> Result<(), UnpackError> {
    let directory = request.dataset.join(RELEASES).join(new);
    let here = |e: std::io::Error| UnpackError::write("write", &directory, "", e);
    // Nobody else gets in before it is complete.
    rustix::fs::mkdirat(releases, new, Mode::RWXU).map_err(|e| here(e.into()))?;
    let folder = open_folder(releases, new).map_err(|e| here(e.into()))?;
    fill(folder.try_clone().map_err(here)?)?;
    let marker = Marker::new(request.digest, request.version, request.run, request.owner);
    write_new(&folder, MARKER, &marker.text().map_err(here)?).map_err(here)?;
    if let Some(owner) = request.owner {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(&folder, Some(uid), Some(gid)).map_err(|e| here(e.into()))?;
    }
    // An image's files belong to ids of the image, which are somebody else's on the host: only the daemon gets in.
    let private = matches!(request.artifact, Artifact::Oci { .. }) && request.owner.is_none();
    let mode = if private { 0o700 } else { 0o755 };
    rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode)).map_err(|e| here(e.into()))?;
    sync_all(&folder).map_err(|e| here(e.into()))
}

/// Everything written on the folder's file system is on disk.
fn sync_all(folder: &OwnedFd) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    return rustix::fs::syncfs(folder);
    #[cfg(not(target_os = "linux"))]
    {
        rustix::fs::sync();
        rustix::fs::fsync(folder)
    }
}

/// The name under which a run keeps what it has moved aside.
fn aside(run: &str, folder: &str) -> String {
    format!("{OLD}{run}-{folder}")
}

/// Moves the complete folder `new` to its name. Another release of that name is moved aside, unless this run itself
/// has put it there.
fn move_in(request: &Unpack<'_>, releases: &OwnedFd, new: &str) -> Result<(), ReleaseError> {
    let directory = request.dataset.join(RELEASES);
    let path = directory.join(request.folder);
    match look(releases, request.folder).map_err(ReleaseError::io("open", &path))? {
        There::Nothing => {}
        There::Foreign => {
            return Err(ReleaseError::InTheWay { path, why: "is there, and zed has not unpacked it" });
        }
        There::Release(marker) if marker.run == request.run => {
            remove_tree(releases, request.folder).map_err(ReleaseError::io("remove", &path))?;
        }
        There::Release(_) => {
            let old = aside(request.run, request.folder);
            if !matches!(look(releases, &old).map_err(ReleaseError::io("open", &path))?, There::Nothing) {
                let path = directory.join(old);
                return Err(ReleaseError::InTheWay { path, why: "is there from this run already" });
            }
            rename(releases, &directory, request.folder, &old)?;
        }
    }
    rename(releases, &directory, new, request.folder)?;
    rustix::fs::fsync(releases).map_err(ReleaseError::io("sync", &directory))
}

fn rename(releases: &OwnedFd, directory: &Path, from: &str, to: &str) -> Result<(), ReleaseError> {
    rustix::fs::renameat(releases, from, releases, to)
        .map_err(ReleaseError::io("rename", &directory.join(from)))
}

/// Takes back what a run has unpacked: its folder goes, and what it had moved aside comes back. Right after any part
/// of [`unpack`], and when there is nothing to take back.
///
/// # Errors
///
/// The file system refused.
pub fn discard(dataset: &Path, folder: &str, run: &str) -> Result<(), ReleaseError> {
    check_name(folder)?;
    check_name(run)?;
    let Some(releases) = open_releases(dataset)? else { return Ok(()) };
    let directory = dataset.join(RELEASES);
    let new = format!("{NEW}{run}");
    let remove_new =
        || remove_tree(&releases, new.as_str()).map_err(ReleaseError::io("remove", &directory.join(&new)));
    let at = |name: &str| look(&releases, name).map_err(ReleaseError::io("open", &directory.join(name)));
    remove_new()?;
    if let There::Release(marker) = at(folder)?
        && marker.run == run
    {
        // By way of a name that prune clears up: killed in the middle, half a release must not look like one.
        rename(&releases, &directory, folder, &new)?;
        remove_new()?;
    }
    let old = aside(run, folder);
    if matches!(at(folder)?, There::Nothing) && matches!(at(&old)?, There::Release(_)) {
        rename(&releases, &directory, &old, folder)?;
    }
    rustix::fs::fsync(&releases).map_err(ReleaseError::io("sync", &directory))
}

/// Removes releases that are not named in `keep`, and what runs have left. The release that `current` leads to
/// stays. Only while no run works on this dataset.
///
/// # Errors
///
/// The file system refused.
pub fn prune(dataset: &Path, keep: &[&str]) -> Result<(), ReleaseError> {
    let Some(releases) = open_releases(dataset)? else { return Ok(()) };
    let directory = dataset.join(RELEASES);
    let current = current(dataset)?;
    for name in names(&releases).map_err(ReleaseError::io("list", &directory))? {
        // Folder names of releases are ASCII; others are not zed's.
        let Ok(name) = name.to_str() else { continue };
        let path = directory.join(name);
        if name.starts_with(NEW) || name.starts_with(OLD) {
            remove_tree(&releases, name).map_err(ReleaseError::io("remove", &path))?;
            continue;
        }
        if keep.contains(&name) || current.as_deref() == Some(name) {
            continue;
        }
        if let There::Release(_) = look(&releases, name).map_err(ReleaseError::io("open", &path))? {
            let gone = format!("{NEW}{name}");
            remove_tree(&releases, gone.as_str())
                .map_err(ReleaseError::io("remove", &directory.join(&gone)))?;
            rename(&releases, &directory, name, &gone)?;
            remove_tree(&releases, gone.as_str())
                .map_err(ReleaseError::io("remove", &directory.join(&gone)))?;
        }
    }
    Ok(())
}

/// The folder that `current` leads to.
fn current(dataset: &Path) -> Result<Option<String>, ReleaseError> {
    let path = dataset.join(CURRENT);
    match rustix::fs::readlink(&path, Vec::new()) {
        Ok(target) => {
            let target = target.into_string().ok();
            Ok(target.and_then(|t| t.strip_prefix("releases/").map(str::to_owned)))
        }
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(e) => Err(ReleaseError::io("read", &path)(e)),
    }
}

/// Lets `current` lead to a release, or takes it away. A reader sees the old or the new one, never neither.
///
/// # Errors
///
/// The release is not there, something that is no link is in the way, or the file system refused.
pub fn switch(dataset: &Path, folder: Option<&str>) -> Result<(), ReleaseError> {
    let link = dataset.join(CURRENT);
    let top = rustix::fs::open(dataset, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(ReleaseError::io("open", dataset))?;
    match rustix::fs::statat(&top, CURRENT, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink => {
            return Err(ReleaseError::InTheWay { path: link, why: "is there, and no link" });
        }
        Ok(_) | Err(Errno::NOENT) => {}
        Err(e) => return Err(ReleaseError::io("look at", &link)(e)),
    }
    if let Some(folder) = folder {
        check_name(folder)?;
        let path = dataset.join(RELEASES).join(folder);
        let there = open_releases(dataset)?.map(|releases| look(&releases, folder)).transpose();
        match there.map_err(ReleaseError::io("open", &path))? {
            Some(There::Release(_)) => {}
            Some(There::Nothing | There::Foreign) | None => return Err(ReleaseError::NoRelease { path }),
        }
        let next = dataset.join(NEXT_LINK);
        remove_tree(&top, NEXT_LINK).map_err(ReleaseError::io("remove", &next))?;
        let target = format!("{RELEASES}/{folder}");
        rustix::fs::symlinkat(target.as_str(), &top, NEXT_LINK).map_err(ReleaseError::io("make", &next))?;
        rustix::fs::renameat(&top, NEXT_LINK, &top, CURRENT).map_err(ReleaseError::io("rename", &next))?;
    } else {
        match rustix::fs::unlinkat(&top, CURRENT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(ReleaseError::io("remove", &link)(e)),
        }
    }
    rustix::fs::fsync(top.as_fd()).map_err(ReleaseError::io("sync", dataset))
}
