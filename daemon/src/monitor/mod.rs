//! Health after the deploy: every process with probes is asked again and again, and changes are told.
//!
//! Runs on threads of its own: the reconcile loop only says which processes there are. State is in memory: nothing is
//! written to the store, and a new daemon begins with `unknown`. Never decides anything: an app that is unhealthy is
//! shown and told, and stays what it is.
//!
//! While a worker is at a deploy, its apps are left alone: the deploy asks them itself. At most `MOST_AT_ONCE` checks
//! are under way, and no more than `MOST_A_SECOND` begin in a second, whatever the number of apps.

mod state;

pub use state::AppHealth;
pub use state::Health;

use crate::engine::now;
use crate::events::About;
use crate::events::Events;
use crate::shared::Shared;
use crate::steps::Steps;
use parking_lot::Condvar;
use parking_lot::Mutex;
use state::ProcessState;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use zed_ctl::EventKind;
use zed_ctl::ProbeCounts;
use zed_ctl::ProbeView;
use zed_host::Host;
use zed_host::ProbeRequest;
use zed_host::ProbeResult;
use zed_plan::Instance;
use zed_plan::RunSpec;
use zed_spec::AppName;
use zed_spec::DeployName;

/// Checks that may be under way at the same time.
const MOST_AT_ONCE: usize = 16;
/// Checks that may begin in a second: with more apps than fit, each is asked less often.
const MOST_A_SECOND: u32 = 50;

/// A process to be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Which.
    pub instance: Instance,
    /// Its deploy.
    pub deploy: DeployName,
    /// `com.zed:spec` of its release: with another one it is another app that is asked.
    pub spec: String,
    /// The run that is there.
    pub run_hash: String,
    /// How it is asked.
    pub health: zed_spec::Health,
    /// The deploy's own probes have passed.
    pub deployed_healthy: bool,
}

impl Target {
    /// What makes it the same process of the same release.
    fn key(&self) -> (&str, &str) {
        (&self.spec, &self.run_hash)
    }
}

struct Entry {
    target: Target,
    state: ProcessState,
    /// What is asked, once it was made: values from elsewhere are those of the run.
    request: Option<Arc<ProbeRequest>>,
    due: Instant,
    /// Ends the check that is under way.
    under_way: Option<Arc<AtomicBool>>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Instance, Entry>,
    told: BTreeMap<AppName, AppHealth>,
    counts: BTreeMap<AppName, ProbeCounts>,
    /// Deploys that a worker works on.
    paused: BTreeSet<DeployName>,
    /// The loop has said what there is at least once.
    started: bool,
    at_work: usize,
    stopping: bool,
    make: Option<MakeRun>,
}

/// See the module.
pub struct Monitor {
    host: Arc<dyn Host>,
    steps: Steps,
    shared: Arc<Shared>,
    events: Arc<Events>,
    /// No app is asked more often than this.
    at_least: Duration,
    spread: RandomState,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// Makes the run of a process when it is needed: it costs a hash of the whole app.
pub type MakeRun = Arc<dyn Fn(&Target) -> Option<RunSpec> + Send + Sync>;

impl Monitor {
    /// Asks nobody yet. `at_least` is the time between two checks of an app whose own interval is shorter.
    pub fn new(
        host: Arc<dyn Host>,
        steps: Steps,
        shared: Arc<Shared>,
        events: Arc<Events>,
        at_least: Duration,
    ) -> Arc<Self> {
        let (spread, inner, changed) = (RandomState::new(), Mutex::default(), Condvar::new());
        Arc::new(Self { host, steps, shared, events, at_least, spread, inner, changed })
    }

    /// Starts the thread that starts the checks.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let monitor = Arc::clone(self);
        std::thread::Builder::new().name("health".to_owned()).spawn(move || monitor.run()).map(drop)
    }

    /// Ends all checks, and starts none any more.
    pub fn stop(&self) {
        let mut inner = self.inner.lock();
        inner.stopping = true;
        for entry in inner.entries.values() {
            entry.cancel();
        }
        self.changed.notify_all();
    }

    /// A worker begins to work on a deploy: its apps are left alone until [`Self::set_targets`] finds it idle.
    pub fn pause(&self, deploy: &DeployName) {
        let mut inner = self.inner.lock();
        inner.paused.insert(deploy.clone());
        for entry in inner.entries.values().filter(|entry| entry.target.deploy == *deploy) {
            entry.cancel();
        }
    }

