//! illumos zones, by zonecfg(8), zoneadm(8) and zlogin(1). The zonepath is the dataset of the spec.
//!
//! Owns what is done to a zone, in which order, and how it is known to have happened: `zoneadm list` is asked after
//! each command, and a boot is waited for, because it returns before the zone is up. Data are kept: a zone is
//! detached, never uninstalled, unless its install did not end.

mod command;
mod config;
mod parse;

pub use command::ZoneCommand;
pub use config::render_zone_config;

use super::GuestErrorKind;
use super::GuestRequest;
use super::commands::Output;
use super::local::Tools;
use super::record::Mark;
use super::record::Record;
use super::record::read_mark;
use super::record::write_mark;
use config::vnic_of;
use parse::Listed;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use zed_plan::GuestDefinition;
use zed_plan::GuestId;
use zed_plan::GuestStatus;
use zed_plan::ObservedGuest;
use zed_spec::Zone;
use zed_spec::ZoneName;

/// Looks at a zone that boots or stops: with half a second between two, five minutes.
const LOOKS: u32 = 600;

/// How a brand differs from the others.
struct Brand {
    /// SMF inside says when it is up.
    smf: bool,
    /// Programs can be run inside.
    login: bool,
    /// Folders of the host can be seen inside.
    folders: bool,
}

impl Brand {
    /// By its name: lx(7) has another system's services, bhyve(7) and kvm(7) are whole machines.
    fn of(name: &str) -> Self {
        match name {
            "lx" => Self { smf: false, login: true, folders: true },
            "bhyve" | "kvm" => Self { smf: false, login: false, folders: false },
            _ => Self { smf: true, login: true, folders: true },
        }
    }
}

/// One zone as the spec wants it, and what it is made with.
pub(super) struct Zones<'a> {
    tools: &'a Tools,
    name: &'a ZoneName,
    zone: &'a Zone,
}

fn list(tools: &Tools) -> Result<Vec<Listed>, GuestErrorKind> {
    let command = ZoneCommand::List.command();
    let output = tools.run(&command)?;
    if !output.ok() {
        return Err(GuestErrorKind::state(&command, &output, "which zones there are is not known"));
    }
    parse::parse_zones(&output.text)
}

fn find(tools: &Tools, name: &str) -> Result<Option<Listed>, GuestErrorKind> {
    Ok(list(tools)?.into_iter().find(|zone| zone.name == name))
}

fn state_of(zone: Option<&Listed>) -> &str {
    zone.map_or("absent", |zone| zone.state.as_str())
}

/// What is there, of the zones with a record and of those that run.
pub(super) fn observe(
    tools: &Tools,
    records: &[Record],
) -> Result<BTreeMap<GuestId, ObservedGuest>, GuestErrorKind> {
    let listed = list(tools)?;
    let mut found = BTreeMap::new();
    for zone in listed.iter().filter(|zone| zone.name != "global") {
        let Ok(name) = ZoneName::parse(&zone.name) else { continue };
        let foreign = ObservedGuest {
            status: status_of(zone),
            made: None,
            intact: false,
            running: None,
            content: None,
            rebooted: false,
        };
        found.insert(GuestId::Zone(name), foreign);
    }
    for record in records.iter().filter(|record| matches!(record.guest, GuestId::Zone(_))) {
        let zone = listed.iter().find(|zone| zone.name == record.guest.name());
        let intact = record.is_intact(&*tools.files);
        let mark = read_mark(&*tools.files, &record.root)?.unwrap_or_default();
        let status = zone.map_or(GuestStatus::Absent, status_of);
        let running = match (&status, zone.and_then(|zone| zone.id.as_ref())) {
            (GuestStatus::Running, Some(id)) => record.running(&tools.boot, id, intact),
            _ => None,
        };
        let rebooted = record.started.as_ref().is_some_and(|started| started.boot != tools.boot);
        let made = record.made.clone().map(Box::new);
        found.insert(
            record.guest.clone(),
            ObservedGuest { status, made, intact, running, content: mark.content, rebooted },
        );
    }
    Ok(found)
}

fn status_of(zone: &Listed) -> GuestStatus {
    match zone.state.as_str() {
        "configured" => GuestStatus::Configured,
        "installed" => GuestStatus::Stopped,
        "running" => GuestStatus::Running,
        other => GuestStatus::Other(format!("zoneadm says that it is {other}")),
    }
}

