//! What a spec wants on this host: which datasets, which apps, and what stands in the way of all of it.

use super::Deploy;
use crate::naming::is_own;
use crate::placement::is_member;
use crate::placement::placed_here;
use crate::plan::Note;
use crate::plan::PlanInput;
use crate::plan::Severity;
use crate::props::Role;
use crate::release::values_from;
use crate::world::Seen;
use crate::world::World;
use std::collections::BTreeMap;
use zed_spec::App;
use zed_spec::AppName;
use zed_spec::Dataset;
use zed_spec::DatasetPath;
use zed_spec::DeploySpec;
use zed_spec::Limits;
use zed_spec::Runtime;
use zed_spec::ValueFrom;

/// A dataset that the spec wants here.
pub(super) struct WantedDataset<'a> {
    /// What is there; nothing when it has to be created.
    pub(super) found: Option<Seen<'a>>,
    /// What the spec says of it; nothing when it is only referred to.
    pub(super) declared: Option<&'a Dataset>,
    /// What it is for.
    pub(super) role: Role,
    /// Apps that use it, as indexes of nodes.
    pub(super) users: Vec<usize>,
}

/// Datasets by path.
pub(super) type Wanted<'a> = BTreeMap<&'a DatasetPath, WantedDataset<'a>>;

/// Apps that belong here, by name.
pub(super) fn wanted_apps<'a>(
    input: &PlanInput<'a>,
    notes: &mut Vec<Note>,
) -> BTreeMap<&'a AppName, &'a App> {
    let spec = &input.declared.spec;
    if !spec.hosts.is_empty() && !is_member(spec, input.observed) {
        let host = input.observed.host.as_ref().map_or("this host", |host| host.as_str());
        let text = format!("{host} is not one of its hosts: nothing of it belongs here");
        notes.push(note(Severity::Info, "placement", format!("deploy {}", spec.name), text));
    }
    let mut elsewhere = Vec::new();
    let mut apps = BTreeMap::new();
    for (name, app) in &spec.apps {
        if !placed_here(&app.on, spec, input.observed) {
            elsewhere.push(name.as_str());
        } else if app.when.as_ref().is_none_or(|when| when.holds(&input.observed.facts, &input.observed.env))
        {
            apps.insert(name, app);
        }
    }
    if !elsewhere.is_empty() && is_member(spec, input.observed) {
        let text = format!("placed on other hosts: {}", elsewhere.join(", "));
        notes.push(note(Severity::Info, "placement", format!("deploy {}", spec.name), text));
    }
    apps
}

/// Datasets that belong here: the declared ones and those that something refers to.
pub(super) fn wanted_datasets<'a>(spec: &'a DeploySpec, world: &World<'a>) -> Wanted<'a> {
    let observed = world.observed;
    // Both are sorted: one walk over the two instead of a search for each.
    let mut present = world.seen.iter().peekable();
    let declared = spec.datasets.iter().filter(|(_, dataset)| placed_here(&dataset.on, spec, observed));
    let mut wanted: Wanted<'a> = declared
        .map(|(path, dataset)| {
            while present.next_if(|seen| seen.path < path).is_some() {}
            let found = present.next_if(|seen| seen.path == path).copied();
            (path, WantedDataset { found, declared: Some(dataset), role: Role::Data, users: Vec::new() })
        })
        .collect();
    let jails = spec.jails.values().filter(|jail| placed_here(&jail.on, spec, observed));
    let mounted = jails.flat_map(|jail| jail.mounts.iter().map(|m| &m.dataset).chain([&jail.dataset]));
    let zones = spec.zones.values().filter(|zone| placed_here(&zone.on, spec, observed)).map(|z| &z.dataset);
    let models =
        spec.models.values().filter(|model| placed_here(&model.on, spec, observed)).map(|m| &m.dataset);
    let jobs = spec.jobs.values().filter(|job| placed_here(&job.on, spec, observed)).map(|j| &j.dataset);
    for path in mounted.chain(zones).chain(models).chain(jobs) {
        entry(&mut wanted, spec, world, path);
    }
    wanted
}

/// The dataset's entry; one that is only referred to is added.
pub(super) fn entry<'w, 'a>(
    wanted: &'w mut Wanted<'a>,
    spec: &'a DeploySpec,
    world: &World<'a>,
    path: &'a DatasetPath,
) -> &'w mut WantedDataset<'a> {
    wanted.entry(path).or_insert_with(|| WantedDataset {
        found: world.seen(path),
        declared: spec.datasets.get(path),
        role: Role::Data,
        users: Vec::new(),
    })
}

/// A note.
pub(super) fn note(severity: Severity, kind: &str, object: String, text: String) -> Note {
    Note { severity, kind: kind.to_owned(), object, text }
}

