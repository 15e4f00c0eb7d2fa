//! Cases about datasets and their properties.

use super::*;
use crate::MAX_VALUE;
use crate::PropChange;

pub(super) const CASES: &[(&str, Case)] = &[
    ("create_needs_its_parent", create_needs_its_parent),
    ("create_may_be_repeated", create_may_be_repeated),
    ("create_refuses_what_is_different", create_refuses_what_is_different),
    ("list_is_sorted_and_complete", list_is_sorted_and_complete),
    ("user_shows_local_properties_only", user_shows_local_properties_only),
    ("set_changes_and_removes", set_changes_and_removes),
    ("set_is_all_or_nothing", set_is_all_or_nothing),
    ("values_have_a_longest_length", values_have_a_longest_length),
    ("property_names_are_checked", property_names_are_checked),
    ("values_are_kept_byte_for_byte", values_are_kept_byte_for_byte),
    ("datasets_are_mounted_when_created", datasets_are_mounted_when_created),
    ("mountpoint_may_be_given", mountpoint_may_be_given),
    ("mountpoint_may_be_none", mountpoint_may_be_none),
    ("odd_names_work", odd_names_work),
    ("guids_differ", guids_differ),
    ("info_says_what_it_is", info_says_what_it_is),
    ("reopen_shows_the_same", reopen_shows_the_same),
];

fn change(name: &str, native: &[(&str, Option<&str>)], user: &[(&str, Option<&str>)]) -> PropChange {
    let owned = |pairs: &[(&str, Option<&str>)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
    };
    PropChange { path: path(name), native: owned(native), user: owned(user) }
}

fn create_needs_its_parent(fixture: &mut dyn Fixture) {
    refused_as(
        fixture.store().create(&request("data/web", &[], &[])),
        &StoreErrorKind::NoParent,
        "create without parent",
    );
    assert!(!exists(fixture, "data") && !exists(fixture, "data/web"));
    create(fixture, "data");
    create(fixture, "data/web");
    assert!(exists(fixture, "data/web"));
}

fn create_may_be_repeated(fixture: &mut dyn Fixture) {
    let wanted = request("data", &[("recordsize", "16384")], &[("com.zed:version", "1.0.0")]);
    ok(fixture.store().create(&wanted));
    write(fixture, "data", "keep", "me");
    let first = everything(fixture);
    ok(fixture.store().create(&wanted));
    assert_eq!(everything(fixture), first);
    assert_eq!(read(fixture, "data", "keep").as_deref(), Some("me"));
}

fn create_refuses_what_is_different(fixture: &mut dyn Fixture) {
    ok(fixture.store().create(&request("data", &[("compression", "lz4")], &[("com.zed:version", "1")])));
    for other in [
        request("data", &[("compression", "lz4")], &[("com.zed:version", "2")]),
        request("data", &[("compression", "off")], &[("com.zed:version", "1")]),
        request("data", &[], &[("com.zed:version", "1")]),
        request("data", &[("compression", "lz4")], &[]),
    ] {
        refused_as(fixture.store().create(&other), &StoreErrorKind::Exists, "create of something different");
    }
    has_all(&dataset(fixture, "data").user, &[("com.zed:version", "1")], "data");
}

fn list_is_sorted_and_complete(fixture: &mut dyn Fixture) {
    for name in ["b", "a", "a/z", "a/b", "a-b", "a/b/c"] {
        create(fixture, name);
    }
    let own = path(OWN_DATASET);
    let listed = ok(fixture.store().list());
    let found: Vec<&str> = listed.iter().filter(|d| !d.path.is_in(&own)).map(|d| d.path.as_str()).collect();
    let mut sorted = vec!["a", "a-b", "a/b", "a/b/c", "a/z", "b"];
    sorted.sort_unstable();
    assert_eq!(found, sorted);
    for listed in &listed {
        let got = dataset_of(fixture.store(), &listed.path);
        assert_eq!((got.guid, &got.user, &got.native), (listed.guid, &listed.user, &listed.native));
    }
    assert!(!exists(fixture, "a/x"));
}

fn user_shows_local_properties_only(fixture: &mut dyn Fixture) {
    ok(fixture.store().create(&request("data", &[("compression", "lz4")], &[("com.zed:app", "web")])));
    ok(fixture.store().create(&request("data/child", &[], &[])));
    let child = dataset(fixture, "data/child");
    assert_eq!(child.user, props(&[]), "an inherited property was shown as local");
    assert!(!child.native.contains_key("compression"), "an inherited property was shown as local");
    assert_eq!(dataset(fixture, "data").native.get("compression").map(String::as_str), Some("lz4"));
}

