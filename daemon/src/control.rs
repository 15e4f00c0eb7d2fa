//! The daemon as the file tree sees it: judges verbs and specs, hands on what it accepts.
//!
//! Everything here is quick: it works on the last look and on pure functions, and never on the store.

use crate::engine::DEPLOYING;
use crate::engine::new_run;
use crate::engine::now;
use crate::events::About;
use crate::events::Events;
use crate::logging::LogLevelHandle;
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::rollout::Steer;
use crate::shared::Known;
use crate::shared::Request;
use crate::shared::Shared;
use crate::state::StateDir;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use zed_ctl::Code;
use zed_ctl::Counters;
use zed_ctl::CtlError;
use zed_ctl::EventKind;
use zed_ctl::FileKind;
use zed_ctl::HealthView;
use zed_ctl::Verb;
use zed_ctl::World;
use zed_ctl::parse_verb;
use zed_fs::Caller;
use zed_fs::Control;
use zed_fs::Done;
use zed_fs::Gpus;
use zed_fs::SpecDir;
use zed_fs::Ticket;
use zed_fs::VerbFile;
use zed_fs::WaitFor;
use zed_gpu::queue::GpuSet;
use zed_plan::Plan;
use zed_plan::RollbackInput;
use zed_plan::plan_rollback;
use zed_spec::AppName;
use zed_spec::DeployName;

/// The daemon's side of the tree.
pub struct Daemon {
    shared: Arc<Shared>,
    state: StateDir,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
    monitor: Arc<Monitor>,
    log_level: LogLevelHandle,
    deploy_dir: PathBuf,
    plan_dir: PathBuf,
    events_path: PathBuf,
    log_path: PathBuf,
    uid: u32,
    gpus: Option<Arc<GpuSet>>,
}

impl Daemon {
    /// For this state directory.
    pub fn new(
        shared: Arc<Shared>,
        state: StateDir,
        metrics: Arc<Metrics>,
        events: Arc<Events>,
        monitor: Arc<Monitor>,
        log_level: LogLevelHandle,
        gpus: Option<Arc<GpuSet>>,
    ) -> Self {
        Self {
            deploy_dir: state.deploy_dir(),
            plan_dir: state.plan_dir(),
            events_path: state.events_path(),
            log_path: state.log_path(),
            shared,
            state,
            metrics,
            events,
            monitor,
            log_level,
            uid: nix::unistd::geteuid().as_raw(),
            gpus,
        }
    }

    fn judge(&self, caller: Caller, file: &VerbFile, line: &str) -> Result<Option<Ticket>, CtlError> {
        let (kind, app) = match file {
            VerbFile::Gpu(gpu) => return self.judge_gpu(caller, *gpu, None, line),
            VerbFile::GpuJob(key) => return self.judge_gpu(caller, key.gpu, Some(key.id), line),
            VerbFile::Root => (FileKind::RootCtl, None),
            VerbFile::App(app) => (FileKind::AppCtl, Some(app)),
            VerbFile::Rollback(app) => (FileKind::AppRollback, Some(app)),
            VerbFile::Host(_) => (FileKind::HostCtl, None),
        };
        self.may_command(caller)?;
        let verb = parse_verb(kind, line)?;
        if let Verb::Log { level } = verb {
            self.log_level.set(level);
            return Ok(None);
        }
        if let Verb::Apply { plan } = &verb {
            return self.apply(plan, None);
        }
        if let (Some(app), Some(steer)) = (app, steer_of(&verb)) {
            return self.steer(app, steer);
        }
        let known = self.shared.known();
        let app = app.map(|app| self.app(app, &known)).transpose()?;
        self.judge_target(app.as_ref(), &verb, &known)?;
        Ok(Some(self.shared.submit(|ticket| Request::Verb { app, verb, ticket })))
    }

    /// A verb of a GPU or of one of its jobs. Who may is judged there: everybody commands their own jobs.
    fn judge_gpu(
        &self,
        caller: Caller,
        gpu: u32,
        job: Option<u64>,
        line: &str,
    ) -> Result<Option<Ticket>, CtlError> {
        let kind = if job.is_some() { FileKind::GpuJobCtl } else { FileKind::GpuCtl };
        let Verb::Gpu(verb) = parse_verb(kind, line)? else {
            return Err(CtlError::new(Code::Internal, format!("`{line}` is not a verb of a GPU")));
        };
        let gone = || CtlError::new(Code::NotFound, format!("there is no GPU {gpu}"));
        self.gpus().ok_or_else(gone)?.verb(caller, gpu, job, verb).map(|()| None)
    }

