//! Linux containers through an OCI runtime of the host: runc or crun.
//!
//! Owns `oci/` in an app's folder: the bundle, the runtime's own state, and what is needed to run a command inside.
//! The program that the supervisor watches is `runc run`, in the foreground. Its configuration, which holds the
//! environment and so perhaps secrets, never touches a disk: it lies in memory, and the bundle's `config.json` is a link
//! to the descriptor that the runtime inherits. Never downloads anything, never talks to a daemon.

mod config;
mod inside;
mod local;
mod root;
mod runtime;
mod user;

pub use runtime::ContainerRuntime;
pub use runtime::find_container_runtime;

use crate::cgroup::Groups;
use crate::cgroup::Layout;
use crate::cgroup::place_of;
use crate::command::CommandRequest;
use crate::command::Ended;
use crate::command::Runner;
use crate::record::FORMAT;
use crate::record::read_record;
use crate::record::write_record;
use crate::types::HostErrorKind;
use oci_spec::runtime::Process;
use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// For a runtime's short commands.
const DEADLINE: Duration = Duration::from_secs(30);
/// What is kept of what they say.
const SAID: usize = 4096;
/// Name of a container's cgroup below that of its app.
const CGROUP: &str = "container";

/// What a supervisor needs to run its app in a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The runtime.
    pub(crate) runtime: ContainerRuntime,
    /// The container's name: the instance.
    pub(crate) id: String,
    /// The configuration, all but the cgroup.
    pub(crate) config: Spec,
    /// The part of its environment that the image gives.
    pub(crate) image_env: BTreeMap<String, String>,
}

/// `oci/container.json`: what is needed to enter a container, and to remove it. No value of its environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    /// Version of the file's format.
    format: u32,
    runtime: ContainerRuntime,
    id: String,
    /// From the top of each hierarchy.
    cgroup: PathBuf,
    /// User, capabilities and working directory of what runs inside.
    process: Process,
    /// The environment that the image gives; it is no secret.
    image_env: BTreeMap<String, String>,
}

/// The files of a container in its app's folder.
struct Place(PathBuf);

impl Place {
    fn of(app_folder: &Path) -> Self {
        Self(app_folder.join("oci"))
    }

    fn bundle(&self) -> PathBuf {
        self.0.join("bundle")
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    fn record(&self) -> PathBuf {
        self.0.join("container.json")
    }

    /// A command of the runtime on this place.
    fn argv(&self, runtime: &ContainerRuntime, words: &[&str]) -> Vec<String> {
        let program = runtime.path.to_string_lossy().into_owned();
        let root = self.state().to_string_lossy().into_owned();
        let head = [program, "--root".to_owned(), root];
        head.into_iter().chain(words.iter().map(|word| (*word).to_owned())).collect()
    }
}

/// A container that can be run now.
pub(crate) struct Prepared {
    /// The runtime's command.
    pub(crate) argv: Vec<String>,
    /// Must be inherited under its own number.
    pub(crate) config: File,
}

/// The environment of the runtime itself.
pub(crate) fn runtime_environment() -> BTreeMap<String, String> {
    BTreeMap::from([("PATH".to_owned(), crate::program::DEFAULT_PATH.to_owned())])
}

fn io_kind(path: &Path) -> impl FnOnce(io::Error) -> HostErrorKind {
    move |e| HostErrorKind::Io(format!("`{}`: {e}", path.display()))
}

/// The container's cgroup, from the top of its hierarchies: below the app's own one, which counts for it.
fn cgroup_of(app_folder: &Path, groups: &Groups) -> PathBuf {
    let layout = Layout::observe();
    let tops = layout.v1.values().chain(&layout.v2).map(|hierarchy| &hierarchy.top);
    let below = groups.paths().first().and_then(|path| {
        // The longest one: version 2 may be mounted above the others.
        tops.filter_map(|top| path.strip_prefix(top).ok()).min_by_key(|rest| rest.as_os_str().len())
    });
    let place = below.map_or_else(|| place_of(app_folder), Path::to_owned);
    Path::new("/").join(place).join(CGROUP)
}

/// Clears away what is left of an earlier run, and lays everything out for the next one.
pub(crate) fn prepare(
    runner: &Runner,
    app_folder: &Path,
    launch: &Launch,
    groups: &Groups,
) -> Result<Prepared, HostErrorKind> {
    let place = Place::of(app_folder);
    let (spec, record) = lay_out(runner, &place, launch, cgroup_of(app_folder, groups))?;
    let text = serde_json::to_vec(&spec).map_err(|e| HostErrorKind::Io(e.to_string()))?;
    let config =
        in_memory(&text).map_err(|e| HostErrorKind::Io(format!("no memory for the container: {e}")))?;
    link_config(&place, config.as_raw_fd())?;
    let bundle = place.bundle().to_string_lossy().into_owned();
    let mut words = vec!["run", "--bundle", &bundle];
    if record.runtime.keeps {
        // Its cgroup tells whether memory was used up; `remove` takes it away afterwards.
        words.push("--keep");
    }
    words.push(&launch.id);
    Ok(Prepared { argv: place.argv(&launch.runtime, &words), config })
}

fn lay_out(
    runner: &Runner,
    place: &Place,
    launch: &Launch,
    cgroup: PathBuf,
) -> Result<(Spec, Record), HostErrorKind> {
    remove_place(runner, place)?;
    for folder in [place.bundle(), place.state()] {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_kind(&folder))?;
    }
    let mut spec = launch.config.clone();
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_env(None);
    process.set_args(None);
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_cgroups_path(Some(cgroup.clone()));
    spec.set_linux(Some(linux));
    let Launch { runtime, id, config: _, image_env } = launch.clone();
    let record = Record { format: FORMAT, runtime, id, cgroup, process, image_env };
    write_record(&place.record(), &record)?;
    Ok((spec, record))
}

