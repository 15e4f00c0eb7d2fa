//! Upgrades during which an app goes on serving: two versions side by side, or some of its processes at a time.
//!
//! Data is not put back when such an upgrade fails, because the old version goes on using it; the snapshot that is
//! taken before is for an operator's rollback.

use super::Action;
use super::Deploy;
use super::Effective;
use super::Node;
use super::Way;
use super::build::Draft;
use crate::instance::Instance;
use crate::plan::Route;
use crate::plan::Step;
use crate::release::has_process;
use crate::release::run_spec_of;
use crate::shape::has_front;
use crate::shape::health_of;
use crate::shape::port_of;
use crate::shape::route_now;
use crate::shape::route_of;
use crate::shape::stop_front;
use std::collections::BTreeSet;
use std::time::Duration;

impl<'a> Deploy<'a> {
    /// Both versions run; the new one gets the traffic when it is healthy.
    pub(super) fn blue_green(&self, index: usize, effective: &Effective<'a>, draft: &mut Draft) {
        let node = &self.nodes[index];
        for number in &node.numbers {
            self.start_one(index, effective, *number, draft);
            self.probe_one(index, effective, *number, draft);
        }
    }

    /// Batch by batch: the old ones stop, the new ones start, are probed, and are watched.
    pub(super) fn batches(&self, index: usize, effective: &Effective<'a>, draft: &mut Draft) {
        let node = &self.nodes[index];
        let Way::Batches { size, first_watch, watch } = node.way else { return };
        let size = usize::try_from(size.max(1)).unwrap_or(usize::MAX);
        let old: BTreeSet<u32> = self.input.observed.alive(node.name).into_iter().collect();
        let serving = |started: &[u32]| {
            let mut serving: BTreeSet<u32> = old.clone();
            serving.extend(started);
            serving
        };
        // A front that is not there yet, or listens elsewhere, is told at the end.
        let fronted = self.route_before(node).is_some_and(|route| Some(route.listen) == effective.app.listen);
        let mut started: Vec<u32> = Vec::new();
        for (batch, chunk) in node.numbers.chunks(size).enumerate() {
            let before = serving(&started);
            let meanwhile: BTreeSet<u32> =
                before.iter().copied().filter(|number| !chunk.contains(number)).collect();
            // Where nothing else is left to serve, clients wait at the front until the new one is there.
            let shifts =
                fronted && !meanwhile.is_empty() && chunk.iter().any(|number| before.contains(number));
            if shifts {
                self.shift(node, effective, &meanwhile, &before, draft);
                chunk
                    .iter()
                    .filter(|number| old.contains(number))
                    .for_each(|number| self.drain(node, *number, draft));
            }
            for number in chunk {
                if old.contains(number) {
                    self.stop_one(index, *number, draft);
                }
                self.start_one(index, effective, *number, draft);
            }
            for number in chunk {
                self.probe_one(index, effective, *number, draft);
            }
            started.extend(chunk);
            if shifts {
                self.shift(node, effective, &serving(&started), &meanwhile, draft);
            }
            let last = started.len() == node.numbers.len();
            let lasts = if batch == 0 { first_watch } else { watch };
            // A canary that is the whole app is watched, too.
            if !last || (batch == 0 && matches!(effective.app.strategy, zed_spec::Strategy::Canary { .. })) {
                self.soak(index, effective, &started, lasts, draft);
            }
        }
    }

    /// A place where an operator may hold, cut short or abort the upgrade.
    pub(super) fn soak(
        &self,
        index: usize,
        effective: &Effective<'a>,
        numbers: &[u32],
        lasts: Duration,
        draft: &mut Draft,
    ) {
        let runs = numbers
            .iter()
            .map(|number| (self.run_of(index, effective, *number), health_of(effective.app, *number)))
            .collect();
        let why = "pause, promote or abort act here";
        draft.push_writer(Step::Soak { runs, lasts }, Vec::new(), why);
    }

    fn shift(
        &self,
        node: &Node<'a>,
        effective: &Effective<'a>,
        to: &BTreeSet<u32>,
        from: &BTreeSet<u32>,
        draft: &mut Draft,
    ) {
        let route = |numbers: &BTreeSet<u32>| route_of(node.name, effective.app, numbers.iter().copied());
        if let (Some(new), Some(old)) = (route(to), route(from)) {
            draft.push(Step::Route { route: new }, vec![Step::Route { route: old }], "");
        }
    }

    fn drain(&self, node: &Node<'a>, number: u32, draft: &mut Draft) {
        let before = node.located.and_then(|found| self.input.releases.get(&found.stamp.spec));
        let Some(before) = before.map(|release| &release.definition).filter(|app| app.listen.is_some())
        else {
            return;
        };
        let Some(port) = port_of(before, number) else { return };
        let at_most = match node.way {
            Way::BlueGreen { drain, .. } => drain,
            Way::Replace | Way::Batches { .. } => before.stop_grace,
        };
        let instance = Instance::new(node.name, number);
        draft.push(Step::Drain { instance, port, at_most }, Vec::new(), "what it has begun is finished");
    }

