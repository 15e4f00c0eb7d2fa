//! What a simulated store holds, and its transitions composed of ZFS's primitives: clone, promote, rename.
//!
//! Each transition may leave the state half changed when it refuses; the caller works on a copy.

use crate::BRANCHES;
use crate::Create;
use crate::Dataset;
use crate::MANAGED;
use crate::PropChange;
use crate::Restore;
use crate::Snapshot;
use crate::SnapshotRef;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::TakeSnapshot;
use crate::UserProps;
use crate::rules;
use crate::rules::refuse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use zed_spec::DatasetPath;

type Files = Arc<BTreeMap<String, Vec<u8>>>;

/// The first snapshot's time; each transaction is one second later, so that a store is the same every time.
const EPOCH: i64 = 1_700_000_000;

#[derive(Clone)]
pub(super) struct State {
    pub(super) datasets: BTreeMap<DatasetPath, Arc<SimDataset>>,
    pub(super) busy: BTreeMap<DatasetPath, String>,
    pub(super) available: u64,
    pub(super) pool_health: String,
    pub(super) last_guid: u64,
    pub(super) last_txg: u64,
}

#[derive(Clone)]
pub(super) struct SimDataset {
    pub(super) guid: u64,
    pub(super) native: BTreeMap<String, String>,
    pub(super) user: UserProps,
    pub(super) mounted: bool,
    /// By guid, because promotion and renames change the name.
    pub(super) origin: Option<u64>,
    pub(super) files: Files,
    /// Oldest first.
    pub(super) snapshots: Vec<SimSnapshot>,
}

#[derive(Clone)]
pub(super) struct SimSnapshot {
    pub(super) name: String,
    pub(super) guid: u64,
    pub(super) txg: u64,
    pub(super) user: UserProps,
    pub(super) files: Files,
}

impl Default for State {
    fn default() -> Self {
        Self {
            datasets: BTreeMap::new(),
            busy: BTreeMap::new(),
            available: 1 << 40,
            pool_health: crate::Pool::ONLINE.to_owned(),
            last_guid: 0,
            last_txg: 0,
        }
    }
}

fn size(files: &Files) -> u64 {
    files.values().map(|content| content.len() as u64).sum()
}

// Reading.
impl State {
    pub(super) fn list(&self) -> Vec<Arc<Dataset>> {
        let owners = self.owners();
        self.datasets.iter().map(|(path, found)| Arc::new(self.render(path, found, &owners))).collect()
    }

    pub(super) fn view(&self, path: &DatasetPath) -> Option<Arc<Dataset>> {
        let found = self.datasets.get(path)?;
        // One dataset does not need the names of all snapshots.
        let owners = if found.origin.is_some() { self.owners() } else { BTreeMap::new() };
        Some(Arc::new(self.render(path, found, &owners)))
    }

