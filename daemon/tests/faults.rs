//! Kills and failures at every step of a deploy and of a rollback: afterwards data, properties and processes
//! agree on one of the two releases, nothing is lost, and status says which.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "faults/upgrades.rs"]
mod upgrades;

use common::Daemon;
use common::OnStart;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use zed_ctl::RollbackTarget;
use zed_ctl::Verb;
use zed_host::SimHost;
use zed_host::SimProbe;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_store::EmbeddedStore;
use zed_store::SimStore;
use zed_store::Store;
use zedd::faults::Fault;
use zedd::faults::Faults;

/// A store that survives a daemon, and access to the files of its datasets.
trait Ground {
    /// The store as a new daemon opens it.
    fn open(&mut self) -> Arc<dyn Store>;
    /// Writes `version` into the file `trace` of `apps/a` when an app starts, and appends to `log`.
    fn on_start(&self) -> OnStart;
    /// Content of a file of `apps/a`.
    fn read(&self, name: &str) -> String;
}

struct Sim(SimStore);

impl Ground for Sim {
    fn open(&mut self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }
    fn on_start(&self) -> OnStart {
        let store = self.0.clone();
        Arc::new(move |start| {
            let mut log = store.read_file(&dataset(), "log").unwrap_or_default();
            log.extend_from_slice(format!("{}\n", start.run.version).as_bytes());
            store.write_file(&dataset(), "trace", start.run.version.as_bytes()).unwrap();
            store.write_file(&dataset(), "log", &log).unwrap();
        })
    }
    fn read(&self, name: &str) -> String {
        String::from_utf8(self.0.read_file(&dataset(), name).unwrap_or_default()).unwrap()
    }
}

struct Embedded(tempfile::TempDir);

impl Ground for Embedded {
    fn open(&mut self) -> Arc<dyn Store> {
        // The store of a killed daemon is closed when its last thread has ended.
        loop {
            match EmbeddedStore::open(self.0.path()) {
                Ok(store) => return Arc::new(store),
                Err(error) => {
                    assert!(zedd::chain(&error).contains("use"), "{}", zedd::chain(&error));
                    std::thread::yield_now();
                }
            }
        }
    }
    fn on_start(&self) -> OnStart {
        Self::write_trace()
    }
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join("ds/apps/a/@data").join(name)).unwrap_or_default()
    }
}

impl Embedded {
    fn write_trace() -> OnStart {
        Arc::new(|start| {
            let log = start.directory.join("log");
            let mut text = std::fs::read_to_string(&log).unwrap_or_default();
            text.push_str(&format!("{}\n", start.run.version));
            std::fs::write(start.directory.join("trace"), &start.run.version).unwrap();
            std::fs::write(log, text).unwrap();
        })
    }
}

/// A dataset of the pool that `ZED_TEST_POOL` names, gone when the test ends.
#[cfg(feature = "zfs")]
struct Zfs(String);

#[cfg(feature = "zfs")]
impl Zfs {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let pool = std::env::var("ZED_TEST_POOL").unwrap();
        let root = format!("{pool}/f{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        Self::command(&["create", &root]);
        Self(root)
    }

    fn command(arguments: &[&str]) -> String {
        #[expect(clippy::disallowed_methods, reason = "the test looks at ZFS with its own program")]
        let output = std::process::Command::new("zfs").args(arguments).output().unwrap();
        assert!(output.status.success(), "zfs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[cfg(feature = "zfs")]
impl Ground for Zfs {
    fn open(&mut self) -> Arc<dyn Store> {
        zed_store::open(&format!("zfs:{}", self.0)).unwrap()
    }
    fn on_start(&self) -> OnStart {
        Embedded::write_trace()
    }
    fn read(&self, name: &str) -> String {
        let dataset = format!("{}/apps/a", self.0);
        let mountpoint = Self::command(&["get", "-H", "-o", "value", "mountpoint", &dataset]);
        std::fs::read_to_string(Path::new(mountpoint.trim()).join(name)).unwrap_or_default()
    }
}

#[cfg(feature = "zfs")]
impl Drop for Zfs {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            Self::command(&["destroy", "-R", "-f", &self.0]);
        }
    }
}

fn dataset() -> DatasetPath {
    DatasetPath::parse("apps/a").unwrap()
}

fn first() -> zed_plan::Instance {
    zed_plan::Instance::first(&app())
}

fn app() -> AppName {
    AppName::parse("a").unwrap()
}

fn spec(version: &str) -> String {
    format!(
        r#"Deploy(
    datasets: {{"apps/a": (compression: "{}")}},
    apps: {{"a": (dataset: "apps/a", version: "{version}", command: ["a"], health: (attempts: 1))}},
    snapshots: (before_deploy: true, keep: 3),
)"#,
        if version == "1" { "lz4" } else { "zstd" }
    )
}

