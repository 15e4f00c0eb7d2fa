//! Plans for what an operator asks of an app: start, stop, restart, release; and for starting apps after a boot.
//!
//! Works from the stamps and the kept releases alone: what runs is the release that is stamped, whatever a spec
//! says meanwhile.

use crate::guest::GuestId;
use crate::guest::GuestStatus;
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
use crate::shape::has_front;
use crate::shape::health_of;
use crate::shape::is_blue_green;
use crate::shape::numbers;
use crate::shape::port_of;
use crate::shape::route_now;
use crate::shape::route_of;
use crate::shape::stop_front;
use std::collections::BTreeMap;
use std::fmt;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::Restart;

/// What an operator asks of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppVerb {
    /// Run it.
    Start,
    /// Stop it, and keep it stopped.
    Stop,
    /// Stop it and run it, one process after the other.
    Restart,
    /// Run so many processes of it, until its spec deploys it anew.
    Scale(u32),
}

impl fmt::Display for AppVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppVerb::Start => f.write_str("start"),
            AppVerb::Stop => f.write_str("stop"),
            AppVerb::Restart => f.write_str("restart"),
            AppVerb::Scale(count) => write!(f, "scale {count}"),
        }
    }
}

impl AppVerb {
    /// What goes on meanwhile.
    pub fn doing(self) -> &'static str {
        match self {
            AppVerb::Start => "starting",
            AppVerb::Stop => "stopping",
            AppVerb::Restart => "restarting",
            AppVerb::Scale(_) => "scaling",
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
        let target = Target { app, found: &found, release, observed };
        let (steps, commit_at) = target.steps(verb)?;
        let (name, apps) = (app.to_string(), vec![app.clone()]);
        units.push(Unit { name, apps, after: Vec::new(), commit_at, steps });
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

/// An app that a verb is for, with what is known of it.
struct Target<'a> {
    app: &'a AppName,
    found: &'a Found<'a>,
    release: &'a Release,
    observed: &'a Observed,
}

impl Target<'_> {
    /// The steps, and the index of the first one after the point of no return.
    fn steps(&self, verb: AppVerb) -> Result<(Vec<PlannedStep>, usize), Note> {
        let (app, definition) = (self.app, &self.release.definition);
        let mut stamp = self.found.stamp().clone();
        stamp.state = if verb == AppVerb::Stop { RunState::Stopped } else { RunState::Running };
        if let AppVerb::Scale(count) = verb {
            if is_blue_green(definition) || definition.restart == Restart::Never || !has_process(definition) {
                let text = "only an app with processes that run on, and not blue-green, can have more or fewer of them";
                return Err(refuse(app, text));
            }
            stamp.scale = Some(count).filter(|count| *count != definition.instances);
        }
        let mut steps = self.restamp(&stamp, verb);
        if !has_process(definition) {
            let commit_at = steps.len();
            return Ok((steps, commit_at));
        }
        let after = numbers(definition, Some(&stamp));
        let alive = self.observed.alive(app);
        match verb {
            AppVerb::Stop => {
                steps.extend(self.stop_front());
                for number in alive.iter().rev() {
                    steps.push(self.stop(*number)?);
                }
                let commit_at = steps.len();
                return Ok((steps, commit_at));
            }
            AppVerb::Start | AppVerb::Scale(_) | AppVerb::Restart => {
                steps.extend(self.start_guest());
                for number in &after {
                    self.run(verb, *number, &alive, &mut steps)?;
                }
            }
        }
        if let Some(route) = route_of(app, definition, after.iter().copied()) {
            let undo = match route_now(self.release, self.found.stamp(), self.observed) {
                Some(route) => vec![Step::Route { route }],
                None if has_front(app, self.observed) => Vec::new(),
                None => vec![stop_front(app)],
            };
            steps.push(PlannedStep { step: Step::Route { route }, undo, why: String::new() });
        }
        let commit_at = steps.len();
        for number in alive.iter().filter(|number| !after.contains(number)) {
            self.let_go(*number, &mut steps);
        }
        Ok((steps, commit_at))
    }

    fn spec(&self, number: u32) -> Result<RunSpec, Note> {
        run_spec_of(self.release, number, self.observed).map_err(|missing| {
            let what: Vec<String> =
                missing.iter().map(|m| format!("{:?} for {}", m.from, m.wanted_for)).collect();
            refuse(self.app, &format!("values it needs are missing: {}", what.join(", ")))
        })
    }

