//! A spec as a person would write it: only what differs from the defaults, sizes and durations with units.
//!
//! Owns which fields are written and how. Must be the inverse of [`crate::parse`]: what is rendered parses back
//! to an equal spec, which a property test holds.

pub(crate) mod doc;

use crate::ast::App;
use crate::ast::Artifact;
use crate::ast::Backoff;
use crate::ast::Condition;
use crate::ast::Dataset;
use crate::ast::DeploySpec;
use crate::ast::DriftPolicy;
use crate::ast::Health;
use crate::ast::Hooks;
use crate::ast::Host;
use crate::ast::Jail;
use crate::ast::JailFile;
use crate::ast::JailManager;
use crate::ast::Job;
use crate::ast::Limits;
use crate::ast::Model;
use crate::ast::Network;
use crate::ast::OnFailure;
use crate::ast::Placement;
use crate::ast::Probe;
use crate::ast::Replication;
use crate::ast::ReplicationFilter;
use crate::ast::Restart;
use crate::ast::Rollout;
use crate::ast::Runtime;
use crate::ast::SecretSource;
use crate::ast::SnapshotPolicy;
use crate::ast::Strategy;
use crate::ast::ValueFrom;
use crate::ast::Zone;
use doc::Doc;
use doc::Struct;
use std::fmt::Display;
use std::time::Duration;

/// Renders a spec for people: RON that [`crate::parse`] reads back to an equal spec, without its name and
/// without anything that is a default.
pub fn render_spec(spec: &DeploySpec) -> String {
    let DeploySpec {
        name: _,
        pool,
        hosts,
        datasets,
        apps,
        jails,
        zones,
        models,
        jobs,
        secrets,
        replicate,
        rollout,
        snapshots,
        drift,
    } = spec;
    let SnapshotPolicy { before_deploy, keep } = snapshots;
    let default = SnapshotPolicy::default();
    Struct::named("Deploy")
        .opt("pool", pool.as_deref().map(Doc::text))
        .map("hosts", hosts, host)
        .map("datasets", datasets, dataset)
        .map("apps", apps, app)
        .map("jails", jails, jail)
        .map("zones", zones, zone)
        .map("models", models, model)
        .map("jobs", jobs, job)
        .map("secrets", secrets, secret)
        .list("replicate", replicate, replication)
        .opt("rollout", rollout.as_ref().map(render_rollout))
        .unless(*snapshots == default, "snapshots", || {
            Struct::plain()
                .unless(*before_deploy == default.before_deploy, "before_deploy", || {
                    Doc::plain(before_deploy)
                })
                .unless(*keep == default.keep, "keep", || Doc::plain(keep))
                .done()
        })
        .unless(*drift == DriftPolicy::Report, "drift", || Doc::plain("Heal"))
        .done()
        .render()
}

fn name(value: &impl Display) -> Doc {
    Doc::text(&value.to_string())
}

fn text(value: &impl AsRef<str>) -> Doc {
    Doc::text(value.as_ref())
}

fn number(value: &impl Display) -> Doc {
    Doc::plain(value)
}

fn duration(value: Duration) -> Doc {
    Doc::text(&crate::render_duration(value))
}

fn size(bytes: u64) -> Doc {
    let shown = crate::render_size(bytes);
    if shown.bytes().all(|b| b.is_ascii_digit()) { Doc::plain(shown) } else { Doc::text(&shown) }
}

fn placement(fields: Struct, on: &Placement) -> Struct {
    fields.unless(*on == Placement::All, "on", || match on {
        Placement::All => Doc::plain("All"),
        Placement::Label(key, value) => Doc::tuple("Label", vec![text(key), text(value)]),
        Placement::Hosts(hosts) => Doc::tuple("Hosts", vec![Doc::list(hosts, name)]),
    })
}

fn host(host: &Host) -> Doc {
    let Host { address, labels, gpus } = host;
    Struct::plain()
        .field("address", text(address))
        .map("labels", labels, text)
        .list("gpus", gpus, |gpu| {
            Struct::plain().field("model", text(&gpu.model)).field("vram_gb", number(&gpu.vram_gb)).done()
        })
        .done()
}

