//! `Wgsl`: shaders of users.
//!
//! Owns what is checked before the node compiles one: bindings, results, workgroups. Never looks into the source.

use super::super::ArrayId;
use super::super::DType;
use super::super::MAX_BINDINGS;
use super::super::MAX_GROUPS;
use super::super::Op;
use super::super::Step;
use super::arrays::dtype;
use super::arrays::shape;
use super::ops::At;
use super::scope::bad_name;
use super::scope::is_name;
use crate::decode::Cx;
use crate::decode::shape::mismatch;
use crate::decode::shape::text;
use crate::decode::shape::whole32;
use crate::diagnostics::quoted;
use crate::syntax::Kind;
use crate::syntax::Node;

/// `Wgsl(source: "...", inputs: ["a"], outputs: {"c": (F32, [3])}, groups: (1, 1, 1))`.
pub(super) fn wgsl(at: &mut At<'_, '_, '_, '_>) -> Option<Step> {
    let node = at.get(0)?;
    let source = text(at.cx, node);
    let node = at.get(1)?;
    let inputs = inputs(at, node);
    let node = at.get(3)?;
    let groups = groups(at.cx, node);
    let node = at.get(2)?;
    let results = outputs(at, node);
    let (source, inputs, results, groups) = (source?, inputs?, results?, groups?);
    if inputs.len() + results.len() > MAX_BINDINGS {
        let message = format!("a shader binds at most {MAX_BINDINGS} arrays, inputs and outputs together");
        at.cx.error(at.call.span, message);
        return None;
    }
    Some(Step { op: Op::Wgsl { source, inputs, groups }, results })
}

fn inputs(at: &mut At<'_, '_, '_, '_>, node: &Node<'_>) -> Option<Vec<ArrayId>> {
    let Kind::List(items) = &node.kind else {
        mismatch(at.cx, node, "a list of names");
        return None;
    };
    // One more than may be is refused by the caller; a hundred thousand need not be looked at.
    items.iter().take(MAX_BINDINGS + 1).map(|item| at.array(item)).collect()
}

fn outputs(at: &mut At<'_, '_, '_, '_>, node: &Node<'_>) -> Option<Vec<ArrayId>> {
    let Kind::Map(entries) = &node.kind else {
        mismatch(at.cx, node, "a map from names to types and shapes, {\"c\": (F32, [3])}");
        return None;
    };
    if entries.is_empty() {
        at.cx.error_hint(node.span, "a shader needs an output", "for instance outputs: {\"c\": (F32, [3])}");
        return None;
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut results = Vec::new();
    for (key, value) in entries.iter().take(MAX_BINDINGS + 1) {
        at.cx.field = "outputs";
        let Kind::Str(name) = &key.kind else {
            mismatch(at.cx, key, "text: the name of a result");
            return None;
        };
        if !is_name(name) {
            bad_name(at.cx, name, key.span, "output");
            return None;
        }
        if seen.contains(&&**name) {
            at.cx.error(key.span, format!("duplicate output {}", quoted(name)));
            return None;
        }
        seen.push(name);
        let (dtype, shape) = typed(at.cx, value)?;
        results.push(at.part(name, dtype, shape)?);
    }
    Some(results)
}

/// `(F32, [3])`.
fn typed(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<(DType, Vec<u32>)> {
    let Kind::Tuple { name: None, items } = &node.kind else {
        mismatch(cx, node, "a type and a shape, (F32, [3])");
        return None;
    };
    let [first, second] = &items[..] else {
        mismatch(cx, node, "a type and a shape, (F32, [3])");
        return None;
    };
    Some((dtype(cx, first, &[DType::F32, DType::F64, DType::U32])?, shape(cx, second)?))
}

/// `(x, y, z)`.
fn groups(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<[u32; 3]> {
    if let Kind::Tuple { name: None, items } = &node.kind
        && let [x, y, z] = &items[..]
    {
        let mut one = |node| whole32(cx, node, 1, MAX_GROUPS);
        return Some([one(x)?, one(y)?, one(z)?]);
    }
    mismatch(cx, node, "three numbers of workgroups, (1, 1, 1)");
    None
}
