//! `zedd offline`: status and rollback from the store and the state directory alone, while no zedd runs.
//!
//! The same planner and executor as online; apps are stopped through their supervisors, which outlive zedd.

use crate::args::Offline;
use crate::engine::Ground;
use crate::engine::stamped_view;
use crate::executor::Executor;
use crate::executor::OnProgress;
use crate::faults::Faults;
use crate::journal::Ending;
use crate::journal::Journal;
use crate::observe::Fixed;
use crate::observe::Look;
use crate::observe::observe;
use crate::rollout::Signals;
use crate::serve::own_directory;
use crate::state::StateDir;
use crate::steps::Steps;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use zed_artifact::Digests;
use zed_host::Host;
use zed_host::LocalHost;
use zed_plan::Release;
use zed_plan::RollbackInput;
use zed_plan::RollbackTarget;
use zed_plan::plan_rollback;
use zed_spec::AppName;
use zed_store::Store;

/// Everything that is there without a daemon.
struct Bare {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    state: StateDir,
    fixed: Fixed,
    _lock: nix::fcntl::Flock<std::fs::File>,
}

/// Does it. The text of an error is for the operator.
pub fn run(store: &str, state: Option<&Path>, json: bool, action: &Offline) -> Result<(), String> {
    let ground = Bare::open(store, state)?;
    match action {
        Offline::Status => ground.status(json),
        Offline::Rollback { app, target } => ground.rollback(app, target),
    }
}

impl Bare {
    fn open(store_name: &str, state: Option<&Path>) -> Result<Self, String> {
        let store = zed_store::open(store_name).map_err(|e| crate::chain(&e))?;
        let dir = match state {
            Some(dir) => {
                std::path::absolute(dir).map_err(|e| format!("failed to find `{}`: {e}", dir.display()))?
            }
            None => own_directory(&*store)?,
        };
        let state = StateDir::open(&dir).map_err(|e| crate::chain(&e))?;
        let lock = crate::serve::lock(state.root())?;
        let host = LocalHost::new(state.root().to_owned(), crate::serve::supervisor()?);
        let fixed = Fixed {
            host: crate::serve::host_name(None, &zed_host::observe_facts())?,
            pool: store_name.strip_prefix("zfs:").map(ToOwned::to_owned),
            facts: zed_host::observe_facts(),
            runtimes: crate::serve::capabilities(state.root()),
        };
        Ok(Self { store, host: Arc::new(host), state, fixed, _lock: lock })
    }

    fn look(&self, releases: &BTreeMap<String, Release>) -> Result<Look, String> {
        let apps = releases.values().map(|release| &release.definition);
        observe(&*self.store, &*self.host, &self.fixed, &Digests::default(), apps)
            .map_err(|e| crate::chain(&e))
    }

    fn status(&self, json: bool) -> Result<(), String> {
        let releases = self.state.releases().map_err(|e| crate::chain(&e))?;
        let look = self.look(&releases)?;
        let ground = Ground { host_name: &self.fixed.host, host: &*self.host, releases: &releases };
        let mut views = Vec::new();
        for (dataset, stamp) in crate::stamps(&look.observed) {
            views.push(stamped_view(&ground, &look, &dataset, &stamp));
        }
        let text = if json {
            zed_ctl::to_json(&views)
        } else {
            views.iter().map(zed_ctl::render_app_status).collect::<Vec<String>>().join("\n")
        };
        let unfinished =
            Journal::unfinished(&self.state).map_err(|e| format!("failed to list the journals: {e}"))?;
        let mut out = std::io::stdout();
        write!(out, "{text}").map_err(|e| format!("failed to write to stdout: {e}"))?;
        if views.is_empty() && !json {
            eprintln!("zedd: no app is stamped in this store");
        }
        for path in unfinished {
            eprintln!(
                "zedd: a run was interrupted: {}; the next zedd completes it or takes it back",
                path.display()
            );
        }
        Ok(())
    }

    /// Data and state, and the app when it ran. The same steps, the same journal, the same undo as online.
    fn rollback(&self, app: &str, target: &str) -> Result<(), String> {
        let unfinished =
            Journal::unfinished(&self.state).map_err(|e| format!("failed to list the journals: {e}"))?;
        if let Some(path) = unfinished.first() {
            return Err(format!(
                "a run was interrupted ({}): start zedd, which completes it or takes it back, and roll back then",
                path.display()
            ));
        }
        let app = AppName::parse(app).map_err(|e| e.to_string())?;
        let target = RollbackTarget::parse(target).map_err(|e| crate::chain(&e))?;
        let releases = self.state.releases().map_err(|e| crate::chain(&e))?;
        let look = self.look(&releases)?;
        let records = self.state.records().map_err(|e| crate::chain(&e))?;
        let place =
            crate::places(&look.observed).remove(&app).ok_or_else(|| crate::not_deployed(&app).render())?;
        let plan = plan_rollback(&RollbackInput {
            app: &app,
            target: &target,
            observed: &look.observed,
            releases: &releases,
            run: &crate::engine::new_run(),
            now: crate::engine::now(),
            generation_held: records.get(&place.deploy).map_or(0, |record| record.generation),
            keep: None,
        })
        .map_err(|e| crate::chain(&e))?;
        let steps = Steps::new(self.store.clone(), self.host.clone(), self.state.clone());
        let executor = Executor::new(
            steps,
            self.host.clone(),
            self.state.clone(),
            Faults::none(),
            Arc::new(AtomicBool::new(false)),
        );
        let on_progress: OnProgress = Arc::new(|_, step| eprintln!("{step}"));
        let report = executor
            .run(&plan, &Signals::default(), &on_progress)
            .map_err(|e| format!("failed to write the journal: {e}"))?
            .map_err(|_| "stopped by a fault test".to_owned())?;
        for (unit, ending) in report {
            match ending {
                Ending::Committed => {}
                Ending::Undone { reason } => {
                    return Err(format!("{unit}: {reason}; what was before is back"));
                }
                Ending::Skipped { reason } | Ending::NeedsOperator { reason } => {
                    return Err(format!("{unit}: {reason}"));
                }
            }
        }
        eprintln!("{app} is rolled back to {target}");
        Ok(())
    }
}
