//! ZFS's primitives on the simulated state: insert, rename, clone, promote, and the checks before them.

use super::state::SimDataset;
use super::state::SimSnapshot;
use super::state::State;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::UserProps;
use crate::rules;
use crate::rules::refuse;
use std::collections::BTreeMap;
use std::sync::Arc;
use zed_spec::DatasetPath;

impl State {
    pub(super) fn next_guid(&mut self) -> u64 {
        self.last_guid += 1;
        self.last_guid
    }

    pub(super) fn find(
        &mut self,
        operation: &'static str,
        path: &DatasetPath,
    ) -> Result<&mut SimDataset, StoreError> {
        match self.datasets.get_mut(path) {
            Some(found) => Ok(Arc::make_mut(found)),
            None => Err(refuse(operation, path, StoreErrorKind::NotFound)),
        }
    }

    pub(super) fn needs_space(
        &self,
        operation: &'static str,
        object: impl ToString,
    ) -> Result<(), StoreError> {
        match self.available {
            0 => Err(refuse(operation, object, StoreErrorKind::NoSpace)),
            _ => Ok(()),
        }
    }

    pub(super) fn needs_parent(&self, operation: &'static str, path: &DatasetPath) -> Result<(), StoreError> {
        match path.parent() {
            Some(parent) if !self.datasets.contains_key(&parent) => {
                Err(refuse(operation, path, StoreErrorKind::NoParent))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn needs_idle(&self, operation: &'static str, path: &DatasetPath) -> Result<(), StoreError> {
        match self.busy.get(path) {
            Some(reason) => Err(refuse(operation, path, StoreErrorKind::Busy(reason.clone()))),
            None => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, path: &DatasetPath, dataset: SimDataset) {
        self.datasets.insert(path.clone(), Arc::new(dataset));
        self.mount_if_possible(path);
    }

    pub(super) fn mount_if_possible(&mut self, path: &DatasetPath) {
        let can = self.mountpoint(path).is_some();
        if let Some(found) = self.datasets.get_mut(path)
            && found.mounted != can
        {
            Arc::make_mut(found).mounted = can;
        }
    }

    /// `zfs rename`: the dataset and all below it. Everything is mounted at its new place, if it may be.
    pub(super) fn rename(&mut self, from: &DatasetPath, to: &DatasetPath) -> Result<(), StoreError> {
        let mut moved = self.children(from);
        moved.insert(0, from.clone());
        for old in moved {
            let Some(dataset) = self.datasets.remove(&old) else { continue };
            let rest = &old.as_str()[from.as_str().len()..];
            let new = DatasetPath::parse(&format!("{to}{rest}"))
                .map_err(|e| rules::invalid("rename", &old, e.to_string()))?;
            self.datasets.insert(new.clone(), dataset);
            self.mount_if_possible(&new);
        }
        Ok(())
    }

    /// `zfs clone`: a dataset with a snapshot's content and none of its properties, not mounted.
    pub(super) fn clone_of(&mut self, snapshot: &SimSnapshot, to: &DatasetPath) {
        let clone = SimDataset {
            guid: self.next_guid(),
            native: BTreeMap::new(),
            user: UserProps::new(),
            mounted: false,
            origin: Some(snapshot.guid),
            files: snapshot.files.clone(),
            snapshots: Vec::new(),
        };
        self.datasets.insert(to.clone(), Arc::new(clone));
    }

    /// `zfs promote`: the clone takes its origin and everything older over, and the former owner becomes the
    /// clone. A name that both have is refused.
    pub(super) fn promote(&mut self, clone: &DatasetPath) -> Result<(), StoreError> {
        let Some(origin) = self.find("promote", clone)?.origin else { return Ok(()) };
        let Some(owner) = self.owner(origin) else { return Ok(()) };
        let former = self.find("promote", &owner)?;
        let upto = former.snapshots.iter().position(|s| s.guid == origin).map_or(0, |at| at + 1);
        let taken: Vec<SimSnapshot> = former.snapshots.drain(..upto).collect();
        let above = former.origin.replace(origin);
        let promoted = self.find("promote", clone)?;
        if let Some(both) = taken.iter().find(|t| promoted.snapshots.iter().any(|s| s.name == t.name)) {
            let why = format!("its history would hold a snapshot `{}` twice", both.name);
            return Err(rules::invalid("promote", clone, why));
        }
        promoted.snapshots.splice(0..0, taken);
        promoted.origin = above;
        Ok(())
    }
}
