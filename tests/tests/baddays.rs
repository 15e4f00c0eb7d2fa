//! Bad input and bad days: each ends in the state before, with a verdict that names the cause and what to do. The table
//! in docs/OPERATIONS.md has a row for each test here.

use std::net::TcpListener;
use zed_tests::Backend;
use zed_tests::Zed;
use zed_tests::free_ports;
use zed_tests::look_until;
use zed_tests::on_zfs;
use zed_tests::processes_of;

/// `web` 1.0.0, deployed and serving.
struct Web {
    zed: Zed,
    port: u16,
    pid: String,
    processes: usize,
}

/// `artifact` and `command` of a good version.
const GOOD: &str = "artifact: Dir(\"DIR/artifacts/web-VERSION\"), command: [\"bin/web\"]";

impl Web {
    fn deployed() -> Self {
        Self::deployed_on(Zed::start(), "()")
    }

    fn deployed_on(zed: Zed, dataset: &str) -> Self {
        let mut web = Self { zed, port: free_ports(2), pid: String::new(), processes: 0 };
        web.zed.write_service("web", "1.0.0", None);
        web.write("1.0.0", dataset, GOOD);
        web.zed.ok("cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
        web.pid = web.zed.key("apps/web/status", "pid");
        web.processes = processes_of(web.zed.dir()).len();
        web
    }

    /// `fields` say how it is started, and what else is to be said; PORT and DIR are replaced in them.
    fn write(&self, version: &str, dataset: &str, fields: &str) {
        let (dir, port) = (self.zed.dir().display().to_string(), self.port.to_string());
        let fields = fields.replace("DIR", &dir).replace("VERSION", version);
        let env = format!("env: {{\"PORT\": \"{port}\"}},");
        let env = if fields.contains("env:") { "" } else { &env };
        let spec = format!(
            r#"Deploy(
    datasets: {{"apps/web": {dataset}}},
    apps: {{
        "web": (
            dataset: "apps/web",
            version: "{version}",
            {fields},
            {env}
            health: (probes: [Http("http://127.0.0.1:{port}/health")], interval: "50ms", timeout: "5s", attempts: 300),
            restart: OnFailure(backoff: "100ms", max_backoff: "100ms", give_up_after: 2),
        ),
    }},
)
"#
        );
        std::fs::write(self.zed.dir().join("web.ron"), spec).expect("the spec can be written");
    }

