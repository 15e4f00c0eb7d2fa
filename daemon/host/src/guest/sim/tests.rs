//! The adapters against the simulated tools, and the simulator against the rules that it stands for.

use super::*;
use crate::guest::GuestRequest;
use crate::guest::Guests;
use crate::guest::MountRequest;
use std::time::Duration;
use zed_plan::GuestDefinition;
use zed_plan::GuestId;
use zed_plan::GuestSpec;
use zed_plan::GuestStatus;
use zed_spec::DeployName;

const STATE: &str = "/var/db/zed";
const ROOT: &str = "/zroot/jails/shop";

/// A jail `shop` with these further fields.
fn jail(more: &str) -> GuestRequest {
    request(
        &format!("jails: {{\"shop\": (dataset: \"jails/shop\", release: \"14.2-RELEASE\", {more})}}"),
        ROOT,
    )
}

/// A zone `shop-z` with these further fields.
fn zone(more: &str) -> GuestRequest {
    let text = format!("zones: {{\"shop-z\": (dataset: \"zones/shop\", brand: \"pkgsrc\", {more})}}");
    request(&text, "/zroot/zones/shop")
}

fn request(text: &str, root: &str) -> GuestRequest {
    let name = DeployName::parse("prod").unwrap();
    let text = format!("(datasets: {{\"data/shop\": ()}}, {text})");
    let spec = zed_spec::parse(&name, text.as_bytes()).unwrap();
    let jails = spec.jails.into_iter().map(|(name, jail)| GuestDefinition::Jail(name, jail));
    let zones = spec.zones.into_iter().map(|(name, zone)| GuestDefinition::Zone(name, zone));
    let spec = GuestSpec::new(&name, jails.chain(zones).next().unwrap(), []);
    let mounts = spec.mounts.iter().map(|mount| MountRequest {
        source: Path::new("/zroot").join(mount.dataset.as_str()),
        at: mount.at.clone().unwrap(),
        read_only: mount.read_only,
    });
    GuestRequest { mounts: mounts.collect(), root: root.into(), spec }
}

/// A host whose datasets are mounted.
fn host() -> SimGuests {
    let sim = SimGuests::new();
    for folder in [ROOT, "/zroot/zones/shop", "/zroot/data/shop"] {
        sim.make_folder(Path::new(folder)).unwrap();
    }
    sim.write(Path::new("/etc/resolv.conf"), b"nameserver 10.0.0.1\n", 0o644).unwrap();
    sim
}

fn make(guests: &LocalGuests, request: &GuestRequest) -> Result<(), String> {
    crate::guest::make(guests, request).map_err(|error| error.to_string())
}

fn seen(guests: &LocalGuests, request: &GuestRequest) -> zed_plan::ObservedGuest {
    guests.observe().unwrap().remove(&request.spec.id()).unwrap()
}

const FULL: &str = "ip4: \"10.17.89.10/24\", interface: \"bastille0\", packages: [\"nginx\", \"openssl\"], \
     mounts: [(dataset: \"data/shop\", at: \"/var/shop\", read_only: false)], \
     files: [(path: \"/usr/local/etc/x.conf\", content: \"a\\n\", mode: \"0600\")], setup: [[\"true\"]], \
     services: [\"nginx\"], params: {\"enforce_statfs\": \"1\"}, limits: (memory: \"1G\", cpus: 1.5)";

fn managers() -> [String; 2] {
    [FULL.to_owned(), format!("{FULL}, manager: Bastille")]
}

