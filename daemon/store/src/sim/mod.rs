//! `SimStore`: a store in memory that keeps ZFS's rules and fails when told to.
//!
//! For tests of planners, executors and fault handling, and the model that the embedded store is compared
//! with. It holds file content too, so that a test can see data and state come back together.
//! Never touches a disk, a clock or a random source: the same calls give the same store.

mod primitives;
mod script;
mod state;

use crate::Create;
use crate::Dataset;
use crate::Pool;
use crate::PropChange;
use crate::Restore;
use crate::Snapshot;
use crate::SnapshotRef;
use crate::Store;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::StoreInfo;
use crate::TakeSnapshot;
use crate::rules::refuse;
use parking_lot::Mutex;
use script::Script;
use script::Verdict;
use state::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use zed_spec::DatasetPath;

/// A simulated store. Clones are handles to the same store: one for the code under test, one for the test.
#[derive(Clone, Default)]
pub struct SimStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    state: State,
    script: Script,
}

impl SimStore {
    /// An empty store with 1 TiB of space.
    pub fn new() -> Self {
        Self::default()
    }

    /// The `n`-th mutating call from now on (1 is the next) is refused with this kind, once, without effect.
    pub fn fail_at(&self, n: u64, kind: StoreErrorKind) {
        self.shared.lock().script.fail_at(n, kind);
    }

    /// The `n`-th mutating call from now on (1 is the next) and every call after it, reading ones included,
    /// answer `Io("crashed")` without effect, until [`SimStore::revive`].
    pub fn crash_at(&self, n: u64) {
        self.shared.lock().script.crash_at(n);
    }

    /// Like [`SimStore::crash_at`], but the `n`-th call still has its effect: the caller died before it heard.
    pub fn crash_after(&self, n: u64) {
        self.shared.lock().script.crash_after(n);
    }

    /// Ends a crash and forgets every scripted failure, as a restart does. What was done stays.
    pub fn revive(&self) {
        self.shared.lock().script.clear();
    }

    /// Mutating calls of the trait so far, refused ones included.
    pub fn mutations(&self) -> u64 {
        self.shared.lock().script.calls()
    }

    /// From now on `dataset` is in use by `reason`: moving it away is `Busy`. `None` ends that.
    pub fn set_busy(&self, dataset: &DatasetPath, reason: Option<&str>) {
        self.shared.lock().state.set_busy(dataset, reason);
    }

    /// Bytes that can still be written. At 0 creating, taking snapshots and writing files is `NoSpace`.
    pub fn set_available(&self, bytes: u64) {
        self.shared.lock().state.available = bytes;
    }

    /// What the pool says of itself: `ONLINE`, `DEGRADED`, ... Only words; a real pool also fails.
    pub fn set_pool_health(&self, health: &str) {
        self.shared.lock().state.pool_health = health.to_owned();
    }

    /// Writes a file of a mounted dataset.
    pub fn write_file(&self, dataset: &DatasetPath, name: &str, content: &[u8]) -> Result<(), StoreError> {
        self.shared.lock().state.write_file(dataset, name, Some(content))
    }

    /// Removes a file of a mounted dataset. One that is not there is accepted.
    pub fn remove_file(&self, dataset: &DatasetPath, name: &str) -> Result<(), StoreError> {
        self.shared.lock().state.write_file(dataset, name, None)
    }

    /// A file of a dataset, mounted or not; `None` when it is not there.
    pub fn read_file(&self, dataset: &DatasetPath, name: &str) -> Option<Vec<u8>> {
        self.shared.lock().state.file(dataset, name)
    }

    /// Every file of a dataset, text read leniently.
    pub fn all_files(&self, dataset: &DatasetPath) -> BTreeMap<String, String> {
        self.shared.lock().state.all_files(dataset)
    }

    /// A file as it was when a snapshot was taken.
    pub fn read_snapshot(&self, snapshot: &SnapshotRef, name: &str) -> Option<Vec<u8>> {
        self.shared.lock().state.file_of_snapshot(snapshot, name)
    }

