//! The world as the tree shows it: made from one look and from what the loop knows.
//!
//! Renders nothing: that is zed-ctl's. What has not changed is shared with the world before.

use super::DeployState;
use super::Engine;
use super::crew::Crew;
use super::now;
use crate::Stamp;
use crate::events::About;
use crate::monitor::Target;
use crate::observe::Look;
use crate::shared::Busy;
use crate::shared::show_health_of;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use zed_ctl::AppView;
use zed_ctl::DatasetView;
use zed_ctl::DeployView;
use zed_ctl::EventKind;
use zed_ctl::HostView;
use zed_ctl::ReleaseView;
use zed_ctl::World;
use zed_ctl::rfc3339;
use zed_host::Host;
use zed_host::ProcessInfo;
use zed_plan::Instance;
use zed_plan::ProcessStatus;
use zed_plan::Release;
use zed_plan::props::AppStamp;
use zed_plan::props::RunState;
use zed_spec::App;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::HostName;
use zed_store::Dataset;

/// Views of datasets by the store's own values: most do not change between two looks.
#[derive(Default)]
pub(super) struct Cache {
    datasets: BTreeMap<DatasetPath, (Arc<Dataset>, Arc<DatasetView>)>,
    views: Arc<BTreeMap<String, Arc<DatasetView>>>,
}

/// What is worst comes first: the host's state is that of its worst deploy.
const WORST_FIRST: [&str; 9] = [
    "needs-operator",
    "failed",
    "rejected",
    "drift",
    "held",
    "stopped",
    "converging",
    "removing",
    "accepted",
];

impl Engine {
    /// Makes the world of this look and publishes it.
    pub(super) fn publish(&mut self, look: &Look, stamps: &[Stamp]) {
        let busy = self.parts.shared.busy();
        let before = self.parts.shared.world();
        let apps = self.app_views(look, stamps, &busy, &before);
        let deploys: BTreeMap<String, Arc<DeployView>> = self
            .deploys
            .iter()
            .map(|(name, deploy)| {
                (name.to_string(), Arc::new(deploy_view(name, deploy, busy.get(name), true)))
            })
            .collect();
        let plans = self
            .plans
            .iter()
            .map(|(name, deploy)| (name.to_string(), Arc::new(deploy_view(name, deploy, None, false))))
            .collect();
        let datasets = self.world_cache.dataset_views(&look.datasets);
        let host = self.host_view(look, &apps, &deploys, datasets.len());
        let mut world = World {
            version: 0,
            changed_at: now(),
            host: Arc::new(host),
            apps: Arc::new(apps),
            deploys: Arc::new(deploys),
            plans: Arc::new(plans),
            datasets,
        };
        self.parts.shared.show_health(&mut world);
        if differs(&before, &world) {
            self.tell_changes(&before, &world);
            self.parts.shared.publish(world);
        }
    }

    /// Which processes are to be asked from now on: those that run, with probes, of apps that are deployed.
    pub(super) fn tell_monitor(&self, look: &Look, stamps: &[Stamp]) {
        let busy = self.parts.shared.busy().into_keys().collect();
        let mut targets = Vec::new();
        for (_, stamp) in stamps {
            let Some(release) = self.releases.get(&stamp.spec) else { continue };
            if release.definition.health.probes.is_empty() || stamp.state == RunState::Stopped {
                continue;
            }
            for number in zed_plan::numbers(&release.definition, Some(stamp)) {
                let process = look.observed.process(&stamp.app, number);
                let Some(process) = process.filter(|process| process.status.is_alive()) else { continue };
                targets.push(Target {
                    instance: Instance::new(&stamp.app, number),
                    deploy: stamp.deploy.clone(),
                    spec: stamp.spec.clone(),
                    run_hash: process.run_hash.clone(),
                    health: zed_plan::health_of(&release.definition, number),
                    deployed_healthy: stamp.health == "healthy",
                });
            }
        }
        let (releases, observed) = (Arc::clone(&self.releases), Arc::clone(&look.observed));
        let make = move |target: &Target| {
            let release = releases.get(&target.spec)?;
            zed_plan::run_spec_of(release, target.instance.number, &observed).ok()
        };
        self.parts.monitor.set_targets(targets, Arc::new(make), &busy);
    }

