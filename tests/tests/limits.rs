//! Limits and post-mortems as an operator sees them: from a spec to `apps/APP/crash`.

use zed_tests::Zed;

/// The host's fact says which limits it can keep; a test that needs another one says that it was not run.
fn can_limit(zed: &Zed, name: &str) -> bool {
    let limits = zed.key("hosts/testhost/facts", "limits");
    let can = limits.split(' ').any(|limit| limit == name);
    if !can {
        eprintln!("not run: `{name}` cannot be limited on this host, only {limits}");
    }
    can
}

/// Saves a spec of one app that runs a shell script.
fn save(zed: &Zed, limits: &str, script: &str) {
    let spec = format!(
        r#"Deploy(
    datasets: {{"apps/greedy": ()}},
    apps: {{
        "greedy": (
            dataset: "apps/greedy",
            version: "1.0.0",
            command: ["/bin/sh", "-c", "{script}"],
            limits: ({limits}),
            restart: OnFailure(backoff: "1h", max_backoff: "1h"),
        ),
    }},
)
"#
    );
    std::fs::write(zed.dir().join("greedy.ron"), spec).expect("the spec can be written");
}

#[test]
fn an_app_that_exceeds_its_memory_leaves_a_post_mortem() {
    let zed = Zed::start();
    if !can_limit(&zed, "memory") {
        return;
    }
    let script = "echo waiting; while [ ! -e go ]; do sleep 0.05; done; echo filling; \
                  x=0123456789abcdef; while :; do x=$x$x; done";
    save(&zed, r#"memory: "32M""#, script);
    zed.ok("cp greedy.ron $M/deploy/ && sync $M/deploy/greedy.ron");
    assert_eq!(zed.ok("cat $M/apps/greedy/crash $M/apps/greedy/crash.json"), "");
    let data = zed.key("apps/greedy/status", "mountpoint");
    zed.ok(&format!("touch {data}/go"));
    zed.eventually("grep -qx 'state backoff' $M/apps/greedy/status");
    assert_eq!(zed.key("apps/greedy/status", "last_exit"), "oom killed (limit 32M)");
    let crash = zed.ok("cat $M/apps/greedy/crash");
    for line in [
        "app greedy",
        "version 1.0.0",
        "ended oom killed (limit 32M)",
        "oom yes",
        "memory_limit 32M",
        "restarts 0",
    ] {
        assert!(crash.lines().any(|shown| shown == line), "{line:?} in {crash}");
    }
    assert!(crash.contains(" out filling"), "{crash}");
    zed.eventually("grep -q 'kind=app-exited .*app=greedy.*oom killed' $M/events");
    // A stop on purpose is no crash.
    zed.ok("echo stop > $M/apps/greedy/ctl");
    assert_eq!(zed.ok("grep -c ^crash $M/apps/greedy/crash"), "1");
    assert_eq!(zed.ok("ls -l $M/apps/greedy/crash | cut -c 1-10"), "-rw-r-----");
}

#[test]
fn numbers_of_lines_go_on_over_restarts_of_the_app_and_of_zedd() {
    let mut zed = Zed::start();
    save(&zed, "nofile: 64", "echo up; ulimit -n; exec sleep 1000");
    zed.ok("cp greedy.ron $M/deploy/ && sync $M/deploy/greedy.ron");
    zed.ok("echo restart > $M/apps/greedy/ctl");
    zed.eventually("test $(grep -c ' out 64' $M/apps/greedy/log) = 2");
    zed.kill9();
    zed.launch();
    zed.eventually("grep -qx 'state running' $M/apps/greedy/status");
    zed.ok("echo restart > $M/apps/greedy/ctl");
    zed.eventually("test $(grep -c ' out 64' $M/apps/greedy/log) = 3");
    let numbered = zed.ok(
        "awk '$2 == \"zed\" && $3 == \"line\" { n = $4 - 1; marks++ } { print n += 1 } END { print marks }' \
         $M/apps/greedy/log",
    );
    let numbers: Vec<usize> = numbered.lines().map(|line| line.parse().expect("a number")).collect();
    let (marks, lines) = numbers.split_last().expect("lines");
    assert_eq!(*marks, 1, "one mark at the begin of one file");
    assert_eq!(*lines, (1..=lines.len()).collect::<Vec<_>>());
}

#[test]
fn a_limit_that_the_host_cannot_keep_is_refused_by_name() {
    let zed = Zed::start();
    save(&zed, "nofile: 2000000000", "exec sleep 1000");
    let told = zed.sh("cp greedy.ron $M/deploy/ && sync $M/deploy/greedy.ron");
    assert!(!told.ok(), "{}", told.output);
    let status = zed.ok("cat $M/deploy/greedy.status");
    assert!(status.contains("the limit nofile 2000000000 cannot be enforced on this host"), "{status}");
}
