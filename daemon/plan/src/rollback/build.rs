//! The steps of a rollback.

use super::RollbackError;
use super::RollbackInput;
use super::RollbackTarget;
use crate::based_on::based_on;
use crate::deploy::hold_guests;
use crate::deploy::missing_text;
use crate::guest::GuestId;
use crate::guest::GuestSpec;
use crate::guest::GuestStatus;
use crate::history::Candidate;
use crate::history::branches_of;
use crate::instance::Instance;
use crate::naming::branch_path;
use crate::naming::is_branch;
use crate::naming::snapshot_name;
use crate::observed::ObservedSnapshot;
use crate::plan::Note;
use crate::plan::PLAN_FORMAT;
use crate::plan::Plan;
use crate::plan::PlannedStep;
use crate::plan::Purpose;
use crate::plan::Release;
use crate::plan::Route;
use crate::plan::RunSpec;
use crate::plan::Severity;
use crate::plan::Step;
use crate::plan::Unit;
use crate::props::AppStamp;
use crate::props::BranchKind;
use crate::props::RunState;
use crate::props::branch_props;
use crate::props::parse_stamps;
use crate::props::replace_stamps;
use crate::props::snapshot_stamp;
use crate::release::has_process;
use crate::release::run_spec_of;
use crate::retention::Retention;
use crate::retention::prune;
use crate::shape::has_front;
use crate::shape::health_of;
use crate::shape::hook;
use crate::shape::numbers;
use crate::shape::route_now;
use crate::shape::route_of;
use crate::shape::stop_front;
use crate::world::Located;
use crate::world::World;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use zed_spec::AppName;
use zed_spec::DatasetPath;

/// TERM to KILL for an app whose record is missing.
const GRACE: Duration = Duration::from_secs(10);

/// One dataset that goes back.
struct Back<'a> {
    dataset: DatasetPath,
    holder: &'a DatasetPath,
    snapshot: &'a ObservedSnapshot,
}

/// An app that runs afterwards.
struct Starting<'a> {
    release: &'a Release,
    runs: Vec<RunSpec>,
}

/// Everything that the steps are made from.
struct Rollback<'a> {
    input: &'a RollbackInput<'a>,
    world: &'a World<'a>,
    target: &'a Candidate<'a>,
    /// Stamps of the apps that go back, as they will be.
    after: BTreeMap<AppName, AppStamp>,
    backs: Vec<Back<'a>>,
    /// Apps that have to be stopped: dependents last.
    stops: Vec<AppName>,
    notes: Vec<Note>,
    steps: Vec<PlannedStep>,
}

pub(super) fn build<'a>(
    input: &'a RollbackInput<'a>,
    world: &'a World<'a>,
    located: &'a Located<'a>,
    target: &'a Candidate<'a>,
) -> Result<Plan, RollbackError> {
    let mut rollback = Rollback {
        input,
        world,
        target,
        after: BTreeMap::new(),
        backs: Vec::new(),
        stops: Vec::new(),
        notes: Vec::new(),
        steps: Vec::new(),
    };
    rollback.gather(located);
    let starts = rollback.starts()?;
    rollback.before_hooks();
    rollback.stop();
    let snapshot = rollback.snapshot(located);
    rollback.restore(&snapshot);
    rollback.start(&starts);
    let commit_at = rollback.steps.len();
    rollback.retire(&starts);
    rollback.after_hooks(&starts);
    rollback.retain();
    let apps: Vec<AppName> =
        rollback.after.keys().chain(&rollback.stops).cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let mut datasets: Vec<&DatasetPath> = rollback.backs.iter().map(|back| &back.dataset).collect();
    datasets.sort();
    let datasets = datasets.into_iter().map(|path| (path, input.observed.datasets.get(path)));
    let running = input.observed.guests.iter().filter(|(_, seen)| seen.status == GuestStatus::Running);
    let guests: BTreeMap<GuestId, &GuestSpec> =
        running.filter_map(|(id, seen)| Some((id.clone(), seen.made.as_deref()?))).collect();
    let guest_ids: Vec<GuestId> = guests.keys().cloned().collect();
    let based_on = based_on(world, datasets, &[], apps.iter(), &guest_ids);
    let name = apps.iter().map(AppName::as_str).collect::<Vec<_>>().join("+");
    let Rollback { notes, steps, .. } = rollback;
    let mut units = vec![Unit { name, apps, after: Vec::new(), steps, commit_at }];
    hold_guests(&mut units, &guests);
    Ok(Plan {
        format: PLAN_FORMAT,
        run: input.run.clone(),
        purpose: Purpose::Rollback { app: input.app.clone(), target: input.target.to_string() },
        deploy: located.stamp.deploy.clone(),
        generation: input.generation_held,
        spec_sha256: String::new(),
        made_at: input.now,
        based_on,
        units,
        notes,
    })
}

