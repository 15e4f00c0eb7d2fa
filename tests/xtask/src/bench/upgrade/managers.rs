//! What looks after the apps: zed, supervisor or PM2, each told of a new version as its manual says.
//!
//! Each has a folder of its own, and is gone with all that it started when it is dropped.

use super::super::daemon::Daemon;
use super::PORT;
use crate::leftovers;
use crate::shell::Cmd;
use std::fmt::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::Duration;

/// From the ports of clients to those of instances behind a front.
const BEHIND: u16 = 1_000;
/// From the order to stop to the kill, for all of them; seconds.
const GRACE: u32 = 3;
/// Instances of the app where a peer's reload needs more than one.
const CLUSTER: u32 = 2;
const PM2: &str = "pm2@7";

/// A server that ends well: what it has begun is answered, and clients of kept connections are told to open others.
const SERVER: &str = r"
const http = require('http');
const net = require('net');
let closing = false;
const server = http.createServer((request, answer) => {
  const body = process.env.V + '\n';
  if (closing) answer.setHeader('Connection', 'close');
  answer.setHeader('Content-Length', body.length);
  answer.end(body);
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.env.PORT), '127.0.0.1');
const end = () => {
  closing = true;
  // http's own close would also close connections that wait for their next request.
  net.Server.prototype.close.call(server, () => process.exit(0));
  setTimeout(() => server.closeIdleConnections(), 1000).unref();
};
process.on('SIGTERM', end);
process.on('SIGINT', end);
";

/// The app. Its version is in `V`, its port in `PORT`, and it may write where it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// Starts at once.
    Busybox,
    /// Ends well.
    Node,
}

/// How zed is to upgrade it.
pub(super) struct Zed {
    pub(super) strategy: &'static str,
    /// `http` or `tcp`: what its front forwards.
    pub(super) listen: Option<&'static str>,
    pub(super) instances: u32,
}

/// Something that runs apps.
pub(super) struct Manager {
    dir: PathBuf,
    /// Where the declaration is, and where a new one is put before it is copied.
    live: PathBuf,
    declare: Box<dyn Fn(u32) -> String>,
    /// After the copy.
    command: String,
    _keeper: Keeper,
}

#[expect(dead_code, reason = "held for what happens when they are dropped")]
enum Keeper {
    Daemon(Box<Daemon>),
    Services(Services),
}

/// A program with a folder; ended with all that it started.
struct Services {
    dir: tempfile::TempDir,
    child: Option<Child>,
    goodbye: Option<String>,
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(goodbye) = self.goodbye.take() {
            let _ = Cmd::new("sh").args(["-c", &goodbye]).dir(self.dir.path()).quiet().run();
        }
        if let Some(mut child) = self.child.take() {
            // First the one that would start the others again.
            let _ = child.kill();
            let _ = child.wait();
        }
        leftovers::end_apps(self.dir.path());
    }
}

/// A folder whose name is found again in what runs from it.
pub(super) fn folder() -> Result<tempfile::TempDir, String> {
    let dir =
        tempfile::Builder::new().prefix("zed-bench-").tempdir().map_err(|e| format!("no folder: {e}"))?;
    write(&dir.path().join("server.js"), SERVER)?;
    Ok(dir)
}

/// The program `pm2` of npm, installed below `target/`; the inner error says why there is none.
pub(super) fn pm2_program(no_install: bool) -> Result<Result<PathBuf, String>, String> {
    let folder = crate::root().join("target/npm-pm2");
    let program = folder.join("node_modules/.bin/pm2");
    if program.is_file() {
        return Ok(Ok(program));
    }
    if no_install {
        return Ok(Err(format!("pm2 is not in {}, and --no-install", folder.display())));
    }
    let npm = Cmd::new("npm").args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(PM2);
    let ended = npm.deadline(Duration::from_secs(300)).run()?;
    Ok(if program.is_file() { Ok(program) } else { Err(format!("npm install ended with {}", ended.code)) })
}

impl Program {
    /// Its command for a shell, in a folder where it may write.
    fn command(self, dir: &Path) -> String {
        match self {
            // Each version has a folder: the old one may still serve.
            Program::Busybox => "mkdir -p www/$V && echo $V > www/$V/version && exec busybox httpd -f -p \
                                 127.0.0.1:$PORT -h www/$V"
                .to_owned(),
            Program::Node => format!("exec node {}", dir.join("server.js").display()),
        }
    }

    /// All that a shell needs to run it.
    pub(super) fn shell(self, dir: &Path, n: u16, port: u16, version: &str) -> String {
        format!(
            "mkdir -p {n} && cd {n} && export V={version} PORT={port} ZED_TEST_TAG={} && {}",
            dir.display(),
            self.command(dir)
        )
    }
}

impl Manager {
    /// Copies the declaration of this version and gives the order, in a thread that ends with the order.
    pub(super) fn upgrade(&self, version: u32) -> Result<JoinHandle<Result<(), String>>, String> {
        let new = self.dir.join("new");
        write(&new, &(self.declare)(version))?;
        let script = format!("cp {} {} && {}", new.display(), self.live.display(), self.command);
        let dir = self.dir.clone();
        Ok(std::thread::spawn(move || {
            let cmd = Cmd::new("bash").args(["-c", &script]).dir(&dir).deadline(Duration::from_secs(300));
            cmd.read().map(|_| ())
        }))
    }

