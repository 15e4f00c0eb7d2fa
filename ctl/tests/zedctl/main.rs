//! zedctl against a folder laid out like the tree: what it prints, where, and how it ends.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that runs the program under test"
)]

mod gpu;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use zed_ctl::AppView;
use zed_ctl::DeployView;
use zed_ctl::Event;
use zed_ctl::EventKind;
use zed_ctl::HostView;
use zed_ctl::ReleaseView;
use zed_ctl::to_json;

/// The files that the daemon would show.
struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { dir: tempfile::tempdir().unwrap() };
        fake.put("version", "0.1.0\n");
        fake.host(&HostView {
            name: "web1".to_owned(),
            state: "converged".to_owned(),
            zed_version: "0.1.0".to_owned(),
            store: "embedded:/srv/zed".to_owned(),
            available: 5 << 30,
            ..HostView::default()
        });
        fake.app(&app());
        fake.deploy(&deploy());
        fake.put("deploy/hello.ron", "Deploy()\n");
        fake
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn host(&self, host: &HostView) {
        self.put(&format!("hosts/{}/status.json", host.name), &to_json(host));
    }

    fn app(&self, app: &AppView) {
        let name = &app.name;
        self.put(&format!("apps/{name}/status.json"), &to_json(app));
        for file in ["ctl", "rollback", "error", "log"] {
            self.put(&format!("apps/{name}/{file}"), "");
        }
    }

    fn deploy(&self, deploy: &DeployView) {
        let name = &deploy.name;
        self.put(&format!("deploy/{name}.status.json"), &to_json(deploy));
        self.put(&format!("deploy/{name}.status"), "");
        self.put(&format!("deploy/{name}.plan"), &deploy.plan);
        self.put(&format!("deploy/{name}.plan.json"), &deploy.plan_json);
        self.put(&format!("deploy/{name}.errors"), &deploy.errors);
        self.put(&format!("deploy/{name}.wait"), "");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = zedctl(arguments);
        command.env("ZED_MOUNT", self.dir.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }
}

fn zedctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zedctl"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// What came of it.
#[derive(Debug, PartialEq)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().expect("an exit status"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn is(&self, status: i32, out: &str, err: &str) {
        assert_eq!((self.status, self.out.as_str(), self.err.as_str()), (status, out, err));
    }
}

fn app() -> AppView {
    let release = |version: &str, snapshot: &str, kind: &str| ReleaseView {
        version: version.to_owned(),
        snapshot: snapshot.to_owned(),
        dataset: "apps/hello".to_owned(),
        generation: 1,
        deployed_at: "2026-11-22T17:00:00Z".to_owned(),
        taken_at: String::new(),
        kind: kind.to_owned(),
    };
    AppView {
        name: "hello".to_owned(),
        deploy: "hello".to_owned(),
        version: "1.1.0".to_owned(),
        state: "running".to_owned(),
        health: "healthy".to_owned(),
        env: BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]),
        history: vec![release("1.0.0", "zed-a", "older"), release("1.1.0", "", "running")],
        ..AppView::default()
    }
}

fn deploy() -> DeployView {
    DeployView {
        name: "hello".to_owned(),
        state: "converged".to_owned(),
        generation: 2,
        verdict: "2 changes, hello is healthy".to_owned(),
        apps: vec!["hello".to_owned()],
        ..DeployView::default()
    }
}

#[test]
fn status_is_a_table_without_colour_in_a_pipe() {
    Fake::new().run(&["status"]).is(
        0,
        "\
web1 is converged: zedd 0.1.0, up -, store embedded:/srv/zed with 5.0 GiB available

DEPLOY  STATE      GENERATION  SINCE  VERDICT
hello   converged  2           -      2 changes, hello is healthy

APP    VERSION  STATE    HEALTH   SINCE  RESTARTS  DEPLOY
hello  1.1.0    running  healthy  -      0         hello
",
        "",
    );
}

