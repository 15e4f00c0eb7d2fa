//! What zedd knows of one device's node: its phase, and what it has been sent.

use super::schedule::Turn;
use crate::wire::CacheState;
use crate::wire::Sender;
use crate::wire::StartTimes;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

/// The phases of a node. Busy and paused are read off what it has been sent and told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// For the first time.
    #[default]
    Starting,
    /// It takes jobs.
    Ready,
    /// It is gone, and is being ended.
    Lost,
    /// It is being started again.
    Restarting,
    /// It cannot be used.
    Unusable,
}

/// A job that the node has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) turn: Turn,
    /// Bytes of its message.
    pub(super) bytes: usize,
    /// Files that it holds open in the node.
    pub(super) files: usize,
    pub(super) alone: bool,
    pub(super) deadline: Duration,
    /// Nobody wants it any more: the node has until then.
    pub(super) cancelled: Option<Instant>,
}

/// The way to a node that is ready.
pub(super) struct Link {
    pub(super) sender: Sender,
    /// It computes on the CPU only: the device is unusable.
    pub(super) cpu_only: bool,
    /// Sent and not begun, in order.
    pub(super) window: VecDeque<Sent>,
    /// Begun and not ended: one submit.
    pub(super) running: Vec<Sent>,
    /// When the running ones must have ended.
    pub(super) deadline: Option<Instant>,
    /// The deadline that is the shortest of those.
    pub(super) shortest: Duration,
    pub(super) began: Instant,
    /// The last word of it, or to it when it had nothing to do.
    pub(super) heard: Instant,
    /// It cannot be used any longer, and why.
    pub(super) broken: Option<String>,
    /// It was told to stop.
    pub(super) stopped: Option<Instant>,
    /// Some job ended in it.
    pub(super) proven: bool,
}

impl Link {
    pub(super) fn new(sender: Sender, cpu_only: bool) -> Self {
        let now = Instant::now();
        Self {
            sender,
            cpu_only,
            window: VecDeque::new(),
            running: Vec::new(),
            deadline: None,
            shortest: Duration::ZERO,
            began: now,
            heard: now,
            broken: None,
            stopped: None,
            proven: false,
        }
    }

    /// Jobs that it has.
    pub(super) fn has(&self) -> usize {
        self.window.len() + self.running.len()
    }

    /// What they are taken to need together, in microseconds.
    pub(super) fn estimate(&self) -> u64 {
        self.window.iter().chain(&self.running).map(|sent| sent.turn.charged).sum()
    }

    /// Bytes that may be in the socket.
    pub(super) fn bytes(&self) -> usize {
        self.window.iter().map(|sent| sent.bytes).sum()
    }

    /// Files that the node has or will have open.
    pub(super) fn files(&self) -> usize {
        self.window.iter().chain(&self.running).map(|sent| sent.files).sum()
    }

    /// It has a job beside which nothing is run.
    pub(super) fn alone(&self) -> bool {
        self.window.iter().chain(&self.running).any(|sent| sent.alone)
    }

    /// It does not have that job any more.
    pub(super) fn take(&mut self, id: u64) -> Option<Sent> {
        let taken = match self.running.iter().position(|sent| sent.id == id) {
            Some(place) => Some(self.running.swap_remove(place)),
            None => {
                let place = self.window.iter().position(|sent| sent.id == id)?;
                self.window.remove(place)
            }
        };
        if self.running.is_empty() {
            self.deadline = None;
        }
        taken
    }
}

/// One device's node.
#[derive(Default)]
pub(super) struct NodeState {
    pub(super) phase: Phase,
    /// Why it is lost or unusable.
    pub(super) error: String,
    pub(super) pid: u32,
    /// Seconds since 1970.
    pub(super) since: i64,
    pub(super) restarts: u64,
    pub(super) cache: Option<CacheState>,
    pub(super) times: StartTimes,
    /// From its start to its first message.
    pub(super) total_us: u64,
    /// Sender of a node that has not said yet that it is ready, and whether it computes on the CPU only.
    pub(super) starting: Option<(Sender, bool)>,
    pub(super) link: Option<Link>,
    /// Which node: what an earlier one said late is not meant.
    pub(super) epoch: u64,
    /// The reader has come to the end.
    pub(super) gone: bool,
    /// The device is unusable, and there is no node for the CPU either.
    pub(super) no_cpu: bool,
    /// Zedd stops: what still runs then waits for the next one.
    pub(super) stop_at: Option<Instant>,
    /// When the device's thread looks again by itself.
    pub(super) next_look: Option<Instant>,
}

impl NodeState {
    /// Nobody wants that job any more; the node is ended when it still runs it then.
    pub(super) fn cancelled(&mut self, id: u64, until: Instant) {
        let Some(link) = &mut self.link else { return };
        let sent = link.window.iter_mut().chain(&mut link.running).find(|sent| sent.id == id);
        if let Some(sent) = sent {
            sent.cancelled = Some(until);
        }
    }

    /// Some job is being run.
    pub(super) fn busy(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.running.is_empty())
    }
}
