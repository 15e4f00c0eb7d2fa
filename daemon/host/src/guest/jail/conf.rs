//! The files of a jail: jail.conf(5) and fstab(5), as text.
//!
//! Owns every line of them and the quoting. Pure: what is written is a function of the request.

use crate::guest::GuestRequest;
use crate::guest::MountRequest;
use std::fmt::Write as _;
use std::path::Path;
use zed_plan::GuestId;
use zed_spec::Jail;
use zed_spec::JailName;

/// First line of what zed writes.
pub(super) const HEADER: &str = "# Written by zed";

/// Lines of jail.conf(5) for one jail.
struct Conf(String);

impl Conf {
    fn flag(&mut self, name: &str) {
        let _ = writeln!(self.0, "  {name};");
    }

    fn set(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "  {name} = {};", quoted(value));
    }

    /// A parameter with several values, in this order.
    fn list(&mut self, name: &str, values: &[String]) {
        for (index, value) in values.iter().enumerate() {
            let sign = if index == 0 { "=" } else { "+=" };
            let _ = writeln!(self.0, "  {name} {sign} {};", quoted(value));
        }
    }
}

/// In quotes, where jail.conf(5) reads a backslash before what follows. Between double quotes it replaces `$name`,
/// between single ones it does not.
fn quoted(value: &str) -> String {
    let quote = if value.contains('$') { '\'' } else { '"' };
    let mut out = String::with_capacity(value.len() + 2);
    out.push(quote);
    for c in value.chars() {
        if c == quote || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(quote);
    out
}

/// The pair of interfaces of a jail with its own network stack. The number follows from the name, so that it is
/// the same after each start; epair(4) numbers go up to 32767.
fn epair(name: &JailName) -> String {
    let digest = zed_plan::sha256_hex(name.as_str().as_bytes());
    let number = digest.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0);
    format!("epair{}", 1000 + number % 31_000)
}

/// Commands of the jail's life, of exec.* parameters.
#[derive(Default)]
struct Life {
    prestart: Vec<String>,
    created: Vec<String>,
    start: Vec<String>,
    poststop: Vec<String>,
}

impl Life {
    /// A network stack of its own, joined to a bridge by a pair of interfaces. epair(4), ifconfig(8).
    fn join_bridge(&mut self, name: &JailName, jail: &Jail, bridge: &str) -> String {
        let pair = epair(name);
        self.prestart.extend([
            // What a crash left would make `create` fail.
            format!("/sbin/ifconfig {pair}a destroy 2>/dev/null || true"),
            format!("/sbin/ifconfig {pair} create"),
            format!("/sbin/ifconfig {bridge} addm {pair}a"),
            format!("/sbin/ifconfig {pair}a descr jail:{name} up"),
        ]);
        let addresses = [("inet", &jail.ip4), ("inet6", &jail.ip6)];
        let addresses =
            addresses.into_iter().filter_map(|(family, address)| Some((family, address.as_ref()?)));
        self.start.extend(
            addresses.map(|(family, address)| format!("/sbin/ifconfig {pair}b {family} {address} up")),
        );
        self.poststop.push(format!("/sbin/ifconfig {pair}a destroy"));
        format!("{pair}b")
    }

    /// Limits of rctl(8). They are there before the first process of the jail, and a host that cannot keep them
    /// (kern.racct.enable=0) does not start it.
    fn limit(&mut self, name: &JailName, jail: &Jail) {
        let rules = limit_rules(name, jail);
        if rules.is_empty() {
            return;
        }
        let clear = format!("/usr/bin/rctl -r jail:{name} 2>/dev/null || true");
        self.created.push(clear.clone());
        self.created.extend(rules.iter().map(|rule| format!("/usr/bin/rctl -a {rule}")));
        self.poststop.push(clear);
    }
}

/// rctl(8) rules of a jail's limits.
pub(super) fn limit_rules(name: &JailName, jail: &Jail) -> Vec<String> {
    let limits = &jail.limits;
    let percent = limits.cpus.map(|cpus| format!("{:.0}", (cpus * 100.0).max(1.0)));
    let amounts = [
        ("memoryuse", limits.memory.map(|bytes| bytes.to_string())),
        // Percent of one CPU.
        ("pcpu", percent),
        ("maxproc", limits.pids.map(|count| count.to_string())),
        ("openfiles", limits.nofile.map(|count| count.to_string())),
    ];
    let rules = amounts.into_iter().filter_map(|(resource, amount)| Some((resource, amount?)));
    rules.map(|(resource, amount)| format!("jail:{name}:{resource}:deny={amount}")).collect()
}

