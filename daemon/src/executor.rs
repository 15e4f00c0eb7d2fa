//! Carries out a plan: journal, step, and on failure the undo, step by step.
//!
//! One call is one attempt; the reconcile loop decides whether there is another. Units without order
//! between them run in parallel and end independently. Resuming after a crash is the same code, started from
//! what the journal says.

use crate::faults::Fault;
use crate::faults::Faults;
use crate::journal::Ending;
use crate::journal::Journal;
use crate::journal::Progress;
use crate::journal::Record;
use crate::journal::progress;
use crate::rollout::ABORTED;
use crate::rollout::Signals;
use crate::state::StateDir;
use crate::steps::StepError;
use crate::steps::Steps;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use zed_host::Host;
use zed_plan::Plan;
use zed_plan::PlannedStep;
use zed_plan::Purpose;
use zed_plan::Step;
use zed_plan::Unit;

/// Units that run at once. Probing dominates, so this is not about cores; it bounds threads.
const PARALLEL_UNITS: usize = 16;
/// Datasets created per journal record: creating thousands must not cost a disk flush each.
const CREATE_BATCH: usize = 64;
/// Attempts at an undo step before a person is needed, with a pause between.
const UNDO_ATTEMPTS: u32 = 3;
const UNDO_PAUSE: Duration = Duration::from_millis(200);
/// Evidence of failed runs that is kept.
const KEEP_FAILURES: usize = 20;
/// Lines of an app's log that become evidence.
const EVIDENCE_LINES: usize = 200;

/// Reason of an undo that no failure caused.
pub const INTERRUPTED: &str = "zedd was stopped in the middle";

/// The daemon was killed here, as far as the run is concerned. Only fault tests see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed;

/// How each unit of a run ended, in the plan's order.
pub type RunReport = BTreeMap<String, Ending>;

/// Told what is being done, for status: the step, and where in the plan it is in words.
pub type OnProgress = Arc<dyn Fn(&Step, &str) + Send + Sync>;

/// Why a unit stopped before its end.
enum Stop {
    Killed,
    Failed(String),
}

impl From<Killed> for Stop {
    fn from(_: Killed) -> Self {
        Stop::Killed
    }
}

/// Carries out plans.
#[derive(Clone)]
pub struct Executor {
    steps: Steps,
    host: Arc<dyn Host>,
    state: StateDir,
    faults: Faults,
    stopping: Arc<AtomicBool>,
}

/// What all units of one run share.
struct Run<'a> {
    plan: &'a Plan,
    journal: &'a Journal,
    signals: &'a Signals,
    on_progress: &'a OnProgress,
}

impl Executor {
    /// With these effects.
    ///
    /// Once `stopping` is set, what fails is left as a kill would leave it: an orderly stop must not be worse.
    pub fn new(
        steps: Steps,
        host: Arc<dyn Host>,
        state: StateDir,
        faults: Faults,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self { steps, host, state, faults, stopping }
    }

    /// Carries out a new plan from its first step.
    pub fn run(
        &self,
        plan: &Plan,
        signals: &Signals,
        on_progress: &OnProgress,
    ) -> io::Result<Result<RunReport, Killed>> {
        if let Fault::Kill = self.faults.at("intent") {
            return Ok(Err(Killed));
        }
        let journal = Journal::create(&self.state, plan)?;
        self.resume(plan, journal, &[], signals, on_progress)
    }

    /// Completes or takes back a run, from what its journal says; a new one's says nothing yet.
    pub fn resume(
        &self,
        plan: &Plan,
        journal: Journal,
        records: &[Record],
        signals: &Signals,
        on_progress: &OnProgress,
    ) -> io::Result<Result<RunReport, Killed>> {
        let run = Run { plan, journal: &journal, signals, on_progress };
        let Ok(report) = self.run_units(&run, records) else { return Ok(Err(Killed)) };
        let _ = self.state.prune_evidence(KEEP_FAILURES);
        // A run that needs a person keeps its journal in place: the next start, or `retry`, goes on with it.
        let stuck = report.values().any(|ending| matches!(ending, Ending::NeedsOperator { .. }));
        if !stuck && let Err(error) = journal.close() {
            // All its units have ended, so finding it again does nothing.
            tracing::warn!(%error, run = %plan.run, "an ended journal could not be put away");
        }
        Ok(Ok(report))
    }

