//! What the daemon shows of itself: plain values, made by zedd, served by zed-fs, read back by zedctl.
//!
//! Read leniently, so that a zedctl of one release understands the zedd of another: an absent field is its
//! default, an unknown one is skipped.

mod gpu;

pub use gpu::*;

use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that the tree shows, at one instant. Cheap to clone: parts are shared.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Grows with every change.
    pub version: u64,
    /// Seconds since 1970 of the change.
    pub changed_at: i64,
    /// This host.
    pub host: Arc<HostView>,
    /// Apps by name.
    pub apps: Arc<BTreeMap<String, Arc<AppView>>>,
    /// Deploys by name, those of `/zed/deploy`.
    pub deploys: Arc<BTreeMap<String, Arc<DeployView>>>,
    /// Dry runs by name, those of `/zed/plan`.
    pub plans: Arc<BTreeMap<String, Arc<DeployView>>>,
    /// Datasets by path, branches included.
    pub datasets: Arc<BTreeMap<String, Arc<DatasetView>>>,
}

/// This host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// `converged`, `converging`, `held`, `drift`, `failed`, `needs-operator`: the worst of its deploys.
    pub state: String,
    /// Version of zedd.
    pub zed_version: String,
    /// `embedded:/srv/zed`, `zfs:tank`.
    pub store: String,
    /// Bytes that can still be written.
    pub available: u64,
    /// Seconds since 1970 at which zedd started.
    pub started_at: i64,
    /// Apps by state: `running` 3.
    pub apps: BTreeMap<String, usize>,
    /// Apps that are to run and are not healthy.
    pub unhealthy: usize,
    /// Deploys by state.
    pub deploys: BTreeMap<String, usize>,
    /// How many datasets.
    pub datasets: usize,
    /// Facts: `os`, `arch`, `kernel`, `cpus`, `memory`, ...
    pub facts: BTreeMap<String, String>,
    /// What a person has to do, one line each.
    pub problems: Vec<String>,
}

/// One app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppView {
    /// Its name.
    pub name: String,
    /// Its deploy.
    pub deploy: String,
    /// `com.zed:version`: the release whose data and state the dataset holds; empty before the first.
    pub version: String,
    /// `running`, `completed`, `stopped`, `backoff`, `failed`, `gone`, `deploying`, `rolling-back`,
    /// `needs-operator`, `declared`.
    pub state: String,
    /// `healthy`, `unhealthy`, `unknown`.
    pub health: String,
    /// Seconds since 1970 of the last change of `health`, 0 when unknown.
    pub health_since: i64,
    /// Why it is not healthy, in one line, or empty.
    pub health_reason: String,
    /// Generation of the spec it was deployed from.
    pub generation: u64,
    /// The run that deployed it.
    pub run: String,
    /// `com.zed:spec`.
    pub spec: String,
    /// `com.zed:deployed_at`, RFC 3339.
    pub deployed_at: String,
    /// Why a rollback holds it, or empty: `rolled back to 1.0.0 ...`.
    pub held: String,
    /// Drift, or empty.
    pub drift: String,
    /// Its dataset.
    pub dataset: String,
    /// Where that is mounted.
    pub mountpoint: String,
    /// Process id, 0 when there is none.
    pub pid: u32,
    /// Restarts since it was started on purpose.
    pub restarts: u32,
    /// Seconds since 1970 of the last start, 0 when unknown.
    pub since: i64,
    /// How it ended the last time, or empty.
    pub last_exit: String,
    /// The last failure, or empty.
    pub error: String,
    /// Environment without values from elsewhere. Not in `status.json`, which everybody may read.
    #[serde(skip)]
    pub env: BTreeMap<String, String>,
    /// Where clients reach it, `127.0.0.1:8000`; empty without a front.
    pub listen: String,
    /// Its processes, when there is more than one or a front.
    pub instances: Vec<InstanceView>,
    /// Hosts it is on.
    pub hosts: Vec<String>,
    /// The file with its output.
    pub log: PathBuf,
    /// The files with the post-mortems of its processes.
    pub crashes: Vec<PathBuf>,
    /// Releases, oldest first; the running one last.
    pub history: Vec<ReleaseView>,
}

