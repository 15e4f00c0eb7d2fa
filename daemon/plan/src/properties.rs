//! Properties of all plans, on random specs and random histories: planning again finds nothing to do, a failure
//! anywhere leaves what was before, nothing that zed did not create is destroyed, and a rollback loses nothing.

use crate::instance::Instance;
use crate::observed::ObservedDataset;
use crate::observed::ObservedProcess;
use crate::observed::ObservedSnapshot;
use crate::observed::ProcessStatus;
use crate::plan::Plan;
use crate::plan::Severity;
use crate::plan::Step;
use crate::plan::Unit;
use crate::props::name;
use crate::testing::*;
use crate::verb::AppVerb;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use zed_spec::DatasetPath;

const HOMES: [&str; 5] = ["a", "a/b", "c", "e/f/g", "a/b/h"];
const DATA: [&str; 4] = ["d", "a/b/d", "m/n", "c/x"];
const APPS: [&str; 4] = ["p", "q", "r", "s"];

#[derive(Debug, Clone)]
struct RandomApp {
    present: bool,
    home: usize,
    data: Vec<bool>,
    version: u8,
    env: u8,
    grace: u8,
    kind: u8,
    depends: Vec<bool>,
    hooks: bool,
    strategy: u8,
    instances: u32,
    listen: bool,
    artifact: u8,
}

#[derive(Clone)]
struct RandomSpec {
    apps: Vec<RandomApp>,
    lone: Vec<bool>,
    quota: u8,
    before: bool,
    keep: u32,
}

fn random_app() -> impl Strategy<Value = RandomApp> {
    let parts = (any::<bool>(), 0..HOMES.len(), vec(any::<bool>(), DATA.len()), 1u8..4, 0u8..2, 1u8..3);
    let more = (0u8..4, vec(any::<bool>(), APPS.len()), any::<bool>());
    let way = (0u8..6, 1u32..4, any::<bool>(), 0u8..4);
    (parts, more, way).prop_map(|(parts, more, (strategy, instances, listen, artifact))| {
        let (present, home, data, version, env, grace) = parts;
        let (kind, depends, hooks) = more;
        RandomApp {
            present,
            home,
            data,
            version,
            env,
            grace,
            kind,
            depends,
            hooks,
            strategy,
            instances,
            listen,
            artifact,
        }
    })
}

fn random_spec() -> impl Strategy<Value = RandomSpec> {
    (vec(random_app(), APPS.len()), vec(any::<bool>(), DATA.len()), 0u8..3, any::<bool>(), 1u32..4)
        .prop_map(|(apps, lone, quota, before, keep)| RandomSpec { apps, lone, quota, before, keep })
}

/// Shown as the text that a person would save.
impl fmt::Debug for RandomSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl RandomSpec {
    /// How the app is upgraded, how many there are, where it listens, and what it is unpacked from.
    fn more(&self, index: usize) -> String {
        let app = &self.apps[index];
        let mut more = String::new();
        let first = |other: &RandomApp| other.present && other.artifact > 0 && other.home == app.home;
        if app.artifact > 0 && self.apps.iter().position(first) == Some(index) {
            let _ = write!(more, "artifact: Tar(\"/srv/{}\"),", app.artifact);
        }
        if app.kind < 2 {
            return more;
        }
        let port = 8000 + 100 * index;
        match app.strategy {
            0 | 1 => {
                let _ = write!(more, "strategy: BlueGreen(ports: ({}, {})),", port + 10, port + 20);
            }
            2 => more.push_str("strategy: Rolling(batch: 1),"),
            3 => more.push_str("strategy: Rolling(batch: 2, pause: \"1s\"),"),
            4 => more.push_str("strategy: Canary(instances: 1),"),
            _ => {}
        }
        if app.strategy > 1 {
            let _ = write!(more, "instances: {},", app.instances);
        }
        if app.listen {
            let _ = write!(more, "listen: \"127.0.0.1:{port}\",");
        }
        more
    }

