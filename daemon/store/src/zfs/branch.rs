//! Branches: datasets put aside below `zed/branches`, never mounted and never holding a reservation.
//!
//! What a branch had to give up for that is noted on it (`com.zed.store:canmount`, `...:reservation`), so that it
//! gets it back when it becomes a dataset again. The notes are this store's own and are hidden from callers.

use super::ZfsStore;
use super::check;
use super::errors::Refusal;
use super::errors::fail;
use super::handle;
use super::handle::Handle;
use super::handle::Kind;
use super::handle::Libzfs;
use super::mount_table;
use super::nvlist::NvList;
use super::open;
use super::read;
use super::read::NOT_SET;
use super::read::NOTE;
use super::write;
use crate::MANAGED;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::UserProps;
use zed_spec::DatasetPath;

/// What a branch gives up, and what it has instead.
pub(super) const PARKED: [(&str, &str); 3] =
    [("canmount", "noauto"), ("reservation", "none"), ("refreservation", "none")];

/// The notes for a dataset that is to become a branch: those it has already, else what it has locally.
pub(super) fn notes_for(dataset: &Handle<'_>, full: &str) -> Vec<(&'static str, String)> {
    let noted = read::notes(dataset, full);
    let local = read::native_props(dataset, full);
    PARKED
        .into_iter()
        .filter_map(|(name, _)| {
            let value = noted.get(name).or_else(|| local.get(name));
            // A reservation that is not there needs no note; `canmount` is always changed.
            let value = value.cloned().or_else(|| (name == "canmount").then(|| NOT_SET.to_owned()))?;
            Some((name, value))
        })
        .collect()
}

/// Makes a dataset fit to be a branch, in one transaction, together with `user`. It must be unmounted.
pub(super) fn park(dataset: &Handle<'_>, full: &str, user: &UserProps) -> Result<(), Refusal> {
    let mut props = NvList::new();
    for (name, was) in notes_for(dataset, full) {
        props.text(&format!("{NOTE}{name}"), &was)?;
        if let Some((_, instead)) = PARKED.iter().find(|(parked, _)| *parked == name) {
            props.text(name, instead)?;
        }
    }
    user.iter().try_for_each(|(name, value)| props.text(name, value))?;
    dataset.set(&props)
}

impl ZfsStore {
    /// Gives a dataset back what it had before it was parked, and removes all notes.
    pub(super) fn unpark(&self, lib: &Libzfs, operation: &'static str, full: &str) -> Result<(), StoreError> {
        let dataset = open(lib, operation, full)?;
        let notes = read::notes(&dataset, full);
        let give_back = || -> Result<(), Refusal> {
            let mut props = NvList::new();
            let mut any = false;
            for (name, _) in PARKED {
                match notes.get(name).map(String::as_str) {
                    Some(NOT_SET) => dataset.inherit(name)?,
                    Some(value) => {
                        props.text(name, value)?;
                        any = true;
                    }
                    None => {}
                }
            }
            if any { dataset.set(&props) } else { Ok(()) }
        };
        give_back().map_err(|refusal| refusal.during(operation, full))?;
        let removals: Vec<_> =
            notes.keys().map(|name| (full.to_owned(), format!("{NOTE}{name}"), None)).collect();
        self.set_users(lib, operation, &removals)
    }

    pub(super) fn retire_dataset(
        &self,
        lib: &Libzfs,
        dataset: &DatasetPath,
        branch: &DatasetPath,
    ) -> Result<(), StoreError> {
        const OP: &str = "retire";
        check::branch(OP, branch)?;
        let (from, to) = (self.full(dataset), self.full(branch));
        match (handle::exists(&from), handle::exists(&to)) {
            (false, true) => return Ok(()),
            (false, false) => return Err(fail(OP, from, StoreErrorKind::NotFound)),
            (true, true) => return Err(fail(OP, to, StoreErrorKind::Exists)),
            (true, false) => {}
        }
        self.parent_of(OP, &to)?;
        let children = children(lib, OP, &from)?;
        if let Some(child) = children.first() {
            let text = format!("it has children ({child}); retire them first");
            return Err(fail(OP, from, StoreErrorKind::Busy(text)));
        }
        let mounts = mount_table(OP)?;
        let was_mounted = mounts.is_mounted(&from);
        if was_mounted {
            write::unmount_all(lib, std::slice::from_ref(&from), &mounts, OP)?;
        }
        let move_it = || -> Result<(), StoreError> {
            let handle = open(lib, OP, &from)?;
            park(&handle, &from, &UserProps::new()).map_err(|refusal| refusal.during(OP, &from))?;
            handle::rename(&from, &to).map_err(|refusal| refusal.during(OP, &from))
        };
        move_it().inspect_err(|_| {
            // Nothing was renamed: it stays what it was.
            let back = self
                .unpark(lib, OP, &from)
                .and_then(|()| if was_mounted { self.mount_again(lib, OP, &from) } else { Ok(()) });
            if let Err(error) = back {
                tracing::error!(dataset = from, %error, "cannot be put back as it was");
            }
        })
    }

