//! The files that are generated for guests: as they are written, and as parsers that are not ours read them.

#![expect(clippy::unwrap_used, reason = "a test that cannot write its files fails")]

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use zed_host::guest::Commands;
use zed_host::guest::GuestRequest;
use zed_host::guest::LocalSystem;
use zed_host::guest::MountRequest;
use zed_host::guest::ToolCommand;
use zed_host::guest::render_fstab;
use zed_host::guest::render_jail_conf;
use zed_host::guest::render_zone_config;
use zed_plan::GuestDefinition;
use zed_plan::GuestSpec;
use zed_spec::DeployName;
use zed_spec::DeploySpec;

/// A jail that nobody would write, with all that has to be quoted.
const NASTY: &str = r#"(
    datasets: {"data/a": ()},
    jails: {"x1": (
        dataset: "jails/x1", release: "14.2-RELEASE", hostname: "x1.example",
        ip4: "10.0.0.2/24", ip6: "fd00::2/64", interface: "em0",
        mounts: [(dataset: "data/a", at: "/var/with space/#a")],
        params: {
            "exec.poststart": "logger \"up; $name\" \\ # it's no comment", "exec.prestop": "say \"bye\"",
            "exec.start": "/bin/sh /etc/rc.mine", "allow.raw_sockets": "1", "devfs_ruleset": "100",
        },
        limits: (memory: "1G", cpus: 0.5, pids: 64, nofile: 1024),
    )},
)"#;

fn parse(text: &str) -> DeploySpec {
    zed_spec::parse(&DeployName::parse("jails").unwrap(), text.as_bytes()).unwrap()
}

fn example() -> DeploySpec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs/examples/jails.ron");
    parse(&std::fs::read_to_string(path).unwrap())
}

fn request(spec: &DeploySpec, definition: GuestDefinition) -> GuestRequest {
    let apps = spec.apps.values().map(|app| app.dataset.clone());
    let spec = GuestSpec::new(&spec.name, definition, apps);
    let root = Path::new("/zroot").join(spec.dataset().as_str());
    let mounts = spec.mounts.iter().map(|mount| {
        let source = Path::new("/zroot").join(mount.dataset.as_str());
        let at = mount.at.clone().unwrap_or_else(|| source.to_string_lossy().into_owned());
        MountRequest { source, at, read_only: mount.read_only }
    });
    GuestRequest { mounts: mounts.collect(), root, spec }
}

/// jail.conf(5) and fstab(5) of a jail of the spec.
fn jail_files(spec: &DeploySpec, name: &str) -> (String, String) {
    let (name, jail) = spec.jails.get_key_value(name).unwrap();
    let request = request(spec, GuestDefinition::Jail(name.clone(), jail.clone()));
    let fstab = PathBuf::from(format!("/etc/fstab.{name}"));
    let conf = render_jail_conf(name, jail, &request, &fstab);
    (conf, render_fstab(&request.spec.id(), &request.root, &request.mounts))
}

#[test]
fn the_example_s_files_are_as_they_are_written_here() {
    let spec = example();
    let (conf, fstab) = jail_files(&spec, "shop");
    let expect = r#"# Written by zed for deploy jails, which replaces it: change the spec instead.
shop {
  host.hostname = "shop";
  path = "/zroot/jails/shop";
  mount.fstab = "/etc/fstab.shop";
  ip4.addr = "bastille0|10.17.89.10/24";
  ip6 = "disable";
  persist;
  exec.clean;
  mount.devfs;
  devfs_ruleset = "4";
  exec.stop = "/bin/sh /etc/rc.shutdown";
  exec.consolelog = "/var/log/jail_shop_console.log";
  allow.raw_sockets = "0";
  enforce_statfs = "2";
  exec.start = "/bin/sh /etc/rc";
}
"#;
    assert_eq!(conf, expect);
    assert_eq!(
        fstab,
        "# Written by zed for jail:shop, which replaces it: change the spec instead.\n\
         /zroot/data/shop\t/zroot/jails/shop/var/shop\tnullfs\trw\t0\t0\n\
         /zroot/apps/shop\t/zroot/jails/shop/zroot/apps/shop\tnullfs\trw\t0\t0\n"
    );
    let (conf, _) = jail_files(&spec, "edge");
    assert!(conf.contains("  vnet;\n") && conf.contains("devfs_ruleset = \"5\""), "{conf}");
    assert!(!conf.contains("ip4"), "a network stack of its own has no addresses of the host's: {conf}");
}

