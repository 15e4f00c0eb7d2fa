//! The tools of jails and zones in memory, with their rules and their lies, for tests of what stands on them.
//!
//! Owns a world: files, running jails, zones, packages, interfaces, a boot. Commands can be told to fail, to lie, or
//! to be the last thing that the daemon sees. Clones are handles of the same world: keep one, give one to the daemon.
//! The rules are those of the manual pages and of Bastille's scripts; what a rule is for is said beside it.

mod bastille;
mod freebsd;
mod illumos;
mod tree;

use super::Commands;
use super::Files;
use super::GuestPaths;
use super::LocalGuests;
use super::Output;
use super::ToolCommand;
use crate::Ended;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tree::Tree;

/// What a command does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimFault {
    /// Nothing, and says so.
    Fail,
    /// Nothing, and exits 0. A command that only looks fails instead.
    Lie,
    /// Its work, and says that it failed.
    FailAfter,
    /// Nothing: the daemon dies before.
    CrashBefore,
    /// Its work: the daemon dies before it hears of it.
    CrashAfter,
}

/// A jail that runs.
#[derive(Debug, Clone, Default)]
struct RunningJail {
    jid: u32,
    path: PathBuf,
    mounts: Vec<String>,
    services: BTreeSet<String>,
    /// What its file said when it was started.
    conf: String,
}

/// A zone as zonecfg(8) and zoneadm(8) know it.
#[derive(Debug, Clone, Default)]
struct SimZone {
    state: String,
    id: Option<u32>,
    /// Lines of its configuration, as `export` prints them.
    config: Vec<String>,
    /// Looks until the next state.
    pending: u32,
    /// Looks until its services are up.
    services_in: u32,
}

#[derive(Debug, Default)]
struct World {
    tree: Tree,
    jails: BTreeMap<String, RunningJail>,
    next_jid: u32,
    rules: BTreeSet<String>,
    zones: BTreeMap<String, SimZone>,
    next_zone: u32,
    vnics: BTreeMap<String, String>,
    boots: u32,
    no_network: bool,
    no_racct: bool,
    empty_template: bool,
    broken_services: BTreeSet<String>,
    maintenance: BTreeSet<String>,
    sticky: BTreeSet<String>,
    faults: BTreeMap<u64, SimFault>,
    commands: u64,
    history: Vec<String>,
    crashed: bool,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct SimGuests {
    world: Arc<Mutex<World>>,
}

impl SimGuests {
    /// A host that has the tools of both systems, a network, Bastille, and FreeBSD 14.2-RELEASE in its releases.
    pub fn new() -> Self {
        let sim = Self::default();
        sim.add_release("14.2-RELEASE");
        sim
    }

    /// The same, and files below `real` are real ones: a store keeps its datasets there.
    pub fn with_real_files_below(real: &Path) -> Self {
        let sim = Self::new();
        sim.world.lock().tree.real = Some(real.to_owned());
        sim
    }

    /// The guests of this host, as the daemon makes them, after the last boot.
    pub fn guests(&self, state: &Path) -> LocalGuests {
        let boot = format!("boot-{}", self.world.lock().boots);
        LocalGuests::impatient(Arc::new(self.clone()), Arc::new(self.clone()), GuestPaths::new(state), boot)
    }

    /// Bastille has bootstrapped this release.
    pub fn add_release(&self, release: &str) {
        let folder = Path::new("/usr/local/bastille/releases").join(release);
        let version = format!("USERLAND_VERSION=\"{release}\"\n");
        let tree = &mut self.world.lock().tree;
        tree.put(&folder.join("bin/freebsd-version"), version.as_bytes(), 0o555);
        tree.put(&folder.join("etc/rc"), b"#!/bin/sh\n", 0o644);
    }

    /// Bastille has it no longer.
    pub fn remove_release(&self, release: &str) {
        let folder = Path::new("/usr/local/bastille/releases").join(release);
        let tree = &mut self.world.lock().tree;
        tree.take(&folder.join("bin/freebsd-version"));
        tree.take(&folder.join("etc/rc"));
    }

    /// Whether packages and releases can be fetched.
    pub fn set_network(&self, up: bool) {
        self.world.lock().no_network = !up;
    }

    /// Whether the kernel counts resources (kern.racct.enable).
    pub fn set_racct(&self, enabled: bool) {
        self.world.lock().no_racct = !enabled;
    }

    /// Bastille's configuration has a template for empty jails: it starts them when it makes them.
    pub fn set_empty_template(&self, set: bool) {
        self.world.lock().empty_template = set;
    }

