//! Deploys: the spec files, what is remembered of them, and when one is planned and carried out.

use super::Engine;
use super::drift::drift_of;
use super::drift::said;
use super::now;
use crate::engine::jobs::Work;
use crate::events::About;
use crate::observe::Look;
use crate::state::DeployRecord;
use crate::state::Outcome as Ended;
use crate::state::STATE_FORMAT;
use crate::state::SaveId;
use crate::state::Verdict;
use std::time::Instant;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::EventKind;
use zed_fs::Outcome;
use zed_fs::Ticket;
use zed_plan::Declared;
use zed_plan::LOST;
use zed_plan::Plan;
use zed_plan::PlanInput;
use zed_plan::RunId;
use zed_plan::Severity;
use zed_plan::UndeclareInput;
use zed_plan::plan_deploy;
use zed_plan::plan_undeclare;
use zed_plan::render_plan;
use zed_spec::DeployName;
use zed_spec::DeploySpec;

/// One deploy: the record on disk and what the last pass found.
#[derive(Debug, Clone)]
pub struct DeployState {
    /// What is remembered over restarts.
    pub record: DeployRecord,
    /// The accepted spec.
    pub declared: Option<Declared>,
    /// `accepted`, `converging`, `converged`, `held`, `stopped`, `drift`, `failed`, `rejected`,
    /// `needs-operator`, `removing`.
    pub state: &'static str,
    /// One line or more: what the last pass or run found.
    pub text: String,
    /// What would change, for people.
    pub plan: String,
    /// The same as JSON.
    pub plan_json: String,
    /// Seconds since 1970 of the last change of what is shown.
    pub changed_at: i64,
    /// The save that was looked at last; nothing before the first look of this process.
    pub(super) save: Option<SaveId>,
    /// Since when the file is missing, while that may still be a replacement in progress.
    pub(super) missing_since: Option<Instant>,
    /// Why the file or its record could not be read or written at the last pass.
    pub(super) unread: Option<String>,
    /// Nothing is left to do.
    pub plan_is_empty: bool,
    /// An operator asked to repair drift.
    pub heal: bool,
    /// An operator asked for this deploy by name: data that is gone is begun anew, empty.
    pub(super) recreate: bool,
    /// A run has ended since its datasets were remembered.
    pub(super) refresh: bool,
    /// The drift that was told last, empty when there is none.
    pub(super) drift: String,
    /// Hash of what the last plan was based on: an unchanged world is not planned or rendered again.
    based_on: String,
}

impl DeployState {
    /// As the record has it, before the first look.
    pub fn remembered(name: &DeployName, record: DeployRecord) -> Self {
        let declared = record.accepted.as_ref().and_then(|text| declared(name, text, record.generation).ok());
        Self {
            declared,
            refresh: record.settled == 0,
            record,
            state: "accepted",
            text: String::new(),
            plan: String::new(),
            plan_json: String::new(),
            changed_at: now(),
            save: None,
            missing_since: None,
            unread: None,
            plan_is_empty: true,
            heal: false,
            recreate: false,
            drift: String::new(),
            based_on: String::new(),
        }
    }

    /// The accepted spec.
    pub fn spec(&self) -> Option<&DeploySpec> {
        self.declared.as_ref().map(|declared| &declared.spec)
    }

    /// True when nothing more will happen by itself.
    pub fn at_rest(&self) -> bool {
        !matches!(self.state, "accepted" | "converging" | "removing")
    }

    /// What a waiter is told.
    pub fn outcome(&self) -> Outcome {
        let generation = self.record.generation;
        let line = |word: &str| format!("{word} generation {generation}: {}", self.text);
        match self.state {
            "converged" | "held" | "stopped" | "drift" => Ok(line(self.state)),
            "rejected" => Err(CtlError::new(Code::BadSpec, self.record.rejected.clone().unwrap_or_default())),
            "needs-operator" => Err(CtlError::new(Code::NeedsOperator, line("needs operator"))),
            _ => Err(CtlError::new(Code::Failed, line("failed"))),
        }
    }

    /// The verdict on the present generation, if a run has given one.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.record.verdict.as_ref().filter(|verdict| verdict.generation == self.record.generation)
    }

    fn show(&mut self, state: &'static str, text: String) {
        if self.state != state || self.text != text {
            self.changed_at = now();
        }
        self.state = state;
        self.text = text;
    }

    fn show_plan(&mut self, header: &str, plan: &Plan, look: &Look) {
        // The same world gives another plan when a repair is asked for.
        let steps: usize = plan.units.iter().map(|unit| unit.steps.len()).sum();
        let key = format!("{} {steps} {}", plan.based_on, plan.notes.len());
        if self.based_on == key && !self.plan.is_empty() {
            return;
        }
        self.plan = format!("{header}{}", render_plan(plan, &look.observed));
        self.plan_is_empty = plan.is_empty();
        self.plan_json = zed_ctl::to_json(plan);
        self.based_on = key;
        self.changed_at = now();
    }
}