    fn text(&self) -> String {
        let mut datasets: BTreeMap<&str, String> = BTreeMap::new();
        let mut apps = String::new();
        let quota = if self.quota == 0 { String::new() } else { format!("quota: \"{}G\"", self.quota) };
        for (path, _) in DATA.iter().zip(&self.lone).filter(|(_, lone)| **lone) {
            datasets.insert(path, quota.clone());
        }
        for (index, app) in self.apps.iter().enumerate().filter(|(_, app)| app.present) {
            datasets.insert(HOMES[app.home], quota.clone());
            let data: Vec<&str> =
                DATA.iter().zip(&app.data).filter(|(_, d)| **d).map(|(path, _)| *path).collect();
            for path in &data {
                datasets.entry(path).or_default();
            }
            let depends: Vec<&str> =
                (0..index).filter(|i| app.depends[*i] && self.apps[*i].present).map(|i| APPS[i]).collect();
            let run = match app.kind {
                0 => String::new(),
                1 => "command: [\"once\"], restart: Never,".to_owned(),
                _ => "command: [\"serve\"],".to_owned(),
            };
            let hooks = if app.hooks {
                "hooks: (before_deploy: [[\"check\"]], after_deploy: [[\"migrate\"]], before_rollback: [[\"b\"]], \
                 after_rollback: [[\"a\"]]),"
            } else {
                ""
            };
            let more = self.more(index);
            let _ = writeln!(
                apps,
                "\"{}\": (dataset: \"{}\", data: {data:?}, version: \"{}\", {run} env: {{\"N\": \"{}\", \"PORT\": \"{}\"}}, stop_grace: \
                 \"{}s\", depends_on: {depends:?}, {hooks} {more}),",
                APPS[index],
                HOMES[app.home],
                app.version,
                app.env,
                8010 + 100 * index,
                app.grace,
            );
        }
        let datasets: String =
            datasets.iter().map(|(path, with)| format!("\"{path}\": ({with}),\n")).collect();
        format!(
            "Deploy(datasets: {{{datasets}}}, apps: {{{apps}}}, snapshots: (before_deploy: {}, keep: {}))",
            self.before, self.keep
        )
    }
}

fn instance(text: &str) -> Instance {
    text.parse().unwrap()
}

#[derive(Debug, Clone)]
enum Event {
    Save(RandomSpec),
    Rollback { app: usize, target: u8 },
    Fail { spec: RandomSpec, unit: usize, steps: usize, begun: bool },
    FailRollback { app: usize, steps: usize, begun: bool },
    Kill { app: usize, number: u32 },
    Reboot,
    Operator { app: usize, verb: u32 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => random_spec().prop_map(Event::Save),
        3 => (0..APPS.len(), 0u8..4).prop_map(|(app, target)| Event::Rollback { app, target }),
        3 => (random_spec(), 0usize..4, 0usize..40, any::<bool>())
            .prop_map(|(spec, unit, steps, begun)| Event::Fail { spec, unit, steps, begun }),
        2 => (0..APPS.len(), 0usize..40, any::<bool>())
            .prop_map(|(app, steps, begun)| Event::FailRollback { app, steps, begun }),
        1 => (0..APPS.len(), 0u32..4).prop_map(|(app, number)| Event::Kill { app, number }),
        1 => Just(Event::Reboot),
        1 => (0..APPS.len(), 0u32..6).prop_map(|(app, verb)| Event::Operator { app, verb }),
    ]
}