    /// A service whose start says that it starts, and that does not run.
    pub fn break_service(&self, service: &str) {
        self.world.lock().broken_services.insert(service.to_owned());
    }

    /// A zone whose services need somebody once it is booted; `set` false: no longer.
    pub fn set_maintenance(&self, zone: &str, set: bool) {
        let mut world = self.world.lock();
        if set {
            world.maintenance.insert(zone.to_owned());
        } else {
            world.maintenance.remove(zone);
        }
    }

    /// A jail whose exec.stop fails: `jail -r` leaves it running.
    pub fn stick(&self, jail: &str) {
        self.world.lock().sticky.insert(jail.to_owned());
    }

    /// The `n`th command from now (1 is the next) does this.
    pub fn fault_at(&self, n: u64, fault: SimFault) {
        let mut world = self.world.lock();
        let at = world.commands + n;
        world.faults.insert(at, fault);
    }

    /// The daemon starts again: commands work, and no fault is planned any more.
    pub fn revive(&self) {
        let mut world = self.world.lock();
        world.crashed = false;
        world.faults.clear();
    }

    /// True after a simulated crash, until [`Self::revive`].
    pub fn crashed(&self) -> bool {
        self.world.lock().crashed
    }

    /// Commands so far.
    pub fn commands(&self) -> u64 {
        self.world.lock().commands
    }

    /// Every command that was run, as one line, oldest first.
    pub fn history(&self) -> Vec<String> {
        self.world.lock().history.clone()
    }

    /// Jails that run, with the value of a parameter of the file that each was started with.
    pub fn jails(&self, parameter: &str) -> BTreeMap<String, Option<String>> {
        let world = self.world.lock();
        let value = |jail: &RunningJail| freebsd::parameter(&jail.conf, parameter);
        world.jails.iter().map(|(name, jail)| (name.clone(), value(jail))).collect()
    }

    /// True when a guest runs.
    pub fn runs(&self, guest: &zed_plan::GuestId) -> bool {
        let world = self.world.lock();
        match guest {
            zed_plan::GuestId::Jail(name) => world.jails.contains_key(name.as_str()),
            zed_plan::GuestId::Zone(name) => {
                world.zones.get(name.as_str()).is_some_and(|zone| zone.state == "running")
            }
        }
    }

    /// What is mounted in a running jail.
    pub fn mounts(&self, jail: &str) -> Vec<String> {
        self.world.lock().jails.get(jail).map(|jail| jail.mounts.clone()).unwrap_or_default()
    }

    /// Services that run in a jail.
    pub fn services(&self, jail: &str) -> BTreeSet<String> {
        self.world.lock().jails.get(jail).map(|jail| jail.services.clone()).unwrap_or_default()
    }

    /// Packages in a root.
    pub fn packages(&self, root: &Path) -> BTreeSet<String> {
        freebsd::packages_in(&self.world.lock().tree, root).into_keys().collect()
    }

    /// Rules of rctl(8).
    pub fn rules(&self) -> BTreeSet<String> {
        self.world.lock().rules.clone()
    }

    /// Each zone's state.
    pub fn zones(&self) -> BTreeMap<String, String> {
        self.world.lock().zones.iter().map(|(name, zone)| (name.clone(), zone.state.clone())).collect()
    }

    /// Configuration of a zone, as `export` prints it.
    pub fn zone_config(&self, zone: &str) -> Vec<String> {
        self.world.lock().zones.get(zone).map(|zone| zone.config.clone()).unwrap_or_default()
    }

    /// Virtual interfaces and what they are over.
    pub fn vnics(&self) -> BTreeMap<String, String> {
        self.world.lock().vnics.clone()
    }

    /// Somebody stops a jail with `jail -R`, or halts a zone.
    pub fn kill(&self, guest: &str) {
        let mut world = self.world.lock();
        world.jails.remove(guest);
        if let Some(zone) = world.zones.get_mut(guest)
            && zone.state == "running"
        {
            "installed".clone_into(&mut zone.state);
            zone.id = None;
        }
    }

    /// A jail is started by somebody else, from a root of its own.
    pub fn run_foreign_jail(&self, name: &str, path: &str) {
        let mut world = self.world.lock();
        world.next_jid += 1;
        let jid = world.next_jid;
        world.jails.insert(name.to_owned(), RunningJail { jid, path: path.into(), ..RunningJail::default() });
    }