#[test]
fn a_network_stack_is_joined_to_its_bridge_and_leaves_nothing() {
    let text = r#"(datasets: {"d": ()}, jails: {"edge": (dataset: "jails/edge", release: "14.2-RELEASE", vnet: true,
        interface: "bridge0", ip4: "10.0.0.2/24", ip6: "fd00::2/64")})"#;
    let (conf, _) = jail_files(&parse(text), "edge");
    let pair =
        conf.lines().find_map(|line| line.split("vnet.interface = \"").nth(1)?.strip_suffix("b\";")).unwrap();
    let number: u32 = pair.strip_prefix("epair").unwrap().parse().unwrap();
    assert!((1000..32_000).contains(&number), "{pair}");
    let expect = format!(
        "  exec.prestart = \"/sbin/ifconfig {pair}a destroy 2>/dev/null || true\";\n\
         \x20 exec.prestart += \"/sbin/ifconfig {pair} create\";\n\
         \x20 exec.prestart += \"/sbin/ifconfig bridge0 addm {pair}a\";\n\
         \x20 exec.prestart += \"/sbin/ifconfig {pair}a descr jail:edge up\";\n\
         \x20 exec.start = \"/sbin/ifconfig {pair}b inet 10.0.0.2/24 up\";\n\
         \x20 exec.start += \"/sbin/ifconfig {pair}b inet6 fd00::2/64 up\";\n\
         \x20 exec.start += \"/bin/sh /etc/rc\";\n\
         \x20 exec.poststop = \"/sbin/ifconfig {pair}a destroy\";\n"
    );
    assert!(conf.contains(&expect), "{conf}");
}

#[test]
fn every_fstab_has_six_columns() {
    for spec in [example(), parse(NASTY)] {
        for name in spec.jails.keys() {
            let (_, fstab) = jail_files(&spec, name.as_str());
            for line in fstab.lines().filter(|line| !line.starts_with('#')) {
                let columns: Vec<&str> = line.split_whitespace().collect();
                assert_eq!(columns.len(), 6, "{line}");
                assert!(matches!(columns[2..], ["nullfs", "ro" | "rw", "0", "0"]), "{line}");
            }
        }
    }
    let (_, fstab) = jail_files(&parse(NASTY), "x1");
    assert!(fstab.contains("/zroot/jails/x1/var/with\\040space/\\043a\tnullfs\tro\t"), "{fstab}");
}

#[test]
fn what_has_to_be_quoted_is() {
    let (conf, _) = jail_files(&parse(NASTY), "x1");
    assert!(conf.contains(r##"exec.poststart = 'logger "up; $name" \\ # it\'s no comment';"##), "{conf}");
    assert!(conf.contains(r##"exec.prestop = "say \"bye\"";"##), "{conf}");
    assert!(
        conf.contains("exec.start = \"/bin/sh /etc/rc.mine\";\n") && !conf.contains("/etc/rc\""),
        "{conf}"
    );
    for rule in ["memoryuse:deny=1073741824", "pcpu:deny=50", "maxproc:deny=64", "openfiles:deny=1024"] {
        assert!(conf.contains(&format!("exec.created += \"/usr/bin/rctl -a jail:x1:{rule}\";")), "{conf}");
    }
}

#[test]
fn the_zone_s_commands_are_as_they_are_written_here() {
    let spec = example();
    let (name, zone) = spec.zones.iter().next().unwrap();
    let request = request(&spec, GuestDefinition::Zone(name.clone(), zone.clone()));
    let expect = r#"create -F -b
set zonepath="/zroot/zones/shop"
set brand=pkgsrc
set autoboot=false
set ip-type=exclusive
add net
set physical=shop_z0
set allowed-address=10.17.90.10/24
end
add fs
set dir="/zroot/apps/shop"
set special="/zroot/apps/shop"
set type=lofs
add options rw
end
add capped-memory
set physical=2097152K
set swap=2097152K
end
add capped-cpu
set ncpus=2.00
end
verify
commit
"#;
    assert_eq!(render_zone_config(name, zone, &request), expect);
}

/// PyPI's `jailconf` reads every jail.conf: all parameters are there, and none is inside another.
#[test]
fn another_parser_reads_every_jail_conf() {
    let Some(python) = std::env::var_os("ZED_TEST_JAILCONF") else {
        println!(
            "not run: ZED_TEST_JAILCONF names no python that has jailconf (`cargo xtask test tools` makes one)"
        );
        return;
    };
    let place = tempfile::tempdir().unwrap();
    for spec in [example(), parse(NASTY)] {
        for name in spec.jails.keys() {
            let (conf, _) = jail_files(&spec, name.as_str());
            let path = place.path().join(format!("{name}.conf"));
            std::fs::write(&path, &conf).unwrap();
            let script = "import jailconf, sys; conf = jailconf.load(sys.argv[1]); names = list(conf); \
                          print(names[0], len(names), *sorted(conf[names[0]]))";
            let words = [python.to_str().unwrap(), "-c", script, path.to_str().unwrap()];
            let command = ToolCommand::new(Duration::from_secs(60), words);
            let output = LocalSystem::default().run(&command).unwrap();
            assert!(output.ok(), "{conf}\n{}", output.text);
            let mut expect: Vec<&str> =
                conf.lines().filter_map(|line| line.strip_prefix("  ")?.split([' ', ';']).next()).collect();
            expect.sort_unstable();
            expect.dedup();
            let shown = format!("{name} 1 {}", expect.join(" "));
            assert_eq!(output.text.trim(), shown, "{conf}");
        }
    }
}