/// What an undo has to bring back: datasets with their properties and content, and what runs.
///
/// An upgrade during which the old version goes on does not put data back: of the `shared` datasets only the release
/// folders count.
fn state(world: &TestWorld, shared: &BTreeSet<DatasetPath>) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for (path, dataset) in
        world.observed.datasets.iter().filter(|(path, _)| !crate::naming::is_own(path.as_str()))
    {
        // A hook before the deploy runs before the snapshot: what it writes stays.
        let content: Vec<&String> =
            world.content[path.as_str()].iter().filter(|line| counts(line, shared.contains(path))).collect();
        state.insert(
            format!("dataset {path}"),
            format!("{:?} {:?} {content:?}", dataset.native, dataset.user),
        );
    }
    let lives = |instance: &Instance| {
        world.observed.processes.get(instance).is_some_and(|process| process.status.is_alive())
    };
    for (instance, process) in &world.observed.processes {
        if matches!(process.status, ProcessStatus::Running { .. }) && !instance.is_front() {
            state.insert(format!("app {instance}"), process.run_hash.clone());
        }
    }
    // A front counts by the living that it forwards to: one without any is drift, before and after.
    for (app, route) in world.routes.iter().filter(|(app, _)| lives(&Instance::front(app))) {
        let to: Vec<_> = route.backends.iter().filter(|(instance, _)| lives(instance)).collect();
        if !to.is_empty() {
            state.insert(format!("route {app}"), format!("{} {to:?}", route.listen));
        }
    }
    state
}

fn counts(line: &str, shared: bool) -> bool {
    let folder = ["folder ", "current "].iter().any(|word| line.starts_with(word));
    if shared { folder } else { !line.starts_with("before_") }
}

/// Datasets that a unit snapshots and does not put back when it fails.
fn shared(unit: &Unit) -> BTreeSet<DatasetPath> {
    let mut shared = BTreeSet::new();
    for planned in &unit.steps {
        if let Step::Snapshot { set, .. } = &planned.step {
            shared.extend(set.keys().cloned());
        }
    }
    for undo in unit.steps.iter().flat_map(|planned| &planned.undo) {
        if let Step::Restore { dataset, .. } | Step::UndoRestore { dataset, .. } = undo {
            shared.remove(dataset);
        }
    }
    shared
}

/// Fails with what differs.
fn same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>, unit: &Unit, steps: usize) {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs: Vec<_> = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| (key, before.get(key), after.get(key)))
        .collect();
    assert!(differs.is_empty(), "{steps} steps, taken back: {differs:#?}\n{:#?}", &unit.steps[..steps]);
}

/// Everything that was there before is still somewhere, unless the plan says that it is destroyed.
fn loses_nothing(before: &TestWorld, after: &TestWorld, plan: &Plan) {
    let destroys =
        plan.units.iter().flat_map(|u| &u.steps).any(|s| step_name(&s.step).starts_with("Destroy"));
    if destroys {
        return;
    }
    for (place, content) in &before.content {
        let still = after.content.values().any(|now| now.starts_with(content));
        assert!(still, "the content of {place} is lost: {content:?}");
    }
}

struct Host {
    world: TestWorld,
    spec: RandomSpec,
}

impl Host {
    /// A host with a dataset and a snapshot that zed did not make.
    fn new() -> Self {
        let mut world = TestWorld::new();
        let artifact = |n: u8| (format!("/srv/{n}"), format!("{n}").repeat(64));
        world.observed.artifacts.extend((1..4).map(artifact));
        let theirs = ObservedDataset {
            mountpoint: Some("/c".into()),
            mounted: true,
            user: BTreeMap::from([("com.acme:backup".into(), "daily".into())]),
            ..ObservedDataset::default()
        };
        world.observed.datasets.insert(path("c"), theirs);
        world.content.insert("c".into(), vec!["precious".into()]);
        let snapshot = ObservedSnapshot {
            name: "zed-looks-like-ours".into(),
            txg: 0,
            created: 0,
            user: BTreeMap::new(),
            clones: Vec::new(),
        };
        world.observed.snapshots.insert(path("c"), vec![snapshot]);
        world.content.insert("c@zed-looks-like-ours".into(), vec!["precious".into()]);
        let spec = RandomSpec { apps: Vec::new(), lone: Vec::new(), quota: 0, before: true, keep: 3 };
        Self { world, spec }
    }

