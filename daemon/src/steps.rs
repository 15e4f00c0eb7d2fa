//! One step of a plan, carried out on the store and the host.
//!
//! Every step may be repeated. Takes no decision that the plan did not take; knows no journal.

use crate::observe::MAX_VALUE_FILE;
use crate::rollout::Signals;
use crate::rollout::Watched;
use crate::state::StateDir;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use zed_host::DEFAULT_PATH;
use zed_host::HookRequest;
use zed_host::Host;
use zed_host::HostError;
use zed_host::ProbeRequest;
use zed_host::Start;
use zed_host::guest::GuestError;
use zed_plan::Instance;
use zed_plan::RunSpec;
use zed_plan::Step;
use zed_spec::DatasetPath;
use zed_spec::Runtime;
use zed_spec::ValueFrom;
use zed_store::BRANCHES;
use zed_store::Create;
use zed_store::MANAGED;
use zed_store::OWN_DATASET;
use zed_store::PropChange;
use zed_store::Restore;
use zed_store::SnapshotRef;
use zed_store::Store;
use zed_store::StoreError;
use zed_store::StoreErrorKind;
use zed_store::TakeSnapshot;

/// Between two rounds of probes while a new version is watched.
const SOAK_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for open connections before a look at whether the deploy goes on.
const DRAIN_PIECE: Duration = Duration::from_millis(500);

