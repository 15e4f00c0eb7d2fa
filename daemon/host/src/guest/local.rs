//! [`Guests`] on commands and files: records, and the way to the adapter of each kind.
//!
//! Owns where things are on the host, and the order "record first, effect after". Is used with the real system and
//! with the simulator alike.

use super::Commands;
use super::Files;
use super::GuestError;
use super::GuestErrorKind;
use super::GuestRequest;
use super::Guests;
use super::ToolCommand;
use super::commands::Output;
use super::jail;
use super::record::Record;
use super::record::Records;
use super::record::Started;
use super::zone;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zed_plan::GuestDefinition;
use zed_plan::GuestId;
use zed_plan::GuestSpec;
use zed_plan::ObservedGuest;

/// Where things are on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestPaths {
    /// What zed remembers, below its state directory.
    pub records: PathBuf,
    /// Files of single jails: rc.d/jail looks here.
    pub jail_conf: PathBuf,
    /// The fstab of a jail is here as `fstab.NAME`.
    pub fstab: PathBuf,
    /// `bastille_prefix`.
    pub bastille: PathBuf,
    /// `RELEASE-base.txz`, as in the handbook.
    pub media: PathBuf,
    /// zones(7) keeps `NAME.xml` here.
    pub zones: PathBuf,
}

impl GuestPaths {
    /// Where the systems have them.
    pub fn new(state: &Path) -> Self {
        Self {
            records: state.join("guests"),
            jail_conf: "/etc/jail.conf.d".into(),
            fstab: "/etc".into(),
            bastille: "/usr/local/bastille".into(),
            media: "/usr/local/jails/media".into(),
            zones: "/etc/zones".into(),
        }
    }
}

/// What the adapters work on.
pub(super) struct Tools {
    pub(super) commands: Arc<dyn Commands>,
    pub(super) files: Arc<dyn Files>,
    pub(super) paths: GuestPaths,
    pub(super) boot: String,
    /// Between two looks at something that happens by itself.
    pub(super) pause: Duration,
}

impl Tools {
    pub(super) fn run(&self, command: &ToolCommand) -> Result<Output, GuestErrorKind> {
        let problem = |problem| GuestErrorKind::Tool { command: command.line(), problem };
        let output = self.commands.run(command).map_err(problem)?;
        tracing::debug!(command = command.line(), ended = %output.ended, "ran");
        Ok(output)
    }

    pub(super) fn records(&self) -> Records<'_> {
        Records { files: &*self.files, folder: &self.paths.records }
    }

    pub(super) fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), GuestErrorKind> {
        self.files.write(path, content, mode).map_err(|e| GuestErrorKind::file(path, &e))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), GuestErrorKind> {
        self.files.remove(path).map_err(|e| GuestErrorKind::file(path, &e))
    }

    /// sha256 of a file that a tool has made.
    pub(super) fn hash(&self, path: &Path) -> Result<String, GuestErrorKind> {
        let content = self.files.read(path).map_err(|e| GuestErrorKind::file(path, &e))?;
        Ok(zed_plan::sha256_hex(&content.unwrap_or_default()))
    }

    /// The record of a guest that is about to be changed: written now when there is none, so that what comes next
    /// is known as zed's even when this process ends in the middle of it.
    pub(super) fn claim(&self, request: &GuestRequest) -> Result<Record, GuestErrorKind> {
        let guest = request.spec.id();
        let mut record = match self.records().read(&guest)? {
            Some(record) => record,
            None => Record::new(guest, request.root.clone()),
        };
        record.root.clone_from(&request.root);
        self.records().write(&record)?;
        Ok(record)
    }

    /// A guest that runs, under this number, with what the spec says; anything else has to be stopped before it is
    /// written over, because afterwards nobody could tell with what it runs.
    pub(super) fn check_running(&self, spec: &GuestSpec, id: &str) -> Result<(), GuestErrorKind> {
        let record = self.records().read(&spec.id())?;
        let same = record.is_some_and(|record| {
            let intact = record.is_intact(&*self.files);
            record.running(&self.boot, id, intact) == Some(spec.configuration())
        });
        if same {
            Ok(())
        } else {
            Err(GuestErrorKind::NotOurs("it runs already with another configuration".to_owned()))
        }
    }

    /// Remembers with what a guest was started.
    pub(super) fn remember_start(&self, spec: &GuestSpec, id: String) -> Result<(), GuestErrorKind> {
        let Some(mut record) = self.records().read(&spec.id())? else { return Ok(()) };
        record.started = Some(Started { boot: self.boot.clone(), id, configuration: spec.configuration() });
        self.records().write(&record)
    }
}

/// Kinds of guests that this machine can have, which are also the words of the capabilities.
pub fn guest_kinds() -> &'static [&'static str] {
    match std::env::consts::OS {
        "freebsd" => &["jail"],
        "illumos" | "solaris" => &["zone"],
        _ => &[],
    }
}

/// Jails and zones of one host.
#[derive(Clone)]
pub struct LocalGuests {
    tools: Arc<Tools>,
    kinds: &'static [&'static str],
}

impl LocalGuests {
    /// On this machine, whatever it is: see [`Self::for_this_platform`].
    pub fn new(commands: Arc<dyn Commands>, files: Arc<dyn Files>, paths: GuestPaths, boot: String) -> Self {
        let pause = Duration::from_millis(500);
        Self { tools: Arc::new(Tools { commands, files, paths, boot, pause }), kinds: &["jail", "zone"] }
    }

