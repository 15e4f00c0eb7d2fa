//! What the traffic front costs: small requests straight to a server, and through zed's front, HAProxy and nginx.
//!
//! The server is nginx, the load is wrk's. All share this machine's processors, and so does the load: compare only
//! within one run.

use super::Options;
use super::goal;
use super::not_run;
use super::program;
use crate::shell::Cmd;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

/// Programs, and the Debian packages they are in.
const PROGRAMS: &[(&str, &str)] = &[("wrk", "wrk"), ("nginx", "nginx-light"), ("haproxy", "haproxy")];
const SERVER: u16 = 18_080;
/// Connections of the load.
const CONNECTIONS: &str = "32";
/// Connections that are opened and left alone, to see what they cost.
const IDLE: usize = 1_000;

/// One way to the server.
struct Way {
    name: &'static str,
    port: u16,
    child: Option<Proxy>,
    runs: Vec<Run>,
}

/// What wrk says of one run.
#[derive(Clone)]
struct Run {
    requests: f64,
    p50: f64,
    p99: f64,
}

/// A program that ends with this.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

pub(super) fn run(options: &Options) -> Result<(), String> {
    if options.on_zfs {
        return Ok(());
    }
    if let Some(missing) = crate::suite::install_programs(options.no_install, PROGRAMS)? {
        not_run("front", &missing);
        return Ok(());
    }
    let dir = tempfile::tempdir().map_err(|e| format!("no folder: {e}"))?;
    let server =
        format!("server {{ listen 127.0.0.1:{SERVER} backlog=1024; location / {{ return 200 ok; }} }}");
    let _server = nginx(dir.path(), "server", &server)?;
    let mut ways = ways(dir.path())?;
    for (title, header) in [("kept connections", None), ("a connection a request", Some("Connection: close"))]
    {
        ways.iter_mut().for_each(|way| way.runs.clear());
        for _ in 0..if options.quick { 1 } else { 5 } {
            for way in &mut ways {
                let run = load(way.port, header, if options.quick { "1s" } else { "3s" })?;
                way.runs.push(run);
            }
        }
        table(title, &ways);
    }
    memory(&ways)
}

fn ways(dir: &Path) -> Result<Vec<Way>, String> {
    let way = |name, port, child| Way { name, port, child, runs: Vec::new() };
    let ways = vec![
        way("nginx, no proxy", SERVER, None),
        way("zed front, connections", 18_081, Some(front(dir, "tcp", "127.0.0.1:18081")?)),
        way("HAProxy, connections", 18_082, Some(haproxy(dir, "tcp", 18_082)?)),
        way("zed front, requests", 18_083, Some(front(dir, "http", "http://127.0.0.1:18083")?)),
        way("HAProxy, requests", 18_084, Some(haproxy(dir, "http", 18_084)?)),
        way("nginx, requests, idle connections kept", 18_085, Some(nginx_proxy(dir)?)),
    ];
    for way in &ways {
        wait_for(way.port)?;
    }
    Ok(ways)
}

