//! Apps under real supervisors: they outlive the daemon, never run twice, and stop completely.

#![expect(clippy::disallowed_methods, reason = "tests start programs")]

#[expect(dead_code, reason = "this program uses a part of it")]
mod common;

use common::Place;
use common::always;
use common::instance;
use common::lives;
use common::signal;
use common::wait_for;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use zed_host::Host;
use zed_host::HostErrorKind;
use zed_host::LocalHost;
use zed_plan::ProcessStatus;
use zed_spec::Restart;

const GRACE: Duration = Duration::from_secs(10);

#[test]
fn an_app_outlives_the_daemon_and_is_adopted_by_the_next() {
    let place = Place::new();
    // Another process plays the daemon: it starts the app and dies at once.
    let status = std::process::Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "a_daemon_that_starts_an_app_and_dies", "--ignored", "--nocapture"])
        .env("ZED_TEST_FOLDER", place.folder.path())
        .status()
        .expect("run");
    assert!(!status.success(), "it kills itself");
    let pid = place.pid("web");
    assert!(lives(pid));
    // The same start again changes nothing; another one is refused; a stop is obeyed.
    let next = place.new_daemon();
    let same = place.script("web", "echo up; exec sleep 1000");
    next.start(&same).expect("the same");
    assert_eq!(place.pid("web"), pid);
    let mut other = same.clone();
    other.run.run_hash = "h2".to_owned();
    assert_eq!(next.start(&other).expect_err("another").kind, HostErrorKind::Busy);
    next.stop(&instance("web"), GRACE).expect("stop");
    assert!(!lives(pid));
    assert_eq!(place.info("web").observed.status, ProcessStatus::Stopped);
    assert!(place.log("web").contains(" out up\n"), "{}", place.log("web"));
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn a_daemon_that_starts_an_app_and_dies() {
    let folder = std::path::PathBuf::from(std::env::var_os("ZED_TEST_FOLDER").expect("set by the caller"));
    let place = Place::new();
    let mut start = place.script("web", "echo up; exec sleep 1000");
    start.directory = folder.join("data");
    LocalHost::new(folder.join("state"), common::supervisor()).start(&start).expect("start");
    signal(std::process::id(), Signal::SIGKILL);
}

#[test]
fn many_threads_and_daemons_that_start_the_same_app_start_it_once() {
    let place = Place::new();
    let start = place.script("one", "echo run >> runs; exec sleep 1000");
    let shared = place.new_daemon();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let host = if n % 2 == 0 { shared.clone() } else { place.new_daemon() };
            let start = &start;
            scope.spawn(move || host.start(start).expect("start"));
        }
    });
    let pid = place.pid("one");
    let runs = || std::fs::read_to_string(place.data().join("runs")).ok();
    assert_eq!(wait_for("the first line", runs), "run\n");
    assert_eq!(place.log("one").matches("zed started").count(), 1);
    assert!(lives(pid));
}

#[test]
fn of_many_releases_started_at_once_one_wins_and_the_others_are_refused() {
    let place = Place::new();
    let base = place.script("one", "echo run >> runs; exec sleep 1000");
    let results: Vec<Result<(), HostErrorKind>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (host, mut start) = (place.new_daemon(), base.clone());
                start.run.run_hash = format!("h{n}");
                scope.spawn(move || host.start(&start).map_err(|e| e.kind))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("thread")).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert!(results.iter().all(|r| matches!(r, Ok(()) | Err(HostErrorKind::Busy))), "{results:?}");
    assert_eq!(place.log("one").matches("zed started").count(), 1);
}

#[test]
fn a_second_supervisor_on_the_same_folder_gives_way() {
    let place = Place::new();
    place.host.start(&place.script("web", "exec sleep 1000")).expect("start");
    let (pid, run) = (place.pid("web"), std::fs::read_to_string(place.files("web").join("run.json")));
    let record: serde_json::Value = serde_json::from_str(&run.expect("run.json")).expect("JSON");
    let request = serde_json::json!({
        "format": 1, "token": record["token"], "run": record["run"], "directory": record["directory"],
        "environment": {}, "identity": null,
    });
    let output = run_supervisor(&place.files("web"), &request);
    assert_eq!(output.trim(), "\"Locked\"");
    assert_eq!(place.pid("web"), pid);
    // And one that is launched after the app was stopped does nothing, whoever launched it.
    place.host.stop(&instance("web"), GRACE).expect("stop");
    assert_eq!(run_supervisor(&place.files("web"), &request).trim(), "\"Superseded\"");
    assert_eq!(place.info("web").observed.status, ProcessStatus::Stopped);
}

