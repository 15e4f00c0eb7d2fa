//! One test a rule. Plans are compared as short lines, `StartApp hello`.

use super::*;
use crate::instance::Instance;
use crate::observed::ObservedDataset;
use crate::observed::ObservedProcess;
use crate::observed::ProcessStatus;
use crate::plan::Step;
use crate::props;
use crate::testing::*;

/// `STEP object` for every step, `|` before the first after the commit.
pub(super) fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for unit in &plan.units {
        for (index, planned) in unit.steps.iter().enumerate() {
            let commit = if index == unit.commit_at { "| " } else { "" };
            lines.push(format!("{commit}{} {}", step_name(&planned.step), object(&planned.step)));
        }
    }
    lines
}

fn object(step: &Step) -> String {
    let all = |paths: Vec<&DatasetPath>| paths.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(" ");
    match step {
        Step::CreateDataset { path, .. } => path.to_string(),
        Step::MountDataset { path } => path.to_string(),
        Step::SetProps { changes } => all(changes.iter().map(|c| &c.path).collect()),
        Step::Snapshot { set, .. } => all(set.keys().collect()),
        Step::Restore { dataset, .. } | Step::UndoRestore { dataset, .. } | Step::Retire { dataset, .. } => {
            dataset.to_string()
        }
        Step::StopApp { instance, .. } | Step::ForgetApp { instance } => instance.to_string(),
        Step::StartApp { run } | Step::Probe { run, .. } => run.instance().to_string(),
        Step::RecordRelease { release } => release.app.to_string(),
        Step::Unpack { unpack } => format!("{} {}", unpack.dataset, unpack.folder),
        Step::DiscardRelease { dataset, folder, .. } => format!("{dataset} {folder}"),
        Step::SwitchRelease { dataset, folder } => {
            format!("{dataset} {}", folder.as_deref().unwrap_or("-"))
        }
        Step::PruneReleases { dataset, keep } => {
            let keep: Vec<&str> = keep.iter().map(String::as_str).collect();
            format!("{dataset} {}", keep.join(" "))
        }
        Step::Soak { runs, .. } => {
            runs.iter().map(|(run, _)| run.instance().to_string()).collect::<Vec<_>>().join(" ")
        }
        Step::Route { route } => {
            let to: Vec<String> = route.backends.iter().map(|(to, port)| format!("{to}:{port}")).collect();
            format!("{} {}", route.app, to.join(" "))
        }
        Step::Drain { instance, .. } => instance.to_string(),
        Step::Hook { kind, run, .. } => format!("{kind} {}", run.app),
        Step::MakeGuest { guest } | Step::StartGuest { guest } => guest.id().to_string(),
        Step::StopGuest { guest } | Step::RemoveGuest { guest } => guest.to_string(),
        Step::DestroySnapshots { set } => all(set.iter().map(|(p, _)| p).collect()),
        Step::DestroyBranch { branch } => branch.to_string(),
    }
}

/// `severity kind object`, sorted.
pub(super) fn notes(plan: &Plan) -> Vec<String> {
    let mut notes: Vec<String> =
        plan.notes.iter().map(|n| format!("{:?} {} {}", n.severity, n.kind, n.object)).collect();
    notes.sort();
    notes
}

fn hello(version: &str) -> String {
    example("hello").replace("1.0.0", version)
}

fn set_process(world: &mut TestWorld, name: &str, status: ProcessStatus) {
    world.observed.processes.get_mut(&name.parse::<Instance>().unwrap()).unwrap().status = status;
}

