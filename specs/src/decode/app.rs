//! Apps: their fields, probes, hooks, strategies and conditions.

use super::Cx;
use super::check;
use super::place;
use super::references::Kind;
use super::shape::Fields;
use super::shape::Variant;
use super::shape::boolean;
use super::shape::list;
use super::shape::map;
use super::shape::mismatch;
use super::shape::set;
use super::shape::text;
use super::shape::variant;
use super::shape::whole;
use super::shape::whole32;
use crate::ast::App;
use crate::ast::Artifact;
use crate::ast::Backoff;
use crate::ast::Condition;
use crate::ast::Health;
use crate::ast::Hooks;
use crate::ast::Limits;
use crate::ast::Network;
use crate::ast::Placement;
use crate::ast::Probe;
use crate::ast::Restart;
use crate::ast::Runtime;
use crate::ast::Strategy;
use crate::diagnostics::quoted;
use crate::listen::Listen;
use crate::names::AppName;
use crate::names::DatasetPath;
use crate::names::JailName;
use crate::names::ZoneName;
use crate::syntax;
use crate::syntax::Node;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many instances an app may have. More are a typing mistake, a port number for instance.
pub const MAX_INSTANCES: u32 = 1024;

const MS: Duration = Duration::from_millis(1);

pub(super) fn app(cx: &mut Cx<'_>, name: Option<&AppName>, node: &Node<'_>) -> Option<App> {
    let mut f = Fields::open(cx, node, "App", "an app")?;
    let dataset = f.req(cx, "dataset", dataset_reference);
    let data = f.or(cx, "data", Vec::new(), |cx, node| set(cx, node, dataset_reference));
    let version = f.req(cx, "version", check::version);
    let command = f.or(cx, "command", Vec::new(), place::command);
    let artifact = f.opt(cx, "artifact", artifact);
    let env = f.or(cx, "env", BTreeMap::new(), place::env);
    let env_from = f.or(cx, "env_from", BTreeMap::new(), |cx, node| {
        map(cx, node, "variable", check::env_name, |cx, _, value| place::value_from(cx, value))
    });
    let user = f.opt(cx, "user", check::word);
    let group = f.opt(cx, "group", check::word);
    let limits = f.or(cx, "limits", Limits::default(), place::limits);
    let runtime = f.or(cx, "runtime", Runtime::Process, runtime);
    let node_name = f.opt(cx, "node_name", node_name);
    let cookie = f.opt(cx, "cookie", place::value_from);
    let health = f.or(cx, "health", Health::default(), health);
    let restart = f.or(cx, "restart", Restart::default(), restart);
    let stop_grace =
        f.or(cx, "stop_grace", App::DEFAULT_STOP_GRACE, |cx, node| check::duration(cx, node, Duration::ZERO));
    let depends_on = f.or(cx, "depends_on", Vec::new(), |cx, node| {
        set(cx, node, |cx, node| {
            let to = check::name(cx, node, AppName::parse)?;
            depend(cx, Kind::App, name.map(AppName::as_str), to.as_str(), node);
            Some(to)
        })
    });
    let hooks = f.or(cx, "hooks", Hooks::default(), hooks);
    let strategy = f.or(cx, "strategy", Strategy::Replace, strategy);
    let instances = f.or(cx, "instances", 1, |cx, node| whole32(cx, node, 1, MAX_INSTANCES));
    let listen = f.opt(cx, "listen", listen);
    let when = f.opt(cx, "when", condition);
    let on = f.or(cx, "on", Placement::All, place::placement);
    let places = [f.span_of("env_from"), f.span_of("data"), f.span_of("strategy"), f.span_of("listen")];
    f.finish(cx);
    let app = App {
        dataset: dataset?,
        data: data?,
        version: version?,
        command: command?,
        artifact: artifact?,
        env: env?,
        env_from: env_from?,
        user: user?,
        group: group?,
        limits: limits?,
        runtime: runtime?,
        node_name: node_name?,
        cookie: cookie?,
        health: health?,
        restart: restart?,
        stop_grace: stop_grace?,
        depends_on: depends_on?,
        hooks: hooks?,
        strategy: strategy?,
        instances: instances?,
        listen: listen?,
        when: when?,
        on: on?,
    };
    check_app(cx, &app, places);
    Some(app)
}

