//! Work that takes time: plans are carried out on worker threads, one deploy at a time each.

use super::Engine;
use super::now;
use crate::events::About;
use crate::executor::INTERRUPTED;
use crate::executor::Killed;
use crate::executor::OnProgress;
use crate::executor::RunReport;
use crate::journal::Ending;
use crate::journal::Journal;
use crate::journal::Record;
use crate::state::Outcome as Ended;
use crate::state::Verdict;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::EventKind;
use zed_fs::Outcome;
use zed_fs::Ticket;
use zed_plan::Plan;
use zed_plan::Purpose;
use zed_spec::DeployName;

/// What a worker does.
pub(super) enum Work {
    /// A new plan.
    Run(Box<Plan>),
    /// What a crash left.
    Resume(Box<Plan>, Journal, Vec<Record>),
}

/// What a worker reports.
pub struct JobEnd {
    deploy: DeployName,
    tickets: Vec<Ticket>,
    plan: Box<Plan>,
    took: Duration,
    result: io::Result<Result<RunReport, Killed>>,
}

impl Engine {
    /// Starts a worker. The caller has made sure that none works on this deploy.
    pub(super) fn spawn(&mut self, deploy: &DeployName, what: &str, tickets: Vec<Ticket>, work: Work) {
        let shared = self.parts.shared.clone();
        let Ok(cancel) = shared.begin(deploy, what) else {
            // The loop checks before it calls; should it not have, nothing is lost: the next pass plans again.
            for ticket in tickets {
                shared.end_ticket(ticket, &Err(busy_error(deploy, "another run")));
            }
            return;
        };
        shared.unsettle(deploy.as_str());
        let executor = self.executor.clone();
        let end = self.end.clone();
        let name = deploy.clone();
        let on_progress: OnProgress = {
            let (shared, name) = (shared.clone(), name.clone());
            Arc::new(move |step| shared.set_step(&name, step))
        };
        let worker = move || {
            let began = Instant::now();
            let (plan, result) = match work {
                Work::Run(plan) => {
                    let result = executor.run(&plan, &cancel, &on_progress);
                    (plan, result)
                }
                Work::Resume(plan, journal, records) => {
                    let result = executor.resume(&plan, journal, &records, &cancel, &on_progress);
                    (plan, result)
                }
            };
            let _ = end.send(JobEnd { deploy: name, tickets, plan, took: began.elapsed(), result });
            shared.wake();
        };
        if let Err(error) = std::thread::Builder::new().name(format!("run-{deploy}")).spawn(worker) {
            tracing::error!(%error, deploy = %deploy, "no thread for a run; trying again");
            self.parts.shared.end(deploy);
        }
    }

