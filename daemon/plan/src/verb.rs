//! Plans for what an operator asks of an app: start, stop, restart, release; and for starting apps after a boot.
//!
//! Works from the stamps and the kept releases alone: what runs is the release that is stamped, whatever a spec
//! says meanwhile.

use crate::instance::Instance;
use crate::naming::is_own;
use crate::observed::Observed;
use crate::observed::ProcessStatus;
use crate::plan::Note;
use crate::plan::PLAN_FORMAT;
use crate::plan::Plan;
use crate::plan::PlannedStep;
use crate::plan::PropEdit;
use crate::plan::Purpose;
use crate::plan::Release;
use crate::plan::RunId;
use crate::plan::RunSpec;
use crate::plan::Severity;
use crate::plan::Step;
use crate::plan::Unit;
use crate::props::AppStamp;
use crate::props::RunState;
use crate::props::name;
use crate::props::parse_stamps;
use crate::props::stamp_edits;
use crate::release::has_process;
use crate::release::run_spec_of;
use std::collections::BTreeMap;
use std::fmt;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::Health;

/// What an operator asks of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppVerb {
    /// Run it.
    Start,
    /// Stop it, and keep it stopped.
    Stop,
    /// Stop it and run it.
    Restart,
}

impl fmt::Display for AppVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AppVerb::Start => "start",
            AppVerb::Stop => "stop",
            AppVerb::Restart => "restart",
        })
    }
}

impl AppVerb {
    /// What goes on meanwhile.
    pub fn doing(self) -> &'static str {
        match self {
            AppVerb::Start => "starting",
            AppVerb::Stop => "stopping",
            AppVerb::Restart => "restarting",
        }
    }
}

/// One app as it is stamped.
struct Found<'a> {
    dataset: &'a DatasetPath,
    stamps: Vec<AppStamp>,
    index: usize,
}

impl Found<'_> {
    fn stamp(&self) -> &AppStamp {
        &self.stamps[self.index]
    }
}

/// Every dataset that carries stamps, in one pass over the observation. Branches and zed's own are left out.
pub fn stamped(observed: &Observed) -> impl Iterator<Item = (&DatasetPath, Vec<AppStamp>)> {
    observed
        .datasets
        .iter()
        .filter(|(path, found)| {
            !is_own(path.as_str()) && found.user.keys().any(|key| key.starts_with(name::APP))
        })
        .map(|(path, found)| (path, parse_stamps(path, &found.user).apps))
}

fn find<'a>(app: &AppName, observed: &'a Observed) -> Option<Found<'a>> {
    stamped(observed).find_map(|(dataset, stamps)| {
        let index = stamps.iter().position(|stamp| stamp.app == *app)?;
        Some(Found { dataset, stamps, index })
    })
}

/// Plans a verb for these apps, which belong to one deploy.
///
/// # Errors
/// A note that says what is missing: the app, its release record, or a value that it needs.
pub fn plan_app_verb(
    verb: AppVerb,
    apps: &[AppName],
    observed: &Observed,
    releases: &BTreeMap<String, Release>,
    run: &RunId,
    now: i64,
) -> Result<Plan, Note> {
    let mut units = Vec::new();
    let mut deploy = None;
    for app in apps {
        let found = find(app, observed).ok_or_else(|| refuse(app, "it is not deployed on this host"))?;
        let release = releases.get(&found.stamp().spec).ok_or_else(|| {
            refuse(app, "the record of its release is missing in the state directory; save its spec again")
        })?;
        deploy.get_or_insert_with(|| (found.stamp().deploy.clone(), found.stamp().generation));
        let steps = steps(verb, app, &found, release, observed)?;
        units.push(Unit {
            name: app.to_string(),
            apps: vec![app.clone()],
            after: Vec::new(),
            commit_at: steps.len(),
            steps,
        });
    }
    let (Some(app), Some((deploy, generation))) = (apps.first(), deploy) else {
        return Err(Note {
            severity: Severity::Fatal,
            kind: "verb".into(),
            object: "apps".into(),
            text: "no app was named".into(),
        });
    };
    Ok(Plan {
        format: PLAN_FORMAT,
        run: run.clone(),
        purpose: Purpose::Control { app: app.clone(), verb: verb.to_string() },
        deploy,
        generation,
        spec_sha256: String::new(),
        made_at: now,
        based_on: String::new(),
        units,
        notes: Vec::new(),
    })
}