#[test]
fn a_jail_is_made_changed_and_removed_and_a_second_time_does_nothing() {
    for fields in managers() {
        let sim = host();
        let guests = sim.guests(Path::new(STATE));
        let request = jail(&fields);
        make(&guests, &request).unwrap();
        let observed = seen(&guests, &request);
        assert!(observed.is(&request.spec), "{observed:?}");
        assert_eq!(sim.mounts("shop"), ["/zroot/data/shop /zroot/jails/shop/var/shop rw"]);
        assert!(sim.packages(Path::new(ROOT)).is_superset(&["nginx", "openssl"].map(str::to_owned).into()));
        assert_eq!(sim.services("shop"), ["nginx".to_owned()].into());
        assert_eq!(sim.rules().len(), 2, "{:?}", sim.rules());
        let (content, mode) = sim.read_in(Path::new(ROOT), "/usr/local/etc/x.conf").unwrap().unwrap();
        assert_eq!((content.as_slice(), mode), (&b"a\n"[..], 0o600));
        // Again: what was done is not done again.
        let before = sim.history().len();
        make(&guests, &request).unwrap();
        let again = sim.history().split_off(before);
        assert!(
            again
                .iter()
                .all(|line| !line.contains("install") && !line.contains(" -c ") && !line.contains("jexec")),
            "{again:?}"
        );
        // A parameter that changes is applied: earlier systems only ever added.
        let changed = jail(&fields.replace("\"enforce_statfs\": \"1\"", "\"enforce_statfs\": \"2\""));
        assert!(!seen(&guests, &changed).is(&changed.spec));
        guests.stop(&changed.spec.id()).unwrap();
        make(&guests, &changed).unwrap();
        assert_eq!(sim.jails("enforce_statfs")["shop"].as_deref(), Some("2"));
        // Removed: it is gone for the tools, it does not return after a boot, and its data are there.
        guests.remove(&changed.spec.id()).unwrap();
        sim.reboot();
        assert_eq!(sim.jails("path").len(), 0);
        assert!(sim.exists(&Path::new(ROOT).join("etc/rc")));
        let left: Vec<String> = sim.list(Path::new("/etc/jail.conf.d")).unwrap();
        assert_eq!((left.len(), sim.list(Path::new("/usr/local/bastille/jails")).unwrap().len()), (0, 0));
        // And made again, with all that its root has.
        make(&sim.guests(Path::new(STATE)), &changed).unwrap();
    }
}

#[test]
fn what_is_no_longer_wanted_inside_goes_unless_something_needs_it() {
    let sim = host();
    let guests = sim.guests(Path::new(STATE));
    make(&guests, &jail(FULL)).unwrap();
    let less = jail(
        &FULL
            .replace("\"nginx\", \"openssl\"", "\"openssl\"")
            .replace("services: [\"nginx\"]", "services: []"),
    );
    make(&guests, &less).unwrap();
    let left = sim.packages(Path::new(ROOT));
    assert!(!left.contains("nginx") && left.contains("openssl") && left.contains("indexinfo"), "{left:?}");
    assert_eq!(sim.services("shop").len(), 0);
    assert!(!sim.history().iter().any(|line| line.contains("delete")), "nothing is deleted outright");
}

#[test]
fn a_service_that_only_says_that_it_starts_is_a_failure() {
    let sim = host();
    sim.break_service("nginx");
    let error = make(&sim.guests(Path::new(STATE)), &jail(FULL)).unwrap_err();
    assert!(error.contains("service `nginx` does not run"), "{error}");
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    type Change = fn(&SimGuests);
    let rows: [(&str, &str, Change, &[&str]); 8] = [
        (
            "no network for packages",
            FULL,
            |sim| sim.set_network(false),
            &["nginx", "not in the jail", "No address"],
        ),
        ("no such package", "packages: [\"no-such-x\"]", |_| {}, &["no-such-x", "No packages available"]),
        ("no release", "", |sim| sim.remove_release("14.2-RELEASE"), &["base.txz", "14.2-RELEASE-base.txz"]),
        (
            "no release, no network",
            "manager: Bastille",
            |sim| {
                sim.remove_release("14.2-RELEASE");
                sim.set_network(false);
            },
            // Bastille exits 0.
            &["exit 0: Unable to fetch", "releases/14.2-RELEASE` is not there"],
        ),
        (
            "no racct",
            "limits: (pids: 10)",
            |sim| sim.set_racct(false),
            &["rctl -a jail:shop:maxproc:deny=10", "does not run"],
        ),
        ("setup fails", "setup: [[\"true\"], [\"false\"]]", |_| {}, &["jexec shop false", "exit 1"]),
        (
            "foreign jail",
            "",
            |sim| sim.run_foreign_jail("shop", "/other"),
            &["`/other`", "name this one otherwise"],
        ),
        (
            "foreign file",
            "",
            |sim| sim.write(Path::new("/etc/jail.conf.d/shop.conf"), b"shop { }\n", 0o644).unwrap(),
            &["zed did not write it"],
        ),
    ];
    for (what, fields, change, words) in rows {
        let sim = host();
        change(&sim);
        let error = make(&sim.guests(Path::new(STATE)), &jail(fields)).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{what}: {error}");
    }
}

