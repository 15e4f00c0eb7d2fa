//! The daemon is killed, or made to fail, at every point of a deploy and of a rollback, one after another.
//! After each start the state is one of the two, data and state agree, and the app answers.

use zed_tests::Zed;
use zed_tests::free_port;
use zed_tests::on_zfs;

/// What is interrupted.
#[derive(Debug, Clone, Copy)]
enum Work {
    Deploy,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Fail,
}

/// Interrupts the work at its first, second, ... point until it has no more; gives how many there were.
fn at_every_point(work: Work, fault: Fault) -> usize {
    let mut zed = Zed::start();
    let port = free_port();
    zed.write_hello("0.0.0", port);
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    let (mut came, mut quiet) = (0, 0);
    for point in (1..200).step_by(stride()) {
        let old = format!("1.0.{point}");
        let new = format!("2.0.{point}");
        release(&zed, &old);
        if matches!(work, Work::Rollback) {
            release(&zed, &new);
        }
        let (before, after) = match work {
            Work::Deploy => (&old, &new),
            Work::Rollback => (&new, &old),
        };
        zed.signal(nix::sys::signal::Signal::SIGTERM);
        let kind = if fault == Fault::Kill { "kill" } else { "fail" };
        zed.set_fault(Some(format!("{kind}:{point}")));
        let fired = interrupted(&mut zed, work, fault, after);
        zed.set_fault(None);
        if zed.is_running() {
            zed.signal(nix::sys::signal::Signal::SIGTERM);
        }
        zed.launch();
        zed.eventually("grep -qx 'state running' $M/apps/hello/status");
        zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
        let settled = zed.sh("cat $M/deploy/hello.wait");
        assert_ne!(settled.code, 124, "point {point} of {work:?}: it settles");
        let is = zed.ok("cat $M/apps/hello/version");
        assert!(&is == before || &is == after, "point {point} of {work:?}: {before} to {after} gave {is}");
        zed.assert_version("hello", port, &is);
        // A deploy takes the data along; a rollback brings back that of its release.
        let wanted = if matches!(work, Work::Deploy) { &old } else { &is };
        assert_eq!(data(&zed), format!("of-{wanted}"), "point {point} of {work:?}: data and state agree");
        if !fired {
            assert_eq!(&is, after, "nothing was interrupted");
            quiet += 1;
            // Some points can only be killed at; a kill that does not come means that there are no more.
            if fault == Fault::Kill || quiet == 5 {
                return came;
            }
            continue;
        }
        quiet = 0;
        came += 1;
        // Nothing was lost: the other release can still be had.
        let other = if &is == before { after } else { before };
        if matches!(work, Work::Rollback) {
            zed.ok(&format!("grep -q ' version={other} ' $M/apps/hello/rollback"));
        }
    }
    panic!("{work:?} has no end of points");
}

/// Every point on the embedded store; some of them in the slow ZFS guest, where zedd's own fault tests take
/// every step.
fn stride() -> usize {
    if on_zfs() { 7 } else { 1 }
}

/// Deploys a version, and writes data that only this release has.
fn release(zed: &Zed, version: &str) {
    zed.ok(&format!("{} && sync $M/deploy/hello.ron", edit(version)));
    let mountpoint = zed.key("apps/hello/status", "mountpoint");
    zed.ok(&format!("echo of-{version} > {mountpoint}/data"));
}

fn edit(version: &str) -> String {
    format!("sed -i 's/version: \"[^\"]*\"/version: \"{version}\"/' $M/deploy/hello.ron")
}

fn data(zed: &Zed) -> String {
    let mountpoint = zed.key("apps/hello/status", "mountpoint");
    zed.ok(&format!("cat {mountpoint}/data"))
}

/// Starts a daemon with a fault and lets it do the work; true when the fault came.
fn interrupted(zed: &mut Zed, work: Work, fault: Fault, target: &str) -> bool {
    if zed.try_launch().is_err() {
        return true;
    }
    // Before its first look at the host the daemon refuses verbs.
    zed.sh(
        "while ! grep -qx 'state running' $M/apps/hello/status; do cat $M/version || break; sleep 0.1; done",
    );
    let ended = match work {
        Work::Deploy => zed.sh(&format!("{}; sync $M/deploy/hello.ron", edit(target))),
        // fsync gives the outcome, where `echo >` cannot.
        Work::Rollback => {
            let dd = "dd of=$M/apps/hello/rollback conv=notrunc,fsync status=none";
            zed.sh(&format!("echo {target} | {dd}"))
        }
    };
    match fault {
        Fault::Kill => !zed.sh("cat $M/version").ok() && zed.ended().is_some(),
        Fault::Fail => !ended.ok(),
    }
}

#[test]
fn deploy_killed_at_every_point() {
    assert!(at_every_point(Work::Deploy, Fault::Kill) >= if on_zfs() { 1 } else { 4 });
}

#[test]
fn rollback_killed_at_every_point() {
    assert!(at_every_point(Work::Rollback, Fault::Kill) >= if on_zfs() { 1 } else { 4 });
}

#[test]
fn deploy_failed_at_every_point() {
    assert!(at_every_point(Work::Deploy, Fault::Fail) >= if on_zfs() { 1 } else { 2 });
}

#[test]
fn rollback_failed_at_every_point() {
    assert!(at_every_point(Work::Rollback, Fault::Fail) >= if on_zfs() { 1 } else { 2 });
}
