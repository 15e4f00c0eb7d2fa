//! Steps on release folders, on a real store and real folders.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zed_host::SimHost;
use zed_plan::Instance;
use zed_plan::RunId;
use zed_plan::RunSpec;
use zed_plan::Step;
use zed_plan::Unpack;
use zed_spec::AppName;
use zed_spec::Artifact;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::HostName;
use zed_spec::Limits;
use zed_spec::Restart;
use zed_spec::Runtime;
use zed_store::Create;
use zed_store::EmbeddedStore;
use zed_store::Store;
use zedd::rollout::Signals;
use zedd::state::StateDir;
use zedd::steps::StepError;
use zedd::steps::Steps;

/// A store with one dataset, and an artifact beside it.
struct Ground {
    top: tempfile::TempDir,
    store: Arc<EmbeddedStore>,
    host: SimHost,
    steps: Steps,
}

fn app() -> AppName {
    AppName::parse("shop").unwrap()
}

fn dataset() -> DatasetPath {
    DatasetPath::parse("apps/shop").unwrap()
}

impl Ground {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(&top.path().join("store")).unwrap());
        for path in ["apps", "apps/shop"] {
            let path = DatasetPath::parse(path).unwrap();
            store.create(&Create { path, native: BTreeMap::new(), user: BTreeMap::new() }).unwrap();
        }
        let host = SimHost::new();
        let state = StateDir::open(&top.path().join("state")).unwrap();
        let steps = Steps::new(store.clone(), Arc::new(host.clone()), state);
        std::fs::create_dir_all(top.path().join("artifact")).unwrap();
        Self { top, store, host, steps }
    }

    fn artifact(&self, files: &[(&str, &str)]) -> Artifact {
        let path = self.top.path().join("artifact");
        for (name, content) in files {
            let file = path.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, content).unwrap();
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        Artifact::Dir { path: path.to_str().unwrap().to_owned() }
    }

    fn unpack(&self, artifact: Artifact, run: &str) -> Result<(), StepError> {
        self.run(&Step::Unpack {
            unpack: Box::new(Unpack {
                app: app(),
                dataset: dataset(),
                artifact,
                digest: None,
                version: "1".into(),
                folder: "releases/1".into(),
                run: RunId(run.into()),
                user: None,
                group: None,
            }),
        })
    }

    fn run(&self, step: &Step) -> Result<(), StepError> {
        // Whatever a step does, it may be repeated.
        self.steps.run(step, &Signals::default())?;
        self.steps.run(step, &Signals::default())
    }

    fn home(&self) -> PathBuf {
        self.store.get(&dataset()).unwrap().unwrap().mountpoint.clone().unwrap()
    }

    fn start(&self, env: &[(&str, &str)]) -> Result<BTreeMap<String, String>, StepError> {
        let run = RunSpec {
            app: app(),
            number: 1,
            deploy: DeployName::parse("prod").unwrap(),
            host: HostName::parse("h").unwrap(),
            version: "1".into(),
            run_hash: "hash".into(),
            command: Vec::new(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            env_from: BTreeMap::new(),
            dataset: dataset(),
            data: Vec::new(),
            release: Some("releases/1".into()),
            limits: Limits::default(),
            runtime: Runtime::Process,
            user: None,
            group: None,
            restart: Restart::Never,
            stop_grace: Duration::from_secs(1),
        };
        let instance = Instance::new(&app(), 1);
        self.run(&Step::StartApp { run: Box::new(run) })?;
        let environment = self.host.environment(&instance).unwrap();
        self.run(&Step::StopApp { instance, grace: Duration::from_secs(1) })?;
        Ok(environment)
    }
}

#[test]
fn a_release_comes_is_linked_and_goes() {
    let ground = Ground::new();
    let switch = |folder: Option<&str>| Step::SwitchRelease {
        dataset: dataset(),
        folder: folder.map(ToOwned::to_owned),
    };
    ground.unpack(ground.artifact(&[("word", "one")]), "run00001").unwrap();
    ground.run(&switch(Some("releases/1"))).unwrap();
    let word = || std::fs::read_to_string(ground.home().join("current/word")).unwrap();
    assert_eq!(word(), "one");

    ground.unpack(ground.artifact(&[("word", "two")]), "run00002").unwrap();
    assert_eq!(word(), "two");
    let undo = Step::DiscardRelease {
        dataset: dataset(),
        folder: "releases/1".into(),
        run: RunId("run00002".into()),
    };
    ground.run(&undo).unwrap();
    assert_eq!(word(), "one");

    ground.run(&switch(None)).unwrap();
    let keep = |names: &[&str]| Step::PruneReleases {
        dataset: dataset(),
        keep: names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(),
    };
    ground.run(&keep(&["releases/1"])).unwrap();
    assert!(ground.home().join("releases/1").exists());
    ground.run(&keep(&[])).unwrap();
    assert_eq!(std::fs::read_dir(ground.home().join("releases")).unwrap().count(), 0);
}

#[test]
fn an_undo_finds_nothing_to_do_where_nothing_was_done() {
    let ground = Ground::new();
    let gone = DatasetPath::parse("apps/gone").unwrap();
    for dataset in [dataset(), gone] {
        let run = RunId("run00001".into());
        ground
            .run(&Step::DiscardRelease { dataset: dataset.clone(), folder: "releases/1".into(), run })
            .unwrap();
        ground.run(&Step::SwitchRelease { dataset: dataset.clone(), folder: None }).unwrap();
        ground.run(&Step::PruneReleases { dataset, keep: BTreeSet::new() }).unwrap();
    }
}

#[test]
fn errors_name_the_artifact_and_the_dataset() {
    let ground = Ground::new();
    let missing = Artifact::Tar { path: "/nowhere/shop.tar".into(), sha256: None };
    let text = ground.unpack(missing, "run00001").unwrap_err().to_string();
    assert_eq!(
        text,
        "the artifact `/nowhere/shop.tar` is not there: put it there, or correct `artifact` in the spec"
    );
    let step = Step::SwitchRelease { dataset: dataset(), folder: Some("elsewhere/1".into()) };
    let text = ground.run(&step).unwrap_err().to_string();
    assert_eq!(text, "`elsewhere/1` cannot be the name of a release folder");
}

#[test]
fn a_beam_release_starts_in_the_foreground_with_its_distribution() {
    let ground = Ground::new();
    let artifact = ground.artifact(&[
        ("releases/start_erl.data", "13.2 1.0.0\n"),
        ("releases/1.0.0/shop.rel", ""),
        ("bin/shop", "#!/bin/sh\n# start_iex\n"),
    ]);
    ground.unpack(artifact, "run00001").unwrap();
    for (node, distribution) in [("shop@host", "sname"), ("shop@host.example.org", "name")] {
        let environment = ground.start(&[("RELEASE_NODE", node)]).unwrap();
        assert_eq!(environment["RELEASE_DISTRIBUTION"], distribution, "{node}");
    }
    let environment = ground.start(&[("RELEASE_NODE", "a@b.c"), ("RELEASE_DISTRIBUTION", "none")]).unwrap();
    assert_eq!(environment["RELEASE_DISTRIBUTION"], "none", "the spec's word counts");
    assert!(!ground.start(&[]).unwrap().contains_key("RELEASE_DISTRIBUTION"));

    std::fs::remove_file(ground.home().join("releases/1/bin/shop")).unwrap();
    let error = zedd::chain(&ground.start(&[]).unwrap_err());
    assert!(error.starts_with("app `shop` has no `command`: the release in `"), "{error}");
    assert!(error.ends_with("give the app a `command`"), "{error}");
}
