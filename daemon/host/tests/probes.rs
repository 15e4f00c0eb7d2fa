//! Probes and hooks against real programs, a real server, and what goes wrong with them.

#[expect(dead_code, reason = "this program uses a part of it")]
mod common;

use common::Place;
use common::always;
use common::app;
use common::instance;
use common::signal;
use common::wait_for;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zed_host::HookReport;
use zed_host::HookRequest;
use zed_host::Host;
use zed_host::HostErrorKind;
use zed_host::ProbeReport;
use zed_host::ProbeRequest;
use zed_plan::Instance;
use zed_plan::ProcessStatus;
use zed_spec::Health;
use zed_spec::Probe;
use zed_spec::Restart;

/// Answers each connection with the next of these; an empty one never answers.
fn serve(answers: Vec<Vec<u8>>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            let n = count.fetch_add(1, Ordering::SeqCst);
            let answer = &answers[n.min(answers.len() - 1)];
            if answer.is_empty() {
                kept.push(stream);
                continue;
            }
            let mut request = Vec::new();
            let mut byte = [0u8];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                request.push(byte[0]);
            }
            // A client that has read enough may be gone.
            let _ = stream.write_all(answer);
        }
    });
    (address, asked)
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn get(url: impl Into<String>, expect: Option<u16>, body: Option<&str>) -> Probe {
    Probe::Http { url: url.into(), expect, body: body.map(str::to_owned), ca: None, insecure: false }
}

/// Where nobody listens, whatever other tests do meanwhile: the kernel hands out no port so low.
fn closed_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

fn health(probes: Vec<Probe>, attempts: u32, successes: u32) -> Health {
    let interval = Duration::from_millis(10);
    Health { probes, interval, timeout: Duration::from_millis(500), attempts, successes }
}

fn request(place: &Place, name: &str, health: Health) -> ProbeRequest {
    ProbeRequest {
        instance: instance(name),
        health,
        run_hash: "h1".to_owned(),
        directory: place.data(),
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        user: None,
        group: None,
    }
}

fn probe(place: &Place, name: &str, health: Health) -> ProbeReport {
    place.host.probe(&request(place, name, health), &Arc::new(AtomicBool::new(false)))
}

/// An app that runs and does nothing.
fn idle() -> Place {
    let place = Place::new();
    place.host.start(&place.script("idle", "exec sleep 1000")).expect("start");
    place
}

