//! Upgrades of real programs while clients ask them: what `stack.ron` says, and apps of several processes.

use std::path::PathBuf;
use zed_tests::Load;
use zed_tests::Zed;
use zed_tests::enough_attempts;
use zed_tests::free_ports;

/// The shape of `specs/examples/stack.ron` with real programs. Secrets are values from elsewhere here.
struct Stack {
    zed: Zed,
    /// Of the database, of the API's front, and of its two sides.
    port: u16,
    checksum: String,
}

impl Stack {
    /// A daemon with the stack deployed at 2.1.0.
    fn deployed() -> Self {
        let zed = Zed::start();
        zed.write_service("db", "15.4", None);
        zed.ok("echo hush > password; tar -C artifacts/db-15.4 -czf db.tar.gz .");
        let checksum = zed.ok("sha256sum db.tar.gz | cut -d' ' -f1");
        let stack = Self { zed, port: free_ports(4), checksum };
        stack.write("2.1.0", None);
        stack.zed.ok("cp stack.ron $M/deploy/ && sync $M/deploy/stack.ron");
        stack
    }

    /// Writes `stack.ron` and the artifact of its API.
    fn write(&self, version: &str, sick: Option<&str>) -> PathBuf {
        let artifact = self.zed.write_service("api", version, sick);
        std::fs::write(artifact.join("bin/shell"), "#!/bin/sh\nexec sleep 100000\n").expect("write");
        self.zed.ok(&format!("chmod 755 {}/bin/shell", artifact.display()));
        let dir = self.zed.dir().display();
        let [db, front, blue, green] = [0, 1, 2, 3].map(|offset| self.port + offset);
        let checksum = &self.checksum;
        let spec = format!(
            r#"Deploy(
    datasets: {{
        "apps/db": (compression: "lz4", recordsize: "16K"),
        "apps/api": (compression: "zstd"),
        "data/api": (atime: false),
    }},
    apps: {{
        "db": (
            dataset: "apps/db",
            version: "15.4",
            command: ["bin/db", "--listen", "127.0.0.1:{db}"],
            artifact: Tar(path: "{dir}/db.tar.gz", sha256: "{checksum}"),
            health: (probes: [Tcp("127.0.0.1:{db}")], interval: "100ms", timeout: "5s", attempts: 300, successes: 2),
            restart: OnFailure(backoff: "1s", max_backoff: "1m", give_up_after: 10),
        ),
        "api": (
            dataset: "apps/api",
            data: ["data/api"],
            version: "{version}",
            artifact: Dir("{dir}/artifacts/api-{version}"),
            command: ["bin/api"],
            env: {{"PORT": "{blue}", "LOG": "info"}},
            env_from: {{"DB_PASSWORD": File("{dir}/password"), "REGION": Env("ZED_TEST_TAG")}},
            depends_on: ["db"],
            hooks: (
                before_deploy: [["bin/api", "migrate", "--check"]],
                after_deploy: [["bin/api", "migrate"]],
            ),
            health: (
                probes: [Http(url: "http://127.0.0.1:{blue}/health", expect: 200), Exec(["bin/api", "selftest"])],
                interval: "100ms", timeout: "20s", attempts: {attempts},
            ),
            strategy: BlueGreen(ports: ({blue}, {green}), drain: "10s"),
            listen: "http://127.0.0.1:{front}",
        ),
        "debug-shell": (
            dataset: "apps/api",
            version: "2.1.0",
            command: ["bin/shell"],
            when: All([Fact("os", "linux"), Not(Env("STAGE", "prod"))]),
        ),
    }},
    snapshots: (before_deploy: true, keep: 10),
)
"#,
            // A service needs a moment to listen; one that is sick stays so.
            attempts = if sick.is_some() { enough_attempts() } else { 300 },
        );
        let path = self.zed.dir().join("stack.ron");
        std::fs::write(&path, spec).expect("the spec can be written");
        path
    }

    fn answer(&self) -> String {
        self.zed.ok(&format!("curl -sS 127.0.0.1:{}/", self.port + 1))
    }

    fn current(&self) -> String {
        let home = self.zed.key("apps/api/status", "mountpoint");
        self.zed.ok(&format!("readlink {home}/current; ls {home}/releases"))
    }

    /// The processes that run. What is left of a version that failed is shown as stopped.
    fn instances(&self) -> String {
        self.zed.ok("grep '^instance.* running ' $M/apps/api/status | sed 's/ pid=.*//'")
    }
}

