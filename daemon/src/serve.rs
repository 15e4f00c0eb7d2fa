//! The composition root: store, host, loop and tree are put together here, and taken apart again.

use crate::args::Args;
use crate::args::Defaults;
use crate::control::Daemon;
use crate::engine::Engine;
use crate::engine::Parts;
use crate::events::About;
use crate::events::Events;
use crate::faults::Faults;
use crate::logging;
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::mount;
use crate::observe::Fixed;
use crate::shared::Shared;
use crate::state::StateDir;
use crate::steps::Steps;
use crate::steps::ensure_own_datasets;
use crate::watch;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use zed_ctl::EventKind;
use zed_fs::Control;
use zed_fs::tree::Tree;
use zed_fs::tree::TreeSettings;
use zed_host::ContainerRuntime;
use zed_host::LocalHost;
use zed_host::Runner;
use zed_host::SupervisorProgram;
use zed_host::find_container_runtime;
use zed_spec::DatasetPath;
use zed_spec::HostName;
use zed_store::OWN_DATASET;
use zed_store::Store;

/// A failure to start or to stop, in the words of the operator.
pub type Failure = String;

/// Runs the daemon until it is told to stop.
pub fn run(args: &Args) -> Result<(), Failure> {
    let root = nix::unistd::geteuid().is_root();
    let defaults = Defaults::of(root, |name| std::env::var(name).ok());
    let store_name = match &args.store {
        Some(name) => name.clone(),
        None => default_store(defaults.as_ref().map_err(Clone::clone)?)?,
    };
    let faults = args.fault.as_deref().map_or_else(|| Ok(Faults::none()), Faults::parse)?;
    let store = zed_store::open(&store_name).map_err(|e| crate::chain(&e))?;
    ensure_own_datasets(&*store).map_err(|e| crate::chain(&e))?;
    let state_dir = match &args.state {
        // Supervisors are given paths below it, and have working directories of their own.
        Some(dir) => {
            std::path::absolute(dir).map_err(|e| format!("failed to find `{}`: {e}", dir.display()))?
        }
        None => own_directory(&*store)?,
    };
    let state = StateDir::open(&state_dir).map_err(|e| crate::chain(&e))?;
    let _lock = lock(state.root())?;
    // Another state directory is no licence for a second zedd on the same store.
    let _store_lock = match own_directory(&*store) {
        Ok(own) if own != state.root() => Some(lock(&own)?),
        _ => None,
    };
    let log_level = logging::start(&state.log_path()).map_err(|e| format!("failed to start the log: {e}"))?;
    let mut facts = zed_host::observe_facts();
    facts.extend(store_facts(&*store)?);
    let host_name = host_name(args.host.as_deref(), &facts)?;
    let host = Arc::new(LocalHost::new(state.root().to_owned(), supervisor()?));

    let shared = Arc::new(Shared::new());
    let metrics = Arc::new(Metrics::default());
    let events =
        Events::open(&state.events_path()).map_err(|e| format!("failed to open the events file: {e}"))?;
    let events = Arc::new(events);
    let steps = Steps::new(store.clone(), host.clone(), state.clone());
    let at_least = Duration::from_secs(args.health_interval);
    let monitor = Monitor::new(host.clone(), steps, shared.clone(), events.clone(), at_least);
    monitor.start().map_err(|e| format!("failed to start the health checks: {e}"))?;
    let inventory = crate::gpus::inventory(&args.gpu, &shared);
    let engine = Engine::new(Parts {
        inventory: inventory.clone(),
        monitor: monitor.clone(),
        fixed: fixed(host_name, &store_name, facts, capabilities(state.root())),
        store: store.clone(),
        host: host.clone(),
        state: state.clone(),
        store_name: store_name.clone(),
        shared: shared.clone(),
        events: events.clone(),
        metrics: metrics.clone(),
        faults,
        drift_interval: Duration::from_secs(args.drift_interval),
    })
    .map_err(|e| crate::chain(&e))?;
    let gpus = crate::gpus::start(&args.gpu, &state, supervisor()?, events.clone(), inventory.clone())?;
    let control: Arc<dyn Control> = Arc::new(Daemon::new(
        shared.clone(),
        state.clone(),
        metrics,
        events.clone(),
        monitor.clone(),
        log_level,
        gpus.clone(),
    ));
    watch::start_apps(host, shared.clone());
    watch::start(vec![state.deploy_dir(), state.plan_dir()], shared.clone());
    let (alive, ended) = tokio::sync::oneshot::channel::<()>();
    let engine = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            // Dropped when the loop ends, however that is.
            let _alive = alive;
            engine.run();
        })
        .map_err(|e| format!("failed to start the reconcile loop: {e}"))?;

    let served = serve_tree(args, &defaults, control, &events, ended);
    if let Some(gpus) = gpus {
        gpus.stop();
    }
    monitor.stop();
    shared.stop();
    inventory.end();
    if engine.join().is_err() {
        return Err("the reconcile loop ended with a panic; the journals say how far it was".to_owned());
    }
    served
}

