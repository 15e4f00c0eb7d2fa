//! The plan: a value that leaves execution no choices.

use crate::guest::GuestId;
use crate::guest::GuestSpec;
use crate::instance::Instance;
use crate::observed::Observed;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use zed_spec::App;
use zed_spec::AppName;
use zed_spec::Artifact;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::DeploySpec;
use zed_spec::Health;
use zed_spec::HostName;
use zed_spec::Limits;
use zed_spec::Listen;
use zed_spec::Restart;
use zed_spec::Runtime;
use zed_spec::ValueFrom;

/// Version of the plan's format, in `plan --json`, in saved plans and in the journal. Format 1 knew one process
/// an app, and no artifacts; it is still read.
pub const PLAN_FORMAT: u32 = 2;

/// Identifies one run of the reconcile loop: `[0-9a-z]{8,16}`, unique on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A spec as it was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// What it says.
    pub spec: DeploySpec,
    /// Counts accepted saves of this name, from 1.
    pub generation: u64,
    /// sha256 (hex) of its canonical form.
    pub sha256: String,
}

/// What a plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Make the host match a spec.
    Deploy,
    /// A spec went away: stop, release and keep.
    Undeclare,
    /// Put an app back to a release.
    Rollback {
        /// The app asked for.
        app: AppName,
        /// The target as the operator wrote it.
        target: String,
    },
    /// Start, stop or restart apps as they are stamped.
    Control {
        /// The (first) app.
        app: AppName,
        /// The verb.
        verb: String,
    },
}

/// What would be done, completely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_FORMAT`].
    pub format: u32,
    /// This run.
    pub run: RunId,
    /// Why it is made.
    pub purpose: Purpose,
    /// The deploy it belongs to.
    pub deploy: DeployName,
    /// The spec's generation.
    pub generation: u64,
    /// sha256 of the spec's canonical form.
    pub spec_sha256: String,
    /// Seconds since 1970.
    pub made_at: i64,
    /// Hash of everything observed that the plan depends on. A plan applied by name is refused when it
    /// differs from that of a plan made now.
    pub based_on: String,
    /// Independent parts: each succeeds, or is undone, by itself. Run in parallel, except that a unit waits
    /// for those it names in `after`.
    pub units: Vec<Unit>,
    /// What the planner has to say.
    pub notes: Vec<Note>,
}

/// Apps and datasets that stand or fall together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// `datasets`, or the names of its apps joined by `+`. Unique in a plan.
    pub name: String,
    /// Its apps.
    pub apps: Vec<AppName>,
    /// Names of units that must have succeeded first.
    pub after: Vec<String>,
    /// In this order. Everything before `commit_at` is undone when one of them fails.
    pub steps: Vec<PlannedStep>,
    /// Index of the first step after the point of no return: from here on a run is only completed.
    pub commit_at: usize,
}

/// One step with its undo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// What is done. May be repeated without harm.
    pub step: Step,
    /// What takes it back, in this order; the whole unit is undone last step first. May be repeated.
    /// Right once every step before this one is done, whether this one was done, half done or only begun;
    /// so a journal may begin several steps at once only where none of them is a `Snapshot` or a `Restore`.
    pub undo: Vec<Step>,
    /// One line: why.
    pub why: String,
}

