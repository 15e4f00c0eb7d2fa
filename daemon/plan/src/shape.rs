//! The processes that an app is made of: how many there are, where each listens, and how each is probed.
//!
//! Owns the rule for ports: a process that is not the first one listens where the first one would, counted on; the
//! two of a blue-green app listen on the strategy's ports. A probe of the first one's port follows. Pure.

use crate::instance::Instance;
use crate::observed::Observed;
use crate::plan::Release;
use crate::plan::Route;
use crate::plan::RunSpec;
use crate::plan::Step;
use crate::props::AppStamp;
use std::collections::BTreeMap;
use std::time::Duration;
use zed_spec::App;
use zed_spec::AppName;
use zed_spec::Health;
use zed_spec::Hooks;
use zed_spec::Probe;
use zed_spec::Restart;
use zed_spec::Strategy;

/// The variable that says where an app listens.
const PORT: &str = "PORT";
/// TERM to KILL for a front: what it forwards is drained before.
const FRONT_GRACE: Duration = Duration::from_secs(1);

/// True when two versions of the app may serve side by side, each on a port of its own.
pub(crate) fn is_blue_green(app: &App) -> bool {
    matches!(app.strategy, Strategy::BlueGreen { .. }) && app.restart != Restart::Never
}

/// The processes that an app is to have. `stamp` says which of the two serves, and how many an operator wants.
pub fn numbers(app: &App, stamp: Option<&AppStamp>) -> Vec<u32> {
    if is_blue_green(app) {
        return vec![stamp.and_then(|stamp| stamp.live).unwrap_or(1)];
    }
    let count = stamp.and_then(|stamp| stamp.scale).unwrap_or(app.instances);
    (1..=count.max(1)).collect()
}

/// Where a process listens, as far as the spec says.
pub fn port_of(app: &App, number: u32) -> Option<u16> {
    if is_blue_green(app)
        && let Strategy::BlueGreen { ports: (first, second), .. } = app.strategy
    {
        return Some(if number == 2 { second } else { first });
    }
    let first: u16 = app.env.get(PORT)?.parse().ok()?;
    first.checked_add(u16::try_from(number.saturating_sub(1)).ok()?)
}

/// The variables of a process that differ from those of the first one.
pub(crate) fn own_env(app: &App, number: u32) -> Option<(String, String)> {
    let port = port_of(app, number)?;
    Some((PORT.to_owned(), port.to_string()))
}

/// A step that runs one of an app's hooks.
pub(crate) fn hook(kind: &str, command: &[String], run: RunSpec, hooks: &Hooks) -> Step {
    let (kind, command) = (kind.to_owned(), command.to_owned());
    Step::Hook { kind, command, run: Box::new(run), timeout: hooks.timeout }
}

/// The probes of one process: those that ask the first one's port ask its own.
pub fn health_of(app: &App, number: u32) -> Health {
    let mut health = app.health.clone();
    let Some(own) = port_of(app, number) else { return health };
    // A blue-green spec may name either port.
    let last = if is_blue_green(app) { 2 } else { 1 };
    let theirs: Vec<u16> = (1..=last).filter_map(|number| port_of(app, number)).collect();
    for probe in &mut health.probes {
        let text = match probe {
            Probe::Http { url, .. } => url,
            Probe::Tcp { address } => address,
            Probe::Exec { .. } | Probe::BeamPing => continue,
        };
        if let Some(moved) = with_port(text, &theirs, own) {
            *text = moved;
        }
    }
    health
}

/// The address or URL with another port, when its port is one of `from`.
fn with_port(text: &str, from: &[u16], to: u16) -> Option<String> {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    let colon = start + text[start..end].rfind(':')?;
    let port: u16 = text[colon + 1..end].parse().ok()?;
    from.contains(&port).then(|| format!("{}:{to}{}", &text[..colon], &text[end..]))
}

/// Where the app's front forwards to when these processes serve; nothing when it has no front.
pub(crate) fn route_of(name: &AppName, app: &App, numbers: impl IntoIterator<Item = u32>) -> Option<Route> {
    let listen = app.listen.filter(|_| app.restart != Restart::Never)?;
    let backends: BTreeMap<Instance, u16> = numbers
        .into_iter()
        .filter_map(|number| Some((Instance::new(name, number), port_of(app, number)?)))
        .collect();
    Some(Route { app: name.clone(), listen, backends, user: app.user.clone() })
}

/// True when the app's front runs.
pub(crate) fn has_front(app: &AppName, observed: &Observed) -> bool {
    observed.process(app, 0).is_some_and(|front| front.status.is_alive())
}

/// Where the front of a deployed app forwards to now: to those of its processes that live. Nothing when it does not
/// run, or when none of them does.
pub(crate) fn route_now(release: &Release, stamp: &AppStamp, observed: &Observed) -> Option<Route> {
    let (app, definition) = (&release.app, &release.definition);
    let alive = observed.alive(app);
    let serving = numbers(definition, Some(stamp)).into_iter().filter(|number| alive.contains(number));
    let route = route_of(app, definition, serving).filter(|route| !route.backends.is_empty());
    route.filter(|_| has_front(app, observed))
}

/// Ends a front.
pub(crate) fn stop_front(app: &AppName) -> Step {
    Step::StopApp { instance: Instance::front(app), grace: FRONT_GRACE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(fields: &str) -> App {
        let text = format!(
            "Deploy(datasets: {{\"a\": ()}}, apps: {{\"a\": (dataset: \"a\", version: \"1\", command: [\"x\"], {fields})}})"
        );
        crate::testing::parse("t", &text).apps.into_values().next().unwrap()
    }

    #[test]
    fn each_process_has_its_port_and_its_probes() {
        let probes = "health: (probes: [Http(\"http://127.0.0.1:8080/up?x=:8080\"), Tcp(\"[::1]:8080\"), \
                      Tcp(\"127.0.0.1:5432\"), Http(\"http://127.0.0.1/\")])";
        let many = app(&format!("env: {{\"PORT\": \"8080\"}}, instances: 3, {probes}"));
        let pair =
            app(&format!("env: {{\"PORT\": \"1\"}}, strategy: BlueGreen(ports: (8080, 9090)), {probes}"));
        let none = app(&format!("instances: 3, {probes}"));
        for (app, number, port) in [
            (&many, 1, Some(8080)),
            (&many, 3, Some(8082)),
            (&pair, 1, Some(8080)),
            (&pair, 2, Some(9090)),
            (&none, 2, None),
        ] {
            assert_eq!(port_of(app, number), port, "{number}");
            let shown = port.unwrap_or(8080);
            let expect = [
                format!("http://127.0.0.1:{shown}/up?x=:8080"),
                format!("[::1]:{shown}"),
                "127.0.0.1:5432".to_owned(),
                "http://127.0.0.1/".to_owned(),
            ];
            let health = health_of(app, number);
            let found: Vec<&String> = health
                .probes
                .iter()
                .map(|probe| match probe {
                    Probe::Http { url, .. } => url,
                    Probe::Tcp { address } => address,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(found, expect.iter().collect::<Vec<_>>(), "{number}");
        }
        assert_eq!(numbers(&many, None), [1, 2, 3]);
        assert_eq!(numbers(&pair, None), [1]);
    }
}
