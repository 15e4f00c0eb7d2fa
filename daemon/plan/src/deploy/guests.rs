//! Jails and zones of a deploy: what happens to each, and the units that do it.
//!
//! Owns the order around guests: a guest is made before the apps in it start, after its datasets are there and after
//! the guests that it depends on; apps in a guest that restarts are stopped before, and started and probed after; a
//! guest goes after the apps that were in it. A guest stands or falls with the apps in it; one without is a unit of
//! its own.

use super::Action;
use super::Deploy;
use super::Node;
use super::build::DATASETS;
use super::datasets_of;
use super::hold::hold_guests;
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
    /// The component with whose apps it stands or falls.
    owner: Option<usize>,
}

/// Steps on guests.
#[derive(Default)]
pub(super) struct GuestSteps {
    /// Before the apps'.
    pub(super) before: Vec<PlannedStep>,
    /// After the commit.
    pub(super) after: Vec<PlannedStep>,
}

impl Guest {
    fn new(spec: GuestSpec) -> Self {
        let depends_on = match &spec.definition {
            GuestDefinition::Jail(_, jail) => jail.depends_on.iter().cloned().map(GuestId::Jail).collect(),
            GuestDefinition::Zone(_, zone) => zone.depends_on.iter().cloned().map(GuestId::Zone).collect(),
        };
        Self { spec, depends_on, action: GuestAction::Leave, why: String::new(), owner: None }
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

    /// The component in which each guest stands or falls: that of the apps in it. A guest without apps is alone,
    /// unless it lies between guests of one component.
    pub(super) fn own_guests(&mut self, components: &[usize]) {
        for index in 0..self.guests.len() {
            let id = self.guests[index].spec.id();
            let inside = self.nodes.iter().position(|node| {
                let runtime = node.app.map(|app| &app.runtime);
                runtime.and_then(GuestId::of).as_ref() == Some(&id)
            });
            self.guests[index].owner = inside.and_then(|node| components.get(node).copied());
        }
        for index in 0..self.guests.len() {
            if self.guests[index].owner.is_none() {
                let below = self.owners(index, |guest, other| guest.depends_on.contains(&other.spec.id()));
                let above = self.owners(index, |guest, other| other.depends_on.contains(&guest.spec.id()));
                self.guests[index].owner = below.intersection(&above).next().copied();
            }
        }
    }

    /// Components that are reached from a guest along a relation, through guests without apps.
    fn owners(&self, from: usize, related: impl Fn(&Guest, &Guest) -> bool) -> BTreeSet<usize> {
        let (mut todo, mut seen, mut found) = (vec![from], BTreeSet::from([from]), BTreeSet::new());
        while let Some(at) = todo.pop() {
            for (index, other) in self.guests.iter().enumerate() {
                if related(&self.guests[at], other) && seen.insert(index) {
                    match other.owner {
                        Some(owner) => drop(found.insert(owner)),
                        None => todo.push(index),
                    }
                }
            }
        }
        found
    }

    /// Steps on the guests of a component, which come before those of its apps, and what is cleared up after the
    /// commit.
    pub(super) fn guest_steps(&self, component: usize) -> GuestSteps {
        let mut made = GuestSteps::default();
        for guest in self.in_dependency_order() {
            if guest.owner == Some(component) && matches!(guest.action, GuestAction::Make { .. }) {
                let GuestSteps { mut before, mut after } = self.make_steps(guest);
                made.before.append(&mut before);
                made.after.append(&mut after);
            }
        }
        made
    }

    /// Guests after those that they depend on.
    fn in_dependency_order(&self) -> Vec<&Guest> {
        let mut left: Vec<&Guest> = self.guests.iter().collect();
        let mut ordered = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let waits = |guest: &&Guest| left.iter().any(|other| guest.depends_on.contains(&other.spec.id()));
            // The spec has no cycle; were there one, they come as they are.
            let next = left.iter().position(|guest| !waits(guest)).unwrap_or(0);
            ordered.push(left.remove(next));
        }
        ordered
    }

