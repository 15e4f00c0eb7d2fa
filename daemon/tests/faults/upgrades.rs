//! The same promises for upgrades during which the app goes on serving: one version runs afterwards, whole, it is
//! the one that status names, and it is where the front forwards to.

use super::Case;
use super::app;
use super::at_every_point;
use super::grounds;
use crate::common::Daemon;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_ctl::RollbackTarget;
use zed_ctl::Verb;
use zed_host::SimProbe;
use zedd::faults::Fault;
use zedd::faults::Faults;
use zedd::rollout::Steer;

/// How an app is upgraded, and how many processes it has.
struct Way {
    fields: &'static str,
    processes: usize,
}

const WAYS: [Way; 4] = [
    Way {
        fields: "strategy: BlueGreen(ports: (8080, 8081), drain: \"1ms\"), listen: \"127.0.0.1:8000\"",
        processes: 1,
    },
    Way { fields: "strategy: BlueGreen(ports: (8080, 8081), drain: \"1ms\")", processes: 1 },
    Way {
        fields: "instances: 3, strategy: Rolling(batch: 2), listen: \"127.0.0.1:8000\", env: {\"PORT\": \"8080\"}",
        processes: 3,
    },
    Way { fields: "instances: 2, strategy: Canary(instances: 1, pause: \"1ms\")", processes: 2 },
];

/// The ways that are tried on a store. What differs between stores is what a rollback puts back: one way shows it
/// where every step costs a disk, all of them where nothing does. On ZFS in the guest a point costs seconds, so there
/// only the kill is tried at all of them.
fn ways(store: &str, at_all_points_on_zfs: bool) -> &'static [Way] {
    match store {
        "sim" => &WAYS,
        "zfs" if !at_all_points_on_zfs => {
            eprintln!("not run on ZFS: simulated and embedded stores show it");
            &[]
        }
        _ => &WAYS[..1],
    }
}

impl Way {
    fn spec(&self, version: &str) -> String {
        format!(
            r#"Deploy(
    datasets: {{"apps/a": ()}},
    apps: {{"a": (dataset: "apps/a", version: "{version}", command: ["a"], health: (attempts: 1), {})}},
    snapshots: (before_deploy: true, keep: 3),
)"#,
            self.fields
        )
    }

    fn deploy(&self, case: &mut Case<'_>, version: &str) {
        let daemon = case.daemon(Faults::none());
        daemon.save("d", &self.spec(version));
        let outcome = daemon.settled("d").expect("nothing kills it");
        assert!(outcome.is_ok(), "{}: {outcome:?}", case.what);
        daemon.stop();
    }

    /// The version that runs; everything must agree on it.
    fn version(&self, case: &Case<'_>, daemon: &Daemon) -> String {
        let world = daemon.world();
        let view = &world.apps["a"];
        let told = format!("{} with {}: {view:#?}", case.what, self.fields);
        assert_eq!(view.state, "running", "{told}");
        assert_eq!(world.datasets["apps/a"].properties["com.zed:version"], view.version, "{told}");
        let running = case.host.running();
        assert_eq!(running.len(), self.processes, "{running:?} {told}");
        let versions: BTreeSet<&String> = running.values().collect();
        assert_eq!(versions, BTreeSet::from([&view.version]), "{told}");
        // What is shown is what runs, and a front where there is one.
        let fronts = usize::from(self.fields.contains("listen"));
        let shown = view.instances.iter().filter(|instance| instance.state == "running").count();
        if !view.instances.is_empty() {
            assert_eq!(shown, self.processes + fronts, "{told}");
        }
        let routes: BTreeMap<_, _> = case.host.routes();
        assert_eq!(routes.len(), fronts, "{routes:?} {told}");
        for route in routes.values() {
            let to: BTreeSet<_> = route.backends.keys().collect();
            assert_eq!(to, running.keys().collect(), "{told}");
        }
        view.version.clone()
    }
}

