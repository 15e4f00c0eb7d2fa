//! Cases about going back to a snapshot and losing nothing.

use super::*;
use crate::PropChange;

pub(super) const CASES: &[(&str, Case)] = &[
    ("restore_brings_back_content_and_properties", restore_brings_back_content_and_properties),
    ("restore_keeps_the_present_as_a_branch", restore_keeps_the_present_as_a_branch),
    ("restore_moves_newer_snapshots_to_the_branch", restore_moves_newer_snapshots_to_the_branch),
    ("restore_from_a_branch_takes_a_restore_back", restore_from_a_branch_takes_a_restore_back),
    ("restore_again_and_again", restore_again_and_again),
    ("restore_may_be_repeated", restore_may_be_repeated),
    ("restore_keeps_native_properties", restore_keeps_native_properties),
    ("restore_keeps_an_explicit_mountpoint", restore_keeps_an_explicit_mountpoint),
    ("restore_leaves_children_in_place", restore_leaves_children_in_place),
    ("restore_refuses_bad_requests", restore_refuses_bad_requests),
    ("restored_datasets_go_on", restored_datasets_go_on),
];

/// `app` with three releases; snapshot `N` holds the content and the stamp of release `N`, and release 3 runs.
fn three_releases(fixture: &dyn Fixture) {
    ensure_branches(fixture);
    ok(fixture.store().create(&request("app", &[("recordsize", "16384")], &[(MANAGED, "on")])));
    for version in ["1", "2", "3"] {
        write(fixture, "app", "version", version);
        write(fixture, "app", &format!("only-in-{version}"), version);
        set_user(fixture, "app", "com.zed:version", version);
        ok(fixture.store().snapshot(&[take(&format!("app@{version}"), &[("com.zed:version", version)])]));
        fixture.remove(&path("app"), &format!("only-in-{version}"));
    }
    write(fixture, "app", "version", "3-live");
    set_user(fixture, "app", "com.zed:live", "yes");
}

fn set_user(fixture: &dyn Fixture, dataset: &str, name: &str, value: &str) {
    ok(fixture.store().set(&[PropChange {
        path: path(dataset),
        native: BTreeMap::new(),
        user: BTreeMap::from([(name.to_owned(), Some(value.to_owned()))]),
    }]));
}

const OLD: &[(&str, &str)] = &[(MANAGED, "on"), ("com.zed:version", "1")];

fn restore_brings_back_content_and_properties(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    ok(fixture.store().restore(&restore_request("app", "app@1", "zed/branches/app-1", OLD)));
    for reopened in [false, true] {
        if reopened {
            fixture.reopen();
        }
        let app = dataset(fixture, "app");
        assert!(app.mounted);
        assert_eq!(app.user, props(OLD), "a user property of the later release survived, or one is missing");
        assert_eq!(read(fixture, "app", "version").as_deref(), Some("1"));
        assert_eq!(read(fixture, "app", "only-in-1").as_deref(), Some("1"));
        assert_eq!(read(fixture, "app", "only-in-3"), None);
    }
}

fn restore_keeps_the_present_as_a_branch(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    let was = dataset(fixture, "app");
    ok(fixture.store().restore(&restore_request("app", "app@1", "zed/branches/app-1", OLD)));
    let branch = dataset(fixture, "zed/branches/app-1");
    has_all(
        &branch.user,
        &[(MANAGED, "on"), ("com.zed:version", "3"), ("com.zed:live", "yes"), ("com.zed:role", "branch")],
        "the branch",
    );
    has_all(&branch.native, &[("recordsize", "16384")], "the branch");
    assert!(!branch.mounted, "a branch is mounted");
    assert_eq!(branch.guid, was.guid, "the branch is what the dataset was");
    assert!(ok(fixture.store().list()).iter().any(|d| d.path == branch.path), "list leaves the branch out");

    // The unsnapshotted present is in it: retire what is there and bring the branch back.
    ok(fixture.store().retire(&path("app"), &path("zed/branches/app-2")));
    ok(fixture.store().reinstate(&path("zed/branches/app-1"), &path("app")));
    assert_eq!(read(fixture, "app", "version").as_deref(), Some("3-live"));
}

