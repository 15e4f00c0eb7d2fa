//! A client that waits can be interrupted and killed, as on a terminal.

use crate::support::LIMIT;
use crate::support::Rig;
use crate::support::have;
use crate::support::until;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

/// Starts a waiter in a process group of its own and waits until its request is parked.
fn start(rig: &Rig, command: &str) -> Child {
    let before = rig.mount().waiting();
    let child = Command::new("bash")
        .args(["-c", &format!("exec {command}")])
        .current_dir(&rig.at)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until(&format!("`{command}` waits"), || rig.mount().waiting() > before);
    child
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits for the end. One that does not come is a client in state D, which only the end of the mount frees.
fn ended(child: &mut Child, what: &str) -> std::process::ExitStatus {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "{what} is still there");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

const WAITERS: [(&str, &str); 9] = [
    ("cat", "cat deploy/prod.wait"),
    ("cat", "cat events"),
    ("sync", "sync deploy/prod.ron"),
    ("sed", "sed -n p deploy/prod.wait"),
    ("dd", "dd if=deploy/prod.wait of=/dev/null"),
    ("python3", "python3 -c 'open(\"deploy/prod.wait\").read()'"),
    ("perl", "perl -e 'open F, \"<deploy/prod.wait\"; print <F>'"),
    ("head", "head -n 99 log"),
    ("bash", "bash -c 'echo slow > apps/hello/rollback'"),
];

/// A client blocked in a read, an fsync or a close ends at SIGINT, SIGTERM and SIGKILL, whatever program it is.
#[test]
fn waiting_clients_can_be_interrupted_and_killed() {
    let quiet = zed_fs::tree::TreeSettings { quiet: LIMIT * 3, settle: LIMIT * 3, ..crate::support::quick() };
    let Some(rig) = Rig::with(quiet) else { return };
    rig.ok("cp /etc/hostname deploy/prod.ron");
    for (tool, command) in WAITERS {
        if !have(tool) {
            continue;
        }
        for (name, number) in [("INT", 2), ("TERM", 15), ("KILL", 9)] {
            let what = format!("`{command}` after SIG{name}");
            let mut child = start(&rig, command);
            signal(&child, name);
            let status = ended(&mut child, &what);
            // python turns SIGINT into an exception, and bash waits for its own end.
            let by_signal = status.signal() == Some(number) || status.code().is_some_and(|code| code != 0);
            assert!(by_signal || tool == "bash", "{what}: {status:?}");
            until("nothing is parked any more", || rig.mount().waiting() == 0);
        }
    }
    // The kernel still asks: the last interrupt was served like the first.
    let mut child = start(&rig, "cat events");
    signal(&child, "INT");
    ended(&mut child, "the last waiter");
}

/// Interrupts that come while the answer is on its way hurt nobody: each client gets the answer or EINTR, and
/// later clients can still be interrupted.
#[test]
fn interrupts_race_with_answers() {
    let quiet = zed_fs::tree::TreeSettings { quiet: LIMIT * 3, ..crate::support::quick() };
    let Some(rig) = Rig::with(quiet) else { return };
    for round in 0..150 {
        let mut child = start(&rig, "tail -c +1 events");
        std::thread::scope(|scope| {
            scope.spawn(|| signal(&child, "INT"));
            scope.spawn(|| {
                let mut events = std::fs::File::options().append(true).open(&rig.fake.events).unwrap();
                std::io::Write::write_all(&mut events, format!("round {round}\n").as_bytes()).unwrap();
            });
        });
        ended(&mut child, "a reader that was interrupted while news came");
    }
    let mut child = start(&rig, "cat log");
    signal(&child, "KILL");
    ended(&mut child, "the reader after the race");
}
