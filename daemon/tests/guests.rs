//! Jails and zones through the whole daemon: the example against the simulated tools, on a real store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Daemon;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zed_ctl::RollbackTarget;
use zed_ctl::Verb;
use zed_host::SimHost;
use zed_host::SimProbe;
use zed_host::guest::SimFault;
use zed_host::guest::SimGuests;
use zed_plan::GuestId;
use zed_plan::Instance;
use zed_spec::AppName;
use zed_store::EmbeddedStore;
use zedd::faults::Fault;
use zedd::faults::Faults;

/// A host with the tools of both systems, whose datasets are real folders.
struct Ground {
    top: tempfile::TempDir,
    store: Arc<EmbeddedStore>,
    sim: SimGuests,
    host: SimHost,
}

impl Ground {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let sim = SimGuests::with_real_files_below(top.path());
        let store = Arc::new(EmbeddedStore::open(&top.path().join("store")).unwrap());
        Self { top, store, sim, host: SimHost::new() }
    }

    fn state(&self) -> PathBuf {
        self.top.path().join("state")
    }

    /// A daemon as it is after the last boot.
    fn daemon(&self, faults: Faults) -> Daemon {
        let host = self.host.with_guests(&self.sim, self.sim.guests(&self.state()));
        Daemon::start(self.store.clone(), &host, Arc::new(|_| {}), &self.state(), faults)
    }

    /// Saves the spec and waits; the outcome's text when it failed.
    fn converge(&self, daemon: &Daemon, text: &str) -> Result<(), String> {
        daemon.save("jails", text);
        // A look that fails is taken again when the loop wakes, by its clock, which stands still here, or so.
        let done = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    daemon.world();
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            let outcome = daemon.settled("jails");
            done.store(true, Ordering::SeqCst);
            outcome
        });
        outcome.unwrap().map(|_| ()).map_err(|error| error.to_string())
    }

    /// Commands that change something, since there were `before` commands.
    fn changes(&self, before: usize) -> Vec<String> {
        let looks =
            ["jls", "rctl", "bastille list", "zoneadm list", "zonecfg -z shop-z export", "dladm show-vnic"];
        let changes =
            |line: &String| !looks.iter().any(|look| line.starts_with(look)) && !line.contains(" query ");
        self.sim.history().split_off(before).into_iter().filter(changes).collect()
    }

    /// Where a dataset is.
    fn place(&self, dataset: &str) -> PathBuf {
        self.top.path().join("store/mnt").join(dataset)
    }

    fn reboot(&self) {
        self.host.reboot();
        self.host.revive();
        self.sim.reboot();
        self.sim.revive();
    }

    /// What runs: jails with a parameter, zones, apps with their version.
    fn picture(&self) -> String {
        let jails = self.sim.jails("enforce_statfs");
        let jails: Vec<String> =
            jails.iter().map(|(name, value)| format!("{name} {}", value.as_deref().unwrap_or("-"))).collect();
        let apps: Vec<String> =
            self.host.running().iter().map(|(app, version)| format!("{app} {version}")).collect();
        let packages: Vec<String> = self.sim.packages(&self.root()).into_iter().collect();
        format!(
            "{} | {:?} | {} | {}",
            jails.join(", "),
            self.sim.zones(),
            apps.join(", "),
            packages.join(" ")
        )
    }

    /// The root of the jail `shop`, as jail(8) was told.
    fn root(&self) -> PathBuf {
        self.sim
            .jails("path")
            .get("shop")
            .cloned()
            .flatten()
            .map_or_else(|| self.place("jails/shop"), PathBuf::from)
    }
}

/// The daemon dies at the `n`th point.
fn kill_at(n: u64) -> Faults {
    let seen = AtomicU64::new(0);
    Faults::by(move |_| if seen.fetch_add(1, Ordering::SeqCst) + 1 == n { Fault::Kill } else { Fault::None })
}

fn app(name: &str) -> AppName {
    AppName::parse(name).unwrap()
}

/// The example, without the secret and the artifact, which other tests are about.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs/examples/jails.ron");
    let text = std::fs::read_to_string(path).unwrap();
    let text = text
        .replace("artifact: Tar(path: \"/srv/artifacts/shop-3.0.1.tar.gz\"),", "command: [\"bin/shop\"],");
    let text =
        text.replace("cookie: Secret(\"shop/cookie\"),", "").replace("health: (probes: [BeamPing]),", "");
    let (text, _) = text.split_once("secrets:").unwrap();
    format!("{text})")
}

/// The same, in its next version: app, package, parameter and the zone's limits change.
fn upgraded() -> String {
    let text = example().replace("3.0.1", "3.1.0").replace("\"openssl\"]", "\"caddy\"]");
    text.replace("\"enforce_statfs\": \"2\"", "\"enforce_statfs\": \"1\"").replace("\"2G\"", "\"1G\"")
}

