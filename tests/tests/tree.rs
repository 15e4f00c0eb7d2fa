//! What the files of the tree promise: verdicts, waiting, interruption, permissions, plans, drift, streams.

use std::time::Duration;
use zed_tests::Zed;
use zed_tests::free_port;
use zed_tests::read_within;

fn deployed() -> (Zed, u16) {
    let zed = Zed::start();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    (zed, port)
}

#[test]
fn a_spec_that_does_not_parse_is_refused_where_tools_can_see_it() {
    let (zed, port) = deployed();
    for (how, script) in [
        (
            "cp",
            "sed 's/datasets/datsets/' hello.ron > bad.ron; cp bad.ron $M/deploy/hello.ron; sync $M/deploy/hello.ron",
        ),
        ("mv", "sed 's/datasets/datsets/' hello.ron > $M/deploy/.tmp; mv $M/deploy/.tmp $M/deploy/hello.ron"),
    ] {
        let said = zed.fails(script);
        assert!(said.contains("Bad message") || said.contains("Input/output error"), "{how}: {said}");
        let errors = zed.ok("cat $M/deploy/hello.errors");
        assert!(errors.contains("datsets") && errors.contains("did you mean"), "{how}: {errors}");
        zed.assert_version("hello", port, "1.0.0");
        zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
        assert_eq!(zed.ok("cat $M/deploy/hello.errors"), "", "{how}");
    }
}