impl Deploy<'_> {
    /// Notes on the spec as a whole.
    pub(super) fn check_spec(&mut self) {
        self.check_pool();
        self.check_generation();
        self.check_own();
        self.check_capabilities();
        for (path, found) in &self.world.notes {
            let ours = self.wanted.contains_key(*path)
                || self.world.user(path).get(crate::props::name::DEPLOY).map(String::as_str)
                    == Some(self.spec.name.as_str());
            if ours {
                self.notes.push(found.clone());
            }
        }
    }

    fn check_pool(&mut self) {
        let Some(asked) = &self.spec.pool else { return };
        let object = format!("deploy {}", self.spec.name);
        match &self.input.observed.pool {
            None => {
                let text =
                    format!("`pool: \"{asked}\"` is ignored: this zedd keeps its data in the embedded store");
                self.notes.push(note(Severity::Info, "pool", object, text));
            }
            Some(pool) if pool != asked => {
                let text = format!(
                    "it asks for pool `{asked}`, this zedd works on `{pool}`: change `pool` in the spec, or start zedd \
                     with `--store zfs:{asked}`"
                );
                self.notes.push(note(Severity::Fatal, "pool", object, text));
            }
            Some(_) => {}
        }
    }

    /// An older spec never replaces a newer one.
    fn check_generation(&mut self) {
        let declared = self.input.declared.generation;
        let newest = self.world.apps_of(&self.spec.name).max_by_key(|(_, found)| found.stamp.generation);
        if let Some((app, found)) = newest
            && found.stamp.generation > declared
        {
            let text = format!(
                "generation {declared} is older than {}, from which `{}` was deployed: save the spec again",
                found.stamp.generation, found.dataset
            );
            self.notes.push(note(Severity::Fatal, "stale", format!("app {app}"), text));
        }
    }

    /// Datasets that zed itself lives in, and those of other deploys.
    fn check_own(&mut self) {
        for (path, wanted) in &self.wanted {
            if is_own(path.as_str()) {
                let text = "`zed` and everything below it belongs to zed: choose another name".to_owned();
                self.notes.push(note(Severity::Fatal, "reserved", format!("dataset {path}"), text));
                continue;
            }
            let owner = wanted.found.and_then(|found| found.deploy);
            if let Some(owner) = owner.filter(|owner| *owner != self.spec.name.as_str()) {
                let text = format!(
                    "it belongs to deploy {owner}, and deploy {} declares it, too: remove it from one of the two specs",
                    self.spec.name
                );
                self.notes.push(note(Severity::Fatal, "clash", format!("dataset {path}"), text));
            }
        }
    }

    /// Whether this host and this version have what the named capability stands for.
    fn need(&mut self, object: String, capability: &str, what: &str) {
        if self.input.observed.runtimes.contains(capability) {
            return;
        }
        let missing = match capability {
            "container" => {
                "this host has no OCI runtime that zedd can use; install runc or crun (as with `apt-get install \
                 runc`), and start zedd again, as root"
                    .to_owned()
            }
            _ => format!("this host or this version of zed has no `{capability}`; take it out of the spec"),
        };
        let text = format!("{what}: {missing}");
        self.notes.push(note(Severity::Fatal, "unsupported", object, text));
    }

    fn check_capabilities(&mut self) {
        let (spec, observed) = (self.spec, self.input.observed);
        for (name, jail) in &spec.jails {
            if placed_here(&jail.on, spec, observed) {
                self.need(format!("jail {name}"), "jail", "it is a FreeBSD jail");
            }
        }
        for (name, zone) in &spec.zones {
            if placed_here(&zone.on, spec, observed) {
                self.need(format!("zone {name}"), "zone", "it is an illumos zone");
            }
        }
        for (name, model) in &spec.models {
            if placed_here(&model.on, spec, observed) {
                self.need(format!("model {name}"), "models", "models are placed by what a GPU can hold");
            }
        }
        for (name, job) in &spec.jobs {
            if placed_here(&job.on, spec, observed) {
                self.need(format!("job {name}"), "jobs", "jobs are dispatched to GPUs");
            }
        }
        for slot in spec.secrets.keys() {
            self.need(format!("secret {slot}"), "secret", "it is a secret slot");
        }
        for replication in &spec.replicate {
            let host = observed.host.as_ref();
            if host.is_some_and(|host| replication.from == *host || replication.to.contains(host)) {
                self.need(format!("dataset {}", replication.dataset), "replicate", "it is to be replicated");
            }
        }
        if spec.rollout.is_some() && is_member(spec, observed) {
            self.need(format!("deploy {}", spec.name), "rollout", "it travels over several hosts");
        }
        for index in 0..self.nodes.len() {
            if let (name, Some(app)) = (self.nodes[index].name, self.nodes[index].app) {
                self.check_app(name, app);
            }
        }
    }

    /// Each limit is a capability of its own: a host without cgroups can still limit open files.
    fn check_limits(&mut self, object: &str, app: &App) {
        if !matches!(app.runtime, Runtime::Process | Runtime::Container { .. }) {
            if app.limits != Limits::default() {
                self.need(object.to_owned(), "limits", "it has limits");
            }
            return;
        }
        let Limits { memory, cpus, pids, nofile } = &app.limits;
        let named = [
            (memory.is_some(), "limits.memory", "its memory is limited"),
            (cpus.is_some(), "limits.cpus", "its CPUs are limited"),
            (pids.is_some(), "limits.pids", "its processes are limited"),
            (nofile.is_some(), "limits.nofile", "its open files are limited"),
        ];
        for (_, capability, what) in named.into_iter().filter(|(is_set, ..)| *is_set) {
            self.need(object.to_owned(), capability, what);
        }
    }

    fn check_app(&mut self, name: &AppName, app: &App) {
        let object = || format!("app {name}");
        let (capability, what) = match &app.runtime {
            Runtime::Process => ("process", "it runs as a process"),
            Runtime::Jail(_) => ("jail", "it runs in a jail"),
            Runtime::Zone(_) => ("zone", "it runs in a zone"),
            Runtime::Container { .. } => ("container", "it runs in a container"),
        };
        if app.runtime != Runtime::Process || crate::release::has_process(app) {
            self.need(object(), capability, what);
        }
        self.check_limits(&object(), app);
        if let Some((variable, _)) = values_from(app).find(|(_, from)| matches!(from, ValueFrom::Secret(_))) {
            self.need(object(), "secret", &format!("`{variable}` comes from a secret slot"));
        }
    }
}
