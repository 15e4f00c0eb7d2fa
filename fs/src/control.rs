//! The one trait between the tree and the daemon.

use crate::JobKey;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use zed_ctl::CtlError;
use zed_ctl::HealthView;
use zed_ctl::World;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, 0 when unknown.
    pub pid: u32,
}

/// Which verb file was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerbFile {
    /// `/zed/ctl`
    Root,
    /// `/zed/apps/APP/ctl`
    App(String),
    /// `/zed/apps/APP/rollback`
    Rollback(String),
    /// `/zed/hosts/HOST/ctl`
    Host(String),
    /// `/zed/gpu/N/ctl`
    Gpu(u32),
    /// `/zed/gpu/N/jobs/ID/ctl`
    GpuJob(JobKey),
}

/// Identifies an accepted command until its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a waiter waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitFor {
    /// An accepted command has ended.
    Ticket(Ticket),
    /// A deploy's last save has converged or failed (what `sync` and `NAME.wait` wait for).
    Settled(String),
}

/// How a wait ended: text for `NAME.wait`, or why it failed.
pub type Outcome = Result<String, CtlError>;

/// Called once, from any thread, when a wait has ended. Must be quick.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

/// Which folder of specs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpecDir {
    /// `/zed/deploy`
    Deploy,
    /// `/zed/plan`
    Plan,
}

/// The daemon as the tree sees it. No method blocks.
pub trait Control: Send + Sync + 'static {
    /// One consistent snapshot of everything shown.
    fn world(&self) -> Arc<World>;

    /// Prometheus text.
    fn metrics(&self) -> String;

    /// An app's health with each of its probes, as of now; nothing for an app that the world does not have.
    fn health(&self, app: &str) -> Option<HealthView>;

    /// Level of the daemon's log.
    fn log_level(&self) -> String;

    /// What is on this host and in no spec yet, as a spec (`hosts/HOST/import.ron`). Asked once for each world.
    fn import(&self) -> String;

    /// Judges one verb, without its newline: refused now, or accepted. `None` means that it is done already.
    fn submit(&self, caller: Caller, file: &VerbFile, verb: &str) -> Result<Option<Ticket>, CtlError>;

    /// Applies exactly the plan in `bytes` (what a read of `NAME.plan` or `NAME.plan.json` gave) to deploy
    /// `name`: refused with `Code::Stale` when the host has moved since, accepted otherwise. `None` means
    /// that it is done already.
    fn apply_plan(&self, caller: Caller, name: &str, bytes: &[u8]) -> Result<Option<Ticket>, CtlError>;

    /// Calls `done` when it has ended; at once when it has ended already or does not exist.
    fn when(&self, what: WaitFor, done: Done);

    /// The real folder that holds the specs, byte for byte as saved. The tree writes complete files there
    /// (temporary name, fsync, rename) and then calls `spec_saved`.
    fn spec_dir(&self, dir: SpecDir) -> &Path;

    /// Parses and validates without any effect: the verdict that fsync, rename and close give.
    fn check_spec(&self, dir: SpecDir, name: &str, text: &[u8]) -> Result<(), CtlError>;

    /// A complete spec file was placed, replaced or removed: look again. Called once a save, also when the
    /// bytes are the same (saving again releases a held rollback and retries a failed deploy).
    fn spec_saved(&self, dir: SpecDir, name: &str);

    /// The file that `/zed/events` streams.
    fn events_path(&self) -> &Path;

    /// The file that `apps/APP/events` streams; it need not be there.
    fn app_events_path(&self, app: &str) -> PathBuf;

    /// The file that `/zed/log` streams: the daemon's own log.
    fn log_path(&self) -> &Path;

    /// The GPUs of this host; nothing when the daemon was started without.
    fn gpus(&self) -> Option<Arc<dyn crate::Gpus>> {
        None
    }

    /// Calls `hook` after every change of the world (for waking pollers). Must be quick.
    fn on_change(&self, hook: Box<dyn Fn(u64) + Send + Sync>);
}
