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
