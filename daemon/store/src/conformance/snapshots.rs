//! Cases about taking, stamping and destroying snapshots.

use super::*;
use crate::PropChange;

pub(super) const CASES: &[(&str, Case)] = &[
    ("snapshot_set_is_atomic", snapshot_set_is_atomic),
    ("snapshot_stamps_are_per_snapshot", snapshot_stamps_are_per_snapshot),
    ("snapshot_may_be_repeated", snapshot_may_be_repeated),
    ("snapshot_refuses_duplicates", snapshot_refuses_duplicates),
    ("snapshot_names_are_checked", snapshot_names_are_checked),
    ("snapshots_are_ordered", snapshots_are_ordered),
    ("snapshots_do_not_change", snapshots_do_not_change),
    ("destroy_skips_what_is_missing", destroy_skips_what_is_missing),
    ("destroy_refuses_the_origin_of_a_branch", destroy_refuses_the_origin_of_a_branch),
];

fn snapshot_set_is_atomic(fixture: &mut dyn Fixture) {
    create(fixture, "a");
    create(fixture, "b");
    refused_as(
        fixture.store().snapshot(&[take("a@s", &[]), take("missing@s", &[]), take("b@s", &[])]),
        &StoreErrorKind::NotFound,
        "a set with one dataset missing",
    );
    assert_eq!(ok(fixture.store().snapshots(None)), [], "a refused set left a snapshot");
    ok(fixture.store().snapshot(&[take("a@s", &[]), take("b@s", &[])]));
    assert_eq!(ok(fixture.store().snapshots(None)).len(), 2);
    ok(fixture.store().snapshot(&[]));
}

fn snapshot_stamps_are_per_snapshot(fixture: &mut dyn Fixture) {
    ok(fixture.store().create(&request("a", &[], &[("com.zed:live", "yes"), ("com.zed:version", "live")])));
    create(fixture, "b");
    let set = [
        take("a@s", &[("com.zed:version", "1.0.0"), ("com.zed:run", "7")]),
        take("b@s", &[("com.zed:version", "2.0.0")]),
    ];
    ok(fixture.store().snapshot(&set));
    let check = |fixture: &dyn Fixture| {
        assert_eq!(
            one_snapshot(fixture, "a@s").user,
            props(&[("com.zed:version", "1.0.0"), ("com.zed:run", "7")]),
            "a live property leaked into the stamp, or a stamp is missing"
        );
        assert_eq!(one_snapshot(fixture, "b@s").user, props(&[("com.zed:version", "2.0.0")]));
        has_all(&dataset(fixture, "a").user, &[("com.zed:version", "live")], "a");
    };
    check(fixture);
    fixture.reopen();
    check(fixture);
}

fn snapshot_may_be_repeated(fixture: &mut dyn Fixture) {
    create(fixture, "a");
    create(fixture, "b");
    let set = [take("a@s", &[("com.zed:version", "1")]), take("b@s", &[("com.zed:version", "1")])];
    write(fixture, "a", "file", "then");
    ok(fixture.store().snapshot(&set));
    let before = everything(fixture);
    write(fixture, "a", "file", "now");
    ok(fixture.store().snapshot(&set));
    assert_eq!(everything(fixture), before, "the repeated call took another snapshot");
}

fn snapshot_refuses_duplicates(fixture: &mut dyn Fixture) {
    create(fixture, "a");
    create(fixture, "b");
    ok(fixture.store().snapshot(&[take("a@s", &[("com.zed:version", "1")])]));
    let before = everything(fixture);
    refused_as(
        fixture.store().snapshot(&[take("a@s", &[("com.zed:version", "2")])]),
        &StoreErrorKind::Exists,
        "the same name with another stamp",
    );
    refused_as(
        fixture.store().snapshot(&[take("a@s", &[("com.zed:version", "1")]), take("b@s", &[])]),
        &StoreErrorKind::Exists,
        "a set of which one exists: not one instant",
    );
    refused(fixture.store().snapshot(&[take("b@x", &[]), take("b@x", &[])]), "one name twice in a set");
    refused(fixture.store().snapshot(&[take("b@x", &[]), take("b@y", &[])]), "one dataset twice in a set");
    assert_eq!(everything(fixture), before);
}

