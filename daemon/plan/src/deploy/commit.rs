//! The steps after the point of no return: the stamp, what is forgotten, and what retention no longer keeps.

use super::Action;
use super::Deploy;
use super::datasets_of;
use crate::instance::Instance;
use crate::plan::PropEdit;
use crate::plan::Step;
use crate::props::AppStamp;
use crate::props::Role;
use crate::props::created_props;
use crate::props::name;
use crate::props::stamp_edits;
use crate::retention::Retention;
use crate::retention::prune;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::DatasetPath;

use super::build::Draft;

impl<'a> Deploy<'a> {
    /// The point of no return: all stamps of the unit in one step.
    pub(super) fn stamp(&self, unit: &[usize], released: &[&'a DatasetPath], draft: &mut Draft) {
        let mut gone: BTreeSet<&str> = BTreeSet::new();
        let mut new: BTreeMap<&DatasetPath, Vec<AppStamp>> = BTreeMap::new();
        let mut touched: BTreeSet<&DatasetPath> = released.iter().copied().collect();
        for index in unit {
            let node = &self.nodes[*index];
            if let (Action::Remove | Action::Deploy | Action::Record, Some(found)) =
                (node.action, node.located)
            {
                touched.insert(found.dataset);
                gone.insert(node.name.as_str());
            }
            if let (Some(stamp), Some(app)) = (self.new_stamp(*index), node.app) {
                touched.insert(&app.dataset);
                gone.insert(node.name.as_str());
                new.entry(&app.dataset).or_default().push(stamp);
            }
        }
        let mut changes = Vec::new();
        for path in touched {
            let mut stamps = self.world.stamps_on(path);
            stamps.retain(|stamp| !gone.contains(stamp.app.as_str()));
            stamps.append(&mut new.remove(path).unwrap_or_default());
            let mut user = if self.world.exists(path) {
                stamp_edits(self.world.user(path), &stamps)
            } else {
                stamp_edits(&created_props(Role::App, Some(&self.spec.name), self.input.run), &stamps)
            };
            if released.contains(&path) {
                user.insert(name::DEPLOY.to_owned(), None);
            }
            if !user.is_empty() {
                changes.push(PropEdit { path: path.clone(), native: BTreeMap::new(), user });
            }
        }
        if !changes.is_empty() {
            draft.push(Step::SetProps { changes }, Vec::new(), "commit");
        }
    }

    pub(super) fn forget(&self, unit: &[usize], draft: &mut Draft) {
        for index in unit {
            let node = &self.nodes[*index];
            if node.action != Action::Remove {
                continue;
            }
            for (number, _) in self.input.observed.processes_of(node.name) {
                let instance = Instance::new(node.name, number);
                draft.push(Step::ForgetApp { instance }, Vec::new(), &node.why);
            }
        }
    }

    /// Retention, for every dataset of apps that nothing holds.
    pub(super) fn retain(
        &self,
        unit: &[usize],
        snapshot: Option<&(String, BTreeSet<DatasetPath>)>,
        draft: &mut Draft,
    ) {
        let policy = &self.spec.snapshots;
        // What this run created held nothing yet.
        let removed: BTreeSet<&DatasetPath> = unit
            .iter()
            .filter(|index| self.nodes[**index].action == Action::Remove)
            .filter_map(|index| self.nodes[*index].located)
            .flat_map(|found| self.datasets_of_removed(found))
            .collect();
        let only_for_undo = |path: &DatasetPath| {
            !removed.contains(path) && (!policy.before_deploy || !self.world.exists(path))
        };
        if let Some((name, paths)) = snapshot {
            let set: Vec<_> = paths
                .iter()
                .filter(|path| only_for_undo(path))
                .map(|path| (path.clone(), name.clone()))
                .collect();
            if !set.is_empty() {
                draft.push(
                    Step::DestroySnapshots { set },
                    Vec::new(),
                    "it was only for an undo of this deploy",
                );
            }
        }
        let mut needed: BTreeSet<String> = BTreeSet::new();
        let mut needed_branches: BTreeSet<DatasetPath> = BTreeSet::new();
        let mut datasets: BTreeSet<&DatasetPath> = BTreeSet::new();
        for index in unit {
            let node = &self.nodes[*index];
            let stays = !matches!(node.action, Action::Deploy | Action::Record | Action::Remove);
            if let Some(found) = node.located.filter(|_| stays) {
                needed.extend(found.stamp.rolled_back_to.clone());
                needed_branches.extend(found.stamp.rolled_back_from.clone());
            }
            let held = node.located.is_some_and(|found| stays && found.stamp.held.is_some());
            if let Some(app) = node.app.filter(|_| !held) {
                datasets.extend(datasets_of(app));
            }
        }
        let moved = BTreeSet::new();
        for dataset in datasets {
            let taken = snapshot.is_some_and(|(_, paths)| paths.contains(dataset));
            let retention = Retention {
                dataset,
                keep: policy.keep,
                adds_snapshot: taken && !only_for_undo(dataset),
                adds_branch: false,
                needed: &needed,
                needed_branches: &needed_branches,
                moved: &moved,
            };
            prune(self.world, &retention, &mut draft.steps);
        }
    }
}