    fn run_units(&self, run: &Run<'_>, records: &[Record]) -> Result<RunReport, Killed> {
        let mut waiting: Vec<&Unit> = run.plan.units.iter().collect();
        let mut report = RunReport::new();
        let (ended, endings) = mpsc::channel::<(String, Result<Ending, Killed>)>();
        std::thread::scope(|scope| {
            let mut running = 0;
            loop {
                let mut index = 0;
                while index < waiting.len() && running < PARALLEL_UNITS {
                    let unit = waiting[index];
                    if let Some(reason) = blocked(unit, &report) {
                        waiting.remove(index);
                        report.insert(unit.name.clone(), Ending::Skipped { reason });
                        index = 0;
                    } else if unit.after.iter().all(|name| report.contains_key(name)) {
                        waiting.remove(index);
                        running += 1;
                        let ended = ended.clone();
                        let progress = progress(records, &unit.name);
                        scope.spawn(move || {
                            let _ = ended.send((unit.name.clone(), self.run_unit(run, unit, progress)));
                        });
                    } else {
                        index += 1;
                    }
                }
                if running == 0 {
                    return Ok(());
                }
                let Ok((name, ending)) = endings.recv() else { return Ok(()) };
                running -= 1;
                report.insert(name, ending?);
            }
        })?;
        // A plan that lint has passed has no cycle; were there one, its units end as skipped, not as lost.
        for unit in waiting {
            report
                .insert(unit.name.clone(), Ending::Skipped { reason: "a unit before it never ended".into() });
        }
        Ok(report)
    }

    fn run_unit(&self, run: &Run<'_>, unit: &Unit, progress: Progress) -> Result<Ending, Killed> {
        if let Some(ending) = progress.ending.clone()
            && !matches!(ending, Ending::NeedsOperator { .. })
        {
            return Ok(ending);
        }
        let resumed = progress.begun > 0;
        let mut undoing = progress.undoing.clone();
        // An interrupted rollback is completed, because an operator asked for it; an interrupted deploy is
        // taken back, and the loop plans it anew from what is then observed.
        if resumed
            && !progress.committing
            && undoing.is_none()
            && !matches!(run.plan.purpose, Purpose::Rollback { .. })
        {
            undoing = Some(INTERRUPTED.to_owned());
        }
        let mut begun = progress.begun;
        let result = match undoing {
            Some(reason) => Err(Stop::Failed(reason)),
            None => self.forward(run, unit, &mut begun, &progress),
        };
        let ending = match result {
            Ok(()) => Ending::Committed,
            Err(Stop::Killed) => return Err(Killed),
            Err(Stop::Failed(_)) if self.stopping.load(Ordering::SeqCst) => return Err(Killed),
            Err(Stop::Failed(reason)) => {
                let ending = self.take_back(run, unit, begun, &progress.undone, reason)?;
                self.tell_of_failure(run, unit, &ending);
                ending
            }
        };
        self.point(&format!("end {}", unit.name))?;
        self.record(run, &Record::Ended { unit: unit.name.clone(), ending: ending.clone() }, true)?;
        Ok(ending)
    }

    /// Runs the steps in order, from where the journal says. `begun` is how many it knows to have begun.
    fn forward(
        &self,
        run: &Run<'_>,
        unit: &Unit,
        begun: &mut usize,
        progress: &Progress,
    ) -> Result<(), Stop> {
        let mut committing = progress.committing;
        let mut next = progress.resume_at;
        while next < unit.steps.len() {
            if next >= unit.commit_at && !committing {
                self.point(&format!("commit {}", unit.name))?;
                self.journal(run, &Record::Committing { unit: unit.name.clone() })?;
                committing = true;
            }
            let until = batch_end(unit, next);
            if until > *begun {
                self.point(&format!("begin {} {next}", unit.name))?;
                self.journal(run, &Record::Begin { unit: unit.name.clone(), from: next, to: until })?;
                *begun = until;
            }
            for index in next..until {
                let planned = &unit.steps[index];
                let place = format!("{}/{} {}", index + 1, unit.steps.len(), title(&planned.step));
                (run.on_progress)(&planned.step, &place);
                if !committing && run.signals.is_aborted() {
                    return Err(Stop::Failed(ABORTED.to_owned()));
                }
                match self.step(run, &planned.step, &format!("{} {index}", unit.name))? {
                    Ok(()) => {}
                    // After the commit point only what is first there decides: the stamp. Clearing up later is
                    // retried by retention, and is no reason to throw a good release away.
                    Err(error) if index > unit.commit_at || !is_stamp(unit, index) => {
                        tracing::warn!(unit = unit.name, error, "clearing up after the commit failed");
                    }
                    Err(_) if run.signals.is_aborted() => return Err(Stop::Failed(ABORTED.to_owned())),
                    Err(error) => return Err(Stop::Failed(error)),
                }
            }
            next = until;
        }
        Ok(())
    }

