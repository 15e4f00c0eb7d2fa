use super::*;

fn request(argv: &[&str]) -> CommandRequest {
    CommandRequest {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        program: None,
        environment: BTreeMap::new(),
        directory: None,
        input: Vec::new(),
        deadline: Duration::from_secs(60),
        grace: Duration::from_secs(60),
        keep: 1024,
    }
}

fn run(request: &CommandRequest) -> Finished {
    Runner::default().run(request, None).expect("it can be run")
}

fn sh(script: &str) -> CommandRequest {
    request(&["sh", "-c", script])
}

#[test]
fn how_a_command_ended_is_told() {
    let cases = [
        ("exit 0", Ended::Exit(0), ""),
        ("echo out; echo err >&2; exit 3", Ended::Exit(3), "out\nerr\n"),
        ("kill -9 $$", Ended::Signal(9), ""),
        ("kill -TERM $$", Ended::Signal(15), ""),
        // It closes its output and goes on.
        ("exec >&- 2>&-; sleep 0.1; exit 4", Ended::Exit(4), ""),
        // It leaves a child behind that holds the output.
        ("sleep 1000 & echo done", Ended::Exit(0), "done\n"),
    ];
    for (script, ended, output) in cases {
        let finished = run(&sh(script));
        assert_eq!(finished.ended, ended, "{script}");
        assert_eq!(String::from_utf8_lossy(&finished.output), output, "{script}");
    }
}

#[test]
fn the_environment_the_directory_and_the_input_are_what_was_given() {
    let folder = tempfile::tempdir().expect("tempdir");
    let mut command = request(&["sh", "-c", "env; pwd -P; cat"]);
    command.environment = BTreeMap::from([
        ("ONE".to_owned(), "1 and a half".to_owned()),
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
    ]);
    command.directory = Some(folder.path().to_owned());
    command.input = b"to be read".to_vec();
    let output = String::from_utf8(run(&command).output).expect("text");
    let real = std::fs::canonicalize(folder.path()).expect("path");
    let mut lines: Vec<&str> = output.lines().filter(|line| !line.starts_with("PWD=")).collect();
    lines.sort_unstable();
    // The shell adds these two by itself.
    lines.retain(|line| !line.starts_with("_=") && !line.starts_with("SHLVL="));
    let real = real.display().to_string();
    let mut expect = vec!["ONE=1 and a half", "PATH=/usr/bin:/bin", real.as_str(), "to be read"];
    expect.sort_unstable();
    assert_eq!(lines, expect);
}

#[test]
fn a_large_input_and_a_large_output_pass_each_other() {
    let mut command = request(&["cat"]);
    command.input = (0..3_000_000u32).map(|n| u8::try_from(n % 251).expect("small")).collect();
    command.keep = 4_000_000;
    let finished = run(&command);
    assert!(finished.output == command.input && finished.left_out == 0);
    command.keep = 1000;
    let finished = run(&command);
    assert!(finished.output == command.input[2_999_000..]);
    assert_eq!(finished.left_out, 2_999_000);
}

#[test]
fn a_command_that_does_not_read_its_input_ends_all_the_same() {
    let mut command = request(&["true"]);
    command.input = vec![b'x'; 1_000_000];
    assert_eq!(run(&command).ended, Ended::Exit(0));
}

#[test]
fn the_end_of_a_command_is_the_end_of_its_group() {
    let folder = tempfile::tempdir().expect("tempdir");
    let mut command = sh("sh -c 'trap \"\" TERM; echo $$ > child.new; mv child.new child; sleep 1000' & \
                          trap 'exit 0' TERM; wait");
    command.directory = Some(folder.path().to_owned());
    let child = folder.path().join("child");
    let cancel = AtomicBool::new(false);
    let runner = Runner::default();
    let (finished, pid) = std::thread::scope(|scope| {
        let running = scope.spawn(|| runner.run(&command, Some(&cancel)).expect("run"));
        let pid: u32 = loop {
            if let Ok(text) = std::fs::read_to_string(&child) {
                break text.trim().parse().expect("a pid");
            }
            std::thread::yield_now();
        };
        cancel.store(true, Ordering::Relaxed);
        (running.join().expect("thread"), pid)
    });
    assert_eq!(finished.ended, Ended::Cancelled);
    // The child ignores TERM and has outlived its parent: it was killed with the group.
    while crate::process::observe_process(pid).is_some_and(|entry| !entry.zombie) {
        std::thread::yield_now();
    }
}

#[test]
fn a_command_that_ignores_term_is_killed() {
    let mut command = sh("trap '' TERM; while :; do sleep 1; done");
    command.deadline = Duration::from_millis(200);
    command.grace = Duration::from_millis(50);
    let ended = run(&command).ended;
    assert_eq!(ended, Ended::Deadline(Duration::from_millis(200)));
    assert_eq!(ended.to_string(), "deadline of 200ms passed");
}

#[test]
fn a_cancelled_command_ends_and_is_no_longer_in_flight() {
    let runner = Runner::default();
    let cancel = AtomicBool::new(false);
    let command = request(&["sleep", "1000"]);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| runner.run(&command, Some(&cancel)).expect("run"));
        let listed = loop {
            if let Some(first) = runner.in_flight().first() {
                break first.clone();
            }
            std::thread::yield_now();
        };
        assert_eq!((listed.argv, listed.deadline), (command.argv.clone(), command.deadline));
        cancel.store(true, Ordering::Relaxed);
        assert_eq!(running.join().expect("thread").ended, Ended::Cancelled);
        assert!(crate::process::observe_process(listed.pid).is_none(), "it was reaped");
    });
    assert!(runner.in_flight().is_empty());
}

#[test]
fn what_cannot_be_run_is_told() {
    let folder = tempfile::tempdir().expect("tempdir");
    std::fs::write(folder.path().join("plain"), "text").expect("write");
    let nul = "a\0b";
    let cases: [(&[&str], &str); 6] = [
        (&[], "the command is empty"),
        (&[""], "the command is empty"),
        (&["no-such-program"], "in none of the folders /usr/local/sbin:"),
        (&["./plain"], "not executable"),
        (&["./absent"], "does not exist"),
        (&["true", nul], "NUL byte"),
    ];
    for (argv, text) in cases {
        let mut command = request(argv);
        command.directory = Some(folder.path().to_owned());
        let error = Runner::default().run(&command, None).expect_err("refused").to_string();
        assert!(error.contains(text), "{argv:?}: {error}");
    }
    let mut command = request(&["true"]);
    command.directory = Some("/no/such/folder".into());
    let error = Runner::default().run(&command, None).expect_err("refused");
    assert!(matches!(error.kind, HostErrorKind::NotFound(text) if text.contains("/no/such/folder")));
}