/// Everything that execution can do. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Create and mount a dataset.
    CreateDataset {
        /// Which.
        path: DatasetPath,
        /// Native properties.
        native: BTreeMap<String, String>,
        /// User properties.
        user: BTreeMap<String, String>,
    },
    /// Mount a dataset that somebody unmounted.
    MountDataset {
        /// Which.
        path: DatasetPath,
    },
    /// Change properties of datasets, in one transaction where the store can.
    SetProps {
        /// What changes.
        changes: Vec<PropEdit>,
    },
    /// Take a set of snapshots at one instant, each stamped.
    Snapshot {
        /// Name after `@`, the same for all.
        name: String,
        /// Dataset and its stamp.
        set: BTreeMap<DatasetPath, BTreeMap<String, String>>,
    },
    /// Put a dataset back to a snapshot; what it was becomes the branch.
    Restore {
        /// Which.
        dataset: DatasetPath,
        /// The dataset that holds the snapshot.
        from: DatasetPath,
        /// The snapshot's name after `@`.
        snapshot: String,
        /// Where the present goes.
        branch: DatasetPath,
        /// All user properties afterwards.
        user: BTreeMap<String, String>,
        /// User properties to add to the branch.
        branch_user: BTreeMap<String, String>,
    },
    /// Take a `Restore` back; only ever an undo. When there is no `branch`, nothing was restored and there is
    /// nothing to do. When there is a `branch` and no dataset, `restore` was interrupted: it is completed
    /// first. Then the dataset is put back to `snapshot`, which is on the branch.
    UndoRestore {
        /// The [`Step::Restore`] that is taken back.
        restore: Box<Step>,
        /// Which dataset.
        dataset: DatasetPath,
        /// What `restore` made of it.
        branch: DatasetPath,
        /// The snapshot that was taken of it before `restore`.
        snapshot: String,
        /// Where what `restore` had put there goes.
        aside: DatasetPath,
        /// All user properties afterwards.
        user: BTreeMap<String, String>,
        /// User properties to add to `aside`.
        aside_user: BTreeMap<String, String>,
    },
    /// Turn a dataset that this run created into a branch. One that is not there is accepted: it had not
    /// been created, or is a branch already.
    Retire {
        /// Which.
        dataset: DatasetPath,
        /// Where it goes.
        branch: DatasetPath,
    },
    /// Unpack an artifact into a release folder of a dataset. What lies in that folder from another artifact is
    /// moved aside.
    Unpack {
        /// Which.
        unpack: Box<Unpack>,
    },
    /// Take an `Unpack` of this run back: what it unpacked goes, what it had moved aside returns.
    DiscardRelease {
        /// The dataset.
        dataset: DatasetPath,
        /// The folder below its mountpoint.
        folder: String,
        /// The run that unpacked it.
        run: RunId,
    },
    /// Point the dataset's link `current` at a release folder.
    SwitchRelease {
        /// The dataset.
        dataset: DatasetPath,
        /// The folder below its mountpoint; nothing removes the link.
        folder: Option<String>,
    },
    /// Remove release folders that nothing runs from any more.
    PruneReleases {
        /// The dataset.
        dataset: DatasetPath,
        /// Folders that stay.
        keep: BTreeSet<String>,
    },
    /// Stop one process of an app; done when nothing of it runs.
    StopApp {
        /// Which.
        #[serde(alias = "app")]
        instance: Instance,
        /// TERM to KILL.
        grace: Duration,
    },
    /// Start one process of an app. One that runs with the same `run_hash` is left alone.
    StartApp {
        /// What.
        run: Box<RunSpec>,
    },
    /// Remember a release, so that it can be started again after a rollback.
    RecordRelease {
        /// The app.
        release: Box<Release>,
    },
    /// Wait until an app is healthy. A one-shot is healthy when it has ended well.
    Probe {
        /// How.
        health: Health,
        /// What runs there.
        run: Box<RunSpec>,
    },
    /// Watch processes for a while: they have to stay healthy. An operator may cut it short, hold it or abort
    /// here.
    Soak {
        /// What runs there, each with its probes.
        runs: Vec<(RunSpec, Health)>,
        /// How long.
        lasts: Duration,
    },
    /// Let the app's front forward to these processes and to no other. Starts the front when it is needed.
    Route {
        /// Where to.
        route: Route,
    },
    /// Wait until a process has finished the connections that the front gave it.
    Drain {
        /// Which.
        instance: Instance,
        /// Its port.
        port: u16,
        /// No longer than this.
        at_most: Duration,
    },
    /// Run a hook in the app's environment.
    Hook {
        /// `before_deploy`, ...
        kind: String,
        /// Program and arguments.
        command: Vec<String>,
        /// What it runs beside.
        run: Box<RunSpec>,
        /// Killed after this.
        #[serde(default = "hook_timeout")]
        timeout: Duration,
    },
    /// Forget the record of one process of an app.
    ForgetApp {
        /// Which.
        #[serde(alias = "app")]
        instance: Instance,
    },
    /// Make a guest what its spec says: configuration, system, start, content. It must not run with another
    /// configuration.
    MakeGuest {
        /// What.
        guest: Box<GuestSpec>,
    },
    /// Have a guest run as it was made, and leave its content as it is.
    StartGuest {
        /// What it was made.
        guest: Box<GuestSpec>,
    },
    /// Stop a guest; done when nothing of it runs.
    StopGuest {
        /// Which.
        guest: GuestId,
    },
    /// Stop a guest and take its configuration away. Its data stay.
    RemoveGuest {
        /// Which.
        guest: GuestId,
    },
    /// Destroy snapshots that retention no longer keeps. One that is needed after all is left alone.
    DestroySnapshots {
        /// Dataset and name.
        set: Vec<(DatasetPath, String)>,
    },
    /// Destroy a branch that retention no longer keeps.
    DestroyBranch {
        /// Which.
        branch: DatasetPath,
    },
}

/// Changes to one dataset's properties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropEdit {
    /// Which.
    pub path: DatasetPath,
    /// Native; `None` inherits.
    pub native: BTreeMap<String, Option<String>>,
    /// User; `None` removes.
    pub user: BTreeMap<String, Option<String>>,
}

