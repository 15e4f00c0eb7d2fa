//! The lossless rollback: a clone of the snapshot takes the dataset's place, the dataset becomes a branch.
//!
//! Each step is one change that ZFS makes whole; what exists tells how far an interrupted call came, and the same
//! call goes on from there:
//!
//! | `dataset` | `branch.new` | `branch` | what is next |
//! |---|---|---|---|
//! | yes | no | no | unmount, clone |
//! | yes | yes | no | promote, park, move the children, rename to `branch` |
//! | no | yes | yes | rename `branch.new` to `dataset` |
//! | yes | no | yes | mount, give back `canmount` and reservations; then done |
//!
//! Nobody sees the clone at `dataset` before its user properties are right: they were given when it was made.

use super::Faults;
use super::ZfsStore;
use super::branch;
use super::check;
use super::errors::Refusal;
use super::errors::fail;
use super::handle;
use super::handle::Handle;
use super::handle::Libzfs;
use super::mount_table;
use super::nvlist::NvList;
use super::open;
use super::read;
use super::read::NOTE;
use super::write;
use crate::BRANCHES;
use crate::Restore;
use crate::StoreError;
use crate::StoreErrorKind;

const OP: &str = "restore";
/// Note on the clone: the snapshot that was asked for, so that only the same request goes on.
const FROM: &str = "from";
/// What the clone is called until it takes the dataset's place.
const SUFFIX: &str = ".new";

/// The steps of [`Store::restore`](crate::Store::restore), for tests that stop after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreStep {
    /// The dataset and what is mounted inside it are unmounted.
    Unmounted,
    /// The snapshot is cloned.
    Cloned,
    /// The clone took over one piece of the history.
    Promoted,
    /// The dataset has the branch's properties.
    Parked,
    /// One child was moved below the clone.
    ChildMoved,
    /// The dataset is the branch.
    Retired,
    /// The clone is the dataset.
    Replaced,
    /// The dataset and what was inside it are mounted.
    Mounted,
    /// The dataset has its `canmount` and reservations back.
    Unparked,
}

impl RestoreStep {
    /// All steps in their order.
    pub const ALL: [Self; 9] = [
        Self::Unmounted,
        Self::Cloned,
        Self::Promoted,
        Self::Parked,
        Self::ChildMoved,
        Self::Retired,
        Self::Replaced,
        Self::Mounted,
        Self::Unparked,
    ];
}

impl Faults {
    fn after(self, step: RestoreStep, object: &str) -> Result<(), StoreError> {
        if self.stop_restore_after == Some(step) {
            return Err(fail(OP, object, StoreErrorKind::Io(format!("ordered to stop after {step:?}"))));
        }
        Ok(())
    }
}

/// Full names of one restore, and the request.
struct Names<'a> {
    dataset: String,
    clone: String,
    branch: String,
    from: String,
    request: &'a Restore,
}

/// What has to be mounted at the end.
enum Remount {
    /// The dataset itself, and these: what was mounted before.
    These(Vec<String>),
    /// The dataset and all below it that mount by themselves: an earlier call unmounted them and was interrupted.
    All,
}

