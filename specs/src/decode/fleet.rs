//! Hosts, jails, zones, models, jobs, replication and rollout.

use super::Cx;
use super::app::depend;
use super::check;
use super::place;
use super::references::Kind;
use super::references::VramNeed;
use super::shape::Fields;
use super::shape::boolean;
use super::shape::list;
use super::shape::map;
use super::shape::set;
use super::shape::text;
use super::shape::variant;
use super::shape::whole32;
use crate::ast::Gpu;
use crate::ast::Host;
use crate::ast::Jail;
use crate::ast::JailFile;
use crate::ast::JailManager;
use crate::ast::JailMount;
use crate::ast::Job;
use crate::ast::Limits;
use crate::ast::Model;
use crate::ast::OnFailure;
use crate::ast::Placement;
use crate::ast::Prefer;
use crate::ast::Replication;
use crate::ast::ReplicationFilter;
use crate::ast::Requires;
use crate::ast::Rollout;
use crate::ast::Zone;
use crate::names::DatasetPath;
use crate::names::HostName;
use crate::names::JailName;
use crate::names::ModelName;
use crate::names::ZoneName;
use crate::quantity::parse_duration;
use crate::syntax::Node;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn host(cx: &mut Cx<'_>, name: Option<&HostName>, node: &Node<'_>) -> Option<Host> {
    let host = host_fields(cx, node);
    if let Some(name) = name {
        cx.refs.host(name.as_str(), host.as_ref().map(|h| (h.labels.clone(), h.gpus.clone())));
    }
    host
}

