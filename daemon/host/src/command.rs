//! The command runner: the only place that starts processes.
//!
//! Owns deadlines, process groups, TERM then KILL, bounded output, and the list of commands in flight. A command's
//! environment is exactly what its caller gives. Never runs a shell, never waits without a deadline.
//!
//! Programs are resolved to absolute paths here and the daemon never asks the standard library for a change of
//! user, so that a start from the big process is a `posix_spawn` and not a `fork` whose cost grows with memory.

#![expect(clippy::disallowed_methods, reason = "this is the one file that may start processes")]

use crate::identity::Identity;
use crate::program::kind_of;
use crate::program::resolve_program;
use crate::types::HostErrorKind;
use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::io::PipeReader;
use std::io::PipeWriter;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// Longest time between two looks at a command: how late a deadline, a cancellation or an exit that closed no
/// pipe may be noticed.
const LONGEST_TICK: Duration = Duration::from_millis(20);

/// What to run.
#[derive(Debug, Clone)]
pub struct CommandRequest {
    /// Program and arguments. A program without `/` is looked for in the environment's `PATH`.
    pub argv: Vec<String>,
    /// Absolute path of the program, when the first of `argv` is only what it is called in `ps`.
    pub program: Option<PathBuf>,
    /// The complete environment.
    pub environment: BTreeMap<String, String>,
    /// Working directory; `/` when absent.
    pub directory: Option<PathBuf>,
    /// What the program reads from its standard input; `/dev/null` when empty.
    pub input: Vec<u8>,
    /// From the start to TERM.
    pub deadline: Duration,
    /// From TERM to KILL.
    pub grace: Duration,
    /// Bytes of output to keep: the last ones.
    pub keep: usize,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// Killed by the runner, after this long.
    Deadline(Duration),
    /// Killed by the runner, because its caller gave up.
    Cancelled,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exit(code) => write!(f, "exit {code}"),
            Ended::Signal(number) => write!(f, "signal {number}"),
            Ended::Deadline(after) => write!(f, "deadline of {after:?} passed"),
            Ended::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub ended: Ended,
    /// The last [`CommandRequest::keep`] bytes of stdout and stderr, in the order of writing.
    pub output: Vec<u8>,
    /// Bytes of output before those.
    pub left_out: u64,
}

/// Why a command could not be run at all.
#[derive(Debug, thiserror::Error)]
#[error("failed to run `{program}`: {kind}")]
pub struct CommandError {
    /// The program as asked for.
    pub program: String,
    /// What kind.
    pub kind: HostErrorKind,
    /// The system's error, when it says more.
    #[source]
    pub source: Option<io::Error>,
}

/// A command that runs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Program and arguments. Never the environment.
    pub argv: Vec<String>,
    /// Process id, also the id of its group.
    pub pid: u32,
    /// Since when.
    pub since: SystemTime,
    /// Killed after this.
    pub deadline: Duration,
}

/// Runs commands; clones share the list of those in flight.
#[derive(Debug, Clone, Default)]
pub struct Runner {
    in_flight: Arc<Mutex<BTreeMap<u32, InFlight>>>,
}

/// Removes a command from the list, however its run ends.
struct Listed<'a> {
    runner: &'a Runner,
    pid: u32,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.runner.in_flight.lock().remove(&self.pid);
    }
}

