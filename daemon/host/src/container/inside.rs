//! An app in a container: from a request to what its supervisor runs, probes inside, hooks in one of their own.

use super::Launch;
use super::Place;
use super::Record;
use super::config::DATA;
use super::config::Inputs;
use super::config::config;
use super::find_container_runtime;
use super::lay_out;
use super::link_config;
use super::root::has_program;
use super::runtime_environment;
use super::user::image_user;
use crate::cgroup::place_of;
use crate::command::CommandError;
use crate::command::CommandRequest;
use crate::command::Ended;
use crate::command::Finished;
use crate::command::Runner;
use crate::identity::resolve_identity;
use crate::program::DEFAULT_PATH;
use crate::record::read_record;
use crate::types::ContainerRequest;
use crate::types::HostErrorKind;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What is to run in a container.
pub(crate) struct Wanted<'a> {
    /// The container's name and host name.
    pub(crate) id: String,
    pub(crate) container: &'a ContainerRequest,
    /// Empty: what the image says.
    pub(crate) command: &'a [String],
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) user: Option<&'a str>,
    pub(crate) group: Option<&'a str>,
}

impl Wanted<'_> {
    /// Everything that can be refused is refused here, before anything changes.
    pub(crate) fn launch(&self, runner: &Runner) -> Result<Launch, HostErrorKind> {
        let runtime = find_container_runtime(runner)?;
        let ContainerRequest { root, image, .. } = self.container;
        if !root.is_dir() {
            return Err(HostErrorKind::NotFound(format!(
                "the container's root `{}` is no folder",
                root.display()
            )));
        }
        let command = if self.command.is_empty() { image.command.as_slice() } else { self.command };
        if command.is_empty() {
            let text = "neither the app nor its image says what to run: give the app a `command`";
            return Err(HostErrorKind::NotFound(text.to_owned()));
        }
        // Nothing named is not "as the daemon" here: the image has its own users.
        let identity = match resolve_identity(self.user, self.group)? {
            Some(identity) => identity,
            None if self.user.is_some() => image_user(root, Some("0"))?,
            None => image_user(root, image.user.as_deref())?,
        };
        let mut image_env = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
        image_env.extend(image.env.clone());
        let environment = inner_environment(&image_env, self.environment);
        let workdir = Path::new("/").join(image.workdir.as_deref().unwrap_or("/"));
        let own = ["/data", "/dev", "/proc", "/run", "/sys", "/tmp"].map(Path::new);
        let mounts: Vec<&Path> =
            own.into_iter().chain(self.container.mounts.iter().map(PathBuf::as_path)).collect();
        if !has_program(root, &command[0], &workdir, &environment, &mounts) {
            let text = format!("the program `{}` does not exist in the container's root", command[0]);
            return Err(HostErrorKind::NotFound(format!("{text} `{}`", root.display())));
        }
        let config = config(&Inputs {
            request: self.container,
            command,
            environment: &environment,
            identity: &identity,
            limits: &self.container.limits,
            hostname: &self.id,
            counts_swap: counts_swap(),
        })?;
        Ok(Launch { runtime, id: self.id.clone(), config, image_env })
    }
}

/// The image's environment, then the app's; paths are those of the inside.
fn inner_environment(
    image: &BTreeMap<String, String>,
    app: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut environment = image.clone();
    environment.extend(app.clone());
    for (name, inside) in [("ZED_DATA", DATA), ("ZED_RELEASE", "/")] {
        if let Some(value) = environment.get_mut(name) {
            inside.clone_into(value);
        }
    }
    environment
}

/// True when a limit of swap can be set: kernels may be built or booted without.
fn counts_swap() -> bool {
    let layout = crate::cgroup::Layout::observe();
    match layout.v1.get("memory") {
        Some(hierarchy) => hierarchy.top.join("memory.memsw.limit_in_bytes").exists(),
        // Version 2 has the file in every cgroup but the uppermost one.
        None => layout.v2.is_some_and(|own| own.own.join("memory.swap.max").exists()),
    }
}

/// Runs a command inside the running container of an app: as its user, with its rights and its environment. Nothing
/// when the app is not in a container.
pub(crate) fn run_inside(
    runner: &Runner,
    app_folder: &Path,
    command: &CommandRequest,
    cancel: Option<&AtomicBool>,
) -> Option<Result<Finished, CommandError>> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let place = Place::of(app_folder);
    let failed = |kind| CommandError {
        program: command.argv.first().cloned().unwrap_or_default(),
        kind,
        source: None,
    };
    let record = match read_record::<Record>(&place.record()) {
        Ok(record) => record?,
        Err(e) => return Some(Err(failed(e.into()))),
    };
    let mut process = record.process.clone();
    let environment = inner_environment(&record.image_env, &command.environment);
    process.set_args(Some(command.argv.clone()));
    process.set_env(Some(environment.iter().map(|(name, value)| format!("{name}={value}")).collect()));
    let input = match serde_json::to_vec(&process) {
        Ok(input) => input,
        Err(e) => return Some(Err(failed(HostErrorKind::Io(e.to_string())))),
    };
    let pid_file = place.0.join(format!("exec-{}.pid", COUNT.fetch_add(1, Ordering::Relaxed)));
    let file = pid_file.to_string_lossy().into_owned();
    let words = ["exec", "--pid-file", &file, "--process", "/dev/stdin", &record.id];
    let request = CommandRequest {
        argv: place.argv(&record.runtime, &words),
        program: None,
        // The environment goes through the pipe, as does everything else of the command.
        environment: runtime_environment(),
        directory: None,
        input,
        ..command.clone()
    };
    let finished = runner.run(&request, cancel);
    if !matches!(&finished, Ok(finished) if matches!(finished.ended, Ended::Exit(_))) {
        // Killed from outside: what it had started inside has not noticed.
        kill_group(&pid_file);
    }
    let _ = std::fs::remove_file(&pid_file);
    Some(finished)
}

/// Kills the session that a runtime has started inside.
fn kill_group(pid_file: &Path) {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    if let Ok(pid) = text.trim().parse::<i32>()
        && pid > 1
    {
        // It may have ended in the meantime.
        let _ = nix::sys::signal::killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Runs a command in a container of its own, and removes that afterwards.
pub(crate) fn run_once(
    runner: &Runner,
    folder: &Path,
    wanted: &Wanted<'_>,
    command: &CommandRequest,
) -> Result<Finished, CommandError> {
    let failed = |kind| CommandError {
        program: command.argv.first().cloned().unwrap_or_default(),
        kind,
        source: None,
    };
    let launch = wanted.launch(runner).map_err(failed)?;
    let place = Place::of(folder);
    let cgroup = Path::new("/").join(place_of(folder));
    let (spec, record) = lay_out(runner, &place, &launch, cgroup).map_err(failed)?;
    link_config(&place, 0).map_err(failed)?;
    let bundle = place.bundle().to_string_lossy().into_owned();
    let request = CommandRequest {
        argv: place.argv(&record.runtime, &["run", "--bundle", &bundle, &record.id]),
        program: None,
        environment: runtime_environment(),
        directory: None,
        input: serde_json::to_vec(&spec).map_err(|e| failed(HostErrorKind::Io(e.to_string())))?,
        ..command.clone()
    };
    let finished = runner.run(&request, None);
    let removed = super::remove(runner, folder);
    let _ = std::fs::remove_dir(folder);
    removed.map_err(failed)?;
    finished
}
