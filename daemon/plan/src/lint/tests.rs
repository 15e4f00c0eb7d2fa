//! Each check is shown by breaking a clean plan in one way.

use super::*;
use crate::instance::Instance;
use crate::plan::PlannedStep;
use crate::testing::*;

/// A plan that replaces hello 1.0.0, in a world with one snapshot.
fn clean() -> (Plan, Observed) {
    let mut world = TestWorld::new();
    for version in ["0.8.0", "0.9.0"] {
        world.converge("hello", &example("hello").replace("1.0.0", version));
    }
    let plan = world.deploy("hello", &example("hello"));
    assert_eq!(lint(&plan, &world.observed), []);
    (plan, world.observed)
}

fn kinds(plan: &Plan, observed: &Observed) -> Vec<String> {
    let mut kinds: Vec<String> = lint(plan, observed).into_iter().map(|note| note.kind).collect();
    kinds.dedup();
    kinds
}

fn at(plan: &Plan, name: &str) -> usize {
    plan.units[0].steps.iter().position(|s| step_name(&s.step) == name).unwrap()
}

fn step(step: Step) -> PlannedStep {
    PlannedStep { step, undo: Vec::new(), why: String::new() }
}

type Break = fn(&mut Plan, &mut Observed);

/// What is broken, the kind of the note, and how it is broken.
const BREAKS: &[(&str, &str, Break)] = &[
    ("a start without undo", "undo", |plan, _| {
        let at = at(plan, "StartApp");
        plan.units[0].steps[at].undo.clear();
    }),
    ("an undo after the commit", "undo", |plan, _| {
        let last = plan.units[0].steps.last_mut().unwrap();
        last.undo.push(Step::DestroyBranch { branch: path("zed/branches/x-1") });
    }),
    ("a restore to a snapshot that is not there", "restore", |plan, _| {
        let at = at(plan, "Snapshot");
        plan.units[0].steps.remove(at);
        plan.units[0].commit_at -= 1;
    }),
    ("a restore taken back to nothing", "restore", |plan, _| {
        let at = at(plan, "StartApp");
        let undo = &mut plan.units[0].steps[at].undo;
        let restore = undo.iter().find(|s| step_name(s) == "Restore").unwrap().clone();
        undo.push(Step::UndoRestore {
            restore: Box::new(restore),
            dataset: path("apps/hello"),
            branch: path("zed/branches/b-1"),
            snapshot: "never".into(),
            aside: path("zed/branches/a-1"),
            user: BTreeMap::new(),
            aside_user: BTreeMap::new(),
        });
    }),
    ("a branch that is destroyed and not ours", "destroy", |plan, observed| {
        observed.datasets.insert(path("zed/branches/theirs-1"), crate::ObservedDataset::default());
        plan.units[0].steps.push(step(Step::DestroyBranch { branch: path("zed/branches/theirs-1") }));
    }),
    ("a dataset that is destroyed as if it were a branch", "destroy", |plan, _| {
        plan.units[0].steps.push(step(Step::DestroyBranch { branch: path("apps/hello") }));
    }),
    ("a snapshot that zed did not take", "destroy", |plan, observed| {
        let list = observed.snapshots.get_mut("apps/hello").unwrap();
        list[0].user.clear();
        let set = vec![(path("apps/hello"), list[0].name.clone())];
        plan.units[0].steps.push(step(Step::DestroySnapshots { set }));
    }),
    ("a dataset that is retired and was there before", "destroy", |plan, _| {
        let retire = Step::Retire { dataset: path("apps/hello"), branch: path("zed/branches/r-1") };
        plan.units[0].steps[0].undo.push(retire);
    }),
    ("one branch of two datasets", "branch", |plan, _| {
        let at = at(plan, "StartApp");
        let undo = &mut plan.units[0].steps[at].undo;
        let mut twice = undo.iter().find(|s| step_name(s) == "Restore").unwrap().clone();
        if let Step::Restore { dataset, .. } = &mut twice {
            *dataset = path("apps");
        }
        undo.push(twice);
    }),
    ("a branch that is there already", "branch", |plan, observed| {
        let branch = crate::naming::branch_path(&path("apps/hello"), &plan.run, "");
        observed.datasets.insert(branch, crate::ObservedDataset::default());
    }),
    ("a branch elsewhere", "branch", |plan, _| {
        let at = at(plan, "StartApp");
        for undo in &mut plan.units[0].steps[at].undo {
            if let Step::Restore { branch, .. } = undo {
                *branch = path("apps/branch");
            }
        }
    }),
    ("a snapshot taken twice", "name", |plan, _| {
        let at = at(plan, "Snapshot");
        let twice = plan.units[0].steps[at].clone();
        plan.units[0].steps.insert(at, twice);
        plan.units[0].commit_at += 1;
    }),
    ("a snapshot's name that ZFS does not take", "name", |plan, _| {
        let at = at(plan, "Snapshot");
        if let Step::Snapshot { set, .. } = &mut plan.units[0].steps[at].step {
            let user = set.pop_first().unwrap().1;
            set.insert(path(&"x".repeat(150)), user.clone());
            set.insert(path("apps/hello"), user);
        }
        let run = crate::RunId("r".repeat(60));
        let name = crate::naming::snapshot_name(0, &run, Some(&"9".repeat(80)));
        if let Step::Snapshot { name: present, .. } = &mut plan.units[0].steps[at].step {
            *present = name.clone();
        }
        for step in &mut plan.units[0].steps {
            for undo in &mut step.undo {
                if let Step::Restore { snapshot, .. } = undo {
                    snapshot.clone_from(&name);
                }
            }
        }
    }),
    ("an app that is stopped after another was started", "order", |plan, _| {
        let at = at(plan, "StartApp") + 1;
        let stop =
            Step::StopApp { instance: Instance::first(&app("other")), grace: std::time::Duration::ZERO };
        plan.units[0].steps.insert(at, step(stop));
        plan.units[0].commit_at += 1;
    }),
    ("a unit that waits for one that is not there", "after", |plan, _| {
        plan.units[0].after.push("datasets".into());
    }),
    ("a unit that waits for itself", "after", |plan, _| {
        let name = plan.units[0].name.clone();
        plan.units[0].after.push(name);
    }),
    ("two units of one name", "unit", |plan, _| {
        let mut twice = plan.units[0].clone();
        twice.steps.clear();
        twice.commit_at = 0;
        plan.units.push(twice);
    }),
    ("a commit beyond the end", "unit", |plan, _| {
        plan.units[0].commit_at = 99;
        plan.units[0].steps.retain(|s| s.why != "commit");
        plan.units[0].steps.clear();
    }),
    ("a start that nothing stamps", "commit", |plan, _| {
        plan.units[0].steps.retain(|s| s.why != "commit");
    }),
    ("a stamp before the commit", "commit", |plan, _| {
        plan.units[0].commit_at = plan.units[0].steps.len();
    }),
    ("a value that ZFS does not take", "value", |plan, _| {
        let last = plan.units[0].steps.iter_mut().find(|s| s.why == "commit").unwrap();
        if let Step::SetProps { changes } = &mut last.step {
            changes[0].user.insert("com.zed:version".into(), Some("9".repeat(8192)));
        }
    }),
    ("a dataset that is created and there", "create", |plan, _| {
        let step_ =
            Step::CreateDataset { path: path("apps/hello"), native: BTreeMap::new(), user: BTreeMap::new() };
        plan.units[0].steps.insert(0, step(step_));
        plan.units[0].commit_at += 1;
    }),
];

#[test]
fn each_check_sees_its_break() {
    for (what, kind, change) in BREAKS {
        let (mut plan, mut observed) = clean();
        change(&mut plan, &mut observed);
        assert_eq!(kinds(&plan, &observed), [*kind], "{what}: {:?}", lint(&plan, &observed));
    }
}