/// Mounts, listens, says `ready`, and waits for the signal that ends it.
fn serve_tree(
    args: &Args,
    defaults: &Result<Defaults, String>,
    control: Arc<dyn Control>,
    events: &Events,
    ended: tokio::sync::oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("failed to start the runtime: {e}"))?;
    let tree =
        Tree::new(control, TreeSettings::default()).map_err(|e| format!("failed to make the tree: {e}"))?;
    let socket_path = match (&args.socket, defaults) {
        (Some(path), _) => Some(path.clone()),
        // A daemon for a test or a try has its own mount and no claim on the system's socket.
        (None, Ok(defaults)) if args.mount.is_none() => Some(defaults.socket.clone()),
        _ => None,
    };
    let socket = match &socket_path {
        Some(path) => Some(listen(&tree, path)?),
        None if args.no_mount || cfg!(target_os = "illumos") => {
            return Err("without a mount and without --socket nobody would be served".to_owned());
        }
        None => None,
    };
    let mounted = mount::mount(args, defaults, &tree)?;
    events.emit(EventKind::DaemonStarted, About::nothing(), concat!("zedd ", env!("CARGO_PKG_VERSION")));
    announce()?;
    let reason = runtime.block_on(until_told_to_stop(ended))?;
    events.emit(EventKind::DaemonStopping, About::nothing(), reason);
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    drop(socket);
    mounted.map_or(Ok(()), |mounted| mounted.unmount().map_err(|e| crate::chain(&e)))
}

fn listen(tree: &Arc<Tree>, path: &Path) -> Result<zed_fs::socket::Served, Failure> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| format!("failed to create `{}`: {e}", parent.display()))?;
    }
    zed_fs::socket::serve(tree, path).map_err(|e| crate::chain(&e))
}

/// One line on stdout for scripts, one message for the service manager.
fn announce() -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "ready")
        .and_then(|()| out.flush())
        .map_err(|e| format!("failed to write to stdout: {e}"))?;
    // Not started by systemd is no failure.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    Ok(())
}

async fn until_told_to_stop(mut ended: tokio::sync::oneshot::Receiver<()>) -> Result<&'static str, Failure> {
    let on = |kind| signal(kind).map_err(|e| format!("failed to install a signal handler: {e}"));
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    // A closed terminal is no reason to stop.
    let mut hangup = on(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok("SIGTERM"),
            _ = interrupt.recv() => return Ok("SIGINT"),
            _ = &mut ended => return Ok("the reconcile loop has ended"),
            _ = hangup.recv() => tracing::info!("SIGHUP is ignored"),
        }
    }
}

/// Keeps a second zedd out of a directory.
pub fn lock(dir: &Path) -> Result<nix::fcntl::Flock<fs::File>, Failure> {
    let path = dir.join("zedd.lock");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| format!("failed to open `{}`: {e}", path.display()))?;
    let holder = std::io::read_to_string(&mut file).unwrap_or_default();
    let mut locked =
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|_| {
            format!("another zedd (pid {}) uses the state directory `{}`", holder.trim(), dir.display())
        })?;
    locked
        .set_len(0)
        .and_then(|()| std::io::Seek::rewind(&mut *locked))
        .and_then(|()| writeln!(locked, "{}", std::process::id()))
        .map_err(|e| format!("failed to write `{}`: {e}", path.display()))?;
    Ok(locked)
}

