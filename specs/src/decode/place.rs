//! Where things belong, what they may use, and values that come from elsewhere: the parts that several
//! sections share.

use super::Cx;
use super::check;
use super::references;
use super::shape::Fields;
use super::shape::list;
use super::shape::map;
use super::shape::positive;
use super::shape::set;
use super::shape::variant;
use super::shape::whole;
use crate::ast::Limits;
use crate::ast::Placement;
use crate::ast::ValueFrom;
use crate::names::HostName;
use crate::names::SlotName;
use crate::syntax::Node;
use std::collections::BTreeMap;

/// `All`, `Label("k", "v")`, `Hosts(["h"])`.
pub(super) fn placement(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Placement> {
    let v = variant(cx, node, "a placement", &["All", "Label", "Hosts"])?;
    match v.name {
        "All" => v.unit(cx, Placement::All),
        "Label" => {
            let (key, value) = v.two(cx, "\"role\", \"web\"")?;
            let (key_text, value_text) = (check::line(cx, key), check::line(cx, value));
            let (key_text, value_text) = (key_text?, value_text?);
            cx.refs.label(&key_text, &value_text, v.span);
            Some(Placement::Label(key_text, value_text))
        }
        _ => {
            let hosts = v.one(cx, "[\"web1\"]")?;
            let names = set(cx, hosts, host_reference)?;
            if names.is_empty() {
                cx.error(hosts.span, "`Hosts([])` names no host, so this would be nowhere");
                return None;
            }
            Some(Placement::Hosts(names))
        }
    }
}

/// A host that the spec must declare.
pub(super) fn host_reference(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<HostName> {
    let name = check::name(cx, node, HostName::parse)?;
    cx.refs.refer(references::Kind::Host, name.as_str(), node.span);
    Some(name)
}

/// `(memory: .., cpus: .., pids: .., nofile: ..)`.
pub(super) fn limits(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Limits> {
    let mut f = Fields::open(cx, node, "Limits", "limits")?;
    let memory = f.opt(cx, "memory", |cx, node| check::size(cx, node, 1));
    let cpus = f.opt(cx, "cpus", positive);
    let pids = f.opt(cx, "pids", |cx, node| whole(cx, node, 1, u32::MAX.into()));
    let nofile = f.opt(cx, "nofile", |cx, node| whole(cx, node, 1, u32::MAX.into()));
    f.finish(cx);
    Some(Limits { memory: memory?, cpus: cpus?, pids: pids?, nofile: nofile? })
}

/// `Env("..")`, `File("..")`, `Secret("..")`.
pub(super) fn value_from(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<ValueFrom> {
    let v = variant(cx, node, "a source of a value", &["Env", "File", "Secret"])?;
    match v.name {
        "Env" => v.only(cx, "\"NAME\"", check::env_name).map(ValueFrom::Env),
        "File" => v.only(cx, "\"/path\"", check::absolute_path).map(ValueFrom::File),
        _ => {
            let node = v.one(cx, "\"db/password\"")?;
            let slot = check::name(cx, node, SlotName::parse)?;
            cx.refs.refer(references::Kind::Secret, slot.as_str(), node.span);
            Some(ValueFrom::Secret(slot))
        }
    }
}

/// Environment variables, literally.
pub(super) fn env(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<BTreeMap<String, String>> {
    map(cx, node, "variable", check::env_name, |cx, _, value| check::argument(cx, value))
}

/// A program with its arguments.
pub(super) fn command(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Vec<String>> {
    let command = list(cx, node, check::argument)?;
    match command.first() {
        Some(program) if !program.is_empty() => Some(command),
        Some(_) => {
            cx.error(node.span, format!("`{}` has an empty program", cx.field));
            None
        }
        None => {
            cx.error(node.span, format!("`{}` must name a program", cx.field));
            None
        }
    }
}
