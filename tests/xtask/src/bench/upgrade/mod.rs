//! What an upgrade costs: from `cp` of a new version to "healthy and serving", and what clients lose meanwhile.
//!
//! Beside zed are supervisor (Debian's; the plain answer on one host: a file of programs, `supervisorctl update`)
//! and PM2 (npm; the process manager that is chosen for its reload without downtime). Both are told of the new
//! version as their manuals say. Times are a client's: the first answer of the new version, minus what the program
//! itself takes to answer when a shell starts it.

mod clients;
mod managers;

use super::Options;
use super::Samples;
use super::goal;
use super::heading;
use super::not_run;
use crate::leftovers;
use clients::Load;
use managers::Manager;
use managers::Program;
use managers::Zed;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// Clients reach the first app here, the others at the next ports.
const PORT: u16 = 18_200;
/// How long a version may take to serve.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two rounds of questions.
const ROUND: Duration = Duration::from_millis(2);
/// Programs, and the Debian packages they are in.
const PROGRAMS: &[(&str, &str)] =
    &[("busybox", "busybox-static"), ("supervisord", "supervisor"), ("node", "nodejs"), ("npm", "npm")];

struct Size {
    apps: u16,
    /// Upgrades of one app, and of all of them.
    one: u32,
    all: u32,
    /// Upgrades under load, and how long the load lasts around each.
    loaded: u32,
    around: Duration,
}

pub(super) fn run(options: &Options) -> Result<(), String> {
    if options.on_zfs {
        return Ok(());
    }
    let size = if options.quick {
        Size { apps: 3, one: 2, all: 1, loaded: 1, around: Duration::from_millis(500) }
    } else {
        Size { apps: 50, one: 10, all: 3, loaded: 5, around: Duration::from_secs(2) }
    };
    let missing = crate::suite::install_programs(options.no_install, PROGRAMS)?;
    if let Some(missing) = missing.as_deref() {
        not_run("upgrade", missing);
        return Ok(());
    }
    let pm2 = managers::pm2_program(options.no_install)?;
    if let Err(why) = &pm2 {
        not_run("PM2", why);
    }
    let pm2 = pm2.ok();
    for (count, times) in [(1, size.one), (size.apps, size.all)] {
        times_of(count, times, pm2.as_deref())?;
        println!();
    }
    losses(&size, pm2.as_deref())
}

/// The table of times: `count` apps get a new version at once, `times` times.
fn times_of(count: u16, times: u32, pm2: Option<&Path>) -> Result<(), String> {
    heading(&format!("upgrade: cp of a new version, {count} app(s), `serves` without their own start"));
    let mut own = Samples::default();
    for _ in 0..times {
        own.add(bare_start(count)?);
    }
    own.row("busybox httpd, started by a shell: serves", None);
    let own = own.median();
    let replace = Zed { strategy: "Replace", listen: None, instances: 1 };
    let blue_green = Zed { strategy: "BlueGreen", listen: Some("http"), instances: 1 };
    let mut zed = None;
    let mut measure = |name: &str, start: &dyn Fn() -> Result<Manager, String>| -> Result<(), String> {
        let manager = start()?;
        await_version(count, 1)?;
        let (mut all, mut told) = (Samples::default(), Samples::default());
        for version in 2..times + 2 {
            let begin = Instant::now();
            let teller = manager.upgrade(version)?;
            all.add((await_version(count, version)? - begin).saturating_sub(own));
            teller.join().map_err(|_| "the upgrade's thread has ended badly")??;
            told.add(begin.elapsed());
        }
        all.row(&format!("{name}: serves"), zed);
        told.row(&format!("{name}: the command ends"), None);
        zed.get_or_insert(all.median());
        Ok(())
    };
    measure("zed, Replace", &|| Manager::zed(&replace, Program::Busybox, count))?;
    measure("zed, BlueGreen, http front", &|| Manager::zed(&blue_green, Program::Busybox, count))?;
    measure("supervisor, update", &|| Manager::supervisor(Program::Busybox, count))?;
    if let Some(pm2) = pm2 {
        measure("PM2, startOrReload", &|| Manager::pm2(pm2, Program::Busybox, count))?;
    }
    Ok(())
}