/// The mountpoint of the dataset that zed owns.
pub fn own_directory(store: &dyn Store) -> Result<PathBuf, Failure> {
    let path = DatasetPath::parse(OWN_DATASET).map_err(|e| e.to_string())?;
    store.mount(&path).map_err(|e| crate::chain(&e))?;
    let dataset = store.get(&path).map_err(|e| crate::chain(&e))?;
    dataset.and_then(|dataset| dataset.mountpoint.clone()).ok_or_else(|| {
        format!("the dataset `{OWN_DATASET}` of the store has no mountpoint: set one, or give --state")
    })
}

/// The ZFS store when there is exactly one pool, else the embedded one.
fn default_store(defaults: &Defaults) -> Result<String, Failure> {
    match pools()?.as_slice() {
        [] => Ok(format!("embedded:{}", defaults.embedded.display())),
        [pool] => Ok(format!("zfs:{pool}")),
        many => {
            Err(format!("there are several pools ({}): say which with --store zfs:POOL", many.join(", ")))
        }
    }
}

/// Pools of this host, as far as this build can see them.
#[cfg(feature = "zfs")]
fn pools() -> Result<Vec<String>, Failure> {
    zed_store::zfs::ZfsStore::pool_names().map_err(|e| crate::chain(&e))
}

/// Pools of this host, as far as this build can see them.
#[cfg(not(feature = "zfs"))]
fn pools() -> Result<Vec<String>, Failure> {
    if Path::new("/dev/zfs").exists() {
        eprintln!("zedd: this host has ZFS, but this zedd was built without it: using the embedded store");
    }
    Ok(Vec::new())
}

/// How supervisors are started: by this very program.
pub fn supervisor() -> Result<SupervisorProgram, Failure> {
    SupervisorProgram::this_program().map_err(|e| format!("failed to find the path of zedd: {e}"))
}

/// The given name, or the system's.
pub fn host_name(given: Option<&str>, facts: &BTreeMap<String, String>) -> Result<HostName, Failure> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => facts.get("hostname").cloned().unwrap_or_default().to_lowercase(),
    };
    HostName::parse(&name).map_err(|e| format!("{e}; give another with --host"))
}

/// Facts of the store that stay as they are while this program runs.
pub fn store_facts(store: &dyn Store) -> Result<BTreeMap<String, String>, Failure> {
    let info = store.info().map_err(|e| crate::chain(&e))?;
    let mut facts = BTreeMap::from([("store".to_owned(), info.kind.clone())]);
    if info.kind == "zfs" {
        facts.insert("zfs".to_owned(), info.version.trim_start_matches("zfs-").to_owned());
    }
    Ok(facts)
}

/// What this host and this version can do, in the planner's words.
pub fn capabilities(state: &Path) -> BTreeSet<String> {
    let limits = zed_host::observe_limits(state).into_iter().map(|name| format!("limits.{name}"));
    let guests = zed_host::guest::guest_kinds().iter().map(|kind| (*kind).to_owned());
    let container = container_runtime().map(|_| "container".to_owned());
    let always = ["process", "artifact"].map(str::to_owned).into_iter();
    always.chain(limits).chain(guests).chain(container).collect()
}

/// The OCI runtime of this host. A zedd that finds none says why in its log.
fn container_runtime() -> Option<ContainerRuntime> {
    match find_container_runtime(&Runner::default()) {
        Ok(runtime) => Some(runtime),
        Err(why) => {
            tracing::debug!("no containers: {why}");
            None
        }
    }
}

fn fixed(
    host: HostName,
    store_name: &str,
    mut facts: BTreeMap<String, String>,
    capabilities: BTreeSet<String>,
) -> Fixed {
    facts.insert("host".to_owned(), host.to_string());
    let limits: Vec<&str> = capabilities.iter().filter_map(|word| word.strip_prefix("limits.")).collect();
    facts.insert("limits".to_owned(), limits.join(" "));
    if let Some(runtime) = container_runtime() {
        facts.insert("container".to_owned(), runtime.to_string());
    }
    Fixed {
        pool: store_name.strip_prefix("zfs:").map(ToOwned::to_owned),
        runtimes: capabilities,
        host,
        facts,
    }
}
