//! Starts the real zedd on a store of its own, and speaks to it as people do: with a shell and plain tools.
//!
//! Every daemon, mount, app and dataset that a test made is gone when its [`Zed`] is dropped, also when the
//! test fails; then the folder with its logs is kept and named. Nothing here knows the insides of zed.

#![expect(clippy::disallowed_methods, reason = "the rule is for the daemon; tests start it")]

mod load;
mod store;

pub use load::Load;
pub use store::Backend;
pub use xtask::leftovers::processes_of;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs::File;
use std::fs::Permissions;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use xtask::leftovers;
use xtask::shell::Cmd;
use xtask::shell::Ended;

/// How long anything that a test waits for may take: far longer than it does, because test machines are
/// shared and the ZFS guest is slow.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// One zedd with its own store, mount and socket.
#[derive(Debug)]
pub struct Zed {
    dir: Option<tempfile::TempDir>,
    backend: Backend,
    extra: Vec<String>,
    fault: Option<String>,
    daemon: Option<Child>,
}

impl Zed {
    /// A daemon that answers, on the store that `ZED_TEST_STORE` names (`embedded` when it is not set, or
    /// `zfs` on the pool `ZED_TEST_POOL`).
    pub fn start() -> Self {
        let mut zed = Self::stopped();
        zed.launch();
        zed
    }

    /// The same, not started yet.
    pub fn stopped() -> Self {
        let dir = tempfile::Builder::new().prefix("zed-test-").tempdir().expect("a temporary folder");
        for name in ["zed", "state"] {
            std::fs::create_dir(dir.path().join(name)).expect("a folder in it");
        }
        let backend = Backend::from_env(dir.path());
        Self { dir: Some(dir), backend, extra: Vec::new(), fault: None, daemon: None }
    }

    /// Adds arguments for the next start.
    #[must_use]
    pub fn with_args(mut self, args: &[&str]) -> Self {
        self.extra.extend(args.iter().map(|a| (*a).to_owned()));
        self
    }

    /// Kills the daemon (`kill:N`) or fails it (`fail:N`) at the N-th fault point after the next starts.
    pub fn set_fault(&mut self, fault: Option<String>) {
        self.fault = fault;
    }