#[test]
fn http_probes_judge_status_and_body() {
    let place = idle();
    // Answer, expected status, expected text, verdict, words of the summary.
    type Case = (Vec<u8>, Option<u16>, Option<&'static str>, bool, &'static str);
    let cases: [Case; 11] = [
        (http("200 OK", "fine"), None, None, true, "status 200"),
        (http("204 No Content", ""), None, None, true, "status 204"),
        (http("503 Busy", "later"), None, None, false, "status 503, expected 2xx: later"),
        (http("503 Busy", "later"), Some(503), None, true, "status 503"),
        (http("200 OK", "fine"), Some(201), None, false, "status 200, expected 201"),
        (
            http("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
            None,
            None,
            false,
            "status 302, expected 2xx",
        ),
        (http("200 OK", "all is fine here"), None, Some("is fine"), true, "the body has `is fine`"),
        (http("200 OK", "no"), None, Some("yes"), false, "status 200, but the body has no `yes`: no"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf".to_vec(),
            None,
            Some("yes"),
            false,
            "status 200, then: ",
        ),
        (
            http("200 OK", &format!("{}needle", "x".repeat(64 * 1024))),
            None,
            Some("needle"),
            false,
            "the first 64 KiB of the body has no `needle`",
        ),
        (b"this is no HTTP\r\n\r\n".to_vec(), None, None, false, "the last one: GET"),
    ];
    for (answer, expect, body, healthy, says) in cases {
        let (address, _) = serve(vec![answer]);
        let url = format!("http://{address}/health");
        let probes = vec![get(url, expect, body)];
        let report = probe(&place, "idle", health(probes, 1, 1));
        assert_eq!(report.healthy, healthy, "{says}: {report:?}");
        assert!(report.summary.contains(says), "{says}: {report:?}");
        assert_eq!((report.attempts, report.transcript.len()), (1, 1));
    }
}

#[test]
fn silence_and_refusal_are_failures_with_their_reason() {
    let place = idle();
    let (silent, _) = serve(vec![Vec::new()]);
    let closed = closed_port();
    let exec = |words: &[&str]| Probe::Exec { command: words.iter().map(|&word| word.to_owned()).collect() };
    let cases = [
        (get(format!("http://{silent}/"), None, None), "no answer within 500ms"),
        (get(format!("http://{closed}/"), None, None), "refused"),
        (get("http://no-such-host.invalid/", None, None), "no such address `no-such-host.invalid`"),
        (Probe::Tcp { address: closed.to_string() }, "refused"),
        (Probe::Tcp { address: "no port".to_owned() }, "no such address"),
        (exec(&["sh", "-c", "echo first; echo second; echo; exit 2"]), "exit 2: second"),
        (exec(&["sleep", "1000"]), "deadline of 500ms passed"),
        (exec(&["no-such-program"]), "in none of the folders /usr/bin:/bin"),
        (Probe::BeamPing, "BeamPing failed once; the last one: BeamPing: the app has no `node_name`"),
    ];
    for (one, says) in cases {
        let report = probe(&place, "idle", health(vec![one], 1, 1));
        assert!(!report.healthy && report.summary.contains(says), "{says}: {report:?}");
    }
}

#[test]
fn tcp_and_exec_probes_pass() {
    let place = idle();
    let (open, _) = serve(vec![Vec::new()]);
    std::fs::write(place.data().join("flag"), "up").expect("write");
    let command = ["sh", "-c", "test \"`cat flag`\" = up"].map(str::to_owned).to_vec();
    let probes = vec![Probe::Tcp { address: open.to_string() }, Probe::Exec { command }];
    let report = probe(&place, "idle", health(probes, 1, 1));
    assert!(report.healthy, "{report:?}");
    assert!(report.summary.contains("connected to") && report.summary.contains("exit 0"), "{report:?}");
}

#[test]
fn an_exec_probe_and_a_hook_run_as_the_app_s_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not checked: only root can run a probe as another user");
        return;
    }
    let place = idle();
    let command = ["sh", "-c", "test `id -u`:`id -g`:$TOKEN = 65534:1:secret"].map(str::to_owned).to_vec();
    let mut asked = request(&place, "idle", health(vec![Probe::Exec { command: command.clone() }], 1, 1));
    asked.user = Some("nobody".to_owned());
    asked.group = Some("daemon".to_owned());
    asked.environment.insert("TOKEN".to_owned(), "secret".to_owned());
    let report = place.host.probe(&asked, &Arc::new(AtomicBool::new(false)));
    assert!(report.healthy, "{report:?}");
    let hook = HookRequest {
        instance: Instance::first(&app("idle")),
        name: "before_deploy".to_owned(),
        command,
        directory: place.data(),
        environment: asked.environment,
        user: asked.user,
        group: asked.group,
        deadline: Duration::from_secs(60),
        container: None,
    };
    let report = place.host.run_hook(&hook).expect("run");
    assert_eq!(report, HookReport { ended: "exit 0".to_owned(), ok: true, output: String::new() });
}

#[test]
fn attempts_go_on_until_enough_passes_in_a_row() {
    let (good, bad) = (http("200 OK", ""), http("500 Oops", ""));
    let cases = [
        // answers, attempts, successes, healthy, attempts made
        (vec![bad.clone(), bad.clone(), good.clone()], 5, 1, true, 3),
        (vec![good.clone(), bad.clone(), good.clone(), good.clone()], 9, 2, true, 4),
        (vec![good.clone(), bad.clone(), good.clone()], 3, 2, false, 3),
        (vec![bad], 4, 1, false, 4),
        (vec![good], 1, 0, true, 1),
    ];
    let place = idle();
    for (answers, attempts, successes, healthy, made) in cases {
        let (address, asked) = serve(answers);
        let probes = vec![get(format!("http://{address}/"), None, None)];
        let report = probe(&place, "idle", health(probes, attempts, successes));
        assert_eq!((report.healthy, report.attempts), (healthy, made), "{report:?}");
        assert_eq!(asked.load(Ordering::SeqCst), made as usize);
        assert_eq!(report.transcript.len(), made as usize);
    }
}