    /// Takes back every begun step, last first.
    fn take_back(
        &self,
        run: &Run<'_>,
        unit: &Unit,
        begun: usize,
        undone: &[usize],
        reason: String,
    ) -> Result<Ending, Killed> {
        self.point(&format!("undoing {}", unit.name))?;
        let undoing = Record::Undoing { unit: unit.name.clone(), reason: reason.clone() };
        if let Err(error) = run.journal.append(&undoing, true) {
            // Without this line a restart could go forward from the middle of an undo.
            let reason =
                format!("{reason}; nothing was taken back, because the journal cannot be written: {error}");
            return Ok(Ending::NeedsOperator { reason });
        }
        for index in (0..begun).rev().filter(|index| !undone.contains(index)) {
            for step in &unit.steps[index].undo {
                (run.on_progress)(step, &format!("undo {}", title(step)));
                if let Err(problem) = self.undo_step(run, step, &format!("undo {} {index}", unit.name))? {
                    let reason = format!("{reason}; taking it back failed at {}: {problem}", title(step));
                    return Ok(Ending::NeedsOperator { reason });
                }
            }
            self.record(run, &Record::StepUndone { unit: unit.name.clone(), step: index }, false)?;
        }
        Ok(Ending::Undone { reason })
    }

    /// The apps' own `on_failure` hooks, once what was before is back. Their failure changes nothing any more.
    fn tell_of_failure(&self, run: &Run<'_>, unit: &Unit, ending: &Ending) {
        // A newer save cancelled it: that is no failure to tell anybody of.
        let superseded = run.signals.cancel.load(Ordering::SeqCst) && !run.signals.is_aborted();
        if superseded || !matches!(ending, Ending::Undone { reason } if reason != INTERRUPTED) {
            return;
        }
        let releases = unit.steps.iter().filter_map(|planned| match &planned.step {
            Step::RecordRelease { release } => Some(release),
            _ => None,
        });
        for release in releases {
            let spec = unit.steps.iter().find_map(|planned| match &planned.step {
                Step::StartApp { run } | Step::Probe { run, .. } if run.app == release.app => Some(run),
                _ => None,
            });
            let Some(spec) = spec else { continue };
            for command in &release.definition.hooks.on_failure {
                let timeout = release.definition.hooks.timeout;
                let (kind, command) = ("on_failure".into(), command.clone());
                let hook = Step::Hook { kind, command, run: spec.clone(), timeout };
                (run.on_progress)(&hook, &title(&hook));
                if let Err(error) = self.steps.run(&hook, run.signals) {
                    tracing::warn!(app = %release.app, error = %crate::chain(&error), "an on_failure hook failed");
                }
            }
        }
    }

    fn undo_step(&self, run: &Run<'_>, step: &Step, point: &str) -> Result<Result<(), String>, Killed> {
        if matches!(step, Step::Probe { .. }) {
            return self.wait_until_back(step, point).map(Ok);
        }
        let mut attempt = 1;
        loop {
            match self.step(run, step, point)? {
                Ok(()) => return Ok(Ok(())),
                Err(problem) if attempt == UNDO_ATTEMPTS => return Ok(Err(problem)),
                Err(problem) => {
                    tracing::warn!(problem, attempt, "an undo step failed and is tried again");
                    attempt += 1;
                    std::thread::sleep(UNDO_PAUSE);
                }
            }
        }
    }

    /// Waits for a process that an undo has started again, as long as its own health says. It was healthy before:
    /// whether it is again is seen by the loop, not undone again. Whatever cancelled the deploy does not end this.
    fn wait_until_back(&self, step: &Step, point: &str) -> Result<(), Killed> {
        let signals = Signals::ended_by(self.stopping.clone());
        if let Err(error) = self.step_between_faults(step, &signals, point)? {
            if self.stopping.load(Ordering::SeqCst) {
                return Err(Killed);
            }
            tracing::warn!(error = crate::chain(&error), "what an undo has started again is not healthy");
        }
        Ok(())
    }

    /// One step; a failure leaves its evidence.
    fn step(&self, run: &Run<'_>, step: &Step, point: &str) -> Result<Result<(), String>, Killed> {
        Ok(self.step_between_faults(step, run.signals, point)?.map_err(|error| {
            self.keep_evidence(run.plan, step, &error);
            crate::chain(&error)
        }))
    }

    fn step_between_faults(
        &self,
        step: &Step,
        signals: &Signals,
        point: &str,
    ) -> Result<Result<(), StepError>, Killed> {
        match self.faults.at(&format!("before {point}")) {
            Fault::Kill => return Err(Killed),
            Fault::Fail => return Ok(Err(StepError::Injected(point.to_owned()))),
            Fault::None => {}
        }
        let result = self.steps.run(step, signals);
        if self.faults.at(&format!("after {point}")) == Fault::Kill {
            return Err(Killed);
        }
        Ok(result)
    }

