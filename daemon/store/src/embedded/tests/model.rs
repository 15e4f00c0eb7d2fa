//! Random sequences of calls against the embedded store and the simulator: the same answers, the same view.
//!
//! The simulator goes ZFS's way (clone, promote, rename), the embedded store computes the outcome at once;
//! that they agree is what shows that the outcome is right.

use super::*;
use crate::SimStore;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Call {
    Create(Create),
    Set(Vec<PropChange>),
    Take(Vec<TakeSnapshot>),
    DestroySnapshots(Vec<SnapshotRef>),
    Restore(Restore),
    Retire(DatasetPath, DatasetPath),
    Reinstate(DatasetPath, DatasetPath),
    DestroyBranch(DatasetPath),
    Mount(DatasetPath),
    Write(DatasetPath, String, String),
    Remove(DatasetPath, String),
    Reopen,
}

const LIVE: &[&str] = &["a", "a/b", "a/b/c", "a.d", "e"];
const BRANCHES: &[&str] = &["zed/branches/x", "zed/branches/y", "zed/branches/z", "zed/branches/x/deep"];
const OTHERS: &[&str] = &["zed", "zed/branches"];

fn live() -> impl Strategy<Value = DatasetPath> {
    prop::sample::select(LIVE).prop_map(path)
}

fn branch() -> impl Strategy<Value = DatasetPath> {
    prop::sample::select(BRANCHES).prop_map(path)
}

/// Mostly what makes sense, so that sequences go somewhere.
fn any_path() -> impl Strategy<Value = DatasetPath> {
    prop_oneof![12 => live(), 4 => branch(), 1 => prop::sample::select(OTHERS).prop_map(path)]
}

fn snapshot_name() -> impl Strategy<Value = String> {
    prop::sample::select(&["1", "2", "3"][..]).prop_map(str::to_owned)
}

fn user() -> impl Strategy<Value = BTreeMap<String, String>> {
    let value = prop::sample::select(&["", "1", "2"][..]);
    (any::<bool>(), prop::option::of(value)).prop_map(|(managed, version)| {
        let managed = managed.then(|| (crate::MANAGED.to_owned(), "on".to_owned()));
        managed.into_iter().chain(version.map(|v| ("com.zed:version".to_owned(), v.to_owned()))).collect()
    })
}

fn native() -> impl Strategy<Value = BTreeMap<String, String>> {
    let choices: &[&[(&str, &str)]] = &[
        &[],
        &[],
        &[("recordsize", "16384")],
        &[("quota", "0")],
        &[("canmount", "off")],
        &[("mountpoint", "none")],
        &[("recordsize", "17")],
    ];
    prop::sample::select(choices).prop_map(props)
}

fn changes() -> impl Strategy<Value = BTreeMap<String, Option<String>>> {
    let choices: &[&[(&str, Option<&str>)]] = &[
        &[],
        &[("quota", Some("1048576"))],
        &[("quota", None)],
        &[("quota", Some("none"))],
        &[("canmount", Some("off"))],
        &[("canmount", None)],
        &[("mountpoint", Some("none"))],
        &[("mountpoint", None)],
    ];
    prop::sample::select(choices)
        .prop_map(|all| all.iter().map(|(n, v)| ((*n).to_owned(), v.map(str::to_owned))).collect())
}

fn user_changes() -> impl Strategy<Value = BTreeMap<String, Option<String>>> {
    let one = (prop::sample::select(&["com.zed:version", crate::MANAGED][..]), prop::option::of("[12]"));
    prop::collection::btree_map(one.clone().prop_map(|(n, _)| n.to_owned()), one.prop_map(|(_, v)| v), 0..2)
}

fn snapshot_ref() -> impl Strategy<Value = SnapshotRef> {
    (any_path(), snapshot_name()).prop_map(|(dataset, name)| SnapshotRef { dataset, name })
}