    /// The host boots. Numbers begin again. rc starts the jails of Bastille that have `boot=on`, and those in
    /// /etc/jail.conf.d, from their files as they are: a jail returns that nobody asked for. Zones come back as they
    /// are configured.
    pub fn reboot(&self) {
        let mut world = self.world.lock();
        world.boots += 1;
        world.jails.clear();
        world.rules.clear();
        (world.next_jid, world.next_zone) = (0, 0);
        for zone in world.zones.values_mut() {
            zone.id = None;
            (zone.pending, zone.services_in) = (0, 0);
            if !matches!(zone.state.as_str(), "configured" | "incomplete") {
                "installed".clone_into(&mut zone.state);
            }
        }
        freebsd::start_at_boot(&mut world);
    }
}

/// Exit status and output of a tool.
type Said = (i32, String);

fn said(code: i32, text: impl Into<String>) -> Said {
    (code, text.into())
}

/// Commands that change nothing.
fn only_looks(argv: &[&str]) -> bool {
    matches!(
        argv,
        ["jls", ..]
            | ["rctl", _]
            | ["bastille", "list", ..]
            | ["pkg", "-j", _, "query", ..]
            | ["service", "-j", _, _, "status"]
            | ["zoneadm", "list", ..]
            | ["zonecfg", "-z", _, "export"]
            | ["dladm", "show-vnic", ..]
            | ["zlogin", "-n", _, "/usr/bin/svcs", ..]
    )
}

impl World {
    fn work(&mut self, argv: &[&str]) -> Said {
        match argv {
            ["bastille", verb, rest @ ..] => self.bastille(verb, rest),
            ["jls", ..]
            | ["jail", ..]
            | ["jexec", ..]
            | ["rctl", ..]
            | ["pkg", ..]
            | ["sysrc", ..]
            | ["service", ..]
            | ["tar", ..]
            | ["cp", ..]
            | ["chflags", ..] => self.freebsd(argv),
            ["zoneadm", ..] | ["zonecfg", ..] | ["zlogin", ..] | ["dladm", ..] | ["chmod", ..] => {
                self.illumos(argv)
            }
            _ => said(127, format!("{}: not found", argv.first().unwrap_or(&""))),
        }
    }
}

impl Commands for SimGuests {
    fn run(&self, command: &ToolCommand) -> Result<Output, String> {
        let dead = || Err("the daemon is dead (simulated crash)".to_owned());
        let mut world = self.world.lock();
        if world.crashed {
            return dead();
        }
        world.commands += 1;
        world.history.push(command.line());
        let at = world.commands;
        let fault = world.faults.remove(&at);
        let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
        let failure = || said(1, format!("simulated failure of command {at}"));
        let (code, text) = match fault {
            None => world.work(&argv),
            Some(SimFault::Lie) if !only_looks(&argv) => said(0, ""),
            Some(SimFault::Fail | SimFault::Lie) => failure(),
            Some(SimFault::FailAfter) => {
                let _ = world.work(&argv);
                failure()
            }
            Some(SimFault::CrashBefore) => {
                world.crashed = true;
                return dead();
            }
            Some(SimFault::CrashAfter) => {
                // Its outcome is seen by nobody.
                let _ = world.work(&argv);
                world.crashed = true;
                return dead();
            }
        };
        Ok(Output { ended: Ended::Exit(code), text })
    }
}

impl SimGuests {
    /// Works on the files, unless the daemon is dead.
    fn tree<T>(&self, work: impl FnOnce(&mut Tree) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world.lock();
        if world.crashed {
            return Err(io::Error::other("the daemon is dead (simulated crash)"));
        }
        work(&mut world.tree)
    }
}

impl Files for SimGuests {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.tree(|tree| tree.read(path).map(|found| found.map(|(content, _)| content)))
    }

    fn write(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        self.tree(|tree| tree.write(path, content, mode))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.tree(|tree| tree.remove(path))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.tree(|tree| tree.remove_folder(path))
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.tree(|tree| tree.make_folder(path))
    }

    fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        self.tree(|tree| tree.link(path, target))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.tree(|tree| tree.list(path))
    }

    fn exists(&self, path: &Path) -> bool {
        self.world.lock().tree.exists(path)
    }

    fn read_in(&self, root: &Path, inside: &str) -> io::Result<Option<(Vec<u8>, u32)>> {
        self.tree(|tree| tree.read(&root.join(inside.trim_start_matches('/'))))
    }

    fn write_in(&self, root: &Path, inside: &str, content: &[u8], mode: u32) -> io::Result<()> {
        self.tree(|tree| tree.write(&root.join(inside.trim_start_matches('/')), content, mode))
    }

    fn make_folder_in(&self, root: &Path, inside: &str) -> io::Result<()> {
        self.tree(|tree| tree.make_folder(&root.join(inside.trim_start_matches('/'))))
    }
}

#[cfg(test)]
mod tests;