fn dataset(dataset: &Dataset) -> Doc {
    let Dataset { compression, quota, recordsize, mountpoint, atime, on, properties } = dataset;
    let fields = Struct::plain()
        .opt("compression", compression.as_ref().map(text))
        .opt("quota", quota.map(|bytes| if bytes == 0 { Doc::text("none") } else { size(bytes) }))
        .opt("recordsize", recordsize.map(size))
        .opt("mountpoint", mountpoint.as_ref().map(text))
        .opt("atime", atime.as_ref().map(number));
    placement(fields, on).map("properties", properties, text).done()
}

fn limits(fields: Struct, limits: &Limits) -> Struct {
    let Limits { memory, cpus, pids, nofile } = limits;
    fields.unless(*limits == Limits::default(), "limits", || {
        Struct::plain()
            .opt("memory", memory.map(size))
            // Debug keeps the point of 2.0 and every digit.
            .opt("cpus", cpus.map(|cpus| Doc::plain(format!("{cpus:?}"))))
            .opt("pids", pids.as_ref().map(number))
            .opt("nofile", nofile.as_ref().map(number))
            .done()
    })
}

fn app(app: &App) -> Doc {
    let App {
        dataset,
        data,
        version,
        command,
        artifact,
        env,
        env_from,
        user,
        group,
        limits: app_limits,
        runtime,
        node_name,
        cookie,
        health,
        restart,
        stop_grace,
        depends_on,
        hooks,
        strategy,
        instances,
        listen,
        when,
        on,
    } = app;
    let fields = Struct::plain()
        .field("dataset", name(dataset))
        .list("data", data, name)
        .field("version", text(version))
        .list("command", command, text)
        .opt("artifact", artifact.as_ref().map(render_artifact))
        .map("env", env, text)
        .map("env_from", env_from, value_from)
        .opt("user", user.as_ref().map(text))
        .opt("group", group.as_ref().map(text));
    let fields = limits(fields, app_limits)
        .unless(*runtime == Runtime::Process, "runtime", || match runtime {
            Runtime::Process => Doc::plain("Process"),
            Runtime::Container { network: Network::Host } => Doc::plain("Container"),
            Runtime::Container { network: Network::Private } => {
                Struct::named("Container").field("network", Doc::plain("Private")).done()
            }
            Runtime::Jail(jail) => Doc::tuple("Jail", vec![name(jail)]),
            Runtime::Zone(zone) => Doc::tuple("Zone", vec![name(zone)]),
        })
        .opt("node_name", node_name.as_ref().map(text))
        .opt("cookie", cookie.as_ref().map(value_from))
        .unless(*health == Health::default(), "health", || render_health(health))
        .unless(*restart == Restart::default(), "restart", || render_restart(restart))
        .unless(*stop_grace == App::DEFAULT_STOP_GRACE, "stop_grace", || duration(*stop_grace))
        .list("depends_on", depends_on, name)
        .unless(*hooks == Hooks::default(), "hooks", || render_hooks(hooks))
        .unless(*strategy == Strategy::Replace, "strategy", || render_strategy(strategy))
        .unless(*instances == 1, "instances", || number(instances))
        .opt("listen", listen.as_ref().map(name))
        .opt("when", when.as_ref().map(condition));
    placement(fields, on).done()
}

fn render_artifact(artifact: &Artifact) -> Doc {
    match artifact {
        Artifact::Tar { path, sha256 } => {
            Struct::named("Tar").field("path", text(path)).opt("sha256", sha256.as_ref().map(text)).done()
        }
        Artifact::Dir { path } => Doc::tuple("Dir", vec![text(path)]),
        Artifact::Oci { path, digest } => {
            Struct::named("Oci").field("path", text(path)).opt("digest", digest.as_ref().map(text)).done()
        }
    }
}

fn value_from(value: &ValueFrom) -> Doc {
    match value {
        ValueFrom::Env(variable) => Doc::tuple("Env", vec![text(variable)]),
        ValueFrom::File(path) => Doc::tuple("File", vec![text(path)]),
        ValueFrom::Secret(slot) => Doc::tuple("Secret", vec![name(slot)]),
    }
}

