//! `EmbeddedStore`: a store on plain directories, for machines without ZFS.
//!
//! The catalog is the truth; an index of it is held in memory; folders and links follow from it. A change is
//! prepared (copies made durable), committed (one record synced), then carried out (links switched); an
//! interrupted one is carried out or swept when the store is opened again. docs/adr/0020 has the layout.
//!
//! What differs from ZFS: a snapshot is a copy (sharing blocks where the filesystem can), so a set of a dataset
//! that is written to at that moment is not one instant; `quota`, `recordsize`, `compression` and the other
//! native properties are recorded and not enforced; `referenced` and `used` are as of the last copy;
//! `canmount=noauto` is as good as `off`; a mountpoint inside another dataset's files is refused.
//! Never follows a link that it did not make, and never removes what it did not make.

mod catalog;
mod failure;
mod faults;
mod folders;
mod index;
mod plan;
mod tree;

pub use faults::Fate;
pub use faults::Faults;

use crate::Create;
use crate::Dataset;
use crate::PropChange;
use crate::Restore;
use crate::Snapshot;
use crate::SnapshotRef;
use crate::Store;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::StoreInfo;
use crate::TakeSnapshot;
use crate::rules::refuse;
use catalog::Catalog;
use catalog::Change;
use catalog::Content;
use catalog::Record;
use failure::Failure;
use faults::Steps;
use folders::Folders;
use folders::Wanted;
use index::Index;
use parking_lot::Mutex;
use parking_lot::RwLock;
use plan::Fresh;
use plan::Plan;
use plan::Planned;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use zed_spec::DatasetPath;

/// A store on plain directories.
pub struct EmbeddedStore {
    dir: PathBuf,
    folders: Folders,
    steps: Steps,
    /// True when the filesystem shares blocks between copies.
    shares: bool,
    /// Read without waiting for a change in progress; written only in memory, after the commit.
    index: RwLock<Index>,
    /// One change at a time.
    writer: Mutex<Writer>,
    /// Held for as long as the store is open.
    _lock: File,
}

struct Writer {
    catalog: Catalog,
    fresh: Fresh,
    /// What is committed and not yet carried out.
    pending: Pending,
}