fn run_supervisor(folder: &std::path::Path, request: &serde_json::Value) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new(common::supervisor().path)
        .arg(folder)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("spawn");
    child.stdin.take().expect("stdin").write_all(request.to_string().as_bytes()).expect("write");
    String::from_utf8(child.wait_with_output().expect("wait").stdout).expect("text")
}

#[test]
fn a_program_that_ignores_term_is_killed_after_the_grace() {
    let place = Place::new();
    place
        .host
        .start(&place.script("deaf", "trap '' TERM; echo ready; while :; do sleep 1; done"))
        .expect("start");
    place.wait_for_log("deaf", "out ready");
    let pid = place.pid("deaf");
    place.host.stop(&instance("deaf"), Duration::from_millis(100)).expect("stop");
    assert!(!lives(pid));
    assert_eq!(place.info("deaf").last_exit.as_deref(), Some("signal 9"));
}

#[test]
fn a_program_that_ends_in_time_ends_in_its_own_way() {
    let place = Place::new();
    let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    place.host.start(&place.script("polite", script)).expect("start");
    place.wait_for_log("polite", "out ready");
    place.host.stop(&instance("polite"), GRACE).expect("stop");
    assert!(place.log("polite").contains(" out bye\n"));
    assert_eq!(place.info("polite").last_exit.as_deref(), Some("exit 7"));
}

#[test]
fn what_left_the_group_is_found_and_ended_too() {
    let place = Place::new();
    // A child in a session of its own, which ignores TERM, and whose parent ends: the classic daemon.
    let script =
        "(setsid sh -c 'trap \"\" TERM; echo $$ > stray; while :; do sleep 1; done' &) ; exec sleep 1000";
    place.host.start(&place.script("forker", script)).expect("start");
    let stray = place.number("stray");
    place.host.stop(&instance("forker"), Duration::from_millis(50)).expect("stop");
    assert!(!lives(stray), "{stray} still runs");
}

#[test]
fn what_starts_more_and_more_processes_and_is_deaf_to_term_is_ended_too() {
    let place = Place::new();
    // Each of them ignores TERM, has a session of its own, and starts the next before it sleeps.
    let mark = format!("{}.43", 10_000_000 + u64::from(std::process::id()));
    let script = format!(
        "trap '' TERM; echo $$ > first; n=0; \
         while :; do setsid sh -c 'trap \"\" TERM; sleep {mark} & sleep {mark}' & \
         n=$((n+1)); [ $n -lt 200 ] || sleep 0.01; done"
    );
    let mut start = place.script("hydra", &script);
    start.run.restart = Restart::Never;
    place.host.start(&start).expect("start");
    place.number("first");
    place.host.stop(&instance("hydra"), Duration::from_millis(50)).expect("stop");
    let sleepers = || {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.windows(mark.len()).any(|part| part == mark.as_bytes())).count()
    };
    assert_eq!(sleepers(), 0);
    assert_eq!(place.info("hydra").observed.status, ProcessStatus::Stopped);
    assert!(!place.files("hydra").join("crash.json").exists(), "a stop on purpose is no crash");
}

#[test]
fn a_restart_waits_until_nothing_of_the_run_before_is_left() {
    let place = Place::new();
    let script = "echo $$ >> mains; setsid sh -c 'echo $$ > stray.new; mv stray.new stray.$PPID; exec sleep 1000' & \
                  while [ ! -e stray.$$ ]; do sleep 0.01; done; exit 1";
    let mut start = place.script("crash", script);
    start.run.restart = always(Duration::from_millis(1), Some(2));
    place.host.start(&start).expect("start");
    let info = place.wait_for_status("crash", |status| matches!(status, ProcessStatus::Failed(_)));
    assert_eq!(
        info.observed.status,
        ProcessStatus::Failed("exit 1, gave up after 2 restarts in a row".to_owned())
    );
    assert_eq!((info.restarts, info.last_exit.as_deref()), (2, Some("exit 1")));
    let mains = std::fs::read_to_string(place.data().join("mains")).expect("mains");
    assert_eq!(mains.lines().count(), 3);
    for main in mains.lines() {
        assert!(!lives(place.number(&format!("stray.{main}"))), "of {main}");
    }
}

#[test]
fn a_crashing_app_is_shown_in_backoff_and_can_be_stopped_there() {
    let place = Place::new();
    place.host.start(&place.script("crash", "echo broken >&2; exit 3")).expect("start");
    let info = place.wait_for_status("crash", |status| *status == ProcessStatus::Backoff { restarts: 0 });
    assert_eq!(info.last_exit.as_deref(), Some("exit 3"));
    assert!(place.log("crash").contains(" err broken\n"));
    place.host.stop(&instance("crash"), GRACE).expect("stop");
    assert_eq!(place.info("crash").observed.status, ProcessStatus::Stopped);
}

