//! The trait that every store implements, and the values that cross it.

use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use zed_spec::DatasetPath;

/// User properties by full name (`com.zed:version`), only those set locally.
pub type UserProps = BTreeMap<String, String>;

/// Where zed keeps what it owns: its state, and retired branches below `zed/branches`.
pub const OWN_DATASET: &str = "zed";
/// Parent of every branch. Never mounted.
pub const BRANCHES: &str = "zed/branches";
/// Marks what zed created; destructive calls refuse a dataset without it.
pub const MANAGED: &str = "com.zed:managed";
/// Longest value of a user property that ZFS takes, in bytes.
pub const MAX_VALUE: usize = 8191;

/// One store: a pool (or a dataset of it), or a directory.
///
/// Paths are relative to the store's root. Every call is all-or-nothing unless its comment says otherwise,
/// and may be repeated: a call whose effect is already there succeeds.
pub trait Store: Send + Sync + 'static {
    /// What this store is.
    fn info(&self) -> Result<StoreInfo, StoreError>;

    /// The pools of this host, sorted by name: their health and space now. A store without pools gives the
    /// filesystem that it is on.
    fn pools(&self) -> Result<Vec<Pool>, StoreError>;

    /// Every dataset below the root, sorted by path, branches included; one pass over the store.
    fn list(&self) -> Result<Vec<Arc<Dataset>>, StoreError>;

    /// One dataset, or `None` when there is none.
    fn get(&self, path: &DatasetPath) -> Result<Option<Arc<Dataset>>, StoreError>;

    /// Snapshots of one dataset, or of all, each dataset's oldest first.
    fn snapshots(&self, of: Option<&DatasetPath>) -> Result<Vec<Arc<Snapshot>>, StoreError>;

    /// Creates and mounts a dataset with its properties in one step. The parent must exist.
    /// One that exists with the same native and user properties is accepted; any other is `Exists`.
    fn create(&self, request: &Create) -> Result<(), StoreError>;

    /// Changes properties of several datasets, in one transaction where the store can.
    /// `None` removes the local value (inherits).
    fn set(&self, changes: &[PropChange]) -> Result<(), StoreError>;

    /// Takes all these snapshots at one instant, each stamped with its user properties, or none of them.
    fn snapshot(&self, set: &[TakeSnapshot]) -> Result<(), StoreError>;

    /// Destroys snapshots. One that is not there is skipped; one that a branch needs is `Busy`.
    fn destroy_snapshots(&self, set: &[SnapshotRef]) -> Result<(), StoreError>;

    /// Puts `dataset` back to a snapshot without losing anything: what `dataset` was becomes `branch`
    /// (with its properties and its newer snapshots), and `dataset` is the snapshot's content with exactly
    /// the given user properties and its own native ones. Cost does not depend on the amount of data where
    /// the store has clones. Children of `dataset` stay its children, untouched.
    ///
    /// The snapshot may belong to `dataset` or to one of its branches. Interrupted anywhere and called again
    /// with the same request it completes. It is done when both `dataset` and `branch` exist.
    /// Processes that use the mountpoint make it `Busy`, with nothing changed.
    fn restore(&self, request: &Restore) -> Result<(), StoreError>;

    /// Turns a dataset without children into a branch: nothing is at `dataset` afterwards.
    fn retire(&self, dataset: &DatasetPath, branch: &DatasetPath) -> Result<(), StoreError>;

    /// The reverse of `retire`: `branch` becomes `dataset` again, mounted. Used by undo.
    fn reinstate(&self, branch: &DatasetPath, dataset: &DatasetPath) -> Result<(), StoreError>;

    /// Destroys a branch and its snapshots. Refuses anything not below `zed/branches` or without the mark;
    /// `Busy` while another dataset depends on its snapshots. A missing one is accepted.
    fn destroy_branch(&self, branch: &DatasetPath) -> Result<(), StoreError>;

    /// Mounts a dataset if it is not mounted and may be.
    fn mount(&self, dataset: &DatasetPath) -> Result<(), StoreError>;
}

/// What a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreInfo {
    /// `zfs`, `embedded` or `sim`.
    pub kind: String,
    /// `tank/zed` or the directory.
    pub root: String,
    /// Version of what serves it, for instance `zfs-2.3.2`.
    pub version: String,
    /// Bytes that can still be written.
    pub available: u64,
    /// True when taking and restoring snapshots costs nothing for unchanged data.
    pub copy_on_write: bool,
}

