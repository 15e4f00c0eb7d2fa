//! What each field accepts, and what is said about everything else.

use super::*;
use crate::ast::*;
use crate::diagnostics::MAX_DIAGNOSTICS;
use std::time::Duration;

fn parse_text(text: &str) -> Result<DeploySpec, Diagnostics> {
    parse(&DeployName::parse("test").unwrap(), text.as_bytes())
}

fn good(text: &str) -> DeploySpec {
    parse_text(text).unwrap_or_else(|e| panic!("{}\n{text}", e.render("test.ron")))
}

/// The text is refused with exactly these mistakes: each expectation is words of one diagnostic, in order; the
/// first word may be the marked place `@TEXT`, where the diagnostic must begin.
fn check(text: &str, expect: &[&str]) {
    let Err(found) = parse_text(text) else { panic!("accepted: {text}") };
    let rendered = found.render("test.ron");
    assert_eq!(found.len(), expect.len(), "{rendered}");
    for (diagnostic, expect) in found.iter().zip(expect) {
        let (place, words) = match expect.strip_prefix('@') {
            Some(rest) => {
                rest.split_once(' ').map_or((Some(rest), ""), |(place, words)| (Some(place), words))
            }
            None => (None, *expect),
        };
        if let Some(place) = place {
            let line = text.lines().nth(diagnostic.line - 1).unwrap();
            let at: String = line.chars().skip(diagnostic.column - 1).collect();
            assert!(at.starts_with(place), "not at `{place}`:\n{rendered}");
        }
        let said = format!("{} {}", diagnostic.message, diagnostic.hint.as_deref().unwrap_or_default());
        for word in words.split(' ') {
            assert!(said.contains(word), "`{word}` is missing:\n{rendered}");
        }
    }
}

/// An app with these further fields.
fn app(fields: &str) -> String {
    format!("(datasets: {{\"d\": ()}}, apps: {{\"a\": (dataset: \"d\", version: \"1\", {fields})}})")
}

