//! Somebody else changes the host behind zed's back: it is seen at once where the kernel tells, shown, and repaired
//! when asked to.

use zed_tests::Zed;
use zed_tests::free_port;

/// A daemon whose timer never runs within a test, with `hello` 1.0.0 deployed.
fn deployed() -> (Zed, u16) {
    let mut zed = Zed::stopped().with_args(&["--drift-interval", "86400"]);
    zed.launch();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    (zed, port)
}

#[test]
fn a_supervisor_that_is_killed_is_seen_without_waiting_for_the_timer_and_heals() {
    let (zed, port) = deployed();
    // The record that the supervisor keeps in the state directory names it.
    let record = zed.ok("cat $(cat $M/datasets/zed/mountpoint)/apps/hello/status.json");
    let record: serde_json::Value = serde_json::from_str(&record).expect("it is JSON");
    zed.ok(&format!("kill -9 {}", record["supervisor"]));
    zed.eventually("grep -qx 'state drift' $M/deploy/hello.status");
    assert!(zed.key("apps/hello/status", "drift").contains("supervisor"), "it says what is wrong");
    assert_eq!(zed.key("hosts/testhost/status", "state"), "drift");
    zed.ok("echo heal hello > $M/ctl");
    zed.eventually("grep -qx 'state converged' $M/deploy/hello.status");
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn a_link_or_release_folder_that_somebody_changed_is_shown_and_put_right() {
    let mut zed = Zed::stopped().with_args(&["--drift-interval", "86400"]);
    zed.launch();
    zed.ok("mkdir -p src/bin && printf '#!/bin/sh\nexec sleep 1000\n' > src/bin/run && chmod +x src/bin/run");
    zed.ok("tar -C src -czf app.tar.gz bin");
    zed.ok(concat!(
        "printf 'Deploy(datasets: {\"apps/t\": ()}, apps: {\"t\": (dataset: \"apps/t\", version: \"1\", ",
        "artifact: Tar(path: \"%s/app.tar.gz\"), command: [\"bin/run\"])})' $D > t.ron && ",
        "cp t.ron $M/deploy/ && sync $M/deploy/t.ron"
    ));
    let data = zed.key("apps/t/status", "mountpoint");
    assert_eq!(zed.ok(&format!("readlink {data}/current")), "releases/1");
    let look = |state: &str| {
        zed.ok("echo converge > $M/hosts/testhost/ctl");
        zed.eventually(&format!("grep -qx 'state {state}' $M/deploy/t.status"));
        zed.key("deploy/t.status", "verdict")
    };
    look("converged");
    for (deed, said) in [
        (format!("ln -sfn /tmp {data}/current"), "`current` in apps/t points to `/tmp`"),
        (format!("rm {data}/current"), "`current` in apps/t is not there"),
        (
            format!("chmod -R u+w {data}/releases; rm -r {data}/releases/1"),
            "release folder releases/1 in apps/t is gone",
        ),
    ] {
        zed.ok(&deed);
        let verdict = look("drift");
        assert!(verdict.contains(said), "{verdict}");
        zed.ok("echo heal t > $M/ctl");
        look("converged");
        zed.ok(&format!("test $(readlink {data}/current) = releases/1 && test -x {data}/current/bin/run"));
        zed.eventually("grep -qx 'state running' $M/apps/t/status");
    }
}

/// Somebody works on the store behind zed's back, which only ZFS lets them do.
#[cfg(feature = "zfs")]
mod zfs {
    use super::deployed;
    use zed_tests::Backend;
    use zed_tests::Zed;

    fn root(zed: &Zed) -> String {
        match zed.backend() {
            Backend::Zfs(root) => root.clone(),
            other => panic!("this test needs ZED_TEST_STORE=zfs, not {other:?}"),
        }
    }

    /// Looks now, and waits until the deploy is in this state.
    fn look(zed: &Zed, state: &str) -> String {
        zed.ok("echo converge > $M/hosts/testhost/ctl");
        zed.eventually(&format!("grep -qx 'state {state}' $M/deploy/hello.status"));
        zed.key("deploy/hello.status", "verdict")
    }

    #[test]
    fn changed_properties_and_marks_are_shown_and_heal() {
        let (zed, port) = deployed();
        let app = format!("{}/apps/hello", root(&zed));
        zed.ok("sed -i 's/\"apps\\/hello\": ()/\"apps\\/hello\": (compression: \"lz4\")/' hello.ron");
        zed.ok("grep -q lz4 hello.ron && cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
        look(&zed, "converged");
        for (change, said, wanted) in [
            (
                "set compression=off",
                "compression is `off`, the spec says `lz4`",
                "get -H -o value compression",
            ),
            ("set com.zed:role=x", "com.zed:role is `x`, zed wrote `app`", "get -H -o value com.zed:role"),
            (
                "set com.zed:version=9",
                "`com.zed:version` on apps/hello is `9`",
                "get -H -o value com.zed:version",
            ),
        ] {
            zed.ok(&format!("zfs {change} {app}"));
            let changed = zed.ok(&format!("zfs {wanted} {app}"));
            let verdict = look(&zed, "drift");
            assert!(verdict.contains(said), "{verdict}");
            assert_eq!(zed.ok(&format!("zfs {wanted} {app}")), changed, "it is left alone");
            zed.ok("echo heal hello > $M/ctl");
            look(&zed, "converged");
            assert_ne!(zed.ok(&format!("zfs {wanted} {app}")), changed, "healed");
        }
        zed.assert_version("hello", port, "1.0.0");
        let events = zed.ok("grep -c 'kind=healed' $(cat $M/datasets/zed/mountpoint)/events");
        assert_eq!(events.trim(), "3");
    }

    #[test]
    fn a_renamed_dataset_is_not_replaced_and_is_found_again() {
        let (zed, port) = deployed();
        let root = root(&zed);
        look(&zed, "converged");
        // Nobody may be in it while it is renamed.
        let record = zed.ok("cat $(cat $M/datasets/zed/mountpoint)/apps/hello/status.json");
        let record: serde_json::Value = serde_json::from_str(&record).expect("it is JSON");
        zed.ok(&format!("kill -9 {} {}", record["supervisor"], record["pid"]));
        look(&zed, "drift");
        zed.eventually(&format!("zfs rename {root}/apps/hello {root}/apps/moved"));
        // It was in drift before: what it says has to be of a new look.
        zed.ok("echo converge > $M/hosts/testhost/ctl");
        zed.eventually("grep -q '^verdict .*dataset apps/hello: it is gone' $M/deploy/hello.status");
        let verdict = zed.key("deploy/hello.status", "verdict");
        assert!(verdict.contains("`apps/moved` carries the mark of this deploy"), "{verdict}");
        zed.fails(&format!("zfs list {root}/apps/hello"));
        // Saving a new version does not begin anew either, and says so.
        zed.ok("sed -i 's/1.0.0/1.1.0/' $M/deploy/hello.ron");
        zed.fails("sync $M/deploy/hello.ron");
        zed.fails(&format!("zfs list {root}/apps/hello"));
        zed.ok(&format!("zfs rename {root}/apps/moved {root}/apps/hello"));
        look(&zed, "converged");
        zed.assert_version("hello", port, "1.1.0");
    }

    #[test]
    fn an_unmounted_dataset_is_shown_and_mounted_again() {
        let (zed, _) = deployed();
        let root = root(&zed);
        zed.ok("sed -i 's/datasets: {/datasets: {\"data\": (), /' hello.ron && grep -q data hello.ron");
        zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
        look(&zed, "converged");
        zed.ok(&format!("zfs unmount {root}/data"));
        let verdict = look(&zed, "drift");
        assert!(verdict.contains("dataset data: it should be mounted and is not"), "{verdict}");
        zed.ok("echo heal hello > $M/ctl");
        look(&zed, "converged");
        assert_eq!(zed.ok(&format!("zfs get -H -o value mounted {root}/data")), "yes");
    }
}
