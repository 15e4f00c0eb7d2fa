//! What supervision of an app costs, in memory and CPU, beside runit and s6 with a logger each.
//!
//! Counted are the processes that stay for each app: a supervisor of zed's, `runsv` and `svlogd`, `s6-supervise` and
//! `s6-log`; not what there is once for all (zedd, `runsvdir`, `s6-svscan`), and not the app.

use super::Options;
use super::daemon::Daemon;
use super::not_run;
use crate::leftovers;
use crate::shell::has_program;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// How long processes may take to be there.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much is done.
struct Size {
    apps: u32,
    quiet: Duration,
    lines: u32,
}

/// What each app costs.
struct Cost {
    /// Bytes that nobody else has, of the processes for one app.
    private: u64,
    /// Resident bytes, shared ones by their share.
    proportional: u64,
    /// CPU time of the processes of all apps while nothing happens.
    quiet: Duration,
    /// Times that they woke meanwhile.
    wakes: u64,
    /// CPU time for the lines of one app.
    lines: Duration,
}

pub(super) fn run(options: &Options) -> Result<(), String> {
    let size = if options.quick {
        Size { apps: 5, quiet: Duration::from_secs(1), lines: 10_000 }
    } else {
        Size { apps: 50, quiet: Duration::from_secs(10), lines: 1_000_000 }
    };
    println!(
        "== supervision: {} apps that sleep for {} s, and one that writes {} lines",
        size.apps,
        size.quiet.as_secs(),
        size.lines
    );
    println!(
        "   {:<34} {:>12} {:>12} {:>12} {:>8} {:>12}",
        "", "private/app", "share/app", "quiet CPU", "wakes", "lines CPU"
    );
    row("zed", &of_zed(&size)?);
    for (name, program, package, measure) in [
        ("runit: runsv and svlogd -tt", "runsvdir", "runit", of_runit as fn(&Size) -> Result<Cost, String>),
        ("s6: s6-supervise and s6-log t", "s6-svscan", "s6", of_s6),
    ] {
        if has_program(program) {
            row(name, &measure(&size)?);
        } else {
            not_run(name, &format!("there is no {program} (Debian: apt-get install {package})"));
        }
    }
    Ok(())
}

fn row(name: &str, cost: &Cost) {
    println!(
        "   {name:<34} {:>8} KiB {:>8} KiB {:>9.1} ms {:>8} {:>9.1} ms",
        cost.private / 1024,
        cost.proportional / 1024,
        cost.quiet.as_secs_f64() * 1e3,
        cost.wakes,
        cost.lines.as_secs_f64() * 1e3,
    );
}

/// The shell command of the app that writes.
fn writer(lines: u32) -> String {
    format!("seq {lines}; echo the last line; exec sleep 1000000")
}

fn of_zed(size: &Size) -> Result<Cost, String> {
    let daemon = Daemon::start(false)?;
    let (mut datasets, mut apps) = (String::new(), String::new());
    for n in 0..=size.apps {
        let command = if n == size.apps { writer(size.lines) } else { "exec sleep 1000000".to_owned() };
        // Writing to a string cannot fail.
        let _ = writeln!(datasets, "\"d{n}\": (),");
        let _ = writeln!(
            apps,
            "\"a{n}\": (dataset: \"d{n}\", version: \"1\", command: [\"sh\", \"-c\", \"{command}\"]),"
        );
    }
    let spec = format!("Deploy(\ndatasets: {{\n{datasets}}},\napps: {{\n{apps}}},\n)\n");
    std::fs::write(daemon.dir().join("many.ron"), spec).map_err(|e| format!("cannot write a spec: {e}"))?;
    daemon.sh("cp many.ron zed/deploy/many.ron && sync zed/deploy/many.ron")?;
    let log = format!("zed/apps/a{}/log", size.apps);
    daemon.sh(&format!("until tail -n 1 {log} | grep -q 'the last line'; do sleep 0.1; done"))?;
    let of_writer = format!("/apps/a{}\0", size.apps);
    measure(
        daemon.dir(),
        size,
        |line| line.starts_with("zedd\0supervise\0"),
        |line| line.ends_with(&of_writer),
    )
}

/// A tree of services, and the program that looks after it; all of it is gone when this is dropped.
struct Services {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Services {
    /// `log` is the logger's command for a folder.
    fn start(size: &Size, scanner: &str, log: impl Fn(&Path) -> String) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("cannot make a service: {e}");
        let dir = tempfile::Builder::new().prefix("zed-bench-").tempdir().map_err(failed)?;
        for n in 0..=size.apps {
            let service = dir.path().join(format!("scan/a{n}"));
            let logs = dir.path().join(format!("logs/a{n}"));
            std::fs::create_dir_all(service.join("log")).map_err(failed)?;
            std::fs::create_dir_all(&logs).map_err(failed)?;
            let command = if n == size.apps { writer(size.lines) } else { "exec sleep 1000000".to_owned() };
            script(&service.join("run"), &format!("exec 2>&1\n{command}")).map_err(failed)?;
            script(&service.join("log/run"), &format!("exec {}", log(&logs))).map_err(failed)?;
        }
        let child = Command::new(scanner)
            .arg(dir.path().join("scan"))
            .env("ZED_TEST_TAG", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start {scanner}: {e}"))?;
        let services = Self { dir, child: Some(child) };
        let current = services.dir.path().join(format!("logs/a{}/current", size.apps));
        wait_for("the last line", || {
            let text = std::fs::read(&current).unwrap_or_default();
            text.ends_with(b"the last line\n").then_some(())
        })?;
        Ok(services)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // First the one that would start the others again.
            let _ = child.kill();
            let _ = child.wait();
        }
        leftovers::end_apps(self.dir.path());
    }
}

