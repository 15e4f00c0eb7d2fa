//! The supervisor: one small process an app, which outlives the daemon.
//!
//! Owns the way into it (`zedd supervise DIR`), the detachment from whoever started it, and its signals. It has a
//! single thread and one poll loop; it never reads a spec, never opens the store, and starts nothing but its app.
//!
//! `zedd supervise --exec` is the helper that switches the user for hooks and probes: it reads what to become
//! from its standard input, and becomes it.

mod control;
mod crash;
mod engine;
pub(crate) mod output;
mod policy;
mod streams;
mod wait;

pub(crate) use control::bind;
pub(crate) use control::connect;

use crate::command::Program;
use crate::container::Launch;
use crate::identity::Identity;
use crate::program::kind_of;
use crate::program::resolve_program;
use crate::record::AppFiles;
use crate::record::FORMAT;
use crate::types::HostErrorKind;
use engine::Engine;
use nix::errno::Errno;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::PipeReader;
use std::io::PipeWriter;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;
use zed_plan::RunSpec;

/// Exit status of the helper when it could not become the program, as shells use it.
const CANNOT_EXECUTE: u8 = 126;

/// True where a process can adopt its orphaned descendants: there, none escapes, and the end of the last one is
/// seen. Elsewhere (illumos) the session is searched; a process that makes its own session escapes there.
pub(crate) const IS_REAPER: bool = cfg!(any(target_os = "linux", target_os = "freebsd"));

/// Descriptors that are closed one by one where the system has no call for all of them.
const MOST_DESCRIPTORS: i32 = 65_536;

/// Largest request that is read: an environment of a few MiB is more than execve takes.
const MAX_REQUEST: u64 = 16 << 20;

/// What the daemon asks a new supervisor for, through its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchRequest {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Must be the one in `run.json`.
    pub(crate) token: String,
    /// What to run.
    pub(crate) run: RunSpec,
    /// Where.
    pub(crate) directory: PathBuf,
    /// Its complete environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// As whom, when not as the daemon.
    pub(crate) identity: Option<Identity>,
    /// Of an app that runs in a container.
    #[serde(default)]
    pub(crate) container: Option<Launch>,
}

/// What a new supervisor answers, one line on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LaunchReply {
    /// The program has been executed.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// Another supervisor has the lock.
    Locked,
    /// `run.json` no longer asks for this start.
    Superseded,
    /// It could not be started, and does not run.
    Refused {
        /// `not_found`, `permission`, `limit` or `io`.
        kind: String,
        /// Why.
        text: String,
    },
}

impl LaunchReply {
    /// A refusal from its kind.
    pub(crate) fn refused(kind: &HostErrorKind) -> Self {
        let word = match kind {
            HostErrorKind::NotFound(_) => "not_found",
            HostErrorKind::Permission(_) => "permission",
            HostErrorKind::Limit(_) => "limit",
            HostErrorKind::Busy | HostErrorKind::Deadline(_) | HostErrorKind::Io(_) => "io",
        };
        let text = match kind {
            HostErrorKind::NotFound(text)
            | HostErrorKind::Permission(text)
            | HostErrorKind::Limit(text)
            | HostErrorKind::Io(text) => text.clone(),
            HostErrorKind::Busy | HostErrorKind::Deadline(_) => kind.to_string(),
        };
        LaunchReply::Refused { kind: word.to_owned(), text }
    }
}

/// What the helper becomes, through its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Absolute path of the program.
    pub(crate) program: PathBuf,
    /// Program as written, and arguments.
    pub(crate) argv: Vec<String>,
    /// Complete environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Working directory.
    pub(crate) directory: PathBuf,
    /// As whom.
    pub(crate) identity: Identity,
}

/// The program behind `zedd supervise`: call it first thing in `main`, with the arguments after `supervise`, while
/// the process has a single thread. `DIR` supervises the app whose files are in DIR; `--exec` is the helper for
/// hooks and probes. Both are started by [`crate::LocalHost`] and read their request from standard input.
pub fn supervise_main(args: &[String]) -> ExitCode {
    close_inherited();
    let result = match args {
        [word] if word == "--exec" => become_program(),
        [folder] => launch(Path::new(folder)),
        _ => Err(io::Error::other("usage: supervise DIR, started by zedd and not by hand")),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "zed supervise: {error}");
            ExitCode::from(2)
        }
    }
}

/// Closes everything above standard error: a supervisor must not hold a mount, a socket or a lock of whoever
/// happened to start it.
fn close_inherited() {
    #[cfg(target_os = "linux")]
    // SAFETY: no descriptor above 2 is owned by anything in this process yet; see `supervise_main`.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } == 0;
    #[cfg(target_os = "freebsd")]
    let done = {
        // SAFETY: as above.
        unsafe { libc::closefrom(3) };
        true
    };
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    let done = false;
    if !done {
        // illumos, and Linux before 5.9.
        for fd in 3..MOST_DESCRIPTORS {
            // SAFETY: as above; closing a number that is not open is harmless.
            unsafe { libc::close(fd) };
        }
    }
}

fn read_request<T: for<'de> Deserialize<'de>>() -> io::Result<T> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_REQUEST).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|e| io::Error::other(format!("the request is not readable: {e}")))
}

fn become_program() -> io::Result<ExitCode> {
    let request: ExecRequest = read_request()?;
    if request.format != FORMAT {
        return Err(io::Error::other(format!("the request has format {}, not {FORMAT}", request.format)));
    }
    let program = Program {
        path: &request.program,
        argv: &request.argv,
        environment: &request.environment,
        directory: &request.directory,
        identity: Some(&request.identity),
        entrances: &[],
        nofile: None,
        handed: None,
    };
    let error = program.exec();
    let kind = kind_of(&error, &request.program);
    writeln!(io::stderr(), "zed: user id {}: {kind}", request.identity.uid)?;
    Ok(ExitCode::from(CANNOT_EXECUTE))
}

