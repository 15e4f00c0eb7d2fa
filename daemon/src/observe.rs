//! One look at the store and the host, as the planner wants it.
//!
//! Reads and changes nothing. Costs one pass over the store.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use zed_artifact::Digests;
use zed_artifact::Found;
use zed_host::Host;
use zed_host::HostError;
use zed_host::ProcessInfo;
use zed_host::guest::GuestError;
use zed_plan::Instance;
use zed_plan::Observed;
use zed_plan::ObservedDataset;
use zed_plan::ObservedFolders;
use zed_plan::ObservedSnapshot;
use zed_spec::App;
use zed_spec::HostName;
use zed_spec::ValueFrom;
use zed_store::Dataset;
use zed_store::Snapshot;
use zed_store::Store;
use zed_store::StoreError;

/// Longest file that a value is read from, in bytes.
pub const MAX_VALUE_FILE: usize = 1 << 20;

/// What does not change between two looks.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// This host.
    pub host: HostName,
    /// Pool of the store, `None` for the embedded one.
    pub pool: Option<String>,
    /// Facts for conditions: only those that stay as they are, so that no app comes and goes with free space.
    pub facts: BTreeMap<String, String>,
    /// Runtimes of this host.
    pub runtimes: BTreeSet<String>,
}

/// What was seen, for the planner and for the views.
#[derive(Debug, Clone)]
pub struct Look {
    /// For the planner.
    pub observed: Arc<Observed>,
    /// The store's own values.
    pub datasets: Arc<Vec<Arc<Dataset>>>,
    /// The host's own values.
    pub processes: Arc<BTreeMap<Instance, ProcessInfo>>,
}

/// Why looking failed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The store could not be read.
    #[error("failed to observe the store")]
    Store(#[source] StoreError),
    /// The process runtime could not be read.
    #[error("failed to observe the apps")]
    Host(#[source] HostError),
    /// The tools of jails or zones could not be asked.
    #[error(transparent)]
    Guests(GuestError),
}

/// Looks once. `apps`, declared and kept, say which variables and files matter.
pub fn observe<'a>(
    store: &dyn Store,
    host: &dyn Host,
    fixed: &Fixed,
    digests: &Digests,
    apps: impl Iterator<Item = &'a App>,
) -> Result<Look, ObserveError> {
    let datasets = store.list().map_err(ObserveError::Store)?;
    let snapshots = store.snapshots(None).map_err(ObserveError::Store)?;
    let info = store.info().map_err(ObserveError::Store)?;
    let processes = host.observe().map_err(ObserveError::Host)?;
    let guests = host.guests().map(|guests| guests.observe()).transpose().map_err(ObserveError::Guests)?;
    let apps: Vec<&App> = apps.collect();
    let (env, files) = values_from_elsewhere(apps.iter().copied());
    let (artifacts, unusable) = artifacts(digests, &apps);
    let observed = Observed {
        host: Some(fixed.host.clone()),
        pool: fixed.pool.clone(),
        available: info.available,
        datasets: datasets.iter().map(|dataset| (dataset.path.clone(), observed_dataset(dataset))).collect(),
        snapshots: observed_snapshots(&snapshots),
        processes: processes.iter().map(|(app, info)| (app.clone(), info.observed.clone())).collect(),
        facts: fixed.facts.clone(),
        env,
        files,
        artifacts,
        unusable,
        folders: folders(&datasets),
        guests: guests.unwrap_or_default(),
        runtimes: fixed.runtimes.clone(),
    };
    Ok(Look { observed: Arc::new(observed), datasets: Arc::new(datasets), processes: Arc::new(processes) })
}

/// Digests of artifacts by their paths, and why those without one cannot be used.
fn artifacts(digests: &Digests, apps: &[&App]) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut usable = BTreeMap::new();
    let mut unusable = BTreeMap::new();
    for (path, found) in digests.look(apps.iter().filter_map(|app| app.artifact.as_ref())) {
        match found {
            Found::Digest(digest) => drop(usable.insert(path, digest)),
            Found::Unusable(why) => drop(unusable.insert(path, why)),
            Found::Missing => {}
        }
    }
    (usable, unusable)
}