#[derive(Default)]
struct Pending {
    settle: BTreeSet<DatasetPath>,
    unlink: Vec<PathBuf>,
    drop: Vec<Content>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is made when it is not there.
    ///
    /// `Busy` when another process has it open, `Unsupported` when a newer program wrote it, `Io` when its
    /// catalog is damaged. What an interrupted change left is carried out or swept.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Faults::none())
    }

    /// [`EmbeddedStore::open`] with faults at chosen steps, for tests.
    pub fn open_with(dir: &Path, faults: Faults) -> Result<Self, StoreError> {
        let refused = |failure: Failure| match failure.source.kind() {
            io::ErrorKind::Unsupported => {
                refuse("open", dir.display(), StoreErrorKind::Unsupported(failure.source.to_string()))
            }
            _ => failure.into_store_error("open", dir.display()),
        };
        let made = std::fs::create_dir_all(dir).and_then(|()| dir.canonicalize());
        let root = made.map_err(|e| refused(Failure::at("create", dir)(e)))?;
        let lock = lock(&root).map_err(|e| e.into_store_error(dir))?;
        let steps = Steps::new(faults);
        let store = Self::load(root, steps, lock).map_err(refused)?;
        Ok(store)
    }

    fn load(dir: PathBuf, steps: Steps, lock: File) -> Result<Self, Failure> {
        let folders = Folders::open(&dir)?;
        let (mut catalog, changes) = Catalog::open(&dir, &steps)?;
        let history = History::of(changes);
        let mut index = Index::new(dir.join("ds"));
        let txg = history.highest_txg();
        let content = history.highest_content.max(folders.highest_content()?);
        let fresh = Fresh { content, txg, now: 0 };
        let known: BTreeSet<Content> = history.content();
        let History { records, gone, unlink, drop, is_plain, .. } = history;
        index.apply(Change { set: records.into_values().collect(), ..Change::default() });

        for path in &unlink {
            folders.unlink_place(path, &steps)?;
        }
        // Children before their parents, so that a folder is empty when its turn comes.
        for path in gone.iter().rev().filter(|path| !index.contains(path)) {
            folders.settle(&Wanted::of(&index, path), &steps)?;
        }
        let all: Vec<DatasetPath> = index.iter().map(|(path, _)| path.clone()).collect();
        for path in &all {
            match folders.settle(&Wanted::of(&index, path), &steps) {
                Ok(mounted) => index.set_mounted(path, mounted),
                Err(failure) => {
                    steps.alive()?;
                    // One dataset in trouble must not keep the others away.
                    tracing::warn!(dataset = %path, %failure, cause = %failure.source, "not mounted");
                    index.set_mounted(path, false);
                }
            }
        }
        for content in drop.into_iter().filter(|content| !known.contains(content)) {
            folders.drop_content(content, &steps)?;
        }
        folders.sweep(&|content| known.contains(&content), &steps)?;
        if !is_plain {
            catalog.rewrite(index.iter().filter_map(|(path, _)| index.record(path)), &steps)?;
        }
        Ok(Self {
            shares: tree::can_share(&folders.content_root()),
            dir,
            folders,
            steps,
            index: RwLock::new(index),
            writer: Mutex::new(Writer { catalog, fresh, pending: Pending::default() }),
            _lock: lock,
        })
    }

    /// Plans, prepares, commits and carries out one change.
    fn change(
        &self,
        operation: &'static str,
        object: impl ToString,
        plan: impl FnOnce(&Index, &mut Fresh) -> Planned,
    ) -> Result<(), StoreError> {
        let object = object.to_string();
        let failed = |failure: Failure| failure.into_store_error(operation, &object);
        let mut writer = self.writer.lock();
        self.steps.alive().map_err(failed)?;
        self.carry_out(&mut writer).map_err(failed)?;
        writer.fresh.now = now();
        let Some(mut plan) = plan(&self.index.read(), &mut writer.fresh)? else { return Ok(()) };
        self.check_places(operation, &mut plan.change)?;
        self.prepare(&mut plan).map_err(failed)?;
        if let Err(failure) = writer.catalog.append(&plan.change, &self.steps) {
            self.discard(&plan);
            return Err(failed(failure));
        }
        writer.pending.drop.extend(&plan.change.drop);
        writer.pending.unlink.append(&mut plan.change.unlink);
        let touched = self.index.write().apply(plan.change);
        writer.pending.settle.extend(touched);
        self.carry_out(&mut writer).map_err(failed)?;
        if writer.catalog.wants_rewrite() {
            let records: Vec<Record> = {
                let index = self.index.read();
                index.iter().filter_map(|(path, _)| index.record(path)).collect()
            };
            // What was asked for is done; a longer catalog than needed is no reason to say otherwise.
            if let Err(failure) = writer.catalog.rewrite(records.into_iter(), &self.steps) {
                tracing::warn!(%failure, cause = %failure.source, "the catalog could not be rewritten");
            }
        }
        Ok(())
    }

    /// Refuses explicit mountpoints that cannot be, and notes those that are given up.
    fn check_places(&self, operation: &'static str, change: &mut Change) -> Result<(), StoreError> {
        let index = self.index.read();
        let (left, needed) = index.moved_places(change);
        for (path, place) in &needed {
            let link = index.folder(path).join("@data");
            self.folders
                .check_place(place, &link)
                .map_err(|why| refuse(operation, path, StoreErrorKind::Unsupported(why)))?;
        }
        change.unlink = left;
        Ok(())
    }

    /// Makes the content that the change needs. After an error nothing of it is left.
    fn prepare(&self, plan: &mut Plan) -> Result<(), Failure> {
        let made = self.prepare_all(plan);
        if made.is_err() {
            self.discard(plan);
        }
        made
    }

    fn prepare_all(&self, plan: &mut Plan) -> Result<(), Failure> {
        for content in &plan.empty {
            self.folders.prepare_empty(*content, &self.steps)?;
        }
        for (from, to) in &plan.copies {
            let copied = self.folders.prepare_copy(*from, *to, &self.steps)?;
            for record in &mut plan.change.set {
                if record.content == *from || record.content == *to {
                    record.referenced = copied.bytes;
                }
                let taken = record.snapshots.iter_mut().filter(|s| s.content == *to);
                taken.for_each(|s| s.used = copied.bytes);
            }
        }
        Ok(())
    }

    fn discard(&self, plan: &Plan) {
        // A dead process cleans nothing up: the next open does.
        if self.steps.alive().is_ok() {
            let made = plan.copies.iter().map(|(_, to)| to).chain(&plan.empty);
            made.for_each(|content| self.folders.discard(*content));
        }
    }

    /// Brings the folders in line with what is committed. What fails stays pending, and the next change (or
    /// the next start) takes it up again.
    fn carry_out(&self, writer: &mut Writer) -> Result<(), Failure> {
        let pending = &mut writer.pending;
        while let Some(path) = pending.unlink.last() {
            self.folders.unlink_place(path, &self.steps)?;
            pending.unlink.pop();
        }
        // Parents come before their children, as their folders must be there first.
        while let Some(path) = pending.settle.first().cloned() {
            let wanted = Wanted::of(&self.index.read(), &path);
            let mounted = self.folders.settle(&wanted, &self.steps)?;
            self.index.write().set_mounted(&path, mounted);
            pending.settle.remove(&path);
        }
        while let Some(content) = pending.drop.last() {
            self.folders.drop_content(*content, &self.steps)?;
            pending.drop.pop();
        }
        Ok(())
    }
}

