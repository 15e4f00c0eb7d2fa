//! A daemon for tests: an in-memory world, real folders, outcomes as the test scripts them, and a real mount.

pub(crate) mod gpu;

use gpu::FakeGpus;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::sync::Arc;
use std::sync::Once;
use std::time::Duration;
use std::time::Instant;
use zed_ctl::AppView;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::DatasetView;
use zed_ctl::DeployView;
use zed_ctl::HealthView;
use zed_ctl::HostView;
use zed_ctl::ProbeView;
use zed_ctl::ReleaseView;
use zed_ctl::World;
use zed_fs::Caller;
use zed_fs::Control;
use zed_fs::Done;
use zed_fs::Outcome;
use zed_fs::SpecDir;
use zed_fs::Ticket;
use zed_fs::VerbFile;
use zed_fs::WaitFor;
use zed_fs::fuse::MountSettings;
use zed_fs::fuse::Mounted;
use zed_fs::spec::SpecSettings;
use zed_fs::tree::Tree;
use zed_fs::tree::TreeSettings;

/// How long a test waits for what must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What the daemon was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Verb(Caller, VerbFile, String),
    Saved(SpecDir, String),
    Plan(String, Vec<u8>),
}

type Hook = Box<dyn Fn(u64) + Send + Sync>;

#[derive(Default)]
struct Inner {
    told: Vec<Told>,
    tickets: HashMap<Ticket, Option<Outcome>>,
    ticket_waiters: Vec<(Ticket, Done)>,
    settled: HashMap<String, Outcome>,
    settle_waiters: Vec<(String, Done)>,
    next_ticket: u64,
}

/// Accepts `ok`; gives a ticket for `slow`; refuses `no CODE`; knows `boom` as what fails later.
/// A spec that contains `bad` does not parse.
pub(crate) struct Fake {
    world: Mutex<Arc<World>>,
    hooks: Mutex<Vec<Hook>>,
    inner: Mutex<Inner>,
    changed: Condvar,
    deploy: PathBuf,
    plan: PathBuf,
    pub(crate) events: PathBuf,
    pub(crate) log: PathBuf,
    /// Probes of every app.
    pub(crate) probes: Mutex<Vec<ProbeView>>,
    pub(crate) gpus: Arc<FakeGpus>,
}