/// What is unpacked, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unpack {
    /// The app that it is for.
    pub app: AppName,
    /// The dataset that gets it.
    pub dataset: DatasetPath,
    /// Where it comes from.
    pub artifact: Artifact,
    /// What it must be, as it was observed or as the spec says: another one is refused.
    pub digest: Option<String>,
    /// The app's version.
    pub version: String,
    /// The folder below the dataset's mountpoint.
    pub folder: String,
    /// This run: what it has moved aside is found by it.
    pub run: RunId,
    /// Who owns the files; the daemon's user when absent.
    pub user: Option<String>,
    /// Their group.
    pub group: Option<String>,
}

/// Where the front of an app listens and where it forwards to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The app.
    pub app: AppName,
    /// Where clients connect.
    pub listen: Listen,
    /// The processes that get their connections, by port. None: the front is stopped.
    pub backends: BTreeMap<Instance, u16>,
    /// As whom the front runs once it listens; the daemon's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Everything needed to start one process of an app. Secret values are not in it: they are resolved at the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The app.
    pub app: AppName,
    /// Which of its processes, from 1.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub number: u32,
    /// Its deploy.
    pub deploy: DeployName,
    /// This host.
    pub host: HostName,
    /// Its version.
    pub version: String,
    /// sha256 over all that makes a process different: a change restarts it, equality never does.
    pub run_hash: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment, literally.
    pub env: BTreeMap<String, String>,
    /// Environment from elsewhere.
    pub env_from: BTreeMap<String, ValueFrom>,
    /// The dataset whose mountpoint is ZED_DATA.
    pub dataset: DatasetPath,
    /// The release folder below that mountpoint: the working directory. Without one it is the mountpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Further datasets of the app.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DatasetPath>,
    /// Where it runs.
    #[serde(default = "on_the_host", skip_serializing_if = "is_on_the_host")]
    pub runtime: Runtime,
    /// What it may use.
    #[serde(default, skip_serializing_if = "is_unlimited")]
    pub limits: Limits,
    /// User to run as.
    pub user: Option<String>,
    /// Group to run as.
    pub group: Option<String>,
    /// What happens when it ends.
    pub restart: Restart,
    /// TERM to KILL.
    pub stop_grace: Duration,
}

/// A release that can be started again: kept by the hash that is stamped as `com.zed:spec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// [`PLAN_FORMAT`].
    pub format: u32,
    /// The app's name.
    pub app: AppName,
    /// Its deploy.
    pub deploy: DeployName,
    /// `com.zed:spec`: sha256 of the resolved app.
    pub spec_hash: String,
    /// The app as the spec had it.
    pub definition: App,
    /// The folder that it runs in, below its dataset's mountpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Digest of the artifact in that folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
}

// serde hands out references.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_first(number: &u32) -> bool {
    *number == first()
}

fn first() -> u32 {
    1
}

/// Journals of the first zedd do not say.
fn hook_timeout() -> Duration {
    zed_spec::Hooks::DEFAULT_TIMEOUT
}

fn on_the_host() -> Runtime {
    Runtime::Process
}

fn is_on_the_host(runtime: &Runtime) -> bool {
    *runtime == Runtime::Process
}

fn is_unlimited(limits: &Limits) -> bool {
    *limits == Limits::default()
}

impl RunSpec {
    /// Which process it is.
    pub fn instance(&self) -> Instance {
        Instance::new(&self.app, self.number)
    }
}

/// How serious a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// For information.
    Info,
    /// Drift, or something to look at.
    Warning,
    /// The plan cannot be applied.
    Fatal,
}

/// What the planner or the linter has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How serious.
    pub severity: Severity,
    /// A stable word: `drift`, `held`, `unsupported`, `stopped`, ...
    pub kind: String,
    /// The object, `app hello`.
    pub object: String,
    /// What and what to do.
    pub text: String,
}

/// Inputs of the planner.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// The spec.
    pub declared: &'a Declared,
    /// The world.
    pub observed: &'a Observed,
    /// Known releases, by the hash that is stamped as `com.zed:spec`.
    pub releases: &'a BTreeMap<String, Release>,
    /// This run.
    pub run: &'a RunId,
    /// Seconds since 1970.
    pub now: i64,
    /// True when drift is to be repaired now (the spec says `drift: Heal`, the spec was saved, or an
    /// operator asked).
    pub heal: bool,
    /// Datasets of this deploy as it left them; nothing when that is not known. One of them that is gone was
    /// destroyed or renamed by somebody else.
    pub known: Option<&'a BTreeSet<DatasetPath>>,
    /// An operator asked for just this deploy: what is gone is begun anew, empty.
    pub recreate: bool,
}

impl Plan {
    /// True when nothing would be done.
    pub fn is_empty(&self) -> bool {
        self.units.iter().all(|unit| unit.steps.is_empty())
    }

    /// Notes that forbid applying it.
    pub fn fatal(&self) -> impl Iterator<Item = &Note> {
        self.notes.iter().filter(|note| note.severity == Severity::Fatal)
    }
}
