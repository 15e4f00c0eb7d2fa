//! The main way: save a spec, converge, read the state, change it, roll back, with plain tools.

use zed_tests::Zed;
use zed_tests::enough_attempts;
use zed_tests::free_port;
use zed_tests::look_until;
use zed_tests::processes_of;

/// A daemon with `hello` 1.0.0 deployed and serving.
fn deployed() -> (Zed, u16) {
    let zed = Zed::start();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    (zed, port)
}

/// The same, then 1.1.0 through `sed -i`, with data that each release wrote.
fn upgraded() -> (Zed, u16) {
    let (zed, port) = deployed();
    let data = zed.key("apps/hello/status", "mountpoint");
    zed.ok(&format!("echo of-1.0.0 > {data}/data"));
    zed.ok("sed -i 's/1.0.0/1.1.0/' $M/deploy/hello.ron && sync $M/deploy/hello.ron");
    zed.ok(&format!("echo of-1.1.0 > {data}/data"));
    zed.assert_version("hello", port, "1.1.0");
    (zed, port)
}

fn data(zed: &Zed) -> String {
    let mountpoint = zed.key("apps/hello/status", "mountpoint");
    zed.ok(&format!("cat {mountpoint}/data"))
}

#[test]
fn a_saved_spec_is_served_when_sync_returns() {
    let (zed, port) = deployed();
    zed.assert_version("hello", port, "1.0.0");
    assert_eq!(zed.key("apps/hello/status", "state"), "running");
    assert_eq!(zed.key("apps/hello/status", "health"), "healthy");
    assert_eq!(zed.key("deploy/hello.status", "state"), "converged");
    assert_eq!(zed.ok("cat $M/deploy/hello.errors"), "");
    assert_eq!(zed.ok("cmp hello.ron $M/deploy/hello.ron && cat $M/deploy/hello.plan"), "");
}

#[test]
fn saving_again_what_is_there_changes_nothing() {
    let (zed, _) = deployed();
    let before =
        zed.ok("grep -E '^(pid|run|deployed_at|restarts) ' $M/apps/hello/status; cat $M/apps/hello/history");
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    let after =
        zed.ok("grep -E '^(pid|run|deployed_at|restarts) ' $M/apps/hello/status; cat $M/apps/hello/history");
    assert_eq!(before, after);
}

#[test]
fn a_rollback_brings_back_data_and_state_and_is_held() {
    let (zed, port) = upgraded();
    assert_eq!(data(&zed), "of-1.1.0");
    zed.ok("echo @latest > $M/apps/hello/rollback");
    zed.eventually(
        "grep -qx 'version 1.0.0' $M/apps/hello/status && grep -qx 'state running' $M/apps/hello/status",
    );
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
    zed.assert_version("hello", port, "1.0.0");
    assert_eq!(data(&zed), "of-1.0.0");
    assert_ne!(zed.key("apps/hello/status", "held"), "-");

    // The spec still says 1.1.0, and looking again does not undo the rollback.
    assert_eq!(zed.ok("grep -c 1.1.0 $M/deploy/hello.ron"), "1");
    zed.ok("echo converge > $M/hosts/testhost/ctl; cat $M/deploy/hello.wait");
    zed.assert_version("hello", port, "1.0.0");

    // `release` gives it up: the host converges to the spec.
    zed.ok("echo release > $M/apps/hello/ctl");
    zed.eventually(
        "grep -qx 'version 1.1.0' $M/apps/hello/status && grep -qx 'state running' $M/apps/hello/status",
    );
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
    zed.assert_version("hello", port, "1.1.0");
    assert_eq!(zed.key("apps/hello/status", "held"), "-");
}

#[test]
fn saving_the_spec_again_ends_the_hold() {
    let (zed, port) = upgraded();
    zed.ok("echo @latest > $M/apps/hello/rollback");
    zed.eventually(
        "grep -qx 'version 1.0.0' $M/apps/hello/status && grep -qx 'state running' $M/apps/hello/status",
    );
    zed.ok(
        "touch -d yesterday hello.ron; cp $M/deploy/hello.ron again.ron; cp again.ron $M/deploy/hello.ron",
    );
    zed.ok("sync $M/deploy/hello.ron");
    zed.assert_version("hello", port, "1.1.0");
}