/// What all records of a catalog come to.
#[derive(Default)]
struct History {
    records: BTreeMap<DatasetPath, Record>,
    gone: BTreeSet<DatasetPath>,
    unlink: Vec<PathBuf>,
    drop: Vec<Content>,
    highest_content: Content,
    /// True when the catalog holds nothing but what is true now.
    is_plain: bool,
}

impl History {
    fn of(changes: Vec<Change>) -> Self {
        let mut history = Self { is_plain: true, ..Self::default() };
        for change in changes {
            history.is_plain &= change.gone.is_empty() && change.drop.is_empty() && change.unlink.is_empty();
            for path in change.gone {
                history.records.remove(&path);
                history.gone.insert(path);
            }
            for record in change.set {
                let contents = record.snapshots.iter().map(|s| s.content).chain([record.content]);
                history.highest_content = contents.fold(history.highest_content, Content::max);
                history.is_plain &= history.records.insert(record.path.clone(), record).is_none();
            }
            history.highest_content = change.drop.iter().copied().fold(history.highest_content, Content::max);
            history.drop.extend(change.drop);
            history.unlink.extend(change.unlink);
        }
        history
    }

    fn content(&self) -> BTreeSet<Content> {
        let of = |r: &Record| r.snapshots.iter().map(|s| s.content).chain([r.content]).collect::<Vec<_>>();
        self.records.values().flat_map(of).collect()
    }

    fn highest_txg(&self) -> u64 {
        self.records.values().flat_map(|r| &r.snapshots).map(|s| s.txg).max().unwrap_or(0)
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Why the store's lock was not had.
enum LockFailure {
    HeldBy(String),
    Io(Failure),
}

impl LockFailure {
    fn into_store_error(self, dir: &Path) -> StoreError {
        match self {
            Self::HeldBy(who) => refuse("open", dir.display(), StoreErrorKind::Busy(who)),
            Self::Io(failure) => failure.into_store_error("open", dir.display()),
        }
    }
}

/// Takes the lock of the store. The kernel gives it back when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File, LockFailure> {
    let path = dir.join("lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|e| LockFailure::Io(Failure::at("open", &path)(e)))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            let who = match holder.trim() {
                "" => "another process has it open".to_owned(),
                pid => format!("process {pid} has it open"),
            };
            return Err(LockFailure::HeldBy(who));
        }
        Err(TryLockError::Error(e)) => return Err(LockFailure::Io(Failure::at("lock", &path)(e))),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|e| LockFailure::Io(Failure::at("write", &path)(e)))?;
    Ok(file)
}

