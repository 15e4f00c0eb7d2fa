//! A host in memory, for tests of what stands on [`Host`]: apps have states, calls can be told to fail.
//!
//! It keeps the real host's rules: two runs of an app never run at once, a call may be repeated, and what runs goes
//! on running when the daemon dies. Clones are handles of the same host: keep one, give one to the daemon, drop
//! that with the daemon, and give another to the next.

use crate::guest::Guests;
use crate::guest::LocalGuests;
use crate::guest::SimGuests;
use crate::probe::PROCESS;
use crate::probe::name_of;
use crate::types::Drained;
use crate::types::HookReport;
use crate::types::HookRequest;
use crate::types::Host;
use crate::types::HostError;
use crate::types::HostErrorKind;
use crate::types::ProbeReport;
use crate::types::ProbeRequest;
use crate::types::ProbeResult;
use crate::types::ProcessInfo;
use crate::types::Start;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zed_plan::Instance;
use zed_plan::ObservedProcess;
use zed_plan::ProcessStatus;
use zed_plan::Route;
use zed_plan::RunSpec;
use zed_spec::AppName;
use zed_spec::Restart;
use zed_spec::Runtime;

/// What the probes of a version of an app see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimProbe {
    /// Healthy at the first attempt.
    Healthy,
    /// Never healthy, for this reason. A one-shot ends with `exit 1`.
    Unhealthy(String),
}

/// When the simulated crash of the daemon comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The call fails and changes nothing.
    Fail,
    /// The daemon dies before the call has done anything.
    CrashBefore,
    /// The daemon dies when the call has done its work.
    CrashAfter,
}

#[derive(Debug, Clone)]
struct SimApp {
    run: RunSpec,
    status: ProcessStatus,
    environment: BTreeMap<String, String>,
    starts: u32,
}

#[derive(Debug, Default)]
struct World {
    apps: BTreeMap<Instance, SimApp>,
    probes: BTreeMap<(AppName, String), SimProbe>,
    routes: BTreeMap<AppName, Route>,
    open: BTreeMap<Instance, u64>,
    failing_hooks: BTreeSet<(AppName, String)>,
    faults: BTreeMap<u64, Fault>,
    calls: u64,
    history: Vec<String>,
    checks: BTreeMap<Instance, u32>,
    checks_hang: bool,
    hanging: usize,
    most_hanging: usize,
    crashed: bool,
    next_pid: u32,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct SimHost {
    world: Arc<Mutex<World>>,
    guests: Option<(SimGuests, LocalGuests)>,
}

impl SimHost {
    /// A host on which nothing runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same host with jails and zones: `guests` are made of `sim`. An app in a guest runs only while that runs.
    #[must_use]
    pub fn with_guests(&self, sim: &SimGuests, guests: LocalGuests) -> Self {
        Self { world: self.world.clone(), guests: Some((sim.clone(), guests)) }
    }

    /// True when nothing that an app runs in is missing.
    fn has_place(&self, runtime: &Runtime) -> bool {
        let guest = zed_plan::GuestId::of(runtime);
        guest.is_none_or(|guest| self.guests.as_ref().is_some_and(|(sim, _)| sim.runs(&guest)))
    }

    /// The `n`th mutating call from now (1 is the next) fails and changes nothing.
    pub fn fail_at(&self, n: u64) {
        self.fault_at(n, Fault::Fail);
    }

    /// At the `n`th mutating call from now the daemon dies, before the call has changed anything: from then on
    /// every call fails until [`Self::revive`].
    pub fn crash_at(&self, n: u64) {
        self.fault_at(n, Fault::CrashBefore);
    }

    /// The same, but the call has done its work.
    pub fn crash_after(&self, n: u64) {
        self.fault_at(n, Fault::CrashAfter);
    }

    fn fault_at(&self, n: u64, fault: Fault) {
        let mut world = self.world.lock();
        let at = world.calls + n;
        world.faults.insert(at, fault);
    }

    /// The daemon starts again: calls work, and no fault is planned any more.
    pub fn revive(&self) {
        let mut world = self.world.lock();
        world.crashed = false;
        world.faults.clear();
    }

    /// True after a simulated crash, until [`Self::revive`].
    pub fn crashed(&self) -> bool {
        self.world.lock().crashed
    }

    /// Mutating calls so far: `start`, `stop`, `forget`, `route`, `drain` and `run_hook`, failed ones included.
    pub fn calls(&self) -> u64 {
        self.world.lock().calls
    }

    /// What was done, oldest first: `start hello 1.0.0`, `stop hello`, `forget hello`, `hook hello PROGRAM`,
    /// `route hello PORT..`, `drain hello PORT`, and `healthy hello 1.0.0` when a probe has seen that. A start, stop or
    /// route that found nothing to do is not in it.
    pub fn history(&self) -> Vec<String> {
        self.world.lock().history.clone()
    }

