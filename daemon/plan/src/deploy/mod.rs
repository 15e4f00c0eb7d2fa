//! The plan of a deploy: what a spec wants, against what is there.
//!
//! Owns the order of things: remove before add, stop before snapshot, snapshot before change, dependencies before
//! dependents, probe before commit, stamp at commit, prune after it. Decides nothing at execution time.

mod build;
mod commit;
mod datasets;
mod decide;
mod drift;
mod folders;
mod group;
mod guests;
mod hold;
mod judge;
mod select;
mod start;
mod upgrade;

pub(crate) use datasets::SIZES;
pub(crate) use decide::missing_text;
pub(crate) use decide::short;
pub use drift::DRIFT;
pub use drift::LOST;
pub use drift::datasets_of_deploy;
pub(crate) use hold::hold_guests;

use crate::based_on::based_on;
use crate::observed::Observed;
use crate::plan::Note;
use crate::plan::PLAN_FORMAT;
use crate::plan::Plan;
use crate::plan::PlanInput;
use crate::plan::Purpose;
use crate::plan::Release;
use crate::plan::RunId;
use crate::props::Role;
use crate::release::host_of;
use crate::world::Located;
use crate::world::World;
use select::Wanted;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use zed_spec::App;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::DeploySpec;
use zed_spec::HostName;

/// What happens to an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Nothing.
    Leave,
    /// It is started: nothing else about it changed.
    Start,
    /// Stopped and started because a neighbour on its dataset is deployed.
    Bounce,
    /// Recorded, probed and stamped; its process goes on.
    Record,
    /// The whole way.
    Deploy,
    /// Stopped and released.
    Remove,
}

/// How a deploy gets from the old version to the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Stop the old one, then start the new one. A failure puts the data back, too.
    Replace,
    /// Both run: the new one as this process. Data is not put back by a failure, because the old one uses it.
    BlueGreen { new: u32, drain: Duration },
    /// Some processes at a time; after the first batch, and after each, the new ones are watched.
    Batches { size: u32, first_watch: Duration, watch: Duration },
}

/// The app as it should run.
struct Effective<'a> {
    app: &'a App,
    run_hash: String,
    spec_hash: String,
    /// Digest of its artifact.
    digest: Option<String>,
    /// The release folder that it runs in.
    folder: Option<String>,
}

/// One app: wanted, or stamped by this deploy, or both.
struct Node<'a> {
    name: &'a AppName,
    /// What the spec says; nothing when it is to be removed.
    app: Option<&'a App>,
    /// Its stamp.
    located: Option<&'a Located<'a>>,
    action: Action,
    why: String,
    effective: Option<Effective<'a>>,
    /// How it is deployed.
    way: Way,
    /// The processes that it has afterwards.
    numbers: Vec<u32>,
    /// Those of them that are not as they should be.
    wrong: BTreeSet<u32>,
    /// Its link `current` has to be put right.
    relink: bool,
    /// Its front has to be told where to forward to.
    reroute: bool,
    /// Written while decisions are made.
    notes: RefCell<Vec<Note>>,
}

/// Everything that the parts of the planner share.
struct Deploy<'a> {
    input: &'a PlanInput<'a>,
    spec: &'a DeploySpec,
    world: &'a World<'a>,
    host: HostName,
    wanted: Wanted<'a>,
    nodes: Vec<Node<'a>>,
    guests: Vec<guests::Guest>,
    notes: Vec<Note>,
}

