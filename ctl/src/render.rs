//! Views as text: what the files of the tree say.
//!
//! Three forms, those of cgroup v2: `key value` lines, `name k=v k=v` lines, and one value a file. Keys are
//! always there and in the same order; an absent value is `-`. Every text ends with a newline, except that a
//! list of nothing is empty.

mod gpu;

pub use gpu::*;

use crate::event::field;
use crate::time::rfc3339;
use crate::view::AppView;
use crate::view::DatasetView;
use crate::view::DeployView;
use crate::view::HealthView;
use crate::view::HostView;
use crate::view::InstanceView;
use crate::view::ReleaseView;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// `key value` lines under construction.
#[derive(Default)]
struct Flat(String);

impl Flat {
    fn line(mut self, key: &str, value: impl AsRef<str>) -> Self {
        let value = value.as_ref();
        self.0.push_str(key);
        self.0.push(' ');
        self.0.push_str(&if value.is_empty() { "-".to_owned() } else { one_line(value) });
        self.0.push('\n');
        self
    }
}

/// A value on one line: newlines and other control characters as in `\n`, and a backslash doubled, so that
/// it can be read back.
pub fn one_line(value: &str) -> String {
    let mut line = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// `-` for 0, which stands for unknown.
fn time_or_dash(seconds: i64) -> String {
    if seconds == 0 { "-".to_owned() } else { rfc3339(seconds) }
}

/// `apps/APP/status`.
pub fn render_app_status(app: &AppView) -> String {
    let pid = if app.pid == 0 { String::new() } else { app.pid.to_string() };
    let text = Flat::default()
        .line("name", &app.name)
        .line("deploy", &app.deploy)
        .line("version", &app.version)
        .line("state", &app.state)
        .line("health", &app.health)
        .line("health_since", time_or_dash(app.health_since))
        .line("health_reason", &app.health_reason)
        .line("held", &app.held)
        .line("drift", &app.drift)
        .line("error", &app.error)
        .line("generation", app.generation.to_string())
        .line("run", &app.run)
        .line("spec", &app.spec)
        .line("deployed_at", &app.deployed_at)
        .line("dataset", &app.dataset)
        .line("mountpoint", &app.mountpoint)
        .line("pid", pid)
        .line("restarts", app.restarts.to_string())
        .line("since", time_or_dash(app.since))
        .line("last_exit", &app.last_exit)
        .line("listen", &app.listen)
        .line("hosts", app.hosts.join(" "));
    let instances = app.instances.iter();
    instances
        .fold(text, |text, instance| {
            text.line(&format!("instance.{}", instance.name), instance_line(instance))
        })
        .0
}

/// `running version=1.0.0 port=8080 pid=123 restarts=0`
fn instance_line(instance: &InstanceView) -> String {
    let mut line = format!("{} version={}", instance.state, instance.version);
    for (name, value) in [("port", u32::from(instance.port)), ("pid", instance.pid)] {
        if value != 0 {
            let _ = write!(line, " {name}={value}");
        }
    }
    let _ = write!(line, " restarts={}", instance.restarts);
    line
}

/// `hosts/HOST/status`.
pub fn render_host_status(host: &HostView) -> String {
    let mut text = Flat::default()
        .line("name", &host.name)
        .line("state", &host.state)
        .line("zed_version", &host.zed_version)
        .line("store", &host.store)
        .line("available", host.available.to_string())
        .line("started_at", time_or_dash(host.started_at))
        .line("datasets", host.datasets.to_string());
    for (what, counts) in [("apps", &host.apps), ("deploys", &host.deploys)] {
        text = text.line(what, counts.values().sum::<usize>().to_string());
        for (state, count) in counts {
            text = text.line(&format!("{what}.{state}"), count.to_string());
        }
    }
    text = text.line("unhealthy", host.unhealthy.to_string());
    text = text.line("problems", host.problems.len().to_string());
    for (problem, number) in host.problems.iter().zip(1..) {
        text = text.line(&format!("problem.{number}"), problem);
    }
    text.0
}

/// `deploy/NAME.status`. The plan and the diagnostics have files of their own.
pub fn render_deploy_status(deploy: &DeployView) -> String {
    Flat::default()
        .line("name", &deploy.name)
        .line("state", &deploy.state)
        .line("verdict", &deploy.verdict)
        .line("verdict_at", &deploy.verdict_at)
        .line("step", &deploy.step)
        .line("generation", deploy.generation.to_string())
        .line("spec", &deploy.spec)
        .line("run", &deploy.run)
        .line("pending", if deploy.plan.is_empty() { "no" } else { "yes" })
        .line("errors", if deploy.errors.is_empty() { "no" } else { "yes" })
        .line("apps", deploy.apps.join(" "))
        .line("changed_at", time_or_dash(deploy.changed_at))
        .0
}

/// `apps/APP/history`: releases, oldest first, the running one last.
pub fn render_history(app: &AppView) -> String {
    app.history.iter().map(release_line).collect()
}

fn release_line(release: &ReleaseView) -> String {
    let snapshot = if release.snapshot.is_empty() { String::new() } else { format!("@{}", release.snapshot) };
    keyed(
        &release.version,
        &[
            ("kind", &release.kind),
            ("snapshot", &snapshot),
            ("generation", &release.generation.to_string()),
            ("deployed_at", &release.deployed_at),
            ("taken_at", &release.taken_at),
        ],
    )
}

/// `apps/APP/snapshots`: the snapshots that hold releases, oldest first.
pub fn render_snapshots(app: &AppView) -> String {
    let with_snapshot = app.history.iter().filter(|release| !release.snapshot.is_empty());
    with_snapshot
        .map(|release| {
            keyed(
                &format!("{}@{}", release.dataset, release.snapshot),
                &[("version", &release.version), ("kind", &release.kind), ("taken_at", &release.taken_at)],
            )
        })
        .collect()
}

/// What reading `apps/APP/rollback` gives: every target that can be written to it, best first. The first
/// word of a line is the target.
pub fn render_targets(app: &AppView) -> String {
    let mut text = String::new();
    let releases = || app.history.iter().rev().filter(|release| !release.snapshot.is_empty());
    // After a rollback the snapshot that was gone back to is still there: it holds the running release.
    let running = app.history.iter().find(|release| release.kind == "running");
    let is_running = |release: &ReleaseView| {
        let of = |release: &ReleaseView| {
            (release.generation, release.deployed_at.clone(), release.version.clone())
        };
        running.is_some_and(|running| of(running) == of(release))
    };
    if let Some(latest) = releases().find(|release| release.kind == "older" && !is_running(release)) {
        text.push_str(&target_line("@latest", latest));
    }
    // An undone release can be had by name; `undo` takes the newest of them.
    if let Some(undone) = releases().find(|release| release.kind == "undone")
        && !app.held.is_empty()
    {
        text.push_str(&target_line("undo", undone));
    }
    for release in releases() {
        text.push_str(&target_line(&format!("@{}", release.snapshot), release));
    }
    text
}

fn target_line(target: &str, release: &ReleaseView) -> String {
    keyed(
        target,
        &[
            ("version", &release.version),
            ("kind", &release.kind),
            ("deployed_at", &release.deployed_at),
            ("taken_at", &release.taken_at),
        ],
    )
}

/// `name k=v k=v`, newline-terminated.
fn keyed(name: &str, values: &[(&str, &str)]) -> String {
    let mut line = if name.is_empty() { "-".to_owned() } else { field(name) };
    for (key, value) in values {
        // Writing to a String cannot fail.
        let _ = write!(line, " {key}={}", if value.is_empty() { "-".to_owned() } else { field(value) });
    }
    line.push('\n');
    line
}

/// `hosts/HOST/facts`.
pub fn render_facts(host: &HostView) -> String {
    render_map(&host.facts)
}

/// `key value` lines of any map, in the order of its keys.
pub fn render_map(map: &BTreeMap<String, String>) -> String {
    map.iter().fold(Flat::default(), |text, (key, value)| text.line(key, value)).0
}

/// `apps/APP/env`: `KEY=value` lines, as `env(1)` prints them, each on one line. Values from elsewhere are
/// not in it.
pub fn render_env(app: &AppView) -> String {
    app.env.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key}={}", one_line(value));
        text
    })
}

