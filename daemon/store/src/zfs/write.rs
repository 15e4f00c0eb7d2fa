//! Simple changes: create, set, take and destroy snapshots, mount.

use super::ZfsStore;
use super::check;
use super::errors::fail;
use super::handle;
use super::handle::Handle;
use super::handle::Kind;
use super::handle::Libzfs;
use super::mount_table;
use super::mounts;
use super::mounts::Mounts;
use super::nvlist::NvList;
use super::open;
use super::program;
use super::program::Outcome;
use super::read;
use crate::Create;
use crate::PropChange;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::TakeSnapshot;
use crate::UserProps;
use std::collections::BTreeSet;

/// On snapshots whose stamping was interrupted, where there are no channel programs.
const UNFINISHED: &str = "com.zed.store:unfinished";

/// A changed user property: dataset, name, new value.
type UserChange = (String, String, Option<String>);

impl ZfsStore {
    pub(super) fn create_dataset(&self, lib: &Libzfs, request: &Create) -> Result<(), StoreError> {
        const OP: &str = "create";
        let full = self.full(&request.path);
        check::user(OP, &full, &request.user)?;
        if let Ok(existing) = lib.open(&full, Kind::Dataset) {
            let mounts = mount_table(OP)?;
            return if self.is_same(&existing, request, &mounts) {
                mount_by_itself(&existing, &mounts, OP)
            } else {
                Err(fail(OP, full, StoreErrorKind::Exists))
            };
        }
        let parent = full.rsplit_once('/').map_or(full.as_str(), |(parent, _)| parent);
        if !handle::exists(parent) {
            return Err(fail(OP, full, StoreErrorKind::NoParent));
        }
        let mut props = NvList::new();
        for (name, value) in request.native.iter().chain(&request.user) {
            props.text(name, value).map_err(|e| super::Refusal::from(e).during(OP, &full))?;
        }
        lib.create(&full, &props).map_err(|refusal| refusal.during(OP, &full))?;
        let created = open(lib, OP, &full)?;
        mount_by_itself(&created, &Mounts::default(), OP).inspect_err(|_| {
            // All or nothing. If this fails as well, the dataset is there unmounted and the call may be repeated.
            drop(handle::destroy(&full));
        })
    }

    /// Has the dataset the same local properties as the request? Properties fixed at creation (`casesensitivity`)
    /// have no local source, so those are compared by value.
    fn is_same(&self, existing: &Handle<'_>, request: &Create, mounts: &Mounts) -> bool {
        let Some(found) = read::dataset(&self.root, existing, mounts) else { return false };
        let natives_of_request = request
            .native
            .iter()
            .all(|(name, value)| read::effective(existing, name).as_ref() == Some(value));
        found.user == request.user
            && found.native.keys().all(|name| request.native.contains_key(name))
            && natives_of_request
    }

    /// Native properties go through libzfs, a dataset at a time (they may remount); then all user properties of all
    /// datasets in one transaction, or, without root, in one a dataset.
    pub(super) fn set_properties(&self, lib: &Libzfs, changes: &[PropChange]) -> Result<(), StoreError> {
        const OP: &str = "set properties of";
        let mut users: Vec<UserChange> = Vec::new();
        for change in changes {
            let full = self.full(&change.path);
            for (name, value) in &change.user {
                check::property(OP, &full, name)?;
                if let Some(value) = value {
                    check::value(OP, &full, name, value)?;
                }
                users.push((full.clone(), name.clone(), value.clone()));
            }
            if !handle::exists(&full) {
                return Err(fail(OP, full, StoreErrorKind::NotFound));
            }
        }
        for change in changes.iter().filter(|c| !c.native.is_empty()) {
            let full = self.full(&change.path);
            let dataset = open(lib, OP, &full)?;
            self.set_native(&dataset, change).map_err(|refusal| refusal.during(OP, &full))?;
        }
        self.set_users(lib, OP, &users)
    }

