//! The life of one supervised app: start, output, end, restart, stop.
//!
//! Owns the app's processes, its log and its `status.json`. Every process of the app stays below this one in the
//! tree of processes (it is their reaper), so that none escapes a stop. Never runs two generations of the app at
//! once: a restart waits until nothing of the run before is left.

use super::LaunchReply;
use super::LaunchRequest;
use super::Reporter;
use super::asked_to_end;
use super::control::Control;
use super::crash;
use super::crash::Crash;
use super::output::AppLog;
use super::output::ROTATE_AT;
use super::policy::Outcome;
use super::policy::Verdict;
use super::policy::is_stable;
use super::policy::verdict;
use super::streams::Streams;
use super::wait::Waited;
use super::wait::wait_for_any;
use crate::cgroup::Groups;
use crate::cgroup::Usage;
use crate::cgroup::plan_here;
use crate::command::Program;
use crate::command::Runner;
use crate::container;
use crate::process::ProcessEntry;
use crate::process::descendants;
use crate::process::observe_boot_id;
use crate::process::observe_process;
use crate::process::observe_processes;
use crate::record::AppFiles;
use crate::record::FORMAT;
use crate::record::State;
use crate::record::StatusRecord;
use crate::record::write_record;
use crate::types::HostErrorKind;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::io::PipeReader;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use zed_spec::Restart;

/// Between the first two rounds of KILL, for what forks while it is killed; doubles each time ...
const FIRST_ROUND: Duration = Duration::from_millis(5);
/// ... up to this, for what hangs in the kernel.
const LAST_ROUND: Duration = Duration::from_secs(1);
/// Where the app is.
enum Phase {
    /// The program runs.
    Running { since: Instant },
    /// Its processes are being ended: TERM has been sent, KILL is due.
    Sweeping { kill_at: Instant, round: Duration },
    /// Nothing runs; the next start is due.
    Waiting { until: Instant },
    /// Over.
    Over,
}

/// The end of a run.
struct Ended {
    outcome: Outcome,
    core_dumped: bool,
    lasted: Duration,
    at: String,
}

/// One supervised app.
pub(crate) struct Engine {
    files: AppFiles,
    runner: Runner,
    _lock: File,
    request: LaunchRequest,
    program: PathBuf,
    wake: PipeReader,
    control: Control,
    log: AppLog,
    status: StatusRecord,
    streams: Streams,
    groups: Groups,
    phase: Phase,
    /// How the program ended, once it has.
    ended: Option<Ended>,
    /// The number of the first line of the log that belongs to this run.
    first_line: u64,
    /// Set when the app is to end for good, whatever its restart policy says.
    goal: Option<State>,
}

impl Engine {
    /// Takes over an app's folder: nothing is started yet.
    pub(crate) fn new(
        files: AppFiles,
        lock: File,
        request: LaunchRequest,
        program: PathBuf,
        wake: PipeReader,
    ) -> Result<Self, String> {
        let supervisor = std::process::id();
        let log = AppLog::open(files.log(), ROTATE_AT)
            .map_err(|e| format!("`{}` cannot be opened: {e}", files.log().display()))?;
        let control = Control::listen(&files.socket())
            .map_err(|e| format!("`{}` cannot be created: {e}", files.socket().display()))?;
        let status = StatusRecord {
            format: FORMAT,
            run_hash: request.run.run_hash.clone(),
            version: request.run.version.clone(),
            one_shot: matches!(request.run.restart, Restart::Never),
            state: State::Starting,
            pid: None,
            pid_start: None,
            supervisor,
            supervisor_start: observe_process(supervisor).map_or(0, |entry| entry.start),
            boot_id: observe_boot_id(),
            since: None,
            restarts: 0,
            in_a_row: 0,
            last_exit: None,
            cgroups: Vec::new(),
        };
        write_record(&files.status(), &status).map_err(|e| e.to_string())?;
        Ok(Self {
            files,
            runner: Runner::default(),
            _lock: lock,
            request,
            program,
            wake,
            control,
            log,
            status,
            streams: Streams::default(),
            groups: Groups::default(),
            phase: Phase::Over,
            ended: None,
            first_line: 0,
            goal: None,
        })
    }