    /// Says something to the upgrade of an app that is going on; the app need not be there yet.
    fn steer(&self, app: &str, steer: Steer) -> Result<Option<Ticket>, CtlError> {
        let world = self.shared.world();
        let busy = self.shared.busy();
        let deploying = busy.iter().find(|(name, busy)| {
            let view = world.deploys.get(name.as_str());
            busy.what == DEPLOYING && view.is_some_and(|view| view.apps.iter().any(|has| has == app))
        });
        match deploying.is_some_and(|(name, _)| self.shared.steer(name, steer)) {
            true => Ok(None),
            false => {
                let text = format!("no upgrade of app `{app}` is going on");
                Err(CtlError::new(Code::NotFound, text)
                    .hint(format!("cat /zed/apps/{app}/status says what is")))
            }
        }
    }

    /// Root and the user that zedd runs as.
    fn may_command(&self, caller: Caller) -> Result<(), CtlError> {
        if caller.uid == 0 || caller.uid == self.uid {
            return Ok(());
        }
        let text = format!("user {} may not command zedd, which runs as user {}", caller.uid, self.uid);
        Err(CtlError::new(Code::NotPermitted, text))
    }

    fn app(&self, name: &str, known: &Known) -> Result<AppName, CtlError> {
        let app = AppName::parse(name).map_err(|e| CtlError::new(Code::NotFound, e.to_string()))?;
        if known.look.is_none() {
            let text = "zedd has not looked at the host yet".to_owned();
            return Err(CtlError::new(Code::Busy, text).hint("try again in a moment"));
        }
        if known.apps.contains_key(&app) { Ok(app) } else { Err(crate::not_deployed(&app)) }
    }

    /// Refuses now what would be refused later: a busy deploy, a target that does not exist.
    fn judge_target(&self, app: Option<&AppName>, verb: &Verb, known: &Known) -> Result<(), CtlError> {
        let deploy = match (app, verb) {
            (Some(app), _) => known.apps.get(app).map(|place| place.deploy.clone()),
            (
                None,
                Verb::RetryDeploy { deploy }
                | Verb::ReleaseDeploy { deploy }
                | Verb::Heal { deploy: Some(deploy) },
            ) => {
                let found = known.deploys.iter().find(|name| name.as_str() == deploy).cloned();
                Some(found.ok_or_else(|| crate::shared::no_deploy(deploy))?)
            }
            _ => None,
        };
        if let Some(deploy) = &deploy
            && let Some(busy) = self.shared.busy().get(deploy)
        {
            return Err(crate::engine::busy_error(deploy, &busy.what));
        }
        let (Some(app), Verb::Rollback(target), Some(look)) = (app, verb, &known.look) else { return Ok(()) };
        plan_rollback(&RollbackInput {
            app,
            target: &crate::rollback_target(target),
            observed: &look.observed,
            releases: &known.releases,
            run: &new_run(),
            now: now(),
            generation_held: deploy.and_then(|deploy| known.generations.get(&deploy).copied()).unwrap_or(0),
            keep: None,
        })
        .map(drop)
        .map_err(|e| crate::rollback_error(&e))
    }

    /// Submits a kept plan. With `wanted`, only when it is the plan of that run and world.
    fn apply(&self, name: &str, wanted: Option<(String, String)>) -> Result<Option<Ticket>, CtlError> {
        let not_kept = || {
            CtlError::new(Code::NotFound, format!("no plan is kept for `{name}`"))
                .hint(format!("make one: cp the spec to /zed/plan/{name}.ron"))
        };
        let deploy = DeployName::parse(name).map_err(|e| CtlError::new(Code::NotFound, e.to_string()))?;
        let plan = self
            .state
            .plan(&deploy)
            .map_err(|e| CtlError::new(Code::Failed, crate::chain(&e)))?
            .ok_or_else(not_kept)?;
        if let Some((run, based_on)) = wanted
            && (plan.run.0 != run || plan.based_on != based_on)
        {
            let text = format!("this is not the plan that plan/{name}.plan shows now (run {})", plan.run);
            return Err(CtlError::new(Code::Stale, text).hint("copy it again"));
        }
        Ok(Some(self.shared.submit(|ticket| Request::Apply { plan: Box::new(plan), ticket })))
    }
}

/// What a verb says to a worker, if it is for one.
fn steer_of(verb: &Verb) -> Option<Steer> {
    match verb {
        Verb::Pause => Some(Steer::Pause),
        Verb::Resume => Some(Steer::Resume),
        Verb::Promote => Some(Steer::Promote),
        Verb::Abort => Some(Steer::Abort),
        _ => None,
    }
}

/// Run and basis of a plan, from its text or its JSON.
fn identify_plan(name: &str, bytes: &[u8]) -> Result<(String, String), CtlError> {
    let refuse = |why: &str| {
        CtlError::new(Code::BadArgument, format!("this is no plan of `{name}`: {why}"))
            .hint(format!("copy /zed/plan/{name}.plan as it is"))
    };
    if bytes.first() == Some(&b'{') {
        let plan: Plan = serde_json::from_slice(bytes).map_err(|e| refuse(&e.to_string()))?;
        if plan.deploy.as_str() != name {
            return Err(refuse(&format!("it is one of `{}`", plan.deploy)));
        }
        return Ok((plan.run.0, plan.based_on));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("it is not text"))?;
    let first = text.lines().next().unwrap_or_default();
    let words: Vec<&str> = first.split(' ').collect();
    match words.as_slice() {
        ["#", "plan", of, "run", run, "based", "on", based_on] if *of == name => {
            Ok(((*run).to_owned(), (*based_on).to_owned()))
        }
        ["#", "plan", of, ..] => Err(refuse(&format!("its first line says that it is one of `{of}`"))),
        _ => Err(refuse("its first line is not `# plan ...`")),
    }
}

