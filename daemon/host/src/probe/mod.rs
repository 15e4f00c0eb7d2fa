//! Health probes: attempts until an app is healthy, until they are used up, or until its run has ended for good.
//!
//! Never changes anything. What may block (a name lookup, a connection) runs on a thread of its own with its own
//! deadline, so that a cancellation is answered within [`SLICE`].

mod aside;
mod beam;
mod http;
mod tcp;

use crate::command::CommandRequest;
use crate::command::Ended;
use crate::local::LocalHost;
use crate::tail::tail;
use crate::types::Host;
use crate::types::ProbeReport;
use crate::types::ProbeRequest;
use crate::types::ProbeResult;
use crate::types::ProcessInfo;
use aside::aside;
use beam::BeamProbe;
use http::HttpProbe;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use zed_plan::ProcessStatus;
use zed_spec::Probe;

/// Longest time between two looks at the cancellation.
const SLICE: Duration = Duration::from_millis(20);
/// From the first attempt that fails to the next look; each later pause is twice the one before.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// Lines of the app's log in the transcript when its run has ended.
const LOG_LINES: usize = 20;
/// Output of an Exec probe that is shown.
const EXEC_OUTPUT: usize = 1024;

/// What one attempt of one probe saw: the good or the bad news, in a few words.
type Seen = Result<String, String>;

/// What the run itself says, before any probe is asked.
enum RunState {
    /// Runs: the probes decide. `ended` says how it ended before, if it did.
    Up { pid: u32, restarts: u32, one_shot: bool, ended: Option<String> },
    /// Does not run now, and may run again.
    Down(String),
    /// A one-shot that ended well.
    Completed,
    /// Will not run again.
    Over(String),
}

/// Of a program that ended while nobody saw how.
const NO_EXIT: &str = "no exit was seen";
/// What has failed when the program itself does not run.
pub(crate) const PROCESS: &str = "the process";

/// The good news of an attempt, or which probe failed and what it saw.
type Verdict = Result<String, (String, String)>;

/// What one attempt came to.
enum Attempt {
    /// All probes passed, or one failed.
    Seen(Verdict),
    /// A one-shot has ended well: healthy.
    Completed,
    /// The run has ended for good: no further attempt.
    Over(String),
}

struct Probing<'a> {
    host: &'a LocalHost,
    request: &'a ProbeRequest,
    cancel: &'a Arc<AtomicBool>,
    began: Instant,
    transcript: Vec<String>,
    /// How often each probe has failed.
    failures: BTreeMap<String, u32>,
}

