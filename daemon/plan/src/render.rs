//! What a person sees of a plan, and the same for programs.
//!
//! Owns the text. `+` adds, `~` changes, `-` removes, and `!` destroys or replaces data.

use crate::deploy::SIZES;
use crate::observed::Observed;
use crate::plan::Note;
use crate::plan::Plan;
use crate::plan::PlannedStep;
use crate::plan::PropEdit;
use crate::plan::Purpose;
use crate::plan::Route;
use crate::plan::Severity;
use crate::plan::Step;
use crate::plan::Unit;
use crate::props::PREFIX;
use crate::props::name;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use zed_spec::AppName;
use zed_spec::Artifact;
use zed_spec::DatasetPath;
use zed_spec::Probe;

/// Widest line that is not broken.
const WIDTH: usize = 100;

/// Counts for the first line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Datasets created and apps started that did not run before.
    pub add: usize,
    /// Datasets and apps that change.
    pub change: usize,
    /// Apps removed, datasets released.
    pub remove: usize,
    /// Snapshots and branches destroyed, datasets whose data is replaced.
    pub destroy: usize,
}

/// Counts what a plan does, by object.
pub fn summarize(plan: &Plan, observed: &Observed) -> Summary {
    let mut summary = Summary::default();
    for unit in &plan.units {
        let created = created(unit);
        let started = started(unit);
        let removed: BTreeSet<&AppName> = stopped(unit).difference(&started).copied().collect();
        summary.add += created.len();
        summary.remove += removed.len();
        for app in &started {
            if observed.processes_of(app).next().is_some() { summary.change += 1 } else { summary.add += 1 }
        }
        let mut changed = BTreeSet::new();
        for (index, planned) in unit.steps.iter().enumerate() {
            match &planned.step {
                Step::SetProps { changes } if index < unit.commit_at => {
                    for change in changes {
                        match is_release(change) {
                            true => summary.remove += 1,
                            false => drop(changed.insert(&change.path)),
                        }
                    }
                }
                Step::SetProps { changes } => {
                    summary.remove += changes.iter().filter(|change| is_release(change)).count();
                }
                Step::DestroySnapshots { set } => summary.destroy += set.len(),
                Step::DestroyBranch { .. } | Step::Restore { .. } => summary.destroy += 1,
                _ => {}
            }
        }
        summary.change += changed.len();
    }
    summary
}

fn created(unit: &Unit) -> BTreeSet<&DatasetPath> {
    unit.steps
        .iter()
        .filter_map(|s| if let Step::CreateDataset { path, .. } = &s.step { Some(path) } else { None })
        .collect()
}

fn started(unit: &Unit) -> BTreeSet<&AppName> {
    unit.steps
        .iter()
        .filter_map(|s| match &s.step {
            Step::StartApp { run } => Some(&run.app),
            Step::RecordRelease { release } => Some(&release.app),
            _ => None,
        })
        .collect()
}

fn stopped(unit: &Unit) -> BTreeSet<&AppName> {
    unit.steps
        .iter()
        .filter_map(|s| match &s.step {
            Step::StopApp { instance, .. } | Step::ForgetApp { instance } => Some(&instance.app),
            _ => None,
        })
        .collect()
}

/// True when the deploy lets a dataset go.
fn is_release(change: &PropEdit) -> bool {
    change.user.get(name::DEPLOY) == Some(&None)
}

/// One line of the body: sign, object, what, why.
struct Line {
    sign: char,
    object: String,
    what: String,
    why: String,
}

/// A plan as text, each line ended by a newline. Lines stay below 100 columns where their words allow it.
pub fn render_plan(plan: &Plan, observed: &Observed) -> String {
    let mut out = String::new();
    let what = match &plan.purpose {
        Purpose::Deploy => format!("deploy {}, generation {}", plan.deploy, plan.generation),
        Purpose::Undeclare => format!("undeclare {}", plan.deploy),
        Purpose::Rollback { app, target } => format!("rollback of {app} to {target}"),
        Purpose::Control { app, verb } => format!("{verb} of {app}"),
    };
    if plan.is_empty() {
        let _ = writeln!(out, "{what}: nothing to do");
    } else {
        let Summary { add, change, remove, destroy } = summarize(plan, observed);
        let destroy = if destroy == 0 { String::new() } else { format!(", {destroy} to destroy or replace") };
        let _ = writeln!(out, "{what}: {add} to add, {change} to change, {remove} to remove{destroy}");
    }
    for unit in plan.units.iter().filter(|unit| !unit.steps.is_empty()) {
        let after =
            if unit.after.is_empty() { String::new() } else { format!(", after {}", unit.after.join(", ")) };
        let label = if unit.apps.is_empty() { String::new() } else { "app ".to_owned() };
        let _ = writeln!(out, "\n{label}{}{after}", unit.name);
        let started = started(unit);
        let lines: Vec<Line> = unit
            .steps
            .iter()
            .enumerate()
            .flat_map(|(index, planned)| step_lines(planned, index >= unit.commit_at, &started, observed))
            .collect();
        let width = lines.iter().map(|line| line.object.len()).filter(|len| *len <= 40).max().unwrap_or(0);
        for line in lines {
            put(&mut out, &line, width);
        }
    }
    if !plan.notes.is_empty() {
        out.push('\n');
        for note in &plan.notes {
            put_note(&mut out, note);
        }
    }
    out
}

