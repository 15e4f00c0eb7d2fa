//! The promises of [`Store`] as cases that every implementation runs: OpenZFS, the embedded store and the simulator.
//!
//! Written to be called from tests; a broken promise panics with the case's name and what was seen.
//! Cases only use the trait and the fixture, and must never assume more of a store than `types.rs` says.

mod branches;
mod datasets;
mod pools;
mod restore;
mod snapshots;

use crate::BRANCHES;
use crate::Create;
use crate::Dataset;
use crate::MANAGED;
use crate::OWN_DATASET;
use crate::Restore;
use crate::Snapshot;
use crate::SnapshotRef;
use crate::Store;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::TakeSnapshot;
use crate::UserProps;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use zed_spec::DatasetPath;

/// One fresh, empty store and the ways a case may touch it from outside the trait.
pub trait Fixture {
    /// The store under test.
    fn store(&self) -> &dyn Store;

    /// Drops the store and opens it again on the same data, as after a restart of the daemon.
    fn reopen(&mut self);

    /// An absolute, existing, empty folder below which a case may let datasets be mounted.
    fn mount_base(&self) -> PathBuf;

    /// Writes a file at the top of a mounted dataset. Stores with real mountpoints use [`write_at_mountpoint`].
    fn write(&self, dataset: &DatasetPath, name: &str, content: &[u8]);

    /// Removes a file at the top of a mounted dataset.
    fn remove(&self, dataset: &DatasetPath, name: &str);

    /// Reads a file at the top of a mounted dataset; `None` when it is not there.
    fn read(&self, dataset: &DatasetPath, name: &str) -> Option<Vec<u8>>;
}

/// A case: proves one promise, panics when it is broken.
pub type Case = fn(&mut dyn Fixture);

/// Every case with its name.
pub fn cases() -> Vec<(&'static str, Case)> {
    [datasets::CASES, pools::CASES, snapshots::CASES, restore::CASES, branches::CASES].concat()
}

/// Runs every case on a fixture of its own, prints its name, and panics at the first broken promise.
pub fn run_all(new: &mut dyn FnMut() -> Box<dyn Fixture>) {
    for (name, case) in cases() {
        tracing::info!(case = name, "conformance");
        let guard = Announce(name);
        case(new().as_mut());
        drop(guard);
    }
}

/// Names the case when a panic passes by, because the message of an assertion does not.
struct Announce(&'static str);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            use io::Write;
            // A failed write to stderr has nowhere else to be reported.
            drop(writeln!(io::stderr(), "conformance case `{}` failed", self.0));
        }
    }
}

/// Writes through the mountpoint that the store reports.
pub fn write_at_mountpoint(store: &dyn Store, dataset: &DatasetPath, name: &str, content: &[u8]) {
    let file = mountpoint(store, dataset).join(name);
    std::fs::write(&file, content).unwrap_or_else(|e| panic!("failed to write `{}`: {e}", file.display()));
}

/// Removes through the mountpoint that the store reports.
pub fn remove_at_mountpoint(store: &dyn Store, dataset: &DatasetPath, name: &str) {
    let file = mountpoint(store, dataset).join(name);
    std::fs::remove_file(&file).unwrap_or_else(|e| panic!("failed to remove `{}`: {e}", file.display()));
}

/// Reads through the mountpoint that the store reports.
pub fn read_at_mountpoint(store: &dyn Store, dataset: &DatasetPath, name: &str) -> Option<Vec<u8>> {
    let file = mountpoint(store, dataset).join(name);
    match std::fs::read(&file) {
        Ok(content) => Some(content),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => panic!("failed to read `{}`: {e}", file.display()),
    }
}

fn mountpoint(store: &dyn Store, dataset: &DatasetPath) -> PathBuf {
    let found = dataset_of(store, dataset);
    assert!(found.mounted, "`{dataset}` is not mounted");
    found.mountpoint.clone().unwrap_or_else(|| panic!("`{dataset}` is mounted and has no mountpoint"))
}

/// A dataset's path from a literal.
fn path(text: &str) -> DatasetPath {
    DatasetPath::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

/// User or native properties from literals.
fn props(pairs: &[(&str, &str)]) -> UserProps {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The reference to a snapshot from `dataset@name`.
fn snap(text: &str) -> SnapshotRef {
    let (dataset, name) = text.split_once('@').unwrap_or_else(|| panic!("`{text}` is no snapshot"));
    SnapshotRef { dataset: path(dataset), name: name.to_owned() }
}

/// What a success gave, or a panic that shows the chain of causes.
fn ok<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|e| panic!("{}", chain(&e)))
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// The kind of the refusal that must have been.
fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) -> StoreErrorKind {
    match result {
        Ok(value) => panic!("{what} was accepted and gave {value:?}"),
        Err(e) => e.kind,
    }
}

