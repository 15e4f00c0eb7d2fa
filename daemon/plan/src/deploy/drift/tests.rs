//! What somebody else did, one case each: reported, nothing is done; healed, all is as it was.

use crate::deploy::datasets_of_deploy;
use crate::deploy::tests::lines;
use crate::deploy::tests::notes;
use crate::plan::Plan;
use crate::props::name;
use crate::testing::*;

const SPEC: &str = r#"Deploy(
    datasets: {"apps/a": (compression: "lz4", quota: "1K"), "data": ()},
    apps: {"a": (dataset: "apps/a", data: ["data"], version: "1", command: ["/bin/a"])},
)"#;

/// A host at rest.
fn at_rest() -> TestWorld {
    let mut world = TestWorld::new();
    world.converge("d", SPEC);
    remember(&mut world);
    assert!(world.plan("d", SPEC).is_empty());
    world
}

fn remember(world: &mut TestWorld) {
    world.known = Some(datasets_of_deploy(&parse("d", SPEC), &world.observed));
}

fn said(plan: &Plan) -> String {
    plan.notes
        .iter()
        .map(|note| format!("{}: {}: {}", note.object, note.kind, note.text))
        .collect::<Vec<_>>()
        .join("\n")
}

/// What somebody does.
enum Deed {
    Native(&'static str, &'static str, Option<&'static str>),
    User(&'static str, &'static str, Option<&'static str>),
    Unmount(&'static str),
    Destroy(&'static str),
    Rename(&'static str, &'static str),
    Mark(&'static str),
}
use Deed::*;

fn act(world: &mut TestWorld, deed: &Deed) {
    let datasets = &mut world.observed.datasets;
    let mut put = |native: bool, of: &str, key: &str, value: &Option<&str>| {
        let dataset = datasets.get_mut(of).unwrap();
        let map = if native { &mut dataset.native } else { &mut dataset.user };
        match value {
            Some(value) => map.insert(key.to_owned(), (*value).to_owned()),
            None => map.remove(key),
        };
    };
    match deed {
        Native(of, key, value) => put(true, of, key, value),
        User(of, key, value) => put(false, of, key, value),
        Unmount(of) => datasets.get_mut(*of).unwrap().mounted = false,
        Destroy(of) => {
            datasets.remove(*of).unwrap();
            world.content.remove(*of);
        }
        Rename(from, to) => {
            let dataset = datasets.remove(*from).unwrap();
            datasets.insert(path(to), dataset);
            let content = world.content.remove(*from).unwrap();
            world.content.insert((*to).to_owned(), content);
        }
        Mark(of) => {
            let user =
                [(name::DEPLOY.to_owned(), "d".to_owned()), (name::MANAGED.to_owned(), "yes".to_owned())];
            let dataset = crate::ObservedDataset { user: user.into(), mounted: true, ..Default::default() };
            datasets.insert(path(of), dataset);
            world.content.insert((*of).to_owned(), Vec::new());
        }
    }
}

#[test]
fn what_somebody_else_changed_is_said_and_heals_when_asked_to() {
    let a = "apps/a";
    // What is done, what is said of it, and the steps that heal it.
    let cases: &[(Deed, &[&str], &[&str])] = &[
        (
            Native(a, "compression", Some("off")),
            &["dataset apps/a: drift: compression is `off`, the spec says `lz4`: `echo heal d > ctl`"],
            &["SetProps apps/a"],
        ),
        (Native(a, "quota", None), &["quota is not set, the spec says `1024`"], &["SetProps apps/a"]),
        (User(a, name::ROLE, None), &["com.zed:role is not set, zed wrote `app`"], &["SetProps apps/a"]),
        (
            User("data", name::ROLE, Some("app")),
            &["com.zed:role is `app`, zed wrote `data`"],
            &["SetProps data"],
        ),
        (User("data", name::DEPLOY, None), &["com.zed:deploy is not set, zed wrote `d`"], &["SetProps data"]),
        (
            User("data", name::MANAGED, None),
            &["com.zed:managed is not set, zed wrote `yes`"],
            &["SetProps data"],
        ),
        (
            User(a, name::VERSION, Some("9")),
            &["app a: drift: `com.zed:version` on apps/a is `9`, zed wrote `1`"],
            &["Probe a", "RecordRelease a", "| SetProps apps/a"],
        ),
        (User(a, name::SPEC, Some("0")), &["names a release that zed has no record of"], &["Probe a"]),
        (
            User(a, name::APP, None),
            &["it was deployed here, and the properties that say so on apps/a are gone"],
            &["StopApp a"],
        ),
        (User(a, name::VERSION, None), &["it was deployed here"], &["StopApp a"]),
        (Unmount("data"), &["dataset data: drift: it should be mounted and is not"], &["MountDataset data"]),
        (
            Mark("other"),
            &["dataset other: drift: it carries the mark of this deploy, which never had it"],
            &["SetProps other"],
        ),
    ];
    for (number, (deed, expected, healing)) in cases.iter().enumerate() {
        let mut world = at_rest();
        act(&mut world, deed);
        let plan = world.plan("d", SPEC);
        assert!(plan.is_empty(), "case {number}: {:?}", lines(&plan));
        expected
            .iter()
            .for_each(|text| assert!(said(&plan).contains(text), "case {number}: {}", said(&plan)));
        world.heal = true;
        let plan = world.plan("d", SPEC);
        assert!(
            healing.iter().all(|line| lines(&plan).iter().any(|step| step == line)),
            "case {number}: {:?}",
            lines(&plan)
        );
        world.run(&plan);
        world.heal = false;
        remember(&mut world);
        let plan = world.plan("d", SPEC);
        assert!(
            plan.is_empty() && plan.notes.is_empty(),
            "case {number}: {:?} {}",
            lines(&plan),
            said(&plan)
        );
    }
}

#[test]
fn data_that_is_gone_is_never_begun_anew_without_being_asked_for() {
    for (deed, mark) in [
        (Destroy("data"), ""),
        (Destroy("apps/a"), ""),
        (Rename("apps/a", "apps/b"), "`apps/b` carries the mark of this deploy"),
        (Rename("data", "old"), "`old` carries the mark of this deploy"),
    ] {
        // Reported, healed by policy, and saved again with another version: nothing touches it.
        for (heal, text) in
            [(false, SPEC.to_owned()), (true, SPEC.to_owned()), (true, SPEC.replace("\"1\"", "\"2\""))]
        {
            let mut world = at_rest();
            act(&mut world, &deed);
            world.heal = heal;
            let plan = world.plan("d", &text);
            let touched: Vec<_> =
                lines(&plan).into_iter().filter(|line| !line.starts_with("SetProps")).collect();
            assert_eq!(touched, [""; 0], "{}", said(&plan));
            assert!(
                said(&plan).contains("lost: it is gone: somebody else destroyed or renamed it"),
                "{}",
                said(&plan)
            );
            assert!(said(&plan).contains(mark), "{}", said(&plan));
            assert!(notes(&plan).contains(&"Warning drift app a".to_owned()), "{:?}", notes(&plan));
        }
        let mut world = at_rest();
        act(&mut world, &deed);
        (world.heal, world.recreate) = (true, true);
        let plan = world.plan("d", SPEC);
        assert!(lines(&plan).iter().any(|line| line.starts_with("CreateDataset")), "{:?}", lines(&plan));
        world.run(&plan);
        (world.heal, world.recreate) = (false, false);
        remember(&mut world);
        let plan = world.plan("d", SPEC);
        assert!(plan.is_empty() && plan.notes.is_empty(), "{:?} {}", lines(&plan), said(&plan));
    }
}

#[test]
fn nothing_is_created_below_what_is_gone() {
    let mut world = at_rest();
    act(&mut world, &Destroy("data"));
    let more = SPEC.replace("\"data\": ()", "\"data\": (), \"data/new/deep\": ()");
    let plan = world.deploy("d", &more);
    assert_eq!(lines(&plan), [""; 0]);
    assert!(
        said(&plan).contains("dataset data/new/deep: lost: it is not created, because data above it is gone")
    );
}

#[test]
fn properties_change_with_an_app_that_comes_by_itself_and_others_wait() {
    let when =
        |value: &str| SPEC.replace("command:", &format!("when: Env(\"STAGE\", \"{value}\"), command:"));
    let mut world = TestWorld::new();
    world.converge("d", &when("x"));
    world.known = Some(datasets_of_deploy(&parse("d", &when("x")), &world.observed));
    world.observed.env.insert("STAGE".into(), "x".into());
    act(&mut world, &Native("apps/a", "compression", Some("off")));
    let plan = world.plan("d", &when("x"));
    assert!(lines(&plan).contains(&"StartApp a".to_owned()), "{:?}", lines(&plan));
    assert!(said(&plan).contains("compression is `off`"), "{}", said(&plan));
    world.run(&plan);
    assert_eq!(world.observed.datasets["apps/a"].native["compression"], "off");
    assert_eq!(world.observed.datasets["apps/a"].user[name::ROLE], "app");
}

#[test]
fn a_spec_that_is_saved_applies_at_once() {
    let mut world = at_rest();
    let plan = world.deploy("d", &SPEC.replace("lz4", "zstd"));
    assert_eq!(lines(&plan), ["SetProps apps/a"]);
    assert!(plan.notes.is_empty(), "{}", said(&plan));
}

#[test]
fn a_release_folder_or_link_that_somebody_changed_is_said_and_put_right() {
    const SPEC: &str = r#"Deploy(
        datasets: {"apps/a": ()},
        apps: {"a": (dataset: "apps/a", version: "1", artifact: Tar("/srv/1"), command: ["bin/a"])},
    )"#;
    let folders = |current: Option<&str>, releases: &[&str]| crate::ObservedFolders {
        current: current.map(str::to_owned),
        releases: releases.iter().map(|name| (*name).to_owned()).collect(),
    };
    for (found, expected, healing) in [
        (folders(Some("releases/1"), &["releases/1"]), "", ""),
        (
            folders(Some("releases/0"), &["releases/0", "releases/1"]),
            "app a: drift: its link `current` in apps/a points to `releases/0`, zed made it point to `releases/1`",
            "SwitchRelease apps/a releases/1",
        ),
        (
            folders(None, &["releases/1"]),
            "its link `current` in apps/a is not there",
            "SwitchRelease apps/a releases/1",
        ),
        (
            folders(Some("releases/1"), &[]),
            "app a: drift: its release folder releases/1 in apps/a is gone",
            "Unpack apps/a releases/1",
        ),
    ] {
        let mut world = TestWorld::new();
        world.observed.artifacts.insert("/srv/1".into(), "1".repeat(64));
        world.converge("d", SPEC);
        world.observed.folders.insert(path("apps/a"), found);
        let plan = world.plan("d", SPEC);
        assert!(plan.is_empty(), "{:?}", lines(&plan));
        assert!(said(&plan).contains(expected), "{}", said(&plan));
        assert_eq!(said(&plan).is_empty(), expected.is_empty(), "{}", said(&plan));
        world.heal = true;
        let plan = world.plan("d", SPEC);
        assert_eq!(lines(&plan).is_empty(), healing.is_empty(), "{:?}", lines(&plan));
        assert!(healing.is_empty() || lines(&plan).iter().any(|line| line == healing), "{:?}", lines(&plan));
        world.run(&plan);
    }
}