/// Stops a zone of zed's.
pub(super) fn stop(tools: &Tools, record: &Record) -> Result<(), GuestErrorKind> {
    let name = record.guest.name();
    let Some(zone) = find(tools, name)? else { return Ok(()) };
    if is_down(&zone.state) {
        return Ok(());
    }
    if Path::new(&zone.path) != record.root {
        let text = format!(
            "zone `{name}` has the zonepath `{}`, which zed did not make: stop it yourself",
            zone.path
        );
        return Err(GuestErrorKind::NotOurs(text));
    }
    let shutdown = ZoneCommand::Shutdown { name: name.to_owned() }.command();
    let output = tools.run(&shutdown)?;
    if output.ok() && wait_until_down(tools, name)? {
        return Ok(());
    }
    tracing::warn!(zone = name, said = output.summary(), "does not shut down, and is halted");
    let halt = ZoneCommand::Halt { name: name.to_owned() }.command();
    let output = tools.run(&halt)?;
    if wait_until_down(tools, name)? {
        return Ok(());
    }
    Err(GuestErrorKind::state(&halt, &output, format!("it is {}", state_of(find(tools, name)?.as_ref()))))
}

fn is_down(state: &str) -> bool {
    matches!(state, "configured" | "incomplete" | "installed")
}

/// Waits while the zone is on its way down; false when it is not on its way.
fn wait_until_down(tools: &Tools, name: &str) -> Result<bool, GuestErrorKind> {
    for _ in 0..LOOKS {
        match find(tools, name)? {
            None => return Ok(true),
            Some(zone) if is_down(&zone.state) => return Ok(true),
            Some(zone) if zone.state == "running" => return Ok(false),
            Some(_) => std::thread::sleep(tools.pause),
        }
    }
    Ok(false)
}

/// Stops a zone and takes its configuration away. What is in its zonepath stays, and can be attached again.
pub(super) fn remove(tools: &Tools, record: &Record) -> Result<(), GuestErrorKind> {
    let name = record.guest.name();
    let zone = find(tools, name)?;
    if zone.as_ref().is_some_and(|zone| Path::new(&zone.path) == record.root) {
        stop(tools, record)?;
        let mark = read_mark(&*tools.files, &record.root)?;
        match find(tools, name)?.map(|zone| zone.state).as_deref() {
            Some("installed") => {
                expect_state(tools, &ZoneCommand::Detach { name: name.to_owned() }, name, "configured")?
            }
            Some("incomplete") => clear_incomplete(tools, name, mark.as_ref())?,
            _ => {}
        }
        let delete = ZoneCommand::Delete { name: name.to_owned() }.command();
        let output = tools.run(&delete)?;
        if let Some(zone) = find(tools, name)? {
            return Err(GuestErrorKind::state(&delete, &output, format!("it is {} still", zone.state)));
        }
    }
    if let Some(GuestDefinition::Zone(zone_name, zone)) = record.made.as_ref().map(|made| &made.definition)
        && let Some(over) = &zone.over
    {
        remove_vnic(tools, &vnic_of(zone_name), over)?;
    }
    let file = command_file(tools, name);
    tools.remove(&file)
}

fn command_file(tools: &Tools, name: &str) -> PathBuf {
    tools.paths.records.join(format!("zone-{name}.zonecfg"))
}

/// Only an install that never ended is cleared up: what has a mark holds data.
fn clear_incomplete(tools: &Tools, name: &str, mark: Option<&Mark>) -> Result<(), GuestErrorKind> {
    if mark.is_some_and(|mark| mark.base.is_some()) {
        let text = format!(
            "zone `{name}` is incomplete and has held data: look at it with `zoneadm -z {name} list -v`, save what is in \
             its zonepath, and `zoneadm -z {name} uninstall -F`"
        );
        return Err(GuestErrorKind::Missing(text));
    }
    expect_state(tools, &ZoneCommand::ClearIncomplete { name: name.to_owned() }, name, "configured")
}

/// Runs a command after which the zone is in this state.
fn expect_state(tools: &Tools, command: &ZoneCommand, name: &str, state: &str) -> Result<(), GuestErrorKind> {
    let command = command.command();
    let output = tools.run(&command)?;
    let zone = find(tools, name)?;
    if state_of(zone.as_ref()) == state {
        return Ok(());
    }
    Err(GuestErrorKind::state(&command, &output, format!("it is {}", state_of(zone.as_ref()))))
}

fn vnic_over(tools: &Tools, vnic: &str) -> Result<Option<String>, GuestErrorKind> {
    let command = ZoneCommand::Vnics.command();
    let output = tools.run(&command)?;
    if !output.ok() {
        return Err(GuestErrorKind::state(&command, &output, "which interfaces there are is not known"));
    }
    let vnics = parse::parse_vnics(&output.text);
    Ok(vnics.into_iter().find(|(link, _)| link == vnic).map(|(_, over)| over))
}

