//! The reconcile loop: read what is declared, look at what is, plan, and let workers carry it out.
//!
//! Level-triggered: a wake-up carries no data that a pass relies on. Deploy, boot, retry, drift and the end of
//! a worker are all the same pass. The loop itself never waits for an app or a command.

mod crew;
mod deploys;
mod drift;
mod gpus;
mod jobs;
mod pools;
mod specs;
mod verbs;
mod world;

pub use deploys::DeployState;
pub use jobs::JobEnd;
pub use jobs::busy_error;
pub use world::Ground;
pub use world::stamped_view;

use crate::Stamp;
use crate::events::About;
use crate::events::Events;
use crate::executor::Executor;
use crate::faults::Faults;
use crate::inventory::Inventory;
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::observe::Fixed;
use crate::observe::Look;
use crate::observe::observe;
use crate::shared::Inbox;
use crate::shared::Known;
use crate::shared::Request;
use crate::shared::Shared;
use crate::state::StateDir;
use crate::state::StateError;
use crate::steps::Steps;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
use zed_artifact::Digests;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::EventKind;
use zed_fs::Outcome;
use zed_fs::Ticket;
use zed_host::Host;
use zed_plan::Release;
use zed_plan::RunId;
use zed_spec::DeployName;
use zed_store::Store;

/// What an engine is made of.
pub struct Parts {
    /// Where datasets are.
    pub store: Arc<dyn Store>,
    /// Where apps run.
    pub host: Arc<dyn Host>,
    /// The state directory.
    pub state: StateDir,
    /// Host name, pool, facts, runtimes.
    pub fixed: Fixed,
    /// How the store was named on the command line, for views.
    pub store_name: String,
    /// What is shared with the tree.
    pub shared: Arc<Shared>,
    /// Where events go.
    pub events: Arc<Events>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Asks apps after their deploy.
    pub monitor: Arc<Monitor>,
    /// GPUs of this host.
    pub inventory: Arc<Inventory>,
    /// Fault points.
    pub faults: Faults,
    /// Time between looks when nothing happens.
    pub drift_interval: Duration,
}

/// What a worker that carries out a spec is called.
pub(crate) const DEPLOYING: &str = "deploying";

/// The reconcile loop.
pub struct Engine {
    parts: Parts,
    executor: Executor,
    deploys: BTreeMap<DeployName, DeployState>,
    plans: BTreeMap<DeployName, DeployState>,
    /// Generations of deploys that are released.
    released: BTreeMap<DeployName, u64>,
    releases: Arc<BTreeMap<String, Release>>,
    releases_stale: bool,
    /// A run has ended since unused records were removed.
    releases_grew: bool,
    /// Deploys with a run that could neither be completed nor taken back, and why: its journal comes first, so
    /// nothing else is done to them before `retry` or the next start.
    stuck: BTreeMap<DeployName, String>,
    /// Deploys whose removal or start by the loop itself failed: tried again after a drift interval.
    pauses: BTreeMap<DeployName, (Instant, String)>,
    /// Runs that workers are carrying out.
    active: BTreeMap<DeployName, String>,
    /// Journals that cannot be read: shown until a person has looked.
    unreadable: BTreeMap<PathBuf, String>,
    /// Commands that end when their deploy comes to rest.
    waiting: BTreeMap<DeployName, Vec<Ticket>>,
    /// Commands that changed what a look sees: they wait for their deploy from the next pass on, because the
    /// look of their own was taken before.
    waiting_next: Vec<(DeployName, Ticket)>,
    /// Commands whose runs have ended, until the world shows it.
    ended: Vec<(Ticket, Outcome)>,
    /// Commands that end with the present pass.
    after_pass: Vec<Ticket>,
    ends: mpsc::Receiver<JobEnd>,
    end: mpsc::Sender<JobEnd>,
    started: bool,
    started_at: i64,
    killed: bool,
    world_cache: world::Cache,
    pools: pools::Pools,
    recorded: gpus::Recorded,
    /// What artifacts were when a look last saw them.
    digests: Digests,
}

