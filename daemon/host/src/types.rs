//! The trait through which the daemon runs apps, and the values that cross it.

use crate::guest::Guests;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use zed_plan::Instance;
use zed_plan::ObservedProcess;
use zed_plan::Route;
use zed_plan::RunSpec;
use zed_spec::Health;
use zed_spec::Limits;

/// Runs apps. Calls block up to their stated deadlines; the daemon makes them from worker threads.
/// Every call may be repeated.
pub trait Host: Send + Sync + 'static {
    /// Every process of an app that was started here and not forgotten. Cheap: no process is started.
    fn observe(&self) -> Result<BTreeMap<Instance, ProcessInfo>, HostError>;

    /// Starts one process of an app under its own supervisor, which outlives this process. When the app already runs with
    /// the same `run_hash` nothing happens; with another one it is `Busy`.
    fn start(&self, request: &Start) -> Result<(), HostError>;

    /// TERM, grace, KILL of the whole process group; returns when nothing of it is left.
    /// One that does not run is accepted.
    fn stop(&self, instance: &Instance, grace: Duration) -> Result<(), HostError>;

    /// Removes the record of a stopped process. Its logs stay.
    fn forget(&self, instance: &Instance) -> Result<(), HostError>;

    /// Probes until healthy, until the attempts are used up, or until `cancel` is set.
    fn probe(&self, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> ProbeReport;

    /// Asks every probe of a running app once, whatever the others say. `cancel` ends it early: what it then says is
    /// of no use. An app that does not run gives one result that is named `the process`.
    fn check(&self, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> Vec<ProbeResult>;

    /// Runs a hook and waits for it.
    fn run_hook(&self, request: &HookRequest) -> Result<HookReport, HostError>;

    /// Has the app's front run and forward to exactly these instances; without any, it is stopped and forgotten.
    /// What is open stays open. Nothing changes when it is so already.
    fn route(&self, route: &Route) -> Result<(), HostError>;

    /// Waits until nothing is open through the app's front to this instance, which the front forwards to no
    /// more, but not longer than `at_most`. Without a front nothing is open.
    fn drain(&self, instance: &Instance, port: u16, at_most: Duration) -> Result<Drained, HostError>;

    /// Jails and zones; `None` where this host can have neither.
    fn guests(&self) -> Option<Arc<dyn Guests>>;

    /// The file that holds its output, newest part.
    fn log_path(&self, instance: &Instance) -> PathBuf;

    /// The file that holds its post-mortems, as JSON; the same as text is beside it, without `.json`.
    fn crash_path(&self, instance: &Instance) -> PathBuf;
}

/// What is known of a started app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// For the planner.
    pub observed: ObservedProcess,
    /// The version that was started.
    pub version: String,
    /// Seconds since 1970 of the last start.
    pub since: Option<i64>,
    /// Restarts since it was started on purpose.
    pub restarts: u32,
    /// How the program ended the last time, `exit 1`.
    pub last_exit: Option<String>,
}

/// What makes a run a container: its root, its image and its folders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRequest {
    /// The folder that is its root file system.
    pub root: PathBuf,
    /// What its image says.
    pub image: ImageDefaults,
    /// The folder of the host that it sees as `/data`.
    pub data: PathBuf,
    /// Folders of the host that it sees under their own paths.
    pub mounts: Vec<PathBuf>,
    /// No network but its own loopback.
    pub private_network: bool,
    /// What it may use.
    pub limits: Limits,
}

/// What an image says about how it is run; a spec's own words come first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDefaults {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Working directory inside.
    pub workdir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`, inside.
    pub user: Option<String>,
}

/// Request of [`Host::start`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// What.
    pub run: RunSpec,
    /// The working directory: its release, or its dataset's mountpoint.
    pub directory: PathBuf,
    /// Mountpoint of its dataset: ZED_DATA.
    pub data: PathBuf,
    /// Complete environment, ZED_* and resolved values included.
    pub environment: BTreeMap<String, String>,
    /// Of an app that runs in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerRequest>,
}

/// What [`Host::drain`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Connections (with HTTP: requests) that are open still.
    pub left: u64,
}

/// Request of [`Host::probe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeRequest {
    /// Which process.
    pub instance: Instance,
    /// How.
    pub health: Health,
    /// The run it belongs to: probing stops with a failure when that run ends for good.
    pub run_hash: String,
    /// For Exec.
    pub directory: PathBuf,
    /// For Exec.
    pub environment: BTreeMap<String, String>,
    /// For Exec.
    pub user: Option<String>,
    /// For Exec.
    pub group: Option<String>,
}

/// What probing saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Healthy?
    pub healthy: bool,
    /// Attempts made.
    pub attempts: u32,
    /// One line: which probe failed, how often, what it saw last, how the program ended last; or what passed.
    pub summary: String,
    /// Every attempt, one line each.
    pub transcript: Vec<String>,
}

/// What one probe saw once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Which: `GET http://127.0.0.1:80/`.
    pub probe: String,
    /// As expected?
    pub passed: bool,
    /// What it saw.
    pub text: String,
    /// How long it took.
    pub took: Duration,
}

/// Request of [`Host::run_hook`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookRequest {
    /// The process that it is run beside; its log gets the output.
    pub instance: Instance,
    /// `before_deploy`, ...
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working directory.
    pub directory: PathBuf,
    /// Complete environment.
    pub environment: BTreeMap<String, String>,
    /// User to run as.
    pub user: Option<String>,
    /// Group to run as.
    pub group: Option<String>,
    /// Killed after this.
    pub deadline: Duration,
    /// Of an app that runs in a container: the hook gets one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerRequest>,
}

/// What a hook did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookReport {
    /// `exit 0`, `exit 1`, `signal 9`, `deadline of 30s passed`.
    pub ended: String,
    /// Exited 0?
    pub ok: bool,
    /// The last 16 KiB of stdout and stderr.
    pub output: String,
}

/// Why the host refused.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} `{object}`: {kind}")]
pub struct HostError {
    /// `start`, `stop`, ...
    pub operation: &'static str,
    /// `app hello`.
    pub object: String,
    /// What kind.
    pub kind: HostErrorKind,
    /// The cause below.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Kinds of refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostErrorKind {
    /// Program, user or directory is not there.
    #[error("{0}")]
    NotFound(String),
    /// Another run of the app is there.
    #[error("it runs already as another release")]
    Busy,
    /// It did not happen in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// Not allowed.
    #[error("permission denied: {0}")]
    Permission(String),
    /// A limit of the spec cannot be enforced here.
    #[error("{0}")]
    Limit(String),
    /// Anything else the system said.
    #[error("{0}")]
    Io(String),
}
