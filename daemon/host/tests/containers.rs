//! Apps in real containers of a real runtime. On a host without one, or without root, a test says that it was not run.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[expect(dead_code, reason = "this program uses a part of it")]
mod common;

use common::Place;
use common::always;
use common::app;
use common::free_port;
use common::instance;
use common::lives;
use common::signal;
use common::wait_for;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use zed_host::ContainerRequest;
use zed_host::HookReport;
use zed_host::HookRequest;
use zed_host::Host;
use zed_host::HostErrorKind;
use zed_host::ImageDefaults;
use zed_host::ProbeReport;
use zed_host::ProbeRequest;
use zed_host::Runner;
use zed_host::Start;
use zed_host::find_container_runtime;
use zed_plan::Instance;
use zed_plan::ProcessStatus;
use zed_spec::Health;
use zed_spec::Limits;
use zed_spec::Probe;

const GRACE: Duration = Duration::from_secs(10);
const SECRET: &str = "correct horse battery staple";

/// A root file system with nothing but busybox, and a place to run it.
struct Ground {
    place: Place,
}

impl Ground {
    /// Nothing where no container can be run.
    fn new() -> Option<Self> {
        if let Err(why) = find_container_runtime(&Runner::default()) {
            eprintln!("not run: {why}");
            return None;
        }
        let Some(busybox) =
            ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists())
        else {
            eprintln!("not run: no busybox on this host");
            return None;
        };
        let place = Place::new();
        let bin = place.folder.path().join("root/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy(busybox, bin.join("busybox")).unwrap();
        for name in [
            "sh", "cat", "grep", "httpd", "hostname", "id", "ip", "ls", "mount", "sleep", "tail", "touch",
            "wc",
        ] {
            symlink("busybox", bin.join(name)).unwrap();
        }
        std::fs::create_dir(place.folder.path().join("root/www")).unwrap();
        std::fs::write(place.folder.path().join("root/www/index.html"), "served from inside").unwrap();
        Some(Self { place })
    }

    fn root(&self) -> PathBuf {
        self.place.folder.path().join("root")
    }

    fn container(&self) -> ContainerRequest {
        ContainerRequest {
            root: self.root(),
            image: ImageDefaults {
                command: Vec::new(),
                env: BTreeMap::from([("FROM".to_owned(), "the image".to_owned())]),
                workdir: None,
                user: None,
            },
            data: self.place.data(),
            mounts: Vec::new(),
            private_network: false,
            limits: Limits::default(),
        }
    }

    /// A request that runs a shell script inside.
    fn script(&self, script: &str) -> Start {
        let mut request = self.place.command("box", &["/bin/sh", "-c", script]);
        request.environment = BTreeMap::from([
            ("SECRET".to_owned(), SECRET.to_owned()),
            ("ZED_DATA".to_owned(), "a path of the host".to_owned()),
        ]);
        request.container = Some(self.container());
        request
    }

    fn start(&self, request: &Start) {
        self.place.host.start(request).unwrap();
    }

    /// With a short grace: the first process of a container hears no TERM that it has no handler for.
    fn stop(&self) {
        self.place.host.stop(&instance("box"), Duration::from_millis(200)).unwrap();
        self.nothing_is_left();
    }