/// Writes one line, broken where it would be too long.
fn put(out: &mut String, line: &Line, width: usize) {
    let Line { sign, object, what, why } = line;
    let mut text = format!("  {sign} {object:width$}  {what}");
    if !why.is_empty() {
        if text.len() + why.len() + 3 <= WIDTH {
            let _ = write!(text, "  ({why})");
        } else {
            let _ = write!(text, "\n      ({why})");
        }
    }
    for part in text.split('\n') {
        out.push_str(part.trim_end());
        out.push('\n');
    }
}

fn put_note(out: &mut String, note: &Note) {
    let severity = match note.severity {
        Severity::Info => "note",
        Severity::Warning => "warning",
        Severity::Fatal => "error",
    };
    let mut column = 0;
    let head = format!("{severity}[{}]: {}:", note.kind, note.object);
    for word in std::iter::once(head.as_str()).chain(note.text.split(' ')) {
        if column > 0 && column + 1 + word.len() > WIDTH {
            out.push_str("\n   ");
            column = 3;
        }
        if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}

/// Sizes as people write them.
fn readable(key: &str, value: &str) -> String {
    match value.parse::<u64>() {
        Ok(bytes) if SIZES.contains(&key) => zed_spec::render_size(bytes),
        _ => value.to_owned(),
    }
}

/// `key value, key value`.
fn pairs(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key} {}", readable(key, value))).collect::<Vec<_>>().join(", ")
}

fn seconds(time: std::time::Duration) -> String {
    zed_spec::render_duration(time)
}

fn step_lines(
    planned: &PlannedStep,
    committed: bool,
    started: &BTreeSet<&AppName>,
    observed: &Observed,
) -> Vec<Line> {
    let line =
        |sign: char, object: String, what: String| Line { sign, object, what, why: planned.why.clone() };
    match &planned.step {
        Step::CreateDataset { path, native, user: _ } => {
            let with = if native.is_empty() { String::new() } else { format!(" with {}", pairs(native)) };
            vec![line('+', format!("dataset {path}"), format!("create{with}"))]
        }
        Step::SetProps { changes } => {
            changes.iter().filter_map(|change| edit_line(change, committed, &planned.why, observed)).collect()
        }
        Step::Snapshot { name, set } => {
            set.keys().map(|path| line('+', format!("snapshot {path}"), format!("take @{name}"))).collect()
        }
        Step::Restore { dataset, from, snapshot, .. } => {
            vec![line('!', format!("dataset {dataset}"), format!("put back to {from}@{snapshot}"))]
        }
        Step::UndoRestore { dataset, branch, snapshot, .. } => {
            vec![line('!', format!("dataset {dataset}"), format!("put back to {branch}@{snapshot}"))]
        }
        Step::Retire { dataset, branch } => {
            vec![line('-', format!("dataset {dataset}"), format!("becomes {branch}"))]
        }
        Step::StopApp { instance, grace } => {
            let sign = if started.contains(&instance.app) { '~' } else { '-' };
            vec![line(sign, format!("app {instance}"), format!("stop, KILL after {}", seconds(*grace)))]
        }
        Step::StartApp { run } => {
            let sign = if observed.processes_of(&run.app).next().is_some() { '~' } else { '+' };
            vec![line(sign, format!("app {}", run.instance()), format!("start {}", run.version))]
        }
        Step::Probe { health, run } => {
            let probes: Vec<String> = health.probes.iter().map(probe).collect();
            let how = if probes.is_empty() { "its process runs".to_owned() } else { probes.join(", ") };
            let what = format!("wait until {how}, {} x {}", health.attempts, seconds(health.interval));
            vec![line(' ', format!("app {}", run.instance()), what)]
        }
        Step::Soak { runs, lasts } => {
            let who: Vec<String> = runs.iter().map(|(run, _)| run.instance().to_string()).collect();
            let app = runs.first().map_or_else(String::new, |(run, _)| run.app.to_string());
            let what = format!("watch {} for {}", who.join(", "), seconds(*lasts));
            vec![line(' ', format!("app {app}"), what)]
        }
        Step::Route { route } => {
            let Route { app, listen, backends, user: _ } = route;
            let to: Vec<String> = backends.iter().map(|(to, port)| format!("{to} (port {port})")).collect();
            let what = match to.is_empty() {
                true => format!("stop listening on {listen}"),
                false => format!("forward {listen} to {}", to.join(", ")),
            };
            vec![line('~', format!("app {app}"), what)]
        }
        Step::Drain { instance, port, at_most } => {
            let what = format!("wait for its connections on port {port}, at most {}", seconds(*at_most));
            vec![line(' ', format!("app {instance}"), what)]
        }
        Step::Unpack { unpack } => {
            let path = match &unpack.artifact {
                Artifact::Tar { path, .. } | Artifact::Dir { path } | Artifact::Oci { path, .. } => path,
            };
            let what = format!("unpack {path} into {}/{}", unpack.dataset, unpack.folder);
            vec![line('+', format!("app {}", unpack.app), what)]
        }
        Step::DiscardRelease { dataset, folder, run: _ } => {
            vec![line('-', format!("dataset {dataset}"), format!("discard {folder}"))]
        }
        Step::MountDataset { path } => vec![line('~', format!("dataset {path}"), "mount".to_owned())],
        Step::SwitchRelease { .. } | Step::PruneReleases { .. } => Vec::new(),
        Step::Hook { kind, command, run, timeout: _ } => {
            vec![line(' ', format!("app {}", run.app), format!("{kind}: {}", command.join(" ")))]
        }
        Step::ForgetApp { instance } => {
            vec![line('-', format!("app {instance}"), "forget its process".to_owned())]
        }
        Step::RecordRelease { .. } => Vec::new(),
        Step::MakeGuest { guest } => {
            let sign = if observed.guests.get(&guest.id()).is_some_and(|seen| seen.made.is_some()) {
                '~'
            } else {
                '+'
            };
            vec![line(sign, guest.id().title(), format!("make it, its root is {}", guest.dataset()))]
        }
        Step::StartGuest { guest } => vec![line('~', guest.id().title(), "start".to_owned())],
        Step::StopGuest { guest } => vec![line('~', guest.title(), "stop".to_owned())],
        Step::RemoveGuest { guest } => vec![line('-', guest.title(), "remove, and keep its data".to_owned())],
        Step::DestroySnapshots { set } => set
            .iter()
            .map(|(path, snapshot)| line('!', format!("snapshot {path}"), format!("destroy @{snapshot}")))
            .collect(),
        Step::DestroyBranch { branch } => vec![line('!', format!("branch {branch}"), "destroy".to_owned())],
    }
}