fn set_changes_and_removes(fixture: &mut dyn Fixture) {
    ok(fixture.store().create(&request(
        "a",
        &[("quota", "1073741824")],
        &[("com.zed:x", "1"), ("com.zed:y", "1")],
    )));
    create(fixture, "b");
    let guid = dataset(fixture, "a").guid;
    let changes = [
        change(
            "a",
            &[("recordsize", Some("16384")), ("quota", None)],
            &[("com.zed:x", Some("2")), ("com.zed:y", None), ("com.zed:never", None)],
        ),
        change("b", &[("compression", Some("lz4"))], &[("com.zed:z", Some("3"))]),
    ];
    for _ in 0..2 {
        ok(fixture.store().set(&changes));
        let a = dataset(fixture, "a");
        assert_eq!(a.user, props(&[("com.zed:x", "2")]));
        assert_eq!(a.native, props(&[("recordsize", "16384")]));
        assert_eq!(a.guid, guid);
        let b = dataset(fixture, "b");
        assert_eq!(b.user, props(&[(MANAGED, "on"), ("com.zed:z", "3")]));
        assert_eq!(b.native, props(&[("compression", "lz4")]));
    }
    ok(fixture.store().set(&[]));
}

fn set_is_all_or_nothing(fixture: &mut dyn Fixture) {
    create(fixture, "a");
    let before = everything(fixture);
    let good = change("a", &[], &[("com.zed:x", Some("1"))]);
    refused_as(
        fixture.store().set(&[good.clone(), change("missing", &[], &[("com.zed:x", Some("1"))])]),
        &StoreErrorKind::NotFound,
        "set with one dataset missing",
    );
    assert_eq!(everything(fixture), before, "a set with one dataset missing changed something");
    let long = "v".repeat(MAX_VALUE + 1);
    refused_as_invalid(
        fixture.store().set(&[good, change("a", &[], &[("com.zed:x", Some(&long))])]),
        "set with one bad value",
    );
    assert_eq!(everything(fixture), before, "a set with one bad value changed something");
}

fn values_have_a_longest_length(fixture: &mut dyn Fixture) {
    let longest = "v".repeat(MAX_VALUE);
    let longer = "v".repeat(MAX_VALUE + 1);
    ok(fixture.store().create(&request("a", &[], &[("com.zed:long", &longest)])));
    has_all(&dataset(fixture, "a").user, &[("com.zed:long", &longest)], "a");
    ok(fixture.store().snapshot(&[take("a@s", &[("com.zed:long", &longest)])]));
    has_all(&one_snapshot(fixture, "a@s").user, &[("com.zed:long", &longest)], "a@s");

    let before = everything(fixture);
    refused_as_invalid(
        fixture.store().create(&request("b", &[], &[("com.zed:long", &longer)])),
        "create with a value that is too long",
    );
    refused_as_invalid(
        fixture.store().set(&[change("a", &[], &[("com.zed:long", Some(&longer))])]),
        "set of a value that is too long",
    );
    refused_as_invalid(
        fixture.store().snapshot(&[take("a@t", &[("com.zed:long", &longer)])]),
        "snapshot with a value that is too long",
    );
    assert_eq!(everything(fixture), before);
}

fn property_names_are_checked(fixture: &mut dyn Fixture) {
    create(fixture, "a");
    let before = everything(fixture);
    let long = format!("com.zed:{}", "n".repeat(250));
    for bad in
        ["version", "com.zed:Version", "com.zed:a b", "com.zed:a\u{e9}", "com.zed:a\n", "", long.as_str()]
    {
        let what = format!("the user property name {bad:?}");
        refused_as_invalid(fixture.store().set(&[change("a", &[], &[(bad, Some("1"))])]), &what);
        refused_as_invalid(fixture.store().create(&request("b", &[], &[(bad, "1")])), &what);
        refused_as_invalid(fixture.store().snapshot(&[take("a@s", &[(bad, "1")])]), &what);
    }
    refused_as_invalid(
        fixture.store().set(&[change("a", &[("no-such-property", Some("1"))], &[])]),
        "an unknown native property",
    );
    refused_as_invalid(
        fixture.store().set(&[change("a", &[("recordsize", Some("1000"))], &[])]),
        "a record size that is no power of two",
    );
    assert_eq!(everything(fixture), before);
}

fn values_are_kept_byte_for_byte(fixture: &mut dyn Fixture) {
    let odd = "two\nlines\tand \"quotes\" %25 \\ \u{e9}\u{4e16} ";
    ok(fixture.store().create(&request("a", &[], &[("com.zed:odd_name-1.x:y", odd)])));
    assert_eq!(dataset(fixture, "a").user, props(&[("com.zed:odd_name-1.x:y", odd)]));
    fixture.reopen();
    assert_eq!(dataset(fixture, "a").user, props(&[("com.zed:odd_name-1.x:y", odd)]));
}

fn datasets_are_mounted_when_created(fixture: &mut dyn Fixture) {
    create(fixture, "data");
    create(fixture, "data/sub");
    for name in ["data", "data/sub"] {
        let found = dataset(fixture, name);
        assert!(found.mounted, "`{name}` is not mounted");
        assert!(
            found.mountpoint.as_ref().is_some_and(|p| p.is_absolute()),
            "`{name}`: {:?}",
            found.mountpoint
        );
        write(fixture, name, "file", name);
        ok(fixture.store().mount(&path(name)));
    }
    for name in ["data", "data/sub"] {
        assert_eq!(read(fixture, name, "file").as_deref(), Some(name));
    }
    refused_as(
        fixture.store().mount(&path("missing")),
        &StoreErrorKind::NotFound,
        "mount of a missing dataset",
    );
}