    fn check(&mut self) {
        assert!(
            self.world.content["c"].first().is_some_and(|line| line == "precious"),
            "adopted data was replaced"
        );
        assert!(self.world.content.contains_key("c@zed-looks-like-ours"), "a foreign snapshot was destroyed");
        assert_eq!(self.world.observed.datasets["c"].user["com.acme:backup"], "daily");
        self.world.heal = true;
        let again = self.world.plan("d", &self.spec.text());
        assert!(again.is_empty(), "planning again: {:#?}", again.units);
    }

    fn save(&mut self, spec: RandomSpec) {
        self.spec = spec;
        self.world.keep = self.spec.keep;
        self.world.heal = true;
        let before = self.world.clone();
        let plan = self.world.deploy("d", &self.spec.text());
        self.world.run(&plan);
        loses_nothing(&before, &self.world, &plan);
        self.check();
    }

    /// Fails a unit after some steps. Units before it succeed.
    fn fail(&mut self, spec: &RandomSpec, unit: usize, steps: usize, begun: bool) {
        let mut world = self.world.clone();
        world.heal = true;
        let plan = world.deploy("d", &spec.text());
        assert_eq!(plan.fatal().count(), 0, "{:?}", plan.notes);
        let Some(failing) = plan.units.get(unit) else { return };
        for other in plan.units.iter().filter(|other| failing.after.contains(&other.name)) {
            other.steps.iter().for_each(|planned| world.apply(&planned.step));
        }
        let steps = steps.min(failing.commit_at);
        let shared = shared(failing);
        let before = state(&world, &shared);
        world.fail(failing, steps, usize::from(begun && steps > 0));
        same(&before, &state(&world, &shared), failing, steps);
        // The failed deploy left something behind; the host goes on with it.
        world.generation = self.world.generation;
        self.world = world;
        let plan = self.world.plan("d", &self.spec.text());
        self.world.run(&plan);
        self.check();
    }

    fn target(&mut self, app: &str, target: u8) -> Option<Plan> {
        let text = match target {
            0 => "@latest",
            1 => "undo",
            2 => "1",
            _ => "2",
        };
        self.world.plan_rollback(app, text).ok()
    }

    fn rollback(&mut self, app: &str, target: u8) {
        let before = self.world.clone();
        let Some(plan) = self.target(app, target) else { return };
        self.world.run(&plan);
        loses_nothing(&before, &self.world, &plan);
        // The rollback itself is complete: nothing of the same generation takes it back.
        let held = self.world.plan("d", &self.spec.text());
        let steps = held.units.iter().flat_map(|unit| &unit.steps);
        let moves = steps.filter(|planned| match &planned.step {
            Step::StopApp { instance, .. } => instance.app.as_str() == app,
            Step::RecordRelease { release } => release.app.as_str() == app,
            _ => false,
        });
        assert!(
            moves.count() == 0 || target == 1,
            "the spec takes the rollback of {app} back: {:#?}",
            held.units
        );
    }

    fn fail_rollback(&mut self, app: &str, steps: usize, begun: bool) {
        let Some(plan) = self.target(app, 0) else { return };
        let unit = &plan.units[0];
        let steps = steps.min(unit.commit_at);
        let shared = shared(unit);
        let before = state(&self.world, &shared);
        self.world.fail(unit, steps, usize::from(begun && steps > 0));
        same(&before, &state(&self.world, &shared), unit, steps);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Save(spec) => self.save(spec),
            Event::Rollback { app, target } => self.rollback(APPS[app], target),
            Event::Fail { spec, unit, steps, begun } => self.fail(&spec, unit, steps, begun),
            Event::FailRollback { app, steps, begun } => self.fail_rollback(APPS[app], steps, begun),
            Event::Kill { app, number } => {
                let instance = Instance::new(&instance(APPS[app]).app, number);
                if let Some(process) = self.world.observed.processes.get_mut(&instance) {
                    process.status = ProcessStatus::Gone { rebooted: false };
                }
            }
            Event::Reboot => {
                for ObservedProcess { run_hash: _, status } in self.world.observed.processes.values_mut() {
                    if matches!(status, ProcessStatus::Running { .. }) {
                        *status = ProcessStatus::Gone { rebooted: true };
                    }
                }
            }
            Event::Operator { app, verb } => self.operator(APPS[app], verb),
        }
    }

    fn operator(&mut self, name: &str, verb: u32) {
        let verb = match verb {
            0 => AppVerb::Stop,
            1 => AppVerb::Start,
            2 => AppVerb::Restart,
            more => AppVerb::Scale(more - 2),
        };
        // A refusal says what is missing; what it says is tested elsewhere.
        let _ = self.world.verb(name, verb);
    }
}