/// A health whose interval is so long that a deploy would be stuck in it.
fn patient(probes: Vec<Probe>, attempts: u32) -> Health {
    Health { interval: Duration::from_secs(1000), ..health(probes, attempts, 1) }
}

#[test]
fn an_app_that_comes_up_soon_is_not_asked_only_after_a_whole_interval() {
    let (good, bad) = (http("200 OK", ""), http("500 Oops", ""));
    let place = idle();
    let (address, asked) = serve(vec![bad.clone(), bad.clone(), bad, good]);
    let report = probe(&place, "idle", patient(vec![get(format!("http://{address}/"), None, None)], 2));
    // The looks in between cost no attempt, and the transcript accounts for them.
    assert_eq!((report.healthy, report.attempts), (true, 2), "{report:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    assert_eq!(report.transcript.len(), 3, "{report:?}");
    assert!(report.transcript[1].contains("asked 2 times more in between"), "{report:?}");
}

#[test]
fn looks_within_the_first_interval_cost_no_attempt() {
    let place = idle();
    let (address, asked) = serve(vec![http("500 Oops", "")]);
    let probes = vec![get(format!("http://{address}/"), None, None)];
    let health = Health { interval: Duration::from_millis(100), ..health(probes, 2, 1) };
    let report = probe(&place, "idle", health);
    assert_eq!((report.healthy, report.attempts), (false, 2), "{report:?}");
    let says = format!("not healthy after all 2 attempts: GET http://{address}/ failed 2 times; ");
    assert!(report.summary.starts_with(&says), "{report:?}");
    // Both attempts, and at least the look that comes 20 ms after the first.
    assert!(asked.load(Ordering::SeqCst) > 2);
    let (only, asked) = serve(vec![http("500 Oops", "")]);
    let report = probe(&place, "idle", patient(vec![get(format!("http://{only}/"), None, None)], 1));
    assert_eq!((report.healthy, asked.load(Ordering::SeqCst)), (false, 1), "{report:?}");
}

#[test]
fn a_run_that_ends_within_the_first_interval_is_seen_at_once() {
    let place = Place::new();
    let mut start = place.script("short", "sleep 0.2; exit 3");
    start.run.restart = Restart::Never;
    place.host.start(&start).expect("start");
    let report = probe(&place, "short", patient(vec![Probe::Tcp { address: closed_port().to_string() }], 30));
    assert!(!report.healthy && report.summary.ends_with("it has failed: exit 3"), "{report:?}");
}

#[test]
fn a_cancellation_ends_every_kind_of_probe() {
    let place = idle();
    let (silent, asked) = serve(vec![Vec::new()]);
    let marker = place.data().join("probed");
    let script = "touch probed; exec sleep 1000";
    let exec = Probe::Exec { command: ["sh", "-c", script].map(str::to_owned).to_vec() };
    let (plain, tls) = (format!("http://{silent}/"), format!("https://{silent}/"));
    let unlimited = |probes| Health {
        probes,
        interval: Duration::from_secs(1000),
        timeout: Duration::from_secs(1000),
        attempts: 1000,
        successes: 1,
    };
    let tls = Probe::Http { url: tls, expect: None, body: None, ca: None, insecure: true };
    for one in [get(plain, None, None), tls, exec, Probe::BeamPing] {
        let asked_before = asked.load(Ordering::SeqCst);
        let exec = matches!(one, Probe::Exec { .. });
        let mut request = request(&place, "idle", unlimited(vec![one]));
        // What never answers is its epmd.
        let node = [("RELEASE_NODE", "shop".to_owned()), ("RELEASE_COOKIE", "monster".to_owned())];
        let node = node.into_iter().chain([("ERL_EPMD_PORT", silent.port().to_string())]);
        request.environment.extend(node.map(|(name, value)| (name.to_owned(), value)));
        let cancel = Arc::new(AtomicBool::new(false));
        let report = std::thread::scope(|scope| {
            let probing = scope.spawn(|| place.host.probe(&request, &cancel));
            if exec {
                wait_for("the probe", || marker.exists().then_some(()));
            } else {
                wait_for("the probe", || (asked.load(Ordering::SeqCst) > asked_before).then_some(()));
            }
            cancel.store(true, Ordering::Relaxed);
            probing.join().expect("thread")
        });
        assert!(!report.healthy && report.summary.starts_with("cancelled after "), "{report:?}");
    }
    assert!(place.host.in_flight().is_empty());
}

#[test]
fn the_summary_says_which_probe_failed_how_often_and_what_it_saw_last() {
    let place = idle();
    let (first, _) = serve(vec![http("500 Oops", "out of memory"), http("200 OK", "")]);
    let closed = closed_port();
    let probes =
        vec![get(format!("http://{first}/"), None, None), Probe::Tcp { address: closed.to_string() }];
    let report = probe(&place, "idle", health(probes, 4, 1));
    assert_eq!(
        report.summary,
        format!(
            "not healthy after all 4 attempts: GET http://{first}/ failed once, connect to {closed} failed 3 times; the \
             last one: connect to {closed}: {closed}: Connection refused (os error 111)"
        )
    );
    assert!(report.transcript[0].ends_with("status 500, expected 2xx: out of memory"), "{report:?}");
    assert_eq!(report.transcript.len(), 4);
}

/// A server that goes on answering, piece by piece, until its client is gone.
fn drip(begin: &'static [u8], piece: &'static [u8], pause: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            std::thread::spawn(move || {
                let mut sent = stream.write_all(begin);
                while sent.is_ok() {
                    std::thread::sleep(pause);
                    sent = stream.write_all(piece);
                }
            });
        }
    });
    address
}

