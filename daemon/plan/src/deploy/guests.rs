//! Jails and zones of a deploy: what happens to each, and the units that do it.
//!
//! Owns the order around guests: a guest is made before the apps in it start, after its datasets are there and after
//! the guests that it depends on; apps in a guest that restarts are stopped before and started after; a guest goes
//! after the apps that were in it. Each guest is a unit of its own, so that it stands or falls by itself.

use super::Action;
use super::Deploy;
use super::Node;
use super::datasets_of;
use super::select::note;
use crate::guest::GuestDefinition;
use crate::guest::GuestId;
use crate::guest::GuestSpec;
use crate::guest::GuestStatus;
use crate::guest::ObservedGuest;
use crate::instance::Instance;
use crate::naming::branch_path;
use crate::naming::snapshot_name;
use crate::placement::placed_here;
use crate::plan::PlannedStep;
use crate::plan::Severity;
use crate::plan::Step;
use crate::plan::Unit;
use crate::props::BranchKind;
use crate::props::branch_props;
use crate::props::name;
use crate::props::snapshot_stamp;
use crate::release::has_process;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::DatasetPath;

/// What happens to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GuestAction {
    /// Nothing.
    Leave,
    /// It is made what it shall be; `restart` when it runs with something else.
    Make { restart: bool },
    /// It goes, its data stay.
    Remove,
}

/// One guest: wanted, or made by this deploy.
pub(super) struct Guest {
    /// What it shall be, or what it was made when it goes.
    spec: GuestSpec,
    /// Guests that it depends on.
    depends_on: Vec<GuestId>,
    action: GuestAction,
    why: String,
}

impl Guest {
    fn new(spec: GuestSpec) -> Self {
        let depends_on = match &spec.definition {
            GuestDefinition::Jail(_, jail) => jail.depends_on.iter().cloned().map(GuestId::Jail).collect(),
            GuestDefinition::Zone(_, zone) => zone.depends_on.iter().cloned().map(GuestId::Zone).collect(),
        };
        Self { spec, depends_on, action: GuestAction::Leave, why: String::new() }
    }
}

