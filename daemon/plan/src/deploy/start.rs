//! Starting: the processes of an app, their probes, and the hooks that come after.

use super::Action;
use super::Deploy;
use super::Effective;
use super::Way;
use super::build::Draft;
use crate::plan::RunSpec;
use crate::plan::Step;
use crate::release::Origin;
use crate::release::has_process;
use crate::release::run_spec;
use crate::shape::health_of;
use crate::shape::hook;
use std::time::Duration;
use zed_spec::Health;

impl<'a> Deploy<'a> {
    /// One process of the app as it should run.
    pub(super) fn run_of(&self, index: usize, effective: &Effective<'_>, number: u32) -> RunSpec {
        run_spec(self.origin(index, effective), number)
    }

    pub(super) fn origin<'o>(&'o self, index: usize, effective: &'o Effective<'_>) -> Origin<'o> {
        Origin {
            name: self.nodes[index].name,
            deploy: &self.spec.name,
            host: &self.host,
            app: effective.app,
            run_hash: &effective.run_hash,
            folder: effective.folder.as_deref(),
        }
    }

    /// Start, probe, the hooks that come after, and the traffic.
    pub(super) fn start(&self, index: usize, order: &[usize], draft: &mut Draft) {
        let node = &self.nodes[index];
        let Some(effective) = &node.effective else { return };
        match (node.action, node.way) {
            (Action::Deploy, Way::BlueGreen { .. }) => {
                self.probe_dependencies(index, order, draft);
                self.blue_green(index, effective, draft);
            }
            (Action::Deploy, Way::Batches { .. }) => {
                self.probe_dependencies(index, order, draft);
                self.batches(index, effective, draft);
            }
            (Action::Deploy | Action::Bounce, Way::Replace) => {
                self.start_all(index, order, &node.numbers, effective, draft);
            }
            (Action::Start | Action::Record, _) => {
                let wrong: Vec<u32> =
                    node.numbers.iter().copied().filter(|number| node.wrong.contains(number)).collect();
                self.start_all(index, order, &wrong, effective, draft);
            }
            _ => return,
        }
        draft.probed.insert(index);
        if node.action == Action::Deploy {
            self.hooks_after(index, effective, draft);
        }
        if node.action == Action::Deploy || node.reroute || !node.wrong.is_empty() {
            if matches!(node.way, Way::BlueGreen { .. }) {
                self.soak(index, effective, &node.numbers, Duration::ZERO, draft);
            }
            self.route(index, draft);
        }
    }

    fn start_all(
        &self,
        index: usize,
        order: &[usize],
        numbers: &[u32],
        effective: &Effective<'a>,
        draft: &mut Draft,
    ) {
        if has_process(effective.app) && !numbers.is_empty() {
            self.probe_dependencies(index, order, draft);
            for number in numbers {
                self.start_one(index, effective, *number, draft);
            }
        }
        self.probe(index, effective, "", draft);
    }

    pub(super) fn start_one(&self, index: usize, effective: &Effective<'a>, number: u32, draft: &mut Draft) {
        let node = &self.nodes[index];
        let run = Box::new(self.run_of(index, effective, number));
        let grace = effective.app.stop_grace;
        let undo = vec![Step::StopApp { instance: run.instance(), grace }];
        draft.push_writer(Step::StartApp { run }, undo, &node.why);
    }

    fn hooks_after(&self, index: usize, effective: &Effective<'a>, draft: &mut Draft) {
        for command in &effective.app.hooks.after_deploy {
            let run = self.run_of(index, effective, self.first(index));
            let step = hook("after_deploy", command, run, &effective.app.hooks);
            draft.push_writer(step, Vec::new(), "the app is healthy; a failure rolls back");
        }
    }

    /// The process that stands for the app in hooks.
    pub(super) fn first(&self, index: usize) -> u32 {
        self.nodes[index].numbers.first().copied().unwrap_or(1)
    }

    /// What an app depends on is healthy when it starts, also where that one was not touched.
    fn probe_dependencies(&self, index: usize, order: &[usize], draft: &mut Draft) {
        for dependency in self.depends_on(index) {
            let Some(other) = order.iter().find(|other| self.nodes[**other].name == dependency) else {
                continue;
            };
            if let (false, Some(effective)) = (draft.probed.contains(other), &self.nodes[*other].effective) {
                let why = format!("{} depends on it", self.nodes[index].name);
                self.probe(*other, effective, &why, draft);
            }
        }
    }

    /// Waits until an app is healthy. One without a process and without probes has nothing to wait for.
    fn probe(&self, index: usize, effective: &Effective<'a>, why: &str, draft: &mut Draft) {
        if !draft.probed.insert(index)
            || !has_process(effective.app) && effective.app.health.probes.is_empty()
        {
            return;
        }
        let node = &self.nodes[index];
        let numbers = if node.numbers.is_empty() { &[1][..] } else { &node.numbers[..] };
        for number in numbers {
            let (run, health) = self.probe_of(index, effective, *number);
            draft.push_writer(Step::Probe { health, run }, Vec::new(), why);
        }
    }

    pub(super) fn probe_one(&self, index: usize, effective: &Effective<'a>, number: u32, draft: &mut Draft) {
        let (run, health) = self.probe_of(index, effective, number);
        draft.push_writer(Step::Probe { health, run }, Vec::new(), "");
    }

    fn probe_of(&self, index: usize, effective: &Effective<'a>, number: u32) -> (Box<RunSpec>, Health) {
        (Box::new(self.run_of(index, effective, number)), health_of(effective.app, number))
    }
}