    /// Takes up runs that a crash interrupted. Those of one deploy are taken up one after the other: the
    /// later ones when `finish_job` has ended the earlier.
    pub(super) fn recover(&mut self) {
        let unfinished = match Journal::unfinished(&self.parts.state) {
            Ok(paths) => paths,
            Err(error) => {
                tracing::error!(%error, "the journals cannot be listed");
                return;
            }
        };
        for path in unfinished {
            match Journal::reopen(&path) {
                Ok((journal, plan, records)) => {
                    if self.parts.shared.busy().contains_key(&plan.deploy) {
                        continue;
                    }
                    let text = format!("run {} was interrupted; it is completed or taken back", plan.run);
                    self.emit(EventKind::DeployResumed, About::run(plan.deploy.as_str(), &plan.run.0), &text);
                    let deploy = plan.deploy.clone();
                    self.set(&deploy, "converging", text);
                    self.spawn(
                        &deploy,
                        "recovering",
                        Vec::new(),
                        Work::Resume(Box::new(plan), journal, records),
                    );
                }
                // The intent was not durable yet, so nothing was done.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    if let Err(error) = std::fs::remove_file(&path) {
                        tracing::warn!(%error, path = %path.display(), "an empty journal could not be removed");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "a journal cannot be read; its run needs an operator");
                    self.emit(
                        EventKind::NeedsOperator,
                        About::nothing(),
                        &format!("{}: {error}", path.display()),
                    );
                }
            }
        }
    }

    /// Takes in what workers have ended.
    pub(super) fn finish_jobs(&mut self) {
        while let Ok(end) = self.ends.try_recv() {
            self.finish_job(end);
        }
    }

    pub(super) fn finish_job(&mut self, job: JobEnd) {
        self.releases_stale = true;
        self.releases_grew = true;
        let name = job.deploy;
        let report = match job.result {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(Killed)) => {
                // As after a real kill: nothing more happens, and the deploy stays busy for ever.
                self.killed = true;
                return;
            }
            Err(error) => Err(format!("the journal could not be written: {error}")),
        };
        self.parts.shared.end(&name);
        let outcome = match &report {
            Ok(report) => self.judge(&name, &job.plan, report),
            Err(problem) => {
                self.give_verdict(&name, Some(verdict(&job.plan, Ended::Failed, problem.clone())));
                Err(CtlError::new(Code::Failed, problem.clone()))
            }
        };
        self.parts.metrics.run_ended(&job.plan.purpose, job.took, &outcome);
        // Whoever waited reads status next: it is told when the world says so, too.
        self.ended.extend(job.tickets.into_iter().map(|ticket| (ticket, outcome.clone())));
        // Another interrupted run of the same deploy may wait.
        self.recover_next(&name);
    }

    fn recover_next(&mut self, name: &DeployName) {
        let needs_operator = self
            .deploys
            .get(name)
            .and_then(|d| d.verdict())
            .is_some_and(|v| v.outcome == Ended::NeedsOperator);
        let more = Journal::unfinished(&self.parts.state).is_ok_and(|paths| !paths.is_empty());
        if more && !needs_operator && self.parts.shared.busy().is_empty() {
            self.recover();
        }
    }

    /// Verdict, events and what a waiting command is told.
    fn judge(&mut self, name: &DeployName, plan: &Plan, report: &RunReport) -> Outcome {
        let mut failed = Vec::new();
        let mut skipped = Vec::new();
        let mut stuck = Vec::new();
        let mut interrupted = false;
        for (unit, ending) in report {
            match ending {
                Ending::Committed => {}
                Ending::Undone { reason } if reason == INTERRUPTED => interrupted = true,
                Ending::Undone { reason } => {
                    failed.push(format!("{unit}: {reason}; what was before is back"))
                }
                Ending::Skipped { reason } => skipped.push(format!("{unit}: not started, {reason}")),
                Ending::NeedsOperator { reason } => stuck.push(format!("{unit}: {reason}")),
            }
        }
        // What waited for a unit that a stop of zedd interrupted did not fail either.
        if !interrupted || !failed.is_empty() {
            failed.append(&mut skipped);
        }
        let about = About::run(name.as_str(), &plan.run.0);
        let rollback = matches!(plan.purpose, Purpose::Rollback { .. });
        if !stuck.is_empty() {
            let text = format!("{}; look at {}", stuck.join("; "), self.parts.state.journal_dir().display());
            self.emit(EventKind::NeedsOperator, about, &text);
            self.give_verdict(name, Some(verdict(plan, Ended::NeedsOperator, text.clone())));
            let hint = format!("when the cause is gone: echo retry {name} > /zed/ctl");
            return Err(CtlError::new(Code::NeedsOperator, text).hint(hint));
        }
        if !failed.is_empty() {
            let evidence = self.parts.state.failure_dir(&plan.run.0);
            let mut text = failed.join("\n");
            if evidence.exists() {
                text = format!("{text}\nevidence: {}", evidence.display());
            }
            let kind = if rollback { EventKind::RollbackFailed } else { EventKind::DeployFailed };
            self.emit(kind, about, &text);
            // A cancelled run of an older generation is no verdict on the present one; a failed rollback or
            // start is none on the spec.
            if plan.purpose == Purpose::Deploy
                && !self.parts.shared.stopping.load(std::sync::atomic::Ordering::SeqCst)
            {
                self.give_verdict(name, Some(verdict(plan, Ended::Failed, text.clone())));
            }
            return Err(CtlError::new(Code::Failed, text));
        }
        if interrupted {
            self.emit(
                EventKind::DeployFailed,
                about,
                "the interrupted run was taken back; what was before is back",
            );
            return Err(CtlError::new(Code::Failed, "interrupted; it was taken back"));
        }
        let kind = if rollback { EventKind::RollbackDone } else { EventKind::DeployConverged };
        let text = done_text(plan);
        self.emit(kind, about, &text);
        match plan.purpose {
            Purpose::Deploy => {
                self.give_verdict(name, Some(verdict(plan, Ended::Converged, text.clone())));
            }
            Purpose::Undeclare if self.deploys.get(name).is_some_and(|d| d.record.removed) => {
                self.forget_deploy(name)
            }
            // A recovered run of any other kind ends what needed an operator.
            _ => self.give_verdict(name, None),
        }
        Ok(text)
    }
}

fn done_text(plan: &Plan) -> String {
    match &plan.purpose {
        Purpose::Deploy => format!("generation {} is deployed (run {})", plan.generation, plan.run),
        Purpose::Undeclare => format!("released (run {})", plan.run),
        Purpose::Rollback { app, target } => format!("{app} is rolled back to {target} (run {})", plan.run),
        Purpose::Control { app, verb } => format!("{app}: {verb} done (run {})", plan.run),
    }
}

fn verdict(plan: &Plan, outcome: Ended, text: String) -> Verdict {
    Verdict { generation: plan.generation, run: plan.run.0.clone(), outcome, text, at: now() }
}

/// Another operation holds the deploy.
pub fn busy_error(deploy: &DeployName, what: &str) -> CtlError {
    CtlError::new(Code::Busy, format!("deploy `{deploy}` is busy: {what}"))
        .hint(format!("wait for it: cat /zed/deploy/{deploy}.wait"))
}
