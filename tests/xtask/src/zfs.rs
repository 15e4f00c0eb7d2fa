//! `cargo xtask zfs`: runs a command, or the tests, where real ZFS is.
//!
//! Where that is: this host, when it has /dev/zfs and we are root, on a pool on a file; else a guest kernel that
//! `tests/zfsvm/zfsvm` unpacks or builds once. Prints which one it took and why.

use crate::shell::Cmd;
use crate::shell::has_program;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// Command line of `cargo xtask zfs`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// `test` runs the tests that need ZFS, `bench` measures, `fetch` gets what building with `--features zfs` needs,
    /// `env` prints the environment for that; anything else is a command to run where ZFS is, with a pool named in
    /// `ZED_TEST_POOL`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

/// Exit status when there is no ZFS to be had: the caller prints the last line as the reason.
pub const NOT_RUN: u8 = 77;

/// Guest and build together; a first build of the guest takes 20 minutes on two cores.
const DEADLINE: Duration = Duration::from_secs(55 * 60);
/// Seconds that one test binary may take in the guest.
const GUEST_LIMIT: &str = "1500";
/// The guest's memory for tests; the pool's file is in it.
const TEST_MEMORY: &str = "4G";
/// The same for the measurement, which changes 1 GB and keeps the old blocks, and the size of its pool.
const BENCH_MEMORY: &str = "10G";
const BENCH_POOL: &str = "3500M";

/// Runs it.
///
/// # Errors
///
/// When something cannot be started or prepared. The exit status of what ran is the value.
pub fn run(options: &Options) -> Result<u8, String> {
    let (first, rest) = options.command.split_first().ok_or("no command is given")?;
    match first.as_str() {
        "fetch" => {
            build_env()?;
            Ok(0)
        }
        "env" => {
            for (key, value) in build_env()? {
                println!("export {key}={}", crate::shell::quoted(&value));
            }
            Ok(0)
        }
        "test" => {
            let Some(place) = Place::find(TEST_MEMORY)? else { return Ok(NOT_RUN) };
            test(&place, rest)
        }
        "bench" => {
            let Some(place) = Place::find(BENCH_MEMORY)? else { return Ok(NOT_RUN) };
            bench(&place, rest)
        }
        _ => {
            let Some(place) = Place::find(TEST_MEMORY)? else { return Ok(NOT_RUN) };
            let (program, args) = place.runner.split_first().ok_or("no runner")?;
            code(&Cmd::new(program).args(args).args(&options.command).deadline(DEADLINE).run()?)
        }
    }
}

/// Where ZFS is: what to put before a command.
struct Place {
    runner: Vec<String>,
}

impl Place {
    /// This host, or the guest; `None`, with the reason printed, when neither is possible.
    fn find(memory: &str) -> Result<Option<Self>, String> {
        let tools = crate::root().join("tests/zfsvm");
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let with_pool = text(tools.join("with-pool"));
        let root = nix::unistd::geteuid().is_root();
        if Path::new("/dev/zfs").exists() && has_program("zpool") {
            if root {
                println!("zfs: this host's own, on a pool on a file");
                return Ok(Some(Self { runner: vec![with_pool] }));
            }
            println!("zfs: this host has ZFS, but only root may make a pool; taking the guest");
        } else {
            println!("zfs: this host has none (no /dev/zfs, or no zpool program); taking the guest");
        }
        if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
            println!("the guest needs Linux on x86_64");
            return Ok(None);
        }
        let zfsvm = text(tools.join("zfsvm"));
        let ensured = Cmd::new(&zfsvm).arg("ensure").deadline(DEADLINE).run()?;
        if !ensured.ok() {
            let why = ensured.output.lines().last().unwrap_or("no reason was given").to_owned();
            println!("the guest cannot be made ready: {why}");
            return Ok(None);
        }
        let cwd = text(crate::root());
        let guest =
            ["run", "--timeout", GUEST_LIMIT, "--mem", memory, "--cwd", &cwd, "--"].map(str::to_owned);
        Ok(Some(Self { runner: [vec![zfsvm], guest.to_vec(), vec![with_pool]].concat() }))
    }

    /// Cargo with everything that building with `--features zfs` and running there needs. It builds into a folder
    /// of its own: a zedd that is linked to libzfs does not start on a host that lacks it, and must not take the
    /// place of the one that does.
    fn cargo(&self) -> Result<Cmd, String> {
        let triple = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
        let cmd = Cmd::cargo().env(triple, self.runner.join(" ")).env("CARGO_TARGET_DIR", target_dir());
        Ok(build_env()?.into_iter().fold(cmd.deadline(DEADLINE), |cmd, (key, value)| cmd.env(&key, value)))
    }
}

