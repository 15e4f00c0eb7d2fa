//! The embedded store against the conformance suite, its own promises, faults at every step, and the model.

mod copies;
mod damage;
mod faults;
mod model;
mod places;

use super::*;
use crate::conformance;
use crate::conformance::Fixture;
use crate::conformance::run_all;
use std::collections::BTreeMap;
use std::fs::File;
use tempfile::TempDir;

struct EmbeddedFixture {
    // Dropped before the folder is removed.
    store: Option<EmbeddedStore>,
    dir: TempDir,
}

/// A folder in memory where there is one: thousands of syncs of a busy disk take minutes.
fn quick_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl EmbeddedFixture {
    fn new() -> Self {
        let dir = quick_dir();
        std::fs::create_dir(dir.path().join("mounts")).unwrap();
        let mut fixture = Self { store: None, dir };
        fixture.reopen();
        fixture
    }
}

impl Fixture for EmbeddedFixture {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        drop(self.store.take());
        self.store = Some(EmbeddedStore::open(&self.dir.path().join("store")).unwrap());
    }

    fn mount_base(&self) -> PathBuf {
        self.dir.path().join("mounts")
    }

    fn write(&self, dataset: &DatasetPath, name: &str, content: &[u8]) {
        conformance::write_at_mountpoint(self.store(), dataset, name, content);
    }

    fn remove(&self, dataset: &DatasetPath, name: &str) {
        conformance::remove_at_mountpoint(self.store(), dataset, name);
    }

    fn read(&self, dataset: &DatasetPath, name: &str) -> Option<Vec<u8>> {
        conformance::read_at_mountpoint(self.store(), dataset, name)
    }
}

#[test]
fn keeps_the_promises_of_a_store() {
    run_all(&mut || Box::new(EmbeddedFixture::new()));
}

fn path(text: &str) -> DatasetPath {
    DatasetPath::parse(text).unwrap()
}

fn props(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn id(text: &str) -> SnapshotRef {
    let (dataset, name) = text.split_once('@').unwrap();
    SnapshotRef { dataset: path(dataset), name: name.to_owned() }
}

fn request(name: &str, native: &[(&str, &str)]) -> Create {
    Create { path: path(name), native: props(native), user: props(&[(crate::MANAGED, "on")]) }
}

fn take(name: &str) -> TakeSnapshot {
    TakeSnapshot { id: id(name), user: props(&[("com.zed:version", name)]) }
}

fn back(dataset: &str, from: &str, branch: &str) -> Restore {
    Restore {
        dataset: path(dataset),
        from: id(from),
        branch: path(branch),
        user: props(&[(crate::MANAGED, "on"), ("com.zed:version", from)]),
        branch_user: props(&[("com.zed:role", "branch")]),
    }
}

fn user_change(name: &str, value: Option<&str>) -> PropChange {
    let user = BTreeMap::from([("com.zed:version".to_owned(), value.map(str::to_owned))]);
    PropChange { path: path(name), native: BTreeMap::new(), user }
}

fn native_change(name: &str, property: &str, value: Option<&str>) -> PropChange {
    let native = BTreeMap::from([(property.to_owned(), value.map(str::to_owned))]);
    PropChange { path: path(name), native, user: BTreeMap::new() }
}

/// The files directly in a folder.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let read = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = EmbeddedStore::open(dir.path()).unwrap();
    let Err(refused) = EmbeddedStore::open(dir.path()) else { panic!("opened twice") };
    let who = format!("process {} has it open", std::process::id());
    assert_eq!(refused.kind, StoreErrorKind::Busy(who));
    drop(first);
    // What a dead process wrote into the lock is no obstacle.
    std::fs::write(dir.path().join("lock"), "1\n").unwrap();
    EmbeddedStore::open(dir.path()).unwrap();
}

#[test]
fn store_can_be_moved() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let store = EmbeddedStore::open(&old).unwrap();
    store.create(&request("app", &[])).unwrap();
    conformance::write_at_mountpoint(&store, &path("app"), "file", b"text");
    drop(store);
    std::fs::rename(&old, &new).unwrap();
    let store = EmbeddedStore::open(&new).unwrap();
    assert_eq!(conformance::read_at_mountpoint(&store, &path("app"), "file").as_deref(), Some(&b"text"[..]));
}

#[test]
fn values_that_did_not_change_stay_shared() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    for name in ["a", "b"] {
        store.create(&request(name, &[])).unwrap();
    }
    let before = store.list().unwrap();
    store.set(&[user_change("a", Some("2"))]).unwrap();
    let after = store.list().unwrap();
    assert!(!Arc::ptr_eq(&before[0], &after[0]));
    assert!(Arc::ptr_eq(&before[1], &after[1]));
}

#[test]
fn readers_do_not_wait_for_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let (at_copy, copying) = std::sync::mpsc::channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let faults = Faults::new(move |_, step| {
        if step == "copy content" {
            at_copy.send(()).unwrap();
            wait.lock().recv().unwrap();
        }
        Fate::Go
    });
    let store = EmbeddedStore::open_with(dir.path(), faults).unwrap();
    store.create(&request("a", &[])).unwrap();
    std::thread::scope(|scope| {
        let change = scope.spawn(|| store.snapshot(&[take("a@1")]));
        copying.recv().unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
        assert!(store.snapshots(None).unwrap().is_empty(), "a snapshot was seen before it was committed");
        go_on.send(()).unwrap();
        change.join().unwrap().unwrap();
    });
    assert_eq!(store.snapshots(None).unwrap().len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn files_in_use_refuse_to_be_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    store.create(&request("app", &[])).unwrap();
    store.snapshot(&[take("app@1")]).unwrap();
    conformance::write_at_mountpoint(&store, &path("app"), "file", b"text");
    let open = File::open(store.get(&path("app")).unwrap().unwrap().mountpoint.clone().unwrap().join("file"))
        .unwrap();
    let before = store.list().unwrap();
    for refused in [
        store.restore(&back("app", "app@1", "zed/branches/app-1")).unwrap_err(),
        store.retire(&path("app"), &path("zed/branches/app-1")).unwrap_err(),
    ] {
        let StoreErrorKind::Busy(who) = refused.kind else { panic!("{refused}") };
        assert!(who.starts_with(&format!("process {} (", std::process::id())), "{who}");
        assert!(who.ends_with("has a file of it open"), "{who}");
    }
    assert_eq!(store.list().unwrap(), before);
    // Properties and snapshots take nothing away.
    store.set(&[user_change("app", Some("2"))]).unwrap();
    store.snapshot(&[take("app@2")]).unwrap();
    drop(open);
    store.restore(&back("app", "app@1", "zed/branches/app-1")).unwrap();
}