/// How long the program takes from its start to its first answer, `count` of them at once.
fn bare_start(count: u16) -> Result<Duration, String> {
    let dir = managers::folder()?;
    let script: String = (0..count)
        .map(|n| format!("({}) &\n", Program::Busybox.shell(dir.path(), n, PORT + n, "0")))
        .collect();
    let begin = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot start sh: {e}"))?;
    let serving = await_version(count, 0);
    leftovers::end_apps(dir.path());
    let _ = child.wait();
    Ok(serving? - begin)
}

/// Waits until every app answers with this version; gives when the last one did.
fn await_version(count: u16, version: u32) -> Result<Instant, String> {
    let begin = Instant::now();
    let mut waiting: Vec<u16> = (PORT..PORT + count).collect();
    let wanted = version.to_string();
    loop {
        waiting.retain(|port| clients::answers(*port).is_none_or(|text| text.trim_end() != wanted));
        if waiting.is_empty() {
            return Ok(Instant::now());
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("{} of {count} apps do not serve version {version}", waiting.len()));
        }
        std::thread::sleep(ROUND);
    }
}

/// The table of losses: clients go on asking while one app is upgraded.
fn losses(size: &Size, pm2: Option<&Path>) -> Result<(), String> {
    let zed = |strategy, listen, instances| Zed { strategy, listen: Some(listen), instances };
    let rolling = "Rolling(batch: 1)";
    let (green_http, green_tcp) = (zed("BlueGreen", "http", 1), zed("BlueGreen", "tcp", 1));
    let (rolling_http, rolling_tcp) = (zed(rolling, "http", 2), zed(rolling, "tcp", 2));
    let app = Program::Node;
    for kept in [true, false] {
        let what = if kept { "kept connections" } else { "a connection a request" };
        println!("== upgrade under load: {} clients, {what}, an app on Node.js", clients::CLIENTS);
        println!("   {:<46} {:>10} {:>8} {:>10} {:>10}", "", "requests", "lost", "p50", "p99");
        let mut lost = 0;
        let mut row =
            |name: &str, of_zed: bool, start: &dyn Fn() -> Result<Manager, String>| -> Result<(), String> {
                let manager = start()?;
                await_version(1, 1)?;
                let load = Load::start(PORT, kept);
                for version in 2..size.loaded + 2 {
                    std::thread::sleep(size.around);
                    let teller = manager.upgrade(version)?;
                    await_version(1, version)?;
                    teller.join().map_err(|_| "the upgrade's thread has ended badly")??;
                }
                std::thread::sleep(size.around);
                let seen = load.end();
                println!(
                    "   {name:<46} {:>10} {:>8} {:>10} {:>10}{}",
                    seen.times.0.len(),
                    seen.lost,
                    super::show(seen.times.quantile(0.5)),
                    super::show(seen.times.quantile(0.99)),
                    seen.example.map_or(String::new(), |why| format!("  ({why})")),
                );
                lost += if of_zed { seen.lost } else { 0 };
                Ok(())
            };
        row("zed, BlueGreen, http front", true, &|| Manager::zed(&green_http, app, 1))?;
        row("zed, BlueGreen, tcp front", true, &|| Manager::zed(&green_tcp, app, 1))?;
        row("zed, Rolling over two, http front", true, &|| Manager::zed(&rolling_http, app, 1))?;
        row("zed, Rolling over two, tcp front", true, &|| Manager::zed(&rolling_tcp, app, 1))?;
        row("supervisor, update", false, &|| Manager::supervisor(app, 1))?;
        if let Some(pm2) = pm2 {
            row("PM2, cluster of two, reload", false, &|| Manager::pm2(pm2, app, 1))?;
        }
        goal(&format!("zed loses none of them ({lost})"), lost == 0);
        println!();
    }
    Ok(())
}
