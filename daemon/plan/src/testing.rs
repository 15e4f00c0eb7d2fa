//! For tests: a host in memory that executes plans as the real one would, so that planning again can be compared.

mod guests;
mod run;

use crate::deploy::UndeclareInput;
use crate::deploy::plan_deploy;
use crate::deploy::plan_undeclare;
use crate::lint::lint;
use crate::observed::Observed;
use crate::observed::ObservedDataset;
use crate::observed::ObservedProcess;
use crate::observed::ObservedSnapshot;
use crate::observed::ProcessStatus;
use crate::plan::Declared;
use crate::plan::Note;
use crate::plan::Plan;
use crate::plan::PlanInput;
use crate::plan::PropEdit;
use crate::plan::Release;
use crate::plan::Route;
use crate::plan::RunId;
use crate::plan::Step;
use crate::plan::Unit;
use crate::rollback::RollbackError;
use crate::rollback::RollbackInput;
use crate::rollback::RollbackTarget;
use crate::rollback::plan_rollback;
use crate::verb::AppVerb;
use crate::verb::plan_app_verb;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::DeploySpec;
use zed_spec::HostName;
use zed_spec::Restart;

pub(crate) fn path(text: &str) -> DatasetPath {
    DatasetPath::parse(text).unwrap()
}

pub(crate) fn app(text: &str) -> AppName {
    AppName::parse(text).unwrap()
}

