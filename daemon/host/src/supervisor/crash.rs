//! Post-mortems: what is kept of a run that ended unexpectedly.
//!
//! Owns `crash.json` and `crash` of an app: the same for programs and for people, newest first, of the last few
//! runs, so that a loop of restarts does not hide how it began. The first of them is kept as long as the loop
//! lasts. Never holds a value of the environment.

use super::output::numbers::Parts;
use super::output::numbers::last_output;
use super::output::render_time;
use super::policy::Outcome;
use crate::cgroup::Usage;
use crate::record::AppFiles;
use crate::record::FORMAT;
use crate::record::RecordError;
use crate::record::read_record;
use crate::record::write_file;
use crate::record::write_record;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;
use std::time::SystemTime;
use zed_spec::Limits;
use zed_spec::render_duration;
use zed_spec::render_size;

/// Post-mortems that are kept.
const KEEP: usize = 5;
/// Lines of output in each ...
const LINES: usize = 200;
/// ... and bytes of them.
const BYTES: usize = 256 * 1024;

/// `crash.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct CrashFile {
    /// [`FORMAT`].
    format: u32,
    /// Newest first.
    crashes: Vec<Crash>,
}

/// One run that ended unexpectedly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Crash {
    /// When it ended, RFC 3339.
    pub(super) at: String,
    /// The instance.
    pub(super) app: String,
    /// Of the run.
    pub(super) version: String,
    /// Of the run.
    pub(super) run_hash: String,
    /// From its start to its end, in milliseconds.
    pub(super) ran_for_ms: u64,
    /// How it ended, as in the status.
    pub(super) ended: String,
    /// Its exit code, if it had one.
    pub(super) exit_code: Option<i32>,
    /// The signal that ended it, `SIGSEGV`.
    pub(super) signal: Option<String>,
    /// The kernel has written its memory to a file.
    pub(super) core_dumped: bool,
    /// Processes of it were killed because memory was used up.
    pub(super) oom: bool,
    /// What it might use.
    pub(super) limits: Limits,
    /// What its cgroups have counted.
    pub(super) usage: Usage,
    /// Restarts since it was started on purpose.
    pub(super) restarts: u32,
    /// Restarts without a stable run in between: 0 is the first of a row.
    #[serde(default)]
    pub(super) in_a_row: u32,
    /// What follows, `restart in 2s`.
    pub(super) follows: String,
    /// The end of its output.
    #[serde(default)]
    pub(super) output: Vec<OutputLine>,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutputLine {
    /// Its number in the log.
    number: u64,
    /// When it was read.
    time: String,
    /// `out` or `err`.
    source: String,
    /// What the app wrote; what is no UTF-8 is replaced.
    text: String,
}

/// `SIGSEGV`, `SIGRTMIN+6`.
fn signal_name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => real_time_name(number).unwrap_or_else(|| format!("signal {number}")),
    }
}

#[cfg(target_os = "linux")]
fn real_time_name(number: i32) -> Option<String> {
    let after = number - libc::SIGRTMIN();
    (after >= 0).then(|| format!("SIGRTMIN+{after}"))
}

#[cfg(not(target_os = "linux"))]
fn real_time_name(_number: i32) -> Option<String> {
    None
}

impl Crash {
    /// Fills in how it ended.
    pub(super) fn set_outcome(&mut self, outcome: &Outcome) {
        self.ended = outcome.text();
        match outcome {
            Outcome::Exit(code) | Outcome::OutOfMemory { exit: Some(code), .. } => {
                self.exit_code = Some(*code)
            }
            Outcome::Signal(number) => self.signal = Some(signal_name(*number)),
            Outcome::OutOfMemory { exit: None, .. } => self.signal = Some(signal_name(libc::SIGKILL)),
            Outcome::NotStarted(_) => {}
        }
    }

    /// Reads the end of its output: what the log has from line `first` on.
    pub(super) fn take_output(&mut self, files: &AppFiles, first: u64) {
        // A log that cannot be read is no reason to tell nothing.
        let lines = last_output(&files.log(), first, LINES, BYTES).unwrap_or_default();
        self.output = lines
            .iter()
            .filter_map(|(number, line)| {
                let parts = Parts::of(line)?;
                Some(OutputLine {
                    number: *number,
                    time: parts.time.to_owned(),
                    source: parts.source.to_owned(),
                    text: String::from_utf8_lossy(parts.text).into_owned(),
                })
            })
            .collect();
    }

    fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key} {}", if value.is_empty() { "-" } else { value });
        };
        let count = |value: Option<u64>| value.map(|count| count.to_string()).unwrap_or_default();
        line("crash", &self.at);
        line("app", &self.app);
        line("version", &self.version);
        line("run_hash", &self.run_hash);
        line("ran_for", &render_duration(Duration::from_millis(self.ran_for_ms)));
        line("ended", &self.ended);
        line("exit_code", &self.exit_code.map(|code| code.to_string()).unwrap_or_default());
        line("signal", self.signal.as_deref().unwrap_or_default());
        line("core_dumped", if self.core_dumped { "yes" } else { "no" });
        line("oom", if self.oom { "yes" } else { "no" });
        line("oom_kills", &count(self.usage.oom_kills));
        line("memory_limit", &self.limits.memory.map(render_size).unwrap_or_default());
        line("memory_peak", &self.usage.memory_peak.map(render_size).unwrap_or_default());
        line("pids_limit", &count(self.limits.pids));
        line("pids_peak", &count(self.usage.pids_peak));
        line("pids_refused", &count(self.usage.pids_refused));
        line("cpu_throttled", &count(self.usage.cpu_throttled));
        line("restarts", &self.restarts.to_string());
        line("follows", &self.follows);
        line("output", &format!("{} lines", self.output.len()));
        for shown in &self.output {
            let _ = writeln!(text, "{} {} {} {}", shown.number, shown.time, shown.source, shown.text);
        }
        text
    }
}

/// The time of now, as a post-mortem has it.
pub(super) fn now() -> String {
    render_time(SystemTime::now())
}

/// Puts a post-mortem before those that are there. The first of a row of restarts is kept as long as the row
/// lasts.
pub(super) fn keep(files: &AppFiles, crash: Crash) -> Result<(), RecordError> {
    let path = files.crash_json();
    let mut file = match read_record::<CrashFile>(&path) {
        Ok(file) => file.unwrap_or_default(),
        // One of a newer zed is not overwritten, and a damaged one is worth less than this.
        Err(error) if error.is_newer() => return Err(error),
        Err(_) => CrashFile::default(),
    };
    file.format = FORMAT;
    file.crashes.insert(0, crash);
    while file.crashes.len() > KEEP {
        let last = file.crashes.len() - 1;
        let one_row = file.crashes[..last].iter().all(|crash| crash.in_a_row > 0);
        file.crashes.remove(if one_row { last - 1 } else { last });
    }
    write_record(&path, &file)?;
    let text: Vec<String> = file.crashes.iter().map(Crash::render).collect();
    write_file(&files.crash(), text.join("\n").as_bytes())
}

#[cfg(test)]
mod tests;
