//! Plans with jails and zones.

use crate::deploy::tests::lines;
use crate::deploy::tests::notes;
use crate::guest::GuestId;
use crate::guest::GuestStatus;
use crate::plan::Plan;
use crate::plan::Step;
use crate::testing::*;
use crate::verb::AppVerb;
use zed_spec::DatasetPath;

/// A host that can have guests, and the example without what other parts of zed do.
fn world() -> TestWorld {
    let mut world = TestWorld::new();
    world.observed.runtimes.extend(["jail", "zone"].map(str::to_owned));
    world
}

fn jails(version: &str, packages: &str, params: &str) -> String {
    format!(
        r#"(
    datasets: {{"apps/shop": (), "data/shop": ()}},
    jails: {{
        "shop": (
            dataset: "jails/shop", release: "14.2-RELEASE", packages: [{packages}], params: {{{params}}},
            mounts: [(dataset: "data/shop", at: "/var/shop", read_only: false)], manager: Bastille,
        ),
        "edge": (dataset: "jails/edge", release: "14.2-RELEASE", vnet: true, depends_on: ["shop"]),
    }},
    apps: {{"shop": (dataset: "apps/shop", version: "{version}", runtime: Jail("shop"), command: ["bin/shop"])}},
)"#
    )
}

fn id(text: &str) -> GuestId {
    GuestId::parse(text).unwrap()
}

/// Names of the units, with what each waits for.
fn order(plan: &Plan) -> Vec<String> {
    plan.units.iter().map(|unit| format!("{} <- {}", unit.name, unit.after.join(" "))).collect()
}

#[test]
fn guests_come_after_their_datasets_and_before_their_apps() {
    let mut world = world();
    let plan = world.converge("jails", &jails("1", "\"nginx\"", ""));
    assert_eq!(order(&plan), ["datasets <- ", "shop <- datasets", "jail:edge <- datasets shop",]);
    let steps = lines(&plan);
    assert_eq!(
        steps,
        [
            "CreateDataset apps",
            "CreateDataset apps/shop",
            "CreateDataset data",
            "CreateDataset data/shop",
            "CreateDataset jails",
            "CreateDataset jails/edge",
            "CreateDataset jails/shop",
            "MakeGuest jail:shop",
            "Snapshot apps/shop",
            "StartApp shop",
            "Probe shop",
            "RecordRelease shop",
            "| SetProps apps/shop",
            "DestroySnapshots apps/shop",
            "MakeGuest jail:edge",
        ]
    );
    let Step::MakeGuest { guest } = &plan.units[1].steps[0].step else { panic!("{steps:?}") };
    let seen: Vec<_> =
        guest.mounts.iter().map(|mount| (mount.dataset.as_str(), mount.at.as_deref())).collect();
    assert_eq!(seen, [("data/shop", Some("/var/shop")), ("apps/shop", None)]);
    // A second time there is nothing to do.
    let plan = world.plan("jails", &jails("1", "\"nginx\"", ""));
    assert!(plan.is_empty() && plan.notes.is_empty(), "{plan:#?}");
}

#[test]
fn new_content_is_put_into_a_running_jail_and_its_root_is_kept_before() {
    let mut world = world();
    world.converge("jails", &jails("1", "\"nginx\"", ""));
    let before = world.clone();
    let plan = world.deploy("jails", &jails("1", "\"caddy\"", ""));
    assert_eq!(order(&plan), ["shop <- "]);
    assert_eq!(lines(&plan), ["Snapshot jails/shop", "MakeGuest jail:shop"]);
    let undo: Vec<&str> = plan.units[0].steps[1].undo.iter().map(step_name).collect();
    assert_eq!(undo, ["StopGuest", "Restore", "StartGuest"]);
    // Taken back, whether it was done or only begun: root and guest are as they were.
    for begun in [0, 1] {
        let mut world = world.clone();
        world.fail(&plan.units[0], 2, begun);
        assert_eq!(world.content["jails/shop"], before.content["jails/shop"]);
        // What the root holds is noted in the root, which the test world does not look into.
        let mut guests = world.observed.guests.clone();
        guests.get_mut(&id("jail:shop")).unwrap().content =
            before.observed.guests[&id("jail:shop")].content.clone();
        assert_eq!(guests, before.observed.guests);
    }
    world.run(&plan);
    assert!(world.plan("jails", &jails("1", "\"caddy\"", "")).is_empty());
}

