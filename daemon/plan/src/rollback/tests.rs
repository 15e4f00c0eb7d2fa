use super::*;
use crate::instance::Instance;
use crate::observed::ProcessStatus;
use crate::plan::Step;
use crate::plan::Unit;
use crate::props;
use crate::testing::*;

fn hello(version: &str) -> String {
    example("hello").replace("1.0.0", version)
}

/// hello in three versions, each deployed.
fn three() -> TestWorld {
    let mut world = TestWorld::new();
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        world.converge("hello", &hello(version));
    }
    world
}

fn property(world: &TestWorld, key: &str) -> String {
    world.observed.datasets["apps/hello"].user.get(key).cloned().unwrap_or_default()
}

fn version(world: &TestWorld) -> String {
    property(world, props::name::VERSION)
}

/// The versions that have written into the dataset, oldest first.
fn wrote(world: &TestWorld) -> Vec<&str> {
    world.content["apps/hello"].iter().map(|line| line.split(' ').nth(1).unwrap()).collect()
}

fn steps(unit: &Unit) -> Vec<&str> {
    unit.steps.iter().map(|s| step_name(&s.step)).collect()
}

#[test]
fn targets_are_what_an_operator_writes() {
    for (text, expect) in [
        ("@latest", Some(RollbackTarget::Latest)),
        ("undo", Some(RollbackTarget::Undo)),
        ("@zed-1", Some(RollbackTarget::Snapshot("zed-1".into()))),
        ("1.0.0", Some(RollbackTarget::Version("1.0.0".into()))),
        ("", None),
        ("@", None),
        ("two words", None),
        ("line\n", None),
    ] {
        let parsed = RollbackTarget::parse(text);
        assert_eq!(parsed.as_ref().ok(), expect.as_ref(), "{text:?}");
        if let Ok(target) = parsed {
            assert_eq!(target.to_string(), text);
        }
    }
}

#[test]
fn data_and_state_go_back_together() {
    let mut world = three();
    let plan = world.rollback("hello", "@latest");
    assert_eq!(steps(&plan.units[0]), ["StopApp", "Snapshot", "Restore", "StartApp", "Probe"]);
    assert_eq!(plan.units[0].commit_at, 5);
    assert_eq!(version(&world), "1.1.0");
    assert_eq!(wrote(&world), ["1.0.0", "1.1.0"]);
    assert_eq!(property(&world, props::name::HELD), "3");
    assert_eq!(property(&world, props::name::GENERATION), "2");
    assert_eq!(property(&world, props::name::RUN), "r0000002", "the run that deployed what is there");
    assert_eq!(property(&world, props::name::ROLLED_BACK_FROM), "zed/branches/apps.hello-r0000004");
    let run = plan.units[0].steps.iter().find_map(|s| match &s.step {
        Step::StartApp { run } => Some(&run.version),
        _ => None,
    });
    assert_eq!(run.unwrap(), "1.1.0");
    world.rollback("hello", "@latest");
    assert_eq!((version(&world).as_str(), wrote(&world)), ("1.0.0", vec!["1.0.0"]));
    let error = world.plan_rollback("hello", "@latest").unwrap_err();
    assert!(matches!(&error, RollbackError::NoOlderRelease { running, .. } if running == "1.0.0"), "{error}");
    assert!(error.to_string().contains("1.2.0 @zed-"), "it lists what there is: {error}");
}

#[test]
fn the_order_of_snapshots_decides_and_not_the_clock() {
    let mut world = TestWorld::new();
    for (version, now) in [("1.0.0", 3_000_000), ("1.1.0", 2_000_000), ("1.2.0", 1_000_000)] {
        world.now = now;
        world.converge("hello", &hello(version));
    }
    world.rollback("hello", "@latest");
    assert_eq!(version(&world), "1.1.0");
}

#[test]
fn a_version_is_found_on_the_dataset_and_on_what_rollbacks_left() {
    let mut world = three();
    world.rollback("hello", "1.0.0");
    assert_eq!((version(&world).as_str(), wrote(&world)), ("1.0.0", vec!["1.0.0"]));
    world.rollback("hello", "1.2.0");
    assert_eq!((version(&world).as_str(), wrote(&world)), ("1.2.0", vec!["1.0.0", "1.1.0", "1.2.0"]));
    let name = world.observed.snapshots["apps/hello"][0].name.clone();
    world.rollback("hello", &format!("@{name}"));
    assert_eq!(version(&world), "1.0.0");
    for target in ["9.9.9", "@zed-nothing"] {
        let error = world.plan_rollback("hello", target).unwrap_err().to_string();
        assert!(error.contains(target.trim_start_matches('@')) && error.contains("1.1.0 @zed-"), "{error}");
    }
}