/// The text of one of `specs/examples`.
pub(crate) fn example(name: &str) -> String {
    let file = format!("{}/../../specs/examples/{name}.ron", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"))
}

pub(crate) fn parse(name: &str, text: &str) -> DeploySpec {
    let name = DeployName::parse(name).unwrap();
    zed_spec::parse(&name, text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The variant's name.
pub(crate) fn step_name(step: &Step) -> &'static str {
    match step {
        Step::CreateDataset { .. } => "CreateDataset",
        Step::MountDataset { .. } => "MountDataset",
        Step::SetProps { .. } => "SetProps",
        Step::Snapshot { .. } => "Snapshot",
        Step::Restore { .. } => "Restore",
        Step::UndoRestore { .. } => "UndoRestore",
        Step::Retire { .. } => "Retire",
        Step::Unpack { .. } => "Unpack",
        Step::DiscardRelease { .. } => "DiscardRelease",
        Step::SwitchRelease { .. } => "SwitchRelease",
        Step::PruneReleases { .. } => "PruneReleases",
        Step::StopApp { .. } => "StopApp",
        Step::StartApp { .. } => "StartApp",
        Step::RecordRelease { .. } => "RecordRelease",
        Step::Probe { .. } => "Probe",
        Step::Soak { .. } => "Soak",
        Step::Route { .. } => "Route",
        Step::Drain { .. } => "Drain",
        Step::Hook { .. } => "Hook",
        Step::ForgetApp { .. } => "ForgetApp",
        Step::MakeGuest { .. } => "MakeGuest",
        Step::StartGuest { .. } => "StartGuest",
        Step::StopGuest { .. } => "StopGuest",
        Step::RemoveGuest { .. } => "RemoveGuest",
        Step::DestroySnapshots { .. } => "DestroySnapshots",
        Step::DestroyBranch { .. } => "DestroyBranch",
    }
}

/// What a dataset holds, as far as tests care: what was written, newest last.
pub(crate) type Content = Vec<String>;

/// A host in memory.
#[derive(Debug, Clone)]
pub(crate) struct TestWorld {
    pub(crate) observed: Observed,
    pub(crate) releases: BTreeMap<String, Release>,
    /// Content of datasets and of snapshots (`dataset` or `dataset@name`).
    pub(crate) content: BTreeMap<String, Content>,
    pub(crate) now: i64,
    pub(crate) runs: u32,
    pub(crate) generation: u64,
    pub(crate) txg: u64,
    pub(crate) heal: bool,
    /// What the daemon remembers of the deploy's datasets.
    pub(crate) known: Option<BTreeSet<DatasetPath>>,
    pub(crate) recreate: bool,
    /// Datasets that processes run in.
    pub(crate) homes: BTreeMap<AppName, DatasetPath>,
    /// Where each front forwards to.
    pub(crate) routes: BTreeMap<AppName, Route>,
    /// Whether starts and hooks write into their dataset.
    pub(crate) writes: bool,
    pub(crate) keep: u32,
}

impl TestWorld {
    pub(crate) fn new() -> Self {
        let observed = Observed {
            host: Some(HostName::parse("web1").unwrap()),
            available: 1 << 40,
            runtimes: ["process".to_owned()].into(),
            facts: BTreeMap::from([("os".to_owned(), "linux".to_owned())]),
            ..Observed::default()
        };
        Self {
            observed,
            releases: BTreeMap::new(),
            content: BTreeMap::new(),
            now: 1_795_369_588,
            runs: 0,
            generation: 0,
            txg: 0,
            heal: false,
            known: None,
            recreate: false,
            homes: BTreeMap::new(),
            routes: BTreeMap::new(),
            writes: true,
            keep: 5,
        }
    }

    pub(crate) fn next_run(&mut self) -> RunId {
        self.runs += 1;
        self.now += 60;
        RunId(format!("r{:07}", self.runs))
    }

    /// Plans a save of this spec.
    pub(crate) fn deploy(&mut self, name: &str, text: &str) -> Plan {
        self.generation += 1;
        let heal = std::mem::replace(&mut self.heal, true);
        let plan = self.plan(name, text);
        self.heal = heal;
        plan
    }

    /// Plans the spec as it was saved last.
    pub(crate) fn plan(&mut self, name: &str, text: &str) -> Plan {
        let spec = parse(name, text);
        self.plan_spec(spec)
    }

    pub(crate) fn plan_spec(&mut self, spec: DeploySpec) -> Plan {
        let declared = Declared { sha256: spec.sha256(), spec, generation: self.generation };
        let run = self.next_run();
        plan_deploy(&PlanInput {
            declared: &declared,
            observed: &self.observed,
            releases: &self.releases,
            run: &run,
            now: self.now,
            heal: self.heal,
            known: self.known.as_ref(),
            recreate: self.recreate,
        })
    }

    /// Plans the end of a deploy.
    pub(crate) fn undeclare(&mut self, name: &str) -> Plan {
        let run = self.next_run();
        plan_undeclare(&UndeclareInput {
            deploy: &DeployName::parse(name).unwrap(),
            generation: self.generation,
            observed: &self.observed,
            releases: &self.releases,
            run: &run,
            now: self.now,
        })
    }

    /// Saves, plans and executes.
    pub(crate) fn converge(&mut self, name: &str, text: &str) -> Plan {
        let plan = self.deploy(name, text);
        self.run(&plan);
        plan
    }

    pub(crate) fn plan_rollback(&mut self, app: &str, target: &str) -> Result<Plan, RollbackError> {
        let run = self.next_run();
        plan_rollback(&RollbackInput {
            app: &AppName::parse(app).unwrap(),
            target: &RollbackTarget::parse(target)?,
            observed: &self.observed,
            releases: &self.releases,
            run: &run,
            now: self.now,
            generation_held: self.generation,
            keep: Some(self.keep),
        })
    }

    /// Plans a rollback and executes it.
    pub(crate) fn rollback(&mut self, app: &str, target: &str) -> Plan {
        let plan = self.plan_rollback(app, target).unwrap_or_else(|e| panic!("{app} {target}: {e}"));
        self.run(&plan);
        plan
    }

    /// Plans what an operator asks of an app, and executes it.
    pub(crate) fn verb(&mut self, name: &str, verb: AppVerb) -> Result<Plan, Note> {
        let run = self.next_run();
        let plan = plan_app_verb(verb, &[app(name)], &self.observed, &self.releases, &run, self.now)?;
        self.run(&plan);
        Ok(plan)
    }

    /// Executes a whole plan.
    pub(crate) fn run(&mut self, plan: &Plan) {
        assert_eq!(plan.fatal().count(), 0, "{:?}", plan.notes);
        assert_eq!(lint(plan, &self.observed), [], "{plan:#?}");
        for unit in &plan.units {
            for step in &unit.steps {
                self.apply(&step.step);
            }
        }
    }

    /// Runs the first `steps` steps of a unit, of which the last `begun` are only begun, and takes them back.
    pub(crate) fn fail(&mut self, unit: &Unit, steps: usize, begun: usize) {
        for planned in &unit.steps[..steps - begun] {
            self.apply(&planned.step);
        }
        self.writes = false;
        for planned in unit.steps[..steps].iter().rev() {
            // Twice: an undo may be repeated.
            for undo in planned.undo.iter().chain(&planned.undo) {
                self.apply(undo);
            }
        }
        self.writes = true;
    }

    /// Executes one step, with the rules of a real store and a real host.
    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::CreateDataset { path, native, user } => self.create(path, native, user),
            Step::MountDataset { path } => self.observed.datasets.get_mut(path).unwrap().mounted = true,
            Step::SetProps { changes } => changes.iter().for_each(|change| self.set(change)),
            Step::Snapshot { name, set } => self.snapshot(name, set),
            Step::Restore { dataset, from, snapshot, branch, user, branch_user } => {
                self.restore(dataset, from, snapshot, branch, user, branch_user);
            }
            Step::UndoRestore { restore: _, dataset, branch, snapshot, aside, user, aside_user } => {
                if self.observed.datasets.contains_key(branch) {
                    self.restore(dataset, branch, snapshot, aside, user, aside_user);
                }
            }
            Step::Retire { dataset, branch } => self.retire(dataset, branch),
            Step::StopApp { instance, grace: _ } => {
                if instance.is_front() {
                    self.routes.remove(&instance.app);
                }
                if let Some(process) = self.observed.processes.get_mut(instance) {
                    process.status = ProcessStatus::Stopped;
                }
            }
            Step::StartApp { run } => {
                let alive = self.observed.processes.get(&run.instance());
                if let Some(process) = alive.filter(|p| matches!(p.status, ProcessStatus::Running { .. })) {
                    assert_eq!(process.run_hash, run.run_hash, "{} runs as another release", run.app);
                    return;
                }
                let found = self.observed.datasets.get(&run.dataset);
                assert!(found.is_some(), "{} starts without its dataset {}", run.app, run.dataset);
                if self.writes {
                    let line = format!("{} {} {}", run.app, run.version, &run.run_hash[..8]);
                    let home = self.content.get_mut(run.dataset.as_str()).unwrap();
                    // The same run goes on where it was; only another one changes data.
                    if !home.contains(&line) {
                        home.push(line);
                    }
                }
                self.homes.insert(run.app.clone(), run.dataset.clone());
                let status = match run.restart {
                    Restart::Never => ProcessStatus::Completed,
                    _ => ProcessStatus::Running { pid: 100 },
                };
                let process = ObservedProcess { run_hash: run.run_hash.clone(), status };
                self.observed.processes.insert(run.instance(), process);
            }
            Step::RecordRelease { release } => {
                self.releases.insert(release.spec_hash.clone(), (**release).clone());
            }
            Step::Probe { health: _, run } => self.probed(run),
            Step::Hook { kind, command: _, run, timeout: _ } => {
                let home = self.content.get_mut(run.dataset.as_str()).expect("a hook's dataset");
                home.push(format!("{kind} of {}", run.app));
            }
            Step::Soak { runs, lasts: _ } => runs.iter().for_each(|(run, _)| self.probed(run)),
            Step::Route { route } => self.route(route),
            Step::Drain { instance, .. } => {
                let served =
                    self.routes.get(&instance.app).is_some_and(|r| r.backends.contains_key(instance));
                assert!(!served, "{instance} is drained while it gets connections");
            }
            Step::Unpack { .. }
            | Step::DiscardRelease { .. }
            | Step::SwitchRelease { .. }
            | Step::PruneReleases { .. } => self.folders(step),
            Step::ForgetApp { instance } => {
                if instance.is_front() {
                    self.routes.remove(&instance.app);
                }
                self.observed.processes.remove(instance);
            }
            Step::MakeGuest { .. }
            | Step::StartGuest { .. }
            | Step::StopGuest { .. }
            | Step::RemoveGuest { .. } => self.guest(step),
            Step::DestroySnapshots { set } => {
                set.iter().for_each(|(dataset, name)| self.destroy(dataset, name))
            }
            Step::DestroyBranch { branch } => self.destroy_branch(branch),
        }
    }

    fn create(
        &mut self,
        path: &DatasetPath,
        native: &BTreeMap<String, String>,
        user: &BTreeMap<String, String>,
    ) {
        if let Some(parent) = path.parent() {
            assert!(self.observed.datasets.contains_key(&parent), "{path} has no parent");
        }
        if self.observed.datasets.contains_key(path) {
            return;
        }
        let dataset = ObservedDataset {
            mountpoint: Some(format!("/srv/{path}")),
            mounted: true,
            native: native.clone(),
            user: user.clone(),
            origin: None,
        };
        self.observed.datasets.insert(path.clone(), dataset);
        self.content.insert(path.to_string(), Vec::new());
    }

    fn set(&mut self, change: &PropEdit) {
        let dataset = self.observed.datasets.get_mut(&change.path).expect("a dataset to set properties of");
        let apply = |map: &mut BTreeMap<String, String>, edits: &BTreeMap<String, Option<String>>| {
            for (key, value) in edits {
                match value {
                    Some(value) => map.insert(key.clone(), value.clone()),
                    None => map.remove(key),
                };
            }
        };
        apply(&mut dataset.native, &change.native);
        apply(&mut dataset.user, &change.user);
    }

    fn snapshot(&mut self, name: &str, set: &BTreeMap<DatasetPath, BTreeMap<String, String>>) {
        self.txg += 1;
        for (dataset, user) in set {
            assert!(self.observed.datasets.contains_key(dataset), "snapshot of {dataset}");
            let list = self.observed.snapshots.entry(dataset.clone()).or_default();
            if list.iter().any(|s| s.name == name) {
                continue;
            }
            list.push(ObservedSnapshot {
                name: name.to_owned(),
                txg: self.txg,
                created: self.now,
                user: user.clone(),
                clones: Vec::new(),
            });
            let content = self.content[dataset.as_str()].clone();
            self.content.insert(format!("{dataset}@{name}"), content);
        }
    }

    /// Moves snapshots with their content, and keeps the clones' origins right.
    fn give(&mut self, from: &DatasetPath, to: &DatasetPath, moved: Vec<ObservedSnapshot>) {
        for snapshot in moved {
            let content = self.content.remove(&format!("{from}@{}", snapshot.name)).unwrap();
            self.content.insert(format!("{to}@{}", snapshot.name), content);
            for dataset in self.observed.datasets.values_mut() {
                if dataset.origin.as_ref() == Some(&(from.clone(), snapshot.name.clone())) {
                    dataset.origin = Some((to.clone(), snapshot.name.clone()));
                }
            }
            let list = self.observed.snapshots.entry(to.clone()).or_default();
            list.push(snapshot);
            list.sort_by_key(|s| s.txg);
        }
    }

    fn rename(&mut self, from: &DatasetPath, to: &DatasetPath) {
        let dataset = self.observed.datasets.remove(from).unwrap();
        self.observed.datasets.insert(to.clone(), dataset);
        let content = self.content.remove(from.as_str()).unwrap();
        self.content.insert(to.to_string(), content);
        let all = self.observed.snapshots.remove(from).unwrap_or_default();
        self.give(from, to, all);
        for snapshot in self.observed.snapshots.values_mut().flatten() {
            for clone in &mut snapshot.clones {
                if clone == from {
                    *clone = to.clone();
                }
            }
        }
    }

    fn restore(
        &mut self,
        dataset: &DatasetPath,
        from: &DatasetPath,
        snapshot: &str,
        branch: &DatasetPath,
        user: &BTreeMap<String, String>,
        branch_user: &BTreeMap<String, String>,
    ) {
        let busy: Vec<&AppName> = self
            .observed
            .processes
            .iter()
            .filter(|(name, process)| {
                matches!(process.status, ProcessStatus::Running { .. })
                    && !name.is_front()
                    && self.homes.get(&name.app) == Some(dataset)
            })
            .map(|(name, _)| &name.app)
            .collect();
        assert!(busy.is_empty(), "{dataset} is in use by {busy:?}");
        if self.observed.datasets.contains_key(branch) {
            return;
        }
        assert!(
            self.observed.snapshots.get(from).is_some_and(|l| l.iter().any(|s| s.name == snapshot)),
            "{from}@{snapshot} does not exist"
        );
        for parent in ["zed", "zed/branches"] {
            self.create(&path(parent), &BTreeMap::new(), &BTreeMap::new());
        }
        // As clone and promote do it: what is as old as the snapshot or older stays with the live dataset.
        let before = self.observed.datasets[dataset].clone();
        let content = self.content[&format!("{from}@{snapshot}")].clone();
        let from_branch = from != dataset;
        self.rename(dataset, branch);
        let live = ObservedDataset { user: user.clone(), origin: None, ..before };
        self.observed.datasets.insert(dataset.clone(), live);
        self.content.insert(dataset.to_string(), content);
        let holder = if from_branch { from } else { branch };
        let (mut root, mut at) = (holder.clone(), snapshot.to_owned());
        // Up the lineage: each origin that is not live hands over what is as old as the fork.
        loop {
            let list = self.observed.snapshots.remove(&root).unwrap_or_default();
            let fork = list.iter().find(|s| s.name == at).map(|s| s.txg).unwrap();
            let (older, newer): (Vec<_>, Vec<_>) = list.into_iter().partition(|s| s.txg <= fork);
            self.observed.snapshots.insert(root.clone(), newer);
            let origin = self.observed.datasets[&root].origin.clone();
            self.give(&root, dataset, older);
            self.link(&root, dataset, &at);
            match origin {
                Some((next, name)) if next != *dataset => (root, at) = (next, name),
                _ => break,
            }
        }
        let entry = self.observed.datasets.get_mut(branch).unwrap();
        entry.mounted = false;
        entry.user.extend(branch_user.clone());
    }

    /// `clone` is a clone of `dataset@name` now, and of nothing else.
    fn link(&mut self, clone: &DatasetPath, dataset: &DatasetPath, name: &str) {
        for snapshot in self.observed.snapshots.values_mut().flatten() {
            snapshot.clones.retain(|c| c != clone);
        }
        self.observed.datasets.get_mut(clone).unwrap().origin = Some((dataset.clone(), name.to_owned()));
        let list = self.observed.snapshots.get_mut(dataset).unwrap();
        list.iter_mut().find(|s| s.name == name).unwrap().clones.push(clone.clone());
    }

    fn retire(&mut self, dataset: &DatasetPath, branch: &DatasetPath) {
        if !self.observed.datasets.contains_key(dataset) {
            return;
        }
        let below = format!("{dataset}/");
        let child = self.observed.datasets.keys().find(|p| p.as_str().starts_with(&below));
        assert!(child.is_none(), "{dataset} is retired with {child:?} below it");
        for parent in ["zed", "zed/branches"] {
            self.create(&path(parent), &BTreeMap::new(), &BTreeMap::new());
        }
        self.rename(dataset, branch);
        self.observed.datasets.get_mut(branch).unwrap().mounted = false;
    }

    fn destroy(&mut self, dataset: &DatasetPath, name: &str) {
        let Some(list) = self.observed.snapshots.get_mut(dataset) else { return };
        let Some(at) = list.iter().position(|s| s.name == name) else { return };
        assert!(list[at].clones.is_empty(), "{dataset}@{name} has clones");
        list.remove(at);
        self.content.remove(&format!("{dataset}@{name}"));
    }

    fn destroy_branch(&mut self, branch: &DatasetPath) {
        assert!(branch.as_str().starts_with("zed/branches/"), "{branch} is destroyed");
        let Some(found) = self.observed.datasets.remove(branch) else { return };
        assert_eq!(
            found.user.get("com.zed:managed").map(String::as_str),
            Some("yes"),
            "{branch} is not ours"
        );
        for snapshot in self.observed.snapshots.remove(branch).unwrap_or_default() {
            assert!(snapshot.clones.is_empty(), "{branch}@{} has clones", snapshot.name);
            self.content.remove(&format!("{branch}@{}", snapshot.name));
        }
        for snapshot in self.observed.snapshots.values_mut().flatten() {
            snapshot.clones.retain(|clone| clone != branch);
        }
        self.content.remove(branch.as_str());
    }
}
