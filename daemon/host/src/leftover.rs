//! What is left of an app whose supervisor was killed: found by its record and by its session, and ended.
//!
//! Such an app has lost its log and its restarts, so it is ended and started anew, and not adopted. Nothing is
//! signalled that cannot be shown to be the app's: a process id counts only together with its start time, and a
//! session only while its number cannot have been given to somebody else. What made a session of its own *and* has
//! lost its parent is found in the app's cgroup; on a host without cgroups it escapes.

use crate::cgroup::Groups;
use crate::process::ProcessEntry;
use crate::process::descendants;
use crate::process::observe_processes;
use crate::record::StatusRecord;
use crate::types::HostErrorKind;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::time::Duration;
use std::time::Instant;

/// Between two looks at processes that are to end.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The processes of an app that has no supervisor.
fn find_leftovers(
    table: &[ProcessEntry],
    record: &StatusRecord,
    boot_id: &str,
    in_cgroups: &[u32],
) -> Vec<ProcessEntry> {
    if record.boot_id != boot_id {
        return Vec::new();
    }
    // The session's number is the supervisor's process id. While a process of the session lives, the kernel gives
    // that number to nobody; so if somebody else has it, the session is over.
    let reused =
        table.iter().any(|entry| entry.pid == record.supervisor && entry.start != record.supervisor_start);
    let mut found: Vec<ProcessEntry> = table
        .iter()
        .filter(|entry| {
            let program = record.pid == Some(entry.pid) && record.pid_start == Some(entry.start);
            let session = !reused && entry.session == record.supervisor && entry.pid != record.supervisor;
            program || session || in_cgroups.contains(&entry.pid)
        })
        .copied()
        .collect();
    let roots: Vec<u32> = found.iter().map(|entry| entry.pid).collect();
    for entry in descendants(table, &roots) {
        if !found.contains(&entry) {
            found.push(entry);
        }
    }
    found.retain(|entry| !entry.zombie);
    found
}

/// Ends the processes of an app that has no supervisor: TERM, `grace`, KILL; returns when none is left.
pub(crate) fn end_leftovers(
    record: &StatusRecord,
    boot_id: &str,
    grace: Duration,
    kill_deadline: Duration,
) -> Result<(), HostErrorKind> {
    let began = Instant::now();
    let groups = Groups::recorded(if record.boot_id == boot_id { &record.cgroups } else { &[] });
    let mut known: Vec<ProcessEntry> = Vec::new();
    let mut told: Vec<ProcessEntry> = Vec::new();
    loop {
        let table = observe_processes();
        // What was seen once stays the app's, even when the parent that led to it has ended since.
        known.retain(|entry| table.iter().any(|e| e.pid == entry.pid && e.start == entry.start && !e.zombie));
        for entry in find_leftovers(&table, record, boot_id, &groups.members()) {
            if !known.iter().any(|e| e.pid == entry.pid && e.start == entry.start) {
                tracing::warn!(pid = entry.pid, "ending a process that a killed supervisor has left behind");
                known.push(entry);
            }
        }
        if known.is_empty() {
            // The next start makes them anew, and says it when it cannot.
            let _ = groups.remove();
            return Ok(());
        }
        let passed = began.elapsed();
        if passed >= grace + kill_deadline {
            return Err(HostErrorKind::Deadline(grace + kill_deadline));
        }
        for entry in &known {
            let signal = if passed >= grace {
                Signal::SIGKILL
            } else if told.iter().any(|e| e.pid == entry.pid && e.start == entry.start) {
                continue;
            } else {
                Signal::SIGTERM
            };
            // It may have ended in the meantime.
            let _ = nix::sys::signal::kill(Pid::from_raw(entry.pid.cast_signed()), signal);
        }
        told.clone_from(&known);
        std::thread::sleep(LOOK_AGAIN);
    }
}
