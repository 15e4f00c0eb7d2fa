//! The types of a spec. Everything that a user can write is here, and nothing that zed observes.
//!
//! Field order is the order in the canonical form. Adding an optional field does not change the hash of
//! specs that leave it out: absent options and empty collections are not written.

use crate::names::AppName;
use crate::names::DatasetPath;
use crate::names::DeployName;
use crate::names::HostName;
use crate::names::JailName;
use crate::names::JobName;
use crate::names::ModelName;
use crate::names::SlotName;
use crate::names::ZoneName;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

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

/// An app to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// The dataset that holds it: its state is stamped there.
    pub dataset: DatasetPath,
    /// Further datasets that are snapshotted and rolled back with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DatasetPath>,
    /// The version, as text.
    pub version: String,
    /// The program and its arguments. Empty: the runtime's default (a BEAM release's own start script),
    /// or no process at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What to unpack before it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Environment, literally.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment from elsewhere.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_from: BTreeMap<String, ValueFrom>,
    /// The user it runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The group it runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Limits on its resources.
    pub limits: Limits,
    /// Where it runs.
    pub runtime: Runtime,
    /// The BEAM node name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The BEAM cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<ValueFrom>,
    /// Health probes; the deploy waits for them.
    pub health: Health,
    /// What happens when its process ends.
    pub restart: Restart,
    /// Time from TERM to KILL when it is stopped.
    #[serde(with = "duration_text")]
    pub stop_grace: Duration,
    /// Apps that must be healthy before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<AppName>,
    /// Commands around a deploy.
    pub hooks: Hooks,
    /// How a new version replaces the old one.
    pub strategy: Strategy,
    /// How many run at once.
    pub instances: u32,
    /// Only there when this holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Where it belongs.
    pub on: Placement,
}

/// What an app is unpacked from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Artifact {
    /// A tar archive (gz, zst, xz or plain).
    Tar {
        /// Absolute path on the host.
        path: String,
        /// Lower-case hex; checked before anything changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// A directory.
    Dir {
        /// Absolute path on the host.
        path: String,
    },
    /// An OCI image layout on disk.
    Oci {
        /// Absolute path on the host.
        path: String,
        /// Manifest digest, `sha256:...`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
    },
}

/// A value that is not written in the spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValueFrom {
    /// A variable of the daemon's environment. Unset or empty is an error.
    Env(String),
    /// A file's content without trailing newlines.
    File(String),
    /// A secret slot.
    Secret(SlotName),
}

/// Limits; absent means none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// CPUs, 1.5 is one and a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Open files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nofile: Option<u64>,
}

/// Where an app runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// A supervised process on the host.
    Process,
    /// Inside this jail.
    Jail(JailName),
    /// Inside this zone.
    Zone(ZoneName),
    /// In a container of its own, through the host's OCI runtime.
    Container,
}

/// When an app counts as healthy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// All must pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// Time between attempts.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// Time one attempt may take.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// Attempts before the deploy fails.
    pub attempts: u32,
    /// Passes in a row that are needed.
    pub successes: u32,
}

/// One health probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Probe {
    /// GET; healthy when the status (and the text) is as expected.
    Http {
        /// `http://` URL.
        url: String,
        /// The status that is healthy; any 2xx when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<u16>,
        /// Text that the body must contain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
    },
    /// Connects.
    Tcp {
        /// `HOST:PORT`.
        address: String,
    },
    /// Runs a command in the app's environment; healthy when it exits 0.
    Exec {
        /// Program and arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        command: Vec<String>,
    },
    /// Distribution handshake with the app's BEAM node.
    BeamPing,
}

/// What happens when the process ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Restart {
    /// Never restarted: a one-shot. Its exit status decides.
    Never,
    /// Restarted unless it exits 0.
    OnFailure(Backoff),
    /// Always restarted. The default.
    Always(Backoff),
}

/// Pauses between restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// First pause; doubles each time.
    #[serde(with = "duration_text")]
    pub backoff: Duration,
    /// Longest pause.
    #[serde(with = "duration_text")]
    pub max_backoff: Duration,
    /// Give up after so many restarts in a row; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up_after: Option<u32>,
}

/// Commands around a deploy. Each is a program with its arguments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hooks {
    /// Before anything changes; a failure stops the deploy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before_deploy: Vec<Vec<String>>,
    /// After the app is healthy; a failure rolls back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_deploy: Vec<Vec<String>>,
    /// Before a rollback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before_rollback: Vec<Vec<String>>,
    /// After a rollback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_rollback: Vec<Vec<String>>,
    /// After a failed deploy was rolled back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<Vec<String>>,
}

/// How a new version replaces the old one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Strategy {
    /// Stop the old, start the new.
    Replace,
    /// Both run; traffic moves when the new one is healthy.
    BlueGreen {
        /// The two ports.
        ports: (u16, u16),
        /// Time the old one may finish its work.
        #[serde(with = "duration_text")]
        drain: Duration,
    },
    /// Instance by instance.
    Rolling {
        /// How many at once.
        batch: u32,
        /// Pause between batches.
        #[serde(with = "duration_text")]
        pause: Duration,
    },
    /// One instance first.
    Canary {
        /// How many first.
        instances: u32,
        /// How long they must stay healthy.
        #[serde(with = "duration_text")]
        pause: Duration,
    },
}

/// A condition on facts and environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Condition {
    /// All hold.
    All(Vec<Condition>),
    /// One holds.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// A fact of the host (`os`, `arch`, `host`, ...) has this value.
    Fact(String, String),
    /// A variable of the daemon's environment has this value.
    Env(String, String),
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
    #[serde(default, with = "option_duration_text", skip_serializing_if = "Option::is_none")]
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
        #[serde(with = "duration_text")]
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

/// Durations travel as a person writes them, `1m30s`, so that every form of a spec is a spec.
mod duration_text {
    use crate::quantity::parse_duration;
    use crate::quantity::render_duration;
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serializer;
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&render_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// The same for one that may be absent.
mod option_duration_text {
    use crate::quantity::parse_duration;
    use crate::quantity::render_duration;
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serialize;
    use serde::Serializer;
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        value.map(render_duration).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|text| parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
    }
}
