//! `cargo xtask demo`: the newcomer's tour. Builds zed, deploys an app on a store of its own, changes it, rolls
//! it back, and shows each command as one would type it. Checks what it shows; leaves nothing behind.

use crate::leftovers;
use crate::shell::Cmd;
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

/// How long one step may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Command line of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Use the Unix socket although this machine could mount the tree.
    #[arg(long)]
    pub socket: bool,
}

/// The tour in progress. Dropped, it ends and removes everything that it made.
struct Tour {
    dir: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
    mounted: bool,
    daemon: Option<Child>,
}

/// Runs the tour. 0 when everything was as it should be.
///
/// # Errors
///
/// When something is missing, does not build, or is not as it should be.
pub fn run(options: &Options) -> Result<u8, String> {
    let start = Instant::now();
    for program in ["python3", "curl", "bash"] {
        if !crate::shell::has_program(program) {
            return Err(format!("the demo needs {program}: install it (Debian: apt-get install {program})"));
        }
    }
    section("Build");
    let built = Cmd::cargo().args(["build", "--package", "zedd", "--package", "zed-ctl", "--bins"]).run()?;
    if !built.ok() {
        return Err("zed does not build; the compiler says why above".into());
    }
    let built_after = start.elapsed();
    let mut tour = Tour::new(!options.socket)?;
    tour.walk()?;
    println!();
    println!(
        "demo: everything was as it should be, and nothing is left (build {} s, tour {} s)",
        built_after.as_secs(),
        (start.elapsed() - built_after).as_secs()
    );
    Ok(0)
}

fn section(title: &str) {
    println!("\n== {title}");
}

