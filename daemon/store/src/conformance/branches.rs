//! Cases about branches: retiring, reinstating and destroying.

use super::*;

pub(super) const CASES: &[(&str, Case)] = &[
    ("retire_and_reinstate", retire_and_reinstate),
    ("retire_refuses_bad_requests", retire_refuses_bad_requests),
    ("reinstate_refuses_bad_requests", reinstate_refuses_bad_requests),
    ("destroy_branch_destroys_branches_only", destroy_branch_destroys_branches_only),
    ("destroy_branch_waits_for_what_depends_on_it", destroy_branch_waits_for_what_depends_on_it),
];

const BRANCH: &str = "zed/branches/app-1";

fn app(fixture: &dyn Fixture) {
    ensure_branches(fixture);
    let user = [(MANAGED, "on"), ("com.zed:version", "1")];
    ok(fixture.store().create(&request("app", &[("compression", "lz4")], &user)));
    write(fixture, "app", "file", "1");
    snapshot(fixture, "app@1");
    write(fixture, "app", "file", "live");
}

fn retire_and_reinstate(fixture: &mut dyn Fixture) {
    app(fixture);
    let was = dataset(fixture, "app");
    let stamp = one_snapshot(fixture, "app@1").user.clone();
    for _ in 0..2 {
        ok(fixture.store().retire(&path("app"), &path(BRANCH)));
        assert!(!exists(fixture, "app"));
        let branch = dataset(fixture, BRANCH);
        assert_eq!(branch.guid, was.guid);
        assert!(!branch.mounted, "a branch is mounted");
        has_all(&branch.user, &[(MANAGED, "on"), ("com.zed:version", "1")], "the branch");
        assert_eq!(one_snapshot(fixture, &format!("{BRANCH}@1")).user, stamp);
    }
    fixture.reopen();
    for _ in 0..2 {
        ok(fixture.store().reinstate(&path(BRANCH), &path("app")));
        assert!(!exists(fixture, BRANCH));
        let is = dataset(fixture, "app");
        assert_eq!((is.guid, &is.user, &is.native), (was.guid, &was.user, &was.native));
        assert_eq!((is.mounted, &is.mountpoint), (true, &was.mountpoint));
        assert_eq!(read(fixture, "app", "file").as_deref(), Some("live"));
        assert_eq!(names(fixture, "app"), ["1"]);
    }
    // The place is free for another one.
    ok(fixture.store().retire(&path("app"), &path(BRANCH)));
    create(fixture, "app");
    assert_eq!(read(fixture, "app", "file"), None);
    assert_eq!(names(fixture, "app"), [] as [&str; 0]);
}

fn retire_refuses_bad_requests(fixture: &mut dyn Fixture) {
    app(fixture);
    create(fixture, "app/child");
    let before = everything(fixture);
    let kind =
        refused(fixture.store().retire(&path("app"), &path(BRANCH)), "retiring a dataset with a child");
    assert!(matches!(kind, StoreErrorKind::Busy(_) | StoreErrorKind::Invalid(_)), "{kind:?}");
    refused_as_invalid(fixture.store().retire(&path("app/child"), &path("elsewhere")), "a branch elsewhere");
    refused_as_invalid(fixture.store().retire(&path("app/child"), &path(BRANCHES)), "zed/branches itself");
    refused_as(
        fixture.store().retire(&path("missing"), &path(BRANCH)),
        &StoreErrorKind::NotFound,
        "retiring what is not there",
    );
    assert_eq!(everything(fixture), before);
    create(fixture, "other");
    ok(fixture.store().retire(&path("other"), &path(BRANCH)));
    refused_as(
        fixture.store().retire(&path("app/child"), &path(BRANCH)),
        &StoreErrorKind::Exists,
        "a branch that is there",
    );
    assert!(exists(fixture, "app/child"));
}

fn reinstate_refuses_bad_requests(fixture: &mut dyn Fixture) {
    app(fixture);
    ok(fixture.store().retire(&path("app"), &path(BRANCH)));
    create(fixture, "other");
    let before = everything(fixture);
    let reinstate = |branch: &str, dataset: &str| fixture.store().reinstate(&path(branch), &path(dataset));
    refused_as(reinstate(BRANCH, "other"), &StoreErrorKind::Exists, "reinstating over a dataset");
    refused_as(reinstate(BRANCH, "no/parent"), &StoreErrorKind::NoParent, "reinstating without parent");
    refused_as(
        reinstate("zed/branches/no", "app"),
        &StoreErrorKind::NotFound,
        "reinstating what is not there",
    );
    refused_as_invalid(reinstate("other", "app"), "reinstating what is no branch");
    assert_eq!(everything(fixture), before);
}

fn destroy_branch_destroys_branches_only(fixture: &mut dyn Fixture) {
    app(fixture);
    ok(fixture.store().create(&request("foreign", &[], &[])));
    ok(fixture.store().retire(&path("foreign"), &path("zed/branches/foreign")));
    let before = everything(fixture);
    for name in ["app", OWN_DATASET, BRANCHES] {
        let kind = refused(fixture.store().destroy_branch(&path(name)), name);
        assert!(matches!(kind, StoreErrorKind::Invalid(_) | StoreErrorKind::NotOurs), "{name}: {kind:?}");
    }
    refused_as(
        fixture.store().destroy_branch(&path("zed/branches/foreign")),
        &StoreErrorKind::NotOurs,
        "destroying a branch without the mark",
    );
    assert_eq!(everything(fixture), before);

    ok(fixture.store().retire(&path("app"), &path(BRANCH)));
    for _ in 0..2 {
        ok(fixture.store().destroy_branch(&path(BRANCH)));
        assert!(!exists(fixture, BRANCH));
        assert_eq!(ok(fixture.store().snapshots(None)), [], "the snapshots of the branch are left");
    }
    fixture.reopen();
    assert!(!exists(fixture, BRANCH));
}

fn destroy_branch_waits_for_what_depends_on_it(fixture: &mut dyn Fixture) {
    app(fixture);
    let user = [(MANAGED, "on")];
    ok(fixture.store().restore(&restore_request("app", "app@1", BRANCH, &user)));
    ok(fixture.store().retire(&path("app"), &path("zed/branches/app-2")));
    let before = everything(fixture);
    refused_as_busy(
        fixture.store().destroy_branch(&path("zed/branches/app-2")),
        "destroying a branch that another one came from",
    );
    assert_eq!(everything(fixture), before);
    ok(fixture.store().destroy_branch(&path(BRANCH)));
    ok(fixture.store().destroy_branch(&path("zed/branches/app-2")));
    assert_eq!(ok(fixture.store().snapshots(None)), []);
}
