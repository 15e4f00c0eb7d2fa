//! What an operator says to a deploy that is going on: hold, go on, hurry, give up.
//!
//! Owns the signals that a worker listens to. They live as long as the work: a restart of zedd takes an interrupted
//! deploy back and plans it anew, so nothing of this is kept.

use parking_lot::Condvar;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// Why a deploy that an operator aborted was taken back.
pub const ABORTED: &str = "an operator aborted it";

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// Stay where the plan watches.
    Pause,
    /// Go on.
    Resume,
    /// Watch no longer.
    Promote,
    /// Take everything back.
    Abort,
}

#[derive(Debug, Default)]
struct State {
    paused: bool,
    promoted: bool,
    aborted: bool,
}

/// What a worker listens to. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// Ends probes early: a newer save, the end of zedd, or an abort.
    pub cancel: Arc<AtomicBool>,
    state: Arc<(Mutex<State>, Condvar)>,
}

/// How watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// The time is not over: look again.
    Again,
    /// The time is over, or an operator wants to go on.
    Over,
    /// Nobody wants this deploy any more.
    Cancelled,
}

impl Signals {
    /// Work that was told to end before it began is cancelled from the first.
    pub fn new(cancelled: bool) -> Self {
        Self { cancel: Arc::new(AtomicBool::new(cancelled)), state: Arc::default() }
    }

    /// Nobody speaks through these: only this flag ends probes early.
    pub fn ended_by(cancel: Arc<AtomicBool>) -> Self {
        Self { cancel, state: Arc::default() }
    }

    /// Says it to the worker.
    pub fn steer(&self, steer: Steer) {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        match steer {
            Steer::Pause => state.paused = true,
            Steer::Resume => state.paused = false,
            Steer::Promote => {
                state.paused = false;
                state.promoted = true;
            }
            Steer::Abort => {
                state.aborted = true;
                self.cancel.store(true, Ordering::SeqCst);
            }
        }
        changed.notify_all();
    }

    /// True while an operator holds it.
    pub fn is_paused(&self) -> bool {
        self.state.0.lock().paused
    }

    /// True when an operator gave it up.
    pub fn is_aborted(&self) -> bool {
        self.state.0.lock().aborted
    }

    /// Waits for a moment, at most until `until`. The time goes on while an operator holds the deploy; its end
    /// only counts when nobody does.
    pub fn watch(&self, until: Instant, moment: Duration) -> Watched {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        let over = |state: &State| state.promoted || (!state.paused && Instant::now() >= until);
        let gone = |state: &State| state.aborted || self.cancel.load(Ordering::SeqCst);
        if !over(&state) && !gone(&state) {
            let left = until.saturating_duration_since(Instant::now());
            let moment = if state.paused { moment } else { left.min(moment) };
            changed.wait_for(&mut state, moment);
        }
        match (gone(&state), over(&state)) {
            (true, _) => Watched::Cancelled,
            (false, true) => Watched::Over,
            (false, false) => Watched::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn an_operator_holds_hurries_and_gives_up() {
        let now = Instant::now();
        let later = now + Duration::from_secs(3600);
        let signals = Signals::new(false);
        assert_eq!(signals.watch(now, MOMENT), Watched::Over);
        assert_eq!(signals.watch(later, MOMENT), Watched::Again);
        signals.steer(Steer::Pause);
        assert!(signals.is_paused());
        assert_eq!(signals.watch(now, MOMENT), Watched::Again, "held, though the time is over");
        signals.steer(Steer::Resume);
        assert_eq!(signals.watch(now, MOMENT), Watched::Over);
        signals.steer(Steer::Pause);
        signals.steer(Steer::Promote);
        assert_eq!(signals.watch(later, MOMENT), Watched::Over, "not held any more");
        signals.steer(Steer::Abort);
        assert_eq!(signals.watch(later, MOMENT), Watched::Cancelled);
        assert!(signals.is_aborted() && signals.cancel.load(Ordering::SeqCst));
    }

    #[test]
    fn a_newer_save_ends_watching_without_being_an_abort() {
        let signals = Signals::new(false);
        signals.cancel.store(true, Ordering::SeqCst);
        assert_eq!(signals.watch(Instant::now(), MOMENT), Watched::Cancelled);
        assert!(!signals.is_aborted());
    }
}