/// What surrounds a process of an app.
struct Surroundings {
    /// Its working directory: the release, or the dataset's mountpoint.
    directory: PathBuf,
    /// The dataset's mountpoint.
    data: PathBuf,
    environment: BTreeMap<String, String>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A guest is not as it was wanted.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Something that this host does not do.
    #[error("this zedd cannot {0}")]
    Missing(&'static str),
    /// Nobody wants it any more.
    #[error("it was cancelled")]
    Cancelled,
    /// The state directory could not be written.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
    /// A value that comes from elsewhere is not there.
    #[error("app `{app}` needs {what} for its variable `{variable}`: {problem}")]
    Value {
        /// The app.
        app: String,
        /// Its variable.
        variable: String,
        /// `the variable REGION of zedd's environment`.
        what: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The dataset that the app runs in is not there or not mounted.
    #[error("the dataset `{dataset}` of app `{app}` has no mountpoint to run in; {hint}")]
    NotMounted {
        /// The app.
        app: String,
        /// Its dataset.
        dataset: DatasetPath,
        /// What to do.
        hint: &'static str,
    },
    /// Not healthy in time.
    #[error("app `{app}` is not healthy: {summary}")]
    Unhealthy {
        /// The app.
        app: String,
        /// What was seen.
        summary: String,
        /// Every attempt.
        transcript: Vec<String>,
    },
    /// An artifact was not unpacked.
    #[error(transparent)]
    Unpack(#[from] zed_artifact::UnpackError),
    /// A release folder was not changed.
    #[error(transparent)]
    Release(#[from] zed_artifact::ReleaseError),
    /// An artifact that the plan did not see cannot be used.
    #[error("{why}")]
    Artifact {
        /// Names it, the cause and what to do.
        why: String,
    },
    /// A release does not say how it is started.
    #[error("app `{app}` has no `command`")]
    Startup {
        /// The app.
        app: String,
        /// What was looked for.
        #[source]
        source: zed_artifact::StartupError,
    },
    /// What an image says about itself cannot be read.
    #[error("the image of app `{app}` cannot be read: deploy it again, which unpacks it anew")]
    Image {
        /// The app.
        app: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Nowhere to unpack to.
    #[error("the dataset `{dataset}` is not there or has no mountpoint to unpack into; set a mountpoint")]
    NoPlace {
        /// Which.
        dataset: DatasetPath,
    },
    /// A hook failed.
    #[error("hook {kind} `{command}` of app `{app}` ended with {ended}{output}")]
    Hook {
        /// The app.
        app: String,
        /// Which hook.
        kind: String,
        /// What was run.
        command: String,
        /// How it ended.
        ended: String,
        /// Its last output, on a new line.
        output: String,
    },
    /// Asked for by a fault test.
    #[error("a fault was injected at `{0}`")]
    Injected(String),
}

/// Carries out steps.
#[derive(Clone)]
pub struct Steps {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    state: StateDir,
}

impl Steps {
    /// On this store, this host and this state directory.
    pub fn new(store: Arc<dyn Store>, host: Arc<dyn Host>, state: StateDir) -> Self {
        Self { store, host, state }
    }

    /// Does it. Blocks until it is done; `signals` end a probe or a watch early.
    pub fn run(&self, step: &Step, signals: &Signals) -> Result<(), StepError> {
        match step {
            Step::CreateDataset { path, native, user } => {
                let request = Create { path: path.clone(), native: native.clone(), user: user.clone() };
                Ok(self.store.create(&request)?)
            }
            Step::MountDataset { path } => Ok(self.store.mount(path)?),
            Step::SetProps { changes } => self.set_props(changes),
            Step::Snapshot { name, set } => self.snapshot(name, set),
            Step::Restore { dataset, from, snapshot, branch, user, branch_user } => {
                ensure_own_datasets(&*self.store)?;
                Ok(self.store.restore(&Restore {
                    dataset: dataset.clone(),
                    from: SnapshotRef { dataset: from.clone(), name: snapshot.clone() },
                    branch: branch.clone(),
                    user: user.clone(),
                    branch_user: branch_user.clone(),
                })?)
            }
            Step::UndoRestore { restore, dataset, branch, snapshot, aside, user, aside_user } => {
                self.complete_restore(restore, branch, aside, signals)?;
                if self.store.get(branch)?.is_none() {
                    return Ok(());
                }
                Ok(self.store.restore(&Restore {
                    dataset: dataset.clone(),
                    from: SnapshotRef { dataset: branch.clone(), name: snapshot.clone() },
                    branch: aside.clone(),
                    user: user.clone(),
                    branch_user: aside_user.clone(),
                })?)
            }
            Step::Retire { dataset, branch } => self.retire(dataset, branch),
            Step::StopApp { instance, grace } => Ok(self.host.stop(instance, *grace)?),
            Step::StartApp { run } => self.start(run),
            Step::RecordRelease { release } => Ok(self.state.write_release(release)?),
            Step::Probe { health, run } => self.probe(health, run, signals),
            Step::Hook { kind, command, run, timeout } => self.hook(kind, command, run, *timeout),
            Step::Soak { runs, lasts } => self.soak(runs, *lasts, signals),
            Step::Unpack { .. }
            | Step::DiscardRelease { .. }
            | Step::SwitchRelease { .. }
            | Step::PruneReleases { .. } => crate::releases::run(&*self.store, step, &signals.cancel),
            Step::Route { route } => Ok(self.host.route(route)?),
            Step::Drain { instance, port, at_most } => self.drain(instance, *port, *at_most, signals),
            Step::ForgetApp { instance } => Ok(self.host.forget(instance)?),
            Step::MakeGuest { .. }
            | Step::StartGuest { .. }
            | Step::StopGuest { .. }
            | Step::RemoveGuest { .. } => crate::guests::run(&*self.store, &*self.host, step),
            Step::DestroySnapshots { set } => {
                let set: Vec<SnapshotRef> = set
                    .iter()
                    .map(|(dataset, name)| SnapshotRef { dataset: dataset.clone(), name: name.clone() })
                    .collect();
                unless_busy(self.store.destroy_snapshots(&set))
            }
            Step::DestroyBranch { branch } => unless_busy(self.store.destroy_branch(branch)),
        }
    }

    fn set_props(&self, changes: &[zed_plan::PropEdit]) -> Result<(), StepError> {
        let changes: Vec<PropChange> = changes
            .iter()
            .map(|edit| PropChange {
                path: edit.path.clone(),
                native: edit.native.clone(),
                user: edit.user.clone(),
            })
            .collect();
        Ok(self.store.set(&changes)?)
    }

    fn snapshot(
        &self,
        name: &str,
        set: &BTreeMap<DatasetPath, BTreeMap<String, String>>,
    ) -> Result<(), StepError> {
        let set: Vec<TakeSnapshot> = set
            .iter()
            .map(|(dataset, user)| TakeSnapshot {
                id: SnapshotRef { dataset: dataset.clone(), name: name.to_owned() },
                user: user.clone(),
            })
            .collect();
        Ok(self.store.snapshot(&set)?)
    }

    /// A restore that was interrupted is completed, so that there is something to take back. Once what it made
    /// is aside, it is the taking back that was interrupted.
    fn complete_restore(
        &self,
        restore: &Step,
        branch: &DatasetPath,
        aside: &DatasetPath,
        signals: &Signals,
    ) -> Result<(), StepError> {
        let Step::Restore { dataset, .. } = restore else { return Ok(()) };
        let interrupted = self.store.get(branch)?.is_some()
            && self.store.get(dataset)?.is_none()
            && self.store.get(aside)?.is_none();
        if interrupted { self.run(restore, signals) } else { Ok(()) }
    }

    /// Undo of a creation: when the creation never happened there is nothing to retire.
    fn retire(&self, dataset: &DatasetPath, branch: &DatasetPath) -> Result<(), StepError> {
        if self.store.get(dataset)?.is_none() {
            return Ok(());
        }
        ensure_own_datasets(&*self.store)?;
        Ok(self.store.retire(dataset, branch)?)
    }

    fn start(&self, run: &RunSpec) -> Result<(), StepError> {
        let Surroundings { directory, data, environment } = self.surroundings(run)?;
        let mut run = run.clone();
        // A container's image says how it starts; everything else is started on the host from its folder.
        if run.command.is_empty() && !matches!(run.runtime, Runtime::Container { .. }) {
            run.command = zed_artifact::startup(&directory)
                .map_err(|source| StepError::Startup { app: run.app.to_string(), source })?;
        }
        let container = crate::releases::container(&*self.store, &run, &directory, &data)?;
        let inside =
            crate::guests::enter(&*self.host, &run, &run.instance().to_string(), &run.command, environment)?;
        let crate::guests::Entered { command, environment, user, group } = inside;
        (run.command, run.user, run.group) = (command, user, group);
        Ok(self.host.start(&Start { run, directory, data, environment, container })?)
    }

    fn probe(&self, health: &zed_spec::Health, run: &RunSpec, signals: &Signals) -> Result<(), StepError> {
        let report = self.host.probe(&self.probe_request(health, run)?, &signals.cancel);
        if report.healthy {
            return Ok(());
        }
        Err(StepError::Unhealthy {
            app: run.instance().to_string(),
            summary: report.summary,
            transcript: report.transcript,
        })
    }

    /// What it takes to probe a process.
    pub fn probe_request(&self, health: &zed_spec::Health, run: &RunSpec) -> Result<ProbeRequest, StepError> {
        let Surroundings { directory, data: _, environment } = self.surroundings(run)?;
        let request = ProbeRequest {
            instance: run.instance(),
            health: health.clone(),
            run_hash: run.run_hash.clone(),
            directory,
            environment,
            user: run.user.clone(),
            group: run.group.clone(),
        };
        crate::guests::probe_inside(&*self.host, run, request)
    }

    /// Probes again and again until the time is over, or until an operator says how it goes on.
    fn soak(
        &self,
        runs: &[(RunSpec, zed_spec::Health)],
        lasts: Duration,
        signals: &Signals,
    ) -> Result<(), StepError> {
        let until = Instant::now() + lasts;
        loop {
            match signals.watch(until, SOAK_INTERVAL) {
                Watched::Over => return Ok(()),
                Watched::Cancelled => return Err(StepError::Cancelled),
                Watched::Again => {}
            }
            for (run, health) in runs {
                // It was healthy: one failure counts, after the attempts that the app itself allows.
                self.probe(health, run, signals)?;
            }
        }
    }

    /// Waits until what is open to a process has ended. What is left after the time is cut off with it: that was
    /// asked for.
    fn drain(
        &self,
        instance: &Instance,
        port: u16,
        at_most: Duration,
        signals: &Signals,
    ) -> Result<(), StepError> {
        let mut time = at_most;
        loop {
            // In pieces, so that a verb which ends the deploy need not wait for all of it.
            let piece = time.min(DRAIN_PIECE);
            let drained = self.host.drain(instance, port, piece)?;
            time -= piece;
            if drained.left == 0 {
                return Ok(());
            }
            if time.is_zero() || signals.cancel.load(Ordering::Relaxed) {
                let left = drained.left;
                tracing::warn!(%instance, port, left, "connections are cut off: its time to drain is over");
                return Ok(());
            }
        }
    }

    fn hook(
        &self,
        kind: &str,
        command: &[String],
        run: &RunSpec,
        deadline: Duration,
    ) -> Result<(), StepError> {
        let Surroundings { directory, data, environment } = self.surroundings(run)?;
        let container = crate::releases::container(&*self.store, run, &directory, &data)?;
        let inside =
            crate::guests::enter(&*self.host, run, &format!("{} {kind}", run.app), command, environment)?;
        let crate::guests::Entered { command: entered, environment, user, group } = inside;
        let report = self.host.run_hook(&HookRequest {
            instance: run.instance(),
            name: kind.to_owned(),
            command: entered,
            directory,
            environment,
            user,
            group,
            deadline,
            container,
        })?;
        if report.ok {
            return Ok(());
        }
        let output = report.output.trim_end();
        Err(StepError::Hook {
            app: run.app.to_string(),
            kind: kind.to_owned(),
            command: command.join(" "),
            ended: report.ended,
            output: if output.is_empty() { String::new() } else { format!("\n{output}") },
        })
    }

    /// Where a process of an app runs, and its complete environment.
    fn surroundings(&self, run: &RunSpec) -> Result<Surroundings, StepError> {
        let not_mounted =
            |hint| StepError::NotMounted { app: run.app.to_string(), dataset: run.dataset.clone(), hint };
        self.store.mount(&run.dataset)?;
        let dataset =
            self.store.get(&run.dataset)?.ok_or_else(|| not_mounted("the dataset does not exist"))?;
        let data = dataset
            .mountpoint
            .clone()
            .ok_or_else(|| not_mounted("set a mountpoint: an app's working directory is its dataset"))?;
        let mut environment = run.env.clone();
        for (variable, from) in &run.env_from {
            let value = resolve(from).map_err(|(what, problem)| StepError::Value {
                app: run.app.to_string(),
                variable: variable.clone(),
                what,
                problem,
            })?;
            environment.insert(variable.clone(), value);
        }
        if !matches!(run.runtime, Runtime::Container { .. }) {
            // A container has the search path of its image.
            let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
            environment.entry("PATH".to_owned()).or_insert(path);
        }
        for (name, value) in [
            ("ZED_APP", run.app.as_str()),
            ("ZED_VERSION", run.version.as_str()),
            ("ZED_DEPLOY", run.deploy.as_str()),
            ("ZED_HOST", run.host.as_str()),
        ] {
            environment.insert(name.to_owned(), value.to_owned());
        }
        let directory = run.release.as_ref().map_or_else(|| data.clone(), |folder| data.join(folder));
        environment.insert("ZED_DATA".to_owned(), data.to_string_lossy().into_owned());
        environment.insert("ZED_RELEASE".to_owned(), directory.to_string_lossy().into_owned());
        environment.insert("ZED_INSTANCE".to_owned(), run.number.to_string());
        complete_for_beam(&mut environment);
        Ok(Surroundings { directory, data, environment })
    }
}

/// A BEAM release is told its node's name. Whether that is a long or a short one is told by its host.
fn complete_for_beam(environment: &mut BTreeMap<String, String>) {
    let Some((_, host)) = environment.get("RELEASE_NODE").and_then(|node| node.split_once('@')) else {
        return;
    };
    let kind = if host.contains('.') { "name" } else { "sname" };
    environment.entry("RELEASE_DISTRIBUTION".to_owned()).or_insert_with(|| kind.to_owned());
}

/// A value from elsewhere, or what it is and what is wrong with it.
fn resolve(from: &ValueFrom) -> Result<String, (String, String)> {
    match from {
        ValueFrom::Env(name) => match std::env::var(name) {
            Ok(value) if !value.is_empty() => Ok(value),
            _ => Err((
                format!("the variable {name} of zedd's environment"),
                "it is not set; set it for zedd and start zedd again".to_owned(),
            )),
        },
        ValueFrom::File(path) => {
            let failed = |problem: String| (format!("the file {path}"), problem);
            let (bytes, _) = crate::state::read_regular(path.as_ref(), MAX_VALUE_FILE)
                .map_err(|e| failed(e.to_string()))?;
            let text = String::from_utf8(bytes).map_err(|e| failed(e.to_string()))?;
            Ok(text.trim_end_matches(['\n', '\r']).to_owned())
        }
        ValueFrom::Secret(slot) => Err((
            format!("the secret slot {slot}"),
            "this zedd has no secret store; use Env(..) or File(..)".to_owned(),
        )),
    }
}

/// Retention leaves alone what turns out to be needed: a clone, a hold, a send in progress.
fn unless_busy(result: Result<(), StoreError>) -> Result<(), StepError> {
    match result {
        Err(StoreError { kind: StoreErrorKind::Busy(by), object, .. }) => {
            tracing::info!(object, by, "kept: it is still needed");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// The datasets that zed owns: its state, and the parent of branches, which is never mounted.
pub fn ensure_own_datasets(store: &dyn Store) -> Result<(), StoreError> {
    for (path, native) in [(OWN_DATASET, None), (BRANCHES, Some(("canmount", "off")))] {
        let path = DatasetPath::parse(path).map_err(|e| StoreError {
            operation: "create",
            object: path.to_owned(),
            kind: StoreErrorKind::Invalid(e.to_string()),
            source: None,
        })?;
        if store.get(&path)?.is_some() {
            continue;
        }
        store.create(&Create {
            path,
            native: native.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            user: BTreeMap::from([
                (MANAGED.to_owned(), "yes".to_owned()),
                ("com.zed:role".to_owned(), "own".to_owned()),
                ("com.zed:schema".to_owned(), "1".to_owned()),
            ]),
        })?;
    }
    Ok(())
}
