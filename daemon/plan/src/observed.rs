//! What the planner is told about the world. zedd fills it; nothing here reads anything.

use crate::guest::GuestId;
use crate::guest::ObservedGuest;
use crate::instance::Instance;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::HostName;

/// One look at the host: store and runtimes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// This host.
    pub host: Option<HostName>,
    /// Pool (or pool/path) of the store, `None` for the embedded one.
    pub pool: Option<String>,
    /// Bytes that can still be written.
    pub available: u64,
    /// Every dataset below the store's root, branches included.
    pub datasets: BTreeMap<DatasetPath, ObservedDataset>,
    /// Snapshots that carry a stamp, each dataset's oldest first.
    pub snapshots: BTreeMap<DatasetPath, Vec<ObservedSnapshot>>,
    /// What the process runtime knows, by instance.
    pub processes: BTreeMap<Instance, ObservedProcess>,
    /// Facts for conditions: `os`, `arch`, `host`, ...
    pub facts: BTreeMap<String, String>,
    /// The daemon's environment, only the variables that specs name; unset ones are absent.
    pub env: BTreeMap<String, String>,
    /// sha256 (hex) of each file that a spec reads a value from; missing ones are absent.
    pub files: BTreeMap<String, String>,
    /// Digest of each artifact that a spec names, by its path; one that is not there is absent.
    #[serde(default)]
    pub artifacts: BTreeMap<String, String>,
    /// Why an artifact that is there cannot be used, by its path.
    #[serde(default)]
    pub unusable: BTreeMap<String, String>,
    /// What is there of releases, in datasets that have an artifact's.
    #[serde(default)]
    pub folders: BTreeMap<DatasetPath, ObservedFolders>,
    /// Jails and zones: those that zed made, and others that are there.
    #[serde(default)]
    pub guests: BTreeMap<GuestId, ObservedGuest>,
    /// Runtimes that this host has: `process`, `jail`, `zone`, `container`.
    pub runtimes: BTreeSet<String>,
}

impl Observed {
    /// What the process runtime knows of an app, by number; its front is number 0.
    pub fn processes_of(&self, app: &AppName) -> impl Iterator<Item = (u32, &ObservedProcess)> {
        let all = Instance::new(app, 0)..=Instance::new(app, u32::MAX);
        self.processes.range(all).map(|(instance, process)| (instance.number, process))
    }

    /// The processes of an app that run or will by themselves; its front is not among them.
    pub fn alive(&self, app: &AppName) -> Vec<u32> {
        let all = self.processes_of(app);
        all.filter(|(number, process)| *number > 0 && process.status.is_alive())
            .map(|(number, _)| number)
            .collect()
    }

    /// What it knows of one process.
    pub fn process(&self, app: &AppName, number: u32) -> Option<&ObservedProcess> {
        self.processes.get(&Instance::new(app, number))
    }
}

impl ProcessStatus {
    /// True when something runs, or will by itself.
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Running { .. } | Self::Backoff { .. } => true,
            Self::Completed | Self::Failed(_) | Self::Stopped | Self::Gone { .. } => false,
        }
    }
}

/// A dataset as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedDataset {
    /// Where it is mounted or would be.
    pub mountpoint: Option<String>,
    /// Mounted now?
    pub mounted: bool,
    /// Native properties set locally, canonical text.
    pub native: BTreeMap<String, String>,
    /// User properties with source `local`, by full name.
    pub user: BTreeMap<String, String>,
    /// The snapshot it is a clone of, as dataset and name.
    pub origin: Option<(DatasetPath, String)>,
}

/// The release folders of a dataset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedFolders {
    /// Where the link `current` points to; nothing when there is no such link.
    pub current: Option<String>,
    /// The folders, as they are named in releases: `releases/1.0.0`.
    pub releases: BTreeSet<String>,
}

/// A stamped snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedSnapshot {
    /// The part after `@`.
    pub name: String,
    /// Order of creation within the store.
    pub txg: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// User properties set on the snapshot itself: the stamp.
    pub user: BTreeMap<String, String>,
    /// Datasets that are clones of it.
    pub clones: Vec<DatasetPath>,
}

/// What the process runtime says of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedProcess {
    /// [`crate::RunSpec::run_hash`] of what was started.
    pub run_hash: String,
    /// Its state.
    pub status: ProcessStatus,
}

/// State of a supervised process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ProcessStatus {
    /// Runs.
    Running {
        /// Process id of the program.
        pid: u32,
    },
    /// Ended and will be restarted.
    Backoff {
        /// Restarts in a row.
        restarts: u32,
    },
    /// A one-shot that ended well.
    Completed,
    /// Ended and will not be restarted; the text says how (`exit 1`, `signal 9`).
    Failed(String),
    /// Stopped on purpose.
    Stopped,
    /// It should run by the last record, but neither it nor its supervisor is there.
    Gone {
        /// True when the host has booted since: nobody killed it.
        rebooted: bool,
    },
}