/// Somebody else does something to one of the deploy's datasets.
fn tamper(world: &mut TestWorld, which: usize, what: u8) {
    let known = world.known.clone().unwrap_or_default();
    let Some(path) = known.iter().nth(which % known.len().max(1)).cloned() else { return };
    let leaf = !world.observed.datasets.keys().any(|other| *other != path && other.is_in(&path));
    let Some(dataset) = world.observed.datasets.get_mut(&path) else { return };
    let user = [name::ROLE, name::DEPLOY, name::MANAGED, name::VERSION, name::APP];
    match what {
        0 => drop(dataset.native.insert("compression".into(), "gzip".into())),
        1 => dataset.native.clear(),
        2 => dataset.mounted = false,
        3 | 4 if leaf => {
            let gone = world.observed.datasets.remove(&path);
            let content = world.content.remove(path.as_str()).unwrap_or_default();
            if let (4, Some(dataset)) = (what, gone) {
                let renamed = DatasetPath::parse("renamed").unwrap();
                world.content.insert(renamed.to_string(), content);
                world.observed.datasets.insert(renamed, dataset);
            }
        }
        more => drop(dataset.user.remove(user[usize::from(more) % user.len()])),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_promises(events in vec(event(), 1..12)) {
        let mut host = Host::new();
        for event in events {
            host.happen(event);
        }
    }

    #[test]
    fn drift_is_only_reported_until_somebody_asks(
        spec in random_spec(),
        deeds in vec((0usize..8, 0u8..10), 1..4),
    ) {
        let mut world = Host::new().world;
        world.converge("d", &spec.text());
        let remember = |world: &mut TestWorld| {
            let spec = parse("d", &spec.text());
            world.known = Some(crate::deploy::datasets_of_deploy(&spec, &world.observed));
        };
        remember(&mut world);
        for (which, what) in deeds {
            tamper(&mut world, which, what);
        }
        let plan = world.plan("d", &spec.text());
        prop_assert!(plan.is_empty(), "{:#?}", plan);
        (world.heal, world.recreate) = (true, true);
        let plan = world.plan("d", &spec.text());
        world.run(&plan);
        (world.heal, world.recreate) = (false, false);
        remember(&mut world);
        let plan = world.plan("d", &spec.text());
        prop_assert!(plan.is_empty(), "{:#?}", plan);
        let left: Vec<_> = plan.notes.iter().filter(|note| [crate::DRIFT, crate::LOST].contains(&note.kind.as_str())).collect();
        prop_assert!(left.is_empty(), "{:#?}", left);
    }

    #[test]
    fn the_same_inputs_give_the_same_plan(first in random_spec(), second in random_spec()) {
        let mut world = Host::new().world;
        world.converge("d", &first.text());
        let mut twin = world.clone();
        let plan = world.deploy("d", &second.text());
        prop_assert_eq!(&plan, &twin.deploy("d", &second.text()));
        let json = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Plan>(&json).unwrap(), &plan);
        prop_assert!(plan.notes.iter().all(|note| note.severity < Severity::Fatal));
    }
}