/// jail.conf(5) of one jail.
pub fn render_jail_conf(name: &JailName, jail: &Jail, request: &GuestRequest, fstab: &Path) -> String {
    let mut life = Life { start: Vec::new(), ..Life::default() };
    let mut conf = Conf(String::new());
    let header =
        format!("{HEADER} for deploy {}, which replaces it: change the spec instead.", request.spec.deploy);
    let _ = writeln!(conf.0, "{header}\n{name} {{");
    conf.set("host.hostname", jail.hostname.as_deref().unwrap_or(name.as_str()));
    conf.set("path", &request.root.to_string_lossy());
    conf.set("mount.fstab", &fstab.to_string_lossy());
    network(&mut conf, &mut life, name, jail);
    life.start.push("/bin/sh /etc/rc".to_owned());
    life.limit(name, jail);
    // Without it a jail ends with its last process, and whether it runs would say nothing.
    conf.flag("persist");
    conf.flag("exec.clean");
    let default = |conf: &mut Conf, parameter: &str, value: &str| {
        if !jail.params.contains_key(parameter) {
            conf.set(parameter, value);
        }
    };
    if !jail.params.contains_key("mount.devfs") {
        conf.flag("mount.devfs");
    }
    // devfsrules_jail, and the one with what a network stack needs: devfs.rules(5).
    default(&mut conf, "devfs_ruleset", if jail.vnet { "5" } else { "4" });
    default(&mut conf, "enforce_statfs", "2");
    default(&mut conf, "exec.stop", "/bin/sh /etc/rc.shutdown");
    default(&mut conf, "exec.consolelog", &format!("/var/log/jail_{name}_console.log"));
    for (parameter, value) in jail.params.iter().filter(|(name, _)| !name.starts_with("exec.")) {
        conf.set(parameter, value);
    }
    let own = [
        ("exec.prestart", life.prestart),
        ("exec.created", life.created),
        ("exec.start", life.start),
        ("exec.poststop", life.poststop),
    ];
    for (parameter, mut values) in own {
        // A start command of the spec replaces rc; others come after zed's own.
        match jail.params.get(parameter) {
            Some(value) if parameter == "exec.start" => {
                values.pop();
                values.push(value.clone());
            }
            Some(value) => values.push(value.clone()),
            None => {}
        }
        conf.list(parameter, &values);
    }
    let others = jail.params.iter().filter(|(name, _)| {
        name.starts_with("exec.")
            && !["exec.prestart", "exec.created", "exec.start", "exec.poststop"].contains(&name.as_str())
    });
    for (parameter, value) in others {
        conf.set(parameter, value);
    }
    conf.0.push_str("}\n");
    conf.0
}

fn network(conf: &mut Conf, life: &mut Life, name: &JailName, jail: &Jail) {
    if jail.vnet {
        conf.flag("vnet");
        if let Some(bridge) = &jail.interface {
            let inside = life.join_bridge(name, jail, bridge);
            conf.set("vnet.interface", &inside);
        }
        return;
    }
    for (parameter, address) in [("ip4", &jail.ip4), ("ip6", &jail.ip6)] {
        match (address, &jail.interface) {
            (Some(address), Some(interface)) => {
                conf.set(&format!("{parameter}.addr"), &format!("{interface}|{address}"));
            }
            (Some(address), None) => conf.set(&format!("{parameter}.addr"), address),
            // Neither the host's addresses nor one of its own.
            (None, _) if !jail.params.contains_key(parameter) => conf.set(parameter, "disable"),
            (None, _) => {}
        }
    }
}

/// fstab(5) of a jail: six columns, folders before those in them.
pub fn render_fstab(guest: &GuestId, root: &Path, mounts: &[MountRequest]) -> String {
    let mut out = format!("{HEADER} for {guest}, which replaces it: change the spec instead.\n");
    let mut mounts: Vec<&MountRequest> = mounts.iter().collect();
    mounts.sort_by(|a, b| a.at.cmp(&b.at));
    for mount in mounts {
        let target = root.join(mount.at.trim_start_matches('/'));
        let options = if mount.read_only { "ro" } else { "rw" };
        let _ = writeln!(
            out,
            "{}\t{}\tnullfs\t{options}\t0\t0",
            escaped(&mount.source.to_string_lossy()),
            escaped(&target.to_string_lossy())
        );
    }
    out
}

/// As fstab(5) wants it: what would end a column or a line, in octal.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            ' ' | '\t' | '\n' | '\\' | '#' => {
                let _ = write!(out, "\\{:03o}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out
}
