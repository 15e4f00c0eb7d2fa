//! What a deploy looked like when zed left it, and what is said when somebody else has changed it since.
//!
//! Owns the memory of it in the deploy's record, and the events `drift` and `healed`. Plans nothing.

use super::Engine;
use super::deploys::DeployState;
use crate::events::About;
use crate::observe::Look;
use zed_ctl::EventKind;
use zed_plan::DRIFT;
use zed_plan::LOST;
use zed_plan::Plan;
use zed_plan::Severity;
use zed_spec::DeployName;

impl DeployState {
    /// True when this generation has come to rest before, or has a verdict: what differs now is somebody else's
    /// doing. Until then the spec is being applied.
    pub(super) fn is_settled(&self) -> bool {
        self.record.settled == self.record.generation || self.verdict().is_some()
    }
}

/// Notes of some kinds, one line each.
pub(super) fn said(plan: &Plan, kinds: &[&str]) -> String {
    let of: Vec<String> = plan
        .notes
        .iter()
        .filter(|note| kinds.contains(&note.kind.as_str()) && note.severity >= Severity::Info)
        .map(|note| format!("{}: {}", note.object, note.text))
        .collect();
    of.join("\n")
}

/// What somebody else changed, data that is gone first.
pub(super) fn drift_of(plan: &Plan) -> String {
    let parts = [said(plan, &[LOST]), said(plan, &[DRIFT])];
    parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("\n")
}

impl Engine {
    /// Takes the deploy's datasets into its memory when a run may just have changed them. One that is declared and
    /// was remembered before stays in it, there or not: a run that had to do with something else begins nothing anew.
    pub(super) fn remember_datasets(&mut self, name: &DeployName, look: &Look) {
        let Some(deploy) = self.deploys.get_mut(name) else { return };
        if !deploy.refresh && deploy.record.datasets.is_some() {
            return;
        }
        let Some(spec) = deploy.spec() else { return };
        let mut datasets = zed_plan::datasets_of_deploy(spec, &look.observed);
        let before = deploy.record.datasets.iter().flatten();
        datasets.extend(before.filter(|path| spec.datasets.contains_key(*path)).cloned());
        deploy.record.datasets = Some(datasets);
        deploy.refresh = false;
    }

    /// Notes durably that this generation is at rest, once for each run.
    pub(super) fn settle_record(&mut self, name: &DeployName) {
        let Some(deploy) = self.deploys.get_mut(name) else { return };
        if deploy.record.settled == deploy.record.generation {
            return;
        }
        deploy.record.settled = deploy.record.generation;
        let record = deploy.record.clone();
        if let Err(error) = self.parts.state.write_record(name, &record) {
            tracing::error!(error = %crate::chain(&error), deploy = %name, "that a deploy is at rest could not be kept");
        }
    }

    /// Tells drift when it is new, or another one than before.
    pub(super) fn tell_drift(&mut self, name: &DeployName, text: &str) {
        let Some(deploy) = self.deploys.get_mut(name) else { return };
        if deploy.drift == text {
            return;
        }
        if deploy.drift.is_empty() {
            self.parts.metrics.drift();
        }
        text.clone_into(&mut deploy.drift);
        self.emit(EventKind::Drift, About::deploy(name.as_str()), text);
    }

    /// Tells that the drift that was told is no more.
    pub(super) fn tell_healed(&mut self, name: &DeployName) {
        let Some(deploy) = self.deploys.get_mut(name) else { return };
        let was = std::mem::take(&mut deploy.drift);
        if !was.is_empty() {
            let text = format!("the host matches the spec again; it was: {was}");
            self.emit(EventKind::Healed, About::deploy(name.as_str()), &text);
        }
    }
}
