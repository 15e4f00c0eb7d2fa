//! The restart policy: what follows the end of a run. Pure.

use crate::record::State;
use std::time::Duration;
use zed_spec::Backoff;
use zed_spec::Restart;
use zed_spec::render_size;

/// A run of this many first pauses is stable, and the count of restarts in a row begins again ...
const STABLE_PAUSES: u32 = 10;
/// ... but none shorter than this ...
const STABLE_AT_LEAST: Duration = Duration::from_secs(1);
/// ... and any of this length.
const STABLE_AT_MOST: Duration = Duration::from_secs(60);

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Exit(i32),
    Signal(i32),
    /// Memory was used up, and the kernel killed it, or something of it, for that: then with its exit code.
    OutOfMemory {
        exit: Option<i32>,
        kills: u64,
        limit: Option<u64>,
    },
    NotStarted(String),
}

/// What a shell or a container runtime exits with when its child was killed by KILL.
const EXIT_OF_KILLED: i32 = 128 + libc::SIGKILL;

impl Outcome {
    /// The same, with what the cgroups know: so many processes were killed because memory was used up.
    pub(super) fn with_oom_kills(self, kills: u64, limit: Option<u64>) -> Self {
        match self {
            Outcome::Signal(libc::SIGKILL) if kills > 0 => Outcome::OutOfMemory { exit: None, kills, limit },
            Outcome::Exit(code) if kills > 0 && code != 0 => {
                Outcome::OutOfMemory { exit: Some(code), kills, limit }
            }
            other => other,
        }
    }

    /// For people and for the record.
    pub(super) fn text(&self) -> String {
        match self {
            Outcome::Exit(code) => format!("exit {code}"),
            Outcome::Signal(number) => format!("signal {number}"),
            Outcome::OutOfMemory { exit, kills, limit } => {
                let limit = match limit {
                    Some(bytes) => format!("limit {}", render_size(*bytes)),
                    None => "no limit of its own: the host's memory was used up".to_owned(),
                };
                match exit {
                    None | Some(EXIT_OF_KILLED) => format!("oom killed ({limit})"),
                    Some(code) => format!("exit {code}, {kills} of its processes oom killed ({limit})"),
                }
            }
            Outcome::NotStarted(why) => format!("not started: {why}"),
        }
    }
}

fn backoff_of(restart: &Restart) -> Option<&Backoff> {
    match restart {
        Restart::Never => None,
        Restart::OnFailure(backoff) | Restart::Always(backoff) => Some(backoff),
    }
}

/// True when a run of this length ends a row of restarts.
pub(super) fn is_stable(restart: &Restart, lasted: Duration) -> bool {
    backoff_of(restart).is_some_and(|backoff| lasted >= stable_after(backoff))
}

/// A run at least this long was stable.
fn stable_after(backoff: &Backoff) -> Duration {
    backoff.backoff.saturating_mul(STABLE_PAUSES).clamp(STABLE_AT_LEAST, STABLE_AT_MOST)
}

/// What follows the end of a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Over(State),
    Pause(Duration),
}

/// Decides, with the restarts in a row so far.
pub(super) fn verdict(restart: &Restart, outcome: &Outcome, in_a_row: u32) -> Verdict {
    let well = *outcome == Outcome::Exit(0);
    let backoff = match restart {
        Restart::Never | Restart::OnFailure(_) if well => return Verdict::Over(State::Completed),
        Restart::Never => return Verdict::Over(State::Failed(outcome.text())),
        Restart::OnFailure(backoff) | Restart::Always(backoff) => backoff,
    };
    if backoff.give_up_after.is_some_and(|most| in_a_row >= most) {
        let text = format!("{}, gave up after {in_a_row} restarts in a row", outcome.text());
        return Verdict::Over(State::Failed(text));
    }
    let factor = 1u32.checked_shl(in_a_row).unwrap_or(u32::MAX);
    Verdict::Pause(backoff.backoff.saturating_mul(factor).min(backoff.max_backoff.max(backoff.backoff)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_restart_policy_decides() {
        let backoff = |give_up_after| Backoff {
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            give_up_after,
        };
        let pause = |seconds| Verdict::Pause(Duration::from_secs(seconds));
        let failed = |text: &str| Verdict::Over(State::Failed(text.to_owned()));
        let (never, exit, signal) = (Restart::Never, Outcome::Exit, Outcome::Signal);
        let cases = [
            (never.clone(), exit(0), 0, Verdict::Over(State::Completed)),
            (never.clone(), exit(3), 0, failed("exit 3")),
            (never, signal(9), 0, failed("signal 9")),
            (Restart::OnFailure(backoff(None)), exit(0), 4, Verdict::Over(State::Completed)),
            (Restart::OnFailure(backoff(None)), exit(1), 0, pause(1)),
            (Restart::Always(backoff(None)), exit(0), 0, pause(1)),
            (Restart::Always(backoff(None)), exit(0), 1, pause(2)),
            (Restart::Always(backoff(None)), signal(11), 5, pause(32)),
            (Restart::Always(backoff(None)), signal(11), 6, pause(60)),
            (Restart::Always(backoff(None)), signal(11), 1000, pause(60)),
            (Restart::Always(backoff(Some(2))), exit(1), 1, pause(2)),
            (
                Restart::Always(backoff(Some(2))),
                exit(1),
                2,
                failed("exit 1, gave up after 2 restarts in a row"),
            ),
            (
                Restart::Always(backoff(Some(0))),
                exit(1),
                0,
                failed("exit 1, gave up after 0 restarts in a row"),
            ),
        ];
        for (restart, outcome, in_a_row, expect) in cases {
            assert_eq!(verdict(&restart, &outcome, in_a_row), expect, "{restart:?} {outcome:?} {in_a_row}");
        }
    }

    #[test]
    fn a_kill_for_memory_is_told_from_others() {
        let oom = |outcome: Outcome, kills| outcome.with_oom_kills(kills, Some(64 << 20)).text();
        assert_eq!(oom(Outcome::Signal(9), 0), "signal 9");
        assert_eq!(oom(Outcome::Signal(9), 1), "oom killed (limit 64M)");
        assert_eq!(oom(Outcome::Exit(137), 1), "oom killed (limit 64M)");
        assert_eq!(oom(Outcome::Exit(1), 2), "exit 1, 2 of its processes oom killed (limit 64M)");
        assert_eq!(oom(Outcome::Exit(0), 1), "exit 0");
        assert_eq!(oom(Outcome::Signal(11), 1), "signal 11");
        let without = Outcome::Signal(9).with_oom_kills(1, None).text();
        assert_eq!(without, "oom killed (no limit of its own: the host's memory was used up)");
    }

    #[test]
    fn a_run_is_stable_after_ten_pauses_or_a_minute() {
        let backoff = |millis| Backoff {
            backoff: Duration::from_millis(millis),
            max_backoff: Duration::from_secs(600),
            give_up_after: None,
        };
        assert_eq!(stable_after(&backoff(1)), Duration::from_secs(1));
        assert_eq!(stable_after(&backoff(500)), Duration::from_secs(5));
        assert_eq!(stable_after(&backoff(30_000)), Duration::from_secs(60));
    }
}