impl ZfsStore {
    pub(super) fn restore_dataset(&self, lib: &Libzfs, request: &Restore) -> Result<(), StoreError> {
        check::branch(OP, &request.branch)?;
        let names = Names {
            dataset: self.full(&request.dataset),
            clone: format!("{}{SUFFIX}", self.full(&request.branch)),
            branch: self.full(&request.branch),
            from: self.full_snapshot(&request.from),
            request,
        };
        check::user(OP, &names.dataset, &request.user)?;
        check::user(OP, &names.dataset, &request.branch_user)?;
        check::snapshot_name(OP, &names.from)?;
        let in_branches =
            request.from.dataset.as_str().strip_prefix(BRANCHES).is_some_and(|r| r.starts_with('/'));
        if request.from.dataset != request.dataset && !in_branches {
            let text = format!("`{}` is a snapshot of neither the dataset nor a branch", request.from);
            return Err(fail(OP, names.dataset, StoreErrorKind::Invalid(text)));
        }
        let there = [&names.dataset, &names.clone, &names.branch].map(|name| handle::exists(name));
        let remount = match there {
            [true, false, false] => {
                let remount = self.begin(lib, &names)?;
                self.take_place(lib, &names)?;
                remount
            }
            [true, true, false] => {
                self.resume(lib, &names)?;
                self.take_place(lib, &names)?;
                Remount::All
            }
            [false, true, true] => {
                self.replace(&names)?;
                Remount::All
            }
            [true, false, true] => {
                if read::notes(&open(lib, OP, &names.dataset)?, &names.dataset).is_empty() {
                    return self.mount_if_was_ours(lib, &names.dataset);
                }
                Remount::All
            }
            [true, true, true] => return Err(fail(OP, names.branch, StoreErrorKind::Exists)),
            [false, _, _] => return Err(fail(OP, names.dataset, StoreErrorKind::NotFound)),
        };
        self.remount(lib, &names.dataset, &remount)?;
        self.faults.after(RestoreStep::Mounted, &names.dataset)?;
        // Last, because the notes tell a repeated call that something is left to do.
        self.unpark(lib, OP, &names.dataset)?;
        self.faults.after(RestoreStep::Unparked, &names.dataset)
    }

    /// Unmounts and clones. Whatever fails, the dataset stays as it was.
    fn begin(&self, lib: &Libzfs, names: &Names<'_>) -> Result<Remount, StoreError> {
        if !handle::exists(&names.from) {
            return Err(fail(OP, &names.from, StoreErrorKind::NotFound));
        }
        self.parent_of(OP, &names.branch)?;
        self.check_lengths(lib, names)?;
        let remount = self.unmount_for_restore(lib, &names.dataset)?;
        self.faults.after(RestoreStep::Unmounted, &names.dataset)?;
        let cloned = self.make_clone(lib, names);
        if cloned.is_err()
            && let Err(error) = self.remount(lib, &names.dataset, &remount)
        {
            tracing::error!(dataset = names.dataset, %error, "cannot be mounted again");
        }
        cloned?;
        self.faults.after(RestoreStep::Cloned, &names.dataset)?;
        Ok(remount)
    }

    /// Goes on with the clone that an interrupted call left.
    fn resume(&self, lib: &Libzfs, names: &Names<'_>) -> Result<(), StoreError> {
        let clone = open(lib, OP, &names.clone)?;
        match read::notes(&clone, &names.clone).get(FROM) {
            Some(from) if *from == names.request.from.to_string() => {}
            Some(from) => {
                let text = format!("an interrupted restore to `{from}` left it; repeat that one");
                return Err(fail(OP, &names.clone, StoreErrorKind::Busy(text)));
            }
            // The machine went down between the clone and its properties, which the kernel writes one after the
            // other. Nothing was written to it, so it may go.
            None if clone.text_of(c"written").as_deref() == Some("0") => {
                drop(clone);
                handle::destroy(&names.clone).map_err(|refusal| refusal.during(OP, &names.clone))?;
                self.make_clone(lib, names)?;
            }
            None => return Err(fail(OP, &names.clone, StoreErrorKind::Exists)),
        }
        self.unmount_for_restore(lib, &names.dataset).map(drop)
    }

    fn unmount_for_restore(&self, lib: &Libzfs, full: &str) -> Result<Remount, StoreError> {
        let mounts = mount_table(OP)?;
        if !mounts.is_mounted(full) {
            return Ok(Remount::All);
        }
        if read::mountpoint(&open(lib, OP, full)?).is_none() {
            let place = mounts.of(full).last().map(|p| p.display().to_string()).unwrap_or_default();
            let text = format!("it is mounted at {place} by something else than ZFS (`mountpoint=legacy`)");
            return Err(fail(OP, full, StoreErrorKind::Busy(text)));
        }
        let inside = mounts.inside(full);
        let order: Vec<String> = inside.iter().rev().cloned().chain([full.to_owned()]).collect();
        write::unmount_all(lib, &order, &mounts, OP)?;
        Ok(Remount::These(inside))
    }