    /// No process, no folder, no cgroup in any hierarchy.
    fn nothing_is_left(&self) {
        let top = self.place.folder.path().to_str().unwrap();
        assert!(!self.place.files("box").join("oci").exists());
        wait_for("the end of all processes", || {
            let mut lines = std::fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
            (!lines.any(|line| line.contains(top))).then_some(())
        });
        let apps = self.place.folder.path().join("state/apps");
        let place = group_name(&apps);
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            assert!(!hierarchy.path().join(&place).exists(), "{} has {place}", hierarchy.path().display());
        }
        assert!(!Path::new("/sys/fs/cgroup").join(&place).exists());
    }

    fn probe(&self, probe: Probe, attempts: u32) -> ProbeReport {
        let request = ProbeRequest {
            instance: instance("box"),
            health: Health {
                probes: vec![probe],
                attempts,
                interval: Duration::from_millis(20),
                ..Health::default()
            },
            run_hash: "h1".to_owned(),
            directory: self.place.data(),
            environment: self.script("").environment,
            user: None,
            group: None,
        };
        self.place.host.probe(&request, &Arc::new(AtomicBool::new(false)))
    }

    fn hook(&self, command: &[&str], deadline: Duration) -> HookReport {
        let request = HookRequest {
            instance: Instance::first(&app("box")),
            name: "before_deploy".to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            directory: self.place.data(),
            environment: self.script("").environment,
            user: None,
            group: None,
            deadline,
            container: Some(self.container()),
        };
        self.place.host.run_hook(&request).unwrap()
    }

    fn ended(&self) -> String {
        let over = |status: &ProcessStatus| !matches!(status, ProcessStatus::Running { .. });
        self.place.wait_for_status("box", over).last_exit.unwrap_or_default()
    }
}

/// The name of the cgroup above those of this state folder's apps, as the host makes it.
fn group_name(apps: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(apps).unwrap();
    let bytes = meta.dev().to_le_bytes().into_iter().chain(meta.ino().to_le_bytes());
    let id = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("zed-{id:08x}")
}

fn exec(command: &[&str]) -> Probe {
    Probe::Exec { command: command.iter().map(|word| (*word).to_owned()).collect() }
}

#[test]
fn an_app_serves_from_its_container_and_leaves_nothing_when_it_stops() {
    let Some(ground) = Ground::new() else { return };
    let port = free_port();
    ground.start(&ground.script(&format!("exec httpd -f -p 127.0.0.1:{port} -h /www")));
    let url = format!("http://127.0.0.1:{port}/");
    let http = Probe::Http {
        url,
        expect: Some(200),
        body: Some("served from inside".to_owned()),
        ca: None,
        insecure: false,
    };
    let report = ground.probe(http, 500);
    assert!(report.healthy, "{report:?}\n{}", ground.place.log("box"));

    // Probes by command run inside, as the app does and with its environment.
    let inside = exec(&[
        "/bin/sh",
        "-c",
        "test -d /www && test \"$SECRET\" = 'correct horse battery staple' && test $ZED_DATA = /data",
    ]);
    assert!(ground.probe(inside, 1).healthy);
    let report = ground.probe(exec(&["/bin/sh", "-c", "echo no; exit 4"]), 2);
    assert!(!report.healthy && report.summary.contains("exit 4: no"), "{}", report.summary);

    // No value of the environment is in a file.
    let state = ground.place.folder.path().join("state");
    let mut open = vec![state];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                let text = std::fs::read(entry.path()).unwrap();
                assert!(!String::from_utf8_lossy(&text).contains(SECRET), "{}", entry.path().display());
            }
        }
    }
    ground.stop();
}