    /// The guest that the app runs in, when zed made it and it does not run.
    fn start_guest(&self) -> Option<PlannedStep> {
        let id = GuestId::of(&self.release.definition.runtime)?;
        let seen = self.observed.guests.get(&id).filter(|seen| seen.status != GuestStatus::Running)?;
        let guest = seen.made.clone()?;
        let undo = vec![Step::StopGuest { guest: id }];
        Some(PlannedStep { step: Step::StartGuest { guest }, undo, why: "the app runs in it".into() })
    }

    fn stop(&self, number: u32) -> Result<PlannedStep, Note> {
        let run = self.spec(number)?;
        let step = Step::StopApp { instance: run.instance(), grace: run.stop_grace };
        let undo = vec![Step::StartApp { run: Box::new(run) }];
        Ok(PlannedStep { step, undo, why: "an operator asked for it".into() })
    }

    /// One process runs afterwards, as the release says.
    fn run(
        &self,
        verb: AppVerb,
        number: u32,
        alive: &[u32],
        steps: &mut Vec<PlannedStep>,
    ) -> Result<(), Note> {
        let run = self.spec(number)?;
        let health = health_of(&self.release.definition, number);
        let lives = alive.contains(&number);
        let process = self.observed.process(self.app, number);
        let same = process.is_some_and(|process| process.run_hash == run.run_hash);
        if lives && same && matches!(verb, AppVerb::Scale(_)) {
            return Ok(());
        }
        if lives && (verb == AppVerb::Restart || !same) {
            steps.push(self.stop(number)?);
        }
        let undo = vec![Step::StopApp { instance: run.instance(), grace: run.stop_grace }];
        let run = Box::new(run);
        steps.push(PlannedStep {
            step: Step::StartApp { run: run.clone() },
            undo,
            why: "it is to run".into(),
        });
        let why = "it has to be healthy".into();
        steps.push(PlannedStep { step: Step::Probe { health, run }, undo: Vec::new(), why });
        Ok(())
    }

    fn stop_front(&self) -> Option<PlannedStep> {
        has_front(self.app, self.observed).then(|| PlannedStep {
            step: stop_front(self.app),
            undo: route_now(self.release, self.found.stamp(), self.observed)
                .map(|route| Step::Route { route })
                .into_iter()
                .collect(),
            why: "nobody is to connect any more".into(),
        })
    }

    /// A process that is no longer wanted finishes its work and goes.
    fn let_go(&self, number: u32, steps: &mut Vec<PlannedStep>) {
        let (app, definition) = (self.app, &self.release.definition);
        let instance = Instance::new(app, number);
        let grace = definition.stop_grace;
        let mut push =
            |step| steps.push(PlannedStep { step, undo: Vec::new(), why: "fewer are wanted".into() });
        if let (Some(_), Some(port)) = (definition.listen, port_of(definition, number)) {
            push(Step::Drain { instance: instance.clone(), port, at_most: grace });
        }
        push(Step::StopApp { instance: instance.clone(), grace });
        push(Step::ForgetApp { instance });
    }

    /// What an operator wants is stamped.
    fn restamp(&self, stamp: &AppStamp, verb: AppVerb) -> Vec<PlannedStep> {
        let current = &self.observed.datasets[self.found.dataset].user;
        let mut stamps = self.found.stamps.clone();
        stamps[self.found.index] = stamp.clone();
        let edit = |user| Step::SetProps {
            changes: vec![PropEdit { path: self.found.dataset.clone(), native: BTreeMap::new(), user }],
        };
        let user = stamp_edits(current, &stamps);
        if user.is_empty() {
            return Vec::new();
        }
        let back = user.keys().map(|key| (key.clone(), current.get(key).cloned())).collect();
        let why = match verb {
            AppVerb::Scale(count) => format!("an operator wants {count} of {}", self.app),
            _ => format!("an operator wants {} {}", self.app, stamp.state.as_str()),
        };
        vec![PlannedStep { step: edit(user), undo: vec![edit(back)], why }]
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
        .filter(|stamp| {
            let Some(release) = releases.get(&stamp.spec).filter(|r| has_process(&r.definition)) else {
                return false;
            };
            numbers(&release.definition, Some(stamp)).into_iter().any(|number| {
                let process = observed.process(&stamp.app, number);
                process.is_none_or(|process| process.status == ProcessStatus::Gone { rebooted: true })
            })
        })
        .map(|stamp| stamp.app)
        .collect()
}