#[test]
fn the_first_deploy_creates_starts_probes_and_stamps() {
    let mut world = TestWorld::new();
    let plan = world.converge("hello", &hello("1.0.0"));
    assert_eq!(
        lines(&plan),
        [
            "CreateDataset apps",
            "CreateDataset apps/hello",
            "StartApp hello",
            "Probe hello",
            "RecordRelease hello",
            "| SetProps apps/hello",
        ]
    );
    assert_eq!(plan.units[1].after, ["datasets"]);
    let user = &world.observed.datasets["apps/hello"].user;
    for (key, value) in [
        (props::name::MANAGED, "yes"),
        (props::name::ROLE, "app"),
        (props::name::DEPLOY, "hello"),
        (props::name::APP, "hello"),
        (props::name::VERSION, "1.0.0"),
        (props::name::GENERATION, "1"),
        (props::name::STATE, "running"),
        (props::name::HEALTH, "healthy"),
        (props::name::DEPLOYED_AT, "2026-11-22T17:47:28Z"),
    ] {
        assert_eq!(user[key], value, "{key}");
    }
    let parent = &world.observed.datasets["apps"].user;
    assert_eq!(parent[props::name::ROLE], "container");
    assert!(!parent.contains_key(props::name::DEPLOY), "others may come below it");
}

#[test]
fn a_new_version_stops_snapshots_and_then_starts() {
    let mut world = TestWorld::new();
    world.converge("hello", &hello("1.0.0"));
    let before = world.observed.datasets["apps/hello"].user.clone();
    let plan = world.deploy("hello", &hello("1.1.0"));
    assert_eq!(
        lines(&plan),
        [
            "StopApp hello",
            "Snapshot apps/hello",
            "StartApp hello",
            "Probe hello",
            "RecordRelease hello",
            "| SetProps apps/hello",
        ]
    );
    let unit = &plan.units[0];
    let undo: Vec<Vec<&str>> =
        unit.steps.iter().map(|s| s.undo.iter().map(step_name).collect::<Vec<_>>()).collect();
    assert_eq!(undo, [vec!["StartApp"], vec![], vec!["StopApp", "Restore"], vec![], vec![], vec![]]);
    let Step::StartApp { run } = &unit.steps[0].undo[0] else { panic!("the old run") };
    assert_eq!(run.version, "1.0.0");
    let Step::Snapshot { name, set } = &unit.steps[1].step else { panic!("a snapshot") };
    assert_eq!(name, "zed-20261122T174828Z-r0000002-1.0.0");
    assert_eq!(set[&path("apps/hello")], before);
    let Step::Restore { snapshot, branch, user, branch_user, .. } = &unit.steps[2].undo[1] else {
        panic!("a restore")
    };
    assert_eq!((snapshot, branch.as_str()), (name, "zed/branches/apps.hello-r0000002"));
    assert_eq!(*user, before);
    assert_eq!(branch_user[props::name::BRANCH_KIND], "failed");
    assert_eq!(branch_user[props::name::VERSION], "1.1.0", "the release that left it so");
    let Step::SetProps { changes } = &unit.steps[5].step else { panic!("the commit") };
    let keys: Vec<&str> = changes[0].user.keys().map(|key| &key[props::PREFIX.len()..]).collect();
    assert_eq!(keys, ["deployed_at", "generation", "run", "spec", "version"], "only what changed");
}

#[test]
fn content_decides_and_not_the_number_of_saves() {
    let mut world = TestWorld::new();
    world.converge("hello", &hello("1.0.0"));
    assert_eq!(lines(&world.deploy("hello", &hello("1.0.0"))), [""; 0]);
    let probe_only = hello("1.0.0")
        .replace("version.txt\")", "version.txt\", expect: 200)")
        .replace("Http(\"", "Http(url: \"");
    let plan = world.deploy("hello", &probe_only);
    assert_eq!(lines(&plan), ["Probe hello", "RecordRelease hello", "| SetProps apps/hello"], "no restart");
    world.run(&plan);
    let user = &world.observed.datasets["apps/hello"].user;
    assert_eq!(user[props::name::RUN], "r0000001", "the same release goes on");
    assert_eq!(user[props::name::GENERATION], "3");
}

#[test]
fn a_changed_value_from_elsewhere_is_a_changed_app() {
    let mut world = TestWorld::new();
    let text = hello("1.0.0")
        .replace("env: {", "env_from: {\"T\": Env(\"TOKEN\"), \"F\": File(\"/etc/f\")}, env: {");
    let plan = world.deploy("hello", &text);
    let missing: Vec<&str> = plan.fatal().map(|note| note.text.as_str()).collect();
    assert_eq!(plan.fatal().map(|note| note.kind.as_str()).collect::<Vec<_>>(), ["env", "env"]);
    assert!(missing[0].contains("`F`") && missing[0].contains("/etc/f"), "{missing:?}");
    assert!(missing[1].contains("`T`") && missing[1].contains("TOKEN"), "{missing:?}");
    world.observed.env.insert("TOKEN".into(), "one".into());
    world.observed.files.insert("/etc/f".into(), "00".repeat(32));
    world.converge("hello", &text);
    world.observed.env.insert("TOKEN".into(), "two".into());
    assert_eq!(lines(&world.plan("hello", &text))[0], "StopApp hello", "of the same generation");
}