    fn make_clone(&self, lib: &Libzfs, names: &Names<'_>) -> Result<(), StoreError> {
        let dataset = open(lib, OP, &names.dataset)?;
        let props =
            clone_properties(&dataset, names).map_err(|refusal| refusal.during(OP, &names.dataset))?;
        handle::clone(&names.clone, &names.from, &props).map_err(|refusal| refusal.during(OP, &names.from))
    }

    /// From the clone to both in place. Until the dataset is parked, a failure takes everything back.
    fn take_place(&self, lib: &Libzfs, names: &Names<'_>) -> Result<(), StoreError> {
        let mut promoted = Vec::new();
        let parked = self.promote_lineage(lib, names, &mut promoted).and_then(|()| {
            branch::park(&open(lib, OP, &names.dataset)?, &names.dataset, &names.request.branch_user)
                .map_err(|refusal| refusal.during(OP, &names.dataset))
        });
        if let Err(error) = parked {
            if self.faults == Faults::default() {
                self.abandon(lib, names, &promoted);
            }
            return Err(error);
        }
        self.faults.after(RestoreStep::Parked, &names.dataset)?;
        for child in branch::children(lib, OP, &names.dataset)? {
            let to = format!("{}{}", names.clone, child.strip_prefix(&names.dataset).unwrap_or_default());
            handle::rename(&child, &to).map_err(|refusal| refusal.during(OP, &child))?;
            self.faults.after(RestoreStep::ChildMoved, &names.dataset)?;
        }
        handle::rename(&names.dataset, &names.branch)
            .map_err(|refusal| refusal.during(OP, &names.dataset))?;
        self.faults.after(RestoreStep::Retired, &names.dataset)?;
        self.replace(names)
    }

    fn replace(&self, names: &Names<'_>) -> Result<(), StoreError> {
        handle::rename(&names.clone, &names.dataset).map_err(|refusal| refusal.during(OP, &names.clone))?;
        self.faults.after(RestoreStep::Replaced, &names.dataset)
    }

    /// Promotes the clone until it owns the whole history that belonged to the dataset and its branches. A snapshot
    /// outside (a golden image that the dataset was once cloned from) stays where it is.
    fn promote_lineage(
        &self,
        lib: &Libzfs,
        names: &Names<'_>,
        promoted: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        loop {
            let origin = open(lib, OP, &names.clone)?.text_of(c"origin").unwrap_or_default();
            let Some((owner, _)) = origin.split_once('@') else { return Ok(()) };
            let branches = format!("{}/{BRANCHES}/", self.root);
            if owner != names.dataset && !owner.starts_with(&branches) {
                return Ok(());
            }
            handle::promote(&names.clone).map_err(|(refusal, conflict)| match conflict {
                Some(name) => {
                    let text = format!(
                        "the histories of `{}` and of `{owner}` both have a snapshot `{name}`; \
                         rename one (`zfs rename`)",
                        names.from
                    );
                    fail(OP, &names.dataset, StoreErrorKind::Invalid(text))
                }
                None => refusal.during(OP, &names.dataset),
            })?;
            promoted.push(owner.to_owned());
            self.faults.after(RestoreStep::Promoted, &names.dataset)?;
        }
    }