fn refused_as<T: std::fmt::Debug>(result: Result<T, StoreError>, kind: &StoreErrorKind, what: &str) {
    assert_eq!(&refused(result, what), kind, "{what}");
}

fn refused_as_invalid<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) {
    let kind = refused(result, what);
    assert!(matches!(kind, StoreErrorKind::Invalid(_)), "{what}: {kind:?} instead of Invalid");
}

fn refused_as_busy<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) {
    let kind = refused(result, what);
    assert!(matches!(kind, StoreErrorKind::Busy(_)), "{what}: {kind:?} instead of Busy");
}

fn dataset_of(store: &dyn Store, dataset: &DatasetPath) -> Arc<Dataset> {
    ok(store.get(dataset)).unwrap_or_else(|| panic!("`{dataset}` does not exist"))
}

fn dataset(fixture: &dyn Fixture, name: &str) -> Arc<Dataset> {
    dataset_of(fixture.store(), &path(name))
}

fn exists(fixture: &dyn Fixture, name: &str) -> bool {
    ok(fixture.store().get(&path(name))).is_some()
}

fn request(name: &str, native: &[(&str, &str)], user: &[(&str, &str)]) -> Create {
    Create { path: path(name), native: props(native), user: props(user) }
}

/// Creates a dataset that zed owns.
fn create(fixture: &dyn Fixture, name: &str) {
    ok(fixture.store().create(&request(name, &[], &[(MANAGED, "on")])));
}

/// `zed/branches`, as the daemon has it before it restores anything.
fn ensure_branches(fixture: &dyn Fixture) {
    for name in [OWN_DATASET, BRANCHES] {
        if !exists(fixture, name) {
            ok(fixture.store().create(&request(name, &[("canmount", "off")], &[(MANAGED, "on")])));
        }
    }
}

fn take(name: &str, user: &[(&str, &str)]) -> TakeSnapshot {
    TakeSnapshot { id: snap(name), user: props(user) }
}

fn snapshot(fixture: &dyn Fixture, name: &str) {
    ok(fixture.store().snapshot(&[take(name, &[("com.zed:version", name)])]));
}

/// The names after `@` of one dataset's snapshots, in the store's order.
fn names(fixture: &dyn Fixture, dataset: &str) -> Vec<String> {
    snapshots(fixture, dataset).iter().map(|s| s.id.name.clone()).collect()
}

fn snapshots(fixture: &dyn Fixture, dataset: &str) -> Vec<Arc<Snapshot>> {
    ok(fixture.store().snapshots(Some(&path(dataset))))
}

fn one_snapshot(fixture: &dyn Fixture, name: &str) -> Arc<Snapshot> {
    let wanted = snap(name);
    ok(fixture.store().snapshots(Some(&wanted.dataset)))
        .into_iter()
        .find(|s| s.id == wanted)
        .unwrap_or_else(|| panic!("`{wanted}` does not exist"))
}

fn restore_request(dataset: &str, from: &str, branch: &str, user: &[(&str, &str)]) -> Restore {
    Restore {
        dataset: path(dataset),
        from: snap(from),
        branch: path(branch),
        user: props(user),
        branch_user: props(&[("com.zed:role", "branch")]),
    }
}

fn write(fixture: &dyn Fixture, dataset: &str, name: &str, content: &str) {
    fixture.write(&path(dataset), name, content.as_bytes());
}

/// The file's text, `None` when it is not there.
fn read(fixture: &dyn Fixture, dataset: &str, name: &str) -> Option<String> {
    fixture.read(&path(dataset), name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Asserts that `of` has at least these properties: a store may add its own bookkeeping to a branch.
fn has_all(of: &BTreeMap<String, String>, wanted: &[(&str, &str)], what: &str) {
    for (name, value) in wanted {
        assert_eq!(of.get(*name).map(String::as_str), Some(*value), "`{name}` of {what}: {of:?}");
    }
}

/// Everything that a caller can see, to compare before with after.
fn everything(fixture: &dyn Fixture) -> (Vec<Dataset>, Vec<Snapshot>) {
    let store = fixture.store();
    let datasets = ok(store.list()).iter().map(|d| Dataset { referenced: 0, ..d.as_ref().clone() }).collect();
    let snapshots =
        ok(store.snapshots(None)).iter().map(|s| Snapshot { used: 0, ..s.as_ref().clone() }).collect();
    (datasets, snapshots)
}

/// True when the two paths are the same after `.`, `..` and symlinks are resolved where they exist.
fn same_place(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
