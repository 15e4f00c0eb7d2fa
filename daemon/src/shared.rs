//! What the reconcile loop, its workers and the file tree share, behind one lock that is never held for long.
//!
//! Requests go in, outcomes and the world come out. Nothing here touches the store or a process.

use crate::monitor::AppHealth;
use crate::observe::Look;
use crate::rollout::Signals;
use crate::rollout::Steer;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zed_ctl::AppView;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::Verb;
use zed_ctl::World;
use zed_fs::Done;
use zed_fs::Outcome;
use zed_fs::Ticket;
use zed_fs::WaitFor;
use zed_plan::Plan;
use zed_plan::Release;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::DeployName;

/// Outcomes of ended commands that are remembered for a late waiter.
const REMEMBERED_TICKETS: usize = 1000;

/// Before the step of a deploy that an operator holds.
const PAUSED: &str = "paused: ";

/// Called with the number of the new world.
type Hook = Box<dyn Fn(u64) + Send + Sync>;

/// A command that was judged good and waits for the loop.
#[derive(Debug, Clone)]
pub enum Request {
    /// A verb, for an app or for everything.
    Verb {
        /// The app, for verbs of an app.
        app: Option<AppName>,
        /// What.
        verb: Verb,
        /// Who waits.
        ticket: Ticket,
    },
    /// Apply exactly this plan.
    Apply {
        /// The plan.
        plan: Box<Plan>,
        /// Who waits.
        ticket: Ticket,
    },
}

impl Request {
    /// Who waits for it.
    pub fn ticket(&self) -> Ticket {
        match self {
            Request::Verb { ticket, .. } | Request::Apply { ticket, .. } => *ticket,
        }
    }
}

/// Where an app is, by its stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPlace {
    /// Its deploy.
    pub deploy: DeployName,
    /// Its dataset.
    pub dataset: DatasetPath,
    /// `com.zed:spec`.
    pub spec: String,
}

/// What judging a verb needs to know, as of the last look.
#[derive(Clone, Default)]
pub struct Known {
    /// The last look; `None` before the first.
    pub look: Option<Look>,
    /// Kept releases.
    pub releases: Arc<BTreeMap<String, Release>>,
    /// Apps by their stamps.
    pub apps: Arc<BTreeMap<AppName, AppPlace>>,
    /// Deploys that have a record.
    pub deploys: Arc<BTreeSet<DeployName>>,
    /// Datasets that some spec declares.
    pub declared: Arc<BTreeSet<DatasetPath>>,
    /// Generations by deploy.
    pub generations: Arc<BTreeMap<DeployName, u64>>,
}

/// Shared state.
pub struct Shared {
    inner: Mutex<Inner>,
    wake: Condvar,
    hooks: Mutex<Vec<Hook>>,
    /// Set once, when the daemon ends.
    pub stopping: Arc<AtomicBool>,
}

#[derive(Default)]
struct Inner {
    world: Arc<World>,
    known: Known,
    woken: bool,
    requests: Vec<Request>,
    saves: BTreeMap<String, u64>,
    save_seq: u64,
    settled: BTreeMap<String, (u64, Outcome)>,
    first_pass_done: bool,
    settle_waiters: Vec<(String, u64, Done)>,
    next_ticket: u64,
    tickets: BTreeMap<Ticket, Option<Outcome>>,
    ticket_waiters: Vec<(Ticket, Done)>,
    busy: BTreeMap<DeployName, Busy>,
    health: Arc<BTreeMap<String, AppHealth>>,
}

/// A deploy on which a worker works.
#[derive(Debug, Clone)]
pub struct Busy {
    /// `deploying`, `rolling back`, ...
    pub what: String,
    /// What it does just now.
    pub step: String,
    /// What its worker listens to.
    pub signals: Signals,
}

/// What a pass has to look at.
#[derive(Default)]
pub struct Inbox {
    /// Commands, oldest first.
    pub requests: Vec<Request>,
    /// The save number up to which this pass has seen everything.
    pub seen: u64,
}