fn render_health(health: &Health) -> Doc {
    let Health { probes, interval, timeout, attempts, successes } = health;
    let default = Health::default();
    Struct::plain()
        .list("probes", probes, probe)
        .unless(*interval == default.interval, "interval", || duration(*interval))
        .unless(*timeout == default.timeout, "timeout", || duration(*timeout))
        .unless(*attempts == default.attempts, "attempts", || number(attempts))
        .unless(*successes == default.successes, "successes", || number(successes))
        .done()
}

fn probe(probe: &Probe) -> Doc {
    match probe {
        Probe::Http { url, expect: None, body: None, ca: None, insecure: false } => {
            Doc::tuple("Http", vec![text(url)])
        }
        Probe::Http { url, expect, body, ca, insecure } => Struct::named("Http")
            .field("url", text(url))
            .opt("expect", expect.as_ref().map(number))
            .opt("body", body.as_ref().map(text))
            .opt("ca", ca.as_ref().map(text))
            .unless(!insecure, "insecure", || number(insecure))
            .done(),
        Probe::Tcp { address } => Doc::tuple("Tcp", vec![text(address)]),
        Probe::Exec { command } => Doc::tuple("Exec", vec![Doc::list(command, text)]),
        Probe::BeamPing => Doc::plain("BeamPing"),
    }
}

fn render_restart(restart: &Restart) -> Doc {
    let (variant, backoff) = match restart {
        Restart::Never => return Doc::plain("Never"),
        Restart::OnFailure(backoff) => ("OnFailure", backoff),
        Restart::Always(backoff) => ("Always", backoff),
    };
    let default = Backoff::default();
    if *backoff == default {
        return Doc::plain(variant);
    }
    let Backoff { backoff, max_backoff, give_up_after } = backoff;
    Struct::named(variant)
        .unless(*backoff == default.backoff, "backoff", || duration(*backoff))
        .unless(*max_backoff == default.max_backoff, "max_backoff", || duration(*max_backoff))
        .opt("give_up_after", give_up_after.as_ref().map(number))
        .done()
}

fn render_hooks(hooks: &Hooks) -> Doc {
    let Hooks { timeout, before_deploy, after_deploy, before_rollback, after_rollback, on_failure } = hooks;
    let command = |command: &Vec<String>| Doc::list(command, text);
    Struct::plain()
        .unless(*timeout == Hooks::DEFAULT_TIMEOUT, "timeout", || duration(*timeout))
        .list("before_deploy", before_deploy, command)
        .list("after_deploy", after_deploy, command)
        .list("before_rollback", before_rollback, command)
        .list("after_rollback", after_rollback, command)
        .list("on_failure", on_failure, command)
        .done()
}

fn render_strategy(strategy: &Strategy) -> Doc {
    match strategy {
        Strategy::Replace => Doc::plain("Replace"),
        Strategy::BlueGreen { ports: (blue, green), drain } => Struct::named("BlueGreen")
            .field("ports", Doc::tuple("", vec![number(blue), number(green)]))
            .unless(*drain == Strategy::DEFAULT_DRAIN, "drain", || duration(*drain))
            .done(),
        Strategy::Rolling { batch, pause } => {
            Struct::named("Rolling").field("batch", number(batch)).field("pause", duration(*pause)).done()
        }
        Strategy::Canary { instances, pause } => Struct::named("Canary")
            .field("instances", number(instances))
            .field("pause", duration(*pause))
            .done(),
    }
}

fn condition(when: &Condition) -> Doc {
    match when {
        Condition::All(all) => Doc::tuple("All", vec![Doc::list(all, condition)]),
        Condition::Any(any) => Doc::tuple("Any", vec![Doc::list(any, condition)]),
        Condition::Not(inner) => Doc::tuple("Not", vec![condition(inner)]),
        Condition::Fact(fact, value) => Doc::tuple("Fact", vec![text(fact), text(value)]),
        Condition::Env(variable, value) => Doc::tuple("Env", vec![text(variable), text(value)]),
    }
}

