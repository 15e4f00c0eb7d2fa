//! From the journal to the queue as it was.
//!
//! A job that was queued goes on in order. One that was running when zedd died is run once more, since jobs change nothing
//! outside themselves; when zedd dies with it a second time, it has failed.

use super::device::record_again;
use super::host::NoticeKind;
use super::inner::Call;
use super::inner::Inner;
use super::journal::End;
use super::journal::Entry;
use super::journal::How;
use super::journal::Snapshot;
use super::kernels::ShapeHasher;
use super::record::Outputs;
use super::record::State;
use crate::wire::JobTimes;
use std::collections::BTreeSet;
use std::sync::Arc;
use zed_fs::Caller;

/// So many deaths of zedd while a job runs are one too many.
const MOST_INTERRUPTIONS: u32 = 2;

/// What a replay keeps beside the queue itself.
#[derive(Default)]
pub(super) struct Replay {
    /// Running as far as the journal says.
    running: BTreeSet<u64>,
    /// The highest id that was seen, plus one.
    pub(super) next_id: u64,
}

impl Replay {
    /// One entry.
    pub(super) fn entry(&mut self, inner: &mut Inner, shapes: &ShapeHasher, entry: Entry, raw: &[u8]) {
        match entry {
            Entry::Next(id) => self.next_id = self.next_id.max(id),
            Entry::Submitted { id, uid, gid, at_ms, tail } => {
                self.next_id = self.next_id.max(id + 1);
                let caller = Caller { uid, gid, pid: 0 };
                match record_again(id, caller, raw, tail, shapes) {
                    Ok(mut record) => {
                        (record.at_ms, record.changed_ms) = (at_ms, at_ms);
                        inner.add(record);
                    }
                    Err(error) => {
                        let text = format!("job {id} of the journal is no job for this version: {error}");
                        inner.calls.push(Call::Notice(NoticeKind::Warning, text));
                    }
                }
            }
            Entry::Started(id) => {
                if inner.records.get(&id).is_some_and(|record| matches!(record.state, State::Waiting)) {
                    inner.enqueue(id);
                }
            }
            Entry::Priority(id, priority) => {
                if let Some(record) = inner.records.get_mut(&id) {
                    if matches!(record.state, State::Queued) {
                        inner.schedule.remove(record.uid, id, record.priority);
                        inner.schedule.push(record.uid, id, priority);
                    }
                    record.priority = priority;
                }
            }
            Entry::Begun(ids) => {
                for id in ids {
                    if let Some(record) = inner.records.get_mut(&id) {
                        record.attempts += 1;
                        self.running.insert(id);
                    }
                }
            }
            Entry::Requeued(ids) => {
                for id in ids {
                    self.running.remove(&id);
                }
            }
            Entry::Interrupted(id, times) => {
                if let Some(record) = inner.records.get_mut(&id) {
                    record.interrupted = times;
                    self.running.remove(&id);
                }
            }
            Entry::Ended(id, end) => {
                self.running.remove(&id);
                ended(inner, id, end, raw);
            }
            Entry::Weight(uid, weight) => inner.schedule.set_weight(uid, weight),
            Entry::Retain(jobs) => {
                inner.retain = jobs;
                inner.trim();
            }
            Entry::Paused(paused) => inner.paused = paused,
        }
    }

    /// The journal ends here: zedd died. Jobs that end by it are ended by the returned list, once the journal is open again.
    pub(super) fn finish(self, inner: &mut Inner) -> Vec<u64> {
        let mut lost = Vec::new();
        for id in self.running {
            let Some(record) = inner.records.get_mut(&id) else { continue };
            record.interrupted += 1;
            if record.interrupted >= MOST_INTERRUPTIONS {
                lost.push(id);
            }
        }
        lost
    }
}

fn ended(inner: &mut Inner, id: u64, end: End, raw: &[u8]) {
    let Some(record) = inner.records.get_mut(&id).filter(|record| !record.ended()) else { return };
    record.changed_ms = end.at_ms;
    let small = record.small_outputs();
    let outputs = if small || !matches!(end.how, How::Done { .. }) {
        let mut rest = raw;
        let pieces = end.outputs.iter().map(|length| {
            let (piece, after) = rest.split_at((*length as usize).min(rest.len()));
            rest = after;
            Arc::from(piece)
        });
        Outputs::Memory(pieces.collect())
    } else {
        Outputs::Files
    };
    inner.settle_end(id, end, outputs);
}

impl Inner {
    /// The job that zedd died with too often.
    pub(super) fn fail_interrupted(&mut self, id: u64) {
        let text =
            format!("zedd ended {MOST_INTERRUPTIONS} times while it ran this job; it is not run again");
        self.end(id, How::Failed(text), JobTimes::default(), Outputs::Memory(Vec::new()));
    }

    /// Everything as it is, for a base: ended jobs in the order of their ends, then the others by id.
    pub(super) fn snapshot(&self, next_id: u64) -> Snapshot {
        let mut snapshot: Snapshot = vec![(Entry::Next(next_id), Vec::new())];
        for (uid, weight) in self.schedule.weights() {
            snapshot.push((Entry::Weight(uid, weight), Vec::new()));
        }
        if self.retain != self.limits.retain {
            snapshot.push((Entry::Retain(self.retain), Vec::new()));
        }
        if self.paused {
            snapshot.push((Entry::Paused(true), Vec::new()));
        }
        for id in &self.ended {
            if let Some(record) = self.records.get(id) {
                record.snapshot(&mut snapshot);
            }
        }
        for record in self.records.values().filter(|record| !record.ended()) {
            record.snapshot(&mut snapshot);
        }
        snapshot
    }

    /// When the journal says nothing of a folder, nobody does.
    pub(super) fn remove_strays(&mut self, next_id: u64) {
        for id in self.files.ids() {
            if id < next_id && !self.records.contains_key(&id) {
                self.removed.push(id);
            }
        }
        self.wake |= !self.removed.is_empty();
    }
}
