//! The tree itself: what there is, what it says, and what may be done with it; no kernel, no socket.
//!
//! FUSE and the socket are two ways to reach the same [`Tree`]. Nothing here waits: what has to wait comes back as
//! a [`crate::wait::Step`]. Reading never changes anything.

mod attr;
mod crash;
mod errors;
mod files;
mod gpu;
mod inode;
mod meter;
mod node;
mod render;

pub use attr::Attr;
pub use attr::Lasts;
pub use attr::Owner;
pub use errors::Errors;
pub use files::Access;
pub use files::Caching;
pub use files::Handle;
pub use files::Rename;
pub use files::SetAttr;
pub use gpu::GpuFile;
pub use gpu::GpuNode;
pub use gpu::JobFile;
pub use inode::Inodes;
pub use inode::ROOT_INO;
pub use inode::SPEC_BIT;
pub use inode::path_hash;
pub use meter::Meter;
pub use meter::Op;
pub use node::*;

use crate::Control;
use crate::Fault;
use crate::SpecDir;
use crate::spec::SpecFolder;
use crate::spec::SpecSettings;
use crate::stream::Hub;
use nix::errno::Errno;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use zed_ctl::AppView;
use zed_ctl::InstanceView;
use zed_ctl::World;

/// The most texts that are kept of one version of the world.
const MAX_TEXTS: usize = 4096;

/// How often old scratch files are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// What can be chosen of a tree. The defaults are what a daemon wants; tests shorten times.
#[derive(Debug, Clone, Copy)]
pub struct TreeSettings {
    /// Of `deploy/` and `plan/`.
    pub specs: SpecSettings,
    /// How long a blocking read at the end of a stream waits for news.
    pub quiet: Duration,
    /// How long `sync NAME.ron` and `NAME.wait` wait for a deploy to settle.
    pub settle: Duration,
}

impl Default for TreeSettings {
    fn default() -> Self {
        Self {
            specs: SpecSettings::default(),
            quiet: crate::stream::QUIET,
            // Longer than any deploy that still does something: images are pulled, probes have grace.
            settle: Duration::from_secs(60 * 60),
        }
    }
}

/// One name of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub node: Node,
}

/// The tree.
pub struct Tree {
    control: Arc<dyn Control>,
    owner: Owner,
    started: SystemTime,
    settings: TreeSettings,
    errors: Arc<Errors>,
    texts: Mutex<Texts>,
    changes: Mutex<attr::Changes>,
    gpu_seen: gpu::Seen,
    deploy: SpecFolder,
    plan: SpecFolder,
    hub: Arc<Hub>,
    inodes: Inodes,
    /// Counters of requests.
    pub meter: Meter,
    /// How many requests wait for something.
    pub waiting: AtomicUsize,
    janitor: mpsc::Sender<()>,
}

#[derive(Default)]
struct Texts {
    version: u64,
    texts: HashMap<Node, Arc<[u8]>>,
}

impl Tree {
    /// Makes the tree and starts its two threads: one that watches streams, one that ends graces.
    ///
    /// # Errors
    /// When the folders of specs cannot be used.
    pub fn new(control: Arc<dyn Control>, settings: TreeSettings) -> io::Result<Arc<Self>> {
        let (janitor, wake) = mpsc::channel();
        let folder = |dir| SpecFolder::open(Arc::clone(&control), dir, settings.specs);
        let tree = Arc::new(Self {
            owner: Owner::of_this_process(),
            started: SystemTime::now(),
            settings,
            errors: Arc::default(),
            texts: Mutex::default(),
            changes: Mutex::default(),
            gpu_seen: gpu::Seen::default(),
            deploy: folder(SpecDir::Deploy)?,
            plan: folder(SpecDir::Plan)?,
            hub: Hub::start()?,
            inodes: Inodes::default(),
            meter: Meter::default(),
            waiting: AtomicUsize::new(0),
            janitor,
            control,
        });
        let weak = Arc::downgrade(&tree);
        std::thread::Builder::new().name("zed-janitor".to_owned()).spawn(move || keep_clean(&weak, &wake))?;
        Ok(tree)
    }