#[test]
fn a_server_that_answers_for_ever_gets_no_more_than_the_timeout() {
    let place = idle();
    let slow = Duration::from_millis(20);
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        // Status line, header, body: each byte by byte.
        (drip(b"HTTP/1.1 200 ", b"O", slow), None, "no answer within 500ms"),
        (drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", slow), None, "no answer within 500ms"),
        (drip(head, b"1\r\nx\r\n", slow), Some("needle"), "no `needle` in the body within 500ms: x"),
        // As fast as it can.
        (drip(head, b"5\r\nxxxxx\r\n", Duration::ZERO), Some("needle"), "has no `needle`"),
        (drip(b"", b"xxxxxxxxxxxxxxxx", Duration::ZERO), None, "GET"),
    ];
    for (address, body, says) in cases {
        let probes = vec![get(format!("http://{address}/"), None, body)];
        let report = probe(&place, "idle", health(probes, 1, 1));
        assert!(!report.healthy && report.summary.contains(says), "{says}: {report:?}");
    }
    // What is looked for counts as soon as it is there, however long the body goes on.
    let found = drip(head, b"6\r\nneedle\r\n", slow);
    let report =
        probe(&place, "idle", health(vec![get(format!("http://{found}/"), None, Some("needle"))], 1, 1));
    assert!(report.healthy, "{report:?}");
}

#[test]
fn a_check_asks_every_probe_once() {
    let place = idle();
    let (good, asked) = serve(vec![http("200 OK", "")]);
    let closed = closed_port();
    let probes = vec![Probe::Tcp { address: closed.to_string() }, get(format!("http://{good}/"), None, None)];
    let never = Arc::new(AtomicBool::new(false));
    let results = place.host.check(&request(&place, "idle", health(probes, 30, 1)), &never);
    let said: Vec<_> =
        results.iter().map(|one| (one.probe.as_str(), one.passed, one.text.as_str())).collect();
    let (connect, refused) =
        (format!("connect to {closed}"), format!("{closed}: Connection refused (os error 111)"));
    let url = format!("GET http://{good}/");
    assert_eq!(said, [(&*connect, false, &*refused), (&*url, true, "status 200")]);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    place.host.stop(&instance("idle"), Duration::from_secs(10)).expect("stop");
    let results = place.host.check(&request(&place, "idle", health(vec![], 1, 1)), &never);
    assert_eq!((results.len(), results[0].passed, results[0].text.as_str()), (1, false, "it was stopped"));
}

