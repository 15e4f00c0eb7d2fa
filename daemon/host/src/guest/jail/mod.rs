//! FreeBSD jails, by jail(8) or by Bastille. The jail's root is the dataset of the spec in both cases.
//!
//! Owns what is done to a jail, in which order, and how it is known to have happened: jls(8) is asked after each
//! command, because bastille(8) exits 0 after many a failure. Never destroys a jail's files.

mod command;
mod conf;
mod parse;
mod provision;

pub use command::JailCommand;
pub use conf::render_fstab;
pub use conf::render_jail_conf;

use super::GuestErrorKind;
use super::GuestRequest;
use super::local::Tools;
use super::record::Mark;
use super::record::Record;
use super::record::read_mark;
use super::record::write_mark;
use parse::Listed;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use zed_plan::GuestDefinition;
use zed_plan::GuestId;
use zed_plan::GuestStatus;
use zed_plan::ObservedGuest;
use zed_spec::Jail;
use zed_spec::JailManager;
use zed_spec::JailName;

/// In every FreeBSD system: `USERLAND_VERSION="14.2-RELEASE-p1"`.
const VERSION_FILE: &str = "/bin/freebsd-version";

/// One jail as the spec wants it, and what it is made with.
pub(super) struct Jails<'a> {
    tools: &'a Tools,
    name: &'a JailName,
    jail: &'a Jail,
}

/// Where the files of a jail are.
struct Places {
    conf: PathBuf,
    fstab: PathBuf,
    /// Bastille's folder.
    folder: Option<PathBuf>,
}

impl Places {
    fn of(tools: &Tools, name: &str, manager: JailManager) -> Self {
        let paths = &tools.paths;
        match manager {
            JailManager::JailConf => Self {
                conf: paths.jail_conf.join(format!("{name}.conf")),
                fstab: paths.fstab.join(format!("fstab.{name}")),
                folder: None,
            },
            JailManager::Bastille => {
                let folder = paths.bastille.join("jails").join(name);
                Self { conf: folder.join("jail.conf"), fstab: folder.join("fstab"), folder: Some(folder) }
            }
        }
    }
}

/// Every jail that the kernel knows.
fn list(tools: &Tools) -> Result<Vec<Listed>, GuestErrorKind> {
    let command = JailCommand::List.command();
    let output = tools.run(&command)?;
    if !output.ok() {
        return Err(GuestErrorKind::state(&command, &output, "which jails run is not known"));
    }
    parse::parse_jls(&output.text)
}

fn find(tools: &Tools, name: &str) -> Result<Option<Listed>, GuestErrorKind> {
    Ok(list(tools)?.into_iter().find(|jail| jail.name == name && !jail.dying))
}