/// What must hold between an app's fields; `places` are those of `env_from`, `data`, `strategy` and
/// `listen`.
fn check_app(cx: &mut Cx<'_>, app: &App, places: [syntax::Span; 4]) {
    let [env_from, data, strategy, listen] = places;
    for name in app.env_from.keys().filter(|name| app.env.contains_key(*name)) {
        cx.error_hint(
            env_from,
            format!("the variable {} is in both `env` and `env_from`", quoted(name)),
            "remove one of the two",
        );
    }
    if app.data.contains(&app.dataset) {
        cx.error_hint(
            data,
            format!("`data` repeats the app's own dataset `{}`", app.dataset),
            "the app's own dataset is always snapshotted and rolled back with it",
        );
    }
    if let Strategy::Canary { instances, .. } = app.strategy
        && instances > app.instances
    {
        cx.error_hint(
            strategy,
            format!("the canary has {instances} instances and the app only {}", app.instances),
            "raise the app's `instances`, or lower the canary's",
        );
    }
    if let Strategy::BlueGreen { .. } = app.strategy
        && app.instances > 1
    {
        cx.error_hint(
            strategy,
            format!(
                "a blue-green app has two processes of its own, and `instances` asks for {}",
                app.instances
            ),
            "leave `instances` out, or upgrade several with `Rolling`",
        );
    }
    if !matches!(app.strategy, Strategy::BlueGreen { .. }) {
        check_ports(cx, app, listen);
    }
    if let (Some(at), Strategy::BlueGreen { ports: (blue, green), .. }) = (&app.listen, &app.strategy)
        && [*blue, *green].contains(&at.address.port())
    {
        cx.error_hint(
            listen,
            format!("`listen` and the strategy have the same port {}", at.address.port()),
            "clients connect to `listen`, and zed forwards to the strategy's two ports: it must be a third",
        );
    }
}

/// Where each process listens is counted on from the variable PORT.
fn check_ports(cx: &mut Cx<'_>, app: &App, listen: syntax::Span) {
    let port = app.env.get("PORT");
    match port.and_then(|text| text.parse::<u16>().ok()) {
        None if app.listen.is_some() => cx.error_hint(
            listen,
            "zed cannot tell on which port the app listens".to_owned(),
            "set it in the app's environment: `env: {\"PORT\": \"8080\"}`",
        ),
        Some(first) if u64::from(first) + u64::from(app.instances) > 65_536 => cx.error_hint(
            listen,
            format!("{} processes from port {first} on need ports above 65535", app.instances),
            "choose a lower PORT, or fewer `instances`",
        ),
        _ => {}
    }
}