fn restore_moves_newer_snapshots_to_the_branch(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    let before: Vec<(u64, u64, UserProps)> =
        snapshots(fixture, "app").iter().map(|s| (s.guid, s.txg, s.user.clone())).collect();
    ok(fixture.store().restore(&restore_request("app", "app@2", "zed/branches/app-1", OLD)));
    assert_eq!(names(fixture, "app"), ["1", "2"]);
    assert_eq!(names(fixture, "zed/branches/app-1"), ["3"]);
    assert_eq!(dataset(fixture, "app").origin, None, "the live dataset must not depend on a branch");
    assert_eq!(dataset(fixture, "zed/branches/app-1").origin, Some(snap("app@2")));
    let of = |name: &str| snapshots(fixture, name).into_iter().map(|s| (s.guid, s.txg, s.user.clone()));
    let after: Vec<(u64, u64, UserProps)> = of("app").chain(of("zed/branches/app-1")).collect();
    assert_eq!(after, before, "a snapshot changed when it moved");
}

fn restore_from_a_branch_takes_a_restore_back(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    ok(fixture.store().restore(&restore_request("app", "app@1", "zed/branches/app-1", OLD)));
    write(fixture, "app", "version", "1-live");
    snapshot(fixture, "app@1b");
    let newer = [(MANAGED, "on"), ("com.zed:version", "3")];
    let from = "zed/branches/app-1@3";
    ok(fixture.store().restore(&restore_request("app", from, "zed/branches/app-2", &newer)));
    for reopened in [false, true] {
        if reopened {
            fixture.reopen();
        }
        assert_eq!(read(fixture, "app", "version").as_deref(), Some("3"));
        assert_eq!(read(fixture, "app", "only-in-3").as_deref(), Some("3"));
        assert_eq!(dataset(fixture, "app").user, props(&newer));
        assert_eq!(names(fixture, "app"), ["1", "2", "3"], "the whole lineage belongs to the dataset");
        assert_eq!(names(fixture, "zed/branches/app-2"), ["1b"]);
        assert_eq!(names(fixture, "zed/branches/app-1"), [] as [&str; 0]);
        assert_eq!(dataset(fixture, "app").origin, None);
        assert_eq!(dataset(fixture, "zed/branches/app-1").origin, Some(snap("app@3")));
        assert_eq!(dataset(fixture, "zed/branches/app-2").origin, Some(snap("app@1")));
    }
    // And the undo of the undo.
    let from = "zed/branches/app-2@1b";
    ok(fixture.store().restore(&restore_request("app", from, "zed/branches/app-3", OLD)));
    assert_eq!(read(fixture, "app", "version").as_deref(), Some("1-live"));
    assert_eq!(names(fixture, "app"), ["1", "1b"]);
    assert_eq!(names(fixture, "zed/branches/app-3"), ["2", "3"]);
}

fn restore_again_and_again(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    for (turn, version) in ["2", "1", "1"].iter().enumerate() {
        let branch = format!("zed/branches/app-{turn}");
        ok(fixture.store().restore(&restore_request("app", &format!("app@{version}"), &branch, OLD)));
        assert_eq!(read(fixture, "app", "version").as_deref(), Some(*version));
        assert_eq!(names(fixture, "app").last().map(String::as_str), Some(*version));
    }
    let held: Vec<String> = ok(fixture.store().snapshots(None))
        .iter()
        .map(|s| s.id.name.clone())
        .filter(|n| n.len() == 1)
        .collect();
    assert_eq!(held.len(), 3, "a snapshot was lost: {held:?}");
}

fn restore_may_be_repeated(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    let wanted = restore_request("app", "app@1", "zed/branches/app-1", OLD);
    ok(fixture.store().restore(&wanted));
    write(fixture, "app", "version", "written after");
    let before = everything(fixture);
    ok(fixture.store().restore(&wanted));
    fixture.reopen();
    ok(fixture.store().restore(&wanted));
    assert_eq!(everything(fixture), before, "the repeated call did something");
    assert_eq!(read(fixture, "app", "version").as_deref(), Some("written after"));
}

fn restore_keeps_native_properties(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    ok(fixture.store().set(&[PropChange {
        path: path("app"),
        native: BTreeMap::from([
            ("compression".to_owned(), Some("lz4".to_owned())),
            ("quota".to_owned(), Some("1073741824".to_owned())),
        ]),
        user: BTreeMap::new(),
    }]));
    let native = dataset(fixture, "app").native.clone();
    let mountpoint = dataset(fixture, "app").mountpoint.clone();
    ok(fixture.store().restore(&restore_request("app", "app@1", "zed/branches/app-1", OLD)));
    assert_eq!(dataset(fixture, "app").native, native);
    assert_eq!(dataset(fixture, "app").mountpoint, mountpoint);
}

