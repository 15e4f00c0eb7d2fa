//! What has to happen to each app. Content decides: the hash of the whole resolved app against the stamp, and
//! what runs against what should run.

use super::Action;
use super::Deploy;
use super::Effective;
use super::Node;
use super::Way;
use super::drift::DRIFT;
use super::judge::Judged;
use super::select::note;
use crate::observed::ObservedProcess;
use crate::observed::ProcessStatus;
use crate::plan::Note;
use crate::plan::Release;
use crate::plan::Severity;
use crate::props::AppStamp;
use crate::props::RunState;
use crate::release::MissingValue;
use crate::release::has_process;
use crate::release::resolve;
use crate::shape::numbers;
use std::collections::BTreeSet;
use std::time::Duration;
use zed_spec::App;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::Restart;
use zed_spec::Strategy;
use zed_spec::ValueFrom;

/// What happens to one app.
struct Decision<'a> {
    action: Action,
    why: String,
    effective: Option<Effective<'a>>,
    judged: Judged,
}

impl<'a> Decision<'a> {
    /// It stays as it is.
    fn leave(effective: Option<Effective<'a>>) -> Self {
        Self { action: Action::Leave, why: String::new(), effective, judged: Judged::default() }
    }

    fn new(action: Action, why: String, effective: Effective<'a>) -> Self {
        Self { action, why, effective: Some(effective), judged: Judged::default() }
    }
}

impl<'a> Deploy<'a> {
    /// Decides on every app, and says why.
    pub(super) fn decide(&mut self) {
        let held = self.held_datasets();
        for index in 0..self.nodes.len() {
            let Decision { action, why, effective, judged } = self.decide_one(&self.nodes[index], &held);
            let node = &mut self.nodes[index];
            node.action = action;
            node.why = why;
            node.effective = effective;
            node.wrong = judged.wrong;
            node.reroute = judged.reroute;
        }
        self.wait_for_stopped();
        self.choose_ways();
        self.spread();
        self.count();
        self.place_folders();
        self.check_links();
        self.check_artifacts();
        for node in &mut self.nodes {
            self.notes.append(&mut node.notes.borrow_mut());
        }
    }

    /// Datasets that a rollback holds, with the app whose stamp says so.
    fn held_datasets(&self) -> Vec<(&'a DatasetPath, &'a AppName)> {
        let generation = self.input.declared.generation;
        self.world
            .apps_of(&self.spec.name)
            .filter(|(_, found)| found.stamp.held.is_some_and(|held| generation <= held))
            .map(|(app, found)| (found.dataset, app))
            .collect()
    }

