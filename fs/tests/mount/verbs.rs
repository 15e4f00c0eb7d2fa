//! Verb files: judged in the write, waited for in the close.

use crate::support::LIMIT;
use crate::support::Rig;
use crate::support::Told;
use crate::support::have;
use crate::support::shell;
use crate::support::until;
use nix::errno::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc;
use zed_ctl::Code;
use zed_fs::VerbFile;
use zed_fs::errno_of;

fn open(rig: &Rig, name: &str) -> File {
    File::options().write(true).open(rig.path(name)).unwrap()
}

fn write(file: &mut File, text: &str) -> Result<(), Errno> {
    let written =
        file.write(text.as_bytes()).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap()))?;
    assert_eq!(written, text.len(), "one write is one verb");
    Ok(())
}

fn fsync(file: &File) -> Result<(), Errno> {
    file.sync_all().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap()))
}

/// T10. A verb file is judged inside the write: whatever shell wrote it reports the refusal, and `error` beside
/// it says why until the next success.
#[test]
fn refusals_reach_every_shell() {
    let Some(rig) = Rig::new() else { return };
    for sh in ["bash", "dash", "busybox sh"] {
        if !have(sh.split(' ').next().unwrap()) {
            continue;
        }
        let (program, script) = match sh {
            "busybox sh" => ("sh", "busybox sh -c 'echo nonsense > apps/hello/rollback'"),
            _ => (sh, "echo nonsense > apps/hello/rollback"),
        };
        let refused = shell(program, &rig.at, script);
        assert!(!refused.status.success(), "{sh}");
        let said = String::from_utf8_lossy(&refused.stderr).to_lowercase();
        assert!(said.contains("invalid argument") || said.contains("i/o error"), "{sh}: {said}");
        assert!(rig.read("apps/hello/error").starts_with("unknown verb `nonsense`\nhint: "), "{sh}");
        rig.ok("echo ok > apps/hello/rollback");
        assert_eq!(rig.read("apps/hello/error"), "", "{sh}");
    }
}

