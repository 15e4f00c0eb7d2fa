//! What has to happen to each app. Content decides: the hash of the whole resolved app against the stamp, and
//! what runs against what should run.

use super::Action;
use super::Deploy;
use super::Effective;
use super::Node;
use super::select::note;
use crate::observed::ProcessStatus;
use crate::plan::Note;
use crate::plan::Release;
use crate::plan::Severity;
use crate::props::AppStamp;
use crate::props::RunState;
use crate::release::MissingValue;
use crate::release::has_process;
use crate::release::resolve;
use std::collections::BTreeSet;
use zed_spec::App;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::ValueFrom;

/// What the process runtime's word means for an app that should run.
enum Process {
    /// As it should be.
    Right,
    /// Not there, and nobody ended it.
    Absent(&'static str),
    /// Not as it should be.
    Drift(String),
}

impl<'a> Deploy<'a> {
    /// Decides on every app, and says why.
    pub(super) fn decide(&mut self) {
        let held = self.held_datasets();
        for index in 0..self.nodes.len() {
            let (action, why, effective) = self.decide_one(&self.nodes[index], &held);
            let node = &mut self.nodes[index];
            node.action = action;
            node.why = why;
            node.effective = effective;
        }
        for node in &mut self.nodes {
            self.notes.append(&mut node.notes.borrow_mut());
        }
        self.wait_for_stopped();
        self.spread();
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

    fn decide_one(
        &self,
        node: &Node<'a>,
        held: &[(&'a DatasetPath, &'a AppName)],
    ) -> (Action, String, Option<Effective<'a>>) {
        let stamp = node.located.map(|found| &found.stamp);
        if let Some(stamp) = stamp.filter(|stamp| stamp.deploy != self.spec.name) {
            let text = format!(
                "deploy {} has an app of this name on this host, and so has deploy {}: rename one of them",
                stamp.deploy, self.spec.name
            );
            node.say(Severity::Fatal, "clash", text);
            return (Action::Leave, String::new(), None);
        }
        let Some(app) = node.app else {
            return (Action::Remove, "the spec no longer has it".to_owned(), None);
        };
        if let Some(stamp) = stamp.filter(|stamp| stamp.state == RunState::Stopped) {
            let waits =
                if stamp.generation < self.input.declared.generation { "; the spec waits, too" } else { "" };
            let text =
                format!("an operator stopped it{waits}: `echo start > apps/{}/ctl` starts it", node.name);
            node.say(Severity::Info, "stopped", text);
            return (Action::Leave, String::new(), None);
        }
        let home = node.located.map_or(&app.dataset, |found| found.dataset);
        if let Some((_, by)) = held.iter().find(|(dataset, _)| *dataset == home || *dataset == &app.dataset) {
            return self.decide_held(node, by);
        }
        let resolved = resolve(node.name, &self.spec.name, app, self.input.observed);
        for missing in &resolved.missing {
            node.say(Severity::Fatal, "env", missing_text(missing));
        }
        let effective = Effective { app, run_hash: resolved.run_hash, spec_hash: resolved.spec_hash };
        let (action, why) = match stamp {
            None => (Action::Deploy, format!("new: version {}", app.version)),
            Some(stamp) => self.decide_stamped(node, app, stamp, &effective),
        };
        (action, why, Some(effective))
    }

    /// An app that a rollback holds stays as it is. It is started again when the host has booted.
    fn decide_held(&self, node: &Node<'a>, by: &AppName) -> (Action, String, Option<Effective<'a>>) {
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
        let Some(stamp) = stamp else { return (Action::Leave, String::new(), None) };
        let Some(release) = self.input.releases.get(&stamp.spec) else {
            let text = format!(
                "the record of release {} (spec {}) is missing: it cannot be started again until the hold is released",
                stamp.version,
                short(&stamp.spec)
            );
            node.say(Severity::Warning, "release", text);
            return (Action::Leave, String::new(), None);
        };
        let effective = match self.stamped(node.name, stamp, release) {
            Ok(effective) => effective,
            Err(missing) => {
                node.say(Severity::Warning, "env", missing_text(&missing));
                return (Action::Leave, String::new(), None);
            }
        };
        let (action, why) = self.decide_process(node, &effective);
        (action, why, Some(effective))
    }

    /// The release that is stamped, as it would run now.
    fn stamped(
        &self,
        name: &AppName,
        stamp: &AppStamp,
        release: &'a Release,
    ) -> Result<Effective<'a>, MissingValue> {
        let mut resolved = resolve(name, &release.deploy, &release.definition, self.input.observed);
        match resolved.missing.pop() {
            Some(missing) => Err(missing),
            None => Ok(Effective {
                app: &release.definition,
                run_hash: resolved.run_hash,
                spec_hash: stamp.spec.clone(),
            }),
        }
    }