    pub(super) fn snapshots(&self, of: Option<&DatasetPath>) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        let mut clones: BTreeMap<u64, Vec<DatasetPath>> = BTreeMap::new();
        for (path, dataset) in &self.datasets {
            if let Some(origin) = dataset.origin {
                clones.entry(origin).or_default().push(path.clone());
            }
        }
        let render = |path: &DatasetPath, dataset: &SimDataset| -> Vec<Arc<Snapshot>> {
            let one = |s: &SimSnapshot| Snapshot {
                id: SnapshotRef { dataset: path.clone(), name: s.name.clone() },
                guid: s.guid,
                txg: s.txg,
                created: EPOCH + i64::try_from(s.txg).unwrap_or(i64::MAX - EPOCH),
                user: s.user.clone(),
                clones: clones.get(&s.guid).cloned().unwrap_or_default(),
                used: size(&s.files),
            };
            dataset.snapshots.iter().map(|s| Arc::new(one(s))).collect()
        };
        match of {
            Some(path) => match self.datasets.get(path) {
                Some(dataset) => Ok(render(path, dataset)),
                None => Err(refuse("list the snapshots of", path, StoreErrorKind::NotFound)),
            },
            None => Ok(self.datasets.iter().flat_map(|(path, dataset)| render(path, dataset)).collect()),
        }
    }

    fn render(&self, path: &DatasetPath, found: &SimDataset, owners: &BTreeMap<u64, SnapshotRef>) -> Dataset {
        Dataset {
            path: path.clone(),
            guid: found.guid,
            mountpoint: self.mountpoint(path),
            mounted: found.mounted,
            native: found.native.clone(),
            user: found.user.clone(),
            received: UserProps::new(),
            origin: found.origin.and_then(|guid| owners.get(&guid).cloned()),
            referenced: size(&found.files),
        }
    }

    /// The name of each snapshot that is some dataset's origin.
    fn owners(&self) -> BTreeMap<u64, SnapshotRef> {
        let mut owners = BTreeMap::new();
        for (path, dataset) in &self.datasets {
            for s in &dataset.snapshots {
                owners.insert(s.guid, SnapshotRef { dataset: path.clone(), name: s.name.clone() });
            }
        }
        owners
    }

    /// Where a dataset is or would be mounted.
    pub(super) fn mountpoint(&self, path: &DatasetPath) -> Option<PathBuf> {
        let own = self.datasets.get(path)?;
        let canmount = own.native.get("canmount").map_or("on", String::as_str);
        if canmount != "on" || path.as_str() == BRANCHES || rules::is_branch(path) {
            return None;
        }
        self.place(path)
    }

    /// The mountpoint as inherited, whether the dataset may be mounted or not.
    fn place(&self, path: &DatasetPath) -> Option<PathBuf> {
        let own = self.datasets.get(path).and_then(|d| d.native.get("mountpoint"));
        match (own.map(String::as_str), path.parent()) {
            (Some("none" | "legacy"), _) => None,
            (Some(given), _) => Some(PathBuf::from(given)),
            (None, None) => Some(PathBuf::from("/sim").join(path.as_str())),
            (None, Some(parent)) => {
                let leaf = path.as_str().rsplit('/').next().unwrap_or_default();
                self.place(&parent).map(|above| above.join(leaf))
            }
        }
    }

    pub(super) fn file(&self, dataset: &DatasetPath, name: &str) -> Option<Vec<u8>> {
        self.datasets.get(dataset)?.files.get(name).cloned()
    }

    pub(super) fn all_files(&self, dataset: &DatasetPath) -> BTreeMap<String, String> {
        let files = self.datasets.get(dataset).map(|d| d.files.clone()).unwrap_or_default();
        files
            .iter()
            .map(|(name, content)| (name.clone(), String::from_utf8_lossy(content).into_owned()))
            .collect()
    }

    pub(super) fn file_of_snapshot(&self, snapshot: &SnapshotRef, name: &str) -> Option<Vec<u8>> {
        let of = self.datasets.get(&snapshot.dataset)?;
        of.snapshots.iter().find(|s| s.name == snapshot.name)?.files.get(name).cloned()
    }

    pub(super) fn children(&self, of: &DatasetPath) -> Vec<DatasetPath> {
        let from = format!("{of}/");
        self.datasets
            .range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded))
            .map(|(path, _)| path)
            .take_while(|path| path.as_str().starts_with(&from))
            .cloned()
            .collect()
    }

    pub(super) fn owner(&self, guid: u64) -> Option<DatasetPath> {
        let owns = |d: &SimDataset| d.snapshots.iter().any(|s| s.guid == guid);
        self.datasets.iter().find(|(_, d)| owns(d)).map(|(path, _)| path.clone())
    }

    pub(super) fn clones(&self, guid: u64) -> impl Iterator<Item = &DatasetPath> {
        self.datasets.iter().filter(move |(_, d)| d.origin == Some(guid)).map(|(path, _)| path)
    }
}

// The calls of the trait.
impl State {
    pub(super) fn create(&mut self, request: &Create) -> Result<(), StoreError> {
        let path = &request.path;
        rules::check_user("create", path, &request.user)?;
        let native = rules::native("create", path, &request.native)?;
        if let Some(found) = self.datasets.get(path) {
            return match found.native == native && found.user == request.user {
                true => Ok(()),
                false => Err(refuse("create", path, StoreErrorKind::Exists)),
            };
        }
        self.needs_parent("create", path)?;
        self.needs_space("create", path)?;
        self.add(path, native, request.user.clone());
        Ok(())
    }

    fn add(&mut self, path: &DatasetPath, native: BTreeMap<String, String>, user: UserProps) {
        let guid = self.next_guid();
        let files = Files::default();
        self.insert(
            path,
            SimDataset { guid, native, user, mounted: false, origin: None, files, snapshots: vec![] },
        );
    }

    pub(super) fn set(&mut self, changes: &[PropChange]) -> Result<(), StoreError> {
        for change in changes {
            let native = rules::native_changes("set properties of", &change.path, &change.native)?;
            rules::check_user_changes("set properties of", &change.path, &change.user)?;
            let found = self.find("set properties of", &change.path)?;
            apply(&mut found.native, &native);
            apply(&mut found.user, &change.user);
            if native.contains_key("mountpoint") || native.contains_key("canmount") {
                self.mount_if_possible(&change.path);
                self.children(&change.path).iter().for_each(|child| self.mount_if_possible(child));
            }
        }
        Ok(())
    }