#[test]
fn the_root_of_another_release_or_with_other_files_is_left_alone() {
    let sim = host();
    let root = Path::new(ROOT);
    sim.write(&root.join("bin/freebsd-version"), b"USERLAND_VERSION=\"13.4-RELEASE\"\n", 0o555).unwrap();
    let error = make(&sim.guests(Path::new(STATE)), &jail("")).unwrap_err();
    assert!(error.contains("13.4-RELEASE") && error.contains("freebsd-update"), "{error}");
    let sim = host();
    sim.write(&root.join("letters/important"), b"x", 0o644).unwrap();
    let error = make(&sim.guests(Path::new(STATE)), &jail("")).unwrap_err();
    assert!(error.contains("no FreeBSD system"), "{error}");
    // A patch level is the same release.
    let sim = host();
    sim.write(&root.join("bin/freebsd-version"), b"USERLAND_VERSION=\"14.2-RELEASE-p3\"\n", 0o555).unwrap();
    sim.write(&root.join("etc/rc"), b"", 0o644).unwrap();
    make(&sim.guests(Path::new(STATE)), &jail("")).unwrap();
}

#[test]
fn bastille_sees_the_dataset_and_its_destroy_cannot_take_it() {
    let sim = host();
    make(&sim.guests(Path::new(STATE)), &jail("manager: Bastille")).unwrap();
    assert!(sim.world.lock().has_linked_root("shop"));
    assert_eq!(sim.jails("path")["shop"].as_deref(), Some(ROOT));
    sim.world.lock().bastille("destroy", &["-a", "-f", "-y", "shop"]);
    assert!(sim.exists(&Path::new(ROOT).join("etc/rc")), "the data are not in Bastille's folder");
    // And zed makes it again.
    make(&sim.guests(Path::new(STATE)), &jail("manager: Bastille")).unwrap();
}

#[test]
fn a_template_for_empty_jails_starts_nothing_that_zed_did_not_start() {
    let sim = host();
    sim.set_empty_template(true);
    let (guests, request) = (sim.guests(Path::new(STATE)), jail("manager: Bastille"));
    make(&guests, &request).unwrap();
    assert!(seen(&guests, &request).is(&request.spec));
}

#[test]
fn a_jail_that_will_not_stop_is_stopped_without_its_commands() {
    for fields in managers() {
        let sim = host();
        let (guests, request) = (sim.guests(Path::new(STATE)), jail(&fields));
        make(&guests, &request).unwrap();
        sim.stick("shop");
        guests.stop(&request.spec.id()).unwrap();
        assert_eq!(sim.jails("path").len(), 0);
        assert_eq!(sim.history().iter().filter(|line| *line == "jail -R shop").count(), 1);
    }
}

