//! The simulator against the conformance suite, and its scripted failures.

use super::*;
use crate::conformance::Fixture;
use crate::conformance::run_all;
use std::path::PathBuf;

struct SimFixture(SimStore);

impl Fixture for SimFixture {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn reopen(&mut self) {
        self.0 = self.0.clone();
    }

    fn mount_base(&self) -> PathBuf {
        PathBuf::from("/sim-mounts")
    }

    fn write(&self, dataset: &DatasetPath, name: &str, content: &[u8]) {
        self.0.write_file(dataset, name, content).unwrap();
    }

    fn remove(&self, dataset: &DatasetPath, name: &str) {
        self.0.remove_file(dataset, name).unwrap();
    }

    fn read(&self, dataset: &DatasetPath, name: &str) -> Option<Vec<u8>> {
        self.0.read_file(dataset, name)
    }
}

#[test]
fn keeps_the_promises_of_a_store() {
    run_all(&mut || Box::new(SimFixture(SimStore::new())));
}

fn path(text: &str) -> DatasetPath {
    DatasetPath::parse(text).unwrap()
}

fn id(dataset: &str, name: &str) -> SnapshotRef {
    SnapshotRef { dataset: path(dataset), name: name.to_owned() }
}

fn create(store: &SimStore, name: &str) -> Result<(), StoreError> {
    store.create(&Create { path: path(name), native: BTreeMap::new(), user: BTreeMap::new() })
}

fn set_version(store: &SimStore, version: &str) {
    let user = BTreeMap::from([("com.zed:version".to_owned(), Some(version.to_owned()))]);
    store.set(&[PropChange { path: path("app"), native: BTreeMap::new(), user }]).unwrap();
}

fn version(store: &SimStore) -> Option<String> {
    store.get(&path("app")).unwrap()?.user.get("com.zed:version").cloned()
}

fn take(store: &SimStore, name: &str) -> Result<(), StoreError> {
    store.snapshot(&[TakeSnapshot { id: id("app", name), user: BTreeMap::new() }])
}

#[test]
fn a_plain_rollback_leaves_user_properties_at_the_new_version() {
    let store = SimStore::new();
    create(&store, "app").unwrap();
    set_version(&store, "1");
    store.write_file(&path("app"), "file", b"1").unwrap();
    take(&store, "1").unwrap();
    set_version(&store, "2");
    store.write_file(&path("app"), "file", b"2").unwrap();
    store.raw_rollback(&id("app", "1")).unwrap();
    assert_eq!(store.read_file(&path("app"), "file").as_deref(), Some(&b"1"[..]));
    assert_eq!(version(&store).as_deref(), Some("2"), "ZFS does not bring them back, openzfs/zfs#12620");
    take(&store, "2").unwrap();
    let refused = store.raw_rollback(&id("app", "1")).unwrap_err();
    assert!(matches!(refused.kind, StoreErrorKind::Busy(_)), "newer snapshots would be lost");
    assert_eq!(store.read_snapshot(&id("app", "1"), "file").as_deref(), Some(&b"1"[..]));
}

#[test]
fn the_chosen_call_fails_once() {
    let store = SimStore::new();
    store.fail_at(2, StoreErrorKind::NoSpace);
    create(&store, "a").unwrap();
    assert_eq!(create(&store, "b").unwrap_err().kind, StoreErrorKind::NoSpace);
    assert_eq!(store.get(&path("b")).unwrap(), None);
    create(&store, "b").unwrap();
    assert_eq!(store.mutations(), 3);
}

#[test]
fn a_crash_lasts_until_revived() {
    for (after, there) in [(false, false), (true, true)] {
        let store = SimStore::new();
        match after {
            true => store.crash_after(1),
            false => store.crash_at(1),
        }
        let crashed = StoreErrorKind::Io("crashed".to_owned());
        assert_eq!(create(&store, "a").unwrap_err().kind, crashed);
        assert_eq!(create(&store, "b").unwrap_err().kind, crashed);
        assert_eq!(store.list().unwrap_err().kind, crashed);
        store.revive();
        assert_eq!(store.get(&path("a")).unwrap().is_some(), there);
        assert_eq!(store.get(&path("b")).unwrap(), None);
        create(&store, "b").unwrap();
    }
}

#[test]
fn busy_datasets_stay_where_they_are() {
    let store = SimStore::new();
    create(&store, "app").unwrap();
    take(&store, "1").unwrap();
    store.set_busy(&path("app"), Some("process 42"));
    let request = Restore {
        dataset: path("app"),
        from: id("app", "1"),
        branch: path("zed/branches/app-1"),
        user: BTreeMap::new(),
        branch_user: BTreeMap::new(),
    };
    let busy = StoreErrorKind::Busy("process 42".to_owned());
    let before = store.list().unwrap();
    assert_eq!(store.restore(&request).unwrap_err().kind, busy);
    assert_eq!(store.retire(&request.dataset, &request.branch).unwrap_err().kind, busy);
    assert_eq!(store.list().unwrap(), before);
    store.set_busy(&path("app"), None);
    store.restore(&request).unwrap();
}

#[test]
fn a_full_pool_takes_properties_and_nothing_else() {
    let store = SimStore::new();
    create(&store, "app").unwrap();
    store.set_available(0);
    assert_eq!(create(&store, "b").unwrap_err().kind, StoreErrorKind::NoSpace);
    assert_eq!(take(&store, "1").unwrap_err().kind, StoreErrorKind::NoSpace);
    assert_eq!(store.write_file(&path("app"), "f", b"x").unwrap_err().kind, StoreErrorKind::NoSpace);
    // ZFS keeps room in reserve for these.
    set_version(&store, "1");
    store.retire(&path("app"), &path("zed/branches/app")).unwrap();
    assert_eq!(store.info().unwrap().available, 0);
}