    /// What the probes of this version see from now on; healthy when nothing is set.
    pub fn set_probe(&self, app: &AppName, version: &str, probe: SimProbe) {
        self.world.lock().probes.insert((app.clone(), version.to_owned()), probe);
    }

    /// Hooks of this app whose program is this one end with `exit 1` from now on.
    pub fn fail_hook(&self, app: &AppName, program: &str) {
        self.world.lock().failing_hooks.insert((app.clone(), program.to_owned()));
    }

    /// How often an app's probes were asked after its deploy, by [`Host::check`].
    pub fn checks(&self, instance: &Instance) -> u32 {
        self.world.lock().checks.get(instance).copied().unwrap_or(0)
    }

    /// From now on checks hang until they are cancelled, or no longer.
    pub fn hang_checks(&self, hang: bool) {
        self.world.lock().checks_hang = hang;
    }

    /// Checks that hang now, and the most that ever hung at the same time.
    pub fn hanging(&self) -> (usize, usize) {
        let world = self.world.lock();
        (world.hanging, world.most_hanging)
    }

    fn hang(&self, cancel: &AtomicBool) {
        {
            let mut world = self.world.lock();
            if !world.checks_hang {
                return;
            }
            world.hanging += 1;
            world.most_hanging = world.most_hanging.max(world.hanging);
        }
        while self.world.lock().checks_hang && !cancel.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.world.lock().hanging -= 1;
    }

    /// What runs now, with its version; fronts are in [`Self::routes`].
    pub fn running(&self) -> BTreeMap<Instance, String> {
        let world = self.world.lock();
        let up = world.apps.iter().filter(|(name, app)| app.is_up() && !name.is_front());
        up.map(|(name, app)| (name.clone(), app.run.version.clone())).collect()
    }

    /// Where each front forwards to.
    pub fn routes(&self) -> BTreeMap<AppName, Route> {
        self.world.lock().routes.clone()
    }

    /// So many connections to this instance stay open however long they are drained.
    pub fn hold_open(&self, instance: &Instance, connections: u64) {
        self.world.lock().open.insert(instance.clone(), connections);
    }

    /// The environment that an app was started with last.
    pub fn environment(&self, app: &Instance) -> Option<BTreeMap<String, String>> {
        self.world.lock().apps.get(app).map(|app| app.environment.clone())
    }

    /// How often an app was started since it was last forgotten.
    pub fn starts(&self, app: &Instance) -> u32 {
        self.world.lock().apps.get(app).map_or(0, |app| app.starts)
    }

    /// Somebody kills an app and its supervisor.
    pub fn kill(&self, app: &Instance) {
        if let Some(app) = self.world.lock().apps.get_mut(app)
            && app.is_up()
        {
            app.status = ProcessStatus::Gone { rebooted: false };
        }
    }

    /// An app ends for good, `exit 1` for instance.
    pub fn end(&self, app: &Instance, how: &str) {
        if let Some(app) = self.world.lock().apps.get_mut(app)
            && app.is_up()
        {
            app.status = ProcessStatus::Failed(how.to_owned());
        }
    }

    /// The host boots: nothing runs any more, the daemon included.
    pub fn reboot(&self) {
        let mut world = self.world.lock();
        for app in world.apps.values_mut().filter(|app| app.is_up()) {
            app.status = ProcessStatus::Gone { rebooted: true };
        }
    }