    /// Adds the units of guests without apps and of those that go, and says what waits for what. `names` are the
    /// units of components.
    pub(super) fn add_guest_units(&self, units: &mut Vec<Unit>, names: &BTreeMap<usize, String>) {
        let acts = |guest: &&&Guest| matches!(guest.action, GuestAction::Make { .. });
        let unit_of = |guest: &Guest| match guest.owner {
            Some(owner) => names.get(&owner).cloned(),
            None => Some(guest.spec.id().to_string()),
        };
        let ordered = self.in_dependency_order();
        let datasets = units.iter().find(|unit| unit.name == DATASETS).map(|unit| unit.name.clone());
        let mut waits: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for guest in ordered.iter().filter(acts) {
            let Some(unit) = unit_of(guest) else { continue };
            let before =
                ordered.iter().filter(acts).filter(|other| guest.depends_on.contains(&other.spec.id()));
            let before = before.filter_map(|other| unit_of(other)).chain(datasets.clone());
            waits.entry(unit.clone()).or_default().extend(before.filter(|other| *other != unit));
        }
        for unit in units.iter_mut() {
            let more = waits.remove(&unit.name).unwrap_or_default();
            unit.after.extend(more.into_iter().filter(|name| !unit.after.contains(name)).collect::<Vec<_>>());
        }
        let mut alone = Vec::new();
        for guest in ordered.iter().filter(acts).filter(|guest| guest.owner.is_none()) {
            let name = guest.spec.id().to_string();
            let after = waits.remove(&name).unwrap_or_default().into_iter().collect();
            let GuestSteps { before: mut steps, after: later } = self.make_steps(guest);
            let commit_at = steps.len();
            steps.extend(later);
            alone.push(Unit { name, apps: Vec::new(), after, steps, commit_at });
        }
        // In the order in which they run, for who reads the plan.
        for unit in alone {
            let at = units.iter().rposition(|other| unit.after.contains(&other.name)).map_or(0, |at| at + 1);
            units.insert(at, unit);
        }
        self.add_removals(units, &ordered);
        let held = self.guests.iter().filter(|guest| {
            let seen = self.input.observed.guests.get(&guest.spec.id());
            acts(&guest) || seen.is_some_and(|seen| seen.status == GuestStatus::Running)
        });
        let held: BTreeMap<GuestId, &GuestSpec> = held.map(|guest| (guest.spec.id(), &guest.spec)).collect();
        hold_guests(units, &held);
    }

    /// What goes does so after the apps that were in it, and after the guests that depend on it.
    fn add_removals(&self, units: &mut Vec<Unit>, ordered: &[&Guest]) {
        let gone: Vec<&&Guest> =
            ordered.iter().rev().filter(|guest| guest.action == GuestAction::Remove).collect();
        for guest in &gone {
            let id = guest.spec.id();
            let dependents = gone.iter().filter(|other| other.depends_on.contains(&id));
            let mut after: Vec<String> = dependents.map(|other| other.spec.id().to_string()).collect();
            after.extend(self.units_inside(&id, units));
            let undo = vec![Step::StartGuest { guest: Box::new(guest.spec.clone()) }];
            let step =
                PlannedStep { step: Step::RemoveGuest { guest: id.clone() }, undo, why: guest.why.clone() };
            units.push(Unit {
                name: id.to_string(),
                apps: Vec::new(),
                after,
                steps: vec![step],
                commit_at: 1,
            });
        }
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

    fn make_steps(&self, guest: &Guest) -> GuestSteps {
        let id = guest.spec.id();
        let made = self.input.observed.guests.get(&id).and_then(|seen| seen.made.clone());
        let old = made.map(|guest| Step::StartGuest { guest });
        let mut before = Vec::new();
        if guest.action == (GuestAction::Make { restart: true }) {
            self.stop_inside(&id, old.as_ref(), &guest.why, &mut before);
            before.push(PlannedStep {
                step: Step::StopGuest { guest: id.clone() },
                undo: old.iter().cloned().collect(),
                why: guest.why.clone(),
            });
        }
        let (snapshot, restore) = self.guest_snapshot(guest);
        let after = if snapshot.is_some() { self.prune_guest(guest) } else { None };
        before.extend(snapshot);
        let mut undo = match old {
            Some(_) => vec![Step::StopGuest { guest: id }],
            None => vec![Step::RemoveGuest { guest: id }],
        };
        undo.extend(restore);
        undo.extend(old);
        let step = Step::MakeGuest { guest: Box::new(guest.spec.clone()) };
        before.push(PlannedStep { step, undo, why: guest.why.clone() });
        GuestSteps { before, after: after.into_iter().collect() }
    }

    /// Ends the processes of the apps inside, dependents first.
    fn stop_inside(&self, id: &GuestId, old: Option<&Step>, why: &str, steps: &mut Vec<PlannedStep>) {
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if self.was_in(node).as_ref() != Some(id) {
                continue;
            }
            for number in self.input.observed.alive(node.name) {
                let (run, grace) = self.before(index, number);
                // The old one has to run for it: the host may have booted in the middle.
                let undo = run.map(|run| Step::StartApp { run: Box::new(run) });
                let undo = old.into_iter().cloned().chain(undo).collect();
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

#[cfg(test)]
mod tests;