impl Fake {
    pub(crate) fn new(dir: &Path) -> Arc<Self> {
        let at = |name: &str| dir.join(name);
        for folder in ["deploy", "plan"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::create_dir_all(at("events.d")).unwrap();
        for file in ["events", "log", "hello.log", "events.d/hello"] {
            std::fs::write(at(file), format!("{file} began\n")).unwrap();
        }
        Arc::new(Self {
            world: Mutex::new(Arc::new(world(&at("hello.log")))),
            hooks: Mutex::default(),
            inner: Mutex::default(),
            changed: Condvar::new(),
            deploy: at("deploy"),
            plan: at("plan"),
            events: at("events"),
            log: at("log"),
            probes: Mutex::default(),
            gpus: FakeGpus::new(at("gpu")),
        })
    }

    pub(crate) fn world_now(&self) -> Arc<World> {
        Arc::clone(&self.world.lock())
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        let version = {
            let mut world = self.world.lock();
            let mut next = (**world).clone();
            change(&mut next);
            next.version += 1;
            next.changed_at += 1;
            *world = Arc::new(next);
            world.version
        };
        for hook in &*self.hooks.lock() {
            hook(version);
        }
    }

    pub(crate) fn change_app(&self, name: &str, change: impl FnOnce(&mut AppView)) {
        self.change(|world| {
            let mut apps = (*world.apps).clone();
            change(Arc::make_mut(apps.get_mut(name).unwrap()));
            world.apps = Arc::new(apps);
        });
    }

    pub(crate) fn end_ticket(&self, ticket: Ticket, outcome: Outcome) {
        let waiters: Vec<Done> = {
            let mut inner = self.inner.lock();
            inner.tickets.insert(ticket, Some(outcome.clone()));
            let (ended, others) =
                std::mem::take(&mut inner.ticket_waiters).into_iter().partition(|(of, _)| *of == ticket);
            inner.ticket_waiters = others;
            let ended: Vec<(Ticket, Done)> = ended;
            ended.into_iter().map(|(_, done)| done).collect()
        };
        for done in waiters {
            done(outcome.clone());
        }
    }

    pub(crate) fn last_ticket(&self) -> Ticket {
        Ticket(self.inner.lock().next_ticket)
    }

    pub(crate) fn settle(&self, name: &str, outcome: Outcome) {
        let waiters: Vec<Done> = {
            let mut inner = self.inner.lock();
            inner.settled.insert(name.to_owned(), outcome.clone());
            let (ended, others) =
                std::mem::take(&mut inner.settle_waiters).into_iter().partition(|(of, _)| of == name);
            inner.settle_waiters = others;
            let ended: Vec<(String, Done)> = ended;
            ended.into_iter().map(|(_, done)| done).collect()
        };
        for done in waiters {
            done(outcome.clone());
        }
    }

    pub(crate) fn waiting_for_settled(&self) -> usize {
        self.inner.lock().settle_waiters.len()
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.inner.lock().told.clone()
    }

    pub(crate) fn forget_told(&self) {
        self.inner.lock().told.clear();
    }

    pub(crate) fn saves(&self, name: &str) -> usize {
        self.told().iter().filter(|told| matches!(told, Told::Saved(_, saved) if saved == name)).count()
    }

    /// Waits until the daemon was told what the test waits for.
    pub(crate) fn wait_told(&self, what: &str, found: impl Fn(&[Told]) -> bool) {
        let end = Instant::now() + LIMIT;
        let mut inner = self.inner.lock();
        while !found(&inner.told) {
            let late = self.changed.wait_until(&mut inner, end).timed_out();
            assert!(!late, "the daemon was never told: {what}; it was told {:?}", inner.told);
        }
    }

    fn tell(&self, told: Told) {
        self.inner.lock().told.push(told);
        self.changed.notify_all();
    }

    fn ticket(&self) -> Ticket {
        let mut inner = self.inner.lock();
        inner.next_ticket += 1;
        let ticket = Ticket(inner.next_ticket);
        inner.tickets.insert(ticket, None);
        ticket
    }
}

impl Control for Fake {
    fn world(&self) -> Arc<World> {
        Arc::clone(&self.world.lock())
    }

    fn metrics(&self) -> String {
        "# TYPE zed_up gauge\nzed_up 1\n".to_owned()
    }

    fn health(&self, app: &str) -> Option<HealthView> {
        let world = self.world();
        let health = world.apps.get(app)?.health.clone();
        Some(HealthView { health, probes: self.probes.lock().clone(), ..HealthView::default() })
    }

    fn log_level(&self) -> String {
        "info".to_owned()
    }

    fn app_events_path(&self, app: &str) -> PathBuf {
        self.events.with_extension("d").join(app)
    }

    fn import(&self) -> String {
        "Deploy()\n".to_owned()
    }

    fn submit(&self, caller: Caller, file: &VerbFile, verb: &str) -> Result<Option<Ticket>, CtlError> {
        let judged = match verb.split_once(' ').unwrap_or((verb, "")) {
            ("slow", _) => Ok(Some(self.ticket())),
            ("boom", _) => {
                let ticket = self.ticket();
                self.end_ticket(ticket, Err(CtlError::new(Code::Failed, "boom: it burst")));
                Ok(Some(ticket))
            }
            ("ok", _) => Ok(None),
            ("no", code) => {
                let code = Code::ALL.into_iter().find(|known| known.as_str() == code).unwrap();
                Err(CtlError::new(code, format!("no: {}", code.as_str())))
            }
            _ => Err(CtlError::new(Code::BadArgument, format!("unknown verb `{verb}`"))),
        };
        self.tell(Told::Verb(caller, file.clone(), verb.to_owned()));
        judged
    }