    /// The folder of this test.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("the folder is there until drop").path()
    }

    /// The mount.
    pub fn mount(&self) -> PathBuf {
        self.dir().join("zed")
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("socket")
    }

    /// The store.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The arguments that zedd is started with.
    pub fn args(&self) -> Vec<String> {
        let path = |p: PathBuf| p.to_string_lossy().into_owned();
        let mut args = vec!["--mount".into(), path(self.mount()), "--store".into(), self.backend.argument()];
        args.extend(["--socket".into(), path(self.socket()), "--host".into(), "testhost".into()]);
        args.extend(self.extra.iter().cloned());
        args.extend(self.fault.iter().flat_map(|fault| ["--fault".to_owned(), fault.clone()]));
        args
    }

    /// Starts zedd, waits until it says `ready`, and until it has looked at the host, which is a moment later.
    pub fn launch(&mut self) {
        if let Err(why) = self.try_launch() {
            panic!("zedd did not become ready: {why}\n{}", self.daemon_log());
        }
        let facts = self.mount().join("hosts/testhost/facts");
        let until = Instant::now() + DEADLINE;
        // One that a fault point ends meanwhile is what its test wants.
        while self.is_running() && !facts.exists() {
            assert!(Instant::now() < until, "zedd does not look at the host\n{}", self.daemon_log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts zedd and waits until it says `ready` or ends.
    ///
    /// # Errors
    ///
    /// When it ends before, or says nothing in time.
    pub fn try_launch(&mut self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.dir().join("zedd.log"));
        let log = log.map_err(|e| format!("cannot open the log: {e}"))?;
        let mut command = Command::new(program("zedd"));
        command.args(self.args()).env("ZED_TEST_TAG", self.dir());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|e| format!("cannot start it: {e}"))?;
        let stdout = child.stdout.take().ok_or("its output is not there")?;
        self.daemon = Some(child);
        let (told, telling) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut first = String::new();
            let _ = told.send(lines.read_line(&mut first).map(|_| first));
            // Reads on, so that zedd never writes into a closed pipe.
            let _ = std::io::copy(&mut lines, &mut std::io::sink());
        });
        match telling.recv_timeout(DEADLINE) {
            Ok(Ok(line)) if line.trim_end() == "ready" => Ok(()),
            Ok(Ok(line)) if line.is_empty() => Err(format!("it ended: {:?}", self.ended())),
            Ok(other) => Err(format!("it printed {other:?}")),
            Err(_) => Err("it said nothing in time".into()),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        let child = self.daemon.as_ref().expect("zedd runs");
        Pid::from_raw(child.id().cast_signed())
    }

    /// Sends a signal and waits for the end.
    pub fn signal(&mut self, signal: Signal) -> ExitStatus {
        kill(self.pid(), signal).expect("zedd can be signalled");
        self.ended().expect("zedd ends")
    }

    /// `kill -9`, and nothing is cleaned up.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
    }

    /// Waits for its end; `None` when it does not end in time.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let mut child = self.daemon.take()?;
        let status = wait_with_deadline(&mut child);
        if status.is_none() {
            self.daemon = Some(child);
        }
        status
    }

    /// True while zedd has not ended.
    pub fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// What zedd wrote to standard error.
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.dir().join("zedd.log")).unwrap_or_default()
    }

    /// Runs a script with bash in the folder of the test. `M` is the mount, `S` the socket, `D` the folder,
    /// `STORE` the argument of `--store`; zedd and zedctl are in PATH. Standard error is in the output.
    pub fn sh(&self, script: &str) -> Ended {
        self.sh_within(DEADLINE, script)
    }

    /// The same with a deadline of its own; past it the code is 124.
    pub fn sh_within(&self, deadline: Duration, script: &str) -> Ended {
        let bin = program("zedd");
        let bin = bin.parent().expect("the program lies in a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        Cmd::new("bash")
            .args(["-c", script])
            .dir(self.dir())
            .env("M", self.mount())
            .env("S", self.socket())
            .env("D", self.dir())
            .env("STORE", self.backend.argument())
            .env("ZED_TEST_TAG", self.dir())
            .env("PATH", format!("{}:{path}", bin.display()))
            .deadline(deadline)
            .quiet()
            .run()
            .expect("bash can be started")
    }

    /// Runs a script that must succeed, and gives its output without the newline at the end.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        let ended = self.sh(script);
        assert_eq!(ended.code, 0, "`{script}` printed:\n{}\nzedd:\n{}", ended.output, self.daemon_log());
        ended.output.trim_end_matches('\n').to_owned()
    }

    /// Runs a script that must fail, and gives its output.
    #[track_caller]
    pub fn fails(&self, script: &str) -> String {
        let ended = self.sh(script);
        assert!(!matches!(ended.code, 0 | 124), "`{script}` ended with {}:\n{}", ended.code, ended.output);
        ended.output
    }

    /// Runs a script again and again until it succeeds.
    #[track_caller]
    pub fn eventually(&self, script: &str) -> String {
        let start = Instant::now();
        loop {
            let ended = self.sh(script);
            if ended.ok() {
                return ended.output.trim_end_matches('\n').to_owned();
            }
            let late = start.elapsed() > DEADLINE;
            assert!(
                !late,
                "`{script}` still ends with {}:\n{}\nzedd:\n{}",
                ended.code,
                ended.output,
                self.daemon_log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One line of a `key value` file below the mount.
    #[track_caller]
    pub fn key(&self, file: &str, key: &str) -> String {
        let text = self.ok(&format!("cat $M/{file}"));
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{file} has no `{key}`:\n{text}")).to_owned()
    }

    /// Asserts that everything which tells an app's version says this one: the version that it serves on
    /// `port`, its files, and the properties of its dataset as the store's own tool reads them.
    #[track_caller]
    pub fn assert_version(&self, app: &str, port: u16, version: &str) {
        assert_eq!(self.ok(&format!("curl -sS 127.0.0.1:{port}/version.txt")), version, "served");
        assert_eq!(self.ok(&format!("cat $M/apps/{app}/version")), version, "apps/{app}/version");
        assert_eq!(self.key(&format!("apps/{app}/status"), "version"), version, "apps/{app}/status");
        assert_eq!(self.backend.version(self, &format!("apps/{app}")), version, "com.zed:version");
    }

    /// A small real service as a folder, `bin/NAME` and its version; with `sick` its health is that. Gives the folder.
    pub fn write_service(&self, name: &str, version: &str, sick: Option<&str>) -> PathBuf {
        let folder = self.dir().join("artifacts").join(format!("{name}-{version}"));
        let program = folder.join("bin").join(name);
        std::fs::create_dir_all(folder.join("bin")).expect("a folder");
        std::fs::write(&program, include_str!("service.py")).expect("the program can be written");
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("and made one");
        std::fs::write(folder.join("VERSION"), version).expect("its version can be written");
        if let Some(sick) = sick {
            std::fs::write(folder.join("sick"), sick).expect("its health can be written");
        }
        folder
    }

    /// The example `hello.ron` for this version and port, as a file in the test's folder.
    pub fn write_hello(&self, version: &str, port: u16) -> PathBuf {
        let text = include_str!("../../specs/examples/hello.ron");
        let text = text.replace("8123", &port.to_string()).replace("1.0.0", version);
        let path = self.dir().join("hello.ron");
        std::fs::write(&path, text).expect("the spec can be written");
        path
    }
}

impl Drop for Zed {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            if wait_with_deadline(&mut child).is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        leftovers::end_apps(self.dir());
        leftovers::unmount(&self.mount());
        self.backend.destroy();
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("the folder of the failed test is kept: {}", dir.keep().display());
        }
    }
}