fn mountpoint_may_be_given(fixture: &mut dyn Fixture) {
    let place = fixture.mount_base().join("srv-web");
    let place = place.to_str().unwrap_or_else(|| panic!("the fixture's folder is not UTF-8"));
    ok(fixture.store().create(&request("data", &[("mountpoint", place)], &[])));
    let check = |fixture: &dyn Fixture| {
        let found = dataset(fixture, "data");
        assert!(found.mounted);
        assert_eq!(found.mountpoint.as_deref(), Some(Path::new(place)));
        assert_eq!(found.native, props(&[("mountpoint", place)]));
    };
    check(fixture);
    write(fixture, "data", "file", "text");
    fixture.reopen();
    check(fixture);
    assert_eq!(read(fixture, "data", "file").as_deref(), Some("text"));

    ok(fixture.store().set(&[change("data", &[("mountpoint", None)], &[])]));
    let found = dataset(fixture, "data");
    assert!(found.mountpoint.as_deref().is_some_and(|p| !same_place(p, Path::new(place))));
    assert_eq!(read(fixture, "data", "file").as_deref(), Some("text"), "the files went with the mountpoint");
    refused_as_invalid(
        fixture.store().set(&[change("data", &[("mountpoint", Some("relative/path"))], &[])]),
        "a relative mountpoint",
    );
}

fn mountpoint_may_be_none(fixture: &mut dyn Fixture) {
    ok(fixture.store().create(&request("none", &[("mountpoint", "none")], &[])));
    ok(fixture.store().create(&request("off", &[("canmount", "off")], &[])));
    for name in ["none", "off"] {
        let found = dataset(fixture, name);
        assert_eq!((found.mountpoint.as_deref(), found.mounted), (None, false), "`{name}`");
        ok(fixture.store().mount(&path(name)));
        assert!(!dataset(fixture, name).mounted, "`{name}` was mounted although it may not be");
    }
    ok(fixture.store().set(&[change("none", &[("mountpoint", None)], &[])]));
    ok(fixture.store().mount(&path("none")));
    assert!(dataset(fixture, "none").mounted);
}

fn odd_names_work(fixture: &mut dyn Fixture) {
    ensure_branches(fixture);
    let name = "a.b:c-d_e";
    let child = "a.b:c-d_e/0.X";
    create(fixture, name);
    create(fixture, child);
    write(fixture, child, "file", "1");
    ok(fixture.store().snapshot(&[take("a.b:c-d_e/0.X@v-1.0:x_Y.z", &[])]));
    write(fixture, child, "file", "2");
    let branch = "zed/branches/a.b:c-d_e:0.X-1";
    ok(fixture.store().restore(&restore_request(child, "a.b:c-d_e/0.X@v-1.0:x_Y.z", branch, &[])));
    assert_eq!(read(fixture, child, "file").as_deref(), Some("1"));
    assert!(exists(fixture, branch));
}

fn guids_differ(fixture: &mut dyn Fixture) {
    for name in ["a", "b", "c"] {
        create(fixture, name);
        snapshot(fixture, &format!("{name}@s"));
    }
    let mut guids: Vec<u64> = ok(fixture.store().list()).iter().map(|d| d.guid).collect();
    guids.extend(ok(fixture.store().snapshots(None)).iter().map(|s| s.guid));
    let total = guids.len();
    guids.sort_unstable();
    guids.dedup();
    assert_eq!(guids.len(), total, "two objects share a guid");
    assert!(guids.iter().all(|g| *g != 0));
}

fn info_says_what_it_is(fixture: &mut dyn Fixture) {
    let info = ok(fixture.store().info());
    assert!(["zfs", "embedded", "sim"].contains(&info.kind.as_str()), "kind `{}`", info.kind);
    assert!(!info.root.is_empty() && !info.version.is_empty());
    assert!(info.available > 0, "a fresh store has no space");
}

fn reopen_shows_the_same(fixture: &mut dyn Fixture) {
    ensure_branches(fixture);
    ok(fixture.store().create(&request(
        "a",
        &[("recordsize", "16384")],
        &[(MANAGED, "on"), ("com.zed:x", "1")],
    )));
    create(fixture, "a/b");
    write(fixture, "a", "file", "1");
    write(fixture, "a/b", "file", "b");
    snapshot(fixture, "a@1");
    write(fixture, "a", "file", "2");
    snapshot(fixture, "a@2");
    ok(fixture.store().restore(&restore_request("a", "a@1", "zed/branches/a-1", &[("com.zed:x", "0")])));
    let before = everything(fixture);
    fixture.reopen();
    assert_eq!(everything(fixture), before);
    assert_eq!(read(fixture, "a", "file").as_deref(), Some("1"));
    assert_eq!(read(fixture, "a/b", "file").as_deref(), Some("b"));
}
