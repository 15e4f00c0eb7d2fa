//! Waiting for children: one call of `waitpid`, and what it says.

use super::policy::Outcome;
use nix::errno::Errno;

/// What `waitpid` says.
pub(super) enum Waited {
    /// One has ended.
    Ended {
        /// Its process id.
        pid: u32,
        /// How.
        outcome: Outcome,
        /// The kernel has written its memory to a file.
        core_dumped: bool,
    },
    /// There are some, and all run.
    AllRun,
    /// There are none.
    NoChildren,
}

/// Reaps one child, without waiting. Not nix's: that one loses the end of a process by a real-time signal.
pub(super) fn wait_for_any() -> Waited {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writing for the whole call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid == 0 {
            return Waited::AllRun;
        }
        if pid < 0 {
            match Errno::last() {
                Errno::EINTR => continue,
                _ => return Waited::NoChildren,
            }
        }
        let outcome = if libc::WIFEXITED(status) {
            Outcome::Exit(libc::WEXITSTATUS(status))
        } else {
            Outcome::Signal(libc::WTERMSIG(status))
        };
        let core_dumped = libc::WIFSIGNALED(status) && libc::WCOREDUMP(status);
        return Waited::Ended { pid: pid.cast_unsigned(), outcome, core_dumped };
    }
}