    /// Counts a mutating call and lets the planned fault happen around it.
    fn mutate<T>(
        &self,
        operation: &'static str,
        app: &dyn fmt::Display,
        work: impl FnOnce(&mut World) -> Result<T, HostErrorKind>,
    ) -> Result<T, HostError> {
        let failed = |kind| HostError::of(operation, app, kind);
        let dead = || failed(HostErrorKind::Io("the daemon is dead (simulated crash)".to_owned()));
        let mut world = self.world.lock();
        if world.crashed {
            return Err(dead());
        }
        world.calls += 1;
        let call = world.calls;
        match world.faults.remove(&call) {
            None => work(&mut world).map_err(failed),
            Some(Fault::Fail) => Err(failed(HostErrorKind::Io(format!("simulated failure of call {call}")))),
            Some(Fault::CrashBefore) => {
                world.crashed = true;
                Err(dead())
            }
            Some(Fault::CrashAfter) => {
                // Its outcome is seen by nobody.
                let _ = work(&mut world);
                world.crashed = true;
                Err(dead())
            }
        }
    }
}

impl SimApp {
    fn is_up(&self) -> bool {
        matches!(self.status, ProcessStatus::Running { .. } | ProcessStatus::Backoff { .. })
    }
}

impl World {
    fn start(&mut self, request: &Start) -> Result<(), HostErrorKind> {
        let name = &request.run.instance();
        let known = self.apps.get(name);
        if let Some(app) = known
            && app.is_up()
        {
            let same = app.run.run_hash == request.run.run_hash;
            return if same { Ok(()) } else { Err(HostErrorKind::Busy) };
        }
        let starts = known.map_or(0, |app| app.starts) + 1;
        self.next_pid += 1;
        let probe = self.probes.get(&(request.run.app.clone(), request.run.version.clone()));
        let status = match (&request.run.restart, probe) {
            (Restart::Never, Some(SimProbe::Unhealthy(_))) => ProcessStatus::Failed("exit 1".to_owned()),
            (Restart::Never, _) => ProcessStatus::Completed,
            _ => ProcessStatus::Running { pid: 1000 + self.next_pid },
        };
        self.history.push(format!("start {name} {}", request.run.version));
        let environment = request.environment.clone();
        self.apps.insert(name.clone(), SimApp { run: request.run.clone(), status, environment, starts });
        Ok(())
    }

    fn stop(&mut self, name: &Instance) {
        let Some(app) = self.apps.get_mut(name) else { return };
        if app.is_up() {
            self.history.push(format!("stop {name}"));
        }
        if !matches!(app.status, ProcessStatus::Completed | ProcessStatus::Failed(_)) {
            app.status = ProcessStatus::Stopped;
        }
    }

    fn route(&mut self, route: &Route) -> Result<(), HostErrorKind> {
        let front = Instance::front(&route.app);
        let up = |apps: &BTreeMap<Instance, SimApp>, instance: &Instance| {
            matches!(apps.get(instance).map(|app| &app.status), Some(ProcessStatus::Running { .. }))
        };
        if let Some(dead) = route.backends.keys().find(|instance| !up(&self.apps, instance)) {
            let text = format!("{dead} does not run: clients would be sent to nobody");
            return Err(HostErrorKind::NotFound(text));
        }
        if route.backends.is_empty() {
            if self.routes.remove(&route.app).is_some() {
                self.history.push(format!("route {}", route.app));
            }
            self.apps.remove(&front);
            return Ok(());
        }
        if self.routes.get(&route.app) == Some(route) && up(&self.apps, &front) {
            return Ok(());
        }
        let ports: String = route.backends.values().map(|port| format!(" {port}")).collect();
        self.history.push(format!("route {}{ports}", route.app));
        self.next_pid += 1;
        let status = ProcessStatus::Running { pid: 1000 + self.next_pid };
        let run = crate::traffic::front_run(route, vec!["front".to_owned()])?;
        let starts = self.apps.get(&front).map_or(0, |app| app.starts) + 1;
        self.apps.insert(front, SimApp { run, status, environment: BTreeMap::new(), starts });
        self.routes.insert(route.app.clone(), route.clone());
        Ok(())
    }

    fn drain(&mut self, instance: &Instance, port: u16) -> Result<Drained, HostErrorKind> {
        let route = self.routes.get(&instance.app);
        if route.is_some_and(|route| route.backends.values().any(|served| *served == port)) {
            return Err(crate::traffic::still_served(port));
        }
        let line = format!("drain {instance} {port}");
        // It is asked for in pieces.
        if self.history.last() != Some(&line) {
            self.history.push(line);
        }
        Ok(Drained { left: self.open.get(instance).copied().unwrap_or(0) })
    }

    fn probe(&self, request: &ProbeRequest) -> Result<String, String> {
        let app = self.apps.get(&request.instance).ok_or("it was never started")?;
        if app.run.run_hash != request.run_hash {
            return Err(format!("another run of it is there, version {}", app.run.version));
        }
        match &app.status {
            ProcessStatus::Running { pid } => {
                match self.probes.get(&(request.instance.app.clone(), app.run.version.clone())) {
                    Some(SimProbe::Unhealthy(why)) => Err(why.clone()),
                    Some(SimProbe::Healthy) | None => Ok(format!("pid {pid} runs")),
                }
            }
            ProcessStatus::Completed if request.health.probes.is_empty() => {
                Ok("completed: exit 0".to_owned())
            }
            other => Err(format!("it does not run: {other:?}")),
        }
    }
}

impl Host for SimHost {
    fn observe(&self) -> Result<BTreeMap<Instance, ProcessInfo>, HostError> {
        let world = self.world.lock();
        if world.crashed {
            return Err(HostError {
                operation: "observe",
                object: "the host".to_owned(),
                kind: HostErrorKind::Io("the daemon is dead (simulated crash)".to_owned()),
                source: None,
            });
        }
        let info = |app: &SimApp| ProcessInfo {
            observed: ObservedProcess {
                run_hash: app.run.run_hash.clone(),
                status: match app.is_up() && !self.has_place(&app.run.runtime) {
                    // Its supervisor tries again and again to enter the guest.
                    true => ProcessStatus::Backoff { restarts: 1 },
                    false => app.status.clone(),
                },
            },
            version: app.run.version.clone(),
            since: Some(0),
            restarts: 0,
            last_exit: match &app.status {
                ProcessStatus::Failed(how) => Some(how.clone()),
                ProcessStatus::Completed => Some("exit 0".to_owned()),
                _ => None,
            },
        };
        Ok(world.apps.iter().map(|(name, app)| (name.clone(), info(app))).collect())
    }