    pub(super) fn snapshot(&mut self, set: &[TakeSnapshot]) -> Result<(), StoreError> {
        rules::check_take(set)?;
        let mut there = 0;
        for take in set {
            let found = self.find("snapshot", &take.id.dataset)?;
            match found.snapshots.iter().find(|s| s.name == take.id.name) {
                Some(s) if s.user == take.user => there += 1,
                Some(_) => return Err(refuse("snapshot", &take.id, StoreErrorKind::Exists)),
                None => {}
            }
        }
        match (there, set.first()) {
            (0, Some(take)) => self.needs_space("snapshot", &take.id)?,
            (all, _) if all == set.len() => return Ok(()),
            (_, Some(take)) => return Err(refuse("snapshot", &take.id, StoreErrorKind::Exists)),
            (_, None) => return Ok(()),
        }
        self.last_txg += 1;
        let txg = self.last_txg;
        for take in set {
            let guid = self.next_guid();
            let found = self.find("snapshot", &take.id.dataset)?;
            let (name, user, files) = (take.id.name.clone(), take.user.clone(), found.files.clone());
            found.snapshots.push(SimSnapshot { name, guid, txg, user, files });
        }
        Ok(())
    }

    pub(super) fn destroy_snapshots(&mut self, set: &[SnapshotRef]) -> Result<(), StoreError> {
        for id in set {
            let Some(dataset) = self.datasets.get(&id.dataset) else { continue };
            let Some(at) = dataset.snapshots.iter().position(|s| s.name == id.name) else { continue };
            self.needs_no_clone(id, dataset.snapshots[at].guid)?;
            self.find("destroy", &id.dataset)?.snapshots.remove(at);
        }
        Ok(())
    }

    fn needs_no_clone(&self, object: impl ToString, guid: u64) -> Result<(), StoreError> {
        match self.clones(guid).next() {
            Some(clone) => {
                Err(refuse("destroy", object, StoreErrorKind::Busy(format!("`{clone}` is a clone of it"))))
            }
            None => Ok(()),
        }
    }

    pub(super) fn restore(&mut self, request: &Restore) -> Result<(), StoreError> {
        rules::check_restore(request)?;
        let Restore { dataset, from, branch, user, branch_user } = request;
        let done = self.datasets.contains_key(branch);
        let current = self.find("restore", dataset)?.clone();
        if done {
            return Ok(());
        }
        let owner = self.find("restore", &from.dataset)?;
        let Some(snapshot) = owner.snapshots.iter().find(|s| s.name == from.name).cloned() else {
            return Err(refuse("restore", from, StoreErrorKind::NotFound));
        };
        self.needs_idle("restore", dataset)?;
        self.needs_space("restore", dataset)?;
        self.needs_branches(branch)?;

        // A name that no branch has: guids are given once.
        let temporary = DatasetPath::parse(&format!("{BRANCHES}/new.{}", self.next_guid()))
            .map_err(|e| rules::invalid("restore", dataset, e.to_string()))?;
        self.clone_of(&snapshot, &temporary);
        // Up to the root of the lineage, so that what lives never depends on a branch. Another live dataset
        // keeps its snapshots.
        while let Some(origin) = self.find("restore", &temporary)?.origin
            && let Some(owner) = self.owner(origin)
            && (owner == *dataset || rules::is_branch(&owner))
        {
            self.promote(&temporary)?;
        }
        let children: Vec<DatasetPath> = self.children(dataset);
        let aside: BTreeMap<DatasetPath, Arc<SimDataset>> =
            children.iter().filter_map(|path| self.datasets.remove_entry(path)).collect();
        self.rename(dataset, branch)?;
        self.rename(&temporary, dataset)?;
        self.datasets.extend(aside);

        let restored = self.find("restore", dataset)?;
        restored.native = current.native;
        restored.user.clone_from(user);
        self.mount_if_possible(dataset);
        self.find("restore", branch)?.user.extend(branch_user.clone());
        Ok(())
    }

    /// `zed/branches` is made when the first branch needs it; anything deeper must be there.
    fn needs_branches(&mut self, branch: &DatasetPath) -> Result<(), StoreError> {
        for name in [crate::OWN_DATASET, BRANCHES] {
            let path = DatasetPath::parse(name).map_err(|e| rules::invalid("create", name, e.to_string()))?;
            if !self.datasets.contains_key(&path) {
                let (native, user) = rules::own_dataset();
                self.add(&path, native, user);
            }
        }
        self.needs_parent("create", branch)
    }

