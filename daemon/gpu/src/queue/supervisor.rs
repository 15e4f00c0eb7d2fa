//! The thread that watches one device's node: starts it, ends it when it must be, starts it again.
//!
//! A node cannot be asked to give up a kernel, only killed. What it had is judged in `messages.rs` after its last words have
//! been read. The thread also does what must not be done under the lock: new bases, the suspects' file, removing files.

use super::device::Device;
use super::host::NodeHandle;
use super::host::NodeHost;
use super::host::NodeProcess;
use super::host::NoticeKind;
use super::inner::Inner;
use super::inner::micros;
use super::messages::Cause;
use super::node::Phase;
use super::store;
use crate::wire::FromNode;
use crate::wire::Receiver;
use crate::wire::ToNode;
use crate::wire::split;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// How long a node that was told to stop may take.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long jobs may still run when zedd is told to stop.
const DRAIN: Duration = Duration::from_secs(2);

/// How long a killed node may take to be gone before another is started beside it: a process may hang in its driver.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// How long a message may wait for room in the socket: a node that does not read is no node.
const SEND_DEADLINE: Duration = Duration::from_secs(5);

/// The shortest and the longest time between two starts of a node that fails.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How often a brake that is set is looked at.
const BRAKE_LOOK: Duration = Duration::from_secs(1);

/// What the thread has to do.
enum Task {
    End(Cause),
    /// The node has ended by itself.
    Gone,
    /// Tell it to stop.
    Stop,
    Chores,
}

/// How a node's life went.
struct Life {
    /// It was ready once.
    ready: bool,
    /// Some job ended in it, or it was ended for one.
    proven: bool,
    how: String,
}

/// Watches a device until [`Inner::stopping`].
pub(super) fn supervise(device: &Arc<Device>, host: &Arc<dyn NodeHost>) {
    let uuid = device.with(|inner| inner.info.uuid);
    let mut failures = 0;
    loop {
        let life = live(device, host, Some(uuid));
        let unusable = device.with(|inner| {
            if inner.stopping {
                return None;
            }
            let restart = std::mem::take(&mut inner.restart);
            failures = if life.proven || restart { 0 } else { failures + 1 };
            let never = !life.ready && failures >= inner.limits.failed_starts;
            if never && inner.node.phase != Phase::Unusable {
                inner.node.phase = Phase::Unusable;
                inner.node.error = format!("its node was started {failures} times in vain: {}", life.how);
            }
            if inner.node.phase == Phase::Unusable {
                let text = format!("the device cannot be used: {}", inner.node.error);
                inner.notice(NoticeKind::Unusable, text);
                return Some(true);
            }
            inner.node.restarts += 1;
            inner.node.phase = Phase::Restarting;
            Some(false)
        });
        match unusable {
            None => break,
            Some(true) => {
                failures = 0;
                if !on_cpu_until_restart(device, host) {
                    break;
                }
            }
            Some(false) if failures > 0 => {
                let wait = BACKOFF.0 * 2_u32.saturating_pow(failures.min(16) - 1);
                pause(device, Some(wait.min(BACKOFF.1)));
            }
            Some(false) => {}
        }
    }
    chores(device);
}

/// The device is unusable: jobs that allow it run on the CPU until somebody says `restart`. False when zedd stops.
fn on_cpu_until_restart(device: &Arc<Device>, host: &Arc<dyn NodeHost>) -> bool {
    let go_on = |inner: &mut Inner| {
        if std::mem::take(&mut inner.restart) {
            inner.node.phase = Phase::Restarting;
            inner.node.no_cpu = false;
            inner.node.restarts += 1;
        }
        inner.node.phase != Phase::Unusable
    };
    let mut failures = 0;
    loop {
        let life = live(device, host, None);
        failures = if life.ready { 0 } else { failures + 1 };
        let (again, stopping, most) =
            device.with(|inner| (go_on(inner), inner.stopping, inner.limits.failed_starts));
        if again || stopping {
            return again;
        }
        if failures >= most {
            device.with(|inner| {
                let text = format!("there is no node for the CPU either: {}", life.how);
                inner.notice(NoticeKind::Warning, text);
                inner.node.no_cpu = true;
                inner.pump(true);
            });
            break;
        }
        // It was ended for a job, or ended by itself: the next one goes on with the others.
        if !life.proven {
            pause(device, Some(BACKOFF.0));
        }
    }
    loop {
        if device.with(|inner| inner.stopping) {
            return false;
        }
        if device.with(go_on) {
            return true;
        }
        pause(device, None);
    }
}