fn refuse(app: &AppName, text: &str) -> Note {
    Note {
        severity: Severity::Fatal,
        kind: "verb".into(),
        object: format!("app {app}"),
        text: format!("app `{app}`: {text}"),
    }
}

fn steps(
    verb: AppVerb,
    app: &AppName,
    found: &Found<'_>,
    release: &Release,
    observed: &Observed,
) -> Result<Vec<PlannedStep>, Note> {
    let mut steps = Vec::new();
    let wanted = if verb == AppVerb::Stop { RunState::Stopped } else { RunState::Running };
    if found.stamp().state != wanted {
        steps.push(set_state(app, found, wanted, observed));
    }
    if !has_process(&release.definition) {
        return Ok(steps);
    }
    let spec = run_spec_of(release, observed).map_err(|missing| {
        let what: Vec<String> =
            missing.iter().map(|m| format!("{:?} for {}", m.from, m.wanted_for)).collect();
        refuse(app, &format!("values it needs are missing: {}", what.join(", ")))
    })?;
    let start = Step::StartApp { run: Box::new(spec.clone()) };
    let stop = Step::StopApp { instance: Instance::first(app), grace: spec.stop_grace };
    let process = observed.process(app, 1);
    let alive = process
        .is_some_and(|p| matches!(p.status, ProcessStatus::Running { .. } | ProcessStatus::Backoff { .. }));
    let same = process.is_some_and(|p| p.run_hash == spec.run_hash);
    if verb == AppVerb::Stop || (alive && (verb == AppVerb::Restart || !same)) {
        let undo = if alive { vec![start.clone()] } else { Vec::new() };
        steps.push(PlannedStep { step: stop.clone(), undo, why: "an operator asked for it".into() });
    }
    if verb != AppVerb::Stop {
        steps.push(PlannedStep { step: start, undo: vec![stop], why: "it is to run".into() });
        steps.push(probe(&release.definition.health, spec));
    }
    Ok(steps)
}

fn probe(health: &Health, run: RunSpec) -> PlannedStep {
    PlannedStep {
        step: Step::Probe { health: health.clone(), run: Box::new(run) },
        undo: Vec::new(),
        why: "it has to be healthy".into(),
    }
}

fn set_state(app: &AppName, found: &Found<'_>, state: RunState, observed: &Observed) -> PlannedStep {
    let current = &observed.datasets[found.dataset].user;
    let mut stamps = found.stamps.clone();
    stamps[found.index].state = state;
    let edit = |user| Step::SetProps {
        changes: vec![PropEdit { path: found.dataset.clone(), native: BTreeMap::new(), user }],
    };
    let user = stamp_edits(current, &stamps);
    let back = user.keys().map(|key| (key.clone(), current.get(key).cloned())).collect();
    PlannedStep {
        step: edit(user),
        undo: vec![edit(back)],
        why: format!("an operator wants {app} {}", state.as_str()),
    }
}

/// What takes the hold of a rollback off an app; `None` when it is not held.
pub fn release_edit(app: &AppName, observed: &Observed) -> Option<PropEdit> {
    let found = find(app, observed)?;
    found.stamp().held?;
    let mut stamps = found.stamps.clone();
    stamps[found.index].held = None;
    let user = stamp_edits(&observed.datasets[found.dataset].user, &stamps);
    Some(PropEdit { path: found.dataset.clone(), native: BTreeMap::new(), user })
}

/// Apps of a deploy that should run by their stamps, and of which there is no process because the host has booted
/// since or because the process record is gone.
pub fn apps_to_start_after_boot(
    deploy: &DeployName,
    observed: &Observed,
    releases: &BTreeMap<String, Release>,
) -> Vec<AppName> {
    stamped(observed)
        .flat_map(|(_, stamps)| stamps)
        .filter(|stamp| stamp.deploy == *deploy && stamp.state == RunState::Running)
        .filter(|stamp| match observed.process(&stamp.app, 1) {
            None => releases.get(&stamp.spec).is_some_and(|release| has_process(&release.definition)),
            Some(process) => process.status == ProcessStatus::Gone { rebooted: true },
        })
        .map(|stamp| stamp.app)
        .collect()
}
