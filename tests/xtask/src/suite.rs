//! `cargo xtask test`: the tiers, what each needs, and what came of them. A tier that cannot run says so and
//! why; nothing is skipped in silence.

use crate::count::Counts;
use crate::count::counts;
use crate::shell::Cmd;
use crate::shell::Ended;
use crate::shell::has_program;
use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

mod cross;
mod gpu;
mod tools;

/// Command line of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run only these tiers: fmt, clippy, unit, tidy, doc, cross, fault, fuse, gpu, demo, tools, zfs.
    pub tiers: Vec<String>,
    /// Leave these tiers out (each is printed as not run).
    #[arg(long, value_name = "TIER")]
    pub without: Vec<String>,
    /// Install nothing: tiers whose tools are missing are not run.
    #[arg(long)]
    pub no_install: bool,
}

/// What came of a tier.
enum Outcome {
    Passed,
    Failed(String),
    NotRun(String),
}

/// One tier of the suite.
struct Tier {
    name: &'static str,
    what: &'static str,
    run: fn(&Options, &mut Counts) -> Result<Outcome, String>,
}

const TIERS: &[Tier] = &[
    Tier { name: "fmt", what: "rustfmt leaves every file as it is", run: fmt },
    Tier { name: "clippy", what: "no warning, in any target", run: clippy },
    Tier { name: "unit", what: "unit and integration tests of every crate", run: unit },
    Tier { name: "tidy", what: "dependency rules, sizes, documents", run: tidy },
    Tier { name: "doc", what: "rustdoc without a warning, and its examples", run: doc },
    Tier { name: "cross", what: "the workspace type-checks for FreeBSD and illumos", run: cross::tier },
    Tier { name: "fault", what: "kill or fail at every step of deploy and rollback", run: fault },
    Tier { name: "fuse", what: "the daemon through a real mount and its socket", run: fuse },
    Tier { name: "gpu", what: "GPU nodes on a real Vulkan driver (lavapipe)", run: gpu::tier },
    Tier { name: "demo", what: "the newcomer's tour, as a newcomer runs it", run: demo },
    Tier { name: "tools", what: "ansible, rsync, vim, install, sed on a real mount", run: tools::tier },
    Tier { name: "zfs", what: "stores, faults and the daemon on real OpenZFS", run: zfs },
];

/// Features of zed-tests that switch on tests which need more than a compiler.
const E2E: &str = "zed-tests/fuse,zed-tests/tools";

/// Runs the tiers and prints what came of each. 0 when all that ran passed and at least one ran.
///
/// # Errors
///
/// When a tier is named that does not exist.
pub fn run(options: &Options) -> Result<u8, String> {
    for name in options.tiers.iter().chain(&options.without) {
        if !TIERS.iter().any(|t| t.name == name) {
            let known: Vec<_> = TIERS.iter().map(|t| t.name).collect();
            return Err(format!("there is no tier `{name}`; the tiers are {}", known.join(", ")));
        }
    }
    let mut rows = Vec::new();
    let mut total = Counts::default();
    for tier in TIERS {
        if !options.tiers.is_empty() && !options.tiers.iter().any(|n| n == tier.name) {
            continue;
        }
        println!("== tier {}: {}", tier.name, tier.what);
        let start = Instant::now();
        let mut sum = Counts::default();
        let outcome = if options.without.iter().any(|n| n == tier.name) {
            Outcome::NotRun("left out by --without".into())
        } else {
            (tier.run)(options, &mut sum).unwrap_or_else(Outcome::Failed)
        };
        match &outcome {
            Outcome::Passed => println!("tier {}: passed", tier.name),
            Outcome::Failed(why) => println!("tier {}: FAILED: {why}", tier.name),
            Outcome::NotRun(why) => println!("tier {}: not run: {why}", tier.name),
        }
        println!();
        total += sum;
        rows.push((tier.name, outcome, sum, start.elapsed()));
    }
    println!("{:<8} {:<8} {:>7} {:>7} {:>7}  reason", "tier", "result", "passed", "failed", "seconds");
    for (name, outcome, sum, took) in &rows {
        let (result, why) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
            Outcome::NotRun(why) => ("not run", why.as_str()),
        };
        let line =
            format!("{name:<8} {result:<8} {:>7} {:>7} {:>7}  {why}", sum.passed, sum.failed, took.as_secs());
        println!("{}", line.trim_end());
    }
    let failed = rows.iter().filter(|r| matches!(r.1, Outcome::Failed(_))).count();
    let ran = rows.iter().filter(|r| !matches!(r.1, Outcome::NotRun(_))).count();
    println!("{ran} tiers ran, {failed} of them failed, {} not run", rows.len() - ran);
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(u8::from(failed > 0 || ran == 0))
}