    /// Deploys 2.0.0 with these fields, which must fail; gives the verdict.
    fn fails(&self, dataset: &str, fields: &str) -> String {
        self.write("2.0.0", dataset, fields);
        self.zed.fails("cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
        assert_eq!(self.zed.key("deploy/web.status", "state"), "failed");
        let verdict = self.zed.key("deploy/web.status", "verdict");
        assert_eq!(self.zed.key("apps/web/status", "error"), verdict, "the app says the same");
        verdict
    }

    /// Asserts that 1.0.0 serves, and that nothing of another version is left.
    fn as_before(&self) {
        let zed = &self.zed;
        zed.eventually("grep -qx 'state running' $M/apps/web/status");
        assert_eq!(zed.key("apps/web/status", "version"), "1.0.0");
        zed.eventually(&format!("curl -sSf 127.0.0.1:{}/health", self.port));
        assert_eq!(zed.ok(&format!("curl -sS 127.0.0.1:{}/", self.port)), "1.0.0");
        let home = zed.key("apps/web/status", "mountpoint");
        assert_eq!(zed.ok(&format!("readlink {home}/current; ls {home}/releases")), "releases/1.0.0\n1.0.0");
        let all = look_until(|| processes_of(zed.dir()), |all| all.len() == self.processes);
        assert_eq!(all.len(), self.processes, "{all:?}");
    }

    /// The same, and that the process was never stopped.
    fn untouched(&self) {
        self.as_before();
        assert_eq!(self.zed.key("apps/web/status", "pid"), self.pid, "it was never stopped");
    }
}

#[track_caller]
fn says(verdict: &str, texts: &[&str]) {
    for text in texts {
        assert!(verdict.contains(text), "`{text}` is not in: {verdict}");
    }
}

#[test]
fn a_wrong_checksum_changes_nothing() {
    let web = Web::deployed();
    let zed = &web.zed;
    zed.write_service("web", "2.0.0", None);
    zed.ok("tar -C artifacts/web-2.0.0 -czf web.tar.gz .");
    let real = zed.ok("sha256sum web.tar.gz | cut -d' ' -f1");
    let asked = "0123456789abcdef".repeat(4);
    let fields =
        format!("artifact: Tar(path: \"DIR/web.tar.gz\", sha256: \"{asked}\"), command: [\"bin/web\"]");
    let verdict = web.fails("()", &fields);
    says(&verdict, &["web.tar.gz is not the one that the spec asks for", &real, &asked]);
    web.untouched();
}

#[test]
fn a_missing_artifact_changes_nothing() {
    let web = Web::deployed();
    let verdict = web.fails("()", "artifact: Dir(\"DIR/nowhere\"), command: [\"bin/web\"]");
    says(&verdict, &["/nowhere is not there: put it there, then save the spec again"]);
    web.untouched();
}

#[test]
fn an_archive_that_wants_out_is_refused() {
    let web = Web::deployed();
    let zed = &web.zed;
    zed.ok(
        "mkdir evil; echo x > evil/escaped; tar -C evil -cPf evil.tar --transform 's,^,../../../,' escaped",
    );
    let verdict = web.fails("()", "artifact: Tar(\"DIR/evil.tar\"), command: [\"bin/web\"]");
    says(&verdict, &["evil.tar", "escaped"]);
    assert_eq!(zed.ok("find . -name escaped -not -path './evil/*'"), "");
    web.untouched();
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_unpacking() {
    let zed = Zed::stopped();
    let small = matches!(zed.backend(), Backend::Embedded(_));
    // On the embedded store the disk is small; on ZFS the dataset is.
    if small && !zed.sh("mkdir -p store && mount -t tmpfs -o size=12m zed-test-store store").ok() {
        eprintln!("not run: no small filesystem can be mounted");
        return;
    }
    let mut zed = zed;
    zed.launch();
    let quota = "(quota: \"12M\", compression: \"off\")";
    let web = Web::deployed_on(zed, quota);
    web.zed.write_service("web", "2.0.0", None);
    // What needs too much is refused before the first byte.
    web.zed.ok("head -c 20000000 /dev/urandom > artifacts/web-2.0.0/large");
    let verdict = web.fails(quota, GOOD);
    says(&verdict, &["artifacts/web-2.0.0` needs 200", " are free: make room there"]);
    web.untouched();
    if small {
        // So many small files need more than they hold: it is full in the middle.
        web.zed.ok("rm artifacts/web-2.0.0/large; cd artifacts/web-2.0.0; head -c 6600000 /dev/urandom | split -b 1100 -a 4 - small");
        let verdict = web.fails(quota, GOOD);
        says(&verdict, &["/releases", "` is full: make room there; what was unpacked has been removed"]);
        web.untouched();
    } else {
        eprintln!(
            "not run on ZFS: its quota counts late, so the disk is not full in the middle of so little"
        );
    }
    // Once there is room, it is deployed.
    web.zed.ok("rm -f artifacts/web-2.0.0/small* artifacts/web-2.0.0/large; cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
    assert_eq!(web.zed.key("apps/web/status", "version"), "2.0.0");
}

#[test]
fn a_hook_that_hangs_is_ended_and_its_output_kept() {
    let web = Web::deployed();
    web.zed.write_service("web", "2.0.0", None);
    let hook = "[\"sh\", \"-c\", \"echo waiting for a lock; sleep 1000\"]";
    // Long enough for it to say something.
    let timeout = if on_zfs() { "10s" } else { "1s" };
    let hooks = format!("hooks: (timeout: \"{timeout}\", before_deploy: [{hook}])");
    let verdict = web.fails("()", &format!("{GOOD}, {hooks}"));
    let ended = format!(
        "hook before_deploy `sh -c echo waiting for a lock; sleep 1000` of app `web` ended with deadline of {timeout} \
         passed"
    );
    says(&verdict, &[&ended, "waiting for a lock"]);
    web.untouched();
    web.zed.ok("grep -q ' zed hook before_deploy: waiting for a lock$' $M/apps/web/log");
    let evidence = web.zed.ok("cat $(find . -path '*failures*' -type f)");
    says(&evidence, &[&ended, "waiting for a lock"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    let web = Web::deployed();
    web.zed.write_service("web", "2.0.0", None);
    // Somebody who would even answer the probe.
    let holder = TcpListener::bind(("127.0.0.1", web.port + 1)).expect("it is free");
    let env = format!("env: {{\"PORT\": \"{}\"}}", web.port + 1);
    let verdict = web.fails("()", &format!("{GOOD}, {env}"));
    let me = format!("(pid {}) listens there", std::process::id());
    let taken = format!("the port 127.0.0.1:{} is taken: ", web.port + 1);
    says(&verdict, &[&taken, &me, "stop it, or give the app another `PORT`"]);
    web.as_before();
    drop(holder);
}

#[test]
fn a_command_that_does_not_exist() {
    let web = Web::deployed();
    web.zed.write_service("web", "2.0.0", None);
    let fields = "artifact: Dir(\"DIR/artifacts/web-2.0.0\"), command: [\"bin/wbe\"]";
    says(&web.fails("()", fields), &["failed to start `app web`", "bin/wbe"]);
    web.as_before();
}

#[test]
fn a_runtime_that_this_host_does_not_have() {
    let web = Web::deployed();
    if cfg!(target_os = "freebsd") {
        eprintln!("not run: this host has jails");
        return;
    }
    web.zed.write_service("web", "2.0.0", None);
    web.write("2.0.0", "()", &format!("{GOOD}, runtime: Jail(\"cell\")"));
    let jail = "jails: {\"cell\": (dataset: \"jails/cell\", release: \"14.2-RELEASE\")},\n    apps: {";
    let spec = std::fs::read_to_string(web.zed.dir().join("web.ron")).expect("it was written");
    std::fs::write(web.zed.dir().join("web.ron"), spec.replacen("apps: {", jail, 1)).expect("write");
    web.zed.fails("cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
    says(&web.zed.key("deploy/web.status", "verdict"), &["cell", "FreeBSD"]);
    web.untouched();
}

#[test]
fn a_new_version_that_needs_more_memory_than_its_limit() {
    let web = Web::deployed();
    if !web.zed.key("hosts/testhost/facts", "limits").split(' ').any(|limit| limit == "memory") {
        eprintln!("not run: memory cannot be limited on this host");
        return;
    }
    let greedy = "command: [\"/bin/sh\", \"-c\", \"x=0123456789abcdef; while :; do x=$x$x; done\"]";
    let verdict = web.fails("()", &format!("{greedy}, limits: (memory: \"16M\")"));
    says(&verdict, &["app `web` is not healthy", "oom killed (limit 16M)"]);
    web.as_before();
}
