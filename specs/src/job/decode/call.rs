//! `Name(a, b)` and `Name(x: a, y: b)`: the one form of operations, families and inputs.
//!
//! Owns the matching of values with parameters. Values are written in the order of the parameters, or all by name.

use crate::decode::Cx;
use crate::decode::shape::closest;
use crate::decode::shape::found;
use crate::decode::shape::hint_for;
use crate::diagnostics::quoted;
use crate::syntax::Field;
use crate::syntax::Kind;
use crate::syntax::Name;
use crate::syntax::Node;
use crate::syntax::Span;

/// The most parameters that anything has.
const MAX_PARAMS: usize = 6;

/// What can be called.
#[derive(Clone, Copy)]
pub(super) struct Signature {
    /// As it is written.
    pub(super) name: &'static str,
    /// Its parameters in their order.
    pub(super) params: &'static [&'static str],
    /// How many of them must be given; the others follow.
    pub(super) required: usize,
}

/// A call while it is read.
pub(super) struct Call<'n, 's> {
    /// What is called.
    pub(super) name: &'static str,
    /// The whole call.
    pub(super) span: Span,
    params: &'static [&'static str],
    values: Values<'n, 's>,
}

impl<'n, 's> Call<'n, 's> {
    /// The value of a parameter. Those that are required are there. Messages name it.
    pub(super) fn get(&self, cx: &mut Cx<'_>, index: usize) -> Option<&'n Node<'s>> {
        cx.field = self.params[index];
        self.values[index]
    }
}

/// Reads a call of something that `find` knows and `names` lists. `what` is `an operation`.
pub(super) fn call<'n, 's, T>(
    cx: &mut Cx<'_>,
    node: &'n Node<'s>,
    what: &str,
    find: impl Fn(&str) -> Option<(T, Signature)>,
    names: impl Fn() -> Vec<&'static str>,
) -> Option<(T, Call<'n, 's>)> {
    let (Kind::Tuple { name: Some(name), .. } | Kind::Struct { name: Some(name), .. } | Kind::Ident(name)) =
        &node.kind
    else {
        let message = format!("expected {what}, found {}", found(cx, node));
        cx.error_hint(node.span, message, format!("one of {}", names().join(", ")));
        return None;
    };
    let Some((which, signature)) = find(name.text) else {
        unknown(cx, *name, what, &names());
        return None;
    };
    let values = match &node.kind {
        Kind::Struct { fields, .. } => by_name(cx, signature, fields)?,
        Kind::Tuple { items, .. } => in_order(cx, signature, node.span, items)?,
        _ => [None; MAX_PARAMS],
    };
    let missing = (0..signature.required).find(|index| values[*index].is_none());
    if let Some(index) = missing {
        let message = format!("`{}` needs `{}`", signature.name, signature.params[index]);
        cx.error_hint(node.span, message, usage(signature));
        return None;
    }
    let Signature { name, params, .. } = signature;
    Some((which, Call { name, span: node.span, params, values }))
}

type Values<'n, 's> = [Option<&'n Node<'s>>; MAX_PARAMS];

fn in_order<'n, 's>(
    cx: &mut Cx<'_>,
    signature: Signature,
    span: Span,
    items: &'n [Node<'s>],
) -> Option<Values<'n, 's>> {
    let (name, most) = (signature.name, signature.params.len());
    if items.len() > most {
        let message = format!("`{name}` takes at most {most} values, not {}", items.len());
        cx.error_hint(span, message, usage(signature));
        return None;
    }
    let mut values = [None; MAX_PARAMS];
    for (slot, item) in values.iter_mut().zip(items) {
        *slot = Some(item);
    }
    Some(values)
}

fn by_name<'n, 's>(cx: &mut Cx<'_>, signature: Signature, fields: &'n [Field<'s>]) -> Option<Values<'n, 's>> {
    let mut values = [None; MAX_PARAMS];
    for field in fields {
        let name = field.name.text;
        let Some(index) = signature.params.iter().position(|param| *param == name) else {
            let hint = hint_for(cx, name, signature.params, "its fields are");
            let message = format!("unknown field {} in `{}`", quoted(name), signature.name);
            cx.error_hint(field.name.span, message, hint);
            return None;
        };
        if values[index].replace(&field.value).is_some() {
            let message = format!("`{}` has {} twice", signature.name, quoted(name));
            cx.error_hint(field.name.span, message, "write each field once");
            return None;
        }
    }
    Some(values)
}

fn unknown(cx: &mut Cx<'_>, name: Name<'_>, what: &str, names: &[&'static str]) {
    // NumPy's and others' words for what we have.
    let other = match name.text.to_ascii_lowercase().as_str() {
        "matrixproduct" | "dot" | "mm" => Some("Matmul"),
        "reducesum" => Some("Sum"),
        "reciprocal" => Some("Recip"),
        "maximum" => Some("Max"),
        "minimum" => Some("Min"),
        "subtract" => Some("Sub"),
        "multiply" => Some("Mul"),
        "divide" => Some("Div"),
        "power" => Some("Pow"),
        "float" | "float32" | "single" => Some("F32"),
        "double" | "float64" => Some("F64"),
        "uint32" => Some("U32"),
        _ => None,
    };
    let hint = match other.filter(|other| names.contains(other)) {
        _ if cx.is_full() => String::new(),
        Some(other) => format!("did you mean `{other}`?"),
        None => match closest(name.text, names.iter().copied()) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("one of {}", names.join(", ")),
        },
    };
    cx.error_hint(name.span, format!("{} is not {what}", quoted(name.text)), hint);
}

/// `it is written Sum(a, axis); axis may be left out`.
fn usage(signature: Signature) -> String {
    let written = format!("it is written {}({})", signature.name, signature.params.join(", "));
    match &signature.params[signature.required..] {
        [] => written,
        optional => format!("{written}; {} may be left out", optional.join(", ")),
    }
}