#[test]
fn a_changed_parameter_restarts_the_jail_and_the_apps_in_it() {
    let mut world = world();
    world.converge("jails", &jails("1", "", ""));
    let before = world.clone();
    let text = jails("1", "", "\"enforce_statfs\": \"1\"");
    let plan = world.deploy("jails", &text);
    assert_eq!(order(&plan), ["shop <- "]);
    assert_eq!(
        lines(&plan),
        [
            "StopApp shop",
            "StopGuest jail:shop",
            "Snapshot jails/shop",
            "MakeGuest jail:shop",
            "StopApp shop",
            "StartApp shop",
            "Probe shop",
        ]
    );
    // When the jail fails, or the app in the new jail, the old one runs again, and then its app.
    for (steps, begun) in [(4, 0), (4, 1), (6, 0), (7, 0), (7, 1)] {
        let mut world = world.clone();
        world.fail(&plan.units[0], steps, begun);
        assert_eq!(world.observed.guests, before.observed.guests);
        assert_eq!(world.observed.processes, before.observed.processes);
    }
    world.run(&plan);
    assert!(world.plan("jails", &text).is_empty());
    // Version and parameter at once: the app is upgraded once its jail is there, and they stand or fall together.
    let before = world.clone();
    let plan = world.deploy("jails", &jails("2", "", "\"enforce_statfs\": \"2\""));
    assert_eq!(order(&plan), ["shop <- "]);
    for steps in 1..=plan.units[0].commit_at {
        let mut world = world.clone();
        world.fail(&plan.units[0], steps, 0);
        assert_eq!(world.observed.guests, before.observed.guests, "{steps}");
        assert_eq!(world.observed.processes, before.observed.processes, "{steps}");
        assert_eq!(world.content["jails/shop"], before.content["jails/shop"], "{steps}");
    }
    world.run(&plan);
}