/// Forks the supervisor off and waits until it has said how the start went.
fn launch(folder: &Path) -> io::Result<ExitCode> {
    let request: LaunchRequest = read_request()?;
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: this process has a single thread, so the child may go on in Rust as if it had been started so.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { .. } => {
            drop(writer);
            let mut reply = Vec::new();
            reader.read_to_end(&mut reply)?;
            io::stdout().write_all(&reply)?;
            Ok(if reply.is_empty() { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
        nix::unistd::ForkResult::Child => {
            drop(reader);
            supervise(folder, request, Reporter { pipe: Some(writer) })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Says once how the start went.
pub(crate) struct Reporter {
    pipe: Option<PipeWriter>,
}

impl Reporter {
    /// Answers, and closes the pipe: the one who waits goes on.
    pub(crate) fn report(&mut self, reply: &LaunchReply) {
        let Some(mut pipe) = self.pipe.take() else { return };
        if let Ok(mut line) = serde_json::to_vec(reply) {
            line.push(b'\n');
            // Nobody may be waiting any more: the start stands all the same.
            let _ = pipe.write_all(&line);
        }
    }
}

fn supervise(folder: &Path, request: LaunchRequest, mut reporter: Reporter) -> io::Result<()> {
    detach()?;
    let files = AppFiles::new(folder.to_owned());
    let log_path = files.log();
    std::panic::set_hook(Box::new(move |info| {
        // There is nobody else to tell.
        let _ = output::note_lines(&log_path, &[format!("supervisor: {info}").replace('\n', " ")]);
    }));
    let wake = watch_signals()?;
    let engine = match prepare(files, request, wake) {
        Ok(engine) => engine,
        Err(reply) => {
            reporter.report(&reply);
            return Ok(());
        }
    };
    engine.run(&mut reporter);
    Ok(())
}

/// Everything before the program is started. An error leaves nothing running.
fn prepare(files: AppFiles, request: LaunchRequest, wake: PipeReader) -> Result<Engine, LaunchReply> {
    let refused = |text: String| LaunchReply::refused(&HostErrorKind::Io(text));
    if request.format != FORMAT {
        return Err(refused(format!(
            "the supervisor's program knows format {FORMAT}, not {}",
            request.format
        )));
    }
    let lock = match crate::record::take_lock(&files.lock()) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(LaunchReply::Locked),
        Err(e) => return Err(refused(format!("`{}` cannot be locked: {e}", files.lock().display()))),
    };
    // In this order: whoever stops the app changes run.json first and looks at the lock then.
    match crate::record::read_record::<crate::record::RunRecord>(&files.run()) {
        Ok(Some(record)) if record.token.as_ref() == Some(&request.token) => {}
        Ok(_) => return Err(LaunchReply::Superseded),
        Err(e) => return Err(refused(e.to_string())),
    }
    let program = match &request.container {
        Some(container) => container.runtime.path.clone(),
        None => resolve_program(&request.run.command, &request.environment, Some(&request.directory))
            .map_err(|kind| LaunchReply::refused(&kind))?,
    };
    Engine::new(files, lock, request, program, wake).map_err(refused)
}

/// A session of its own, no terminal, no working directory that could keep a dataset busy, and the adoption of
/// whatever the app leaves behind.
fn detach() -> io::Result<()> {
    nix::unistd::setsid()?;
    std::env::set_current_dir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    #[cfg(target_os = "linux")]
    {
        nix::sys::prctl::set_child_subreaper(true)?;
        nix::sys::prctl::set_name(c"zedd-supervise")?;
    }
    #[cfg(target_os = "freebsd")]
    {
        // SAFETY: PROC_REAP_ACQUIRE takes no argument; id 0 is the calling process.
        if unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_REAP_ACQUIRE, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Where the signal handler writes.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// SIGTERM or SIGINT has come.
static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(signal: libc::c_int) {
    // Between a system call and its errno there may be this handler.
    let errno = Errno::last_raw();
    if signal == libc::SIGTERM || signal == libc::SIGINT {
        ASKED_TO_END.store(true, Ordering::Relaxed);
    }
    let byte = 0u8;
    // SAFETY: write(2) is async-signal-safe, and `byte` lives through the call. A full pipe wakes as well.
    unsafe { libc::write(WAKE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    Errno::set_raw(errno);
}

/// True after SIGTERM or SIGINT.
pub(crate) fn asked_to_end() -> bool {
    ASKED_TO_END.load(Ordering::Relaxed)
}

/// Turns signals into readable bytes. Handlers, and not "ignore": what is ignored would stay so in the app.
fn watch_signals() -> io::Result<PipeReader> {
    use nix::sys::signal::SaFlags;
    use nix::sys::signal::SigAction;
    use nix::sys::signal::SigHandler;
    use nix::sys::signal::SigSet;
    use nix::sys::signal::Signal;
    let (reader, writer) = io::pipe()?;
    crate::command::set_nonblocking(&reader)?;
    crate::command::set_nonblocking(&writer)?;
    // The descriptor belongs to the handler from here on, for the life of the process.
    WAKE.store(writer.into_raw_fd(), Ordering::Relaxed);
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        // SAFETY: the handler only stores to atomics and calls write(2).
        unsafe { nix::sys::signal::sigaction(signal, &action) }?;
    }
    SigSet::empty().thread_set_mask()?;
    debug_assert!(reader.as_fd().as_raw_fd() > 2);
    Ok(reader)
}
