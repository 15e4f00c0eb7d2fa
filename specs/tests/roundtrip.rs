//! Whatever a spec may say, its canonical form, its rendering for people and its JSON say the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot make its own values fails")]

use proptest::prelude::ProptestConfig;
use proptest::prelude::TestCaseError;
use proptest::prelude::any;
use proptest::prop_assert_eq;
use proptest::proptest;
use std::collections::BTreeMap;
use std::time::Duration;
use zed_spec::*;

/// Makes valid specs from a list of choices, so that proptest can make a failing one smaller.
struct Maker<'b> {
    choices: &'b [u8],
}

const TEXTS: &[&str] = &[
    "x",
    "",
    "two words",
    "\"quoted\" and \\ and 'single'",
    "line\nbreak\r\n\ttab",
    "// no comment /* none */",
    "r#\"raw\"#",
    "\u{e9}\u{1F600}\u{7f}\u{1b}[31m\u{202e}",
    "$VAR `cmd` ${X}",
    "None",
    "true",
    "1.0",
];
const LINES: &[&str] =
    &["x", "two words", "a\"b\\c", "RTX 4090", "\u{e9}\u{1F600}", "// x", "1.0", "None", "\u{202e}x"];
const DATASETS: &[&str] = &["apps/a", "apps/b", "data/a", "d", "x/Y_z.1:2-3"];
const JAIL_DATASETS: &[&str] = &["jails/a", "jails/b", "jails/c"];
const HOSTS: &[&str] = &["web1", "web2", "db.example"];
const SLUGS: &[&str] = &["a", "b", "c-3", "0"];
const SLOTS: &[&str] = &["db/password", "shop/cookie", "X"];
const WORDS: &[&str] = &["db", "net0", "14.2-RELEASE", "pkg:amd64"];
const PATHS: &[&str] = &["/srv/a", "/", "/srv/with space/\u{e9}\"x"];
const ENV: &[&str] = &["PORT", "_x", "A1"];
const VERSIONS: &[&str] = &["1.0.0", "1.1.0-rc.1+b", "2 beta"];
const PREFIXES: &[&str] = &["10.0.0.1/24", "10.77.0.3/32"];