fn remove_vnic(tools: &Tools, vnic: &str, over: &str) -> Result<(), GuestErrorKind> {
    if vnic_over(tools, vnic)?.as_deref() != Some(over) {
        return Ok(());
    }
    let delete = ZoneCommand::DeleteVnic { vnic: vnic.to_owned() }.command();
    let output = tools.run(&delete)?;
    match vnic_over(tools, vnic)? {
        None => Ok(()),
        Some(_) => Err(GuestErrorKind::state(&delete, &output, "the interface is still there")),
    }
}

impl<'a> Zones<'a> {
    pub(super) fn new(tools: &'a Tools, name: &'a ZoneName, zone: &'a Zone) -> Self {
        Self { tools, name, zone }
    }

    fn listed(&self) -> Result<Option<Listed>, GuestErrorKind> {
        find(self.tools, self.name.as_str())
    }

    pub(super) fn configure(&self, request: &GuestRequest) -> Result<(), GuestErrorKind> {
        let name = self.name.to_string();
        let known = self.tools.records().read(&request.spec.id())?;
        let zone = self.listed()?;
        if known.is_none() && zone.is_some() {
            let text = format!("a zone `{name}` is there, and zed did not make it: name this one otherwise");
            return Err(GuestErrorKind::NotOurs(text));
        }
        if !request.mounts.is_empty() && !Brand::of(&self.zone.brand).folders {
            let text = format!(
                "a zone of brand {} sees no folder of the host: run its apps inside it",
                self.zone.brand
            );
            return Err(GuestErrorKind::Missing(text));
        }
        if let Some(id) = zone.as_ref().and_then(|zone| zone.id.as_ref()) {
            self.tools.check_running(&request.spec, id)?;
        }
        let mut record = self.tools.claim(request)?;
        self.ensure_vnic(record.made.as_ref().map(|made| &made.definition))?;
        let text = match &zone {
            // Only a zone that is not installed can be created anew.
            Some(zone) if !matches!(zone.state.as_str(), "configured" | "incomplete") => {
                let output = self.tools.run(&ZoneCommand::Export { name: name.clone() }.command())?;
                let existing = config::parse_export(&output.text);
                self.check_fixed(&existing, request)?;
                config::render(self.name, self.zone, request, Some(&existing))
            }
            _ => config::render(self.name, self.zone, request, None),
        };
        let file = command_file(self.tools, &name);
        self.tools.write(&file, text.as_bytes(), 0o600)?;
        let command = ZoneCommand::Configure { name: name.clone(), file }.command();
        let output = self.tools.run(&command)?;
        let xml = self.tools.paths.zones.join(format!("{name}.xml"));
        if !output.ok() || self.listed()?.is_none() || !self.tools.files.exists(&xml) {
            return Err(GuestErrorKind::state(&command, &output, "it is not configured as the spec says"));
        }
        record.files = BTreeMap::from([(xml.clone(), self.tools.hash(&xml)?)]);
        record.made = Some(request.spec.clone());
        record.mounts.clone_from(&request.mounts);
        self.tools.records().write(&record)
    }

    /// What no command can change once a zone is installed.
    fn check_fixed(&self, existing: &config::Existing, request: &GuestRequest) -> Result<(), GuestErrorKind> {
        let root = request.root.to_string_lossy();
        for (what, there, wanted) in [
            ("brand", existing.brand.as_deref(), self.zone.brand.as_str()),
            ("zonepath", existing.zonepath.as_deref(), &*root),
        ] {
            if there.is_some_and(|there| there != wanted) {
                let text = format!(
                    "the {what} of an installed zone cannot be changed from `{}` to `{wanted}`: use another name and dataset",
                    there.unwrap_or_default()
                );
                return Err(GuestErrorKind::Missing(text));
            }
        }
        Ok(())
    }

    /// The interface of the zone, on its link. What another spec had given it is taken away.
    fn ensure_vnic(&self, before: Option<&GuestDefinition>) -> Result<(), GuestErrorKind> {
        let vnic = vnic_of(self.name);
        let there = vnic_over(self.tools, &vnic)?;
        let wanted = self.zone.over.as_ref();
        if there.as_ref() == wanted {
            return Ok(());
        }
        if let Some(over) = &there {
            let ours =
                matches!(before, Some(GuestDefinition::Zone(_, zone)) if zone.over.as_ref() == Some(over));
            if !ours && wanted.is_none() {
                return Ok(());
            }
            if !ours {
                let text =
                    format!("interface `{vnic}` is there over `{over}`, and zed did not make it: remove it");
                return Err(GuestErrorKind::NotOurs(text));
            }
            remove_vnic(self.tools, &vnic, over)?;
        }
        let Some(over) = wanted else { return Ok(()) };
        let create = ZoneCommand::CreateVnic { vnic: vnic.clone(), over: over.clone() }.command();
        let output = self.tools.run(&create)?;
        match vnic_over(self.tools, &vnic)? {
            Some(there) if there == *over => Ok(()),
            _ => Err(GuestErrorKind::state(&create, &output, "the interface is not there")),
        }
    }

