//! The same tree on a Unix socket.

use crate::support::Fake;
use crate::support::LIMIT;
use crate::support::Rig;
use crate::support::Told;
use crate::support::quick;
use crate::support::until;
use serde_json::Value;
use serde_json::json;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use zed_fs::Control;
use zed_fs::SpecDir;
use zed_fs::VerbFile;
use zed_fs::socket::Served;
use zed_fs::socket::SocketError;
use zed_fs::socket::serve;
use zed_fs::tree::Tree;

struct Host {
    fake: Arc<Fake>,
    tree: Arc<Tree>,
    served: Option<Served>,
    path: PathBuf,
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let fake = Fake::new(dir.path());
        let tree = Tree::new(Arc::clone(&fake) as Arc<dyn Control>, quick()).unwrap();
        let path = dir.path().join("sock");
        let served = Some(serve(&tree, &path).unwrap());
        Self { fake, tree, served, path, dir }
    }

    fn client(&self) -> Client {
        Client::new(&self.path)
    }
}

struct Client {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Client {
    fn new(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        let mut client = Self { stream, lines };
        assert_eq!(client.answer()["zed"]["protocol"], 1);
        client
    }

    fn send(&mut self, request: &Value) {
        self.stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn ask(&mut self, request: Value) -> Value {
        self.send(&request);
        self.answer()
    }
}

/// A file says the same through the socket as through the mount, and is as big.
#[test]
fn both_ways_show_the_same_tree() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("cp /etc/hostname deploy/prod.ron");
    let path = rig.real("sock");
    let _served = serve(&rig.tree, &path).unwrap();
    let mut client = Client::new(&path);
    let mut folders = vec![String::new()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        let listed = client.ask(json!({"op": "list", "path": folder}));
        let mut names: Vec<String> = Vec::new();
        for entry in listed["entries"].as_array().unwrap() {
            let name = entry["name"].as_str().unwrap().to_owned();
            let below = format!("{folder}/{name}");
            names.push(name.clone());
            if entry["dir"] == true {
                folders.push(below);
                continue;
            }
            // These differ by what was counted in between, or wait.
            if below.starts_with("/.meta/") || name.ends_with(".wait") {
                continue;
            }
            files += 1;
            let text = client.ask(json!({"op": "read", "path": below}))["data"]["text"].clone();
            let through_mount = match name.as_str() {
                "log" | "events" => rig.ok(&format!("head -n 1 ./{below}")),
                _ => rig.read(below.trim_start_matches('/')),
            };
            assert_eq!(text, through_mount, "{below}");
            assert_eq!(entry["size"], through_mount.len(), "{below}");
        }
        let mut mounted: Vec<String> =
            rig.ok(&format!("ls -A ./{folder}")).lines().map(str::to_owned).collect();
        mounted.sort();
        names.sort();
        assert_eq!(names, mounted, "{folder}");
    }
    assert!(files > 40, "{files}");
}

/// `write` is judged like a write to the file, and waits for what was accepted unless told not to.
#[test]
fn verbs_through_the_socket() {
    let host = Host::new();
    let mut client = host.client();
    let refused = client.ask(json!({"op": "write", "path": "apps/hello/rollback", "data": "nonsense\n"}));
    assert_eq!(refused["error"]["errno"], "EINVAL");
    assert!(refused["error"]["message"].as_str().unwrap().contains("unknown verb `nonsense`"));
    let error = client.ask(json!({"op": "read", "path": "apps/hello/error"}));
    assert_eq!(error["data"]["text"], refused["error"]["message"]);
    assert_eq!(client.ask(json!({"op": "write", "path": "ctl", "data": "ok"})), json!({"ok": {}}));
    let failed = client.ask(json!({"op": "write", "path": "ctl", "data": "boom"}));
    assert_eq!(failed["error"]["errno"], "EIO");
    assert!(failed["error"]["message"].as_str().unwrap().contains("it burst"), "{failed}");
    let accepted = client.ask(json!({"op": "write", "path": "ctl", "data": "slow", "wait": false}));
    assert_eq!(accepted, json!({"ok": {}}));
    client.send(&json!({"op": "write", "path": "ctl", "data": "slow"}));
    host.fake.wait_told("two slow verbs", |told| {
        told.iter()
            .filter(|told| matches!(told, Told::Verb(_, VerbFile::Root, verb) if verb == "slow"))
            .count()
            == 2
    });
    host.fake.end_ticket(host.fake.last_ticket(), Ok(String::new()));
    assert_eq!(client.answer(), json!({"ok": {}}));
}

/// `put` places a spec whole or not at all; `sync` waits for it; `remove` undeclares.
#[test]
fn specs_through_the_socket() {
    let host = Host::new();
    let mut client = host.client();
    let path = "deploy/web.ron";
    assert_eq!(client.ask(json!({"op": "put", "path": path, "data": "good\n"})), json!({"ok": {}}));
    assert_eq!(host.fake.told(), [Told::Saved(SpecDir::Deploy, "web".to_owned())]);
    let refused = client.ask(json!({"op": "put", "path": path, "data": "bad\n"}));
    assert_eq!(refused["error"]["errno"], "EBADMSG");
    assert_eq!(client.ask(json!({"op": "read", "path": path}))["data"]["text"], "good\n");
    let names: Vec<Value> = client.ask(json!({"op": "list", "path": "deploy"}))["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["name"].clone())
        .filter(|name| name.as_str().unwrap().starts_with('.'))
        .collect();
    assert_eq!(names, Vec::<Value>::new(), "no scratch is left behind");
    client.send(&json!({"op": "sync", "path": path}));
    until("sync waits", || host.fake.waiting_for_settled() == 1);
    host.fake.settle("web", Ok("converged".to_owned()));
    assert_eq!(client.answer(), json!({"ok": {}}));
    assert_eq!(client.ask(json!({"op": "read", "path": "deploy/web.wait"}))["data"]["text"], "converged\n");
    assert_eq!(client.ask(json!({"op": "remove", "path": path})), json!({"ok": {}}));
    assert_eq!(client.ask(json!({"op": "read", "path": path}))["error"]["errno"], "ENOENT");
    host.fake.wait_told("the removal", |told| told.len() == 2);
}

/// `follow` sends what is there and then what comes.
#[test]
fn streams_through_the_socket() {
    let host = Host::new();
    let mut client = host.client();
    client.send(&json!({"op": "follow", "path": "events"}));
    assert_eq!(client.answer()["data"]["text"], "events began\n");
    let mut events = std::fs::File::options().append(true).open(&host.fake.events).unwrap();
    events.write_all(b"more\n").unwrap();
    let news = client.answer();
    assert_eq!(news["data"], json!({"text": "more\n", "next": 18, "end": false}));
    let mut other = host.client();
    assert_eq!(other.ask(json!({"op": "follow", "path": "version"}))["error"]["errno"], "EINVAL");
}

/// Who is at the other end decides, by the same permission bits as on the mount.
#[test]
fn permissions_are_the_trees() {
    if !nix::unistd::geteuid().is_root() {
        println!("NOT RUN: becoming another user needs root");
        return;
    }
    let host = Host::new();
    let script = "import socket,sys\n\
        s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); f=s.makefile('rw'); f.readline()\n\
        for line in sys.argv[2:]:\n  f.write(line+'\\n'); f.flush(); print(f.readline(), end='')\n";
    let requests = [
        json!({"op": "read", "path": "apps/hello/version"}),
        json!({"op": "write", "path": "apps/hello/ctl", "data": "ok"}),
        json!({"op": "put", "path": "deploy/x.ron", "data": "x"}),
        json!({"op": "read", "path": "log"}),
        json!({"op": "read", "path": "version"}),
    ];
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "/usr/bin/env",
            "python3",
            "-c",
            script,
        ])
        .arg(&host.path)
        .args(requests.iter().map(Value::to_string))
        .env("PATH", "/usr/bin:/bin")
        .output();
    let Ok(output) = output else {
        println!("NOT RUN: setpriv is not here");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    if answers.is_empty() {
        println!(
            "NOT RUN: no python3 that another user can start: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    assert_eq!(answers[0]["data"]["text"], "1.1.0\n");
    for refused in &answers[1..4] {
        assert_eq!(refused["error"]["errno"], "EACCES", "{refused}");
    }
    assert_eq!(answers[4]["data"]["text"], "0.1.0\n");
    assert_eq!(host.fake.told(), []);
}

/// Nonsense is answered, not obeyed, and the next request is served.
#[test]
fn nonsense_is_refused() {
    let host = Host::new();
    let mut client = host.client();
    for line in
        ["", "{", "[]", "{\"op\":\"format\"}", "\u{0}", "{\"op\":\"read\"}", "{\"op\":\"read\",\"path\":7}"]
    {
        client.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(client.answer()["error"]["errno"], "EINVAL", "{line:?}");
    }
    for (path, errno) in
        [("../etc/passwd", "ENOENT"), ("version/x", "ENOTDIR"), ("apps", "EISDIR"), ("nope", "ENOENT")]
    {
        assert_eq!(client.ask(json!({"op": "read", "path": path}))["error"]["errno"], errno, "{path}");
    }
    for request in [
        json!({"op": "remove", "path": "version"}),
        json!({"op": "put", "path": "apps/x.ron", "data": ""}),
        json!({"op": "put", "path": "deploy/x.status", "data": ""}),
        json!({"op": "write", "path": "version", "data": "2"}),
    ] {
        let errno = client.ask(request.clone())["error"]["errno"].clone();
        assert!(errno == "EPERM" || errno == "EACCES", "{request}: {errno}");
    }
    let long = vec![b' '; zed_fs::socket::MAX_LINE + 2];
    client.stream.write_all(&long).unwrap();
    assert_eq!(client.answer()["error"]["errno"], "EFBIG");
    assert!(host.client().ask(json!({"op": "read", "path": "help"}))["data"]["text"].is_string());
}

/// The socket of a killed daemon is replaced; one that answers, and a file that is no socket, are not.
#[test]
fn stale_sockets_are_replaced() {
    let mut host = Host::new();
    let again = serve(&host.tree, &host.path);
    assert!(matches!(again, Err(SocketError::Busy { .. })));
    let plain = host.dir.path().join("plain");
    std::fs::write(&plain, "x").unwrap();
    assert!(matches!(serve(&host.tree, &plain), Err(SocketError::NotASocket { .. })));
    host.served.take();
    assert!(!host.path.exists());
    drop(UnixListener::bind(&host.path).unwrap());
    assert!(host.path.exists(), "what a killed daemon leaves");
    host.served = Some(serve(&host.tree, &host.path).unwrap());
    assert!(host.client().ask(json!({"op": "stat", "path": "help"}))["stat"]["size"].as_u64().unwrap() > 100);
}

/// Jobs go in and their replies come out on one request, binary ones in hexadecimal; arrays are written and read in
/// ranges; a refusal says why.
#[test]
fn jobs_through_the_socket() {
    let host = Host::new();
    let mut client = host.client();
    let submit = |data: &str| json!({"op": "submit", "path": "gpu/0/queue", "data": data});
    assert_eq!(client.ask(submit("Job(1)Job(text)"))["data"]["text"], "1\n");
    assert_eq!(client.answer()["data"]["text"], "result of 2\n");
    assert_eq!(client.answer(), json!({"data": {"text": "", "next": 14, "end": true}}));
    let refused = client.ask(submit("bad()"));
    assert_eq!(refused["error"]["errno"], "EBADMSG");
    assert!(refused["error"]["message"].as_str().unwrap().starts_with("job:1:5: this is bad\nhint: "));
    assert_eq!(client.ask(submit("Job("))["error"]["errno"], "EBADMSG");
    assert_eq!(client.ask(submit("Job(text, boom)"))["error"]["errno"], "EIO");
    assert_eq!(
        client.ask(json!({"op": "submit", "path": "ctl", "data": "reload"}))["error"]["message"],
        "ctl takes no jobs\n"
    );
    // A job with raw bytes.
    let hex: String = b"Job(a: Raw(2))\0\xff\0".iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = client.ask(json!({"op": "submit", "path": "gpu/0/queue", "data": hex, "hex": true}));
    assert_eq!(answer["data"]["text"], "4\n");
    assert_eq!(client.answer()["data"]["end"], true);
    assert_eq!(host.fake.gpus.written().last().unwrap(), b"Job(a: Raw(2))\0\xff\0");
    // A range of an input.
    client.ask(submit("Job(slow)"));
    assert_eq!(client.answer()["data"]["end"], true);
    let write = |offset: u64, hex: &str| json!({"op": "write", "path": "gpu/0/jobs/5/in/a", "data": hex, "hex": true, "offset": offset});
    assert_eq!(client.ask(write(7, "ff00fe")), json!({"ok": {}}));
    assert_eq!(client.ask(write(1 << 20, "ff"))["error"]["errno"], "EFBIG");
    let read = client.ask(json!({"op": "read", "path": "gpu/0/jobs/5/in/a", "offset": 6}));
    assert!(read["data"]["hex"].as_str().unwrap().starts_with("00ff00fe00"));
    // Interrupted while it waits: the thread is free again, and the job goes on.
    client.send(&submit("Job(text, slow)"));
    until("the job was taken", || host.fake.gpus.written().len() == 6);
    drop(client);
    host.fake.gpus.end(6);
    assert_eq!(
        host.client().ask(json!({"op": "read", "path": "gpu/0/jobs/6/wait"}))["data"]["text"],
        "done\n"
    );
}