#[test]
fn undo_takes_a_rollback_back_and_the_one_before_it() {
    let mut world = three();
    let before = world.observed.datasets["apps/hello"].user.clone();
    let data = world.content["apps/hello"].clone();
    world.rollback("hello", "@latest");
    world.rollback("hello", "@latest");
    world.rollback("hello", "undo");
    assert_eq!(version(&world), "1.1.0");
    assert_eq!(property(&world, props::name::HELD), "3", "as it was after the first rollback");
    world.rollback("hello", "undo");
    assert_eq!(world.observed.datasets["apps/hello"].user, before);
    assert_eq!(world.content["apps/hello"], data);
    assert!(matches!(world.plan_rollback("hello", "undo"), Err(RollbackError::NothingToUndo { .. })));
    assert!(world.plan("hello", &hello("1.2.0")).is_empty(), "and nothing is held");
}

#[test]
fn a_rollback_is_held_until_the_spec_is_saved_again() {
    let mut world = three();
    world.rollback("hello", "1.0.0");
    world.heal = true;
    let plan = world.plan("hello", &hello("1.2.0"));
    assert!(plan.is_empty());
    let held: Vec<&str> = plan.notes.iter().map(|note| note.kind.as_str()).collect();
    assert_eq!(held, ["held"]);
    assert!(
        plan.notes[0].text.contains("1.0.0") && plan.notes[0].text.contains("release"),
        "{:?}",
        plan.notes
    );
    // A boot starts the release that is there, not the one of the spec.
    world.observed.processes.get_mut(&"hello".parse::<Instance>().unwrap()).unwrap().status =
        ProcessStatus::Gone { rebooted: true };
    let plan = world.plan("hello", &hello("1.2.0"));
    assert_eq!(steps(&plan.units[0]), ["StartApp", "Probe"]);
    let Step::StartApp { run } = &plan.units[0].steps[0].step else { panic!("a start") };
    assert_eq!(run.version, "1.0.0");
    world.run(&plan);
    world.converge("hello", &hello("1.2.0"));
    assert_eq!(version(&world), "1.2.0");
    for key in [props::name::HELD, props::name::ROLLED_BACK_TO, props::name::ROLLED_BACK_FROM] {
        assert_eq!(property(&world, key), "", "{key}");
    }
}

#[test]
fn saving_the_very_release_that_is_held_only_releases_it() {
    let mut world = three();
    world.rollback("hello", "1.0.0");
    let plan = world.converge("hello", &hello("1.0.0"));
    assert_eq!(steps(&plan.units[0]), ["Probe", "RecordRelease", "SetProps"]);
    assert_eq!(property(&world, props::name::HELD), "");
}

const STACK: &str = r#"Deploy(datasets: {"a": (), "b": (), "data": ()}, apps: {
    "one": (dataset: "a", data: ["data"], version: "1", command: ["x"],
        hooks: (before_rollback: [["before"]], after_rollback: [["after"]])),
    "side": (dataset: "a", version: "1", command: ["x"], depends_on: ["one"]),
    "other": (dataset: "b", data: ["data"], version: "1", command: ["x"]),
})"#;

#[test]
fn all_that_shares_the_data_stops_and_starts() {
    let mut world = TestWorld::new();
    world.converge("d", STACK);
    world.converge("d", &STACK.replace("version: \"1\"", "version: \"2\""));
    let plan = world.rollback("one", "@latest");
    let lines: Vec<String> = plan.units[0]
        .steps
        .iter()
        .map(|planned| match &planned.step {
            Step::StopApp { instance, .. } => format!("stop {instance}"),
            Step::StartApp { run } => format!("start {} {}", run.app, run.version),
            Step::Restore { dataset, .. } => format!("restore {dataset}"),
            Step::Hook { kind, .. } => kind.clone(),
            other => step_name(other).to_owned(),
        })
        .collect();
    assert_eq!(
        lines,
        [
            "before_rollback",
            "stop side",
            "stop other",
            "stop one",
            "Snapshot",
            "restore a",
            "restore data",
            "start one 1",
            "Probe",
            "start other 2",
            "Probe",
            "start side 1",
            "Probe",
            "after_rollback",
        ]
    );
    assert_eq!(plan.units[0].commit_at, 13, "hooks after it cannot take it back");
    let user = &world.observed.datasets["a"].user;
    assert_eq!(user[props::name::HELD], "2");
    assert_eq!(user["com.zed:app.side.held"], "2");
    assert!(!world.observed.datasets["b"].user.contains_key(props::name::HELD));
    world.rollback("one", "undo");
    assert_eq!(world.observed.datasets["a"].user[props::name::VERSION], "2");
}

