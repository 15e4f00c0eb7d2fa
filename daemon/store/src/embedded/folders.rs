//! What of a store is visible in the filesystem: content folders, links to them, and explicit mountpoints.
//!
//! Everything here follows from the catalog and may be made again at any time; `settle` does that for one
//! dataset. Never removes a file, folder or link that the store did not make.

use super::catalog::Content;
use super::catalog::sync_dir;
use super::failure::Failure;
use super::faults::Steps;
use super::index::Index;
use super::index::Place;
use super::tree;
use super::tree::Copied;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use zed_spec::DatasetPath;

/// The folders of one store.
pub(super) struct Folders {
    /// Of the store, absolute and without symlinks.
    dir: PathBuf,
}

/// Mode of the folder around what is mounted, and around what only the owner of the store may look at.
const OPEN: u32 = 0o755;
const CLOSED: u32 = 0o500;

/// What the links of one dataset are to be; taken from the index, so that no lock is held while they are made.
pub(super) struct Wanted {
    path: DatasetPath,
    folder: PathBuf,
    /// `None` when the dataset is gone.
    current: Option<Current>,
}

struct Current {
    content: Content,
    place: Place,
    snapshots: BTreeMap<String, Content>,
}

impl Wanted {
    pub(super) fn of(index: &Index, path: &DatasetPath) -> Self {
        let current = index.get(path).map(|entry| Current {
            content: entry.content,
            place: index.mount_place(path, &BTreeMap::new()),
            snapshots: entry.snapshots.iter().map(|h| (h.snapshot.id.name.clone(), h.content)).collect(),
        });
        Self { path: path.clone(), folder: index.folder(path), current }
    }
}

