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
use super::output::AppLog;
use super::output::Lines;
use super::output::ROTATE_AT;
use super::output::render_time;
use super::policy::Outcome;
use super::policy::Verdict;
use super::policy::is_stable;
use super::policy::verdict;
use crate::command::Program;
use crate::command::set_nonblocking;
use crate::process::ProcessEntry;
use crate::process::descendants;
use crate::process::observe_boot_id;
use crate::process::observe_process;
use crate::process::observe_processes;
use crate::program::kind_of;
use crate::record::AppFiles;
use crate::record::FORMAT;
use crate::record::State;
use crate::record::StatusRecord;
use crate::record::write_record;
use crate::types::HostErrorKind;
use nix::errno::Errno;
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
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use zed_spec::Restart;

/// An unfinished line is written after this much silence, so that a prompt or a hang can be seen.
const PARTIAL_AFTER: Duration = Duration::from_secs(1);
/// Between the first two rounds of KILL, for what forks while it is killed; doubles each time ...
const FIRST_ROUND: Duration = Duration::from_millis(5);
/// ... up to this, for what hangs in the kernel.
const LAST_ROUND: Duration = Duration::from_secs(1);
/// Reads of one stream in one turn of the loop, so that no stream starves a stop.
const READS_A_TURN: usize = 16;

/// A stream of the running program.
struct Stream {
    pipe: PipeReader,
    lines: Lines,
    last: Instant,
    closed: bool,
}

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

