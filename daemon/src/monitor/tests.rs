//! The monitor on a simulated host: what is asked, told and left alone.

use super::*;
use std::path::PathBuf;
use zed_ctl::AppView;
use zed_ctl::Event;
use zed_ctl::World;
use zed_host::SimHost;
use zed_host::SimProbe;
use zed_host::Start;
use zed_spec::DatasetPath;
use zed_spec::DeploySpec;
use zed_spec::HostName;
use zed_store::Create;
use zed_store::SimStore;
use zed_store::Store;

/// No wait in these tests ends by time except as a failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for(what: &str, mut look: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn app(name: &str) -> AppName {
    AppName::parse(name).unwrap()
}

fn instance(name: &str) -> Instance {
    name.parse().unwrap()
}

fn deploy(name: &str) -> DeployName {
    DeployName::parse(name).unwrap()
}

/// A monitor whose thread runs, and what is around it.
struct Rig {
    host: SimHost,
    shared: Arc<Shared>,
    events: PathBuf,
    monitor: Arc<Monitor>,
    _dir: tempfile::TempDir,
}

/// One app with one probe, as a spec has it.
fn run_of(name: &str, number: u32, version: &str) -> (RunSpec, zed_spec::Health) {
    let text = format!(
        "Deploy(datasets: {{\"apps/{name}\": ()}}, apps: {{\"{name}\": (dataset: \"apps/{name}\", version: \
         \"{version}\", command: [\"a\"], health: (probes: [Tcp(\"127.0.0.1:1\")], interval: \"1ms\"))}})"
    );
    let spec: DeploySpec = zed_spec::parse(&deploy("d"), text.as_bytes()).unwrap();
    let definition = spec.apps[&app(name)].clone();
    let health = definition.health.clone();
    let release = zed_plan::Release {
        format: zed_plan::PLAN_FORMAT,
        app: app(name),
        deploy: deploy("d"),
        spec_hash: version.to_owned(),
        definition,
        folder: None,
        artifact: None,
    };
    let observed =
        zed_plan::Observed { host: Some(HostName::parse("h").unwrap()), ..zed_plan::Observed::default() };
    (zed_plan::run_spec_of(&release, number, &observed).unwrap(), health)
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = SimHost::new();
        let store = Arc::new(SimStore::new());
        for path in ["apps", "apps/a", "apps/b"] {
            let path = DatasetPath::parse(path).unwrap();
            store.create(&Create { path, native: BTreeMap::new(), user: BTreeMap::new() }).unwrap();
        }
        let shared = Arc::new(Shared::new());
        let path = dir.path().join("events");
        let events = Arc::new(Events::open(&path).unwrap());
        let state = crate::state::StateDir::open(&dir.path().join("state")).unwrap();
        let at_once = Duration::from_millis(1);
        let steps = Steps::new(store, Arc::new(host.clone()), state);
        let monitor = Monitor::new(Arc::new(host.clone()), steps, shared.clone(), events, at_once);
        monitor.start().unwrap();
        let rig = Self { host, shared, events: path, monitor, _dir: dir };
        let view = |name: &str| AppView { name: name.to_owned(), pid: 7, ..AppView::default() };
        let apps = ["a", "b"].map(|name| (name.to_owned(), Arc::new(view(name))));
        rig.shared.publish(World { apps: Arc::new(BTreeMap::from(apps)), ..World::default() });
        rig
    }

    /// It runs, and this is how it is asked.
    fn runs(&self, name: &str, version: &str) -> Target {
        let instance = instance(name);
        let (run, health) = run_of(instance.app.as_str(), instance.number, version);
        let directory = PathBuf::from("/");
        let environment = BTreeMap::new();
        let _ = self.host.stop(&instance, Duration::ZERO);
        let run_hash = run.run_hash.clone();
        self.host
            .start(&Start { run, data: directory.clone(), directory, environment, container: None })
            .unwrap();
        let (spec, deploy) = (version.to_owned(), deploy("d"));
        Target { instance, deploy, spec, run_hash, health, deployed_healthy: true }
    }

    fn set(&self, targets: &[Target]) {
        let make: MakeRun = Arc::new(|target: &Target| {
            let (name, number) = (target.instance.app.as_str(), target.instance.number);
            Some(run_of(name, number, &target.spec).0)
        });
        self.monitor.set_targets(targets.to_vec(), make, &BTreeSet::new());
    }

    fn view(&self, name: &str) -> Arc<AppView> {
        self.shared.world().apps[name].clone()
    }

    fn wait_for_health(&self, name: &str, health: &str) {
        wait_for(health, || self.view(name).health == health);
    }

    /// Kind, app and text of what was told.
    fn told(&self) -> Vec<(String, String, String)> {
        let text = std::fs::read_to_string(&self.events).unwrap();
        let events = text.lines().map(|line| Event::parse(line).unwrap());
        events.map(|event| (event.kind.to_string(), event.app, event.text)).collect()
    }

    fn kinds(&self) -> Vec<String> {
        self.told().into_iter().map(|(kind, _, _)| kind).collect()
    }

    fn fails(&self, name: &str, version: &str, why: &str) {
        self.host.set_probe(&app(name), version, SimProbe::Unhealthy(why.to_owned()));
    }

    fn passes(&self, name: &str, version: &str) {
        self.host.set_probe(&app(name), version, SimProbe::Healthy);
    }

    /// Waits until it was asked so many times more.
    fn wait_for_checks(&self, name: &str, more: u32) {
        let instance = instance(name);
        let wanted = self.host.checks(&instance) + more;
        wait_for("checks", || self.host.checks(&instance) >= wanted);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.monitor.stop();
    }
}