fn jail(jail: &Jail) -> Doc {
    let Jail {
        dataset,
        release,
        ip4,
        ip6,
        interface,
        vnet,
        hostname,
        packages,
        mounts,
        params,
        files,
        setup,
        services,
        manager,
        depends_on,
        limits: jail_limits,
        on,
    } = jail;
    let fields = Struct::plain()
        .field("dataset", name(dataset))
        .field("release", text(release))
        .opt("ip4", ip4.as_ref().map(text))
        .opt("ip6", ip6.as_ref().map(text))
        .opt("interface", interface.as_ref().map(text))
        .unless(!vnet, "vnet", || number(vnet))
        .opt("hostname", hostname.as_ref().map(text))
        .list("packages", packages, text)
        .list("mounts", mounts, |mount| {
            Struct::plain()
                .field("dataset", name(&mount.dataset))
                .field("at", text(&mount.at))
                .unless(mount.read_only, "read_only", || number(&mount.read_only))
                .done()
        })
        .map("params", params, text)
        .list("files", files, |file| {
            Struct::plain()
                .field("path", text(&file.path))
                .field("content", text(&file.content))
                .unless(file.mode == JailFile::DEFAULT_MODE, "mode", || text(&file.mode))
                .done()
        })
        .list("setup", setup, |command| Doc::list(command, text))
        .list("services", services, text)
        .unless(*manager == JailManager::JailConf, "manager", || Doc::plain("Bastille"))
        .list("depends_on", depends_on, name);
    placement(limits(fields, jail_limits), on).done()
}

fn zone(zone: &Zone) -> Doc {
    let Zone { dataset, brand, ip, over, limits: zone_limits, depends_on, on } = zone;
    let fields = Struct::plain()
        .field("dataset", name(dataset))
        .field("brand", text(brand))
        .opt("ip", ip.as_ref().map(text))
        .opt("over", over.as_ref().map(text));
    placement(limits(fields, zone_limits).list("depends_on", depends_on, name), on).done()
}

fn model(model: &Model) -> Doc {
    let Model { dataset, version, requires, on } = model;
    let fields = Struct::plain().field("dataset", name(dataset)).field("version", text(version)).opt(
        "requires",
        requires.vram_gb.as_ref().map(|gb| Struct::plain().field("vram_gb", number(gb)).done()),
    );
    placement(fields, on).done()
}

fn job(job: &Job) -> Doc {
    let Job { model, dataset, command, checkpoint_every, prefer, env, on } = job;
    let fields = Struct::plain()
        .opt("model", model.as_ref().map(name))
        .field("dataset", name(dataset))
        .field("command", Doc::list(command, text))
        .opt("checkpoint_every", checkpoint_every.as_ref().map(text))
        .opt("prefer", prefer.gpu.as_ref().map(|gpu| Struct::plain().field("gpu", text(gpu)).done()))
        .map("env", env, text);
    placement(fields, on).done()
}

fn secret(source: &SecretSource) -> Doc {
    match source {
        SecretSource::Random { bytes } => Struct::named("Random").field("bytes", number(bytes)).done(),
        SecretSource::Manual => Doc::plain("Manual"),
        SecretSource::File(path) => Doc::tuple("File", vec![text(path)]),
        SecretSource::Env(variable) => Doc::tuple("Env", vec![text(variable)]),
    }
}

fn replication(replication: &Replication) -> Doc {
    let Replication { dataset, from, to, every, keep, filter } = replication;
    Struct::plain()
        .field("dataset", name(dataset))
        .field("from", name(from))
        .list("to", to, name)
        .opt("every", every.map(duration))
        .opt("keep", keep.as_ref().map(number))
        .opt(
            "filter",
            filter
                .as_ref()
                .map(|ReplicationFilter::SizeBelow(bytes)| Doc::tuple("SizeBelow", vec![size(*bytes)])),
        )
        .done()
}

fn render_rollout(rollout: &Rollout) -> Doc {
    match rollout {
        Rollout::AllAtOnce => Doc::plain("AllAtOnce"),
        Rollout::Rolling { batch, pause, on_failure } => Struct::named("Rolling")
            .field("batch", number(batch))
            .field("pause", duration(*pause))
            .field(
                "on_failure",
                Doc::plain(match on_failure {
                    OnFailure::RollBackAll => "RollBackAll",
                    OnFailure::Stop => "Stop",
                    OnFailure::Continue => "Continue",
                }),
            )
            .done(),
    }
}