    fn keep_evidence(&self, plan: &Plan, step: &Step, error: &StepError) {
        let run = &plan.run.0;
        let app = match step {
            Step::StartApp { run } | Step::Probe { run, .. } | Step::Hook { run, .. } => run.instance(),
            _ => return,
        };
        let mut report = format!("{}\n", crate::chain(error));
        if let StepError::Unhealthy { transcript, .. } = error {
            for line in transcript {
                report.push_str(line);
                report.push('\n');
            }
        }
        let log = zed_host::tail(&self.host.log_path(&app), EVIDENCE_LINES).unwrap_or_default().join("\n");
        for (name, text) in [(format!("{app}.probe"), report), (format!("{app}.log"), log)] {
            if let Err(error) = self.state.write_evidence(run, &name, &text) {
                tracing::warn!(error = %crate::chain(&error), "evidence of a failed run could not be kept");
            }
        }
    }

    fn point(&self, name: &str) -> Result<(), Killed> {
        // Journal writes do not fail by order of a test: a disk that cannot be written is tested by a full one.
        if self.faults.at(name) == Fault::Kill { Err(Killed) } else { Ok(()) }
    }

    /// A line that must be there before the next effect: without it the unit fails.
    fn journal(&self, run: &Run<'_>, record: &Record) -> Result<(), Stop> {
        run.journal
            .append(record, true)
            .map_err(|e| Stop::Failed(format!("failed to write the journal: {e}")))
    }

    /// A line without which the undo is merely repeated.
    fn record(&self, run: &Run<'_>, record: &Record, durable: bool) -> Result<(), Killed> {
        if let Err(error) = run.journal.append(record, durable) {
            tracing::error!(%error, run = %run.plan.run, "the journal could not be written");
        }
        Ok(())
    }
}

/// Why a unit cannot run any more: one that it waits for did not succeed.
fn blocked(unit: &Unit, report: &RunReport) -> Option<String> {
    unit.after
        .iter()
        .find(|name| report.get(*name).is_some_and(|ending| *ending != Ending::Committed))
        .map(|name| format!("`{name}` failed before it"))
}

/// True for the step that decides after the commit point: the stamp. A rollback has none, its properties came
/// with its data.
fn is_stamp(unit: &Unit, index: usize) -> bool {
    index < unit.commit_at || matches!(unit.steps[index].step, Step::SetProps { .. })
}

/// Consecutive creations share a journal record.
fn batch_end(unit: &Unit, from: usize) -> usize {
    let limit = if from < unit.commit_at { unit.commit_at } else { unit.steps.len() };
    let creations = unit.steps[from..limit]
        .iter()
        .take(CREATE_BATCH)
        .take_while(|planned: &&PlannedStep| matches!(planned.step, Step::CreateDataset { .. }))
        .count();
    from + creations.max(1)
}

/// A step in a few words, for status and for reasons.
pub fn title(step: &Step) -> String {
    match step {
        Step::CreateDataset { path, .. } => format!("create dataset {path}"),
        Step::MountDataset { path } => format!("mount {path}"),
        Step::SetProps { changes } => match changes.as_slice() {
            [one] => format!("set properties of {}", one.path),
            many => format!("set properties of {} datasets", many.len()),
        },
        Step::Snapshot { name, .. } => format!("snapshot @{name}"),
        Step::Restore { dataset, snapshot, .. } => format!("restore {dataset} from @{snapshot}"),
        Step::UndoRestore { dataset, .. } => format!("take the restore of {dataset} back"),
        Step::Retire { dataset, .. } => format!("retire dataset {dataset}"),
        Step::Unpack { unpack } => format!("unpack {} {}", unpack.app, unpack.version),
        Step::DiscardRelease { folder, .. } => format!("discard {folder}"),
        Step::SwitchRelease { dataset, folder } => {
            format!("point current of {dataset} to {}", folder.as_deref().unwrap_or("nothing"))
        }
        Step::PruneReleases { dataset, .. } => format!("remove old releases from {dataset}"),
        Step::Soak { lasts, .. } => format!("watch for {} s", lasts.as_secs()),
        Step::Route { route } => format!("route {}", route.app),
        Step::Drain { instance, .. } => format!("drain {instance}"),
        Step::StopApp { instance, .. } => format!("stop {instance}"),
        Step::StartApp { run } => format!("start {} {}", run.instance(), run.version),
        Step::RecordRelease { release } => format!("record release of {}", release.app),
        Step::Probe { run, .. } => format!("probe {}", run.instance()),
        Step::Hook { kind, run, .. } => format!("hook {kind} of {}", run.app),
        Step::ForgetApp { instance } => format!("forget {instance}"),
        Step::MakeGuest { guest } => format!("make {}", guest.id().title()),
        Step::StartGuest { guest } => format!("start {}", guest.id().title()),
        Step::StopGuest { guest } => format!("stop {}", guest.title()),
        Step::RemoveGuest { guest } => format!("remove {}", guest.title()),
        Step::DestroySnapshots { set } => format!("destroy {} old snapshots", set.len()),
        Step::DestroyBranch { branch } => format!("destroy old branch {branch}"),
    }
}