    /// What apps did by themselves since the world before.
    fn tell_changes(&self, before: &World, after: &World) {
        let nothing = Arc::default();
        for (name, app) in after.apps.iter() {
            let old = before.apps.get(name).unwrap_or(&nothing);
            if Arc::ptr_eq(old, app) {
                continue;
            }
            if let Some((kind, text)) = own_change(before.version == 0, old, app) {
                self.emit(kind, About::app(&app.deploy, name), &text);
            }
        }
        for name in before.apps.keys().filter(|name| !after.apps.contains_key(*name)) {
            self.parts.events.forget_app(name);
        }
    }

    /// Every app that is stamped or declared here.
    fn app_views(
        &self,
        look: &Look,
        stamps: &[Stamp],
        busy: &BTreeMap<DeployName, Busy>,
        before: &World,
    ) -> BTreeMap<String, Arc<AppView>> {
        let ground =
            Ground { host_name: &self.parts.fixed.host, host: &*self.parts.host, releases: &self.releases };
        let mut views = BTreeMap::new();
        let known = self.parts.shared.health();
        for (dataset, stamp) in stamps {
            let app = stamp.app.clone();
            let declared =
                self.deploys.get(&stamp.deploy).and_then(DeployState::spec).and_then(|s| s.apps.get(&app));
            let mut view = stamped_view(&ground, look, dataset, stamp);
            self.judge_view(&mut view, stamp, busy.get(&stamp.deploy));
            if view.env.is_empty() {
                view.env = declared.map(|app| app.env.clone()).unwrap_or_default();
            }
            if let Some(health) = known.get(app.as_str()) {
                show_health_of(&mut view, health);
            }
            views.insert(app.to_string(), keep(before, view));
        }
        for (name, deploy) in &self.deploys {
            for (app, definition) in deploy.spec().into_iter().flat_map(|spec| &spec.apps) {
                if !views.contains_key(app.as_str()) {
                    let view = self.declared_view(name, app, definition, busy.get(name));
                    views.insert(app.to_string(), keep(before, view));
                }
            }
        }
        views
    }

    /// What the deploy's state and a running worker say of the app.
    fn judge_view(&self, view: &mut AppView, stamp: &AppStamp, busy: Option<&Busy>) {
        if let Some(deploy) = self.deploys.get(&stamp.deploy) {
            match deploy.state {
                "drift" => view.drift = lines_about(&deploy.text, &stamp.app, &view.dataset),
                "failed" => view.error.clone_from(&deploy.text),
                "needs-operator" => {
                    "needs-operator".clone_into(&mut view.state);
                    view.error.clone_from(&deploy.text);
                }
                _ => {}
            }
        }
        if let Some(busy) = busy {
            busy_state(busy).clone_into(&mut view.state);
        }
    }

    /// Declared, and not there yet: no release, no history.
    fn declared_view(
        &self,
        deploy: &DeployName,
        app: &AppName,
        definition: &App,
        busy: Option<&Busy>,
    ) -> AppView {
        let failed =
            self.deploys.get(deploy).filter(|deploy| matches!(deploy.state, "failed" | "needs-operator"));
        AppView {
            name: app.to_string(),
            deploy: deploy.to_string(),
            state: busy.map_or("declared", |busy| busy_state(busy)).to_owned(),
            health: "unknown".to_owned(),
            dataset: definition.dataset.to_string(),
            env: definition.env.clone(),
            error: failed.map(|deploy| deploy.text.clone()).unwrap_or_default(),
            log: self.parts.host.log_path(&Instance::first(app)),
            crashes: vec![self.parts.host.crash_path(&Instance::first(app))],
            ..AppView::default()
        }
    }

