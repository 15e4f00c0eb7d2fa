use super::*;

fn crash(n: u32, in_a_row: u32) -> Crash {
    let mut crash = Crash {
        at: "2026-11-22T17:46:28.123Z".to_owned(),
        app: "api".to_owned(),
        version: "1.2.0".to_owned(),
        run_hash: format!("h{n}"),
        ran_for_ms: 2345,
        ended: String::new(),
        exit_code: None,
        signal: None,
        core_dumped: false,
        oom: true,
        limits: Limits { memory: Some(64 << 20), ..Limits::default() },
        usage: Usage { oom_kills: Some(1), memory_peak: Some(64 << 20), ..Usage::default() },
        restarts: n,
        in_a_row,
        follows: "restart in 2s".to_owned(),
        output: vec![OutputLine {
            number: 4501,
            time: "2026-11-22T17:46:27.000Z".to_owned(),
            source: "out".to_owned(),
            text: "so much to do".to_owned(),
        }],
    };
    crash.set_outcome(&Outcome::Signal(9).with_oom_kills(1, Some(64 << 20)));
    crash
}

fn kept(files: &AppFiles) -> Vec<u32> {
    let file: CrashFile = read_record(&files.crash_json()).expect("read").expect("there");
    file.crashes.iter().map(|crash| crash.restarts).collect()
}

fn files() -> (tempfile::TempDir, AppFiles) {
    let folder = tempfile::tempdir().expect("tempdir");
    let files = AppFiles::new(folder.path().to_owned());
    (folder, files)
}

#[test]
fn a_post_mortem_says_it_all() {
    let (_folder, files) = files();
    keep(&files, crash(3, 3)).expect("keep");
    let text = std::fs::read_to_string(files.crash()).expect("text");
    let expect = "\
crash 2026-11-22T17:46:28.123Z
app api
version 1.2.0
run_hash h3
ran_for 2s345ms
ended oom killed (limit 64M)
exit_code -
signal SIGKILL
core_dumped no
oom yes
oom_kills 1
memory_limit 64M
memory_peak 64M
pids_limit -
pids_peak -
pids_refused -
cpu_throttled -
restarts 3
follows restart in 2s
output 1 lines
4501 2026-11-22T17:46:27.000Z out so much to do
";
    assert_eq!(text, expect);
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(files.crash_json()).expect("read")).expect("JSON");
    assert_eq!((&json["format"], &json["crashes"][0]["signal"]), (&1.into(), &"SIGKILL".into()));
}

#[test]
fn the_newest_are_kept_and_the_first_of_a_row() {
    let (_folder, files) = files();
    for n in 0..20 {
        keep(&files, crash(n, n)).expect("keep");
    }
    assert_eq!(kept(&files), [19, 18, 17, 16, 0]);
    // A new row takes their places one by one.
    for n in 20..23 {
        keep(&files, crash(n, n - 20)).expect("keep");
    }
    assert_eq!(kept(&files), [22, 21, 20, 19, 18]);
    for n in 23..40 {
        keep(&files, crash(n, n - 20)).expect("keep");
    }
    assert_eq!(kept(&files), [39, 38, 37, 36, 20]);
    let text = std::fs::read_to_string(files.crash()).expect("text");
    assert!(text.find("run_hash h39") < text.find("run_hash h20"), "newest first");
}

#[test]
fn a_damaged_file_is_replaced_and_one_of_a_newer_zed_is_left_alone() {
    let (_folder, files) = files();
    std::fs::write(files.crash_json(), "{").expect("write");
    keep(&files, crash(1, 0)).expect("keep");
    assert_eq!(kept(&files), [1]);
    std::fs::write(files.crash_json(), "{\"format\": 99}").expect("write");
    keep(&files, crash(2, 0)).expect_err("refused");
    assert_eq!(std::fs::read_to_string(files.crash_json()).expect("read"), "{\"format\": 99}");
}

#[test]
fn signals_have_names() {
    for (number, name) in [(libc::SIGSEGV, "SIGSEGV"), (libc::SIGKILL, "SIGKILL"), (999, "SIGRTMIN+965")] {
        if number != 999 || cfg!(target_os = "linux") && libc::SIGRTMIN() == 34 {
            assert_eq!(signal_name(number), name);
        }
    }
}