fn call() -> impl Strategy<Value = Call> {
    let create = (any_path(), native(), user())
        .prop_map(|(path, native, user)| Call::Create(Create { path, native, user }));
    let set = (any_path(), changes(), user_changes()).prop_map(|(path, native, user)| PropChange {
        path,
        native,
        user,
    });
    let take = (snapshot_ref(), user()).prop_map(|(id, user)| TakeSnapshot { id, user });
    let restore = (live(), prop::option::of(branch()), snapshot_name(), branch(), user()).prop_map(
        |(dataset, of, name, branch, user)| {
            let from = SnapshotRef { dataset: of.unwrap_or_else(|| dataset.clone()), name };
            let branch_user = props(&[("com.zed:role", "branch")]);
            Call::Restore(Restore { dataset, from, branch, user, branch_user })
        },
    );
    let file = || (any_path(), "[fg]");
    prop_oneof![
        6 => create,
        2 => prop::collection::vec(set, 0..3).prop_map(Call::Set),
        6 => prop::collection::vec(take, 0..3).prop_map(Call::Take),
        1 => prop::collection::vec(snapshot_ref(), 0..3).prop_map(Call::DestroySnapshots),
        6 => restore,
        2 => (live(), branch()).prop_map(|(dataset, branch)| Call::Retire(dataset, branch)),
        2 => (branch(), live()).prop_map(|(branch, dataset)| Call::Reinstate(branch, dataset)),
        2 => any_path().prop_map(Call::DestroyBranch),
        1 => any_path().prop_map(Call::Mount),
        6 => (file(), "[0-9]{1,3}").prop_map(|((dataset, name), text)| Call::Write(dataset, name, text)),
        1 => file().prop_map(|(dataset, name)| Call::Remove(dataset, name)),
        1 => Just(Call::Reopen),
    ]
}

impl Call {
    /// Makes a call of the trait; `None` for what is not one.
    fn on(&self, store: &dyn Store) -> Option<Result<(), StoreError>> {
        Some(match self {
            Self::Create(request) => store.create(request),
            Self::Set(changes) => store.set(changes),
            Self::Take(set) => store.snapshot(set),
            Self::DestroySnapshots(set) => store.destroy_snapshots(set),
            Self::Restore(request) => store.restore(request),
            Self::Retire(dataset, branch) => store.retire(dataset, branch),
            Self::Reinstate(branch, dataset) => store.reinstate(branch, dataset),
            Self::DestroyBranch(branch) => store.destroy_branch(branch),
            Self::Mount(dataset) => store.mount(dataset),
            Self::Write(..) | Self::Remove(..) | Self::Reopen => return None,
        })
    }
}

/// What kind of answer it was; the texts may differ.
fn answer(result: Result<(), StoreError>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(e) => format!("{:?}", e.kind).split('(').next().unwrap_or_default().to_owned(),
    }
}

type Files = BTreeMap<String, String>;

/// A store as callers see it, less numbers that may differ.
#[derive(Debug, PartialEq)]
struct View {
    datasets: Vec<(Dataset, Option<Files>)>,
    snapshots: Vec<Snapshot>,
}

fn view(store: &dyn Store, files: impl Fn(&Dataset) -> Option<Files>) -> View {
    let plain = |d: &Arc<Dataset>| {
        let mountpoint = d.mountpoint.as_ref().map(|_| PathBuf::from("somewhere"));
        (Dataset { guid: 0, referenced: 0, mountpoint, ..d.as_ref().clone() }, files(d))
    };
    // The order of snapshots is compared, the numbers that make it are not.
    let bare = |s: &Arc<Snapshot>| Snapshot { guid: 0, txg: 0, created: 0, used: 0, ..s.as_ref().clone() };
    View {
        datasets: store.list().unwrap().iter().map(plain).collect(),
        snapshots: store.snapshots(None).unwrap().iter().map(bare).collect(),
    }
}

fn run(calls: &[Call]) -> Result<(), TestCaseError> {
    let mut fixture = EmbeddedFixture::new();
    let sim = SimStore::new();
    for (at, call) in calls.iter().enumerate() {
        match call {
            Call::Reopen => fixture.reopen(),
            Call::Write(dataset, name, text) if sim.write_file(dataset, name, text.as_bytes()).is_ok() => {
                fixture.write(dataset, name, text.as_bytes());
            }
            Call::Remove(dataset, name) => {
                let mounted = sim.get(dataset).unwrap().is_some_and(|d| d.mounted);
                if mounted && sim.read_file(dataset, name).is_some() {
                    sim.remove_file(dataset, name).unwrap();
                    fixture.remove(dataset, name);
                }
            }
            _ => {}
        }
        if let (Some(real), Some(model)) = (call.on(fixture.store()), call.on(&sim)) {
            let text = real.as_ref().err().map(ToString::to_string);
            prop_assert_eq!(answer(real), answer(model), "call {}: {:?}: {:?}", at, call, text);
        }
        let of_sim = |d: &Dataset| d.mounted.then(|| sim.all_files(&d.path));
        let of_real = |d: &Dataset| d.mounted.then(|| files(d.mountpoint.as_ref().unwrap()));
        prop_assert_eq!(view(fixture.store(), of_real), view(&sim, of_sim), "after call {}: {:?}", at, call);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn embedded_store_does_as_the_model(calls in prop::collection::vec(call(), 1..60)) {
        run(&calls)?;
    }
}