    /// Starts the app, says how that went, and stays with it until it is over.
    pub(crate) fn run(mut self, reporter: &mut Reporter) {
        match self.start_program() {
            Ok(pid) => {
                self.save();
                reporter.report(&LaunchReply::Started { pid });
            }
            Err(kind) => {
                self.log.note(&format!("not started: {kind}"));
                self.remove_groups();
                self.finish(State::Failed(format!("not started: {kind}")));
                reporter.report(&LaunchReply::refused(&kind));
            }
        }
        while !matches!(self.phase, Phase::Over) {
            self.turn();
        }
        self.control.finish();
    }

    fn turn(&mut self) {
        self.poll();
        self.streams.read(&mut self.log);
        let status = &self.status;
        for grace in self.control.serve(|| serde_json::to_string(status).unwrap_or_default()) {
            self.begin_stop(State::Stopped, grace);
        }
        if asked_to_end() && self.goal.is_none() {
            self.begin_stop(State::Interrupted, self.request.run.stop_grace);
        }
        let alone = self.reap();
        let now = Instant::now();
        match self.phase {
            Phase::Running { .. } if self.ended.is_some() => {
                if !alone {
                    // What the program left behind has no parent to tell it to end.
                    self.signal_members(Signal::SIGTERM);
                }
                let kill_at = now + self.request.run.stop_grace;
                self.phase = Phase::Sweeping { kill_at, round: FIRST_ROUND };
                if alone {
                    self.settle();
                }
            }
            Phase::Sweeping { .. } if alone => self.settle(),
            Phase::Sweeping { kill_at, round } if now >= kill_at => {
                self.signal_members(Signal::SIGKILL);
                self.phase = Phase::Sweeping { kill_at: now + round, round: (round * 2).min(LAST_ROUND) };
            }
            Phase::Waiting { until } if now >= until => self.restart(),
            Phase::Running { .. } | Phase::Sweeping { .. } | Phase::Waiting { .. } | Phase::Over => {}
        }
    }