impl Runner {
    /// The commands that run now, oldest first.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let mut list: Vec<InFlight> = self.in_flight.lock().values().cloned().collect();
        list.sort_by_key(|command| command.since);
        list
    }

    /// Runs a command in its own process group and waits for it. When it returns, its group has been killed;
    /// what left the group (a daemon that a hook started on purpose) lives on. `cancel` is looked at every
    /// `LONGEST_TICK` and ends the command like a deadline.
    pub fn run(
        &self,
        request: &CommandRequest,
        cancel: Option<&AtomicBool>,
    ) -> Result<Finished, CommandError> {
        let name = request.argv.first().cloned().unwrap_or_default();
        let failed = |kind, source| CommandError { program: name.clone(), kind, source };
        let program = match &request.program {
            Some(path) => path.clone(),
            None => resolve_program(&request.argv, &request.environment, request.directory.as_deref())
                .map_err(|kind| failed(kind, None))?,
        };
        let mut started =
            Started::new(&program, request).map_err(|e| failed(kind_of(&e, &program), Some(e)))?;
        let pid = started.child.id();
        let listed = InFlight {
            argv: request.argv.clone(),
            pid,
            since: SystemTime::now(),
            deadline: request.deadline,
        };
        self.in_flight.lock().insert(pid, listed);
        let _listed = Listed { runner: self, pid };
        started.finish(request, cancel).map_err(|e| failed(HostErrorKind::Io(e.to_string()), Some(e)))
    }
}

/// A command between its start and its end.
struct Started {
    child: Child,
    output: Option<PipeReader>,
    input: Option<ChildStdin>,
    unwritten: VecDeque<u8>,
    kept: VecDeque<u8>,
    left_out: u64,
}

impl Started {
    fn new(program: &Path, request: &CommandRequest) -> io::Result<Started> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(program);
        if let Some(first) = request.argv.first() {
            command.arg0(first);
        }
        command
            .args(request.argv.iter().skip(1))
            .env_clear()
            .envs(&request.environment)
            .current_dir(request.directory.as_deref().unwrap_or(Path::new("/")))
            .stdin(if request.input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let mut child = command.spawn()?;
        // The command holds our copies of the write end: without this the pipe would never end.
        drop(command);
        let input = child.stdin.take();
        set_nonblocking(&reader)?;
        if let Some(input) = &input {
            set_nonblocking(input)?;
        }
        let unwritten = request.input.iter().copied().collect();
        Ok(Started { child, output: Some(reader), input, unwritten, kept: VecDeque::new(), left_out: 0 })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn finish(&mut self, request: &CommandRequest, cancel: Option<&AtomicBool>) -> io::Result<Finished> {
        let began = Instant::now();
        let mut killed: Option<(Ended, Instant)> = None;
        let mut tick = Duration::from_micros(200);
        while !has_exited(self.pid())? {
            let now = Instant::now();
            match &mut killed {
                None => {
                    let why = if cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                        Some(Ended::Cancelled)
                    } else if now - began >= request.deadline {
                        Some(Ended::Deadline(request.deadline))
                    } else {
                        None
                    };
                    if let Some(why) = why {
                        self.signal_group(Signal::SIGTERM);
                        killed = Some((why, now + request.grace));
                        tick = Duration::from_micros(200);
                    }
                }
                Some((_, until)) if now >= *until => self.signal_group(Signal::SIGKILL),
                Some(_) => {}
            }
            if self.wait(tick)? && self.transfer(request.keep)? {
                tick = Duration::from_micros(200);
            } else {
                tick = (tick * 2).min(LONGEST_TICK);
            }
        }
        // The leader is a zombie still, so its number cannot have been given to another group.
        self.signal_group(Signal::SIGKILL);
        let status = self.child.wait()?;
        while self.transfer(request.keep)? {}
        let ended = match killed {
            Some((why, _)) => why,
            None => ended_of(status),
        };
        let output = std::mem::take(&mut self.kept).into();
        Ok(Finished { ended, output, left_out: self.left_out })
    }

    fn signal_group(&self, signal: Signal) {
        // The only failure is that nobody is left in the group.
        let _ = nix::sys::signal::killpg(self.pid(), signal);
    }