impl Deploy<'_> {
    /// The guests that the spec wants here, with the datasets of the apps in them.
    pub(super) fn wanted_guests(&self) -> Vec<Guest> {
        let (spec, observed) = (self.spec, self.input.observed);
        let jails = spec.jails.iter().filter(|(_, jail)| placed_here(&jail.on, spec, observed));
        let zones = spec.zones.iter().filter(|(_, zone)| placed_here(&zone.on, spec, observed));
        let jails = jails.map(|(name, jail)| GuestDefinition::Jail(name.clone(), jail.clone()));
        let zones = zones.map(|(name, zone)| GuestDefinition::Zone(name.clone(), zone.clone()));
        let with_apps = |definition: GuestDefinition| {
            let alone = GuestSpec::new(&spec.name, definition, []);
            let id = alone.id();
            let apps = self.nodes.iter().filter_map(|node| node.app);
            let inside = apps.filter(|app| GuestId::of(&app.runtime).as_ref() == Some(&id));
            let datasets: Vec<DatasetPath> = inside.flat_map(datasets_of).cloned().collect();
            GuestSpec::new(&spec.name, alone.definition, datasets)
        };
        jails.chain(zones).map(|definition| Guest::new(with_apps(definition))).collect()
    }

    /// True for a dataset that a guest sees: it has to be there before the guest is made, so it is created with
    /// what belongs to no app alone.
    pub(super) fn is_in_guest(&self, path: &DatasetPath) -> bool {
        self.guests.iter().any(|guest| guest.spec.mounts.iter().any(|mount| mount.dataset == *path))
    }

    /// Decides on every guest, and on the apps in those that restart. The apps are decided on already.
    pub(super) fn decide_guests(&mut self) {
        for index in 0..self.guests.len() {
            let (action, why) = self.decide_guest(index);
            (self.guests[index].action, self.guests[index].why) = (action, why);
        }
        let wanted: BTreeSet<GuestId> = self.guests.iter().map(|guest| guest.spec.id()).collect();
        for (id, seen) in &self.input.observed.guests {
            let Some(made) = seen.made.as_ref().filter(|made| made.deploy == self.spec.name) else {
                continue;
            };
            if !wanted.contains(id) {
                let why = "the spec no longer has it".to_owned();
                let gone = Guest { action: GuestAction::Remove, why, ..Guest::new((**made).clone()) };
                self.guests.push(gone);
            }
        }
        for guest in self.guests.iter().filter(|guest| guest.action == GuestAction::Make { restart: true }) {
            let id = guest.spec.id();
            for node in &mut self.nodes {
                let inside = node.effective.as_ref().is_some_and(|effective| {
                    has_process(effective.app) && GuestId::of(&effective.app.runtime).as_ref() == Some(&id)
                });
                if inside && matches!(node.action, Action::Leave | Action::Record | Action::Start) {
                    node.wrong.extend(node.numbers.iter().copied());
                    if node.action == Action::Leave {
                        node.action = Action::Start;
                        node.why = format!("{} is restarted", id.title());
                    }
                }
            }
        }
    }

    fn say_of_guest(&mut self, id: &GuestId, severity: Severity, kind: &str, text: String) {
        self.notes.push(note(severity, kind, id.title(), text));
    }

    fn decide_guest(&mut self, index: usize) -> (GuestAction, String) {
        let spec = self.guests[index].spec.clone();
        let id = spec.id();
        let leave = || (GuestAction::Leave, String::new());
        for text in spec.problems() {
            self.say_of_guest(&id, Severity::Fatal, "guest", text);
        }
        let Some(seen) = self.input.observed.guests.get(&id) else {
            return (GuestAction::Make { restart: false }, "new".to_owned());
        };
        let Some(made) = &seen.made else {
            // A record without a configuration is a start that never got so far.
            if seen.status == GuestStatus::Absent {
                return (GuestAction::Make { restart: false }, "new".to_owned());
            }
            let text = format!(
                "there is a {} of this name that zed did not make: remove it, or rename this one",
                id.kind()
            );
            self.say_of_guest(&id, Severity::Fatal, "clash", text);
            return leave();
        };
        if made.deploy != spec.deploy {
            let text =
                format!("deploy {} has a {} of this name, too: rename one of them", made.deploy, id.kind());
            self.say_of_guest(&id, Severity::Fatal, "clash", text);
            return leave();
        }
        let mut wanted = spec;
        if let Some(app) = self.held_in(&id) {
            let text = format!("it stays as it is while app {app} is held by a rollback");
            self.say_of_guest(&id, Severity::Info, "held", text);
            // Its content is what the rollback found or left.
            wanted = (**made).clone();
            self.guests[index].spec = wanted.clone();
            if seen.status == GuestStatus::Running {
                return leave();
            }
        }
        let restart =
            !matches!(seen.status, GuestStatus::Stopped | GuestStatus::Configured | GuestStatus::Absent)
                && seen.running.as_ref() != Some(&wanted.configuration());
        if made.configuration() != wanted.configuration() || made.content() != wanted.content() {
            return (GuestAction::Make { restart }, "the spec has changed".to_owned());
        }
        if seen.is(&wanted) {
            return leave();
        }
        let text = drift_of(seen, &wanted);
        if seen.rebooted && seen.status != GuestStatus::Running {
            return (GuestAction::Make { restart }, "the host has booted since it ran".to_owned());
        }
        if self.input.heal {
            return (GuestAction::Make { restart }, text);
        }
        let text = format!("{text}: saving the spec again or `drift: Heal` repairs it");
        self.say_of_guest(&id, Severity::Warning, "drift", text);
        leave()
    }

    /// An app in the guest that a rollback holds.
    fn held_in(&self, id: &GuestId) -> Option<String> {
        let generation = self.input.declared.generation;
        let held = |node: &&Node<'_>| {
            let stamp = node.located.map(|found| &found.stamp);
            stamp.and_then(|stamp| stamp.held).is_some_and(|held| generation <= held)
        };
        let inside = |node: &&Node<'_>| self.was_in(node).as_ref() == Some(id);
        self.nodes.iter().filter(held).find(inside).map(|node| node.name.to_string())
    }

    /// The guest in which the app is now.
    fn was_in(&self, node: &Node<'_>) -> Option<GuestId> {
        let release = node.located.and_then(|found| self.input.releases.get(&found.stamp.spec));
        let runtime = match release {
            Some(release) => &release.definition.runtime,
            None => &node.app?.runtime,
        };
        GuestId::of(runtime)
    }

    /// Adds the units of the guests, and has apps wait for theirs.
    pub(super) fn add_guest_units(&mut self, units: &mut Vec<Unit>) {
        let acting = |guest: &&Guest, remove: bool| match guest.action {
            GuestAction::Leave => false,
            GuestAction::Make { .. } => !remove,
            GuestAction::Remove => remove,
        };
        let made: BTreeSet<GuestId> =
            self.guests.iter().filter(|guest| acting(guest, false)).map(|guest| guest.spec.id()).collect();
        let gone: Vec<&Guest> = self.guests.iter().filter(|guest| acting(guest, true)).collect();
        let datasets =
            units.iter().find(|unit| unit.name == super::build::DATASETS).map(|unit| unit.name.clone());
        let mut added = Vec::new();
        for guest in self.guests.iter().filter(|guest| guest.action != GuestAction::Leave) {
            let id = guest.spec.id();
            let mut after: Vec<String> = datasets.iter().cloned().collect();
            let (steps, commit_at) = match guest.action {
                GuestAction::Remove => {
                    after.extend(
                        gone.iter()
                            .filter(|other| other.depends_on.contains(&id))
                            .map(|g| g.spec.id().to_string()),
                    );
                    after.extend(self.units_inside(&id, units));
                    self.remove_steps(guest)
                }
                _ => {
                    after.extend(
                        guest.depends_on.iter().filter(|other| made.contains(other)).map(GuestId::to_string),
                    );
                    self.make_steps(guest)
                }
            };
            added.push(Unit { name: id.to_string(), apps: Vec::new(), after, steps, commit_at });
        }
        for unit in units.iter_mut() {
            let inside: BTreeSet<GuestId> = self
                .nodes
                .iter()
                .filter(|node| unit.apps.contains(node.name))
                .filter_map(|node| GuestId::of(&node.app?.runtime))
                .filter(|id| made.contains(id))
                .collect();
            unit.after.extend(inside.iter().map(GuestId::to_string));
        }
        // In the order in which they run, for who reads the plan: datasets, guests, apps, what goes.
        let (goes, comes): (Vec<Unit>, Vec<Unit>) = added
            .into_iter()
            .partition(|unit| gone.iter().any(|guest| guest.spec.id().to_string() == unit.name));
        let first = usize::from(datasets.is_some());
        units.splice(first..first, in_order(comes));
        units.extend(in_order(goes));
        let held: BTreeMap<GuestId, &GuestSpec> = self
            .guests
            .iter()
            .filter(|guest| {
                let runs = self.input.observed.guests.get(&guest.spec.id());
                made.contains(&guest.spec.id())
                    || runs.is_some_and(|seen| seen.status == GuestStatus::Running)
            })
            .map(|guest| (guest.spec.id(), &guest.spec))
            .collect();
        hold_guests(units, &held);
    }

    /// Units of apps that are in the guest now.
    fn units_inside(&self, id: &GuestId, units: &[Unit]) -> Vec<String> {
        let inside: BTreeSet<&str> = self
            .nodes
            .iter()
            .filter(|node| self.was_in(node).as_ref() == Some(id))
            .map(|node| node.name.as_str())
            .collect();
        let of = units.iter().filter(|unit| unit.apps.iter().any(|app| inside.contains(app.as_str())));
        of.map(|unit| unit.name.clone()).collect()
    }

    fn remove_steps(&self, guest: &Guest) -> (Vec<PlannedStep>, usize) {
        let step = Step::RemoveGuest { guest: guest.spec.id() };
        let undo = vec![Step::StartGuest { guest: Box::new(guest.spec.clone()) }];
        (vec![PlannedStep { step, undo, why: guest.why.clone() }], 1)
    }

    fn make_steps(&self, guest: &Guest) -> (Vec<PlannedStep>, usize) {
        let id = guest.spec.id();
        let made = self.input.observed.guests.get(&id).and_then(|seen| seen.made.clone());
        let before = made.map(|guest| Step::StartGuest { guest });
        let mut steps = Vec::new();
        if guest.action == (GuestAction::Make { restart: true }) {
            self.stop_inside(&id, &guest.why, &mut steps);
            steps.push(PlannedStep {
                step: Step::StopGuest { guest: id.clone() },
                undo: before.iter().cloned().collect(),
                why: guest.why.clone(),
            });
        }
        let (snapshot, restore) = self.guest_snapshot(guest);
        let taken = snapshot.is_some();
        steps.extend(snapshot);
        let mut undo = Vec::new();
        match (&before, restore) {
            (Some(before), restore) => {
                undo.push(Step::StopGuest { guest: id });
                undo.extend(restore);
                undo.push(before.clone());
            }
            (None, restore) => {
                undo.push(Step::RemoveGuest { guest: id });
                undo.extend(restore);
            }
        }
        let step = Step::MakeGuest { guest: Box::new(guest.spec.clone()) };
        steps.push(PlannedStep { step, undo, why: guest.why.clone() });
        let commit_at = steps.len();
        if taken {
            steps.extend(self.prune_guest(guest));
        }
        (steps, commit_at)
    }

    /// Ends the processes of the apps inside, dependents first.
    fn stop_inside(&self, id: &GuestId, why: &str, steps: &mut Vec<PlannedStep>) {
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if self.was_in(node).as_ref() != Some(id) {
                continue;
            }
            for number in self.input.observed.alive(node.name) {
                let (run, grace) = self.before(index, number);
                let undo = run.map(|run| Step::StartApp { run: Box::new(run) }).into_iter().collect();
                let step = Step::StopApp { instance: Instance::new(node.name, number), grace };
                steps.push(PlannedStep { step, undo, why: format!("{}: {why}", id.title()) });
            }
        }
    }

    /// Keeps the root as it is now, with all that is below it, and how it is put back. What is put into a zone is
    /// not zed's: its root stays as it is.
    fn guest_snapshot(&self, guest: &Guest) -> (Option<PlannedStep>, Option<Step>) {
        let root = guest.spec.dataset();
        if !self.spec.snapshots.before_deploy || !self.world.exists(root) {
            return (None, None);
        }
        let id = guest.spec.id();
        let run = self.input.run;
        let contains = format!("{}-{}", id.kind(), id.name());
        let snapshot = snapshot_name(self.input.now, run, Some(&contains));
        let below = self.input.observed.datasets.keys().filter(|path| path.is_in(root));
        let set = below.map(|path| {
            let mut stamp = snapshot_stamp(self.world.user(path));
            stamp.insert(name::GUEST.to_owned(), id.to_string());
            (path.clone(), stamp)
        });
        let step = Step::Snapshot { name: snapshot.clone(), set: set.collect() };
        let taken = PlannedStep { step, undo: Vec::new(), why: format!("keeps {} as it is now", id.title()) };
        let restore = Step::Restore {
            dataset: root.clone(),
            from: root.clone(),
            snapshot,
            branch: branch_path(root, run, ""),
            user: self.world.user(root).clone(),
            branch_user: branch_props(root, BranchKind::Failed, run),
        };
        (Some(taken), matches!(id, GuestId::Jail(_)).then_some(restore))
    }

    /// Snapshots of the root that are older than those that the spec keeps.
    fn prune_guest(&self, guest: &Guest) -> Option<PlannedStep> {
        let root = guest.spec.dataset();
        let id = guest.spec.id().to_string();
        let all = self.input.observed.snapshots.iter().filter(|(path, _)| path.is_in(root));
        let keep = usize::try_from(self.spec.snapshots.keep.max(1)).unwrap_or(usize::MAX) - 1;
        let mut set = Vec::new();
        for (path, snapshots) in all {
            let ours: Vec<_> =
                snapshots.iter().filter(|snapshot| snapshot.user.get(name::GUEST) == Some(&id)).collect();
            let old = ours.len().saturating_sub(keep);
            let unused = ours[..old].iter().filter(|snapshot| snapshot.clones.is_empty());
            set.extend(unused.map(|snapshot| (path.clone(), snapshot.name.clone())));
        }
        if set.is_empty() {
            return None;
        }
        let why = format!("the newest {} are kept", self.spec.snapshots.keep);
        Some(PlannedStep { step: Step::DestroySnapshots { set }, undo: Vec::new(), why })
    }

    /// The guests that the plan depends on.
    pub(super) fn guest_ids(&self) -> Vec<GuestId> {
        self.guests.iter().map(|guest| guest.spec.id()).collect()
    }
}