    /// The daemon behind the tree.
    pub fn control(&self) -> &Arc<dyn Control> {
        &self.control
    }

    /// The folder of specs.
    pub fn specs(&self, dir: SpecDir) -> &SpecFolder {
        match dir {
            SpecDir::Deploy => &self.deploy,
            SpecDir::Plan => &self.plan,
        }
    }

    /// The number of a node, for listings.
    pub fn number(&self, node: &Node) -> u64 {
        self.inodes.number(node)
    }

    /// The node of a number that a lookup gave.
    pub fn node(&self, ino: u64) -> Option<Node> {
        self.inodes.node(ino)
    }

    /// The number of a node for a lookup: the kernel knows it until it forgets it as often.
    pub fn remember(&self, node: &Node) -> u64 {
        if let Node::Spec(dir, ino) = node {
            self.specs(*dir).remember(*ino);
        }
        self.inodes.remember(node)
    }

    /// The kernel takes lookups back.
    pub fn forget(&self, ino: u64, lookups: u64) {
        if let Some(Node::Spec(dir, ino)) = self.inodes.forget(ino, lookups) {
            self.specs(dir).forget(ino);
        }
    }

    /// The node called `name` in a folder.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn child(&self, parent: &Node, name: &str) -> Result<Node, Fault> {
        let found = match parent {
            Node::Root => root_child(name),
            Node::Specs(dir) => return self.spec_child(*dir, name),
            Node::Apps => {
                let app = self.control.world().apps.contains_key(name);
                app.then(|| Node::App(name.into()))
            }
            Node::App(app) if self.control.world().apps.contains_key(&**app) => {
                let found = AppFile::from_name(name).map(|file| Node::AppFile(Arc::clone(app), file));
                let other = || {
                    let node = Node::InstanceLog(Arc::clone(app), name.strip_suffix(".log")?.into());
                    self.stream_path(&node).map(|_| node)
                };
                found.filter(|node| self.is_there(node)).or_else(other)
            }
            Node::Hosts => (self.control.world().host.name == name).then(|| Node::Host(name.into())),
            Node::Host(host) if self.control.world().host.name == **host => {
                HostFile::from_name(name).map(|file| Node::HostFile(Arc::clone(host), file))
            }
            Node::Dataset(path) => dataset_child(&self.control.world(), path, name),
            Node::Meta => MetaFile::from_name(name).map(Node::MetaFile),
            Node::Gpu(node) if node.is_dir() => {
                self.control.gpus().and_then(|gpus| node.child(&*gpus, name)).map(Node::Gpu)
            }
            Node::App(_) | Node::Host(_) => None,
            _ => return Err(Errno::ENOTDIR.into()),
        };
        found.ok_or_else(|| Errno::ENOENT.into())
    }

    fn spec_child(&self, dir: SpecDir, name: &str) -> Result<Node, Fault> {
        if let Some((deploy, view)) = ViewFile::split(name)
            && view.is_in(dir)
        {
            let exists = render::views(&self.control.world(), dir).contains_key(deploy)
                || self.specs(dir).lookup(&format!("{deploy}.ron"))?.is_some();
            return if exists { Ok(Node::View(dir, deploy.into(), view)) } else { Err(Errno::ENOENT.into()) };
        }
        let ino = self.specs(dir).lookup(name)?.ok_or(Errno::ENOENT)?;
        Ok(Node::Spec(dir, ino))
    }

    /// What a folder holds, without `.` and `..`.
    ///
    /// # Errors
    /// ENOENT when it is gone, ENOTDIR.
    pub fn list(&self, node: &Node) -> Result<Vec<Entry>, Fault> {
        let world = self.control.world();
        let entries = match node {
            Node::Root => root_entries(),
            Node::Specs(dir) => return self.list_specs(&world, *dir),
            Node::Apps => world
                .apps
                .keys()
                .map(|app| Entry { name: app.clone(), node: Node::App(app.as_str().into()) })
                .collect(),
            Node::App(app) if world.apps.contains_key(&**app) => {
                let all =
                    entries_of(AppFile::ALL, |file| (file.name(), Node::AppFile(Arc::clone(app), *file)));
                let logs =
                    world.apps.get(&**app).into_iter().flat_map(|view| other_logs(view)).map(|instance| {
                        let node = Node::InstanceLog(Arc::clone(app), instance.name.as_str().into());
                        Entry { name: format!("{}.log", instance.name), node }
                    });
                all.into_iter().filter(|entry| self.is_there(&entry.node)).chain(logs).collect()
            }
            Node::Hosts if world.host.name.is_empty() => Vec::new(),
            Node::Hosts => {
                let name = world.host.name.clone();
                vec![Entry { node: Node::Host(name.as_str().into()), name }]
            }
            Node::Host(host) if world.host.name == **host => {
                entries_of(HostFile::ALL, |file| (file.name(), Node::HostFile(Arc::clone(host), *file)))
            }
            Node::Dataset(path) if render::dataset_exists(&world, path) => dataset_entries(&world, path),
            Node::Meta => entries_of(MetaFile::ALL, |file| (file.name(), Node::MetaFile(*file))),
            Node::Gpu(node) if node.is_dir() => match self.control.gpus() {
                Some(gpus) => node.list(&*gpus).ok_or(Errno::ENOENT)?,
                None if *node == GpuNode::All => Vec::new(),
                None => return Err(Errno::ENOENT.into()),
            },
            Node::App(_) | Node::Host(_) | Node::Dataset(_) => return Err(Errno::ENOENT.into()),
            _ => return Err(Errno::ENOTDIR.into()),
        };
        Ok(entries)
    }

    fn list_specs(&self, world: &World, dir: SpecDir) -> Result<Vec<Entry>, Fault> {
        let folder = self.specs(dir);
        let names = folder.list()?;
        let mut deploys: Vec<&str> = render::views(world, dir).keys().map(String::as_str).collect();
        deploys.extend(names.iter().filter_map(|name| deploy_of(name)));
        deploys.sort_unstable();
        deploys.dedup();
        let mut entries = Vec::with_capacity(names.len() + deploys.len() * ViewFile::ALL.len());
        for name in &names {
            if let Some(ino) = folder.lookup(name)? {
                entries.push(Entry { name: name.clone(), node: Node::Spec(dir, ino) });
            }
        }
        for deploy in deploys {
            for view in ViewFile::ALL.iter().filter(|view| view.is_in(dir)) {
                let name = format!("{deploy}.{}", view.name());
                entries.push(Entry { name, node: Node::View(dir, deploy.into(), *view) });
            }
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// The text of a file that is not a stream and not a spec.
    ///
    /// # Errors
    /// ENOENT when it is gone.
    pub fn text(&self, node: &Node) -> Result<Arc<[u8]>, Fault> {
        match node {
            Node::RootFile(RootFile::Metrics) => return Ok(self.control.metrics().into_bytes().into()),
            Node::RootFile(RootFile::Error)
            | Node::AppFile(_, AppFile::Error)
            | Node::HostFile(_, HostFile::Error) => {
                return Ok(self.errors.get(node).map_or_else(|| Arc::new([]) as Arc<[u8]>, |(text, _)| text));
            }
            Node::Gpu(node) => {
                let gpus = self.control.gpus().ok_or(Errno::ENOENT)?;
                return node.text(&*gpus, &self.errors);
            }
            Node::MetaFile(file) => return Ok(self.meta_text(*file).into_bytes().into()),
            Node::AppFile(app, AppFile::Crash) => return Ok(crash::text(&self.crash_files(app)?)?.into()),
            Node::AppFile(app, AppFile::CrashJson) => return Ok(crash::json(&self.crash_files(app)?)?.into()),
            // Each probe changes it, and the world stays as it is.
            Node::AppFile(app, file @ (AppFile::Health | AppFile::HealthJson)) => {
                let health = self.control.health(app).ok_or(Errno::ENOENT)?;
                let json = *file == AppFile::HealthJson;
                let text = if json { zed_ctl::to_json(&health) } else { zed_ctl::render_health(&health) };
                return Ok(text.into_bytes().into());
            }
            Node::View(dir, deploy, ViewFile::Errors) => {
                if let Some(text) = self.specs(*dir).refusal(deploy) {
                    return Ok(text);
                }
            }
            _ => {}
        }
        let world = self.control.world();
        let mut texts = self.texts.lock();
        if texts.version != world.version || texts.texts.len() >= MAX_TEXTS {
            *texts = Texts { version: world.version, texts: HashMap::new() };
        }
        if let Some(text) = texts.texts.get(node) {
            return Ok(Arc::clone(text));
        }
        let text = match node {
            Node::HostFile(host, HostFile::Import) if **host == *world.host.name => {
                Some(self.control.import())
            }
            _ => render::world_text(&world, node),
        };
        let text: Arc<[u8]> = text.ok_or(Errno::ENOENT)?.into_bytes().into();
        texts.texts.insert(node.clone(), Arc::clone(&text));
        Ok(text)
    }

    fn meta_text(&self, file: MetaFile) -> String {
        match file {
            MetaFile::Uptime => {
                format!("{}\n", self.started.elapsed().unwrap_or_default().as_secs())
            }
            MetaFile::Requests => self.meter.requests(self.waiting.load(Relaxed)),
            MetaFile::Latency => self.meter.latency(),
            MetaFile::Version => zed_ctl::render_value(&self.control.world().host.zed_version),
            MetaFile::LogLevel => zed_ctl::render_value(&self.control.log_level()),
        }
    }

    /// Removals of specs take effect now: what `fsync` of the folder means, and the end of the tree.
    pub fn commit_removals(&self) {
        let far = Instant::now() + self.settings.specs.grace;
        self.deploy.settle(far);
        self.plan.settle(far);
    }

    /// The real file behind a stream; nothing for other nodes.
    pub fn stream_path(&self, node: &Node) -> Option<std::path::PathBuf> {
        match node {
            Node::RootFile(RootFile::Events) => Some(self.control.events_path().to_path_buf()),
            Node::RootFile(RootFile::Log) => Some(self.control.log_path().to_path_buf()),
            Node::AppFile(app, AppFile::Events) => {
                let exists = self.control.world().apps.contains_key(&**app);
                exists.then(|| self.control.app_events_path(app))
            }
            Node::AppFile(app, AppFile::Log) => {
                self.control.world().apps.get(&**app).map(|app| app.log.clone())
            }
            Node::InstanceLog(app, name) => {
                let world = self.control.world();
                let found = other_logs(world.apps.get(&**app)?).find(|instance| instance.name == **name);
                found.map(|instance| instance.log.clone())
            }
            _ => None,
        }
    }

    /// The real file behind a part of an app's output that is not written to any more.
    fn old_log(&self, node: &Node) -> Option<std::path::PathBuf> {
        let Node::AppFile(app, file @ (AppFile::Log1 | AppFile::Log2 | AppFile::Log3)) = node else {
            return None;
        };
        self.control.world().apps.get(&**app).map(|app| app.log.with_file_name(file.name()))
    }

    /// False for old output that there is none of yet.
    fn is_there(&self, node: &Node) -> bool {
        self.old_log(node).is_none_or(|path| path.exists())
    }

    fn crash_files(&self, app: &str) -> Result<Vec<std::path::PathBuf>, Fault> {
        Ok(self.control.world().apps.get(app).ok_or(Errno::ENOENT)?.crashes.clone())
    }

    /// Records a refusal for the `error` file at the top, which speaks for `deploy/` and `plan/` too.
    fn note<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        let file = Node::RootFile(RootFile::Error);
        if let Err(Fault { text: Some(text), .. }) = &result {
            self.errors.set(&file, text);
        }
        result
    }

    fn note_success(&self) {
        self.errors.clear(&Node::RootFile(RootFile::Error));
    }
}

