//! The spec itself, datasets, secrets, snapshots; and the table of sections.

use super::Cx;
use super::app;
use super::check;
use super::fleet;
use super::place;
use super::references::Kind;
use super::shape::Fields;
use super::shape::boolean;
use super::shape::list;
use super::shape::map;
use super::shape::mismatch;
use super::shape::variant;
use super::shape::whole32;
use crate::ast::Dataset;
use crate::ast::DeploySpec;
use crate::ast::DriftPolicy;
use crate::ast::Placement;
use crate::ast::SecretSource;
use crate::ast::SnapshotPolicy;
use crate::diagnostics::quoted;
use crate::names::AppName;
use crate::names::DatasetPath;
use crate::names::DeployName;
use crate::names::HostName;
use crate::names::JailName;
use crate::names::JobName;
use crate::names::ModelName;
use crate::names::NameError;
use crate::names::SlotName;
use crate::names::ZoneName;
use crate::syntax;
use crate::syntax::Node;
use std::collections::BTreeMap;
use std::fmt::Display;

/// How many random bytes a secret may have.
pub const MAX_SECRET_BYTES: u32 = 4096;

/// Record sizes that ZFS takes, in bytes.
const RECORD_SIZES: std::ops::RangeInclusive<u64> = 512..=16 * 1024 * 1024;

/// A spec; `name` is its file's, without which the text must hold one.
pub(super) fn deploy(cx: &mut Cx<'_>, name: Option<&DeployName>, node: &Node<'_>) -> Option<DeploySpec> {
    let mut f = Fields::open(cx, node, "Deploy", "the spec")?;
    let name = match name {
        Some(name) => f.or(cx, "name", name.clone(), |cx, node| own_name(cx, name, node)),
        None => f.req(cx, "name", |cx, node| check::name(cx, node, DeployName::parse)),
    };
    let pool = f.opt(cx, "pool", check::pool);
    let hosts = section(cx, &mut f, "hosts", Kind::Host, "host", HostName::parse, fleet::host);
    let datasets =
        section(cx, &mut f, "datasets", Kind::Dataset, "dataset", DatasetPath::parse, |cx, _, n| {
            dataset(cx, n)
        });
    let apps = section(cx, &mut f, "apps", Kind::App, "app", AppName::parse, app::app);
    let jails = section(cx, &mut f, "jails", Kind::Jail, "jail", JailName::parse, fleet::jail);
    let zones = section(cx, &mut f, "zones", Kind::Zone, "zone", ZoneName::parse, fleet::zone);
    let models = section(cx, &mut f, "models", Kind::Model, "model", ModelName::parse, fleet::model);
    let jobs = f.or(cx, "jobs", BTreeMap::new(), |cx, node| {
        map(
            cx,
            node,
            "job",
            |cx, node| check::name(cx, node, JobName::parse),
            |cx, _, node| fleet::job(cx, node),
        )
    });
    let secrets = section(cx, &mut f, "secrets", Kind::Secret, "secret slot", SlotName::parse, |cx, _, n| {
        secret(cx, n)
    });
    let replicate = f.or(cx, "replicate", Vec::new(), |cx, node| list(cx, node, fleet::replication));
    let rollout = f.opt(cx, "rollout", fleet::rollout);
    let snapshots = f.or(cx, "snapshots", SnapshotPolicy::default(), snapshots);
    let drift = f.or(cx, "drift", DriftPolicy::Report, |cx, node| {
        let v = variant(cx, node, "a drift policy", &["Report", "Heal"])?;
        v.unit(cx, if v.name == "Heal" { DriftPolicy::Heal } else { DriftPolicy::Report })
    });
    f.finish(cx);
    Some(DeploySpec {
        name: name?,
        pool: pool?,
        hosts: hosts?,
        datasets: datasets?,
        apps: apps?,
        jails: jails?,
        zones: zones?,
        models: models?,
        jobs: jobs?,
        secrets: secrets?,
        replicate: replicate?,
        rollout: rollout?,
        snapshots: snapshots?,
        drift: drift?,
    })
}

/// A map whose keys are declarations that other parts may refer to.
fn section<'n, 's, K: Ord + Clone + Display, V>(
    cx: &mut Cx<'_>,
    fields: &mut Fields<'n, 's>,
    field: &'static str,
    kind: Kind,
    what: &'static str,
    parse: fn(&str) -> Result<K, NameError>,
    value: impl FnMut(&mut Cx<'_>, Option<&K>, &Node<'_>) -> Option<V>,
) -> Option<BTreeMap<K, V>> {
    fields.or(cx, field, BTreeMap::new(), |cx, node| {
        if !matches!(node.kind, syntax::Kind::Map(_)) {
            cx.refs.forget(kind);
        }
        let key = |cx: &mut Cx<'_>, node: &Node<'_>| {
            if kind == Kind::Dataset {
                check::dataset_name(cx, node)?;
            }
            let name = check::name(cx, node, parse)?;
            cx.refs.declare(kind, &name.to_string());
            Some(name)
        };
        map(cx, node, what, key, value)
    })
}