/// `apps/APP/health.json`: an app's health and each of its probes. Changes with every probe, so it is no part of
/// [`World`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthView {
    /// `healthy`, `unhealthy`, `unknown`.
    pub health: String,
    /// Seconds since 1970 of its last change, 0 when unknown.
    pub since: i64,
    /// Why it is not healthy, in one line, or empty.
    pub reason: String,
    /// Each probe of each process, as asked after the deploy.
    pub probes: Vec<ProbeView>,
}

/// One probe of one process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeView {
    /// The process: `api`, `api.2`.
    pub instance: String,
    /// Which probe: `GET http://127.0.0.1:80/`.
    pub probe: String,
    /// `passing`, `failing`, `unknown`.
    pub state: String,
    /// Seconds since 1970 of the last change of `state`, 0 when unknown.
    pub since: i64,
    /// Failures in a row up to now.
    pub failures: u32,
    /// How long the last answer took, in microseconds.
    pub latency_us: u64,
    /// Seconds since 1970 of the last answer, 0 when there was none.
    pub checked_at: i64,
    /// What it saw last.
    pub last: String,
}

/// One process of an app, or its front.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceView {
    /// `api`, `api.2`, `api.front`.
    pub name: String,
    /// As the app's.
    pub state: String,
    /// Its version.
    pub version: String,
    /// Where it listens, 0 when unknown.
    pub port: u16,
    /// Process id, 0 when there is none.
    pub pid: u32,
    /// Restarts since it was started on purpose.
    pub restarts: u32,
    /// The file with its output. Not in `status.json`: the tree has a file of its own for it.
    #[serde(skip)]
    pub log: PathBuf,
}

/// One release of an app that can be reached by a rollback, or the running one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReleaseView {
    /// Its version.
    pub version: String,
    /// The snapshot's name after `@`; empty for the running release.
    pub snapshot: String,
    /// The dataset that holds the snapshot now.
    pub dataset: String,
    /// Generation of its spec.
    pub generation: u64,
    /// When it was deployed, RFC 3339.
    pub deployed_at: String,
    /// When the snapshot was taken, RFC 3339.
    pub taken_at: String,
    /// `running`, `older`, `undone` (on a branch that a rollback left), `failed` (of a deploy that failed).
    pub kind: String,
}

/// One deploy: a spec and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployView {
    /// Its name.
    pub name: String,
    /// `accepted`, `converging`, `converged`, `held`, `drift`, `failed`, `rejected` (the file does not
    /// parse), `needs-operator`, `removing`.
    pub state: String,
    /// Counts accepted saves.
    pub generation: u64,
    /// sha256 of the canonical form.
    pub spec: String,
    /// The last run.
    pub run: String,
    /// One line: the verdict.
    pub verdict: String,
    /// When that was, RFC 3339.
    pub verdict_at: String,
    /// Progress while converging: `3/7 probe hello`.
    pub step: String,
    /// What would change now, as text; empty when nothing.
    pub plan: String,
    /// The same as JSON. Not in `status.json`: it holds environments, and has a file of its own.
    #[serde(skip)]
    pub plan_json: String,
    /// Diagnostics of the file, as text; empty when it is good.
    pub errors: String,
    /// Apps it declares.
    pub apps: Vec<String>,
    /// Seconds since 1970 of the last change of this view.
    pub changed_at: i64,
}

/// One dataset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatasetView {
    /// Path below the store's root.
    pub path: String,
    /// Native (local) and user properties, and `mountpoint`, `mounted`, `origin`, `referenced`, `guid`.
    pub properties: BTreeMap<String, String>,
}
