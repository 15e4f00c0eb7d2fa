//! In which order jobs are run: fair shares between users, priorities and age within one.
//!
//! Start-time fair queueing: every user has a virtual time, which grows with the device time that the user's jobs take,
//! divided by the user's weight; the user with the smallest is next. What a job will take is not known when its turn
//! comes, so an estimate is charged then, and corrected when it has ended. Pure: knows no clock and no job, only ids.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// The weight of a user to whom nobody gave another.
pub const DEFAULT_WEIGHT: u32 = 1;

/// Virtual time of one microsecond at weight 1. A multiple of small weights, so that little is lost in division.
const SCALE: u64 = 5040;

/// What the first job of a user is taken to need, in microseconds.
const FIRST_ESTIMATE: u64 = 100;

/// A job whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which job.
    pub id: u64,
    /// Whose.
    pub uid: u32,
    /// Microseconds that were charged for it: the estimate.
    pub charged: u64,
}

/// A user's waiting jobs and share.
#[derive(Debug, Clone)]
struct User {
    weight: u32,
    /// Virtual time.
    time: u64,
    /// What the next job is taken to need, in microseconds.
    estimate: u64,
    /// Higher priorities first, then older ones.
    waiting: BTreeSet<(Reverse<i8>, u64)>,
    /// Jobs that had their turn and have not been settled.
    out: u64,
}

impl Default for User {
    fn default() -> Self {
        let (weight, estimate) = (DEFAULT_WEIGHT, FIRST_ESTIMATE);
        Self { weight, time: 0, estimate, waiting: BTreeSet::new(), out: 0 }
    }
}

impl User {
    fn virtual_time(&self, microseconds: u64) -> u64 {
        microseconds.saturating_mul(SCALE) / u64::from(self.weight.max(1))
    }
}

/// The waiting jobs of all users.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    users: BTreeMap<u32, User>,
    /// Users with waiting jobs, by virtual time.
    active: BTreeSet<(u64, u32)>,
    /// Virtual time of the last turn: where a user who comes back begins. Having been away earns no credit.
    now: u64,
    waiting: usize,
}

impl Schedule {
    /// How many jobs wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// No job waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many jobs of a user wait.
    pub fn waiting_of(&self, uid: u32) -> usize {
        self.users.get(&uid).map_or(0, |user| user.waiting.len())
    }

    /// A job waits from now on.
    pub fn push(&mut self, uid: u32, id: u64, priority: i8) {
        let now = self.now;
        let user = self.users.entry(uid).or_default();
        if user.waiting.is_empty() {
            user.time = user.time.max(now);
            self.active.insert((user.time, uid));
        }
        if user.waiting.insert((Reverse(priority), id)) {
            self.waiting += 1;
        }
    }

    /// A job does not wait any more. False when it did not.
    pub fn remove(&mut self, uid: u32, id: u64, priority: i8) -> bool {
        let Some(user) = self.users.get_mut(&uid) else { return false };
        if !user.waiting.remove(&(Reverse(priority), id)) {
            return false;
        }
        self.waiting -= 1;
        if user.waiting.is_empty() {
            self.active.remove(&(user.time, uid));
            self.forget_idle(uid);
        }
        true
    }

    /// The next job. It must be [settled](Schedule::settle) or [given back](Schedule::give_back).
    pub fn pop(&mut self) -> Option<Turn> {
        let (time, uid) = self.active.first().copied()?;
        let (_, id) = self.users.get_mut(&uid)?.waiting.pop_first()?;
        self.now = self.now.max(time);
        self.begin(uid, id)
    }

    /// A job out of its turn: it is charged as any other.
    pub fn take(&mut self, uid: u32, id: u64, priority: i8) -> Option<Turn> {
        let is_there = self.users.get_mut(&uid)?.waiting.remove(&(Reverse(priority), id));
        if is_there { self.begin(uid, id) } else { None }
    }

    /// Charges a user for a job that has just been taken from those that wait.
    fn begin(&mut self, uid: u32, id: u64) -> Option<Turn> {
        self.waiting -= 1;
        let user = self.users.get_mut(&uid)?;
        self.active.remove(&(user.time, uid));
        let charged = user.estimate;
        user.time = user.time.saturating_add(user.virtual_time(charged));
        user.out += 1;
        if !user.waiting.is_empty() {
            self.active.insert((user.time, uid));
        }
        Some(Turn { id, uid, charged })
    }

    /// A job that had its turn has ended, and took so many microseconds of the device.
    pub fn settle(&mut self, turn: Turn, took: u64) {
        self.correct(turn, took);
        if let Some(user) = self.users.get_mut(&turn.uid) {
            // A mean over about the last eight, never 0: nothing is free.
            user.estimate = ((user.estimate * 7 + took) / 8).max(1);
        }
        self.forget_idle(turn.uid);
    }

    /// A job that had its turn was not run: it waits again, where it was, and costs nothing.
    pub fn give_back(&mut self, turn: Turn, priority: i8) {
        self.correct(turn, 0);
        self.push(turn.uid, turn.id, priority);
    }

    fn correct(&mut self, turn: Turn, took: u64) {
        let Some(user) = self.users.get_mut(&turn.uid) else { return };
        let was_active = self.active.remove(&(user.time, turn.uid));
        let (charged, took) = (user.virtual_time(turn.charged), user.virtual_time(took));
        user.time = user.time.saturating_add(took).saturating_sub(charged);
        user.out = user.out.saturating_sub(1);
        if was_active {
            self.active.insert((user.time, turn.uid));
        }
    }

    /// A user's share relative to others, from now on.
    pub fn set_weight(&mut self, uid: u32, weight: u32) {
        self.users.entry(uid).or_default().weight = weight.max(1);
        self.forget_idle(uid);
    }

    /// A user's share relative to others.
    pub fn weight(&self, uid: u32) -> u32 {
        self.users.get(&uid).map_or(DEFAULT_WEIGHT, |user| user.weight)
    }

    /// What a user's next job is taken to need, in microseconds.
    pub fn estimate(&self, uid: u32) -> u64 {
        self.users.get(&uid).map_or(FIRST_ESTIMATE, |user| user.estimate)
    }

    /// The users with a weight of their own.
    pub fn weights(&self) -> impl Iterator<Item = (u32, u32)> {
        self.users
            .iter()
            .filter(|(_, user)| user.weight != DEFAULT_WEIGHT)
            .map(|(uid, user)| (*uid, user.weight))
    }

    /// Keeps the table as small as the number of users that matter. When nobody wants anything, all begin anew; else one who
    /// would begin at [`Schedule::now`] anyway, and has no weight, is as good as unknown.
    fn forget_idle(&mut self, uid: u32) {
        let idle = |user: &User| user.waiting.is_empty() && user.out == 0;
        if self.waiting == 0 && self.users.values().all(idle) {
            self.users.retain(|_, user| user.weight != DEFAULT_WEIGHT);
            self.users.values_mut().for_each(|user| user.time = 0);
            self.now = 0;
            return;
        }
        let now = self.now;
        let unknown = |user: &User| idle(user) && user.weight == DEFAULT_WEIGHT && user.time <= now;
        if self.users.get(&uid).is_some_and(unknown) {
            self.users.remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests;
