//! The types of a spec. Everything that a user can write is here, and nothing that zed observes.
//!
//! Field order is the order in the canonical form. Adding an optional field does not change the hash of
//! specs that leave it out: absent options and empty collections are not written.

mod app;
mod duration;
mod fleet;

use crate::names::AppName;
use crate::names::DatasetPath;
use crate::names::DeployName;
use crate::names::HostName;
use crate::names::JailName;
use crate::names::JobName;
use crate::names::ModelName;
use crate::names::SlotName;
use crate::names::ZoneName;
pub use app::*;
pub use fleet::*;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// One spec file, validated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploySpec {
    /// The file's name without `.ron`.
    pub name: DeployName,
    /// The pool (or pool/path) this spec asks for; the daemon's store when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Hosts of the fleet. Empty: this host only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<HostName, Host>,
    /// Datasets to have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub datasets: BTreeMap<DatasetPath, Dataset>,
    /// Apps to run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub apps: BTreeMap<AppName, App>,
    /// FreeBSD jails.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jails: BTreeMap<JailName, Jail>,
    /// illumos zones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<ZoneName, Zone>,
    /// Model artifacts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<ModelName, Model>,
    /// Jobs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<JobName, Job>,
    /// Secret slots.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SlotName, SecretSource>,
    /// Replication of datasets between hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicate: Vec<Replication>,
    /// How a change travels over the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Snapshots around deploys.
    pub snapshots: SnapshotPolicy,
    /// What happens when reality drifts from the spec.
    pub drift: DriftPolicy,
}

impl DeploySpec {
    /// A spec that wants nothing, with every default.
    pub fn empty(name: DeployName) -> Self {
        Self {
            name,
            pool: None,
            hosts: BTreeMap::new(),
            datasets: BTreeMap::new(),
            apps: BTreeMap::new(),
            jails: BTreeMap::new(),
            zones: BTreeMap::new(),
            models: BTreeMap::new(),
            jobs: BTreeMap::new(),
            secrets: BTreeMap::new(),
            replicate: Vec::new(),
            rollout: None,
            snapshots: SnapshotPolicy::default(),
            drift: DriftPolicy::default(),
        }
    }
}

/// Where something belongs in a fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Placement {
    /// Every host of the spec (or this host when the spec names none).
    All,
    /// Hosts whose label has this value.
    Label(String, String),
    /// These hosts.
    Hosts(Vec<HostName>),
}

/// A dataset to have. Absent properties are left as they are (inherited from the parent).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// `on`, `off`, `lz4`, `zstd`, `zstd-N`, `gzip`, `gzip-N`, `zle`, `lzjb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Upper limit of the space used, in bytes; 0 means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Record size in bytes: a power of two from 512 to 16 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recordsize: Option<u64>,
    /// Absolute path, `none` or `legacy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<String>,
    /// Whether reading updates access times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atime: Option<bool>,
    /// Where it belongs.
    pub on: Placement,
    /// Further native ZFS properties, as written (`sync`, `logbias`, `primarycache`, ...).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// How a secret slot comes to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SecretSource {
    /// So many random bytes.
    Random {
        /// How many.
        bytes: u32,
    },
    /// Written by the operator.
    Manual,
    /// A file.
    File(String),
    /// A variable of the daemon's environment.
    Env(String),
}

/// Snapshots around deploys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPolicy {
    /// Take and keep one before each deploy. (One is always taken for the time of the deploy.)
    pub before_deploy: bool,
    /// How many to keep for each dataset.
    pub keep: u32,
}

/// What happens when reality drifts from the spec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriftPolicy {
    /// Say so in status. The default.
    #[default]
    Report,
    /// Converge again.
    Heal,
}
