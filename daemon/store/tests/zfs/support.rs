//! A dataset of the test pool as a fixture, gone when the test ends.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use zed_spec::DatasetPath;
use zed_store::Create;
use zed_store::MANAGED;
use zed_store::Restore;
use zed_store::SnapshotRef;
use zed_store::Store;
use zed_store::TakeSnapshot;
use zed_store::UserProps;
use zed_store::conformance;
use zed_store::conformance::Fixture;
use zed_store::zfs::Faults;
use zed_store::zfs::ZfsStore;

/// The pool that tests may use.
pub(crate) fn pool() -> String {
    std::env::var("ZED_TEST_POOL")
        .expect("ZED_TEST_POOL must name a pool that tests may use; run `cargo xtask zfs test`")
}

/// Runs a program and gives what it printed; panics with its errors when it fails.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// `zfs ARGS`.
pub(crate) fn zfs(args: &[&str]) -> String {
    run("zfs", args)
}

/// A fresh dataset of the test pool and the store on it.
pub(crate) struct Pool {
    pub(crate) root: String,
    store: Option<ZfsStore>,
    base: tempfile::TempDir,
}

impl Pool {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = format!("{}/t{}-{}", pool(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let base = tempfile::tempdir().expect("a temporary folder");
        // A mountpoint of its own, so that a normal user may be given the tree of datasets without the pool's.
        let mountpoint = format!("mountpoint={}/root", base.path().display());
        zfs(&["create", "-o", &mountpoint, &root]);
        let store = Some(ZfsStore::open(&root).expect("the store opens"));
        Self { root, store, base }
    }

    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    pub(crate) fn with_faults(&self, faults: Faults) -> ZfsStore {
        ZfsStore::open_with(&self.root, faults).expect("the store opens")
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.store = None;
        let out = Command::new("zfs").args(["destroy", "-R", "-f", &self.root]).output();
        // While a failed test unwinds, a second panic would hide its message.
        if !std::thread::panicking() {
            let out = out.expect("zfs runs");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

impl Fixture for Pool {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().expect("open between calls")
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(ZfsStore::open(&self.root).expect("the store opens again"));
    }

    fn mount_base(&self) -> PathBuf {
        let base = self.base.path().join("base");
        std::fs::create_dir_all(&base).expect("a folder can be made");
        base
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

/// A dataset's path from a literal.
pub(crate) fn path(text: &str) -> DatasetPath {
    DatasetPath::parse(text).expect("a literal path")
}

/// A snapshot's reference from `dataset@name`.
pub(crate) fn snap(text: &str) -> SnapshotRef {
    let (dataset, name) = text.split_once('@').expect("dataset@name");
    SnapshotRef { dataset: path(dataset), name: name.to_owned() }
}

/// Properties from literals.
pub(crate) fn props(pairs: &[(&str, &str)]) -> UserProps {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Creates a dataset with native and user properties.
pub(crate) fn create(store: &dyn Store, name: &str, native: &[(&str, &str)], user: &[(&str, &str)]) {
    store
        .create(&Create { path: path(name), native: props(native), user: props(user) })
        .unwrap_or_else(|e| panic!("{e}"));
}

/// `zed` and `zed/branches`, as the daemon makes them.
pub(crate) fn branches(store: &dyn Store) {
    for name in ["zed", "zed/branches"] {
        create(store, name, &[("canmount", "off")], &[(MANAGED, "on")]);
    }
}

/// Takes one snapshot with a stamp.
pub(crate) fn take(store: &dyn Store, name: &str, user: &[(&str, &str)]) {
    store.snapshot(&[TakeSnapshot { id: snap(name), user: props(user) }]).unwrap_or_else(|e| panic!("{e}"));
}

/// The request that puts `app` back to `from` and makes what it was `zed/branches/NAME`.
pub(crate) fn back_to(from: &str, branch: &str) -> Restore {
    Restore {
        dataset: path("app"),
        from: snap(from),
        branch: path(&format!("zed/branches/{branch}")),
        user: props(&[(MANAGED, "on"), ("com.zed:version", "1")]),
        branch_user: props(&[("com.zed:role", "branch")]),
    }
}