/// What is there, of the jails with a record and of those that run.
pub(super) fn observe(
    tools: &Tools,
    records: &[Record],
) -> Result<BTreeMap<GuestId, ObservedGuest>, GuestErrorKind> {
    let listed = list(tools)?;
    let mut found = BTreeMap::new();
    for jail in listed.iter().filter(|jail| !jail.dying) {
        // A name that no spec can have is nobody's concern.
        let Ok(name) = JailName::parse(&jail.name) else { continue };
        let foreign = ObservedGuest {
            status: GuestStatus::Running,
            made: None,
            intact: false,
            running: None,
            content: None,
            rebooted: false,
        };
        found.insert(GuestId::Jail(name), foreign);
    }
    for record in records.iter().filter(|record| matches!(record.guest, GuestId::Jail(_))) {
        let runs = listed.iter().find(|jail| jail.name == record.guest.name() && !jail.dying);
        let intact = record.is_intact(&*tools.files);
        let mark = read_mark(&*tools.files, &record.root)?.unwrap_or_default();
        let status = match (runs, &record.made) {
            // One that runs from another root is another jail of the same name.
            (Some(jail), _) if Path::new(&jail.path) != record.root => {
                GuestStatus::Other(format!("a jail of this name runs from `{}`", jail.path))
            }
            (Some(_), _) => GuestStatus::Running,
            (None, None) => GuestStatus::Absent,
            (None, Some(_)) if mark.base.is_none() => GuestStatus::Configured,
            (None, Some(_)) => GuestStatus::Stopped,
        };
        let running = match (&status, runs) {
            (GuestStatus::Running, Some(jail)) => record.running(&tools.boot, &jail.jid.to_string(), intact),
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

/// The manager that a record's jail was made with.
fn manager_of(record: &Record) -> Option<JailManager> {
    match &record.made.as_ref()?.definition {
        GuestDefinition::Jail(_, jail) => Some(jail.manager),
        GuestDefinition::Zone(..) => None,
    }
}

/// Stops a jail of zed's.
pub(super) fn stop(tools: &Tools, record: &Record) -> Result<(), GuestErrorKind> {
    let name = record.guest.name();
    let Some(runs) = find(tools, name)? else { return Ok(()) };
    if Path::new(&runs.path) != record.root {
        let text =
            format!("a jail `{name}` runs from `{}`, which zed did not make: stop it yourself", runs.path);
        return Err(GuestErrorKind::NotOurs(text));
    }
    let manager = manager_of(record).unwrap_or(JailManager::JailConf);
    let places = Places::of(tools, name, manager);
    let has_conf = tools.files.exists(&places.conf);
    let command = match manager {
        // Bastille takes the beginning of a name for the name, so it is asked only for what it knows exactly.
        JailManager::Bastille if has_conf && bastille_knows(tools, name)? => {
            JailCommand::BastilleStop { name: name.to_owned() }
        }
        _ if has_conf => JailCommand::Remove { name: name.to_owned(), conf: places.conf },
        _ => JailCommand::RemoveBare { name: name.to_owned() },
    };
    let first = command.command();
    let output = tools.run(&first)?;
    if find(tools, name)?.is_none() {
        return Ok(());
    }
    // A stop command of its file failed, or Bastille only said what to do: without them, then.
    tracing::warn!(jail = name, said = output.summary(), "still runs after `{}`", first.line());
    let bare = JailCommand::RemoveBare { name: name.to_owned() }.command();
    let output = tools.run(&bare)?;
    match find(tools, name)? {
        None => Ok(()),
        Some(_) => Err(GuestErrorKind::state(&bare, &output, "it still runs")),
    }
}

/// Stops a jail and takes its files on the host away. Its root stays.
pub(super) fn remove(tools: &Tools, record: &Record) -> Result<(), GuestErrorKind> {
    stop(tools, record)?;
    for manager in [JailManager::JailConf, JailManager::Bastille] {
        if manager_of(record).is_none_or(|made| made == manager) {
            remove_files(tools, record.guest.name(), manager, record)?;
        }
    }
    Ok(())
}

fn remove_files(
    tools: &Tools,
    name: &str,
    manager: JailManager,
    record: &Record,
) -> Result<(), GuestErrorKind> {
    let places = Places::of(tools, name, manager);
    for path in [&places.conf, &places.fstab] {
        // Only what was written by zed, or by Bastille for it.
        if record.files.contains_key(path) || is_ours(tools, path)? {
            tools.remove(path)?;
        }
    }
    let Some(folder) = places.folder else { return Ok(()) };
    if tools.files.exists(&places.conf) {
        return Ok(());
    }
    let links_to_root = tools.files.exists(&folder.join("root"));
    if links_to_root {
        tools.remove(&folder.join("root"))?;
    }
    tools.remove(&folder.join("settings.conf"))?;
    tools.remove(&places.fstab)?;
    tools.files.remove_folder(&folder).map_err(|e| GuestErrorKind::file(&folder, &e))
}

fn is_ours(tools: &Tools, path: &Path) -> Result<bool, GuestErrorKind> {
    let content = tools.files.read(path).map_err(|e| GuestErrorKind::file(path, &e))?;
    Ok(content.is_some_and(|content| content.starts_with(conf::HEADER.as_bytes())))
}

fn bastille_knows(tools: &Tools, name: &str) -> Result<bool, GuestErrorKind> {
    let command = JailCommand::BastilleList.command();
    let output = tools.run(&command)?;
    if !output.ok() {
        return Err(GuestErrorKind::state(&command, &output, "which jails Bastille knows is not known"));
    }
    Ok(parse::parse_bastille_jails(&output.text).iter().any(|known| known == name))
}

impl<'a> Jails<'a> {
    pub(super) fn new(tools: &'a Tools, name: &'a JailName, jail: &'a Jail) -> Self {
        Self { tools, name, jail }
    }

    fn places(&self) -> Places {
        Places::of(self.tools, self.name.as_str(), self.jail.manager)
    }

    /// The version of the system in a root, `14.2-RELEASE-p1`.
    fn version_in(&self, root: &Path) -> Result<Option<String>, GuestErrorKind> {
        let found = self.tools.files.read_in(root, VERSION_FILE);
        let found = found.map_err(|e| GuestErrorKind::file(&root.join("bin/freebsd-version"), &e))?;
        let text = found.map(|(content, _)| String::from_utf8_lossy(&content).into_owned());
        Ok(text.and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("USERLAND_VERSION="))?;
            Some(line.trim_matches(['"', '\'']).to_owned())
        }))
    }

    pub(super) fn install(&self, request: &GuestRequest) -> Result<(), GuestErrorKind> {
        let root = &request.root;
        let files = &*self.tools.files;
        let mark = read_mark(files, root)?;
        let version = self.version_in(root)?;
        let interrupted = mark.as_ref().is_some_and(|mark| mark.base.is_none());
        if let (Some(version), false) = (&version, interrupted) {
            self.check_release(version)?;
            // A system that somebody else has put there is as good.
            return if mark.is_some() {
                Ok(())
            } else {
                write_mark(files, root, &Mark::new(Some(version.clone())))
            };
        }
        if !interrupted && !files.list(root).map_err(|e| GuestErrorKind::file(root, &e))?.is_empty() {
            let text = format!(
                "`{}` holds files and no FreeBSD system: empty it, or name another dataset",
                root.display()
            );
            return Err(GuestErrorKind::NotOurs(text));
        }
        self.tools.claim(request)?;
        write_mark(files, root, &Mark::new(None))?;
        self.fill(root, interrupted)?;
        self.copy_host_files(root)?;
        write_mark(files, root, &Mark::new(Some(self.jail.release.clone())))
    }

    /// The release of a jail that is there is not changed: that is freebsd-update's work, inside.
    fn check_release(&self, version: &str) -> Result<(), GuestErrorKind> {
        let wanted = &self.jail.release;
        if version == wanted || version.starts_with(&format!("{wanted}-p")) {
            return Ok(());
        }
        Err(GuestErrorKind::Missing(format!(
            "its root holds FreeBSD {version} and the spec says {wanted}: upgrade it with `freebsd-update -b`, or name an \
             empty dataset"
        )))
    }

    /// Puts a whole system into the root: Bastille's copy of the release, or the archive of the distribution.
    fn fill(&self, root: &Path, again: bool) -> Result<(), GuestErrorKind> {
        if again {
            // Files of the system are immutable: what was left half way could not be written over.
            self.tools.run(&JailCommand::ClearFlags { root: root.to_owned() }.command())?;
        }
        let release = &self.jail.release;
        let kept = self.tools.paths.bastille.join("releases").join(release);
        let archive = self.tools.paths.media.join(format!("{release}-base.txz"));
        let files = &*self.tools.files;
        let kept_there = || files.exists(&kept.join("bin/freebsd-version"));
        if self.jail.manager == JailManager::Bastille && !kept_there() && !files.exists(&archive) {
            let fetch = JailCommand::BastilleBootstrap { release: release.clone() }.command();
            let output = self.tools.run(&fetch)?;
            if !kept_there() {
                let state = format!("`{}` is not there", kept.display());
                return Err(GuestErrorKind::state(&fetch, &output, state));
            }
        }
        let root = root.to_owned();
        let command = if kept_there() {
            JailCommand::CopyBase { release: kept, root: root.clone() }
        } else if files.exists(&archive) {
            JailCommand::ExtractBase { archive, root: root.clone() }
        } else {
            return Err(GuestErrorKind::Missing(format!(
                "there is no system for it: fetch base.txz of {release} to `{}`, or `bastille bootstrap {release}`",
                archive.display()
            )));
        };
        let command = command.command();
        let output = self.tools.run(&command)?;
        // Both end with something else than 0 when one file could not be written: then the system is not whole.
        match self.version_in(&root)? {
            Some(version) if output.ok() => self.check_release(&version),
            Some(_) => Err(GuestErrorKind::state(&command, &output, "the system in its root is not whole")),
            None => Err(GuestErrorKind::state(&command, &output, "no system is in its root")),
        }
    }

    /// Names are resolved and times told as on the host, as the handbook does it.
    fn copy_host_files(&self, root: &Path) -> Result<(), GuestErrorKind> {
        for path in ["/etc/resolv.conf", "/etc/localtime"] {
            let failed = |e: &std::io::Error| GuestErrorKind::file(Path::new(path), e);
            let here = self.tools.files.read(Path::new(path)).map_err(|e| failed(&e))?;
            if let Some(content) = here {
                self.tools.files.write_in(root, path, &content, 0o644).map_err(|e| failed(&e))?;
            }
        }
        Ok(())
    }

    pub(super) fn configure(&self, request: &GuestRequest) -> Result<(), GuestErrorKind> {
        let places = self.places();
        let known = self.tools.records().read(&request.spec.id())?;
        if known.is_none() && self.tools.files.exists(&places.conf) && !is_ours(self.tools, &places.conf)? {
            let text = format!(
                "`{}` is there, and zed did not write it: remove that jail, or name this one otherwise",
                places.conf.display()
            );
            return Err(GuestErrorKind::NotOurs(text));
        }
        if let Some(runs) = find(self.tools, self.name.as_str())? {
            if Path::new(&runs.path) != request.root {
                let text = format!(
                    "a jail `{}` runs from `{}`: stop it, or name this one otherwise",
                    self.name, runs.path
                );
                return Err(GuestErrorKind::NotOurs(text));
            }
            self.tools.check_running(&request.spec, &runs.jid.to_string())?;
        }
        let mut record = self.tools.claim(request)?;
        if let Some(made) = manager_of(&record)
            && made != self.jail.manager
        {
            remove_files(self.tools, self.name.as_str(), made, &record)?;
            record.files.clear();
        }
        if let Some(folder) = &places.folder {
            self.create_with_bastille(folder, &places.conf, &request.root)?;
        }
        let fstab = conf::render_fstab(&request.spec.id(), &request.root, &request.mounts);
        let text = conf::render_jail_conf(self.name, self.jail, request, &places.fstab);
        self.tools.write(&places.fstab, fstab.as_bytes(), 0o644)?;
        self.tools.write(&places.conf, text.as_bytes(), 0o644)?;
        record.files = BTreeMap::from([
            (places.fstab, zed_plan::sha256_hex(fstab.as_bytes())),
            (places.conf, zed_plan::sha256_hex(text.as_bytes())),
        ]);
        record.made = Some(request.spec.clone());
        record.mounts.clone_from(&request.mounts);
        self.tools.records().write(&record)
    }

    /// Makes a jail that Bastille knows, and whose root is the dataset: a link in Bastille's folder leads there, so
    /// that its commands find it and its `destroy` takes away the link and not the data.
    fn create_with_bastille(&self, folder: &Path, conf: &Path, root: &Path) -> Result<(), GuestErrorKind> {
        let link = folder.join("root");
        self.tools.files.make_folder(folder).map_err(|e| GuestErrorKind::file(folder, &e))?;
        self.tools.files.link(&link, root).map_err(|e| {
            GuestErrorKind::NotOurs(format!(
                "`{}` is there and does not lead to `{}` ({e}): it is a jail of Bastille's own",
                link.display(),
                root.display()
            ))
        })?;
        if self.tools.files.exists(conf) && bastille_knows(self.tools, self.name.as_str())? {
            return Ok(());
        }
        let create = JailCommand::BastilleCreate { name: self.name.to_string() }.command();
        let output = self.tools.run(&create)?;
        if !bastille_knows(self.tools, self.name.as_str())? || !self.tools.files.exists(conf) {
            return Err(GuestErrorKind::state(&create, &output, "Bastille does not know the jail"));
        }
        // With a template for empty jails in its configuration Bastille starts what it has just made.
        if find(self.tools, self.name.as_str())?.is_some() {
            self.tools.run(&JailCommand::BastilleStop { name: self.name.to_string() }.command())?;
        }
        Ok(())
    }

    pub(super) fn start(&self, request: &GuestRequest) -> Result<(), GuestErrorKind> {
        let name = self.name.as_str();
        if let Some(runs) = find(self.tools, name)? {
            self.tools.check_running(&request.spec, &runs.jid.to_string())?;
            return self.check_limits();
        }
        for mount in &request.mounts {
            let made = self.tools.files.make_folder_in(&request.root, &mount.at);
            made.map_err(|e| GuestErrorKind::file(&request.root.join(mount.at.trim_start_matches('/')), &e))?;
        }
        let places = self.places();
        let command = match self.jail.manager {
            JailManager::Bastille if bastille_knows(self.tools, name)? => {
                JailCommand::BastilleStart { name: name.to_owned() }
            }
            _ => JailCommand::Create { name: name.to_owned(), conf: places.conf },
        };
        let command = command.command();
        let output = self.tools.run(&command)?;
        let Some(runs) = find(self.tools, name)? else {
            return Err(GuestErrorKind::state(&command, &output, "it does not run"));
        };
        if Path::new(&runs.path) != request.root {
            let state = format!("it runs from `{}`", runs.path);
            return Err(GuestErrorKind::state(&command, &output, state));
        }
        self.tools.remember_start(&request.spec, runs.jid.to_string())?;
        self.check_limits()
    }

    /// Every limit of the spec is in force.
    fn check_limits(&self) -> Result<(), GuestErrorKind> {
        let wanted = conf::limit_rules(self.name, self.jail);
        if wanted.is_empty() {
            return Ok(());
        }
        let command = JailCommand::Limits { name: self.name.to_string() }.command();
        let output = self.tools.run(&command)?;
        let missing =
            wanted.iter().find(|rule| !output.text.lines().any(|line| line.trim() == rule.as_str()));
        match missing {
            None => Ok(()),
            Some(rule) => {
                let state = format!("`{rule}` is not in force (kern.racct.enable=1 in loader.conf?)");
                Err(GuestErrorKind::state(&command, &output, state))
            }
        }
    }
}