#[test]
fn the_inside_is_closed_off() {
    let Some(ground) = Ground::new() else { return };
    std::fs::create_dir_all(ground.place.data().join("releases/1")).unwrap();
    let other = ground.place.folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let script = format!(
        "say() {{ what=$1; shift; echo \"$what: $*\"; }}
        touch /x 2>/dev/null && say root writable || say root read-only
        touch /data/made /tmp/made /run/made {other}/made && say data writable
        say releases $(ls /data/releases | wc -l)
        say new-privileges $(grep NoNewPrivs /proc/self/status)
        say seccomp $(grep Seccomp: /proc/self/status)
        say capabilities $(grep CapEff /proc/self/status)
        say bounding $(grep CapBnd /proc/self/status)
        mount -t tmpfs x /tmp 2>/dev/null && say mount allowed || say mount refused
        say pid $$
        say host $(hostname)
        say env \"$FROM, $ZED_DATA\"
        say user $(id -u):$(id -g)
        say cwd $(pwd)
        say devices $(ls /dev | wc -l)
        echo 1 2>/dev/null > /proc/sys/kernel/hostname && say proc writable || say proc read-only
        say links $(ip -o link | wc -l)
        echo done; exec sleep 1000",
        other = other.display()
    );
    let mut request = ground.script(&script);
    let container = request.container.as_mut().unwrap();
    container.private_network = true;
    container.mounts = vec![other.clone()];
    container.image.user = Some("1000:1001".to_owned());
    container.image.workdir = Some("/www".to_owned());
    for folder in [ground.place.data(), other] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
    }
    ground.start(&request);
    let log = ground.place.wait_for_log("box", "done");
    let said = |what: &str| {
        let line = log.lines().find_map(|line| line.split_once(&format!("{what}: ")));
        line.map_or_else(|| panic!("nothing said of {what}:\n{log}"), |(_, rest)| rest.to_owned())
    };
    for (what, expected) in [
        ("root", "read-only"),
        ("data", "writable"),
        ("releases", "0"),
        ("new-privileges", "NoNewPrivs: 1"),
        ("seccomp", "Seccomp: 2"),
        ("capabilities", "CapEff: 0000000000000400"),
        ("bounding", "CapBnd: 0000000000000400"),
        ("mount", "refused"),
        ("pid", "1"),
        ("host", "box"),
        ("env", "the image, /data"),
        ("user", "1000:1001"),
        ("cwd", "/www"),
        ("proc", "read-only"),
        ("links", "1"),
    ] {
        let said = said(what);
        assert_eq!(
            said.split_whitespace().collect::<Vec<_>>(),
            expected.split_whitespace().collect::<Vec<_>>(),
            "{what}"
        );
    }
    assert!(ground.place.data().join("made").exists());
    ground.stop();
}

#[test]
fn memory_beyond_the_limit_is_told_as_such() {
    let Some(ground) = Ground::new() else { return };
    let mut request = ground.script("echo filling; x=0123456789abcdef; while :; do x=$x$x; done");
    request.run.restart = zed_spec::Restart::Never;
    request.run.limits = Limits { memory: Some(32 << 20), pids: Some(16), ..Limits::default() };
    request.container.as_mut().unwrap().limits = request.run.limits.clone();
    if let Err(e) = ground.place.host.start(&request) {
        assert!(matches!(e.kind, HostErrorKind::Limit(_)), "{e}");
        eprintln!("not run: {e}");
        return;
    }
    assert_eq!(ground.ended(), "oom killed (limit 32M)", "{}", ground.place.log("box"));
    let crash = std::fs::read_to_string(ground.place.files("box").join("crash")).unwrap();
    assert!(crash.contains("oom killed (limit 32M)"), "{crash}");
    ground.stop();
}

#[test]
fn the_program_is_told_to_stop_once_and_its_status_is_seen() {
    let Some(ground) = Ground::new() else { return };
    let script = "trap 'echo told >> /data/told; n=1' TERM; echo up; while [ -z \"$n\" ]; do sleep 0.1; done; sleep 0.3; exit 5";
    let mut request = ground.script(script);
    request.run.restart = zed_spec::Restart::Never;
    ground.start(&request);
    ground.place.wait_for_log("box", "up");
    ground.place.host.stop(&instance("box"), GRACE).unwrap();
    ground.nothing_is_left();
    assert_eq!(std::fs::read_to_string(ground.place.data().join("told")).unwrap(), "told\n");
    assert_eq!(ground.place.info("box").last_exit.as_deref(), Some("exit 5"));
}

#[test]
fn one_that_does_not_listen_is_killed_with_all_that_it_started() {
    let Some(ground) = Ground::new() else { return };
    ground.start(&ground.script("sleep 1000 & sleep 2000 & echo up; while :; do sleep 1; done"));
    ground.place.wait_for_log("box", "up");
    ground.stop();
}

