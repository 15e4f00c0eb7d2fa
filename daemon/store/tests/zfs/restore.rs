//! Restores: interrupted at every step, refused, and what they cost in space.

use crate::support::Pool;
use crate::support::back_to;
use crate::support::branches;
use crate::support::create;
use crate::support::path;
use crate::support::props;
use crate::support::take;
use crate::support::zfs;
use std::collections::BTreeMap;
use std::fs;
use zed_store::MANAGED;
use zed_store::Store;
use zed_store::StoreErrorKind;
use zed_store::conformance::Fixture;
use zed_store::zfs::Faults;
use zed_store::zfs::RestoreStep;
use zed_store::zfs::ZfsStore;

/// `app` at version 2 with a snapshot of version 1, two children, a reservation and a mountpoint of its own.
fn app(pool: &Pool) {
    let store = pool.store();
    branches(store);
    let place = pool.mount_base().join("srv");
    create(
        store,
        "app",
        &[
            ("mountpoint", place.to_str().expect("UTF-8")),
            ("reservation", "10485760"),
            ("quota", "1073741824"),
            ("compression", "lz4"),
        ],
        &[(MANAGED, "on"), ("com.zed:version", "1")],
    );
    create(store, "app/logs", &[], &[(MANAGED, "on")]);
    create(store, "app/logs/old", &[], &[(MANAGED, "on")]);
    create(store, "app/tmp", &[], &[(MANAGED, "on")]);
    pool.write(&path("app"), "version", b"1");
    pool.write(&path("app/logs"), "log", b"kept");
    take(store, "app@one", &[("com.zed:version", "1")]);
    pool.write(&path("app"), "version", b"2");
    zfs(&["set", "com.zed:version=2", &pool.full("app")]);
}

/// Names, mounts, properties and contents, all that a restore may have got wrong.
fn state(pool: &Pool) -> BTreeMap<String, String> {
    let store = pool.store();
    let mut seen = BTreeMap::new();
    for dataset in store.list().expect("a list") {
        let text = format!(
            "mounted {} at {:?}, native {:?}, user {:?}, origin {:?}",
            dataset.mounted, dataset.mountpoint, dataset.native, dataset.user, dataset.origin
        );
        seen.insert(dataset.path.to_string(), text);
        for name in ["version", "log"].into_iter().filter(|_| dataset.mounted) {
            if let Some(content) = pool.read(&dataset.path, name) {
                seen.insert(
                    format!("{}/{name}", dataset.path),
                    String::from_utf8_lossy(&content).into_owned(),
                );
            }
        }
    }
    for snapshot in store.snapshots(None).expect("a list") {
        seen.insert(snapshot.id.to_string(), format!("{:?}", snapshot.user));
    }
    seen
}

/// The folder's name differs from pool to pool.
fn without_place(pool: &Pool, state: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let base = pool.mount_base().parent().expect("a folder").display().to_string();
    state.into_iter().map(|(k, v)| (k, v.replace(&base, "BASE"))).collect()
}

fn reference() -> BTreeMap<String, String> {
    let pool = Pool::new();
    app(&pool);
    pool.store().restore(&back_to("app@one", "app-1")).expect("a restore");
    without_place(&pool, state(&pool))
}

#[test]
fn a_restore_gives_version_data_and_natives() {
    let pool = Pool::new();
    app(&pool);
    let before = pool.store().get(&path("app")).unwrap().unwrap();
    pool.store().restore(&back_to("app@one", "app-1")).unwrap();
    let after = pool.store().get(&path("app")).unwrap().unwrap();
    assert_eq!(after.native, before.native);
    assert_eq!((after.mounted, &after.mountpoint), (true, &before.mountpoint));
    assert_eq!(after.user, props(&[(MANAGED, "on"), ("com.zed:version", "1")]));
    assert_eq!(pool.read(&path("app"), "version").as_deref(), Some(b"1".as_slice()));
    assert_eq!(pool.read(&path("app/logs"), "log").as_deref(), Some(b"kept".as_slice()));
    let branch = pool.full("zed/branches/app-1");
    let got = zfs(&["get", "-Hpo", "value", "canmount,reservation,mounted,com.zed:version", &branch]);
    assert_eq!(got, "noauto\n0\nno\n2", "a branch is never mounted and reserves nothing");
    assert_eq!(zfs(&["get", "-Hpo", "value", "com.zed.store:canmount", &pool.full("app")]), "-");
}

