//! What it costs to find that nothing is to be done, how it grows, what others take, and what 10,000 datasets
//! cost in memory and at start.

use super::Options;
use super::Samples;
use super::daemon::Daemon;
use super::goal;
use super::heading;
use super::not_run;
use super::peers;
use super::ratio;
use crate::shell::Cmd;
use std::fmt::Write;
use std::time::Duration;
use std::time::Instant;

/// forjar's no-op over ten resources on such a machine.
const FORJAR: Duration = Duration::from_millis(286);

pub(super) fn run(options: &Options) -> Result<(), String> {
    let sizes: &[u32] = match (options.quick, options.on_zfs) {
        (true, _) => &[10, 100],
        (false, true) => &[10, 1_000],
        (false, false) => &[10, 1_000, 10_000],
    };
    let times = if options.quick { 3 } else { 15 };
    let mut medians = Vec::new();
    let mut lines = Vec::new();
    heading("no-op converge, an app on every tenth dataset");
    for size in sizes {
        let mut daemon = Daemon::start(options.on_zfs)?;
        let deployed = deploy(&daemon, *size)?;
        let samples = no_ops(&daemon, times)?;
        samples.row(&format!("zed, {size} datasets"), None);
        if let Some(dataset) = daemon.dataset() {
            let mut list = Samples::default();
            for _ in 0..3 {
                let start = Instant::now();
                Cmd::new("zfs")
                    .args(["get", "-H", "-r", "-t", "filesystem", "-s", "local", "all", dataset])
                    .read()?;
                list.add(start.elapsed());
            }
            list.row("listing their properties once, `zfs get -r`", Some(samples.median()));
            goal("no worse than listing the properties once", samples.median() <= list.median());
        }
        let rss = daemon.memory("VmRSS")?;
        daemon.stop()?;
        let start_up = daemon.launch()?;
        lines.push(format!(
            "{size:>6} datasets: first converge {:.2} s, resident {:.1} MB, start to `ready` {:.3} s",
            deployed.as_secs_f64(),
            megabytes(rss),
            start_up.as_secs_f64()
        ));
        medians.push((*size, samples.median()));
    }
    verdicts(&medians);
    lines.iter().for_each(|l| println!("   {l}"));
    if options.on_zfs {
        return Ok(());
    }
    against_peers(options, medians.first().map_or(Duration::ZERO, |m| m.1))?;
    super::in_guest(options, "converge").map(|_| ())
}

fn verdicts(medians: &[(u32, Duration)]) {
    if let [.., (a, before), (b, after)] = medians {
        let growth = ratio(*after, *before) / (f64::from(*b) / f64::from(*a));
        goal(&format!("linear: from {a} to {b} the time a dataset grows by {growth:.2}"), growth <= 1.5);
    }
    if let Some((_, took)) = medians.iter().find(|(size, _)| *size == 10_000) {
        goal("under 100 ms for 10,000", *took < Duration::from_millis(100));
    }
}

fn against_peers(options: &Options, zed: Duration) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| format!("no folder: {e}"))?;
    let times = if options.quick { 1 } else { 5 };
    println!();
    heading("no-op over ten resources (zed: ten datasets and an app; the others: ten files)");
    let mut all = Samples::default();
    all.add(zed);
    all.row("zed", Some(zed));
    match peers::ansible(options, dir.path(), times)? {
        Ok(samples) => {
            samples.row("ansible-playbook, local, pipelining", Some(zed));
            goal(
                "at least 1,000 times faster a resource than Ansible",
                ratio(samples.median(), zed) >= 1_000.0,
            );
        }
        Err(why) => not_run("ansible-playbook", &why),
    }
    match peers::pyinfra(options, dir.path(), times)? {
        Ok(samples) => samples.row("pyinfra @local", Some(zed)),
        Err(why) => not_run("pyinfra", &why),
    }
    goal("100 times faster than forjar's 286 ms for ten", ratio(FORJAR, zed) >= 100.0);
    Ok(())
}

/// Deploys a spec of this size and waits until it has converged; gives how long that took.
fn deploy(daemon: &Daemon, size: u32) -> Result<Duration, String> {
    let mut datasets = String::new();
    let mut apps = String::new();
    for n in 0..size {
        // Writing to a string cannot fail.
        let _ = writeln!(datasets, "\"d{n}\": (),");
        if n % 10 == 0 {
            let _ = writeln!(
                apps,
                "\"a{n}\": (dataset: \"d{n}\", version: \"1\", command: [\"true\"], restart: Never),"
            );
        }
    }
    let spec = format!("Deploy(\ndatasets: {{\n{datasets}}},\napps: {{\n{apps}}},\n)\n");
    std::fs::write(daemon.dir().join("big.ron"), spec).map_err(|e| format!("cannot write a spec: {e}"))?;
    let start = Instant::now();
    daemon.sh("cp big.ron zed/deploy/big.ron && sync zed/deploy/big.ron")?;
    Ok(start.elapsed())
}

/// Asks for a look at everything, again and again; the daemon's own clock says how long each took.
fn no_ops(daemon: &Daemon, times: u32) -> Result<Samples, String> {
    let mut samples = Samples::default();
    let mut before = passes(daemon)?;
    for _ in 0..times {
        let start = Instant::now();
        daemon.sh("echo converge > zed/hosts/bench/ctl")?;
        let after = loop {
            let now = passes(daemon)?;
            if now.0 > before.0 {
                break now;
            }
            if start.elapsed() > Duration::from_secs(120) {
                return Err("the daemon does not look".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = (after.1 - before.1) / f64::from(after.0 - before.0);
        samples.add(Duration::from_secs_f64(took.max(0.0)));
        before = after;
    }
    Ok(samples)
}

/// How many looks found nothing to do, and the seconds that all looks took together.
fn passes(daemon: &Daemon) -> Result<(u32, f64), String> {
    let text =
        std::fs::read_to_string(daemon.mount().join("metrics")).map_err(|e| format!("metrics: {e}"))?;
    let value = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
    let count = value("zed_converge_seconds_count").ok_or("metrics have no zed_converge_seconds")?;
    let sum = value("zed_converge_seconds_sum").ok_or("metrics have no zed_converge_seconds")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    Ok((count as u32, sum))
}

fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let bytes = bytes as f64;
    bytes / 1e6
}