#[test]
fn a_run_that_has_ended_for_good_is_not_asked_again_and_its_log_is_shown() {
    let place = Place::new();
    let never = vec![Probe::Tcp { address: closed_port().to_string() }];
    let endless = Health { interval: Duration::from_secs(1000), ..health(never, 1000, 1) };
    // It gives up while the probing waits for its next attempt.
    let mut start =
        place.script("crash", "i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo line $i; done; exit 5");
    start.run.restart = always(Duration::from_millis(10), Some(2));
    place.host.start(&start).expect("start");
    let report = probe(&place, "crash", endless.clone());
    assert!(!report.healthy);
    assert_eq!(report.summary, "app crash: it has failed: exit 5, gave up after 2 restarts in a row");
    assert!(report.transcript.iter().any(|line| line == "the end of its log:"), "{report:?}");
    assert!(report.transcript.iter().any(|line| line.ends_with(" out line 30")), "{report:?}");
    assert!(report.transcript.len() >= 21);
    // Killed, stopped, replaced, never there.
    let place = Place::new();
    assert_eq!(probe(&place, "absent", endless.clone()).summary, "app absent: it was never started");
    place.host.start(&place.script("web", "exec sleep 1000")).expect("start");
    let other = ProbeRequest { run_hash: "h2".to_owned(), ..request(&place, "web", endless.clone()) };
    let report = place.host.probe(&other, &Arc::new(AtomicBool::new(false)));
    assert_eq!(report.summary, "app web: another run of it is there, version 1.0.0");
    signal(place.supervisor_pid("web"), Signal::SIGKILL);
    let report = probe(&place, "web", endless.clone());
    assert!(report.summary.starts_with("app web: it and its supervisor are gone ("), "{report:?}");
    place.host.stop(&instance("web"), Duration::from_secs(10)).expect("stop");
    assert_eq!(probe(&place, "web", endless).summary, "app web: it was stopped");
}

#[test]
fn while_an_app_waits_for_its_restart_attempts_fail_with_its_exit() {
    let place = Place::new();
    place.host.start(&place.script("crash", "exit 9")).expect("start");
    place.wait_for_status("crash", |status| matches!(status, ProcessStatus::Backoff { .. }));
    for probes in [vec![], vec![Probe::Tcp { address: closed_port().to_string() }]] {
        let report = probe(&place, "crash", health(probes, 3, 1));
        assert_eq!((report.healthy, report.attempts), (false, 3));
        let says = "not healthy after all 3 attempts: the process failed 3 times; the last one: the process: the \
                    program has ended (exit 9) and waits for restart 1";
        assert_eq!(report.summary, says);
    }
}

/// Ends with 9 when it is started for the first time, then runs on.
const ENDS_ONCE: &str = "[ ! -e ended ] || exec sleep 1000; touch ended; exit 9";

#[test]
fn how_the_program_ended_is_told_also_when_the_last_attempt_saw_something_else() {
    let place = Place::new();
    let mut start = place.script("web", ENDS_ONCE);
    start.run.restart = always(Duration::from_millis(10), None);
    place.host.start(&start).expect("start");
    // No attempt of this one sees that the process is down.
    wait_for("its restart", || (place.info("web").restarts == 1).then_some(()));
    let closed = closed_port();
    let report = probe(&place, "web", health(vec![Probe::Tcp { address: closed.to_string() }], 2, 1));
    let says = format!(
        "not healthy after all 2 attempts: connect to {closed} failed 2 times; the last one: connect to {closed}: \
         {closed}: Connection refused (os error 111); the process: the program has ended (exit 9) and has been \
         restarted once"
    );
    assert_eq!(report.summary, says);
}

