//! The real host: apps as processes under their own supervisors, on this machine.
//!
//! Owns `STATE/apps`. Starts and stops supervisors and reads what they record; holds nothing in memory that is not
//! on disk, so that a new daemon goes on where a killed one was.

use crate::command::CommandError;
use crate::command::CommandRequest;
use crate::command::Ended;
use crate::command::Finished;
use crate::command::InFlight;
use crate::command::Runner;
use crate::front::explain_taken;
use crate::guest::Guests;
use crate::guest::LocalGuests;
use crate::identity::resolve_identity;
use crate::launch::START_DEADLINE;
use crate::launch::SupervisorProgram;
use crate::launch::ask_to_stop;
use crate::leftover;
use crate::program::resolve_program;
use crate::record::AppFiles;
use crate::record::FORMAT;
use crate::record::RunRecord;
use crate::record::State;
use crate::record::StatusRecord;
use crate::record::lock_holder;
use crate::record::read_record;
use crate::record::take_starter;
use crate::record::write_record;
use crate::supervisor::ExecRequest;
use crate::supervisor::LaunchReply;
use crate::supervisor::LaunchRequest;
use crate::types::Drained;
use crate::types::HookReport;
use crate::types::HookRequest;
use crate::types::Host;
use crate::types::HostError;
use crate::types::HostErrorKind;
use crate::types::ProbeReport;
use crate::types::ProbeRequest;
use crate::types::ProbeResult;
use crate::types::ProcessInfo;
use crate::types::Start;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use zed_plan::Instance;
use zed_plan::ObservedProcess;
use zed_plan::ProcessStatus;
use zed_plan::Route;

/// From KILL to the answer that nothing is left: longer only for what hangs in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at something that another process is about to do.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Files have the time of the kernel's last tick: 1 to 10 ms apart, with room to spare.
const CLOCK_TICK: Duration = Duration::from_millis(200);
/// Output of a hook that is kept.
const HOOK_OUTPUT: usize = 16 * 1024;
/// The variable that says where an app listens.
const PORT: &str = "PORT";
/// From TERM to KILL for a hook or a probe that has passed its deadline.
const COMMAND_GRACE: Duration = Duration::from_secs(2);

/// What was read of an app's `status.json`, valid while the file is the same.
#[derive(Debug, Clone)]
struct Cached {
    inode: u64,
    modified: (i64, i64),
    record: Result<StatusRecord, String>,
}

/// An app as it is now.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// The process id of its supervisor, when that lives.
    pub(crate) supervisor: Option<u32>,
    /// Its record, or what is wrong with the file; `None` when it was never started.
    pub(crate) record: Option<Result<StatusRecord, String>>,
}

/// [`Host`] on this machine.
#[derive(Debug, Clone)]
pub struct LocalHost {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    apps: PathBuf,
    program: SupervisorProgram,
    runner: Runner,
    cache: Mutex<BTreeMap<Instance, Cached>>,
    boot_id: String,
    guests: Option<LocalGuests>,
    starts: AtomicU64,
}

impl LocalHost {
    /// Apps under `state_dir/apps`; nothing is created before the first start.
    pub fn new(state_dir: PathBuf, program: SupervisorProgram) -> Self {
        let runner = Runner::default();
        Self {
            inner: Arc::new(Inner {
                guests: LocalGuests::for_this_platform(&state_dir, &runner),
                apps: state_dir.join("apps"),
                program,
                runner,
                cache: Mutex::default(),
                boot_id: crate::process::observe_boot_id(),
                starts: AtomicU64::new(0),
            }),
        }
    }

    /// Hooks, probes and launches that run now.
    pub fn in_flight(&self) -> Vec<InFlight> {
        self.inner.runner.in_flight()
    }

    /// Runs commands; those in flight are listed.
    pub(crate) fn runner(&self) -> &Runner {
        &self.inner.runner
    }

    /// The folder with the apps' files.
    pub(crate) fn apps(&self) -> &Path {
        &self.inner.apps
    }

