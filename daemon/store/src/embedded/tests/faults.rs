//! Every change stopped at every step: afterwards the store is as before or as after, never a mixture.

use super::*;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A change under test.
type Operation = fn(&World) -> Result<(), StoreError>;

const OPERATIONS: &[(&str, Operation)] = &[
    ("create", |w| {
        let place = w.mounts().join("new");
        w.store().create(&request("new", &[("mountpoint", place.to_str().unwrap()), ("quota", "1048576")]))
    }),
    ("set", |w| {
        let place = w.mounts().join("moved");
        w.store().set(&[
            user_change("app", Some("9")),
            user_change("data", None),
            native_change("web", "mountpoint", Some(place.to_str().unwrap())),
        ])
    }),
    ("snapshot", |w| w.store().snapshot(&[take("app@3"), take("data@3"), take("web@3")])),
    ("destroy_snapshots", |w| w.store().destroy_snapshots(&[id("app@1"), id("app@never"), id("web@2")])),
    ("restore", |w| w.store().restore(&back("app", "app@1", "zed/branches/app-2"))),
    ("restore what has a mountpoint", |w| w.store().restore(&back("web", "web@1", "zed/branches/web-1"))),
    ("restore from a branch", |w| {
        w.store().restore(&back("data", "zed/branches/data-1@2", "zed/branches/data-2"))
    }),
    ("retire", |w| w.store().retire(&path("web"), &path("zed/branches/web-1"))),
    ("reinstate", |w| w.store().reinstate(&path("zed/branches/gone-1"), &path("gone"))),
    ("destroy_branch", |w| w.store().destroy_branch(&path("zed/branches/gone-1"))),
];

/// A store with some history, and a fault that can be armed.
struct World {
    store: Option<EmbeddedStore>,
    dir: PathBuf,
}

/// Lets the first `n` steps after arming pass.
#[derive(Clone)]
struct Trap {
    armed: Arc<AtomicBool>,
    left: Arc<AtomicU64>,
    sprung: Arc<AtomicBool>,
    fate: Fate,
}

impl Trap {
    fn new(after: u64, fate: Fate) -> Self {
        Self {
            armed: Arc::new(AtomicBool::new(false)),
            left: Arc::new(AtomicU64::new(after)),
            sprung: Arc::new(AtomicBool::new(false)),
            fate,
        }
    }

    fn faults(&self) -> Faults {
        let trap = self.clone();
        Faults::new(move |_, _| {
            if !trap.armed.load(Ordering::Relaxed) || trap.sprung.load(Ordering::Relaxed) {
                return Fate::Go;
            }
            match trap.left.load(Ordering::Relaxed) {
                0 => {
                    trap.sprung.store(true, Ordering::Relaxed);
                    trap.fate
                }
                left => {
                    trap.left.store(left - 1, Ordering::Relaxed);
                    Fate::Go
                }
            }
        })
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    fn has_sprung(&self) -> bool {
        self.sprung.load(Ordering::Relaxed)
    }
}

impl World {
    /// Always at the same path, so that the views of two worlds can be compared.
    fn new(dir: &Path, trap: &Trap) -> Self {
        let dir = dir.join("world");
        tree::remove(&dir).unwrap();
        std::fs::create_dir_all(dir.join("mounts")).unwrap();
        let world =
            Self { store: Some(EmbeddedStore::open_with(&dir.join("store"), trap.faults()).unwrap()), dir };
        world.fill();
        world
    }

    fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }

    fn mounts(&self) -> PathBuf {
        self.dir.join("mounts")
    }

    fn fill(&self) {
        let store = self.store();
        let place = self.mounts().join("web");
        for name in ["app", "app/child", "data", "gone"] {
            store.create(&request(name, &[("recordsize", "16384")])).unwrap();
        }
        store.create(&request("web", &[("mountpoint", place.to_str().unwrap())])).unwrap();
        for version in ["1", "2"] {
            for name in ["app", "app/child", "data", "gone", "web"] {
                conformance::write_at_mountpoint(
                    store,
                    &path(name),
                    "file",
                    format!("{name} {version}").as_bytes(),
                );
                store.set(&[user_change(name, Some(version))]).unwrap();
            }
            let set = ["app", "data", "web", "gone"].map(|name| take(&format!("{name}@{version}")));
            store.snapshot(&set).unwrap();
        }
        store.restore(&back("data", "data@1", "zed/branches/data-1")).unwrap();
        conformance::write_at_mountpoint(store, &path("data"), "file", b"data after the restore");
        store.snapshot(&[take("data@2")]).unwrap();
        store.retire(&path("gone"), &path("zed/branches/gone-1")).unwrap();
    }

    fn reopen(&mut self, faults: Faults) -> Result<(), StoreError> {
        drop(self.store.take());
        self.store = Some(EmbeddedStore::open_with(&self.dir.join("store"), faults)?);
        Ok(())
    }

    /// Everything that can be seen, less what is different each time.
    fn view(&self) -> View {
        let ds = self.dir.join("store/ds");
        let mut datasets = Vec::new();
        for d in self.store().list().unwrap() {
            let link = if d.mounted { "@data" } else { "@unmounted" };
            let at = match &d.mountpoint {
                Some(place) => place.clone(),
                None => ds.join(d.path.as_str()).join(link),
            };
            datasets.push((Dataset { guid: 0, ..d.as_ref().clone() }, files(&at)));
        }
        let mut snapshots = Vec::new();
        for s in self.store().snapshots(None).unwrap() {
            let at = ds.join(s.id.dataset.as_str()).join("@snap").join(&s.id.name);
            snapshots.push((Snapshot { guid: 0, txg: 0, created: 0, ..s.as_ref().clone() }, files(&at)));
        }
        let mut mounts: Vec<String> = std::fs::read_dir(self.mounts())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        mounts.sort_unstable();
        View { datasets, snapshots, mounts }
    }

