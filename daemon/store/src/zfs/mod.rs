//! The store on OpenZFS, in process through libzfs and libzfs_core.
//!
//! Owns one libzfs handle behind a lock; every call opens what it needs by name and keeps nothing, so there is no
//! cache to be wrong. Never starts `zfs` or another process, and never interprets `com.zed:*` values.
//!
//! `read` turns handles into values, `write` makes simple changes, `branch` moves datasets to branches and back,
//! `restore` is the lossless rollback, `program` holds the channel programs; `handle`, `nvlist` and `ffi` are the
//! only files with unsafe code (and `mounts`, on FreeBSD). See docs/adr/0030 to 0032.

mod branch;
mod check;
mod errors;
mod ffi;
mod handle;
mod mounts;
mod nvlist;
mod program;
mod read;
mod restore;
mod write;

pub use restore::RestoreStep;

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
use errors::Refusal;
use errors::fail;
use handle::Handle;
use handle::Kind;
use handle::Libzfs;
use mounts::Mounts;
use parking_lot::Mutex;
use std::sync::Arc;
use zed_spec::DatasetPath;

/// A pool, or a dataset of one, as a store.
pub struct ZfsStore {
    lib: Mutex<Libzfs>,
    root: String,
    faults: Faults,
}

/// Failures that a test orders by value. The default orders none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// End `restore` after this step as a kill would: no clean-up, an error to the caller.
    pub stop_restore_after: Option<RestoreStep>,
}

impl ZfsStore {
    /// Opens `tank` or `tank/path`, which must exist.
    ///
    /// # Errors
    ///
    /// `Unsupported` when this kernel has no ZFS, `Permission` when this user may not use it, `NotFound` when there
    /// is no such dataset; each text says what to do.
    pub fn open(root: &str) -> Result<Self, StoreError> {
        Self::open_with(root, Faults::default())
    }

    /// [`open`](Self::open), with failures ordered by a test.
    ///
    /// # Errors
    ///
    /// As `open`.
    pub fn open_with(root: &str, faults: Faults) -> Result<Self, StoreError> {
        let root = root.trim_end_matches('/');
        let lib = Libzfs::init().map_err(|text| no_zfs(root, &text))?;
        if let Err(refusal) = lib.open(root, Kind::Dataset) {
            let kind = match refusal.kind {
                StoreErrorKind::NotFound => {
                    let pool = root.split('/').next().unwrap_or(root);
                    let pools: Vec<String> = lib.pools().into_iter().map(|pool| pool.name).collect();
                    StoreErrorKind::Unsupported(if pools.iter().any(|p| p == pool) {
                        format!(
                            "the pool `{pool}` has no dataset `{root}`; create it with `zfs create {root}`"
                        )
                    } else if pools.is_empty() {
                        format!("there is no pool `{pool}`, and no other is imported; see `zpool import`")
                    } else {
                        format!("there is no pool `{pool}`; imported are: {}", pools.join(", "))
                    })
                }
                other => other,
            };
            return Err(fail("open", root, kind));
        }
        Ok(Self { lib: Mutex::new(lib), root: root.to_owned(), faults })
    }

    /// Names of the imported pools, for choosing a default.
    ///
    /// # Errors
    ///
    /// When this kernel has no ZFS or this user may not use it.
    pub fn pool_names() -> Result<Vec<String>, StoreError> {
        let pools = Libzfs::init().map_err(|text| no_zfs("/dev/zfs", &text))?.pools();
        Ok(pools.into_iter().map(|pool| pool.name).collect())
    }

    fn full(&self, path: &DatasetPath) -> String {
        format!("{}/{path}", self.root)
    }

    fn full_snapshot(&self, id: &SnapshotRef) -> String {
        format!("{}/{}@{}", self.root, id.dataset, id.name)
    }

    fn pool(&self) -> &str {
        self.root.split('/').next().unwrap_or(&self.root)
    }
}

fn no_zfs(object: &str, text: &str) -> StoreError {
    let denied = std::fs::File::options().read(true).write(true).open("/dev/zfs").err();
    let kind = match denied.as_ref().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::PermissionDenied) => {
            StoreErrorKind::Permission(format!("{text}; this user may not open /dev/zfs"))
        }
        Some(std::io::ErrorKind::NotFound) => StoreErrorKind::Unsupported(format!(
            "{text}; there is no /dev/zfs: load the ZFS kernel module, or use `--store embedded:DIR`"
        )),
        _ => StoreErrorKind::Unsupported(text.to_owned()),
    };
    fail("open", object, kind)
}

/// Opens a dataset for an operation.
fn open<'a>(lib: &'a Libzfs, operation: &'static str, full: &str) -> Result<Handle<'a>, StoreError> {
    lib.open(full, Kind::Dataset).map_err(|refusal| refusal.during(operation, full))
}