impl Folders {
    /// The folders below `dir`, made when they are not there.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        for name in ["ds", "content"] {
            let path = dir.join(name);
            match std::fs::create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Failure::at("create", &path)(e));
                }
                _ => {}
            }
        }
        sync_dir(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The parent of all content.
    pub(super) fn content_root(&self) -> PathBuf {
        self.dir.join("content")
    }

    fn content(&self, content: Content) -> PathBuf {
        self.content_root().join(content.to_string())
    }

    /// The files of committed content.
    pub(super) fn tree(&self, content: Content) -> PathBuf {
        self.content(content).join("tree")
    }

    /// Where content is before the change that needs it is committed.
    fn part(&self, content: Content) -> PathBuf {
        self.content_root().join(format!("{content}.part"))
    }

    /// Makes an empty content folder, durable, to be used by a change.
    pub(super) fn prepare_empty(&self, content: Content, steps: &Steps) -> Result<(), Failure> {
        steps.step("create a content folder")?;
        let part = self.part(content);
        let tree = part.join("tree");
        std::fs::create_dir(&part).map_err(Failure::at("create", &part))?;
        std::fs::create_dir(&tree).map_err(Failure::at("create", &tree))?;
        set_mode(&tree, OPEN)?;
        sync_dir(&part)?;
        sync_dir(&self.content_root())
    }

    /// Copies content, durable, to be used by a change. The copy is closed to others until it is mounted.
    pub(super) fn prepare_copy(&self, of: Content, to: Content, steps: &Steps) -> Result<Copied, Failure> {
        steps.step("copy content")?;
        let part = self.part(to);
        std::fs::create_dir(&part).map_err(Failure::at("create", &part))?;
        set_mode(&part, 0o700)?;
        let copied = tree::copy(&self.tree(of), &part.join("tree"))?;
        steps.step("close a copy")?;
        set_mode(&part, CLOSED)?;
        sync_dir(&part)?;
        sync_dir(&self.content_root())?;
        Ok(copied)
    }

    /// Removes prepared content whose change was not committed.
    pub(super) fn discard(&self, content: Content) {
        if let Err(failure) = tree::remove(&self.part(content)) {
            // The next open sweeps it.
            tracing::warn!(%failure, cause = %failure.source, "an unfinished copy stays until the next start");
        }
    }

    /// Removes content that a committed change dropped.
    pub(super) fn drop_content(&self, content: Content, steps: &Steps) -> Result<(), Failure> {
        steps.step("remove content")?;
        tree::remove(&self.part(content))?;
        tree::remove(&self.content(content))
    }

    /// Gives committed content its name.
    fn adopt(&self, content: Content, steps: &Steps) -> Result<(), Failure> {
        let path = self.content(content);
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        steps.step("name content")?;
        std::fs::rename(self.part(content), &path).map_err(Failure::at("find the content", &path))
    }

    /// Brings the links of one dataset in line with the catalog. Gives whether it is mounted now.
    pub(super) fn settle(&self, wanted: &Wanted, steps: &Steps) -> Result<bool, Failure> {
        let folder = &wanted.folder;
        let Some(current) = &wanted.current else { return self.clear(folder, steps).map(|()| false) };
        make_folder(folder)?;
        self.adopt(current.content, steps)?;
        let mounted = current.place != Place::Nowhere;
        let mode = if mounted { OPEN } else { CLOSED };
        set_mode(&self.content(current.content), mode)?;
        let (link, other) = if mounted { ("@data", "@unmounted") } else { ("@unmounted", "@data") };
        let target = self.relative(&wanted.path, current.content, 0);
        switch_link(&folder.join(link), &target, steps)?;
        remove_link(&folder.join(other), steps)?;
        self.settle_snapshots(wanted, current, steps)?;
        if let Place::Explicit(place) = &current.place {
            self.link_place(place, &folder.join("@data"), steps)?;
        }
        Ok(mounted)
    }

    /// From the folder of a dataset (or `below` levels deeper) to content, so that the store can be moved.
    fn relative(&self, path: &DatasetPath, content: Content, below: usize) -> PathBuf {
        let up = path.as_str().split('/').count() + 1 + below;
        PathBuf::from("../".repeat(up)).join("content").join(content.to_string()).join("tree")
    }

    fn settle_snapshots(&self, wanted: &Wanted, current: &Current, steps: &Steps) -> Result<(), Failure> {
        let snaps = wanted.folder.join("@snap");
        if !current.snapshots.is_empty() {
            make_folder(&snaps)?;
        }
        for name in names_in(&snaps)? {
            if !name.to_str().is_some_and(|name| current.snapshots.contains_key(name)) {
                remove_link(&snaps.join(name), steps)?;
            }
        }
        for (name, content) in &current.snapshots {
            self.adopt(*content, steps)?;
            set_mode(&self.content(*content), CLOSED)?;
            switch_link(&snaps.join(name), &self.relative(&wanted.path, *content, 1), steps)?;
        }
        Ok(())
    }

    /// Removes the links of a dataset that is gone, and its folder when nothing else is in it.
    fn clear(&self, folder: &Path, steps: &Steps) -> Result<(), Failure> {
        let snaps = folder.join("@snap");
        for name in names_in(&snaps)? {
            remove_link(&snaps.join(name), steps)?;
        }
        remove_if_empty(&snaps)?;
        remove_link(&folder.join("@data"), steps)?;
        remove_link(&folder.join("@unmounted"), steps)?;
        remove_if_empty(folder)
    }

    /// Refuses an explicit mountpoint that `settle` could not make: something else is there, or it is inside
    /// the files of a dataset.
    pub(super) fn check_place(&self, place: &Path, link: &Path) -> Result<(), String> {
        let shown = place.display();
        match std::fs::read_link(place) {
            Ok(target) if target == link => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            _ => {
                return Err(format!(
                    "something is at `{shown}` already; move it away, the store links there"
                ));
            }
        }
        let above = place.ancestors().skip(1).find_map(|above| above.canonicalize().ok());
        match above {
            Some(above) if above.starts_with(&self.dir) => Err(format!(
                "`{shown}` is inside another dataset's files, where the embedded store cannot mount; \
                 give it a mountpoint elsewhere"
            )),
            _ => Ok(()),
        }
    }

    fn link_place(&self, place: &Path, link: &Path, steps: &Steps) -> Result<(), Failure> {
        if std::fs::read_link(place).is_ok_and(|target| target == link) {
            return Ok(());
        }
        self.check_place(place, link).map_err(|why| Failure::at("mount at", place)(io::Error::other(why)))?;
        steps.step("link a mountpoint")?;
        if let Some(above) = place.parent() {
            std::fs::create_dir_all(above).map_err(Failure::at("create", above))?;
        }
        symlink(link, place).map_err(Failure::at("mount at", place))
    }

    /// Removes an explicit mountpoint, if it is a link into this store.
    pub(super) fn unlink_place(&self, place: &Path, steps: &Steps) -> Result<(), Failure> {
        match std::fs::read_link(place) {
            Ok(target) if target.starts_with(self.dir.join("ds")) => remove_link(place, steps),
            _ => Ok(()),
        }
    }

    /// Removes what interrupted changes left: copies that nothing came to need. Content that nothing explains
    /// stays.
    pub(super) fn sweep(&self, known: &dyn Fn(Content) -> bool, steps: &Steps) -> Result<(), Failure> {
        let root = self.content_root();
        for name in names_in(&root)? {
            let text = name.to_string_lossy();
            let is_known = |number: &str| number.parse().is_ok_and(known);
            match text.strip_suffix(".part") {
                // Committed, and not yet named.
                Some(number) if is_known(number) => {}
                Some(_) => {
                    steps.step("sweep an unfinished copy")?;
                    tree::remove(&root.join(&name))?;
                }
                None if is_known(&text) => {}
                None => {
                    let folder = root.join(&name);
                    tracing::warn!(folder = %folder.display(), "the catalog does not know this folder; left alone");
                }
            }
        }
        Ok(())
    }

    /// The highest number that a content folder has.
    pub(super) fn highest_content(&self) -> Result<Content, Failure> {
        let number = |name: std::ffi::OsString| {
            let text = name.to_str()?.to_owned();
            text.strip_suffix(".part").unwrap_or(&text).parse().ok()
        };
        Ok(names_in(&self.content_root())?.into_iter().filter_map(number).max().unwrap_or(0))
    }
}