/// A program of this workspace, beside the test's own folder (`target/debug`), or in `ZED_TEST_BIN`.
///
/// # Panics
///
/// When it has not been built.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("ZED_TEST_BIN").map_or_else(
        || {
            let me = std::env::current_exe().expect("the test knows its own path");
            me.ancestors().nth(2).expect("it lies in target/debug/deps").to_path_buf()
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built: run `cargo build -p zedd -p zed-ctl`", path.display());
    path
}

/// True where tests run in the slow ZFS guest.
pub fn on_zfs() -> bool {
    std::env::var_os("ZED_TEST_STORE").is_some_and(|store| store == "zfs")
}

/// So many attempts, 100 ms apart, are enough for a program to start and be asked: in the ZFS guest that takes seconds,
/// and some machines are slower than others. For what must not become healthy; it costs this time.
pub fn enough_attempts() -> u32 {
    if on_zfs() { 300 } else { 60 }
}

/// Looks again and again until what is seen will do, for what ends by itself a moment later. Gives what was seen last.
pub fn look_until<T>(mut look: impl FnMut() -> T, will_do: impl Fn(&T) -> bool) -> T {
    let start = Instant::now();
    loop {
        let seen = look();
        if will_do(&seen) || start.elapsed() > DEADLINE {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A TCP port that nothing listens on, and that the system gives to nobody.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// So many TCP ports in a row that nothing listens on, and that the system gives to no client. The first of them.
pub fn free_ports(count: u16) -> u16 {
    static BLOCK: Mutex<Option<Block>> = Mutex::new(None);
    assert!(count < Block::SIZE, "{count} ports are more than a block has");
    let mut block = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let own = block.get_or_insert_with(Block::claim);
        let first = own.next;
        own.next += count;
        if own.next > own.end {
            *block = None;
        } else if (first..first + count).all(|port| bind(port).is_some()) {
            return first;
        }
    }
}

/// A row of ports that belongs to this process as long as it holds the first of them: tests run in several
/// processes at once.
struct Block {
    next: u16,
    end: u16,
}

impl Block {
    const SIZE: u16 = 64;

    fn claim() -> Self {
        let blocks = (20_000..30_000).step_by(usize::from(Self::SIZE));
        // Not all from the same place, so that a port rests before it is used again.
        let skipped = usize::try_from(std::process::id()).unwrap_or_default() % blocks.len();
        let (first, guard) = blocks
            .clone()
            .cycle()
            .skip(skipped)
            .take(blocks.len())
            .find_map(|first| Some((first, bind(first)?)))
            .expect("fewer test processes run than there are blocks");
        // Held until the process ends, also when the block is used up.
        std::mem::forget(guard);
        Self { next: first + 1, end: first + Self::SIZE }
    }
}

fn bind(port: u16) -> Option<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).ok()
}

/// Reads a file to its end with a deadline; `None` when the read does not end.
pub fn read_within(path: &Path, deadline: Duration) -> Option<String> {
    let (done, wait) = mpsc::channel();
    let path = path.to_path_buf();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = File::open(path).and_then(|mut f| f.read_to_string(&mut text));
        let _ = done.send(read.map(|_| text));
    });
    wait.recv_timeout(deadline).ok()?.ok()
}

fn wait_with_deadline(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return None,
        }
    }
    None
}