fn probe(probe: &Probe) -> String {
    match probe {
        Probe::Http { url, expect, body, ca: _, insecure } => {
            let expect = expect.map_or_else(|| "2xx".to_owned(), |status| status.to_string());
            let body = body.as_ref().map_or_else(String::new, |body| format!(" with {body:?}"));
            let unchecked = if *insecure { ", its certificate unchecked" } else { "" };
            format!("{url} answers {expect}{body}{unchecked}")
        }
        Probe::Tcp { address } => format!("{address} accepts"),
        Probe::Exec { command } => format!("`{}` exits 0", command.join(" ")),
        Probe::BeamPing => "its node answers".to_owned(),
    }
}

/// One dataset's changed properties, old and new. At commit only what a person asks for: version and state.
fn edit_line(change: &PropEdit, committed: bool, why: &str, observed: &Observed) -> Option<Line> {
    let before = observed.datasets.get(&change.path);
    let object = format!("dataset {}", change.path);
    if is_release(change) {
        let what = "released and kept".to_owned();
        return Some(Line { sign: '-', object, what, why: why.to_owned() });
    }
    let old = |key: &str, user: bool| {
        let map = before.map(|dataset| if user { &dataset.user } else { &dataset.native });
        map.and_then(|map| map.get(key))
    };
    let shown =
        |key: &str| !committed || key.ends_with("version") || key.ends_with("held") || key == name::APP;
    let native = change.native.iter().map(|(key, value)| (key.as_str(), value, false));
    let user =
        change.user.iter().filter(|(key, _)| shown(key)).map(|(key, value)| (key.as_str(), value, true));
    let parts: Vec<String> = native
        .chain(user)
        .map(|(key, value, is_user)| {
            let short = key.strip_prefix(PREFIX).unwrap_or(key);
            match (old(key, is_user), value) {
                (None, Some(new)) if is_user => format!("{short} {new}"),
                (None, Some(new)) => format!("{short} inherited -> {}", readable(key, new)),
                (Some(old), Some(new)) => format!("{short} {} -> {}", readable(key, old), readable(key, new)),
                (Some(old), None) => format!("{short} {} -> none", readable(key, old)),
                (None, None) => format!("{short} none"),
            }
        })
        .collect();
    let what = match (parts.is_empty(), committed) {
        (true, true) => "stamp".to_owned(),
        (true, false) => return None,
        (false, true) => format!("stamp {}", parts.join(", ")),
        (false, false) => parts.join(", "),
    };
    Some(Line { sign: '~', object, what, why: why.to_owned() })
}

/// A plan for programs: the plan itself, and the counts of the first line.
pub fn plan_json(plan: &Plan, observed: &Observed) -> Value {
    let Summary { add, change, remove, destroy } = summarize(plan, observed);
    json!({
        "empty": plan.is_empty(),
        "summary": { "add": add, "change": change, "remove": remove, "destroy": destroy },
        "plan": plan,
    })
}

#[cfg(test)]
mod tests;