impl Maker<'_> {
    fn below(&mut self, n: usize) -> usize {
        match self.choices.split_first() {
            Some((first, rest)) => {
                self.choices = rest;
                usize::from(*first) % n
            }
            None => 0,
        }
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 1
    }

    fn pick(&mut self, from: &[&str]) -> String {
        from[self.below(from.len())].to_owned()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.yes() { Some(make(self)) } else { None }
    }

    fn several<T>(&mut self, max: usize, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let n = self.below(max + 1);
        (0..n).map(|_| make(self)).collect()
    }

    /// Some of these, each once.
    fn some_of(&mut self, from: &[&str]) -> Vec<String> {
        from.iter().filter(|_| self.yes()).map(|text| (*text).to_owned()).collect()
    }

    fn map(&mut self, keys: &[&str], values: &[&str]) -> BTreeMap<String, String> {
        self.some_of(keys).into_iter().map(|key| (key, self.pick(values))).collect()
    }

    fn number(&mut self) -> u32 {
        [1, 2, 5, 100, 1000][self.below(5)]
    }

    fn duration(&mut self) -> Duration {
        Duration::from_millis([1, 500, 1_000, 90_000, 86_400_000, 3_723_004][self.below(6)])
    }

    fn size(&mut self) -> u64 {
        [1, 1000, 1024, 512 << 20, (2 << 30) + 1, 1 << 40][self.below(6)]
    }

    fn placement(&mut self, hosts: &BTreeMap<HostName, Host>) -> Placement {
        let labels: Vec<_> = hosts.values().flat_map(|h| h.labels.clone()).collect();
        match self.below(3) {
            1 if !labels.is_empty() => {
                let (key, value) = labels[self.below(labels.len())].clone();
                Placement::Label(key, value)
            }
            2 if !hosts.is_empty() => {
                let mut names: Vec<HostName> = hosts.keys().cloned().collect();
                let skip = self.below(names.len());
                Placement::Hosts(names.split_off(skip))
            }
            _ => Placement::All,
        }
    }

    fn command(&mut self) -> Vec<String> {
        let mut command = vec!["bin/x".to_owned()];
        command.extend(self.several(3, |m| m.pick(TEXTS)));
        command
    }

    fn limits(&mut self) -> Limits {
        Limits {
            memory: self.maybe(Self::size),
            cpus: self.maybe(|m| f64::from(m.number()) / 8.0),
            pids: self.maybe(|m| m.number().into()),
            nofile: self.maybe(|m| m.number().into()),
        }
    }

    fn value_from(&mut self, secrets: &BTreeMap<SlotName, SecretSource>) -> ValueFrom {
        match self.below(3) {
            2 if !secrets.is_empty() => {
                ValueFrom::Secret(secrets.keys().nth(self.below(secrets.len())).unwrap().clone())
            }
            1 => ValueFrom::File(self.pick(PATHS)),
            _ => ValueFrom::Env(self.pick(ENV)),
        }
    }

    fn condition(&mut self, depth: usize) -> Condition {
        match self.below(if depth == 0 { 2 } else { 5 }) {
            0 => Condition::Fact(self.pick(LINES), self.pick(TEXTS)),
            1 => Condition::Env(self.pick(ENV), self.pick(TEXTS)),
            2 => Condition::Not(Box::new(self.condition(depth - 1))),
            n => {
                let mut all = vec![self.condition(depth - 1)];
                all.extend(self.several(2, |m| m.condition(depth - 1)));
                if n == 3 { Condition::All(all) } else { Condition::Any(all) }
            }
        }
    }

    fn probe(&mut self) -> Probe {
        match self.below(4) {
            0 => {
                let tls = self.below(2) == 0;
                let plain = ["http://127.0.0.1:80/x?y=%20", "http://[::1]", "http://h.example/"];
                let url = if tls { self.pick(&["https://h.example/"]) } else { self.pick(&plain) };
                let ca = if tls { self.maybe(|_| "/etc/ca.pem".to_owned()) } else { None };
                let insecure = tls && ca.is_none() && self.below(2) == 0;
                let (expect, body) = (self.maybe(|_| 204), self.maybe(|m| m.pick(LINES)));
                Probe::Http { url, expect, body, ca, insecure }
            }
            1 => Probe::Tcp { address: self.pick(&["127.0.0.1:1", "[::1]:80", "db.example:65535"]) },
            2 => Probe::Exec { command: self.command() },
            _ => Probe::BeamPing,
        }
    }

    fn backoff(&mut self) -> Backoff {
        Backoff {
            backoff: [Duration::from_secs(1), Duration::from_millis(1)][self.below(2)],
            max_backoff: [Duration::from_secs(60), Duration::from_millis(86_400_001)][self.below(2)],
            give_up_after: self.maybe(Self::number),
        }
    }

    fn artifact(&mut self) -> Artifact {
        let hex = "0123456789abcdef".repeat(4);
        let path = self.pick(PATHS);
        match self.below(3) {
            0 => Artifact::Tar { path, sha256: self.maybe(|_| hex) },
            1 => Artifact::Dir { path },
            _ => Artifact::Oci { path, digest: self.maybe(|_| format!("sha256:{hex}")) },
        }
    }

    fn strategy(&mut self) -> Strategy {
        match self.below(4) {
            0 => Strategy::Replace,
            1 => Strategy::BlueGreen { ports: (8080, 65535), drain: self.duration() },
            2 => Strategy::Rolling { batch: self.number(), pause: self.duration() },
            _ => Strategy::Canary { instances: self.number(), pause: self.duration() },
        }
    }

    /// An app that may depend on those of `spec`.
    fn app(&mut self, spec: &DeploySpec) -> App {
        let datasets: Vec<&DatasetPath> = spec.datasets.keys().collect();
        let dataset = datasets[self.below(datasets.len())].clone();
        let data = datasets.into_iter().filter(|d| **d != dataset && self.yes()).cloned().collect();
        let attempts = self.number();
        let strategy = self.strategy();
        // A blue-green app has two processes of its own; of others the first port has to be known.
        let blue_green = matches!(strategy, Strategy::BlueGreen { .. });
        let instances = match strategy {
            Strategy::BlueGreen { .. } => 1,
            Strategy::Canary { instances, .. } => instances,
            _ => self.number(),
        };
        let listen = self.maybe(|m| Listen::parse(&m.pick(&["127.0.0.1:8000", "http://[::1]:80"])).unwrap());
        let mut env = self.map(&["E1", "E2"], TEXTS);
        let mut env_from: BTreeMap<String, ValueFrom> =
            self.some_of(ENV).into_iter().map(|k| (k, self.value_from(&spec.secrets))).collect();
        if listen.is_some() && !blue_green {
            env_from.remove("PORT");
            env.insert("PORT".to_owned(), "8080".to_owned());
        }
        App {
            data,
            dataset,
            version: self.pick(VERSIONS),
            command: if self.yes() { self.command() } else { vec![] },
            artifact: self.maybe(Self::artifact),
            env,
            env_from,
            user: self.maybe(|m| m.pick(WORDS)),
            group: self.maybe(|m| m.pick(WORDS)),
            limits: self.limits(),
            runtime: match self.below(4) {
                1 if !spec.jails.is_empty() => Runtime::Jail(spec.jails.keys().next().unwrap().clone()),
                2 if !spec.zones.is_empty() => Runtime::Zone(spec.zones.keys().next().unwrap().clone()),
                3 => {
                    Runtime::Container { network: if self.yes() { Network::Host } else { Network::Private } }
                }
                _ => Runtime::Process,
            },
            node_name: self.maybe(|m| m.pick(&["shop@10.17.89.10", "shop"])),
            cookie: self.maybe(|m| m.value_from(&spec.secrets)),
            health: if self.yes() {
                Health::default()
            } else {
                Health {
                    probes: self.several(3, Self::probe),
                    interval: self.duration(),
                    timeout: self.duration(),
                    attempts,
                    successes: 1 + attempts / 2,
                }
            },
            restart: match self.below(3) {
                0 => Restart::Always(self.backoff()),
                1 => Restart::OnFailure(self.backoff()),
                _ => Restart::Never,
            },
            stop_grace: self.maybe(|_| Duration::ZERO).unwrap_or(App::DEFAULT_STOP_GRACE),
            depends_on: spec.apps.keys().filter(|_| self.yes()).cloned().collect(),
            hooks: Hooks {
                timeout: self
                    .maybe(|m| Duration::from_millis(1 + m.below(1000) as u64))
                    .unwrap_or(Hooks::DEFAULT_TIMEOUT),
                before_deploy: self.several(2, Self::command),
                after_deploy: self.several(2, Self::command),
                before_rollback: self.several(1, Self::command),
                after_rollback: self.several(1, Self::command),
                on_failure: self.several(1, Self::command),
            },
            strategy,
            instances,
            listen,
            when: self.maybe(|m| m.condition(3)),
            on: self.placement(&spec.hosts),
        }
    }

    fn dataset(&mut self, hosts: &BTreeMap<HostName, Host>) -> Dataset {
        Dataset {
            compression: self.maybe(|m| m.pick(&["on", "lz4", "zstd-19", "gzip-9", "zstd-fast-10"])),
            quota: self.maybe(|m| [0, m.size()][m.below(2)]),
            recordsize: self.maybe(|m| 512 << m.below(16)),
            mountpoint: self.maybe(|m| m.pick(&["none", "legacy", "/srv/x"])),
            atime: self.maybe(Self::yes),
            on: self.placement(hosts),
            properties: self.map(&["sync", "logbias", "userquota@0"], &["always", "x y", "\u{e9}"]),
        }
    }

    fn host(&mut self) -> Host {
        Host {
            address: self.pick(&["10.77.0.1:7117", "[fe80::1]:1", "web1.example:7117"]),
            labels: self.map(&["role", "rack \"1\""], LINES),
            gpus: self.several(2, |m| Gpu { model: m.pick(LINES), vram_gb: m.number() }),
        }
    }

    fn jail(&mut self, dataset: &str, spec: &DeploySpec) -> Jail {
        Jail {
            dataset: DatasetPath::parse(dataset).unwrap(),
            release: self.pick(WORDS),
            ip4: self.maybe(|m| m.pick(PREFIXES)),
            ip6: self.maybe(|m| m.pick(&["fd00::1/64"])),
            interface: self.maybe(|m| m.pick(WORDS)),
            vnet: self.yes(),
            hostname: self.maybe(|m| m.pick(WORDS)),
            packages: self.some_of(WORDS),
            mounts: spec
                .datasets
                .keys()
                .filter(|_| self.yes())
                .map(|dataset| JailMount { dataset: dataset.clone(), at: "/x".to_owned(), read_only: true })
                .collect(),
            params: self.map(&["allow.raw_sockets", "enforce_statfs"], LINES),
            files: self.several(2, |m| JailFile {
                path: "/etc/x".to_owned(),
                content: m.pick(LINES),
                mode: m.pick(&["0644", "4755", "600"]),
            }),
            setup: self.several(2, |m| vec!["echo".to_owned(), m.pick(LINES)]),
            services: self.some_of(&["sshd", "_x"]),
            manager: if self.yes() { JailManager::Bastille } else { JailManager::JailConf },
            depends_on: spec.jails.keys().filter(|_| self.yes()).cloned().collect(),
            limits: self.limits(),
            on: self.placement(&spec.hosts),
        }
    }

    fn fleet(&mut self, spec: &mut DeploySpec) {
        for name in self.some_of(SLUGS) {
            let zone = Zone {
                dataset: DatasetPath::parse("zones/z").unwrap(),
                brand: self.pick(WORDS),
                ip: self.maybe(|m| m.pick(PREFIXES)),
                over: self.maybe(|m| m.pick(WORDS)),
                limits: self.limits(),
                depends_on: spec.zones.keys().filter(|_| self.yes()).cloned().collect(),
                on: self.placement(&spec.hosts),
            };
            spec.zones.insert(ZoneName::parse(&name).unwrap(), zone);
        }
        for name in self.some_of(SLUGS) {
            let fits = spec.hosts.values().flat_map(|h| &h.gpus).map(|gpu| gpu.vram_gb).max();
            let model = Model {
                dataset: DatasetPath::parse("models/m").unwrap(),
                version: self.pick(VERSIONS),
                requires: Requires { vram_gb: fits.filter(|_| self.yes()) },
                on: Placement::All,
            };
            spec.models.insert(ModelName::parse(&name).unwrap(), model);
        }
        for name in self.some_of(SLUGS) {
            let job = Job {
                model: spec.models.keys().next().filter(|_| self.yes()).cloned(),
                dataset: DatasetPath::parse("jobs/j").unwrap(),
                command: self.command(),
                checkpoint_every: self.maybe(|m| m.pick(&["1 epoch", "500 steps", "10m"])),
                prefer: Prefer { gpu: self.maybe(|m| m.pick(LINES)) },
                env: self.map(ENV, TEXTS),
                on: self.placement(&spec.hosts),
            };
            spec.jobs.insert(JobName::parse(&name).unwrap(), job);
        }
        let hosts: Vec<&HostName> = spec.hosts.keys().collect();
        if let ([from, to @ ..], Some(dataset)) = (hosts.as_slice(), spec.datasets.keys().next())
            && !to.is_empty()
        {
            spec.replicate = self.several(2, |m| Replication {
                dataset: dataset.clone(),
                from: (*from).clone(),
                to: to.iter().map(|host| (*host).clone()).collect(),
                every: m.maybe(Self::duration),
                keep: m.maybe(Self::number),
                filter: m.maybe(|m| ReplicationFilter::SizeBelow(m.size())),
            });
        }
    }

    fn spec(&mut self) -> DeploySpec {
        let hosts: BTreeMap<_, _> =
            self.some_of(HOSTS).iter().map(|name| (HostName::parse(name).unwrap(), self.host())).collect();
        let datasets: BTreeMap<_, _> = self
            .some_of(DATASETS)
            .iter()
            .map(|name| (DatasetPath::parse(name).unwrap(), self.dataset(&hosts)))
            .collect();
        let secrets = self.some_of(SLOTS);
        let secrets = secrets.iter().map(|name| {
            let source = match self.below(4) {
                0 => SecretSource::Random { bytes: self.number() },
                1 => SecretSource::Manual,
                2 => SecretSource::File(self.pick(PATHS)),
                _ => SecretSource::Env(self.pick(ENV)),
            };
            (SlotName::parse(name).unwrap(), source)
        });
        let secrets = secrets.collect();
        let mut spec = DeploySpec {
            name: DeployName::parse("made").unwrap(),
            pool: self.maybe(|m| m.pick(&["tank", "tank/zed/x"])),
            hosts,
            datasets,
            apps: BTreeMap::new(),
            jails: BTreeMap::new(),
            zones: BTreeMap::new(),
            models: BTreeMap::new(),
            jobs: BTreeMap::new(),
            secrets,
            replicate: vec![],
            rollout: match self.below(3) {
                0 => None,
                1 => Some(Rollout::AllAtOnce),
                _ => Some(Rollout::Rolling {
                    batch: self.number(),
                    pause: self.duration(),
                    on_failure: [OnFailure::RollBackAll, OnFailure::Stop, OnFailure::Continue][self.below(3)],
                }),
            },
            snapshots: SnapshotPolicy { before_deploy: self.yes(), keep: self.number() },
            drift: if self.yes() { DriftPolicy::Heal } else { DriftPolicy::Report },
        };
        for (name, dataset) in SLUGS.iter().zip(JAIL_DATASETS) {
            if self.yes() {
                let jail = self.jail(dataset, &spec);
                spec.jails.insert(JailName::parse(name).unwrap(), jail);
            }
        }
        self.fleet(&mut spec);
        if !spec.datasets.is_empty() {
            for name in self.some_of(SLUGS) {
                let app = self.app(&spec);
                spec.apps.insert(AppName::parse(&name).unwrap(), app);
            }
        }
        spec
    }
}

