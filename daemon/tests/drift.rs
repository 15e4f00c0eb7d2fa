//! What changes behind zed's back: it is shown, told once, and repaired only when asked to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the fault tests use the rest")]
mod common;

use common::Daemon;
use std::path::Path;
use std::sync::Arc;
use zed_ctl::Verb;
use zed_host::SimHost;
use zed_spec::DatasetPath;
use zed_store::PropChange;
use zed_store::SimStore;
use zed_store::Store;
use zedd::faults::Faults;

/// A daemon on a simulated store and host.
fn daemon(store: &SimStore, host: &SimHost, state: &Path) -> Daemon {
    Daemon::start(Arc::new(store.clone()), host, Arc::new(|_| {}), state, Faults::none())
}

/// Texts of the events of one kind, oldest first.
fn events(daemon: &Daemon, kind: &str) -> Vec<String> {
    let text = std::fs::read_to_string(daemon.state.events_path()).unwrap();
    let events = text.lines().map(|line| zed_ctl::Event::parse(line).unwrap());
    events.filter(|event| event.kind.as_str() == kind).map(|event| event.text).collect()
}

#[test]
fn a_pool_that_degrades_is_a_problem_and_an_event_and_no_change_of_plans() {
    let store = SimStore::new();
    let state = tempfile::tempdir().unwrap();
    let daemon = daemon(&store, &SimHost::new(), state.path());
    let before = daemon.world();
    assert_eq!(before.host.facts.get("pool.sim.health").map(String::as_str), Some("ONLINE"));
    assert!(before.host.problems.is_empty(), "{:?}", before.host.problems);
    store.set_pool_health("DEGRADED");
    store.set_available(1 << 30);
    let after = daemon.world();
    assert_eq!(after.host.facts.get("pool.sim.free").map(String::as_str), Some("1073741824"));
    assert!(
        after.host.problems.iter().any(|p| p.starts_with("pool sim: DEGRADED")),
        "{:?}",
        after.host.problems
    );
    assert_eq!(after.host.state, "converged");
    store.set_pool_health("ONLINE");
    assert!(daemon.world().host.problems.is_empty());
    assert_eq!(
        events(&daemon, "pool-health"),
        ["pool sim: ONLINE -> DEGRADED", "pool sim: DEGRADED -> ONLINE"]
    );
    daemon.stop();
}

const SPEC: &str = r#"Deploy(
    datasets: {"apps/a": (compression: "lz4"), "data": ()},
    apps: {"a": (dataset: "apps/a", version: "1", command: ["/bin/a"])},
)"#;

fn path(text: &str) -> DatasetPath {
    DatasetPath::parse(text).unwrap()
}

fn heal(name: &str) -> Verb {
    Verb::Heal { deploy: Some(name.to_owned()) }
}

/// The state of the deploy `d` after everything was looked at, and what is said of it.
fn state(daemon: &Daemon) -> (String, String) {
    let world = daemon.world();
    (world.deploys["d"].state.clone(), world.deploys["d"].verdict.clone())
}

/// Changes one property as somebody else would.
fn set(store: &SimStore, of: &str, native: bool, key: &str, value: Option<&str>) {
    let change = std::collections::BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]);
    let (native, user) = if native { (change, Default::default()) } else { (Default::default(), change) };
    store.set(&[PropChange { path: path(of), native, user }]).unwrap();
}

#[test]
fn a_changed_property_is_drift_with_what_was_found_and_heals() {
    let store = SimStore::new();
    let state_dir = tempfile::tempdir().unwrap();
    let daemon = daemon(&store, &SimHost::new(), state_dir.path());
    daemon.save("d", SPEC);
    daemon.settled("d").unwrap().unwrap();
    assert_eq!(state(&daemon).0, "converged");
    set(&store, "apps/a", true, "compression", Some("off"));
    let (word, text) = state(&daemon);
    assert_eq!(word, "drift");
    assert!(text.starts_with("dataset apps/a: compression is `off`, the spec says `lz4`"), "{text}");
    let world = daemon.world();
    assert!(world.apps["a"].drift.contains("compression"), "{:?}", world.apps["a"].drift);
    assert!(world.deploys["d"].plan.contains("compression"), "the plan says what would be done");
    assert_eq!(store.get(&path("apps/a")).unwrap().unwrap().native["compression"], "off", "it is left alone");

    daemon.verb(None, heal("d")).unwrap().unwrap();
    assert_eq!(state(&daemon).0, "converged");
    assert_eq!(store.get(&path("apps/a")).unwrap().unwrap().native["compression"], "lz4");
    assert_eq!(events(&daemon, "drift").len(), 1, "told once: {:?}", events(&daemon, "drift"));
    assert_eq!(events(&daemon, "healed").len(), 1, "{:?}", events(&daemon, "healed"));

    // The same by saving, and by policy.
    set(&store, "data", false, "com.zed:role", None);
    assert_eq!(state(&daemon).0, "drift");
    daemon.save("d", SPEC);
    daemon.settled("d").unwrap().unwrap();
    assert_eq!(state(&daemon).0, "converged");
    daemon.save("d", &SPEC.replace("datasets:", "drift: Heal, datasets:"));
    daemon.settled("d").unwrap().unwrap();
    set(&store, "apps/a", true, "compression", None);
    daemon.world();
    daemon.settled("d").unwrap().unwrap();
    assert_eq!(state(&daemon).0, "converged");
    assert_eq!((events(&daemon, "drift").len(), events(&daemon, "healed").len()), (3, 3));
    daemon.stop();
}

