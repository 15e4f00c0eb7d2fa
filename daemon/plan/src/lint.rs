//! Checks that a plan keeps its promises, whoever made it.
//!
//! Owns the rules that execution relies on. Run on every plan in tests, and by the daemon before it executes one.

use crate::naming::is_branch;
use crate::observed::Observed;
use crate::plan::Note;
use crate::plan::Plan;
use crate::plan::PropEdit;
use crate::plan::Purpose;
use crate::plan::RunSpec;
use crate::plan::Severity;
use crate::plan::Step;
use crate::plan::Unit;
use crate::props::MAX_VALUE;
use crate::props::is_managed;
use crate::props::name;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::AppName;
use zed_spec::DatasetPath;

/// Longest name of a dataset with a snapshot below the store's root: ZFS takes 255 bytes with the pool.
const MAX_NAME: usize = 230;

/// Everything that is wrong with a plan. A plan with a fatal note must not be executed.
pub fn lint(plan: &Plan, observed: &Observed) -> Vec<Note> {
    let mut lint =
        Lint { plan, observed, notes: Vec::new(), branches: BTreeMap::new(), snapshots: BTreeSet::new() };
    lint.units();
    for unit in &plan.units {
        lint.unit(unit);
    }
    lint.notes
}

struct Lint<'a> {
    plan: &'a Plan,
    observed: &'a Observed,
    notes: Vec<Note>,
    /// Branches that are made, with the dataset each is made of.
    branches: BTreeMap<&'a DatasetPath, &'a DatasetPath>,
    /// Snapshots that are taken.
    snapshots: BTreeSet<(&'a DatasetPath, &'a str)>,
}

impl<'a> Lint<'a> {
    fn bad(&mut self, kind: &str, object: String, text: String) {
        self.notes.push(Note { severity: Severity::Fatal, kind: kind.to_owned(), object, text });
    }

    /// Units have names of their own, wait only for units that are there, and never in a circle.
    fn units(&mut self) {
        let mut names = BTreeSet::new();
        for unit in &self.plan.units {
            if !names.insert(unit.name.as_str()) {
                self.bad("unit", format!("unit {}", unit.name), "two units have this name".to_owned());
            }
            if unit.commit_at > unit.steps.len() {
                let text = format!("it commits at step {} of {}", unit.commit_at, unit.steps.len());
                self.bad("unit", format!("unit {}", unit.name), text);
            }
        }
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut left: Vec<&Unit> = self.plan.units.iter().collect();
        loop {
            let before = left.len();
            left.retain(|unit| {
                let ready = unit.after.iter().all(|name| done.contains(name.as_str()));
                if ready {
                    done.insert(unit.name.as_str());
                }
                !ready
            });
            if left.len() == before {
                break;
            }
        }
        for unit in left {
            let missing = unit.after.iter().find(|name| !names.contains(name.as_str()));
            let text = match missing {
                Some(name) => format!("it waits for `{name}`, which is not in the plan"),
                None => format!("it waits in a circle, for {}", unit.after.join(", ")),
            };
            self.bad("after", format!("unit {}", unit.name), text);
        }
    }

    fn unit(&mut self, unit: &'a Unit) {
        let mut created: BTreeSet<&'a DatasetPath> = BTreeSet::new();
        let mut started: Vec<&'a RunSpec> = Vec::new();
        for (index, planned) in unit.steps.iter().enumerate() {
            let committed = index >= unit.commit_at;
            if committed && !planned.undo.is_empty() {
                let text = format!("step {index} is after the commit and has an undo");
                self.bad("undo", format!("unit {}", unit.name), text);
            }
            self.step(&planned.step, &created, false);
            if let Step::CreateDataset { path, .. } = &planned.step {
                created.insert(path);
            }
            match &planned.step {
                Step::StartApp { run } => {
                    if !committed && planned.undo.is_empty() {
                        self.bad("undo", format!("app {}", run.app), "its start has no undo".to_owned());
                    }
                    started.push(run);
                }
                Step::StopApp { instance, .. } | Step::ForgetApp { instance } => {
                    let app = &instance.app;
                    // Of an app that goes on serving, some processes stop when others have been started.
                    let again = unit.steps[index..].iter().any(
                        |later| matches!(&later.step, Step::StartApp { run } if run.instance() == *instance),
                    );
                    let after = !committed && !again && started.iter().any(|run| run.app != *app);
                    if after && matches!(planned.step, Step::StopApp { .. }) {
                        let text =
                            "it is stopped after another app was started: remove before add".to_owned();
                        self.bad("order", format!("app {app}"), text);
                    }
                }
                _ => {}
            }
            for undo in &planned.undo {
                self.step(undo, &created, true);
            }
        }
        self.commits(unit, &started);
    }