#[test]
fn a_stack_is_upgraded_under_load_survives_a_sick_version_and_goes_back() {
    let stack = Stack::deployed();
    let (zed, blue, green) = (&stack.zed, stack.port + 2, stack.port + 3);
    assert_eq!(zed.key("deploy/stack.status", "state"), "converged");
    for app in ["db", "api", "debug-shell"] {
        assert_eq!(zed.key(&format!("apps/{app}/status"), "state"), "running");
        assert_eq!(zed.key(&format!("apps/{app}/status"), "health"), "healthy");
    }
    assert_eq!(stack.current(), "releases/2.1.0\n2.1.0");
    let home = zed.key("apps/api/status", "mountpoint");
    assert_eq!(zed.ok(&format!("cat {home}/migrated")), "2.1.0");
    let first = format!("instance.api running version=2.1.0 port={blue}");
    assert!(stack.instances().contains(&first), "{}", stack.instances());
    let db = zed.key("apps/db/status", "pid");

    let load = Load::start(stack.port + 1);
    load.some_more();
    stack.write("2.2.0", None);
    zed.ok("cp stack.ron $M/deploy/ && sync $M/deploy/stack.ron");
    load.some_more();
    assert_eq!(stack.answer(), "2.2.0");
    assert_eq!(zed.key("apps/api/status", "version"), "2.2.0");
    let second = format!("instance.api.2 running version=2.2.0 port={green}");
    assert!(stack.instances().contains(&second), "{}", stack.instances());
    assert!(!stack.instances().contains("2.1.0"), "{}", stack.instances());
    assert_eq!(stack.current(), "releases/2.2.0\n2.1.0\n2.2.0", "debug-shell stays where it is");
    assert_eq!(zed.ok(&format!("cat {home}/migrated")), "2.2.0");

    // A version that is not healthy: the one before goes on serving, and its verdict says why.
    let before = stack.instances();
    stack.write("2.3.0", Some("tables are missing"));
    zed.fails("cp stack.ron $M/deploy/ && sync $M/deploy/stack.ron");
    for answers in load.finish() {
        assert_eq!(answers, ["2.1.0", "2.2.0"], "from old to new, and never back");
    }
    let url = format!("GET http://127.0.0.1:{blue}/health");
    let says = format!("{url} failed {} times; the last one: {url}: ", enough_attempts());
    let verdict = zed.key("deploy/stack.status", "verdict");
    assert!(verdict.contains(&says) && verdict.contains("500"), "{verdict}");
    assert_eq!(zed.key("deploy/stack.status", "state"), "failed");
    assert_eq!(zed.key("apps/api/status", "version"), "2.2.0");
    assert_eq!((stack.instances(), stack.answer()), (before, "2.2.0".to_owned()));
    assert_eq!(stack.current(), "releases/2.2.0\n2.1.0\n2.2.0", "debug-shell stays where it is");
    let evidence = zed.ok("cat $(find . -path '*failures*' -name 'api*.probe')");
    assert!(evidence.contains(&says) && evidence.contains("tables are missing"), "{evidence}");

    // An operator goes back further.
    zed.ok("echo @latest > $M/apps/api/rollback");
    zed.eventually(
        "grep -qx 'version 2.1.0' $M/apps/api/status && grep -qx 'state running' $M/apps/api/status",
    );
    assert_eq!(stack.answer(), "2.1.0");
    // The folder of 2.2.0 was unpacked beside it before the snapshot was taken; the next deploy clears it away.
    assert_eq!(stack.current(), "releases/2.1.0\n2.1.0\n2.2.0");
    assert_eq!(zed.ok(&format!("cat {home}/migrated")), "2.1.0");
    assert_ne!(zed.key("apps/api/status", "held"), "-");
    assert_eq!(zed.key("apps/db/status", "pid"), db, "the database was never touched");
}