#[test]
fn a_restore_interrupted_anywhere_is_completed_by_the_same_call() {
    let wanted = reference();
    for step in RestoreStep::ALL {
        let mut pool = Pool::new();
        app(&pool);
        let request = back_to("app@one", "app-1");
        let faulty = pool.with_faults(Faults { stop_restore_after: Some(step) });
        let error = faulty.restore(&request).expect_err("it was told to stop");
        assert!(
            matches!(&error.kind, StoreErrorKind::Io(text) if text.contains("ordered")),
            "{step:?}: {error}"
        );
        drop(faulty);
        // Nothing is lost on the way: one of the two holds each version.
        let names: Vec<String> = pool.store().list().unwrap().iter().map(|d| d.path.to_string()).collect();
        assert!(names.iter().any(|n| n == "app" || n == "zed/branches/app-1"), "{step:?}: {names:?}");
        pool.reopen();
        pool.store().restore(&request).unwrap_or_else(|e| panic!("{step:?}: {e}"));
        assert_eq!(without_place(&pool, state(&pool)), wanted, "after an end at {step:?}");
        pool.store().restore(&request).unwrap();
        assert_eq!(without_place(&pool, state(&pool)), wanted, "and asked once more, {step:?}");
    }
}

#[test]
fn an_interrupted_restore_is_not_completed_by_another_request() {
    let pool = Pool::new();
    app(&pool);
    take(pool.store(), "app@two", &[]);
    let faulty = pool.with_faults(Faults { stop_restore_after: Some(RestoreStep::Cloned) });
    faulty.restore(&back_to("app@one", "app-1")).unwrap_err();
    drop(faulty);
    // As after a reboot.
    zfs(&["mount", &pool.full("app")]);
    let error = pool.store().restore(&back_to("app@two", "app-1")).unwrap_err();
    assert!(error.to_string().contains("app@one"), "{error}");
    assert!(pool.store().get(&path("app")).unwrap().unwrap().mounted);
    pool.store().restore(&back_to("app@one", "app-1")).unwrap();
}