/// The optional `name`, which the canonical form writes so that it stands alone.
fn own_name(cx: &mut Cx<'_>, name: &DeployName, node: &Node<'_>) -> Option<DeployName> {
    let written = check::name(cx, node, DeployName::parse)?;
    if written == *name {
        return Some(written);
    }
    cx.error_hint(
        node.span,
        format!("the spec calls itself {}, and its file is `{name}.ron`", quoted(written.as_str())),
        "leave `name` out: the file's name counts",
    );
    None
}

fn dataset(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Dataset> {
    let mut f = Fields::open(cx, node, "Dataset", "a dataset")?;
    let compression = f.opt(cx, "compression", check::compression);
    let quota = f.opt(cx, "quota", |cx, node| match &node.kind {
        syntax::Kind::Str(text) if text == "none" => Some(0),
        _ => check::size(cx, node, 0),
    });
    let recordsize = f.opt(cx, "recordsize", record_size);
    let mountpoint = f.opt(cx, "mountpoint", check::mountpoint);
    let atime = f.opt(cx, "atime", boolean);
    let on = f.or(cx, "on", Placement::All, place::placement);
    let taken = [
        ("compression", matches!(compression, Some(Some(_)))),
        ("quota", matches!(quota, Some(Some(_)))),
        ("recordsize", matches!(recordsize, Some(Some(_)))),
        ("mountpoint", matches!(mountpoint, Some(Some(_)))),
        ("atime", matches!(atime, Some(Some(_)))),
    ];
    let properties = f.or(cx, "properties", BTreeMap::new(), |cx, node| {
        map(
            cx,
            node,
            "property",
            |cx, node| property(cx, node, taken),
            |cx, _, node| property_value(cx, node),
        )
    });
    f.finish(cx);
    Some(Dataset {
        compression: compression?,
        quota: quota?,
        recordsize: recordsize?,
        mountpoint: mountpoint?,
        atime: atime?,
        on: on?,
        properties: properties?,
    })
}

fn property(cx: &mut Cx<'_>, node: &Node<'_>, taken: [(&str, bool); 5]) -> Option<String> {
    let name = check::property_name(cx, node)?;
    if taken.contains(&(name.as_str(), true)) {
        cx.error_hint(
            node.span,
            format!("the property `{name}` is written twice: as a field and in `properties`"),
            "remove one of the two",
        );
        return None;
    }
    Some(name)
}

fn property_value(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    check::line_with(cx, node, |value| {
        if value.len() > 1024 { Err("it is longer than 1024 bytes".to_owned()) } else { Ok(()) }
    })
}

fn record_size(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<u64> {
    let bytes = check::size(cx, node, 0)?;
    if RECORD_SIZES.contains(&bytes) && bytes.is_power_of_two() {
        return Some(bytes);
    }
    cx.error_hint(
        node.span,
        format!(
            "{} is not a record size: it must be a power of two from 512 to 16M",
            quoted(cx.written(node))
        ),
        "for instance \"16K\", \"128K\" or \"1M\"",
    );
    None
}

fn secret(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<SecretSource> {
    let v = variant(cx, node, "a source of a secret", &["Random", "Manual", "File", "Env"])?;
    match v.name {
        "Random" => {
            let mut f = v.fields(cx, "a random secret", Some("bytes"))?;
            let bytes = f.req(cx, "bytes", |cx, node| whole32(cx, node, 1, MAX_SECRET_BYTES));
            f.finish(cx);
            bytes.map(|bytes| SecretSource::Random { bytes })
        }
        "Manual" => v.unit(cx, SecretSource::Manual),
        "File" => v.only(cx, "\"/path\"", check::absolute_path).map(SecretSource::File),
        _ => v.only(cx, "\"NAME\"", check::env_name).map(SecretSource::Env),
    }
}

fn snapshots(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<SnapshotPolicy> {
    if matches!(node.kind, syntax::Kind::Bool(_)) {
        mismatch(cx, node, "a struct, for instance (before_deploy: true, keep: 5)");
        return None;
    }
    let default = SnapshotPolicy::default();
    let mut f = Fields::open(cx, node, "SnapshotPolicy", "snapshots")?;
    let before_deploy = f.or(cx, "before_deploy", default.before_deploy, boolean);
    let keep = f.or(cx, "keep", default.keep, |cx, node| whole32(cx, node, 1, u32::MAX));
    f.finish(cx);
    Some(SnapshotPolicy { before_deploy: before_deploy?, keep: keep? })
}