    /// Takes the clone back, and gives the history to those who had it. What an earlier, interrupted call promoted is
    /// not known here: then the clone stays for the next call, and only the mounts are taken back.
    fn abandon(&self, lib: &Libzfs, names: &Names<'_>, promoted: &[String]) {
        let undo = || -> Result<(), Refusal> {
            promoted
                .iter()
                .rev()
                .try_for_each(|owner| handle::promote(owner).map_err(|(refusal, _)| refusal))?;
            handle::destroy(&names.clone)
        };
        if let Err(refusal) = undo() {
            tracing::error!(dataset = names.clone, error = %refusal.kind, "left by a refused restore");
        }
        if let Err(error) = self.remount(lib, &names.dataset, &Remount::All) {
            tracing::error!(dataset = names.dataset, %error, "cannot be mounted again after a refused restore");
        }
    }

    /// The longest name below the dataset must fit while it is below the clone, which has a longer name.
    fn check_lengths(&self, lib: &Libzfs, names: &Names<'_>) -> Result<(), StoreError> {
        let mut longest = 0;
        read::descend(&open(lib, OP, &names.dataset)?, &mut |child| {
            longest = longest.max(child.name().len());
            Ok(())
        })
        .map_err(|refusal| refusal.during(OP, &names.dataset))?;
        // Volumes and snapshots below have names of their own; the kernel refuses those, and that is resumed.
        let during = (longest + names.clone.len()).saturating_sub(names.dataset.len()).max(names.clone.len());
        if during > check::MAX_NAME {
            let text = format!("a name would have {during} bytes on the way; ZFS takes {}", check::MAX_NAME);
            return Err(fail(OP, &names.dataset, StoreErrorKind::Invalid(text)));
        }
        Ok(())
    }

    /// A finished restore that is asked for again: the mount may be what is missing.
    fn mount_if_was_ours(&self, lib: &Libzfs, full: &str) -> Result<(), StoreError> {
        write::mount_by_itself(&open(lib, OP, full)?, &mount_table(OP)?, OP)
    }

    fn remount(&self, lib: &Libzfs, full: &str, remount: &Remount) -> Result<(), StoreError> {
        let mounts = mount_table(OP)?;
        let dataset = open(lib, OP, full)?;
        match remount {
            Remount::These(inside) => {
                write::mount_if_possible(&dataset, &mounts, OP)?;
                inside
                    .iter()
                    .try_for_each(|name| write::mount_if_possible(&open(lib, OP, name)?, &mounts, OP))
            }
            Remount::All => {
                write::mount_by_itself(&dataset, &mounts, OP)?;
                let mut below = Vec::new();
                read::descend(&dataset, &mut |child| {
                    below.push(child.name());
                    Ok(())
                })
                .map_err(|refusal| refusal.during(OP, full))?;
                below.iter().try_for_each(|name| write::mount_by_itself(&open(lib, OP, name)?, &mounts, OP))
            }
        }
    }
}

/// What the clone is made with: the dataset's own native properties, exactly the request's user properties, and
/// the notes. Encryption belongs to the origin and cannot be given.
fn clone_properties(dataset: &Handle<'_>, names: &Names<'_>) -> Result<NvList, Refusal> {
    let mut props = NvList::new();
    let local = read::native_props(dataset, &names.dataset);
    for prop in read::sourced(dataset.props()) {
        let name = prop.name.to_string_lossy();
        let parked = branch::PARKED.iter().any(|(parked, _)| *parked == name);
        let key = name.starts_with("key") || name.starts_with("encryption") || name == "pbkdf2iters";
        if local.contains_key(name.as_ref()) && !parked && !key {
            props.copy(prop.name, prop.value);
        }
    }
    let canmount = c"canmount";
    props.copy(canmount, super::nvlist::Value::Number(2));
    for (name, was) in branch::notes_for(dataset, &names.dataset) {
        props.text(&format!("{NOTE}{name}"), &was)?;
    }
    props.text(&format!("{NOTE}{FROM}"), &names.request.from.to_string())?;
    names.request.user.iter().try_for_each(|(name, value)| props.text(name, value))?;
    Ok(props)
}
