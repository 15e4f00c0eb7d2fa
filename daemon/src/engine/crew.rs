//! The processes of one app as they are shown: which there should be, what each does, and the worst of it.
//!
//! Reads one look and decides nothing.

use crate::observe::Look;
use zed_ctl::InstanceView;
use zed_host::Host;
use zed_host::ProcessInfo;
use zed_plan::Instance;
use zed_plan::ProcessStatus;
use zed_plan::Release;
use zed_plan::props::AppStamp;
use zed_plan::props::RunState;

/// What an app runs as.
pub(super) struct Crew<'a> {
    host: &'a dyn Host,
    look: &'a Look,
    stamp: &'a AppStamp,
    release: Option<&'a Release>,
    /// The processes that it should have.
    numbers: Vec<u32>,
}

impl<'a> Crew<'a> {
    pub(super) fn of(
        host: &'a dyn Host,
        look: &'a Look,
        stamp: &'a AppStamp,
        release: Option<&'a Release>,
    ) -> Self {
        let numbers =
            release.map_or_else(|| vec![1], |release| zed_plan::numbers(&release.definition, Some(stamp)));
        Self { host, look, stamp, release, numbers }
    }

    /// The process that the app's log and process id are of.
    pub(super) fn first(&self) -> Instance {
        Instance::new(&self.stamp.app, self.numbers.first().copied().unwrap_or(1))
    }

    /// What is known of that process.
    pub(super) fn spokesman(&self) -> Option<&'a ProcessInfo> {
        self.look.processes.get(&self.first())
    }

    /// The word for the app, and whether it does what it should: that of the process that is worst.
    pub(super) fn state(&self) -> (&'static str, bool) {
        if self.stamp.state == RunState::Stopped {
            return ("stopped", false);
        }
        let runs_nothing = self.release.is_some_and(|release| !zed_plan::has_process(&release.definition));
        let states = self.numbers.iter().map(|number| {
            let process = self.look.processes.get(&Instance::new(&self.stamp.app, *number));
            match process {
                Some(process) => state_of(&process.observed.status),
                // A release that something else runs: zed keeps its data and its state.
                None if runs_nothing => ("deployed", true),
                None => ("gone", false),
            }
        });
        states.min_by_key(|(_, well)| *well).unwrap_or(("gone", false))
    }

    /// Where clients reach the app.
    pub(super) fn listen(&self) -> String {
        let listen = self.release.and_then(|release| release.definition.listen);
        listen.map_or_else(String::new, |listen| listen.to_string())
    }

    /// Every process, wanted or still there, and the front; empty when there is only the one that is always there.
    pub(super) fn views(&self) -> Vec<InstanceView> {
        let app = &self.stamp.app;
        let all = Instance::front(app)..=Instance::new(app, u32::MAX);
        let mut seen: Vec<Instance> = self.look.processes.range(all).map(|(seen, _)| seen.clone()).collect();
        let wanted = self.numbers.iter().map(|number| Instance::new(app, *number));
        seen.extend(wanted.filter(|wanted| !self.look.processes.contains_key(wanted)));
        if seen.iter().all(|instance| *instance == Instance::first(app)) {
            return Vec::new();
        }
        // Processes in their order, the front last.
        seen.sort_by_key(|instance| (instance.is_front(), instance.number));
        seen.iter().map(|instance| self.view(instance)).collect()
    }

    fn view(&self, instance: &Instance) -> InstanceView {
        let port = self.release.filter(|_| !instance.is_front());
        let port = port.and_then(|release| zed_plan::port_of(&release.definition, instance.number));
        let mut view = InstanceView {
            name: instance.to_string(),
            state: "gone".to_owned(),
            port: port.unwrap_or(0),
            log: self.host.log_path(instance),
            ..InstanceView::default()
        };
        if let Some(process) = self.look.processes.get(instance) {
            state_of(&process.observed.status).0.clone_into(&mut view.state);
            view.version.clone_from(&process.version);
            view.restarts = process.restarts;
            if let ProcessStatus::Running { pid } = process.observed.status {
                view.pid = pid;
            }
        }
        view
    }
}

/// A process's word, and whether it is well.
fn state_of(status: &ProcessStatus) -> (&'static str, bool) {
    match status {
        ProcessStatus::Running { .. } => ("running", true),
        ProcessStatus::Backoff { .. } => ("backoff", false),
        ProcessStatus::Completed => ("completed", true),
        ProcessStatus::Failed(_) => ("failed", false),
        ProcessStatus::Stopped => ("stopped", false),
        ProcessStatus::Gone { .. } => ("gone", false),
    }
}