#[test]
fn problems_come_last_and_cannot_steer_the_terminal() {
    let fake = Fake::new();
    fake.app(&AppView { held: "rolled back to 1.0.0".to_owned(), error: "\x1b[2Jboom".to_owned(), ..app() });
    let ran = fake.run(&["status", "hello"]);
    let attention = "
needs attention:
  app hello: failed: \\u{1b}[2Jboom
  app hello: held: rolled back to 1.0.0
";
    assert!(ran.out.ends_with(attention), "{}", ran.out);
}

#[test]
fn status_as_json_is_one_object() {
    let ran = Fake::new().run(&["--json", "status"]);
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(value["host"]["name"], "web1");
    assert_eq!(value["deploys"][0]["state"], "converged");
    assert_eq!(value["apps"][0]["version"], "1.1.0");
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
}

#[test]
fn a_name_that_is_not_there_is_told_with_the_nearest() {
    let fake = Fake::new();
    let place = fake.dir.path().display();
    fake.run(&["status", "helo"]).is(
        1,
        "",
        &format!("zedctl: there is no app or deploy `helo` in {place}\nhint: did you mean `hello`?\n"),
    );
    fake.run(&["history", "web"]).is(
        1,
        "",
        &format!("zedctl: there is no app `web` in {place}\nhint: there are: hello\n"),
    );
}

#[test]
fn what_is_not_understood_ends_with_2() {
    let fake = Fake::new();
    for arguments in [
        &[][..],
        &["dance"],
        &["rollback", "hello"],
        &["rollback", "hello", "@"],
        &["status", "--mount", "a", "--socket", "b"],
        &["apply", "Hello.ron"],
        &["--offline", "status"],
        &["--offline", "--store", "embedded:/x", "events"],
    ] {
        let ran = fake.run(arguments);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{arguments:?}: {}", ran.err);
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn a_tree_that_is_named_must_be_there() {
    let empty = tempfile::tempdir().unwrap();
    let ran = Ran::of(zedctl(&["status", "--mount"]).arg(empty.path()).output().unwrap());
    let told = format!(
        "zedctl: {}: no zed tree is mounted there\n\
         hint: start zedd, or say where its tree is with --mount DIR or --socket PATH\n",
        empty.path().display()
    );
    ran.is(1, "", &told);
}

#[test]
fn diff_ends_with_1_when_something_would_change() {
    let fake = Fake::new();
    fake.run(&["diff"]).is(0, "no changes\n", "");
    fake.deploy(&DeployView {
        plan: "~ app hello: version 1.1.0 -> 1.2.0\n".to_owned(),
        plan_json: "{\"run\": \"k3v9\"}\n".to_owned(),
        ..deploy()
    });
    fake.run(&["diff", "hello"]).is(1, "~ app hello: version 1.1.0 -> 1.2.0\n", "");
    fake.deploy(&DeployView {
        state: "held".to_owned(),
        verdict: "hello is at 1.0.0".to_owned(),
        ..deploy()
    });
    fake.run(&["diff"]).is(1, "# hello is left as it is: held: hello is at 1.0.0\n", "");
    fake.deploy(&DeployView {
        plan: "+ x\n".to_owned(),
        plan_json: "{\"run\": \"k3v9\"}\n".to_owned(),
        ..deploy()
    });
    let ran = fake.run(&["diff", "--json"]);
    ran.is(1, "[\n  {\n    \"run\": \"k3v9\"\n  }\n]\n", "");
    fake.deploy(&DeployView { errors: "error: x\n".to_owned(), ..deploy() });
    let ran = fake.run(&["diff", "hello"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.starts_with("zedctl: the spec of `hello` is rejected\nerror: x\n"), "{}", ran.err);
}

fn spec(dir: &Path) -> String {
    let path = dir.join("hello.ron");
    fs::write(&path, "Deploy(apps: {})\n").unwrap();
    path.display().to_string()
}

#[test]
fn apply_saves_the_spec_byte_for_byte_and_tells_the_verdict() {
    let fake = Fake::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fake.run(&["apply", &spec(elsewhere.path())]).is(
        0,
        "deploy hello converged: 2 changes, hello is healthy\napp hello is at 1.1.0: running, healthy\n",
        "",
    );
    assert_eq!(fake.get("deploy/hello.ron"), "Deploy(apps: {})\n");
    let scratch = fs::read_dir(fake.path("deploy")).unwrap();
    let names: Vec<String> = scratch.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
}

#[test]
fn a_deploy_that_failed_ends_with_1_and_says_why() {
    let fake = Fake::new();
    let failed = "probe of hello failed 3 times".to_owned();
    fake.deploy(&DeployView { state: "failed".to_owned(), verdict: failed, ..deploy() });
    fake.app(&AppView { error: "connection refused".to_owned(), ..app() });
    let elsewhere = tempfile::tempdir().unwrap();
    let expected = "\
zedctl: deploy `hello` is failed: probe of hello failed 3 times
  app hello: connection refused
hint: `zedctl logs APP` and `zedctl events -n 20` say more
";
    fake.run(&["apply", &spec(elsewhere.path())]).is(1, "", expected);
    fake.run(&["wait", "hello"]).is(1, "", expected);
    fake.app(&AppView { error: "probe of hello failed 3 times".to_owned(), ..app() });
    let ran = fake.run(&["wait", "hello"]);
    assert_eq!(ran.err.matches("failed 3 times").count(), 1, "{}", ran.err);
    let ran = fake.run(&["wait", "hello", "--json"]);
    assert_eq!(ran.status, 1);
    assert_eq!(serde_json::from_str::<DeployView>(&ran.out).unwrap().state, "failed");
}

#[test]
fn a_wait_has_a_deadline_when_it_is_given_one() {
    let fake = Fake::new();
    fake.deploy(&DeployView {
        state: "converging".to_owned(),
        step: "3/7 probe hello".to_owned(),
        ..deploy()
    });
    // A read of a FIFO that nobody writes blocks, as that of `NAME.wait` does.
    fs::remove_file(fake.path("deploy/hello.wait")).unwrap();
    let made = Command::new("mkfifo").arg(fake.path("deploy/hello.wait")).status().unwrap();
    assert!(made.success());
    let ran = fake.run(&["wait", "hello", "--timeout", "1"]);
    ran.is(
        1,
        "",
        "  3/7 probe hello\nzedctl: deploy `hello` has not settled within 1s\n\
         hint: it goes on; `zedctl wait hello` waits for it again\n",
    );
}

#[test]
fn ctrl_c_while_waiting_ends_with_130_and_says_that_it_goes_on() {
    let fake = Fake::new();
    fake.deploy(&DeployView {
        state: "converging".to_owned(),
        step: "3/7 probe hello".to_owned(),
        ..deploy()
    });
    fs::remove_file(fake.path("deploy/hello.wait")).unwrap();
    let made = Command::new("mkfifo").arg(fake.path("deploy/hello.wait")).status().unwrap();
    assert!(made.success());
    let mut child = fake.command(&["wait", "hello"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // The first step is shown after the handler is in place.
    assert_eq!(lines.next().unwrap().unwrap(), "  3/7 probe hello");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(rest, ["", "interrupted: deploy hello goes on; `zedctl wait hello` waits for it again"]);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn plan_saves_a_dry_run_and_shows_what_would_change() {
    let fake = Fake::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = spec(elsewhere.path());
    fake.put("ctl", "");
    fake.put("plan/hello.errors", "");
    fake.put("plan/hello.plan", "# plan hello run r1\n~ app hello\n");
    fake.put("plan/hello.plan.json", r#"{"units": [{"steps": []}, {"steps": [{}]}]}"#);
    fake.run(&["plan", &file]).is(1, "# plan hello run r1\n~ app hello\n", "");
    assert_eq!(fake.get("plan/hello.ron"), "Deploy(apps: {})\n");
    assert_eq!(fake.get("ctl"), "reload\n");
    assert_eq!(fake.get("deploy/hello.ron"), "Deploy()\n");
    fake.put("plan/hello.plan.json", r#"{"units": [{"steps": []}]}"#);
    assert_eq!(fake.run(&["plan", &file]).status, 0);
    fake.put("plan/hello.errors", "error: x\n");
    let ran = fake.run(&["plan", &file]);
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert!(ran.err.starts_with("zedctl: the spec of `hello` is rejected\nerror: x\n"), "{}", ran.err);
    fake.put("ctl", "");
    fake.run(&["apply", "--plan", "hello"]).is(
        0,
        "deploy hello converged: 2 changes, hello is healthy\napp hello is at 1.1.0: running, healthy\n",
        "",
    );
    assert_eq!(fake.get("ctl"), "apply hello\n");
}

#[test]
fn a_verb_is_written_once_and_the_app_shown() {
    let fake = Fake::new();
    fake.run(&["rollback", "hello", "@latest"]).is(0, "app hello is at 1.1.0: running, healthy\n", "");
    assert_eq!(fake.get("apps/hello/rollback"), "@latest\n");
    fake.run(&["restart", "hello"]).is(0, "app hello is at 1.1.0: running, healthy\n", "");
    assert_eq!(fake.get("apps/hello/ctl"), "restart\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_refused_verb_is_told_with_the_text_of_the_error_file() {
    let fake = Fake::new();
    fs::remove_file(fake.path("apps/hello/rollback")).unwrap();
    std::os::unix::fs::symlink("/dev/full", fake.path("apps/hello/rollback")).unwrap();
    fake.put("apps/hello/error", "the pool is full\nhint: free 3 GiB\n");
    fake.run(&["rollback", "hello", "1.0.0"]).is(1, "", "zedctl: the pool is full\nhint: free 3 GiB\n");
    fake.put("apps/hello/error", "");
    let ran = fake.run(&["rollback", "hello", "1.0.0"]);
    let path = fake.path("apps/hello/rollback");
    assert!(
        ran.err.starts_with(&format!("zedctl: failed to write `{}`: No space left", path.display())),
        "{}",
        ran.err
    );
}

#[test]
fn history_lists_releases_and_their_targets() {
    Fake::new().run(&["history", "hello"]).is(
        0,
        "\
VERSION  KIND     GENERATION  DEPLOYED              SNAPSHOT TAKEN  TARGET
1.0.0    older    1           2026-11-22T17:00:00Z  -               @zed-a
1.1.0    running  1           2026-11-22T17:00:00Z  -
",
        "",
    );
}

#[test]
fn logs_and_events_are_passed_on() {
    let fake = Fake::new();
    fake.put("apps/hello/log", "one\ntwo\nthree\n");
    fake.run(&["logs", "hello"]).is(0, "one\ntwo\nthree\n", "");
    fake.run(&["logs", "-n", "1", "hello"]).is(0, "three\n", "");
    let event = Event {
        at_ms: 0,
        seq: 1,
        kind: EventKind::DaemonStarted,
        deploy: String::new(),
        app: String::new(),
        run: String::new(),
        text: "ready".to_owned(),
    };
    fake.put("events", &event.render());
    fake.run(&["events"]).is(0, &event.render(), "");
    let ran = fake.run(&["events", "--json"]);
    assert_eq!(serde_json::from_str::<Event>(&ran.out).unwrap(), event);
}

/// Lines as a supervisor writes them, the first of which says that it is line `first`.
fn log(first: u64, count: u64) -> String {
    let time = "2026-11-22T17:46:28.123Z";
    let lines = (first + 1..first + count).map(|n| format!("{time} out text {n}\n"));
    std::iter::once(format!("{time} zed line {first}\n")).chain(lines).collect()
}

fn numbers(output: &str) -> Vec<u64> {
    output.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn logs_go_on_from_a_number_over_rotations_and_name_what_is_missing() {
    let fake = Fake::new();
    fake.put("apps/hello/log.2", &log(101, 10));
    fake.put("apps/hello/log.1", &log(111, 10));
    let time = "2026-11-22T17:46:28.123Z";
    let lost =
        format!("{time} zed line 140; lines 131 to 139 were lost, the log could not be written: full\n");
    fake.put("apps/hello/log", &format!("{}{lost}{time} out text 141\n", log(121, 10)));
    let all: Vec<u64> = (101..131).chain(140..142).collect();
    let from = |number: &str| fake.run(&["logs", "--from", number, "hello"]);
    let since = |number: u64| all.iter().copied().filter(|n| *n >= number).collect::<Vec<_>>();
    for number in [101, 105, 111, 119, 121, 125, 131, 141, 142, 500] {
        let ran = from(&number.to_string());
        assert_eq!((ran.status, numbers(&ran.out), ran.err.as_str()), (0, since(number), ""), "{number}");
        assert!(ran.out.lines().all(|line| !line.contains("text") || {
            let (number, text) = (line.split(' ').next().unwrap(), line.rsplit(' ').next().unwrap());
            number == text
        }));
    }
    let ran = from("7");
    assert_eq!((ran.status, numbers(&ran.out)), (0, all.clone()));
    assert_eq!(ran.err, "lines 7 to 100 are no longer kept\n");
    let ran = fake.run(&["logs", "--from", "141", "--json", "hello"]);
    assert_eq!(ran.out, format!("{{\"number\":141,\"line\":\"{time} out text 141\"}}\n"));
    // An app that was stopped right after a rotation.
    fake.put("apps/hello/log", "");
    assert_eq!(numbers(&from("119").out), [119, 120]);
}

#[test]
fn following_from_a_number_catches_up_with_what_was_rotated_away() {
    let fake = Fake::new();
    fake.put("apps/hello/log", &log(11, 3));
    let mut child =
        fake.command(&["logs", "-f", "--from", "12", "hello"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || numbers(&lines.next().unwrap().unwrap())[0];
    assert_eq!((next(), next()), (12, 13));
    // Two rotations between two reads: 14 and 15 are only in the older part.
    fake.put("apps/hello/log.1", &log(14, 2));
    fake.put("apps/hello/new", &log(16, 2));
    fs::rename(fake.path("apps/hello/new"), fake.path("apps/hello/log")).unwrap();
    assert_eq!((next(), next(), next(), next()), (14, 15, 16, 17));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn post_mortems_are_shown() {
    let fake = Fake::new();
    fake.put("apps/hello/crash", "");
    fake.put("apps/hello/crash.json", "");
    fake.run(&["crash", "hello"]).is(0, "", "");
    fake.run(&["crash", "--json", "hello"]).is(0, "{\n  \"crashes\": []\n}\n", "");
    fake.put("apps/hello/crash", "crash 2026\nended signal 11\n");
    fake.put("apps/hello/crash.json", "{\"format\": 1, \"crashes\": [{\"signal\": \"SIGSEGV\"}]}");
    fake.run(&["crash", "hello"]).is(0, "crash 2026\nended signal 11\n", "");
    let ran = fake.run(&["crash", "--json", "hello"]);
    let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(told["crashes"][0]["signal"], "SIGSEGV");
}

#[test]
fn following_goes_on_with_what_is_appended() {
    let fake = Fake::new();
    fake.put("apps/hello/log", "one\ntwo\n");
    let mut child = fake.command(&["logs", "-f", "-n", "1", "hello"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    let mut log = fs::OpenOptions::new().append(true).open(fake.path("apps/hello/log")).unwrap();
    std::io::Write::write_all(&mut log, b"three\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "three");
    // Its reader is gone: that is no failure.
    drop(lines);
    std::io::Write::write_all(&mut log, b"four\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_bug_report_holds_no_spec_and_no_value() {
    let fake = Fake::new();
    fake.put("apps/hello/log", "starting with hunter2\n");
    fake.put("apps/hello/env", "TOKEN=hunter2\n");
    fake.put("events", "");
    fake.put("gpu/0/suspects", "brake no\n");
    let to = tempfile::tempdir().unwrap();
    let file = to.path().join("report.tar.gz");
    let ran = fake.run(&["bugreport", "-o", &file.display().to_string()]);
    assert_eq!((ran.status, ran.out), (0, format!("{}\n", file.display())), "{}", ran.err);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&file).unwrap()));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().components().skip(1).collect::<PathBuf>();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        files.insert(path.display().to_string(), text);
    }
    assert_eq!(files["apps/hello/log"], "starting with ***\n");
    assert_eq!(files["gpu/0/suspects"], "brake no\n");
    assert!(files["unread"].contains("metrics: failed to read"), "{}", files["unread"]);
    for (name, text) in &files {
        assert!(!text.contains("hunter2"), "{name}");
        assert!(!name.ends_with(".ron"), "{name}");
    }
    // It is for its owner, and never written over another.
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fake.run(&["bugreport", "-o", &file.display().to_string()]).status, 1);
}

#[test]
fn offline_is_handed_to_zedd() {
    let path = tempfile::tempdir().unwrap();
    // A copy, because a zedd may have been built beside the one under test.
    let alone = tempfile::tempdir().unwrap();
    let copy = alone.path().join("zedctl");
    fs::copy(env!("CARGO_BIN_EXE_zedctl"), &copy).unwrap();
    let at_copy = |arguments: &[&str]| {
        let mut command = Command::new(&copy);
        Ran::of(command.args(arguments).env_clear().env("PATH", path.path()).output().unwrap())
    };
    let arguments = ["--offline", "--store", "embedded:/s", "rollback", "hello", "@latest", "--json"];
    at_copy(&arguments).is(
        1,
        "",
        "zedctl: `zedd` is neither beside zedctl nor in PATH\n\
         hint: --offline works through the daemon's program: install it beside zedctl\n",
    );
    let zedd = path.path().join("zedd");
    fs::write(&zedd, "#!/bin/sh\necho \"$@\"\nexit 3\n").unwrap();
    fs::set_permissions(&zedd, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    at_copy(&arguments).is(3, "offline --store embedded:/s --json rollback hello @latest\n", "");
    at_copy(&["--offline", "--store", "zfs:tank", "status"]).is(3, "offline --store zfs:tank status\n", "");
}

/// The same commands over the socket.
#[test]
fn the_socket_shows_what_the_mount_shows() {
    let fake = Fake::new();
    fake.app(&AppView { error: "d\u{e9}j\u{e0} vu ".repeat(50), ..app() });
    fake.put("apps/hello/log", "one\ntwo\nthree\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("s");
    server::serve(fake.dir.path(), &socket);
    let over_socket = |arguments: &[&str]| {
        let mut command = zedctl(arguments);
        Ran::of(command.env("ZED_SOCKET", &socket).output().unwrap())
    };
    let file = spec(elsewhere.path());
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["history", "hello"],
        &["diff"],
        &["logs", "-n", "2", "hello"],
        &["logs", "hello"],
        &["apply", &file],
        &["rollback", "hello", "@latest"],
        &["stop", "hello"],
        &["version"],
    ] {
        assert_eq!(over_socket(arguments), fake.run(arguments), "{arguments:?}");
    }
    assert_eq!(fake.get("apps/hello/ctl"), "stop\n");
    over_socket(&["rollback", "hello", "@missing"]).is(
        1,
        "",
        "zedctl: no such release\nhint: look at history\n",
    );
    fs::write(&file, "bad").unwrap();
    let told = "zedctl: the spec of `hello` is rejected\nerror: bad\nhint: mend it\n";
    over_socket(&["apply", &file]).is(1, "", told);
}

#[test]
fn the_socket_is_followed_from_the_last_whole_line() {
    let fake = Fake::new();
    fake.put("apps/hello/log", "one\ntwo\nthr");
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("s");
    server::serve(fake.dir.path(), &socket);
    let mut command = zedctl(&["logs", "-f", "-n", "1", "hello", "--socket"]);
    let ran = Ran::of(command.arg(&socket).output().unwrap());
    assert_eq!((ran.status, ran.out.as_str()), (1, "two\nthrlater\n"));
    assert!(ran.err.contains("zedd closed the connection"), "{}", ran.err);
}

#[test]
fn version_tells_both_programs() {
    let ours = env!("CARGO_PKG_VERSION");
    Fake::new().run(&["version"]).is(0, &format!("zedctl {ours}\nzedd 0.1.0\n"), "");
    let empty = tempfile::tempdir().unwrap();
    let ran = Ran::of(zedctl(&["version", "--mount"]).arg(empty.path()).output().unwrap());
    assert_eq!((ran.status, ran.out), (1, format!("zedctl {ours}\n")));
}