    fn host_view(
        &self,
        look: &Look,
        apps: &BTreeMap<String, Arc<AppView>>,
        deploys: &BTreeMap<String, Arc<DeployView>>,
        datasets: usize,
    ) -> HostView {
        let count = |states: Vec<&str>| {
            let mut counts = BTreeMap::new();
            for state in states {
                *counts.entry(state.to_owned()).or_default() += 1;
            }
            counts
        };
        let problems = deploys
            .values()
            .filter(|deploy| {
                matches!(deploy.state.as_str(), "needs-operator" | "failed" | "rejected" | "drift")
            })
            .map(|deploy| format!("deploy {}: {}: {}", deploy.name, deploy.state, first_line(deploy)))
            .chain(self.unreadable.values().cloned())
            .chain(self.pools.problems())
            .chain(self.recorded.problem())
            .collect();
        let state = WORST_FIRST.iter().find(|state| deploys.values().any(|deploy| deploy.state == **state));
        HostView {
            name: self.parts.fixed.host.to_string(),
            state: state.copied().unwrap_or("converged").to_owned(),
            zed_version: env!("CARGO_PKG_VERSION").to_owned(),
            store: self.parts.store_name.clone(),
            available: look.observed.available,
            started_at: self.started_at,
            apps: count(apps.values().map(|app| app.state.as_str()).collect()),
            // Counted when health is put in.
            unhealthy: 0,
            deploys: count(deploys.values().map(|deploy| deploy.state.as_str()).collect()),
            datasets,
            facts: self.facts(),
            problems,
        }
    }

    /// What the host is, and what of it changes by itself.
    fn facts(&self) -> BTreeMap<String, String> {
        let fixed = self.parts.fixed.facts.clone();
        fixed.into_iter().chain(self.pools.facts()).chain(self.parts.inventory.facts()).collect()
    }
}

impl Cache {
    fn dataset_views(&mut self, datasets: &[Arc<Dataset>]) -> Arc<BTreeMap<String, Arc<DatasetView>>> {
        let same = datasets.len() == self.datasets.len()
            && datasets
                .iter()
                .zip(self.datasets.values())
                .all(|(new, (old, _))| Arc::ptr_eq(new, old) || new == old);
        if same {
            return self.views.clone();
        }
        let mut next = BTreeMap::new();
        for dataset in datasets {
            let view = match self.datasets.remove(&dataset.path) {
                Some((old, view)) if Arc::ptr_eq(&old, dataset) || old == *dataset => view,
                _ => Arc::new(dataset_view(dataset)),
            };
            next.insert(dataset.path.clone(), (dataset.clone(), view));
        }
        self.datasets = next;
        self.views = Arc::new(
            self.datasets.iter().map(|(path, (_, view))| (path.to_string(), view.clone())).collect(),
        );
        self.views.clone()
    }
}

/// What an app's view is made from besides the look.
pub struct Ground<'a> {
    /// This host.
    pub host_name: &'a HostName,
    /// Where its log and its post-mortems are.
    pub host: &'a dyn Host,
    /// Kept releases.
    pub releases: &'a BTreeMap<String, Release>,
}

/// An app as its stamp and its process say; the deploy has no part in it.
pub fn stamped_view(ground: &Ground<'_>, look: &Look, dataset: &DatasetPath, stamp: &AppStamp) -> AppView {
    let release = ground.releases.get(&stamp.spec);
    let crew = Crew::of(ground.host, look, stamp, release);
    let process = crew.spokesman();
    let mountpoint = look.observed.datasets.get(dataset).and_then(|dataset| dataset.mountpoint.clone());
    let (state, alive) = crew.state();
    let mut view = AppView {
        name: stamp.app.to_string(),
        deploy: stamp.deploy.to_string(),
        version: stamp.version.clone(),
        state: state.to_owned(),
        health: if alive { stamp.health.clone() } else { "unhealthy".to_owned() },
        generation: stamp.generation,
        run: stamp.run.to_string(),
        spec: stamp.spec.clone(),
        deployed_at: stamp.deployed_at.clone(),
        dataset: dataset.to_string(),
        mountpoint: mountpoint.unwrap_or_default(),
        env: release.map(|release| release.definition.env.clone()).unwrap_or_default(),
        hosts: vec![ground.host_name.to_string()],
        listen: crew.listen(),
        instances: crew.views(),
        log: ground.host.log_path(&crew.first()),
        crashes: crash_paths(ground.host, look, &stamp.app),
        history: zed_plan::history(dataset, &look.observed, &stamp.app)
            .into_iter()
            .map(release_view)
            .collect(),
        ..AppView::default()
    };
    if let Some(process) = process {
        describe_process(&mut view, process);
    }
    if let Some(generation) = stamp.held {
        let to = stamp.rolled_back_to.as_deref().unwrap_or("an older release");
        view.held = format!("rolled back to @{to}, held against generation {generation} and older");
    }
    view
}

