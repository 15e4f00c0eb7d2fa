//! Datasets: which are created, which properties change, which are released, and in which unit.

use super::Action;
use super::Deploy;
use super::drift::DRIFT;
use super::drift::marks;
use super::select::WantedDataset;
use super::select::note;
use crate::naming::branch_path;
use crate::observed::ObservedDataset;
use crate::plan::Note;
use crate::plan::PlannedStep;
use crate::plan::PropEdit;
use crate::plan::Severity;
use crate::plan::Step;
use crate::props::Role;
use crate::props::created_props;
use crate::props::name;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::DatasetPath;

/// Native properties whose value is a number of bytes, 0 for none.
pub(crate) const SIZES: [&str; 8] = [
    "quota",
    "refquota",
    "reservation",
    "refreservation",
    "recordsize",
    "special_small_blocks",
    "volblocksize",
    "volsize",
];

/// The text in which stores give a native property back.
fn canonical(property: &str, value: &str) -> String {
    if !SIZES.contains(&property) {
        return value.to_owned();
    }
    if value == "none" {
        return "0".to_owned();
    }
    value
        .parse::<u64>()
        .ok()
        .or_else(|| zed_spec::parse_size(value).ok())
        .map_or_else(|| value.to_owned(), |bytes| bytes.to_string())
}

/// The native properties that the spec asks for.
fn native_of(wanted: &WantedDataset<'_>) -> BTreeMap<String, String> {
    let Some(dataset) = wanted.declared else { return BTreeMap::new() };
    let zed_spec::Dataset { compression, quota, recordsize, mountpoint, atime, on: _, properties } = dataset;
    let mut native: BTreeMap<String, String> =
        properties.iter().map(|(key, value)| (key.clone(), canonical(key, value))).collect();
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            native.insert(key.to_owned(), value);
        }
    };
    put("compression", compression.clone());
    put("quota", quota.map(|bytes| bytes.to_string()));
    put("recordsize", recordsize.map(|bytes| bytes.to_string()));
    put("mountpoint", mountpoint.clone());
    put("atime", atime.map(|on| if on { "on" } else { "off" }.to_owned()));
    native
}

/// True when a dataset has all that the spec asks for. Says so without building the properties, because that
/// is the case for nearly all datasets of nearly all plans.
fn as_declared(wanted: &WantedDataset<'_>, found: &ObservedDataset) -> bool {
    let Some(dataset) = wanted.declared else { return true };
    let zed_spec::Dataset { compression, quota, recordsize, mountpoint, atime, on: _, properties } = dataset;
    let text = |key: &str, value: Option<&str>| {
        value.is_none_or(|value| found.native.get(key).is_some_and(|present| present == value))
    };
    let number = |key: &str, value: Option<u64>| {
        value.is_none_or(|value| found.native.get(key).is_some_and(|present| present.parse() == Ok(value)))
    };
    properties.is_empty()
        && text("compression", compression.as_deref())
        && number("quota", *quota)
        && number("recordsize", *recordsize)
        && text("mountpoint", mountpoint.as_deref())
        && text("atime", atime.map(|on| if on { "on" } else { "off" }))
}

/// Changes of a unit's datasets, before they become steps.
#[derive(Default)]
pub(super) struct DatasetChanges<'a> {
    /// Datasets to create, parents first.
    pub(super) create: BTreeSet<&'a DatasetPath>,
    /// Datasets to mount.
    pub(super) mount: BTreeSet<&'a DatasetPath>,
    /// Property changes with what takes them back.
    pub(super) edits: Vec<(PropEdit, PropEdit)>,
    /// Why, one for each edit.
    pub(super) why: Vec<String>,
}

impl DatasetChanges<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.mount.is_empty() && self.edits.is_empty()
    }
}

/// Where datasets are changed.
pub(super) struct Placed<'a> {
    /// In the unit `datasets`.
    pub(super) common: DatasetChanges<'a>,
    /// Parents that nobody declared.
    pub(super) containers: BTreeSet<DatasetPath>,
    /// With the apps of a component.
    pub(super) own: BTreeMap<usize, DatasetChanges<'a>>,
}