/// Processes of an app whose output is not what `log` shows.
fn other_logs(app: &AppView) -> impl Iterator<Item = &InstanceView> {
    app.instances.iter().filter(|instance| instance.log != app.log)
}

fn keep_clean(tree: &Weak<Tree>, wake: &mpsc::Receiver<()>) {
    let mut swept = Instant::now();
    loop {
        let Some(here) = tree.upgrade() else { return };
        let now = Instant::now();
        let next = [here.deploy.settle(now), here.plan.settle(now)].into_iter().flatten().min();
        if now.duration_since(swept) >= SWEEP_EVERY {
            swept = now;
            here.deploy.sweep(SystemTime::now());
            here.plan.sweep(SystemTime::now());
            let world = here.control.world();
            let gpus = here.control.gpus();
            here.errors.keep(|node| match node {
                Node::AppFile(app, _) => world.apps.contains_key(&**app),
                Node::Gpu(node) => gpus.as_deref().is_some_and(|gpus| node.exists(gpus)),
                _ => true,
            });
        }
        drop(here);
        let sleep = next.map_or(SWEEP_EVERY, |at| at.saturating_duration_since(now).min(SWEEP_EVERY));
        if let Err(RecvTimeoutError::Disconnected) = wake.recv_timeout(sleep) {
            return;
        }
    }
}