#[test]
fn a_saved_spec_applies_at_once_also_over_a_restart() {
    let store = SimStore::new();
    let (host, state_dir) = (SimHost::new(), tempfile::tempdir().unwrap());
    let first = daemon(&store, &host, state_dir.path());
    first.save("d", SPEC);
    first.settled("d").unwrap().unwrap();
    first.stop();
    // Saved while no daemon looks.
    let file = state_dir.path().join("deploy/d.ron");
    zedd::state::replace_file(&file, SPEC.replace("lz4", "zstd").as_bytes()).unwrap();
    let second = daemon(&store, &host, state_dir.path());
    second.settled("d").unwrap().unwrap();
    assert_eq!(state(&second).0, "converged");
    assert_eq!(store.get(&path("apps/a")).unwrap().unwrap().native["compression"], "zstd");
    second.stop();
    // Changed while no daemon looks: drift, although this daemon has never seen the deploy at rest.
    set(&store, "apps/a", true, "compression", Some("off"));
    let third = daemon(&store, &host, state_dir.path());
    third.settled("d").unwrap().unwrap();
    assert_eq!(state(&third).0, "drift");
    third.stop();
}

#[test]
fn a_dataset_that_is_gone_is_not_begun_anew_unless_asked_for_by_name() {
    let store = SimStore::new();
    let (host, state_dir) = (SimHost::new(), tempfile::tempdir().unwrap());
    let first = daemon(&store, &host, state_dir.path());
    first.save("d", SPEC);
    first.settled("d").unwrap().unwrap();
    first.world();
    // As `zfs rename data zed/branches/x` would.
    store.retire(&path("data"), &path("zed/branches/x")).unwrap();
    let gone = |daemon: &Daemon, word: &str| {
        let (state, text) = state(daemon);
        assert_eq!(state, word, "{text}");
        assert!(text.contains("dataset data: it is gone"), "{text}");
        assert!(store.get(&path("data")).unwrap().is_none());
    };
    gone(&first, "drift");
    first.verb(None, Verb::Heal { deploy: None }).unwrap().unwrap();
    gone(&first, "drift");
    first.save("d", &SPEC.replace("version: \"1\"", "version: \"2\""));
    let failed = first.settled("d").unwrap().unwrap_err();
    assert!(failed.message.contains("data: it is gone"), "{}", failed.message);
    gone(&first, "failed");
    first.stop();

    let second = daemon(&store, &host, state_dir.path());
    second.settled("d").unwrap().unwrap_err();
    gone(&second, "failed");
    second.verb(None, heal("d")).unwrap().unwrap();
    assert_eq!(state(&second).0, "converged");
    assert!(store.get(&path("data")).unwrap().is_some());
    assert_eq!(second.world().apps["a"].version, "2");
    second.stop();
}

#[test]
fn a_run_about_something_else_forgets_no_lost_data() {
    let store = SimStore::new();
    let (host, state_dir) = (SimHost::new(), tempfile::tempdir().unwrap());
    let daemon = daemon(&store, &host, state_dir.path());
    daemon.save("d", SPEC);
    daemon.settled("d").unwrap().unwrap();
    daemon.world();
    store.retire(&path("data"), &path("zed/branches/x")).unwrap();
    // The host boots: the app is started again by a run of its own.
    host.reboot();
    daemon.world();
    daemon.settled("d").unwrap().unwrap();
    let (word, text) = state(&daemon);
    assert_eq!(word, "drift");
    assert!(text.contains("dataset data: it is gone"), "{text}");
    assert!(store.get(&path("data")).unwrap().is_none());
    assert_eq!(daemon.world().apps["a"].state, "running");
    daemon.stop();
}
