//! A host in a temporary folder, whose apps end with the test.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use zed_host::Host;
use zed_host::LocalHost;
use zed_host::ProcessInfo;
use zed_host::Start;
use zed_host::SupervisorProgram;
use zed_plan::ProcessStatus;
use zed_plan::RunSpec;
use zed_spec::AppName;
use zed_spec::Backoff;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::HostName;
use zed_spec::Restart;

/// No wait in these tests ends by time except as a failure.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn supervisor() -> SupervisorProgram {
    SupervisorProgram { path: PathBuf::from(env!("CARGO_BIN_EXE_zed-supervise")), arguments: Vec::new() }
}

pub(crate) fn instance(name: &str) -> zed_plan::Instance {
    name.parse().expect("an instance")
}

pub(crate) fn app(name: &str) -> AppName {
    AppName::parse(name).expect("a name")
}

/// Waits for something that another process does.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn always(backoff: Duration, give_up_after: Option<u32>) -> Restart {
    Restart::Always(Backoff { backoff, max_backoff: backoff * 8, give_up_after })
}

/// A port for what a test starts: nobody listens there, and nobody will who asks the kernel for a free one, since those
/// are above.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = std::process::id() * 16 + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + number % 10_000).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A host of its own.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) host: LocalHost,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(folder.path().join("data")).expect("mkdir");
        let host = LocalHost::new(folder.path().join("state"), supervisor());
        Self { folder, host }
    }

    /// What a daemon that has just been started sees.
    pub(crate) fn new_daemon(&self) -> LocalHost {
        LocalHost::new(self.folder.path().join("state"), supervisor())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn files(&self, name: &str) -> PathBuf {
        self.folder.path().join("state/apps").join(name)
    }

    /// A request that runs a shell script.
    pub(crate) fn script(&self, name: &str, script: &str) -> Start {
        self.command(name, &["/bin/sh", "-c", script])
    }

    pub(crate) fn command(&self, name: &str, command: &[&str]) -> Start {
        let run = RunSpec {
            app: app(name),
            deploy: DeployName::parse("test").expect("a name"),
            host: HostName::parse("here").expect("a name"),
            version: "1.0.0".to_owned(),
            run_hash: "h1".to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            env: BTreeMap::new(),
            env_from: BTreeMap::new(),
            dataset: DatasetPath::parse("apps/test").expect("a path"),
            number: 1,
            release: None,
            data: Vec::new(),
            runtime: zed_spec::Runtime::Process,
            limits: zed_spec::Limits::default(),
            user: None,
            group: None,
            restart: always(Duration::from_secs(600), None),
            stop_grace: Duration::from_secs(10),
        };
        let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        Start { run, directory: self.data(), data: self.data(), environment, container: None }
    }

    pub(crate) fn info(&self, name: &str) -> ProcessInfo {
        self.host.observe_app(&instance(name)).expect("observe").expect("it was started")
    }

    pub(crate) fn pid(&self, name: &str) -> u32 {
        match self.info(name).observed.status {
            ProcessStatus::Running { pid } => pid,
            other => panic!("{name} does not run: {other:?}"),
        }
    }

    pub(crate) fn wait_for_status(&self, name: &str, want: impl Fn(&ProcessStatus) -> bool) -> ProcessInfo {
        wait_for("a status", || Some(self.info(name)).filter(|info| want(&info.observed.status)))
    }

    pub(crate) fn log(&self, name: &str) -> String {
        let bytes = std::fs::read(self.host.log_path(&instance(name))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn wait_for_log(&self, name: &str, text: &str) -> String {
        wait_for(text, || Some(self.log(name)).filter(|log| log.contains(text)))
    }

    /// A number that the app has written to a file beside it.
    pub(crate) fn number(&self, file: &str) -> u32 {
        wait_for(file, || std::fs::read_to_string(self.data().join(file)).ok()?.trim().parse().ok())
    }

    /// The app's supervisor.
    pub(crate) fn supervisor_pid(&self, name: &str) -> u32 {
        let text = std::fs::read_to_string(self.files(name).join("status.json")).expect("status.json");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        u32::try_from(value["supervisor"].as_u64().expect("a number")).expect("a pid")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in self.host.observe().unwrap_or_default().keys() {
            let _ = self.host.stop(name, Duration::ZERO);
        }
    }
}

/// True while the process exists and is no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).expect("kill");
}
