//! Runs programs: prints what it runs, shows the output as it comes, keeps it, and ends the whole process
//! group at the deadline or when xtask itself is told to stop. Leaves no process behind.

use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

/// Process groups to end when xtask is told to stop.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// One command to run.
#[derive(Debug)]
pub struct Cmd {
    command: Command,
    shown: String,
    deadline: Duration,
    quiet: bool,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit status; 128 + signal; 124 when the deadline passed.
    pub code: i32,
    /// Standard output and standard error, in the order in which lines came.
    pub output: String,
}

impl Ended {
    /// Did it exit with 0?
    pub fn ok(&self) -> bool {
        self.code == 0
    }
}

impl Cmd {
    /// A command with a deadline of 20 minutes, in the root of the working tree.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let shown = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.current_dir(crate::root());
        Self { command, shown, deadline: Duration::from_secs(20 * 60), quiet: false }
    }

    /// The cargo that runs this program.
    pub fn cargo() -> Self {
        let mut cmd = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        "cargo".clone_into(&mut cmd.shown);
        cmd
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&quoted(&arg.as_ref().to_string_lossy()));
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Cmd::arg)
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{key}={} {}", quoted(&value.as_ref().to_string_lossy()), self.shown);
        self.command.env(key, value);
        self
    }

    /// Runs it in this folder.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Ends it after this time.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Shows neither the command nor its output.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Runs it to its end, without standard input.
    ///
    /// # Errors
    ///
    /// When it cannot be started. A command that fails is an [`Ended`] with its code.
    pub fn run(mut self) -> Result<Ended, String> {
        if !self.quiet {
            println!("   $ {}", self.shown);
        }
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = self.command.spawn().map_err(|e| format!("cannot start `{}`: {e}", self.shown))?;
        let group = Pid::from_raw(child.id().cast_signed());
        lock_groups(|groups| groups.insert(group.as_raw()));
        let output = Arc::new(Mutex::new(String::new()));
        let readers = [
            child.stdout.take().map(|s| follow(s, Arc::clone(&output), !self.quiet)),
            child.stderr.take().map(|s| follow(s, Arc::clone(&output), !self.quiet)),
        ];
        let (ended, end) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let status = child.wait();
            // The receiver is gone only when the deadline has passed, which is told below.
            let _ = ended.send(());
            status
        });
        let late = end.recv_timeout(self.deadline).is_err();
        if late {
            println!("   deadline of {} s passed: ending `{}`", self.deadline.as_secs(), self.shown);
        }
        // What the command left running in its group would keep the pipes open, and nothing may survive it.
        end_group(group);
        let status = waiter.join().map_err(|_| format!("lost track of `{}`", self.shown))?;
        for reader in readers.into_iter().flatten() {
            let _ = reader.join();
        }
        lock_groups(|groups| groups.remove(&group.as_raw()));
        let status = status.map_err(|e| format!("cannot wait for `{}`: {e}", self.shown))?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let output = output.lock().map(|o| o.clone()).unwrap_or_default();
        Ok(Ended { code: if late { 124 } else { code }, output })
    }

    /// Runs it quietly and gives what it printed.
    ///
    /// # Errors
    ///
    /// When it cannot be started or fails; the text says how.
    pub fn read(self) -> Result<String, String> {
        let shown = self.shown.clone();
        let ended = self.quiet().run()?;
        if ended.ok() {
            Ok(ended.output)
        } else {
            Err(format!("`{shown}` ended with {}:\n{}", ended.code, ended.output))
        }
    }
}

/// Ends every command in progress when xtask gets SIGINT, SIGTERM or SIGHUP, then exits with 128 + signal.
pub fn clean_up_on_signals() {
    use signal_hook::consts::SIGHUP;
    use signal_hook::consts::SIGINT;
    use signal_hook::consts::SIGTERM;
    // Handlers, not a blocked mask: a mask would be inherited by everything that is started here.
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            lock_groups(|groups| groups.iter().for_each(|g| end_group(Pid::from_raw(*g))));
            std::process::exit(128 + signal);
        }
    });
}

/// Is there a program of this name in PATH?
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

/// SIGTERM to a group, and SIGKILL to what is still there 5 seconds later. An empty group is fine.
fn end_group(group: Pid) {
    if killpg(group, Signal::SIGTERM).is_err() {
        return;
    }
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(50));
        if killpg(group, None).is_err() {
            return;
        }
    }
    let _ = killpg(group, Signal::SIGKILL);
}

fn lock_groups<T>(f: impl FnOnce(&mut BTreeSet<i32>) -> T) -> T {
    f(&mut GROUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn follow(
    source: impl Read + Send + 'static,
    into: Arc<Mutex<String>>,
    show: bool,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line);
            if show {
                let mut out = std::io::stdout().lock();
                let _ = write!(out, "   {text}").and_then(|()| out.flush());
            }
            if let Ok(mut into) = into.lock() {
                into.push_str(&text);
            }
            line.clear();
        }
    })
}

/// An argument as a person would type it.
pub fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_are_kept() {
        let ended = Cmd::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]).quiet().run().unwrap();
        assert_eq!(ended.code, 3);
        let mut lines: Vec<_> = ended.output.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_command_past_its_deadline_is_ended_with_its_children() {
        let start = std::time::Instant::now();
        let cmd = Cmd::new("sh").args(["-c", "sleep 600 & sleep 600"]).deadline(Duration::from_millis(50));
        assert_eq!(cmd.quiet().run().unwrap().code, 124);
        assert!(start.elapsed() < Duration::from_secs(300), "the children were ended too");
    }

    #[test]
    fn what_a_command_leaves_in_its_group_does_not_survive_it() {
        let ended = Cmd::new("sh").args(["-c", "sleep 600 & echo $!"]).quiet().run().unwrap();
        let pid: i32 = ended.output.trim().parse().unwrap();
        // A zombie may be left for init to reap; a running process may not.
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }

    #[test]
    fn arguments_are_shown_as_typed() {
        for (arg, shown) in [("a-b/c=1", "a-b/c=1"), ("a b", "'a b'"), ("", "''"), ("it's", r"'it'\''s'")] {
            assert_eq!(quoted(arg), shown);
        }
    }
}