    pub(super) fn install(&self, request: &GuestRequest) -> Result<(), GuestErrorKind> {
        let name = self.name.to_string();
        let files = &*self.tools.files;
        let mark = read_mark(files, &request.root)?;
        let mut state = state_of(self.listed()?.as_ref()).to_owned();
        if state == "incomplete" {
            clear_incomplete(self.tools, &name, mark.as_ref())?;
            "configured".clone_into(&mut state);
        }
        if state == "configured" {
            self.tools.run(&ZoneCommand::Protect { path: request.root.clone() }.command())?;
            // A system that is there already: of a zone that was removed, or rolled back to.
            let there = mark.as_ref().is_some_and(|mark| mark.base.is_some());
            let command = match there {
                true => ZoneCommand::Attach { name: name.clone() },
                false => ZoneCommand::Install { name: name.clone() },
            };
            expect_state(self.tools, &command, &name, "installed")?;
        }
        if mark.is_some_and(|mark| mark.base.is_some()) {
            return Ok(());
        }
        write_mark(files, &request.root, &Mark::new(Some(self.zone.brand.clone())))
    }

    pub(super) fn start(&self, request: &GuestRequest) -> Result<(), GuestErrorKind> {
        let name = self.name.to_string();
        let before = self.listed()?;
        if state_of(before.as_ref()) == "running" {
            let id = before.and_then(|zone| zone.id).unwrap_or_default();
            self.tools.check_running(&request.spec, &id)?;
            return self.wait_until_up();
        }
        let boot = ZoneCommand::Boot { name }.command();
        let output = self.tools.run(&boot)?;
        let id = self.wait_until_running(&boot, &output)?;
        self.tools.remember_start(&request.spec, id)?;
        self.wait_until_up()
    }

    /// Waits while the zone is on its way to running.
    fn wait_until_running(
        &self,
        boot: &super::ToolCommand,
        output: &Output,
    ) -> Result<String, GuestErrorKind> {
        for _ in 0..LOOKS {
            let zone = self.listed()?;
            match (state_of(zone.as_ref()), zone.as_ref().and_then(|zone| zone.id.clone())) {
                ("running", Some(id)) => return Ok(id),
                // It has not left yet, and the tool has said no.
                ("installed", _) if !output.ok() => break,
                ("absent" | "configured" | "incomplete", _) => break,
                _ => std::thread::sleep(self.tools.pause),
            }
        }
        let state = format!("it is {}", state_of(self.listed()?.as_ref()));
        Err(GuestErrorKind::state(boot, output, state))
    }

    /// Waits until the services inside are up: a zone runs long before that.
    fn wait_until_up(&self) -> Result<(), GuestErrorKind> {
        let brand = Brand::of(&self.zone.brand);
        if !brand.login {
            return Ok(());
        }
        let name = self.name.to_string();
        let command = match brand.smf {
            true => ZoneCommand::Milestone { name },
            false => ZoneCommand::Exec { name, argv: vec!["/bin/true".to_owned()] },
        };
        let command = command.command();
        let mut last = None;
        for _ in 0..LOOKS {
            let output = self.tools.run(&command)?;
            let up = if brand.smf { output.text.trim() == "online" } else { output.ok() };
            if up {
                return Ok(());
            }
            // Services that failed stay so until somebody looks at them: svcs(1) -x says which.
            let broken = output.text.trim() == "maintenance";
            last = Some(output);
            if broken {
                break;
            }
            std::thread::sleep(self.tools.pause);
        }
        let output = last.unwrap_or(Output { ended: crate::Ended::Cancelled, text: String::new() });
        let state = format!("its services are not up (`zlogin {} svcs -x` says which)", self.name);
        Err(GuestErrorKind::state(&command, &output, state))
    }

    /// Zones have no packages, files or services in the spec: the brand brings the system.
    pub(super) fn provision(&self, request: &GuestRequest) -> Result<(), GuestErrorKind> {
        let files = &*self.tools.files;
        let mut mark =
            read_mark(files, &request.root)?.unwrap_or_else(|| Mark::new(Some(self.zone.brand.clone())));
        let content = request.spec.content();
        if mark.content.as_ref() == Some(&content) {
            return Ok(());
        }
        mark.content = Some(content);
        write_mark(files, &request.root, &mark)
    }
}