/// Waits for a while, or until there is something to do for whoever is not running a node.
fn pause(device: &Device, wait: Option<Duration>) {
    chores(device);
    let until = wait.map(|wait| Instant::now() + wait);
    let mut inner = device.inner.lock();
    while !inner.stopping && !inner.restart && !inner.chores() {
        match until {
            Some(until) if device.bell.wait_until(&mut inner, until).timed_out() => return,
            Some(_) => {}
            None => device.bell.wait(&mut inner),
        }
    }
}

/// One node, from its start to its end.
fn live(device: &Arc<Device>, host: &Arc<dyn NodeHost>, uuid: Option<crate::device::DeviceUuid>) -> Life {
    let not = |how: String| Life { ready: false, proven: false, how };
    let stopping = device.with(|inner| {
        // A new one is what was asked for.
        inner.restart &= uuid.is_none();
        inner.stopping
    });
    if stopping {
        return not(String::new());
    }
    let began = Instant::now();
    let process = match host.start(uuid) {
        Ok(process) => process,
        Err(error) => return not(format!("it cannot be started: {error}")),
    };
    let NodeProcess { socket, pid, mut handle } = process;
    let (epoch, receiver, ours) = match prepare(device, socket, pid, uuid.is_none()) {
        Ok(prepared) => prepared,
        Err(error) => {
            handle.kill();
            return not(format!("it cannot be spoken to: {error}"));
        }
    };
    let reader = thread::Builder::new().name(format!("gpu-{}-reader", device.gpu));
    let of = Arc::clone(device);
    if let Err(error) = reader.spawn(move || read(&of, epoch, receiver, began)) {
        handle.kill();
        return not(format!("its reader cannot be started: {error}"));
    }
    let cause = watch(device, began);
    let how = end(device, &mut *handle, &ours);
    let cause = match cause {
        Cause::Died(why) if why.is_empty() => Cause::Died(how.clone()),
        other => other,
    };
    let life = device.with(|inner| {
        let link = inner.node.link.as_ref();
        let ready = link.is_some();
        let proven = link.is_some_and(|link| link.proven) || !matches!(cause, Cause::Died(_));
        let told = matches!(cause, Cause::Stopped);
        let how = match &cause {
            // What it said itself of its end says more than how it ended.
            Cause::Died(_) if uuid.is_some() && !inner.node.error.is_empty() => inner.node.error.clone(),
            Cause::Died(why) => why.clone(),
            _ => how.clone(),
        };
        let cause = if let Cause::Died(_) = cause { Cause::Died(how.clone()) } else { cause };
        inner.node_ended(&cause);
        // What it says from now on is not heard.
        inner.node.epoch += 1;
        inner.node.pid = 0;
        inner.node.since = 0;
        if ready && !told && inner.node.phase != Phase::Unusable {
            inner.notice(NoticeKind::Lost, lost_text(&cause, &how));
        }
        Life { ready, proven, how }
    });
    chores(device);
    life
}

fn lost_text(cause: &Cause, how: &str) -> String {
    match cause {
        Cause::Deadline => "the node was ended: a job did not end by its deadline".to_owned(),
        Cause::Stalled => "the node was ended: it had work and said nothing".to_owned(),
        Cause::Cancelled => "the node was ended: it went on with a job that was cancelled".to_owned(),
        Cause::Died(_) | Cause::Stopped => format!("the node ended: {how}"),
    }
}

/// Makes the new node known.
fn prepare(
    device: &Device,
    socket: UnixStream,
    pid: u32,
    cpu_only: bool,
) -> io::Result<(u64, Receiver, UnixStream)> {
    socket.set_write_timeout(Some(SEND_DEADLINE))?;
    // As much as the system gives: what does not fit is waited for.
    let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::SndBuf, &(1 << 20));
    let ours = socket.try_clone()?;
    let (sender, receiver) = split(socket)?;
    let epoch = device.with(|inner| {
        inner.node.epoch += 1;
        inner.node.starting = Some((sender, cpu_only));
        inner.node.gone = false;
        inner.node.pid = pid;
        if !cpu_only {
            inner.node.error.clear();
        }
        inner.node.epoch
    });
    Ok((epoch, receiver, ours))
}