impl<'a> Deploy<'a> {
    /// Sorts every wanted dataset's changes into units.
    pub(super) fn place_datasets(&mut self, components: &[usize]) -> Placed<'a> {
        let mut placed =
            Placed { common: DatasetChanges::default(), containers: BTreeSet::new(), own: BTreeMap::new() };
        let mut absent: BTreeMap<&'a DatasetPath, Option<usize>> = BTreeMap::new();
        let (mut unmounted, mut lost, mut drifted) = (Vec::new(), Vec::new(), Vec::new());
        for (path, wanted) in &self.wanted {
            let owner =
                wanted.users.first().map(|user| components[*user]).filter(|_| !self.is_in_guest(path));
            let Some(found) = wanted.found else {
                match self.lost_above(path) {
                    Some(gone) => lost.push((*path, gone)),
                    None => {
                        absent.insert(path, owner);
                    }
                }
                continue;
            };
            let changes = match owner {
                Some(owner) => placed.own.entry(owner).or_default(),
                None => &mut placed.common,
            };
            if found.dataset.mountpoint.is_some() && !found.dataset.mounted {
                // One that was like this before it was declared stays so: adopting a host changes nothing.
                match self.input.heal && self.input.known.is_some_and(|known| known.contains(*path)) {
                    true => {
                        changes.mount.insert(path);
                    }
                    false => unmounted.push(*path),
                }
            }
            if let Some((edit, undo, why)) = self.edit(path, wanted) {
                let (wanted, drift) = self.split(edit, undo);
                drifted.extend(drift);
                if let Some((edit, undo)) = wanted {
                    changes.edits.push((edit, undo));
                    changes.why.push(why);
                }
            }
        }
        self.notes.append(&mut drifted);
        for path in unmounted {
            let deploy = &self.spec.name;
            let text = format!("it should be mounted and is not: `echo heal {deploy} > ctl` mounts it");
            self.notes.push(note(Severity::Warning, DRIFT, format!("dataset {path}"), text));
        }
        for (path, gone) in lost {
            self.say_lost(path, &gone);
        }
        self.say_strangers();
        self.place_absent(absent, &mut placed);
        placed
    }

    /// A dataset that another unit's dataset lies below is created before both.
    fn place_absent(&self, mut absent: BTreeMap<&'a DatasetPath, Option<usize>>, placed: &mut Placed<'a>) {
        let mut shared: Vec<&'a DatasetPath> = Vec::new();
        for (path, owner) in &absent {
            let mut at = path.parent();
            while let Some(parent) = at.filter(|parent| !self.world.exists(parent)) {
                match absent.get_key_value(&parent) {
                    Some((key, above)) if above != owner => shared.push(key),
                    Some(_) => {}
                    None => {
                        placed.containers.insert(parent.clone());
                    }
                }
                at = parent.parent();
            }
        }
        // What lies above a shared one is then shared, too: parents are created before children.
        for path in shared {
            let mut at = Some(path.clone());
            while let Some(current) = at {
                if let Some(owner) = absent.get_mut(&current) {
                    *owner = None;
                }
                at = current.parent();
            }
        }
        // A container is created in the common unit, so what is declared above one has to be there, too.
        for container in &placed.containers {
            let mut at = container.parent();
            while let Some(current) = at {
                if let Some(owner) = absent.get_mut(&current) {
                    *owner = None;
                }
                at = current.parent();
            }
        }
        for (path, owner) in absent {
            match owner {
                Some(owner) => placed.own.entry(owner).or_default().create.insert(path),
                None => placed.common.create.insert(path),
            };
        }
    }

    /// What is done of an edit, and what is only said: as long as nobody asks for a repair, properties change only
    /// with the app that they are about.
    fn split(&self, edit: PropEdit, undo: PropEdit) -> (Option<(PropEdit, PropEdit)>, Option<Note>) {
        if self.input.heal {
            return (Some((edit, undo)), None);
        }
        let part = |edit: &PropEdit, native: bool| PropEdit {
            path: edit.path.clone(),
            native: if native { edit.native.clone() } else { BTreeMap::new() },
            user: if native { BTreeMap::new() } else { edit.user.clone() },
        };
        let hands_over = self.changes_hands(&edit.path);
        let (done, said) = match (hands_over, edit.user.is_empty(), edit.native.is_empty()) {
            (true, false, true) => (Some((edit, undo)), None),
            (true, false, false) => {
                (Some((part(&edit, false), part(&undo, false))), Some((part(&edit, true), part(&undo, true))))
            }
            _ => (None, Some((edit, undo))),
        };
        (done, said.map(|(edit, undo)| self.drifted(&edit, &undo)))
    }

    /// What has to change on a dataset that is there.
    fn edit(&self, path: &DatasetPath, wanted: &WantedDataset<'_>) -> Option<(PropEdit, PropEdit, String)> {
        let seen = wanted.found?;
        let found = seen.dataset;
        let mut native = BTreeMap::new();
        if !as_declared(wanted, found) {
            native = native_of(wanted);
            native.retain(|key, value| match found.native.get(key) {
                Some(present) => present != value,
                None => !(value == "0" && SIZES.contains(&key.as_str())),
            });
        }
        let user = marks(&seen, self.spec.name.as_str(), wanted.role);
        if native.is_empty() && user.is_empty() {
            return None;
        }
        let why = if native.is_empty() { "taken over by this deploy" } else { "the spec asks for it" };
        let before = |keys: &BTreeMap<String, String>, present: &BTreeMap<String, String>| {
            keys.keys().map(|key| (key.clone(), present.get(key).cloned())).collect::<BTreeMap<_, _>>()
        };
        let undo = PropEdit {
            path: path.clone(),
            native: before(&native, &found.native),
            user: before(&user, &found.user),
        };
        let some =
            |changes: BTreeMap<String, String>| changes.into_iter().map(|(k, v)| (k, Some(v))).collect();
        Some((PropEdit { path: path.clone(), native: some(native), user: some(user) }, undo, why.to_owned()))
    }

    /// Creation of a wanted dataset.
    fn create(&self, path: &DatasetPath, out: &mut Vec<PlannedStep>) {
        let Some(wanted) = self.wanted.get(path) else { return };
        let user = created_props(wanted.role, Some(&self.spec.name), self.input.run);
        self.push_create(path, native_of(wanted), user, "it is declared and not there", out);
    }

    /// Creation of a parent that nobody declared. It belongs to no deploy: others may come below it.
    pub(super) fn create_container(&self, path: &DatasetPath, out: &mut Vec<PlannedStep>) {
        let user = created_props(Role::Container, None, self.input.run);
        self.push_create(path, BTreeMap::new(), user, "a parent of what is declared", out);
    }

    fn push_create(
        &self,
        path: &DatasetPath,
        native: BTreeMap<String, String>,
        user: BTreeMap<String, String>,
        why: &str,
        out: &mut Vec<PlannedStep>,
    ) {
        let branch = branch_path(path, self.input.run, "");
        out.push(PlannedStep {
            step: Step::CreateDataset { path: path.clone(), native, user },
            undo: vec![Step::Retire { dataset: path.clone(), branch }],
            why: why.to_owned(),
        });
    }

    /// Steps that make these changes.
    pub(super) fn dataset_steps(&self, changes: &DatasetChanges<'_>, out: &mut Vec<PlannedStep>) {
        for path in &changes.create {
            self.create(path, out);
        }
        for path in &changes.mount {
            out.push(PlannedStep {
                step: Step::MountDataset { path: (*path).clone() },
                undo: Vec::new(),
                why: "it should be mounted and is not".to_owned(),
            });
        }
        if changes.edits.is_empty() {
            return;
        }
        let (edits, undo) = changes.edits.iter().cloned().unzip();
        let why: BTreeSet<&str> = changes.why.iter().map(String::as_str).collect();
        out.push(PlannedStep {
            step: Step::SetProps { changes: edits },
            undo: vec![Step::SetProps { changes: undo }],
            why: why.into_iter().collect::<Vec<_>>().join("; "),
        });
    }

    /// Datasets that this deploy had and no longer declares. One that an app stays on is not released yet.
    pub(super) fn released(&self) -> Vec<&'a DatasetPath> {
        let stays = |node: &&super::Node<'a>| !matches!(node.action, Action::Remove | Action::Deploy);
        let occupied: BTreeSet<&DatasetPath> = self
            .nodes
            .iter()
            .filter(stays)
            .filter_map(|node| node.located)
            .map(|found| found.dataset)
            .collect();
        let mut released = self.no_longer_declared();
        released.retain(|path| !occupied.contains(path) && (self.input.heal || !self.is_stranger(path)));
        released
    }

    /// Datasets of this deploy that the spec no longer has: two sorted lists, one walk.
    pub(super) fn no_longer_declared(&self) -> Vec<&'a DatasetPath> {
        let stamped = self.world.by_deploy.get(self.spec.name.as_str()).into_iter().flatten().copied();
        let mut declared = self.wanted.keys().copied().peekable();
        stamped
            .filter(|path| {
                while declared.next_if(|other| other < path).is_some() {}
                declared.peek() != Some(path)
            })
            .collect()
    }
}

/// The edit that releases a dataset, and what takes it back.
pub(super) fn release_edit(path: &DatasetPath, deploy: &str) -> (PropEdit, PropEdit) {
    let edit = |value: Option<&str>| PropEdit {
        path: path.clone(),
        native: BTreeMap::new(),
        user: BTreeMap::from([(name::DEPLOY.to_owned(), value.map(str::to_owned))]),
    };
    (edit(None), edit(Some(deploy)))
}