#[test]
fn a_rollback_can_be_taken_back_and_loses_nothing() {
    let (zed, port) = upgraded();
    zed.ok("echo 1.0.0 > $M/apps/hello/rollback");
    zed.eventually(
        "grep -qx 'version 1.0.0' $M/apps/hello/status && grep -qx 'state running' $M/apps/hello/status",
    );
    assert_eq!(data(&zed), "of-1.0.0");
    zed.ok("echo undo > $M/apps/hello/rollback");
    zed.eventually(
        "grep -qx 'version 1.1.0' $M/apps/hello/status && grep -qx 'state running' $M/apps/hello/status",
    );
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
    zed.assert_version("hello", port, "1.1.0");
    assert_eq!(data(&zed), "of-1.1.0");
}

#[test]
fn a_rollback_to_a_named_snapshot() {
    let (zed, port) = upgraded();
    let target = zed.ok("grep -E '^@[^l].* version=1.0.0 ' $M/apps/hello/rollback | cut -d' ' -f1");
    assert!(target.starts_with('@'), "{target}");
    zed.ok(&format!("echo {target} > $M/apps/hello/rollback"));
    zed.eventually(
        "grep -qx 'version 1.0.0' $M/apps/hello/status && grep -qx 'state running' $M/apps/hello/status",
    );
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn a_rollback_to_nonsense_is_refused_by_the_shell_and_explained() {
    let (zed, port) = deployed();
    let said = zed.fails("echo nonsense > $M/apps/hello/rollback");
    assert!(said.contains("write error"), "{said}");
    let why = zed.ok("cat $M/apps/hello/error");
    assert!(why.contains("nonsense"), "{why}");
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn killed_at_any_moment_the_app_answers_and_the_state_is_one_of_two() {
    let (mut zed, port) = deployed();
    let moments = if std::env::var_os("ZED_TEST_STORE").is_some() { 4 } else { 12 };
    let mut version = 0;
    for moment in 0..moments {
        let old = zed.ok("cat $M/apps/hello/version");
        version += 1;
        let new = format!("1.0.{version}");
        // From right after the save to well after the end of the deploy.
        let pause = f64::from(moment * moment) * 0.012;
        zed.ok(&format!("sed -i 's/{old}/{new}/' $M/deploy/hello.ron; sleep {pause}"));
        zed.kill9();
        zed.launch();
        // The spec was saved before the kill: after the start it converges.
        zed.ok("sync $M/deploy/hello.ron");
        zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
        zed.assert_version("hello", port, &new);
        assert_eq!(zed.ok("ls $M/apps"), "hello");
        let running = zed.ok(&format!("pgrep -fc '[h]ttp.server {port}' || true"));
        assert_eq!(running, "1", "exactly one instance runs after kill {moment}");
    }
}

#[test]
fn killed_during_rollbacks_the_state_is_one_of_two() {
    let (mut zed, port) = upgraded();
    let moments = if std::env::var_os("ZED_TEST_STORE").is_some() { 4 } else { 10 };
    for moment in 0..moments {
        let before = zed.ok("cat $M/apps/hello/version");
        let target = if before == "1.1.0" { "1.0.0" } else { "1.1.0" };
        let pause = f64::from(moment) * 0.02;
        zed.ok(&format!("echo {target} > $M/apps/hello/rollback; sleep {pause}"));
        zed.kill9();
        zed.launch();
        zed.eventually("grep -qx 'state running' $M/apps/hello/status");
        zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
        let after = zed.ok("cat $M/apps/hello/version");
        assert!(after == before || after == target, "kill {moment}: {before} to {target} gave {after}");
        zed.assert_version("hello", port, &after);
        assert_eq!(data(&zed), format!("of-{after}"), "data and state agree after kill {moment}");
    }
}

#[test]
fn an_app_is_undisturbed_by_a_restart_of_zedd() {
    let (mut zed, port) = deployed();
    let pid = zed.key("apps/hello/status", "pid");
    let status = zed.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{}", zed.daemon_log());
    let mounted = zed.ok("grep -c \" $M \" /proc/self/mounts || true");
    assert_eq!(mounted, "0", "SIGTERM unmounts");
    assert_eq!(zed.ok(&format!("curl -sS 127.0.0.1:{port}/version.txt")), "1.0.0");
    zed.launch();
    // Ready is before the first look at the host.
    zed.eventually("grep -qx 'state running' $M/apps/hello/status");
    assert_eq!(zed.key("apps/hello/status", "pid"), pid);
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn a_dead_mount_is_cleared_at_the_next_start() {
    let (mut zed, port) = deployed();
    zed.kill9();
    let said = zed.fails("ls $M");
    assert!(said.contains("not connected"), "{said}");
    zed.launch();
    zed.eventually("grep -qx 'state running' $M/apps/hello/status");
    zed.assert_version("hello", port, "1.0.0");
    assert_eq!(zed.ok("grep -c \" $M \" /proc/self/mounts"), "1");
}

#[test]
fn removing_a_spec_stops_the_app_and_keeps_its_data() {
    let (zed, port) = deployed();
    let mountpoint = zed.key("apps/hello/status", "mountpoint");
    zed.ok(&format!("echo precious > {mountpoint}/data; rm $M/deploy/hello.ron"));
    zed.eventually(&format!("! curl -s 127.0.0.1:{port}/version.txt"));
    zed.eventually("! test -e $M/deploy/hello.status");
    assert_eq!(zed.ok(&format!("cat {mountpoint}/data")), "precious");
    assert!(zed.ok("ls $M/datasets/apps").contains("hello"));
    // Declared again it takes the same data.
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    zed.assert_version("hello", port, "1.0.0");
    assert_eq!(zed.ok(&format!("cat {mountpoint}/data")), "precious");
}

#[test]
fn a_probe_that_fails_rolls_back_and_keeps_the_evidence() {
    let (zed, port) = deployed();
    let mountpoint = zed.key("apps/hello/status", "mountpoint");
    zed.ok(&format!("echo precious > {mountpoint}/data"));
    let attempts = enough_attempts();
    zed.ok(&format!(
        "sed -i -e 's/1.0.0/2.0.0/' -e 's/echo $ZED_VERSION > version.txt/echo spoiled > data/' \
         -e 's#/version.txt\")\\]#/missing\")], attempts: {attempts}, interval: \"100ms\"#' $M/deploy/hello.ron"
    ));
    let said = zed.fails("sync $M/deploy/hello.ron");
    assert!(said.contains("Input/output error"), "{said}");
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
    zed.assert_version("hello", port, "1.0.0");
    assert_eq!(zed.ok(&format!("cat {mountpoint}/data")), "precious");
    assert_eq!(zed.key("deploy/hello.status", "state"), "failed");
    let verdict = zed.key("deploy/hello.status", "verdict");
    assert!(verdict.contains("404"), "the verdict says what the probe saw: {verdict}");
    assert!(zed.ok("cat $M/apps/hello/history").contains("kind=failed"), "the failed branch is kept");
    assert!(zed.ok("find . -path '*failures*' -type f | head -1; true").contains("failures"));
    // Nothing goes on trying by itself; mending the spec does.
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    assert_eq!(zed.key("deploy/hello.status", "state"), "converged");
}

#[test]
fn nothing_is_left_when_the_spec_is_gone_and_zedd_has_ended() {
    let (mut zed, _) = deployed();
    zed.ok("rm $M/deploy/hello.ron");
    zed.eventually(
        "! test -e $M/apps/hello || grep -qE '^state (stopped|gone|declared)' $M/apps/hello/status",
    );
    zed.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(look_until(|| processes_of(zed.dir()), Vec::is_empty), Vec::<i32>::new());
}