    /// Waits for something to read or write, or for `tick`. True when there may be something.
    fn wait(&self, tick: Duration) -> io::Result<bool> {
        let mut fds = Vec::with_capacity(2);
        if let Some(output) = &self.output {
            fds.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
        }
        if let Some(input) = &self.input {
            fds.push(PollFd::new(input.as_fd(), PollFlags::POLLOUT));
        }
        if fds.is_empty() {
            std::thread::sleep(tick);
            return Ok(false);
        }
        let timeout = PollTimeout::from(u16::try_from(tick.as_millis()).unwrap_or(1).max(1));
        match nix::poll::poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Moves what can be moved without waiting. True when something moved or ended.
    fn transfer(&mut self, keep: usize) -> io::Result<bool> {
        let mut moved = false;
        if let Some(output) = &mut self.output {
            let mut chunk = [0u8; 16 * 1024];
            match output.read(&mut chunk) {
                Ok(0) => {
                    self.output = None;
                    moved = true;
                }
                Ok(count) => {
                    self.kept.extend(&chunk[..count]);
                    let excess = self.kept.len().saturating_sub(keep);
                    self.kept.drain(..excess);
                    self.left_out += excess as u64;
                    moved = true;
                }
                Err(e) if is_not_now(&e) => {}
                Err(e) => return Err(e),
            }
        }
        if let Some(input) = &mut self.input {
            match input.write(self.unwritten.make_contiguous()) {
                Ok(count) => {
                    self.unwritten.drain(..count);
                    moved = true;
                }
                Err(e) if is_not_now(&e) => {}
                // It does not want to read on: that is its business.
                Err(_) => self.unwritten.clear(),
            }
            if self.unwritten.is_empty() {
                self.input = None;
            }
        }
        Ok(moved)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Only after an error in the middle: no child is left behind, running or dead.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.signal_group(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// For [`crate::Served`] only: its standard input is the socket, its standard error what the returned pipe gives.
pub(crate) fn start_served(
    program: &Path,
    argv: &[String],
    environment: &BTreeMap<String, String>,
    socket: OwnedFd,
) -> io::Result<(Child, PipeReader)> {
    let (reader, writer) = io::pipe()?;
    let (name, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.arg0(name).args(arguments).env_clear().envs(environment).current_dir("/").process_group(0);
    let child = command.stdin(socket).stdout(Stdio::null()).stderr(writer).spawn()?;
    Ok((child, reader))
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

pub(crate) fn ended_of(status: std::process::ExitStatus) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, Some(number)) => Ended::Signal(number),
        // Not possible for a status of wait(2) without WUNTRACED.
        (None, None) => Ended::Exit(-1),
    }
}

/// True when the child has ended. It is not reaped, so its number stays taken.
pub(crate) fn has_exited(pid: Pid) -> io::Result<bool> {
    // SAFETY: an all-zero siginfo_t is a valid value of this plain C struct.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // Of another width and sign on each system; a process id fits into all of them.
    let id = libc::id_t::try_from(pid.as_raw()).map_err(io::Error::other)?;
    // SAFETY: `info` is valid for writing for the whole call; waitid keeps no pointer to it.
    let got = unsafe {
        libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
    };
    if got != 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) };
    }
    // Nothing has changed: POSIX leaves si_signo 0.
    Ok(info.si_signo != 0)
}

/// Makes reads and writes return at once.
pub(crate) fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(fd, FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// A program to become, or to start as an app.
pub(crate) struct Program<'a> {
    pub(crate) path: &'a Path,
    pub(crate) argv: &'a [String],
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) directory: &'a Path,
    pub(crate) identity: Option<&'a Identity>,
    /// Files of cgroups that it enters by writing to them.
    pub(crate) entrances: &'a [File],
    /// The most descriptors it may have open.
    pub(crate) nofile: Option<u64>,
    /// An open file that it inherits, under the number that it has here.
    pub(crate) handed: Option<&'a File>,
}

/// What is done between fork and exec. The number is the byte by which the child says where it failed.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Cgroup = b'c' as isize,
    Nofile = b'n' as isize,
    User = b'u' as isize,
}