#[test]
fn a_jail_is_never_stopped_in_the_place_of_another() {
    // `bastille stop sh` stops the jail `shop` when there is no `sh`.
    let sim = host();
    let guests = sim.guests(Path::new(STATE));
    make(&guests, &jail("manager: Bastille")).unwrap();
    assert_eq!(sim.world.lock().bastille("stop", &["sh"]).0, 0);
    assert_eq!(sim.jails("path").len(), 0, "the simulator keeps Bastille's rule");
    guests.start(&jail("manager: Bastille")).unwrap();
    guests.stop(&GuestId::parse("jail:sh").unwrap()).unwrap();
    guests.remove(&GuestId::parse("jail:sh").unwrap()).unwrap();
    assert_eq!(sim.jails("path").len(), 1);
}

#[test]
fn drift_is_seen_and_healed() {
    for fields in managers() {
        let sim = host();
        let (guests, request) = (sim.guests(Path::new(STATE)), jail(&fields));
        make(&guests, &request).unwrap();
        let conf = match fields.contains("Bastille") {
            true => "/usr/local/bastille/jails/shop/jail.conf",
            false => "/etc/jail.conf.d/shop.conf",
        };
        // Stopped by hand.
        sim.kill("shop");
        assert_eq!(seen(&guests, &request).status, GuestStatus::Stopped);
        make(&guests, &request).unwrap();
        assert!(seen(&guests, &request).is(&request.spec));
        // Its file changed by hand: as long as nobody starts it anew, it runs as it was started.
        let path = Path::new(conf);
        let text = String::from_utf8(sim.read(path).unwrap().unwrap()).unwrap();
        sim.write(path, text.replace("persist", "nopersist").as_bytes(), 0o644).unwrap();
        let observed = seen(&guests, &request);
        assert!(!observed.intact && observed.running == Some(request.spec.configuration()), "{observed:?}");
        make(&guests, &request).unwrap();
        assert!(seen(&guests, &request).is(&request.spec));
        // Restarted by hand from a changed file: what runs is not known any more.
        sim.write(path, text.replace("persist", "nopersist").as_bytes(), 0o644).unwrap();
        sim.kill("shop");
        sim.world.lock().create_jail("shop", path);
        let observed = seen(&guests, &request);
        assert!(observed.running.is_none() && observed.status == GuestStatus::Running, "{observed:?}");
        assert!(make(&guests, &request).unwrap_err().contains("another configuration"));
        guests.stop(&request.spec.id()).unwrap();
        make(&guests, &request).unwrap();
        // After a boot rc has started it from its file: all is well, under another number or the same.
        sim.reboot();
        let guests = sim.guests(Path::new(STATE));
        assert!(seen(&guests, &request).is(&request.spec), "{:?}", seen(&guests, &request));
    }
}

#[test]
fn a_zone_is_made_changed_and_removed() {
    let sim = host();
    let guests = sim.guests(Path::new(STATE));
    let request = zone("ip: \"10.17.90.10/24\", over: \"net0\", limits: (memory: \"2G\", cpus: 2.0)");
    make(&guests, &request).unwrap();
    let observed = seen(&guests, &request);
    assert!(observed.is(&request.spec), "{observed:?}");
    assert_eq!(sim.vnics()["shop_z0"], "net0");
    let before = sim.history().len();
    make(&guests, &request).unwrap();
    let again = sim.history().split_off(before);
    assert!(!again.iter().any(|line| line.ends_with(" boot") || line.ends_with(" install")), "{again:?}");
    // Changed: `create` is refused for an installed zone, so what is there is removed and added anew.
    let changed = zone("ip: \"10.17.90.11/24\", over: \"net1\", limits: (memory: \"1G\", pids: 100)");
    guests.stop(&changed.spec.id()).unwrap();
    assert_eq!(seen(&guests, &changed).status, GuestStatus::Stopped);
    make(&guests, &changed).unwrap();
    let config = sim.zone_config("shop-z").join("\n");
    assert!(config.contains("10.17.90.11/24") && !config.contains("10.17.90.10"), "{config}");
    assert!(config.contains("max-lwps=100") && !config.contains("capped-cpu"), "{config}");
    assert_eq!(sim.vnics(), [("shop_z0".to_owned(), "net1".to_owned())].into());
    // Removed, its data stay, and it is attached and not installed when it comes back.
    guests.remove(&changed.spec.id()).unwrap();
    assert!(sim.zones().is_empty() && sim.vnics().is_empty());
    assert!(sim.exists(Path::new("/zroot/zones/shop/root/etc/release")));
    make(&guests, &changed).unwrap();
    let attached = sim.history().iter().filter(|line| *line == "zoneadm -z shop-z attach").count();
    let installed = sim.history().iter().filter(|line| *line == "zoneadm -z shop-z install").count();
    assert_eq!((attached, installed), (1, 1));
    let other = zone("");
    let lx = GuestRequest { root: "/zroot/elsewhere".into(), ..other };
    guests.stop(&lx.spec.id()).unwrap();
    assert!(make(&guests, &lx).unwrap_err().contains("zonepath of an installed zone"));
}