#[test]
fn a_dataset_that_a_jail_sees_is_put_back_while_the_jail_is_stopped() {
    let mut world = world();
    world.converge("jails", &jails("1", "", ""));
    let plan = world.deploy("jails", &jails("2", "", ""));
    assert_eq!(order(&plan), ["shop <- "], "an upgrade of the app leaves the jail alone");
    let undo: Vec<&str> = plan.units[0]
        .steps
        .iter()
        .find(|planned| matches!(planned.step, Step::StartApp { .. }))
        .map(|planned| planned.undo.iter().map(step_name).collect())
        .unwrap();
    assert_eq!(undo, ["StopApp", "StopGuest", "Restore", "StartGuest"]);
    world.run(&plan);
    let plan = world.rollback("shop", "1");
    let steps = lines(&plan);
    let at = |name: &str| {
        steps.iter().position(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {steps:?}"))
    };
    let (stop, back, start) =
        (at("StopGuest jail:shop"), at("Restore apps/shop"), at("StartGuest jail:shop"));
    assert!(
        at("StopApp shop") < stop && stop < back && back < start && start < at("StartApp shop"),
        "{steps:?}"
    );
    assert_eq!(world.observed.guests[&id("jail:shop")].status, GuestStatus::Running);
}

#[test]
fn a_jail_goes_after_its_app_and_after_those_that_depend_on_it() {
    let mut world = world();
    world.converge("jails", &jails("1", "", ""));
    let plan = world.undeclare("jails");
    let waits = order(&plan);
    assert!(waits.contains(&"jail:edge <- ".to_owned()), "{waits:?}");
    assert!(waits.contains(&"jail:shop <- jail:edge shop".to_owned()), "{waits:?}");
    world.run(&plan);
    assert!(world.observed.guests.is_empty());
    assert!(
        world.observed.datasets.contains_key(&DatasetPath::parse("jails/shop").unwrap()),
        "its data stay"
    );
    assert!(world.undeclare("jails").is_empty());
}

#[test]
fn a_stopped_jail_is_drift_that_heals_when_asked_and_after_a_boot() {
    let text = jails("1", "", "");
    let mut world = world();
    world.converge("jails", &text);
    world.observed.guests.get_mut(&id("jail:edge")).unwrap().status = GuestStatus::Stopped;
    let plan = world.plan("jails", &text);
    assert!(plan.is_empty());
    assert_eq!(notes(&plan), ["Warning drift jail edge"]);
    let mut booted = world.clone();
    booted.observed.guests.get_mut(&id("jail:edge")).unwrap().rebooted = true;
    assert_eq!(lines(&booted.plan("jails", &text)), ["Snapshot jails/edge", "MakeGuest jail:edge"]);
    world.heal = true;
    let plan = world.plan("jails", &text);
    assert_eq!(order(&plan), ["jail:edge <- "]);
    world.run(&plan);
    assert!(world.plan("jails", &text).is_empty());
    // Changed by hand, and started so: it has to be restarted.
    world.observed.guests.get_mut(&id("jail:shop")).unwrap().running = None;
    let steps = lines(&world.plan("jails", &text));
    assert_eq!(steps[..2], ["StopApp shop", "StopGuest jail:shop"]);
}

#[test]
fn what_zed_did_not_make_or_the_platform_cannot_do_stops_the_plan() {
    let mut world = world();
    let mut other = world.clone();
    world.converge("jails", &jails("1", "", ""));
    let mut foreign = world.observed.guests[&id("jail:shop")].clone();
    foreign.made = None;
    other.observed.guests.insert(id("jail:shop"), foreign);
    assert_eq!(notes(&other.deploy("jails", &jails("1", "", ""))), ["Fatal clash jail shop"]);
    let second = jails("1", "", "")
        .replace("apps", "apps2")
        .replace("\"shop\": (dataset: \"apps2", "\"shop2\": (dataset: \"apps2");
    let second = second.replace("apps2: {", "apps: {");
    assert!(notes(&world.deploy("other", &second)).contains(&"Fatal clash jail shop".to_owned()));
    let path = jails("1", "", "\"path\": \"/x\"");
    assert!(notes(&other.deploy("jails", &path)).contains(&"Fatal guest jail shop".to_owned()));
    other.observed.runtimes.remove("jail");
    assert!(
        notes(&other.deploy("jails", &jails("1", "", "")))
            .contains(&"Fatal unsupported jail edge".to_owned())
    );
}

#[test]
fn a_held_app_holds_its_jail_and_a_verb_starts_it() {
    let mut world = world();
    world.converge("jails", &jails("1", "\"nginx\"", ""));
    world.converge("jails", &jails("2", "\"nginx\"", ""));
    world.rollback("shop", "1");
    // The same generation may not move the jail either.
    let plan = world.plan("jails", &jails("2", "\"caddy\"", ""));
    assert!(plan.is_empty(), "{:?}", lines(&plan));
    assert!(notes(&plan).contains(&"Info held jail shop".to_owned()), "{:?}", notes(&plan));
    // An operator starts the app of a jail that does not run.
    world.observed.guests.get_mut(&id("jail:shop")).unwrap().status = GuestStatus::Stopped;
    let plan = world.verb("shop", AppVerb::Start).unwrap();
    assert!(lines(&plan).contains(&"StartGuest jail:shop".to_owned()), "{:?}", lines(&plan));
}

#[test]
fn snapshots_of_a_root_are_pruned_as_the_spec_keeps_them() {
    let mut world = world();
    let text =
        |packages: &str| jails("1", packages, "").replace("datasets:", "snapshots: (keep: 2), datasets:");
    for package in ["a", "b", "c", "d"] {
        world.converge("jails", &text(&format!("\"{package}\"")));
    }
    let kept = &world.observed.snapshots[&DatasetPath::parse("jails/shop").unwrap()];
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|snapshot| snapshot.user["com.zed:guest"] == "jail:shop"));
}

#[test]
fn a_jail_between_two_of_one_component_belongs_to_it() {
    let mut world = world();
    let text = r#"(
    datasets: {"a": ()},
    jails: {
        "db": (dataset: "jails/db", release: "14.2-RELEASE"),
        "middle": (dataset: "jails/middle", release: "14.2-RELEASE", depends_on: ["db"]),
        "web": (dataset: "jails/web", release: "14.2-RELEASE", depends_on: ["middle"]),
        "last": (dataset: "jails/last", release: "14.2-RELEASE", depends_on: ["web"]),
    },
    apps: {
        "db": (dataset: "a/db", version: "1", runtime: Jail("db"), command: ["x"]),
        "web": (dataset: "a/web", version: "1", runtime: Jail("web"), command: ["x"], depends_on: ["db"]),
    },
)"#;
    let text = text.replace("{\"a\": ()}", "{\"a\": (), \"a/db\": (), \"a/web\": ()}");
    let plan = world.converge("d", &text);
    assert_eq!(order(&plan), ["datasets <- ", "db+web <- datasets", "jail:last <- datasets db+web"]);
    let made: Vec<String> = lines(&plan).into_iter().filter(|line| line.starts_with("MakeGuest")).collect();
    assert_eq!(made, ["jail:db", "jail:middle", "jail:web", "jail:last"].map(|id| format!("MakeGuest {id}")));
    assert!(world.plan("d", &text).is_empty());
}
