//! The daemon's side of traffic fronts: having one run, pointing it at instances, and waiting for what is open.
//!
//! A front is a process of its app (number 0) under a supervisor of its own, started through the same path as an app.
//! Where it forwards to is in its `route.json`, written before it is told: a front that ends at any moment is started
//! again with what was last wanted.

use crate::front::FrontRequest;
use crate::front::FrontStatus;
use crate::front::RouteRecord;
use crate::front::ask;
use crate::front::explain_bind;
use crate::identity::resolve_identity;
use crate::launch::SupervisorProgram;
use crate::local::LocalHost;
use crate::record::AppFiles;
use crate::record::FORMAT;
use crate::record::State;
use crate::record::read_record;
use crate::record::write_record;
use crate::types::Drained;
use crate::types::Host;
use crate::types::HostErrorKind;
use crate::types::Start;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use zed_plan::Instance;
use zed_plan::Route;
use zed_plan::RunSpec;
use zed_spec::Backoff;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::HostName;
use zed_spec::Limits;
use zed_spec::Restart;
use zed_spec::Runtime;

/// From TERM to KILL: what is open may finish for a little less.
pub(crate) const FRONT_GRACE: Duration = Duration::from_secs(6);
/// For a front to say that it forwards as asked.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two attempts to reach a front that is just starting.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A front that has ended is missed by every client: it is started again at once.
const RESTART: Restart = Restart::Always(Backoff {
    backoff: Duration::from_millis(50),
    max_backoff: Duration::from_secs(2),
    give_up_after: None,
});
/// Lines of its log that are shown when a front does not come up.
const LAST_LINES: usize = 3;