    fn decide_one(&self, node: &Node<'a>, held: &[(&'a DatasetPath, &'a AppName)]) -> Decision<'a> {
        let stamp = node.located.map(|found| &found.stamp);
        if let Some(stamp) = stamp.filter(|stamp| stamp.deploy != self.spec.name) {
            let text = format!(
                "deploy {} has an app of this name on this host, and so has deploy {}: rename one of them",
                stamp.deploy, self.spec.name
            );
            node.say(Severity::Fatal, "clash", text);
            return Decision::leave(None);
        }
        let Some(app) = node.app else {
            let why = "the spec no longer has it".to_owned();
            return Decision { action: Action::Remove, why, ..Decision::leave(None) };
        };
        if let Some(stamp) = stamp.filter(|stamp| stamp.state == RunState::Stopped) {
            let waits =
                if stamp.generation < self.input.declared.generation { "; the spec waits, too" } else { "" };
            let text =
                format!("an operator stopped it{waits}: `echo start > apps/{}/ctl` starts it", node.name);
            node.say(Severity::Info, "stopped", text);
            return Decision::leave(None);
        }
        if let Some(path) = self.lost_data(app) {
            node.say(Severity::Warning, DRIFT, format!("its dataset {path} is gone: it is left alone"));
            return Decision::leave(None);
        }
        let home = node.located.map_or(&app.dataset, |found| found.dataset);
        if let Some((_, by)) = held.iter().find(|(dataset, _)| *dataset == home || *dataset == &app.dataset) {
            return self.decide_held(node, by);
        }
        let digest = self.digest(node, app);
        let resolved = resolve(node.name, &self.spec.name, app, digest.as_deref(), self.input.observed);
        for missing in &resolved.missing {
            node.say(Severity::Fatal, "env", missing_text(missing));
        }
        let (run_hash, spec_hash) = (resolved.run_hash, resolved.spec_hash);
        let effective = Effective { app, run_hash, spec_hash, digest, folder: None };
        if let Some(text) = self.tampered(node, stamp, &effective) {
            node.say(Severity::Warning, DRIFT, text);
            return Decision::leave(None);
        }
        match stamp {
            None => Decision::new(Action::Deploy, format!("new: version {}", app.version), effective),
            Some(stamp) => self.decide_stamped(node, app, stamp, effective),
        }
    }

    /// An app that a rollback holds stays as it is. It is started again when the host has booted.
    fn decide_held(&self, node: &Node<'a>, by: &AppName) -> Decision<'a> {
        let stamp = node.located.map(|found| &found.stamp);
        let holder = self.world.apps.get(by).map(|found| &found.stamp);
        let target = holder.map_or_else(String::new, |s| {
            let snapshot = s.rolled_back_to.as_deref().map_or_else(String::new, |to| format!(" (@{to})"));
            format!("the rollback of {by} to {}{snapshot}", s.version)
        });
        let text = format!(
            "held since {target}: `echo release > apps/{by}/ctl` or saving the spec again lets the spec move it"
        );
        node.say(Severity::Info, "held", text);
        let Some(stamp) = stamp else { return Decision::leave(None) };
        let Some(release) = self.input.releases.get(&stamp.spec) else {
            let text = format!(
                "the record of release {} (spec {}) is missing: it cannot be started again until the hold is released",
                stamp.version,
                short(&stamp.spec)
            );
            node.say(Severity::Warning, "release", text);
            return Decision::leave(None);
        };
        let effective = match self.stamped(node.name, stamp, release) {
            Ok(effective) => effective,
            Err(missing) => {
                node.say(Severity::Warning, "env", missing_text(&missing));
                return Decision::leave(None);
            }
        };
        self.decide_processes(node, effective)
    }

    /// The release that is stamped, as it would run now.
    fn stamped(
        &self,
        name: &AppName,
        stamp: &AppStamp,
        release: &'a Release,
    ) -> Result<Effective<'a>, MissingValue> {
        let digest = release.artifact.clone();
        let definition = &release.definition;
        let mut resolved = resolve(name, &release.deploy, definition, digest.as_deref(), self.input.observed);
        match resolved.missing.pop() {
            Some(missing) => Err(missing),
            None => Ok(Effective {
                app: definition,
                run_hash: resolved.run_hash,
                spec_hash: stamp.spec.clone(),
                digest,
                folder: None,
            }),
        }
    }

    fn decide_stamped(
        &self,
        node: &Node<'a>,
        app: &App,
        stamp: &AppStamp,
        effective: Effective<'a>,
    ) -> Decision<'a> {
        if node.located.is_some_and(|found| *found.dataset != app.dataset) {
            return Decision::new(Action::Deploy, format!("moves to {}", app.dataset), effective);
        }
        if stamp.spec == effective.spec_hash {
            if let Some(text) = self.lost_folder(stamp, app) {
                if self.input.heal {
                    return Decision::new(Action::Deploy, text, effective);
                }
                node.say(Severity::Warning, DRIFT, format!("{text}: {}", self.repairs()));
                return Decision::leave(Some(effective));
            }
            let why = if stamp.held.is_some() || stamp.rolled_back_to.is_some() {
                Some("the spec was saved after the rollback")
            } else {
                (stamp.version != app.version).then_some("somebody else changed its stamp")
            };
            let mut decided = self.decide_processes(node, effective);
            if let Some(why) = why.filter(|_| decided.action == Action::Leave) {
                decided.action = Action::Record;
                why.clone_into(&mut decided.why);
            }
            return decided;
        }
        if stamp.version != app.version {
            let why = format!("version {} -> {}", stamp.version, app.version);
            return Decision::new(Action::Deploy, why, effective);
        }
        if !self.same_run(node, app, stamp, &effective) {
            let why = "its command, environment or another part of its process changes".to_owned();
            return Decision::new(Action::Deploy, why, effective);
        }
        let mut wrong = BTreeSet::new();
        if has_process(app) {
            // More processes of the same kind are started beside those that run.
            let runs = |number: &u32| self.input.observed.process(node.name, *number).is_some_and(is_up);
            wrong.extend(numbers(app, Some(stamp)).into_iter().filter(|number| !runs(number)));
        }
        let judged = Judged { wrong, reroute: app.listen.is_some(), ..Judged::default() };
        let why = "only what is around its process changes".to_owned();
        Decision { action: Action::Record, why, effective: Some(effective), judged }
    }

