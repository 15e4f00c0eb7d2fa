//! Hosts, jails, zones, models, jobs, and what travels between hosts. Types only.

use super::Limits;
use super::Placement;
use crate::names::DatasetPath;
use crate::names::HostName;
use crate::names::JailName;
use crate::names::ModelName;
use crate::names::ZoneName;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A host of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// `IP:PORT` or `NAME:PORT` of its zedd.
    pub address: String,
    /// Labels for `on: Label(..)`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// GPUs it is known to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
}

/// A GPU that a host declares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Model name, for instance `RTX 4090`.
    pub model: String,
    /// Memory in GB (10^9 bytes, as vendors count).
    pub vram_gb: u32,
}

/// A FreeBSD jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Jail {
    /// Its dataset.
    pub dataset: DatasetPath,
    /// FreeBSD release, `14.2-RELEASE`.
    pub release: String,
    /// `ADDRESS/PREFIX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip4: Option<String>,
    /// `ADDRESS/PREFIX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<String>,
    /// Interface that holds the addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Its own network stack.
    pub vnet: bool,
    /// Host name inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Packages to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Datasets mounted inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<JailMount>,
    /// jail(8) parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Files to have inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<JailFile>,
    /// Commands that are run inside, in this order, when this list is new or has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<Vec<String>>,
    /// Services to enable and start inside, by sysrc(8) and service(8).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// What manages it.
    pub manager: JailManager,
    /// Jails that must run first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<JailName>,
    /// Limits, through rctl(8).
    pub limits: Limits,
    /// Where it belongs.
    pub on: Placement,
}

/// A dataset mounted in a jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailMount {
    /// The dataset.
    pub dataset: DatasetPath,
    /// Absolute path inside.
    pub at: String,
    /// Read-only?
    pub read_only: bool,
}

/// A file inside a jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailFile {
    /// Absolute path inside.
    pub path: String,
    /// All that is in it.
    pub content: String,
    /// Permission bits in octal, `0644`.
    pub mode: String,
}

/// What manages a jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JailManager {
    /// jail.conf.d and jail(8).
    JailConf,
    /// Bastille.
    Bastille,
}

/// An illumos zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// Its dataset.
    pub dataset: DatasetPath,
    /// `pkgsrc`, `ipkg`, `lipkg`, `sparse`, `lx`, `bhyve`, ...
    pub brand: String,
    /// `ADDRESS/PREFIX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Physical link below the VNIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// Limits.
    pub limits: Limits,
    /// Zones that must run first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<ZoneName>,
    /// Where it belongs.
    pub on: Placement,
}

/// A model artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its dataset.
    pub dataset: DatasetPath,
    /// Its version.
    pub version: String,
    /// What a host must have.
    pub requires: Requires,
    /// Where it belongs.
    pub on: Placement,
}

/// What a model needs of a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Requires {
    /// GPU memory of one device, in GB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_gb: Option<u32>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The model it works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// Its dataset.
    pub dataset: DatasetPath,
    /// Program and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// `N epoch(s)`, `N step(s)` or a duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<String>,
    /// Preferences for placement.
    pub prefer: Prefer,
    /// Environment, literally.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where it belongs.
    pub on: Placement,
}

/// Preferences for placement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prefer {
    /// GPU model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
}

/// Replication of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replication {
    /// Which.
    pub dataset: DatasetPath,
    /// From this host.
    pub from: HostName,
    /// To these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<HostName>,
    /// How often; on change when absent.
    #[serde(default, with = "super::duration::option_text", skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// How many snapshots the receivers keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// Which datasets qualify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<ReplicationFilter>,
}

/// Which datasets a replication takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ReplicationFilter {
    /// Those smaller than this, in bytes.
    SizeBelow(u64),
}

/// How a change travels over the hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Rollout {
    /// All at once.
    AllAtOnce,
    /// In batches.
    Rolling {
        /// Hosts at once.
        batch: u32,
        /// Pause between batches.
        #[serde(with = "super::duration::text")]
        pause: Duration,
        /// What a failure does.
        on_failure: OnFailure,
    },
}

/// What a failed host does to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// Every host goes back.
    RollBackAll,
    /// The rollout stops.
    Stop,
    /// The rollout goes on.
    Continue,
}