#[test]
fn it_runs_again_whoever_was_killed() {
    let Some(ground) = Ground::new() else { return };
    let mut request = ground.script("echo up $(cat /data/count); echo x >> /data/count; exec sleep 1000");
    request.run.restart = always(Duration::from_millis(1), None);
    request.run.stop_grace = Duration::from_millis(200);
    ground.start(&request);
    let count = |wanted: usize| {
        wait_for("another start", || {
            let text = std::fs::read_to_string(ground.place.data().join("count")).unwrap_or_default();
            (text.lines().count() >= wanted).then_some(())
        });
    };
    count(1);
    let runtime = ground.place.pid("box");
    signal(runtime, Signal::SIGKILL);
    count(2);

    // Its supervisor: the next start ends what is left, and starts anew.
    let (supervisor, runtime) = (ground.place.supervisor_pid("box"), ground.place.pid("box"));
    signal(supervisor, Signal::SIGKILL);
    wait_for("its end", || (!lives(supervisor)).then_some(()));
    assert!(lives(runtime));
    ground.place.new_daemon().start(&request).unwrap();
    count(3);
    assert!(!lives(runtime));

    // And without a next start, a stop ends it.
    let supervisor = ground.place.supervisor_pid("box");
    signal(supervisor, Signal::SIGKILL);
    wait_for("its end", || (!lives(supervisor)).then_some(()));
    ground.stop();
}

#[test]
fn hooks_run_in_a_container_of_their_own() {
    let Some(ground) = Ground::new() else { return };
    let script = "test -d /www && echo $FROM > /data/hook && hostname && echo $SECRET";
    let report = ground.hook(&["/bin/sh", "-c", script], GRACE);
    assert!(report.ok, "{report:?}");
    assert_eq!(report.output, format!("box.hook\n{SECRET}\n"));
    assert_eq!(std::fs::read_to_string(ground.place.data().join("hook")).unwrap(), "the image\n");
    let report = ground.hook(&["/bin/sh", "-c", "exit 7"], GRACE);
    assert_eq!((report.ok, report.ended.as_str()), (false, "exit 7"));
    let report = ground.hook(&["/bin/sh", "-c", "while :; do sleep 1; done"], Duration::from_millis(700));
    assert!(report.ended.contains("deadline"), "{report:?}");
    assert!(!ground.place.files("box.hook").exists());
    ground.nothing_is_left();
}

#[test]
fn what_cannot_run_is_refused_and_leaves_nothing() {
    let Some(ground) = Ground::new() else { return };
    type Change = fn(&mut Start);
    let changes: [(&str, Change, &str); 6] = [
        ("no command", |r| r.run.command = Vec::new(), "give the app a `command`"),
        (
            "no program",
            |r| r.run.command = vec!["/bin/gone".into()],
            "the program `/bin/gone` does not exist in the container's root",
        ),
        (
            "not on the path",
            |r| r.run.command = vec!["gone".into()],
            "the program `gone` does not exist in the container's root",
        ),
        (
            "no root",
            |r| r.container.as_mut().unwrap().root = "/nowhere".into(),
            "the container's root `/nowhere` is no folder",
        ),
        (
            "unknown user",
            |r| r.run.user = Some("nobody-zed-knows".into()),
            "there is no user `nobody-zed-knows`",
        ),
        (
            "unknown user of the image",
            |r| r.container.as_mut().unwrap().image.user = Some("app".into()),
            "does not have",
        ),
    ];
    for (name, change, expected) in changes {
        let mut request = ground.script("exec sleep 1000");
        change(&mut request);
        let text = ground.place.host.start(&request).unwrap_err().to_string();
        assert!(text.contains(expected), "{name}: {text}");
        assert!(!ground.place.files("box").exists(), "{name}");
    }
    // What only the runtime can know is in the log, and the run has failed.
    let mut request = ground.script("");
    request.run.command = vec!["/data/no-such-program".to_owned()];
    request.run.restart = zed_spec::Restart::Never;
    ground.start(&request);
    ground.ended();
    assert!(ground.place.log("box").contains("no-such-program"), "{}", ground.place.log("box"));
    ground.stop();
}