fn restore_keeps_an_explicit_mountpoint(fixture: &mut dyn Fixture) {
    ensure_branches(fixture);
    let place = fixture.mount_base().join("srv-app");
    let place = place.to_str().unwrap_or_else(|| panic!("the fixture's folder is not UTF-8"));
    ok(fixture.store().create(&request("app", &[("mountpoint", place)], &[(MANAGED, "on")])));
    write(fixture, "app", "version", "1");
    snapshot(fixture, "app@1");
    write(fixture, "app", "version", "2");
    ok(fixture.store().restore(&restore_request("app", "app@1", "zed/branches/app-1", OLD)));
    let app = dataset(fixture, "app");
    assert_eq!((app.mountpoint.as_deref(), app.mounted), (Some(Path::new(place)), true));
    assert_eq!(app.native, props(&[("mountpoint", place)]));
    assert_eq!(read(fixture, "app", "version").as_deref(), Some("1"));
    assert!(!dataset(fixture, "zed/branches/app-1").mounted);
}

fn restore_leaves_children_in_place(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    for name in ["app/logs", "app/logs/old", "app-other"] {
        ok(fixture.store().create(&request(name, &[], &[(MANAGED, "on"), ("com.zed:of", name)])));
        write(fixture, name, "file", name);
        snapshot(fixture, &format!("{name}@1"));
        write(fixture, name, "later", name);
    }
    let before: Vec<Dataset> = ["app/logs", "app/logs/old", "app-other"].map(|n| seen(fixture, n)).into();
    ok(fixture.store().restore(&restore_request("app", "app@1", "zed/branches/app-1", OLD)));
    for reopened in [false, true] {
        if reopened {
            fixture.reopen();
        }
        for was in &before {
            let name = was.path.as_str();
            assert_eq!(&seen(fixture, name), was);
            assert!(was.mounted);
            assert_eq!(read(fixture, name, "file").as_deref(), Some(name));
            assert_eq!(read(fixture, name, "later").as_deref(), Some(name));
            assert_eq!(names(fixture, name), ["1"]);
        }
        assert_eq!(read(fixture, "app", "version").as_deref(), Some("1"));
    }
    let below = path("zed/branches/app-1");
    assert!(!ok(fixture.store().list()).iter().any(|d| d.path != below && d.path.is_in(&below)));
}

fn seen(fixture: &dyn Fixture, name: &str) -> Dataset {
    Dataset { referenced: 0, ..dataset(fixture, name).as_ref().clone() }
}

fn restore_refuses_bad_requests(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    create(fixture, "other");
    snapshot(fixture, "other@1");
    let before = everything(fixture);
    let restore = |dataset: &str, from: &str, branch: &str| {
        fixture.store().restore(&restore_request(dataset, from, branch, OLD))
    };
    refused_as(restore("app", "app@9", "zed/branches/x"), &StoreErrorKind::NotFound, "a missing snapshot");
    refused_as(restore("gone", "gone@1", "zed/branches/x"), &StoreErrorKind::NotFound, "a missing dataset");
    refused_as_invalid(restore("app", "app@1", "elsewhere"), "a branch that is not below zed/branches");
    refused_as_invalid(restore("app", "app@1", BRANCHES), "zed/branches itself as branch");
    refused_as_invalid(restore("app", "other@1", "zed/branches/x"), "a snapshot of an unrelated dataset");
    let mut bad = restore_request("app", "app@1", "zed/branches/x", OLD);
    bad.user.insert("No:Good".to_owned(), String::new());
    refused_as_invalid(fixture.store().restore(&bad), "a bad property name");
    assert_eq!(everything(fixture), before);
    assert_eq!(read(fixture, "app", "version").as_deref(), Some("3-live"));
}

fn restored_datasets_go_on(fixture: &mut dyn Fixture) {
    three_releases(fixture);
    ok(fixture.store().restore(&restore_request("app", "app@1", "zed/branches/app-1", OLD)));
    // Names that went to the branch may be taken again, and both stay reachable.
    write(fixture, "app", "version", "new 2");
    snapshot(fixture, "app@2");
    set_user(fixture, "app", "com.zed:version", "2");
    assert_eq!(names(fixture, "app"), ["1", "2"]);
    assert_eq!(names(fixture, "zed/branches/app-1"), ["2", "3"]);
    ok(fixture.store().restore(&restore_request("app", "zed/branches/app-1@2", "zed/branches/app-2", OLD)));
    assert_eq!(read(fixture, "app", "version").as_deref(), Some("2"));
    ok(fixture.store().restore(&restore_request("app", "zed/branches/app-2@2", "zed/branches/app-3", OLD)));
    assert_eq!(read(fixture, "app", "version").as_deref(), Some("new 2"));
    create(fixture, "app/child");
    assert!(exists(fixture, "app/child"));
}
