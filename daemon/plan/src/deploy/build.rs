//! Decisions become units of steps, each with its undo.

use super::Action;
use super::Deploy;
use super::Node;
use super::Way;
use super::datasets::DatasetChanges;
use super::datasets::Placed;
use super::datasets::release_edit;
use super::datasets_of;
use super::select::note;
use crate::instance::Instance;
use crate::naming::branch_path;
use crate::naming::snapshot_name;
use crate::plan::PlannedStep;
use crate::plan::Severity;
use crate::plan::Step;
use crate::plan::Unit;
use crate::props::AppStamp;
use crate::props::BranchKind;
use crate::props::Role;
use crate::props::RunState;
use crate::props::branch_props;
use crate::props::created_props;
use crate::props::name;
use crate::props::snapshot_stamp;
use crate::release::release_of;
use crate::shape::hook;
use crate::shape::is_blue_green;
use crate::shape::numbers;
use crate::time::rfc3339;
use crate::world::Located;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use zed_spec::App;
use zed_spec::DatasetPath;

/// Name of the unit of datasets that belong to no app alone.
pub(super) const DATASETS: &str = "datasets";
/// TERM to KILL for an app whose record is missing.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// The unit that is being built.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) steps: Vec<PlannedStep>,
    /// Restores that belong into the undo of the first step that can write data.
    restores: Vec<Step>,
    /// Nodes that are known to be healthy at this point of the unit.
    pub(super) probed: BTreeSet<usize>,
    pub(super) commit_at: usize,
}

impl Draft {
    pub(super) fn push(&mut self, step: Step, undo: Vec<Step>, why: &str) {
        self.steps.push(PlannedStep { step, undo, why: why.to_owned() });
    }

    /// A step that can write data: the first one's undo puts the data back.
    pub(super) fn push_writer(&mut self, step: Step, mut undo: Vec<Step>, why: &str) {
        undo.append(&mut self.restores);
        self.push(step, undo, why);
    }
}