#[test]
fn a_one_shot_completes_or_fails_for_good() {
    let place = Place::new();
    let cases = [
        ("good", "exit 0", ProcessStatus::Completed),
        ("bad", "exit 4", ProcessStatus::Failed("exit 4".to_owned())),
        ("hit", "kill -9 $$", ProcessStatus::Failed("signal 9".to_owned())),
        ("real-time", "kill -40 $$", ProcessStatus::Failed("signal 40".to_owned())),
    ];
    for (name, script, expect) in cases {
        let mut start = place.script(name, script);
        start.run.restart = Restart::Never;
        place.host.start(&start).expect("start");
        let info = place.wait_for_status(name, |s| !matches!(s, ProcessStatus::Running { .. }));
        assert_eq!(info.observed.status, expect, "{name}");
    }
}

#[test]
fn what_cannot_be_executed_is_refused_and_does_not_run() {
    let place = Place::new();
    let write = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = place.data().join(name);
        std::fs::write(&path, text).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    write("plain", "#!/bin/sh\n", 0o644);
    write("lost", "#!/no/such/interpreter\n", 0o755);
    let cases: [(&[&str], &str); 6] = [
        (&["/no/such/program"], "the program `/no/such/program` does not exist"),
        (&["no-such-program"], "the program `no-such-program` is in none of the folders /usr/bin:/bin"),
        (&["./plain"], "is not executable (chmod +x it)"),
        (&["./lost"], "its interpreter (after `#!`) or loader"),
        (&["/"], "is a folder"),
        (&[], "the command is empty"),
    ];
    for (command, text) in cases {
        let error = place.host.start(&place.command("wrong", command)).expect_err("refused").to_string();
        assert!(error.starts_with("failed to start `app wrong`: ") && error.contains(text), "{error}");
        let seen =
            place.host.observe_app(&instance("wrong")).expect("observe").map(|info| info.observed.status);
        assert!(matches!(seen, None | Some(ProcessStatus::Failed(_))), "{seen:?}");
    }
    let mut nowhere = place.command("wrong", &["/bin/true"]);
    nowhere.directory = "/no/such/folder".into();
    let error = place.host.start(&nowhere).expect_err("refused").kind;
    assert_eq!(
        error,
        HostErrorKind::NotFound("the working directory `/no/such/folder` does not exist".into())
    );
    let mut nobody = place.command("wrong", &["/bin/true"]);
    nobody.run.user = Some("no-such-user".to_owned());
    let error = place.host.start(&nobody).expect_err("refused").kind;
    assert_eq!(error, HostErrorKind::NotFound("there is no user `no-such-user` on this host".into()));
    // And a right start afterwards works.
    place.host.start(&place.command("wrong", &["sleep", "1000"])).expect("start");
    assert!(lives(place.pid("wrong")));
}

#[test]
fn the_environment_is_exactly_what_was_asked_for_and_is_never_written_down() {
    let place = Place::new();
    let mut start = place.command("env", &["env"]);
    start.run.restart = Restart::Never;
    start.environment.insert("TOKEN".to_owned(), "s3cret-value".to_owned());
    place.host.start(&start).expect("start");
    place.wait_for_status("env", |status| *status == ProcessStatus::Completed);
    let log = place.log("env");
    let mut seen: Vec<&str> =
        log.lines().filter_map(|line| line.split_once(" out ")).map(|(_, l)| l).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["PATH=/usr/bin:/bin", "TOKEN=s3cret-value"]);
    for file in ["run.json", "status.json"] {
        let path = place.files("env").join(file);
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(!text.contains("s3cret-value"), "{file}");
        assert_eq!(std::fs::metadata(&path).expect("stat").mode() & 0o777, 0o600, "{file}");
    }
    assert_eq!(std::fs::metadata(place.files("env")).expect("stat").mode() & 0o777, 0o700);
}

