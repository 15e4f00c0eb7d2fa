//! The tools tier: the programs with which people and configuration management save files, found or installed.

use super::Options;
use super::Outcome;
use super::may_install;
use crate::count::Counts;
use crate::shell::Cmd;
use crate::shell::has_program;
use std::path::PathBuf;
use std::time::Duration;

/// Programs of the tier and the Debian packages they are in.
const PROGRAMS: &[(&str, &str)] = &[
    ("fusermount3", "fuse3"),
    ("curl", "curl"),
    ("rsync", "rsync"),
    ("vim", "vim-tiny"),
    ("install", "coreutils"),
    ("sed", "sed"),
    ("busybox", "busybox-static"),
    ("dash", "dash"),
    ("setpriv", "util-linux"),
];

/// Programs that read generated files, and the Debian packages they are in.
const READERS: &[(&str, &str)] = &[("shellcheck", "shellcheck"), ("xmllint", "libxml2-utils")];

/// What tests of the real host run, and the Debian packages they are in.
const RUNTIMES: &[(&str, &str)] = &[("busybox", "busybox-static"), ("runc", "runc")];

/// Reader of jail.conf(5) that the unit tier was written against.
const JAILCONF: &str = "jailconf==0.2.2";

/// Version of ansible-core that the tier was written against.
const ANSIBLE: &str = "ansible-core==2.17.*";

pub(super) fn tier(options: &Options, sum: &mut Counts) -> Result<Outcome, String> {
    if !std::path::Path::new("/dev/fuse").exists() {
        return Ok(Outcome::NotRun("there is no /dev/fuse".into()));
    }
    if let Some(missing) = install(options, PROGRAMS)? {
        return Ok(Outcome::NotRun(missing));
    }
    let bin = match ansible(options.no_install)? {
        Ok(bin) => bin,
        Err(why) => return Ok(Outcome::NotRun(why)),
    };
    super::build_programs()?;
    super::tests(
        sum,
        &["--package", "zed-tests", "--features", "zed-tests/tools"],
        &super::Pick::Only("tools"),
        &[("ZED_TEST_ANSIBLE", bin.as_os_str())],
    )
}

/// Installs the packages of programs that are missing. `Some` says what is still missing and why.
///
/// # Errors
///
/// When apt-get cannot be started.
pub(super) fn install(options: &Options, programs: &[(&str, &str)]) -> Result<Option<String>, String> {
    let missing = |programs: &[(&str, &str)]| -> Vec<(String, String)> {
        let absent = programs.iter().filter(|(program, _)| !has_program(program));
        absent.map(|(program, package)| ((*program).to_owned(), (*package).to_owned())).collect()
    };
    let wanted = missing(programs);
    if wanted.is_empty() {
        return Ok(None);
    }
    let names: Vec<_> = wanted.iter().map(|(program, _)| program.as_str()).collect();
    if options.no_install || !may_install() {
        let why = if options.no_install { "--no-install" } else { "installing needs root and apt-get" };
        return Ok(Some(format!("{} is missing, and {why}", names.join(", "))));
    }
    let packages: Vec<_> = wanted.iter().map(|(_, package)| package.as_str()).collect();
    let apt =
        || Cmd::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").deadline(Duration::from_secs(600));
    let updated = apt().args(["update", "-q"]).run()?;
    let installed = apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(packages).run()?;
    let still = missing(programs);
    if still.is_empty() {
        return Ok(None);
    }
    let names: Vec<_> = still.iter().map(|(program, _)| program.as_str()).collect();
    Ok(Some(format!(
        "{} is missing: apt-get update ended with {}, install with {}",
        names.join(", "),
        updated.code,
        installed.code
    )))
}

/// The folder with Ansible's programs, from a virtual environment below `target/`; the inner error says why
/// there is none.
///
/// # Errors
///
/// When a program that is there cannot be started.
pub(super) fn ansible(no_install: bool) -> Result<Result<PathBuf, String>, String> {
    python_packages(no_install, "ansible", ANSIBLE, "ansible-playbook")
}

/// Readers of generated files, for the unit tier: what is missing is said, and its tests say so too. Gives the
/// python that has jailconf.
///
/// # Errors
///
/// When a program that is there cannot be started.
pub(super) fn readers(options: &Options) -> Result<Option<PathBuf>, String> {
    if let Some(missing) = install(options, READERS)? {
        println!("   generated files are not read by all: {missing}");
    }
    // The package has no program: whether it is there is asked of python.
    let python = crate::root().join("target/venv-jailconf/bin/python");
    let has =
        || python.is_file() && Cmd::new(&python).args(["-c", "import jailconf"]).run().is_ok_and(|e| e.ok());
    if !has() {
        let made = python_packages(options.no_install, "jailconf", JAILCONF, "jailconf")?;
        if !has() {
            println!("   jail.conf is read by no other parser: {}", made.err().unwrap_or_default());
            return Ok(None);
        }
    }
    Ok(Some(python))
}

/// Runtimes of apps, for the unit and the end-to-end tiers: what is missing is said, and the tests say so too.
///
/// # Errors
///
/// When a program that is there cannot be started.
pub(super) fn runtimes(options: &Options) -> Result<(), String> {
    if let Some(missing) = install(options, RUNTIMES)? {
        println!("   containers are not run: {missing}");
    }
    Ok(())
}

/// A virtual environment `target/venv-NAME` with a package of PyPI; gives its `bin`, which has `program`.
///
/// # Errors
///
/// When a program that is there cannot be started. The inner error says why there is no such environment.
pub(super) fn python_packages(
    no_install: bool,
    name: &str,
    package: &str,
    program: &str,
) -> Result<Result<PathBuf, String>, String> {
    let venv = crate::root().join("target").join(format!("venv-{name}"));
    let bin = venv.join("bin");
    if bin.join(program).is_file() {
        return Ok(Ok(bin));
    }
    if no_install {
        return Ok(Err(format!("{program} is not in {}, and --no-install", bin.display())));
    }
    if !has_program("python3") {
        return Ok(Err("there is no python3".into()));
    }
    let made = Cmd::new("python3").args(["-m", "venv"]).arg(&venv).run()?;
    if !made.ok() {
        return Ok(Err("python3 -m venv failed (on Debian it needs the package python3-venv)".into()));
    }
    let pip = Cmd::new(bin.join("pip")).args(["install", "--quiet"]).arg(package);
    let installed = pip.deadline(Duration::from_secs(900)).run()?;
    if installed.ok() && bin.join(program).is_file() {
        return Ok(Ok(bin));
    }
    Ok(Err(format!("pip could not install {}: exit status {}", package, installed.code)))
}