/// Parses an accepted text again.
pub(super) fn declared(
    name: &DeployName,
    text: &str,
    generation: u64,
) -> Result<Declared, zed_spec::Diagnostics> {
    let spec = zed_spec::parse(name, text.as_bytes())?;
    let sha256 = spec.sha256();
    Ok(Declared { spec, generation, sha256 })
}

/// First line of `NAME.plan`: by it a plan is known again when it is applied.
pub(super) fn plan_header(name: &DeployName, plan: &Plan) -> String {
    format!("# plan {name} run {} based on {}\n", plan.run, plan.based_on)
}

impl Engine {
    /// Plans every deploy and starts work on those that have some. Returns how many.
    pub(super) fn converge(&mut self, look: &Look) -> usize {
        self.plan_dry_runs(look);
        let names: Vec<DeployName> = self.deploys.keys().cloned().collect();
        let busy = self.parts.shared.busy();
        let mut started = 0;
        for name in names {
            if busy.contains_key(&name) {
                if let Some(deploy) = self.deploys.get_mut(&name) {
                    deploy.state = "converging";
                }
                continue;
            }
            started += usize::from(self.converge_one(&name, look));
        }
        started
    }

    fn converge_one(&mut self, name: &DeployName, look: &Look) -> bool {
        if let Some(text) = self.stuck.get(name).cloned() {
            self.set(name, "needs-operator", text);
            return false;
        }
        let Some(deploy) = self.deploys.get(name) else { return false };
        if let Some(problem) = deploy.unread.clone() {
            self.set(name, "failed", problem);
            return false;
        }
        if deploy.record.removed {
            if let Some(text) = self.paused(name) {
                self.set(name, "failed", text);
                return false;
            }
            let plan = plan_undeclare(&UndeclareInput {
                deploy: name,
                generation: deploy.record.generation,
                observed: &look.observed,
                releases: &self.releases,
                run: &super::new_run(),
                now: now(),
            });
            return self.carry_out_removal(name, plan);
        }
        let Some(declared) = deploy.declared.clone() else {
            self.set(
                name,
                "rejected",
                "the file does not parse, and there was no good one before".to_owned(),
            );
            return false;
        };
        let rejected = deploy.record.rejected.is_some();
        let (settled, recreate) = (deploy.is_settled(), deploy.recreate);
        let asked = deploy.heal || !settled;
        self.remember_datasets(name, look);
        let reported = self.plan_of(&declared, look, asked, recreate);
        // What would be done is shown also when nobody has asked for it yet.
        let healing = || self.plan_of(&declared, look, true, recreate);
        let heals = asked || drift_of(&reported).is_empty();
        let (shown, plan) = match (heals, declared.spec.drift) {
            (true, _) => (None, reported),
            (false, zed_spec::DriftPolicy::Report) => (Some(healing()), reported),
            (false, zed_spec::DriftPolicy::Heal) => {
                let healing = healing();
                self.tell_drift(name, &drift_of(&reported));
                (None, healing)
            }
        };
        if let Some(deploy) = self.deploys.get_mut(name) {
            let shown = shown.as_ref().unwrap_or(&plan);
            deploy.show_plan(&plan_header(name, shown), shown, look);
        }
        let fatal: Vec<String> = plan.fatal().map(|note| format!("{}: {}", note.object, note.text)).collect();
        if !fatal.is_empty() {
            self.keep_running(name, look);
            self.set(name, "failed", fatal.join("\n"));
            return false;
        }
        let lost = said(&plan, &[LOST]);
        if !lost.is_empty() && !settled {
            self.keep_running(name, look);
            self.set(name, "failed", lost);
            return false;
        }
        if let Some(verdict) = self.deploys.get(name).and_then(DeployState::verdict)
            && verdict.outcome == Ended::Failed
        {
            let text = verdict.text.clone();
            self.keep_running(name, look);
            self.set(name, "failed", text);
            return false;
        }
        if plan.is_empty() {
            self.at_rest_with(name, &plan, rejected);
            return false;
        }
        self.work_on_plan(name, plan, look)
    }

    fn work_on_plan(&mut self, name: &DeployName, plan: Plan, look: &Look) -> bool {
        // A plan that breaks a rule is a defect of the planner: it is refused, not tried.
        let broken: Vec<String> = zed_plan::lint(&plan, &look.observed)
            .into_iter()
            .filter(|note| note.severity == Severity::Fatal)
            .map(|note| format!("{}: {}", note.object, note.text))
            .collect();
        if !broken.is_empty() {
            self.set(name, "failed", format!("the plan breaks a rule of zed itself: {}", broken.join("; ")));
            return false;
        }
        let text = format!("run {}", plan.run);
        self.emit(EventKind::DeployStarted, About::run(name.as_str(), &plan.run.0), &self.summary(&plan));
        self.set(name, "converging", text);
        self.spawn(name, super::DEPLOYING, Vec::new(), Work::Run(Box::new(plan)));
        true
    }

    fn summary(&self, plan: &Plan) -> String {
        let apps: Vec<&str> =
            plan.units.iter().flat_map(|unit| &unit.apps).map(zed_spec::AppName::as_str).collect();
        let steps: usize = plan.units.iter().map(|unit| unit.steps.len()).sum();
        format!("generation {}: {steps} steps, apps: {}", plan.generation, apps.join(" "))
    }

