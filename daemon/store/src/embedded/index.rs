//! What the catalog says, in memory, in the form that the trait hands out.
//!
//! Owns everything that follows from the records: mountpoints by inheritance, names of origins, clones of
//! snapshots. Shares each value with its readers, so that a listing copies pointers. Does no I/O.

use super::catalog::Change;
use super::catalog::Content;
use super::catalog::Record;
use super::catalog::SnapshotRecord;
use crate::BRANCHES;
use crate::Dataset;
use crate::Snapshot;
use crate::SnapshotRef;
use crate::UserProps;
use crate::rules;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use zed_spec::DatasetPath;

/// One dataset.
pub(super) struct Entry {
    pub(super) dataset: Arc<Dataset>,
    pub(super) content: Content,
    origin: Option<u64>,
    /// Oldest first.
    pub(super) snapshots: Vec<Held>,
}

/// One snapshot.
pub(super) struct Held {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) content: Content,
}

/// Where a dataset is seen, before `canmount` is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    /// Inside the store's folder.
    Default,
    /// Where `mountpoint` says, its own or inherited.
    Explicit(PathBuf),
}

/// All datasets.
pub(super) struct Index {
    ds: PathBuf,
    entries: BTreeMap<DatasetPath, Entry>,
    /// Which dataset holds the snapshot with this guid.
    owners: BTreeMap<u64, DatasetPath>,
    /// Which datasets came from the snapshot with this guid.
    clones: BTreeMap<u64, BTreeSet<DatasetPath>>,
}

type Native = BTreeMap<String, String>;

impl Index {
    /// An empty index of a store whose datasets have their folders below `ds`.
    pub(super) fn new(ds: PathBuf) -> Self {
        Self { ds, entries: BTreeMap::new(), owners: BTreeMap::new(), clones: BTreeMap::new() }
    }

    pub(super) fn get(&self, path: &DatasetPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub(super) fn contains(&self, path: &DatasetPath) -> bool {
        self.entries.contains_key(path)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&DatasetPath, &Entry)> {
        self.entries.iter()
    }

    /// Those of these datasets that exist.
    pub(super) fn iter_named<'a>(
        &'a self,
        names: impl Iterator<Item = &'a DatasetPath>,
    ) -> impl Iterator<Item = (&'a DatasetPath, &'a Entry)> {
        names.filter_map(|path| self.entries.get_key_value(path))
    }

    /// Everything below a dataset, sorted.
    pub(super) fn descendants(&self, of: &DatasetPath) -> impl Iterator<Item = &DatasetPath> {
        // `0` is the character after `/`.
        let (from, to) = (format!("{of}/"), format!("{of}0"));
        self.entries
            .range::<str, _>((Bound::Included(from.as_str()), Bound::Excluded(to.as_str())))
            .map(|(path, _)| path)
    }

    /// Which dataset holds the snapshot with this guid.
    pub(super) fn owner(&self, guid: u64) -> Option<&DatasetPath> {
        self.owners.get(&guid)
    }

    /// A dataset that came from the snapshot with this guid.
    pub(super) fn a_clone(&self, guid: u64) -> Option<&DatasetPath> {
        self.clones.get(&guid).and_then(BTreeSet::first)
    }

    /// The record of a dataset.
    pub(super) fn record(&self, path: &DatasetPath) -> Option<Record> {
        self.entries.get(path).map(Entry::record)
    }

    /// Where a dataset would be seen if the natives of `changed` were as they are there.
    pub(super) fn place(&self, path: &DatasetPath, changed: &BTreeMap<&DatasetPath, &Native>) -> Place {
        let native = changed.get(path).copied().or_else(|| self.entries.get(path).map(|e| &e.dataset.native));
        match native.and_then(|n| n.get("mountpoint")).map(String::as_str) {
            Some("none" | "legacy") => Place::Nowhere,
            Some(given) => Place::Explicit(PathBuf::from(given)),
            None => match path.parent().map(|parent| self.place(&parent, changed)) {
                None | Some(Place::Default) => Place::Default,
                Some(Place::Nowhere) => Place::Nowhere,
                Some(Place::Explicit(above)) => {
                    Place::Explicit(above.join(path.as_str().rsplit('/').next().unwrap_or_default()))
                }
            },
        }
    }