/// Where the post-mortems of an app's processes are: of the first, and of all others that are known.
fn crash_paths(host: &dyn Host, look: &Look, app: &AppName) -> Vec<PathBuf> {
    let first = Instance::first(app);
    let others = look.processes.keys().filter(|instance| instance.app == *app && **instance != first);
    std::iter::once(&first).chain(others).map(|instance| host.crash_path(instance)).collect()
}

fn dataset_view(dataset: &Dataset) -> DatasetView {
    let mut properties = dataset.native.clone();
    properties.extend(dataset.user.clone());
    let mut put = |name: &str, value: String| properties.insert(name.to_owned(), value);
    put(
        "mountpoint",
        dataset.mountpoint.as_ref().map_or("none".to_owned(), |path| path.display().to_string()),
    );
    put("mounted", if dataset.mounted { "yes" } else { "no" }.to_owned());
    put("origin", dataset.origin.as_ref().map_or("-".to_owned(), ToString::to_string));
    put("guid", dataset.guid.to_string());
    put("referenced", dataset.referenced.to_string());
    DatasetView { path: dataset.path.to_string(), properties }
}

fn deploy_view(name: &DeployName, deploy: &DeployState, busy: Option<&Busy>, applied: bool) -> DeployView {
    let verdict = deploy.verdict();
    let nothing = deploy.plan_is_empty;
    DeployView {
        name: name.to_string(),
        state: if busy.is_some() { "converging" } else { deploy.state }.to_owned(),
        generation: deploy.record.generation,
        spec: deploy.declared.as_ref().map(|declared| declared.sha256.clone()).unwrap_or_default(),
        run: verdict.map(|verdict| verdict.run.clone()).unwrap_or_default(),
        verdict: if busy.is_some() { String::new() } else { deploy.text.clone() },
        verdict_at: rfc3339(verdict.map_or(deploy.changed_at, |verdict| verdict.at)),
        step: busy.map(|busy| busy.step.clone()).unwrap_or_default(),
        // A dry run always says what it found; a deploy has a plan only while something is left to do.
        plan: if nothing && applied { String::new() } else { deploy.plan.clone() },
        plan_json: deploy.plan_json.clone(),
        errors: deploy.record.rejected.clone().unwrap_or_default(),
        apps: deploy
            .spec()
            .map(|spec| spec.apps.keys().map(ToString::to_string).collect())
            .unwrap_or_default(),
        changed_at: deploy.changed_at,
    }
}

fn release_view(entry: zed_plan::HistoryEntry) -> ReleaseView {
    ReleaseView {
        version: entry.version,
        snapshot: entry.snapshot.unwrap_or_default(),
        dataset: entry.dataset.to_string(),
        generation: entry.generation,
        deployed_at: entry.deployed_at,
        taken_at: entry.taken_at.map(rfc3339).unwrap_or_default(),
        kind: entry.kind.as_str().to_owned(),
    }
}

fn describe_process(view: &mut AppView, process: &ProcessInfo) {
    if let ProcessStatus::Running { pid } = process.observed.status {
        view.pid = pid;
    }
    view.restarts = process.restarts;
    view.since = process.since.unwrap_or(0);
    view.last_exit = process.last_exit.clone().unwrap_or_default();
}