fn first<T: ToString>(of: Option<T>) -> String {
    of.map_or_else(|| "nothing".to_owned(), |first| first.to_string())
}

impl Store for EmbeddedStore {
    fn info(&self) -> Result<StoreInfo, StoreError> {
        let space = nix::sys::statvfs::statvfs(&self.dir).map_err(|e| {
            Failure::at("ask for the space of", &self.dir)(e).into_store_error("describe", self.dir.display())
        })?;
        Ok(StoreInfo {
            kind: "embedded".to_owned(),
            root: self.dir.display().to_string(),
            version: concat!("embedded-", env!("CARGO_PKG_VERSION")).to_owned(),
            available: space.blocks_available() * space.fragment_size(),
            copy_on_write: self.shares,
        })
    }

    fn list(&self) -> Result<Vec<Arc<Dataset>>, StoreError> {
        Ok(self.index.read().iter().map(|(_, entry)| entry.dataset.clone()).collect())
    }

    fn get(&self, path: &DatasetPath) -> Result<Option<Arc<Dataset>>, StoreError> {
        Ok(self.index.read().get(path).map(|entry| entry.dataset.clone()))
    }

    fn snapshots(&self, of: Option<&DatasetPath>) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        let index = self.index.read();
        let held =
            |entry: &index::Entry| entry.snapshots.iter().map(|h| h.snapshot.clone()).collect::<Vec<_>>();
        match of {
            Some(path) => match index.get(path) {
                Some(entry) => Ok(held(entry)),
                None => Err(refuse("list the snapshots of", path, StoreErrorKind::NotFound)),
            },
            None => Ok(index.iter().flat_map(|(_, entry)| held(entry)).collect()),
        }
    }

    fn create(&self, request: &Create) -> Result<(), StoreError> {
        self.change("create", &request.path, |index, fresh| plan::create(index, request, fresh))
    }

    fn set(&self, changes: &[PropChange]) -> Result<(), StoreError> {
        let object = first(changes.first().map(|c| &c.path));
        self.change("set properties of", object, |index, _| plan::set(index, changes))
    }

    fn snapshot(&self, set: &[TakeSnapshot]) -> Result<(), StoreError> {
        let object = first(set.first().map(|t| &t.id));
        self.change("snapshot", object, |index, fresh| plan::snapshot(index, set, fresh))
    }

    fn destroy_snapshots(&self, set: &[SnapshotRef]) -> Result<(), StoreError> {
        self.change("destroy", first(set.first()), |index, _| plan::destroy_snapshots(index, set))
    }

    fn restore(&self, request: &Restore) -> Result<(), StoreError> {
        self.change("restore", &request.dataset, |index, fresh| plan::restore(index, request, fresh))
    }

    fn retire(&self, dataset: &DatasetPath, branch: &DatasetPath) -> Result<(), StoreError> {
        self.change("retire", dataset, |index, fresh| plan::retire(index, dataset, branch, fresh))
    }

    fn reinstate(&self, branch: &DatasetPath, dataset: &DatasetPath) -> Result<(), StoreError> {
        self.change("reinstate", branch, |index, _| plan::reinstate(index, branch, dataset))
    }

    fn destroy_branch(&self, branch: &DatasetPath) -> Result<(), StoreError> {
        self.change("destroy", branch, |index, _| plan::destroy_branch(index, branch))
    }

    fn mount(&self, dataset: &DatasetPath) -> Result<(), StoreError> {
        let failed = |failure: Failure| failure.into_store_error("mount", dataset);
        let mut writer = self.writer.lock();
        if !self.index.read().contains(dataset) {
            return Err(refuse("mount", dataset, StoreErrorKind::NotFound));
        }
        writer.pending.settle.insert(dataset.clone());
        self.carry_out(&mut writer).map_err(failed)
    }
}

#[cfg(test)]
mod tests;