/// Reads what the node says until its end.
fn read(device: &Device, epoch: u64, mut receiver: Receiver, began: Instant) {
    loop {
        let received = receiver.receive::<FromNode>();
        let go_on = device.with(|inner| {
            if inner.node.epoch != epoch {
                return false;
            }
            let message = match received {
                Ok(Some(message)) => message,
                Ok(None) => {
                    inner.node.gone = true;
                    inner.wake = true;
                    return false;
                }
                // Killed with something unread in its socket, or in the middle of a message: how it ended says why.
                Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                    inner.node.gone = true;
                    inner.wake = true;
                    return false;
                }
                Err(error) => {
                    break_link(inner, format!("it cannot be understood: {error}"));
                    inner.node.gone = true;
                    return false;
                }
            };
            let ready = matches!(message.value, FromNode::Ready { .. });
            if let Err(why) = inner.message(message) {
                break_link(inner, why);
                return false;
            }
            if ready {
                inner.node.total_us = micros(began.elapsed());
                let (model, total) = (inner.info.model.clone(), inner.node.total_us / 1000);
                inner.notice(NoticeKind::Ready, format!("the node for {model} is ready after {total} ms"));
            }
            true
        });
        if !go_on {
            return;
        }
    }
}

/// What it says cannot be believed any more.
fn break_link(inner: &mut Inner, why: String) {
    match &mut inner.node.link {
        Some(link) => link.broken = Some(why),
        None => {
            inner.node.error = why;
            inner.node.gone = true;
        }
    }
    inner.wake = true;
}

/// Watches the node until it has to be ended, or has ended.
fn watch(device: &Device, began: Instant) -> Cause {
    loop {
        match wait(device, began) {
            Task::End(cause) => return cause,
            Task::Gone => {
                let told =
                    |inner: &mut Inner| inner.node.link.as_ref().is_some_and(|link| link.stopped.is_some());
                return if device.with(told) { Cause::Stopped } else { Cause::Died(String::new()) };
            }
            Task::Stop => device.with(|inner| {
                let Some(link) = &mut inner.node.link else { return };
                link.stopped = Some(Instant::now());
                if let Err(error) = link.sender.send(&ToNode::Stop, &[], &[]) {
                    link.broken = Some(format!("it does not take messages: {error}"));
                }
            }),
            Task::Chores => chores(device),
        }
    }
}

/// Sleeps until there is something to do.
fn wait(device: &Device, began: Instant) -> Task {
    let mut inner = device.inner.lock();
    loop {
        if inner.suspects.brake() {
            // Releases it when it is time.
            inner.pump(true);
        }
        if !inner.calls.is_empty() {
            let calls = std::mem::take(&mut inner.calls);
            drop(inner);
            device.call(calls);
            inner = device.inner.lock();
        }
        let now = Instant::now();
        let look = match inner.look(now, began) {
            Ok(task) => return task,
            Err(look) => look,
        };
        inner.node.next_look = look;
        match look {
            Some(look) => drop(device.bell.wait_until(&mut inner, look)),
            None => device.bell.wait(&mut inner),
        }
        inner.node.next_look = Some(Instant::now());
    }
}

impl Inner {
    fn wants_base(&self) -> bool {
        self.journal.as_ref().is_some_and(super::journal::Journal::wants_base)
    }

    /// There is something to do that must not be done under the lock.
    fn chores(&self) -> bool {
        !self.removed.is_empty() || self.suspects_changed || self.wants_base()
    }

    /// What the device's thread has to do, or when it has to look again. What a node waits for comes before the disk.
    fn look(&self, now: Instant, began: Instant) -> Result<Task, Option<Instant>> {
        match self.look_at_node(now, began) {
            Err(_) if self.chores() => Ok(Task::Chores),
            found => found,
        }
    }

