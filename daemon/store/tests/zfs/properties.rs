//! Where properties come from, atomic sets, foreign things in the pool, holds, and what `open` says.

use crate::support::Pool;
use crate::support::create;
use crate::support::path;
use crate::support::pool;
use crate::support::props;
use crate::support::run;
use crate::support::snap;
use crate::support::take;
use crate::support::zfs;
use std::collections::BTreeMap;
use zed_store::MANAGED;
use zed_store::PropChange;
use zed_store::Store;
use zed_store::StoreErrorKind;
use zed_store::TakeSnapshot;
use zed_store::conformance::Fixture;
use zed_store::zfs::ZfsStore;

#[test]
fn local_received_and_inherited_are_told_apart() {
    let pool = Pool::new();
    create(pool.store(), "from", &[("compression", "gzip-9")], &[(MANAGED, "on"), ("com.zed:a", "sent")]);
    take(pool.store(), "from@s", &[("com.zed:stamp", "1")]);
    create(pool.store(), "to", &[], &[("com.zed:above", "inherited")]);
    let script = format!("zfs send -p {0}/from@s | zfs receive -u {0}/to/copy", pool.root);
    run("sh", &["-c", &script]);
    zfs(&["set", "com.zed:b=local", &pool.full("to/copy")]);
    let copy = pool.store().get(&path("to/copy")).unwrap().unwrap();
    assert_eq!(copy.user, props(&[("com.zed:b", "local")]));
    assert_eq!(copy.received, props(&[(MANAGED, "on"), ("com.zed:a", "sent")]));
    assert_eq!(copy.native, BTreeMap::new(), "compression was received, not set here");
    // A local value over a received one, and away again.
    let set = |value: Option<&str>| PropChange {
        path: path("to/copy"),
        native: BTreeMap::new(),
        user: BTreeMap::from([("com.zed:a".to_owned(), value.map(str::to_owned))]),
    };
    pool.store().set(&[set(Some("mine"))]).unwrap();
    let copy = pool.store().get(&path("to/copy")).unwrap().unwrap();
    assert_eq!(copy.user, props(&[("com.zed:a", "mine"), ("com.zed:b", "local")]));
    assert_eq!(copy.received, props(&[(MANAGED, "on")]));
}

#[test]
fn native_properties_are_canonical() {
    let pool = Pool::new();
    let native = [
        ("atime", "off"),
        ("compression", "zstd-3"),
        ("copies", "2"),
        ("logbias", "throughput"),
        ("quota", "1073741824"),
        ("readonly", "off"),
        ("recordsize", "16384"),
        ("refquota", "536870912"),
        ("snapshot_limit", "7"),
        ("sync", "disabled"),
        ("xattr", "sa"),
    ];
    create(pool.store(), "a", &native, &[]);
    assert_eq!(pool.store().get(&path("a")).unwrap().unwrap().native, props(&native));
    zfs(&["set", "quota=none", "snapshot_limit=none", &pool.full("a")]);
    let found = pool.store().get(&path("a")).unwrap().unwrap();
    let of = |name: &str| found.native.get(name).map(String::as_str);
    assert_eq!((of("quota"), of("snapshot_limit")), (Some("none"), Some("none")));
}

#[test]
fn a_set_of_snapshots_is_of_one_transaction() {
    let pool = Pool::new();
    for name in ["a", "b", "c"] {
        create(pool.store(), name, &[], &[]);
    }
    let different = ["a", "b", "c"].map(|name| TakeSnapshot {
        id: snap(&format!("{name}@different")),
        user: props(&[("com.zed:of", name), ("com.zed:text", "tab\tnewline\n\u{20ac}")]),
    });
    let same = ["a", "b", "c"]
        .map(|name| TakeSnapshot { id: snap(&format!("{name}@same")), user: props(&[("com.zed:run", "1")]) });
    for set in [&different, &same] {
        pool.store().snapshot(set).unwrap();
        let taken = pool.store().snapshots(None).unwrap();
        let of_set: Vec<_> = taken.iter().filter(|s| s.id.name == set[0].id.name).collect();
        assert_eq!(of_set.len(), 3);
        assert!(of_set.iter().all(|s| s.txg == of_set[0].txg), "{of_set:?}");
        for (taken, wanted) in of_set.iter().zip(set) {
            assert_eq!(taken.user, wanted.user);
        }
    }
}

