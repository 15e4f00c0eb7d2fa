//! What changes behind zed's back: it is shown, told once, and repaired only when asked to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the fault tests use the rest")]
mod common;

use common::Daemon;
use std::path::Path;
use std::sync::Arc;
use zed_host::SimHost;
use zed_store::SimStore;
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