fn snapshot_names_are_checked(fixture: &mut dyn Fixture) {
    create(fixture, "a");
    let long = "n".repeat(256);
    for bad in ["", "a b", "a/b", "a@b", "a#b", "a%b", "a\nb", "\u{e9}", long.as_str()] {
        let set =
            [TakeSnapshot { id: SnapshotRef { dataset: path("a"), name: bad.to_owned() }, user: props(&[]) }];
        refused_as_invalid(fixture.store().snapshot(&set), &format!("the snapshot name {bad:?}"));
    }
    assert_eq!(ok(fixture.store().snapshots(None)), []);
}

fn snapshots_are_ordered(fixture: &mut dyn Fixture) {
    create(fixture, "a");
    create(fixture, "b");
    // Within one second, and not in the order of their names: clocks lie, the txg does not.
    for name in ["z", "m", "a", "k"] {
        snapshot(fixture, &format!("a@{name}"));
        snapshot(fixture, &format!("b@{name}"));
    }
    for reopened in [false, true] {
        if reopened {
            fixture.reopen();
        }
        assert_eq!(names(fixture, "a"), ["z", "m", "a", "k"]);
        let of_a = snapshots(fixture, "a");
        assert!(of_a.windows(2).all(|w| w[0].txg < w[1].txg), "txg does not grow: {of_a:?}");
        assert!(of_a.iter().all(|s| s.created > 0));
        let all = ok(fixture.store().snapshots(None));
        let all: Vec<&str> = all.iter().map(|s| s.id.name.as_str()).collect();
        assert_eq!(all, ["z", "m", "a", "k", "z", "m", "a", "k"], "each dataset's oldest first");
    }
}

fn snapshots_do_not_change(fixture: &mut dyn Fixture) {
    ensure_branches(fixture);
    create(fixture, "a");
    write(fixture, "a", "file", "then");
    snapshot(fixture, "a@s");
    let before = one_snapshot(fixture, "a@s");
    write(fixture, "a", "file", "now");
    write(fixture, "a", "other", "new");
    ok(fixture.store().set(&[PropChange {
        path: path("a"),
        native: BTreeMap::new(),
        user: BTreeMap::from([("com.zed:version".to_owned(), Some("9".to_owned()))]),
    }]));
    snapshot(fixture, "a@t");
    let after = one_snapshot(fixture, "a@s");
    assert_eq!(
        (after.guid, after.txg, after.created, &after.user),
        (before.guid, before.txg, before.created, &before.user)
    );
    ok(fixture.store().restore(&restore_request("a", "a@s", "zed/branches/a-1", &[])));
    assert_eq!(read(fixture, "a", "file").as_deref(), Some("then"));
    assert_eq!(read(fixture, "a", "other"), None);
}

fn destroy_skips_what_is_missing(fixture: &mut dyn Fixture) {
    create(fixture, "a");
    for name in ["a@1", "a@2", "a@3"] {
        snapshot(fixture, name);
    }
    let set = [snap("a@1"), snap("a@never"), snap("missing@s"), snap("a@3")];
    for _ in 0..2 {
        ok(fixture.store().destroy_snapshots(&set));
        assert_eq!(names(fixture, "a"), ["2"]);
    }
    ok(fixture.store().destroy_snapshots(&[]));
    snapshot(fixture, "a@1");
    assert_eq!(names(fixture, "a"), ["2", "1"], "a destroyed name may be taken again");
}

fn destroy_refuses_the_origin_of_a_branch(fixture: &mut dyn Fixture) {
    ensure_branches(fixture);
    create(fixture, "a");
    snapshot(fixture, "a@1");
    snapshot(fixture, "a@2");
    write(fixture, "a", "file", "failed");
    ok(fixture.store().restore(&restore_request("a", "a@2", "zed/branches/a-1", &[])));
    assert_eq!(one_snapshot(fixture, "a@2").clones, [path("zed/branches/a-1")]);
    refused_as_busy(
        fixture.store().destroy_snapshots(&[snap("a@1"), snap("a@2")]),
        "destroying the snapshot that a branch came from",
    );
    assert_eq!(names(fixture, "a"), ["1", "2"], "a refused destroy took one of the set");
    ok(fixture.store().destroy_snapshots(&[snap("a@1")]));
    assert_eq!(names(fixture, "a"), ["2"]);
}
