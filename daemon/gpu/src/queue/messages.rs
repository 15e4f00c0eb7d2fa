//! From the node: what it says, and what its end means for the jobs that it had.

use super::host::NoticeKind;
use super::inner::Inner;
use super::inner::micros;
use super::inner::now_ms;
use super::journal::Entry;
use super::journal::How;
use super::kernels::blamed;
use super::node::Link;
use super::node::Phase;
use super::node::Sent;
use super::record::Outputs;
use super::record::State;
use crate::program::KernelId;
use crate::wire::CacheState;
use crate::wire::FromNode;
use crate::wire::JobTimes;
use crate::wire::Received;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

/// Why a node has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was killed, because what it was running had not ended by its deadline.
    Deadline,
    /// It was killed, because it had work and said nothing.
    Stalled,
    /// It was killed, because it went on with a job that nobody wanted any more.
    Cancelled,
    /// It ended by itself, or lied.
    Died(String),
    /// It was told to.
    Stopped,
}

impl Inner {
    /// The node says something.
    ///
    /// # Errors
    /// What it says cannot be: it has to be ended.
    pub(super) fn message(&mut self, message: Received<FromNode>) -> Result<(), String> {
        if let Some(link) = &mut self.node.link {
            link.heard = Instant::now();
        }
        match message.value {
            FromNode::Ready { info, times, cache } => {
                let Some((sender, cpu_only)) = self.node.starting.take() else {
                    return Err("it said twice that it is ready".to_owned());
                };
                if !cpu_only {
                    if info.uuid != self.info.uuid {
                        return Err(format!("it opened the device {} instead", info.uuid));
                    }
                    if let CacheState::Rejected(why) = &cache {
                        self.notice(NoticeKind::Warning, format!("the pipeline cache is not used: {why}"));
                    }
                    self.info = *info;
                    self.node.phase = Phase::Ready;
                    self.node.error.clear();
                    self.node.times = times;
                    self.node.cache = Some(cache);
                }
                self.node.since = now_ms().div_euclid(1000);
                self.node.link = Some(Link::new(sender, cpu_only));
                self.wake = true;
                self.pump(true);
            }
            FromNode::Unusable(why) => {
                self.node.phase = Phase::Unusable;
                self.node.error = why;
                self.wake = true;
            }
            FromNode::Began(ids) => self.began(&ids)?,
            FromNode::Done { id, outputs, times, on_cpu } => {
                self.done(id, &outputs, times, on_cpu, &message.raw)?;
            }
            FromNode::Failed { id, error, kernel } => self.job_failed(id, error, kernel)?,
            FromNode::Kernels { id, kernels } => {
                if let Some(record) = self.records.get(&id) {
                    let names: Vec<Arc<str>> = kernels.into_iter().map(|kernel| kernel.0).collect();
                    self.kernels.named(record.shape, &names, &record.job, &self.info.limits);
                }
            }
            FromNode::Lost(why) => {
                self.node.error = why;
            }
        }
        Ok(())
    }

    fn link(&mut self) -> Result<&mut Link, String> {
        self.node.link.as_mut().ok_or_else(|| "it said something before it was ready".to_owned())
    }

    fn began(&mut self, ids: &[u64]) -> Result<(), String> {
        let now = Instant::now();
        let patience = now + self.limits.cancel_grace;
        let link = self.link()?;
        for id in ids {
            let place = link.window.iter().position(|sent| sent.id == *id);
            let sent = place.and_then(|place| link.window.remove(place));
            let mut sent =
                sent.ok_or_else(|| format!("it began job {id}, which it does not have to begin"))?;
            // One that was cancelled before has its moment now: it may need no more than that.
            sent.cancelled = sent.cancelled.map(|at| at.max(patience));
            link.running.push(sent);
        }
        link.began = now;
        link.shortest = link.running.iter().map(|sent| sent.deadline).min().unwrap_or_default();
        let deadline = now + link.shortest;
        link.deadline = (!link.running.is_empty()).then_some(deadline);
        let cancelled = link.running.iter().filter_map(|sent| sent.cancelled).min();
        self.counts.batches += 1;
        self.look_by(cancelled.map_or(deadline, |at| at.min(deadline)));
        for id in ids {
            let Some(record) = self.records.get_mut(id) else { continue };
            if matches!(record.state, State::Sent) {
                record.state = State::Running;
                record.attempts += 1;
                record.queued_us = micros(record.queued.elapsed());
                self.queue_us.observe(record.queued_us);
            }
        }
        self.log(&Entry::Begun(ids.to_vec()), &[]);
        Ok(())
    }