/// A fault at the `at`-th point (from 1), and how many points there were.
fn fault_at(at: u64, fault: Fault) -> (Faults, Arc<AtomicU64>) {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    let faults = Faults::by(move |_| {
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        match fault {
            // A process that was killed does nothing more.
            Fault::Kill if number >= at => Fault::Kill,
            Fault::Fail if number == at => Fault::Fail,
            _ => Fault::None,
        }
    });
    (faults, seen)
}

struct Case<'a> {
    ground: &'a mut dyn Ground,
    host: SimHost,
    state: &'a Path,
    what: String,
}

impl Case<'_> {
    fn daemon(&mut self, faults: Faults) -> Daemon {
        let store = self.ground.open();
        Daemon::start(store, &self.host, self.ground.on_start(), self.state, faults)
    }

    /// Deploys a version without faults.
    fn deploy(&mut self, version: &str) {
        let daemon = self.daemon(Faults::none());
        daemon.save("d", &spec(version));
        let outcome = daemon.settled("d").expect("nothing kills it");
        assert!(outcome.is_ok(), "{}: {outcome:?}", self.what);
        daemon.stop();
    }

    /// What properties, data, process and status say; all must agree.
    fn version(&mut self, daemon: &Daemon) -> String {
        let world = daemon.world();
        let view = &world.apps["a"];
        let told = format!("{}: {view:#?}", self.what);
        assert_eq!(view.state, "running", "{told}");
        let properties = &world.datasets["apps/a"].properties;
        let compression = if view.version == "1" { "lz4" } else { "zstd" };
        assert_eq!(properties["com.zed:version"], view.version, "{told}");
        assert_eq!(self.host.running()[&first()], view.version, "{told}");
        assert_eq!(self.ground.read("trace"), view.version, "{told}");
        // The log of starts is data: release 1's starts are in it, and release 2's only while 2 is deployed.
        let log = self.ground.read("log");
        assert!(log.starts_with("1\n"), "{told}: {log}");
        assert_eq!(log.contains('2'), view.version == "2", "{told}: {log}");
        if view.held.is_empty() {
            assert_eq!(properties["compression"], compression, "{told}");
        }
        view.version.clone()
    }
}