#[test]
fn the_example_converges_upgrades_rolls_back_and_goes() {
    let ground = Ground::new();
    let daemon = ground.daemon(Faults::none());
    ground.converge(&daemon, &example()).unwrap();
    let first = ground.picture();
    assert_eq!(
        first,
        "edge 2, shop 2 | {\"shop-z\": \"running\"} | shop 3.0.1, shop-z 3.0.1 | indexinfo libgcrypt openssl"
    );
    assert_eq!(ground.sim.vnics().len(), 1);
    // The app is entered by jexec, and its environment is in no argument.
    let environment = ground.host.environment(&Instance::first(&app("shop"))).unwrap();
    assert_eq!(environment["ZED_VERSION"], "3.0.1");
    assert!(
        !ground.sim.history().iter().any(|line| line.contains("ZED_VERSION")),
        "{:?}",
        ground.sim.history()
    );
    let zone = ground.host.environment(&Instance::first(&app("shop-z"))).unwrap();
    assert!(zone.is_empty(), "zlogin hands nothing on: {zone:?}");
    // Again: nothing is changed.
    let before = ground.sim.history().len();
    ground.converge(&daemon, &example()).unwrap();
    assert_eq!(ground.changes(before), [] as [String; 0]);
    // Upgrade: parameters and limits that changed are in force.
    ground.converge(&daemon, &upgraded()).unwrap();
    let second = ground.picture();
    assert_eq!(
        second,
        "edge 2, shop 1 | {\"shop-z\": \"running\"} | shop 3.1.0, shop-z 3.1.0 | caddy indexinfo libgcrypt"
    );
    assert!(ground.sim.zone_config("shop-z").contains(&"set physical=1048576K".to_owned()));
    // The app goes back; it sees its dataset again, in a jail that runs.
    daemon.verb(Some("shop"), Verb::Rollback(RollbackTarget::Version("3.0.1".into()))).unwrap().unwrap();
    assert!(ground.picture().contains("shop 3.0.1, shop-z 3.0.1"), "{}", ground.picture());
    assert!(ground.sim.runs(&GuestId::parse("jail:shop").unwrap()));
    assert_eq!(ground.sim.mounts("shop").len(), 2);
    ground.converge(&daemon, &format!("// saved again\n{}", upgraded())).unwrap();
    assert_eq!(ground.picture(), second);
    // Gone, in reverse order, and the data are there.
    let before = ground.sim.history().len();
    daemon.remove("jails");
    // The name is no longer known when its end has been carried out.
    while !matches!(daemon.settled("jails"), Some(Err(_))) {}
    let stops: Vec<String> = ground
        .changes(before)
        .into_iter()
        .filter(|line| line.contains("jail") || line.contains("bastille stop"))
        .collect();
    let at = |word: &str| {
        stops.iter().position(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {stops:?}"))
    };
    assert!(at("-r edge") < at("stop shop"), "{stops:?}");
    assert!(
        ground.sim.jails("path").is_empty()
            && ground.sim.zones().is_empty()
            && ground.host.running().is_empty()
    );
    daemon.stop();
    ground.reboot();
    assert!(ground.sim.jails("path").is_empty(), "none returns after a boot");
}

#[test]
fn a_package_that_cannot_be_had_leaves_the_jail_as_it_was() {
    let ground = Ground::new();
    let daemon = ground.daemon(Faults::none());
    ground.converge(&daemon, &example()).unwrap();
    let before = ground.picture();
    let bad = upgraded().replace("\"caddy\"", "\"caddy\", \"no-such-thing\"");
    let error = ground.converge(&daemon, &bad).unwrap_err();
    assert!(error.contains("no-such-thing"), "{error}");
    let after = ground.picture();
    assert_eq!(after, before, "root, parameters and app are as they were");
    ground.converge(&daemon, &upgraded()).unwrap();
    assert!(ground.picture().contains("caddy"));
    daemon.stop();
}

#[test]
fn a_jail_conf_that_jail_refuses_leaves_the_jail_as_it_was() {
    let ground = Ground::new();
    let daemon = ground.daemon(Faults::none());
    ground.converge(&daemon, &example()).unwrap();
    let before = ground.picture();
    let bad = upgraded().replace("\"enforce_statfs\"", "\"enforce.statfs\"");
    let error = ground.converge(&daemon, &bad).unwrap_err();
    assert!(error.contains("jail: shop: unknown parameter: enforce.statfs"), "{error}");
    assert!(error.contains("what was before is back"), "{error}");
    assert_eq!(ground.picture(), before);
    ground.converge(&daemon, &upgraded()).unwrap();
    daemon.stop();
}

#[test]
fn an_app_whose_new_version_fails_is_put_back_in_its_jail() {
    let ground = Ground::new();
    let daemon = ground.daemon(Faults::none());
    ground.converge(&daemon, &example()).unwrap();
    let before = ground.picture();
    ground.host.set_probe(&app("shop"), "3.1.0", SimProbe::Unhealthy("no answer".into()));
    let error = ground.converge(&daemon, &example().replace("3.0.1", "3.1.0")).unwrap_err();
    assert!(error.contains("no answer"), "{error}");
    assert_eq!(ground.picture(), before);
    assert_eq!(ground.sim.mounts("shop").len(), 2);
    daemon.stop();
}

#[test]
fn a_stopped_jail_is_drift_in_status_and_heals() {
    let ground = Ground::new();
    let daemon = ground.daemon(Faults::none());
    ground.converge(&daemon, &example()).unwrap();
    let before = ground.picture();
    ground.sim.kill("shop");
    let world = daemon.world();
    assert_eq!(world.deploys["jails"].state, "drift", "{:#?}", world.deploys["jails"]);
    daemon.verb(None, Verb::Heal { deploy: Some("jails".into()) }).unwrap().unwrap();
    assert_eq!(ground.picture(), before);
    daemon.stop();
}

#[test]
fn after_a_boot_all_of_it_runs_again() {
    let ground = Ground::new();
    let daemon = ground.daemon(Faults::none());
    ground.converge(&daemon, &example()).unwrap();
    let before = ground.picture();
    daemon.stop();
    ground.reboot();
    let daemon = ground.daemon(Faults::none());
    daemon.settled("jails").unwrap().unwrap();
    daemon.world();
    daemon.settled("jails").unwrap().unwrap();
    assert_eq!(ground.picture(), before);
    daemon.stop();
}

/// Whatever one command of the upgrade does instead of its work: the deploy converges, or all is as it was before;
/// and a second save converges.
#[test]
fn every_fault_at_every_command_of_an_upgrade_ends_in_one_of_two_states() {
    let (mut cases, mut failed) = (0, 0);
    // Each fault at each command is a test of the adapters; here every fourth will do.
    for (first, fault) in [(1, SimFault::Fail), (2, SimFault::Lie), (3, SimFault::FailAfter)] {
        for n in (first..).step_by(4) {
            let ground = Ground::new();
            let daemon = ground.daemon(Faults::none());
            ground.converge(&daemon, &example()).unwrap();
            let before = ground.picture();
            let commands = ground.sim.commands();
            ground.sim.fault_at(n, fault);
            let outcome = ground.converge(&daemon, &upgraded());
            let reached = ground.sim.commands() >= commands + n;
            ground.sim.revive();
            let problems = daemon.world().deploys["jails"].clone();
            let after = ground.picture();
            if let Err(error) = &outcome {
                failed += 1;
                assert!(!error.contains("operator"), "{fault:?} at {n}: {error}");
                // Each part stands or falls by itself: what failed is as it was before.
                let parts = |picture: &str| {
                    picture.split([',', '|']).map(|part| part.trim().to_owned()).collect::<BTreeSet<String>>()
                };
                let known: BTreeSet<String> =
                    parts(&before).union(&parts(&upgraded_picture())).cloned().collect();
                assert!(parts(&after).is_subset(&known), "{fault:?} at {n}: {after}\n{error}\n{problems:?}");
            } else {
                assert_eq!(after, upgraded_picture(), "{fault:?} at {n} was not noticed");
            }
            ground
                .converge(&daemon, &format!("// again\n{}", upgraded()))
                .unwrap_or_else(|e| panic!("{fault:?} at {n}: {e}"));
            assert_eq!(ground.picture(), upgraded_picture(), "{fault:?} at {n}, then again");
            daemon.stop();
            cases += 1;
            if !reached {
                break;
            }
        }
    }
    assert!(cases > 20 && failed > 8, "{cases} cases, {failed} failed");
}

fn upgraded_picture() -> String {
    "edge 2, shop 1 | {\"shop-z\": \"running\"} | shop 3.1.0, shop-z 3.1.0 | caddy indexinfo libgcrypt"
        .to_owned()
}

/// The daemon is killed at each of its steps, every second time with the whole host.
#[test]
fn killed_anywhere_in_an_upgrade_the_next_daemon_completes_it() {
    let mut cases = 0;
    for n in (1..).step_by(5) {
        let ground = Ground::new();
        let daemon = ground.daemon(Faults::none());
        ground.converge(&daemon, &example()).unwrap();
        daemon.stop();
        let daemon = ground.daemon(kill_at(n));
        daemon.settled("jails");
        if !daemon.killed() {
            daemon.save("jails", &upgraded());
            daemon.settled("jails");
        }
        let killed = daemon.killed();
        daemon.stop();
        if killed && n % 2 == 0 {
            ground.reboot();
        }
        let daemon = ground.daemon(Faults::none());
        // It may have been killed before the save was seen.
        ground.converge(&daemon, &upgraded()).unwrap_or_else(|error| panic!("kill {n}: {error}"));
        daemon.world();
        daemon.settled("jails").unwrap().unwrap();
        assert_eq!(ground.picture(), upgraded_picture(), "kill {n}");
        daemon.stop();
        cases += 1;
        if !killed {
            break;
        }
    }
    assert!(cases > 6, "{cases}");
}