    pub(super) fn retire(&mut self, dataset: &DatasetPath, branch: &DatasetPath) -> Result<(), StoreError> {
        rules::check_branch("retire", branch)?;
        if rules::is_branch(dataset) {
            return Err(rules::invalid("retire", dataset, "it is a branch already"));
        }
        match (self.datasets.contains_key(dataset), self.datasets.contains_key(branch)) {
            (false, true) => return Ok(()),
            (false, false) => return Err(refuse("retire", dataset, StoreErrorKind::NotFound)),
            (true, true) => return Err(refuse("retire", branch, StoreErrorKind::Exists)),
            (true, false) => {}
        }
        if let Some(child) = self.children(dataset).first() {
            return Err(refuse("retire", dataset, StoreErrorKind::Busy(format!("`{child}` is below it"))));
        }
        self.needs_idle("retire", dataset)?;
        self.needs_branches(branch)?;
        self.rename(dataset, branch)
    }

    pub(super) fn reinstate(
        &mut self,
        branch: &DatasetPath,
        dataset: &DatasetPath,
    ) -> Result<(), StoreError> {
        rules::check_branch("reinstate", branch)?;
        if rules::is_branch(dataset) {
            return Err(rules::invalid("reinstate", dataset, "it is the name of a branch"));
        }
        match (self.datasets.contains_key(branch), self.datasets.contains_key(dataset)) {
            (false, true) => return Ok(()),
            (false, false) => return Err(refuse("reinstate", branch, StoreErrorKind::NotFound)),
            (true, true) => return Err(refuse("reinstate", dataset, StoreErrorKind::Exists)),
            (true, false) => {}
        }
        self.needs_parent("reinstate", dataset)?;
        if let Some(child) = self.children(branch).first() {
            return Err(refuse("reinstate", branch, StoreErrorKind::Busy(format!("`{child}` is below it"))));
        }
        self.rename(branch, dataset)
    }

    pub(super) fn destroy_branch(&mut self, branch: &DatasetPath) -> Result<(), StoreError> {
        rules::check_branch("destroy", branch)?;
        let Some(found) = self.datasets.get(branch) else { return Ok(()) };
        if !found.user.contains_key(MANAGED) {
            return Err(refuse("destroy", branch, StoreErrorKind::NotOurs));
        }
        if let Some(child) = self.children(branch).first() {
            return Err(refuse("destroy", branch, StoreErrorKind::Busy(format!("`{child}` is below it"))));
        }
        self.needs_idle("destroy", branch)?;
        for s in &found.snapshots {
            self.needs_no_clone(branch, s.guid)?;
        }
        self.datasets.remove(branch);
        Ok(())
    }

    pub(super) fn mount(&mut self, dataset: &DatasetPath) -> Result<(), StoreError> {
        self.find("mount", dataset)?;
        self.mount_if_possible(dataset);
        Ok(())
    }
}

// What tests do from outside.
impl State {
    pub(super) fn set_busy(&mut self, dataset: &DatasetPath, reason: Option<&str>) {
        match reason {
            Some(reason) => drop(self.busy.insert(dataset.clone(), reason.to_owned())),
            None => drop(self.busy.remove(dataset)),
        }
    }

    pub(super) fn write_file(
        &mut self,
        dataset: &DatasetPath,
        name: &str,
        content: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        if content.is_some() {
            self.needs_space("write a file of", dataset)?;
        }
        let found = self.find("write a file of", dataset)?;
        if !found.mounted {
            return Err(rules::invalid("write a file of", dataset, "it is not mounted"));
        }
        let files = Arc::make_mut(&mut found.files);
        match content {
            Some(content) => drop(files.insert(name.to_owned(), content.to_vec())),
            None => drop(files.remove(name)),
        }
        Ok(())
    }

    pub(super) fn raw_rollback(&mut self, to: &SnapshotRef) -> Result<(), StoreError> {
        self.needs_idle("roll back", &to.dataset)?;
        let found = self.find("roll back", &to.dataset)?;
        let Some(at) = found.snapshots.iter().position(|s| s.name == to.name) else {
            return Err(refuse("roll back", to, StoreErrorKind::NotFound));
        };
        if at + 1 < found.snapshots.len() {
            return Err(refuse("roll back", to, StoreErrorKind::Busy("newer snapshots exist".to_owned())));
        }
        found.files = found.snapshots[at].files.clone();
        Ok(())
    }
}

fn apply(to: &mut BTreeMap<String, String>, changes: &BTreeMap<String, Option<String>>) {
    for (name, value) in changes {
        match value {
            Some(value) => drop(to.insert(name.clone(), value.clone())),
            None => drop(to.remove(name)),
        }
    }
}