    /// Nothing to do: converged, held, or drift that is only reported.
    fn at_rest_with(&mut self, name: &DeployName, plan: &Plan, rejected: bool) {
        let (drift, held, stopped) = (drift_of(plan), said(plan, &["held"]), said(plan, &["stopped"]));
        let (state, text) = if rejected {
            ("rejected", "the saved file has errors; the last good one stays in force".to_owned())
        } else if !drift.is_empty() {
            ("drift", drift)
        } else if !held.is_empty() {
            ("held", held)
        } else if !stopped.is_empty() {
            ("stopped", stopped)
        } else {
            ("converged", "the host matches the spec".to_owned())
        };
        match state {
            "rejected" => {}
            "drift" => self.tell_drift(name, &text),
            _ => {
                self.settle_record(name);
                self.tell_healed(name);
            }
        }
        if let Some(deploy) = self.deploys.get_mut(name) {
            deploy.heal = false;
            deploy.recreate = false;
        }
        self.set(name, state, text);
    }

    fn carry_out_removal(&mut self, name: &DeployName, plan: Plan) -> bool {
        if plan.is_empty() {
            self.forget_deploy(name);
            return false;
        }
        self.set(name, "removing", format!("run {}", plan.run));
        self.spawn(name, "removing", Vec::new(), Work::Run(Box::new(plan)));
        true
    }

    pub(super) fn forget_deploy(&mut self, name: &DeployName) {
        let generation = self.deploys.get(name).map_or(0, |deploy| deploy.record.generation);
        let record =
            DeployRecord { format: STATE_FORMAT, generation, released: true, ..DeployRecord::default() };
        if let Err(error) = self.parts.state.write_record(name, &record) {
            let text = crate::chain(&error);
            tracing::error!(text, "a deploy's record could not be put away; trying again");
            self.pauses.insert(name.clone(), (Instant::now(), text));
            return;
        }
        self.released.insert(name.clone(), generation);
        self.deploys.remove(name);
        self.emit(
            EventKind::DeployRemoved,
            About::deploy(name.as_str()),
            "stopped and released; its data is kept",
        );
        let later = self.waiting_next.extract_if(.., |(deploy, _)| deploy == name).map(|(_, ticket)| ticket);
        let tickets: Vec<Ticket> = later.collect();
        for ticket in self.waiting.remove(name).unwrap_or_default().into_iter().chain(tickets) {
            self.parts.shared.end_ticket(ticket, &Ok("removed".to_owned()));
        }
    }

    /// A plan for a spec as it would be made now.
    pub(super) fn plan_of(&self, declared: &Declared, look: &Look, heal: bool, recreate: bool) -> Plan {
        let run: RunId = super::new_run();
        let known = self.deploys.get(&declared.spec.name).and_then(|deploy| deploy.record.datasets.as_ref());
        plan_deploy(&PlanInput {
            declared,
            observed: &look.observed,
            releases: &self.releases,
            run: &run,
            now: now(),
            heal,
            known,
            recreate,
        })
    }

    fn plan_dry_runs(&mut self, look: &Look) {
        let names: Vec<DeployName> = self.plans.keys().cloned().collect();
        for name in names {
            let Some(declared) = self.plans.get(&name).and_then(|d| d.declared.clone()) else {
                if let Some(deploy) = self.plans.get_mut(&name) {
                    deploy.show("rejected", "the file does not parse".to_owned());
                }
                continue;
            };
            // A plan stays as it was made, until the spec is saved again or somebody asks with `reload`: what is
            // applied by name must be what was read, and be refused when the host has moved since.
            if self.plans.get(&name).is_none_or(|planned| planned.state != "accepted") {
                continue;
            }
            let plan = self.plan_of(&declared, look, true, false);
            let Some(deploy) = self.plans.get_mut(&name) else { continue };
            deploy.based_on.clear();
            deploy.show_plan(&plan_header(&name, &plan), &plan, look);
            deploy.show("converged", "planned".to_owned());
            if let Err(error) = self.parts.state.write_plan(&name, &plan) {
                tracing::error!(error = %crate::chain(&error), "a plan could not be kept");
            }
            self.emit(EventKind::PlanMade, About::run(name.as_str(), &plan.run.0), &self.summary(&plan));
        }
    }

    pub(super) fn set(&mut self, name: &DeployName, state: &'static str, text: String) {
        if let Some(deploy) = self.deploys.get_mut(name) {
            deploy.show(state, text);
        }
    }

    /// Notes how a run ended, durably.
    pub(super) fn give_verdict(&mut self, name: &DeployName, verdict: Option<Verdict>) {
        let Some(deploy) = self.deploys.get_mut(name) else { return };
        deploy.refresh = true;
        deploy.record.settled = 0;
        deploy.record.verdict = verdict;
        deploy.heal = false;
        deploy.recreate = false;
        let record = deploy.record.clone();
        if let Err(error) = self.parts.state.write_record(name, &record) {
            tracing::error!(error = %crate::chain(&error), deploy = %name, "a verdict could not be kept");
        }
    }
}