fn busy_state(busy: &Busy) -> &'static str {
    match busy.what.as_str() {
        "rolling back" => "rolling-back",
        "recovering" => "recovering",
        "stopping" => "stopping",
        "starting" | "restarting" => "starting",
        _ => "deploying",
    }
}

/// The view of before when it is equal, so that what hangs on it stays shared.
fn keep(before: &World, view: AppView) -> Arc<AppView> {
    match before.apps.get(&view.name) {
        Some(old) if **old == view => old.clone(),
        _ => Arc::new(view),
    }
}

/// What is said of an app and of its dataset.
fn lines_about(text: &str, app: &AppName, dataset: &str) -> String {
    let prefixes = [format!("app {app}: "), format!("dataset {dataset}: ")];
    let about = |line: &'_ str| prefixes.iter().any(|prefix| line.starts_with(prefix));
    let of_app = |line| str::strip_prefix(line, prefixes[0].as_str()).unwrap_or(line);
    let lines: Vec<&str> = text.lines().filter(|line| about(line)).map(of_app).collect();
    lines.join("; ")
}

fn first_line(deploy: &DeployView) -> &str {
    let text = if deploy.state == "rejected" { &deploy.errors } else { &deploy.verdict };
    text.lines().next().unwrap_or_default()
}

/// What an app did that nobody asked for: it was found running, it ended, or it was started again after that.
fn own_change(first: bool, old: &AppView, new: &AppView) -> Option<(EventKind, String)> {
    if first {
        let found = new.state == "running" && new.pid != 0;
        return found
            .then(|| (EventKind::AppAdopted, format!("{} runs as process {}", new.version, new.pid)));
    }
    if new.restarts > old.restarts {
        return Some((EventKind::AppRestarted, format!("{}; restart {}", new.last_exit, new.restarts)));
    }
    let ended = matches!(new.state.as_str(), "backoff" | "failed" | "completed" | "gone");
    let text = || if new.last_exit.is_empty() { new.state.clone() } else { new.last_exit.clone() };
    (old.state == "running" && ended).then(|| (EventKind::AppExited, text()))
}

/// True when a reader would see a difference. Free space moves all the time and is no change by itself.
fn differs(before: &World, after: &World) -> bool {
    let mut host = (*after.host).clone();
    host.available = before.host.available;
    before.version == 0
        || *before.host != host
        || before.apps != after.apps
        || before.deploys != after.deploys
        || before.plans != after.plans
        || !Arc::ptr_eq(&before.datasets, &after.datasets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apps_do_by_themselves_is_told() {
        let app = |state: &str, pid: u32, restarts: u32| AppView {
            version: "1.0.0".to_owned(),
            state: state.to_owned(),
            pid,
            restarts,
            last_exit: if restarts > 0 || pid == 0 { "exit 1".to_owned() } else { String::new() },
            ..AppView::default()
        };
        let running = app("running", 7, 0);
        let restarted = "exit 1; restart 1";
        for (first, old, new, told) in [
            (true, AppView::default(), &running, Some((EventKind::AppAdopted, "1.0.0 runs as process 7"))),
            (true, AppView::default(), &app("stopped", 0, 0), None),
            (false, AppView::default(), &running, None),
            (false, running.clone(), &app("running", 8, 1), Some((EventKind::AppRestarted, restarted))),
            (false, running.clone(), &app("failed", 0, 0), Some((EventKind::AppExited, "exit 1"))),
            (false, running.clone(), &app("gone", 0, 0), Some((EventKind::AppExited, "exit 1"))),
            (false, running.clone(), &app("stopped", 0, 0), None),
            (false, running.clone(), &app("deploying", 7, 0), None),
            (false, app("running", 8, 1), &running, None),
        ] {
            let told = told.map(|(kind, text)| (kind, text.to_owned()));
            assert_eq!(own_change(first, &old, new), told, "{} -> {}", old.state, new.state);
        }
    }
}