    fn apply_plan(&self, _caller: Caller, name: &str, bytes: &[u8]) -> Result<Option<Ticket>, CtlError> {
        self.tell(Told::Plan(name.to_owned(), bytes.to_vec()));
        if bytes.windows(3).any(|part| part == b"old") {
            return Err(CtlError::new(Code::Stale, "the host has moved since the plan was made"));
        }
        Ok(None)
    }

    fn when(&self, what: WaitFor, done: Done) {
        let outcome = {
            let mut inner = self.inner.lock();
            match what {
                WaitFor::Ticket(ticket) => match inner.tickets.get(&ticket) {
                    Some(Some(outcome)) => outcome.clone(),
                    Some(None) => return inner.ticket_waiters.push((ticket, done)),
                    None => Ok(String::new()),
                },
                WaitFor::Settled(name) => match inner.settled.get(&name) {
                    Some(outcome) => outcome.clone(),
                    None => return inner.settle_waiters.push((name, done)),
                },
            }
        };
        done(outcome);
    }

    fn spec_dir(&self, dir: SpecDir) -> &Path {
        match dir {
            SpecDir::Deploy => &self.deploy,
            SpecDir::Plan => &self.plan,
        }
    }

    fn check_spec(&self, _dir: SpecDir, name: &str, text: &[u8]) -> Result<(), CtlError> {
        if text.windows(3).any(|part| part == b"bad") {
            return Err(CtlError::new(Code::BadSpec, format!("{name}.ron:1:1: this is bad")));
        }
        Ok(())
    }

    fn spec_saved(&self, dir: SpecDir, name: &str) {
        self.tell(Told::Saved(dir, name.to_owned()));
    }

    fn events_path(&self) -> &Path {
        &self.events
    }

    fn log_path(&self) -> &Path {
        &self.log
    }

    fn gpus(&self) -> Option<Arc<dyn zed_fs::Gpus>> {
        Some(Arc::clone(&self.gpus) as Arc<dyn zed_fs::Gpus>)
    }

    fn on_change(&self, hook: Box<dyn Fn(u64) + Send + Sync>) {
        self.hooks.lock().push(hook);
    }
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn world(log: &Path) -> World {
    let host = HostView {
        name: "h1".to_owned(),
        state: "converged".to_owned(),
        zed_version: "0.1.0".to_owned(),
        store: "embedded:/srv/zed".to_owned(),
        available: 1 << 30,
        started_at: 1_700_000_000,
        facts: strings(&[("os", "linux"), ("arch", "x86_64")]),
        datasets: 3,
        ..HostView::default()
    };
    let app = AppView {
        name: "hello".to_owned(),
        deploy: "prod".to_owned(),
        version: "1.1.0".to_owned(),
        state: "running".to_owned(),
        health: "healthy".to_owned(),
        generation: 2,
        env: strings(&[("PORT", "8123")]),
        hosts: vec!["h1".to_owned()],
        log: log.to_path_buf(),
        crashes: vec![log.with_file_name("crash.json")],
        history: vec![
            ReleaseView {
                version: "1.0.0".to_owned(),
                snapshot: "zed-1".to_owned(),
                dataset: "apps/hello".to_owned(),
                kind: "older".to_owned(),
                ..ReleaseView::default()
            },
            ReleaseView { version: "1.1.0".to_owned(), kind: "running".to_owned(), ..ReleaseView::default() },
        ],
        ..AppView::default()
    };
    let deploy = DeployView {
        name: "prod".to_owned(),
        state: "converged".to_owned(),
        generation: 2,
        verdict: "converged".to_owned(),
        plan: "~ hello 1.0.0 -> 1.1.0\n".to_owned(),
        plan_json: "{\"steps\": []}".to_owned(),
        apps: vec!["hello".to_owned()],
        changed_at: 1_700_000_100,
        ..DeployView::default()
    };
    let dry = DeployView { name: "next".to_owned(), plan: "+ web\n".to_owned(), ..deploy.clone() };
    let set = |path: &str, properties: &[(&str, &str)]| {
        (path.to_owned(), Arc::new(DatasetView { path: path.to_owned(), properties: strings(properties) }))
    };
    let datasets = [
        set("apps", &[("compression", "lz4"), ("hello", "a property like a child")]),
        set("apps/hello", &[("com.zed:version", "1.1.0"), ("mounted", "yes")]),
        set("apps-old", &[("compression", "off")]),
        set("deep/below/it", &[("quota", "10G")]),
    ];
    World {
        version: 1,
        changed_at: 1_700_000_200,
        host: Arc::new(host),
        apps: Arc::new([("hello".to_owned(), Arc::new(app))].into()),
        deploys: Arc::new([("prod".to_owned(), Arc::new(deploy))].into()),
        plans: Arc::new([("next".to_owned(), Arc::new(dry))].into()),
        datasets: Arc::new(datasets.into()),
    }
}

struct NoLog;

impl log::Log for NoLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{} {}: {}", record.level(), record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

pub(crate) fn install_logger() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| zed_fs::fuse::install_interrupt_logger(Box::new(NoLog)).unwrap());
}