/// Calls `body` for a fault at the first point, the second, ... until there are no more points.
fn at_every_point(
    fault: Fault,
    ground: &dyn Fn() -> Box<dyn Ground>,
    body: &dyn Fn(&mut Case<'_>, Faults),
) -> u64 {
    for at in 1.. {
        let mut ground = ground();
        let state = tempfile::tempdir().unwrap();
        let (faults, seen) = fault_at(at, fault);
        let mut case = Case {
            ground: &mut *ground,
            host: SimHost::new(),
            state: state.path(),
            what: format!("{fault:?} at {at}"),
        };
        body(&mut case, faults);
        if seen.load(Ordering::SeqCst) < at {
            return at - 1;
        }
    }
    unreachable!("the loop ends by returning")
}

/// Makes a fresh store.
type NewGround = Box<dyn Fn() -> Box<dyn Ground>>;

/// With ZFS this is the ZFS tier, which needs a pool; without, the stores that need nothing.
#[cfg(feature = "zfs")]
fn grounds() -> Vec<(&'static str, NewGround)> {
    vec![("zfs", Box::new(|| Box::new(Zfs::new())))]
}

#[cfg(not(feature = "zfs"))]
fn grounds() -> Vec<(&'static str, NewGround)> {
    vec![
        ("sim", Box::new(|| Box::new(Sim(SimStore::new())))),
        ("embedded", Box::new(|| Box::new(Embedded(tempfile::tempdir().unwrap())))),
    ]
}

#[test]
fn a_deploy_killed_anywhere_ends_in_the_new_release() {
    for (name, ground) in grounds() {
        let points = at_every_point(Fault::Kill, &ground, &|case, faults| {
            case.deploy("1");
            let daemon = case.daemon(faults);
            daemon.save("d", &spec("2"));
            let _ = daemon.settled("d");
            daemon.stop();
            let daemon = case.daemon(Faults::none());
            let outcome = daemon.settled("d").unwrap();
            assert!(outcome.is_ok(), "{}: {outcome:?}", case.what);
            assert_eq!(case.version(&daemon), "2", "{}", case.what);
            daemon.stop();
        });
        assert!(points > 15, "{name}: only {points} fault points");
    }
}

#[test]
fn a_first_deploy_killed_anywhere_ends_deployed() {
    for (_, ground) in grounds() {
        at_every_point(Fault::Kill, &ground, &|case, faults| {
            let daemon = case.daemon(faults);
            daemon.save("d", &spec("1"));
            let _ = daemon.settled("d");
            daemon.stop();
            let daemon = case.daemon(Faults::none());
            let outcome = daemon.settled("d").unwrap();
            assert!(outcome.is_ok(), "{}: {outcome:?}", case.what);
            assert_eq!(case.version(&daemon), "1", "{}", case.what);
            daemon.stop();
        });
    }
}

#[test]
fn a_deploy_that_fails_anywhere_leaves_one_of_the_two_and_says_so() {
    for (_, ground) in grounds() {
        at_every_point(Fault::Fail, &ground, &|case, faults| {
            case.deploy("1");
            let daemon = case.daemon(faults);
            daemon.save("d", &spec("2"));
            let outcome = daemon.settled("d").unwrap();
            let version = case.version(&daemon);
            assert_eq!(version == "2", outcome.is_ok(), "{}: {outcome:?}", case.what);
            daemon.stop();
        });
    }
}

#[test]
fn an_undo_killed_anywhere_still_ends_in_the_old_release() {
    for (_, ground) in grounds() {
        at_every_point(Fault::Kill, &ground, &|case, faults| {
            case.deploy("1");
            case.host.set_probe(&app(), "2", SimProbe::Unhealthy("no".into()));
            let daemon = case.daemon(faults);
            daemon.save("d", &spec("2"));
            let _ = daemon.settled("d");
            daemon.stop();
            let daemon = case.daemon(Faults::none());
            let outcome = daemon.settled("d").unwrap();
            assert!(outcome.is_err(), "{}: {outcome:?}", case.what);
            assert_eq!(case.version(&daemon), "1", "{}", case.what);
            daemon.stop();
        });
    }
}

#[test]
fn a_rollback_killed_anywhere_ends_in_one_of_the_two() {
    for (_, ground) in grounds() {
        at_every_point(Fault::Kill, &ground, &|case, faults| {
            case.deploy("1");
            case.deploy("2");
            let daemon = case.daemon(faults);
            let _ = daemon.verb(Some("a"), Verb::Rollback(RollbackTarget::Latest));
            daemon.stop();
            let daemon = case.daemon(Faults::none());
            let outcome = daemon.settled("d").unwrap();
            assert!(outcome.is_ok(), "{}: {outcome:?}", case.what);
            // Asked for before the intent was written, it did not happen; after, it is completed.
            case.version(&daemon);
            daemon.stop();
        });
    }
}

#[test]
fn a_rollback_that_fails_anywhere_leaves_one_of_the_two_and_says_so() {
    for (_, ground) in grounds() {
        at_every_point(Fault::Fail, &ground, &|case, faults| {
            case.deploy("1");
            case.deploy("2");
            let daemon = case.daemon(faults);
            let outcome = daemon.verb(Some("a"), Verb::Rollback(RollbackTarget::Latest)).unwrap();
            let version = case.version(&daemon);
            assert_eq!(version == "1", outcome.is_ok(), "{}: {outcome:?}", case.what);
            daemon.stop();
        });
    }
}

#[test]
fn a_rollback_can_be_undone_and_nothing_is_lost() {
    for (name, ground) in grounds() {
        let mut ground = ground();
        let state = tempfile::tempdir().unwrap();
        let mut case =
            Case { ground: &mut *ground, host: SimHost::new(), state: state.path(), what: name.to_owned() };
        case.deploy("1");
        case.deploy("2");
        let before = case.ground.read("log");
        let daemon = case.daemon(Faults::none());
        daemon.verb(Some("a"), Verb::Rollback(RollbackTarget::Version("1".into()))).unwrap().unwrap();
        assert_eq!(case.version(&daemon), "1");
        let world = daemon.world();
        assert_eq!(world.deploys["d"].state, "held");
        daemon.verb(Some("a"), Verb::Rollback(RollbackTarget::Undo)).unwrap().unwrap();
        assert_eq!(case.version(&daemon), "2");
        assert!(case.ground.read("log").starts_with(&before), "{name}");
        assert_eq!(daemon.world().deploys["d"].state, "converged", "{name}");
        daemon.stop();
    }
}

#[test]
fn a_held_rollback_stays_until_the_spec_is_saved_again() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "held".into() };
    case.deploy("1");
    case.deploy("2");
    let daemon = case.daemon(Faults::none());
    daemon.verb(Some("a"), Verb::Rollback(RollbackTarget::Latest)).unwrap().unwrap();
    assert!(daemon.settled("d").unwrap().unwrap().starts_with("held"));
    daemon.stop();
    let daemon = case.daemon(Faults::none());
    assert!(daemon.settled("d").unwrap().unwrap().starts_with("held"), "a restart does not release it");
    assert_eq!(case.version(&daemon), "1");
    // The same bytes saved again: an operator wants the spec after all.
    daemon.save("d", &spec("2"));
    daemon.settled("d").unwrap().unwrap();
    assert_eq!(case.version(&daemon), "2");
    daemon.stop();
}

