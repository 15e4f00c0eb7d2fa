//! For tests: guests of the host in memory, what runs and with what.

use super::TestWorld;
use crate::guest::GuestSpec;
use crate::guest::GuestStatus;
use crate::guest::ObservedGuest;
use crate::plan::Step;

impl TestWorld {
    pub(super) fn guest(&mut self, step: &Step) {
        match step {
            Step::MakeGuest { guest } => {
                self.start_guest(guest);
                if let Some(seen) = self.observed.guests.get_mut(&guest.id()) {
                    seen.content = Some(guest.content());
                }
                let root = guest.dataset().as_str();
                let line = format!("{} {}", guest.id(), &guest.content()[..8]);
                let content = self.content.get_mut(root).unwrap_or_else(|| panic!("{root} is not there"));
                if !content.contains(&line) {
                    content.push(line);
                }
            }
            Step::StartGuest { guest } => self.start_guest(guest),
            Step::StopGuest { guest } => {
                if let Some(seen) = self.observed.guests.get_mut(guest) {
                    seen.status = GuestStatus::Stopped;
                    seen.running = None;
                }
            }
            Step::RemoveGuest { guest } => {
                self.observed.guests.remove(guest);
            }
            _ => {}
        }
    }

    fn start_guest(&mut self, spec: &GuestSpec) {
        for mount in spec.mounts.iter().map(|mount| &mount.dataset).chain([spec.dataset()]) {
            assert!(self.observed.datasets.contains_key(mount), "{} starts without {mount}", spec.id());
        }
        let before = self.observed.guests.get(&spec.id());
        let configuration = spec.configuration();
        if let Some(before) = before.filter(|seen| seen.status == GuestStatus::Running) {
            assert_eq!(before.running.as_ref(), Some(&configuration), "{} runs with another one", spec.id());
        }
        let seen = ObservedGuest {
            status: GuestStatus::Running,
            made: Some(Box::new(spec.clone())),
            intact: true,
            running: Some(configuration),
            content: before.and_then(|seen| seen.content.clone()),
            rebooted: false,
        };
        self.observed.guests.insert(spec.id(), seen);
    }
}
