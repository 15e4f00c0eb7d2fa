//! jail(8), jls(8), jexec(8), rctl(8), pkg(8), sysrc(8), service(8), tar(1), cp(1), chflags(1).

use super::RunningJail;
use super::Said;
use super::World;
use super::said;
use super::tree::Tree;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

/// A package database: name, and whether it came only because something needed it.
pub(super) fn packages_in(tree: &Tree, root: &Path) -> BTreeMap<String, bool> {
    let text = tree.text(&root.join("var/db/pkg/local")).unwrap_or_default();
    let rows = text.lines().filter_map(|line| line.split_once(' '));
    rows.map(|(name, automatic)| (name.to_owned(), automatic == "automatic")).collect()
}

fn write_packages(tree: &mut Tree, root: &Path, packages: &BTreeMap<String, bool>) {
    let word = |automatic: bool| if automatic { "automatic" } else { "wanted" };
    let text: String =
        packages.iter().map(|(name, automatic)| format!("{name} {}\n", word(*automatic))).collect();
    tree.put(&root.join("var/db/pkg/local"), text.as_bytes(), 0o644);
}

/// Services with `NAME_enable=YES` in a root's rc.conf(5).
fn enabled_in(tree: &Tree, root: &Path) -> BTreeSet<String> {
    let text = tree.text(&root.join("etc/rc.conf")).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_suffix("_enable=\"YES\"")).map(str::to_owned).collect()
}

/// The value of a parameter of jail.conf(5), the first of several; an empty one for a flag.
pub(super) fn parameter(conf: &str, name: &str) -> Option<String> {
    conf.lines().map(str::trim).find_map(|line| {
        let statement = line.strip_suffix(';')?;
        match statement.split_once('=') {
            Some((key, value)) if key.trim() == name => Some(value.trim().trim_matches('"').to_owned()),
            None if statement == name => Some(String::new()),
            _ => None,
        }
    })
}

fn values(conf: &str, name: &str) -> Vec<String> {
    let statements = conf.lines().map(str::trim).filter_map(|line| line.strip_suffix(';')?.split_once('='));
    statements
        .filter(|(key, _)| key.trim().trim_end_matches('+').trim() == name)
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .collect()
}

/// The first line that jail.conf(5) does not allow where every statement has a line of its own.
fn syntax_error(conf: &str) -> Option<usize> {
    let fine = |line: &str| line.is_empty() || line.starts_with('#') || line.ends_with([';', '{', '}']);
    let unbalanced = conf.matches('{').count() != conf.matches('}').count();
    let line = conf.lines().position(|line| !fine(line.trim())).map(|index| index + 1);
    line.or_else(|| unbalanced.then(|| conf.lines().count()))
}

/// The first parameter that neither jail(8) nor the kernel has: its own ones, and the families of jail(8)'s page.
fn unknown_parameter(conf: &str) -> Option<String> {
    const ALONE: [&str; 12] = [
        "path",
        "persist",
        "vnet",
        "interface",
        "depend",
        "securelevel",
        "devfs_ruleset",
        "enforce_statfs",
        "osrelease",
        "osreldate",
        "name",
        "jid",
    ];
    const FAMILIES: [&str; 11] = [
        "allow", "children", "cpuset", "exec", "host", "ip4", "ip6", "mount", "sysvmsg", "sysvsem", "sysvshm",
    ];
    let names = conf
        .lines()
        .map(str::trim)
        .filter_map(|line| line.strip_suffix(';'))
        .map(|line| line.split(['=', '+']).next().unwrap_or(line).trim().to_owned());
    let known = |name: &str| {
        let family = name.split('.').next().unwrap_or(name);
        ALONE.contains(&name) || FAMILIES.contains(&family) || ["vnet.interface", "nopersist"].contains(&name)
    };
    names.into_iter().find(|name| !known(name))
}

/// rc.d/jail with a jail.conf.d, and rc.d/bastille.
pub(super) fn start_at_boot(world: &mut World) {
    let (single, bastille) = (Path::new("/etc/jail.conf.d"), Path::new("/usr/local/bastille/jails"));
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for name in world.tree.list(single).unwrap_or_default() {
        if let Some(jail) = name.strip_suffix(".conf") {
            found.push((jail.to_owned(), single.join(&name)));
        }
    }
    for name in world.tree.list(bastille).unwrap_or_default() {
        let folder = bastille.join(&name);
        let settings = world.tree.text(&folder.join("settings.conf")).unwrap_or_default();
        if world.tree.exists(&folder.join("jail.conf")) && !settings.contains("boot=\"off\"") {
            found.push((name, folder.join("jail.conf")));
        }
    }
    for (name, conf) in found {
        let _ = world.create_jail(&name, &conf);
    }
}