    fn first(self) -> Result<Self, String> {
        let done = self.upgrade(1)?;
        done.join().map_err(|_| "the first start has ended badly")??;
        Ok(self)
    }

    /// zedd on the embedded store.
    pub(super) fn zed(how: &Zed, program: Program, count: u16) -> Result<Self, String> {
        let daemon = Daemon::start(false)?;
        let dir = daemon.dir().to_owned();
        write(&dir.join("server.js"), SERVER)?;
        let command = program.command(&dir);
        let Zed { strategy, listen, instances } = *how;
        let declare = move |version: u32| {
            let (mut datasets, mut apps) = (String::new(), String::new());
            for n in 0..count {
                let (outside, behind) = (PORT + n, PORT + BEHIND + 2 * n);
                let port = if listen.is_some() { behind } else { outside };
                let listen = listen.map_or(String::new(), |what| {
                    let scheme = if what == "http" { "http://" } else { "" };
                    format!("listen: \"{scheme}127.0.0.1:{outside}\", ")
                });
                let strategy = match strategy {
                    "BlueGreen" => {
                        format!("BlueGreen(ports: ({behind}, {}), drain: \"{GRACE}s\")", behind + 1)
                    }
                    other => other.to_owned(),
                };
                let environment = if strategy.starts_with("BlueGreen") {
                    format!("\"V\": \"{version}\"")
                } else {
                    format!("\"V\": \"{version}\", \"PORT\": \"{port}\"")
                };
                // Writing to a string cannot fail.
                let _ = writeln!(datasets, "\"d{n}\": (),");
                let _ = writeln!(
                    apps,
                    "\"a{n}\": (dataset: \"d{n}\", version: \"{version}\", command: [\"sh\", \"-c\", \"{command}\"], env: \
                     {{{environment}}}, {listen}strategy: {strategy}, instances: {instances}, stop_grace: \"{GRACE}s\", \
                     health: (probes: [Http(\"http://127.0.0.1:{port}/version\")])),"
                );
            }
            format!("Deploy(\ndatasets: {{\n{datasets}}},\napps: {{\n{apps}}},\n)\n")
        };
        let live = dir.join("zed/deploy/bench.ron");
        let command = format!("sync {}", live.display());
        Self { dir, live, declare: Box::new(declare), command, _keeper: Keeper::Daemon(Box::new(daemon)) }
            .first()
    }

    /// supervisord with a program an app.
    pub(super) fn supervisor(program: Program, count: u16) -> Result<Self, String> {
        let tree = folder()?;
        let dir = tree.path().to_owned();
        let at = dir.clone();
        let declare = move |version: u32| {
            let dir = at.display();
            let mut text = format!(
                "[supervisord]\nnodaemon=true\nlogfile={dir}/supervisord.log\npidfile={dir}/pid\nchildlogdir={dir}\n\
                 [unix_http_server]\nfile={dir}/sock\n[supervisorctl]\nserverurl=unix://{dir}/sock\n\
                 [rpcinterface:supervisor]\n\
                 supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
            );
            for n in 0..count {
                let _ = writeln!(
                    text,
                    "[program:a{n}]\ncommand=sh -c \"{}\"\nstopwaitsecs={GRACE}",
                    program.shell(&at, n, PORT + n, &version.to_string())
                );
            }
            text
        };
        let live = dir.join("supervisord.conf");
        write(&live, &declare(1))?;
        let child = Command::new("supervisord")
            .arg("-c")
            .arg(&live)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start supervisord: {e}"))?;
        let command = format!("supervisorctl -c {} update", live.display());
        let services = Services { dir: tree, child: Some(child), goodbye: None };
        Ok(Self { dir, live, declare: Box::new(declare), command, _keeper: Keeper::Services(services) })
    }

    /// PM2's own daemon; an app on Node.js in a cluster, because only there its reload starts the new one first.
    pub(super) fn pm2(pm2: &Path, program: Program, count: u16) -> Result<Self, String> {
        let tree = folder()?;
        let dir = tree.path().to_owned();
        let at = dir.clone();
        let declare = move |version: u32| {
            let app = |n: u16| {
                let port = PORT + n;
                let kill_timeout = GRACE * 1_000;
                let (version, port) = (version.to_string(), port.to_string());
                let environment = serde_json::json!({"V": version, "PORT": port, "ZED_TEST_TAG": at});
                match program {
                    Program::Busybox => serde_json::json!({
                        "name": format!("a{n}"), "script": "/bin/sh", "interpreter": "none",
                        "args": ["-c", program.shell(&at, n, PORT + n, &version)],
                        "cwd": at, "env": environment, "kill_timeout": kill_timeout,
                    }),
                    Program::Node => serde_json::json!({
                        "name": format!("a{n}"), "script": at.join("server.js"), "exec_mode": "cluster",
                        "instances": CLUSTER, "cwd": at, "env": environment, "kill_timeout": kill_timeout,
                    }),
                }
            };
            serde_json::json!({"apps": (0..count).map(app).collect::<Vec<_>>()}).to_string()
        };
        let live = dir.join("ecosystem.json");
        let with_home = format!("PM2_HOME={} {}", dir.join("pm2").display(), pm2.display());
        let command = format!("{with_home} startOrReload {} --update-env", live.display());
        let services = Services { dir: tree, child: None, goodbye: Some(format!("{with_home} kill")) };
        Self { dir, live, declare: Box::new(declare), command, _keeper: Keeper::Services(services) }.first()
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}