impl Program<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.path);
        command
            .args(self.argv.iter().skip(1))
            .env_clear()
            .envs(self.environment)
            .current_dir(self.directory)
            .stdin(Stdio::null());
        // An app sees its own first argument as it was written, as a shell would do.
        if let Some(first) = self.argv.first() {
            command.arg0(first);
        }
        command
    }

    /// The child says in `failed_at` which stage it is that fails.
    fn switch_before_exec(&self, command: &mut Command, failed_at: Option<PipeWriter>) {
        let identity = self.identity.map(|identity| (identity.uid, identity.gid, identity.group_ids()));
        let entrances: Vec<RawFd> = self.entrances.iter().map(AsRawFd::as_raw_fd).collect();
        let nofile = self.nofile;
        let handed = self.handed.map(AsRawFd::as_raw_fd);
        // SAFETY: the closure runs in a forked child of a process with a single thread, and makes only system
        // calls: it allocates nothing and takes no lock. The entrances are open until the child was started.
        unsafe {
            command.pre_exec(move || {
                let at = |stage: Stage| {
                    let failed_at = failed_at.as_ref();
                    move |error: io::Error| {
                        if let Some(mut pipe) = failed_at {
                            // The error itself is what matters most.
                            let _ = pipe.write(&[stage as u8]);
                        }
                        error
                    }
                };
                nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_retain(0o022));
                for entrance in &entrances {
                    enter(*entrance).map_err(at(Stage::Cgroup))?;
                }
                if let Some(most) = nofile {
                    limit_descriptors(most).map_err(at(Stage::Nofile))?;
                }
                if let Some(handed) = handed {
                    keep_open(handed)?;
                }
                if let Some((uid, gid, groups)) = &identity {
                    Identity::switch(*uid, *gid, groups).map_err(at(Stage::User))?;
                }
                Ok(())
            });
        }
    }

    /// Starts it in its own process group, and returns its process id once it has been executed. It is reaped
    /// by the supervisor's own `waitpid`. Only for the supervisor, which is small and has a single thread.
    pub(crate) fn spawn(&self, stdout: PipeWriter, stderr: PipeWriter) -> Result<u32, HostErrorKind> {
        let (mut failed_at, writer) = io::pipe().map_err(|e| HostErrorKind::Io(e.to_string()))?;
        let mut command = self.command();
        command.stdout(stdout).stderr(stderr).process_group(0);
        self.switch_before_exec(&mut command, Some(writer));
        let error = match command.spawn() {
            Ok(child) => return Ok(child.id()),
            Err(error) => error,
        };
        drop(command);
        let mut stage = [0u8; 1];
        let what = match failed_at.read(&mut stage) {
            Ok(1) if stage[0] == Stage::Cgroup as u8 => "it cannot be put into its cgroup",
            Ok(1) if stage[0] == Stage::Nofile as u8 => "its open files cannot be limited",
            Ok(1) if stage[0] == Stage::User as u8 => "its user cannot be switched to",
            _ => return Err(kind_of(&error, self.path)),
        };
        Err(HostErrorKind::Io(format!("`{}` was not started: {what}: {error}", self.path.display())))
    }

    /// Becomes it; returns only when that failed. Only for the helper process.
    pub(crate) fn exec(&self) -> io::Error {
        let mut command = self.command();
        self.switch_before_exec(&mut command, None);
        command.exec()
    }
}

/// Puts the calling process into the cgroup of this `cgroup.procs`. Between fork and exec: allocates nothing.
fn enter(entrance: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call, see `switch_before_exec`; `0` means the caller.
    let written = unsafe { libc::write(entrance, b"0".as_ptr().cast(), 1) };
    if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor outlives the exec. Between fork and exec: allocates nothing.
fn keep_open(number: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call, see `switch_before_exec`; no flag means no close-on-exec.
    let done = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Between fork and exec: allocates nothing.
fn limit_descriptors(most: u64) -> io::Result<()> {
    use nix::sys::resource::Resource;
    let most = libc::rlim_t::try_from(most).unwrap_or(libc::RLIM_INFINITY);
    Ok(nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

#[cfg(test)]
mod tests;
