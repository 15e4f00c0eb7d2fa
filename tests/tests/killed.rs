//! `kill -9` of zedd in each phase of an upgrade, while clients ask. Afterwards one version runs: the one that status
//! names and that clients are answered by. Nothing else is left, and no request has failed.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use zed_tests::Load;
use zed_tests::Zed;
use zed_tests::free_ports;
use zed_tests::look_until;
use zed_tests::on_zfs;
use zed_tests::processes_of;

/// An app that is upgraded again and again.
struct Upgraded {
    zed: Zed,
    state: PathBuf,
    port: u16,
    fields: String,
    limits: &'static str,
}

impl Upgraded {
    /// A daemon with 0.0.0 deployed.
    fn new(fields: &str) -> Self {
        let zed = Zed::stopped();
        let state = zed.dir().join("state");
        let mut zed = zed.with_args(&["--state", &state.to_string_lossy()]);
        zed.launch();
        let limits = zed.key("hosts/testhost/facts", "limits");
        // With a limit each process has a cgroup, and nobody's cgroup must be left.
        let limits = if limits.split(' ').any(|limit| limit == "pids") { "limits: (pids: 50)," } else { "" };
        let port = free_ports(8);
        let fields =
            fields.replace("BLUE", &(port + 1).to_string()).replace("GREEN", &(port + 2).to_string());
        let upgraded = Self { zed, state, port, fields, limits };
        upgraded.write("0.0.0");
        upgraded.zed.ok("cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
        upgraded
    }

    fn write(&self, version: &str) {
        self.zed.write_service("web", version, None);
        let (dir, front, first) = (self.zed.dir().display(), self.port, self.port + 1);
        let Self { fields, limits, .. } = self;
        let spec = format!(
            r#"Deploy(
    datasets: {{"apps/web": ()}},
    apps: {{
        "web": (
            dataset: "apps/web",
            version: "{version}",
            artifact: Dir("{dir}/artifacts/web-{version}"),
            command: ["bin/web"],
            env: {{"PORT": "{first}"}},
            {limits}
            health: (probes: [Http("http://127.0.0.1:{first}/health")], interval: "20ms", timeout: "20s", attempts: 1500),
            {fields},
            listen: "http://127.0.0.1:{front}",
        ),
    }},
)
"#
        );
        std::fs::write(self.zed.dir().join("web.ron"), spec).expect("the spec can be written");
    }

    /// Upgrades with a daemon that is killed at the N-th point; true when it was.
    fn upgrade_killed_at(&mut self, point: usize, version: &str) -> bool {
        self.zed.signal(nix::sys::signal::Signal::SIGTERM);
        self.zed.set_fault(Some(format!("kill:{point}")));
        let killed = self.zed.try_launch().is_err() || {
            self.write(version);
            self.zed.sh("cp web.ron $M/deploy/; sync $M/deploy/web.ron");
            !self.zed.sh("cat $M/version").ok() && self.zed.ended().is_some()
        };
        self.zed.set_fault(None);
        if killed {
            self.zed.launch();
        }
        killed
    }

    /// Asserts that all that there is belongs to one version, and gives it.
    fn one_version(&self, point: usize, processes: usize) -> String {
        let zed = &self.zed;
        zed.ok("cat $M/deploy/web.wait");
        zed.eventually("grep -qx 'state running' $M/apps/web/status");
        let version = zed.key("apps/web/status", "version");
        let status = zed.ok("grep ^instance $M/apps/web/status");
        let own: Vec<&str> = status.lines().filter(|line| !line.contains(".front ")).collect();
        let runs = format!(" running version={version} ");
        assert!(own.iter().all(|line| line.contains(&runs)), "point {point}, {version}:\n{status}");
        assert_eq!(own.len(), processes, "point {point}:\n{status}");
        assert_eq!(zed.ok(&format!("curl -sS 127.0.0.1:{}/", self.port)), version, "point {point}");

        let name = |line: &str| line["instance.".len()..].split(' ').next().unwrap_or_default().to_owned();
        let names: BTreeSet<String> = status.lines().map(name).collect();
        // The log of a process stays when it goes; its record does not.
        let mut records = files_of(&self.state.join("apps"));
        records.retain(|name| self.state.join("apps").join(name).join("run.json").exists());
        assert_eq!(records, names, "point {point}: records");
        let journal = files_of(&self.state.join("journal"));
        assert_eq!(journal, BTreeSet::from(["ended".to_owned()]), "point {point}: a journal is left");
        // zedd; and for each process and the front what runs and its supervisor.
        let wanted = 1 + 2 * (processes + 1);
        let all = look_until(|| processes_of(zed.dir()), |all| all.len() == wanted);
        assert_eq!(all.len(), wanted, "point {point}: {all:?}\n{status}");
        for line in &own {
            let pid = line.split(" pid=").nth(1).and_then(|rest| rest.split(' ').next()).expect("it runs");
            let wanted: BTreeSet<String> = own.iter().map(|line| name(line)).collect();
            let all = look_until(|| cgroups_beside(pid), |all| all.iter().all(|names| *names == wanted));
            assert!(
                all.iter().all(|names| *names == wanted),
                "point {point}: {all:?} are not all {wanted:?}"
            );
        }
        let home = zed.key("apps/web/status", "mountpoint");
        let releases = zed.ok(&format!("readlink {home}/current; ls {home}/releases"));
        assert_eq!(releases, format!("releases/{version}\n{version}"), "point {point}");
        version
    }
}

/// The names in a folder.
fn files_of(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// For each hierarchy in which a process has a cgroup of zed's, the cgroups of zed's beside it.
fn cgroups_beside(pid: &str) -> Vec<BTreeSet<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        if !path.contains("/zed-") {
            continue;
        }
        let folder = Path::new("/sys/fs/cgroup").join(controllers).join(path.trim_start_matches('/'));
        // In version 2 the program is in a leaf of its app's cgroup.
        let folder = if folder.ends_with("run") { folder.parent().unwrap_or(&folder) } else { &folder };
        let beside = std::fs::read_dir(folder.parent().expect("it has one")).into_iter().flatten().flatten();
        let folders = beside.filter(|entry| entry.path().is_dir());
        let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // The front has no limits: it is in some hierarchies only.
        found.push(names.filter(|name| !name.ends_with(".front")).collect());
    }
    found
}

/// Upgrades, killed at one point after the other, until there are no more.
fn killed_at_every_point(fields: &str, processes: usize) {
    let mut upgraded = Upgraded::new(fields);
    let load = Load::start(upgraded.port);
    let mut before = "0.0.0".to_owned();
    // A step has three points, which are much the same; the ZFS guest is slow.
    for (times, point) in (2..200).step_by(if on_zfs() { 10 } else { 3 }).enumerate() {
        let after = format!("1.0.{point}");
        let killed = upgraded.upgrade_killed_at(point, &after);
        let version = upgraded.one_version(point, processes);
        assert!(version == before || version == after, "point {point}: {before} to {after} gave {version}");
        before = version;
        if !killed {
            assert!(times >= 3, "it was killed {times} times");
            load.finish();
            return;
        }
    }
    panic!("the upgrade has no end of points");
}

#[test]
fn blue_green_killed_in_each_phase() {
    killed_at_every_point("strategy: BlueGreen(ports: (BLUE, GREEN), drain: \"10s\")", 1);
}

#[test]
fn rolling_killed_in_each_phase() {
    killed_at_every_point("strategy: Rolling(batch: 1), instances: 2", 2);
}