#[test]
fn many_datasets_are_set_at_once() {
    let pool = Pool::new();
    let names: Vec<String> = (0..50).map(|n| format!("d{n:02}")).collect();
    for name in &names {
        create(pool.store(), name, &[], &[("com.zed:gone", "soon")]);
    }
    let long = "v".repeat(zed_store::MAX_VALUE);
    let changes: Vec<PropChange> = names
        .iter()
        .map(|name| PropChange {
            path: path(name),
            native: BTreeMap::new(),
            user: BTreeMap::from([
                ("com.zed:of".to_owned(), Some(name.clone())),
                ("com.zed:long".to_owned(), Some(long.clone())),
                ("com.zed:gone".to_owned(), None),
            ]),
        })
        .collect();
    pool.store().set(&changes).unwrap();
    for dataset in pool.store().list().unwrap() {
        assert_eq!(dataset.user, props(&[("com.zed:of", dataset.path.as_str()), ("com.zed:long", &long)]));
    }
}

#[test]
fn foreign_datasets_do_no_harm() {
    let pool = Pool::new();
    create(pool.store(), "ours", &[], &[(MANAGED, "on")]);
    zfs(&["create", &pool.full("with blank")]);
    zfs(&["create", "-s", "-V", "8M", &pool.full("volume")]);
    zfs(&["snapshot", &pool.full("volume@s")]);
    let listed = pool.store().list().unwrap();
    let seen: Vec<(&str, bool)> = listed.iter().map(|d| (d.path.as_str(), d.mountpoint.is_some())).collect();
    assert_eq!(seen, [("ours", true), ("volume", false)]);
    assert_eq!(pool.store().snapshots(None).unwrap().len(), 1);
}

#[test]
fn a_hold_is_named() {
    let pool = Pool::new();
    create(pool.store(), "a", &[], &[]);
    take(pool.store(), "a@s", &[]);
    zfs(&["hold", "backup-job", &pool.full("a@s")]);
    let error = pool.store().destroy_snapshots(&[snap("a@s")]).unwrap_err();
    assert!(matches!(&error.kind, StoreErrorKind::Busy(text) if text.contains("backup-job")), "{error}");
    zfs(&["release", "backup-job", &pool.full("a@s")]);
    pool.store().destroy_snapshots(&[snap("a@s")]).unwrap();
}

#[test]
fn open_says_what_is_missing() {
    let there = pool();
    let text = |root: &str| match ZfsStore::open(root) {
        Ok(_) => panic!("{root} was opened"),
        Err(e) => e.to_string(),
    };
    assert!(text("nopool").contains(&there), "{}", text("nopool"));
    let missing = format!("{there}/no/such");
    assert!(text(&missing).contains(&format!("zfs create {missing}")), "{}", text(&missing));
    assert!(ZfsStore::pool_names().unwrap().contains(&there));
    ZfsStore::open(&there).unwrap();
}

#[test]
fn a_pool_that_lost_a_disk_is_degraded() {
    let folder = tempfile::tempdir().unwrap();
    let disks = ["a", "b"].map(|name| {
        let disk = folder.path().join(name);
        std::fs::File::create(&disk).unwrap().set_len(128 << 20).unwrap();
        disk.to_str().unwrap().to_owned()
    });
    let name = format!("zedpool{}", std::process::id());
    run("zpool", &["create", "-m", "none", &name, "mirror", &disks[0], &disks[1]]);
    let store = ZfsStore::open(&name).unwrap();
    let of_pool = || store.pools().unwrap().into_iter().find(|pool| pool.name == name).unwrap();
    let whole = of_pool();
    run("zpool", &["offline", &name, &disks[1]]);
    let degraded = of_pool();
    let listed = run("zpool", &["list", "-H", "-p", "-o", "health,size", &name]);
    drop(store);
    run("zpool", &["destroy", &name]);
    assert_eq!((whole.health.as_str(), degraded.health.as_str()), (zed_store::Pool::ONLINE, "DEGRADED"));
    assert_eq!(listed.trim(), format!("{}\t{}", degraded.health, degraded.size));
    assert_eq!(degraded.size, degraded.allocated + degraded.free, "{degraded:?}");
}

#[test]
fn info_tells_the_version_of_the_kernel_module() {
    let pool = Pool::new();
    let info = pool.store().info().unwrap();
    let first = run("zfs", &["version"]).lines().next().unwrap_or_default().to_owned();
    assert!(first.starts_with(&info.version), "{} and {first}", info.version);
    assert_eq!((info.kind.as_str(), info.root.as_str()), ("zfs", pool.root.as_str()));
}