    /// What there is now, of deploys that no worker works on (`busy`); of those that are worked on, what was there
    /// stays as it is.
    pub fn set_targets(&self, targets: Vec<Target>, make: MakeRun, busy: &BTreeSet<DeployName>) {
        let mut inner = self.inner.lock();
        inner.paused.clone_from(busy);
        inner.make = Some(make);
        let first = !std::mem::replace(&mut inner.started, true);
        let wanted: BTreeSet<Instance> = targets.iter().map(|target| target.instance.clone()).collect();
        let mut changed = BTreeSet::new();
        inner.entries.retain(|instance, entry| {
            let keep = wanted.contains(instance) || busy.contains(&entry.target.deploy);
            if !keep {
                entry.cancel();
                changed.insert(instance.app.clone());
            }
            keep
        });
        let floor = self.floor(targets.len());
        let mut fresh = BTreeSet::new();
        for target in targets {
            if busy.contains(&target.deploy) {
                continue;
            }
            let instance = target.instance.clone();
            if let Some(entry) = inner.entries.get_mut(&instance)
                && entry.target.key() == target.key()
            {
                entry.target = target;
                continue;
            }
            if let Some(old) = inner.entries.get(&instance) {
                old.cancel();
            }
            // What a new daemon finds may have changed while nobody looked.
            let state = ProcessState::deployed(target.deployed_healthy && !first);
            fresh.insert(instance.app.clone());
            changed.insert(instance.app.clone());
            let due = Instant::now() + self.offset(&instance, target.health.interval.max(floor));
            let entry = Entry { target, state, request: None, due, under_way: None };
            inner.entries.insert(instance, entry);
        }
        let mut told_something = false;
        for app in changed {
            let how = if first { Telling::Found } else { Telling::of(&fresh, &app) };
            told_something |= self.tell(&mut inner, &app, how);
        }
        let Inner { entries, told, counts, .. } = &mut *inner;
        let exists = |app: &AppName| entries.range(all_of(app)).next().is_some();
        told.retain(|app, _| exists(app));
        counts.retain(|app, _| exists(app));
        self.changed.notify_all();
        drop(inner);
        if told_something {
            self.shared.tell_changed();
        }
    }

    /// Each probe of an app.
    pub fn probes(&self, app: &AppName) -> Vec<ProbeView> {
        let inner = self.inner.lock();
        let processes = inner.entries.range(all_of(app)).map(|(instance, entry)| (instance, &entry.state));
        state::probe_views(&processes.collect())
    }

    /// Probes asked and failed, by app.
    pub fn counts(&self) -> BTreeMap<String, ProbeCounts> {
        self.inner.lock().counts.iter().map(|(app, counts)| (app.to_string(), *counts)).collect()
    }

    /// No app is asked more often than this.
    fn floor(&self, targets: usize) -> Duration {
        let all = Duration::from_secs(1) / MOST_A_SECOND * u32::try_from(targets).unwrap_or(u32::MAX);
        self.at_least.max(all)
    }

    /// Where in its interval a process is asked first: processes that came together are not asked together.
    fn offset(&self, instance: &Instance, interval: Duration) -> Duration {
        let part = self.spread.hash_one(instance) % 1000;
        interval.mul_f64(f64::from(u32::try_from(part).unwrap_or(0)) / 1000.0)
    }

    /// Starts what is due, until the daemon ends.
    fn run(self: Arc<Self>) {
        let mut inner = self.inner.lock();
        while !inner.stopping {
            let now = Instant::now();
            let free = inner.at_work < MOST_AT_ONCE;
            let next = inner.next_due();
            match next {
                Some((instance, due)) if free && due <= now => self.begin(&mut inner, &instance),
                // A check that ends, and a change, ring.
                Some((_, due)) if free => drop(self.changed.wait_until(&mut inner, due)),
                _ => self.changed.wait(&mut inner),
            }
        }
    }

    fn begin(self: &Arc<Self>, inner: &mut Inner, instance: &Instance) {
        let floor = self.floor(inner.entries.len());
        let make = inner.make.clone();
        let Some(entry) = inner.entries.get_mut(instance) else { return };
        let cancel = Arc::new(AtomicBool::new(false));
        entry.due = Instant::now() + entry.target.health.interval.max(floor);
        let check = Check {
            instance: instance.clone(),
            cancel: Arc::clone(&cancel),
            request: entry.request.clone(),
            make,
            target: entry.target.clone(),
        };
        let monitor = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("health-check".to_owned()).spawn(move || {
            let carried_out =
                std::panic::AssertUnwindSafe(|| check.carry_out(&monitor.steps, &*monitor.host));
            let outcome = std::panic::catch_unwind(carried_out);
            let request_and_results = outcome.unwrap_or_else(|_| {
                (None, vec![failed("the check", "it ended with a panic; the log has the place".to_owned())])
            });
            monitor.end(&check, request_and_results);
        });
        match spawned {
            Ok(_) => {
                entry.under_way = Some(cancel);
                inner.at_work += 1;
            }
            // It is tried again when it is due the next time.
            Err(error) => tracing::warn!(%error, %instance, "no thread to check an app's health"),
        }
    }