#[test]
fn an_upgrade_killed_anywhere_ends_in_the_new_version() {
    for (name, ground) in grounds() {
        for way in ways(name, true) {
            let points = at_every_point(Fault::Kill, &ground, &|case, faults| {
                way.deploy(case, "1");
                let daemon = case.daemon(faults);
                daemon.save("d", &way.spec("2"));
                let _ = daemon.settled("d");
                daemon.stop();
                let daemon = case.daemon(Faults::none());
                let outcome = daemon.settled("d").unwrap();
                assert!(outcome.is_ok(), "{}: {outcome:?}", case.what);
                assert_eq!(way.version(case, &daemon), "2", "{}", case.what);
                daemon.stop();
            });
            assert!(points > 15, "{name}: only {points} fault points");
        }
    }
}

#[test]
fn an_upgrade_that_fails_anywhere_leaves_one_of_the_two_and_says_so() {
    for (name, ground) in grounds() {
        for way in ways(name, false) {
            at_every_point(Fault::Fail, &ground, &|case, faults| {
                way.deploy(case, "1");
                let daemon = case.daemon(faults);
                daemon.save("d", &way.spec("2"));
                let outcome = daemon.settled("d").unwrap();
                // What a failed clearing up leaves is cleared up by the next pass, or when somebody asks.
                let healed = daemon.verb(None, Verb::Heal { deploy: Some("d".to_owned()) }).unwrap();
                assert_eq!(healed.is_ok(), outcome.is_ok(), "{}: {outcome:?} {healed:?}", case.what);
                let version = way.version(case, &daemon);
                assert_eq!(version == "2", outcome.is_ok(), "{}: {outcome:?}", case.what);
                daemon.stop();
            });
        }
    }
}

#[test]
fn an_upgrade_whose_probe_fails_killed_anywhere_ends_in_the_old_version() {
    for (name, ground) in grounds() {
        for way in ways(name, false) {
            at_every_point(Fault::Kill, &ground, &|case, faults| {
                way.deploy(case, "1");
                case.host.set_probe(&app(), "2", SimProbe::Unhealthy("no".into()));
                let daemon = case.daemon(faults);
                daemon.save("d", &way.spec("2"));
                let _ = daemon.settled("d");
                daemon.stop();
                let daemon = case.daemon(Faults::none());
                let outcome = daemon.settled("d").unwrap();
                assert!(outcome.is_err(), "{}: {outcome:?}", case.what);
                assert_eq!(way.version(case, &daemon), "1", "{}", case.what);
                daemon.stop();
            });
        }
    }
}

#[test]
fn a_rollback_of_such_an_app_killed_anywhere_ends_in_one_of_the_two() {
    for (name, ground) in grounds() {
        for way in ways(name, false) {
            at_every_point(Fault::Kill, &ground, &|case, faults| {
                way.deploy(case, "1");
                way.deploy(case, "2");
                let daemon = case.daemon(faults);
                if daemon.settled("d").is_some() {
                    let _ = daemon.verb(Some("a"), Verb::Rollback(RollbackTarget::Latest));
                }
                daemon.stop();
                let daemon = case.daemon(Faults::none());
                daemon.settled("d");
                way.version(case, &daemon);
                daemon.stop();
            });
        }
    }
}

/// Waits until a deploy watches the new version.
fn wait_for_watch(daemon: &Daemon) {
    let watches = || {
        let world = daemon.shared.world();
        world.deploys.get("d").is_some_and(|deploy| deploy.step.contains("watch"))
    };
    while !watches() {
        std::thread::yield_now();
    }
}