/// A mounted tree with its fake daemon.
pub(crate) struct Rig {
    pub(crate) fake: Arc<Fake>,
    pub(crate) tree: Arc<Tree>,
    mount: Option<Mounted>,
    pub(crate) at: PathBuf,
    /// Removed last.
    pub(crate) dir: tempfile::TempDir,
}

/// Times that a test can wait for.
pub(crate) fn quick() -> TreeSettings {
    TreeSettings {
        specs: SpecSettings { grace: Duration::from_millis(300), ..SpecSettings::default() },
        quiet: Duration::from_secs(2),
        settle: LIMIT,
    }
}

impl Rig {
    /// Nothing where this machine cannot mount, with a line that says so.
    pub(crate) fn new() -> Option<Self> {
        Self::with(quick())
    }

    pub(crate) fn with(settings: TreeSettings) -> Option<Self> {
        if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/fuse") {
            println!("NOT RUN: /dev/fuse cannot be used here: {error}");
            return None;
        }
        install_logger();
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let fake = Fake::new(dir.path());
        let control: Arc<dyn Control> = Arc::clone(&fake) as Arc<dyn Control>;
        let tree = Tree::new(control, settings).unwrap();
        let at = dir.path().join("zed");
        let mount = zed_fs::fuse::mount(&tree, &at, &MountSettings::default()).unwrap();
        Some(Self { fake, tree, mount: Some(mount), at, dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn real(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn mount(&self) -> &Mounted {
        self.mount.as_ref().unwrap()
    }

    pub(crate) fn unmount(&mut self) {
        self.mount.take().unwrap().unmount().unwrap();
    }

    /// Runs a script with the tree as its current folder; ends it after [`LIMIT`].
    pub(crate) fn sh(&self, script: &str) -> Output {
        shell("bash", &self.at, script)
    }

    /// The same, which must succeed; gives what it printed.
    pub(crate) fn ok(&self, script: &str) -> String {
        let output = self.sh(script);
        assert!(output.status.success(), "{script}\n{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

pub(crate) fn shell(shell: &str, folder: &Path, script: &str) -> Output {
    let limit = LIMIT.as_secs().to_string();
    Command::new("timeout")
        .args(["-k", "5", &limit, shell, "-c", script])
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Waits for what no event tells.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// True when the tool is there; says so when it is not.
pub(crate) fn have(tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
    if !found.status.success() {
        println!("NOT RUN: {tool} is not on this machine; what it does to the tree was not tested");
    }
    found.status.success()
}

/// Names of the files in a folder of specs without those that zed makes itself, sorted.
pub(crate) fn deploy_names(folder: &Path) -> Vec<String> {
    let made = |name: &str| {
        let kind = name.split_once('.').map(|(_, kind)| kind);
        ["status", "status.json", "plan", "plan.json", "errors", "wait"].map(Some).contains(&kind)
    };
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !made(name))
        .collect();
    names.sort();
    names
}