/// One pool as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The words of `zpool list -o health`: `ONLINE`, `DEGRADED`, `FAULTED`, `OFFLINE`, `REMOVED`, `UNAVAIL`,
    /// `SUSPENDED`; `READONLY` for a filesystem that takes no writes.
    pub health: String,
    /// Bytes in all.
    pub size: u64,
    /// Bytes in use.
    pub allocated: u64,
    /// Bytes that are not. On ZFS before redundancy, so it is more than what can be written.
    pub free: u64,
}

impl Pool {
    /// The one good word for [`Pool::health`].
    pub const ONLINE: &'static str = "ONLINE";
}

/// One dataset as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// Path below the store's root.
    pub path: DatasetPath,
    /// Identity that survives renames.
    pub guid: u64,
    /// Where it is (or would be) mounted; `None` for `none`, `legacy` and `canmount=off`.
    pub mountpoint: Option<PathBuf>,
    /// Mounted now?
    pub mounted: bool,
    /// Native properties that were set locally, canonical text; sizes in bytes (`quota` `2147483648`),
    /// switches `on` and `off`.
    pub native: BTreeMap<String, String>,
    /// User properties with source `local`.
    pub user: UserProps,
    /// User properties with source `received` (a replica).
    pub received: UserProps,
    /// The snapshot this is a clone of.
    pub origin: Option<SnapshotRef>,
    /// Bytes referenced.
    pub referenced: u64,
}

/// A snapshot's name: dataset and the part after `@`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// The dataset it belongs to now (promotion moves snapshots).
    pub dataset: DatasetPath,
    /// The part after `@`.
    pub name: String,
}

impl std::fmt::Display for SnapshotRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.dataset, self.name)
    }
}

/// One snapshot as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotRef,
    /// Identity that survives renames and promotion.
    pub guid: u64,
    /// Order of creation within a store: larger is later. Clocks lie; this does not.
    pub txg: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// User properties set on the snapshot itself.
    pub user: UserProps,
    /// Datasets that are clones of it.
    pub clones: Vec<DatasetPath>,
    /// Bytes freed if it were destroyed.
    pub used: u64,
}

/// Request of [`Store::create`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Where.
    pub path: DatasetPath,
    /// Native properties, canonical text.
    pub native: BTreeMap<String, String>,
    /// User properties.
    pub user: UserProps,
}

/// One dataset's changes in [`Store::set`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropChange {
    /// Which.
    pub path: DatasetPath,
    /// Native properties; `None` inherits.
    pub native: BTreeMap<String, Option<String>>,
    /// User properties; `None` removes.
    pub user: BTreeMap<String, Option<String>>,
}

/// One snapshot to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeSnapshot {
    /// Its name.
    pub id: SnapshotRef,
    /// What to stamp on it.
    pub user: UserProps,
}

/// Request of [`Store::restore`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The dataset to put back.
    pub dataset: DatasetPath,
    /// To this snapshot, of `dataset` or of a branch.
    pub from: SnapshotRef,
    /// Where what it is now goes; must be below [`BRANCHES`] and not exist.
    pub branch: DatasetPath,
    /// All user properties it has afterwards.
    pub user: UserProps,
    /// User properties to add to what becomes the branch (its role, its run).
    pub branch_user: UserProps,
}

/// Why a store refused.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} `{object}`: {kind}")]
pub struct StoreError {
    /// A verb: `create`, `snapshot`, `restore`, ...
    pub operation: &'static str,
    /// The dataset or snapshot.
    pub object: String,
    /// What kind of refusal.
    pub kind: StoreErrorKind,
    /// The cause below, when there is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Kinds of refusal, with what callers branch on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// No such dataset or snapshot.
    #[error("it does not exist")]
    NotFound,
    /// It is there already, and different.
    #[error("it exists already")]
    Exists,
    /// Its parent is missing.
    #[error("its parent does not exist")]
    NoParent,
    /// In use: by a process, a clone or a hold. The text says by what.
    #[error("it is in use: {0}")]
    Busy(String),
    /// Pool or quota full.
    #[error("no space is left")]
    NoSpace,
    /// Not allowed for this user.
    #[error("permission denied; {0}")]
    Permission(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// This store cannot do it.
    #[error("this store cannot do it: {0}")]
    Unsupported(String),
    /// Not created by zed: refused to destroy.
    #[error("zed did not create it (no `com.zed:managed` mark)")]
    NotOurs,
    /// The disk, the library or the kernel failed.
    #[error("{0}")]
    Io(String),
}