#[test]
fn an_install_that_did_not_end_is_cleared_up_and_done_again() {
    let sim = host();
    let (guests, request) = (sim.guests(Path::new(STATE)), zone(""));
    sim.set_network(false);
    let error = make(&guests, &request).unwrap_err();
    assert!(error.contains("it is incomplete") && error.contains("publishers"), "{error}");
    sim.set_network(true);
    make(&guests, &request).unwrap();
    assert!(seen(&guests, &request).is(&request.spec));
}

#[test]
fn a_zone_whose_services_need_somebody_is_not_up() {
    let sim = host();
    let (guests, request) = (sim.guests(Path::new(STATE)), zone(""));
    sim.set_maintenance("shop-z", true);
    let error = make(&guests, &request).unwrap_err();
    assert!(error.contains("maintenance") && error.contains("svcs -x"), "{error}");
    sim.set_maintenance("shop-z", false);
    make(&guests, &request).unwrap();
}

#[test]
fn a_zone_that_zed_did_not_make_is_left_alone() {
    let sim = host();
    let guests = sim.guests(Path::new(STATE));
    let zone_of_another = SimZone { state: "running".into(), id: Some(1), ..SimZone::default() };
    sim.world.lock().zones.insert("shop-z".into(), zone_of_another);
    assert!(make(&guests, &zone("")).unwrap_err().contains("zed did not make it"));
    guests.stop(&zone("").spec.id()).unwrap();
    guests.remove(&zone("").spec.id()).unwrap();
    assert_eq!(sim.zones()["shop-z"], "running");
}

/// Whatever one command does instead of its work: the guest is as it was wanted after the next try, and a try
/// never says that all is well when it is not.
#[test]
fn every_fault_at_every_command_is_survived() {
    let jails = managers()
        .map(|fields| (jail(&fields), jail(&fields.replace("\"1\"", "\"2\"").replace("nginx", "caddy"))));
    let zones =
        (zone("over: \"net0\", limits: (cpus: 2.0)"), zone("over: \"net1\", limits: (memory: \"1G\")"));
    let mut cases = 0;
    for (first, second) in jails.into_iter().chain([zones]) {
        for fault in
            [SimFault::Fail, SimFault::Lie, SimFault::FailAfter, SimFault::CrashBefore, SimFault::CrashAfter]
        {
            for n in 1.. {
                let sim = host();
                let guests = sim.guests(Path::new(STATE));
                make(&guests, &first).unwrap();
                sim.fault_at(n, fault);
                let id = second.spec.id();
                let change = |guests: &LocalGuests| {
                    guests.stop(&id).map_err(|error| error.to_string())?;
                    make(guests, &second)
                };
                let outcome = change(&guests);
                let reached = sim.world.lock().faults.is_empty();
                sim.revive();
                let rebooted = n % 2 == 0 && outcome.is_err();
                if rebooted {
                    sim.reboot();
                }
                let guests = sim.guests(Path::new(STATE));
                if outcome.is_ok() {
                    let observed = seen(&guests, &second);
                    assert!(observed.is(&second.spec), "{fault:?} at {n} was not noticed: {observed:?}");
                }
                change(&guests).unwrap_or_else(|error| panic!("{fault:?} at {n}, then: {error}"));
                let observed = seen(&guests, &second);
                assert!(observed.is(&second.spec), "{fault:?} at {n}: {observed:?}");
                guests.remove(&id).unwrap();
                assert!(sim.jails("path").is_empty() && sim.zones().is_empty());
                cases += 1;
                if !reached {
                    break;
                }
            }
        }
    }
    assert!(cases > 200, "{cases}");
}

