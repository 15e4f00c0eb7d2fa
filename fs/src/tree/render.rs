//! What the files that show the world say, and how big they are, from one snapshot of it.
//!
//! Pure: a text is a function of the world, the error texts and the meters. Reading changes nothing.

use super::node::AppFile;
use super::node::HostFile;
use super::node::Node;
use super::node::RootFile;
use super::node::ViewFile;
use crate::SpecDir;
use std::collections::BTreeMap;
use std::sync::Arc;
use zed_ctl::DatasetView;
use zed_ctl::DeployView;
use zed_ctl::FileKind;
use zed_ctl::World;

/// The views of one folder of specs.
pub(super) fn views(world: &World, dir: SpecDir) -> &BTreeMap<String, Arc<DeployView>> {
    match dir {
        SpecDir::Deploy => &world.deploys,
        SpecDir::Plan => &world.plans,
    }
}

/// The text of a file that shows only the world; nothing for other files and for what does not exist.
pub(super) fn world_text(world: &World, node: &Node) -> Option<String> {
    match node {
        Node::RootFile(RootFile::Help) => Some(zed_ctl::help_text()),
        Node::RootFile(RootFile::Version) => Some(zed_ctl::render_value(&world.host.zed_version)),
        Node::RootFile(RootFile::Ctl) => Some(zed_ctl::usage(FileKind::RootCtl)),
        Node::AppFile(app, file) => app_text(world, app, *file),
        Node::HostFile(host, file) => host_text(world, host, *file),
        Node::Property(path, name) => {
            let value = world.datasets.get(&**path)?.properties.get(&**name)?;
            Some(zed_ctl::render_value(value))
        }
        Node::View(dir, name, view) => {
            let deploy = views(world, *dir).get(&**name);
            match deploy {
                Some(deploy) => Some(view_text(deploy, *view)),
                None => Some(view_text(&fresh(name), *view)),
            }
        }
        _ => None,
    }
}

/// A deploy that was saved and that the daemon has not looked at yet.
fn fresh(name: &str) -> DeployView {
    DeployView { name: name.to_owned(), state: "accepted".to_owned(), ..DeployView::default() }
}

fn app_text(world: &World, app: &str, file: AppFile) -> Option<String> {
    let app = world.apps.get(app)?;
    match file {
        AppFile::Ctl => Some(zed_ctl::usage(FileKind::AppCtl)),
        AppFile::Status => Some(zed_ctl::render_app_status(app)),
        AppFile::StatusJson => Some(zed_ctl::to_json(&**app)),
        AppFile::Version => Some(zed_ctl::render_value(&app.version)),
        AppFile::Rollback => Some(zed_ctl::render_targets(app)),
        AppFile::Snapshots => Some(zed_ctl::render_snapshots(app)),
        AppFile::History => Some(zed_ctl::render_history(app)),
        AppFile::Metrics => Some(zed_ctl::render_app_metrics(app)),
        AppFile::Env => Some(zed_ctl::render_env(app)),
        AppFile::Hosts => Some(zed_ctl::render_hosts(app)),
        AppFile::Health
        | AppFile::HealthJson
        | AppFile::Events
        | AppFile::Log
        | AppFile::Log1
        | AppFile::Log2
        | AppFile::Log3
        | AppFile::Crash
        | AppFile::CrashJson
        | AppFile::Error => None,
    }
}

fn host_text(world: &World, host: &str, file: HostFile) -> Option<String> {
    if world.host.name != host {
        return None;
    }
    let here = &world.host;
    match file {
        HostFile::Status => Some(zed_ctl::render_host_status(here)),
        HostFile::StatusJson => Some(zed_ctl::to_json(&**here)),
        HostFile::Facts => Some(zed_ctl::render_facts(here)),
        HostFile::FactsJson => Some(zed_ctl::to_json(&here.facts)),
        HostFile::Apps => Some(zed_ctl::render_apps(world.apps.values().map(|app| &**app))),
        HostFile::Datasets => Some(zed_ctl::render_datasets(world.datasets.values().map(|set| &**set))),
        HostFile::Ctl => Some(zed_ctl::usage(FileKind::HostCtl)),
        HostFile::Health => Some(zed_ctl::render_value(&here.state)),
        HostFile::Import | HostFile::Error => None,
    }
}

fn view_text(deploy: &DeployView, view: ViewFile) -> String {
    match view {
        ViewFile::Status => zed_ctl::render_deploy_status(deploy),
        ViewFile::StatusJson => zed_ctl::to_json(deploy),
        ViewFile::Plan => terminated(&deploy.plan),
        ViewFile::PlanJson => terminated(&deploy.plan_json),
        ViewFile::Errors => terminated(&deploy.errors),
        ViewFile::Wait => terminated(&deploy.verdict),
    }
}

/// With one newline at its end; nothing stays nothing.
pub(super) fn terminated(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// The size of a text that is cheaper to measure than to make.
pub(super) fn quick_size(world: &World, node: &Node) -> Option<u64> {
    let Node::Property(path, name) = node else { return None };
    let value = world.datasets.get(&**path)?.properties.get(&**name)?;
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    plain.then_some(value.len() as u64 + 1)
}

/// Names below a dataset or a folder on the way to one: child folders, then property files.
pub(super) fn dataset_children(world: &World, path: &str) -> (Vec<String>, Vec<(String, String)>) {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let mut folders: Vec<String> = Vec::new();
    let mut start = prefix.clone();
    // One step of this loop is one child: its own descendants are jumped over.
    while let Some((key, _)) = world.datasets.range(start..).next() {
        let Some(rest) = key.strip_prefix(&prefix) else { break };
        let child = rest.split('/').next().unwrap_or(rest);
        if !child.is_empty() {
            folders.push(child.to_owned());
        }
        start = next_after(&prefix, child, key);
    }
    folders.sort_unstable();
    folders.dedup();
    let properties = world.datasets.get(path).map(|set| property_names(set, &folders)).unwrap_or_default();
    (folders, properties)
}

/// Where to go on after `child`: past its descendants when `key` is one of them, else past the child itself.
fn next_after(prefix: &str, child: &str, key: &str) -> String {
    if key.len() > prefix.len() + child.len() {
        // '0' is the character after '/'.
        format!("{prefix}{child}0")
    } else {
        format!("{key}\0")
    }
}

/// File name and property of each property: one that is called like a child folder gets `.value`.
fn property_names(set: &DatasetView, folders: &[String]) -> Vec<(String, String)> {
    let names = set.properties.keys().filter(|name| !name.contains('/') && !name.is_empty());
    names
        .map(|name| match folders.binary_search(name) {
            Ok(_) => (format!("{name}.value"), name.clone()),
            Err(_) => (name.clone(), name.clone()),
        })
        .collect()
}

/// True when the world has a dataset at or below the path.
pub(super) fn dataset_exists(world: &World, path: &str) -> bool {
    if path.is_empty() || world.datasets.contains_key(path) {
        return true;
    }
    let below = format!("{path}/");
    world.datasets.range(below.clone()..).next().is_some_and(|(key, _)| key.starts_with(&below))
}