/// Where programs that are linked to libzfs are built.
pub(crate) fn target_dir() -> PathBuf {
    crate::target().join("zfs")
}

/// What a build with `--features zfs` needs in its environment: nothing where libzfs is installed for development,
/// else where the fetched libraries are.
///
/// # Errors
///
/// When the libraries are not there and cannot be fetched.
pub fn build_env() -> Result<Vec<(String, String)>, String> {
    let installed = Cmd::new("pkg-config").args(["--exists", "libzfs"]).quiet().run();
    if installed.is_ok_and(|ended| ended.ok()) {
        return Ok(Vec::new());
    }
    let zfsvm = crate::root().join("tests/zfsvm/zfsvm");
    let printed = Cmd::new(zfsvm).arg("libs").read()?;
    let link = printed.lines().last().ok_or("zfsvm libs printed no folder")?.to_owned();
    // The linker looks into LD_LIBRARY_PATH for what the libraries themselves need.
    let before = |key: &str, first: String| match std::env::var(key) {
        Ok(old) if !old.is_empty() => (key.to_owned(), format!("{first}:{old}")),
        _ => (key.to_owned(), first),
    };
    Ok(vec![before("PKG_CONFIG_PATH", format!("{link}/pkgconfig")), before("LD_LIBRARY_PATH", link.clone())])
}

/// The store's tests, the daemon's faults, and the daemon through a mount, all on ZFS; `args` go to the test programs.
/// All are run, also when one fails; the status is the first failure's.
fn test(place: &Place, args: &[String]) -> Result<u8, String> {
    let store = ["test", "--package", "zed-store", "--features", "zfs", "--test", "zfs", "--"];
    let faults = ["test", "--package", "zedd", "--features", "zfs", "--test", "faults", "--"];
    // Not of ZFS, but of the guest's kernel: it has cgroups of version 2 with all controllers, which this host may not have.
    let limits = ["test", "--package", "zed-host", "--test", "limits", "--"];
    let programs = ["build", "--package", "zedd", "--package", "zed-ctl", "--bins", "--features", "zedd/zfs"];
    let mounted = [
        "test",
        "--package",
        "zed-tests",
        "--features",
        "zed-tests/fuse,zed-tests/zfs",
        "--no-fail-fast",
        "--",
    ];
    let mut status = 0;
    for tests in [&store[..], &faults[..], &limits[..], &programs[..], &mounted[..]] {
        let args = if tests[0] == "test" { args } else { &[] };
        let ended = place.cargo()?.env("ZED_TEST_STORE", "zfs").args(tests).args(args).run()?;
        if status == 0 {
            status = code(&ended)?;
        }
    }
    Ok(status)
}

/// The measurement of the store against the `zfs` program.
fn bench(place: &Place, args: &[String]) -> Result<u8, String> {
    let bench =
        ["run", "--release", "--package", "zed-store", "--features", "zfs", "--example", "zfs_bench", "--"];
    code(&place.cargo()?.env("ZED_TEST_POOL_SIZE", BENCH_POOL).args(bench).args(args).run()?)
}

fn code(ended: &crate::shell::Ended) -> Result<u8, String> {
    u8::try_from(ended.code).map_err(|_| format!("ended with {}", ended.code))
}