impl Engine {
    /// Reads what is remembered; changes nothing yet.
    pub fn new(parts: Parts) -> Result<Self, StateError> {
        let steps = Steps::new(parts.store.clone(), parts.host.clone(), parts.state.clone());
        let executor = Executor::new(
            steps,
            parts.host.clone(),
            parts.state.clone(),
            parts.faults.clone(),
            parts.shared.stopping.clone(),
        );
        let (released, records): (BTreeMap<_, _>, BTreeMap<_, _>) =
            parts.state.records()?.into_iter().partition(|(_, record)| record.released);
        let released = released.into_iter().map(|(name, record)| (name, record.generation)).collect();
        let deploys = records
            .into_iter()
            .map(|(name, record)| (name.clone(), DeployState::remembered(&name, record)))
            .collect();
        let (end, ends) = mpsc::channel();
        Ok(Self {
            parts,
            executor,
            deploys,
            released,
            plans: BTreeMap::new(),
            releases: Arc::default(),
            releases_stale: true,
            releases_grew: false,
            stuck: BTreeMap::new(),
            pauses: BTreeMap::new(),
            active: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_next: Vec::new(),
            ended: Vec::new(),
            after_pass: Vec::new(),
            ends,
            end,
            started: false,
            started_at: now(),
            killed: false,
            world_cache: world::Cache::default(),
            pools: pools::Pools::default(),
            recorded: gpus::Recorded::default(),
            digests: Digests::default(),
        })
    }

    /// Loops until the daemon ends. Workers that are still busy are left: their journals say how to go on.
    pub fn run(mut self) {
        let shared = self.parts.shared.clone();
        while !shared.stopping.load(Ordering::SeqCst) && !self.killed {
            let timer = match (self.started, self.some_may_come_back()) {
                (false, _) => Duration::ZERO,
                (true, true) => specs::GONE_AFTER.min(self.parts.drift_interval),
                (true, false) => self.parts.drift_interval,
            };
            let inbox = shared.next(timer);
            if shared.stopping.load(Ordering::SeqCst) {
                break;
            }
            self.pass(&inbox);
        }
        self.drain();
        self.tell_ended();
    }

    /// One turn.
    pub fn pass(&mut self, inbox: &Inbox) {
        let began = Instant::now();
        self.finish_jobs();
        if self.killed {
            return;
        }
        if !std::mem::replace(&mut self.started, true) {
            self.recover(None);
        }
        let look = match self.read_specs().map_err(|e| crate::chain(&e)).and_then(|()| self.look()) {
            Ok(look) => look,
            Err(problem) => return self.trouble(&problem, &inbox.requests),
        };
        self.forget_releases(&look);
        // Once a pass: reading the stamps of thousands of datasets is a good part of it.
        let stamps = crate::stamps(&look.observed);
        self.tell_known(&look, &stamps);
        for (deploy, ticket) in std::mem::take(&mut self.waiting_next) {
            self.waiting.entry(deploy).or_default().push(ticket);
        }
        self.handle(&inbox.requests, &look);
        let changed = self.converge(&look);
        for text in self.pools.refresh(&*self.parts.store, self.parts.drift_interval) {
            self.emit(EventKind::PoolHealth, About::nothing(), &text);
        }
        if let Some(list) = self.parts.inventory.complete() {
            self.recorded.record(&list, &*self.parts.store, &look.datasets);
        }
        self.tell_monitor(&look, &stamps);
        self.publish(&look, &stamps);
        self.tell_ended();
        self.settle(inbox.seen);
        for ticket in std::mem::take(&mut self.after_pass) {
            self.parts.shared.end_ticket(ticket, &Ok("looked at everything".to_owned()));
        }
        self.parts.metrics.pass(began.elapsed(), changed);
    }

    fn tell_ended(&mut self) {
        for (ticket, outcome) in std::mem::take(&mut self.ended) {
            self.parts.shared.end_ticket(ticket, &outcome);
        }
    }