#[test]
fn a_busy_mountpoint_is_named_and_nothing_changes() {
    let pool = Pool::new();
    app(&pool);
    let before = state(&pool);
    for held in ["app", "app/logs"] {
        let place = pool.store().get(&path(held)).unwrap().unwrap().mountpoint.clone().unwrap();
        let file = fs::File::create(place.join("open")).unwrap();
        let error = pool.store().restore(&back_to("app@one", "app-1")).unwrap_err();
        assert!(matches!(error.kind, StoreErrorKind::Busy(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(place.to_str().unwrap()), "{text}");
        assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
        drop(file);
        fs::remove_file(place.join("open")).unwrap();
        assert_eq!(state(&pool), before, "while {held} was busy");
    }
    pool.store().restore(&back_to("app@one", "app-1")).unwrap();
}

#[test]
fn histories_with_one_name_twice_are_refused_whole() {
    let pool = Pool::new();
    app(&pool);
    take(pool.store(), "app@x", &[]);
    take(pool.store(), "app@two", &[]);
    pool.store().restore(&back_to("app@two", "app-1")).unwrap();
    // The history of this one is `one`, `x`, `two` of `app`, and then its own `x`.
    zfs(&["snapshot", &pool.full("zed/branches/app-1@x")]);
    let before = state(&pool);
    let error = pool.store().restore(&back_to("zed/branches/app-1@x", "app-2")).unwrap_err();
    assert!(matches!(&error.kind, StoreErrorKind::Invalid(text) if text.contains("`x`")), "{error}");
    assert_eq!(state(&pool), before);
    zfs(&["rename", &pool.full("zed/branches/app-1@x"), "@y"]);
    pool.store().restore(&back_to("zed/branches/app-1@y", "app-2")).unwrap();
}

#[test]
fn a_restore_copies_nothing() {
    let pool = Pool::new();
    app(&pool);
    let data: Vec<u8> = (0..100u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    pool.write(&path("app"), "big", &data);
    take(pool.store(), "app@big", &[]);
    pool.write(&path("app"), "big", b"");
    zfs_sync(&pool);
    let before = used(&pool);
    assert!(before > 50 << 20, "the data is there: {before}");
    pool.store().restore(&back_to("app@big", "app-1")).unwrap();
    zfs_sync(&pool);
    // Metadata only: names, properties, space maps.
    assert!(used(&pool) < before + (4 << 20), "{} after {before}", used(&pool));
    assert_eq!(pool.read(&path("app"), "big").map(|d| d.len()), Some(data.len()));
}

fn used(pool: &Pool) -> u64 {
    zfs(&["get", "-Hpo", "value", "used", &pool.root]).parse().expect("a number")
}

fn zfs_sync(pool: &Pool) {
    crate::support::run("zpool", &["sync", pool.root.split('/').next().expect("a pool")]);
}

#[test]
fn a_golden_image_keeps_its_history() {
    let pool = Pool::new();
    let store = pool.store();
    branches(store);
    create(store, "golden", &[], &[(MANAGED, "on")]);
    pool.write(&path("golden"), "version", b"golden");
    take(store, "golden@image", &[]);
    zfs(&["clone", &pool.full("golden@image"), &pool.full("app")]);
    take(store, "app@one", &[]);
    pool.write(&path("app"), "version", b"2");
    store.restore(&back_to("app@one", "app-1")).unwrap();
    assert_eq!(pool.read(&path("app"), "version").as_deref(), Some(b"golden".as_slice()));
    let names: Vec<_> = store.snapshots(None).unwrap().iter().map(|s| s.id.to_string()).collect();
    assert_eq!(names, ["app@one", "golden@image"]);
}

#[test]
fn canmount_survives_a_branch_and_back() {
    let pool = Pool::new();
    let store = pool.store();
    branches(store);
    for (name, canmount) in [("noauto", Some("noauto")), ("on", Some("on")), ("never-set", None)] {
        let native: Vec<(&str, &str)> = canmount.map(|v| ("canmount", v)).into_iter().collect();
        create(store, name, &native, &[(MANAGED, "on")]);
        let before = store.get(&path(name)).unwrap().unwrap();
        let branch = path(&format!("zed/branches/{name}"));
        store.retire(&path(name), &branch).unwrap();
        store.reinstate(&branch, &path(name)).unwrap();
        let after = store.get(&path(name)).unwrap().unwrap();
        assert_eq!((&after.native, after.mounted), (&before.native, before.mounted), "{name}");
    }
}

#[test]
fn branches_are_not_mounted_on_request() {
    let pool = Pool::new();
    app(&pool);
    pool.store().restore(&back_to("app@one", "app-1")).unwrap();
    let error = pool.store().mount(&path("zed/branches/app-1")).unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Invalid(_)), "{error}");
    zfs(&["mount", "-a"]);
    assert!(!pool.store().get(&path("zed/branches/app-1")).unwrap().unwrap().mounted);
}

#[test]
fn two_stores_work_on_one_pool_at_once() {
    let pool = Pool::new();
    let names: Vec<String> = (0..8).map(|n| format!("d{n}")).collect();
    std::thread::scope(|scope| {
        for chunk in names.chunks(4) {
            let store = ZfsStore::open(&pool.root).unwrap();
            scope.spawn(move || {
                for name in chunk {
                    create(&store, name, &[], &[(MANAGED, "on")]);
                    take(&store, &format!("{name}@s"), &[("com.zed:of", name)]);
                }
            });
        }
    });
    let seen: Vec<String> = pool.store().list().unwrap().iter().map(|d| d.path.to_string()).collect();
    assert_eq!(seen, names);
    assert_eq!(pool.store().snapshots(None).unwrap().len(), names.len());
}