    fn set_native(&self, dataset: &Handle<'_>, change: &PropChange) -> Result<(), super::Refusal> {
        let mut props = NvList::new();
        let mut any = false;
        for (name, value) in &change.native {
            if let Some(value) = value {
                props.text(name, value)?;
                any = true;
            }
        }
        if any {
            dataset.set(&props)?;
        }
        let local = read::native_props(dataset, &dataset.name());
        let removed = change.native.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name);
        removed.filter(|name| local.contains_key(*name)).try_for_each(|name| dataset.inherit(name))
    }

    /// Sets and removes user properties in one transaction; without root, one dataset after the other.
    pub(super) fn set_users(
        &self,
        lib: &Libzfs,
        operation: &'static str,
        changes: &[UserChange],
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        match program::set(self.pool(), changes) {
            Ok(Outcome::Done) => return Ok(()),
            Ok(Outcome::NotAllowed) => {}
            Err((refusal, object)) => {
                return Err(refusal.during(operation, object.unwrap_or_else(|| self.root.clone())));
            }
        }
        let datasets: BTreeSet<&String> = changes.iter().map(|(dataset, _, _)| dataset).collect();
        for full in datasets {
            let dataset = open(lib, operation, full)?;
            let of_this = || changes.iter().filter(|(d, _, _)| d == full);
            let mut props = NvList::new();
            let apply = || -> Result<(), super::Refusal> {
                for (_, name, value) in of_this() {
                    match value {
                        Some(value) => props.text(name, value)?,
                        None => dataset.inherit(name)?,
                    }
                }
                if of_this().any(|(_, _, value)| value.is_some()) { dataset.set(&props) } else { Ok(()) }
            };
            let mut apply = apply;
            apply().map_err(|refusal| refusal.during(operation, full))?;
        }
        Ok(())
    }

    pub(super) fn take_snapshots(&self, lib: &Libzfs, set: &[TakeSnapshot]) -> Result<(), StoreError> {
        const OP: &str = "snapshot";
        let mut wanted: Vec<(String, &UserProps)> = Vec::new();
        let mut datasets = BTreeSet::new();
        for take in set {
            let full = self.full_snapshot(&take.id);
            check::snapshot_name(OP, &full)?;
            check::user(OP, &full, &take.user)?;
            if !datasets.insert(&take.id.dataset) {
                let text = "two snapshots of one dataset cannot be of one instant".to_owned();
                return Err(fail(OP, full, StoreErrorKind::Invalid(text)));
            }
            if !handle::exists(&self.full(&take.id.dataset)) {
                return Err(fail(OP, full, StoreErrorKind::NotFound));
            }
            wanted.push((full, &take.user));
        }
        let Some((_, first)) = wanted.first() else { return Ok(()) };
        let there = wanted.iter().filter(|(full, _)| handle::exists(full)).count();
        if there > 0 {
            return self.accept_existing(lib, &wanted, there);
        }
        let names: Vec<String> = wanted.iter().map(|(full, _)| full.clone()).collect();
        if wanted.iter().all(|(_, user)| user == first) {
            let stamps = text_list(first).map_err(|refusal| refusal.during(OP, &self.root))?;
            return handle::snapshot(&names, &stamps).map_err(|refusal| refusal.during(OP, names.join(" ")));
        }
        let stamps: Vec<(String, String, String)> = wanted
            .iter()
            .flat_map(|(full, user)| user.iter().map(|(n, v)| (full.clone(), n.clone(), v.clone())))
            .collect();
        match program::snapshot(self.pool(), &names, &stamps) {
            Ok(Outcome::Done) => Ok(()),
            Ok(Outcome::NotAllowed) => self.take_then_stamp(lib, &wanted),
            Err((refusal, object)) => Err(refusal.during(OP, object.unwrap_or_else(|| names.join(" ")))),
        }
    }

    /// Some of the set exist: fine when all do, with the wanted stamps.
    fn accept_existing(
        &self,
        lib: &Libzfs,
        wanted: &[(String, &UserProps)],
        there: usize,
    ) -> Result<(), StoreError> {
        const OP: &str = "snapshot";
        let mut unfinished = false;
        for (full, user) in wanted {
            let exists = || fail(OP, full, StoreErrorKind::Exists);
            let Ok(snapshot) = lib.open(full, Kind::Snapshot) else { continue };
            let noted = read::notes(&snapshot, full).contains_key("unfinished");
            let found = read::snapshot(&self.root, &snapshot).ok_or_else(exists)?;
            let stamped = if noted {
                found.user.iter().all(|(n, v)| user.get(n) == Some(v))
            } else {
                found.user == **user
            };
            if !stamped || there != wanted.len() {
                return Err(exists());
            }
            unfinished |= noted;
        }
        if unfinished { self.stamp(lib, wanted) } else { Ok(()) }
    }

    /// Without channel programs: the snapshots are of one instant, the stamps follow. If a stamp fails, all are
    /// destroyed again. If this process is killed between, the note says so, and the repeated call finishes.
    fn take_then_stamp(&self, lib: &Libzfs, wanted: &[(String, &UserProps)]) -> Result<(), StoreError> {
        const OP: &str = "snapshot";
        let names: Vec<String> = wanted.iter().map(|(full, _)| full.clone()).collect();
        let mut note = NvList::new();
        note.text(UNFINISHED, "on").map_err(|e| super::Refusal::from(e).during(OP, &self.root))?;
        handle::snapshot(&names, &note).map_err(|refusal| refusal.during(OP, names.join(" ")))?;
        self.stamp(lib, wanted).inspect_err(|_| {
            if let Err((refusal, _)) = handle::destroy_snapshots(&names) {
                tracing::warn!(snapshots = names.join(" "), error = %refusal.kind, "unstamped snapshots are left");
            }
        })
    }

    fn stamp(&self, lib: &Libzfs, wanted: &[(String, &UserProps)]) -> Result<(), StoreError> {
        const OP: &str = "stamp";
        for (full, user) in wanted {
            let apply = || -> Result<(), super::Refusal> {
                let snapshot = lib.open(full, Kind::Snapshot)?;
                if !user.is_empty() {
                    snapshot.set(&text_list(user)?)?;
                }
                snapshot.inherit(UNFINISHED)
            };
            apply().map_err(|refusal| refusal.during(OP, full))?;
        }
        Ok(())
    }

    pub(super) fn destroy_snapshot_set(&self, lib: &Libzfs, names: &[String]) -> Result<(), StoreError> {
        const OP: &str = "destroy";
        names.iter().try_for_each(|full| check::snapshot_name(OP, full))?;
        let there: Vec<String> = names.iter().filter(|full| handle::exists(full)).cloned().collect();
        for full in &there {
            if let Some(user) = held_by(lib, full) {
                return Err(fail(OP, full, StoreErrorKind::Busy(user)));
            }
        }
        if there.is_empty() {
            return Ok(());
        }
        handle::destroy_snapshots(&there).map_err(|(refusal, object)| {
            // EEXIST is the kernel's word for "has clones": made between the check and the call.
            let kind = match refusal.kind {
                StoreErrorKind::Exists => StoreErrorKind::Busy("a clone was made of it just now".to_owned()),
                other => other,
            };
            fail(OP, object.unwrap_or_else(|| there.join(" ")), kind)
        })
    }
}