#[test]
fn what_runs_decides_too() {
    use ProcessStatus::*;
    // What the runtime says, then the plan's first line and the notes: without and with healing.
    let cases: &[(ProcessStatus, &str, &str, &str)] = &[
        (Running { pid: 7 }, "", "", ""),
        (Backoff { restarts: 3 }, "", "", "Warning drift app hello"),
        (Completed, "", "", ""),
        (Failed("exit 1".into()), "", "StartApp hello", "Warning drift app hello"),
        (Stopped, "", "StartApp hello", "Warning drift app hello"),
        (Gone { rebooted: false }, "", "StartApp hello", "Warning drift app hello"),
        (Gone { rebooted: true }, "StartApp hello", "StartApp hello", ""),
    ];
    for (status, reported, healed, said) in cases {
        let mut world = TestWorld::new();
        world.converge("hello", &hello("1.0.0"));
        set_process(&mut world, "hello", status.clone());
        let plan = world.plan("hello", &hello("1.0.0"));
        assert_eq!(lines(&plan).first().map_or("", String::as_str), *reported, "{status:?}");
        assert_eq!(notes(&plan).join(","), *said, "{status:?}");
        world.heal = true;
        let plan = world.plan("hello", &hello("1.0.0"));
        assert_eq!(lines(&plan).first().map_or("", String::as_str), *healed, "{status:?}, healing");
        assert!(plan.units.iter().flat_map(|u| &u.steps).all(|s| step_name(&s.step) != "Snapshot"));
    }
}

#[test]
fn an_app_that_came_with_its_dataset_is_started() {
    let mut world = TestWorld::new();
    world.converge("hello", &hello("1.0.0"));
    world.observed.processes.clear();
    let plan = world.plan("hello", &hello("1.0.0"));
    assert_eq!(lines(&plan), ["StartApp hello", "Probe hello"]);
    assert_eq!(plan.units[0].steps[0].why, "it was never started on this host");
}

#[test]
fn another_release_than_the_stamped_one_is_drift() {
    let mut world = TestWorld::new();
    world.converge("hello", &hello("1.0.0"));
    world.observed.processes.get_mut(&"hello".parse::<Instance>().unwrap()).unwrap().run_hash =
        "other".into();
    assert_eq!(notes(&world.plan("hello", &hello("1.0.0"))), ["Warning drift app hello"]);
    world.heal = true;
    let plan = world.plan("hello", &hello("1.0.0"));
    assert_eq!(lines(&plan), ["StopApp hello", "StartApp hello", "Probe hello"]);
}

#[test]
fn an_operator_who_stopped_an_app_is_obeyed() {
    let mut world = TestWorld::new();
    let text = r#"Deploy(datasets: {"a": (), "b": ()}, apps: {
        "a": (dataset: "a", version: "1", command: ["x"]),
        "b": (dataset: "b", version: "1", command: ["x"], depends_on: ["a"]),
    })"#;
    world.converge("d", text);
    world.observed.datasets.get_mut("a").unwrap().user.insert(props::name::STATE.into(), "stopped".into());
    set_process(&mut world, "a", ProcessStatus::Stopped);
    world.heal = true;
    let plan = world.deploy("d", &text.replace("version: \"1\"", "version: \"2\""));
    assert_eq!(lines(&plan), [""; 0], "neither it nor what depends on it moves");
    assert_eq!(notes(&plan), ["Info stopped app a", "Warning stopped app b"]);
}