impl LocalHost {
    /// See [`Host::route`].
    pub(crate) fn route_front(&self, route: &Route) -> Result<(), HostErrorKind> {
        let front = Instance::front(&route.app);
        if route.backends.is_empty() {
            return self.remove_front(&front);
        }
        let identity = resolve_identity(route.user.as_deref(), None)?;
        let ports: BTreeSet<u16> = route.backends.values().copied().collect();
        let ports = ports.into_iter().collect();
        let wanted = RouteRecord { format: FORMAT, listen: route.listen, ports, identity };
        let files = self.files(&front);
        let io_kind = |e: io::Error| HostErrorKind::Io(format!("`{}`: {e}", files.folder.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&files.folder).map_err(io_kind)?;
        // A damaged or newer record is not that of a front that can go on.
        let known: Option<RouteRecord> = read_record(&files.route()).unwrap_or_default();
        let same_front = known
            .as_ref()
            .is_some_and(|known| known.listen == wanted.listen && known.identity == wanted.identity);
        let goes_on = same_front && self.is_up(&front, route).map_err(io_kind)?;
        if !goes_on {
            self.stop(&front, FRONT_GRACE).map_err(|e| e.kind)?;
            // The front says the same in its log; here the one who waits is told.
            let address = route.listen.address;
            TcpListener::bind(address).map_err(|e| HostErrorKind::Io(explain_bind(address, &e)))?;
        }
        if known.as_ref() != Some(&wanted) {
            write_record(&files.route(), &wanted)?;
        }
        if !goes_on {
            self.start(&front_start(route, self.program(), &files.folder)?).map_err(|e| e.kind)?;
        }
        self.tell(&front, &files, &wanted)
    }

    fn is_up(&self, front: &Instance, route: &Route) -> io::Result<bool> {
        let look = self.look(front)?;
        Ok(look.supervisor.is_some()
            && matches!(look.record, Some(Ok(record))
                if matches!(record.state, State::Running | State::Backoff)
                    && record.run_hash == front_hash(route)))
    }

    /// Tells a front its ports until it has said that it uses them.
    fn tell(&self, front: &Instance, files: &AppFiles, wanted: &RouteRecord) -> Result<(), HostErrorKind> {
        let until = Instant::now() + ANSWER;
        loop {
            let error = match ask(&files.front_socket(), &FrontRequest::Route(wanted.ports.clone()), until) {
                Ok(_) => return Ok(()),
                // It is starting, or being started again: it may read the file at this moment.
                Err(error) => error,
            };
            if Instant::now() >= until {
                let lines = crate::tail::tail(&self.log_path(front), LAST_LINES).unwrap_or_default();
                let lines: String = lines.iter().map(|line| format!("\n{line}")).collect();
                return Err(HostErrorKind::Io(format!(
                    "it does not answer ({error}); its log ends with{lines}"
                )));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn remove_front(&self, front: &Instance) -> Result<(), HostErrorKind> {
        self.stop(front, FRONT_GRACE).map_err(|e| e.kind)?;
        self.forget(front).map_err(|e| e.kind)?;
        let files = self.files(front);
        for path in [files.route(), files.front_socket()] {
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(HostErrorKind::Io(format!("`{}`: {e}", path.display()))),
            }
        }
        Ok(())
    }

    /// See [`Host::drain`].
    pub(crate) fn drain_port(
        &self,
        instance: &Instance,
        port: u16,
        at_most: Duration,
    ) -> Result<Drained, HostErrorKind> {
        let files = self.files(&Instance::front(&instance.app));
        let known: Option<RouteRecord> = read_record(&files.route())?;
        let Some(known) = known else { return Ok(Drained { left: 0 }) };
        if known.ports.contains(&port) {
            return Err(still_served(port));
        }
        let until = Instant::now() + at_most;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let asked = FrontRequest::Drain(port, left);
            match ask(&files.front_socket(), &asked, until + ANSWER) {
                Ok(answer) => match answer.parse() {
                    Ok(left) => return Ok(Drained { left }),
                    Err(_) => return Err(HostErrorKind::Io(format!("its front answers `{answer}`"))),
                },
                // What was open through a front that has ended is closed, and the next one does not go there.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    return Ok(Drained { left: 0 });
                }
                Err(e) if Instant::now() >= until + ANSWER => {
                    return Err(HostErrorKind::Io(format!("its front does not answer: {e}")));
                }
                Err(_) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// What a front says of itself; `None` when it does not answer.
    pub fn front_status(&self, app: &zed_spec::AppName) -> Option<FrontStatus> {
        let files = self.files(&Instance::front(app));
        let answer = ask(&files.front_socket(), &FrontRequest::Status, Instant::now() + ANSWER).ok()?;
        serde_json::from_str(&answer).ok()
    }
}

/// Draining what still gets connections would never end.
pub(crate) fn still_served(port: u16) -> HostErrorKind {
    HostErrorKind::Io(format!("port {port} still gets connections; route them elsewhere first"))
}

/// What makes one front different from another of the same app.
fn front_hash(route: &Route) -> String {
    route.listen.to_string()
}

/// How a front is started: the supervisor's own program, with another first word and no environment.
fn front_start(route: &Route, program: &SupervisorProgram, folder: &Path) -> Result<Start, HostErrorKind> {
    let command =
        [program.path.as_path(), Path::new("front"), folder].map(|word| word.to_string_lossy().into_owned());
    let root = PathBuf::from("/");
    let run = front_run(route, command.into())?;
    Ok(Start { run, directory: root.clone(), data: root, environment: BTreeMap::new(), container: None })
}

/// A front as something that runs. Its deploy, host and dataset are names that say so: it belongs to none.
pub(crate) fn front_run(route: &Route, command: Vec<String>) -> Result<RunSpec, HostErrorKind> {
    let unnamed = |e: zed_spec::NameError| HostErrorKind::Io(e.to_string());
    Ok(RunSpec {
        app: route.app.clone(),
        number: Instance::front(&route.app).number,
        deploy: DeployName::parse(route.app.as_str()).map_err(unnamed)?,
        host: HostName::parse("localhost").map_err(unnamed)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run_hash: front_hash(route),
        command,
        env: BTreeMap::new(),
        env_from: BTreeMap::new(),
        dataset: DatasetPath::parse("zed").map_err(unnamed)?,
        release: None,
        data: Vec::new(),
        runtime: Runtime::Process,
        limits: Limits::default(),
        // It becomes the app's user once it listens.
        user: None,
        group: None,
        restart: RESTART,
        stop_grace: FRONT_GRACE,
    })
}