/// Release folders, and the link to the current one, of mounted datasets that an artifact is stamped on.
fn folders(datasets: &[Arc<Dataset>]) -> BTreeMap<zed_spec::DatasetPath, ObservedFolders> {
    let unpacked = |dataset: &&Arc<Dataset>| {
        dataset.mounted
            && dataset.user.keys().any(|key| key.starts_with("com.zed:") && key.ends_with("artifact"))
    };
    let mut found = BTreeMap::new();
    for dataset in datasets.iter().filter(unpacked) {
        let Some(mountpoint) = &dataset.mountpoint else { continue };
        let current = std::fs::read_link(mountpoint.join(zed_artifact::CURRENT)).ok();
        let entries =
            std::fs::read_dir(mountpoint.join(zed_artifact::RELEASES)).into_iter().flatten().flatten();
        let releases = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| Some(format!("{}/{}", zed_artifact::RELEASES, entry.file_name().to_str()?)))
            .collect();
        let current = current.and_then(|link| link.to_str().map(ToOwned::to_owned));
        found.insert(dataset.path.clone(), ObservedFolders { current, releases });
    }
    found
}

fn observed_dataset(dataset: &Dataset) -> ObservedDataset {
    ObservedDataset {
        mountpoint: dataset.mountpoint.as_ref().map(|path| path.to_string_lossy().into_owned()),
        mounted: dataset.mounted,
        native: dataset.native.clone(),
        user: dataset.user.clone(),
        origin: dataset.origin.as_ref().map(|origin| (origin.dataset.clone(), origin.name.clone())),
    }
}

/// Only snapshots with a stamp: others belong to somebody else.
fn observed_snapshots(snapshots: &[Arc<Snapshot>]) -> BTreeMap<zed_spec::DatasetPath, Vec<ObservedSnapshot>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for snapshot in snapshots.iter().filter(|s| s.user.keys().any(|name| name.starts_with("com.zed:"))) {
        found.entry(snapshot.id.dataset.clone()).or_default().push(ObservedSnapshot {
            name: snapshot.id.name.clone(),
            txg: snapshot.txg,
            created: snapshot.created,
            user: snapshot.user.clone(),
            clones: snapshot.clones.clone(),
        });
    }
    found
}

/// The daemon's environment and fingerprints of files, restricted to what the apps name.
fn values_from_elsewhere<'a>(
    apps: impl Iterator<Item = &'a App>,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut env = BTreeMap::new();
    let mut files = BTreeMap::new();
    let mut add_variable = |name: &str| {
        if let Ok(value) = std::env::var(name) {
            env.insert(name.to_owned(), value);
        }
    };
    for app in apps {
        for from in app.env_from.values().chain(&app.cookie) {
            match from {
                ValueFrom::Env(name) => add_variable(name),
                ValueFrom::File(path) => {
                    if let Ok((bytes, _)) = crate::state::read_regular(path.as_ref(), MAX_VALUE_FILE) {
                        files.insert(path.clone(), zed_plan::sha256_hex(&bytes));
                    }
                }
                ValueFrom::Secret(_) => {}
            }
        }
        if let Some(condition) = &app.when {
            condition_variables(condition, &mut add_variable);
        }
    }
    (env, files)
}

fn condition_variables(condition: &zed_spec::Condition, add: &mut impl FnMut(&str)) {
    use zed_spec::Condition;
    match condition {
        Condition::All(parts) | Condition::Any(parts) => {
            for part in parts {
                condition_variables(part, add);
            }
        }
        Condition::Not(part) => condition_variables(part, add),
        Condition::Env(name, _) => add(name),
        Condition::Fact(..) => {}
    }
}