#[test]
fn what_a_new_daemon_finds_is_unknown_and_then_tells_only_what_changes() {
    let rig = Rig::new();
    let target = rig.runs("a", "1");
    rig.host.hang_checks(true);
    rig.set(std::slice::from_ref(&target));
    assert_eq!(rig.view("a").health, "unknown");
    rig.host.hang_checks(false);
    rig.wait_for_health("a", "healthy");
    assert_eq!(rig.kinds(), Vec::<String>::new(), "it was healthy before, as far as anybody knows");
    rig.fails("a", "1", "refused");
    rig.wait_for_health("a", "unhealthy");
    let view = rig.view("a");
    assert_eq!(view.health_reason, "connect to 127.0.0.1:1: refused");
    assert!(view.health_since > 0);
    assert_eq!(rig.shared.world().host.unhealthy, 1);
    let probes = rig.monitor.probes(&app("a"));
    assert_eq!((probes.len(), probes[0].state.as_str(), probes[0].last.as_str()), (1, "failing", "refused"));
    assert!(probes[0].failures >= 3);
    // The same look again changes nothing.
    rig.set(std::slice::from_ref(&target));
    rig.passes("a", "1");
    rig.wait_for_health("a", "healthy");
    assert_eq!((rig.view("a").health_reason.as_str(), rig.shared.world().host.unhealthy), ("", 0));
    let said = "3 checks in a row failed; connect to 127.0.0.1:1: refused";
    let told = rig.told();
    assert_eq!((told[0].0.as_str(), told[0].1.as_str(), told[0].2.as_str()), ("unhealthy", "a", said));
    assert_eq!((told.len(), told[1].0.as_str()), (2, "recovered"));
    let counts = rig.monitor.counts()["a"];
    assert!(counts.failed >= 3 && counts.asked >= counts.failed + 2, "{counts:?}");
}

#[test]
fn what_a_deploy_brings_is_healthy_at_once_and_told() {
    let rig = Rig::new();
    rig.set(&[]);
    rig.host.hang_checks(true);
    let first = rig.runs("a", "1");
    rig.set(std::slice::from_ref(&first));
    assert_eq!((rig.view("a").health.as_str(), rig.kinds()), ("healthy", vec!["healthy".to_owned()]));
    rig.host.hang_checks(false);
    rig.fails("a", "1", "no");
    rig.wait_for_health("a", "unhealthy");
    // The next version replaces it: that is no recovery.
    let second = rig.runs("a", "2");
    rig.set(std::slice::from_ref(&second));
    assert_eq!(rig.view("a").health, "healthy");
    assert_eq!(rig.kinds(), ["healthy", "unhealthy", "healthy"]);
    // It goes away: nothing is known of it any more.
    rig.set(&[]);
    assert!(rig.monitor.probes(&app("a")).is_empty() && rig.monitor.counts().is_empty());
    assert_eq!(rig.kinds().len(), 3);
}