#[test]
fn an_app_whose_supervisor_was_killed_is_gone_and_is_replaced_and_not_doubled() {
    let place = Place::new();
    let script = "echo $$ > main; setsid sh -c 'echo $$ > child; exec sleep 1000' & wait";
    let start = place.script("lone", script);
    place.host.start(&start).expect("start");
    let (main, child) = (place.number("main"), place.number("child"));
    let supervisor = place.supervisor_pid("lone");
    signal(supervisor, Signal::SIGKILL);
    wait_for("the supervisor's end", || (!lives(supervisor)).then_some(()));
    let info = place.info("lone");
    assert_eq!(info.observed.status, ProcessStatus::Gone { rebooted: false });
    assert_eq!(info.last_exit, Some(format!("its supervisor was killed; pid {main} runs on without one")));
    std::fs::remove_file(place.data().join("child")).expect("remove");
    place.host.start(&start).expect("start again");
    assert!(!lives(main) && !lives(child), "the run before is over");
    let pid = place.pid("lone");
    assert!(pid != main && lives(pid));
    // The same with a stop.
    let (main, child, supervisor) = (pid, place.number("child"), place.supervisor_pid("lone"));
    signal(supervisor, Signal::SIGKILL);
    wait_for("the supervisor's end", || (!lives(supervisor)).then_some(()));
    place.host.stop(&instance("lone"), GRACE).expect("stop");
    assert!(!lives(main) && !lives(child));
    assert_eq!(place.info("lone").observed.status, ProcessStatus::Stopped);
}

#[cfg(target_os = "linux")]
#[test]
fn what_apps_do_by_themselves_is_noticed_and_what_was_asked_for_is_not() {
    let place = Place::new();
    place.host.start(&place.script("old", "sleep 1000")).expect("start");
    let (tell, told) = std::sync::mpsc::channel();
    let host = place.new_daemon();
    // It watches until the test program ends.
    std::thread::spawn(move || host.watch(&mut |instance| drop(tell.send(instance.to_string()))));
    let next = || loop {
        let name = told.recv_timeout(Duration::from_secs(60)).expect("something is noticed");
        if !name.starts_with("first") {
            return name;
        }
    };
    // It does not say when it begins: until then nothing is noticed.
    let begun = |number: u32| {
        place.host.start(&place.script(&format!("first{number}"), "exit 3")).expect("start");
        told.recv_timeout(Duration::from_millis(500)).is_ok()
    };
    assert!((0..100).any(begun), "it never began");
    place.host.start(&place.script("new", "sleep 1000")).expect("start");
    place.host.stop(&instance("new"), Duration::ZERO).expect("stop");
    signal(place.supervisor_pid("old"), Signal::SIGKILL);
    assert_eq!(next(), "old", "its supervisor was killed");
    place.host.start(&place.script("short", "exit 3")).expect("start");
    assert_eq!(next(), "short", "it ended");
    place.host.stop(&instance("short"), Duration::ZERO).expect("stop");
}

#[test]
fn a_process_id_that_was_given_to_somebody_else_is_left_alone() {
    let place = Place::new();
    place.host.start(&place.script("old", "exec sleep 1000")).expect("start");
    place.host.stop(&instance("old"), GRACE).expect("stop");
    // The record says that this stranger's number was the app's, but with another start time.
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().expect("spawn");
    let path = place.files("old").join("status.json");
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
    record["state"] = "Running".into();
    record["pid"] = stranger.id().into();
    record["pid_start"] = 1.into();
    std::fs::write(&path, record.to_string()).expect("write");
    let daemon = place.new_daemon();
    let status = |host: &LocalHost| {
        host.observe_app(&instance("old")).expect("observe").expect("known").observed.status
    };
    assert_eq!(status(&daemon), ProcessStatus::Gone { rebooted: false });
    record["boot_id"] = "an earlier one".into();
    std::fs::write(&path, record.to_string()).expect("write");
    assert_eq!(status(&place.new_daemon()), ProcessStatus::Gone { rebooted: true });
    daemon.stop(&instance("old"), Duration::ZERO).expect("stop");
    assert!(stranger.try_wait().expect("wait").is_none(), "the stranger lives");
    stranger.kill().expect("kill");
    stranger.wait().expect("wait");
}

#[test]
fn a_supervisor_that_is_told_to_end_ends_its_app_and_leaves_it_wanted() {
    let place = Place::new();
    place.host.start(&place.script("web", "exec sleep 1000")).expect("start");
    let (pid, supervisor) = (place.pid("web"), place.supervisor_pid("web"));
    signal(supervisor, Signal::SIGTERM);
    wait_for("the supervisor's end", || (!lives(supervisor)).then_some(()));
    assert!(!lives(pid));
    assert_eq!(place.info("web").observed.status, ProcessStatus::Gone { rebooted: false });
}