    /// No content that nothing refers to, no unfinished copy, no link of a dataset that is gone.
    fn assert_tidy(&self, when: &str) {
        let known = self.store().list().unwrap().len() + self.store().snapshots(None).unwrap().len();
        let content = std::fs::read_dir(self.dir.join("store/content")).unwrap();
        let content: Vec<_> = content.map(|e| e.unwrap().file_name()).collect();
        assert_eq!(content.len(), known, "{when}: {content:?}");
        let mut left = Vec::new();
        self.walk(&self.dir.join("store/ds"), "", &mut left);
        assert_eq!(left, [] as [String; 0], "{when}: folders of datasets that are gone");
    }

    fn walk(&self, folder: &Path, at: &str, left: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.ends_with("@new"), "{at}: {name}");
            if !name.starts_with('@') {
                let below = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
                if self.store().get(&path(&below)).unwrap().is_none() {
                    left.push(below.clone());
                }
                self.walk(&folder.join(name), &below, left);
            }
        }
    }
}

#[derive(Debug, PartialEq)]
struct View {
    datasets: Vec<(Dataset, BTreeMap<String, String>)>,
    snapshots: Vec<(Snapshot, BTreeMap<String, String>)>,
    mounts: Vec<String>,
}

/// The views before and after an operation that nothing disturbs.
fn undisturbed(dir: &Path, operation: Operation) -> (View, View) {
    let world = World::new(dir, &Trap::new(0, Fate::Go));
    let before = world.view();
    operation(&world).unwrap();
    (before, world.view())
}

/// Runs `check` with a world for each step of the operation at which it can be stopped.
fn at_each_step(
    dir: &Path,
    operation: Operation,
    fate: Fate,
    mut check: impl FnMut(World, u64, Result<(), StoreError>),
) {
    for step in 0.. {
        let trap = Trap::new(step, fate);
        let world = World::new(dir, &trap);
        trap.arm();
        let result = operation(&world);
        if !trap.has_sprung() {
            assert!(step > 2, "the operation has no steps");
            return;
        }
        check(world, step, result);
    }
}

#[test]
fn killed_at_any_step_it_is_before_or_after() {
    let dir = quick_dir();
    for (name, operation) in OPERATIONS {
        let (before, after) = undisturbed(dir.path(), *operation);
        assert_ne!(before, after, "{name} does nothing");
        let mut seen = (false, false);
        at_each_step(dir.path(), *operation, Fate::Die, |mut world, step, result| {
            let when = format!("{name} killed at step {step}");
            assert!(result.is_err(), "{when}: nothing was noticed");
            world.reopen(Faults::none()).unwrap();
            let view = world.view();
            assert!(view == before || view == after, "{when}: a mixture: {view:#?}");
            seen = (seen.0 || view == before, seen.1 || view == after);
            world.assert_tidy(&when);
            operation(&world).unwrap_or_else(|e| panic!("{when}, again: {e}"));
            assert_eq!(world.view(), after, "{when}, again");
            world.assert_tidy(&when);
        });
        assert_eq!(seen, (true, true), "{name}: both sides of the commit were seen");
    }
}

#[test]
fn killed_while_it_recovers_it_recovers_the_next_time() {
    let dir = quick_dir();
    for (name, operation) in
        OPERATIONS.iter().filter(|(name, _)| ["restore", "destroy_branch"].contains(name))
    {
        let (before, after) = undisturbed(dir.path(), *operation);
        at_each_step(dir.path(), *operation, Fate::Die, |mut world, step, _| {
            for second in 0.. {
                let recovered = world.reopen(Faults::at(second, Fate::Die));
                if recovered.is_ok() {
                    break;
                }
            }
            let view = world.view();
            assert!(view == before || view == after, "{name} killed at step {step}: a mixture: {view:#?}");
            world.assert_tidy(name);
        });
    }
}

#[test]
fn what_fails_at_any_step_is_before_or_after_and_can_be_repeated() {
    let dir = quick_dir();
    for (name, operation) in OPERATIONS {
        let (before, after) = undisturbed(dir.path(), *operation);
        at_each_step(dir.path(), *operation, Fate::Fail(nix::libc::ENOSPC), |mut world, step, result| {
            let when = format!("{name} failed at step {step}");
            let kind = result.expect_err(&when).kind;
            assert_eq!(kind, StoreErrorKind::NoSpace, "{when}");
            let states = |store: &EmbeddedStore| {
                let of = |d: &Arc<Dataset>| Dataset { guid: 0, mounted: false, ..d.as_ref().clone() };
                store.list().unwrap().iter().map(of).collect::<Vec<_>>()
            };
            let side = |view: &View| {
                view.datasets.iter().map(|(d, _)| Dataset { mounted: false, ..d.clone() }).collect::<Vec<_>>()
            };
            let now = states(world.store());
            assert!(now == side(&before) || now == side(&after), "{when}: a mixture");
            if now == side(&before) && now != side(&after) {
                assert_eq!(world.view(), before, "{when}: something is left");
                world.assert_tidy(&when);
            }
            operation(&world).unwrap_or_else(|e| panic!("{when}, again: {e}"));
            assert_eq!(world.view(), after, "{when}, again");
            world.assert_tidy(&when);
            world.reopen(Faults::none()).unwrap();
            assert_eq!(world.view(), after, "{when}, reopened");
        });
    }
}