    /// Waits for output, a client, a signal or the next deadline.
    fn poll(&mut self) {
        let now = Instant::now();
        let mut wait = match self.phase {
            Phase::Running { .. } | Phase::Over => Duration::from_secs(60),
            Phase::Sweeping { kill_at, .. } => kill_at.saturating_duration_since(now),
            Phase::Waiting { until } => until.saturating_duration_since(now),
        };
        if !crate::supervisor::IS_REAPER && matches!(self.phase, Phase::Sweeping { .. }) {
            // Without SIGCHLD for them, the end of stray processes has to be looked for.
            wait = wait.min(FIRST_ROUND);
        }
        wait = self.streams.wait(now).map_or(wait, |partial| wait.min(partial));
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.control.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        fds.extend(self.streams.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let millis = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        // An interruption or a passing lack of memory: the loop looks at everything in any case.
        let _ = nix::poll::poll(&mut fds, PollTimeout::from(millis));
        let mut bytes = [0u8; 64];
        while matches!(self.wake.read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }

    fn start_program(&mut self) -> Result<u32, HostErrorKind> {
        let failed = |e: io::Error| HostErrorKind::Io(e.to_string());
        let (streams, stdout, stderr) = Streams::open().map_err(failed)?;
        let limits = &self.request.run.limits;
        // New ones for each run, so that what they count is of this run.
        if self.request.container.is_some() {
            // Before there are new cgroups: removing an old container also removes empty ones.
            container::remove(&self.runner, &self.files.folder)?;
        }
        let plan = plan_here(&self.files.folder, limits)?;
        let plan = if self.request.container.is_some() { plan.only_counting() } else { plan };
        self.groups = Groups::create(&plan)?;
        self.status.cgroups = self.groups.paths().to_vec();
        let container = match &self.request.container {
            Some(launch) => Some(container::prepare(&self.runner, &self.files.folder, launch, &self.groups)?),
            None => None,
        };
        let mut program = Program {
            path: &self.program,
            argv: &self.request.run.command,
            environment: &self.request.environment,
            directory: &self.request.directory,
            identity: self.request.identity.as_ref(),
            entrances: &self.groups.entrances().map_err(failed)?,
            nofile: limits.nofile,
            handed: None,
        };
        let environment = container::runtime_environment();
        if let Some(container) = &container {
            // What is started is the runtime; all else is in the configuration that it is handed.
            program.argv = &container.argv;
            program.environment = &environment;
            program.directory = Path::new("/");
            program.nofile = None;
            program.handed = Some(&container.config);
        }
        self.first_line = self.log.next_number();
        let pid = program.spawn(stdout, stderr)?;
        self.streams = streams;
        self.ended = None;
        self.phase = Phase::Running { since: Instant::now() };
        self.status.state = State::Running;
        self.status.pid = Some(pid);
        // It is not reaped yet, so there is an entry even when it has ended already.
        self.status.pid_start = observe_process(pid).map(|entry| entry.start);
        self.status.since = seconds_since_1970();
        self.log.note(&format!("started version {}, pid {pid}", self.request.run.version));
        Ok(pid)
    }

    fn restart(&mut self) {
        self.status.restarts += 1;
        self.status.in_a_row += 1;
        if let Err(kind) = self.start_program() {
            let outcome = Outcome::NotStarted(kind.to_string());
            self.log.note(&outcome.text());
            self.status.last_exit = Some(outcome.text());
            self.ended =
                Some(Ended { outcome, core_dumped: false, lasted: Duration::ZERO, at: crash::now() });
            self.settle();
            return;
        }
        self.save();
    }

    /// Reaps what has ended. True when nothing of the app is left.
    fn reap(&mut self) -> bool {
        loop {
            match wait_for_any() {
                Waited::Ended { pid, outcome, core_dumped } if self.status.pid == Some(pid) => {
                    self.program_ended(outcome, core_dumped);
                }
                // Something that the app left behind.
                Waited::Ended { .. } => {}
                Waited::AllRun => return false,
                Waited::NoChildren => break,
            }
        }
        // There are no children. Where the system gives a process no way to adopt its descendants, some may live
        // on elsewhere in its session.
        crate::supervisor::IS_REAPER || self.members().is_empty()
    }

    fn program_ended(&mut self, outcome: Outcome, core_dumped: bool) {
        let lasted = match self.phase {
            Phase::Running { since } => since.elapsed(),
            Phase::Sweeping { .. } | Phase::Waiting { .. } | Phase::Over => Duration::ZERO,
        };
        let kills = self.groups.usage().oom_kills.unwrap_or(0);
        let outcome = outcome.with_oom_kills(kills, self.request.run.limits.memory);
        self.log.note(&format!("pid {} ended: {}", self.status.pid.unwrap_or(0), outcome.text()));
        self.status.pid = None;
        self.status.pid_start = None;
        self.status.last_exit = Some(outcome.text());
        self.ended = Some(Ended { outcome, core_dumped, lasted, at: crash::now() });
    }

    /// Nothing of the last run is left: decides what follows.
    fn settle(&mut self) {
        self.streams.drain(&mut self.log);
        let usage = self.groups.usage();
        self.remove_groups();
        if let Some(goal) = self.goal.take() {
            self.finish(goal);
            return;
        }
        let Some(ended) = self.ended.take() else {
            self.finish(State::Failed("its end was not seen".to_owned()));
            return;
        };
        let restart = &self.request.run.restart;
        if is_stable(restart, ended.lasted) {
            self.status.in_a_row = 0;
        }
        let verdict = verdict(restart, &ended.outcome, self.status.in_a_row);
        self.keep_post_mortem(&ended, usage, &verdict);
        match verdict {
            Verdict::Over(state) => self.finish(state),
            Verdict::Pause(pause) => {
                self.log.note(&format!("restart in {pause:?}"));
                self.phase = Phase::Waiting { until: Instant::now() + pause };
                self.status.state = State::Backoff;
                self.save();
            }
        }
    }

    /// Keeps what is known of a run that ended unexpectedly.
    fn keep_post_mortem(&mut self, ended: &Ended, usage: Usage, verdict: &Verdict) {
        let follows = match verdict {
            Verdict::Over(State::Failed(how)) => format!("failed for good: {how}"),
            Verdict::Over(_) => return,
            Verdict::Pause(pause) => format!("restart in {pause:?}"),
        };
        let run = &self.request.run;
        let mut crash = Crash {
            at: ended.at.clone(),
            app: run.instance().to_string(),
            version: run.version.clone(),
            run_hash: run.run_hash.clone(),
            ran_for_ms: u64::try_from(ended.lasted.as_millis()).unwrap_or(u64::MAX),
            ended: String::new(),
            exit_code: None,
            signal: None,
            core_dumped: ended.core_dumped,
            oom: usage.oom_kills.unwrap_or(0) > 0,
            limits: run.limits.clone(),
            usage,
            restarts: self.status.restarts,
            in_a_row: self.status.in_a_row,
            follows,
            output: Vec::new(),
        };
        crash.set_outcome(&ended.outcome);
        crash.take_output(&self.files, self.first_line);
        if let Err(error) = crash::keep(&self.files, crash) {
            // The app goes on; the log says why there is no post-mortem.
            self.log.note(&format!("no post-mortem: {error}"));
        }
    }

    fn remove_groups(&mut self) {
        if self.request.container.is_some()
            && let Err(kind) = container::remove(&self.runner, &self.files.folder)
        {
            self.log.note(&kind.to_string());
        }
        if let Err(error) = self.groups.remove() {
            self.log.note(&format!("its cgroup cannot be removed: {error}"));
        }
        self.status.cgroups.clear();
        self.groups = Groups::default();
    }

    fn finish(&mut self, state: State) {
        if let State::Failed(how) = &state {
            self.log.note(&format!("failed for good: {how}"));
        }
        self.status.state = state;
        self.save();
        self.phase = Phase::Over;
    }

    fn begin_stop(&mut self, goal: State, grace: Duration) {
        self.goal = Some(goal);
        let kill_at = Instant::now() + grace;
        match &mut self.phase {
            Phase::Waiting { .. } => self.settle(),
            // A second request may only hasten it.
            Phase::Sweeping { kill_at: before, .. } => *before = kill_at.min(*before),
            Phase::Running { .. } => {
                self.log.note(&format!("stopping, {grace:?} until KILL"));
                self.status.state = State::Stopping;
                self.save();
                self.signal_members(Signal::SIGTERM);
                self.phase = Phase::Sweeping { kill_at, round: FIRST_ROUND };
            }
            Phase::Over => {}
        }
    }

    /// Every process of the app: what is below this one, and what is in its session.
    fn members(&self) -> Vec<ProcessEntry> {
        let table = observe_processes();
        let own = self.status.supervisor;
        let mut members = descendants(&table, &[own]);
        for entry in table {
            if entry.session == own && entry.pid != own && !members.contains(&entry) {
                members.push(entry);
            }
        }
        members.retain(|entry| !entry.zombie);
        members
    }

    fn signal_members(&self, signal: Signal) {
        if signal == Signal::SIGKILL {
            // Also what is no child of ours: a container's processes may have another parent.
            self.groups.kill();
        }
        if let Some(pid) = self.status.pid {
            // The program is not reaped yet, so its number still names its group.
            let _ = nix::sys::signal::killpg(Pid::from_raw(pid.cast_signed()), signal);
            if self.request.container.is_some() && signal == Signal::SIGTERM {
                // The runtime hands it on to the program inside, which must not get it twice.
                return;
            }
        }
        for entry in self.members() {
            if self.status.pid == Some(entry.group) {
                continue;
            }
            // It may have ended in the meantime.
            let _ = nix::sys::signal::kill(Pid::from_raw(entry.pid.cast_signed()), signal);
        }
    }

    fn save(&mut self) {
        if let Err(error) = write_record(&self.files.status(), &self.status) {
            // The app goes on; what is shown of it is old, and the log says why.
            self.log.note(&error.to_string());
        }
    }
}

fn seconds_since_1970() -> Option<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}
