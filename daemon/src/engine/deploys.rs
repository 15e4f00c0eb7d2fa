//! Deploys: the spec files, what is remembered of them, and when one is planned and carried out.

use super::Engine;
use super::now;
use crate::engine::jobs::Work;
use crate::events::About;
use crate::observe::Look;
use crate::state::DeployRecord;
use crate::state::Outcome as Ended;
use crate::state::STATE_FORMAT;
use crate::state::SaveId;
use crate::state::SpecFile;
use crate::state::StateError;
use crate::state::Verdict;
use crate::state::spec_files;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::EventKind;
use zed_fs::Outcome;
use zed_plan::Declared;
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
    /// `accepted`, `converging`, `converged`, `held`, `drift`, `failed`, `rejected`, `needs-operator`,
    /// `removing`.
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
    save: Option<SaveId>,
    /// Nothing is left to do.
    pub plan_is_empty: bool,
    /// An operator asked to repair drift.
    pub heal: bool,
    /// Hash of what the last plan was based on: an unchanged world is not planned or rendered again.
    based_on: String,
}

impl DeployState {
    /// As the record has it, before the first look.
    pub fn remembered(name: &DeployName, record: DeployRecord) -> Self {
        let declared = record.accepted.as_ref().and_then(|text| declared(name, text, record.generation).ok());
        Self {
            declared,
            record,
            state: "accepted",
            text: String::new(),
            plan: String::new(),
            plan_json: String::new(),
            changed_at: now(),
            save: None,
            plan_is_empty: true,
            heal: false,
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
            "converged" | "held" | "drift" => Ok(line(self.state)),
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
        if self.based_on == plan.based_on && !self.plan.is_empty() {
            return;
        }
        self.plan = format!("{header}{}", render_plan(plan, &look.observed));
        self.plan_is_empty = plan.is_empty();
        self.plan_json = zed_ctl::to_json(plan);
        self.based_on.clone_from(&plan.based_on);
        self.changed_at = now();
    }
}

/// Parses an accepted text again.
fn declared(name: &DeployName, text: &str, generation: u64) -> Result<Declared, zed_spec::Diagnostics> {
    let spec = zed_spec::parse(name, text.as_bytes())?;
    let sha256 = spec.sha256();
    Ok(Declared { spec, generation, sha256 })
}

/// First line of `NAME.plan`: by it a plan is known again when it is applied.
pub(super) fn plan_header(name: &DeployName, plan: &Plan) -> String {
    format!("# plan {name} run {} based on {}\n", plan.run, plan.based_on)
}

impl Engine {
    /// Brings the deploys in line with the files; the generation rule is here.
    pub(super) fn read_specs(&mut self) -> Result<(), StateError> {
        let files = spec_files(&self.parts.state.deploy_dir())?;
        let mut present = BTreeSet::new();
        for file in files {
            self.read_spec(&file)?;
            present.insert(file.name);
        }
        let gone: Vec<DeployName> =
            self.deploys.keys().filter(|name| !present.contains(*name)).cloned().collect();
        for name in gone {
            self.spec_is_gone(&name)?;
        }
        self.read_plans()
    }