/// T11. One write is one verb, a write of several lines is several; a newline at the end may be absent. The
/// first refusal makes the handle refuse until it is opened again.
#[test]
fn the_first_refusal_sticks_to_the_handle() {
    let Some(rig) = Rig::new() else { return };
    let mut ctl = open(&rig, "ctl");
    assert_eq!(write(&mut ctl, "ok 1"), Ok(()));
    assert_eq!(write(&mut ctl, "ok 2\nok 3\n"), Ok(()));
    assert_eq!(write(&mut ctl, "ok 4\nno busy\nok 5\n"), Err(Errno::EBUSY));
    assert_eq!(rig.read("error").lines().next(), Some("line 2: no: busy"));
    assert_eq!(write(&mut ctl, "ok 6"), Err(Errno::EBUSY));
    drop(ctl);
    assert_eq!(write(&mut open(&rig, "ctl"), "ok 7"), Ok(()));
    let verbs: Vec<String> = rig
        .fake
        .told()
        .into_iter()
        .map(|told| match told {
            Told::Verb(caller, VerbFile::Root, verb) => {
                assert_eq!(caller.uid, nix::unistd::geteuid().as_raw());
                verb
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(verbs, ["ok 1", "ok 2", "ok 3", "ok 4", "no busy", "ok 7"]);
}

/// T12. The error number says the kind of a refusal; nothing written is EINVAL, more than 4 KiB is EFBIG.
#[test]
fn the_errno_says_the_kind() {
    let Some(rig) = Rig::new() else { return };
    for code in Code::ALL {
        let verb = format!("no {}", code.as_str());
        assert_eq!(write(&mut open(&rig, "apps/hello/ctl"), &verb), Err(errno_of(code.errno())), "{verb}");
    }
    for (text, expected) in [
        ("\n".to_owned(), Errno::EINVAL),
        ("  \n".to_owned(), Errno::EINVAL),
        ("x".repeat(4097), Errno::EFBIG),
        ("\u{fffd}".repeat(2000), Errno::EFBIG),
        (format!("ok {}", "x".repeat(4096)), Errno::EFBIG),
    ] {
        assert_eq!(write(&mut open(&rig, "ctl"), &text), Err(expected), "{} bytes", text.len());
    }
    let mut raw = open(&rig, "ctl");
    assert_eq!(raw.write(b"ok \xff\xfe").unwrap_err().raw_os_error(), Some(Errno::EINVAL as i32));
}

/// T13. A close returns when what was accepted has ended, so `echo @latest > rollback` returns when the
/// rollback is done; the close that shells make before they write anything does not wait.
#[test]
fn a_close_waits_for_what_was_accepted() {
    let Some(rig) = Rig::new() else { return };
    let mut child = Command::new("bash")
        .args(["-c", "echo slow > apps/hello/rollback"])
        .current_dir(&rig.at)
        .spawn()
        .unwrap();
    until("the close waits", || rig.mount().waiting() == 1);
    assert_eq!(child.try_wait().unwrap(), None);
    // Others are served meanwhile.
    assert_eq!(rig.read("apps/hello/version"), "1.1.0\n");
    rig.fake.end_ticket(rig.fake.last_ticket(), Ok("done".to_owned()));
    assert!(child.wait().unwrap().success());
}

/// T14. When something accepted fails later, the close fails with EIO, for programs that look at it, and `error`
/// holds the text, also when nobody waited.
#[test]
fn a_late_failure_is_told() {
    let Some(rig) = Rig::new() else { return };
    for (tool, script) in [
        ("cp", "echo boom > ../verb; cp ../verb apps/hello/ctl"),
        ("dd", "echo boom | dd of=apps/hello/ctl conv=notrunc status=none"),
        ("tee", "echo boom | tee apps/hello/ctl > /dev/null"),
        ("python3", "python3 -c 'with open(\"apps/hello/ctl\", \"w\") as f: f.write(\"boom\")'"),
    ] {
        if !have(tool) {
            continue;
        }
        let failed = rig.sh(script);
        let said = String::from_utf8_lossy(&failed.stderr);
        assert!(!failed.status.success(), "{tool}: {failed:?}");
        assert!(said.contains("nput/output error"), "{tool}: {said}");
        assert!(rig.read("apps/hello/error").starts_with("boom: it burst\n"), "{tool}");
        rig.ok("echo ok > apps/hello/ctl");
    }
    let mut ctl = open(&rig, "ctl");
    write(&mut ctl, "slow").unwrap();
    let ticket = rig.fake.last_ticket();
    // The process dies without waiting.
    let (sender, closed) = mpsc::channel();
    std::thread::spawn(move || {
        drop(ctl);
        sender.send(()).unwrap();
    });
    until("the close waits", || rig.mount().waiting() == 1);
    rig.fake.end_ticket(ticket, Err(zed_ctl::CtlError::new(Code::NeedsOperator, "a step cannot be undone")));
    closed.recv_timeout(LIMIT).unwrap();
    assert!(rig.read("error").starts_with("a step cannot be undone\n"));
}

/// T15. `fsync` of a verb file gives the outcome of what was accepted.
#[test]
fn fsync_of_a_verb_is_its_outcome() {
    let Some(rig) = Rig::new() else { return };
    let mut ctl = open(&rig, "ctl");
    assert_eq!(fsync(&ctl), Ok(()));
    write(&mut ctl, "slow").unwrap();
    let ticket = rig.fake.last_ticket();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| fsync(&ctl));
        until("fsync waits", || rig.mount().waiting() == 1);
        rig.fake.end_ticket(ticket, Ok(String::new()));
        assert_eq!(waiter.join().unwrap(), Ok(()));
    });
    write(&mut ctl, "boom").unwrap();
    assert_eq!(fsync(&ctl), Err(Errno::EIO));
    // Dropping it would fail the same way, which nobody could see.
    // SAFETY: the descriptor is closed once; the file is forgotten.
    assert_eq!(unsafe { nix::libc::close(ctl.as_raw_fd()) }, -1);
    std::mem::forget(ctl);
}

/// T16. Reading a verb file gives what can be written to it: verbs, or targets of a rollback.
#[test]
fn verb_files_read_back_their_vocabulary() {
    let Some(rig) = Rig::new() else { return };
    assert!(rig.read("apps/hello/ctl").contains("restart"));
    assert!(rig.read("apps/hello/rollback").starts_with("@latest version=1.0.0 "));
    assert!(rig.read("help").contains("rollback"));
    for name in ["ctl", "apps/hello/ctl", "hosts/h1/ctl"] {
        assert_eq!(
            rig.ok(&format!("stat -c '%s' {name}")).trim(),
            rig.read(name).len().to_string(),
            "{name}"
        );
    }
}

/// T17. `cp plan/NAME.plan deploy/` hands that plan over; a host that has moved since refuses it with ESTALE.
/// It need not be deployed yet, and a temporary file renamed over it does the same.
#[test]
fn a_plan_is_applied_by_copying_it() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("cp plan/next.plan deploy/; cp plan/next.plan deploy/prod.plan; cp -p plan/next.plan.json deploy/prod.plan");
    let plan = |name: &str, text: &str| Told::Plan(name.to_owned(), text.as_bytes().to_vec());
    let expected = [plan("next", "+ web\n"), plan("prod", "+ web\n"), plan("prod", "{\"steps\": []}\n")];
    assert_eq!(rig.fake.told(), expected);
    rig.ok("cat plan/next.plan > deploy/.tmp; mv deploy/.tmp deploy/web.plan; ! ls -A deploy | grep -q tmp");
    assert_eq!(rig.fake.told().last(), Some(&plan("web", "+ web\n")));
    let refused = rig.sh("echo old > ../old.plan; cp ../old.plan deploy/prod.plan");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Stale file handle"), "{refused:?}");
    assert!(rig.read("error").starts_with("the host has moved since the plan was made\n"));
}