    fn stop_one(&self, index: usize, number: u32, draft: &mut Draft) {
        let node = &self.nodes[index];
        let (before, grace) = self.before(index, number);
        let mut undo: Vec<Step> =
            before.map(|run| Step::StartApp { run: Box::new(run) }).into_iter().collect();
        // What is taken back next stops the processes that serve meanwhile: this one has to be there by then.
        undo.extend(self.probe_before(index, number));
        draft.push(Step::StopApp { instance: Instance::new(node.name, number), grace }, undo, &node.why);
    }

    /// Where the front forwards to now; nothing when it does not run, or forwards to nobody that lives.
    pub(super) fn route_before(&self, node: &Node<'a>) -> Option<Route> {
        let found = node.located?;
        let release = self.input.releases.get(&found.stamp.spec)?;
        route_now(release, &found.stamp, self.input.observed)
    }

    /// The front forwards to what the app has now.
    pub(super) fn route(&self, index: usize, draft: &mut Draft) {
        let node = &self.nodes[index];
        let Some(effective) = node.effective.as_ref().filter(|e| has_process(e.app)) else { return };
        let Some(new) = route_of(node.name, effective.app, node.numbers.iter().copied()) else { return };
        let undo = match (node.action, node.way) {
            (Action::Start, _) => Vec::new(),
            _ if !has_front(node.name, self.input.observed) => vec![stop_front(node.name)],
            // The old processes do not run yet when this is taken back: their own undo sees to it.
            (Action::Deploy, Way::Replace) => Vec::new(),
            _ => self.route_before(node).map(|route| Step::Route { route }).into_iter().collect(),
        };
        draft.push(Step::Route { route: new }, undo, "");
    }

    /// After the commit: processes that the app no longer has finish their work and go, and so does a front that
    /// nobody wants.
    pub(super) fn retire(&self, order: &[usize], draft: &mut Draft) {
        for index in order {
            let node = &self.nodes[*index];
            if node.effective.is_none()
                || !matches!(node.action, Action::Deploy | Action::Record | Action::Start)
            {
                continue;
            }
            let replaced = node.action == Action::Deploy && node.way == Way::Replace;
            let stays = |number: &u32| node.numbers.contains(number);
            for number in self.input.observed.alive(node.name) {
                if !replaced && !stays(&number) {
                    self.let_go(*index, number, draft);
                }
            }
            let records = self.input.observed.processes_of(node.name);
            for (number, _) in records.filter(|(number, _)| *number > 0 && !stays(number)) {
                let instance = Instance::new(node.name, number);
                draft.push(Step::ForgetApp { instance }, Vec::new(), "it is no longer part of the app");
            }
            self.retire_front(node, draft);
        }
    }

    fn let_go(&self, index: usize, number: u32, draft: &mut Draft) {
        let node = &self.nodes[index];
        let (_, grace) = self.before(index, number);
        let fronted = node.effective.as_ref().is_some_and(|effective| effective.app.listen.is_some());
        match (node.way, &node.effective) {
            _ if fronted => self.drain(node, number, draft),
            // Whoever sends the traffic learns of the change by a hook or by the files; the old one stays a while.
            (Way::BlueGreen { drain, .. }, Some(effective)) => {
                self.soak(index, effective, &node.numbers, drain, draft);
            }
            _ => {}
        }
        let instance = Instance::new(node.name, number);
        draft.push(Step::StopApp { instance, grace }, Vec::new(), "it is no longer part of the app");
    }

    fn retire_front(&self, node: &Node<'a>, draft: &mut Draft) {
        let wanted = node
            .effective
            .as_ref()
            .is_some_and(|effective| route_of(node.name, effective.app, std::iter::empty()).is_some());
        let Some(_) = self.input.observed.process(node.name, 0).filter(|_| !wanted) else { return };
        let why = "the app has no address of its own any more";
        draft.push(stop_front(node.name), Vec::new(), why);
        draft.push(Step::ForgetApp { instance: Instance::front(node.name) }, Vec::new(), why);
    }

    /// Waits until what ran as this process before is healthy again.
    fn probe_before(&self, index: usize, number: u32) -> Option<Step> {
        let (run, _) = self.before(index, number);
        let release = self.input.releases.get(&self.nodes[index].located?.stamp.spec)?;
        Some(Step::Probe { health: health_of(&release.definition, number), run: Box::new(run?) })
    }

    /// What ran as this process before, and how long it may take to stop.
    pub(super) fn before(&self, index: usize, number: u32) -> (Option<crate::plan::RunSpec>, Duration) {
        let node = &self.nodes[index];
        if let (Action::Bounce, Some(effective)) = (node.action, &node.effective) {
            return (Some(self.run_of(index, effective, number)), effective.app.stop_grace);
        }
        let release = node.located.and_then(|found| self.input.releases.get(&found.stamp.spec));
        let grace = release
            .map(|release| release.definition.stop_grace)
            .or(node.app.map(|app| app.stop_grace))
            .unwrap_or(super::build::GRACE);
        (release.and_then(|release| run_spec_of(release, number, self.input.observed).ok()), grace)
    }
}

#[cfg(test)]
mod tests;
