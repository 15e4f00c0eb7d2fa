//! `cargo xtask bench`: what zed costs, beside what the alternatives cost, in one run on one machine.
//!
//! Both sides of a comparison run in turns, so that a busy machine slows both. Medians and the spread (10th to
//! 90th percentile) are printed with the goal and whether it was met; nothing here fails because of a number.

use crate::shell::Cmd;
use std::path::PathBuf;
use std::time::Duration;

mod converge;
mod daemon;
mod front;
mod gpu;
mod peers;
mod read;
mod rollback;
mod supervise;
mod upgrade;

/// Command line of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run only these: read, converge, rollback, front, supervise, upgrade, gpu.
    pub names: Vec<String>,
    /// Fewer repetitions and smaller sizes: shows that the bench works, not how fast zed is.
    #[arg(long)]
    pub quick: bool,
    /// Install nothing: what needs a missing peer is not run.
    #[arg(long)]
    pub no_install: bool,
    /// The part of the bench that runs where ZFS is, on the pool `ZED_TEST_POOL`, with programs already built.
    #[arg(long, hide = true)]
    pub on_zfs: bool,
}

/// Durations of one measured thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        // A position in a list of samples: far below the precision of f64.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small index"
        )]
        let at = (last as f64 * part).round() as usize;
        sorted.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// One row of a table: name, median, spread, count, and the ratio to a yardstick.
    pub(crate) fn row(&self, name: &str, yardstick: Option<Duration>) {
        let ratio = yardstick.map_or(String::new(), |y| format!("{:.2}", ratio(self.median(), y)));
        println!(
            "   {name:<46} {:>10} {:>10} {:>10} {:>8} {ratio:>8}",
            show(self.median()),
            show(self.quantile(0.1)),
            show(self.quantile(0.9)),
            self.0.len(),
        );
    }
}

pub(crate) fn heading(title: &str) {
    println!("== {title}");
    println!("   {:<46} {:>10} {:>10} {:>10} {:>8} {:>8}", "", "median", "p10", "p90", "samples", "ratio");
}

pub(crate) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

pub(crate) fn goal(text: &str, met: bool) {
    println!("   goal: {text}: {}", if met { "met" } else { "NOT met" });
}

pub(crate) fn not_run(what: &str, why: &str) {
    println!("   {what}: not run: {why}");
}

fn show(d: Duration) -> String {
    let micros = d.as_secs_f64() * 1e6;
    match micros {
        m if m < 1_000.0 => format!("{m:.1} us"),
        m if m < 1_000_000.0 => format!("{:.2} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}

/// Runs the benches.
///
/// # Errors
///
/// When something cannot be built or started.
pub fn run(options: &Options) -> Result<u8, String> {
    type Bench = fn(&Options) -> Result<(), String>;
    const BENCHES: &[(&str, Bench)] = &[
        ("read", read::run),
        ("converge", converge::run),
        ("rollback", rollback::run),
        ("front", front::run),
        ("supervise", supervise::run),
        ("upgrade", upgrade::run),
        ("gpu", gpu::run),
    ];
    if let Some(unknown) = options.names.iter().find(|n| !BENCHES.iter().any(|(name, _)| name == n)) {
        return Err(format!(
            "there is no bench `{unknown}`; there are read, converge, rollback, front, supervise, upgrade and gpu"
        ));
    }
    if !options.on_zfs {
        machine();
        let build =
            ["build", "--release", "-p", "zedd", "-p", "zed-ctl", "-p", "zed-tests", "-p", "xtask", "--bins"];
        if !Cmd::cargo().args(build).deadline(Duration::from_secs(45 * 60)).run()?.ok() {
            return Err("the release build failed".into());
        }
    }
    let mut failed = 0;
    for (name, bench) in BENCHES {
        if options.names.is_empty() || options.names.iter().any(|n| n == name) {
            if let Err(why) = bench(options) {
                println!("   {name}: FAILED: {why}");
                failed += 1;
            }
            println!();
        }
    }
    Ok(u8::from(failed > 0))
}

/// The programs of the release build.
pub(crate) fn program(name: &str) -> Result<PathBuf, String> {
    let me = std::env::current_exe().map_err(|e| format!("cannot find xtask itself: {e}"))?;
    let target = me.ancestors().nth(2).ok_or("xtask lies in no target folder")?;
    let path = target.join("release").join(name);
    if path.is_file() { Ok(path) } else { Err(format!("{} is not built", path.display())) }
}

/// Runs the same bench inside the ZFS guest; `false` when there is none.
pub(crate) fn in_guest(options: &Options, name: &str) -> Result<bool, String> {
    let me = std::env::current_exe().map_err(|e| format!("cannot find xtask itself: {e}"))?;
    let target = crate::zfs::target_dir();
    let build = [
        "build",
        "--release",
        "-p",
        "zedd",
        "-p",
        "zed-ctl",
        "-p",
        "xtask",
        "--bins",
        "--features",
        "zedd/zfs",
    ];
    let cmd =
        Cmd::cargo().args(build).env("CARGO_TARGET_DIR", &target).deadline(Duration::from_secs(45 * 60));
    let env = match crate::zfs::build_env() {
        Ok(env) => env,
        Err(why) => {
            not_run("on ZFS", &why);
            return Ok(false);
        }
    };
    if !env.iter().fold(cmd, |cmd, (key, value)| cmd.env(key, value)).run()?.ok() {
        return Err("the release build with ZFS failed".into());
    }
    let mut command =
        vec![target.join("release/xtask").to_string_lossy().into_owned(), "bench".into(), name.into()];
    command.push("--on-zfs".into());
    if options.quick {
        command.push("--quick".into());
    }
    let ended =
        Cmd::new(me).args(["zfs", "--"]).args(command).deadline(Duration::from_secs(60 * 60)).run()?;
    if ended.code == i32::from(crate::zfs::NOT_RUN) {
        not_run("on ZFS", ended.output.lines().last().unwrap_or("it gave no reason").trim());
        return Ok(false);
    }
    if ended.ok() { Ok(true) } else { Err(format!("in the ZFS guest it ended with {}", ended.code)) }
}

fn machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu =
        cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ")).map_or("unknown", |c| c.1);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown");
    println!(
        "machine: {cpu}, {cores} cores, Linux {}, load {load}",
        read("/proc/sys/kernel/osrelease").trim()
    );
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_samples() {
        let mut samples = Samples::default();
        for ms in [5, 1, 4, 2, 3] {
            samples.add(Duration::from_millis(ms));
        }
        assert_eq!(samples.median(), Duration::from_millis(3));
        assert_eq!(samples.quantile(0.0), Duration::from_millis(1));
        assert_eq!(samples.quantile(1.0), Duration::from_millis(5));
        assert_eq!(Samples::default().median(), Duration::ZERO);
    }

    #[test]
    fn durations_are_shown_in_fitting_units() {
        for (micros, shown) in [(12, "12.0 us"), (1_500, "1.50 ms"), (2_000_000, "2.00 s")] {
            assert_eq!(show(Duration::from_micros(micros)), shown);
        }
    }
}