fn host_fields(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Host> {
    let mut f = Fields::open(cx, node, "Host", "a host")?;
    let address = f.req(cx, "address", check::address);
    let labels = f.or(cx, "labels", BTreeMap::new(), |cx, node| {
        map(cx, node, "label", check::line, |cx, _, node| check::line(cx, node))
    });
    let gpus = f.or(cx, "gpus", Vec::new(), |cx, node| list(cx, node, gpu));
    f.finish(cx);
    Some(Host { address: address?, labels: labels?, gpus: gpus? })
}

fn gpu(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Gpu> {
    let mut f = Fields::open(cx, node, "Gpu", "a GPU")?;
    let model = f.req(cx, "model", check::line);
    let vram_gb = f.req(cx, "vram_gb", |cx, node| whole32(cx, node, 1, u32::MAX));
    f.finish(cx);
    Some(Gpu { model: model?, vram_gb: vram_gb? })
}

/// The dataset of a jail, zone, model or job: it need not be in `datasets`, and others may refer to it.
fn own_dataset(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<DatasetPath> {
    let path = check::dataset_name(cx, node)?;
    cx.refs.declare(Kind::AnyDataset, path.as_str());
    Some(path)
}

fn any_dataset(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<DatasetPath> {
    let path = check::dataset_name(cx, node)?;
    cx.refs.refer(Kind::AnyDataset, path.as_str(), node.span);
    Some(path)
}

pub(super) fn jail(cx: &mut Cx<'_>, name: Option<&JailName>, node: &Node<'_>) -> Option<Jail> {
    let mut f = Fields::open(cx, node, "Jail", "a jail")?;
    let dataset = f.req(cx, "dataset", own_dataset);
    let release = f.req(cx, "release", check::word);
    let ip4 =
        f.opt(cx, "ip4", |cx, node| check::prefix(cx, node, "an IPv4 ADDRESS", std::net::IpAddr::is_ipv4));
    let ip6 =
        f.opt(cx, "ip6", |cx, node| check::prefix(cx, node, "an IPv6 ADDRESS", std::net::IpAddr::is_ipv6));
    let interface = f.opt(cx, "interface", check::word);
    let vnet = f.or(cx, "vnet", false, boolean);
    let hostname = f.opt(cx, "hostname", check::word);
    let packages = f.or(cx, "packages", Vec::new(), |cx, node| set(cx, node, check::word));
    let mounts = f.or(cx, "mounts", Vec::new(), |cx, node| list(cx, node, jail_mount));
    let params = f.or(cx, "params", BTreeMap::new(), |cx, node| {
        map(cx, node, "jail parameter", jail_parameter, |cx, _, node| check::line(cx, node))
    });
    let files = f.or(cx, "files", Vec::new(), |cx, node| list(cx, node, jail_file));
    let setup = f.or(cx, "setup", Vec::new(), |cx, node| list(cx, node, place::command));
    let services = f.or(cx, "services", Vec::new(), |cx, node| set(cx, node, service));
    let manager = f.or(cx, "manager", JailManager::JailConf, |cx, node| {
        let v = variant(cx, node, "a jail manager", &["JailConf", "Bastille"])?;
        v.unit(cx, if v.name == "Bastille" { JailManager::Bastille } else { JailManager::JailConf })
    });
    let depends_on = f.or(cx, "depends_on", Vec::new(), |cx, node| {
        set(cx, node, |cx, node| {
            let to = check::name(cx, node, JailName::parse)?;
            depend(cx, Kind::Jail, name.map(JailName::as_str), to.as_str(), node);
            Some(to)
        })
    });
    let limits = f.or(cx, "limits", Limits::default(), place::limits);
    let on = f.or(cx, "on", Placement::All, place::placement);
    f.finish(cx);
    Some(Jail {
        dataset: dataset?,
        release: release?,
        ip4: ip4?,
        ip6: ip6?,
        interface: interface?,
        vnet: vnet?,
        hostname: hostname?,
        packages: packages?,
        mounts: mounts?,
        params: params?,
        files: files?,
        setup: setup?,
        services: services?,
        manager: manager?,
        depends_on: depends_on?,
        limits: limits?,
        on: on?,
    })
}

fn jail_mount(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<JailMount> {
    let mut f = Fields::open(cx, node, "JailMount", "a mount")?;
    let dataset = f.req(cx, "dataset", any_dataset);
    let at = f.req(cx, "at", check::absolute_path);
    let read_only = f.or(cx, "read_only", true, boolean);
    f.finish(cx);
    Some(JailMount { dataset: dataset?, at: at?, read_only: read_only? })
}

fn jail_file(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<JailFile> {
    let mut f = Fields::open(cx, node, "JailFile", "a file")?;
    let path = f.req(cx, "path", check::absolute_path);
    let content = f.req(cx, "content", text);
    let mode = f.or(cx, "mode", JailFile::DEFAULT_MODE.to_owned(), file_mode);
    f.finish(cx);
    Some(JailFile { path: path?, content: content?, mode: mode? })
}

/// Permission bits as chmod(1) writes them.
fn file_mode(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    check::line_with(cx, node, |value| {
        let good = matches!(value.len(), 3 | 4) && value.bytes().all(|b| matches!(b, b'0'..=b'7'));
        if good { Ok(()) } else { Err("a mode is three or four octal digits, like `0644`".to_owned()) }
    })
}

/// The name of an rc.d script. It is also the first half of a variable of rc.conf(5).
fn service(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    check::line_with(cx, node, |value| {
        let good = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if good {
            Ok(())
        } else {
            Err("a service has letters, digits and `_`, as its rc.d script".to_owned())
        }
    })
}

fn jail_parameter(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    check::line_with(cx, node, |value| {
        let good = value.starts_with(|c: char| c.is_ascii_alphabetic())
            && value.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c));
        if good { Ok(()) } else { Err("a jail(8) parameter has letters, digits, `.` and `_`".to_owned()) }
    })
}

pub(super) fn zone(cx: &mut Cx<'_>, name: Option<&ZoneName>, node: &Node<'_>) -> Option<Zone> {
    let mut f = Fields::open(cx, node, "Zone", "a zone")?;
    let dataset = f.req(cx, "dataset", own_dataset);
    let brand = f.req(cx, "brand", check::word);
    let ip = f.opt(cx, "ip", |cx, node| check::prefix(cx, node, "ADDRESS", |_| true));
    let over = f.opt(cx, "over", check::word);
    let limits = f.or(cx, "limits", Limits::default(), place::limits);
    let depends_on = f.or(cx, "depends_on", Vec::new(), |cx, node| {
        set(cx, node, |cx, node| {
            let to = check::name(cx, node, ZoneName::parse)?;
            depend(cx, Kind::Zone, name.map(ZoneName::as_str), to.as_str(), node);
            Some(to)
        })
    });
    let on = f.or(cx, "on", Placement::All, place::placement);
    f.finish(cx);
    Some(Zone {
        dataset: dataset?,
        brand: brand?,
        ip: ip?,
        over: over?,
        limits: limits?,
        depends_on: depends_on?,
        on: on?,
    })
}

pub(super) fn model(cx: &mut Cx<'_>, name: Option<&ModelName>, node: &Node<'_>) -> Option<Model> {
    let mut f = Fields::open(cx, node, "Model", "a model")?;
    let dataset = f.req(cx, "dataset", own_dataset);
    let version = f.req(cx, "version", check::version);
    let mut place_of_need = None;
    let requires = f.or(cx, "requires", Requires::default(), |cx, node| {
        let mut f = Fields::open(cx, node, "Requires", "requirements")?;
        let vram_gb = f.opt(cx, "vram_gb", |cx, node| whole32(cx, node, 1, u32::MAX));
        place_of_need = Some(f.span_of("vram_gb"));
        f.finish(cx);
        Some(Requires { vram_gb: vram_gb? })
    });
    let on = f.or(cx, "on", Placement::All, place::placement);
    f.finish(cx);
    let model = Model { dataset: dataset?, version: version?, requires: requires?, on: on? };
    if let (Some(name), Some(vram_gb), Some(span)) = (name, model.requires.vram_gb, place_of_need) {
        cx.refs.need_vram(VramNeed { model: name.to_string(), vram_gb, span, on: model.on.clone() });
    }
    Some(model)
}

pub(super) fn job(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Job> {
    let mut f = Fields::open(cx, node, "Job", "a job")?;
    let model = f.opt(cx, "model", |cx, node| {
        let model = check::name(cx, node, ModelName::parse)?;
        cx.refs.refer(Kind::Model, model.as_str(), node.span);
        Some(model)
    });
    let dataset = f.req(cx, "dataset", own_dataset);
    let command = f.req(cx, "command", place::command);
    let checkpoint_every = f.opt(cx, "checkpoint_every", checkpoint_every);
    let prefer = f.or(cx, "prefer", Prefer::default(), |cx, node| {
        let mut f = Fields::open(cx, node, "Prefer", "preferences")?;
        let gpu = f.opt(cx, "gpu", check::line);
        f.finish(cx);
        Some(Prefer { gpu: gpu? })
    });
    let env = f.or(cx, "env", BTreeMap::new(), place::env);
    let on = f.or(cx, "on", Placement::All, place::placement);
    f.finish(cx);
    Some(Job {
        model: model?,
        dataset: dataset?,
        command: command?,
        checkpoint_every: checkpoint_every?,
        prefer: prefer?,
        env: env?,
        on: on?,
    })
}

fn checkpoint_every(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    check::line_with(cx, node, |value| {
        let counted = value.split_once(' ').is_some_and(|(count, unit)| {
            count.parse::<u32>().is_ok_and(|n| n > 0)
                && !count.starts_with('+')
                && matches!(unit, "epoch" | "epochs" | "step" | "steps")
        });
        let timed = parse_duration(value).is_ok_and(|every| !every.is_zero());
        if counted || timed {
            Ok(())
        } else {
            Err("it must be like `1 epoch`, `500 steps` or `10m`".to_owned())
        }
    })
}

pub(super) fn replication(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Replication> {
    let mut f = Fields::open(cx, node, "Replication", "a replication")?;
    let dataset = f.req(cx, "dataset", any_dataset);
    let from = f.req(cx, "from", place::host_reference);
    let to = f.req(cx, "to", |cx, node| {
        let to = set(cx, node, place::host_reference)?;
        if to.is_empty() {
            cx.error(node.span, "`to` must name at least one host");
            return None;
        }
        Some(to)
    });
    let place_of_to = f.span_of("to");
    let every = f.opt(cx, "every", |cx, node| check::duration(cx, node, Duration::from_millis(1)));
    let keep = f.opt(cx, "keep", |cx, node| whole32(cx, node, 1, u32::MAX));
    let filter = f.opt(cx, "filter", |cx, node| {
        let v = variant(cx, node, "a filter", &["SizeBelow"])?;
        v.only(cx, "\"20G\"", |cx, node| check::size(cx, node, 1)).map(ReplicationFilter::SizeBelow)
    });
    f.finish(cx);
    let (from, to) = (from?, to?);
    if to.contains(&from) {
        cx.error(place_of_to, format!("`{from}` cannot replicate to itself"));
    }
    Some(Replication { dataset: dataset?, from, to, every: every?, keep: keep?, filter: filter? })
}

pub(super) fn rollout(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Rollout> {
    let v = variant(cx, node, "a rollout", &["AllAtOnce", "Rolling"])?;
    if v.name == "AllAtOnce" {
        return v.unit(cx, Rollout::AllAtOnce);
    }
    let mut f = v.fields(cx, "Rolling", None)?;
    let batch = f.or(cx, "batch", 1, |cx, node| whole32(cx, node, 1, u32::MAX));
    let pause = f.or(cx, "pause", Duration::ZERO, |cx, node| check::duration(cx, node, Duration::ZERO));
    let on_failure = f.or(cx, "on_failure", OnFailure::RollBackAll, |cx, node| {
        let v = variant(cx, node, "a reaction to failure", &["RollBackAll", "Stop", "Continue"])?;
        let value = match v.name {
            "RollBackAll" => OnFailure::RollBackAll,
            "Stop" => OnFailure::Stop,
            _ => OnFailure::Continue,
        };
        v.unit(cx, value)
    });
    f.finish(cx);
    Some(Rollout::Rolling { batch: batch?, pause: pause?, on_failure: on_failure? })
}