fn text_list(user: &UserProps) -> Result<NvList, super::Refusal> {
    let mut list = NvList::new();
    user.iter().try_for_each(|(name, value)| list.text(name, value))?;
    Ok(list)
}

/// What keeps a snapshot from being destroyed: its clones and its holds.
pub(super) fn held_by(lib: &Libzfs, full: &str) -> Option<String> {
    let clones = read::clone_names(&lib.open(full, Kind::Snapshot).ok()?);
    if !clones.is_empty() {
        return Some(format!("the clones {} came from it", clones.join(", ")));
    }
    let tags = handle::holds(full).ok()?;
    (!tags.is_empty()).then(|| format!("it is held by {} (`zfs holds {full}`)", tags.join(", ")))
}

/// Mounts it unless it is mounted, or may not be (`canmount=off`, no mountpoint).
pub(super) fn mount_if_possible(
    dataset: &Handle<'_>,
    mounts: &Mounts,
    operation: &'static str,
) -> Result<(), StoreError> {
    let full = dataset.name();
    if mounts.is_mounted(&full) || read::mountpoint(dataset).is_none() {
        return Ok(());
    }
    dataset.mount().map_err(|refusal| {
        // As a normal user on Linux the mount itself is refused by the kernel, delegation or not.
        let kind = match refusal.kind {
            StoreErrorKind::Io(text) | StoreErrorKind::Busy(text) if !nix::unistd::geteuid().is_root() => {
                StoreErrorKind::Permission(format!(
                    "{text}; only root mounts on Linux: use `canmount=noauto` or `mountpoint=legacy`"
                ))
            }
            other => other,
        };
        fail(operation, full, kind)
    })
}

/// Mounts it if `zfs mount -a` would.
pub(super) fn mount_by_itself(
    dataset: &Handle<'_>,
    mounts: &Mounts,
    operation: &'static str,
) -> Result<(), StoreError> {
    if read::mounts_by_itself(dataset) { mount_if_possible(dataset, mounts, operation) } else { Ok(()) }
}

/// Unmounts datasets in order; if one refuses, mounts those before it again and says who uses it.
pub(super) fn unmount_all(
    lib: &Libzfs,
    names: &[String],
    mounts: &Mounts,
    operation: &'static str,
) -> Result<(), StoreError> {
    for (at, full) in names.iter().enumerate() {
        let refusal = match lib.open(full, Kind::Dataset).and_then(|dataset| dataset.unmount()) {
            Ok(()) => continue,
            Err(refusal) => refusal,
        };
        for again in names[..at].iter().rev() {
            let mounted = lib.open(again, Kind::Dataset).and_then(|dataset| dataset.mount());
            if let Err(refusal) = mounted {
                tracing::error!(dataset = again, error = %refusal.kind, "cannot be mounted again");
            }
        }
        let place = mounts.of(full).last().cloned().unwrap_or_default();
        let users = mounts::users_of(&place);
        let kind = match refusal.kind {
            StoreErrorKind::Busy(_) | StoreErrorKind::Io(_) if !users.is_empty() => {
                StoreErrorKind::Busy(format!("{} is used by {}", place.display(), users.join(", ")))
            }
            StoreErrorKind::Busy(text) => StoreErrorKind::Busy(format!("{}: {text}", place.display())),
            other => other,
        };
        return Err(fail(operation, full, kind));
    }
    Ok(())
}