/// The mount table for an operation.
fn mount_table(operation: &'static str) -> Result<Mounts, StoreError> {
    Mounts::read().map_err(|error| StoreError {
        operation,
        object: "the mount table".to_owned(),
        kind: StoreErrorKind::Io("it cannot be read".to_owned()),
        source: Some(Box::new(error)),
    })
}

impl Store for ZfsStore {
    fn info(&self) -> Result<StoreInfo, StoreError> {
        let lib = self.lib.lock();
        let handle = open(&lib, "inspect", &self.root)?;
        let available = handle.text_of(c"available").and_then(|text| text.parse().ok());
        Ok(StoreInfo {
            kind: "zfs".to_owned(),
            root: self.root.clone(),
            version: check::kernel_version(),
            available: available.unwrap_or(0),
            copy_on_write: true,
        })
    }

    fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        Ok(self.lib.lock().pools())
    }

    fn list(&self) -> Result<Vec<Arc<Dataset>>, StoreError> {
        let lib = self.lib.lock();
        let mounts = mount_table("list")?;
        let mut found = Vec::new();
        let root = open(&lib, "list", &self.root)?;
        read::descend(&root, &mut |handle| {
            found.extend(read::dataset(&self.root, handle, &mounts));
            Ok(())
        })
        .map_err(|refusal| refusal.during("list", &self.root))?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn get(&self, path: &DatasetPath) -> Result<Option<Arc<Dataset>>, StoreError> {
        let lib = self.lib.lock();
        let full = self.full(path);
        match lib.open(&full, Kind::Dataset) {
            Ok(handle) => Ok(read::dataset(&self.root, &handle, &mount_table("get")?)),
            Err(Refusal { kind: StoreErrorKind::NotFound }) => Ok(None),
            Err(refusal) => Err(refusal.during("get", full)),
        }
    }

    fn snapshots(&self, of: Option<&DatasetPath>) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        let lib = self.lib.lock();
        let mut found = Vec::new();
        let mut each = |handle: &Handle<'_>| {
            handle.snapshots(&mut |snapshot| {
                found.extend(read::snapshot(&self.root, &snapshot));
                Ok(())
            })
        };
        let start = of.map_or_else(|| self.root.clone(), |path| self.full(path));
        let handle = open(&lib, "list snapshots of", &start)?;
        let visited = match of {
            Some(_) => each(&handle),
            None => read::descend(&handle, &mut each),
        };
        visited.map_err(|refusal| refusal.during("list snapshots of", start))?;
        found.sort_by(|a, b| (&a.id.dataset, a.txg).cmp(&(&b.id.dataset, b.txg)));
        Ok(found)
    }

    fn create(&self, request: &Create) -> Result<(), StoreError> {
        self.create_dataset(&self.lib.lock(), request)
    }

    fn set(&self, changes: &[PropChange]) -> Result<(), StoreError> {
        self.set_properties(&self.lib.lock(), changes)
    }

    fn snapshot(&self, set: &[TakeSnapshot]) -> Result<(), StoreError> {
        self.take_snapshots(&self.lib.lock(), set)
    }

    fn destroy_snapshots(&self, set: &[SnapshotRef]) -> Result<(), StoreError> {
        let names: Vec<String> = set.iter().map(|id| self.full_snapshot(id)).collect();
        self.destroy_snapshot_set(&self.lib.lock(), &names)
    }

    fn restore(&self, request: &Restore) -> Result<(), StoreError> {
        self.restore_dataset(&self.lib.lock(), request)
    }

    fn retire(&self, dataset: &DatasetPath, branch: &DatasetPath) -> Result<(), StoreError> {
        self.retire_dataset(&self.lib.lock(), dataset, branch)
    }

    fn reinstate(&self, branch: &DatasetPath, dataset: &DatasetPath) -> Result<(), StoreError> {
        self.reinstate_branch(&self.lib.lock(), branch, dataset)
    }

    fn destroy_branch(&self, branch: &DatasetPath) -> Result<(), StoreError> {
        self.destroy_managed_branch(&self.lib.lock(), branch)
    }

    fn mount(&self, dataset: &DatasetPath) -> Result<(), StoreError> {
        let lib = self.lib.lock();
        let full = self.full(dataset);
        let handle = open(&lib, "mount", &full)?;
        if zed_branches().is_some_and(|branches| dataset.is_in(&branches)) {
            let text = "branches are never mounted; reinstate it, or restore a snapshot of it".to_owned();
            return Err(fail("mount", full, StoreErrorKind::Invalid(text)));
        }
        write::mount_if_possible(&handle, &mount_table("mount")?, "mount")
    }
}

/// The parent of all branches as a path.
fn zed_branches() -> Option<DatasetPath> {
    DatasetPath::parse(crate::BRANCHES).ok()
}
