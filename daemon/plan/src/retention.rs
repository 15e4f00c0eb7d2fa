//! What is kept. Owns the choice of snapshots and branches that go, and never picks one that something needs.

use crate::naming::SNAPSHOT_PREFIX;
use crate::naming::branch_stem;
use crate::plan::PlannedStep;
use crate::plan::Step;
use crate::props::is_managed;
use crate::world::World;
use std::collections::BTreeSet;
use std::ops::Bound;
use zed_spec::DatasetPath;

/// One dataset's retention.
pub(crate) struct Retention<'p> {
    /// The dataset.
    pub(crate) dataset: &'p DatasetPath,
    /// How many snapshots and branches to keep.
    pub(crate) keep: u32,
    /// A snapshot that the plan takes of it and that stays on it.
    pub(crate) adds_snapshot: bool,
    /// A branch that the plan makes of it.
    pub(crate) adds_branch: bool,
    /// Snapshots that must stay: rollback targets, and what the plan restores.
    pub(crate) needed: &'p BTreeSet<String>,
    /// Branches that must stay.
    pub(crate) needed_branches: &'p BTreeSet<DatasetPath>,
    /// Newest snapshots that the plan moves away with a branch: no longer the dataset's own.
    pub(crate) moved: &'p BTreeSet<String>,
}

/// Adds the steps that destroy what is not kept: branches first, because they hold snapshots.
pub(crate) fn prune(world: &World<'_>, retention: &Retention<'_>, out: &mut Vec<PlannedStep>) {
    let gone = branches_to_destroy(world, retention);
    for branch in &gone {
        out.push(PlannedStep {
            step: Step::DestroyBranch { branch: branch.clone() },
            undo: Vec::new(),
            why: format!("keep {} branches of {}", retention.keep.max(1), retention.dataset),
        });
    }
    let set = snapshots_to_destroy(world, retention, &gone);
    if !set.is_empty() {
        out.push(PlannedStep {
            step: Step::DestroySnapshots { set },
            undo: Vec::new(),
            why: format!("keep {} snapshots of {}", retention.keep.max(1), retention.dataset),
        });
    }
}

/// The oldest branches beyond `keep`. One that another dataset depends on stays, unless that goes too.
fn branches_to_destroy(world: &World<'_>, retention: &Retention<'_>) -> Vec<DatasetPath> {
    if world.branches.is_empty() {
        return Vec::new();
    }
    let stem = branch_stem(retention.dataset);
    let Some(all) = world.branches.get(stem.as_str()) else { return Vec::new() };
    let keep = usize::try_from(retention.keep.max(1)).unwrap_or(usize::MAX);
    let keep = keep.saturating_sub(usize::from(retention.adds_branch));
    if all.len() <= keep {
        return Vec::new();
    }
    let mut by_age: Vec<(u64, &DatasetPath)> = all.iter().map(|path| (age(world, path), *path)).collect();
    by_age.sort();
    let excess = by_age.len() - keep;
    let candidates: Vec<&DatasetPath> = by_age
        .into_iter()
        .take(excess)
        .map(|(_, path)| path)
        .filter(|path| is_managed(world.user(path)) && !retention.needed_branches.contains(*path))
        .collect();
    let mut gone: Vec<DatasetPath> = Vec::new();
    // Each pass takes those that nothing but already taken ones depends on; a chain needs a pass a link.
    loop {
        let before = gone.len();
        for candidate in &candidates {
            if !gone.contains(candidate) && is_free(world, candidate, &gone) {
                gone.push((*candidate).clone());
            }
        }
        if gone.len() == before {
            return gone;
        }
    }
}

/// True when only destroyed datasets are clones of the branch's snapshots, and no dataset is below it.
fn is_free(world: &World<'_>, branch: &DatasetPath, gone: &[DatasetPath]) -> bool {
    let snapshots = world.observed.snapshots.get(branch);
    let clones_gone = snapshots
        .into_iter()
        .flatten()
        .all(|snapshot| snapshot.clones.iter().all(|clone| gone.contains(clone)));
    let below = format!("{branch}/");
    let children =
        world.observed.datasets.range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded)).next();
    clones_gone && children.is_none_or(|(path, _)| !path.as_str().starts_with(&below))
}

/// When a branch was made, in the store's own order: its newest snapshot, or the one it is a clone of. A first
/// deploy that failed has neither, holds the least, and counts as the oldest.
fn age(world: &World<'_>, branch: &DatasetPath) -> u64 {
    let own = world.observed.snapshots.get(branch).and_then(|list| list.last()).map(|newest| newest.txg);
    let origin = world.observed.datasets.get(branch).and_then(|dataset| dataset.origin.as_ref());
    let origin = origin.and_then(|(dataset, name)| {
        let list = world.observed.snapshots.get(dataset)?;
        list.iter().find(|snapshot| snapshot.name == *name).map(|snapshot| snapshot.txg)
    });
    own.max(origin).unwrap_or(0)
}

/// The oldest of our stamped snapshots beyond `keep`.
fn snapshots_to_destroy(
    world: &World<'_>,
    retention: &Retention<'_>,
    gone: &[DatasetPath],
) -> Vec<(DatasetPath, String)> {
    let Some(list) = world.observed.snapshots.get(retention.dataset) else { return Vec::new() };
    let keep = usize::try_from(retention.keep.max(1)).unwrap_or(usize::MAX);
    let keep = keep.saturating_sub(usize::from(retention.adds_snapshot));
    if list.len() <= keep {
        return Vec::new();
    }
    let ours: Vec<_> = list
        .iter()
        .filter(|s| {
            s.name.starts_with(SNAPSHOT_PREFIX) && is_managed(&s.user) && !retention.moved.contains(&s.name)
        })
        .collect();
    let excess = ours.len().saturating_sub(keep);
    ours[..excess]
        .iter()
        .filter(|snapshot| !retention.needed.contains(&snapshot.name))
        .filter(|snapshot| snapshot.clones.iter().all(|clone| gone.contains(clone)))
        .map(|snapshot| (retention.dataset.clone(), snapshot.name.clone()))
        .collect()
}