fn script(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Both loggers rotate at 16 MiB and keep three, as zed does.
fn of_runit(size: &Size) -> Result<Cost, String> {
    let services = Services::start(size, "runsvdir", |logs| {
        // Its configuration is a file in the folder of the logs.
        let _ = std::fs::write(logs.join("config"), "s16777215\nn3\n");
        format!("svlogd -tt {}", logs.display())
    })?;
    let writer = format!("a{}", size.apps);
    let is_ours = |line: &str| line.starts_with("runsv\0") || line.starts_with("svlogd\0");
    let of_writer = |line: &str| {
        line.trim_end_matches('\0').ends_with(&format!("/{writer}")) || line == format!("runsv\0{writer}\0")
    };
    measure(services.dir.path(), size, is_ours, of_writer)
}

fn of_s6(size: &Size) -> Result<Cost, String> {
    let log = |logs: &Path| format!("s6-log t s16777215 n3 {}", logs.display());
    let services = Services::start(size, "s6-svscan", log)?;
    let writer = format!("a{}", size.apps);
    let is_ours = |line: &str| line.starts_with("s6-supervise\0") || line.starts_with("s6-log\0");
    let of_writer = |line: &str| {
        line.trim_end_matches('\0').ends_with(&format!("/{writer}"))
            || line == format!("s6-supervise\0{writer}\0")
            || line == format!("s6-supervise\0{writer}/log\0")
    };
    measure(services.dir.path(), size, is_ours, of_writer)
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("waited in vain for {what}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Measures the processes of a folder whose command line is meant; arguments end with NUL.
fn measure(
    dir: &Path,
    size: &Size,
    is_ours: impl Fn(&str) -> bool,
    of_writer: impl Fn(&str) -> bool,
) -> Result<Cost, String> {
    // What happens shortly after a start is not the quiet.
    std::thread::sleep(Duration::from_secs(2));
    let ours: Vec<(i32, bool)> = leftovers::processes_of(dir)
        .into_iter()
        .filter_map(|pid| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            is_ours(&line).then(|| (pid, of_writer(&line)))
        })
        .collect();
    let sleepers: Vec<i32> = ours.iter().filter(|(_, writes)| !writes).map(|(pid, _)| *pid).collect();
    let writers: Vec<i32> = ours.iter().filter(|(_, writes)| *writes).map(|(pid, _)| *pid).collect();
    if writers.is_empty() || sleepers.len() < size.apps as usize {
        return Err(format!(
            "of {} apps {} supervisors were found, and {} of the one that writes",
            size.apps,
            sleepers.len(),
            writers.len()
        ));
    }
    let total =
        |pids: &[i32], value: fn(i32) -> Option<u64>| pids.iter().filter_map(|pid| value(*pid)).sum::<u64>();
    let lines = Duration::from_nanos(total(&writers, cpu));
    let (cpu_before, wakes_before) = (total(&sleepers, cpu), total(&sleepers, wakes));
    std::thread::sleep(size.quiet);
    Ok(Cost {
        private: total(&sleepers, private) / u64::from(size.apps),
        proportional: total(&sleepers, proportional) / u64::from(size.apps),
        quiet: Duration::from_nanos(total(&sleepers, cpu) - cpu_before),
        wakes: total(&sleepers, wakes) - wakes_before,
        lines,
    })
}

/// The sum of the lines of a file of `/proc/PID` that begin with one of these.
fn field(pid: i32, file: &str, names: &[&str]) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let values = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        names.contains(&name).then(|| value.trim().trim_end_matches(" kB").parse::<u64>().ok())?
    });
    Some(values.sum())
}

/// Bytes.
fn private(pid: i32) -> Option<u64> {
    field(pid, "smaps_rollup", &["Private_Clean", "Private_Dirty"]).map(|kib| kib * 1024)
}

/// Bytes.
fn proportional(pid: i32) -> Option<u64> {
    field(pid, "smaps_rollup", &["Pss"]).map(|kib| kib * 1024)
}

fn wakes(pid: i32) -> Option<u64> {
    field(pid, "status", &["voluntary_ctxt_switches"])
}

/// Nanoseconds on a CPU.
fn cpu(pid: i32) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?.split(' ').next()?.parse().ok()
}