#[test]
fn removal_survives_every_fault_too() {
    for request in [jail(FULL), jail(&format!("{FULL}, manager: Bastille")), zone("over: \"net0\"")] {
        for fault in
            [SimFault::Fail, SimFault::Lie, SimFault::FailAfter, SimFault::CrashBefore, SimFault::CrashAfter]
        {
            for n in 1.. {
                let sim = host();
                let guests = sim.guests(Path::new(STATE));
                make(&guests, &request).unwrap();
                sim.fault_at(n, fault);
                let outcome = guests.remove(&request.spec.id());
                let reached = sim.world.lock().faults.is_empty();
                sim.revive();
                if outcome.is_ok() {
                    assert!(sim.jails("path").is_empty() && sim.zones().is_empty(), "{fault:?} at {n}");
                }
                sim.guests(Path::new(STATE)).remove(&request.spec.id()).unwrap();
                assert!(sim.jails("path").is_empty() && sim.zones().is_empty(), "{fault:?} at {n}");
                if !reached {
                    break;
                }
            }
        }
    }
}

/// The rules and lies of the real tools, which the adapters have to cope with.
#[test]
fn the_simulator_keeps_the_tools_rules() {
    let sim = host();
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        sim.run(&ToolCommand::new(Duration::from_secs(1), words)).unwrap()
    };
    make(&sim.guests(Path::new(STATE)), &jail("manager: Bastille, services: [\"nginx\"]")).unwrap();
    // What is asked, its exit status, a word of what is said, why.
    for (line, code, word) in [
        ("bastille start shop", 0, "already running"),
        ("bastille destroy -f shop", 0, "auto-stop"),
        ("service -j shop other start", 0, "Cannot 'start'"),
        ("jail -f /usr/local/bastille/jails/shop/jail.conf -c shop", 1, "already exists"),
        ("bastille mount shop /zroot/data/shop /mnt nullfs ro", 0, "FSTAB format not recognized"),
        ("bastille stop shop", 0, ""),
        ("bastille cmd shop true", 0, "not running"),
        ("bastille mount shop /a /mnt nullfs ro 0 0", 0, "not running"),
        ("bastille destroy shop", 1, "'y' or 'n'"),
        ("jexec shop true", 1, "not found"),
        ("pkg -j shop query %n", 1, "not found"),
        ("bastille create -E 12", 1, "special characters"),
        ("bastille create -E shop", 1, "already exists"),
        ("zoneadm -z x boot", 1, "No such zone"),
        ("no-such-tool", 127, "not found"),
    ] {
        let output = run(line);
        assert_eq!(output.ended, Ended::Exit(code), "{line}: {}", output.text);
        assert!(output.text.contains(word), "{line}: {}", output.text);
    }
    // Five columns in fstab(5): the jail does not start, and Bastille says 0.
    let fstab = Path::new("/usr/local/bastille/jails/shop/fstab");
    sim.write(fstab, b"/zroot/data/shop /zroot/jails/shop/mnt nullfs ro 0\n", 0o644).unwrap();
    let output = run("bastille start shop");
    assert!(output.ok() && output.text.contains("wrong number of fields"), "{}", output.text);
    assert!(sim.jails("path").is_empty());
    // A name with a point is a pattern.
    sim.write(fstab, b"", 0o644).unwrap();
    run("bastille start sho.");
    assert_eq!(sim.jails("path").len(), 1);
}