    /// Where a dataset is mounted if `changed` comes true; `Nowhere` for branches and what `canmount` forbids.
    pub(super) fn mount_place(&self, path: &DatasetPath, changed: &BTreeMap<&DatasetPath, &Native>) -> Place {
        let native = changed.get(path).copied().or_else(|| self.entries.get(path).map(|e| &e.dataset.native));
        let canmount = native.and_then(|n| n.get("canmount")).map_or("on", String::as_str);
        match canmount != "on" || path.as_str() == BRANCHES || rules::is_branch(path) {
            true => Place::Nowhere,
            false => self.place(path, changed),
        }
    }

    /// Explicit mountpoints that a change gives up, and those that it needs, with their datasets.
    pub(super) fn moved_places(&self, change: &Change) -> (Vec<PathBuf>, Vec<(DatasetPath, PathBuf)>) {
        let native: BTreeMap<&DatasetPath, &Native> =
            change.set.iter().map(|r| (&r.path, &r.native)).collect();
        let nothing = BTreeMap::new();
        let mut affected: BTreeSet<&DatasetPath> = change.gone.iter().collect();
        for record in &change.set {
            let was = self.entries.get(&record.path).map(|e| &e.dataset.native);
            if was != Some(&record.native) {
                affected.insert(&record.path);
                affected.extend(self.descendants(&record.path));
            }
        }
        let (mut left, mut needed) = (Vec::new(), Vec::new());
        for path in affected {
            let exists_after = native.contains_key(path) || !change.gone.contains(path);
            let before = if self.contains(path) { self.mount_place(path, &nothing) } else { Place::Nowhere };
            let after = if exists_after { self.mount_place(path, &native) } else { Place::Nowhere };
            if before == after {
                continue;
            }
            if let Place::Explicit(place) = before {
                left.push(place);
            }
            if let Place::Explicit(place) = after {
                needed.push((path.clone(), place));
            }
        }
        (left, needed)
    }

    /// Takes a committed change in. Gives every dataset whose view may have changed, gone ones included.
    pub(super) fn apply(&mut self, change: Change) -> BTreeSet<DatasetPath> {
        let mut touched = BTreeSet::new();
        let mut moved = Vec::new();
        for path in change.gone.iter().chain(change.set.iter().map(|r| &r.path)) {
            touched.insert(path.clone());
            if let Some(old) = self.entries.remove(path) {
                self.forget(path, &old, &mut touched);
                moved.push(old);
            }
        }
        for record in change.set {
            let path = record.path.clone();
            let was = moved.iter().find(|e| e.dataset.path == path);
            if was.is_none_or(|e| e.dataset.native != record.native) {
                touched.extend(self.descendants(&path).cloned());
            }
            for s in &record.snapshots {
                self.owners.insert(s.guid, path.clone());
            }
            if let Some(origin) = record.origin {
                self.clones.entry(origin).or_default().insert(path.clone());
            }
            self.entries.insert(path, Entry::new(record));
        }
        let related: Vec<DatasetPath> = touched.iter().flat_map(|path| self.related(path)).collect();
        touched.extend(related);
        for path in &touched {
            self.derive(path);
        }
        touched
    }

    fn forget(&mut self, path: &DatasetPath, old: &Entry, touched: &mut BTreeSet<DatasetPath>) {
        for held in &old.snapshots {
            self.owners.remove(&held.snapshot.guid);
            touched.extend(held.snapshot.clones.iter().cloned());
        }
        if let Some(origin) = old.origin {
            touched.extend(self.owners.get(&origin).cloned());
            if let Some(clones) = self.clones.get_mut(&origin) {
                clones.remove(path);
                if clones.is_empty() {
                    self.clones.remove(&origin);
                }
            }
        }
    }

    /// The datasets that show something of this one: its clones, and the owner of its origin.
    fn related(&self, path: &DatasetPath) -> Vec<DatasetPath> {
        let Some(entry) = self.entries.get(path) else { return Vec::new() };
        let clones = entry.snapshots.iter().filter_map(|h| self.clones.get(&h.snapshot.guid)).flatten();
        let owner = entry.origin.and_then(|guid| self.owners.get(&guid));
        clones.chain(owner).cloned().collect()
    }

