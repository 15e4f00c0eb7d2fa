//! Fault points: the durable steps of the embedded store, by number, and what becomes of each.
//!
//! Chosen by value when the store is opened, so that the code under test is the code that ships. Without
//! faults a step costs one atomic increment. Never decides what a step does; only whether it is reached.

use super::failure::Failure;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What becomes of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Go,
    /// The process is gone before this step: nothing more happens, no cleanup either, and every later call fails.
    Die,
    /// It fails with this `errno`, and the store cleans up behind it.
    Fail(i32),
}

/// Decides the fate of each step from its number (from 0 on, per opened store) and its name.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Judge>>);

type Judge = dyn Fn(u64, &'static str) -> Fate + Send + Sync;

impl Faults {
    /// No faults: what production uses.
    pub fn none() -> Self {
        Self(None)
    }

    /// Asks `judge` at each step.
    pub fn new(judge: impl Fn(u64, &'static str) -> Fate + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(judge)))
    }

    /// This fate at step `number`; every other step is done.
    pub fn at(number: u64, fate: Fate) -> Self {
        Self::new(move |n, _| if n == number { fate } else { Fate::Go })
    }
}

/// The steps of one opened store.
pub(super) struct Steps {
    faults: Faults,
    count: AtomicU64,
    dead: AtomicBool,
}

impl Steps {
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, count: AtomicU64::new(0), dead: AtomicBool::new(false) }
    }

    /// Called before each durable step.
    pub(super) fn step(&self, name: &'static str) -> Result<(), Failure> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.alive()?;
        let Some(judge) = &self.faults.0 else { return Ok(()) };
        match judge(number, name) {
            Fate::Go => Ok(()),
            Fate::Die => {
                self.dead.store(true, Ordering::Relaxed);
                self.alive()
            }
            Fate::Fail(errno) => Err(Failure::new(
                format!("{name} (a fault was asked for)"),
                io::Error::from_raw_os_error(errno),
            )),
        }
    }

    /// Fails once a fault has ended the process.
    pub(super) fn alive(&self) -> Result<(), Failure> {
        match self.dead.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Failure::new("go on after a fault ended the process", io::Error::other("dead"))),
        }
    }

    /// True when writes are to be split, so that a fault can leave half a record.
    pub(super) fn are_watched(&self) -> bool {
        self.faults.0.is_some()
    }
}