#[test]
fn an_older_spec_never_replaces_a_newer_one() {
    let mut world = TestWorld::new();
    world.generation = 8;
    world.converge("hello", &hello("1.0.0"));
    world.generation = 3;
    assert_eq!(notes(&world.plan("hello", &hello("0.9.0"))), ["Fatal stale app hello"]);
}

#[test]
fn two_deploys_never_share_a_dataset_or_an_app() {
    let mut world = TestWorld::new();
    world.converge("hello", &hello("1.0.0"));
    let plan = world.deploy("other", &hello("1.0.0"));
    assert_eq!(notes(&plan), ["Fatal clash app hello", "Fatal clash dataset apps/hello"]);
    assert!(
        plan.notes.iter().all(|n| n.text.contains("hello") && n.text.contains("other")),
        "{:?}",
        plan.notes
    );
    let plan = world.deploy("other", &hello("1.0.0").replace("apps/hello", "apps/mine"));
    assert_eq!(notes(&plan), ["Fatal clash app hello"]);
}

#[test]
fn what_the_spec_no_longer_has_is_stopped_released_and_kept() {
    let mut world = TestWorld::new();
    let text = r#"Deploy(datasets: {"a": (), "b": (), "lone": ()}, apps: {
        "one": (dataset: "a", version: "1", command: ["x"]),
        "two": (dataset: "b", version: "1", command: ["x"], depends_on: ["one"]),
    })"#;
    world.converge("d", text);
    let content = world.content.clone();
    let plan = world.converge(
        "d",
        r#"Deploy(datasets: {"a": ()}, apps: {"one": (dataset: "a", version: "1", command: ["x"])})"#,
    );
    assert_eq!(lines(&plan), ["SetProps lone", "StopApp two", "Snapshot b", "| SetProps b", "ForgetApp two"]);
    assert_eq!(notes(&plan), ["Info released dataset b", "Info released dataset lone"]);
    let plan = world.undeclare("d");
    assert_eq!(lines(&plan), ["StopApp one", "Snapshot a", "| SetProps a", "ForgetApp one"]);
    assert_eq!(plan.purpose, Purpose::Undeclare);
    world.run(&plan);
    // The snapshots that keep the releases are new; what was there is as it was.
    assert!(content.iter().all(|(name, held)| world.content.get(name) == Some(held)), "{:?}", world.content);
    for dataset in world.observed.datasets.values() {
        let left: Vec<&str> = dataset.user.keys().map(|key| &key[props::PREFIX.len()..]).collect();
        assert_eq!(left, ["managed", "role", "run", "schema"], "ours, and free for another deploy");
    }
    assert!(world.undeclare("d").is_empty());
}

#[test]
fn removals_come_before_additions_dependents_first() {
    let mut world = TestWorld::new();
    let app = |name: &str, rest: &str| {
        format!("\"{name}\": (dataset: \"a\", version: \"1\", command: [\"x\"], {rest}),")
    };
    let spec = |apps: String| format!("Deploy(datasets: {{\"a\": ()}}, apps: {{{apps}}})");
    world.converge("d", &spec(app("p", "") + &app("q", "depends_on: [\"p\"]")));
    let plan = world.deploy("d", &spec(app("z", "") + &app("y", "depends_on: [\"z\"]")));
    assert_eq!(
        lines(&plan),
        [
            "StopApp q",
            "StopApp p",
            "Snapshot a",
            "StartApp z",
            "Probe z",
            "StartApp y",
            "Probe y",
            "RecordRelease z",
            "RecordRelease y",
            "| SetProps a",
            "ForgetApp p",
            "ForgetApp q",
        ]
    );
    world.run(&plan);
    assert!(world.plan("d", &spec(app("z", "") + &app("y", "depends_on: [\"z\"]"))).is_empty());
}

#[test]
fn neighbours_on_a_dataset_stop_for_its_snapshot() {
    let mut world = TestWorld::new();
    let text = r#"Deploy(datasets: {"a": ()}, apps: {
        "one": (dataset: "a", version: "1", command: ["x"]),
        "two": (dataset: "a", version: "1", command: ["x"]),
    })"#;
    world.converge("d", text);
    let plan = world.deploy("d", &text.replacen("version: \"1\"", "version: \"2\"", 1));
    assert_eq!(
        lines(&plan),
        [
            "StopApp two",
            "StopApp one",
            "Snapshot a",
            "StartApp one",
            "Probe one",
            "StartApp two",
            "Probe two",
            "RecordRelease one",
            "| SetProps a",
        ]
    );
    world.run(&plan);
    assert_eq!(world.observed.datasets["a"].user["com.zed:app.two.version"], "1");
}

