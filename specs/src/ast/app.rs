//! Apps, and what decides whether, where and how they run. Types only.

use super::Placement;
use crate::listen::Listen;
use crate::names::AppName;
use crate::names::DatasetPath;
use crate::names::JailName;
use crate::names::SlotName;
use crate::names::ZoneName;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

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
    #[serde(with = "super::duration::text")]
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
    /// Where clients reach it: zed forwards from there to the healthy instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
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
    Container {
        /// What it reaches, and what reaches it.
        network: Network,
    },
}

/// The network of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// That of the host: its ports are the host's.
    #[default]
    Host,
    /// None but its own loopback.
    Private,
}

/// When an app counts as healthy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// All must pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// Time between attempts.
    #[serde(with = "super::duration::text")]
    pub interval: Duration,
    /// Time one attempt may take.
    #[serde(with = "super::duration::text")]
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
        /// `http://` or `https://` URL.
        url: String,
        /// The status that is healthy; any 2xx when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<u16>,
        /// Text that the body must contain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// PEM file of the authorities that may have signed the certificate, instead of the host's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
        /// The certificate is not checked at all.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        insecure: bool,
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
    #[serde(with = "super::duration::text")]
    pub backoff: Duration,
    /// Longest pause.
    #[serde(with = "super::duration::text")]
    pub max_backoff: Duration,
    /// Give up after so many restarts in a row; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up_after: Option<u32>,
}

/// Commands around a deploy. Each is a program with its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hooks {
    /// Each command is killed after this.
    #[serde(with = "super::duration::text")]
    #[serde(default = "Hooks::default_timeout", skip_serializing_if = "Hooks::is_default_timeout")]
    pub timeout: Duration,
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
        #[serde(with = "super::duration::text")]
        drain: Duration,
    },
    /// Instance by instance.
    Rolling {
        /// How many at once.
        batch: u32,
        /// Pause between batches.
        #[serde(with = "super::duration::text")]
        pause: Duration,
    },
    /// One instance first.
    Canary {
        /// How many first.
        instances: u32,
        /// How long they must stay healthy.
        #[serde(with = "super::duration::text")]
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
