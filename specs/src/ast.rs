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
    pub pool: Option<String>,
    /// Hosts of the fleet. Empty: this host only.
    pub hosts: BTreeMap<HostName, Host>,
    /// Datasets to have.
    pub datasets: BTreeMap<DatasetPath, Dataset>,
    /// Apps to run.
    pub apps: BTreeMap<AppName, App>,
    /// FreeBSD jails.
    pub jails: BTreeMap<JailName, Jail>,
    /// illumos zones.
    pub zones: BTreeMap<ZoneName, Zone>,
    /// Model artifacts.
    pub models: BTreeMap<ModelName, Model>,
    /// Jobs.
    pub jobs: BTreeMap<JobName, Job>,
    /// Secret slots.
    pub secrets: BTreeMap<SlotName, SecretSource>,
    /// Replication of datasets between hosts.
    pub replicate: Vec<Replication>,
    /// How a change travels over the hosts.
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
    pub labels: BTreeMap<String, String>,
    /// GPUs it is known to have.
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
    pub compression: Option<String>,
    /// Upper limit of the space used, in bytes; 0 means none.
    pub quota: Option<u64>,
    /// Record size in bytes: a power of two from 512 to 16 MiB.
    pub recordsize: Option<u64>,
    /// Absolute path, `none` or `legacy`.
    pub mountpoint: Option<String>,
    /// Whether reading updates access times.
    pub atime: Option<bool>,
    /// Where it belongs.
    pub on: Placement,
    /// Further native ZFS properties, as written (`sync`, `logbias`, `primarycache`, ...).
    pub properties: BTreeMap<String, String>,
}

/// An app to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// The dataset that holds it: its state is stamped there.
    pub dataset: DatasetPath,
    /// Further datasets that are snapshotted and rolled back with it.
    pub data: Vec<DatasetPath>,
    /// The version, as text.
    pub version: String,
    /// The program and its arguments. Empty: the runtime's default (a BEAM release's own start script),
    /// or no process at all.
    pub command: Vec<String>,
    /// What to unpack before it starts.
    pub artifact: Option<Artifact>,
    /// Environment, literally.
    pub env: BTreeMap<String, String>,
    /// Environment from elsewhere.
    pub env_from: BTreeMap<String, ValueFrom>,
    /// The user it runs as.
    pub user: Option<String>,
    /// The group it runs as.
    pub group: Option<String>,
    /// Limits on its resources.
    pub limits: Limits,
    /// Where it runs.
    pub runtime: Runtime,
    /// The BEAM node name.
    pub node_name: Option<String>,
    /// The BEAM cookie.
    pub cookie: Option<ValueFrom>,
    /// Health probes; the deploy waits for them.
    pub health: Health,
    /// What happens when its process ends.
    pub restart: Restart,
    /// Time from TERM to KILL when it is stopped.
    #[serde(with = "duration_ms")]
    pub stop_grace: Duration,
    /// Apps that must be healthy before this one starts.
    pub depends_on: Vec<AppName>,
    /// Commands around a deploy.
    pub hooks: Hooks,
    /// How a new version replaces the old one.
    pub strategy: Strategy,
    /// How many run at once.
    pub instances: u32,
    /// Only there when this holds.
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
    pub memory: Option<u64>,
    /// CPUs, 1.5 is one and a half.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Open files.
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
    pub probes: Vec<Probe>,
    /// Time between attempts.
    #[serde(with = "duration_ms")]
    pub interval: Duration,
    /// Time one attempt may take.
    #[serde(with = "duration_ms")]
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
        expect: Option<u16>,
        /// Text that the body must contain.
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
    #[serde(with = "duration_ms")]
    pub backoff: Duration,
    /// Longest pause.
    #[serde(with = "duration_ms")]
    pub max_backoff: Duration,
    /// Give up after so many restarts in a row; never when absent.
    pub give_up_after: Option<u32>,
}

/// Commands around a deploy. Each is a program with its arguments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hooks {
    /// Before anything changes; a failure stops the deploy.
    pub before_deploy: Vec<Vec<String>>,
    /// After the app is healthy; a failure rolls back.
    pub after_deploy: Vec<Vec<String>>,
    /// Before a rollback.
    pub before_rollback: Vec<Vec<String>>,
    /// After a rollback.
    pub after_rollback: Vec<Vec<String>>,
    /// After a failed deploy was rolled back.
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
        #[serde(with = "duration_ms")]
        drain: Duration,
    },
    /// Instance by instance.
    Rolling {
        /// How many at once.
        batch: u32,
        /// Pause between batches.
        #[serde(with = "duration_ms")]
        pause: Duration,
    },
    /// One instance first.
    Canary {
        /// How many first.
        instances: u32,
        /// How long they must stay healthy.
        #[serde(with = "duration_ms")]
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
    pub ip4: Option<String>,
    /// `ADDRESS/PREFIX`.
    pub ip6: Option<String>,
    /// Interface that holds the addresses.
    pub interface: Option<String>,
    /// Its own network stack.
    pub vnet: bool,
    /// Host name inside.
    pub hostname: Option<String>,
    /// Packages to have.
    pub packages: Vec<String>,
    /// Datasets mounted inside.
    pub mounts: Vec<JailMount>,
    /// jail(8) parameters.
    pub params: BTreeMap<String, String>,
    /// What manages it.
    pub manager: JailManager,
    /// Jails that must run first.
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
    pub ip: Option<String>,
    /// Physical link below the VNIC.
    pub over: Option<String>,
    /// Limits.
    pub limits: Limits,
    /// Zones that must run first.
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
    pub vram_gb: Option<u32>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The model it works on.
    pub model: Option<ModelName>,
    /// Its dataset.
    pub dataset: DatasetPath,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `N epoch(s)`, `N step(s)` or a duration.
    pub checkpoint_every: Option<String>,
    /// Preferences for placement.
    pub prefer: Prefer,
    /// Environment, literally.
    pub env: BTreeMap<String, String>,
    /// Where it belongs.
    pub on: Placement,
}

/// Preferences for placement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prefer {
    /// GPU model.
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
    pub to: Vec<HostName>,
    /// How often; on change when absent.
    #[serde(with = "option_duration_ms")]
    pub every: Option<Duration>,
    /// How many snapshots the receivers keep.
    pub keep: Option<u32>,
    /// Which datasets qualify.
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
        #[serde(with = "duration_ms")]
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

/// Durations travel as whole milliseconds.
mod duration_ms {
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serializer;
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_millis)
    }
}

/// The same for one that may be absent.
mod option_duration_ms {
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serialize;
    use serde::Serializer;
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        value.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Option::<u64>::deserialize(d).map(|ms| ms.map(Duration::from_millis))
    }
}