    /// What `zfs rollback` does, for tests that show why zed does not use it: the content goes back to the
    /// newest snapshot, and the user properties stay as they are (openzfs/zfs#12620).
    pub fn raw_rollback(&self, to: &SnapshotRef) -> Result<(), StoreError> {
        self.mutate("roll back", to, |state| state.raw_rollback(to))
    }

    /// Counts the call, lets the script judge it, and takes the new state over only when it succeeded.
    fn mutate(
        &self,
        operation: &'static str,
        object: impl ToString,
        change: impl FnOnce(&mut State) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut shared = self.shared.lock();
        let verdict = shared.script.next();
        match &verdict {
            Verdict::Go | Verdict::DieAfter => {}
            Verdict::Fail(kind) => return Err(refuse(operation, object, kind.clone())),
        }
        let mut next = shared.state.clone();
        change(&mut next)?;
        shared.state = next;
        match verdict {
            Verdict::DieAfter => Err(refuse(operation, object, script::crashed())),
            _ => Ok(()),
        }
    }

    fn observe<T>(
        &self,
        operation: &'static str,
        look: impl FnOnce(&State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let shared = self.shared.lock();
        match shared.script.is_dead() {
            true => Err(refuse(operation, "sim", script::crashed())),
            false => look(&shared.state),
        }
    }
}

/// The object that an error of a call on several names.
fn first<T: ToString>(of: Option<T>) -> String {
    of.map_or_else(|| "nothing".to_owned(), |first| first.to_string())
}

impl Store for SimStore {
    fn info(&self) -> Result<StoreInfo, StoreError> {
        self.observe("describe", |state| {
            Ok(StoreInfo {
                kind: "sim".to_owned(),
                root: "sim".to_owned(),
                version: "sim-1".to_owned(),
                available: state.available,
                copy_on_write: true,
            })
        })
    }

    fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        self.observe("list the pools of", |state| {
            let size = 1 << 40;
            Ok(vec![Pool {
                name: "sim".to_owned(),
                health: state.pool_health.clone(),
                size,
                allocated: size.saturating_sub(state.available),
                free: state.available,
            }])
        })
    }

    fn list(&self) -> Result<Vec<Arc<Dataset>>, StoreError> {
        self.observe("list", |state| Ok(state.list()))
    }

    fn get(&self, path: &DatasetPath) -> Result<Option<Arc<Dataset>>, StoreError> {
        self.observe("read", |state| Ok(state.view(path)))
    }

    fn snapshots(&self, of: Option<&DatasetPath>) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        self.observe("list the snapshots of", |state| state.snapshots(of))
    }

    fn create(&self, request: &Create) -> Result<(), StoreError> {
        self.mutate("create", &request.path, |state| state.create(request))
    }

    fn set(&self, changes: &[PropChange]) -> Result<(), StoreError> {
        self.mutate("set properties of", first(changes.first().map(|c| &c.path)), |state| state.set(changes))
    }

    fn snapshot(&self, set: &[TakeSnapshot]) -> Result<(), StoreError> {
        self.mutate("snapshot", first(set.first().map(|t| &t.id)), |state| state.snapshot(set))
    }

    fn destroy_snapshots(&self, set: &[SnapshotRef]) -> Result<(), StoreError> {
        self.mutate("destroy", first(set.first()), |state| state.destroy_snapshots(set))
    }

    fn restore(&self, request: &Restore) -> Result<(), StoreError> {
        self.mutate("restore", &request.dataset, |state| state.restore(request))
    }

    fn retire(&self, dataset: &DatasetPath, branch: &DatasetPath) -> Result<(), StoreError> {
        self.mutate("retire", dataset, |state| state.retire(dataset, branch))
    }

    fn reinstate(&self, branch: &DatasetPath, dataset: &DatasetPath) -> Result<(), StoreError> {
        self.mutate("reinstate", branch, |state| state.reinstate(branch, dataset))
    }

    fn destroy_branch(&self, branch: &DatasetPath) -> Result<(), StoreError> {
        self.mutate("destroy", branch, |state| state.destroy_branch(branch))
    }

    fn mount(&self, dataset: &DatasetPath) -> Result<(), StoreError> {
        self.mutate("mount", dataset, |state| state.mount(dataset))
    }
}

#[cfg(test)]
mod tests;