    fn decide_stamped(
        &self,
        node: &Node<'a>,
        app: &App,
        stamp: &AppStamp,
        effective: &Effective<'_>,
    ) -> (Action, String) {
        if node.located.is_some_and(|found| *found.dataset != app.dataset) {
            return (Action::Deploy, format!("moves to {}", app.dataset));
        }
        if stamp.spec == effective.spec_hash {
            if stamp.held.is_some() || stamp.rolled_back_to.is_some() {
                return match self.decide_process(node, effective) {
                    (Action::Leave, _) => {
                        (Action::Record, "the spec was saved after the rollback".to_owned())
                    }
                    decided => decided,
                };
            }
            return self.decide_process(node, effective);
        }
        if stamp.version != app.version {
            return (Action::Deploy, format!("version {} -> {}", stamp.version, app.version));
        }
        if self.same_run(node, app, stamp, effective) {
            (Action::Record, "only what is around its process changes".to_owned())
        } else {
            (Action::Deploy, "its command, environment or another part of its process changes".to_owned())
        }
    }

    /// True when a changed app can go on running as it does.
    fn same_run(&self, node: &Node<'a>, app: &App, stamp: &AppStamp, effective: &Effective<'_>) -> bool {
        if has_process(app) {
            let process = self.input.observed.process(node.name, 1);
            return process.is_some_and(|process| {
                process.run_hash == effective.run_hash
                    && matches!(process.status, ProcessStatus::Running { .. } | ProcessStatus::Completed)
            });
        }
        let before = self.input.releases.get(&stamp.spec);
        before.is_some_and(|release| {
            let before = resolve(node.name, &release.deploy, &release.definition, self.input.observed);
            before.run_hash == effective.run_hash && !self.world.is_alive(node.name)
        })
    }

    /// An unchanged app: only its process can be wrong.
    fn decide_process(&self, node: &Node<'a>, effective: &Effective<'_>) -> (Action, String) {
        if !has_process(effective.app) {
            return (Action::Leave, String::new());
        }
        match self.process(node, effective) {
            Process::Right => (Action::Leave, String::new()),
            Process::Absent(why) => (Action::Start, why.to_owned()),
            Process::Drift(text) if self.input.heal => (Action::Start, text),
            Process::Drift(text) => {
                let text =
                    format!("{text}: `echo restart > apps/{}/ctl` or `drift: Heal` repairs it", node.name);
                node.say(Severity::Warning, "drift", text);
                (Action::Leave, String::new())
            }
        }
    }

    fn process(&self, node: &Node<'a>, effective: &Effective<'_>) -> Process {
        let Some(process) = self.input.observed.process(node.name, 1) else {
            return Process::Absent("it was never started on this host");
        };
        let same = process.run_hash == effective.run_hash;
        match &process.status {
            ProcessStatus::Gone { rebooted: true } => Process::Absent("the host has booted since it ran"),
            ProcessStatus::Gone { rebooted: false } => {
                Process::Drift("its process and its supervisor are gone".into())
            }
            ProcessStatus::Failed(how) => {
                Process::Drift(format!("it has ended ({how}) and is not restarted"))
            }
            ProcessStatus::Stopped => Process::Drift("it was stopped, and not by an operator of zed".into()),
            ProcessStatus::Backoff { restarts } if same => {
                let text =
                    format!("it keeps ending: {restarts} restarts in a row; see apps/{}/log", node.name);
                node.say(Severity::Warning, "drift", text);
                Process::Right
            }
            ProcessStatus::Running { .. } | ProcessStatus::Completed if same => Process::Right,
            ProcessStatus::Running { .. } | ProcessStatus::Completed | ProcessStatus::Backoff { .. } => {
                Process::Drift("it runs as another release than the one that is stamped".into())
            }
        }
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
                stopped.insert(node.name);
                changed = true;
            }
            if !changed {
                return;
            }
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
            let deploys = self.nodes[index].action == Action::Deploy;
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
                        _ => {}
                    }
                }
            }
        }
    }
}

impl Node<'_> {
    /// A note on this app.
    fn say(&self, severity: Severity, kind: &str, text: String) {
        let said: Note = note(severity, kind, format!("app {}", self.name), text);
        self.notes.borrow_mut().push(said);
    }
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