impl<'a> Deploy<'a> {
    /// All units with something to do.
    pub(super) fn build(&mut self) -> Vec<Unit> {
        let components = self.components();
        self.own_guests(&components);
        let placed = self.place_datasets(&components);
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, root) in components.iter().enumerate() {
            members.entry(*root).or_default().push(index);
        }
        let mut released: BTreeMap<Option<usize>, Vec<&'a DatasetPath>> = BTreeMap::new();
        let removed_from: BTreeMap<&DatasetPath, usize> = (self.nodes.iter().enumerate())
            .filter_map(|(index, node)| Some((node.located?.dataset, components[index])))
            .collect();
        for path in self.released() {
            released.entry(removed_from.get(path).copied()).or_default().push(path);
            let text = format!(
                "deploy {} no longer declares it: released and kept, with all it holds",
                self.spec.name
            );
            self.notes.push(note(Severity::Info, "released", format!("dataset {path}"), text));
        }
        let mut names = BTreeMap::new();
        let mut units = Vec::new();
        let common = self.common_unit(&placed, released.remove(&None).unwrap_or_default());
        units.extend(common);
        for (root, mut unit) in members {
            // Nodes to remove come after the wanted ones; names decide within a unit.
            unit.sort_by_key(|index| self.nodes[*index].name);
            let changes = placed.own.get(&root);
            let released = released.remove(&Some(root)).unwrap_or_default();
            let draft = self.app_unit(&unit, changes, &placed.common.create, &released);
            let guests = self.guest_steps(root);
            if draft.steps.is_empty() && guests.before.is_empty() {
                continue;
            }
            let apps: Vec<_> = unit.iter().map(|index| self.nodes[*index].name.clone()).collect();
            let after =
                if self.needs_common(&unit, &placed) { vec![DATASETS.to_owned()] } else { Vec::new() };
            let mut name = apps.iter().map(zed_spec::AppName::as_str).collect::<Vec<_>>().join("+");
            if name == DATASETS {
                name.insert_str(0, "app:");
            }
            names.insert(root, name.clone());
            let commit_at = guests.before.len() + draft.commit_at;
            let steps = [guests.before, draft.steps, guests.after].concat();
            units.push(Unit { name, apps, after, steps, commit_at });
        }
        self.add_guest_units(&mut units, &names);
        units
    }

    /// Datasets that belong to no app, or to several units.
    fn common_unit(&self, placed: &Placed<'a>, released: Vec<&DatasetPath>) -> Option<Unit> {
        let mut steps = Vec::new();
        let mut paths: Vec<(&DatasetPath, bool)> =
            placed.containers.iter().map(|path| (path, true)).collect();
        paths.extend(placed.common.create.iter().map(|path| (*path, false)));
        paths.sort();
        for (path, container) in paths {
            if container {
                self.create_container(path, &mut steps);
            } else {
                let only = DatasetChanges { create: [path].into(), ..DatasetChanges::default() };
                self.dataset_steps(&only, &mut steps);
            }
        }
        let DatasetChanges { create: _, mount, edits, why } = &placed.common;
        let edits = DatasetChanges {
            create: BTreeSet::new(),
            mount: mount.clone(),
            edits: edits.clone(),
            why: why.clone(),
        };
        self.dataset_steps(&edits, &mut steps);
        if !released.is_empty() {
            let deploy = self.spec.name.as_str();
            let (changes, undo) = released.iter().map(|path| release_edit(path, deploy)).unzip();
            steps.push(PlannedStep {
                step: Step::SetProps { changes },
                undo: vec![Step::SetProps { changes: undo }],
                why: "no longer declared: released and kept".to_owned(),
            });
        }
        let commit_at = steps.len();
        let unit = Unit { name: DATASETS.to_owned(), apps: Vec::new(), after: Vec::new(), steps, commit_at };
        (!unit.steps.is_empty()).then_some(unit)
    }

    /// True when a dataset of these apps, or one above it, is changed by the common unit.
    fn needs_common(&self, unit: &[usize], placed: &Placed<'_>) -> bool {
        if placed.common.is_empty() && placed.containers.is_empty() {
            return false;
        }
        let edited: BTreeSet<&DatasetPath> = placed.common.edits.iter().map(|(edit, _)| &edit.path).collect();
        let apps = unit.iter().filter_map(|index| self.nodes[*index].app);
        apps.flat_map(datasets_of).any(|path| {
            let mut at = Some(path.clone());
            while let Some(current) = at {
                if placed.containers.contains(&current)
                    || placed.common.create.contains(&current)
                    || edited.contains(&current)
                {
                    return true;
                }
                at = current.parent();
            }
            false
        })
    }

    fn app_unit(
        &mut self,
        unit: &[usize],
        changes: Option<&DatasetChanges<'a>>,
        common: &BTreeSet<&'a DatasetPath>,
        released: &[&'a DatasetPath],
    ) -> Draft {
        let mut draft = Draft::default();
        let acts = unit.iter().any(|index| self.nodes[*index].action != Action::Leave);
        let mut snapshot = None;
        if acts {
            let order = self.start_order(unit);
            self.unpack(&order, true, &mut draft);
            self.hooks_before(&order, true, &mut draft);
            self.stop(&order, &mut draft);
            snapshot = self.snapshot(&order, common, &mut draft);
            if let Some(changes) = changes {
                self.dataset_steps(changes, &mut draft.steps);
            }
            self.unpack(&order, false, &mut draft);
            self.hooks_before(&order, false, &mut draft);
            for index in &order {
                self.start(*index, &order, &mut draft);
            }
            self.record(&order, &mut draft);
            self.switch(&order, &mut draft);
        } else if let Some(changes) = changes {
            self.dataset_steps(changes, &mut draft.steps);
        }
        self.relink(unit, &mut draft);
        draft.commit_at = draft.steps.len();
        self.stamp(unit, released, &mut draft);
        self.retire(unit, &mut draft);
        self.forget(unit, &mut draft);
        self.prune_folders(unit, &mut draft);
        self.retain(unit, snapshot.as_ref(), &mut draft);
        draft
    }

    /// True when the app is deployed already in the dataset where it is wanted.
    pub(super) fn is_at_home(&self, node: &Node<'_>, app: &App) -> bool {
        node.located.is_some_and(|found| *found.dataset == app.dataset)
    }

    /// Hooks before a deploy run before anything changes; those of an app that is new in its dataset run once the
    /// dataset is there, and kept as it was.
    fn hooks_before(&self, order: &[usize], existing: bool, draft: &mut Draft) {
        for index in order {
            let node = &self.nodes[*index];
            let (Action::Deploy, Some(effective)) = (node.action, &node.effective) else { continue };
            if self.is_at_home(node, effective.app) != existing {
                continue;
            }
            for command in &effective.app.hooks.before_deploy {
                let run = self.run_of(*index, effective, self.first(*index));
                let step = hook("before_deploy", command, run, &effective.app.hooks);
                if existing {
                    draft.push(step, Vec::new(), "before anything changes");
                } else {
                    draft.push_writer(step, Vec::new(), "before the app starts for the first time");
                }
            }
        }
    }

    /// Removed apps first, then those that are replaced, dependents before what they depend on.
    fn stop(&mut self, order: &[usize], draft: &mut Draft) {
        let removed = order.iter().rev().filter(|i| self.nodes[**i].action == Action::Remove);
        let replaced = order
            .iter()
            .rev()
            .filter(|i| matches!(self.nodes[**i].action, Action::Deploy | Action::Bounce | Action::Start));
        let all: Vec<usize> = removed.chain(replaced).copied().collect();
        for index in all {
            for (nth, number) in self.to_stop(index).into_iter().enumerate() {
                self.stop_now(index, number, nth == 0, draft);
            }
        }
    }

    /// The processes that have to end before anything is started.
    fn to_stop(&self, index: usize) -> Vec<u32> {
        let node = &self.nodes[index];
        let alive = self.input.observed.alive(node.name).into_iter();
        match (node.action, node.way) {
            (Action::Remove, _) => {
                // Nobody connects to what is about to go.
                let front = self.input.observed.process(node.name, 0).filter(|front| front.status.is_alive());
                front.map(|_| 0).into_iter().chain(alive).collect()
            }
            (Action::Bounce, _) | (Action::Deploy, Way::Replace) => alive.collect(),
            // What is left of an upgrade before this one has the new one's port.
            (Action::Deploy, Way::BlueGreen { new, .. }) => alive.filter(|number| *number == new).collect(),
            (Action::Start, _) => alive.filter(|number| node.wrong.contains(number)).collect(),
            _ => Vec::new(),
        }
    }

    /// Stops one process. The undo of the first one comes last: then everything runs again, and gets its traffic.
    fn stop_now(&mut self, index: usize, number: u32, first: bool, draft: &mut Draft) {
        let (before, grace) = self.before(index, number);
        let node = &self.nodes[index];
        // A process that the present release does not have is left over: nobody misses it.
        let release =
            node.located.and_then(|found| Some((found, self.input.releases.get(&found.stamp.spec)?)));
        let left_over = release.is_some_and(|(found, release)| {
            number > 0 && !numbers(&release.definition, Some(&found.stamp)).contains(&number)
        });
        let mut undo = match before {
            _ if left_over || number == 0 => Vec::new(),
            Some(run) => vec![Step::StartApp { run: Box::new(run) }],
            None => {
                let text = "the record of what runs now is missing: if this plan fails, it is not started again; \
                            `echo start` or saving the spec again does";
                let object = format!("app {}", node.name);
                self.notes.push(note(Severity::Warning, "release", object, text.to_owned()));
                Vec::new()
            }
        };
        let node = &self.nodes[index];
        if first && !left_over {
            undo.extend(self.route_before(node).map(|route| Step::Route { route }));
        }
        draft.push(Step::StopApp { instance: Instance::new(node.name, number), grace }, undo, &node.why);
    }

    /// Datasets of an app that goes and that no other app of the plan has: its own, and the data that its
    /// release names. What others use is their unit's business.
    pub(super) fn datasets_of_removed(&self, found: &'a Located<'a>) -> Vec<&'a DatasetPath> {
        let all = |found: &'a Located<'a>| {
            let release = self.input.releases.get(&found.stamp.spec);
            let data = release.into_iter().flat_map(|release| &release.definition.data);
            std::iter::once(found.dataset).chain(data)
        };
        let used = |path: &DatasetPath| {
            self.nodes.iter().filter(|node| *node.name != found.stamp.app).any(|node| {
                node.app.is_some_and(|app| datasets_of(app).any(|used| used == path))
                    || node.located.is_some_and(|found| {
                        // Two that leave their dataset together leave one snapshot of it.
                        let leaves = node.action == Action::Remove && found.dataset == path;
                        !leaves && all(found).any(|used| used == path)
                    })
            })
        };
        all(found).filter(|path| self.world.exists(path) && !used(path)).collect()
    }

    /// One instant for all data of the apps that are deployed or removed. A dataset that the unit before this one creates
    /// is among them: it will be there, and an undo has to empty it.
    fn snapshot(
        &self,
        order: &[usize],
        common: &BTreeSet<&'a DatasetPath>,
        draft: &mut Draft,
    ) -> Option<(String, BTreeSet<DatasetPath>)> {
        let mut users: BTreeMap<DatasetPath, BTreeMap<String, String>> = BTreeMap::new();
        let mut set: BTreeMap<DatasetPath, BTreeMap<String, String>> = BTreeMap::new();
        let mut failed: BTreeMap<DatasetPath, BTreeMap<String, String>> = BTreeMap::new();
        let mut contains = None;
        for index in order {
            let node = &self.nodes[*index];
            if let (Action::Remove, Some(found)) = (node.action, node.located) {
                // Its stamp goes: without a snapshot that carries it, no rollback would find the release again.
                contains = contains.or(Some(found.stamp.version.as_str()));
                for path in self.datasets_of_removed(found) {
                    let user = self.world.user(path);
                    set.entry(path.clone())
                        .or_insert_with(|| stamp_of_data(user, Some(&found.stamp), path == found.dataset));
                }
                continue;
            }
            let (Action::Deploy, Some(app)) = (node.action, node.app) else { continue };
            if let Some(stamp) = self.new_stamp(*index) {
                failed.entry(app.dataset.clone()).or_insert_with(|| failed_stamp(stamp));
            }
            let stamp = node.located.map(|found| &found.stamp);
            contains = contains.or(stamp.map(|stamp| stamp.version.as_str()));
            for path in datasets_of(app) {
                let user = match self.wanted.get(path) {
                    _ if self.world.exists(path) => self.world.user(path).clone(),
                    Some(wanted) if common.contains(path) => {
                        created_props(wanted.role, Some(&self.spec.name), self.input.run)
                    }
                    _ => continue,
                };
                set.entry(path.clone()).or_insert_with(|| stamp_of_data(&user, stamp, *path == app.dataset));
                if node.way == Way::Replace {
                    users.insert(path.clone(), user);
                }
            }
        }
        if set.is_empty() {
            return None;
        }
        let run = self.input.run;
        let snapshot = snapshot_name(self.input.now, run, contains);
        draft.restores = users
            .into_iter()
            .map(|(path, user)| {
                let mut branch_user = failed.remove(&path).unwrap_or_default();
                branch_user.extend(branch_props(&path, BranchKind::Failed, run));
                let branch = branch_path(&path, run, "");
                Step::Restore {
                    from: path.clone(),
                    dataset: path,
                    snapshot: snapshot.clone(),
                    branch,
                    user,
                    branch_user,
                }
            })
            .collect();
        let paths = set.keys().cloned().collect();
        let why = match contains {
            Some(version) => format!("keeps {version} as it is now"),
            None => "keeps what is there now".to_owned(),
        };
        draft.push(Step::Snapshot { name: snapshot.clone(), set }, Vec::new(), &why);
        Some((snapshot, paths))
    }

    /// Releases are recorded before they are stamped: a stamp never names an unknown one.
    fn record(&self, order: &[usize], draft: &mut Draft) {
        for index in order {
            let node = &self.nodes[*index];
            let (Action::Deploy | Action::Record, Some(effective)) = (node.action, &node.effective) else {
                continue;
            };
            let digest = effective.digest.clone();
            let release = release_of(self.origin(*index, effective), &effective.spec_hash, digest);
            let why = "so that it can be started again after a rollback";
            draft.push(Step::RecordRelease { release: Box::new(release) }, Vec::new(), why);
        }
    }

    /// The stamp that an app gets.
    pub(super) fn new_stamp(&self, index: usize) -> Option<AppStamp> {
        let node = &self.nodes[index];
        let (Action::Deploy | Action::Record, Some(effective)) = (node.action, &node.effective) else {
            return None;
        };
        let stamp = AppStamp {
            app: node.name.clone(),
            deploy: self.spec.name.clone(),
            version: effective.app.version.clone(),
            generation: self.input.declared.generation,
            run: self.input.run.clone(),
            spec: effective.spec_hash.clone(),
            artifact: effective.digest.clone(),
            health: "healthy".to_owned(),
            deployed_at: rfc3339(self.input.now),
            state: RunState::Running,
            live: node.numbers.first().copied().filter(|live| is_blue_green(effective.app) && *live != 1),
            scale: None,
            held: None,
            rolled_back_to: None,
            rolled_back_from: None,
        };
        match (node.action, node.located) {
            // The same release goes on: who deployed it, and when, stays true.
            (Action::Record, Some(found)) => Some(AppStamp {
                run: found.stamp.run.clone(),
                deployed_at: found.stamp.deployed_at.clone(),
                scale: found.stamp.scale,
                ..stamp
            }),
            _ => Some(stamp),
        }
    }
}

/// What a branch of failed data says of itself: the release that left it so.
fn failed_stamp(stamp: AppStamp) -> BTreeMap<String, String> {
    AppStamp { health: "failed".to_owned(), ..stamp }.render(true)
}

/// What is stamped on a snapshot: the dataset's own stamps, or whose data it is.
fn stamp_of_data(
    user: &BTreeMap<String, String>,
    owner: Option<&AppStamp>,
    is_home: bool,
) -> BTreeMap<String, String> {
    let mut stamp = snapshot_stamp(user);
    if let Some(owner) = owner.filter(|_| !is_home && !user.contains_key(name::SPEC)) {
        stamp.insert(name::ROLE.to_owned(), Role::Data.as_str().to_owned());
        stamp.insert(name::DEPLOY.to_owned(), owner.deploy.to_string());
        stamp.insert(name::APP.to_owned(), owner.app.to_string());
        stamp.insert(name::VERSION.to_owned(), owner.version.clone());
    }
    stamp
}
