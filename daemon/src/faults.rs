//! Places at which a run can be made to fail or to end abruptly, for fault tests.
//!
//! Chosen by value when the daemon is built up; the default does nothing. Owns no effect of its own except
//! the `kill` that a hidden command-line option asks for.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What a fault point does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Go on.
    None,
    /// Behave as if the step had failed.
    Fail,
    /// Behave as if the daemon had been killed here: nothing more is written, nothing is undone.
    Kill,
}

/// Asked at every fault point with its name, for instance `begin hello 3`.
#[derive(Clone)]
pub struct Faults(Arc<dyn Fn(&str) -> Fault + Send + Sync>);

impl Faults {
    /// No faults.
    pub fn none() -> Self {
        Self(Arc::new(|_| Fault::None))
    }

    /// Faults decided by a function, called from worker threads.
    pub fn by(decide: impl Fn(&str) -> Fault + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// `kill:N` ends this process with SIGKILL at the N-th point (from 1); `fail:N` makes it fail.
    pub fn parse(text: &str) -> Result<Self, String> {
        let usage = || format!("`{text}` is not `kill:N` or `fail:N`");
        let (kind, number) = text.split_once(':').ok_or_else(usage)?;
        let at: u64 = number.parse().map_err(|_| usage())?;
        let kill = match kind {
            "kill" => true,
            "fail" => false,
            _ => return Err(usage()),
        };
        let seen = AtomicU64::new(0);
        Ok(Self::by(move |_| {
            if seen.fetch_add(1, Ordering::Relaxed) + 1 != at {
                return Fault::None;
            }
            if kill {
                // The real thing: no destructor runs, no buffer is flushed.
                let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
            }
            Fault::Fail
        }))
    }

    /// What to do at this point.
    pub fn at(&self, point: &str) -> Fault {
        (self.0)(point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_point_fails_and_no_other() {
        let faults = Faults::parse("fail:2").unwrap();
        let seen: Vec<Fault> = (0..4).map(|_| faults.at("x")).collect();
        assert_eq!(seen, [Fault::None, Fault::Fail, Fault::None, Fault::None]);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "kill", "kill:x", "stop:1"] {
            assert!(Faults::parse(text).is_err(), "{text}");
        }
    }
}
