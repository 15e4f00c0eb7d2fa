//! Commands that were judged good: turned into plans or into marks, and answered when they have ended.

use super::Engine;
use super::jobs::Work;
use super::jobs::busy_error;
use super::new_run;
use super::now;
use crate::events::About;
use crate::observe::Look;
use crate::shared::AppPlace;
use crate::shared::Request;
use crate::shared::no_deploy;
use crate::state::replace_file;
use std::collections::BTreeMap;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::EventKind;
use zed_ctl::Verb;
use zed_fs::Ticket;
use zed_plan::AppVerb;
use zed_plan::Plan;
use zed_plan::PropEdit;
use zed_plan::RollbackInput;
use zed_plan::plan_app_verb;
use zed_plan::plan_rollback;
use zed_spec::AppName;
use zed_spec::DeployName;
use zed_store::PropChange;

impl Engine {
    pub(super) fn handle(&mut self, requests: &[Request], look: &Look) {
        for request in requests {
            let (ticket, result) = match request {
                Request::Verb { app, verb, ticket } => {
                    (*ticket, self.verb(app.as_ref(), verb, *ticket, look))
                }
                Request::Apply { plan, ticket } => (*ticket, self.apply(plan, *ticket, look)),
            };
            if let Err(error) = result {
                self.parts.shared.end_ticket(ticket, &Err(error));
            }
        }
    }

    /// Ends the ticket later, or now with the error that is returned.
    fn verb(
        &mut self,
        app: Option<&AppName>,
        verb: &Verb,
        ticket: Ticket,
        look: &Look,
    ) -> Result<(), CtlError> {
        let place = app.map(|app| self.place(app, look)).transpose()?;
        match (verb, app, place) {
            (Verb::Rollback(_), Some(app), Some(place)) => self.roll_back(app, verb, &place, ticket, look),
            (Verb::Start, Some(app), Some(place)) => self.app_verb(AppVerb::Start, app, &place, ticket, look),
            (Verb::Stop, Some(app), Some(place)) => self.app_verb(AppVerb::Stop, app, &place, ticket, look),
            (Verb::Restart, Some(app), Some(place)) => {
                self.app_verb(AppVerb::Restart, app, &place, ticket, look)
            }
            (Verb::Scale { count }, Some(app), Some(place)) => {
                self.app_verb(AppVerb::Scale(*count), app, &place, ticket, look)
            }
            (Verb::Release, Some(app), Some(place)) => {
                self.release(&[(app.clone(), place.clone())], look)?;
                self.converge_and_wait(&place.deploy, ticket);
                Ok(())
            }
            (Verb::Retry, Some(_), Some(place)) => self.retry(&place.deploy, ticket),
            (Verb::ReleaseDeploy { deploy }, ..) => {
                let deploy = self.deploy_name(deploy)?;
                let places = crate::places(&look.observed);
                let apps: Vec<_> = places.into_iter().filter(|(_, place)| place.deploy == deploy).collect();
                self.release(&apps, look)?;
                self.converge_and_wait(&deploy, ticket);
                Ok(())
            }
            (Verb::RetryDeploy { deploy }, ..) => {
                let deploy = self.deploy_name(deploy)?;
                self.retry(&deploy, ticket)
            }
            (Verb::Heal { deploy: Some(deploy) }, ..) => {
                let deploy = self.deploy_name(deploy)?;
                if let Some(state) = self.deploys.get_mut(&deploy) {
                    state.recreate = true;
                }
                self.converge_and_wait(&deploy, ticket);
                Ok(())
            }
            (Verb::Heal { deploy: None }, ..) => {
                for deploy in self.deploys.values_mut() {
                    deploy.heal = true;
                }
                self.pools.expire();
                self.after_pass.push(ticket);
                Ok(())
            }
            (Verb::Reload, ..) => {
                self.plan_again();
                self.pools.expire();
                self.after_pass.push(ticket);
                Ok(())
            }
            (Verb::Converge, ..) => {
                self.pools.expire();
                self.after_pass.push(ticket);
                Ok(())
            }
            (verb, ..) => {
                Err(CtlError::new(Code::BadArgument, format!("{verb:?} is not a verb for this file")))
            }
        }
    }