impl<'a> Rollback<'a> {
    fn note(&mut self, severity: Severity, kind: &str, object: String, text: String) {
        self.notes.push(Note { severity, kind: kind.to_owned(), object, text });
    }

    fn push(&mut self, step: Step, undo: Vec<Step>, why: String) {
        self.steps.push(PlannedStep { step, undo, why });
    }

    fn release(&self, stamp: &AppStamp) -> Option<&'a Release> {
        self.input.releases.get(&stamp.spec)
    }

    fn branch(&self, dataset: &DatasetPath) -> DatasetPath {
        branch_path(dataset, self.input.run, "")
    }

    /// Finds every dataset that goes back and every app that is on one.
    fn gather(&mut self, located: &'a Located<'a>) {
        let home = located.dataset;
        let stamps = parse_stamps(
            &format_args!("snapshot {home}@{}", self.target.snapshot.name),
            &self.target.snapshot.user,
        );
        let present = self.world.stamps_on(home);
        let data: BTreeSet<DatasetPath> = stamps
            .apps
            .iter()
            .chain(&present)
            .filter_map(|stamp| self.release(stamp))
            .flat_map(|release| release.definition.data.iter().cloned())
            .filter(|path| path != home)
            .collect();
        self.backs.push(Back {
            dataset: home.clone(),
            holder: self.target.holder,
            snapshot: self.target.snapshot,
        });
        for path in data {
            self.gather_data(path);
        }
        for index in 0..self.backs.len() {
            self.gather_stamps(index);
        }
        let touched: BTreeSet<&DatasetPath> = self.backs.iter().map(|back| &back.dataset).collect();
        let stops = self.world.apps.iter().filter(|(name, found)| {
            self.world.is_alive(name)
                && (touched.contains(found.dataset)
                    || self.release(&found.stamp).is_some_and(|release| {
                        release.definition.data.iter().any(|path| touched.contains(path))
                    }))
        });
        let stops = stops.map(|(name, found)| (name.clone(), self.release(&found.stamp))).collect();
        self.stops = start_order(stops);
    }

    /// The snapshot of a data dataset that belongs to the target: taken at the same instant, or the last before.
    fn gather_data(&mut self, dataset: DatasetPath) {
        let observed = self.input.observed;
        let Some((own, _)) = observed.datasets.get_key_value(&dataset) else {
            let text = "it is gone: nothing of it can be put back".to_owned();
            return self.note(Severity::Warning, "data", format!("dataset {dataset}"), text);
        };
        let branches = branches_of(&dataset, observed).into_iter().map(|(path, _)| path);
        let all: Vec<(&DatasetPath, &ObservedSnapshot)> = std::iter::once(own)
            .chain(branches)
            .flat_map(|holder| observed.snapshots.get(holder).into_iter().flatten().map(move |s| (holder, s)))
            .collect();
        let target = self.target.snapshot;
        let same =
            all.iter().find(|(_, snapshot)| snapshot.name == target.name && snapshot.txg == target.txg);
        let same = same.or_else(|| all.iter().find(|(_, snapshot)| snapshot.name == target.name));
        // On its own line only: a branch's snapshots are another past.
        let before = || {
            let older = all.iter().filter(|(holder, snapshot)| *holder == own && snapshot.txg <= target.txg);
            older.max_by_key(|(_, snapshot)| snapshot.txg)
        };
        match same.or_else(before) {
            Some((holder, snapshot)) => {
                if snapshot.name != target.name {
                    let text = format!(
                        "it has no snapshot `{}`: it goes back to `{}`, the last one before",
                        target.name, snapshot.name
                    );
                    self.note(Severity::Warning, "data", format!("dataset {dataset}"), text);
                }
                self.backs.push(Back { dataset, holder, snapshot });
            }
            None => {
                let text = format!("it has no snapshot as old as `{}`: it stays as it is", target.name);
                self.note(Severity::Warning, "data", format!("dataset {dataset}"), text);
            }
        }
    }

    /// The stamps that a dataset has afterwards.
    fn gather_stamps(&mut self, index: usize) {
        let Back { dataset, holder, snapshot } = &self.backs[index];
        let stamps = parse_stamps(&format_args!("snapshot {holder}@{}", snapshot.name), &snapshot.user);
        self.notes.extend(stamps.notes);
        for stamp in stamps.apps {
            // What an operator wants of the app and whose it is now have not changed with the release: a spec that
            // was renamed since keeps its app.
            let before = self.world.apps.get(&stamp.app).map(|found| &found.stamp);
            let stamp = match before {
                Some(before) => AppStamp { state: before.state, deploy: before.deploy.clone(), ..stamp },
                None => stamp,
            };
            let stamp = match self.input.target {
                RollbackTarget::Undo => stamp,
                _ => AppStamp {
                    held: Some(self.input.generation_held),
                    rolled_back_to: Some(snapshot.name.clone()),
                    rolled_back_from: Some(branch_path(dataset, self.input.run, "")),
                    ..stamp
                },
            };
            self.after.insert(stamp.app.clone(), stamp);
        }
    }

    /// The runs to start afterwards, dependencies first: releases that go back, and apps that only had to be
    /// stopped because they use the same data.
    fn starts(&self) -> Result<Vec<Starting<'a>>, RollbackError> {
        let mut wanted: Vec<(AppName, Option<&'a Release>)> = Vec::new();
        for (name, stamp) in &self.after {
            let Some(release) = self.release(stamp) else {
                return Err(RollbackError::MissingRelease {
                    app: name.clone(),
                    version: stamp.version.clone(),
                    spec: crate::deploy::short(&stamp.spec).to_owned(),
                });
            };
            if stamp.state == RunState::Running {
                wanted.push((name.clone(), Some(release)));
            }
        }
        let homes: BTreeSet<&DatasetPath> = self.backs.iter().map(|back| &back.dataset).collect();
        for name in self.stops.iter().filter(|name| !self.after.contains_key(*name)) {
            let Some(found) = self.world.apps.get(name).filter(|found| !homes.contains(found.dataset)) else {
                continue;
            };
            wanted.push((name.clone(), self.release(&found.stamp)));
        }
        let releases: BTreeMap<AppName, &'a Release> =
            wanted.iter().filter_map(|(name, release)| Some((name.clone(), (*release)?))).collect();
        let mut starts = Vec::new();
        for name in start_order(wanted) {
            let Some(release) = releases.get(&name) else { continue };
            let stamp =
                self.after.get(&name).or_else(|| self.world.apps.get(&name).map(|found| &found.stamp));
            let numbers = numbers(&release.definition, stamp).into_iter();
            let runs = numbers.map(|number| run_spec_of(release, number, self.input.observed)).collect();
            match runs {
                Ok(runs) => starts.push(Starting { release, runs }),
                Err(missing) => {
                    return Err(RollbackError::MissingValue {
                        app: name,
                        version: release.definition.version.clone(),
                        text: missing.first().map(missing_text).unwrap_or_default(),
                    });
                }
            }
        }
        Ok(starts)
    }

    fn before_hooks(&mut self) {
        for name in self.after.keys().cloned().collect::<Vec<_>>() {
            let Some(found) = self.world.apps.get(&name) else { continue };
            let Some(release) = self.release(&found.stamp) else { continue };
            let first = numbers(&release.definition, Some(&found.stamp)).first().copied().unwrap_or(1);
            let Ok(run) = run_spec_of(release, first, self.input.observed) else { continue };
            for command in &release.definition.hooks.before_rollback {
                let step = hook("before_rollback", command, run.clone(), &release.definition.hooks);
                self.push(step, Vec::new(), "before anything changes".to_owned());
            }
        }
    }

    fn stop(&mut self) {
        for name in self.stops.clone().into_iter().rev() {
            let release = self.world.apps.get(&name).and_then(|found| self.release(&found.stamp));
            let grace = release.map_or(GRACE, |release| release.definition.stop_grace);
            for (nth, number) in self.input.observed.alive(&name).into_iter().enumerate() {
                let mut undo = match release.map(|release| run_spec_of(release, number, self.input.observed))
                {
                    Some(Ok(run)) => vec![Step::StartApp { run: Box::new(run) }],
                    _ => {
                        let text = "the record of what runs now is missing: if this plan fails, it is not started again; \
                                    saving the spec again does"
                            .to_owned();
                        self.note(Severity::Warning, "release", format!("app {name}"), text);
                        Vec::new()
                    }
                };
                // The undo of the first one comes last: then all of them run again.
                undo.extend(self.route_before(&name).filter(|_| nth == 0).map(|route| Step::Route { route }));
                let why = "its data is put back".to_owned();
                self.push(Step::StopApp { instance: Instance::new(&name, number), grace }, undo, why);
            }
        }
    }

    fn snapshot(&mut self, located: &Located<'_>) -> String {
        let name = snapshot_name(self.input.now, self.input.run, Some(&located.stamp.version));
        let set = self
            .backs
            .iter()
            .map(|back| (back.dataset.clone(), snapshot_stamp(self.world.user(&back.dataset))))
            .collect();
        let why = format!("keeps {} as it is now", located.stamp.version);
        self.push(Step::Snapshot { name: name.clone(), set }, Vec::new(), why);
        name
    }

    fn restore(&mut self, present: &str) {
        for index in 0..self.backs.len() {
            let Back { dataset, holder, snapshot } = &self.backs[index];
            let before = self.world.user(dataset);
            let stamps = parse_stamps(&format_args!("{holder}@{}", snapshot.name), &snapshot.user).apps;
            let after: Vec<AppStamp> =
                stamps.iter().filter_map(|stamp| self.after.get(&stamp.app)).cloned().collect();
            let user = if after.is_empty() { before.clone() } else { replace_stamps(before, &after) };
            let run = self.input.run;
            let branch = self.branch(dataset);
            let step = Step::Restore {
                dataset: dataset.clone(),
                from: (*holder).clone(),
                snapshot: snapshot.name.clone(),
                branch: branch.clone(),
                user,
                branch_user: branch_props(dataset, BranchKind::Undone, run),
            };
            let back = Step::UndoRestore {
                restore: Box::new(step.clone()),
                dataset: dataset.clone(),
                branch: branch.clone(),
                snapshot: present.to_owned(),
                aside: branch_path(dataset, run, "u"),
                user: before.clone(),
                aside_user: branch_props(dataset, BranchKind::Failed, run),
            };
            let why = format!("{}; what it is now goes to {branch}", self.input.target);
            self.push(step, vec![back, Step::DestroyBranch { branch }], why);
        }
    }

    fn start(&mut self, starts: &[Starting<'a>]) {
        for Starting { release, runs } in starts {
            let app = &release.definition;
            let why = match self.after.get(&release.app) {
                Some(stamp) => format!("back to {}", stamp.version),
                None => "it was stopped because its data is shared".to_owned(),
            };
            if !has_process(app) && app.health.probes.is_empty() {
                continue;
            }
            for run in runs.iter().filter(|_| has_process(app)) {
                let undo = vec![Step::StopApp { instance: run.instance(), grace: app.stop_grace }];
                self.push(Step::StartApp { run: Box::new(run.clone()) }, undo, why.clone());
            }
            for run in runs {
                let step = Step::Probe { health: health_of(app, run.number), run: Box::new(run.clone()) };
                self.push(step, Vec::new(), String::new());
            }
            self.route(release, runs);
        }
    }

    /// The front forwards to what was started. A front that the release does not have goes after the commit.
    fn route(&mut self, release: &Release, runs: &[RunSpec]) {
        let app = &release.app;
        if !has_process(&release.definition) {
            return;
        }
        let Some(new) = route_of(app, &release.definition, runs.iter().map(|run| run.number)) else { return };
        let undo = if has_front(app, self.input.observed) { Vec::new() } else { vec![stop_front(app)] };
        self.push(Step::Route { route: new }, undo, String::new());
    }

    /// Where an app's front forwards to now.
    fn route_before(&self, app: &AppName) -> Option<Route> {
        let stamp = &self.world.apps.get(app)?.stamp;
        route_now(self.release(stamp)?, stamp, self.input.observed)
    }

    /// What the release of then does not have: further processes, a front.
    fn retire(&mut self, starts: &[Starting<'a>]) {
        for Starting { release, runs } in starts {
            let records = self.input.observed.processes_of(&release.app).map(|(number, _)| number);
            let gone = records.filter(|number| *number > 0 && runs.iter().all(|run| run.number != *number));
            for number in gone.collect::<Vec<_>>() {
                let instance = Instance::new(&release.app, number);
                self.push(Step::ForgetApp { instance }, Vec::new(), "the release has fewer".to_owned());
            }
            let wanted = route_of(&release.app, &release.definition, []).is_some();
            if wanted || self.input.observed.process(&release.app, 0).is_none() {
                continue;
            }
            let instance = Instance::front(&release.app);
            let why = "the release has no address of its own";
            self.push(stop_front(&release.app), Vec::new(), why.to_owned());
            self.push(Step::ForgetApp { instance }, Vec::new(), why.to_owned());
        }
    }

    fn after_hooks(&mut self, starts: &[Starting<'a>]) {
        for Starting { release, runs } in
            starts.iter().filter(|s| self.after.contains_key(&s.release.app)).collect::<Vec<_>>()
        {
            let Some(run) = runs.first() else { continue };
            for command in &release.definition.hooks.after_rollback {
                let step = hook("after_rollback", command, run.clone(), &release.definition.hooks);
                self.push(step, Vec::new(), "the rollback is done".to_owned());
            }
        }
    }

    fn retain(&mut self) {
        let Some(keep) = self.input.keep else { return };
        let mut steps = Vec::new();
        for back in &self.backs {
            let mut needed_branches: BTreeSet<DatasetPath> = BTreeSet::from([self.branch(&back.dataset)]);
            needed_branches.extend(self.after.values().filter_map(|stamp| stamp.rolled_back_from.clone()));
            // A branch that is restored from, and those that it came from, change hands in the restore.
            let mut at = Some(back.holder);
            while let Some(path) = at.filter(|path| is_branch(path.as_str())) {
                if !needed_branches.insert(path.clone()) {
                    break;
                }
                at = self
                    .input
                    .observed
                    .datasets
                    .get(path)
                    .and_then(|d| d.origin.as_ref())
                    .map(|(path, _)| path);
            }
            let live = self.input.observed.snapshots.get(&back.dataset);
            let fork = fork_txg(self.world, back);
            let moved: BTreeSet<String> =
                live.into_iter().flatten().filter(|s| s.txg > fork).map(|s| s.name.clone()).collect();
            let mut needed = BTreeSet::from([back.snapshot.name.clone()]);
            needed.extend(live.into_iter().flatten().filter(|s| s.txg == fork).map(|s| s.name.clone()));
            needed.extend(self.after.values().filter_map(|stamp| stamp.rolled_back_to.clone()));
            let retention = Retention {
                dataset: &back.dataset,
                keep,
                adds_snapshot: false,
                adds_branch: true,
                needed: &needed,
                needed_branches: &needed_branches,
                moved: &moved,
            };
            prune(self.world, &retention, &mut steps);
        }
        self.steps.append(&mut steps);
    }
}

/// Creation of the newest snapshot that both the present and the target have come from.
fn fork_txg(world: &World<'_>, back: &Back<'_>) -> u64 {
    let observed = world.observed;
    let mut txg = back.snapshot.txg;
    let mut at = back.holder;
    // A chain of branches is as long as there are branches, at most.
    for _ in 0..=observed.datasets.len() {
        if *at == back.dataset {
            return txg;
        }
        let Some((origin, name)) = observed.datasets.get(at).and_then(|d| d.origin.as_ref()) else {
            return 0;
        };
        let list = observed.snapshots.get(origin);
        let Some(snapshot) = list.and_then(|list| list.iter().find(|s| s.name == *name)) else { return 0 };
        (txg, at) = (snapshot.txg.min(txg), origin);
    }
    0
}

/// Dependencies before dependents, else by name. Releases that depend on each other in a circle, which no valid
/// spec has, come in the order of their names.
fn start_order(apps: Vec<(AppName, Option<&Release>)>) -> Vec<AppName> {
    let mut left: BTreeMap<AppName, Option<&Release>> = apps.into_iter().collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let waits = |release: &Option<&Release>| {
            release.is_some_and(|release| {
                release.definition.depends_on.iter().any(|name| left.contains_key(name))
            })
        };
        let ready: Vec<AppName> =
            left.iter().filter(|(_, release)| !waits(release)).map(|(name, _)| name.clone()).collect();
        let next = if ready.is_empty() { left.keys().take(1).cloned().collect() } else { ready };
        for name in next {
            left.remove(&name);
            order.push(name);
        }
    }
    order
}