    /// What supervisors and fronts are started with.
    pub(crate) fn program(&self) -> &SupervisorProgram {
        &self.inner.program
    }

    /// `STATE/apps`.
    #[cfg(target_os = "linux")]
    pub(crate) fn apps_folder(&self) -> &std::path::Path {
        &self.inner.apps
    }

    pub(crate) fn files(&self, app: &Instance) -> AppFiles {
        AppFiles::new(self.inner.apps.join(app.to_string()))
    }

    /// Whose supervisor runs or not: the log is where an operator looks for what a hook has printed.
    fn log_hook(&self, request: &HookRequest, report: &HookReport) -> io::Result<()> {
        let files = self.files(&request.instance);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&files.folder)?;
        let HookRequest { name, command, .. } = request;
        let mut lines = vec![format!("hook {name} `{}` ended: {}", command.join(" "), report.ended)];
        lines.extend(report.output.lines().map(|line| format!("hook {name}: {line}")));
        crate::supervisor::output::note_lines(&files.log(), &lines)
    }

    /// An app's lock and record. Two or three system calls while its record is unchanged.
    pub(crate) fn look(&self, app: &Instance) -> io::Result<Look> {
        let files = self.files(app);
        // The lock first: a supervisor writes its last record before it lets go of the lock.
        let supervisor = lock_holder(&files.lock())?;
        let meta = match std::fs::metadata(files.status()) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Look { supervisor, record: None }),
            Err(e) => return Err(e),
        };
        let (inode, modified) = (meta.ino(), (meta.mtime(), meta.mtime_nsec()));
        let mut cache = self.inner.cache.lock();
        if let Some(known) = cache.get(app)
            && known.inode == inode
            && known.modified == modified
        {
            return Ok(Look { supervisor, record: Some(known.record.clone()) });
        }
        let record = match read_record(&files.status()) {
            Ok(Some(record)) => Ok(record),
            Ok(None) => return Ok(Look { supervisor, record: None }),
            Err(error) => Err(error.to_string()),
        };
        // Two files written within one tick of the clock may have the same inode and time: what is that young is
        // read again the next time.
        let age = meta.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age >= CLOCK_TICK) {
            cache.insert(app.clone(), Cached { inode, modified, record: record.clone() });
        }
        Ok(Look { supervisor, record: Some(record) })
    }

    /// What is known of one app; `None` when it was never started or is forgotten.
    pub fn observe_app(&self, app: &Instance) -> Result<Option<ProcessInfo>, HostError> {
        let look = self.look(app).map_err(|e| HostError::io("observe", app, e))?;
        Ok(self.info(&look))
    }

    /// The same, of a look that was taken.
    pub(crate) fn info(&self, look: &Look) -> Option<ProcessInfo> {
        let record = match look.record.clone()? {
            Ok(record) => record,
            // One damaged file must not hide the other apps. No run has this hash, so the app is not taken for
            // what is wanted.
            Err(why) => {
                let status = ProcessStatus::Failed(format!("its record {why}"));
                let observed = ObservedProcess { run_hash: String::new(), status };
                let version = String::new();
                return Some(ProcessInfo { observed, version, since: None, restarts: 0, last_exit: None });
            }
        };
        let status = record.process_status(look.supervisor.is_some(), &self.inner.boot_id);
        let mut last_exit = record.last_exit;
        if let (ProcessStatus::Gone { rebooted: false }, Some(pid), Some(start)) =
            (&status, record.pid, record.pid_start)
            && crate::process::is_alive(pid, start)
        {
            last_exit = Some(format!("its supervisor was killed; pid {pid} runs on without one"));
        }
        Some(ProcessInfo {
            observed: ObservedProcess { run_hash: record.run_hash, status },
            version: record.version,
            since: record.since,
            restarts: record.restarts,
            last_exit,
        })
    }

    /// Waits until the app may be started. False when the very run that is wanted is there already. The
    /// starter's lock is held, so what changes is only what a supervisor does by itself.
    fn wait_for_turn(&self, app: &Instance, run_hash: &str) -> Result<bool, HostErrorKind> {
        let until = Instant::now() + START_DEADLINE;
        loop {
            let look = self.look(app).map_err(|e| HostErrorKind::Io(e.to_string()))?;
            if look.supervisor.is_none() {
                return Ok(true);
            }
            match look.record {
                Some(Ok(record)) => match record.state {
                    State::Running | State::Backoff if record.run_hash == run_hash => return Ok(false),
                    State::Running | State::Backoff => return Err(HostErrorKind::Busy),
                    State::Starting | State::Stopping => {}
                    State::Completed | State::Failed(_) | State::Stopped | State::Interrupted => {}
                },
                Some(Err(why)) => return Err(HostErrorKind::Io(format!("its record {why}"))),
                None => {}
            }
            if Instant::now() >= until {
                return Err(HostErrorKind::Deadline(START_DEADLINE));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn start_app(&self, request: &Start) -> Result<(), HostErrorKind> {
        let run = &request.run;
        let files = self.files(&run.instance());
        // Everything that can be refused is refused before anything changes.
        let container = self.container_of(request)?;
        let identity = if container.is_some() {
            None
        } else {
            resolve_program(&run.command, &request.environment, Some(&request.directory))?;
            resolve_identity(run.user.as_deref(), run.group.as_deref())?
        };
        crate::limits::check_limits(&files.folder, &run.limits)?;
        let io_kind = |e: io::Error| HostErrorKind::Io(format!("`{}`: {e}", files.folder.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&files.folder).map_err(io_kind)?;
        let _starter = take_starter(&files.starter()).map_err(io_kind)?;
        if !self.wait_for_turn(&run.instance(), &run.run_hash)? {
            return Ok(());
        }
        if let Some(Ok(record)) = self.look(&run.instance()).map_err(io_kind)?.record {
            leftover::end_leftovers(&record, &self.inner.boot_id, run.stop_grace, KILL_DEADLINE)?;
        }
        let port = request.environment.get(PORT).filter(|_| run.runtime == zed_spec::Runtime::Process);
        if let Some(taken) = port.and_then(|port| port.parse().ok()).and_then(explain_taken) {
            return Err(HostErrorKind::Io(taken));
        }
        let token = self.new_token();
        let wanted = RunRecord {
            format: FORMAT,
            token: Some(token.clone()),
            run: run.clone(),
            directory: request.directory.clone(),
            environment_names: request.environment.keys().cloned().collect(),
        };
        write_record(&files.run(), &wanted)?;
        let launch = LaunchRequest {
            format: FORMAT,
            token,
            run: run.clone(),
            directory: request.directory.clone(),
            environment: request.environment.clone(),
            identity,
            container,
        };
        match self.inner.program.launch(&self.inner.runner, &files.folder, &launch)? {
            LaunchReply::Started { pid } => {
                tracing::info!(app = %run.app, version = %run.version, pid, "started");
                Ok(())
            }
            LaunchReply::Refused { kind, text } => Err(match kind.as_str() {
                "not_found" => HostErrorKind::NotFound(text),
                "permission" => HostErrorKind::Permission(text),
                "limit" => HostErrorKind::Limit(text),
                _ => HostErrorKind::Io(text),
            }),
            // Only a supervisor that a killed daemon was still launching can come in between.
            LaunchReply::Locked if !self.wait_for_turn(&run.instance(), &run.run_hash)? => Ok(()),
            LaunchReply::Locked | LaunchReply::Superseded => Err(HostErrorKind::Busy),
        }
    }

    fn new_token(&self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let count = self.inner.starts.fetch_add(1, Ordering::Relaxed);
        format!("{}-{}-{count}", now.as_nanos(), std::process::id())
    }

    fn stop_app(&self, app: &Instance, grace: Duration) -> Result<(), HostErrorKind> {
        let files = self.files(app);
        if !files.folder.exists() {
            return Ok(());
        }
        let io_kind = |e: io::Error| HostErrorKind::Io(format!("`{}`: {e}", files.folder.display()));
        let starter = take_starter(&files.starter()).map_err(io_kind)?;
        // First the wish, then the look: a supervisor that is only now being launched does the opposite, so one
        // of the two sees the other.
        if let Some(mut wanted) = read_record::<RunRecord>(&files.run())?
            && wanted.token.is_some()
        {
            wanted.token = None;
            write_record(&files.run(), &wanted)?;
        }
        let until = Instant::now() + grace + KILL_DEADLINE;
        if lock_holder(&files.lock()).map_err(io_kind)?.is_none() {
            return self.stop_unsupervised(app, &files, grace);
        }
        drop(starter);
        let late = || HostErrorKind::Deadline(grace + KILL_DEADLINE);
        while lock_holder(&files.lock()).map_err(io_kind)?.is_some() {
            if Instant::now() >= until {
                return Err(late());
            }
            // A failure means that the supervisor is not listening yet or no longer: the lock tells.
            if ask_to_stop(&files.socket(), grace, until).is_err() {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
        // Its supervisor may have been killed in the middle of it.
        let _starter = take_starter(&files.starter()).map_err(io_kind)?;
        match lock_holder(&files.lock()).map_err(io_kind)? {
            None => self.stop_unsupervised(app, &files, grace),
            // Somebody has started it again since.
            Some(_) => Ok(()),
        }
    }

    fn stop_unsupervised(
        &self,
        app: &Instance,
        files: &AppFiles,
        grace: Duration,
    ) -> Result<(), HostErrorKind> {
        let look = self.look(app).map_err(|e| HostErrorKind::Io(e.to_string()))?;
        let Some(Ok(mut record)) = look.record else { return Ok(()) };
        leftover::end_leftovers(&record, &self.inner.boot_id, grace, KILL_DEADLINE)?;
        crate::container::remove(&self.inner.runner, &files.folder)?;
        let as_it_ended = matches!(record.state, State::Completed | State::Failed(_) | State::Stopped);
        if !as_it_ended {
            record.state = State::Stopped;
            record.pid = None;
            record.pid_start = None;
            write_record(&files.status(), &record)?;
        }
        Ok(())
    }

    /// Runs a command as a user, through the helper when that is another one than the daemon's.
    pub(crate) fn run_as(
        &self,
        mut command: CommandRequest,
        user: Option<&str>,
        group: Option<&str>,
        cancel: Option<&AtomicBool>,
    ) -> Result<Finished, CommandError> {
        let program = command.argv.first().cloned().unwrap_or_default();
        let failed = |kind| CommandError { program: program.clone(), kind, source: None };
        let Some(identity) = resolve_identity(user, group).map_err(failed)? else {
            return self.inner.runner.run(&command, cancel);
        };
        let directory = command.directory.take().unwrap_or_else(|| PathBuf::from("/"));
        let request = ExecRequest {
            format: FORMAT,
            program: resolve_program(&command.argv, &command.environment, Some(&directory))
                .map_err(failed)?,
            argv: command.argv,
            environment: std::mem::take(&mut command.environment),
            directory,
            identity,
        };
        // The environment goes through the pipe: nothing in it (LD_PRELOAD, ...) may touch the helper while it
        // is still root.
        command.input = serde_json::to_vec(&request)
            .map_err(|e| failed(HostErrorKind::Io(format!("the request cannot be written: {e}"))))?;
        command.program = Some(self.inner.program.path.clone());
        command.argv = self.inner.program.argv("--exec");
        self.inner.runner.run(&command, cancel)
    }
}

impl HostError {
    pub(crate) fn of(operation: &'static str, app: &dyn fmt::Display, kind: HostErrorKind) -> Self {
        HostError { operation, object: format!("app {app}"), kind, source: None }
    }

    fn io(operation: &'static str, app: &dyn fmt::Display, error: io::Error) -> Self {
        HostError::of(operation, app, HostErrorKind::Io(error.to_string()))
    }
}

impl Host for LocalHost {
    fn observe(&self) -> Result<BTreeMap<Instance, ProcessInfo>, HostError> {
        let failed = |e: io::Error| HostError {
            operation: "observe",
            object: self.inner.apps.display().to_string(),
            kind: HostErrorKind::Io(e.to_string()),
            source: Some(Box::new(e)),
        };
        let folder = match std::fs::read_dir(&self.inner.apps) {
            Ok(folder) => folder,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut apps = BTreeMap::new();
        for entry in folder {
            let name = entry.map_err(failed)?.file_name();
            // Something else that lies there is not ours to judge.
            let Some(Ok(app)) = name.to_str().map(str::parse::<Instance>) else { continue };
            if let Some(info) = self.observe_app(&app)? {
                apps.insert(app, info);
            }
        }
        self.inner.cache.lock().retain(|app, _| apps.contains_key(app));
        Ok(apps)
    }

    fn start(&self, request: &Start) -> Result<(), HostError> {
        self.start_app(request).map_err(|kind| HostError::of("start", &request.run.instance(), kind))
    }

    fn stop(&self, app: &Instance, grace: Duration) -> Result<(), HostError> {
        self.stop_app(app, grace).map_err(|kind| HostError::of("stop", app, kind))
    }

    fn forget(&self, app: &Instance) -> Result<(), HostError> {
        let files = self.files(app);
        if !files.folder.exists() {
            return Ok(());
        }
        let failed = |e: io::Error| HostError::io("forget", app, e);
        let _starter = take_starter(&files.starter()).map_err(failed)?;
        if lock_holder(&files.lock()).map_err(failed)?.is_some() {
            return Err(HostError::of("forget", app, HostErrorKind::Busy));
        }
        for path in [files.status(), files.run(), files.socket()] {
            match std::fs::remove_file(path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(())
    }

    fn probe(&self, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> ProbeReport {
        crate::probe::probe(self, request, cancel)
    }

    fn check(&self, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> Vec<ProbeResult> {
        crate::probe::check(self, request, cancel)
    }

    fn run_hook(&self, request: &HookRequest) -> Result<HookReport, HostError> {
        let command = CommandRequest {
            argv: request.command.clone(),
            program: None,
            environment: request.environment.clone(),
            directory: Some(request.directory.clone()),
            input: Vec::new(),
            deadline: request.deadline,
            grace: COMMAND_GRACE,
            keep: HOOK_OUTPUT,
        };
        let (user, group) = (request.user.as_deref(), request.group.as_deref());
        let finished = match &request.container {
            None => self.run_as(command, user, group, None),
            Some(container) => self.run_contained(request, container, &command),
        };
        let finished = finished.map_err(|error| HostError {
            operation: "run a hook of",
            object: format!("app {}", request.instance.app),
            kind: error.kind.clone(),
            source: Some(Box::new(error)),
        })?;
        let report = HookReport {
            ended: finished.ended.to_string(),
            ok: finished.ended == Ended::Exit(0),
            output: String::from_utf8_lossy(&finished.output).into_owned(),
        };
        if let Err(error) = self.log_hook(request, &report) {
            tracing::warn!(app = %request.instance, %error, "the output of a hook is not in the app's log");
        }
        Ok(report)
    }

    fn route(&self, route: &Route) -> Result<(), HostError> {
        self.route_front(route).map_err(|kind| HostError::of("route", &Instance::front(&route.app), kind))
    }

    fn drain(&self, instance: &Instance, port: u16, at_most: Duration) -> Result<Drained, HostError> {
        self.drain_port(instance, port, at_most).map_err(|kind| HostError::of("drain", instance, kind))
    }

    fn guests(&self) -> Option<Arc<dyn Guests>> {
        let guests = self.inner.guests.clone()?;
        Some(Arc::new(guests))
    }

    fn log_path(&self, app: &Instance) -> PathBuf {
        self.files(app).log()
    }

    fn crash_path(&self, app: &Instance) -> PathBuf {
        self.files(app).crash_json()
    }
}