/// See [`Host::check`].
pub(crate) fn check(host: &LocalHost, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> Vec<ProbeResult> {
    let probing = Probing::new(host, request, cancel);
    let began = Instant::now();
    let process =
        |passed, text| ProbeResult { probe: PROCESS.to_owned(), passed, text, took: began.elapsed() };
    match probing.run_state() {
        RunState::Up { pid, .. } if request.health.probes.is_empty() => {
            vec![process(true, format!("pid {pid} runs"))]
        }
        RunState::Up { .. } => request.health.probes.iter().map(|probe| probing.measure(probe)).collect(),
        RunState::Completed => vec![process(true, "completed: exit 0".to_owned())],
        RunState::Down(how) | RunState::Over(how) => vec![process(false, how)],
    }
}

/// See [`Host::probe`].
pub(crate) fn probe(host: &LocalHost, request: &ProbeRequest, cancel: &Arc<AtomicBool>) -> ProbeReport {
    let mut probing = Probing::new(host, request, cancel);
    let (healthy, attempts, summary) = probing.run();
    ProbeReport { healthy, attempts, summary, transcript: probing.transcript }
}

impl<'a> Probing<'a> {
    fn new(host: &'a LocalHost, request: &'a ProbeRequest, cancel: &'a Arc<AtomicBool>) -> Self {
        let began = Instant::now();
        Self { host, request, cancel, began, transcript: Vec::new(), failures: BTreeMap::new() }
    }

    fn run(&mut self) -> (bool, u32, String) {
        let health = &self.request.health;
        let (most, needed) = (health.attempts.max(1), health.successes.max(1));
        let mut passes = 0;
        let mut last = Ok(String::new());
        let mut sooner = None;
        for attempt in 1..=most {
            let seen = match sooner.take() {
                Some(seen) => seen,
                None if health.probes.is_empty() => self.watch(),
                None => self.look_and_ask(),
            };
            let seen = match seen {
                _ if self.cancelled() => return self.give_up(attempt),
                Attempt::Over(how) => return self.over(attempt, &how),
                Attempt::Completed => {
                    self.write(attempt, "the program has ended well");
                    return (true, attempt, "completed: exit 0".to_owned());
                }
                Attempt::Seen(seen) => seen,
            };
            passes = if seen.is_ok() { passes + 1 } else { 0 };
            match &seen {
                Ok(text) => self.write(attempt, &format!("passed: {text}")),
                Err((probe, text)) => {
                    self.write(attempt, &format!("failed: {probe}: {text}"));
                    *self.failures.entry(probe.clone()).or_default() += 1;
                }
            }
            last = match seen {
                Ok(text) if passes >= needed || health.probes.is_empty() => return (true, attempt, text),
                seen => seen,
            };
            if attempt == 1 && attempt < most && passes == 0 && !health.probes.is_empty() {
                sooner = self.look_sooner();
            } else if attempt < most {
                self.pause(health.interval);
            }
        }
        self.used_up(most, passes, &last)
    }

    /// The pause after the first attempt. Most programs are up long before it is over, so there are looks in it,
    /// further and further apart. One that decides is the next attempt; the others cost none: a program that starts
    /// slowly has no less time by them.
    fn look_sooner(&mut self) -> Option<Attempt> {
        let until = Instant::now() + self.request.health.interval;
        let (mut wait, mut looks) = (FIRST_LOOK, 0);
        let found = loop {
            let left = until.saturating_duration_since(Instant::now());
            self.pause(wait.min(left));
            if wait >= left || self.cancelled() {
                break None;
            }
            match self.look_and_ask() {
                Attempt::Seen(Err(_)) => looks += 1,
                decided => break Some(decided),
            }
            wait *= 2;
        };
        if looks > 0 {
            let times = if looks == 1 { "once".to_owned() } else { format!("{looks} times") };
            self.transcript.push(format!("asked {times} more in between"));
        }
        found
    }

    /// One attempt with probes.
    fn look_and_ask(&self) -> Attempt {
        match self.run_state() {
            RunState::Over(how) => Attempt::Over(how),
            RunState::Completed => Attempt::Over("it has ended: exit 0".to_owned()),
            RunState::Down(how) => not_running(how),
            RunState::Up { .. } => Attempt::Seen(self.ask_all()),
        }
    }

    /// One attempt without probes: a one-shot has to end well, anything else to run for one interval.
    fn watch(&self) -> Attempt {
        let before = self.run_state();
        if matches!(before, RunState::Up { .. }) {
            self.pause(self.request.health.interval);
        }
        match (before, self.run_state()) {
            (_, RunState::Over(how)) => Attempt::Over(how),
            (_, RunState::Completed) => Attempt::Completed,
            (_, RunState::Down(how)) => not_running(how),
            (_, RunState::Up { pid, one_shot: true, .. }) => {
                not_running(format!("pid {pid} runs and has not ended yet"))
            }
            (RunState::Up { pid: old, restarts: count, .. }, RunState::Up { pid, restarts, .. })
                if old == pid && count == restarts =>
            {
                Attempt::Seen(Ok(format!("pid {pid} has run for {:?}", self.request.health.interval)))
            }
            (_, RunState::Up { restarts, ended, .. }) => not_running(restarted(ended, restarts)),
        }
    }

    fn used_up(&self, attempts: u32, passes: u32, last: &Verdict) -> (bool, u32, String) {
        let of = match attempts {
            1 => "the only attempt".to_owned(),
            many => format!("all {many} attempts"),
        };
        let mut said: Vec<String> = match passes {
            0 => Vec::new(),
            some => vec![format!("{some} of {} passes in a row", self.request.health.successes)],
        };
        said.extend(self.failures.iter().map(|(probe, count)| match count {
            1 => format!("{probe} failed once"),
            many => format!("{probe} failed {many} times"),
        }));
        let mut summary = format!("not healthy after {of}: {}; the last one: ", said.join(", "));
        match last {
            Ok(text) => summary.push_str(text),
            Err((probe, text)) => summary.push_str(&format!("{probe}: {text}")),
        }
        // A program that ends again and again is seldom down at the very moment of the last attempt.
        let is_told = matches!(last, Err((probe, _)) if probe == PROCESS);
        if let Some(how) = self.end_of_the_program().filter(|_| !is_told) {
            summary.push_str(&format!("; {PROCESS}: {how}"));
        }
        (false, attempts, summary)
    }

    /// How the program of this run ended the last time, if it ever did.
    fn end_of_the_program(&self) -> Option<String> {
        match self.run_state() {
            RunState::Up { ended, restarts, .. } => ended.is_some().then(|| restarted(ended, restarts)),
            RunState::Down(how) | RunState::Over(how) => Some(how),
            RunState::Completed => None,
        }
    }

    fn over(&mut self, attempt: u32, how: &str) -> (bool, u32, String) {
        self.write(attempt, how);
        match tail(&self.host.log_path(&self.request.instance), LOG_LINES) {
            Ok(lines) if !lines.is_empty() => {
                self.transcript.push("the end of its log:".to_owned());
                self.transcript.extend(lines);
            }
            Ok(_) => self.transcript.push("its log is empty".to_owned()),
            Err(e) => self.transcript.push(format!("its log cannot be read: {e}")),
        }
        (false, attempt, format!("app {}: {how}", self.request.instance))
    }

    fn give_up(&mut self, attempts: u32) -> (bool, u32, String) {
        self.write(attempts, "cancelled");
        (false, attempts, format!("cancelled after {attempts} attempts"))
    }

    fn write(&mut self, attempt: u32, text: &str) {
        let at = self.began.elapsed();
        self.transcript.push(format!("attempt {attempt} at {:.3}s: {text}", at.as_secs_f64()));
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Waits, but not on when cancelled or when the run is over.
    fn pause(&self, interval: Duration) {
        let until = Instant::now() + interval;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let over = || matches!(self.run_state(), RunState::Over(_) | RunState::Completed);
            if left.is_zero() || self.cancelled() || over() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }

    fn run_state(&self) -> RunState {
        let look = match self.host.look(&self.request.instance) {
            Ok(look) => look,
            Err(e) => return RunState::Down(format!("its record cannot be read: {e}")),
        };
        let one_shot = matches!(&look.record, Some(Ok(record)) if record.one_shot);
        match self.host.info(&look) {
            None => RunState::Over("it was never started".to_owned()),
            Some(info) => state_of(info, &self.request.run_hash, one_shot),
        }
    }

    fn ask_all(&self) -> Verdict {
        let mut news = Vec::new();
        for probe in &self.request.health.probes {
            let name = name_of(probe);
            match self.ask(probe) {
                Ok(text) => news.push(format!("{name}: {text}")),
                Err(text) => return Err((name, text)),
            }
            if self.cancelled() {
                return Err((name, "cancelled".to_owned()));
            }
        }
        Ok(news.join("; "))
    }

    fn measure(&self, probe: &Probe) -> ProbeResult {
        let began = Instant::now();
        let (passed, text) = match self.ask(probe) {
            Ok(text) => (true, text),
            Err(text) => (false, text),
        };
        ProbeResult { probe: name_of(probe), passed, text, took: began.elapsed() }
    }

    fn ask(&self, probe: &Probe) -> Seen {
        let timeout = self.request.health.timeout;
        match probe {
            Probe::Http { url, expect, body, ca, insecure } => {
                let probe = HttpProbe {
                    url: url.clone(),
                    expect: *expect,
                    body: body.clone(),
                    ca: ca.clone(),
                    insecure: *insecure,
                };
                aside(timeout, self.cancel, move |until| probe.ask(timeout, until))
            }
            Probe::Tcp { address } => {
                let address = address.clone();
                aside(timeout, self.cancel, move |until| tcp::ask(&address, timeout, until))
            }
            Probe::Exec { command } => self.ask_exec(command),
            Probe::BeamPing => {
                let probe = BeamProbe::of(&self.request.environment, &self.request.directory)?;
                aside(timeout, self.cancel, move |until| probe.ask(timeout, until))
            }
        }
    }

    fn ask_exec(&self, argv: &[String]) -> Seen {
        let request = self.request;
        let command = CommandRequest {
            argv: argv.to_vec(),
            program: None,
            environment: request.environment.clone(),
            directory: Some(request.directory.clone()),
            input: Vec::new(),
            deadline: request.health.timeout,
            // A probe holds nothing that would need an orderly end.
            grace: SLICE,
            keep: EXEC_OUTPUT,
        };
        let cancel: &AtomicBool = self.cancel;
        let (user, group) = (request.user.as_deref(), request.group.as_deref());
        let finished = self
            .host
            .run_beside(&request.instance, command, user, group, Some(cancel))
            .map_err(|error| error.kind.to_string())?;
        match finished.ended {
            Ended::Exit(0) => Ok("exit 0".to_owned()),
            ended => {
                let output = String::from_utf8_lossy(&finished.output);
                let said = output.lines().rev().find(|line| !line.trim().is_empty());
                Err(said.map_or(ended.to_string(), |line| format!("{ended}: {}", line.trim())))
            }
        }
    }
}

fn not_running(how: String) -> Attempt {
    Attempt::Seen(Err((PROCESS.to_owned(), how)))
}

fn restarted(ended: Option<String>, restarts: u32) -> String {
    let how = ended.unwrap_or_else(|| NO_EXIT.to_owned());
    let times = if restarts == 1 { "once".to_owned() } else { format!("{restarts} times") };
    format!("the program has ended ({how}) and has been restarted {times}")
}

pub(crate) fn name_of(probe: &Probe) -> String {
    match probe {
        Probe::Http { url, .. } => format!("GET {url}"),
        Probe::Tcp { address } => format!("connect to {address}"),
        Probe::Exec { command } => format!("run `{}`", command.join(" ")),
        Probe::BeamPing => "BeamPing".to_owned(),
    }
}

fn state_of(info: ProcessInfo, run_hash: &str, one_shot: bool) -> RunState {
    if info.observed.run_hash != run_hash {
        return RunState::Over(format!("another run of it is there, version {}", info.version));
    }
    let (restarts, ended) = (info.restarts, info.last_exit);
    let last = ended.clone().unwrap_or_else(|| NO_EXIT.to_owned());
    match info.observed.status {
        ProcessStatus::Running { pid } => RunState::Up { pid, restarts, one_shot, ended },
        ProcessStatus::Backoff { restarts } => {
            RunState::Down(format!("the program has ended ({last}) and waits for restart {}", restarts + 1))
        }
        ProcessStatus::Completed => RunState::Completed,
        ProcessStatus::Failed(how) => RunState::Over(format!("it has failed: {how}")),
        ProcessStatus::Stopped => RunState::Over("it was stopped".to_owned()),
        ProcessStatus::Gone { rebooted: true } => RunState::Over("the host has booted since".to_owned()),
        ProcessStatus::Gone { rebooted: false } => {
            RunState::Over(format!("it and its supervisor are gone ({last})"))
        }
    }
}