fn names_in(folder: &Path) -> Result<Vec<std::ffi::OsString>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::at("read the folder", folder)(e)),
    };
    entries
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<io::Result<_>>()
        .map_err(Failure::at("read the folder", folder))
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(Failure::at("create", path)),
    }
}

fn remove_if_empty(folder: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir(folder) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
        other => other.map_err(Failure::at("remove", folder)),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Failure> {
    let is = std::fs::metadata(path).map_err(Failure::at("stat", path))?.permissions().mode() & 0o7777;
    if is == mode {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(Failure::at("chmod", path))
}

/// Makes `link` point to `target`, in one step for those who look at it.
fn switch_link(link: &Path, target: &Path, steps: &Steps) -> Result<(), Failure> {
    if std::fs::read_link(link).is_ok_and(|is| is == target) {
        return Ok(());
    }
    steps.step("switch a link")?;
    // `@` cannot be in a name of a dataset or a snapshot.
    let mut new = link.as_os_str().to_owned();
    new.push("@new");
    let new = PathBuf::from(new);
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Failure::at("remove", &new)(e)),
        _ => {}
    }
    symlink(target, &new).map_err(Failure::at("create", &new))?;
    std::fs::rename(&new, link).map_err(Failure::at("switch", link))
}

/// Removes a link. Anything else in its place is not ours and stays.
fn remove_link(link: &Path, steps: &Steps) -> Result<(), Failure> {
    match std::fs::symlink_metadata(link) {
        Ok(found) if found.is_symlink() => {
            steps.step("remove a link")?;
            std::fs::remove_file(link).map_err(Failure::at("remove", link))
        }
        _ => Ok(()),
    }
}