fn reparse(spec: &DeploySpec, text: &str) -> Result<DeploySpec, TestCaseError> {
    zed_spec::parse(&spec.name, text.as_bytes())
        .map_err(|error| TestCaseError::fail(format!("{}\n{text}", error.render("made.ron"))))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_form_of_a_spec_means_the_same(choices in proptest::collection::vec(any::<u8>(), 0..600)) {
        let spec = Maker { choices: &choices }.spec();

        let canonical = spec.canonical();
        let again = reparse(&spec, &canonical)?;
        prop_assert_eq!(&again, &spec);
        prop_assert_eq!(again.canonical(), canonical.clone());
        prop_assert_eq!(again.sha256(), spec.sha256());
        prop_assert_eq!(&DeploySpec::from_canonical(&canonical).unwrap(), &spec);

        let rendered = render_spec(&spec);
        prop_assert_eq!(&reparse(&spec, &rendered)?, &spec, "{}", rendered);

        let json = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(&serde_json::from_str::<DeploySpec>(&json).unwrap(), &spec);

        // The ron crate reads the canonical form too: it is plain RON.
        let options = ron::Options::default()
            .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
            .with_default_extension(ron::extensions::Extensions::UNWRAP_VARIANT_NEWTYPES);
        prop_assert_eq!(&options.from_str::<DeploySpec>(&canonical).unwrap(), &spec);
    }

    #[test]
    fn different_specs_have_different_forms(
        a in proptest::collection::vec(any::<u8>(), 0..100),
        b in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let (a, b) = (Maker { choices: &a }.spec(), Maker { choices: &b }.spec());
        prop_assert_eq!(a == b, a.canonical() == b.canonical());
        prop_assert_eq!(a == b, a.sha256() == b.sha256());
    }
}

/// The most that a file may hold, in its shortest words: its canonical form is much longer than a file may be.
#[test]
fn the_largest_specs_can_be_read_back() {
    let app = |i: usize| format!("\"{i}\":(dataset:\"d\",version:\"1\")");
    let apps: Vec<String> = (0..30_000).map(app).collect();
    let text = format!("(datasets:{{\"d\":()}},apps:{{{}}})", apps.join(","));
    assert!((900_000..MAX_SPEC_BYTES).contains(&text.len()), "{}", text.len());
    let spec = zed_spec::parse(&DeployName::parse("large").unwrap(), text.as_bytes()).unwrap();
    let canonical = spec.canonical();
    assert!(canonical.len() > 5 * MAX_SPEC_BYTES, "{}", canonical.len());
    assert_eq!(DeploySpec::from_canonical(&canonical).unwrap(), spec);
    // Without a name it is a spec, and no canonical form.
    assert!(DeploySpec::from_canonical("()").unwrap_err().to_string().contains("`name`"));
}
