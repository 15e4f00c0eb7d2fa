//! From a request to the change of the catalog that fulfils it.
//!
//! Pure: reads the index, allocates numbers, touches no file. A request whose effect is already there
//! needs no change.

use super::catalog::Change;
use super::catalog::Content;
use super::catalog::Record;
use super::catalog::SnapshotRecord;
use super::index::Index;
use crate::BRANCHES;
use crate::Create;
use crate::MANAGED;
use crate::OWN_DATASET;
use crate::PropChange;
use crate::Restore;
use crate::SnapshotRef;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::TakeSnapshot;
use crate::UserProps;
use crate::rules;
use crate::rules::refuse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::hash::Hasher;
use zed_spec::DatasetPath;

/// A change, and the content folders that must be there before it is committed.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) change: Change,
    /// Copies to make: from, to.
    pub(super) copies: Vec<(Content, Content)>,
    /// Empty ones to make.
    pub(super) empty: Vec<Content>,
}

/// A plan, or that there is nothing to do.
pub(super) type Planned = Result<Option<Plan>, StoreError>;

/// Numbers that were never used before.
pub(super) struct Fresh {
    pub(super) content: Content,
    pub(super) txg: u64,
    /// Seconds since 1970.
    pub(super) now: i64,
}

impl Fresh {
    fn content(&mut self) -> Content {
        self.content += 1;
        self.content
    }

    fn txg(&mut self) -> u64 {
        self.txg += 1;
        self.txg
    }
}

/// A random number. The keys of the standard library's hasher come from the system's random source.
fn guid() -> u64 {
    std::hash::RandomState::new().build_hasher().finish().max(1)
}

fn missing(operation: &'static str, object: impl ToString) -> StoreError {
    refuse(operation, object, StoreErrorKind::NotFound)
}

fn record(index: &Index, operation: &'static str, path: &DatasetPath) -> Result<Record, StoreError> {
    index.record(path).ok_or_else(|| missing(operation, path))
}

fn needs_parent(index: &Index, operation: &'static str, path: &DatasetPath) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) if !index.contains(&parent) => Err(refuse(operation, path, StoreErrorKind::NoParent)),
        _ => Ok(()),
    }
}

fn needs_no_child(index: &Index, operation: &'static str, path: &DatasetPath) -> Result<(), StoreError> {
    match index.descendants(path).next() {
        Some(child) => Err(refuse(operation, path, StoreErrorKind::Busy(format!("`{child}` is below it")))),
        None => Ok(()),
    }
}

impl Plan {
    fn add(
        &mut self,
        path: &DatasetPath,
        native: BTreeMap<String, String>,
        user: UserProps,
        fresh: &mut Fresh,
    ) {
        let content = fresh.content();
        self.empty.push(content);
        self.change.set.push(Record {
            path: path.clone(),
            guid: guid(),
            native,
            user,
            origin: None,
            content,
            referenced: 0,
            snapshots: Vec::new(),
        });
    }

    /// `zed/branches` is made when the first branch needs it; anything deeper must be there.
    fn needs_branches(
        &mut self,
        index: &Index,
        operation: &'static str,
        branch: &DatasetPath,
        fresh: &mut Fresh,
    ) -> Result<(), StoreError> {
        let parent = branch.parent();
        for name in [OWN_DATASET, BRANCHES] {
            let path =
                DatasetPath::parse(name).map_err(|e| rules::invalid(operation, name, e.to_string()))?;
            if !index.contains(&path) {
                let (native, user) = rules::own_dataset();
                self.add(&path, native, user, fresh);
            }
        }
        match parent {
            Some(parent) if parent.as_str() == BRANCHES => Ok(()),
            _ => needs_parent(index, operation, branch),
        }
    }
}

pub(super) fn create(index: &Index, request: &Create, fresh: &mut Fresh) -> Planned {
    let path = &request.path;
    rules::check_user("create", path, &request.user)?;
    let native = rules::native("create", path, &request.native)?;
    if let Some(entry) = index.get(path) {
        return match entry.dataset.native == native && entry.dataset.user == request.user {
            true => Ok(None),
            false => Err(refuse("create", path, StoreErrorKind::Exists)),
        };
    }
    needs_parent(index, "create", path)?;
    let mut plan = Plan::default();
    plan.add(path, native, request.user.clone(), fresh);
    Ok(Some(plan))
}