#[test]
fn data_without_the_same_snapshot_goes_back_to_the_one_before_or_stays() {
    let mut world = TestWorld::new();
    world.converge("d", STACK);
    world.converge("d", &STACK.replace("version: \"1\"", "version: \"2\""));
    world.converge("d", &STACK.replace("version: \"1\"", "version: \"3\""));
    let list = world.observed.snapshots.get_mut("data").unwrap();
    assert_eq!(list.len(), 2);
    list.pop();
    let plan = world.plan_rollback("one", "2").unwrap();
    assert_eq!(plan.notes.len(), 1);
    assert!(plan.notes[0].text.contains("the last one before"), "{:?}", plan.notes);
    world.observed.snapshots.get_mut("data").unwrap().clear();
    let plan = world.plan_rollback("one", "2").unwrap();
    assert!(plan.notes[0].text.contains("stays as it is"), "{:?}", plan.notes);
    assert!(!steps(&plan.units[0]).is_empty());
}

#[test]
fn what_stands_in_the_way_is_an_error_that_says_what_to_do() {
    let mut world = three();
    let error = world.plan_rollback("nobody", "@latest").unwrap_err();
    assert_eq!(error.to_string(), "app nobody is not deployed here; deployed are: hello");
    let error = world.plan_rollback("hello", "undo").unwrap_err();
    assert_eq!(
        error.to_string(),
        "app hello runs 1.2.0, which no rollback brought: there is nothing to undo"
    );

    let mut forgetful = world.clone();
    forgetful.releases.clear();
    let error = forgetful.plan_rollback("hello", "1.0.0").unwrap_err();
    assert!(matches!(&error, RollbackError::MissingRelease { version, .. } if version == "1.0.0"), "{error}");

    let mut needy = TestWorld::new();
    needy.observed.env.insert("T".into(), "t".into());
    let text = |version: &str| hello(version).replace("env: {", "env_from: {\"T\": Env(\"T\")}, env: {");
    needy.converge("hello", &text("1.0.0"));
    needy.converge("hello", &text("1.1.0"));
    needy.observed.env.clear();
    let error = needy.plan_rollback("hello", "1.0.0").unwrap_err();
    assert!(
        matches!(&error, RollbackError::MissingValue { text, .. } if text.contains("variable T")),
        "{error}"
    );

    world.rollback("hello", "1.0.0");
    world.observed.snapshots.insert(path("zed/branches/apps.hello-r0000005"), Vec::new());
    let branch = property(&world, props::name::ROLLED_BACK_FROM);
    world.observed.snapshots.remove(branch.as_str());
    assert!(matches!(world.plan_rollback("hello", "undo"), Err(RollbackError::BranchGone { .. })));

    let user = &mut world.observed.datasets.get_mut("apps/hello").unwrap().user;
    user.insert(props::name::SCHEMA.into(), "2".into());
    assert!(matches!(world.plan_rollback("hello", "1.0.0"), Err(RollbackError::NewerSchema { .. })));
}

#[test]
fn history_shows_what_can_be_reached() {
    let mut world = three();
    world.rollback("hello", "1.0.0");
    let plan = world.deploy("hello", &hello("1.3.0"));
    world.fail(&plan.units[0], plan.units[0].commit_at, 0);
    let entries = crate::history::history(&path("apps/hello"), &world.observed, &app("hello"));
    let shown: Vec<(&str, &str, bool)> =
        entries.iter().map(|e| (e.kind.as_str(), e.version.as_str(), e.snapshot.is_some())).collect();
    assert_eq!(
        shown,
        [
            ("failed", "1.3.0", false),
            ("older", "1.0.0", true),
            ("undone", "1.1.0", true),
            ("undone", "1.2.0", true),
            ("older", "1.0.0", true),
            ("running", "1.0.0", false),
        ]
    );
}

#[test]
fn a_rollback_keeps_as_many_branches_as_snapshots() {
    let mut world = three();
    world.keep = 2;
    for target in ["1.0.0", "1.2.0", "1.1.0", "1.2.0", "1.0.0", "1.2.0", "1.0.0"] {
        world.rollback("hello", target);
        assert_eq!(version(&world), target);
        let branches =
            world.observed.datasets.keys().filter(|p| crate::naming::is_branch(p.as_str())).count();
        assert!(branches <= 4, "{branches} branches after {target}");
    }
}