fn fmt(_: &Options, _: &mut Counts) -> Result<Outcome, String> {
    verdict(&Cmd::cargo().args(["fmt", "--all", "--check"]).run()?)
}

fn clippy(_: &Options, _: &mut Counts) -> Result<Outcome, String> {
    let cmd = Cmd::cargo().args(["clippy", "--workspace", "--all-targets", "--features", E2E]);
    verdict(&cmd.args(["--", "-D", "warnings"]).run()?)
}

fn unit(options: &Options, sum: &mut Counts) -> Result<Outcome, String> {
    tools::runtimes(options)?;
    let python = tools::readers(options)?;
    let env: Vec<(&str, &OsStr)> =
        python.iter().map(|python| ("ZED_TEST_JAILCONF", python.as_os_str())).collect();
    tests(sum, &["--workspace"], &Pick::Without("faults"), &env)
}

fn tidy(_: &Options, _: &mut Counts) -> Result<Outcome, String> {
    let tree = crate::tidy::Tree::read(&crate::root())?;
    let findings = crate::tidy::check(&tree)?;
    findings.iter().for_each(|f| println!("   {f}"));
    Ok(match findings.len() {
        0 => Outcome::Passed,
        n => Outcome::Failed(format!("{n} findings")),
    })
}

fn doc(_: &Options, sum: &mut Counts) -> Result<Outcome, String> {
    let cmd = Cmd::cargo().env("RUSTDOCFLAGS", "-D warnings");
    let ended = cmd.args(["doc", "--workspace", "--no-deps", "--quiet"]).run()?;
    if !ended.ok() {
        return verdict(&ended);
    }
    let ended = Cmd::cargo().args(["test", "--workspace", "--doc", "--quiet"]).run()?;
    *sum += counts(&ended.output);
    verdict(&ended)
}

fn fault(options: &Options, sum: &mut Counts) -> Result<Outcome, String> {
    let in_process = tests(sum, &["--package", "zedd"], &Pick::Only("faults"), &[])?;
    if let Some(why) = without_mount(options)? {
        return Ok(match in_process {
            Outcome::Passed => Outcome::NotRun(format!("the part that kills the real program: {why}")),
            other => other,
        });
    }
    build_programs()?;
    let select = ["--package", "zed-tests", "--features", "zed-tests/fuse"];
    let by_kill = tests(sum, &select, &Pick::Only("faults"), &[])?;
    Ok(if matches!(in_process, Outcome::Passed) { by_kill } else { in_process })
}

fn fuse(options: &Options, sum: &mut Counts) -> Result<Outcome, String> {
    tools::runtimes(options)?;
    if let Some(why) = without_mount(options)? {
        return Ok(Outcome::NotRun(why));
    }
    build_programs()?;
    let select = ["--package", "zed-tests", "--features", "zed-tests/fuse"];
    tests(sum, &select, &Pick::Without("faults"), &[])
}

/// Why nothing can be mounted here, if so; installs what is missing and may be installed.
fn without_mount(options: &Options) -> Result<Option<String>, String> {
    if !Path::new("/dev/fuse").exists() {
        return Ok(Some("there is no /dev/fuse".into()));
    }
    tools::install(options, &[("fusermount3", "fuse3"), ("curl", "curl"), ("python3", "python3")])
}

fn demo(_: &Options, _: &mut Counts) -> Result<Outcome, String> {
    let me = std::env::current_exe().map_err(|e| format!("cannot find xtask itself: {e}"))?;
    verdict(&Cmd::new(me).arg("demo").run()?)
}