impl World {
    pub(super) fn freebsd(&mut self, argv: &[&str]) -> Said {
        match argv {
            ["jls", "-d", "-q", "jid", "dying", "name", "path"] => {
                let rows = self.jails.iter();
                said(
                    0,
                    rows.map(|(name, j)| format!("{} false {name} {}\n", j.jid, j.path.display()))
                        .collect::<String>(),
                )
            }
            ["jail", "-f", conf, "-c", name] => self.create_jail(name, Path::new(conf)),
            ["jail", "-f", conf, "-r", name] => {
                if !self.tree.exists(Path::new(conf)) {
                    return said(1, format!("jail: {conf}: No such file or directory"));
                }
                // exec.stop failed: the jail stays.
                if self.sticky.contains(*name) && self.jails.contains_key(*name) {
                    return said(1, format!("jail: {name}: /bin/sh /etc/rc.shutdown: failed"));
                }
                self.remove_jail(name)
            }
            ["jail", "-R", name] => self.remove_jail(name),
            ["jexec", name, program, ..] => match self.jails.contains_key(*name) {
                false => said(1, format!("jexec: jail \"{name}\" not found")),
                true => said(i32::from(*program == "false"), ""),
            },
            // Without racct it prints nothing and fails.
            ["rctl", _] if self.no_racct => said(1, "rctl: RACCT/RCTL present, but disabled"),
            ["rctl", filter] => {
                let rules = self.rules.iter().filter(|rule| rule.starts_with(&format!("{filter}:")));
                said(0, rules.map(|rule| format!("{rule}\n")).collect::<String>())
            }
            ["pkg", "-j", name, rest @ ..] => self.pkg(name, rest),
            ["sysrc", "-j", name, rest @ ..] => self.sysrc(name, rest),
            ["service", "-j", name, service, verb] => self.service(name, service, verb),
            ["tar", "-xpf", archive, "-C", root, "--unlink"] => match self.tree.text(Path::new(archive)) {
                Some(release) => self.fill(release.trim(), Path::new(root)),
                None => said(1, format!("tar: Error opening archive: Failed to open '{archive}'")),
            },
            ["cp", "-a", from, root] => {
                let from = Path::new(from.trim_end_matches("/."));
                let release = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
                match self.tree.exists(&from.join("etc/rc")) {
                    true => self.fill(&release, Path::new(root)),
                    false => said(1, format!("cp: {}: No such file or directory", from.display())),
                }
            }
            ["chflags", "-R", "noschg", root] => {
                self.tree.take(&Path::new(root).join("var/empty/.schg"));
                said(0, "")
            }
            _ => said(64, format!("usage: {}", argv.first().unwrap_or(&""))),
        }
    }

    /// Puts a system into a root. Some of its files are immutable and cannot be written twice.
    pub(super) fn fill(&mut self, release: &str, root: &Path) -> Said {
        let flag = root.join("var/empty/.schg");
        if !self.tree.is_folder(root) {
            return said(1, format!("{}: No such file or directory", root.display()));
        }
        if self.tree.exists(&flag) {
            return said(1, "lib/libc.so.7: Operation not permitted");
        }
        let version = format!("USERLAND_VERSION=\"{release}\"\n");
        self.tree.put(&flag, b"", 0o444);
        self.tree.put(&root.join("bin/freebsd-version"), version.as_bytes(), 0o555);
        self.tree.put(&root.join("etc/rc"), b"#!/bin/sh\n", 0o644);
        said(0, "")
    }

    pub(super) fn create_jail(&mut self, name: &str, conf: &Path) -> Said {
        let Some(text) = self.tree.text(conf) else {
            return said(1, format!("jail: {}: No such file or directory", conf.display()));
        };
        if let Some(line) = syntax_error(&text) {
            return said(1, format!("jail: {} line {line}: syntax error", conf.display()));
        }
        if !text.lines().any(|line| line == format!("{name} {{")) {
            return said(1, format!("jail: {name}: no such jail in {}", conf.display()));
        }
        if let Some(unknown) = unknown_parameter(&text) {
            return said(1, format!("jail: {name}: unknown parameter: {unknown}"));
        }
        if self.jails.contains_key(name) {
            return said(1, format!("jail: \"{name}\" already exists"));
        }
        let path = PathBuf::from(parameter(&text, "path").unwrap_or_default());
        if !self.tree.is_folder(&path) {
            return said(1, format!("jail: {name}: path {}: No such file or directory", path.display()));
        }
        let mounts = match self.mounts_of(&text) {
            Ok(mounts) => mounts,
            Err(why) => return said(1, format!("jail: {name}: {why}")),
        };
        for command in values(&text, "exec.created") {
            let Some(rule) = command.strip_prefix("/usr/bin/rctl -a ") else { continue };
            if self.no_racct {
                return said(1, format!("jail: {name}: {command}: failed"));
            }
            self.rules.insert(rule.to_owned());
        }
        // exec.start is run in the root: without a system there is no /bin/sh.
        if !self.tree.exists(&path.join("etc/rc")) {
            return said(1, format!("jail: {name}: exec /bin/sh: No such file or directory"));
        }
        self.next_jid += 1;
        let enabled = enabled_in(&self.tree, &path);
        let services =
            enabled.into_iter().filter(|service| !self.broken_services.contains(service)).collect();
        let jail = RunningJail { jid: self.next_jid, path, mounts, services, conf: text };
        self.jails.insert(name.to_owned(), jail);
        said(0, format!("{name}: created"))
    }

