//! What reading one file of the tree costs: open, read, close.

use super::Options;
use super::Samples;
use super::daemon::Daemon;
use super::goal;
use super::heading;
use super::not_run;
use super::program;
use super::ratio;
use crate::leftovers;
use crate::shell::Cmd;
use crate::shell::has_program;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// The file that is read, below the mount.
const FILE: &str = "hosts/bench/status";

pub(super) fn run(options: &Options) -> Result<(), String> {
    if options.on_zfs {
        return on_zfs(options);
    }
    let (rounds, reads) = if options.quick { (3, 300) } else { (30, 2_000) };
    let daemon = Daemon::start(false)?;
    let path = daemon.mount().join(FILE);
    let content = std::fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let content_file = daemon.dir().join("content");
    std::fs::write(&content_file, &content).map_err(|e| format!("cannot write: {e}"))?;
    let minimal = Minimal::start(daemon.dir(), &content_file)?;
    let minimal_path = minimal.mount.join(FILE);
    let redis = Redis::start(daemon.dir(), &content);
    let mut redis = redis.map_err(|why| not_run("redis GET", &why)).ok();

    heading(&format!("open+read+close of {FILE}, {} bytes, one thread", content.len()));
    let mut buffer = vec![0; 64 * 1024];
    let [mut zed, mut least, mut tmpfs, mut get] = [const { Samples(Vec::new()) }; 4];
    // Warm up: program text, dentries, allocators.
    let mut unused = Samples::default();
    for path in [&path, &minimal_path, &content_file] {
        read_many(path, &mut buffer, 200, &mut unused)?;
    }
    for _ in 0..rounds {
        read_many(&path, &mut buffer, reads, &mut zed)?;
        read_many(&minimal_path, &mut buffer, reads, &mut least)?;
        read_many(&content_file, &mut buffer, reads, &mut tmpfs)?;
        if let Some(redis) = &mut redis {
            redis.get_many(&mut buffer, reads, &mut get)?;
        }
    }
    let yardstick = least.median();
    least.row("minimal fuser filesystem", Some(yardstick));
    zed.row("zed", Some(yardstick));
    if redis.is_some() {
        get.row("redis GET of as many bytes, loopback, kept open", Some(yardstick));
    }
    tmpfs.row("a plain file on the disk's filesystem", Some(yardstick));
    goal("within 1.25 of the minimal filesystem", ratio(zed.median(), yardstick) <= 1.25);
    drop((minimal, redis, daemon));
    super::in_guest(options, "read").map(|_| ())
}

/// Inside the guest: the same read, against `zfs get` of the same properties by fork.
fn on_zfs(options: &Options) -> Result<(), String> {
    let daemon = Daemon::start(true)?;
    let dataset = daemon.dataset().ok_or("the store is not ZFS")?.to_owned();
    daemon.sh(
        "printf 'Deploy(datasets: {\"apps/a\": ()}, apps: {\"a\": (dataset: \"apps/a\", version: \"1\")})' \
               > zed/deploy/a.ron && sync zed/deploy/a.ron",
    )?;
    let (rounds, reads) = if options.quick { (2, 50) } else { (10, 200) };
    let [mut zed, mut fork] = [const { Samples(Vec::new()) }; 2];
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..rounds {
        read_many(&daemon.mount().join("apps/a/status"), &mut buffer, reads, &mut zed)?;
        for _ in 0..3 {
            let cmd = Cmd::new("zfs").args(["get", "-H", "-o", "property,value"]);
            let cmd = cmd.arg("com.zed:version,com.zed:health,com.zed:deploy,com.zed:run");
            let start = Instant::now();
            cmd.arg(format!("{dataset}/apps/a")).read()?;
            fork.add(start.elapsed());
        }
    }
    heading("an app's state on ZFS, inside the guest (slow system calls: compare only within this table)");
    zed.row("zed: open+read+close of apps/a/status", None);
    fork.row("`zfs get` of four of its properties, by fork", Some(zed.median()));
    Ok(())
}

fn read_many(path: &Path, buffer: &mut [u8], times: u32, into: &mut Samples) -> Result<(), String> {
    for _ in 0..times {
        let start = Instant::now();
        let read = File::open(path).and_then(|mut file| file.read(buffer));
        into.add(start.elapsed());
        match read {
            Ok(n) if n > 0 => {}
            other => return Err(format!("reading {} gave {other:?}", path.display())),
        }
    }
    Ok(())
}

/// The yardstick's process and mount.
struct Minimal {
    mount: std::path::PathBuf,
    child: Child,
}

impl Minimal {
    fn start(dir: &Path, content: &Path) -> Result<Self, String> {
        let mount = dir.join("minimal");
        std::fs::create_dir(&mount).map_err(|e| format!("no folder: {e}"))?;
        let mut command = Command::new(program("minimal-fs")?);
        command.arg(&mount).arg(FILE).arg(content).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("cannot start minimal-fs: {e}"))?;
        let stdout = child.stdout.take();
        let minimal = Self { mount, child };
        let mut line = String::new();
        let read = BufReader::new(stdout.ok_or("minimal-fs has no output")?).read_line(&mut line);
        match read {
            Ok(_) if line == "ready\n" => Ok(minimal),
            other => Err(format!("minimal-fs did not become ready: {other:?} {line}")),
        }
    }
}

impl Drop for Minimal {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id().cast_signed()),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.child.wait();
        leftovers::unmount(&self.mount);
    }
}

/// A redis server on a free port, with one key.
struct Redis {
    child: Child,
    stream: TcpStream,
}

impl Redis {
    fn start(dir: &Path, value: &[u8]) -> Result<Self, String> {
        if !has_program("redis-server") {
            return Err("there is no redis-server (Debian: apt-get install redis-server)".into());
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = port.map_err(|e| format!("no free port: {e}"))?.port();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|e| format!("cannot start redis-server: {e}"))?;
        let start = Instant::now();
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) if start.elapsed() < Duration::from_secs(20) => {
                    std::thread::sleep(Duration::from_millis(20))
                }
                Err(e) => return Err(format!("redis does not answer: {e}")),
            }
        };
        let mut redis = Self { child, stream };
        let io = |e: std::io::Error| format!("redis: {e}");
        redis.stream.set_nodelay(true).map_err(io)?;
        let mut set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len()).into_bytes();
        set.extend_from_slice(value);
        set.extend_from_slice(b"\r\n");
        redis.stream.write_all(&set).map_err(io)?;
        let mut reply = [0; 5];
        redis.stream.read_exact(&mut reply).map_err(io)?;
        if &reply == b"+OK\r\n" { Ok(redis) } else { Err(format!("redis answered {reply:?}")) }
    }

    fn get_many(&mut self, buffer: &mut [u8], times: u32, into: &mut Samples) -> Result<(), String> {
        for _ in 0..times {
            let start = Instant::now();
            let read = self.stream.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").and_then(|()| {
                let mut have = 0;
                loop {
                    have += self.stream.read(&mut buffer[have..])?;
                    // The value is small: complete when the second line has its end.
                    if buffer[..have].iter().filter(|b| **b == b'\r').count() >= 2 {
                        return Ok(have);
                    }
                }
            });
            into.add(start.elapsed());
            read.map_err(|e| format!("redis: {e}"))?;
        }
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