    pub(super) fn reinstate_branch(
        &self,
        lib: &Libzfs,
        branch: &DatasetPath,
        dataset: &DatasetPath,
    ) -> Result<(), StoreError> {
        const OP: &str = "reinstate";
        check::branch(OP, branch)?;
        let (from, to) = (self.full(branch), self.full(dataset));
        match (handle::exists(&from), handle::exists(&to)) {
            (false, false) => return Err(fail(OP, from, StoreErrorKind::NotFound)),
            (true, true) => return Err(fail(OP, to, StoreErrorKind::Exists)),
            (true, false) => {
                self.parent_of(OP, &to)?;
                handle::rename(&from, &to).map_err(|refusal| refusal.during(OP, &from))?;
            }
            // Renamed by an earlier call: what is below finishes it.
            (false, true) => {}
        }
        self.unpark(lib, OP, &to)?;
        write::mount_by_itself(&open(lib, OP, &to)?, &mount_table(OP)?, OP)
    }

    pub(super) fn mount_again(
        &self,
        lib: &Libzfs,
        operation: &'static str,
        full: &str,
    ) -> Result<(), StoreError> {
        write::mount_if_possible(&open(lib, operation, full)?, &mount_table(operation)?, operation)
    }

    pub(super) fn parent_of(&self, operation: &'static str, full: &str) -> Result<(), StoreError> {
        match full.rsplit_once('/') {
            Some((parent, _)) if !handle::exists(parent) => {
                Err(fail(operation, full, StoreErrorKind::NoParent))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn destroy_managed_branch(
        &self,
        lib: &Libzfs,
        branch: &DatasetPath,
    ) -> Result<(), StoreError> {
        const OP: &str = "destroy";
        check::branch(OP, branch)?;
        let full = self.full(branch);
        let dataset = match lib.open(&full, Kind::Dataset) {
            Ok(dataset) => dataset,
            Err(Refusal { kind: StoreErrorKind::NotFound }) => return Ok(()),
            Err(refusal) => return Err(refusal.during(OP, full)),
        };
        let mounts = mount_table(OP)?;
        let ours = read::dataset(&self.root, &dataset, &mounts);
        if !ours.is_some_and(|d| d.user.contains_key(MANAGED)) {
            return Err(fail(OP, full, StoreErrorKind::NotOurs));
        }
        if let Some(child) = children(lib, OP, &full)?.first() {
            return Err(fail(OP, full, StoreErrorKind::Busy(format!("it has children ({child})"))));
        }
        let mut snapshots = Vec::new();
        dataset
            .snapshots(&mut |snapshot| {
                snapshots.push(snapshot.name());
                Ok(())
            })
            .map_err(|refusal| refusal.during(OP, &full))?;
        for name in &snapshots {
            if let Some(user) = write::held_by(lib, name) {
                return Err(fail(OP, name, StoreErrorKind::Busy(user)));
            }
        }
        if mounts.is_mounted(&full) {
            write::unmount_all(lib, std::slice::from_ref(&full), &mounts, OP)?;
        }
        if !snapshots.is_empty() {
            handle::destroy_snapshots(&snapshots)
                .map_err(|(refusal, object)| refusal.during(OP, object.unwrap_or_else(|| full.clone())))?;
        }
        drop(dataset);
        handle::destroy(&full).map_err(|refusal| refusal.during(OP, full))
    }
}

/// Full names of the direct children.
pub(super) fn children(lib: &Libzfs, operation: &'static str, full: &str) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    open(lib, operation, full)?
        .children(&mut |child| {
            names.push(child.name());
            Ok(())
        })
        .map_err(|refusal| refusal.during(operation, full))?;
    Ok(names)
}
