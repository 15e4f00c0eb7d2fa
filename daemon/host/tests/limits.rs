//! Limits are kept by the kernel, and what they cost an app is in its post-mortem. Real cgroups; on a host where
//! they cannot be written, a test says that it was not run.

#[expect(dead_code, reason = "this program uses a part of it")]
mod common;

use common::Place;
use common::always;
use common::instance;
use common::lives;
use common::signal;
use common::wait_for;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;
use zed_host::Host;
use zed_host::HostErrorKind;
use zed_plan::ProcessStatus;
use zed_spec::Limits;
use zed_spec::Restart;

const GRACE: Duration = Duration::from_secs(10);

/// True when this host keeps the limit; else says that the test was not run.
fn can_limit(place: &Place, name: &str) -> bool {
    let can = zed_host::observe_limits(&place.folder.path().join("state")).contains(name);
    if !can {
        eprintln!("not run: `{name}` cannot be limited on this host");
    }
    can
}

fn crashes(place: &Place, name: &str) -> Vec<serde_json::Value> {
    let Ok(bytes) = std::fs::read(place.files(name).join("crash.json")) else { return Vec::new() };
    let file: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    file["crashes"].as_array().expect("a list").clone()
}

fn crash_text(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.files(name).join("crash")).unwrap_or_default()
}

/// The folders of the app's cgroups.
fn cgroups(place: &Place, name: &str) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(place.files(name).join("status.json")).expect("status.json");
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    status["cgroups"].as_array().expect("a list").iter().map(|p| p.as_str().expect("text").into()).collect()
}

/// The first of the app's cgroups that has this file, and what it says.
fn cgroup_file(place: &Place, name: &str, file: &str) -> Option<String> {
    cgroups(place, name).iter().find_map(|folder| std::fs::read_to_string(folder.join(file)).ok())
}

/// Fills memory: each round doubles a shell variable.
const GLUTTON: &str = "echo filling; x=0123456789abcdef; while :; do x=$x$x; done";