    fn look_at_node(&self, now: Instant, began: Instant) -> Result<Task, Option<Instant>> {
        let mut next: Option<Instant> = None;
        let mut due = |at: Instant| {
            next = Some(next.map_or(at, |next| next.min(at)));
            at <= now
        };
        if let Some(why) = self.node.link.as_ref().and_then(|link| link.broken.clone()) {
            return Ok(Task::End(Cause::Died(why)));
        }
        if self.node.gone {
            return Ok(Task::Gone);
        }
        let Some(link) = &self.node.link else {
            if self.stopping {
                return Ok(Task::End(Cause::Stopped));
            }
            if due(began + self.limits.start_deadline) {
                let text = format!("it was not ready within {:?}", self.limits.start_deadline);
                return Ok(Task::End(Cause::Died(text)));
            }
            return Err(next);
        };
        if let Some(stopped) = link.stopped {
            return if due(stopped + STOP_GRACE) { Ok(Task::End(Cause::Stopped)) } else { Err(next) };
        }
        if link.deadline.is_some_and(&mut due) {
            return Ok(Task::End(Cause::Deadline));
        }
        if link.running.iter().filter_map(|sent| sent.cancelled).min().is_some_and(&mut due) {
            return Ok(Task::End(Cause::Cancelled));
        }
        if link.running.is_empty() && !link.window.is_empty() && due(link.heard + self.limits.stall) {
            return Ok(Task::End(Cause::Stalled));
        }
        if (self.restart || self.stopping) && link.has() == 0 {
            return Ok(Task::Stop);
        }
        if let Some(stop_at) = self.node.stop_at
            && due(stop_at)
        {
            return Ok(Task::End(Cause::Stopped));
        }
        if self.suspects.brake() {
            due(now + BRAKE_LOOK);
        }
        Err(next)
    }

    /// Zedd stops: no job is begun any more.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.node.stop_at = Some(Instant::now() + DRAIN);
        self.wake = true;
    }
}

/// Ends the process and waits for its last words. In words, how it ended.
fn end(device: &Device, handle: &mut dyn NodeHandle, ours: &UnixStream) -> String {
    if !device.with(|inner| inner.node.gone) {
        handle.kill();
    }
    let until = Instant::now() + KILL_GRACE;
    let mut how = handle.ended();
    while how.is_none() && Instant::now() < until {
        thread::sleep(Duration::from_millis(2));
        // One that has closed its socket and lives on.
        if until - Instant::now() < KILL_GRACE / 2 {
            handle.kill();
        }
        how = handle.ended();
    }
    // What was sent before is still read; then the reader comes to its end, even when the process lingers.
    let _ = nix::sys::socket::shutdown(ours.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    let mut inner = device.inner.lock();
    while !inner.node.gone && inner.node.link.as_ref().is_none_or(|link| link.broken.is_none()) {
        if device.bell.wait_until(&mut inner, until + KILL_GRACE).timed_out() {
            break;
        }
    }
    how.unwrap_or_else(|| "it was killed and lingers".to_owned())
}

/// What must not be done under the lock.
fn chores(device: &Device) {
    let (removed, suspects, number) = device.with(|inner| {
        let removed = std::mem::take(&mut inner.removed);
        let changed = std::mem::take(&mut inner.suspects_changed);
        let suspects = changed.then(|| inner.suspects.clone());
        let number =
            inner.wants_base().then(|| inner.journal.as_mut().map(super::journal::Journal::rotate)).flatten();
        let snapshot = match number {
            Some(Ok(number)) => {
                let next = device.ids.load(std::sync::atomic::Ordering::Relaxed);
                Some((number, inner.snapshot(next)))
            }
            Some(Err(error)) => {
                inner.notice(NoticeKind::Warning, format!("the GPU queue's journal cannot go on: {error}"));
                None
            }
            None => None,
        };
        (removed, suspects, snapshot)
    });
    for id in removed {
        device.files.remove(id);
    }
    if let Some(suspects) = suspects
        && let Err(error) = store::write_suspects(&device.dir, &suspects)
    {
        let text = format!("the suspects could not be written: {error}");
        device.notices.notice(NoticeKind::Warning, Some(device.gpu), &text);
    }
    if let Some((number, snapshot)) = number {
        let written = super::journal::write_base(&device.dir, number, &snapshot);
        device.with(|inner| match written {
            Ok(length) => {
                if let Some(journal) = &mut inner.journal {
                    journal.has_base(number, length);
                }
            }
            Err(error) => {
                inner.notice(
                    NoticeKind::Warning,
                    format!("a base of the journal could not be written: {error}"),
                );
            }
        });
    }
}