/// Prints the versions of web's processes, in their order.
const VERSIONS: &str = r#"awk '/^instance.web[. ]/ && !/front/ { sub("version=", "", $3); printf "%s ", $3 }' $M/apps/web/status"#;

/// `web` in several processes behind a front.
struct Web {
    zed: Zed,
    /// Of the front; those of the processes follow.
    port: u16,
}

impl Web {
    fn write(&self, version: &str, instances: u32, strategy: &str) {
        self.zed.write_service("web", version, None);
        let (dir, first) = (self.zed.dir().display(), self.port + 1);
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
            health: (probes: [Http("http://127.0.0.1:{first}/health")], interval: "100ms", timeout: "5s", attempts: 300),
            strategy: {strategy},
            instances: {instances},
            listen: "http://127.0.0.1:{}",
        ),
    }},
)
"#,
            self.port
        );
        std::fs::write(self.zed.dir().join("web.ron"), spec).expect("the spec can be written");
    }

    /// Versions of its processes, in their order.
    fn versions(&self) -> String {
        self.zed.ok(VERSIONS)
    }

    /// Waits until the new canary is watched: there it stays, and status shows it.
    fn wait_for_canary(&self, versions: &str) {
        self.zed.eventually("grep -q '^step .*watch' $M/deploy/web.status");
        self.zed.eventually(&format!("test \"$({VERSIONS})\" = \"{versions}\""));
    }
}

#[test]
fn processes_are_replaced_batch_by_batch_steered_and_scaled_under_load() {
    let web = Web { zed: Zed::start(), port: free_ports(8) };
    let zed = &web.zed;
    let rolling = "Rolling(batch: 1, pause: \"10ms\")";
    web.write("1.0.0", 3, rolling);
    zed.ok("cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
    assert_eq!(web.versions(), "1.0.0 1.0.0 1.0.0 ");
    let load = Load::start(web.port);
    load.some_more();

    web.write("1.1.0", 3, rolling);
    zed.ok("cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
    assert_eq!(web.versions(), "1.1.0 1.1.0 1.1.0 ");

    // A canary is watched until an operator says how it goes on.
    let canary = "Canary(instances: 1, pause: \"1h\")";
    web.write("1.2.0", 3, canary);
    zed.ok("cp web.ron $M/deploy/");
    web.wait_for_canary("1.2.0 1.1.0 1.1.0 ");
    zed.ok("echo pause > $M/apps/web/ctl; grep -q '^step .*paused' $M/deploy/web.status");
    zed.ok("echo resume > $M/apps/web/ctl; grep -qv '^step .*paused' $M/deploy/web.status");
    load.some_more();
    zed.ok("echo promote > $M/apps/web/ctl && sync $M/deploy/web.ron");
    assert_eq!(web.versions(), "1.2.0 1.2.0 1.2.0 ");
    assert_eq!(zed.key("apps/web/status", "version"), "1.2.0");

    web.write("1.3.0", 3, canary);
    zed.ok("cp web.ron $M/deploy/");
    web.wait_for_canary("1.3.0 1.2.0 1.2.0 ");
    zed.ok("echo abort > $M/apps/web/ctl");
    zed.fails("sync $M/deploy/web.ron");
    let verdict = zed.key("deploy/web.status", "verdict");
    assert!(verdict.contains("an operator aborted it"), "{verdict}");
    assert_eq!(web.versions(), "1.2.0 1.2.0 1.2.0 ");
    assert_eq!(zed.key("apps/web/status", "version"), "1.2.0");

    for (count, versions) in [(5, "1.2.0 1.2.0 1.2.0 1.2.0 1.2.0 "), (2, "1.2.0 1.2.0 ")] {
        zed.ok(&format!("echo scale {count} > $M/apps/web/ctl"));
        zed.eventually(&format!("test \"$({VERSIONS})\" = \"{versions}\""));
        zed.eventually("! grep -q '^state converging' $M/deploy/web.status");
        assert_eq!(web.versions(), versions);
    }
    load.some_more();
    for answers in load.finish() {
        assert_eq!(answers.first().map(String::as_str), Some("1.0.0"));
        assert_eq!(answers.last().map(String::as_str), Some("1.2.0"));
    }
}