#[test]
fn a_removed_spec_stops_its_apps_and_keeps_their_data() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "removed".into() };
    case.deploy("1");
    let daemon = case.daemon(Faults::none());
    daemon.settled("d").unwrap().unwrap();
    daemon.remove("d");
    // The name is no longer known when its end has been carried out.
    while !matches!(daemon.settled("d"), Some(Err(_))) {}
    assert!(case.host.running().is_empty());
    assert_eq!(case.ground.read("trace"), "1", "the data stays");
    let world = daemon.world();
    assert!(!world.apps.contains_key("a"));
    assert_eq!(world.datasets["apps/a"].properties["com.zed:managed"], "yes");
    assert!(!world.datasets["apps/a"].properties.contains_key("com.zed:version"));
    daemon.stop();
}

#[test]
fn an_operator_stops_and_starts_an_app() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "verbs".into() };
    case.deploy("1");
    let daemon = case.daemon(Faults::none());
    daemon.verb(Some("a"), Verb::Stop).unwrap().unwrap();
    assert!(case.host.running().is_empty());
    assert_eq!(daemon.world().apps["a"].state, "stopped");
    daemon.stop();
    let daemon = case.daemon(Faults::none());
    daemon.settled("d").unwrap().unwrap();
    assert!(case.host.running().is_empty(), "a restart of zedd does not start it");
    daemon.verb(Some("a"), Verb::Start).unwrap().unwrap();
    assert_eq!(case.version(&daemon), "1");
    daemon.verb(Some("a"), Verb::Restart).unwrap().unwrap();
    assert_eq!(case.host.starts(&first()), 3);
    daemon.stop();
}