    fn read_spec(&mut self, SpecFile { name, bytes, save }: &SpecFile) -> Result<(), StateError> {
        let known = self.deploys.get_mut(name);
        if known.as_ref().is_some_and(|d| d.save == Some(*save) && !d.record.removed) {
            return Ok(());
        }
        let sha256 = crate::sha256_hex(bytes);
        if let Some(known) = known
            && known.record.file_sha256 == sha256
            && !known.record.removed
        {
            // Saving equal bytes again changes nothing, unless something waits for just that: a held rollback is
            // released by it, a failed deploy tried again. What was there when zedd started was not saved again.
            let again = known.save.replace(*save).is_some();
            if !again || matches!(known.state, "converged" | "converging" | "rejected") {
                return Ok(());
            }
        }
        let known = self.deploys.get(name);
        let mut record = match known {
            Some(known) => known.record.clone(),
            // A state directory that was lost: counting goes on where the stamps are, or they would be newer.
            None => DeployRecord { generation: self.stamped_generation(name), ..DeployRecord::default() },
        };
        record.format = STATE_FORMAT;
        record.file_sha256 = sha256;
        record.removed = false;
        let file = format!("{name}.ron");
        match std::str::from_utf8(bytes).ok().map(|text| (text, declared(name, text, record.generation + 1)))
        {
            Some((text, Ok(_))) => {
                record.generation += 1;
                record.accepted = Some(text.to_owned());
                record.rejected = None;
                self.emit(
                    EventKind::SpecAccepted,
                    About::deploy(name.as_str()),
                    &format!("generation {}", record.generation),
                );
            }
            Some((_, Err(diagnostics))) => {
                record.rejected = Some(diagnostics.render(&file));
                self.emit(EventKind::SpecRejected, About::deploy(name.as_str()), &diagnostics.render(&file));
            }
            None => {
                let error = zed_spec::parse(name, bytes).err().map(|d| d.render(&file)).unwrap_or_default();
                self.emit(EventKind::SpecRejected, About::deploy(name.as_str()), &error);
                record.rejected = Some(error);
            }
        }
        self.parts.metrics.spec(record.rejected.is_none());
        self.parts.state.write_record(name, &record)?;
        let heal = record.rejected.is_none();
        let mut deploy = DeployState::remembered(name, record);
        deploy.heal = heal;
        deploy.save = Some(*save);
        self.deploys.insert(name.clone(), deploy);
        if let Some(busy) = self.parts.shared.busy().get(name) {
            // A newer save ends the probes of the older one: it is taken back, then the newer one is deployed.
            busy.cancel.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        Ok(())
    }

    /// The highest generation of a deploy that is stamped in the store.
    fn stamped_generation(&self, name: &DeployName) -> u64 {
        let datasets = self.parts.store.list().unwrap_or_default();
        let stamps = datasets.iter().flat_map(|set| zed_plan::props::parse_stamps(&set.path, &set.user).apps);
        stamps.filter(|stamp| stamp.deploy == *name).map(|stamp| stamp.generation).max().unwrap_or(0)
    }

    fn spec_is_gone(&mut self, name: &DeployName) -> Result<(), StateError> {
        let Some(deploy) = self.deploys.get_mut(name) else { return Ok(()) };
        if deploy.record.removed {
            return Ok(());
        }
        deploy.record.removed = true;
        deploy.record.verdict = None;
        deploy.state = "removing";
        deploy.changed_at = now();
        self.parts.state.write_record(name, &deploy.record)?;
        self.emit(
            EventKind::SpecRemoved,
            About::deploy(name.as_str()),
            "its apps are stopped and released, their data kept",
        );
        Ok(())
    }

    /// Dry runs: parsed and planned, never remembered, never applied.
    fn read_plans(&mut self) -> Result<(), StateError> {
        let mut found = BTreeMap::new();
        for SpecFile { name, bytes, save: _ } in spec_files(&self.parts.state.plan_dir())? {
            let sha256 = crate::sha256_hex(&bytes);
            let old = self.plans.remove(&name);
            let generation = self.deploys.get(&name).map_or(0, |d| d.record.generation) + 1;
            if let Some(old) = old
                && old.record.file_sha256 == sha256
                && old.record.generation == generation
            {
                found.insert(name, old);
                continue;
            }
            let mut record = DeployRecord {
                format: STATE_FORMAT,
                generation,
                file_sha256: sha256,
                ..DeployRecord::default()
            };
            match zed_spec::parse(&name, &bytes) {
                Ok(_) => record.accepted = Some(String::from_utf8_lossy(&bytes).into_owned()),
                Err(diagnostics) => record.rejected = Some(diagnostics.render(&format!("{name}.ron"))),
            }
            found.insert(name.clone(), DeployState::remembered(&name, record));
        }
        let dropped: Vec<DeployName> =
            self.plans.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in dropped {
            self.parts.state.remove_plan(&name)?;
        }
        self.plans = found;
        Ok(())
    }

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
        let Some(deploy) = self.deploys.get(name) else { return false };
        if deploy.verdict().is_some_and(|v| v.outcome == Ended::NeedsOperator) {
            let text = deploy.verdict().map(|v| v.text.clone()).unwrap_or_default();
            self.set(name, "needs-operator", text);
            return false;
        }
        if deploy.record.removed {
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
        let heal = deploy.heal || declared.spec.drift == zed_spec::DriftPolicy::Heal;
        let plan = self.plan_of(&declared, look, heal);
        if let Some(deploy) = self.deploys.get_mut(name) {
            deploy.show_plan(&plan_header(name, &plan), &plan, look);
        }
        let fatal: Vec<String> = plan.fatal().map(|note| format!("{}: {}", note.object, note.text)).collect();
        if !fatal.is_empty() {
            self.set(name, "failed", fatal.join("\n"));
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
        self.spawn(name, "deploying", Vec::new(), Work::Run(Box::new(plan)));
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
        let notes = |kind: &str| {
            let of: Vec<String> = plan
                .notes
                .iter()
                .filter(|note| note.kind == kind && note.severity >= Severity::Info)
                .map(|note| format!("{}: {}", note.object, note.text))
                .collect();
            of.join("\n")
        };
        let (drift, held) = (notes("drift"), notes("held"));
        let (state, text) = if rejected {
            ("rejected", "the saved file has errors; the last good one stays in force".to_owned())
        } else if !drift.is_empty() {
            ("drift", drift)
        } else if !held.is_empty() {
            ("held", held)
        } else {
            ("converged", "the host matches the spec".to_owned())
        };
        if state == "drift" && self.deploys.get(name).is_some_and(|d| d.state != "drift") {
            self.parts.metrics.drift();
            self.emit(EventKind::Drift, About::deploy(name.as_str()), &text);
        }
        if let Some(deploy) = self.deploys.get_mut(name) {
            deploy.heal = false;
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
        if let Err(error) = self.parts.state.remove_record(name) {
            tracing::error!(error = %crate::chain(&error), "a deploy's record could not be removed");
            return;
        }
        self.deploys.remove(name);
        self.emit(
            EventKind::DeployRemoved,
            About::deploy(name.as_str()),
            "stopped and released; its data is kept",
        );
        for ticket in self.waiting.remove(name).unwrap_or_default() {
            self.parts.shared.end_ticket(ticket, &Ok("removed".to_owned()));
        }
    }

    /// A plan for a spec as it would be made now.
    pub(super) fn plan_of(&self, declared: &Declared, look: &Look, heal: bool) -> Plan {
        let run: RunId = super::new_run();
        plan_deploy(&PlanInput {
            declared,
            observed: &look.observed,
            releases: &self.releases,
            run: &run,
            now: now(),
            heal,
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
            let plan = self.plan_of(&declared, look, true);
            let Some(deploy) = self.plans.get_mut(&name) else { continue };
            if deploy.based_on == plan.based_on && deploy.state != "accepted" {
                continue;
            }
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
        deploy.record.verdict = verdict;
        deploy.heal = false;
        let record = deploy.record.clone();
        if let Err(error) = self.parts.state.write_record(name, &record) {
            tracing::error!(error = %crate::chain(&error), deploy = %name, "a verdict could not be kept");
        }
    }
}
