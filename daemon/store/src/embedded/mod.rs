//! `EmbeddedStore`: a store on plain directories, for machines without ZFS.
//!
//! The catalog is the truth; an index of it is held in memory; folders and links follow from it. A change is
//! prepared (copies made durable), committed (one record synced), then carried out (links switched); an
//! interrupted one is carried out or swept when the store is opened again. docs/adr/0020 has the layout.
//!
//! What differs from ZFS: a snapshot is a copy (sharing blocks where the filesystem can), so a set of a dataset
//! that is written to at that moment is not one instant; `quota`, `recordsize`, `compression` and the other
//! native properties are recorded and not enforced; `referenced` and `used` are as of the last copy;
//! `canmount=noauto` is as good as `off`; a mountpoint inside another dataset's files is refused; who uses a
//! dataset's files is seen on Linux only, and of other users' processes only by root.
//! Never follows a link that it did not make, and never removes what it did not make.

mod catalog;
mod failure;
mod faults;
mod folders;
mod history;
mod index;
mod lock;
mod plan;
mod tree;
mod users;

pub use faults::Fate;
pub use faults::Faults;

use crate::Create;
use crate::Dataset;
use crate::Pool;
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
use history::History;
use index::Index;
use lock::Lock;
use parking_lot::Mutex;
use parking_lot::RwLock;
use plan::Fresh;
use plan::Plan;
use plan::Planned;
use std::collections::BTreeSet;
use std::io;
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
    _lock: Lock,
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
        let lock = lock::lock(&root).map_err(|e| e.into_store_error(dir))?;
        let steps = Steps::new(faults);
        let store = Self::load(root, steps, lock).map_err(refused)?;
        Ok(store)
    }

    fn load(dir: PathBuf, steps: Steps, lock: Lock) -> Result<Self, Failure> {
        let folders = Folders::open(&dir)?;
        let (catalog, changes) = Catalog::open(&dir, &steps)?;
        let history = History::of(changes);
        let mut index = Index::new(dir.join("ds"));
        let txg = history.highest_txg();
        let content = history.highest_content.max(folders.highest_content()?);
        let fresh = Fresh { content, txg, now: 0 };
        let known: BTreeSet<Content> = history.content();
        let History { records, gone, unlink, drop, is_plain, .. } = history;
        index.apply(Change { set: records.into_values().collect(), ..Change::default() });
        folders.sweep(&|content| known.contains(&content) || drop.contains(&content), &steps)?;

        let settle = gone.into_iter().chain(index.iter().map(|(path, _)| path.clone())).collect();
        let drop = drop.into_iter().filter(|content| !known.contains(content)).collect();
        let pending = Pending { settle, unlink, drop };
        let shares = tree::can_share(&folders.content_root());
        let writer = Mutex::new(Writer { catalog, fresh, pending });
        let store = Self { dir, folders, steps, shares, index: RwLock::new(index), writer, _lock: lock };
        store.recover(is_plain)?;
        Ok(store)
    }

    /// Carries out what is pending after a start: everything, since nobody knows what was done before.
    fn recover(&self, is_plain: bool) -> Result<(), Failure> {
        let mut writer = self.writer.lock();
        self.carry_out_leftovers(&mut writer)?;
        match is_plain || !writer.pending.is_empty() {
            true => Ok(()),
            false => {
                let index = self.index.read();
                let records = index.iter().filter_map(|(path, _)| index.record(path));
                writer.catalog.rewrite(records, &self.steps)
            }
        }
    }

    /// The filesystem below the store.
    fn space(&self) -> Result<nix::sys::statvfs::Statvfs, StoreError> {
        nix::sys::statvfs::statvfs(&self.dir).map_err(|e| {
            Failure::at("ask for the space of", &self.dir)(e).into_store_error("describe", self.dir.display())
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
        self.carry_out_leftovers(&mut writer).map_err(failed)?;
        writer.fresh.now = now();
        let Some(mut plan) = plan(&self.index.read(), &mut writer.fresh)? else { return Ok(()) };
        self.check_places(operation, &mut plan.change)?;
        self.check_users(operation, &plan.change)?;
        self.prepare(&mut plan).map_err(failed)?;
        if let Err(failure) = writer.catalog.append(&plan.change, &self.steps) {
            self.discard(&plan);
            return Err(failed(failure));
        }
        let unlink = std::mem::take(&mut plan.change.unlink);
        let drop = std::mem::take(&mut plan.change.drop);
        let settle = self.index.write().apply(plan.change);
        let carried_out = self.carry_out_and_keep(&mut writer, Pending { settle, unlink, drop });
        self.rewrite_if_needed(&mut writer);
        carried_out.map_err(failed)
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

    /// Refuses to take files away from under a process, as an unmount would.
    fn check_users(&self, operation: &'static str, change: &Change) -> Result<(), StoreError> {
        let index = self.index.read();
        let moved: Vec<(DatasetPath, PathBuf)> = index
            .iter_named(change.set.iter().map(|r| &r.path).chain(&change.gone))
            .filter(|(path, entry)| {
                let stays = change.set.iter().any(|r| r.path == **path && r.content == entry.content);
                entry.dataset.mounted && !stays
            })
            .map(|(path, entry)| (path.clone(), self.folders.tree(entry.content)))
            .collect();
        drop(index);
        for (path, tree) in moved {
            if let Some(user) = users::of(&tree) {
                return Err(refuse(operation, path, StoreErrorKind::Busy(user)));
            }
        }
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

    /// Brings the folders in line with what is committed. What fails stays pending, does not keep the rest from
    /// being done. Gives the first failure.
    fn carry_out(&self, pending: &mut Pending) -> Result<(), Failure> {
        let mut failures = Vec::new();
        pending
            .unlink
            .retain(|place| keep_failed(self.folders.unlink_place(place, &self.steps), &mut failures));
        // Folders of children go before their parents' and come after them.
        let (present, gone): (Vec<_>, Vec<_>) = {
            let index = self.index.read();
            std::mem::take(&mut pending.settle).into_iter().partition(|path| index.contains(path))
        };
        for path in gone.into_iter().rev().chain(present) {
            let wanted = Wanted::of(&self.index.read(), &path);
            let settled = self.folders.settle(&wanted, &self.steps);
            self.index.write().set_mounted(&path, matches!(settled, Ok(true)));
            if keep_failed(settled, &mut failures) {
                pending.settle.insert(path);
            }
        }
        pending
            .drop
            .retain(|content| keep_failed(self.folders.drop_content(*content, &self.steps), &mut failures));
        match failures.into_iter().next() {
            Some(first) => Err(first),
            None => Ok(()),
        }
    }

    /// What fails of this is tried again by the next change and by the next start.
    fn carry_out_and_keep(&self, writer: &mut Writer, mut pending: Pending) -> Result<(), Failure> {
        let carried_out = self.carry_out(&mut pending);
        writer.pending.settle.append(&mut pending.settle);
        writer.pending.unlink.append(&mut pending.unlink);
        writer.pending.drop.append(&mut pending.drop);
        carried_out
    }

    /// Tries again what an earlier change left, which is not the concern of this one.
    fn carry_out_leftovers(&self, writer: &mut Writer) -> Result<(), Failure> {
        if let Err(failure) = self.carry_out(&mut writer.pending) {
            self.steps.alive()?;
            tracing::warn!(%failure, cause = %failure.source, "an earlier change is still not carried out");
        }
        Ok(())
    }

    /// Drops the history from the catalog when most of it is that.
    fn rewrite_if_needed(&self, writer: &mut Writer) {
        // What is pending is known from the history only.
        if !writer.pending.is_empty() || !writer.catalog.wants_rewrite() {
            return;
        }
        let records: Vec<Record> = {
            let index = self.index.read();
            index.iter().filter_map(|(path, _)| index.record(path)).collect()
        };
        // What was asked for is done; a longer catalog than needed is no reason to say otherwise.
        if let Err(failure) = writer.catalog.rewrite(records.into_iter(), &self.steps) {
            tracing::warn!(%failure, cause = %failure.source, "the catalog could not be rewritten");
        }
    }
}

/// For `retain`: true for what failed, which is noted.
fn keep_failed<T>(result: Result<T, Failure>, failures: &mut Vec<Failure>) -> bool {
    match result {
        Ok(_) => false,
        Err(failure) => {
            failures.push(failure);
            true
        }
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.settle.is_empty() && self.unlink.is_empty() && self.drop.is_empty()
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn first<T: ToString>(of: Option<T>) -> String {
    of.map_or_else(|| "nothing".to_owned(), |first| first.to_string())
}

impl Store for EmbeddedStore {
    fn info(&self) -> Result<StoreInfo, StoreError> {
        let space = self.space()?;
        Ok(StoreInfo {
            kind: "embedded".to_owned(),
            root: self.dir.display().to_string(),
            version: concat!("embedded-", env!("CARGO_PKG_VERSION")).to_owned(),
            available: space.blocks_available() * space.fragment_size(),
            copy_on_write: self.shares,
        })
    }

    fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        let space = self.space()?;
        let bytes = |blocks: u64| blocks * space.fragment_size();
        let readonly = space.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
        Ok(vec![Pool {
            name: "embedded".to_owned(),
            health: if readonly { "READONLY" } else { Pool::ONLINE }.to_owned(),
            size: bytes(space.blocks()),
            allocated: bytes(space.blocks().saturating_sub(space.blocks_free())),
            free: bytes(space.blocks_available()),
        }])
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
        self.carry_out_leftovers(&mut writer).map_err(failed)?;
        writer.pending.settle.remove(dataset);
        let pending = Pending { settle: BTreeSet::from([dataset.clone()]), ..Pending::default() };
        self.carry_out_and_keep(&mut writer, pending).map_err(failed)
    }
}

#[cfg(test)]
mod tests;