    fn place(&self, app: &AppName, look: &Look) -> Result<AppPlace, CtlError> {
        crate::places(&look.observed).remove(app).ok_or_else(|| crate::not_deployed(app))
    }

    fn deploy_name(&self, name: &str) -> Result<DeployName, CtlError> {
        self.deploys.keys().find(|known| known.as_str() == name).cloned().ok_or_else(|| no_deploy(name))
    }

    fn not_busy(&self, deploy: &DeployName) -> Result<(), CtlError> {
        if let Some(busy) = self.parts.shared.busy().get(deploy) {
            return Err(busy_error(deploy, &busy.what));
        }
        match self.stuck.get(deploy) {
            Some(text) => Err(CtlError::new(Code::NeedsOperator, text.clone())
                .hint(format!("when the cause is gone: echo retry {deploy} > /zed/ctl"))),
            None => Ok(()),
        }
    }

    fn roll_back(
        &mut self,
        app: &AppName,
        verb: &Verb,
        place: &AppPlace,
        ticket: Ticket,
        look: &Look,
    ) -> Result<(), CtlError> {
        self.not_busy(&place.deploy)?;
        let Verb::Rollback(target) = verb else { return Ok(()) };
        let run = new_run();
        let plan = plan_rollback(&RollbackInput {
            app,
            target: &crate::rollback_target(target),
            observed: &look.observed,
            releases: &self.releases,
            run: &run,
            now: now(),
            generation_held: self.deploys.get(&place.deploy).map_or(0, |d| d.record.generation),
            keep: self.deploys.get(&place.deploy).and_then(|d| d.spec()).map(|spec| spec.snapshots.keep),
        })
        .map_err(|e| crate::rollback_error(&e))?;
        let about = About { deploy: place.deploy.to_string(), app: app.to_string(), run: run.0.clone() };
        self.emit(EventKind::RollbackStarted, about, &crate::rollback_target(target).to_string());
        self.spawn(&place.deploy, "rolling back", vec![ticket], Work::Run(Box::new(plan)));
        Ok(())
    }

    fn app_verb(
        &mut self,
        verb: AppVerb,
        app: &AppName,
        place: &AppPlace,
        ticket: Ticket,
        look: &Look,
    ) -> Result<(), CtlError> {
        self.not_busy(&place.deploy)?;
        let plan =
            plan_app_verb(verb, std::slice::from_ref(app), &look.observed, &self.releases, &new_run(), now())
                .map_err(|note| CtlError::new(Code::Failed, note.text))?;
        let kind = if verb == AppVerb::Stop { EventKind::AppStopped } else { EventKind::AppStarted };
        self.emit(
            kind,
            About::app(place.deploy.as_str(), app.as_str()),
            &format!("an operator asked to {verb}"),
        );
        self.spawn(&place.deploy, verb.doing(), vec![ticket], Work::Run(Box::new(plan)));
        Ok(())
    }

    /// Takes the hold off apps; the next plan goes on to what the spec says.
    fn release(&mut self, apps: &[(AppName, AppPlace)], look: &Look) -> Result<(), CtlError> {
        let mut changes: BTreeMap<_, PropChange> = BTreeMap::new();
        for (app, place) in apps {
            self.not_busy(&place.deploy)?;
            let Some(PropEdit { path, native: _, user }) = zed_plan::release_edit(app, &look.observed) else {
                continue;
            };
            changes
                .entry(path.clone())
                .or_insert_with(|| PropChange { path, native: BTreeMap::new(), user: BTreeMap::new() })
                .user
                .extend(user);
        }
        let changes: Vec<PropChange> = changes.into_values().collect();
        self.parts.store.set(&changes).map_err(|e| crate::store_error(&e))?;
        for (app, place) in apps {
            let about = About::app(place.deploy.as_str(), app.as_str());
            self.emit(EventKind::Released, about, "the hold is taken off");
        }
        self.parts.shared.wake();
        Ok(())
    }