pub(super) fn set(index: &Index, changes: &[PropChange]) -> Planned {
    const OPERATION: &str = "set properties of";
    let mut records: BTreeMap<&DatasetPath, Record> = BTreeMap::new();
    for change in changes {
        let path = &change.path;
        let native = rules::native_changes(OPERATION, path, &change.native)?;
        rules::check_user_changes(OPERATION, path, &change.user)?;
        if !records.contains_key(path) {
            records.insert(path, record(index, OPERATION, path)?);
        }
        if let Some(record) = records.get_mut(path) {
            apply(&mut record.native, native);
            apply(&mut record.user, change.user.clone());
        }
    }
    let set: Vec<Record> = records
        .into_iter()
        .filter(|(path, r)| index.record(path).as_ref() != Some(r))
        .map(|(_, r)| r)
        .collect();
    match set.is_empty() {
        true => Ok(None),
        false => Ok(Some(Plan { change: Change { set, ..Change::default() }, ..Plan::default() })),
    }
}

fn apply(to: &mut BTreeMap<String, String>, changes: BTreeMap<String, Option<String>>) {
    for (name, value) in changes {
        match value {
            Some(value) => drop(to.insert(name, value)),
            None => drop(to.remove(&name)),
        }
    }
}

pub(super) fn snapshot(index: &Index, set: &[TakeSnapshot], fresh: &mut Fresh) -> Planned {
    rules::check_take(set)?;
    let mut there = Vec::new();
    for take in set {
        let record = record(index, "snapshot", &take.id.dataset)?;
        match record.snapshots.iter().find(|s| s.name == take.id.name) {
            Some(s) if s.user == take.user => there.push(&take.id),
            Some(_) => return Err(refuse("snapshot", &take.id, StoreErrorKind::Exists)),
            None => {}
        }
    }
    match there.first() {
        _ if there.len() == set.len() => return Ok(None),
        // Taking the rest now would not be one instant.
        Some(id) => return Err(refuse("snapshot", id, StoreErrorKind::Exists)),
        None => {}
    }
    let mut plan = Plan::default();
    let txg = fresh.txg();
    for take in set {
        let mut record = record(index, "snapshot", &take.id.dataset)?;
        let content = fresh.content();
        plan.copies.push((record.content, content));
        record.snapshots.push(SnapshotRecord {
            name: take.id.name.clone(),
            guid: guid(),
            txg,
            created: fresh.now,
            user: take.user.clone(),
            content,
            used: 0,
        });
        plan.change.set.push(record);
    }
    Ok(Some(plan))
}

pub(super) fn destroy_snapshots(index: &Index, set: &[SnapshotRef]) -> Planned {
    let mut records: BTreeMap<&DatasetPath, Record> = BTreeMap::new();
    let mut drop = Vec::new();
    for id in set {
        if !records.contains_key(&id.dataset) {
            match index.record(&id.dataset) {
                Some(record) => records.insert(&id.dataset, record),
                None => continue,
            };
        }
        let Some(record) = records.get_mut(&id.dataset) else { continue };
        let Some(at) = record.snapshots.iter().position(|s| s.name == id.name) else { continue };
        needs_no_clone(index, id, record.snapshots[at].guid)?;
        drop.push(record.snapshots.remove(at).content);
    }
    if drop.is_empty() {
        return Ok(None);
    }
    let change = Change { set: records.into_values().collect(), drop, ..Change::default() };
    Ok(Some(Plan { change, ..Plan::default() }))
}

fn needs_no_clone(index: &Index, object: impl ToString, guid: u64) -> Result<(), StoreError> {
    match index.a_clone(guid) {
        Some(clone) => {
            Err(refuse("destroy", object, StoreErrorKind::Busy(format!("`{clone}` is a clone of it"))))
        }
        None => Ok(()),
    }
}

/// What `zfs clone`, `zfs promote` up to the root of the lineage and two renames give, in one change.
pub(super) fn restore(index: &Index, request: &Restore, fresh: &mut Fresh) -> Planned {
    rules::check_restore(request)?;
    let Restore { dataset, from, branch, user, branch_user } = request;
    let current = record(index, "restore", dataset)?;
    if index.contains(branch) {
        return Ok(None);
    }
    let snapshots = record(index, "restore", &from.dataset)?.snapshots;
    let Some(snapshot) = snapshots.into_iter().find(|s| s.name == from.name) else {
        return Err(missing("restore", from));
    };
    let mut plan = Plan::default();
    plan.needs_branches(index, "restore", branch, fresh)?;
    let Lineage { snapshots, origin, mut former } = lineage(index, dataset, from, snapshot.guid)?;

    let content = fresh.content();
    plan.copies.push((snapshot.content, content));
    let native = current.native.clone();
    let mut present = former.remove(dataset).unwrap_or(current);
    present.path.clone_from(branch);
    present.user.extend(branch_user.clone());
    plan.change.set.extend(former.into_values());
    plan.change.set.push(present);
    plan.change.set.push(Record {
        path: dataset.clone(),
        guid: guid(),
        native,
        user: user.clone(),
        origin,
        content,
        referenced: snapshot.used,
        snapshots,
    });
    Ok(Some(plan))
}