    fn end(&self, check: &Check, (request, results): (Option<Arc<ProbeRequest>>, Vec<ProbeResult>)) {
        let mut inner = self.inner.lock();
        inner.at_work = inner.at_work.saturating_sub(1);
        self.changed.notify_all();
        // What was cancelled, or belongs to a run that is gone, says nothing.
        let Some(entry) = inner.entries.get_mut(&check.instance) else { return };
        if !entry.under_way.as_ref().is_some_and(|current| Arc::ptr_eq(current, &check.cancel)) {
            return;
        }
        entry.under_way = None;
        if check.cancel.load(Ordering::SeqCst) {
            return;
        }
        // After a failure it is made anew: what it stands on may be another one now, a guest for instance.
        entry.request = request.filter(|_| results.iter().all(|result| result.passed));
        entry.state.take(&results, entry.target.health.successes, now());
        let app = check.instance.app.clone();
        let counts = inner.counts.entry(app.clone()).or_default();
        counts.asked += results.len() as u64;
        counts.failed += results.iter().filter(|result| !result.passed).count() as u64;
        let told = self.tell(&mut inner, &app, Telling::Changed);
        drop(inner);
        if told {
            self.shared.tell_changed();
        }
    }

    /// Shows and tells an app's health when it has changed; true when it has.
    fn tell(&self, inner: &mut Inner, app: &AppName, how: Telling) -> bool {
        let entries: Vec<(&Instance, &Entry)> = inner.entries.range(all_of(app)).collect();
        let Some((_, first)) = entries.first() else {
            inner.told.remove(app);
            self.shared.set_health(app, None);
            return true;
        };
        let deploy = first.target.deploy.clone();
        let (health, reason) =
            state::worst(entries.iter().map(|(instance, entry)| (*instance, &entry.state)));
        let before = inner.told.get(app).cloned().unwrap_or_default();
        let same = before.health == health && how != Telling::Deployed;
        let since = if same && before.since != 0 { before.since } else { now() };
        let after = AppHealth { health, since, reason };
        if after == before {
            return false;
        }
        inner.told.insert(app.clone(), after.clone());
        self.shared.set_health(app, Some(after.clone()));
        let about = About::app(deploy.as_str(), app.as_str());
        match (before.health, health) {
            (_, Health::Healthy) if how == Telling::Deployed => {
                self.events.emit(EventKind::Healthy, about, "its probes pass");
            }
            (Health::Unhealthy, Health::Healthy) => {
                let text = format!("its probes pass again, after {} s", since - before.since);
                self.events.emit(EventKind::Recovered, about, &text);
            }
            (_, Health::Unhealthy) if before.health != health => {
                let text = format!("{} checks in a row failed; {}", state::FAILURES, after.reason);
                self.events.emit(EventKind::Unhealthy, about, &text);
            }
            // A new daemon sees for the first time what was healthy all the time.
            _ => {}
        }
        true
    }
}

/// Why an app's health is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// A new daemon has found it.
    Found,
    /// A deploy or a start has brought it.
    Deployed,
    /// A check has ended, or a process is gone.
    Changed,
}

impl Telling {
    fn of(fresh: &BTreeSet<AppName>, app: &AppName) -> Self {
        if fresh.contains(app) { Telling::Deployed } else { Telling::Changed }
    }
}

impl Entry {
    fn cancel(&self) {
        if let Some(cancel) = &self.under_way {
            cancel.store(true, Ordering::SeqCst);
        }
    }
}

impl Inner {
    /// What is to be asked next, and when.
    fn next_due(&self) -> Option<(Instance, Instant)> {
        let waiting = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.under_way.is_none() && !self.paused.contains(&entry.target.deploy));
        waiting.min_by_key(|(_, entry)| entry.due).map(|(instance, entry)| (instance.clone(), entry.due))
    }
}

/// One check of one process.
struct Check {
    instance: Instance,
    target: Target,
    cancel: Arc<AtomicBool>,
    request: Option<Arc<ProbeRequest>>,
    make: Option<MakeRun>,
}

impl Check {
    /// The results, and what was asked, for the next time.
    fn carry_out(&self, steps: &Steps, host: &dyn Host) -> (Option<Arc<ProbeRequest>>, Vec<ProbeResult>) {
        let request = match &self.request {
            Some(request) => Arc::clone(request),
            None => match self.new_request(steps) {
                Ok(request) => Arc::new(request),
                Err(why) => return (None, vec![failed("the check", why)]),
            },
        };
        let results = host.check(&request, &self.cancel);
        (Some(request), results)
    }

    fn new_request(&self, steps: &Steps) -> Result<ProbeRequest, String> {
        let run = self
            .make
            .as_ref()
            .and_then(|make| make(&self.target))
            .ok_or("the record of its release is missing, or a value that it needs")?;
        let request = steps.probe_request(&self.target.health, &run).map_err(|e| crate::chain(&e))?;
        // What was started decides, should a value from elsewhere have changed since.
        Ok(ProbeRequest {
            instance: self.instance.clone(),
            run_hash: self.target.run_hash.clone(),
            ..request
        })
    }
}

fn failed(probe: &str, text: String) -> ProbeResult {
    ProbeResult { probe: probe.to_owned(), passed: false, text, took: Duration::ZERO }
}

/// The processes of an app.
fn all_of(app: &AppName) -> std::ops::RangeInclusive<Instance> {
    Instance::new(app, 0)..=Instance::new(app, u32::MAX)
}

#[cfg(test)]
mod tests;