impl Control for Daemon {
    fn world(&self) -> Arc<World> {
        self.shared.world()
    }

    fn metrics(&self) -> String {
        let counters = Counters { probes: self.monitor.counts(), ..self.metrics.counters() };
        let mut text = zed_ctl::render_metrics(&self.shared.world(), &counters);
        text.push_str(&self.gpus.as_ref().map(|gpus| gpus.metrics()).unwrap_or_default());
        text
    }

    fn gpus(&self) -> Option<Arc<dyn Gpus>> {
        self.gpus.clone().map(|gpus| gpus as Arc<dyn Gpus>)
    }

    fn health(&self, app: &str) -> Option<HealthView> {
        let world = self.shared.world();
        let view = world.apps.get(app)?;
        let probes = AppName::parse(app).map(|app| self.monitor.probes(&app)).unwrap_or_default();
        let (health, reason) = (view.health.clone(), view.health_reason.clone());
        Some(HealthView { health, since: view.health_since, reason, probes })
    }

    fn log_level(&self) -> String {
        self.log_level.level()
    }

    fn import(&self) -> String {
        let known = self.shared.known();
        let Some(look) = &known.look else { return "// zedd has not looked at the host yet\n".to_owned() };
        crate::import::import(look, &known.releases, &known.declared)
            .unwrap_or_else(|problem| format!("// {problem}\n"))
    }

    fn submit(&self, caller: Caller, file: &VerbFile, verb: &str) -> Result<Option<Ticket>, CtlError> {
        let result = self.judge(caller, file, verb);
        self.metrics.verb(result.is_ok());
        let about = match file {
            VerbFile::App(app) | VerbFile::Rollback(app) => About { app: app.clone(), ..About::nothing() },
            VerbFile::Root | VerbFile::Host(_) | VerbFile::Gpu(_) | VerbFile::GpuJob(_) => About::nothing(),
        };
        let (kind, text) = match &result {
            Ok(_) => (EventKind::VerbAccepted, format!("uid {}: `{verb}`", caller.uid)),
            Err(error) => (EventKind::VerbRefused, format!("uid {}: `{verb}`: {error}", caller.uid)),
        };
        self.events.emit(kind, about, &text);
        result
    }

    fn apply_plan(&self, caller: Caller, name: &str, bytes: &[u8]) -> Result<Option<Ticket>, CtlError> {
        self.may_command(caller)?;
        let wanted = identify_plan(name, bytes)?;
        self.apply(name, Some(wanted))
    }

    fn when(&self, what: WaitFor, done: Done) {
        self.shared.when(what, done);
    }

    fn spec_dir(&self, dir: SpecDir) -> &Path {
        match dir {
            SpecDir::Deploy => &self.deploy_dir,
            SpecDir::Plan => &self.plan_dir,
        }
    }

    fn check_spec(&self, _dir: SpecDir, name: &str, text: &[u8]) -> Result<(), CtlError> {
        let deploy = DeployName::parse(name).map_err(|e| CtlError::new(Code::BadSpec, e.to_string()))?;
        zed_spec::parse(&deploy, text)
            .map(drop)
            .map_err(|diagnostics| CtlError::new(Code::BadSpec, diagnostics.render(&format!("{name}.ron"))))
    }

    fn spec_saved(&self, dir: SpecDir, name: &str) {
        match dir {
            SpecDir::Deploy => self.shared.saved(name),
            SpecDir::Plan => self.shared.plan_saved(name),
        }
    }

    fn events_path(&self) -> &Path {
        &self.events_path
    }

    fn app_events_path(&self, app: &str) -> PathBuf {
        self.events.path_of_app(app)
    }

    fn log_path(&self) -> &Path {
        &self.log_path
    }

    fn on_change(&self, hook: Box<dyn Fn(u64) + Send + Sync>) {
        self.shared.on_change(hook);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_known_by_its_first_line() {
        let text = b"# plan prod run r1 based on abc\n+ dataset x\n";
        assert_eq!(identify_plan("prod", text).unwrap(), ("r1".to_owned(), "abc".to_owned()));
        for (name, bytes, words) in [
            ("other", text.as_slice(), "one of `prod`"),
            ("prod", b"nothing to do\n", "first line"),
            ("prod", b"\xff\xfe", "not text"),
            ("prod", b"{}", "missing field"),
        ] {
            let error = identify_plan(name, bytes).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