#[test]
fn after_a_boot_a_held_release_runs_again() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "boot".into() };
    case.deploy("1");
    case.deploy("2");
    let daemon = case.daemon(Faults::none());
    daemon.verb(Some("a"), Verb::Rollback(RollbackTarget::Latest)).unwrap().unwrap();
    daemon.stop();
    case.host.reboot();
    case.host.revive();
    let daemon = case.daemon(Faults::none());
    while case.host.running().is_empty() {
        daemon.settled("d").unwrap().unwrap();
    }
    daemon.settled("d").unwrap().unwrap();
    assert_eq!(case.version(&daemon), "1");
    daemon.stop();
}

#[test]
fn a_killed_app_is_drift_and_heals_when_asked() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "drift".into() };
    case.deploy("1");
    let daemon = case.daemon(Faults::none());
    daemon.settled("d").unwrap().unwrap();
    case.host.kill(&first());
    let world = daemon.world();
    assert_eq!(world.deploys["d"].state, "drift", "{:#?}", world.deploys["d"]);
    assert!(!world.apps["a"].drift.is_empty());
    assert!(case.host.running().is_empty(), "drift is reported, not repaired");
    daemon.verb(None, Verb::Heal { deploy: Some("d".into()) }).unwrap().unwrap();
    assert_eq!(case.version(&daemon), "1");
    daemon.stop();
}

#[test]
fn a_waiter_is_told_when_status_says_so_too() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "waiter".into() };
    case.deploy("1");
    case.deploy("2");
    let daemon = case.daemon(Faults::none());
    for (target, version) in [(RollbackTarget::Latest, "1"), (RollbackTarget::Undo, "2")] {
        daemon.verb(Some("a"), Verb::Rollback(target)).unwrap().unwrap();
        assert_eq!(daemon.shared.world().apps["a"].version, version);
    }
    daemon.stop();
}

#[test]
fn on_failure_hooks_run_when_what_was_before_is_back() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "hooks".into() };
    case.deploy("1");
    case.host.set_probe(&app(), "2", SimProbe::Unhealthy("no".into()));
    let daemon = case.daemon(Faults::none());
    let hooks = r#"health: (attempts: 1), hooks: (on_failure: [["page", "someone"]])"#;
    daemon.save("d", &spec("2").replace("health: (attempts: 1)", hooks));
    daemon.settled("d").unwrap().unwrap_err();
    let history = case.host.history();
    assert_eq!(history[history.len() - 2..], ["start a 1", "hook a page"], "{history:?}");
    daemon.stop();
}

#[test]
fn what_needs_an_operator_comes_before_anything_else() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "operator".into() };
    case.deploy("1");
    case.host.set_probe(&app(), "2", SimProbe::Unhealthy("no".into()));
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let faults = {
        let broken = broken.clone();
        Faults::by(move |point| {
            if broken.load(Ordering::SeqCst) && point.starts_with("before undo") {
                Fault::Fail
            } else {
                Fault::None
            }
        })
    };
    let daemon = case.daemon(faults);
    daemon.save("d", &spec("2"));
    assert_eq!(daemon.settled("d").unwrap().unwrap_err().code, zed_ctl::Code::NeedsOperator);
    // Neither a newer spec nor a verb may come before the undo that is owed.
    daemon.save("d", &format!("// again\n{}", spec("2")));
    assert_eq!(daemon.settled("d").unwrap().unwrap_err().code, zed_ctl::Code::NeedsOperator);
    for verb in [Verb::Restart, Verb::Rollback(RollbackTarget::Latest)] {
        let refused = daemon.verb(Some("a"), verb).unwrap().unwrap_err();
        assert_eq!(refused.code, zed_ctl::Code::NeedsOperator);
    }
    assert_eq!(daemon.world().deploys["d"].state, "needs-operator");
    broken.store(false, Ordering::SeqCst);
    case.host.set_probe(&app(), "2", SimProbe::Healthy);
    daemon.verb(None, Verb::RetryDeploy { deploy: "d".into() }).unwrap().unwrap();
    assert_eq!(case.version(&daemon), "2");
    daemon.stop();
}