    /// Brings what follows from other datasets up to date. Values that stay the same stay shared.
    fn derive(&mut self, path: &DatasetPath) {
        let mountpoint = match self.mount_place(path, &BTreeMap::new()) {
            Place::Nowhere => None,
            Place::Default => Some(self.ds.join(path.as_str()).join("@data")),
            Place::Explicit(place) => Some(place),
        };
        let Some(entry) = self.entries.get(path) else { return };
        let origin = entry.origin.and_then(|guid| self.name(guid));
        let clones: Vec<Vec<DatasetPath>> = entry
            .snapshots
            .iter()
            .map(|h| {
                self.clones.get(&h.snapshot.guid).map(|c| c.iter().cloned().collect()).unwrap_or_default()
            })
            .collect();
        let Some(entry) = self.entries.get_mut(path) else { return };
        let dataset = &entry.dataset;
        if dataset.origin != origin
            || dataset.mountpoint != mountpoint
            || dataset.mounted != mountpoint.is_some()
        {
            let mounted = mountpoint.is_some();
            entry.dataset = Arc::new(Dataset { origin, mountpoint, mounted, ..dataset.as_ref().clone() });
        }
        for (held, clones) in entry.snapshots.iter_mut().zip(clones) {
            if held.snapshot.clones != clones {
                held.snapshot = Arc::new(Snapshot { clones, ..held.snapshot.as_ref().clone() });
            }
        }
    }

    fn name(&self, guid: u64) -> Option<SnapshotRef> {
        let dataset = self.owners.get(&guid)?;
        let held = self.entries.get(dataset)?.snapshots.iter().find(|h| h.snapshot.guid == guid)?;
        Some(SnapshotRef { dataset: dataset.clone(), name: held.snapshot.id.name.clone() })
    }

    /// Records whether a dataset could be put where it belongs.
    pub(super) fn set_mounted(&mut self, path: &DatasetPath, mounted: bool) {
        if let Some(entry) = self.entries.get_mut(path)
            && entry.dataset.mounted != mounted
        {
            entry.dataset = Arc::new(Dataset { mounted, ..entry.dataset.as_ref().clone() });
        }
    }

    /// The folder of a dataset, with its links.
    pub(super) fn folder(&self, path: &DatasetPath) -> PathBuf {
        self.ds.join(path.as_str())
    }
}

impl Entry {
    fn new(record: Record) -> Self {
        let Record { path, guid, native, user, origin, content, referenced, snapshots } = record;
        let snapshots = snapshots.into_iter().map(|s| Held::new(&path, s)).collect();
        // Mountpoint and origin follow from other datasets; `derive` fills them in.
        let dataset = Dataset {
            path,
            guid,
            mountpoint: None,
            mounted: false,
            native,
            user,
            received: UserProps::new(),
            origin: None,
            referenced,
        };
        Self { dataset: Arc::new(dataset), content, origin, snapshots }
    }

    fn record(&self) -> Record {
        let Dataset { path, guid, native, user, referenced, .. } = self.dataset.as_ref();
        Record {
            path: path.clone(),
            guid: *guid,
            native: native.clone(),
            user: user.clone(),
            origin: self.origin,
            content: self.content,
            referenced: *referenced,
            snapshots: self.snapshots.iter().map(Held::record).collect(),
        }
    }
}

impl Held {
    fn new(dataset: &DatasetPath, record: SnapshotRecord) -> Self {
        let SnapshotRecord { name, guid, txg, created, user, content, used } = record;
        let id = SnapshotRef { dataset: dataset.clone(), name };
        let snapshot = Snapshot { id, guid, txg, created, user, clones: Vec::new(), used };
        Self { snapshot: Arc::new(snapshot), content }
    }

    fn record(&self) -> SnapshotRecord {
        let Snapshot { id, guid, txg, created, user, used, .. } = self.snapshot.as_ref();
        SnapshotRecord {
            name: id.name.clone(),
            guid: *guid,
            txg: *txg,
            created: *created,
            user: user.clone(),
            content: self.content,
            used: *used,
        }
    }
}