    /// The node does not have a job any more.
    fn back(&mut self, id: u64) -> Result<Sent, String> {
        let ends = self.stopping || self.restart;
        let link = self.link()?;
        let sent = link.take(id);
        let last = ends && link.has() == 0;
        self.wake |= last;
        sent.ok_or_else(|| format!("it ended job {id}, which it does not have"))
    }

    fn done(
        &mut self,
        id: u64,
        outputs: &[Option<u32>],
        times: JobTimes,
        on_cpu: bool,
        raw: &[u8],
    ) -> Result<(), String> {
        let sent = self.back(id)?;
        let own = times.device / u64::from(times.batch.max(1));
        self.settle(sent, times.compile.saturating_add(own));
        self.device_us.observe(times.device);
        if let Some(link) = &mut self.node.link {
            link.proven = true;
        }
        let Some(record) = self.records.get(&id).filter(|record| !record.ended()) else {
            // Cancelled in the meantime.
            self.pump(false);
            return Ok(());
        };
        let shape = record.shape;
        let found = if record.small_outputs() {
            let arrays = record.job.outputs();
            let pieces: Option<Vec<Arc<[u8]>>> = arrays
                .enumerate()
                .map(|(place, (_, array))| {
                    let begin = usize::try_from((*outputs.get(place)?)?).ok()?;
                    let end = begin.checked_add(usize::try_from(array.bytes()).ok()?)?;
                    Some(Arc::from(raw.get(begin..end)?))
                })
                .collect();
            let Some(pieces) = pieces else {
                let text = format!("it ended job {id} without its outputs");
                self.fail(id, text.clone());
                return Err(text);
            };
            Outputs::Memory(pieces)
        } else {
            Outputs::Files
        };
        let fallback = record.on_cpu.clone().unwrap_or_default();
        let kernels = self.kernels.count(shape);
        if !on_cpu && !self.suspects.is_clear() {
            let names = kernels.iter().flat_map(|kernels| kernels.iter()).map(|known| &*known.name);
            if self.suspects.success(names) {
                self.suspects_changed = true;
                self.wake = true;
            }
        }
        self.end(id, How::Done { on_cpu, fallback }, times, found);
        self.pump(false);
        Ok(())
    }

    fn job_failed(&mut self, id: u64, error: String, kernel: Option<KernelId>) -> Result<(), String> {
        let sent = self.back(id)?;
        self.settle(sent, 0);
        let error = match kernel {
            Some(kernel) if !error.contains(&*kernel.0) => format!("{error} (kernel {kernel})"),
            _ => error,
        };
        self.fail(id, error);
        self.pump(false);
        Ok(())
    }

    /// A job's share of the device, in microseconds.
    fn settle(&mut self, sent: Sent, took: u64) {
        self.schedule.settle(sent.turn, took);
        if let Some(user) = self.users.get_mut(&sent.turn.uid) {
            user.device_us = user.device_us.saturating_add(took);
        }
    }

