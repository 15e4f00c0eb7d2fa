//! A zedd for a bench, on a store of its own; gone with everything that it started when it is dropped.

use super::program;
use crate::leftovers;
use crate::shell::Cmd;
use crate::vulkan::Environment;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// One zedd with its folder.
pub(crate) struct Daemon {
    dir: tempfile::TempDir,
    store: String,
    dataset: Option<String>,
    arguments: Vec<String>,
    environment: Environment,
    child: Option<Child>,
}

impl Daemon {
    /// Starts it on the embedded store, or below a dataset of the pool `ZED_TEST_POOL`.
    pub(crate) fn start(on_zfs: bool) -> Result<Self, String> {
        Self::start_with(on_zfs, &[], &Environment::new())
    }

    /// The same, with more arguments and variables.
    pub(crate) fn start_with(
        on_zfs: bool,
        arguments: &[&str],
        environment: &Environment,
    ) -> Result<Self, String> {
        let dir =
            tempfile::Builder::new().prefix("zed-bench-").tempdir().map_err(|e| format!("no folder: {e}"))?;
        std::fs::create_dir(dir.path().join("zed")).map_err(|e| format!("no folder: {e}"))?;
        let mut dataset = None;
        let store = if on_zfs {
            let pool = std::env::var("ZED_TEST_POOL").map_err(|_| "ZED_TEST_POOL names no pool")?;
            let name = format!("{pool}/{}", dir.path().file_name().unwrap_or_default().to_string_lossy());
            let mountpoint = format!("mountpoint={}", dir.path().join("store").display());
            Cmd::new("zfs").args(["create", "-o", &mountpoint, &name]).read()?;
            dataset = Some(name.clone());
            format!("zfs:{name}")
        } else {
            format!("embedded:{}", dir.path().join("store").display())
        };
        let mut daemon = Self {
            dir,
            store,
            dataset,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: environment.clone(),
            child: None,
        };
        daemon.launch()?;
        Ok(daemon)
    }

    /// Starts the program again on the same store; gives the time until it says `ready`.
    pub(crate) fn launch(&mut self) -> Result<Duration, String> {
        let log = std::fs::File::create(self.dir().join("zedd.log")).map_err(|e| format!("no log: {e}"))?;
        let mut command = Command::new(program("zedd")?);
        command.args(["--store", &self.store, "--host", "bench", "--drift-interval", "86400"]);
        command.arg("--mount").arg(self.mount()).arg("--socket").arg(self.dir().join("sock"));
        command.args(&self.arguments).envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let start = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("cannot start zedd: {e}"))?;
        let stdout = child.stdout.take();
        self.child = Some(child);
        let mut lines = BufReader::new(stdout.ok_or("zedd has no output")?);
        let mut line = String::new();
        lines.read_line(&mut line).map_err(|e| format!("cannot read from zedd: {e}"))?;
        let took = start.elapsed();
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        if line.trim_end() == "ready" {
            return Ok(took);
        }
        let log = std::fs::read_to_string(self.dir().join("zedd.log")).unwrap_or_default();
        Err(format!("zedd did not become ready: {log}"))
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        child.wait().map(|_| ()).map_err(|e| format!("cannot wait for zedd: {e}"))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn mount(&self) -> PathBuf {
        self.dir().join("zed")
    }

    /// The dataset of the pool below which everything is, on ZFS.
    pub(crate) fn dataset(&self) -> Option<&str> {
        self.dataset.as_deref()
    }

    /// A number of bytes from `/proc/PID/status`.
    pub(crate) fn memory(&self, key: &str) -> Result<u64, String> {
        let pid = self.child.as_ref().map(Child::id).ok_or("zedd does not run")?;
        let text =
            std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| format!("/proc: {e}"))?;
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        let kb = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kb.map(|kb| kb * 1024).ok_or_else(|| format!("/proc/{pid}/status has no {key}"))
    }

    /// Runs a script in the folder; the mount is `zed`.
    pub(crate) fn sh(&self, script: &str) -> Result<String, String> {
        let cmd =
            Cmd::new("bash").args(["-c", script]).dir(self.dir()).deadline(Duration::from_secs(30 * 60));
        cmd.read().map_err(|e| {
            let log = std::fs::read_to_string(self.dir().join("zedd.log")).unwrap_or_default();
            format!("{e}\nzedd: {log}")
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.stop();
        leftovers::end_apps(self.dir());
        leftovers::unmount(&self.mount());
        if let Some(dataset) = &self.dataset {
            let _ = Cmd::new("zfs").args(["destroy", "-R", "-f", dataset]).quiet().run();
        }
    }
}