#[test]
fn without_probes_it_is_told_how_a_program_ended_that_was_restarted_in_between() {
    let place = Place::new();
    let mut start = place.script("web", "sleep 0.1; exit 9");
    start.run.restart = always(Duration::from_millis(1), None);
    place.host.start(&start).expect("start");
    let watching = Health { interval: Duration::from_secs(1), ..health(vec![], 1, 1) };
    let report = probe(&place, "web", watching);
    // It is seldom down, but it may be.
    let says = "not healthy after the only attempt: the process failed once; the last one: the process: the program has \
                ended (exit 9) and ";
    assert!(!report.healthy && report.summary.starts_with(says), "{report:?}");
}

#[test]
fn without_probes_a_run_must_last_and_a_one_shot_must_end_well() {
    let place = idle();
    let report = probe(&place, "idle", health(vec![], 1, 1));
    assert!(report.healthy && report.summary.ends_with("has run for 10ms"), "{report:?}");
    let cases =
        [("good", "exit 0", true, "completed: exit 0"), ("bad", "exit 3", false, "it has failed: exit 3")];
    for (name, script, healthy, says) in cases {
        let mut start = place.script(name, &format!("sleep 0.05; {script}"));
        start.run.restart = Restart::Never;
        place.host.start(&start).expect("start");
        let report = probe(&place, name, health(vec![], 10_000, 1));
        assert_eq!(report.healthy, healthy, "{report:?}");
        assert!(report.summary.ends_with(says), "{report:?}");
    }
    let mut endless = place.script("endless", "exec sleep 1000");
    endless.run.restart = Restart::Never;
    place.host.start(&endless).expect("start");
    let report = probe(&place, "endless", health(vec![], 3, 1));
    assert!(!report.healthy && report.summary.ends_with("runs and has not ended yet"), "{report:?}");
}

#[test]
fn a_hook_tells_how_it_ended_and_what_it_said_last() {
    let place = Place::new();
    let run = |script: &str, deadline: u64| {
        let request = HookRequest {
            instance: Instance::first(&app("web")),
            name: "before_deploy".to_owned(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            directory: place.data(),
            environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            user: None,
            group: None,
            deadline: Duration::from_millis(deadline),
            container: None,
        };
        place.host.run_hook(&request).expect("it runs")
    };
    let minute = 60_000;
    let report = run("echo hello; exit 0", minute);
    assert_eq!(report, HookReport { ended: "exit 0".into(), ok: true, output: "hello\n".into() });
    let report = run("i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo line $i; done; exit 1", minute);
    assert!(!report.ok && report.ended == "exit 1" && report.output.len() == 16 * 1024);
    assert!(report.output.ends_with("line 5000\n"));
    let report = run("echo begun; sleep 1000", 300);
    assert_eq!(
        report,
        HookReport { ended: "deadline of 300ms passed".into(), ok: false, output: "begun\n".into() }
    );
    // An operator looks into the app's log, also when the app has never run.
    let log = place.host.log_path(&Instance::first(&app("web")));
    let log = std::fs::read_to_string(log).expect("there is one");
    let says = |text: &str| log.lines().any(|line| line.ends_with(text));
    assert!(says(" zed hook before_deploy: begun"), "{log}");
    assert!(
        says(" zed hook before_deploy `sh -c echo begun; sleep 1000` ended: deadline of 300ms passed"),
        "{log}"
    );
    let request = HookRequest {
        instance: Instance::first(&app("web")),
        name: "before_deploy".to_owned(),
        command: vec!["no-such-program".to_owned()],
        directory: place.data(),
        environment: BTreeMap::new(),
        user: None,
        group: None,
        deadline: Duration::from_secs(60),
        container: None,
    };
    let error = place.host.run_hook(&request).expect_err("not there");
    assert!(matches!(&error.kind, HostErrorKind::NotFound(_)), "{error}");
    assert!(error.to_string().starts_with("failed to run a hook of `app web`: the program"), "{error}");
}