    /// The node has ended, and its last words have been read.
    pub(super) fn node_ended(&mut self, cause: &Cause) {
        self.node.starting = None;
        let Some(mut link) = self.node.link.take() else { return };
        if self.node.phase != Phase::Unusable {
            self.node.phase = Phase::Lost;
        }
        let running = std::mem::take(&mut link.running);
        let window = std::mem::take(&mut link.window);
        let mut again: Vec<(Sent, bool)> = Vec::new();
        match cause {
            Cause::Deadline => match running.as_slice() {
                [one] => self.timed_out(*one, &link),
                // One of them is to blame: each shows by itself whether it is the one.
                several => again.extend(several.iter().map(|sent| (*sent, true))),
            },
            Cause::Stalled if running.is_empty() && window.len() == 1 => {
                for sent in &window {
                    let text =
                        format!("the node did not begin it within {:?} and was ended", self.limits.stall);
                    self.settle(*sent, micros(self.limits.stall));
                    self.counts.timeouts += 1;
                    self.fail(sent.id, text);
                }
            }
            // A second time, alone: this job is what it dies of.
            Cause::Died(why)
                if running.is_empty() && window.len() == 1 && window.iter().all(|sent| sent.alone) =>
            {
                for sent in &window {
                    let text =
                        format!("the node of gpu {} ended twice before it began this job: {why}", self.gpu);
                    self.settle(*sent, 0);
                    self.fail(sent.id, text);
                }
            }
            Cause::Died(why) => {
                let text = format!("the node of gpu {} ended while it ran this job: {why}", self.gpu);
                for sent in &running {
                    self.settle(*sent, micros(link.began.elapsed()) / running.len() as u64);
                    self.fail(sent.id, text.clone());
                }
            }
            Cause::Stalled | Cause::Cancelled | Cause::Stopped => {
                again.extend(running.iter().map(|sent| (*sent, false)));
            }
        }
        // What it was preparing is among these, and may be to blame.
        let suspect = match cause {
            Cause::Stalled => true,
            Cause::Died(_) => running.is_empty(),
            Cause::Deadline | Cause::Cancelled | Cause::Stopped => false,
        };
        again.extend(window.iter().map(|sent| (*sent, suspect)));
        self.run_again(&again);
    }

    /// Jobs that the node had wait again, where they were.
    fn run_again(&mut self, again: &[(Sent, bool)]) {
        let mut requeued = Vec::new();
        for (sent, alone) in again {
            let Some(record) = self.records.get_mut(&sent.id).filter(|record| !record.ended()) else {
                self.schedule.settle(sent.turn, 0);
                continue;
            };
            if matches!(record.state, State::Running) {
                requeued.push(sent.id);
            }
            record.alone |= alone;
            record.state = State::Queued;
            self.schedule.give_back(sent.turn, record.priority);
            if record.allows_cpu() {
                self.cpu_allowed.insert(sent.id);
            }
        }
        if !requeued.is_empty() {
            self.log(&Entry::Requeued(requeued), &[]);
        }
    }

    /// A job that ran by itself did not end in time.
    fn timed_out(&mut self, sent: Sent, link: &Link) {
        self.settle(sent, micros(link.began.elapsed()));
        self.counts.timeouts += 1;
        let Some(record) = self.records.get(&sent.id).filter(|record| !record.ended()) else { return };
        let on_cpu = record.on_cpu.is_some();
        let kernels = self.kernels.of(record.shape, &record.job, &self.info.limits).unwrap_or_default();
        let blamed = if on_cpu { Vec::new() } else { blamed(&kernels) };
        let text =
            timeout_text(record.job.deadline, if on_cpu { "the CPU" } else { &self.info.model }, &blamed);
        self.notice(NoticeKind::Timeout, format!("job {}: {text}", sent.id));
        if !on_cpu {
            let consequence = self.suspects.timeout(blamed.iter().copied(), now_ms());
            self.suspects_changed = true;
            self.wake = true;
            for kernel in consequence.evicted {
                let text = format!("the kernel {kernel} is not run any more: three timeouts in a row");
                self.notice(NoticeKind::Evicted, text);
            }
            if consequence.braked {
                let text = "too many timeouts within a minute: only jobs that allow the CPU are run for now";
                self.notice(NoticeKind::Braked, text);
            }
        }
        self.fail(sent.id, text);
    }
}

/// What the submitter of a job is told that did not end in time.
fn timeout_text(deadline: Duration, on: &str, kernels: &[&str]) -> String {
    let kernels = match kernels {
        [] => String::new(),
        [one] => format!(" (kernel {one})"),
        several => format!(" (kernels {})", several.join(", ")),
    };
    format!(
        "it did not end within its deadline of {deadline:?} on {on} and was stopped{kernels}: give it a longer `deadline`, \
         or less to do"
    )
}