    /// True when a changed app can go on running as it does.
    fn same_run(&self, node: &Node<'a>, app: &App, stamp: &AppStamp, effective: &Effective<'_>) -> bool {
        if has_process(app) {
            // Those that run and go on running: one at least, and each as it should be.
            let wanted = numbers(app, Some(stamp));
            let all = self.input.observed.processes_of(node.name);
            let mut kept =
                all.filter(|(number, _)| wanted.contains(number)).map(|(_, process)| process).peekable();
            return kept.peek().is_some()
                && kept.all(|process| process.run_hash == effective.run_hash && is_up(process));
        }
        let before = self.input.releases.get(&stamp.spec);
        before.is_some_and(|release| {
            let (definition, digest) = (&release.definition, release.artifact.as_deref());
            let before = resolve(node.name, &release.deploy, definition, digest, self.input.observed);
            before.run_hash == effective.run_hash && !self.world.is_alive(node.name)
        })
    }

    /// An unchanged app: only its processes can be wrong.
    fn decide_processes(&self, node: &Node<'a>, effective: Effective<'a>) -> Decision<'a> {
        let judged = self.judge(node, &effective);
        let action = if judged.is_right() { Action::Leave } else { Action::Start };
        Decision { action, why: judged.why.clone(), effective: Some(effective), judged }
    }

    /// An app does not start while one that it depends on is stopped by an operator.
    fn wait_for_stopped(&mut self) {
        let mut stopped: BTreeSet<&'a AppName> = self
            .nodes
            .iter()
            .filter(|node| node.located.is_some_and(|found| found.stamp.state == RunState::Stopped))
            .map(|node| node.name)
            .collect();
        if stopped.is_empty() {
            return;
        }
        loop {
            let mut changed = false;
            for index in 0..self.nodes.len() {
                let node = &self.nodes[index];
                let Some(app) = node.app.filter(|_| matches!(node.action, Action::Deploy | Action::Start))
                else {
                    continue;
                };
                let Some(dependency) = app.depends_on.iter().find(|name| stopped.contains(*name)) else {
                    continue;
                };
                let text = format!("it waits: it depends on app {dependency}, which is stopped");
                self.notes.push(note(Severity::Warning, "stopped", format!("app {}", node.name), text));
                // Until then it stays what it is.
                let release = node.located.and_then(|found| {
                    let release = self.input.releases.get(&found.stamp.spec)?;
                    self.stamped(node.name, &found.stamp, release).ok()
                });
                let node = &mut self.nodes[index];
                node.action = Action::Leave;
                node.effective = release;
                node.wrong.clear();
                node.reroute = false;
                stopped.insert(node.name);
                changed = true;
            }
            if !changed {
                return;
            }
        }
    }

    /// How each deploy goes about it: side by side only where an old version serves at the same place.
    fn choose_ways(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let (Action::Deploy, Some(app), Some(found)) = (node.action, node.app, node.located) else {
                continue;
            };
            let serves = self.world.is_alive(node.name);
            if *found.dataset != app.dataset || !serves || app.restart == Restart::Never || !has_process(app)
            {
                continue;
            }
            let way = match app.strategy {
                Strategy::Replace => Way::Replace,
                Strategy::BlueGreen { drain, .. } => {
                    Way::BlueGreen { new: if found.stamp.live == Some(2) { 1 } else { 2 }, drain }
                }
                Strategy::Rolling { batch, pause } => {
                    Way::Batches { size: batch, first_watch: pause, watch: pause }
                }
                Strategy::Canary { instances, pause } => {
                    Way::Batches { size: instances, first_watch: pause, watch: Duration::ZERO }
                }
            };
            self.nodes[index].way = way;
        }
    }

    /// The processes that each app has afterwards.
    fn count(&mut self) {
        for node in &mut self.nodes {
            let Some(effective) = node.effective.as_ref().filter(|e| has_process(e.app)) else { continue };
            let stamp = node.located.map(|found| &found.stamp);
            node.numbers = match (node.action, node.way) {
                (Action::Deploy, Way::BlueGreen { new, .. }) => vec![new],
                // What an operator wanted of the old release is not wanted of the new one.
                (Action::Deploy, _) => {
                    let stamp = stamp.map(|stamp| AppStamp { scale: None, ..stamp.clone() });
                    numbers(effective.app, stamp.as_ref())
                }
                _ => numbers(effective.app, stamp),
            };
        }
    }

    /// Whoever shares a dataset with an app that is deployed is stopped and started with it: what is written
    /// between snapshot and start would be lost in an undo, and a dataset in use cannot be put back.
    fn spread(&mut self) {
        let mut queue: Vec<usize> =
            (0..self.nodes.len()).filter(|i| self.nodes[*i].action == Action::Deploy).collect();
        while let Some(index) = queue.pop() {
            let Some(app) = self.nodes[index].app else { continue };
            let name = self.nodes[index].name;
            // Only a deploy that puts data back when it fails needs the data for itself.
            let deploys = self.nodes[index].action == Action::Deploy && self.nodes[index].way == Way::Replace;
            for path in app.data.iter().chain([&app.dataset]).filter(|_| deploys) {
                let users = self.wanted.get(path).map_or(&[][..], |dataset| &dataset.users[..]).to_vec();
                for other in users.into_iter().filter(|other| *other != index) {
                    let node = &mut self.nodes[other];
                    match node.action {
                        Action::Leave if self.world.is_alive(node.name) && node.effective.is_some() => {
                            node.action = Action::Bounce;
                            node.why = format!("shares {path} with {name}");
                        }
                        Action::Record => {
                            node.action = Action::Deploy;
                            queue.push(other);
                        }
                        Action::Deploy if node.way != Way::Replace => {
                            let text = format!(
                                "it is stopped for this deploy: it shares {path} with {name}, which is replaced"
                            );
                            node.say(Severity::Warning, "strategy", text);
                            node.way = Way::Replace;
                            queue.push(other);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

impl Node<'_> {
    /// A note on this app.
    pub(super) fn say(&self, severity: Severity, kind: &str, text: String) {
        let said: Note = note(severity, kind, format!("app {}", self.name), text);
        self.notes.borrow_mut().push(said);
    }
}

/// Runs, or has ended well.
fn is_up(process: &ObservedProcess) -> bool {
    matches!(process.status, ProcessStatus::Running { .. } | ProcessStatus::Completed)
}

/// What is missing and what to do.
pub(crate) fn missing_text(missing: &MissingValue) -> String {
    let MissingValue { wanted_for, from } = missing;
    match from {
        ValueFrom::Env(variable) => format!(
            "`{wanted_for}` comes from the variable {variable} of zedd's environment, which is unset or empty: set it \
             and restart zedd"
        ),
        ValueFrom::File(path) => {
            format!(
                "`{wanted_for}` comes from the file {path}, which cannot be read: create it, readable for zedd"
            )
        }
        ValueFrom::Secret(slot) => {
            format!("`{wanted_for}` comes from the secret slot {slot}, which is empty: fill it")
        }
    }
}

/// The first twelve characters of a hash, for people.
pub(crate) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