#[test]
fn a_batch_that_is_taken_back_is_healthy_before_the_next_one_stops() {
    let rolling = Way {
        fields: "instances: 2, strategy: Rolling(batch: 1, pause: \"1h\"), listen: \"127.0.0.1:8000\", \
                 env: {\"PORT\": \"8080\"}, hooks: (after_deploy: [[\"check\"]])",
        processes: 2,
    };
    // However it comes to that: a failure when both are replaced, or an operator when one is.
    for aborted in [false, true] {
        for old_is_well in [true, false] {
            let mut ground = super::Sim(zed_store::SimStore::new());
            let state = tempfile::tempdir().unwrap();
            let what = format!("aborted {aborted}, old is well {old_is_well}");
            let host = zed_host::SimHost::new();
            let mut case = Case { ground: &mut ground, host, state: state.path(), what };
            rolling.deploy(&mut case, "1");
            let daemon = case.daemon(Faults::none());
            case.host.fail_hook(&app(), "check");
            daemon.save("d", &rolling.spec("2"));
            wait_for_watch(&daemon);
            if !old_is_well {
                case.host.set_probe(&app(), "1", SimProbe::Unhealthy("ill".into()));
            }
            let before = case.host.history().len();
            let steer = if aborted { Steer::Abort } else { Steer::Promote };
            daemon.shared.steer(&zed_spec::DeployName::parse("d").unwrap(), steer);
            let error = daemon.settled("d").unwrap().unwrap_err();
            assert!(error.message.contains("what was before is back"), "{}: {error:?}", case.what);
            let mut history = case.host.history().split_off(before);
            history.retain(|line| line.starts_with("st") || line.ends_with(" 1"));
            let back = |process: &str| {
                let healthy = old_is_well.then(|| format!("healthy {process} 1"));
                [format!("stop {process}"), format!("start {process} 1")].into_iter().chain(healthy)
            };
            let mut wanted: Vec<String> = Vec::new();
            if !aborted {
                wanted.extend(["stop a.2".to_owned(), "start a.2 2".to_owned()]);
                wanted.extend(back("a.2"));
            }
            wanted.extend(back("a"));
            assert_eq!(history, wanted, "{}", case.what);
            assert_eq!(rolling.version(&case, &daemon), "1", "{}", case.what);
            daemon.stop();
        }
    }
}

#[test]
fn an_operator_aborts_or_promotes_a_canary_and_scales_the_app() {
    let canary = Way { fields: "instances: 2, strategy: Canary(instances: 1, pause: \"1h\")", processes: 2 };
    let deploy = zed_spec::DeployName::parse("d").unwrap();
    for (_, ground) in grounds() {
        let mut ground = ground();
        let state = tempfile::tempdir().unwrap();
        let what = "canary".to_owned();
        let host = zed_host::SimHost::new();
        let mut case = Case { ground: &mut *ground, host, state: state.path(), what };
        canary.deploy(&mut case, "1");
        let daemon = case.daemon(Faults::none());
        assert!(!daemon.shared.steer(&deploy, Steer::Abort), "nothing is going on");
        daemon.save("d", &canary.spec("2"));
        wait_for_watch(&daemon);
        assert!(daemon.shared.steer(&deploy, Steer::Pause));
        assert!(daemon.shared.world().deploys["d"].step.starts_with("paused: "));
        assert!(daemon.shared.steer(&deploy, Steer::Abort));
        let error = daemon.settled("d").unwrap().unwrap_err();
        assert!(error.message.contains("an operator aborted it; what was before is back"), "{error:?}");
        assert_eq!(canary.version(&case, &daemon), "1");
        daemon.save("d", &canary.spec("3"));
        wait_for_watch(&daemon);
        daemon.shared.steer(&deploy, Steer::Promote);
        assert!(daemon.settled("d").unwrap().is_ok());
        assert_eq!(canary.version(&case, &daemon), "3");
        for count in [4, 1] {
            daemon.verb(Some("a"), Verb::Scale { count }).unwrap().unwrap();
            assert_eq!(case.host.running().len(), usize::try_from(count).unwrap());
            daemon.verb(None, Verb::Heal { deploy: None }).unwrap().unwrap();
            assert_eq!(case.host.running().len(), usize::try_from(count).unwrap(), "the spec takes it back");
        }
        daemon.stop();
    }
}