#[test]
fn hooks_run_before_anything_changes_and_after_health() {
    let mut world = TestWorld::new();
    let text = |version: &str| {
        format!(
            r#"Deploy(datasets: {{"a": ()}}, apps: {{"x": (dataset: "a", version: "{version}", command: ["x"],
            hooks: (before_deploy: [["check"]], after_deploy: [["migrate"]]))}})"#
        )
    };
    let plan = world.converge("d", &text("1"));
    let hooks = |plan: &Plan| lines(plan).into_iter().filter(|l| !l.contains("SetProps")).collect::<Vec<_>>();
    assert_eq!(
        hooks(&plan),
        [
            "CreateDataset a",
            "Hook before_deploy x",
            "StartApp x",
            "Probe x",
            "Hook after_deploy x",
            "RecordRelease x"
        ]
    );
    let plan = world.deploy("d", &text("2"));
    assert_eq!(
        hooks(&plan),
        [
            "Hook before_deploy x",
            "StopApp x",
            "Snapshot a",
            "StartApp x",
            "Probe x",
            "Hook after_deploy x",
            "RecordRelease x"
        ]
    );
}

#[test]
fn a_dependency_that_is_not_touched_is_probed_first() {
    let mut world = TestWorld::new();
    let text = |version: &str| {
        format!(
            r#"Deploy(datasets: {{"a": (), "b": ()}}, apps: {{
            "db": (dataset: "a", version: "1", command: ["x"]),
            "web": (dataset: "b", version: "{version}", command: ["x"], depends_on: ["db"])}})"#
        )
    };
    world.converge("d", &text("1"));
    let plan = world.deploy("d", &text("2"));
    assert_eq!(lines(&plan)[..5], ["StopApp web", "Snapshot b", "Probe db", "StartApp web", "Probe web"]);
}

#[test]
fn independent_apps_are_units_of_their_own() {
    let mut world = TestWorld::new();
    let plan = world.deploy(
        "d",
        r#"Deploy(datasets: {"x/a": (), "x/b": (), "c": (), "shared": ()}, apps: {
            "a": (dataset: "x/a", data: ["shared"], version: "1"),
            "b": (dataset: "x/b", data: ["shared"], version: "1"),
            "c": (dataset: "c", version: "1"),
        })"#,
    );
    let units: Vec<(&str, &[String])> = plan.units.iter().map(|u| (u.name.as_str(), &u.after[..])).collect();
    assert_eq!(units, [("datasets", &[][..]), ("a+b", &["datasets".to_owned()][..]), ("c", &[][..])]);
}

#[test]
fn a_dataset_below_another_units_is_created_after_it() {
    let mut world = TestWorld::new();
    let plan = world.converge(
        "d",
        r#"Deploy(datasets: {"a": (), "a/b": ()}, apps: {
            "one": (dataset: "a", version: "1"), "two": (dataset: "a/b", version: "1")})"#,
    );
    let created: Vec<(&str, Vec<String>)> = plan
        .units
        .iter()
        .map(|u| {
            (
                u.name.as_str(),
                u.steps
                    .iter()
                    .filter(|s| step_name(&s.step) == "CreateDataset")
                    .map(|s| object(&s.step))
                    .collect(),
            )
        })
        .collect();
    assert_eq!(
        created,
        [("datasets", vec!["a".to_owned()]), ("one", vec![]), ("two", vec!["a/b".to_owned()])]
    );
}