/// Units before those that wait for them.
fn in_order(mut units: Vec<Unit>) -> Vec<Unit> {
    let mut ordered: Vec<Unit> = Vec::with_capacity(units.len());
    while !units.is_empty() {
        let waits = |unit: &Unit| units.iter().any(|other| unit.after.contains(&other.name));
        // The spec has no cycle; were there one, its units come as they are, and the linter says so.
        let next = units.iter().position(|unit| !waits(unit)).unwrap_or(0);
        ordered.push(units.remove(next));
    }
    ordered
}

/// What is wrong with a guest that should be as it was made.
fn drift_of(seen: &ObservedGuest, wanted: &GuestSpec) -> String {
    match &seen.status {
        GuestStatus::Absent => "it is gone".to_owned(),
        GuestStatus::Configured => "it has no system to run".to_owned(),
        GuestStatus::Stopped => "it does not run".to_owned(),
        GuestStatus::Other(text) => text.clone(),
        GuestStatus::Running if seen.running.as_ref() != Some(&wanted.configuration()) => {
            "it was started with another configuration".to_owned()
        }
        GuestStatus::Running if !seen.intact => "its configuration was changed by hand".to_owned(),
        GuestStatus::Running => "its content is not what was put into it".to_owned(),
    }
}

/// A dataset that a running guest sees cannot be put back or taken away: the guest is stopped around it. `guests`
/// are those that run, as they shall run afterwards. A guest's own unit does so itself.
pub(crate) fn hold_guests(units: &mut [Unit], guests: &BTreeMap<GuestId, &GuestSpec>) {
    if guests.is_empty() {
        return;
    }
    for unit in units {
        let others: Vec<&GuestSpec> =
            guests.iter().filter(|(id, _)| id.to_string() != unit.name).map(|(_, spec)| *spec).collect();
        for planned in &mut unit.steps {
            if let Some((range, held)) = touched(&planned.undo, |step| step, &others) {
                let mut undo = std::mem::take(&mut planned.undo);
                let after = undo.split_off(range.end);
                undo.splice(
                    range.start..range.start,
                    held.iter().map(|spec| Step::StopGuest { guest: spec.id() }),
                );
                undo.extend(held.iter().map(|spec| Step::StartGuest { guest: Box::new((*spec).clone()) }));
                undo.extend(after);
                planned.undo = undo;
            }
        }
        let Some((range, held)) = touched(&unit.steps, |planned| &planned.step, &others) else { continue };
        let why = "it sees a dataset that is put back";
        let stop = held.iter().map(|spec| PlannedStep {
            step: Step::StopGuest { guest: spec.id() },
            undo: vec![Step::StartGuest { guest: Box::new((*spec).clone()) }],
            why: why.to_owned(),
        });
        let start = held.iter().map(|spec| PlannedStep {
            step: Step::StartGuest { guest: Box::new((*spec).clone()) },
            undo: vec![Step::StopGuest { guest: spec.id() }],
            why: why.to_owned(),
        });
        let (stop, start): (Vec<_>, Vec<_>) = (stop.collect(), start.collect());
        if range.start < unit.commit_at {
            unit.commit_at += stop.len() + start.len();
        }
        unit.steps.splice(range.end..range.end, start);
        unit.steps.splice(range.start..range.start, stop);
    }
}

/// From the first to the last step that puts a dataset of a guest back or takes it away, and those guests.
fn touched<'g, T>(
    steps: &[T],
    step: impl Fn(&T) -> &Step,
    guests: &[&'g GuestSpec],
) -> Option<(std::ops::Range<usize>, Vec<&'g GuestSpec>)> {
    let dataset = |at: &T| match step(at) {
        Step::Restore { dataset, .. } | Step::UndoRestore { dataset, .. } | Step::Retire { dataset, .. } => {
            Some(dataset.clone())
        }
        _ => None,
    };
    let found: Vec<(usize, DatasetPath)> =
        steps.iter().enumerate().filter_map(|(index, at)| Some((index, dataset(at)?))).collect();
    let sees = |spec: &GuestSpec| {
        found
            .iter()
            .any(|(_, path)| spec.dataset() == path || spec.mounts.iter().any(|mount| mount.dataset == *path))
    };
    let held: Vec<&GuestSpec> = guests.iter().copied().filter(|spec| sees(spec)).collect();
    let (first, last) = (found.first()?.0, found.last()?.0);
    (!held.is_empty()).then_some((first..last + 1, held))
}

#[cfg(test)]
mod tests;