fn spawn(program: impl AsRef<std::ffi::OsStr>, arguments: &[&std::ffi::OsStr]) -> Result<Proxy, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(Proxy).map_err(|e| format!("cannot start {command:?}: {e}"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// A front as its supervisor would start it, on a folder as the daemon would write it.
fn front(dir: &Path, name: &str, listen: &str) -> Result<Proxy, String> {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).map_err(|e| format!("no folder: {e}"))?;
    let route = format!(r#"{{"format": 1, "listen": "{listen}", "ports": [{SERVER}], "identity": null}}"#);
    write(&folder.join("route.json"), &route)?;
    spawn(program("zedd")?, &["front".as_ref(), folder.as_os_str()])
}

/// One thread, as a front has.
fn haproxy(dir: &Path, mode: &str, port: u16) -> Result<Proxy, String> {
    let config = dir.join(format!("haproxy-{mode}.cfg"));
    let text = format!(
        "global\n  maxconn 4000\n  nbthread 1\ndefaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nlisten front\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{SERVER}\n"
    );
    write(&config, &text)?;
    spawn("haproxy", &["-db".as_ref(), "-f".as_ref(), config.as_os_str()])
}

fn nginx_proxy(dir: &Path) -> Result<Proxy, String> {
    let text = format!(
        "upstream app {{ server 127.0.0.1:{SERVER}; keepalive 64; }}\nserver {{ listen 127.0.0.1:18085 backlog=1024; \
         location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
    );
    nginx(dir, "proxy", &text)
}

fn nginx(dir: &Path, name: &str, server: &str) -> Result<Proxy, String> {
    let prefix = dir.join(format!("nginx-{name}"));
    std::fs::create_dir(&prefix).map_err(|e| format!("no folder: {e}"))?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {};\n", prefix.join(what).display()))
        .concat();
    let text = format!(
        "daemon off; worker_processes 1; pid {pid};\nevents {{ worker_connections 4096; }}\nhttp {{ access_log off; \
         keepalive_requests 1000000;\n{temporary}{server}\n}}\n",
        pid = prefix.join("pid").display(),
    );
    let config = prefix.join("nginx.conf");
    write(&config, &text)?;
    let log = prefix.join("error.log");
    let arguments = [
        "-p".as_ref(),
        prefix.as_os_str(),
        "-c".as_ref(),
        config.as_os_str(),
        "-e".as_ref(),
        log.as_os_str(),
    ];
    spawn("nginx", &arguments)
}

fn wait_for(port: u16) -> Result<(), String> {
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("nobody listens on port {port}"))
}

fn load(port: u16, header: Option<&str>, lasts: &str) -> Result<Run, String> {
    let mut cmd = Cmd::new("wrk").args(["-t", "1", "-c", CONNECTIONS, "-d", lasts, "--latency"]);
    if let Some(header) = header {
        cmd = cmd.args(["-H", header]);
    }
    let output = cmd.arg(format!("http://127.0.0.1:{port}/")).read()?;
    // wrk counts a connection that the server closes as a read error, also when the client has asked for that.
    let wrong = output.lines().any(|line| line.contains("Non-2xx"));
    let value = |name: &str| {
        let line = output.lines().find_map(|line| line.trim_start().strip_prefix(name));
        line.map(|rest| rest.trim().to_owned()).ok_or_else(|| format!("wrk does not say {name}:\n{output}"))
    };
    if wrong {
        return Err(format!("requests failed:\n{output}"));
    }
    let requests = value("Requests/sec:")?.parse().map_err(|e| format!("Requests/sec: {e}"))?;
    Ok(Run { requests, p50: micros(&value("50%")?)?, p99: micros(&value("99%")?)? })
}

/// `1.23ms` in microseconds.
fn micros(text: &str) -> Result<f64, String> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let found =
        units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    found.ok_or_else(|| format!("`{text}` is not a time of wrk"))
}

fn median(way: &Way, value: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = way.runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn table(title: &str, ways: &[Way]) {
    println!("== small requests, {CONNECTIONS} at once, {title}");
    println!("   {:<46} {:>12} {:>10} {:>10}", "", "requests/s", "p50 us", "p99 us");
    for way in ways {
        println!(
            "   {:<46} {:>12.0} {:>10.0} {:>10.0}",
            way.name,
            median(way, |run| run.requests),
            median(way, |run| run.p50),
            median(way, |run| run.p99)
        );
    }
    let of = |name: &str| {
        ways.iter().find(|way| way.name == name).map_or(0.0, |way| median(way, |run| run.requests))
    };
    for kind in ["connections", "requests"] {
        let (zed, haproxy) = (of(&format!("zed front, {kind}")), of(&format!("HAProxy, {kind}")));
        goal(
            &format!("{kind}: at least 0.8 of HAProxy ({:.2})", zed / haproxy.max(1.0)),
            zed >= 0.8 * haproxy,
        );
    }
}

/// Resident memory of each proxy, and with connections that do nothing.
fn memory(ways: &[Way]) -> Result<(), String> {
    println!("== resident memory, after the load");
    println!("   {:<46} {:>12} {:>12}", "", "kB", "+1,000 idle");
    for way in ways {
        let Some(Proxy(child)) = &way.child else { continue };
        let before = resident(child.id())?;
        let connections: Result<Vec<TcpStream>, _> =
            (0..IDLE).map(|_| TcpStream::connect(("127.0.0.1", way.port))).collect();
        let connections = connections.map_err(|e| format!("{}: {e}", way.name))?;
        // One more round trip: those before it have been accepted.
        load(way.port, None, "1s")?;
        println!("   {:<46} {before:>12} {:>12}", way.name, resident(child.id())?.saturating_sub(before));
        drop(connections);
    }
    Ok(())
}

/// Kilobytes of a process and its children.
fn resident(pid: u32) -> Result<u64, String> {
    let of = |pid: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    };
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    match of(&pid.to_string()) + children.split_whitespace().map(of).sum::<u64>() {
        0 => Err(format!("process {pid} has ended")),
        kilobytes => Ok(kilobytes),
    }
}
