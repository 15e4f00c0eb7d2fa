//! What runs of an app, against what should run: which of its processes are wrong, and which are left over.

use super::Deploy;
use super::Effective;
use super::Node;
use crate::instance::Instance;
use crate::observed::ProcessStatus;
use crate::plan::Severity;
use crate::release::has_process;
use crate::shape::numbers;
use crate::shape::route_of;
use std::collections::BTreeSet;

/// What the process runtime's word means for a process that should run.
enum Process {
    /// As it should be.
    Right,
    /// Not there, and nobody ended it.
    Absent(&'static str),
    /// Not as it should be.
    Drift(String),
}

/// What is to be done about an app that is otherwise unchanged.
#[derive(Default)]
pub(super) struct Judged {
    /// Processes to start, after they are stopped where they run.
    pub(super) wrong: BTreeSet<u32>,
    /// Something is left over that has to go.
    pub(super) strays: bool,
    /// The front has to be told.
    pub(super) reroute: bool,
    /// Why.
    pub(super) why: String,
}

impl Judged {
    /// True when nothing is to be done.
    pub(super) fn is_right(&self) -> bool {
        self.wrong.is_empty() && !self.strays && !self.reroute
    }
}

impl Deploy<'_> {
    /// Looks at every process that the app has or should have.
    pub(super) fn judge(&self, node: &Node<'_>, effective: &Effective<'_>) -> Judged {
        let mut judged = Judged::default();
        if !has_process(effective.app) {
            return judged;
        }
        let stamp = node.located.map(|found| &found.stamp);
        let wanted = numbers(effective.app, stamp);
        for number in &wanted {
            match self.process(node, effective, *number) {
                Process::Right => {}
                Process::Absent(why) => judged.note(*number, why),
                Process::Drift(text) => self.drift(node, *number, &text, &mut judged),
            }
        }
        if self.input.observed.alive(node.name).iter().any(|number| !wanted.contains(number)) {
            judged.strays = true;
            judged.say("a process of another release is still there");
        }
        self.judge_front(node, effective, &wanted, &mut judged);
        judged
    }

    /// Drift is repaired when somebody wants that, and said otherwise.
    fn drift(&self, node: &Node<'_>, number: u32, text: &str, judged: &mut Judged) {
        let text = match number {
            0 => format!("its front: {text}"),
            1 => text.to_owned(),
            _ => format!("{}: {text}", Instance::new(node.name, number)),
        };
        if self.input.heal {
            return judged.note(number, &text);
        }
        let text = format!("{text}: `echo restart > apps/{}/ctl` or `drift: Heal` repairs it", node.name);
        node.say(Severity::Warning, "drift", text);
    }

    fn judge_front(&self, node: &Node<'_>, effective: &Effective<'_>, wanted: &[u32], judged: &mut Judged) {
        let front = self.input.observed.process(node.name, 0);
        let Some(_) = route_of(node.name, effective.app, wanted.iter().copied()) else {
            judged.strays |= front.is_some_and(|front| front.status.is_alive());
            return;
        };
        match front.map(|front| &front.status) {
            Some(ProcessStatus::Running { .. } | ProcessStatus::Backoff { .. }) => {}
            None => judged.note(0, "its front does not run"),
            Some(ProcessStatus::Gone { rebooted: true }) => {
                judged.note(0, "the host has booted since its front ran");
            }
            Some(_) => self.drift(node, 0, "it has ended", judged),
        }
    }

    fn process(&self, node: &Node<'_>, effective: &Effective<'_>, number: u32) -> Process {
        let Some(process) = self.input.observed.process(node.name, number) else {
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
}

impl Judged {
    /// A process that is wrong; number 0 is the front.
    fn note(&mut self, number: u32, why: &str) {
        if number == 0 {
            self.reroute = true;
        } else {
            self.wrong.insert(number);
        }
        self.say(why);
    }

    /// The first reason is the one that is shown.
    fn say(&mut self, why: &str) {
        if self.why.is_empty() {
            why.clone_into(&mut self.why);
        }
    }
}