/// `config.json` leads to a descriptor of whoever opens it.
fn link_config(place: &Place, number: i32) -> Result<(), HostErrorKind> {
    let link = place.bundle().join("config.json");
    std::os::unix::fs::symlink(format!("/proc/self/fd/{number}"), &link).map_err(io_kind(&link))
}

/// A file that lies in memory only.
#[cfg(target_os = "linux")]
fn in_memory(text: &[u8]) -> io::Result<File> {
    use nix::sys::memfd::MFdFlags;
    use std::io::Write;
    let mut file = File::from(nix::sys::memfd::memfd_create(c"zed-container", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text)?;
    Ok(file)
}

/// There are no containers elsewhere.
#[cfg(not(target_os = "linux"))]
fn in_memory(_text: &[u8]) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Ends a container and removes all that is left of it. Nothing there is as good.
pub(crate) fn remove(runner: &Runner, app_folder: &Path) -> Result<(), HostErrorKind> {
    remove_place(runner, &Place::of(app_folder))
}

fn remove_place(runner: &Runner, place: &Place) -> Result<(), HostErrorKind> {
    if !place.0.exists() {
        return Ok(());
    }
    if let Some(record) = read_record::<Record>(&place.record())? {
        let command = command(place.argv(&record.runtime, &["delete", "--force", &record.id]), DEADLINE);
        let finished = runner.run(&command, None).map_err(|e| HostErrorKind::Io(e.to_string()))?;
        if finished.ended != Ended::Exit(0) {
            let said = String::from_utf8_lossy(&finished.output);
            let text = format!(
                "the container `{}` cannot be removed ({}): {}",
                record.id,
                finished.ended,
                said.trim()
            );
            return Err(HostErrorKind::Io(text));
        }
        remove_cgroups(&record.cgroup);
    }
    std::fs::remove_dir_all(&place.0).map_err(io_kind(&place.0))
}

fn command(argv: Vec<String>, deadline: Duration) -> CommandRequest {
    CommandRequest {
        argv,
        program: None,
        environment: runtime_environment(),
        directory: None,
        input: Vec::new(),
        deadline,
        grace: Duration::ZERO,
        keep: SAID,
    }
}

/// A runtime makes a container's cgroup in every hierarchy, and what is above it, but removes only the first.
fn remove_cgroups(cgroup: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let tops = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (top, kind) = (words.nth(1)?, words.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(top))
    });
    for top in tops {
        for path in cgroup.ancestors().take(3).filter(|path| path.parent().is_some()) {
            // Where something is in it, it is needed; the app's own are removed with the app.
            let _ = std::fs::remove_dir(top.join(path.strip_prefix("/").unwrap_or(path)));
        }
    }
}