#[test]
fn hangups_do_not_end_it_and_it_holds_nothing_of_the_daemon() {
    let place = Place::new();
    place.host.start(&place.script("web", "exec sleep 1000")).expect("start");
    let (pid, supervisor) = (place.pid("web"), place.supervisor_pid("web"));
    signal(supervisor, Signal::SIGHUP);
    signal(supervisor, Signal::SIGUSR1);
    assert_eq!(
        std::fs::read_link(format!("/proc/{supervisor}/cwd")).expect("cwd"),
        std::path::Path::new("/")
    );
    let fds = std::fs::read_dir(format!("/proc/{supervisor}/fd")).expect("fds");
    let open: BTreeMap<String, String> = fds
        .flatten()
        .filter_map(|fd| Some((fd.file_name().into_string().ok()?, std::fs::read_link(fd.path()).ok()?)))
        .map(|(number, target)| (number, target.display().to_string()))
        .collect();
    for std_fd in ["0", "1", "2"] {
        assert_eq!(open[std_fd], "/dev/null");
    }
    let folder = place.files("web").display().to_string();
    for target in open.values() {
        let own = target == "/dev/null"
            || target.starts_with("pipe:")
            || target.starts_with("socket:")
            || target.starts_with(&folder);
        assert!(own, "{target} in {open:?}");
    }
    // The app has its three, and no more; its loader has some more for a moment.
    let count = || std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count());
    wait_for("an app with three descriptors", || (count() == 3).then_some(()));
    let ignored = |pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("SigIgn");
        // Above 31 are the real-time signals, which a test may inherit ignored.
        u64::from_str_radix(mask, 16).expect("hexadecimal") & 0x7fff_ffff
    };
    assert_eq!(ignored(pid), 0, "an app starts with no signal ignored");
    assert!(lives(supervisor));
}

#[test]
fn forgetting_needs_a_stopped_app_and_keeps_the_log() {
    let place = Place::new();
    place.host.start(&place.script("web", "echo hi; exec sleep 1000")).expect("start");
    place.wait_for_log("web", "out hi");
    assert_eq!(place.host.forget(&instance("web")).expect_err("it runs").kind, HostErrorKind::Busy);
    place.host.stop(&instance("web"), GRACE).expect("stop");
    place.host.forget(&instance("web")).expect("forget");
    place.host.forget(&instance("web")).expect("again");
    assert!(place.host.observe().expect("observe").is_empty());
    assert!(place.log("web").contains("out hi"));
    // Nothing is known of it, and all the same it may be stopped.
    place.host.stop(&instance("web"), GRACE).expect("stop");
    place.host.stop(&instance("never-seen"), GRACE).expect("stop");
}

#[test]
fn a_damaged_record_hides_only_its_own_app() {
    let place = Place::new();
    place.host.start(&place.script("good", "exec sleep 1000")).expect("start");
    place.host.start(&place.script("hurt", "exec sleep 1000")).expect("start");
    let pid = place.pid("hurt");
    for (text, says) in [("{", "is damaged"), ("{\"format\": 99}", "has format 99")] {
        std::fs::write(place.files("hurt").join("status.json"), text).expect("write");
        let all = place.new_daemon().observe().expect("observe");
        assert!(matches!(all[&instance("good")].observed.status, ProcessStatus::Running { .. }));
        match &all[&instance("hurt")].observed.status {
            ProcessStatus::Failed(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    place.new_daemon().stop(&instance("hurt"), GRACE).expect("it can be stopped all the same");
    assert!(!lives(pid));
}

#[test]
fn an_app_runs_as_its_user_with_its_groups() {
    let place = Place::new();
    if !nix::unistd::geteuid().is_root() {
        let mut start = place.command("user", &["id"]);
        start.run.user = Some("root".to_owned());
        let kind = place.host.start(&start).expect_err("refused").kind;
        assert!(matches!(kind, HostErrorKind::Permission(_)), "{kind:?}");
        return;
    }
    let cases = [
        (Some("nobody"), None, "65534", "65534"),
        (Some("nobody"), Some("daemon"), "65534", "1"),
        (Some("4321"), Some("1234"), "4321", "1234"),
        (None, Some("daemon"), "0", "1"),
    ];
    for (n, (user, group, uid, gid)) in cases.into_iter().enumerate() {
        let name = format!("user{n}");
        let mut start =
            place.script(&name, "echo `id -u` `id -g` `id -G`; grep NoNewPrivs /proc/self/status");
        start.run.user = user.map(str::to_owned);
        start.run.group = group.map(str::to_owned);
        start.run.restart = Restart::Never;
        place.host.start(&start).expect("start");
        place.wait_for_status(&name, |status| *status == ProcessStatus::Completed);
        let log = place.log(&name);
        assert!(log.contains(&format!(" out {uid} {gid} {gid}\n")), "{user:?} {group:?}: {log}");
    }
}
