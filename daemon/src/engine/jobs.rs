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
use zed_plan::Step;
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
        let Ok(signals) = shared.begin(deploy, what) else {
            // The loop checks before it calls; should it not have, nothing is lost: the next pass plans again.
            for ticket in tickets {
                shared.end_ticket(ticket, &Err(busy_error(deploy, "another run")));
            }
            return;
        };
        shared.unsettle(deploy.as_str());
        self.parts.monitor.pause(deploy);
        let (Work::Run(plan) | Work::Resume(plan, ..)) = &work;
        self.active.insert(deploy.clone(), plan.run.0.clone());
        let executor = self.executor.clone();
        let end = self.end.clone();
        let name = deploy.clone();
        let on_progress: OnProgress = {
            let (shared, name) = (shared.clone(), name.clone());
            Arc::new(move |step, place| {
                shared.set_step(&name, place);
                // Here an upgrade stays for a while: an operator has to see what runs.
                if matches!(step, Step::Soak { .. }) {
                    shared.wake();
                }
            })
        };
        let told = tickets.clone();
        let worker = move || {
            let began = Instant::now();
            let (plan, resumed) = match work {
                Work::Run(plan) => (plan, None),
                Work::Resume(plan, journal, records) => (plan, Some((journal, records))),
            };
            let carried_out = std::panic::AssertUnwindSafe(|| match resumed {
                None => executor.run(&plan, &signals, &on_progress),
                Some((journal, records)) => executor.resume(&plan, journal, &records, &signals, &on_progress),
            });
            // A defect in one run must not leave its deploy busy for ever; its journal says how far it was.
            let result = std::panic::catch_unwind(carried_out).unwrap_or_else(|_| {
                Err(io::Error::other("the run ended with a panic; the log has the place"))
            });
            let _ = end.send(JobEnd { deploy: name, tickets, plan, took: began.elapsed(), result });
            shared.wake();
        };
        if let Err(error) = std::thread::Builder::new().name(format!("run-{deploy}")).spawn(worker) {
            tracing::error!(%error, deploy = %deploy, "no thread for a run");
            self.parts.shared.end(deploy);
            self.pauses.insert(deploy.clone(), (Instant::now(), format!("no thread for a run: {error}")));
            for ticket in told {
                let text = format!("no thread for a run of `{deploy}`: {error}");
                self.parts.shared.end_ticket(ticket, &Err(CtlError::new(Code::Failed, text)));
            }
        }
    }

    /// Takes up runs that a crash interrupted, of all deploys or of one. Those of one deploy are taken up one
    /// after the other: the later ones when the earlier has ended. A deploy that needs an operator is left.
    pub(super) fn recover(&mut self, only: Option<&DeployName>) {
        let unfinished = match Journal::unfinished(&self.parts.state) {
            Ok(paths) => paths,
            Err(error) => {
                tracing::error!(%error, "the journals cannot be listed");
                return;
            }
        };
        for path in unfinished {
            // A journal that a worker writes to is never opened here.
            if Journal::run_of(&path).is_some_and(|run| self.active.values().any(|active| active == run)) {
                continue;
            }
            match Journal::reopen(&path) {
                Ok((journal, plan, records)) => self.resume(only, journal, plan, records),
                // The intent was not durable yet, so nothing was done.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    if let Err(error) = std::fs::remove_file(&path) {
                        tracing::warn!(%error, path = %path.display(), "an empty journal could not be removed");
                    }
                }
                Err(error) => {
                    let text = format!("the journal {} cannot be read: {error}", path.display());
                    if self.unreadable.insert(path, text.clone()).is_none() {
                        tracing::error!(text, "a run needs an operator");
                        self.emit(EventKind::NeedsOperator, About::nothing(), &text);
                    }
                }
            }
        }
    }

    fn resume(&mut self, only: Option<&DeployName>, journal: Journal, plan: Plan, records: Vec<Record>) {
        let deploy = plan.deploy.clone();
        let wanted = only.is_none_or(|only| *only == deploy);
        if !wanted || self.stuck.contains_key(&deploy) || self.parts.shared.busy().contains_key(&deploy) {
            return;
        }
        let text = format!("run {} was interrupted; it is completed or taken back", plan.run);
        self.emit(EventKind::DeployResumed, About::run(deploy.as_str(), &plan.run.0), &text);
        self.set(&deploy, "converging", text);
        self.spawn(&deploy, "recovering", Vec::new(), Work::Resume(Box::new(plan), journal, records));
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
            Err(error) => Err(format!("run {} could not be carried out: {error}", job.plan.run)),
        };
        self.parts.shared.end(&name);
        self.active.remove(&name);
        let outcome = match &report {
            Ok(report) => self.judge(&name, &job.plan, report),
            Err(problem) => {
                self.failed(&name, &job.plan, problem);
                Err(CtlError::new(Code::Failed, problem.clone()))
            }
        };
        self.parts.metrics.run_ended(&job.plan.purpose, job.took, &outcome);
        // Whoever waited reads status next: it is told when the world says so, too.
        self.ended.extend(job.tickets.into_iter().map(|ticket| (ticket, outcome.clone())));
        // Another interrupted run of the same deploy may wait.
        self.recover(Some(&name));
    }

    /// A run has failed and what was before is back. Of a deploy that is the verdict on its spec; what the loop
    /// does by itself is tried again later.
    fn failed(&mut self, name: &DeployName, plan: &Plan, text: &str) {
        if plan.purpose == Purpose::Deploy {
            self.give_verdict(name, Some(verdict(plan, Ended::Failed, text.to_owned())));
        } else {
            self.pauses.insert(name.clone(), (Instant::now(), text.to_owned()));
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
            self.stuck.insert(name.clone(), text.clone());
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
            self.failed(name, plan, &text);
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
            // What an operator does to an app is no verdict on its spec.
            Purpose::Undeclare | Purpose::Rollback { .. } | Purpose::Control { .. } => {}
        }
        self.pauses.remove(name);
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