    /// The same, and looks again at once: for a simulator, whose time does not pass.
    pub fn impatient(
        commands: Arc<dyn Commands>,
        files: Arc<dyn Files>,
        paths: GuestPaths,
        boot: String,
    ) -> Self {
        let pause = Duration::ZERO;
        Self { tools: Arc::new(Tools { commands, files, paths, boot, pause }), kinds: &["jail", "zone"] }
    }

    /// The guests that this machine can have: jails on FreeBSD, zones on illumos, elsewhere none.
    pub fn for_this_platform(state: &Path, runner: &crate::Runner) -> Option<Self> {
        let kinds = guest_kinds();
        if kinds.is_empty() {
            return None;
        }
        let system = Arc::new(super::LocalSystem::new(runner.clone()));
        let paths = GuestPaths::new(state);
        let guests = Self::new(system.clone(), system, paths, crate::process::observe_boot_id());
        Some(Self { kinds, ..guests })
    }

    fn has(&self, guest: &GuestId) -> Result<(), GuestErrorKind> {
        let kind = guest.kind();
        if self.kinds.contains(&kind) { Ok(()) } else { Err(GuestErrorKind::Unsupported(kind)) }
    }

    fn each(
        &self,
        operation: &'static str,
        request: &GuestRequest,
        jails: impl FnOnce(&jail::Jails<'_>) -> Result<(), GuestErrorKind>,
        zones: impl FnOnce(&zone::Zones<'_>) -> Result<(), GuestErrorKind>,
    ) -> Result<(), GuestError> {
        let guest = request.spec.id();
        let done = self.has(&guest).and_then(|()| match &request.spec.definition {
            GuestDefinition::Jail(name, jail) => jails(&jail::Jails::new(&self.tools, name, jail)),
            GuestDefinition::Zone(name, zone) => zones(&zone::Zones::new(&self.tools, name, zone)),
        });
        done.map_err(|kind| kind.of(operation, &guest))
    }
}

impl std::fmt::Debug for LocalGuests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalGuests").field("kinds", &self.kinds).field("paths", &self.tools.paths).finish()
    }
}

impl Guests for LocalGuests {
    fn observe(&self) -> Result<BTreeMap<GuestId, ObservedGuest>, GuestError> {
        let failed = |kind: GuestErrorKind| GuestError {
            operation: "observe",
            object: "the guests of this host".to_owned(),
            kind,
        };
        let records = self.tools.records().all().map_err(failed)?;
        let mut found = BTreeMap::new();
        if self.kinds.contains(&"jail") {
            found.extend(jail::observe(&self.tools, &records).map_err(failed)?);
        }
        if self.kinds.contains(&"zone") {
            found.extend(zone::observe(&self.tools, &records).map_err(failed)?);
        }
        Ok(found)
    }

    fn install(&self, request: &GuestRequest) -> Result<(), GuestError> {
        self.each("install", request, |jails| jails.install(request), |zones| zones.install(request))
    }

    fn configure(&self, request: &GuestRequest) -> Result<(), GuestError> {
        self.each("configure", request, |jails| jails.configure(request), |zones| zones.configure(request))
    }

    fn start(&self, request: &GuestRequest) -> Result<(), GuestError> {
        self.each("start", request, |jails| jails.start(request), |zones| zones.start(request))
    }

    fn provision(&self, request: &GuestRequest) -> Result<(), GuestError> {
        self.each("provision", request, |jails| jails.provision(request), |zones| zones.provision(request))
    }

    fn stop(&self, guest: &GuestId) -> Result<(), GuestError> {
        let stop = || {
            self.has(guest)?;
            match self.tools.records().read(guest)? {
                None => Ok(()),
                Some(record) => match guest {
                    GuestId::Jail(_) => jail::stop(&self.tools, &record),
                    GuestId::Zone(_) => zone::stop(&self.tools, &record),
                },
            }
        };
        stop().map_err(|kind| kind.of("stop", guest))
    }

    fn write_script(&self, guest: &GuestId, path: &str, content: &[u8]) -> Result<(), GuestError> {
        let write = || {
            self.has(guest)?;
            let Some(record) = self.tools.records().read(guest)? else {
                return Err(GuestErrorKind::Missing("zed did not make it".to_owned()));
            };
            // A zone's root is below its zonepath.
            let root = match guest {
                GuestId::Jail(_) => record.root,
                GuestId::Zone(_) => record.root.join("root"),
            };
            let failed =
                |e: &std::io::Error| GuestErrorKind::file(&root.join(path.trim_start_matches('/')), e);
            self.tools.files.write_in(&root, path, content, 0o600).map_err(|e| failed(&e))
        };
        write().map_err(|kind| kind.of("write a script into", guest))
    }

    fn remove(&self, guest: &GuestId) -> Result<(), GuestError> {
        let remove = || {
            self.has(guest)?;
            let Some(record) = self.tools.records().read(guest)? else { return Ok(()) };
            match guest {
                GuestId::Jail(_) => jail::remove(&self.tools, &record)?,
                GuestId::Zone(_) => zone::remove(&self.tools, &record)?,
            }
            self.tools.records().remove(guest)
        };
        remove().map_err(|kind| kind.of("remove", guest))
    }
}