fn zfs(_: &Options, sum: &mut Counts) -> Result<Outcome, String> {
    // Another process, so that what it prints is seen, kept and counted like that of any test runner.
    let me = std::env::current_exe().map_err(|e| format!("cannot find xtask itself: {e}"))?;
    let ended = Cmd::new(me).args(["zfs", "test"]).deadline(Duration::from_secs(60 * 60)).run()?;
    *sum += counts(&ended.output);
    if ended.code == i32::from(crate::zfs::NOT_RUN) {
        let why = ended.output.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("it gave no reason");
        return Ok(Outcome::NotRun(why.trim().to_owned()));
    }
    verdict(&ended)
}

/// Builds zedd and zedctl, which the end-to-end tests start.
fn build_programs() -> Result<(), String> {
    let ended = Cmd::cargo().args(["build", "--package", "zedd", "--package", "zed-ctl", "--bins"]).run()?;
    if ended.ok() { Ok(()) } else { Err("zedd and zedctl do not build".into()) }
}

/// Which test programs of the selected packages run.
enum Pick {
    /// All.
    All,
    /// Those of this name.
    Only(&'static str),
    /// All but those of this name.
    Without(&'static str),
}

/// Runs tests with nextest where it is installed, else with `cargo test`.
fn tests(sum: &mut Counts, select: &[&str], pick: &Pick, env: &[(&str, &OsStr)]) -> Result<Outcome, String> {
    let deadline = Duration::from_secs(40 * 60);
    let nextest = Cmd::cargo().args(["nextest", "--version"]).quiet().run().is_ok_and(|e| e.ok());
    let cmd = if nextest {
        let cmd =
            Cmd::cargo().args(["nextest", "run", "--no-fail-fast", "--status-level", "slow"]).args(select);
        let cmd = cmd.args(["--cargo-quiet", "--show-progress", "none"]);
        cmd.arg("-E").arg(match pick {
            Pick::All => "all()".to_owned(),
            Pick::Only(name) => format!("binary({name})"),
            Pick::Without(name) => format!("not binary({name})"),
        })
    } else {
        let cmd = Cmd::cargo().args(["test", "--no-fail-fast", "--quiet"]).args(select);
        match pick {
            Pick::Only(name) => cmd.args(["--test", name]),
            // `cargo test` cannot leave a program out: it runs here too.
            Pick::All | Pick::Without(_) => cmd.args(["--lib", "--bins", "--tests"]),
        }
    };
    let cmd = env.iter().fold(cmd, |cmd, (key, value)| cmd.env(key, value));
    let ended = cmd.deadline(deadline).run()?;
    let found = counts(&ended.output);
    *sum += found;
    if ended.ok() && found.passed == 0 {
        return Ok(Outcome::Failed("no test ran".into()));
    }
    verdict(&ended)
}

fn verdict(ended: &Ended) -> Result<Outcome, String> {
    Ok(match ended.code {
        0 => Outcome::Passed,
        124 => Outcome::Failed("it did not end before its deadline".into()),
        code => Outcome::Failed(format!("exit status {code}")),
    })
}

/// The folder with Ansible's programs; the inner error says why there is none.
///
/// # Errors
///
/// When a program that is there cannot be started.
pub(crate) fn ansible_programs(no_install: bool) -> Result<Result<PathBuf, String>, String> {
    tools::ansible(no_install)
}

/// The folder with a program of a package of PyPI; the inner error says why there is none.
///
/// # Errors
///
/// When a program that is there cannot be started.
pub(crate) fn python_programs(
    no_install: bool,
    venv: &str,
    package: &str,
    program: &str,
) -> Result<Result<PathBuf, String>, String> {
    tools::python_packages(no_install, venv, package, program)
}

/// Installs the packages of programs that are missing. `Some` says what is still missing and why.
///
/// # Errors
///
/// When apt-get cannot be started.
pub(crate) fn install_programs(
    no_install: bool,
    programs: &[(&str, &str)],
) -> Result<Option<String>, String> {
    let options = Options { tiers: Vec::new(), without: Vec::new(), no_install };
    tools::install(&options, programs)
}

/// True when this process may install packages: root, on a system with apt-get.
fn may_install() -> bool {
    nix::unistd::geteuid().is_root() && has_program("apt-get")
}