fn root_child(name: &str) -> Option<Node> {
    match name {
        "deploy" => Some(Node::Specs(SpecDir::Deploy)),
        "plan" => Some(Node::Specs(SpecDir::Plan)),
        "apps" => Some(Node::Apps),
        "hosts" => Some(Node::Hosts),
        "datasets" => Some(Node::Dataset("".into())),
        "gpu" => Some(Node::Gpu(GpuNode::All)),
        ".meta" => Some(Node::Meta),
        _ => RootFile::from_name(name).map(Node::RootFile),
    }
}

fn root_entries() -> Vec<Entry> {
    let folders = [".meta", "apps", "datasets", "deploy", "gpu", "hosts", "plan"];
    let files = RootFile::ALL.iter().map(|file| file.name());
    folders
        .into_iter()
        .chain(files)
        .filter_map(|name| root_child(name).map(|node| Entry { name: name.to_owned(), node }))
        .collect()
}

fn entries_of<T>(all: &[T], entry: impl Fn(&T) -> (&'static str, Node)) -> Vec<Entry> {
    all.iter()
        .map(|file| {
            let (name, node) = entry(file);
            Entry { name: name.to_owned(), node }
        })
        .collect()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

fn dataset_child(world: &World, path: &str, name: &str) -> Option<Node> {
    let below = join(path, name);
    if render::dataset_exists(world, &below) {
        return Some(Node::Dataset(below.into()));
    }
    let properties = &world.datasets.get(path)?.properties;
    let property = |name: &str| Some(Node::Property(path.into(), name.into()));
    if properties.contains_key(name) {
        return property(name);
    }
    let plain = name.strip_suffix(".value")?;
    let hidden = properties.contains_key(plain) && render::dataset_exists(world, &join(path, plain));
    if hidden { property(plain) } else { None }
}

fn dataset_entries(world: &World, path: &str) -> Vec<Entry> {
    let (folders, properties) = render::dataset_children(world, path);
    let folders = folders.into_iter().map(|name| {
        let node = Node::Dataset(join(path, &name).into());
        Entry { name, node }
    });
    let properties = properties
        .into_iter()
        .map(|(name, property)| Entry { name, node: Node::Property(path.into(), property.into()) });
    folders.chain(properties).collect()
}