    /// mount(8) with the jail's fstab(5): six columns, and the folder must be there.
    fn mounts_of(&self, conf: &str) -> Result<Vec<String>, String> {
        let Some(path) = parameter(conf, "mount.fstab") else { return Ok(Vec::new()) };
        let text = self.tree.text(Path::new(&path)).unwrap_or_default();
        let mut mounts = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [source, target, kind, options, _, _] = columns[..] else {
                return Err(format!("fstab: {path}: wrong number of fields: {line}"));
            };
            if !self.tree.is_folder(Path::new(target)) || !self.tree.is_folder(Path::new(source)) {
                return Err(format!("mount_{kind}: {target}: No such file or directory"));
            }
            mounts.push(format!("{source} {target} {options}"));
        }
        Ok(mounts)
    }

    pub(super) fn remove_jail(&mut self, name: &str) -> Said {
        match self.jails.remove(name) {
            None => said(1, format!("jail: \"{name}\" not found")),
            Some(_) => {
                self.rules.retain(|rule| !rule.starts_with(&format!("jail:{name}:")));
                said(0, format!("{name}: removed"))
            }
        }
    }

    fn root_of(&self, jail: &str) -> Option<PathBuf> {
        self.jails.get(jail).map(|jail| jail.path.clone())
    }

    fn pkg(&mut self, name: &str, argv: &[&str]) -> Said {
        let Some(root) = self.root_of(name) else {
            return said(1, format!("pkg: jail \"{name}\" not found"));
        };
        let mut packages = packages_in(&self.tree, &root);
        match argv {
            ["query", "%n %o"] => {
                let rows = packages.keys().map(|name| format!("{name} misc/{name}\n"));
                return said(0, rows.collect::<String>());
            }
            ["query", "-e", "%a = 0 || %#r = 0", "%n %o"] => {
                // `indexinfo` is needed by every other package.
                let needed = |name: &str| name == "indexinfo" && packages.len() > 1;
                let rows = packages.iter().filter(|(name, automatic)| !**automatic || !needed(name));
                return said(0, rows.map(|(name, _)| format!("{name} misc/{name}\n")).collect::<String>());
            }
            ["install", "-y", wanted @ ..] => {
                if self.no_network {
                    return said(1, "pkg: No address record");
                }
                if let Some(missing) = wanted.iter().find(|name| name.starts_with("no-such")) {
                    return said(1, format!("pkg: No packages available to install matching '{missing}'"));
                }
                for name in wanted {
                    packages.insert((*name).to_owned(), false);
                    packages.entry("indexinfo".to_owned()).or_insert(true);
                }
            }
            ["set", "-y", "-A", "1", released @ ..] => {
                for name in released {
                    packages.insert((*name).to_owned(), true);
                }
            }
            ["autoremove", "-y"] => {
                let needed = packages.values().any(|automatic| !automatic);
                packages.retain(|name, automatic| !*automatic || (needed && name == "indexinfo"));
            }
            _ => return said(64, "pkg: usage"),
        }
        write_packages(&mut self.tree, &root, &packages);
        said(0, "")
    }

    fn sysrc(&mut self, name: &str, argv: &[&str]) -> Said {
        let Some(root) = self.root_of(name) else {
            return said(1, format!("sysrc: jail \"{name}\" not found"));
        };
        let mut enabled = enabled_in(&self.tree, &root);
        match argv {
            ["-i", "-x", variable] => {
                enabled.remove(variable.trim_end_matches("_enable"));
            }
            [setting] => {
                if let Some(service) = setting.strip_suffix("_enable=YES") {
                    enabled.insert(service.to_owned());
                }
            }
            _ => return said(1, "usage: sysrc"),
        }
        let text: String = enabled.iter().map(|service| format!("{service}_enable=\"YES\"\n")).collect();
        self.tree.put(&root.join("etc/rc.conf"), text.as_bytes(), 0o644);
        said(0, "")
    }

    fn service(&mut self, name: &str, service: &str, verb: &str) -> Said {
        let Some(root) = self.root_of(name) else {
            return said(1, format!("jexec: jail \"{name}\" not found"));
        };
        let enabled = enabled_in(&self.tree, &root).contains(service);
        let broken = self.broken_services.contains(service);
        let Some(jail) = self.jails.get_mut(name) else { return said(1, "") };
        match verb {
            "status" => said(i32::from(!jail.services.contains(service)), ""),
            // rc.subr only warns of a service that is not enabled.
            "start" | "restart" if !enabled => {
                said(0, format!("Cannot '{verb}' {service}. Set {service}_enable to YES in /etc/rc.conf."))
            }
            "start" | "restart" => {
                if !broken {
                    jail.services.insert(service.to_owned());
                }
                said(0, format!("Starting {service}."))
            }
            "onestop" => {
                jail.services.remove(service);
                said(0, format!("Stopping {service}."))
            }
            _ => said(1, "usage: service"),
        }
    }
}
