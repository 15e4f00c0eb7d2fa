//! Requests that wait for something: every reply that is not given by its handler is here until it is given.
//!
//! A reply is sent under the table's lock. So a request that is not in the table has been answered, which is
//! what makes interrupts safe: see `interrupt`. Owns the deadline of each wait.

use crate::Fault;
use crate::wait::Chunk;
use crate::wait::Late;
use fuser::Errno;
use fuser::ReplyData;
use fuser::ReplyEmpty;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

/// A reply that has not been given, and what it is when the time has passed.
pub(super) enum Reply {
    Data(ReplyData, Late<Chunk>),
    Empty(ReplyEmpty, Late<()>),
}

impl Reply {
    fn error(self, errno: Errno) {
        match self {
            Reply::Data(reply, _) => reply.error(errno),
            Reply::Empty(reply, _) => reply.error(errno),
        }
    }

    fn late(self) {
        match self {
            Reply::Data(reply, late) => answer_data(reply, late.into_result()),
            Reply::Empty(reply, late) => answer_empty(reply, late.into_result()),
        }
    }
}

/// Sends the kernel what it gets for a refusal.
pub(super) fn errno(fault: &Fault) -> Errno {
    Errno::from_i32(fault.errno as i32)
}

pub(super) fn answer_data(reply: ReplyData, result: Result<Chunk, Fault>) {
    match result {
        Ok(chunk) => reply.data(&chunk),
        Err(fault) => reply.error(errno(&fault)),
    }
}

pub(super) fn answer_empty(reply: ReplyEmpty, result: Result<(), Fault>) {
    match result {
        Ok(()) => reply.ok(),
        Err(fault) => reply.error(errno(&fault)),
    }
}

/// The waiting requests of one mount, by their number.
#[derive(Default)]
pub(super) struct Parked {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    replies: HashMap<u64, (Reply, Instant)>,
    /// When the thread looks next by itself.
    look: Option<Instant>,
    closed: bool,
}

impl Parked {
    /// Starts the thread that ends waits at their deadline.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let parked = Arc::new(Self::default());
        let weak = Arc::downgrade(&parked);
        std::thread::Builder::new().name("zed-deadlines".to_owned()).spawn(move || watch_deadlines(&weak))?;
        Ok(parked)
    }

    /// Keeps a reply. Call it before the wait is started: what ends early finds it.
    pub(super) fn park(&self, unique: u64, reply: Reply, limit: Duration) {
        let mut table = self.table.lock();
        if table.closed {
            reply.error(Errno::ENODEV);
            return;
        }
        let at = Instant::now() + limit;
        table.replies.insert(unique, (reply, at));
        // To wake the thread costs more than the rest, and most waits are as long as those before.
        if table.look.is_none_or(|look| at < look) {
            self.changed.notify_one();
        }
    }

    /// The client wants its call back; false when it has been answered already.
    pub(super) fn interrupt(&self, unique: u64) -> bool {
        let mut table = self.table.lock();
        match table.replies.remove(&unique) {
            Some((reply, _)) => {
                reply.error(Errno::EINTR);
                true
            }
            None => false,
        }
    }

    /// Ends a read. False when it was interrupted or too late.
    pub(super) fn finish_data(&self, unique: u64, result: Result<Chunk, Fault>) -> bool {
        let mut table = self.table.lock();
        let Some((Reply::Data(reply, _), _)) = table.replies.remove(&unique) else { return false };
        answer_data(reply, result);
        true
    }

    /// Ends a flush or an fsync. False when it was interrupted or too late.
    pub(super) fn finish_empty(&self, unique: u64, result: Result<(), Fault>) -> bool {
        let mut table = self.table.lock();
        let Some((Reply::Empty(reply, _), _)) = table.replies.remove(&unique) else { return false };
        answer_empty(reply, result);
        true
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.table.lock().replies.len()
    }

    /// The tree goes away: nobody waits any longer.
    pub(super) fn close(&self) {
        let mut table = self.table.lock();
        table.closed = true;
        for (_, (reply, _)) in table.replies.drain() {
            reply.error(Errno::ENODEV);
        }
        self.changed.notify_one();
    }
}

fn watch_deadlines(parked: &Weak<Parked>) {
    while let Some(parked) = parked.upgrade() {
        let mut table = parked.table.lock();
        let now = Instant::now();
        let due: Vec<u64> =
            table.replies.iter().filter(|(_, (_, at))| *at <= now).map(|(unique, _)| *unique).collect();
        for unique in due {
            if let Some((reply, _)) = table.replies.remove(&unique) {
                reply.late();
            }
        }
        if table.closed {
            return;
        }
        table.look = table.replies.values().map(|(_, at)| *at).min();
        match table.look {
            Some(at) => {
                parked.changed.wait_until(&mut table, at);
            }
            None => parked.changed.wait(&mut table),
        }
    }
}