#[test]
fn an_app_that_exceeds_its_memory_is_killed_and_its_post_mortem_says_so() {
    let place = Place::new();
    if !can_limit(&place, "memory") {
        return;
    }
    let mut start = place.script("fat", GLUTTON);
    start.run.limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    start.run.restart = Restart::Never;
    place.host.start(&start).expect("start");
    let info = place.wait_for_status("fat", |status| matches!(status, ProcessStatus::Failed(_)));
    assert_eq!(info.observed.status, ProcessStatus::Failed("oom killed (limit 32M)".to_owned()));
    assert_eq!(info.last_exit.as_deref(), Some("oom killed (limit 32M)"));
    let crash = &crashes(&place, "fat")[0];
    assert_eq!((&crash["oom"], &crash["signal"]), (&true.into(), &"SIGKILL".into()));
    assert_eq!(crash["limits"]["memory"], 32 << 20);
    assert!(crash["usage"]["oom_kills"].as_u64().is_some_and(|kills| kills >= 1), "{crash}");
    assert_eq!(crash["output"][0]["text"], "filling");
    let text = crash_text(&place, "fat");
    for part in ["ended oom killed (limit 32M)\n", "oom yes\n", "memory_limit 32M\n", " out filling\n"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(cgroups(&place, "fat").is_empty(), "the cgroup goes with the app");
}

#[test]
fn a_child_killed_for_memory_is_told_too() {
    let place = Place::new();
    if !can_limit(&place, "memory") {
        return;
    }
    let mut start = place.script("parent", &format!("sh -c '{GLUTTON}'; exit 3"));
    start.run.limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    start.run.restart = Restart::Never;
    place.host.start(&start).expect("start");
    let info = place.wait_for_status("parent", |status| matches!(status, ProcessStatus::Failed(_)));
    assert_eq!(info.last_exit.as_deref(), Some("exit 3, 1 of its processes oom killed (limit 32M)"));
}

#[test]
fn a_kill_in_a_cgroup_below_is_counted() {
    let place = Place::new();
    if !can_limit(&place, "memory") {
        return;
    }
    let mut start = place.script("outer", &format!("while [ ! -e go ]; do sleep 0.01; done; {GLUTTON}"));
    start.run.limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    start.run.restart = Restart::Never;
    place.host.start(&start).expect("start");
    let pid = place.pid("outer");
    // What a container runtime does: a cgroup of its own below the app's, for its processes.
    let memory = cgroups(&place, "outer")
        .into_iter()
        .find(|folder| folder.join("memory.oom_control").exists() || folder.join("memory.events").exists())
        .expect("a cgroup that counts memory");
    let below = memory.join("container");
    std::fs::create_dir(&below).expect("mkdir");
    std::fs::write(below.join("cgroup.procs"), pid.to_string()).expect("move");
    std::fs::write(place.data().join("go"), "").expect("write");
    let info = place.wait_for_status("outer", |status| matches!(status, ProcessStatus::Failed(_)));
    assert_eq!(info.last_exit.as_deref(), Some("oom killed (limit 32M)"));
    assert!(!below.exists() && !memory.exists());
}

#[test]
fn a_fork_bomb_ends_at_its_limit() {
    let place = Place::new();
    if !can_limit(&place, "pids") {
        return;
    }
    // Each child that can be made waits; the first that cannot be ends the program.
    let script = "n=0; while sleep 1000 & do n=$((n+1)); [ $n -lt 1000 ] || exit 9; done; exit 4";
    let mut start = place.script("bomb", script);
    start.run.limits = Limits { pids: Some(12), ..Limits::default() };
    start.run.restart = Restart::Never;
    start.run.stop_grace = Duration::from_millis(100);
    place.host.start(&start).expect("start");
    let info = place.wait_for_status("bomb", |status| matches!(status, ProcessStatus::Failed(_)));
    assert_ne!(info.last_exit.as_deref(), Some("exit 9"), "no process was refused");
    let crash = &crashes(&place, "bomb")[0];
    assert!(crash["usage"]["pids_refused"].as_u64().is_some_and(|refused| refused >= 1), "{crash}");
    let peak = crash["usage"]["pids_peak"].as_u64();
    assert!(peak.is_none_or(|peak| peak <= 12), "{crash}");
}

#[test]
fn an_app_that_wants_more_cpu_than_its_share_has_to_wait() {
    let place = Place::new();
    if !can_limit(&place, "cpus") {
        return;
    }
    let mut start = place.script("busy", "while :; do :; done");
    start.run.limits = Limits { cpus: Some(0.05), ..Limits::default() };
    place.host.start(&start).expect("start");
    wait_for("a throttled period", || {
        let stat = cgroup_file(&place, "busy", "cpu.stat")?;
        let count = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
        count.trim().parse::<u64>().ok().filter(|count| *count > 0)
    });
    place.host.stop(&instance("busy"), Duration::ZERO).expect("stop");
    assert!(crashes(&place, "busy").is_empty(), "a stop on purpose is no crash");
}

#[test]
fn open_files_are_limited() {
    let place = Place::new();
    let mut start = place.script("files", "ulimit -n; ulimit -Hn");
    start.run.limits = Limits { nofile: Some(37), ..Limits::default() };
    start.run.restart = Restart::Never;
    place.host.start(&start).expect("start");
    place.wait_for_status("files", |status| *status == ProcessStatus::Completed);
    assert_eq!(place.log("files").matches(" out 37\n").count(), 2, "{}", place.log("files"));
    assert!(!place.files("files").join("crash.json").exists(), "a one-shot that ends well is no crash");
}

#[test]
fn the_program_is_in_its_cgroup_from_its_first_instruction() {
    let place = Place::new();
    if !can_limit(&place, "pids") {
        return;
    }
    let mut start = place.script("inside", "cat /proc/self/cgroup");
    start.run.limits =
        Limits { memory: Some(64 << 20), pids: Some(10), cpus: Some(1.0), ..Limits::default() };
    start.run.user = nix::unistd::geteuid().is_root().then(|| "nobody".to_owned());
    start.run.restart = Restart::Never;
    place.host.start(&start).expect("start");
    place.wait_for_status("inside", |status| *status == ProcessStatus::Completed);
    let log = place.log("inside");
    for controller in ["memory", "pids", "cpu"] {
        let inside = |line: &str| {
            let here = line.contains(&format!(":{controller}:")) || line.contains(" 0::");
            here && line.contains("/zed-") && line.contains("/inside")
        };
        assert!(log.lines().any(inside), "{controller} in {log}");
    }
}

#[test]
fn a_limit_that_cannot_be_kept_is_refused_by_name() {
    let place = Place::new();
    let mut start = place.script("tiny", "exit 0");
    start.run.limits = Limits { nofile: Some(u64::MAX), ..Limits::default() };
    let kind = place.host.start(&start).expect_err("refused").kind;
    match kind {
        HostErrorKind::Limit(text) => {
            assert!(text.starts_with("the limit nofile 18446744073709551615 cannot be enforced"), "{text}");
            assert!(text.ends_with("or take the limit out of the spec"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!place.files("tiny").exists(), "nothing was begun");
}

#[test]
fn what_a_killed_supervisor_leaves_is_found_in_the_cgroup() {
    let place = Place::new();
    if !can_limit(&place, "memory") {
        return;
    }
    // A process that has left session, group and parents: only the cgroup still knows whose it is.
    let script = "(setsid sh -c 'echo $$ > stray; exec sleep 1000' &); while [ ! -e stray ]; do sleep 0.01; done; \
                  exec sleep 1000";
    let mut start = place.script("left", script);
    start.run.limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    place.host.start(&start).expect("start");
    let (stray, main, supervisor) = (place.number("stray"), place.pid("left"), place.supervisor_pid("left"));
    let folders = cgroups(&place, "left");
    signal(supervisor, Signal::SIGKILL);
    wait_for("the supervisor's end", || (!lives(supervisor)).then_some(()));
    place.new_daemon().stop(&instance("left"), GRACE).expect("stop");
    assert!(!lives(main) && !lives(stray), "{main} {stray}");
    assert!(folders.iter().all(|folder| !folder.exists()), "{folders:?}");
}

#[test]
fn a_loop_of_crashes_keeps_its_first_and_its_last() {
    let place = Place::new();
    let script = "n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) > n; echo run $n; kill -SEGV $$";
    let mut start = place.script("loop", script);
    start.run.restart = always(Duration::from_millis(1), Some(7));
    place.host.start(&start).expect("start");
    place.wait_for_status("loop", |status| matches!(status, ProcessStatus::Failed(_)));
    let crashes = crashes(&place, "loop");
    let outputs: Vec<&str> = crashes.iter().map(|c| c["output"][0]["text"].as_str().expect("text")).collect();
    assert_eq!(outputs, ["run 7", "run 6", "run 5", "run 4", "run 0"]);
    assert_eq!(crashes[0]["signal"], "SIGSEGV");
    assert_eq!(crashes[0]["follows"], "failed for good: signal 11, gave up after 7 restarts in a row");
    assert_eq!((&crashes[4]["restarts"], &crashes[0]["restarts"]), (&0.into(), &7.into()));
    assert!(
        crashes[4]["follows"].as_str().is_some_and(|text| text.starts_with("restart in ")),
        "{crashes:?}"
    );
    // The numbers of the lines go on from run to run.
    let number = |crash: &serde_json::Value| crash["output"][0]["number"].as_u64().expect("a number");
    assert!(number(&crashes[0]) > number(&crashes[1]) && number(&crashes[3]) > number(&crashes[4]));
    let ended = crash_text(&place, "loop");
    assert_eq!(ended.matches("\nsignal SIGSEGV\n").count(), 5, "{ended}");
}

#[test]
fn the_last_two_hundred_lines_are_kept_with_their_numbers() {
    let place = Place::new();
    let mut start = place.script("talk", "seq 1000; echo the end >&2; exit 5");
    start.run.restart = Restart::Never;
    place.host.start(&start).expect("start");
    place.wait_for_status("talk", |status| matches!(status, ProcessStatus::Failed(_)));
    let crash = &crashes(&place, "talk")[0];
    let output = crash["output"].as_array().expect("a list");
    assert_eq!(output.len(), 200);
    assert_eq!(crash["exit_code"], 5);
    assert!(output.iter().any(|line| line["source"] == "err" && line["text"] == "the end"));
    for pair in output.windows(2) {
        assert_eq!(pair[0]["number"].as_u64().map(|n| n + 1), pair[1]["number"].as_u64());
    }
}
