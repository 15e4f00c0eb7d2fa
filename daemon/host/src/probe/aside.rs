//! Runs what may block on a thread of its own, so that a deadline and a cancellation are kept whatever it does.
//!
//! A name lookup cannot be interrupted: its thread is left behind and ends when the resolver gives up. How many may
//! be left behind is bounded, so that a dead name server cannot fill the host with threads.

use super::SLICE;
use super::Seen;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::time::Instant;

/// Threads that may be at work or left behind, in the whole process.
const MOST: usize = 512;

static AT_WORK: AtomicUsize = AtomicUsize::new(0);

/// A place among the [`MOST`]; given back when the thread ends, not when its caller stops waiting.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let more = |now: usize| (now < most).then_some(now + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(count))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks, and answers itself when `timeout` has passed or `cancel` was set.
pub(super) fn aside(
    timeout: Duration,
    cancel: &AtomicBool,
    ask: impl FnOnce(Instant) -> Seen + Send + 'static,
) -> Seen {
    let Some(place) = Place::take(&AT_WORK, MOST) else {
        return Err(format!("{MOST} earlier probes have not ended yet; does the name server answer?"));
    };
    let until = Instant::now() + timeout;
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        let _place = place;
        // Nobody listens any more when it came too late.
        let _ = sender.send(ask(until));
    });
    if let Err(e) = spawned {
        return Err(format!("no thread for it: {e}"));
    }
    // Its own deadline fires first and says more.
    let patience = until + SLICE * 5;
    loop {
        match receiver.recv_timeout(SLICE) {
            Ok(seen) => return seen,
            Err(RecvTimeoutError::Disconnected) => return Err("it ended without an answer".to_owned()),
            Err(RecvTimeoutError::Timeout) if cancel.load(Ordering::Relaxed) => {
                return Err("cancelled".to_owned());
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() >= patience => {
                return Err(no_answer(timeout));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// The words for a deadline that has passed.
pub(super) fn no_answer(timeout: Duration) -> String {
    format!("no answer within {timeout:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let count = AtomicUsize::new(0);
        let first = Place::take(&count, 2).expect("free");
        let _second = Place::take(&count, 2).expect("free");
        assert!(Place::take(&count, 2).is_none());
        drop(first);
        assert!(Place::take(&count, 2).is_some());
    }

    #[test]
    fn what_never_ends_is_left_behind() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let stuck = move |_| {
            let _ = held.recv();
            Ok("too late".to_owned())
        };
        let seen = aside(Duration::from_millis(10), &AtomicBool::new(false), stuck);
        assert_eq!(seen, Err("no answer within 10ms".to_owned()));
        let cancelled = aside(Duration::from_secs(1000), &AtomicBool::new(true), |_| {
            std::thread::sleep(Duration::from_secs(1));
            Ok("too late".to_owned())
        });
        assert_eq!(cancelled, Err("cancelled".to_owned()));
        drop(hold);
    }
}