#[test]
fn a_restart_by_hand_is_no_verdict_on_a_failed_spec() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "verdict".into() };
    case.deploy("1");
    case.host.set_probe(&app(), "2", SimProbe::Unhealthy("no".into()));
    let daemon = case.daemon(Faults::none());
    daemon.save("d", &spec("2"));
    daemon.settled("d").unwrap().unwrap_err();
    daemon.verb(Some("a"), Verb::Restart).unwrap().unwrap();
    assert_eq!(daemon.world().deploys["d"].state, "failed");
    assert_eq!(case.version(&daemon), "1");
    daemon.stop();
}

#[test]
fn a_removal_that_fails_is_said_and_not_tried_without_end() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "removal".into() };
    case.deploy("1");
    let runs = Arc::new(AtomicU64::new(0));
    let faults = {
        let runs = runs.clone();
        Faults::by(move |point| {
            runs.fetch_add(u64::from(point == "intent"), Ordering::SeqCst);
            if point.starts_with("before a ") { Fault::Fail } else { Fault::None }
        })
    };
    let daemon = case.daemon(faults);
    daemon.settled("d").unwrap().unwrap();
    daemon.remove("d");
    while daemon.settled("d").unwrap().is_ok() {}
    assert_eq!(daemon.world().deploys["d"].state, "failed");
    daemon.world();
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(case.host.running()[&first()], "1");
    daemon.stop();
}

#[test]
fn a_pipe_among_the_specs_stops_nobody_else() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "pipe".into() };
    case.deploy("1");
    let daemon = case.daemon(Faults::none());
    let pipe = daemon.state.deploy_dir().join("pipe.ron");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let text = daemon.settled("pipe").unwrap().unwrap_err().message;
    assert!(text.contains("not a regular file"), "{text}");
    daemon.save("d", &spec("2"));
    daemon.settled("d").unwrap().unwrap();
    assert_eq!(case.version(&daemon), "2");
    daemon.stop();
}

#[test]
fn a_release_is_reachable_after_its_spec_was_removed_and_saved_again() {
    for (name, ground) in grounds() {
        let mut ground = ground();
        let state = tempfile::tempdir().unwrap();
        let mut case =
            Case { ground: &mut *ground, host: SimHost::new(), state: state.path(), what: name.into() };
        case.deploy("1");
        let daemon = case.daemon(Faults::none());
        daemon.settled("d").unwrap().unwrap();
        daemon.remove("d");
        while !matches!(daemon.settled("d"), Some(Err(_))) {}
        daemon.save("d", &spec("2"));
        daemon.settled("d").unwrap().unwrap();
        assert_eq!(daemon.world().deploys["d"].generation, 2, "generations never go back");
        daemon.verb(Some("a"), Verb::Rollback(RollbackTarget::Latest)).unwrap().unwrap();
        assert_eq!(case.version(&daemon), "1");
        daemon.stop();
    }
}

#[test]
fn a_rollback_leaves_the_app_with_the_spec_that_has_it_now() {
    let mut ground = Sim(SimStore::new());
    let state = tempfile::tempdir().unwrap();
    let mut case =
        Case { ground: &mut ground, host: SimHost::new(), state: state.path(), what: "renamed".into() };
    case.deploy("1");
    let daemon = case.daemon(Faults::none());
    daemon.settled("d").unwrap().unwrap();
    daemon.remove("d");
    while !matches!(daemon.settled("d"), Some(Err(_))) {}
    daemon.save("e", &spec("2"));
    daemon.settled("e").unwrap().unwrap();
    daemon.verb(Some("a"), Verb::Rollback(RollbackTarget::Latest)).unwrap().unwrap();
    assert_eq!(case.version(&daemon), "1");
    let world = daemon.world();
    assert_eq!(world.apps["a"].deploy, "e");
    assert_eq!(world.deploys["e"].state, "held");
    daemon.stop();
}