    fn start(&self, request: &Start) -> Result<(), HostError> {
        let has_place = self.has_place(&request.run.runtime);
        self.mutate("start", &request.run.instance(), |world| match has_place {
            true => world.start(request),
            false => Err(HostErrorKind::Io("exit 1: what it is to run in does not run".to_owned())),
        })
    }

    fn stop(&self, app: &Instance, _grace: Duration) -> Result<(), HostError> {
        self.mutate("stop", app, |world| {
            world.stop(app);
            Ok(())
        })
    }

    fn forget(&self, app: &Instance) -> Result<(), HostError> {
        self.mutate("forget", app, |world| {
            if world.apps.get(app).is_some_and(SimApp::is_up) {
                return Err(HostErrorKind::Busy);
            }
            if world.apps.remove(app).is_some() {
                world.history.push(format!("forget {app}"));
            }
            Ok(())
        })
    }

    fn probe(&self, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> ProbeReport {
        let mut world = self.world.lock();
        let seen = if world.crashed || cancel.load(Ordering::Relaxed) {
            Err("cancelled".to_owned())
        } else {
            world.probe(request)
        };
        let healthy = seen.is_ok();
        if healthy && let Some(app) = world.apps.get(&request.instance) {
            let line = format!("healthy {} {}", request.instance, app.run.version);
            world.history.push(line);
        }
        let summary = seen.unwrap_or_else(|why| why);
        let attempts = if healthy { 1 } else { request.health.attempts };
        let transcript = vec![format!("attempt {attempts}: {summary}")];
        ProbeReport { healthy, attempts, summary, transcript }
    }

    fn check(&self, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> Vec<ProbeResult> {
        self.hang(cancel);
        let mut world = self.world.lock();
        *world.checks.entry(request.instance.clone()).or_default() += 1;
        let seen = if world.crashed || cancel.load(Ordering::Relaxed) {
            Err("cancelled".to_owned())
        } else {
            world.probe(request)
        };
        let result = |probe: String| ProbeResult {
            probe,
            passed: seen.is_ok(),
            text: seen.clone().unwrap_or_else(|why| why),
            took: Duration::from_millis(1),
        };
        let up = world.apps.get(&request.instance).is_some_and(SimApp::is_up);
        if !up || request.health.probes.is_empty() {
            return vec![result(PROCESS.to_owned())];
        }
        request.health.probes.iter().map(|probe| result(name_of(probe))).collect()
    }

    fn run_hook(&self, request: &HookRequest) -> Result<HookReport, HostError> {
        self.mutate("run a hook of", &request.instance.app, |world| {
            let program = request.command.first().cloned().unwrap_or_default();
            world.history.push(format!("hook {} {program}", request.instance.app));
            let ok = !world.failing_hooks.contains(&(request.instance.app.clone(), program));
            let ended = if ok { "exit 0" } else { "exit 1" };
            Ok(HookReport { ended: ended.to_owned(), ok, output: String::new() })
        })
    }

    fn route(&self, route: &Route) -> Result<(), HostError> {
        self.mutate("route", &Instance::front(&route.app), |world| world.route(route))
    }

    fn drain(&self, instance: &Instance, port: u16, _at_most: Duration) -> Result<Drained, HostError> {
        self.mutate("drain", instance, |world| world.drain(instance, port))
    }

    fn guests(&self) -> Option<Arc<dyn Guests>> {
        let (_, guests) = self.guests.clone()?;
        Some(Arc::new(guests))
    }

    fn log_path(&self, app: &Instance) -> PathBuf {
        PathBuf::from("/nonexistent").join(app.to_string()).join("log")
    }

    fn crash_path(&self, app: &Instance) -> PathBuf {
        self.log_path(app).with_file_name("crash.json")
    }
}

#[cfg(test)]
mod tests;