#[test]
fn an_app_is_as_well_as_its_worst_process() {
    let rig = Rig::new();
    rig.set(&[]);
    let (one, two) = (rig.runs("a", "1"), rig.runs("a.2", "1"));
    rig.set(&[one.clone(), two.clone()]);
    rig.wait_for_checks("a", 1);
    rig.wait_for_checks("a.2", 1);
    // Its second process is killed; the first goes on.
    rig.host.kill(&instance("a.2"));
    rig.wait_for_health("a", "unhealthy");
    assert!(rig.view("a").health_reason.starts_with("a.2: the process: "), "{:?}", rig.view("a"));
    // It is not there any more at the next look: the app is as well as the first.
    rig.set(&[one]);
    assert_eq!(rig.view("a").health, "healthy");
    assert_eq!(rig.kinds(), ["healthy", "unhealthy", "recovered"]);
}

#[test]
fn a_deploy_that_is_worked_on_is_left_alone() {
    let rig = Rig::new();
    let (mine, mut other) = (rig.runs("a", "1"), rig.runs("b", "1"));
    other.deploy = deploy("other");
    rig.host.hang_checks(true);
    rig.set(&[mine.clone(), other.clone()]);
    wait_for("both to be asked", || rig.host.hanging().0 == 2);
    rig.monitor.pause(&deploy("d"));
    // What was under way ends at once, and what it says is not believed.
    wait_for("the cancelled check", || rig.host.hanging().0 == 1);
    rig.host.hang_checks(false);
    let before = rig.host.checks(&instance("a"));
    rig.wait_for_checks("b", 5);
    assert_eq!(rig.host.checks(&instance("a")), before);
    assert_eq!(rig.view("a").health, "unknown");
    // A pass of the loop in the middle of it changes nothing, whatever it sees.
    let busy = BTreeSet::from([deploy("d")]);
    let make: MakeRun = Arc::new(|target: &Target| Some(run_of(target.instance.app.as_str(), 1, "1").0));
    rig.monitor.set_targets(vec![other.clone()], make, &busy);
    rig.wait_for_checks("b", 5);
    assert_eq!(rig.host.checks(&instance("a")), before);
    // It is over, and the app is what it was.
    rig.set(&[mine, other]);
    rig.wait_for_health("a", "healthy");
    assert_eq!(rig.kinds(), Vec::<String>::new());
}

#[test]
fn checks_that_hang_are_bounded_and_end_with_the_daemon() {
    let rig = Rig::new();
    rig.host.hang_checks(true);
    let many: Vec<Target> = (1..=100).map(|number| rig.runs(&instance_name(number), "1")).collect();
    rig.set(&many);
    wait_for("as many as there may be", || rig.host.hanging().0 == MOST_AT_ONCE);
    rig.monitor.stop();
    wait_for("their end", || rig.host.hanging().0 == 0);
    assert_eq!(rig.host.hanging().1, MOST_AT_ONCE);
}

fn instance_name(number: u32) -> String {
    Instance::new(&app("a"), number).to_string()
}

#[test]
fn many_apps_are_asked_less_often() {
    let rig = Rig::new();
    assert_eq!(rig.monitor.floor(0), Duration::from_millis(1));
    assert_eq!(rig.monitor.floor(1000), Duration::from_secs(20));
    let interval = Duration::from_secs(10);
    assert!(
        (0..100).all(|number| rig.monitor.offset(&Instance::new(&app("a"), number), interval) < interval)
    );
}

#[test]
fn what_cannot_be_asked_says_why() {
    let rig = Rig::new();
    let target = rig.runs("a", "1");
    rig.monitor.set_targets(vec![target], Arc::new(|_: &Target| None), &BTreeSet::new());
    rig.wait_for_health("a", "unhealthy");
    let said = "the check: the record of its release is missing, or a value that it needs";
    assert_eq!(rig.view("a").health_reason, said);
}
