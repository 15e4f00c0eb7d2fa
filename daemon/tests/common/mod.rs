//! A daemon without a tree: an engine on a store and a simulated host, that can be killed and started again.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use zed_ctl::Verb;
use zed_ctl::World;
use zed_fs::Outcome;
use zed_fs::WaitFor;
use zed_host::Host;
use zed_host::HostError;
use zed_host::ProbeReport;
use zed_host::ProbeRequest;
use zed_host::ProbeResult;
use zed_host::ProcessInfo;
use zed_host::SimHost;
use zed_plan::Instance;
use zed_spec::AppName;
use zed_spec::HostName;
use zed_store::Store;
use zedd::engine::Engine;
use zedd::engine::Parts;
use zedd::events::Events;
use zedd::faults::Faults;
use zedd::inventory::Inventory;
use zedd::metrics::Metrics;
use zedd::monitor::Monitor;
use zedd::observe::Fixed;
use zedd::shared::Request;
use zedd::shared::Shared;
use zedd::state::StateDir;
use zedd::steps::Steps;

/// Writes what an app would write when it starts.
pub(crate) type OnStart = Arc<dyn Fn(&zed_host::Start) + Send + Sync>;

/// A simulated host whose apps leave a trace in their dataset when they start.
pub(crate) struct WritingHost {
    pub(crate) sim: SimHost,
    pub(crate) on_start: OnStart,
}

impl Host for WritingHost {
    fn observe(&self) -> Result<std::collections::BTreeMap<Instance, ProcessInfo>, HostError> {
        self.sim.observe()
    }
    fn start(&self, request: &zed_host::Start) -> Result<(), HostError> {
        let before = self.sim.starts(&request.run.instance());
        self.sim.start(request)?;
        if self.sim.starts(&request.run.instance()) > before {
            (self.on_start)(request);
        }
        Ok(())
    }
    fn stop(&self, app: &Instance, grace: Duration) -> Result<(), HostError> {
        self.sim.stop(app, grace)
    }
    fn forget(&self, app: &Instance) -> Result<(), HostError> {
        self.sim.forget(app)
    }
    fn probe(&self, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> ProbeReport {
        self.sim.probe(request, cancel)
    }
    fn check(&self, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> Vec<ProbeResult> {
        self.sim.check(request, cancel)
    }
    fn run_hook(&self, request: &zed_host::HookRequest) -> Result<zed_host::HookReport, HostError> {
        self.sim.run_hook(request)
    }
    fn route(&self, route: &zed_plan::Route) -> Result<(), HostError> {
        self.sim.route(route)
    }
    fn drain(
        &self,
        instance: &Instance,
        port: u16,
        at_most: Duration,
    ) -> Result<zed_host::Drained, HostError> {
        self.sim.drain(instance, port, at_most)
    }
    fn guests(&self) -> Option<Arc<dyn zed_host::guest::Guests>> {
        self.sim.guests()
    }
    fn log_path(&self, app: &Instance) -> PathBuf {
        self.sim.log_path(app)
    }
    fn crash_path(&self, app: &Instance) -> PathBuf {
        self.sim.crash_path(app)
    }
}

/// A running engine.
pub(crate) struct Daemon {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: StateDir,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts one on this store, host and state directory.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        sim: &SimHost,
        on_start: OnStart,
        state: &Path,
        faults: Faults,
    ) -> Self {
        let state = StateDir::open(state).unwrap();
        let guests = if sim.guests().is_some() { &["jail", "zone"][..] } else { &[] };
        let capabilities = ["process"].iter().chain(guests).map(|word| (*word).to_owned()).collect();
        let shared = Arc::new(Shared::new());
        let host: Arc<dyn Host> = Arc::new(WritingHost { sim: sim.clone(), on_start });
        let events = Arc::new(Events::open(&state.events_path()).unwrap());
        let steps = Steps::new(store.clone(), host.clone(), state.clone());
        // Nobody starts it: these tests are about the loop.
        let at_least = Duration::from_secs(3600);
        let monitor = Monitor::new(host.clone(), steps, shared.clone(), events.clone(), at_least);
        let engine = Engine::new(Parts {
            store,
            host,
            monitor,
            state: state.clone(),
            fixed: Fixed {
                host: HostName::parse("h").unwrap(),
                pool: None,
                facts: std::collections::BTreeMap::new(),
                runtimes: capabilities,
            },
            store_name: "test".into(),
            shared: shared.clone(),
            events,
            metrics: Arc::new(Metrics::default()),
            inventory: Inventory::none(),
            faults,
            drift_interval: Duration::from_secs(3600),
        })
        .unwrap();
        let thread = std::thread::spawn(move || engine.run());
        Self { shared, state, thread: Some(thread) }
    }

    /// Saves a spec as the tree would.
    pub(crate) fn save(&self, name: &str, text: &str) {
        let path = self.state.deploy_dir().join(format!("{name}.ron"));
        zedd::state::replace_file(&path, text.as_bytes()).unwrap();
        self.shared.saved(name);
    }

    /// Removes a spec as the tree would.
    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.state.deploy_dir().join(format!("{name}.ron"))).unwrap();
        self.shared.saved(name);
    }

    /// Waits until a deploy has settled; `None` when the daemon was killed before.
    pub(crate) fn settled(&self, name: &str) -> Option<Outcome> {
        self.wait(WaitFor::Settled(name.to_owned()))
    }

    /// Submits a verb and waits for its end; `None` when the daemon was killed before.
    pub(crate) fn verb(&self, app: Option<&str>, verb: Verb) -> Option<Outcome> {
        let app = app.map(|app| AppName::parse(app).unwrap());
        let ticket = self.shared.submit(|ticket| Request::Verb { app, verb, ticket });
        self.wait(WaitFor::Ticket(ticket))
    }

    fn wait(&self, what: WaitFor) -> Option<Outcome> {
        let (told, outcome) = mpsc::channel();
        self.shared.when(what, Box::new(move |outcome| drop(told.send(outcome))));
        loop {
            match outcome.recv_timeout(Duration::from_millis(5)) {
                Ok(outcome) => return Some(outcome),
                Err(_) if self.killed() => return outcome.try_recv().ok(),
                Err(_) => {}
            }
        }
    }

    /// True when a fault has killed it.
    pub(crate) fn killed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The world, after everything submitted so far was looked at.
    pub(crate) fn world(&self) -> Arc<World> {
        self.verb(None, Verb::Reload);
        self.shared.world()
    }

    /// Stops it in order.
    pub(crate) fn stop(mut self) {
        self.shared.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}