    /// Waits for workers that are about to end, a little while.
    fn drain(&mut self) {
        let until = Instant::now() + Duration::from_secs(3);
        while !self.killed && !self.parts.shared.busy().is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(end) = self.ends.recv_timeout(left) else { return };
            self.finish_job(end);
        }
    }

    fn look(&mut self) -> Result<Look, String> {
        if self.releases_stale {
            self.releases = Arc::new(self.parts.state.releases().map_err(|e| crate::chain(&e))?);
            self.releases_stale = false;
        }
        let specs = self.deploys.values().chain(self.plans.values()).filter_map(|deploy| deploy.spec());
        let declared = specs.flat_map(|spec| spec.apps.values());
        let apps = declared.chain(self.releases.values().map(|release| &release.definition));
        observe(&*self.parts.store, &*self.parts.host, &self.parts.fixed, &self.digests, apps).map_err(|e| {
            self.parts.metrics.store_error();
            crate::chain(&e)
        })
    }

    /// Removes records of releases that nothing is stamped with any more. Only while no run may add a stamp.
    fn forget_releases(&mut self, look: &Look) {
        if !self.releases_grew || !self.parts.shared.busy().is_empty() {
            return;
        }
        self.releases_grew = false;
        let datasets = look.observed.datasets.values().map(|dataset| &dataset.user);
        let snapshots = look.observed.snapshots.values().flatten().map(|snapshot| &snapshot.user);
        let stamped: BTreeSet<&str> = datasets
            .chain(snapshots)
            .flatten()
            .filter(|(name, _)| name.ends_with(zed_plan::props::name::SPEC.trim_start_matches("com.zed:")))
            .map(|(_, value)| value.as_str())
            .collect();
        let unused: Vec<String> =
            self.releases.keys().filter(|hash| !stamped.contains(hash.as_str())).cloned().collect();
        for hash in unused {
            match self.parts.state.remove_release(&hash) {
                Ok(()) => self.releases_stale = true,
                Err(error) => tracing::warn!(error = %crate::chain(&error), "an unused release record stays"),
            }
        }
    }

    /// What verbs are judged by until the next pass.
    fn tell_known(&self, look: &Look, stamps: &[Stamp]) {
        self.parts.shared.set_known(Known {
            look: Some(look.clone()),
            releases: self.releases.clone(),
            apps: Arc::new(crate::places_of(stamps)),
            deploys: Arc::new(self.deploys.keys().cloned().collect()),
            declared: Arc::new(
                self.deploys
                    .values()
                    .filter_map(|d| d.spec())
                    .flat_map(|spec| spec.datasets.keys().cloned())
                    .collect(),
            ),
            generations: Arc::new(
                self.deploys.iter().map(|(name, d)| (name.clone(), d.record.generation)).collect(),
            ),
        });
    }

    /// The store or the state cannot be read: nothing is decided, no waiter is told that it has settled. Commands
    /// are refused, because what they would be done to cannot be seen.
    fn trouble(&mut self, problem: &str, requests: &[Request]) {
        tracing::error!(problem, "the host cannot be observed; trying again");
        self.parts.events.emit(EventKind::Warning, About::nothing(), problem);
        let mut world = (*self.parts.shared.world()).clone();
        let mut host = (*world.host).clone();
        "failed".clone_into(&mut host.state);
        host.problems = vec![problem.to_owned()];
        world.host = Arc::new(host);
        world.changed_at = now();
        self.parts.shared.publish(world);
        self.tell_ended();
        for request in requests {
            let text = format!("the host cannot be observed: {problem}");
            self.parts.shared.end_ticket(request.ticket(), &Err(CtlError::new(Code::Busy, text)));
        }
    }

    /// Why a deploy is left alone for a while, if it is.
    fn paused(&self, name: &DeployName) -> Option<String> {
        let (since, text) = self.pauses.get(name)?;
        (since.elapsed() < self.parts.drift_interval).then(|| text.clone())
    }

    /// Tells everybody who waits for a deploy that is at rest.
    fn settle(&mut self, seen: u64) {
        let busy = self.parts.shared.busy();
        for (name, deploy) in &self.deploys {
            if busy.contains_key(name) || !deploy.at_rest() {
                continue;
            }
            let outcome = deploy.outcome();
            for ticket in self.waiting.remove(name).unwrap_or_default() {
                self.parts.shared.end_ticket(ticket, &outcome);
            }
            self.parts.shared.settle(name.as_str(), seen, outcome);
        }
        let names: BTreeSet<String> = self.deploys.keys().map(ToString::to_string).collect();
        self.parts.shared.pass_done(&names);
    }

    fn emit(&self, kind: EventKind, about: About, text: &str) {
        self.parts.events.emit(kind, about, text);
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A new run's name: milliseconds since 1970 and a counter, in base 36. Unique on a host as long as its clock
/// does not go back over a restart within the same millisecond.
pub fn new_run() -> RunId {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = u128::from(COUNTER.fetch_add(1, Ordering::Relaxed) % 1296);
    let mut rest = since.as_millis() * 1296 + count;
    let mut text = Vec::new();
    while rest > 0 {
        // The remainder is below 36, so the index is in range.
        text.push(DIGITS[usize::try_from(rest % 36).unwrap_or(0)]);
        rest /= 36;
    }
    text.reverse();
    RunId(String::from_utf8_lossy(&text).into_owned())
}
