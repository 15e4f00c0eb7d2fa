//! zedctl through the mount, through the socket, and with no daemon at all.

use zed_tests::Zed;
use zed_tests::free_port;

/// How zedctl reaches the daemon.
const WAYS: &[&str] = &["--mount $M", "--socket $S"];

fn deployed() -> (Zed, u16) {
    let zed = Zed::start();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    (zed, port)
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_deploy_and_a_rollback_with_zedctl_alone() {
    for way in WAYS {
        let zed = Zed::start();
        let port = free_port();
        zed.write_hello("1.0.0", port);
        zed.ok(&format!("zedctl {way} apply hello.ron"));
        zed.assert_version("hello", port, "1.0.0");
        zed.ok(&format!("sed -i 's/1.0.0/1.1.0/' hello.ron; zedctl {way} plan hello.ron > plan.txt; true"));
        let plan = zed.ok("cat plan.txt");
        assert!(plan.contains("1.1.0"), "{way}: {plan}");
        zed.ok(&format!("zedctl {way} apply hello.ron; zedctl {way} wait hello"));
        zed.assert_version("hello", port, "1.1.0");
        let history = zed.ok(&format!("zedctl {way} history hello"));
        assert!(history.contains("1.0.0") && history.contains("1.1.0"), "{way}: {history}");
        zed.ok(&format!("zedctl {way} rollback hello @latest"));
        zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
        zed.assert_version("hello", port, "1.0.0");
        let status = zed.ok(&format!("zedctl {way} status"));
        assert!(status.contains("hello") && status.contains("1.0.0"), "{way}: {status}");
        let refused = zed.fails(&format!("zedctl {way} rollback hello nonsense"));
        assert!(refused.contains("nonsense"), "{way}: {refused}");
    }
}

#[test]
fn json_is_the_same_through_mount_and_socket() {
    let (zed, _) = deployed();
    for command in ["status", "history hello", "diff"] {
        let [by_mount, by_socket] = [WAYS[0], WAYS[1]].map(|way| {
            let ended = zed.sh(&format!("zedctl {way} --json {command} 2> stderr"));
            json(&ended.output)
        });
        assert_eq!(by_mount, by_socket, "{command}");
    }
}

#[test]
fn exit_status_tells_kinds_of_failure_apart() {
    let (zed, _) = deployed();
    for (script, code) in [
        ("zedctl --mount $M status", 0),
        ("zedctl --mount $M frobnicate", 2),
        ("zedctl --mount $M rollback hello 9.9.9", 1),
        ("zedctl --mount $D/nowhere status", 1),
    ] {
        let ended = zed.sh(script);
        assert_eq!(ended.code, code, "{script}: {}", ended.output);
    }
}

#[test]
fn the_store_alone_is_enough_to_be_rescued() {
    let (mut zed, port) = deployed();
    zed.ok("sed -i 's/1.0.0/1.1.0/' $M/deploy/hello.ron && sync $M/deploy/hello.ron");
    zed.signal(nix::sys::signal::Signal::SIGTERM);
    let status = zed.ok("zedctl --offline --store $STORE status");
    assert!(status.contains("hello") && status.contains("1.1.0"), "{status}");
    zed.ok("zedctl --offline --store $STORE rollback hello @latest");
    let status = zed.ok("zedctl --offline --store $STORE status");
    assert!(status.contains("1.0.0"), "{status}");
    // The daemon that comes up accepts what was done without it, and holds it.
    zed.launch();
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
    zed.eventually("grep -qx 'version 1.0.0' $M/apps/hello/status");
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn what_is_imported_needs_no_change() {
    let mut zed = Zed::stopped();
    let state = zed.dir().join("state").to_string_lossy().into_owned();
    zed = zed.with_args(&["--state", &state]);
    zed.launch();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    zed.signal(nix::sys::signal::Signal::SIGTERM);
    // The spec is lost, and what was known of it; what it made is still there.
    zed.ok("rm state/deploy/hello.ron state/deploys/hello.json");
    zed.launch();
    assert_eq!(zed.ok("ls $M/deploy"), "");
    zed.eventually("test -e $M/datasets/apps/hello");
    zed.ok("zedctl --mount $M import > imported.ron");
    zed.ok("cp imported.ron $M/plan/hello.ron");
    let plan = zed.eventually("grep '^deploy hello' $M/plan/hello.plan");
    assert!(plan.ends_with("nothing to do"), "{plan}\n{}", zed.ok("cat imported.ron"));
    let pid = zed.key("apps/hello/status", "pid");
    zed.ok("cp imported.ron $M/deploy/hello.ron && sync $M/deploy/hello.ron");
    assert_eq!(zed.key("apps/hello/status", "pid"), pid, "the app is not disturbed");
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn a_bug_report_holds_what_is_needed_and_no_secret() {
    let zed = Zed::start();
    let port = free_port();
    let spec = zed.write_hello("1.0.0", port);
    let text = std::fs::read_to_string(&spec).expect("the spec is read");
    let text = text.replace("env: {", "env: {\"PASSWORD\": \"correct-horse-battery\", ");
    std::fs::write(&spec, text).expect("the spec is written");
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    zed.ok(
        "zedctl --mount $M bugreport -o report.tar.gz && mkdir report && tar -xzf report.tar.gz -C report",
    );
    for part in ["apps/hello", "events", "about"] {
        assert_ne!(zed.ok(&format!("find report -path '*{part}*' | head -1")), "", "{part} is not in it");
    }
    assert_eq!(zed.ok("grep -rl correct-horse-battery report || true"), "");
}