#[test]
fn native_properties_change_and_come_back() {
    let mut world = TestWorld::new();
    let spec = |with: &str| format!("Deploy(datasets: {{\"a\": ({with})}})");
    world.converge("d", &spec("quota: \"1G\", atime: false, properties: {\"refquota\": \"512M\"}"));
    let native = &world.observed.datasets["a"].native;
    assert_eq!(native["quota"], "1073741824");
    assert_eq!(native["refquota"], "536870912");
    assert_eq!(native["atime"], "off");
    let plan = world.deploy("d", &spec("quota: \"2G\", compression: \"lz4\""));
    let planned = &plan.units[0].steps[0];
    let Step::SetProps { changes } = &planned.step else { panic!("{planned:?}") };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(changes[0].native["quota"], some("2147483648"));
    assert_eq!(changes[0].native.len(), 2, "what is not declared any more is left as it is");
    let Step::SetProps { changes } = &planned.undo[0] else { panic!("{planned:?}") };
    assert_eq!(changes[0].native["quota"], some("1073741824"));
    assert_eq!(changes[0].native["compression"], None);
    world.run(&plan);
    assert!(world.plan("d", &spec("quota: \"2G\", compression: \"lz4\"")).is_empty());
}

#[test]
fn an_existing_host_is_adopted_without_a_mark() {
    let mut world = TestWorld::new();
    for name in ["a", "b"] {
        let dataset = ObservedDataset {
            mountpoint: Some(format!("/{name}")),
            mounted: name == "a",
            native: [("quota".to_owned(), "1024".to_owned())].into(),
            ..ObservedDataset::default()
        };
        world.observed.datasets.insert(path(name), dataset);
    }
    let plan = world.deploy("d", r#"Deploy(datasets: {"a": (quota: "1K"), "b": (quota: "1K")})"#);
    assert_eq!(lines(&plan), [""; 0]);
    assert_eq!(notes(&plan), ["Warning drift dataset b"], "it should be mounted");
}

#[test]
fn conditions_and_placement_decide_where() {
    let hosts = r#"hosts: {"web1": (address: "10.0.0.1:7117", labels: {"role": "web"}), "db1": (address: "10.0.0.2:7117")},"#;
    let text = |hosts: &str, on: &str| {
        format!(
            "Deploy({hosts} datasets: {{\"a\": (), \"b\": (on: Hosts([\"db1\"]))}}, apps: {{\"x\": (dataset: \"a\", version: \"1\", {on})}})"
        )
    };
    for (on, host, here) in [
        ("", "web1", true),
        ("on: Label(\"role\", \"web\")", "web1", true),
        ("on: Label(\"role\", \"web\")", "db1", false),
        ("on: Hosts([\"web1\"])", "db1", false),
        ("", "elsewhere", false),
        ("when: Fact(\"os\", \"linux\")", "web1", true),
        ("when: Fact(\"os\", \"freebsd\")", "web1", false),
    ] {
        let mut world = TestWorld::new();
        world.observed.host = Some(HostName::parse(host).unwrap());
        let plan = world.converge("d", &text(hosts, on));
        assert_eq!(lines(&plan).contains(&"RecordRelease x".to_owned()), here, "{on} on {host}");
        assert_eq!(world.observed.datasets.contains_key("b"), host == "db1", "{on} on {host}");
        // What belongs here no longer is removed like anything else.
        let plan = world.converge("d", &text(hosts, "when: Fact(\"os\", \"plan9\")"));
        assert_eq!(lines(&plan).contains(&"| SetProps a".to_owned()), here, "{on} on {host}");
    }
}

#[test]
fn pools_are_compared() {
    for (store, kind) in
        [(None, "Info pool deploy prod"), (Some("tank"), ""), (Some("tank/zed"), "Fatal pool deploy prod")]
    {
        let mut world = TestWorld::new();
        world.observed.env.insert("RELEASE_COOKIE".into(), "c".into());
        world.observed.pool = store.map(str::to_owned);
        assert_eq!(notes(&world.deploy("prod", &example("prod"))).join(","), kind, "{store:?}");
    }
}

#[test]
fn keep_prunes_and_never_a_needed_target() {
    let mut world = TestWorld::new();
    let text = |version: u32| {
        hello("1.0.0").replace("1.0.0", &format!("1.{version}.0")).replace("keep: 5", "keep: 3")
    };
    for version in 0..8 {
        world.converge("hello", &text(version));
    }
    let versions = |world: &TestWorld| -> Vec<String> {
        world.observed.snapshots["apps/hello"].iter().map(|s| s.user[props::name::VERSION].clone()).collect()
    };
    assert_eq!(versions(&world), ["1.4.0", "1.5.0", "1.6.0"]);
    world.rollback("hello", "1.5.0");
    assert_eq!(versions(&world), ["1.4.0", "1.5.0"]);
    for version in 8..12 {
        world.converge("hello", &text(version));
    }
    assert!(versions(&world).contains(&"1.5.0".to_owned()), "the branch hangs on it: {:?}", versions(&world));
    assert_eq!(world.plan_rollback("hello", "1.7.0").unwrap().fatal().count(), 0, "what was undone is there");
    let plan = world.plan("hello", &text(11).replace("keep: 3", "keep: 1"));
    assert_eq!(
        lines(&plan),
        ["| DestroySnapshots apps/hello apps/hello"],
        "fewer to keep is enough of a reason"
    );
    world.run(&plan);
    assert!(world.plan("hello", &text(11).replace("keep: 3", "keep: 1")).is_empty());
}

#[test]
fn without_before_deploy_the_snapshot_lasts_as_long_as_the_deploy() {
    let mut world = TestWorld::new();
    let text = |version: &str| hello(version).replace("before_deploy: true", "before_deploy: false");
    world.converge("hello", &text("1.0.0"));
    let plan = world.converge("hello", &text("1.1.0"));
    assert!(lines(&plan).contains(&"Snapshot apps/hello".to_owned()));
    assert_eq!(lines(&plan).last().unwrap(), "DestroySnapshots apps/hello");
    assert_eq!(world.observed.snapshots["apps/hello"], []);
}

#[test]
fn an_unknown_old_release_is_said() {
    let mut world = TestWorld::new();
    world.converge("hello", &hello("1.0.0"));
    world.releases.clear();
    let plan = world.deploy("hello", &hello("1.1.0"));
    assert_eq!(notes(&plan), ["Warning release app hello"]);
    assert_eq!(plan.units[0].steps[0].undo, []);
}

#[test]
fn a_newer_schema_is_not_written_over() {
    let mut world = TestWorld::new();
    world.converge("hello", &hello("1.0.0"));
    world
        .observed
        .datasets
        .get_mut("apps/hello")
        .unwrap()
        .user
        .insert(props::name::SCHEMA.into(), "2".into());
    let plan = world.deploy("hello", &hello("1.0.0"));
    assert_eq!(plan.fatal().map(|n| n.kind.as_str()).collect::<Vec<_>>(), ["schema"]);
}

#[test]
fn a_plan_is_based_on_what_it_depends_on_and_on_nothing_else() {
    let mut world = TestWorld::new();
    world.converge("hello", &hello("1.0.0"));
    let base = world.plan("hello", &hello("1.0.0")).based_on;
    type Change = fn(&mut TestWorld);
    let cases: &[(&str, bool, Change)] = &[
        ("time passes", false, |_| {}),
        ("another pid", false, |w| set_process(w, "hello", ProcessStatus::Running { pid: 9 })),
        ("free space", false, |w| w.observed.available = 1),
        ("another deploy's dataset", false, |w| {
            w.observed.datasets.insert(path("other"), ObservedDataset::default());
        }),
        ("another deploy's app", false, |w| {
            let process = ObservedProcess { run_hash: "x".into(), status: ProcessStatus::Completed };
            w.observed.processes.insert(Instance::first(&app("other")), process);
        }),
        ("a process that is gone", true, |w| set_process(w, "hello", ProcessStatus::Stopped)),
        ("a property", true, |w| {
            w.observed.datasets.get_mut("apps/hello").unwrap().native.insert("quota".into(), "1".into());
        }),
        ("an unmounted dataset", true, |w| {
            w.observed.datasets.get_mut("apps/hello").unwrap().mounted = false
        }),
        ("a variable", true, |w| {
            w.observed.env.insert("X".into(), "1".into());
        }),
    ];
    for (what, stale, change) in cases {
        let mut changed = world.clone();
        change(&mut changed);
        assert_eq!(changed.plan("hello", &hello("1.0.0")).based_on != base, *stale, "{what}");
    }
}
