use super::*;
use std::path::Path;
use zed_spec::Backoff;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::Health;
use zed_spec::HostName;

fn app() -> AppName {
    AppName::parse("web").expect("a name")
}

fn first() -> Instance {
    Instance::first(&app())
}

fn start(version: &str) -> Start {
    let run = RunSpec {
        app: app(),
        deploy: DeployName::parse("test").expect("a name"),
        host: HostName::parse("here").expect("a name"),
        version: version.to_owned(),
        run_hash: format!("hash of {version}"),
        command: vec!["serve".to_owned()],
        env: BTreeMap::new(),
        env_from: BTreeMap::new(),
        dataset: DatasetPath::parse("apps/web").expect("a path"),
        number: 1,
        release: None,
        data: Vec::new(),
        runtime: zed_spec::Runtime::Process,
        limits: zed_spec::Limits::default(),
        user: None,
        group: None,
        restart: Restart::Always(Backoff {
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(1),
            give_up_after: None,
        }),
        stop_grace: Duration::from_secs(1),
    };
    Start {
        run,
        directory: Path::new("/data").to_owned(),
        data: Path::new("/data").to_owned(),
        environment: BTreeMap::new(),
        container: None,
    }
}

fn probe(version: &str) -> ProbeRequest {
    ProbeRequest {
        instance: first(),
        health: Health {
            probes: Vec::new(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            attempts: 3,
            successes: 1,
        },
        run_hash: format!("hash of {version}"),
        directory: Path::new("/data").to_owned(),
        environment: BTreeMap::new(),
        user: None,
        group: None,
    }
}

fn running(host: &SimHost) -> Vec<String> {
    host.running().into_values().collect()
}

fn status(host: &SimHost) -> ProcessStatus {
    host.observe().expect("observe")[&first()].observed.status.clone()
}

#[test]
fn two_runs_of_an_app_never_run_at_once() {
    let host = SimHost::new();
    host.start(&start("1")).expect("start");
    host.start(&start("1")).expect("again");
    assert_eq!(host.start(&start("2")).expect_err("busy").kind, HostErrorKind::Busy);
    assert_eq!(host.forget(&first()).expect_err("busy").kind, HostErrorKind::Busy);
    host.stop(&first(), Duration::ZERO).expect("stop");
    host.stop(&first(), Duration::ZERO).expect("again");
    host.start(&start("2")).expect("start");
    assert_eq!(running(&host), ["2"]);
    assert_eq!(host.history(), ["start web 1", "stop web", "start web 2"]);
    host.stop(&"unknown".parse().expect("an instance"), Duration::ZERO).expect("accepted");
}

#[test]
fn a_crash_leaves_apps_running_and_every_call_failing_until_the_next_daemon() {
    for (after, expect) in [(false, vec!["1".to_owned()]), (true, vec![])] {
        let host = SimHost::new();
        let daemon = host.clone();
        daemon.start(&start("1")).expect("start");
        if after {
            host.crash_after(1)
        } else {
            host.crash_at(1)
        }
        daemon.stop(&first(), Duration::ZERO).expect_err("crash");
        assert!(host.crashed());
        daemon.observe().expect_err("dead");
        daemon.start(&start("2")).expect_err("dead");
        drop(daemon);
        assert_eq!(running(&host), expect);
        host.revive();
        host.clone().observe().expect("the next daemon sees it");
    }
}

#[test]
fn a_planned_failure_changes_nothing_and_comes_once() {
    let host = SimHost::new();
    host.fail_at(2);
    host.start(&start("1")).expect("the first");
    let error = host.stop(&first(), Duration::ZERO).expect_err("the second").to_string();
    assert_eq!(error, "failed to stop `app web`: simulated failure of call 2");
    assert_eq!((running(&host), host.calls()), (vec!["1".to_owned()], 2));
    host.stop(&first(), Duration::ZERO).expect("the third");
    assert!(running(&host).is_empty());
}

#[test]
fn probes_see_what_they_were_told_and_only_of_their_run() {
    let host = SimHost::new();
    let cancel = Arc::new(AtomicBool::new(false));
    host.set_probe(&app(), "2", SimProbe::Unhealthy("status 500".to_owned()));
    assert!(!host.probe(&probe("1"), &cancel).healthy, "it does not run");
    host.start(&start("1")).expect("start");
    assert!(host.probe(&probe("1"), &cancel).healthy);
    assert_eq!(host.probe(&probe("2"), &cancel).summary, "another run of it is there, version 1");
    host.stop(&first(), Duration::ZERO).expect("stop");
    host.start(&start("2")).expect("start");
    let report = host.probe(&probe("2"), &cancel);
    assert_eq!((report.healthy, report.summary.as_str(), report.attempts), (false, "status 500", 3));
}

#[test]
fn kills_ends_and_boots_are_seen() {
    let host = SimHost::new();
    host.start(&start("1")).expect("start");
    host.kill(&first());
    assert_eq!(status(&host), ProcessStatus::Gone { rebooted: false });
    host.start(&start("1")).expect("start");
    host.reboot();
    assert_eq!(status(&host), ProcessStatus::Gone { rebooted: true });
    host.start(&start("1")).expect("start");
    host.end(&first(), "exit 1");
    assert_eq!(status(&host), ProcessStatus::Failed("exit 1".to_owned()));
    let mut one_shot = start("2");
    one_shot.run.restart = Restart::Never;
    host.start(&one_shot).expect("start");
    assert_eq!(status(&host), ProcessStatus::Completed);
    assert_eq!(host.starts(&first()), 4);
}

#[test]
fn hooks_do_as_they_were_told() {
    let host = SimHost::new();
    host.fail_hook(&app(), "migrate");
    let hook = |program: &str| {
        let request = HookRequest {
            instance: Instance::first(&app()),
            name: "before_deploy".to_owned(),
            command: vec![program.to_owned()],
            directory: Path::new("/data").to_owned(),
            environment: BTreeMap::new(),
            user: None,
            group: None,
            deadline: Duration::from_secs(1),
            container: None,
        };
        host.run_hook(&request).expect("it runs").ended
    };
    assert_eq!((hook("migrate").as_str(), hook("warm").as_str()), ("exit 1", "exit 0"));
    assert_eq!(host.history(), ["hook web migrate", "hook web warm"]);
}

#[test]
fn traffic_goes_to_what_runs_and_is_drained_where_it_goes_no_more() {
    let host = SimHost::new();
    let route = |backends: &[(&str, u16)]| Route {
        app: app(),
        listen: zed_spec::Listen::parse("127.0.0.1:8000").expect("an address"),
        backends: backends.iter().map(|(name, port)| (name.parse().expect("an instance"), *port)).collect(),
        user: None,
    };
    let error = host.route(&route(&[("web", 8080)])).expect_err("nobody is there").to_string();
    assert!(error.contains("web does not run"), "{error}");
    host.start(&start("1")).expect("start");
    host.route(&route(&[("web", 8080)])).expect("route");
    host.route(&route(&[("web", 8080)])).expect("again");
    let front = Instance::front(&app());
    assert_eq!(host.observe().expect("observe")[&front].observed.run_hash, "127.0.0.1:8000");
    assert_eq!(running(&host), ["1"], "a front is none of the app's own processes");
    host.drain(&first(), 8080, Duration::ZERO).expect_err("it still gets connections");
    let mut second = start("2");
    second.run.number = 2;
    host.start(&second).expect("start");
    host.route(&route(&[("web.2", 8081)])).expect("route");
    host.hold_open(&first(), 3);
    assert_eq!(host.drain(&first(), 8080, Duration::ZERO).expect("drain").left, 3);
    host.route(&route(&[])).expect("stop");
    assert!(host.routes().is_empty() && !host.observe().expect("observe").contains_key(&front));
    let expect =
        ["start web 1", "route web 8080", "start web.2 2", "route web 8081", "drain web 8080", "route web"];
    assert_eq!(host.history(), expect);
}