    /// What is started is stamped, unless it is stamped with the same release already.
    fn commits(&mut self, unit: &'a Unit, started: &[&'a RunSpec]) {
        for run in started {
            let app = &run.app;
            let observed = self.observed.datasets.get(&run.dataset).map(|dataset| &dataset.user);
            let stamped = unit.steps.iter().any(|planned| match &planned.step {
                Step::SetProps { changes } => {
                    changes.iter().any(|change| change.path == run.dataset && stamps_edit(change, app))
                }
                Step::Restore { dataset, user, .. } => *dataset == run.dataset && stamps(user, app),
                _ => false,
            });
            let kept = observed.is_some_and(|user| stamps(user, app)) && !recorded(unit, app);
            if !stamped && !kept {
                let text = format!("it is started and nothing stamps it on {}", run.dataset);
                self.bad("commit", format!("app {app}"), text);
            }
        }
        for planned in &unit.steps[..unit.commit_at.min(unit.steps.len())] {
            if let Step::SetProps { changes } = &planned.step
                && changes.iter().any(|change| change.user.contains_key(name::SPEC))
                && !matches!(self.plan.purpose, Purpose::Rollback { .. })
            {
                let text = "a release is stamped before the commit".to_owned();
                self.bad("commit", format!("unit {}", unit.name), text);
            }
        }
    }

    /// One step or one undo. `created` are the datasets that this unit has created so far.
    fn step(&mut self, step: &'a Step, created: &BTreeSet<&'a DatasetPath>, undo: bool) {
        match step {
            Step::CreateDataset { path, native: _, user } => {
                self.values(path, user.iter().map(|(k, v)| (k, Some(v))));
                if self.observed.datasets.contains_key(path) {
                    self.bad(
                        "create",
                        format!("dataset {path}"),
                        "it is created and is there already".to_owned(),
                    );
                }
            }
            Step::SetProps { changes } => {
                for PropEdit { path, native: _, user } in changes {
                    self.values(path, user.iter().map(|(k, v)| (k, v.as_ref())));
                }
            }
            Step::Snapshot { name, set } => {
                for (path, user) in set {
                    self.values(path, user.iter().map(|(k, v)| (k, Some(v))));
                    if path.as_str().len() + 1 + name.len() > MAX_NAME {
                        let text = format!("the name of its snapshot `{name}` is too long");
                        self.bad("name", format!("dataset {path}"), text);
                    }
                    let taken = !self.snapshots.insert((path, name));
                    if taken || self.has_snapshot(path, name) {
                        let text = format!("snapshot `{name}` is taken twice");
                        self.bad("name", format!("dataset {path}"), text);
                    }
                }
            }
            Step::Restore { dataset, from, snapshot, branch, user, branch_user } => {
                self.values(dataset, user.iter().map(|(k, v)| (k, Some(v))));
                self.values(branch, branch_user.iter().map(|(k, v)| (k, Some(v))));
                if !self.has_snapshot(from, snapshot) && !self.snapshots.contains(&(from, snapshot.as_str()))
                {
                    let text =
                        format!("it is put back to `{from}@{snapshot}`, which neither is there nor is taken");
                    self.bad("restore", format!("dataset {dataset}"), text);
                }
                self.branch(dataset, branch);
            }
            Step::UndoRestore { dataset, snapshot, aside, .. } => {
                if !self.snapshots.contains(&(dataset, snapshot.as_str())) {
                    let text =
                        format!("its restore is taken back to `{snapshot}`, which is not taken before");
                    self.bad("restore", format!("dataset {dataset}"), text);
                }
                self.branch(dataset, aside);
            }
            Step::Retire { dataset, branch } => {
                if !created.contains(dataset) {
                    let text = "it is retired, but this unit did not create it".to_owned();
                    self.bad("destroy", format!("dataset {dataset}"), text);
                }
                self.branch(dataset, branch);
            }
            Step::DestroySnapshots { set } => set.iter().for_each(|(path, name)| self.destroy(path, name)),
            Step::DestroyBranch { branch } => self.destroy_branch(branch, undo),
            Step::StopApp { .. }
            | Step::StartApp { .. }
            | Step::RecordRelease { .. }
            | Step::Probe { .. }
            | Step::Soak { .. }
            | Step::Route { .. }
            | Step::Drain { .. }
            | Step::Unpack { .. }
            | Step::DiscardRelease { .. }
            | Step::SwitchRelease { .. }
            | Step::PruneReleases { .. }
            | Step::MountDataset { .. }
            | Step::Hook { .. }
            | Step::MakeGuest { .. }
            | Step::StartGuest { .. }
            | Step::StopGuest { .. }
            | Step::RemoveGuest { .. }
            | Step::ForgetApp { .. } => {}
        }
    }

    fn has_snapshot(&self, path: &DatasetPath, name: &str) -> bool {
        self.observed
            .snapshots
            .get(path)
            .is_some_and(|list| list.iter().any(|snapshot| snapshot.name == name))
    }

    /// A branch is where branches are, is new, and is made of one dataset only.
    fn branch(&mut self, dataset: &'a DatasetPath, branch: &'a DatasetPath) {
        let object = || format!("branch {branch}");
        if !is_branch(branch.as_str()) {
            self.bad("branch", object(), format!("it is not below {}", crate::props::BRANCHES));
        }
        if self.observed.datasets.contains_key(branch) {
            self.bad("branch", object(), "it is there already".to_owned());
        }
        if self.branches.insert(branch, dataset).is_some_and(|other| other != dataset) {
            self.bad("branch", object(), "two datasets become this branch".to_owned());
        }
    }

    /// Only snapshots of ours go, and none that something depends on.
    fn destroy(&mut self, path: &'a DatasetPath, name: &'a str) {
        if self.snapshots.contains(&(path, name)) {
            return;
        }
        let list = self.observed.snapshots.get(path);
        let Some(found) = list.and_then(|list| list.iter().find(|snapshot| snapshot.name == name)) else {
            return;
        };
        if !is_managed(&found.user) {
            let text = "zed did not take it".to_owned();
            self.bad("destroy", format!("snapshot {path}@{name}"), text);
        }
    }

    fn destroy_branch(&mut self, branch: &'a DatasetPath, undo: bool) {
        let ours = match self.observed.datasets.get(branch) {
            Some(found) => is_managed(&found.user),
            // A restore that is taken back leaves an empty branch.
            None => undo || self.branches.contains_key(branch),
        };
        if !is_branch(branch.as_str()) || !ours {
            let text = "it is destroyed, but it is no branch of zed's".to_owned();
            self.bad("destroy", format!("dataset {branch}"), text);
        }
    }

    fn values<'v>(
        &mut self,
        path: &DatasetPath,
        values: impl Iterator<Item = (&'v String, Option<&'v String>)>,
    ) {
        for (key, value) in values {
            if let Some(length) = value.map(String::len).filter(|length| *length > MAX_VALUE) {
                let text = format!("`{key}` would have {length} bytes, ZFS takes {MAX_VALUE}");
                self.bad("value", format!("dataset {path}"), text);
            }
        }
    }
}

/// True when these properties carry a stamp of the app.
fn stamps(user: &BTreeMap<String, String>, app: &AppName) -> bool {
    user.get(name::APP).is_some_and(|found| found == app.as_str())
        || user.contains_key(&format!("{}{app}.spec", name::OTHER_APP))
}

/// True when an edit stamps the app: by the plain names (which may only change in part), or by its own.
fn stamps_edit(change: &PropEdit, app: &AppName) -> bool {
    let own = format!("{}{app}.spec", name::OTHER_APP);
    matches!(change.user.get(&own), Some(Some(_)))
        || match change.user.get(name::APP) {
            Some(found) => found.as_deref() == Some(app.as_str()),
            // The same release of the same app may have lost another part of its stamp; the run is always new.
            None => [name::SPEC, name::RUN].iter().any(|key| matches!(change.user.get(*key), Some(Some(_)))),
        }
}

/// True when the unit deploys the app, rather than only starting it.
fn recorded(unit: &Unit, app: &AppName) -> bool {
    unit.steps.iter().any(|p| matches!(&p.step, Step::RecordRelease { release } if release.app == *app))
}

#[cfg(test)]
mod tests;