#[test]
fn every_bad_example_says_what_its_first_line_expects() {
    let zed = Zed::start();
    let examples = xtask::root().join("specs/examples/bad");
    let mut seen = 0;
    for entry in std::fs::read_dir(&examples).expect("the examples are there") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("the example is read");
        let expect = text.lines().next().and_then(|l| l.strip_prefix("// expect ")).expect("what to expect");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let stem = name.trim_end_matches(".ron");
        zed.sh(&format!("cp {} $M/deploy/{name}", path.display()));
        zed.sh(&format!("cat $M/deploy/{stem}.wait"));
        let errors = zed.ok(&format!("cat $M/deploy/{stem}.errors"));
        for word in expect.split(' ') {
            assert!(errors.contains(word), "{name}: `{word}` is not in\n{errors}");
        }
        assert_eq!(zed.key(&format!("deploy/{stem}.status"), "state"), "rejected", "{name}");
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn fsync_through_the_writer_gives_the_parsers_verdict_at_once() {
    let zed = Zed::start();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    zed.ok("dd if=hello.ron of=$M/deploy/hello.ron conv=fsync status=none");
    let said =
        zed.fails("echo 'Deploy(datsets: {})' > bad.ron; dd if=bad.ron of=$M/deploy/bad.ron conv=fsync");
    assert!(said.contains("Bad message"), "{said}");
    zed.ok("sync $M/deploy/hello.ron");
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn reading_wait_blocks_until_the_verdict() {
    let zed = Zed::start();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    let said = zed.ok("cp hello.ron $M/deploy/ && cat $M/deploy/hello.wait");
    assert!(said.contains("converged"), "{said}");
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn a_waiter_can_be_interrupted_and_killed() {
    let zed = Zed::start();
    let port = free_port();
    // A probe that cannot pass for ten minutes: everything that waits for the verdict is parked.
    zed.write_hello("1.0.0", port);
    zed.ok("sed -i 's#/version.txt\")\\]#/never\")], attempts: 6000, interval: \"100ms\"#' hello.ron; cp hello.ron $M/deploy/");
    for (signal, code) in [("INT", "130"), ("KILL", "137"), ("TERM", "143")] {
        for waiter in ["cat $M/deploy/hello.wait", "sync $M/deploy/hello.ron", "cat $M/events"] {
            // `timeout` starts the waiter, waits half a second, sends the signal and tells how it ended.
            let script = format!("timeout --foreground -s {signal} 0.5 {waiter} > /dev/null; echo $?");
            let ended = zed.sh_within(Duration::from_secs(60), &script);
            let last = ended.output.lines().last().unwrap_or_default().to_owned();
            let expected = if signal == "KILL" { code } else { "124" };
            assert_eq!(last, expected, "{waiter} with SIG{signal}: {}", ended.output);
        }
    }
    zed.ok("rm $M/deploy/hello.ron");
}

#[test]
fn reading_everything_ends_and_changes_nothing() {
    let (zed, port) = deployed();
    let before = zed.ok("cat $M/apps/hello/status $M/deploy/hello.status");
    // Streams block at their end by promise; everything else is read whole.
    zed.ok("find $M -type f ! -name events ! -name log ! -name '*.wait' -exec cat {} + > all.txt");
    zed.ok("ls -lR $M > /dev/null");
    assert_eq!(zed.ok("cat $M/apps/hello/status $M/deploy/hello.status"), before);
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn sizes_are_true_so_that_tar_copies_whole_files() {
    let (zed, _) = deployed();
    let mismatch = zed.ok(
        "for f in $M/help $M/version $M/apps/hello/status $M/hosts/testhost/status $M/deploy/hello.ron; do \
         [ $(stat -c %s $f) = $(cat $f | wc -c) ] || echo $f; done",
    );
    assert_eq!(mismatch, "");
    let copied =
        zed.ok("tar -C $M -cf - deploy/hello.ron apps/hello/version | tar -xOf - apps/hello/version");
    assert_eq!(copied, "1.0.0");
}

#[test]
fn verbs_are_judged_inside_write() {
    let (zed, _) = deployed();
    for (script, errno) in [
        ("echo frobnicate > $M/apps/hello/ctl", "Invalid argument"),
        (
            "printf '' | dd of=$M/apps/hello/ctl bs=1 count=0 status=none; echo -n '' >> $M/ctl; printf '\\n' > $M/ctl",
            "Invalid argument",
        ),
        (
            "head -c 5000 /dev/zero | tr '\\0' a | dd bs=5000 count=1 iflag=fullblock of=$M/ctl conv=notrunc status=none",
            "File too large",
        ),
        ("echo retry nosuch > $M/ctl", "No such file or directory"),
        ("echo 9.9.9 > $M/apps/hello/rollback", "No such file or directory"),
    ] {
        let said = zed.fails(script);
        assert!(said.contains(errno), "`{script}`: {said}");
    }
    let why = zed.ok("cat $M/apps/hello/error");
    assert!(why.contains("9.9.9"), "{why}");
}

#[test]
fn other_users_may_read_and_not_write() {
    let (zed, port) = deployed();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: becoming another user needs root");
        return;
    }
    zed.ok("chmod 755 $D");
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    assert_eq!(zed.ok(&format!("{nobody} cat $M/apps/hello/version")), "1.0.0");
    for write in [
        "echo @latest > $M/apps/hello/rollback",
        "echo stop > $M/apps/hello/ctl",
        "rm -f $M/deploy/hello.ron",
        "touch $M/deploy/x.ron",
    ] {
        let said = zed.fails(&format!("{nobody} sh -c '{write}'"));
        assert!(said.contains("denied") || said.contains("not permitted"), "{write}: {said}");
    }
    zed.assert_version("hello", port, "1.0.0");
}

#[test]
fn a_spec_placed_in_the_folder_on_disk_converges() {
    let mut zed = Zed::stopped();
    let state = zed.dir().join("state");
    zed = zed.with_args(&["--state", &state.to_string_lossy()]);
    zed.launch();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    // As git and rsync do: a temporary name in the same folder, renamed over.
    zed.ok("cp hello.ron state/deploy/.hello.tmp && mv state/deploy/.hello.tmp state/deploy/hello.ron");
    zed.eventually("test -e $M/deploy/hello.ron && grep -qx 'state converged' $M/deploy/hello.status");
    zed.assert_version("hello", port, "1.0.0");
    zed.ok("sed 's/1.0.0/1.1.0/' hello.ron > state/deploy/hello.ron");
    zed.eventually(
        "grep -qx 'version 1.1.0' $M/apps/hello/status && grep -qx 'state converged' $M/deploy/hello.status",
    );
    zed.assert_version("hello", port, "1.1.0");
}

#[test]
fn drift_is_reported_and_healed_when_asked() {
    let (zed, port) = deployed();
    let pid = zed.key("apps/hello/status", "pid");
    zed.ok("echo stop > $M/apps/hello/ctl");
    zed.eventually("grep -qx 'state stopped' $M/apps/hello/status");
    zed.ok("echo start > $M/apps/hello/ctl");
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
    let mountpoint = zed.key("apps/hello/status", "mountpoint");
    assert_ne!(zed.key("apps/hello/status", "pid"), pid);
    // A hand kills the program and its supervisor behind zedd's back.
    let supervisor = zed.ok(&format!("ps -o ppid= -p {} | tr -d ' '", zed.key("apps/hello/status", "pid")));
    zed.ok(&format!("kill -9 {supervisor} {}; true", zed.key("apps/hello/status", "pid")));
    zed.ok("echo converge > $M/hosts/testhost/ctl");
    zed.eventually("! grep -qx 'drift -' $M/apps/hello/status");
    assert_eq!(zed.key("deploy/hello.status", "state"), "drift");
    let verdict = zed.key("deploy/hello.status", "verdict");
    assert!(
        verdict.contains("heal") || verdict.contains("Heal"),
        "the verdict says what repairs it: {verdict}"
    );
    zed.ok("echo heal hello > $M/ctl");
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/version.txt"));
    zed.eventually("grep -qx 'drift -' $M/apps/hello/status");
    zed.assert_version("hello", port, "1.0.0");
    assert!(std::path::Path::new(&mountpoint).is_dir());
}

#[test]
fn a_plan_is_shown_without_effect_and_applied_as_shown() {
    let (zed, port) = deployed();
    zed.ok("sed 's/1.0.0/1.1.0/' hello.ron > $M/plan/hello.ron");
    let plan = zed.eventually("grep . $M/plan/hello.plan");
    assert!(plan.contains("1.1.0"), "{plan}");
    zed.assert_version("hello", port, "1.0.0");
    zed.ok("echo apply hello > $M/ctl");
    zed.eventually(
        "grep -qx 'version 1.1.0' $M/apps/hello/status && grep -qx 'state converged' $M/deploy/hello.status",
    );
    zed.assert_version("hello", port, "1.1.0");
}

#[test]
fn a_plan_made_from_an_older_state_is_refused() {
    let (zed, port) = deployed();
    zed.ok("sed 's/1.0.0/1.2.0/' hello.ron > $M/plan/hello.ron");
    zed.eventually("grep 1.2.0 $M/plan/hello.plan && cp $M/plan/hello.plan old.plan");
    zed.ok("sed -i 's/1.0.0/1.1.0/' $M/deploy/hello.ron && sync $M/deploy/hello.ron");
    let said = zed.fails("cp old.plan $M/deploy/hello.plan");
    assert!(said.contains("Stale"), "{said}");
    zed.assert_version("hello", port, "1.1.0");
    // A fresh look is accepted.
    zed.ok("sed 's/1.0.0/1.2.0/' hello.ron > $M/plan/hello.ron");
    zed.eventually("grep '1.1.0.*1.2.0' $M/plan/hello.plan");
    zed.ok("cp $M/plan/hello.plan $M/deploy/hello.plan");
    zed.eventually(
        "grep -qx 'version 1.2.0' $M/apps/hello/status && grep -qx 'state converged' $M/deploy/hello.status",
    );
    zed.assert_version("hello", port, "1.2.0");
}

#[test]
fn the_events_stream_tells_what_happens_while_it_is_read() {
    let zed = Zed::start();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    let heard = zed.ok("(timeout 180 cat $M/events & echo $! > reader; wait) > heard.txt 2>/dev/null & \
         cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron; \
         for i in $(seq 600); do grep -q converged heard.txt && break; sleep 0.1; done; \
         kill $(cat reader); cat heard.txt");
    assert!(heard.contains("hello") && heard.contains("converged"), "{heard}");
}

#[test]
fn an_apps_output_is_in_its_log() {
    let (zed, port) = deployed();
    zed.ok(&format!("curl -s 127.0.0.1:{port}/marker-in-the-log > /dev/null"));
    zed.eventually("timeout 2 cat $M/apps/hello/log | grep -q marker-in-the-log");
}

#[test]
fn metrics_are_prometheus_text() {
    let (zed, _) = deployed();
    let metrics = zed.ok("cat $M/metrics");
    let bad: Vec<_> = metrics
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .filter(|l| l.rsplit_once(' ').is_none_or(|(_, value)| value.parse::<f64>().is_err()))
        .collect();
    assert!(metrics.contains("# TYPE") && bad.is_empty(), "{bad:?}\n{metrics}");
}

#[test]
fn without_a_deploy_the_tree_is_whole() {
    let zed = Zed::start();
    let top = zed.ok("ls $M");
    for name in [
        "apps", "ctl", "datasets", "deploy", "error", "events", "help", "hosts", "log", "metrics", "plan",
        "version",
    ] {
        assert!(top.lines().any(|l| l == name), "{name} is not in\n{top}");
    }
    assert_eq!(zed.ok("ls $M/hosts"), "testhost");
    assert_eq!(zed.key("hosts/testhost/status", "state"), "converged");
    let json = zed.ok("cat $M/hosts/testhost/status.json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("status.json is JSON");
    assert_eq!(json["name"], "testhost");
    assert!(
        read_within(&zed.mount().join("help"), zed_tests::DEADLINE).is_some_and(|h| h.contains("rollback"))
    );
}