/// The snapshots from the first one up to the one that is restored.
struct Lineage {
    /// Oldest first.
    snapshots: Vec<SnapshotRecord>,
    /// What the oldest one came from, when that belongs to another live dataset.
    origin: Option<u64>,
    /// The datasets that had them, without them; each is now a clone of the last it gave.
    former: BTreeMap<DatasetPath, Record>,
}

fn lineage(
    index: &Index,
    dataset: &DatasetPath,
    from: &SnapshotRef,
    guid: u64,
) -> Result<Lineage, StoreError> {
    let mut lineage = Lineage { snapshots: Vec::new(), origin: Some(guid), former: BTreeMap::new() };
    // What lives must not depend on a branch, so go up to the root; but another live dataset keeps its own.
    while let Some(guid) = lineage.origin
        && let Some(owner) = index.owner(guid)
        && (owner == dataset || rules::is_branch(owner))
    {
        let mut record = record(index, "restore", owner)?;
        let upto = record.snapshots.iter().position(|s| s.guid == guid).map_or(0, |at| at + 1);
        lineage.snapshots.splice(0..0, record.snapshots.drain(..upto));
        lineage.origin = record.origin.replace(guid);
        lineage.former.insert(owner.clone(), record);
    }
    let mut names = BTreeSet::new();
    match lineage.snapshots.iter().find(|s| !names.insert(s.name.as_str())) {
        Some(twice) => {
            let why = format!("the history of `{from}` would hold a snapshot `{}` twice", twice.name);
            Err(rules::invalid("restore", dataset, why))
        }
        None => Ok(lineage),
    }
}

pub(super) fn retire(
    index: &Index,
    dataset: &DatasetPath,
    branch: &DatasetPath,
    fresh: &mut Fresh,
) -> Planned {
    rules::check_branch("retire", branch)?;
    if rules::is_branch(dataset) {
        return Err(rules::invalid("retire", dataset, "it is a branch already"));
    }
    match (index.contains(dataset), index.contains(branch)) {
        (false, true) => return Ok(None),
        (false, false) => return Err(missing("retire", dataset)),
        (true, true) => return Err(refuse("retire", branch, StoreErrorKind::Exists)),
        (true, false) => {}
    }
    needs_no_child(index, "retire", dataset)?;
    let mut plan = Plan::default();
    plan.needs_branches(index, "retire", branch, fresh)?;
    plan.rename(record(index, "retire", dataset)?, branch);
    Ok(Some(plan))
}

pub(super) fn reinstate(index: &Index, branch: &DatasetPath, dataset: &DatasetPath) -> Planned {
    rules::check_branch("reinstate", branch)?;
    if rules::is_branch(dataset) {
        return Err(rules::invalid("reinstate", dataset, "it is the name of a branch"));
    }
    match (index.contains(branch), index.contains(dataset)) {
        (false, true) => return Ok(None),
        (false, false) => return Err(missing("reinstate", branch)),
        (true, true) => return Err(refuse("reinstate", dataset, StoreErrorKind::Exists)),
        (true, false) => {}
    }
    needs_parent(index, "reinstate", dataset)?;
    needs_no_child(index, "reinstate", branch)?;
    let mut plan = Plan::default();
    plan.rename(record(index, "reinstate", branch)?, dataset);
    Ok(Some(plan))
}

impl Plan {
    fn rename(&mut self, mut record: Record, to: &DatasetPath) {
        self.change.gone.push(std::mem::replace(&mut record.path, to.clone()));
        self.change.set.push(record);
    }
}

pub(super) fn destroy_branch(index: &Index, branch: &DatasetPath) -> Planned {
    rules::check_branch("destroy", branch)?;
    let Some(record) = index.record(branch) else { return Ok(None) };
    if !record.user.contains_key(MANAGED) {
        return Err(refuse("destroy", branch, StoreErrorKind::NotOurs));
    }
    needs_no_child(index, "destroy", branch)?;
    record.snapshots.iter().try_for_each(|s| needs_no_clone(index, branch, s.guid))?;
    let drop = record.snapshots.iter().map(|s| s.content).chain([record.content]).collect();
    let change = Change { gone: vec![branch.clone()], drop, ..Change::default() };
    Ok(Some(Plan { change, ..Plan::default() }))
}