/// `apps/APP/hosts`: one a line.
pub fn render_hosts(app: &AppView) -> String {
    lines(app.hosts.iter().map(String::as_str))
}

/// `hosts/HOST/apps`.
pub fn render_apps<'a>(apps: impl IntoIterator<Item = &'a AppView>) -> String {
    apps.into_iter()
        .map(|app| {
            keyed(
                &app.name,
                &[
                    ("version", &app.version),
                    ("state", &app.state),
                    ("health", &app.health),
                    ("deploy", &app.deploy),
                    ("held", if app.held.is_empty() { "no" } else { "yes" }),
                ],
            )
        })
        .collect()
}

/// `hosts/HOST/datasets`: one path a line.
pub fn render_datasets<'a>(datasets: impl IntoIterator<Item = &'a DatasetView>) -> String {
    lines(datasets.into_iter().map(|dataset| dataset.path.as_str()))
}

/// `apps/APP/health`: the app on the first line, its health being the first word; then one line a probe.
pub fn render_health(health: &HealthView) -> String {
    let since = time_or_dash(health.since);
    let mut text = keyed(&health.health, &[("since", &since), ("reason", &health.reason)]);
    for probe in &health.probes {
        text.push_str(&keyed(
            &probe.probe,
            &[
                ("instance", &probe.instance),
                ("state", &probe.state),
                ("since", &time_or_dash(probe.since)),
                ("failures", &probe.failures.to_string()),
                ("latency_us", &probe.latency_us.to_string()),
                ("checked_at", &time_or_dash(probe.checked_at)),
                ("last", &probe.last),
            ],
        ));
    }
    text
}

/// `hosts/HOST/health`, `apps/APP/version`: one value.
pub fn render_value(value: &str) -> String {
    if value.is_empty() { "-\n".to_owned() } else { format!("{}\n", one_line(value)) }
}

fn lines<'a>(items: impl Iterator<Item = &'a str>) -> String {
    items.fold(String::new(), |mut text, item| {
        text.push_str(&one_line(item));
        text.push('\n');
        text
    })
}

/// The `.json` beside a text: indented, newline-terminated. A value that JSON cannot hold (a map whose keys
/// are not text, which no view has) is told as `{"error": ...}`.
pub fn to_json<T: Serialize>(value: &T) -> String {
    match serde_json::to_string_pretty(value) {
        Ok(text) => text + "\n",
        Err(error) => format!("{{\n  \"error\": {}\n}}\n", serde_json::Value::from(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