impl Tour {
    fn new(want_mount: bool) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("zed-demo-").tempdir();
        let dir = dir.map_err(|e| format!("cannot make a temporary folder: {e}"))?;
        let me = std::env::current_exe().map_err(|e| format!("cannot find xtask itself: {e}"))?;
        let bin = me.parent().ok_or("xtask lies in no folder")?.to_path_buf();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .map_err(|e| format!("cannot find a free port: {e}"))?
            .port();
        let mounted = want_mount && Path::new("/dev/fuse").exists();
        if want_mount && !mounted {
            println!("This machine has no /dev/fuse: the tour uses the Unix socket instead of a mount.");
        }
        Ok(Self { dir, bin, port, mounted, daemon: None })
    }

    fn walk(&mut self) -> Result<(), String> {
        section("Start the daemon, on a folder as its store");
        self.start_daemon()?;

        section("Deploy: saving the spec is all there is to it");
        let spec = include_str!("../../../specs/examples/hello.ron");
        let spec = spec.replace("8123", &self.port.to_string());
        std::fs::write(self.dir.path().join("hello.ron"), spec)
            .map_err(|e| format!("cannot write a spec: {e}"))?;
        self.show("cat hello.ron")?;
        self.deploy()?;
        self.serves("1.0.0")?;

        section("Status: state is read from the properties of the datasets");
        let status = self.show(if self.mounted {
            "cat zed/apps/hello/status"
        } else {
            "zedctl --socket zed.sock status"
        })?;
        expect(&status, "1.0.0")?;
        self.write_data("written while 1.0.0 was running")?;

        section("Change the version, and the data");
        if self.mounted {
            self.show("sed -i 's/1.0.0/1.1.0/' zed/deploy/hello.ron && sync zed/deploy/hello.ron")?;
        } else {
            self.show("sed -i 's/1.0.0/1.1.0/' hello.ron")?;
            self.deploy()?;
        }
        self.serves("1.1.0")?;
        self.write_data("overwritten by 1.1.0")?;
        self.history()?;

        section("Roll back: data and state, together");
        if self.mounted {
            self.show("echo @latest > zed/apps/hello/rollback")?;
            self.until("grep -qx 'version 1.0.0' zed/apps/hello/status && grep -qx 'state running' zed/apps/hello/status")?;
        } else {
            self.show("zedctl --socket zed.sock rollback hello @latest")?;
        }
        self.serves("1.0.0")?;
        let status = self.show(if self.mounted {
            "grep -E '^(version|state|health|held) ' zed/apps/hello/status"
        } else {
            "zedctl --socket zed.sock status"
        })?;
        expect(&status, "1.0.0")?;
        let data = self.show(&format!("cat {}/data.txt", self.data_folder()?))?;
        expect(&data, "written while 1.0.0 was running")?;

        if self.mounted {
            section("A mistake is refused where it is made");
            let refused = self.shell("echo nonsense > zed/apps/hello/rollback")?;
            if refused.ok() {
                return Err("a rollback to nonsense was accepted".into());
            }
            expect(&self.show("cat zed/apps/hello/error")?, "nonsense")?;
        }

        section("Stop everything");
        self.stop()
    }

    fn start_daemon(&mut self) -> Result<(), String> {
        println!("$ cd {}", self.dir.path().display());
        let mut args = vec!["--store", "embedded:store", "--socket", "zed.sock"];
        if self.mounted {
            std::fs::create_dir(self.dir.path().join("zed"))
                .map_err(|e| format!("cannot make a folder: {e}"))?;
            args.splice(0..0, ["--mount", "zed"]);
        } else {
            // Where specs can be placed, and removed, without a mount.
            args.extend(["--state", "state", "--no-mount"]);
        }
        println!("$ zedd {} &", args.join(" "));
        let log = std::fs::File::create(self.dir.path().join("zedd.log"))
            .map_err(|e| format!("cannot write: {e}"))?;
        let mut command = Command::new(self.bin.join("zedd"));
        command.args(&args).current_dir(self.dir.path()).env("ZED_DEMO", self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|e| format!("cannot start zedd: {e}"))?;
        let stdout = child.stdout.take();
        self.daemon = Some(child);
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout.ok_or("zedd has no output")?);
        stdout.read_line(&mut line).map_err(|e| format!("cannot read from zedd: {e}"))?;
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        print!("{line}");
        if line.trim_end() == "ready" {
            Ok(())
        } else {
            Err(format!("zedd did not become ready:\n{}", self.log()))
        }
    }

    fn deploy(&self) -> Result<(), String> {
        let command = if self.mounted {
            "cp hello.ron zed/deploy/ && sync zed/deploy/hello.ron"
        } else {
            "zedctl --socket zed.sock apply hello.ron"
        };
        self.show(command).map(|_| ())
    }

    fn serves(&self, version: &str) -> Result<(), String> {
        self.until(&format!("curl -sf 127.0.0.1:{}/version.txt", self.port))?;
        let served = self.show(&format!("curl -s 127.0.0.1:{}/version.txt", self.port))?;
        expect(&served, version)
    }

    fn history(&self) -> Result<(), String> {
        let command = if self.mounted {
            "cat zed/apps/hello/history"
        } else {
            "zedctl --socket zed.sock history hello"
        };
        let history = self.show(command)?;
        expect(&history, "1.0.0")?;
        expect(&history, "1.1.0")
    }

    fn write_data(&self, text: &str) -> Result<(), String> {
        self.show(&format!("echo '{text}' > {}/data.txt", self.data_folder()?)).map(|_| ())
    }

    /// Where the app's dataset is mounted, as its status says.
    fn data_folder(&self) -> Result<String, String> {
        let folder = if self.mounted {
            let status = self.quietly("cat zed/apps/hello/status")?;
            status.lines().find_map(|l| l.strip_prefix("mountpoint ")).map(str::to_owned)
        } else {
            let status = self.quietly("zedctl --socket zed.sock --json status")?;
            let status: serde_json::Value =
                serde_json::from_str(&status).map_err(|e| format!("zedctl: {e}"))?;
            status["apps"][0]["mountpoint"].as_str().map(str::to_owned)
        };
        let folder = folder.ok_or("the status of hello has no mountpoint")?;
        let folder = Path::new(&folder);
        let shown = folder.strip_prefix(self.dir.path()).unwrap_or(folder);
        Ok(shown.display().to_string())
    }

    fn stop(&mut self) -> Result<(), String> {
        if self.mounted {
            self.show("rm zed/deploy/hello.ron")?;
        } else {
            self.show("rm state/deploy/hello.ron")?;
        }
        self.until(&format!("! curl -s 127.0.0.1:{}/version.txt", self.port))?;
        let mut child = self.daemon.take().ok_or("zedd does not run")?;
        println!("$ kill %zedd");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)
            .map_err(|e| format!("cannot end zedd: {e}"))?;
        let status = child.wait().map_err(|e| format!("cannot wait for zedd: {e}"))?;
        println!("zedd ended with {}", status.code().map_or_else(|| status.to_string(), |c| c.to_string()));
        if !status.success() {
            return Err(format!("zedd ended with {status}:\n{}", self.log()));
        }
        let start = Instant::now();
        while !leftovers::processes_of(self.dir.path()).is_empty() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        let processes = leftovers::processes_of(self.dir.path());
        let mounts = leftovers::mounts_of(self.dir.path());
        println!("left running: {}, left mounted: {}", processes.len(), mounts.len());
        if processes.is_empty() && mounts.is_empty() {
            Ok(())
        } else {
            Err(format!("left behind: processes {processes:?}, mounts {mounts:?}"))
        }
    }

    /// Prints a command and its output; it must succeed.
    fn show(&self, script: &str) -> Result<String, String> {
        let ended = self.shell(script)?;
        if ended.ok() {
            Ok(ended.output)
        } else {
            Err(format!("`{script}` ended with {}; zedd said:\n{}", ended.code, self.log()))
        }
    }

    fn shell(&self, script: &str) -> Result<crate::shell::Ended, String> {
        println!("$ {script}");
        let ended = self.command(script).quiet().run()?;
        print!("{}", ended.output);
        Ok(ended)
    }

    fn quietly(&self, script: &str) -> Result<String, String> {
        self.command(script).read()
    }

    /// Runs a check until it succeeds.
    fn until(&self, script: &str) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let ended = self.command(script).quiet().run()?;
            if ended.ok() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("`{script}` did not come true; zedd said:\n{}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn command(&self, script: &str) -> Cmd {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.bin.display());
        Cmd::new("bash").args(["-c", script]).dir(self.dir.path()).env("PATH", path).deadline(PATIENCE)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("zedd.log")).unwrap_or_default()
    }
}

impl Drop for Tour {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            let start = Instant::now();
            while matches!(child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        leftovers::end_apps(self.dir.path());
        leftovers::unmount(self.dir.path());
    }
}

fn expect(output: &str, wanted: &str) -> Result<(), String> {
    if output.contains(wanted) { Ok(()) } else { Err(format!("expected `{wanted}` in what is shown above")) }
}
