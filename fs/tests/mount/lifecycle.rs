//! The mount itself: killed daemons, other mounts, unmounting with clients, other users.

use crate::support::Fake;
use crate::support::LIMIT;
use crate::support::Rig;
use crate::support::install_logger;
use crate::support::quick;
use crate::support::shell;
use crate::support::until;
use nix::errno::Errno;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use zed_fs::Control;
use zed_fs::fuse::MountError;
use zed_fs::fuse::MountSettings;
use zed_fs::fuse::mount;
use zed_fs::tree::Tree;

/// Set for the program that [`a_killed_daemon_is_no_obstacle`] starts and kills.
const CHILD: &str = "ZED_FS_TEST_CHILD";

/// Not a test: what the next test starts as another process.
#[test]
fn child_serves_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    install_logger();
    let fake = Fake::new(dir.as_ref());
    let tree = Tree::new(fake as Arc<dyn Control>, quick()).unwrap();
    let _mounted = mount(&tree, &std::path::Path::new(&dir).join("zed"), &MountSettings::default()).unwrap();
    println!("\nserving");
    std::thread::sleep(LIMIT * 10);
}

/// T50. A daemon that was killed leaves a dead mount; the next start clears it and comes up. A tree that answers
/// and a mount of somebody else are refused, untouched.
#[test]
fn a_killed_daemon_is_no_obstacle() {
    let Some(rig) = Rig::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("zed");
    for closed in ["", " <&- >&- 2>&-"] {
        // Once with standard descriptors closed, where a mount could land on one of them.
        let program = std::env::current_exe().unwrap();
        let script = format!(
            "exec {} --exact lifecycle::child_serves_until_it_is_killed --nocapture{closed}",
            program.display()
        );
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Kept open: the child would end at its next line.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if closed.is_empty() {
            assert!(lines.by_ref().map(Result::unwrap).any(|line| line == "serving"));
        }
        until("the child serves", || fs::read_to_string(at.join("version")).is_ok());
        let busy = mount(&rig.tree, &at, &MountSettings::default());
        let busy = busy.map(|mounted| mounted.path().to_path_buf());
        assert!(matches!(busy, Err(MountError::Busy { .. })), "{busy:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        until("the mount is dead", || {
            fs::metadata(&at).is_err_and(|error| error.raw_os_error() == Some(Errno::ENOTCONN as i32))
        });
    }
    let mounted = mount(&rig.tree, &at, &MountSettings::default()).unwrap();
    assert_eq!(fs::read_to_string(at.join("version")).unwrap(), "0.1.0\n");
    mounted.unmount().unwrap();
    assert!(!at.join("version").exists());
    if nix::unistd::geteuid().is_root() {
        let tmpfs = shell("bash", dir.path(), "mount -t tmpfs none zed");
        if !tmpfs.status.success() {
            println!("NOT RUN: a foreign mount: {tmpfs:?}");
            return;
        }
        let foreign = mount(&rig.tree, &at, &MountSettings::default());
        let refused = matches!(&foreign, Err(MountError::Foreign { fs_type, .. }) if fs_type == "tmpfs");
        assert!(shell("bash", dir.path(), "umount zed").status.success(), "it is still there");
        assert!(refused);
    }
}

/// T51. Unmounting ends all waits, and works while clients have files open.
#[test]
fn unmounting_frees_the_waiters() {
    let Some(mut rig) = Rig::new() else { return };
    rig.ok("echo one > deploy/prod.ron");
    let open = fs::File::open(rig.path("help")).unwrap();
    let path = rig.path("deploy/prod.wait");
    let waiter = std::thread::spawn(move || fs::read(path).unwrap_err().raw_os_error());
    until("it waits", || rig.mount().waiting() == 1);
    rig.unmount();
    assert_eq!(waiter.join().unwrap(), Some(Errno::ENODEV as i32));
    assert!(!rig.path("help").exists());
    drop(open);
}

/// T52. Permission bits are checked against the caller: others read what is world-readable, and nobody but the
/// owner writes, unless the administrator gives the folder away.
#[test]
fn permissions_are_checked() {
    if !nix::unistd::geteuid().is_root() {
        println!("NOT RUN: becoming another user needs root");
        return;
    }
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo secret > deploy/prod.ron; chmod 600 deploy/prod.ron; chmod 755 deploy");
    let nobody = |script: &str| {
        rig.sh(&format!("setpriv --reuid 65534 --regid 65534 --clear-groups bash -c '{script}'"))
    };
    for allowed in
        ["cat version apps/hello/status deploy/prod.status", "ls -l deploy datasets", "head -n 1 events"]
    {
        assert!(nobody(allowed).status.success(), "{allowed}: {:?}", nobody(allowed));
    }
    for refused in [
        "echo ok > ctl",
        "echo @latest > apps/hello/rollback",
        "echo x > deploy/new.ron",
        "rm deploy/prod.ron",
        "cat deploy/prod.ron",
        "mv deploy/prod.ron deploy/x",
        "cp version deploy/prod.plan",
        "touch deploy/prod.ron",
        "chmod 666 ctl",
        "cat log",
        "cat apps/hello/env",
    ] {
        let output = nobody(refused);
        assert!(!output.status.success(), "{refused}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("ermission denied") || said.contains("not permitted"), "{refused}: {said}");
    }
    assert_eq!(rig.fake.saves("prod"), 1);
    rig.ok("chgrp 65534 deploy; chmod 2775 deploy");
    assert!(nobody("echo mine > deploy/new.ron; cat deploy/new.ron").status.success());
    assert_eq!(rig.ok("stat -c '%U %g %a' deploy/new.ron").trim(), "nobody 65534 644");
    assert_eq!(
        fs::metadata(rig.real("deploy"))
            .map(|real| std::os::unix::fs::MetadataExt::mode(&real) & 0o7777)
            .unwrap(),
        0o2775
    );
    // Removing is the folder's matter, as on any file system.
    assert!(nobody("rm -f deploy/prod.ron").status.success());
}

/// T53. A normal user mounts through fusermount3, under a folder of their own.
#[test]
fn a_normal_user_can_mount() {
    let dir = tempfile::tempdir().unwrap();
    // In a mount namespace of its own, where /dev/fuse is open to everybody, as distributions have it.
    let script = "command -v fusermount3 > /dev/null && command -v setpriv > /dev/null || { echo 'no fusermount3 or setpriv' >&2; exit 9; }\n\
        mknod fuse c 10 229 && chmod 666 fuse && mount --bind fuse /dev/fuse || exit 9\n\
        chmod 755 . && mkdir home && chown 65534 home\n\
        as='setpriv --reuid 65534 --regid 65534 --clear-groups'\n\
        $as env ZED_FS_TEST_CHILD=$PWD/home ./program --exact lifecycle::child_serves_until_it_is_killed > out 2>&1 &\n\
        for try in $(seq 1000); do $as cat home/zed/version 2> /dev/null && break; sleep 0.01; done\n\
        grep zed /proc/self/mounts; kill -9 $!; wait; umount -l home/zed; cat out >&2";
    fs::copy(std::env::current_exe().unwrap(), dir.path().join("program")).unwrap();
    fs::write(dir.path().join("script"), script).unwrap();
    let output = shell("bash", dir.path(), "test $(id -u) = 0 || exit 9; unshare -m bash script");
    if output.status.code() == Some(9) || output.stderr.starts_with(b"unshare: ") {
        println!("NOT RUN: mounting as a normal user: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("0.1.0\n"), "{output:?}");
    assert!(text.contains("home/zed fuse.zed ") && text.contains("user_id=65534"), "{text}");
}