/// One supervised app.
pub(crate) struct Engine {
    files: AppFiles,
    _lock: File,
    request: LaunchRequest,
    program: PathBuf,
    wake: PipeReader,
    control: Control,
    log: AppLog,
    status: StatusRecord,
    streams: Vec<Stream>,
    phase: Phase,
    /// How the program ended, once it has, and whether the run was stable.
    ended: Option<(Outcome, bool)>,
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
        };
        write_record(&files.status(), &status).map_err(|e| e.to_string())?;
        Ok(Self {
            files,
            _lock: lock,
            request,
            program,
            wake,
            control,
            log,
            status,
            streams: Vec::new(),
            phase: Phase::Over,
            ended: None,
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
        self.read_streams(READS_A_TURN);
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
        for stream in self.streams.iter().filter(|stream| stream.lines.has_partial()) {
            wait = wait.min((stream.last + PARTIAL_AFTER).saturating_duration_since(now));
        }
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.control.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        fds.extend(self.streams.iter().map(|s| PollFd::new(s.pipe.as_fd(), PollFlags::POLLIN)));
        let millis = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        // An interruption or a passing lack of memory: the loop looks at everything in any case.
        let _ = nix::poll::poll(&mut fds, PollTimeout::from(millis));
        let mut bytes = [0u8; 64];
        while matches!(self.wake.read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }

    fn start_program(&mut self) -> Result<u32, HostErrorKind> {
        let failed = |e: io::Error| HostErrorKind::Io(e.to_string());
        let (out_reader, out_writer) = io::pipe().map_err(failed)?;
        let (err_reader, err_writer) = io::pipe().map_err(failed)?;
        set_nonblocking(&out_reader).map_err(failed)?;
        set_nonblocking(&err_reader).map_err(failed)?;
        let program = Program {
            path: &self.program,
            argv: &self.request.run.command,
            environment: &self.request.environment,
            directory: &self.request.directory,
            identity: self.request.identity.as_ref(),
        };
        let pid = program.spawn(out_writer, err_writer).map_err(|e| kind_of(&e, &self.program))?;
        let now = Instant::now();
        let stream = |pipe, source| Stream { pipe, lines: Lines::new(source), last: now, closed: false };
        self.streams = vec![stream(out_reader, "out"), stream(err_reader, "err")];
        self.ended = None;
        self.phase = Phase::Running { since: now };
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
            self.ended = Some((outcome, false));
            self.settle();
            return;
        }
        self.save();
    }

    /// Reaps what has ended. True when nothing of the app is left.
    fn reap(&mut self) -> bool {
        loop {
            match wait_for_any() {
                Waited::Ended(pid, outcome) if self.status.pid == Some(pid) => self.program_ended(outcome),
                // Something that the app left behind.
                Waited::Ended(..) => {}
                Waited::AllRun => return false,
                Waited::NoChildren => break,
            }
        }
        // There are no children. Where the system gives a process no way to adopt its descendants, some may live
        // on elsewhere in its session.
        crate::supervisor::IS_REAPER || self.members().is_empty()
    }

    fn program_ended(&mut self, outcome: Outcome) {
        let lasted = match self.phase {
            Phase::Running { since } => since.elapsed(),
            Phase::Sweeping { .. } | Phase::Waiting { .. } | Phase::Over => Duration::ZERO,
        };
        let stable = is_stable(&self.request.run.restart, lasted);
        self.log.note(&format!("pid {} ended: {}", self.status.pid.unwrap_or(0), outcome.text()));
        self.status.pid = None;
        self.status.pid_start = None;
        self.status.last_exit = Some(outcome.text());
        self.ended = Some((outcome, stable));
    }

    /// Nothing of the last run is left: decides what follows.
    fn settle(&mut self) {
        self.drain_streams();
        if let Some(goal) = self.goal.take() {
            self.finish(goal);
            return;
        }
        let Some((outcome, stable)) = self.ended.take() else {
            self.finish(State::Failed("its end was not seen".to_owned()));
            return;
        };
        if stable {
            self.status.in_a_row = 0;
        }
        match verdict(&self.request.run.restart, &outcome, self.status.in_a_row) {
            Verdict::Over(state) => self.finish(state),
            Verdict::Pause(pause) => {
                self.log.note(&format!("restart in {pause:?}"));
                self.phase = Phase::Waiting { until: Instant::now() + pause };
                self.status.state = State::Backoff;
                self.save();
            }
        }
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
        if let Some(pid) = self.status.pid {
            // The program is not reaped yet, so its number still names its group.
            let _ = nix::sys::signal::killpg(Pid::from_raw(pid.cast_signed()), signal);
        }
        for entry in self.members() {
            if self.status.pid == Some(entry.group) {
                continue;
            }
            // It may have ended in the meantime.
            let _ = nix::sys::signal::kill(Pid::from_raw(entry.pid.cast_signed()), signal);
        }
    }

    /// Reads what the streams have, at most so many pieces of each.
    fn read_streams(&mut self, pieces: usize) {
        let mut chunk = [0u8; 64 * 1024];
        let now = Instant::now();
        let mut time = None;
        for stream in &mut self.streams {
            for _ in 0..pieces {
                match stream.pipe.read(&mut chunk) {
                    Ok(0) => {
                        stream.closed = true;
                        break;
                    }
                    Ok(count) => {
                        let time = time.get_or_insert_with(|| render_time(SystemTime::now()));
                        stream.lines.feed(time, &chunk[..count], &mut self.log);
                        stream.last = now;
                        self.log.flush();
                    }
                    Err(_) => break,
                }
            }
            if stream.closed || now >= stream.last + PARTIAL_AFTER {
                stream.lines.finish(&render_time(SystemTime::now()), !stream.closed, &mut self.log);
            }
        }
        self.log.flush();
        self.streams.retain(|stream| !stream.closed);
    }

    /// Everything that is left in the pipes: nobody writes to them any more.
    fn drain_streams(&mut self) {
        self.read_streams(usize::MAX);
        let time = render_time(SystemTime::now());
        for stream in &mut self.streams {
            stream.lines.finish(&time, false, &mut self.log);
        }
        self.log.flush();
        self.streams.clear();
    }

    fn save(&mut self) {
        if let Err(error) = write_record(&self.files.status(), &self.status) {
            // The app goes on; what is shown of it is old, and the log says why.
            self.log.note(&error.to_string());
        }
    }
}

/// What `waitpid` says.
enum Waited {
    Ended(u32, Outcome),
    AllRun,
    NoChildren,
}

/// Reaps one child, without waiting. Not nix's: that one loses the end of a process by a real-time signal.
fn wait_for_any() -> Waited {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writing for the whole call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid == 0 {
            return Waited::AllRun;
        }
        if pid < 0 {
            match Errno::last() {
                Errno::EINTR => continue,
                _ => return Waited::NoChildren,
            }
        }
        let outcome = if libc::WIFEXITED(status) {
            Outcome::Exit(libc::WEXITSTATUS(status))
        } else {
            Outcome::Signal(libc::WTERMSIG(status))
        };
        return Waited::Ended(pid.cast_unsigned(), outcome);
    }
}

fn seconds_since_1970() -> Option<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}
