//! Nothing is put back under a running guest: it is stopped before and started after.
//!
//! Owns the pass over finished units that inserts these steps, in what is done and in what takes it back.

use crate::guest::GuestId;
use crate::guest::GuestSpec;
use crate::plan::PlannedStep;
use crate::plan::Step;
use crate::plan::Unit;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::DatasetPath;

/// A dataset that a running guest sees cannot be put back or taken away: the guest is stopped around it. `guests`
/// are those that run, as they shall run afterwards. Where a guest's own root is put back it is stopped already.
pub(crate) fn hold_guests(units: &mut [Unit], guests: &BTreeMap<GuestId, &GuestSpec>) {
    if guests.is_empty() {
        return;
    }
    for unit in units {
        for planned in &mut unit.steps {
            if let Some((range, held)) = touched(&planned.undo, |step| step, guests) {
                let mut undo = std::mem::take(&mut planned.undo);
                let after = undo.split_off(range.end);
                undo.splice(
                    range.start..range.start,
                    held.iter().map(|spec| Step::StopGuest { guest: spec.id() }),
                );
                undo.extend(held.iter().map(|spec| Step::StartGuest { guest: Box::new((*spec).clone()) }));
                undo.extend(after);
                planned.undo = undo;
            }
        }
        start_guests_first(unit, guests);
        let Some((range, held)) = touched(&unit.steps, |planned| &planned.step, guests) else { continue };
        let why = "it sees a dataset that is put back";
        let stop = held.iter().map(|spec| PlannedStep {
            step: Step::StopGuest { guest: spec.id() },
            undo: vec![Step::StartGuest { guest: Box::new((*spec).clone()) }],
            why: why.to_owned(),
        });
        let start = held.iter().map(|spec| PlannedStep {
            step: Step::StartGuest { guest: Box::new((*spec).clone()) },
            undo: vec![Step::StopGuest { guest: spec.id() }],
            why: why.to_owned(),
        });
        let (stop, start): (Vec<_>, Vec<_>) = (stop.collect(), start.collect());
        if range.start < unit.commit_at {
            unit.commit_at += stop.len() + start.len();
        }
        unit.steps.splice(range.end..range.end, start);
        unit.steps.splice(range.start..range.start, stop);
    }
}

/// An undo that starts an app has its guest run first: the host may have booted since. Where the unit restarts the
/// guest, the apps in it are started again once the old guest is back, and not in the new one.
fn start_guests_first(unit: &mut Unit, guests: &BTreeMap<GuestId, &GuestSpec>) {
    let mut restarted: BTreeSet<GuestId> = BTreeSet::new();
    let mut remade: BTreeSet<GuestId> = BTreeSet::new();
    for planned in &mut unit.steps {
        match &planned.step {
            Step::StopGuest { guest } => drop(restarted.insert(guest.clone())),
            Step::MakeGuest { guest } if restarted.contains(&guest.id()) => drop(remade.insert(guest.id())),
            _ => {}
        }
        let guest_of = |step: &Step| match step {
            Step::StartApp { run } => GuestId::of(&run.runtime),
            _ => None,
        };
        planned.undo.retain(|step| guest_of(step).is_none_or(|id| !remade.contains(&id)));
        let mut undo: Vec<Step> = Vec::with_capacity(planned.undo.len());
        for step in std::mem::take(&mut planned.undo) {
            if let Some((id, spec)) = guest_of(&step).and_then(|id| guests.get_key_value(&id))
                && !undo
                    .iter()
                    .any(|before| matches!(before, Step::StartGuest { guest } if guest.id() == *id))
            {
                undo.push(Step::StartGuest { guest: Box::new((*spec).clone()) });
            }
            undo.push(step);
        }
        planned.undo = undo;
    }
}

/// From the first to the last step that puts a dataset of a guest back or takes it away, and those guests.
fn touched<'g, T>(
    steps: &[T],
    step: impl Fn(&T) -> &Step,
    guests: &BTreeMap<GuestId, &'g GuestSpec>,
) -> Option<(std::ops::Range<usize>, Vec<&'g GuestSpec>)> {
    let dataset = |at: &T| match step(at) {
        Step::Restore { dataset, .. } | Step::UndoRestore { dataset, .. } | Step::Retire { dataset, .. } => {
            Some(dataset.clone())
        }
        _ => None,
    };
    let found: Vec<(usize, DatasetPath)> =
        steps.iter().enumerate().filter_map(|(index, at)| Some((index, dataset(at)?))).collect();
    let sees = |spec: &GuestSpec| {
        found
            .iter()
            .any(|(_, path)| spec.dataset() == path || spec.mounts.iter().any(|mount| mount.dataset == *path))
    };
    let stopped = |id: &GuestId| {
        steps.iter().any(
            |at| matches!(step(at), Step::StopGuest { guest } | Step::RemoveGuest { guest } if guest == id),
        )
    };
    let held: Vec<&GuestSpec> =
        guests.iter().filter(|(id, spec)| sees(spec) && !stopped(id)).map(|(_, spec)| *spec).collect();
    let (first, last) = (found.first()?.0, found.last()?.0);
    (!held.is_empty()).then_some((first..last + 1, held))
}