    fn retry(&mut self, deploy: &DeployName, ticket: Ticket) -> Result<(), CtlError> {
        if let Some(busy) = self.parts.shared.busy().get(deploy) {
            return Err(busy_error(deploy, &busy.what));
        }
        self.give_verdict(deploy, None);
        self.pauses.remove(deploy);
        self.stuck.remove(deploy);
        self.recover(Some(deploy));
        self.converge_and_wait(deploy, ticket);
        Ok(())
    }

    /// Repairs what differs, and answers when the deploy has come to rest.
    fn converge_and_wait(&mut self, deploy: &DeployName, ticket: Ticket) {
        let Some(state) = self.deploys.get_mut(deploy) else {
            self.parts.shared.end_ticket(ticket, &Err(no_deploy(deploy.as_str())));
            return;
        };
        state.heal = true;
        state.state = "accepted";
        self.parts.shared.unsettle(deploy.as_str());
        self.waiting_next.push((deploy.clone(), ticket));
        // What was changed a moment ago is seen by the next pass, not by this one's look.
        self.parts.shared.wake();
    }

    /// Applies a kept plan when the host is still as it was when the plan was made.
    fn apply(&mut self, plan: &Plan, ticket: Ticket, look: &Look) -> Result<(), CtlError> {
        let name = plan.deploy.clone();
        self.not_busy(&name)?;
        let stale = |why: &str| {
            CtlError::new(Code::Stale, format!("plan {} of `{name}` is old: {why}", plan.run))
                .hint(format!("make it again: cp the spec to /zed/plan/{name}.ron"))
        };
        let planned = self.plans.get(&name).ok_or_else(|| stale("its spec is no longer in plan/"))?;
        let declared = planned.declared.clone().ok_or_else(|| stale("its spec no longer parses"))?;
        if declared.generation != plan.generation || declared.sha256 != plan.spec_sha256 {
            return Err(stale("the spec was saved since"));
        }
        let text = planned.record.accepted.clone().unwrap_or_default();
        if self.plan_of(&declared, look, true, false).based_on != plan.based_on {
            return Err(stale("the host has moved since"));
        }
        if let Some(note) = plan.fatal().next() {
            return Err(CtlError::new(Code::Unsupported, format!("{}: {}", note.object, note.text)));
        }
        let path = self.parts.state.deploy_dir().join(format!("{name}.ron"));
        replace_file(&path, text.as_bytes())
            .map_err(|e| CtlError::new(Code::Failed, format!("failed to write `{}`: {e}", path.display())))?;
        self.read_specs().map_err(|e| CtlError::new(Code::Failed, crate::chain(&e)))?;
        if plan.is_empty() {
            self.converge_and_wait(&name, ticket);
            return Ok(());
        }
        self.emit(EventKind::DeployStarted, About::run(name.as_str(), &plan.run.0), "a kept plan is applied");
        self.set(&name, "converging", format!("run {}", plan.run));
        self.spawn(&name, super::DEPLOYING, vec![ticket], Work::Run(Box::new(plan.clone())));
        Ok(())
    }

    /// Starts apps of a failed deploy that should run and do not because the host has booted: the planner has no
    /// say there, so the release that is stamped is the one to run.
    pub(super) fn keep_running(&mut self, name: &DeployName, look: &Look) {
        if self.parts.shared.busy().contains_key(name) || self.paused(name).is_some() {
            return;
        }
        let missing = zed_plan::apps_to_start_after_boot(name, &look.observed, &self.releases);
        if missing.is_empty() {
            return;
        }
        match plan_app_verb(AppVerb::Start, &missing, &look.observed, &self.releases, &new_run(), now()) {
            Ok(plan) if plan.is_empty() => {}
            Ok(plan) => self.spawn(name, "starting", Vec::new(), Work::Run(Box::new(plan))),
            Err(note) => tracing::warn!(deploy = %name, text = note.text, "an app cannot be started again"),
        }
    }
}