impl Shared {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self {
            inner: Mutex::default(),
            wake: Condvar::new(),
            hooks: Mutex::default(),
            stopping: Arc::new(AtomicBool::new(false)),
        }
    }

    /// The world as it was last published.
    pub fn world(&self) -> Arc<World> {
        self.inner.lock().world.clone()
    }

    /// What verbs are judged by.
    pub fn known(&self) -> Known {
        self.inner.lock().known.clone()
    }

    /// Publishes what verbs are judged by.
    pub fn set_known(&self, known: Known) {
        self.inner.lock().known = known;
    }

    /// Publishes a world when it differs in more than its number; tells the hooks.
    pub fn publish(&self, mut world: World) {
        let version = {
            let mut inner = self.inner.lock();
            world.version = inner.world.version + 1;
            // It may have changed since the loop has put it in.
            show_health(&mut world, &inner.health);
            inner.world = Arc::new(world);
            inner.world.version
        };
        self.tell_hooks(version);
    }

    /// An app's health has changed, or it has none of its own any more. It is shown at once; the caller has to call
    /// [`Self::tell_changed`] when it holds no lock.
    pub fn set_health(&self, app: &AppName, health: Option<AppHealth>) {
        let mut inner = self.inner.lock();
        match health {
            Some(health) => Arc::make_mut(&mut inner.health).insert(app.to_string(), health),
            None => Arc::make_mut(&mut inner.health).remove(app.as_str()),
        };
        let mut world = (*inner.world).clone();
        if show_health(&mut world, &inner.health) {
            world.version += 1;
            world.changed_at = crate::engine::now();
            inner.world = Arc::new(world);
        }
    }

    /// Tells the hooks that the world has changed.
    pub fn tell_changed(&self) {
        let version = self.inner.lock().world.version;
        self.tell_hooks(version);
    }

    /// The health that the monitor knows, by app.
    pub fn health(&self) -> Arc<BTreeMap<String, AppHealth>> {
        self.inner.lock().health.clone()
    }

    /// Puts the health that the monitor knows into a world that is not published yet.
    pub fn show_health(&self, world: &mut World) {
        show_health(world, &self.inner.lock().health);
    }

    fn tell_hooks(&self, version: u64) {
        for hook in &*self.hooks.lock() {
            hook(version);
        }
    }

    /// Calls the hook after each change of the world.
    pub fn on_change(&self, hook: Hook) {
        self.hooks.lock().push(hook);
    }

    /// Makes the loop look again, now.
    pub fn wake(&self) {
        self.inner.lock().woken = true;
        self.wake.notify_all();
    }

    /// The daemon ends: the loop leaves at its next turn, probes end early.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for busy in self.inner.lock().busy.values() {
            busy.signals.cancel.store(true, Ordering::SeqCst);
        }
        self.wake();
    }

    /// Waits for a wake-up or for the timer, and takes what has come in.
    pub fn next(&self, timer: Duration) -> Inbox {
        let mut inner = self.inner.lock();
        if !inner.woken && !self.stopping.load(Ordering::SeqCst) {
            self.wake.wait_for(&mut inner, timer);
        }
        inner.woken = false;
        inner.saves.clear();
        Inbox { requests: std::mem::take(&mut inner.requests), seen: inner.save_seq }
    }

    /// A spec was saved.
    pub fn saved(&self, name: &str) {
        {
            let mut inner = self.inner.lock();
            inner.save_seq += 1;
            let seq = inner.save_seq;
            inner.saves.insert(name.to_owned(), seq);
            // Whoever waits from now on waits for this save.
            inner.settled.remove(name);
        }
        self.wake();
    }

    /// A dry run was saved: the plan of the text before is no longer shown.
    pub fn plan_saved(&self, name: &str) {
        let version = {
            let mut inner = self.inner.lock();
            let mut world = (*inner.world).clone();
            let mut plans = (*world.plans).clone();
            plans.remove(name);
            world.plans = Arc::new(plans);
            world.version += 1;
            let version = world.version;
            inner.world = Arc::new(world);
            version
        };
        self.tell_hooks(version);
        self.wake();
    }

    /// Hands a request to the loop.
    pub fn submit(&self, make: impl FnOnce(Ticket) -> Request) -> Ticket {
        let ticket = {
            let mut inner = self.inner.lock();
            inner.next_ticket += 1;
            let ticket = Ticket(inner.next_ticket);
            inner.tickets.insert(ticket, None);
            let excess = inner.tickets.len().saturating_sub(REMEMBERED_TICKETS);
            let ended: Vec<Ticket> =
                inner.tickets.iter().filter(|(_, o)| o.is_some()).map(|(t, _)| *t).take(excess).collect();
            for ticket in ended {
                inner.tickets.remove(&ticket);
            }
            inner.requests.push(make(ticket));
            ticket
        };
        self.wake();
        ticket
    }

    /// A command has ended: whoever waits is told.
    pub fn end_ticket(&self, ticket: Ticket, outcome: &Outcome) {
        let mut told = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.tickets.insert(ticket, Some(outcome.clone()));
            let waiters = std::mem::take(&mut inner.ticket_waiters);
            for (wanted, done) in waiters {
                if wanted == ticket { told.push(done) } else { inner.ticket_waiters.push((wanted, done)) }
            }
        }
        for done in told {
            done(outcome.clone());
        }
    }

    /// A pass has brought a deploy to rest, having seen all saves up to `seen`.
    pub fn settle(&self, name: &str, seen: u64, outcome: Outcome) {
        let mut told = Vec::new();
        {
            let mut inner = self.inner.lock();
            if inner.saves.contains_key(name) {
                return;
            }
            let waiters = std::mem::take(&mut inner.settle_waiters);
            for (wanted, seq, done) in waiters {
                if wanted == name && seq <= seen {
                    told.push(done)
                } else {
                    inner.settle_waiters.push((wanted, seq, done))
                }
            }
            inner.settled.insert(name.to_owned(), (seen, outcome.clone()));
        }
        for done in told {
            done(outcome.clone());
        }
    }

    /// A deploy is at work again: its last outcome no longer answers a waiter.
    pub fn unsettle(&self, name: &str) {
        self.inner.lock().settled.remove(name);
    }

    /// The first pass is over, or a later one: deploys that are not there are known not to be there.
    pub fn pass_done(&self, names: &BTreeSet<String>) {
        let mut gone = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.first_pass_done = true;
            inner.settled.retain(|name, _| names.contains(name));
            let waiters = std::mem::take(&mut inner.settle_waiters);
            for (name, seq, done) in waiters {
                let known = names.contains(&name) || inner.saves.contains_key(&name);
                if known { inner.settle_waiters.push((name, seq, done)) } else { gone.push((name, done)) }
            }
        }
        for (name, done) in gone {
            done(Err(no_deploy(&name)));
        }
    }

    /// Calls `done` when it has ended.
    pub fn when(&self, what: WaitFor, done: Done) {
        let outcome = {
            let mut inner = self.inner.lock();
            match what {
                WaitFor::Ticket(ticket) => match inner.tickets.get(&ticket) {
                    Some(None) => {
                        inner.ticket_waiters.push((ticket, done));
                        return;
                    }
                    Some(Some(outcome)) => outcome.clone(),
                    None => Ok("ended".to_owned()),
                },
                WaitFor::Settled(name) => {
                    if let Some((_, outcome)) = inner.settled.get(&name) {
                        outcome.clone()
                    } else {
                        let seq = inner.saves.get(&name).copied().unwrap_or(0);
                        inner.settle_waiters.push((name, seq, done));
                        // A name that nobody knows is answered at the end of the next pass.
                        inner.woken = true;
                        self.wake.notify_all();
                        return;
                    }
                }
            }
        };
        done(outcome);
    }

    /// Marks a deploy as worked on. `Err` says what is going on already.
    pub fn begin(&self, deploy: &DeployName, what: &str) -> Result<Signals, String> {
        let mut inner = self.inner.lock();
        if let Some(busy) = inner.busy.get(deploy) {
            return Err(busy.what.clone());
        }
        let signals = Signals::new(self.stopping.load(Ordering::SeqCst));
        let busy = Busy { what: what.to_owned(), step: String::new(), signals: signals.clone() };
        inner.busy.insert(deploy.clone(), busy);
        Ok(signals)
    }

    /// Says what is being done on a deploy, and shows it at once.
    pub fn set_step(&self, deploy: &DeployName, step: &str) {
        let version = {
            let mut inner = self.inner.lock();
            if let Some(busy) = inner.busy.get_mut(deploy) {
                step.clone_into(&mut busy.step);
            }
            let mut world = (*inner.world).clone();
            let Some(view) = world.deploys.get(deploy.as_str()) else { return };
            let mut view = (**view).clone();
            step.clone_into(&mut view.step);
            let mut deploys = (*world.deploys).clone();
            deploys.insert(deploy.to_string(), Arc::new(view));
            world.deploys = Arc::new(deploys);
            world.version += 1;
            let version = world.version;
            inner.world = Arc::new(world);
            version
        };
        self.tell_hooks(version);
    }

    /// Says it to the worker of a deploy; false when none works on it.
    pub fn steer(&self, deploy: &DeployName, steer: Steer) -> bool {
        let Some(busy) = self.inner.lock().busy.get(deploy).cloned() else { return false };
        busy.signals.steer(steer);
        let step = busy.step.strip_prefix(PAUSED).unwrap_or(&busy.step);
        match busy.signals.is_paused() {
            true => self.set_step(deploy, &format!("{PAUSED}{step}")),
            false => self.set_step(deploy, step),
        }
        true
    }

    /// The work on a deploy is over.
    pub fn end(&self, deploy: &DeployName) {
        self.inner.lock().busy.remove(deploy);
    }

    /// Deploys that are worked on.
    pub fn busy(&self) -> BTreeMap<DeployName, Busy> {
        self.inner.lock().busy.clone()
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts what the monitor knows of an app into its view. Without a process there is nothing to ask, and the view says why.
pub fn show_health_of(view: &mut AppView, health: &AppHealth) {
    if view.pid != 0 {
        health.health.as_str().clone_into(&mut view.health);
        view.health_since = health.since;
        view.health_reason.clone_from(&health.reason);
    }
}

/// Puts what the monitor knows of apps with a process into the world, and counts; true when something changed.
fn show_health(world: &mut World, known: &BTreeMap<String, AppHealth>) -> bool {
    let mut changed: Vec<(String, AppView)> = Vec::new();
    for (name, health) in known {
        let Some(view) = world.apps.get(name) else { continue };
        let shown = (view.health.as_str(), view.health_since, view.health_reason.as_str());
        if view.pid != 0 && shown != (health.health.as_str(), health.since, health.reason.as_str()) {
            let mut view = (**view).clone();
            show_health_of(&mut view, health);
            changed.push((name.clone(), view));
        }
    }
    let mut differs = !changed.is_empty();
    if differs {
        let mut apps = (*world.apps).clone();
        apps.extend(changed.into_iter().map(|(name, view)| (name, Arc::new(view))));
        world.apps = Arc::new(apps);
    }
    let wanted = world.apps.values().filter(|app| app.state != "stopped");
    let unhealthy = wanted.filter(|app| app.health == "unhealthy").count();
    if world.host.unhealthy != unhealthy {
        let mut host = (*world.host).clone();
        host.unhealthy = unhealthy;
        world.host = Arc::new(host);
        differs = true;
    }
    differs
}

/// There is no such deploy.
pub fn no_deploy(name: &str) -> CtlError {
    CtlError::new(Code::NotFound, format!("there is no deploy `{name}`"))
        .hint(format!("save deploy/{name}.ron first; `ls /zed/deploy` shows those that are there"))
}