/// Plans a deploy. The same inputs give the same plan; a plan with fatal notes must not be executed.
pub fn plan_deploy(input: &PlanInput<'_>) -> Plan {
    let spec = &input.declared.spec;
    let world = World::read(input.observed, |app| spec.apps.get(app).map(|app| &app.dataset));
    let mut notes = Vec::new();
    let apps = select::wanted_apps(input, &mut notes);
    let mut wanted = select::wanted_datasets(spec, &world);
    let mut nodes: Vec<Node<'_>> =
        apps.into_iter().map(|(name, app)| Node::new(name, Some(app), world.apps.get(name))).collect();
    for (index, node) in nodes.iter().enumerate() {
        let Some(app) = node.app else { continue };
        for path in &app.data {
            select::entry(&mut wanted, spec, &world, path).users.push(index);
        }
        let home = select::entry(&mut wanted, spec, &world, &app.dataset);
        home.role = Role::App;
        home.users.push(index);
    }
    let here = nodes.len();
    for (name, found) in world.apps_of(&spec.name) {
        if nodes[..here].binary_search_by(|node| node.name.cmp(name)).is_err() {
            nodes.push(Node::new(name, None, Some(found)));
        }
    }
    plan(input, &world, wanted, nodes, notes)
}

fn plan<'a>(
    input: &'a PlanInput<'a>,
    world: &'a World<'a>,
    wanted: Wanted<'a>,
    nodes: Vec<Node<'a>>,
    notes: Vec<Note>,
) -> Plan {
    let declared = input.declared;
    let host = host_of(input.observed);
    let guests = Vec::new();
    let mut deploy = Deploy { input, spec: &declared.spec, world, host, wanted, nodes, guests, notes };
    deploy.guests = deploy.wanted_guests();
    deploy.check_spec();
    deploy.decide();
    deploy.decide_guests();
    let units = deploy.build();
    let apps = deploy.nodes.iter().map(|node| node.name);
    let datasets =
        deploy.wanted.iter().map(|(path, wanted)| (*path, wanted.found.map(|found| found.dataset)));
    let based_on = based_on(world, datasets, &deploy.no_longer_declared(), apps, &deploy.guest_ids());
    Plan {
        format: PLAN_FORMAT,
        run: input.run.clone(),
        purpose: Purpose::Deploy,
        deploy: declared.spec.name.clone(),
        generation: declared.generation,
        spec_sha256: declared.sha256.clone(),
        made_at: input.now,
        based_on,
        units,
        notes: deploy.notes,
    }
}

impl<'a> Node<'a> {
    fn new(name: &'a AppName, app: Option<&'a App>, located: Option<&'a Located<'a>>) -> Self {
        Self {
            name,
            app,
            located,
            action: Action::Leave,
            why: String::new(),
            effective: None,
            way: Way::Replace,
            numbers: Vec::new(),
            wrong: BTreeSet::new(),
            relink: false,
            reroute: false,
            notes: RefCell::default(),
        }
    }
}

/// What [`plan_undeclare`] is told.
#[derive(Debug, Clone)]
pub struct UndeclareInput<'a> {
    /// The deploy that went away.
    pub deploy: &'a DeployName,
    /// Generation of its last spec.
    pub generation: u64,
    /// The world.
    pub observed: &'a Observed,
    /// Known releases.
    pub releases: &'a BTreeMap<String, Release>,
    /// This run.
    pub run: &'a RunId,
    /// Seconds since 1970.
    pub now: i64,
}

/// Plans the end of a deploy: its apps are stopped, its datasets are released and kept.
pub fn plan_undeclare(input: &UndeclareInput<'_>) -> Plan {
    // Nothing is wanted any more, and retention has nothing to say.
    let snapshots = zed_spec::SnapshotPolicy { before_deploy: true, keep: u32::MAX };
    let spec = DeploySpec { snapshots, ..DeploySpec::empty(input.deploy.clone()) };
    let declared = crate::plan::Declared { spec, generation: input.generation, sha256: String::new() };
    let deploy = PlanInput {
        declared: &declared,
        observed: input.observed,
        releases: input.releases,
        run: input.run,
        now: input.now,
        heal: false,
        known: None,
        recreate: false,
    };
    let mut plan = plan_deploy(&deploy);
    plan.purpose = Purpose::Undeclare;
    plan
}

/// The datasets of an app: its own and its data.
fn datasets_of(app: &App) -> impl Iterator<Item = &DatasetPath> {
    std::iter::once(&app.dataset).chain(&app.data)
}

#[cfg(test)]
mod tests;