fn listen(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Listen> {
    check::name(cx, node, Listen::parse)
}

/// Records that `from` depends on `to`; without a valid `from` it is only a reference.
pub(super) fn depend(cx: &mut Cx<'_>, kind: Kind, from: Option<&str>, to: &str, node: &Node<'_>) {
    match from {
        Some(from) => cx.refs.depend(kind, from, to, node.span),
        None => cx.refs.refer(kind, to, node.span),
    }
}

fn dataset_reference(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<DatasetPath> {
    let path = check::dataset_name(cx, node)?;
    cx.refs.refer(Kind::Dataset, path.as_str(), node.span);
    Some(path)
}

fn artifact(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Artifact> {
    let v = variant(cx, node, "an artifact", &["Tar", "Dir", "Oci"])?;
    let name = v.name;
    let mut f = v.fields(cx, "an artifact", Some("path"))?;
    let path = f.req(cx, "path", check::absolute_path);
    let artifact = match name {
        "Tar" => {
            let sha256 = f.opt(cx, "sha256", |cx, node| check::sha256(cx, node, ""));
            path.zip(sha256).map(|(path, sha256)| Artifact::Tar { path, sha256 })
        }
        "Dir" => path.map(|path| Artifact::Dir { path }),
        _ => {
            let digest = f.opt(cx, "digest", |cx, node| check::sha256(cx, node, "sha256:"));
            path.zip(digest).map(|(path, digest)| Artifact::Oci { path, digest })
        }
    };
    f.finish(cx);
    artifact
}

fn runtime(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Runtime> {
    let v = variant(cx, node, "a runtime", &["Process", "Jail", "Zone", "Container"])?;
    match v.name {
        "Process" => v.unit(cx, Runtime::Process),
        "Container" => {
            let mut f = v.fields(cx, "a container", None)?;
            let network = f.or(cx, "network", Network::Host, |cx, node| {
                let v = variant(cx, node, "a network", &["Host", "Private"])?;
                v.unit(cx, if v.name == "Private" { Network::Private } else { Network::Host })
            });
            f.finish(cx);
            network.map(|network| Runtime::Container { network })
        }
        "Jail" => {
            let node = v.one(cx, "\"shop\"")?;
            let jail = check::name(cx, node, JailName::parse)?;
            cx.refs.refer(Kind::Jail, jail.as_str(), node.span);
            Some(Runtime::Jail(jail))
        }
        _ => {
            let node = v.one(cx, "\"shop\"")?;
            let zone = check::name(cx, node, ZoneName::parse)?;
            cx.refs.refer(Kind::Zone, zone.as_str(), node.span);
            Some(Runtime::Zone(zone))
        }
    }
}

fn node_name(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    check::line_with(cx, node, |value| {
        let (name, host) = value.split_once('@').unwrap_or((value, "localhost"));
        let good = |part: &str, more: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if good(name, "_-") && good(host, "_-.:") && value.len() <= 255 {
            Ok(())
        } else {
            Err("a BEAM node is NAME or NAME@HOST".to_owned())
        }
    })
}

fn health(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Health> {
    let default = Health::default();
    let mut f = Fields::open(cx, node, "Health", "health")?;
    let probes = f.or(cx, "probes", Vec::new(), |cx, node| list(cx, node, probe));
    let interval = f.or(cx, "interval", default.interval, |cx, node| check::duration(cx, node, MS));
    let timeout = f.or(cx, "timeout", default.timeout, |cx, node| check::duration(cx, node, MS));
    let attempts = f.or(cx, "attempts", default.attempts, |cx, node| whole32(cx, node, 1, u32::MAX));
    let successes = f.or(cx, "successes", default.successes, |cx, node| whole32(cx, node, 1, u32::MAX));
    let place = f.span_of("successes");
    f.finish(cx);
    let (attempts, successes) = (attempts?, successes?);
    if successes > attempts {
        cx.error(place, format!("{successes} successes cannot happen in {attempts} attempts"));
    }
    Some(Health { probes: probes?, interval: interval?, timeout: timeout?, attempts, successes })
}

fn probe(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Probe> {
    let v = variant(cx, node, "a probe", &["Http", "Tcp", "Exec", "BeamPing"])?;
    match v.name {
        "BeamPing" => v.unit(cx, Probe::BeamPing),
        "Http" => http_probe(cx, &v),
        "Tcp" => {
            let mut f = v.fields(cx, "a Tcp probe", Some("address"))?;
            let address = f.req(cx, "address", check::address);
            f.finish(cx);
            Some(Probe::Tcp { address: address? })
        }
        _ => {
            let mut f = v.fields(cx, "an Exec probe", Some("command"))?;
            let command = f.req(cx, "command", place::command);
            f.finish(cx);
            Some(Probe::Exec { command: command? })
        }
    }
}

fn http_probe(cx: &mut Cx<'_>, v: &Variant<'_, '_>) -> Option<Probe> {
    let mut f = v.fields(cx, "an Http probe", Some("url"))?;
    let url = f.req(cx, "url", check::http_url);
    let expect = f.opt(cx, "expect", |cx, node| whole(cx, node, 100, 599));
    let body = f.opt(cx, "body", |cx, node| {
        let body = text(cx, node)?;
        if body.is_empty() {
            cx.error(node.span, "an empty `body` would always be found; leave it out");
            return None;
        }
        Some(body)
    });
    let ca = f.opt(cx, "ca", check::absolute_path);
    let insecure = f.or(cx, "insecure", false, boolean);
    let (ca_place, insecure_place) = (f.span_of("ca"), f.span_of("insecure"));
    f.finish(cx);
    let expect = expect?.and_then(|status| u16::try_from(status).ok());
    let (url, ca, insecure) = (url?, ca?, insecure?);
    if !url.starts_with("https://") {
        for (given, field, place) in [(ca.is_some(), "ca", ca_place), (insecure, "insecure", insecure_place)]
        {
            if given {
                cx.error(
                    place,
                    format!("`{field}` is about certificates, and only `https://` URLs have one"),
                );
            }
        }
    } else if ca.is_some() && insecure {
        cx.error(
            insecure_place,
            "`ca` says what to check the certificate with, `insecure` not to check it: keep one",
        );
    }
    Some(Probe::Http { url, expect, body: body?, ca, insecure })
}

fn restart(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Restart> {
    let v = variant(cx, node, "a restart policy", &["Never", "OnFailure", "Always"])?;
    if v.name == "Never" {
        return v.unit(cx, Restart::Never);
    }
    let always = v.name == "Always";
    let default = Backoff::default();
    let mut f = v.fields(cx, "a restart policy", None)?;
    let backoff = f.or(cx, "backoff", default.backoff, |cx, node| check::duration(cx, node, MS));
    let max_backoff = f.or(cx, "max_backoff", default.max_backoff, |cx, node| check::duration(cx, node, MS));
    let give_up_after = f.opt(cx, "give_up_after", |cx, node| whole32(cx, node, 1, u32::MAX));
    let place = f.span_of("backoff");
    f.finish(cx);
    let backoff = Backoff { backoff: backoff?, max_backoff: max_backoff?, give_up_after: give_up_after? };
    if backoff.backoff > backoff.max_backoff {
        cx.error_hint(
            place,
            format!(
                "`backoff` ({}) is longer than `max_backoff` ({})",
                crate::render_duration(backoff.backoff),
                crate::render_duration(backoff.max_backoff)
            ),
            "raise `max_backoff`",
        );
    }
    Some(if always { Restart::Always(backoff) } else { Restart::OnFailure(backoff) })
}

fn hooks(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Hooks> {
    let mut f = Fields::open(cx, node, "Hooks", "hooks")?;
    let timeout = f.or(cx, "timeout", Hooks::DEFAULT_TIMEOUT, |cx, node| check::duration(cx, node, MS));
    let before_deploy = f.or(cx, "before_deploy", Vec::new(), commands);
    let after_deploy = f.or(cx, "after_deploy", Vec::new(), commands);
    let before_rollback = f.or(cx, "before_rollback", Vec::new(), commands);
    let after_rollback = f.or(cx, "after_rollback", Vec::new(), commands);
    let on_failure = f.or(cx, "on_failure", Vec::new(), commands);
    f.finish(cx);
    Some(Hooks {
        timeout: timeout?,
        before_deploy: before_deploy?,
        after_deploy: after_deploy?,
        before_rollback: before_rollback?,
        after_rollback: after_rollback?,
        on_failure: on_failure?,
    })
}

fn commands(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Vec<Vec<String>>> {
    if let syntax::Kind::List(items) = &node.kind
        && let Some(syntax::Kind::Str(_)) = items.first().map(|item| &item.kind)
    {
        let message = format!("`{}` must be a list of commands, each a list itself", cx.field);
        cx.error_hint(node.span, message, "write `[[\"program\", \"argument\"]]`");
        return None;
    }
    list(cx, node, place::command)
}

fn strategy(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Strategy> {
    let v = variant(cx, node, "a strategy", &["Replace", "BlueGreen", "Rolling", "Canary"])?;
    match v.name {
        "Replace" => v.unit(cx, Strategy::Replace),
        "BlueGreen" => {
            let mut f = v.fields(cx, "BlueGreen", None)?;
            let ports = f.req(cx, "ports", ports);
            let drain = f.or(cx, "drain", Strategy::DEFAULT_DRAIN, |cx, node| {
                check::duration(cx, node, Duration::ZERO)
            });
            f.finish(cx);
            Some(Strategy::BlueGreen { ports: ports?, drain: drain? })
        }
        "Rolling" => {
            let mut f = v.fields(cx, "Rolling", None)?;
            let batch = f.or(cx, "batch", 1, |cx, node| whole32(cx, node, 1, MAX_INSTANCES));
            let pause =
                f.or(cx, "pause", Duration::ZERO, |cx, node| check::duration(cx, node, Duration::ZERO));
            f.finish(cx);
            Some(Strategy::Rolling { batch: batch?, pause: pause? })
        }
        _ => {
            let mut f = v.fields(cx, "Canary", None)?;
            let instances = f.or(cx, "instances", 1, |cx, node| whole32(cx, node, 1, MAX_INSTANCES));
            let pause = f.or(cx, "pause", Strategy::DEFAULT_CANARY_PAUSE, |cx, node| {
                check::duration(cx, node, Duration::ZERO)
            });
            f.finish(cx);
            Some(Strategy::Canary { instances: instances?, pause: pause? })
        }
    }
}

fn ports(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<(u16, u16)> {
    let syntax::Kind::Tuple { name: None, items } = &node.kind else {
        mismatch(cx, node, "a tuple of two ports, for instance (8080, 8081)");
        return None;
    };
    let [blue, green] = items.as_slice() else {
        cx.error(node.span, "`ports` must be two ports, for instance (8080, 8081)");
        return None;
    };
    let mut port = |node| whole(cx, node, 1, 65535).and_then(|n| u16::try_from(n).ok());
    let (blue, green) = (port(blue), port(green));
    let (blue, green) = (blue?, green?);
    if blue == green {
        cx.error(node.span, "the two `ports` must be different: both versions run at once");
        return None;
    }
    Some((blue, green))
}

/// The name of a fact that an app may hang on: one that changes while the host runs would stop and start it.
fn stable_fact(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    let name = check::line(cx, node)?;
    if crate::is_changing_fact(&name) {
        let problem = format!("the fact `{name}` changes while the host runs, so no condition may use it");
        cx.error_hint(node.span, problem, "look at it with a probe or a hook instead");
        return None;
    }
    Some(name)
}

fn condition(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Condition> {
    let v = variant(cx, node, "a condition", &["All", "Any", "Not", "Fact", "Env"])?;
    match v.name {
        "All" | "Any" => {
            let items = v.one(cx, "[Fact(\"os\", \"linux\")]")?;
            let conditions = list(cx, items, condition)?;
            if conditions.is_empty() {
                cx.error(v.span, format!("`{}` needs at least one condition", v.name));
                return None;
            }
            Some(if v.name == "All" { Condition::All(conditions) } else { Condition::Any(conditions) })
        }
        "Not" => {
            let inner = v.one(cx, "Fact(\"os\", \"linux\")")?;
            condition(cx, inner).map(|inner| Condition::Not(Box::new(inner)))
        }
        "Fact" => {
            let (fact, value) = v.two(cx, "\"os\", \"linux\"")?;
            let (fact, value) = (stable_fact(cx, fact), check::argument(cx, value));
            Some(Condition::Fact(fact?, value?))
        }
        _ => {
            let (name, value) = v.two(cx, "\"STAGE\", \"prod\"")?;
            let (name, value) = (check::env_name(cx, name), check::argument(cx, value));
            Some(Condition::Env(name?, value?))
        }
    }
}