fn good_app(fields: &str) -> App {
    good(&app(fields)).apps["a"].clone()
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let spec = good("()");
    assert_eq!((spec.name.as_str(), &spec.pool, spec.drift), ("test", &None, DriftPolicy::Report));
    assert_eq!(spec.snapshots, SnapshotPolicy { before_deploy: true, keep: 5 });
    assert_eq!((spec.rollout, spec.replicate), (None, vec![]));
    let app = good_app("");
    let backoff = Backoff {
        backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(60),
        give_up_after: None,
    };
    assert_eq!(app.restart, Restart::Always(backoff.clone()));
    assert_eq!(good_app("restart: Always").restart, Restart::Always(backoff.clone()));
    assert_eq!(good_app("restart: OnFailure()").restart, Restart::OnFailure(backoff));
    assert_eq!(good_app("restart: Never").restart, Restart::Never);
    assert_eq!(good_app("runtime: Container").runtime, Runtime::Container { network: Network::Host });
    assert_eq!(
        good_app("runtime: Container(network: Private)").runtime,
        Runtime::Container { network: Network::Private }
    );
    assert_eq!(app.stop_grace, Duration::from_secs(10));
    assert_eq!((app.strategy, app.instances, app.when, app.on), (Strategy::Replace, 1, None, Placement::All));
    assert_eq!((app.runtime, app.limits, app.artifact), (Runtime::Process, Limits::default(), None));
    let Health { probes, interval, timeout, attempts, successes } = app.health;
    assert_eq!((probes.len(), interval.as_secs(), timeout.as_secs(), attempts, successes), (0, 1, 2, 30, 1));
    let spec = good(
        "(datasets: {\"d\": ()}, jails: {\"j\": (dataset: \"jails/j\", release: \"14.2-RELEASE\",
           mounts: [(dataset: \"d\", at: \"/x\")])})",
    );
    let jail = &spec.jails["j"];
    assert!(jail.mounts[0].read_only && !jail.vnet && jail.manager == JailManager::JailConf);
    let dataset = &spec.datasets["d"];
    assert_eq!(
        (&dataset.compression, dataset.quota, dataset.atime, &dataset.on),
        (&None, None, None, &Placement::All)
    );
}

#[test]
fn every_way_to_write_a_value_is_accepted() {
    let plain = good("Deploy(pool: \"tank\", datasets: {\"d\": (quota: \"2G\")})");
    for text in [
        "(pool: Some(\"tank\"), datasets: {\"d\": Dataset(quota: Some(\"2G\"))})",
        "#![enable(implicit_some)]\nDeploy(pool: r\"tank\", datasets: {\"d\": (quota: 2147483648)},)",
        "Deploy(pool: \"ta\\x6ek\", rollout: None, datasets: {r#\"d\"#: (quota: 0x80_00_00_00)})",
        "\u{feff}(\r\n  pool: \"tank\",\r\n  datasets: {\"d\": (quota: \"2048M\")},\r\n)\r\n",
        "(name: \"test\", pool: \"\\u{74}ank\", datasets: {\"d\": (quota: 2_147_483_648)})",
    ] {
        assert_eq!(good(text), plain, "{text}");
    }
    let probe = |text: &str| good_app(&format!("health: (probes: [{text}])")).health.probes[0].clone();
    assert_eq!(probe("Http(\"http://h/\")"), probe("Http(url: \"http://h/\")"));
    assert_eq!(probe("Tcp(\"[::1]:80\")"), probe("Tcp(address: \"[::1]:80\")"));
    assert_eq!(probe("Exec([\"x\"])"), probe("Exec(command: [\"x\"])"));
    assert_eq!(probe("BeamPing()"), Probe::BeamPing);
    let artifact = |text: &str| good_app(&format!("artifact: {text}")).artifact.unwrap();
    assert_eq!(artifact("Tar(\"/a\")"), artifact("Some(Tar(path: \"/a\"))"));
    assert_eq!(artifact("Dir(\"/a\")"), artifact("Dir(path: \"/a\")"));
    assert_eq!(artifact("Oci(\"/a\")"), Artifact::Oci { path: "/a".to_owned(), digest: None });
    let restart = |text: &str| good_app(&format!("restart: {text}")).restart;
    assert_eq!(restart("OnFailure(backoff: \"2s\")"), restart("OnFailure((backoff: \"2s\"))"));
    assert_eq!(good_app("limits: (cpus: 2)").limits.cpus, Some(2.0));
    assert_eq!(good("(datasets: {\"d\": (quota: \"none\")})").datasets["d"].quota, Some(0));
    assert_eq!(good("(secrets: {\"s\": Random(16)})").secrets["s"], SecretSource::Random { bytes: 16 });
}

#[test]
fn shapes_are_checked() {
    check("[]", &["@[ must be a struct"]);
    check("Deploi()", &["@Deploi Deploi did you mean `Deploy`?"]);
    check("{\"datasets\": {}}", &["@{ struct (field: value)"]);
    check("(dataset: {})", &["@dataset unknown field `dataset` the spec did you mean `datasets`?"]);
    check("(zebra: 1)", &["@zebra its fields are pool"]);
    check("(datasets: {}, datasets: {})", &["@datasets duplicate field"]);
    check("(datasets: [\"d\"])", &["@[ `datasets` must be a map not a list"]);
    check("(datasets: (d: ()))", &["@(d `datasets` must be a map {\"key\": value}"]);
    check("(datasets: {\"d\": {}})", &["@{} must be a struct (a dataset)"]);
    check("(datasets: {d: ()})", &["@d must be text quotes: \"d\""]);
    check("(datasets: {\"d\": (atime: \"true\")})", &["@\"true\" `atime` without quotes: true"]);
    check("(datasets: {\"d\": (atime: on)})", &["@on `atime` true or false"]);
    check("(pool: tank)", &["@tank `pool` must be text quotes: \"tank\""]);
    check("(pool: 't')", &["@'t' double quotes"]);
    check("(drift: \"Heal\")", &["@\"Heal\" without quotes: Heal"]);
    check("(drift: Heel)", &["@Heel `Heel` drift policy did you mean `Heal`?"]);
    check("(drift: Fix)", &["@Fix one of: Report, Heal"]);
    check("(drift: Heal(1))", &["@Heal takes no values write `Heal`"]);
    check("(snapshots: true)", &["@true `snapshots` struct keep: 5"]);
    check("(snapshots: (keep: \"5\"))", &["@\"5\" whole number without quotes: 5"]);
    check("(snapshots: (keep: 0))", &["@0 `keep` from 1 to"]);
    check("(snapshots: (keep: -1))", &["@-1 `keep` from 1 to"]);
    check("(snapshots: (keep: 1.5))", &["@1.5 whole number"]);
    check("(name: \"other\")", &["@\"other\" `other` `test.ron` leave name out"]);
    check(&app("command: \"x y\""), &["@\"x a list"]);
    check(&app("command: []"), &["@[] must name a program"]);
    check(&app("command: [\"\"]"), &["@[ empty program"]);
    check(&app("command: [\"x\", \"a\\0b\"]"), &["@\"a NUL"]);
    check(&app("hooks: (after_deploy: [\"x\"])"), &["@[ list of commands [[\"program\","]);
    check(&app("artifact: Zip(\"/x\")"), &["@Zip one of: Tar, Dir, Oci"]);
    check(&app("artifact: Tar(\"/x\", \"y\")"), &["@Tar named fields"]);
    check(&app("artifact: Tar()"), &["@T needs the field `path`"]);
    check(&app("cookie: \"secret\""), &["@\"secret\" `cookie` Env, File, Secret"]);
    check(&app("runtime: Container(network: Bridge)"), &["@Bridge one of: Host, Private"]);
    check(&app("runtime: Jail"), &["@Jail takes one value Jail(\"shop\")"]);
    check(
        "(datasets: {\"d\": ()}, apps: {\"a\": ()})",
        &["@( an app needs the field `dataset`", "@( `version`"],
    );
}

#[test]
fn independent_mistakes_are_reported_at_once_and_in_order() {
    check(
        "(
            pool: 7,
            datasets: {\"a b\": (), \"ok\": (compresion: \"lz4\", quota: \"2X\", recordsize: 1000)},
            apps: {
                \"App\": (dataset: \"nope\", version: \"\"),
                \"b\": (dataset: \"ok\", version: \"1\", depends_on: [\"App\", \"c\"], instances: 0),
            },
            drift: Sometimes,
            extra: true,
        )",
        &[
            "@7 pool",
            "@\"a dataset name",
            "@compresion compression",
            "@\"2X\" `X` size",
            "@1000 power of two",
            "@\"App\" app name `A`",
            "@\"nope\" not declared",
            "@\"\" version empty",
            "@\"App\" app name",
            "@\"c\" not declared",
            "@0 instances",
            "@Sometimes drift",
            "@extra unknown",
        ],
    );
}

#[test]
fn values_of_datasets_are_checked() {
    let check_dataset = |fields: &str, expect: &[&str]| {
        check(&format!("(datasets: {{\"d\": ({fields})}})"), expect);
    };
    check_dataset("compression: \"lz5\"", &["@\"lz5\" `lz5` did you mean `lz4`?"]);
    check_dataset("compression: \"zstd-20\"", &["@\"zstd-20\" zstd-19"]);
    check_dataset("compression: \"gzip-0\"", &["@\"gzip-0\" gzip-1 gzip-9"]);
    check_dataset("compression: \"gzip-+1\"", &["@\"gzip gzip-1 gzip-9"]);
    check_dataset("quota: 1.5", &["@1.5 `quota` size"]);
    check_dataset("quota: \"1.5G\"", &["@\"1.5G\" size 512M"]);
    check_dataset("recordsize: \"3K\"", &["@\"3K\" power of two"]);
    check_dataset("recordsize: \"32M\"", &["@\"32M\" 16M"]);
    check_dataset("recordsize: 256", &["@256 512"]);
    check_dataset("mountpoint: \"srv\"", &["@\"srv\" absolute none legacy"]);
    check_dataset("mountpoint: \"/a/../b\"", &["@\"/a `..`"]);
    check_dataset("properties: {\"com.zed:x\": \"1\"}", &["@\"com.zed:x\" user properties"]);
    check_dataset("properties: {\"used\": \"1\"}", &["@\"used\" cannot be set"]);
    check_dataset("properties: {\"Sync\": \"1\"}", &["@\"Sync\" ZFS property"]);
    check_dataset("properties: {\"sync\": \"\"}", &["@\"\" empty"]);
    check_dataset("properties: {\"sync\": 1}", &["@1 quotes: \"1\""]);
    check_dataset("quota: 1, properties: {\"quota\": \"1\"}", &["@\"quota\" twice"]);
    check_dataset("on: Hosts([\"h\"])", &["@\"h\" host `h` declares no hosts"]);
    check_dataset("on: Hosts([])", &["@[] nowhere"]);
    check_dataset("on: Label(\"role\", \"web\")", &["@Label role=web declares no host"]);
    check_dataset("on: Label(\"role\")", &["@Label two values"]);
    good(
        "(datasets: {\"d\": (properties: {\"quota\": \"1G\", \"sync\": \"always\", \"userquota@0\": \"1G\"})})",
    );
    for reserved in ["zed", "zed/x"] {
        check(&format!("(datasets: {{\"{reserved}\": ()}})"), &["@\"zed belongs to zed itself"]);
    }
    good("(datasets: {\"zedx\": (), \"apps/zed\": ()})");
    for pool in ["tank/", "/tank", "1tank", "mirror-0", "log", "a b", ""] {
        check(&format!("(pool: \"{pool}\")"), &[&format!("@\"{pool} pool")]);
    }
    good("(pool: \"tank/zed/x\")");
}

#[test]
fn values_of_apps_are_checked() {
    for version in ["", " 1", "1\\n", "@latest", "1\\u{0}"] {
        let text =
            format!("(datasets: {{\"d\": ()}}, apps: {{\"a\": (dataset: \"d\", version: \"{version}\")}})");
        check(&text, &["@\" version"]);
    }
    check(&app("env: {\"1A\": \"x\"}"), &["@\"1A\" environment variable"]);
    check(&app("env: {\"A=B\": \"x\"}"), &["@\"A=B\" environment variable"]);
    check(&app("env: {\"A\": 1}"), &["@1 quotes: \"1\""]);
    check(&app("env: {\"A\": \"1\", \"A\": \"2\"}"), &["@\"A\" duplicate variable line 1"]);
    check(&app("env: {\"A\": \"1\"}, env_from: {\"A\": Env(\"B\")}"), &["@{\"A\": both env env_from"]);
    check(&app("env_from: {\"A\": Secret(\"s\")}"), &["@\"s\" secret slot declares no secrets"]);
    check(&app("cookie: Secret(\"s\")"), &["@\"s\" secret slot"]);
    check(&app("cookie: File(\"x\")"), &["@\"x\" absolute"]);
    check(&app("data: [\"d\"]"), &["@[\"d\"] own dataset"]);
    check(&app("data: [\"e\"]"), &["@\"e\" not declared did you mean `d`?"]);
    check(&app("user: \"-x\""), &["@\"-x\" begin with `-`"]);
    check(&app("user: \"a b\""), &["@\"a white space"]);
    check(&app("limits: (memory: 0)"), &["@0 memory from 1"]);
    check(&app("limits: (memory: \"0K\")"), &["@\"0K\" at least 1"]);
    check(&app("limits: (cpus: 0.0)"), &["@0.0 larger than 0"]);
    check(&app("limits: (cpus: -1)"), &["@-1 larger than 0"]);
    check(&app("limits: (cpus: inf)"), &["@inf number"]);
    check(&app("limits: (pids: 0)"), &["@0 pids"]);
    check(&app("runtime: Jail(\"j\")"), &["@\"j\" jail declares no jails"]);
    check(&app("runtime: Zone(\"j\")"), &["@\"j\" zone declares no zones"]);
    check(&app("node_name: \"a@b@c\""), &["@\"a@b@c\" NAME@HOST"]);
    check(&app("stop_grace: 10"), &["@10 `stop_grace` duration write \"10s\""]);
    check(&app("stop_grace: \"10\""), &["@\"10\" unit"]);
    check(&app("stop_grace: \"9999d\""), &["@\"9999d\" ten years"]);
    check(&app("health: (interval: \"0s\")"), &["@\"0s\" longer than 0"]);
    check(&app("health: (attempts: 0)"), &["@0 attempts"]);
    check(&app("health: (attempts: 2, successes: 3)"), &["@3 3 successes 2 attempts"]);
    check(&app("restart: OnFailure(backoff: \"2m\")"), &["@\"2m\" max_backoff (1m)"]);
    check(&app("restart: OnFailure(give_up_after: 0)"), &["@0 give_up_after"]);
    check(&app("restart: Sometimes"), &["@Sometimes Never, OnFailure, Always"]);
    check(&app("instances: 2000"), &["@2000 from 1 to 1024"]);
    check(&app("strategy: BlueGreen(ports: (80, 80))"), &["@(80 different"]);
    check(&app("strategy: BlueGreen(ports: (80, 81)), listen: \"127.0.0.1:81\""), &["@\"127 same port 81"]);
    check(&app("listen: \"localhost:80\""), &["@\"localhost numeric"]);
    check(&app("strategy: BlueGreen(ports: [80, 81])"), &["@[80 tuple"]);
    check(&app("strategy: BlueGreen(ports: (80, 81, 82))"), &["@(80 two ports"]);
    check(&app("strategy: BlueGreen(ports: (0, 65536))"), &["@0, 1 to 65535", "@65536 1 to 65535"]);
    check(&app("strategy: BlueGreen()"), &["@B needs the field `ports`"]);
    check(&app("strategy: Rolling(batch: 0)"), &["@0 batch"]);
    check(&app("strategy: Canary(instances: 2)"), &["@Canary 2 instances"]);
    check(&app("when: All([])"), &["@All at least one"]);
    check(&app("when: Fact(\"os\")"), &["@Fact two values"]);
    check(
        &app("when: Not(Fact(\"pool.tank.health\", \"ONLINE\"))"),
        &["@\"pool changes while the host runs"],
    );
    check(&app("when: Fact(\"gpus\", \"1\")"), &["@\"gpus changes while the host runs"]);
    check(&app("when: Fact(\"gpu.0.vendor\", \"NVIDIA\")"), &["@\"gpu changes while the host runs"]);
    check(&app("when: Os(\"linux\")"), &["@Os All, Any, Not, Fact, Env"]);
    check(&app("depends_on: [\"a\"]"), &["@\"a\" depends on itself"]);
    check(&app("depends_on: [\"b\"]"), &["@\"b\" not declared"]);
    let hex = "0".repeat(64);
    check(&app("artifact: Tar(path: \"/x\", sha256: \"00\")"), &["@\"00\" 2 hexadecimal digits 64"]);
    check(
        &app(&format!("artifact: Tar(path: \"/x\", sha256: \"A{}\")", &hex[1..])),
        &["@\"A `A` lower-case"],
    );
    check(&app(&format!("artifact: Oci(path: \"/x\", digest: \"{hex}\")")), &["@\"0 sha256:"]);
    good(&app(&format!("artifact: Oci(path: \"/x\", digest: \"sha256:{hex}\")")));
    check(&app("artifact: Dir(path: \"/x\", sha256: \"\")"), &["@sha256 unknown field"]);
}

#[test]
fn addresses_and_urls_are_checked() {
    let probe = |text: &str| app(&format!("health: (probes: [{text}])"));
    for address in
        ["h:1", "10.0.0.1:65535", "[::1]:80", "[fe80::1]:8080", "my-host.example_x:1", "localhost:80"]
    {
        good(&probe(&format!("Tcp(\"{address}\")")));
    }
    for (address, word) in [
        ("h", "port is missing"),
        (":80", "host is missing"),
        ("h:", "not a port"),
        ("h:0", "not a port"),
        ("h:65536", "not a port"),
        ("h:+1", "not a port"),
        ("h:8123x", "`8123x`"),
        ("::1:80", "brackets"),
        ("[::1:80", "not closed"),
        ("[::g]:80", "IPv6"),
        ("1.2.3:80", "IPv4"),
        ("256.0.0.1:80", "IPv4"),
        ("a b:80", "host name"),
        ("a..b:80", "host name"),
    ] {
        check(&probe(&format!("Tcp(\"{address}\")")), &[&format!("@\"{} {word}", &address[..1])]);
    }
    for url in
        ["http://h", "http://h:80", "http://[::1]/", "http://[::1]:80/x?y=z", "https://127.0.0.1:8123/v.txt"]
    {
        good(&probe(&format!("Http(\"{url}\")")));
    }
    for (url, word) in [
        ("ftp://h/", "begin with `http://` or `https://`"),
        ("h/x", "begin with `http://`"),
        ("https://", "host is missing"),
        ("http://", "host is missing"),
        ("http://h:x/", "`x` is not a port"),
        ("http://h/a b", "%XX"),
        ("http://u:p@h/", "passwords"),
        ("http://h/#x", "`#`"),
    ] {
        check(&probe(&format!("Http(\"{url}\")")), &[&format!("@\"{} {word}", &url[..1])]);
    }
    check(&probe("Http(url: \"http://h\", expect: 99)"), &["@99 100 to 599"]);
    check(&probe("Http(url: \"http://h\", body: \"\")"), &["@\"\" empty `body`"]);
    check(&probe("Http(expect: 200)"), &["@H needs the field `url`"]);
    check(&probe("Http(url: \"http://h\", timeout: \"1s\")"), &["@timeout unknown field an Http probe"]);
    good(&probe("Http(url: \"https://h\", ca: \"/etc/ssl/own.pem\")"));
    good(&probe("Http(url: \"https://h\", insecure: true)"));
    good(&probe("Http(url: \"http://h\", insecure: false)"));
    check(&probe("Http(url: \"http://h\", insecure: true)"), &["@true `insecure` only `https://`"]);
    check(&probe("Http(url: \"http://h\", ca: \"/x\")"), &["@\"/x `ca` only `https://`"]);
    check(&probe("Http(url: \"https://h\", ca: \"/x\", insecure: true)"), &["@true keep one"]);
    check(&probe("Http(url: \"https://h\", ca: \"x.pem\")"), &["@\"x.pem absolute"]);
}

#[test]
fn fleets_are_checked() {
    let hosts = "hosts: {\"a\": (address: \"a:1\", labels: {\"role\": \"web\"}), \"b\": (address: \"b:1\")}";
    let fleet = |rest: &str| format!("({hosts}, datasets: {{\"d\": ()}}, {rest})");
    check("(hosts: {\"A\": (address: \"a:1\")})", &["@\"A\" host name"]);
    check("(hosts: {\"a\": ()})", &["@( needs the field `address`"]);
    check("(hosts: {\"a\": (address: \"a\")})", &["@\"a\" port is missing"]);
    check("(hosts: {\"a\": (address: \"a:1\", gpus: [(model: \"x\", vram_gb: 0)])})", &["@0 vram_gb"]);
    good(&fleet("apps: {\"x\": (dataset: \"d\", version: \"1\", on: Label(\"role\", \"web\"))}"));
    check(
        &fleet("apps: {\"x\": (dataset: \"d\", version: \"1\", on: Label(\"role\", \"wep\"))}"),
        &["@Label role=wep `role=web`"],
    );
    check(
        &fleet("apps: {\"x\": (dataset: \"d\", version: \"1\", on: Hosts([\"a\", \"c\", \"a\"]))}"),
        &["@\"c\" not declared", "@\"a\" duplicate"],
    );
    let replicate = |fields: &str| fleet(&format!("replicate: [(dataset: \"d\", {fields})]"));
    good(&replicate("from: \"a\", to: [\"b\"], every: \"1m\", keep: 1, filter: SizeBelow(\"1G\")"));
    check(&replicate("from: \"a\", to: [\"a\"]"), &["@[\"a\"] itself"]);
    check(&replicate("from: \"a\", to: []"), &["@[] at least one"]);
    check(&replicate("from: \"x\", to: [\"b\"]"), &["@\"x\" not declared"]);
    check(&replicate("from: \"a\", to: [\"b\"], every: \"0s\""), &["@\"0s\" longer than 0"]);
    check(&replicate("from: \"a\", to: [\"b\"], keep: 0"), &["@0 keep"]);
    check(
        &fleet("replicate: [(dataset: \"e\", from: \"a\", to: [\"b\"])]"),
        &["@\"e\" dataset not declared"],
    );
    check(&fleet("rollout: Rolling(batch: 0)"), &["@0 batch"]);
    check(&fleet("rollout: Rolling(on_failure: Panic)"), &["@Panic RollBackAll"]);
    assert_eq!(
        good(&fleet("rollout: Rolling()")).rollout,
        Some(Rollout::Rolling { batch: 1, pause: Duration::ZERO, on_failure: OnFailure::RollBackAll })
    );
    let models = |host: &str, model: &str| {
        format!(
            "(hosts: {{\"a\": (address: \"a:1\", {host}), \"b\": (address: \"b:1\", gpus: [(model: \"M\", vram_gb: 8)])}},
             models: {{\"m\": (dataset: \"models/m\", version: \"1\", {model})}})"
        )
    };
    let gpus = "gpus: [(model: \"X\", vram_gb: 24), (model: \"X\", vram_gb: 24)]";
    good(&models(gpus, "requires: (vram_gb: 24)"));
    check(&models(gpus, "requires: (vram_gb: 25)"), &["@25 `m` 25 GB 24 GB X on a"]);
    check(&models(gpus, "requires: (vram_gb: 9), on: Hosts([\"b\"])"), &["@9 8 GB M on b"]);
    check(&models("", "requires: (vram_gb: 9), on: Hosts([\"a\"])"), &["@9 none has a GPU"]);
    good("(models: {\"m\": (dataset: \"models/m\", version: \"1\", requires: (vram_gb: 48))})");
    let job = |fields: &str| format!("(jobs: {{\"j\": (dataset: \"jobs/j\", command: [\"x\"], {fields})}})");
    for every in ["1 epoch", "2 epochs", "500 steps", "10m"] {
        good(&job(&format!("checkpoint_every: \"{every}\"")));
    }
    for every in ["epoch", "0 epochs", "1 day", "0s", "+1 step"] {
        check(&job(&format!("checkpoint_every: \"{every}\"")), &["@\" 500 steps"]);
    }
    check(&job("model: \"m\""), &["@\"m\" model declares no models"]);
    check("(jobs: {\"j\": (dataset: \"zed/j\", command: [\"x\"])})", &["@\"zed/j\" zed itself"]);
}

#[test]
fn jails_and_zones_are_checked() {
    let jail = |fields: &str| {
        format!(
            "(datasets: {{\"d\": ()}}, jails: {{\"j\": (dataset: \"jails/j\", release: \"14.2-RELEASE\", {fields})}})"
        )
    };
    good(&jail("ip4: \"10.0.0.1/24\", ip6: \"fd00::1/64\", mounts: [(dataset: \"jails/j\", at: \"/x\")]"));
    check(&jail("ip4: \"10.0.0.1\""), &["@\"10.0.0.1\" IPv4 ADDRESS/PREFIX"]);
    check(&jail("ip4: \"10.0.0.1/33\""), &["@\"10.0.0.1/33\" 0 to 32"]);
    check(&jail("ip4: \"fd00::1/64\""), &["@\"fd00 IPv4"]);
    check(&jail("ip6: \"10.0.0.1/24\""), &["@\"10 IPv6"]);
    check(&jail("mounts: [(dataset: \"e\", at: \"x\")]"), &["@\"e\" not declared", "@\"x\" absolute"]);
    check(&jail("packages: [\"-x\", \"y\", \"y\"]"), &["@\"-x\" begin with `-`", "@\"y\" duplicate"]);
    check(&jail("params: {\"a b\": \"1\"}"), &["@\"a jail(8)"]);
    check(&jail("params: {\"a\": \"1\\n2\"}"), &["@\"1 control characters"]);
    good(&jail(
        "files: [(path: \"/a\", content: \"x\\ny\", mode: \"0600\")], setup: [[\"true\"]], services: [\"sshd\"]",
    ));
    check(
        &jail("files: [(path: \"a\", content: \"\", mode: \"rw\")]"),
        &["@\"a\" absolute", "@\"rw\" octal"],
    );
    check(&jail("services: [\"a-b\"]"), &["@\"a-b\" rc.d script"]);
    check(&jail("setup: [[]]"), &["@[] program"]);
    check(&jail("manager: Iocage"), &["@Iocage JailConf, Bastille"]);
    check(&jail("depends_on: [\"j\"]"), &["@\"j\" itself"]);
    check(
        "(zones: {\"a\": (dataset: \"z/a\", brand: \"pkgsrc\", depends_on: [\"b\"]),
                  \"b\": (dataset: \"z/b\", brand: \"lx\", depends_on: [\"a\"], ip: \"x/24\")})",
        &["@\"b\" cycle zones a -> b -> a", "@\"x/24\" ADDRESS/PREFIX"],
    );
}

#[test]
fn each_cycle_is_reported_once() {
    let spec = |edges: &[(&str, &str)]| {
        let apps: Vec<String> = edges
            .iter()
            .map(|(app, needs)| format!("\"{app}\": (dataset: \"d\", version: \"1\", depends_on: {needs})"))
            .collect();
        format!("(datasets: {{\"d\": ()}}, apps: {{\n{}\n}})", apps.join(",\n"))
    };
    good(&spec(&[("a", "[\"b\", \"c\"]"), ("b", "[\"c\"]"), ("c", "[]")]));
    check(&spec(&[("a", "[\"b\"]"), ("b", "[\"c\"]"), ("c", "[\"b\"]")]), &["@\"c\" b -> c -> b"]);
    check(
        &spec(&[("a", "[\"a\"]"), ("b", "[\"c\"]"), ("c", "[\"b\"]")]),
        &["@\"a\" itself", "@\"c\" b -> c -> b"],
    );
    // A chain of thousands is no cycle, and closing it is one.
    let chain = |last: &str| {
        let apps: Vec<String> = (0..5_000)
            .map(|i| format!("\"a{i}\":(dataset:\"d\",version:\"1\",depends_on:[\"a{}\"])", i + 1))
            .collect();
        format!(
            "(datasets:{{\"d\":()}},apps:{{{},\"a5000\":(dataset:\"d\",version:\"1\",depends_on:[{last}])}})",
            apps.join(",")
        )
    };
    good(&chain(""));
    check(&chain("\"a0\""), &["@\"a1\" cycle a0 -> a1 -> ..."]);
}

#[test]
fn hostile_input_is_refused_in_bounded_work() {
    let refuse = |text: &[u8], words: &[&str]| {
        let found = parse(&DeployName::parse("test").unwrap(), text).unwrap_err();
        let rendered = found.render("test.ron");
        assert!(found.len() <= MAX_DIAGNOSTICS, "{}", found.len());
        assert!(rendered.len() < 100_000, "{} bytes of text", rendered.len());
        for word in words {
            assert!(rendered.contains(word), "`{word}` is missing:\n{rendered}");
        }
        found
    };
    refuse(&vec![b' '; 2_000_000], &["2000000 bytes", "at most 1048576"]);
    refuse(&vec![0; 100_000_000], &["100000000 bytes"]);
    for open in ["(", "[", "{", "(a:", "Some(", "{[", "/*", "\"", "r#", "((((,", "All(["] {
        refuse(open.repeat(100_000).as_bytes(), &["test.ron:1:"]);
    }
    refuse(format!("[{}]", "1,".repeat(500_000)).as_bytes(), &["too many values"]);
    let when = format!("when: {}", "Not(".repeat(100_000));
    refuse(app(&when).as_bytes(), &["nest deeper than 64"]);
    refuse(b"(pool: \"ta\0nk\")", &["NUL", "1:11"]);
    refuse(b"(\n  pool: \"t\xff\")", &["UTF-8", "2:11"]);
    refuse(b"\xff\xfe(\0)\0", &["UTF-8", "1:1"]);
    refuse(&[b'x'; MAX_SPEC_BYTES], &["xxx..."]);
    refuse("\u{202e}\u{1b}[2J".as_bytes(), &["\\u{202e}"]);
    // Long names in each place that repeats one.
    let long = "x".repeat(10_000);
    for text in [
        app(&format!("stop_grace: \"{long}\"")),
        app(&format!("stop_grace: \"1{long}\"")),
        app(&format!("stop_grace: \"{}\"", "1".repeat(10_000))),
        app(&format!("limits: (memory: \"1{long}\")")),
        app(&format!("env: {{\"{long}\": \"\"}}, env_from: {{\"{long}\": Env(\"X\")}}")),
        app(&format!("user: {long}")),
        app(&format!("{long}: 1")),
        app(&format!("runtime: {long}")),
        app(&format!("when: Fact({long})")),
        app(&format!("health: (probes: [Tcp(\"{long}:{long}\"), Http(\"http://{long}\")])")),
        app(&format!("instances: \"{}\"", "0".repeat(10_000))),
        app(&format!("on: Label(\"{long}\", \"{long}\")")),
        format!("(datasets: {{\"{long}\": (compression: \"{long}\")}}, pool: \"{long}\", name: \"{long}\")"),
        format!("(datasets: {{\"d\": (recordsize: {}, properties: {{\"{long}\": \"\"}})}})", "1".repeat(19)),
        format!("{long}()"),
        format!("\"\\{long}\""),
        format!("({long}"),
    ] {
        let found = refuse(text.as_bytes(), &["test.ron:1:"]);
        assert!(found.iter().all(|d| d.to_string().len() < 2_000), "{found:?}");
    }
    // A mistake on each of very many lines, of each kind that is worked out late.
    let many = |item: &dyn Fn(usize) -> String| (0..12_000).map(item).collect::<Vec<_>>().join(",");
    let found =
        refuse(format!("({})", many(&|i| format!("f{i}: 1"))).as_bytes(), &["12000 mistakes", "first 50"]);
    assert_eq!((found.len(), found.omitted()), (50, 11_950));
    refuse(format!("(datasets: {{{}}})", "\"d\":(),\n".repeat(20_000)).as_bytes(), &["duplicate dataset"]);
    refuse(
        format!("(datasets: {{{}}}, apps: {{{}}})", many(&|i| format!("\"d{i}\":()")), {
            many(&|i| format!("\"a{i}\":(dataset:\"e{i}\",version:\"1\")"))
        })
        .as_bytes(),
        &["not declared"],
    );
    // One line of a megabyte.
    refuse(
        format!("(pool: 7, x: \"{}\")", "\u{e9}".repeat(500_000)).as_bytes(),
        &["unknown field", "test.ron:1:11"],
    );
}

#[test]
fn diagnostics_show_the_place() {
    let found = parse_text("Deploy(\n\tpool: \"\u{e9}\u{e9}\u{e9}\", drift: Heel,\n)").unwrap_err();
    assert_eq!(
        found.render("prod.ron"),
        "error: `\u{e9}\u{e9}\u{e9}` is not a valid pool: the component `\u{e9}\u{e9}\u{e9}` must start with a letter or a digit\n \
         --> prod.ron:2:8\n  |\n\
         2 | \tpool: \"\u{e9}\u{e9}\u{e9}\", drift: Heel,\n  \
         | \t      ^^^^^\n\n\
         error: `Heel` is not a drift policy\n \
         --> prod.ron:2:22\n  |\n\
         2 | \tpool: \"\u{e9}\u{e9}\u{e9}\", drift: Heel,\n  \
         | \t                    ^^^^\n  \
         = hint: did you mean `Heal`?\n\n\
         prod.ron: 2 mistakes\n"
    );
    let first = found.iter().next().unwrap();
    assert_eq!((first.line, first.column, first.end_column), (2, 8, 13));
    assert_eq!(found.to_string(), format!("{first} (and 1 more)"));
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["diagnostics"][1]["severity"], "error");
    assert_eq!(json["diagnostics"][1]["column"], 22);
    assert_eq!(json["diagnostics"][1]["hint"], "did you mean `Heal`?");
    assert_eq!(serde_json::from_value::<Diagnostics>(json).unwrap(), found);
    // A place far out on a long line is shown with the text around it.
    let found = parse_text(&format!("({}drift: Heel)", " ".repeat(1000))).unwrap_err();
    let shown = found.iter().next().unwrap();
    assert_eq!(shown.column, 1009);
    let rendered = found.render("x.ron");
    let lines: Vec<&str> = rendered.lines().collect();
    assert_eq!(lines[3].find("Heel"), lines[4].find("^^^^"), "{rendered}");
    // A text of several lines: the carets end with the first.
    let found = parse_text("(pool: [\n1,\n2])").unwrap_err();
    assert!(found.render("x.ron").contains("1 | (pool: [\n  |        ^\n"), "{found:?}");
}
