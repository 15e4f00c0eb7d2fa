//! Shapes: struct, variant, list, map, option, and the plain values inside them.
//!
//! Owns what is said when a value has the wrong shape, a field or variant is unknown, missing or written twice.
//! Knows no field of any spec.

use super::Cx;
use crate::diagnostics::quoted;
use crate::syntax::Field;
use crate::syntax::Kind;
use crate::syntax::Node;
use crate::syntax::Span;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt::Display;

/// Texts longer than this are not compared with known names, nor repeated in hints.
const MAX_SUGGESTED: usize = 64;

/// The known name that is closest to a mistyped one, if any is close.
pub(crate) fn closest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if text.len() > MAX_SUGGESTED {
        return None;
    }
    let limit = (text.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|name| name.len() <= MAX_SUGGESTED)
        .map(|name| {
            let folded = strsim::osa_distance(&text.to_lowercase(), &name.to_lowercase());
            (strsim::osa_distance(text, name).min(folded), name)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The hint for a mistyped name.
pub(crate) fn hint_for(cx: &Cx<'_>, text: &str, known: &[&str], all: &str) -> String {
    if cx.is_full() {
        return String::new();
    }
    match closest(text, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => format!("{all}: none"),
        None => format!("{all}: {}", known.join(", ")),
    }
}

/// What a value is, with its text when that is short.
pub(crate) fn found(cx: &Cx<'_>, node: &Node<'_>) -> String {
    match &node.kind {
        Kind::Int { .. } | Kind::Float(_) => format!("the number {}", quoted(cx.written(node))),
        Kind::Bool(_) | Kind::Ident(_) => quoted(cx.written(node)),
        Kind::Str(text) => format!("the text {}", quoted(&format!("\"{text}\""))),
        kind => kind.describe().to_owned(),
    }
}

/// Reports that `node` is not what its field wants.
pub(crate) fn mismatch(cx: &mut Cx<'_>, node: &Node<'_>, wanted: &str) {
    let message = format!("`{}` must be {wanted}, not {}", cx.field, found(cx, node));
    // Hints repeat the value, so that it can be copied; a long one is no mistake of quoting.
    let short = node.span.end - node.span.start <= MAX_SUGGESTED;
    let is_scalar = !matches!(node.kind, Kind::Map(_) | Kind::Struct { .. } | Kind::Tuple { .. });
    let hint = match &node.kind {
        _ if is_scalar && !short => None,
        Kind::Int { .. } | Kind::Float(_) | Kind::Bool(_) | Kind::Ident(_) if wanted.starts_with("text") => {
            Some(format!("write it in quotes: \"{}\"", cx.written(node)))
        }
        Kind::Char(c) if wanted.starts_with("text") => Some(format!("use double quotes: \"{c}\"")),
        Kind::Str(text) if wanted.contains("number") || wanted.starts_with("true") => {
            let plain = text.parse::<f64>().is_ok() || matches!(&**text, "true" | "false");
            plain.then(|| format!("write it without quotes: {text}"))
        }
        Kind::Map(_) if wanted.starts_with("a struct") => {
            Some("structs are written `(field: value)`, maps `{\"key\": value}`".to_owned())
        }
        Kind::Struct { .. } | Kind::Tuple { .. } if wanted.starts_with("a map") => {
            Some("maps are written `{\"key\": value}`".to_owned())
        }
        _ if wanted.starts_with("a list") => {
            Some("lists are written `[a, b]`, also for one element".to_owned())
        }
        _ => None,
    };
    cx.findings.push(node.span, message, hint);
}

/// Takes `Some(..)` off a value. Specs need not write it.
fn unwrap_some<'n, 's>(node: &'n Node<'s>) -> &'n Node<'s> {
    match &node.kind {
        Kind::Tuple { name: Some(name), items } if name.text == "Some" && items.len() == 1 => &items[0],
        _ => node,
    }
}

/// The fields of a struct or of a variant with fields, while they are read.
pub(crate) struct Fields<'n, 's> {
    /// What they belong to, for messages: `an app`.
    what: &'static str,
    span: Span,
    list: Vec<(&'s str, Span, &'n Node<'s>)>,
    asked: Vec<&'static str>,
}

impl<'n, 's> Fields<'n, 's> {
    /// The fields of a struct that may be written with its type's name. Reports anything else.
    pub(crate) fn open(
        cx: &mut Cx<'_>,
        node: &'n Node<'s>,
        type_name: &'static str,
        what: &'static str,
    ) -> Option<Self> {
        let (name, fields): (_, &[Field<'s>]) = match &node.kind {
            Kind::Struct { name, fields } => (name, fields),
            Kind::Tuple { name, items } if items.is_empty() => (name, &[]),
            _ => {
                mismatch(cx, node, &format!("a struct ({what})"));
                return None;
            }
        };
        if let Some(name) = name
            && name.text != type_name
        {
            cx.error_hint(
                name.span,
                format!("{what} is written `(..)` or `{type_name}(..)`, not {}", quoted(name.text)),
                format!("did you mean `{type_name}`?"),
            );
        }
        Some(Fields::from_list(cx, what, node.span, fields))
    }

    fn from_list(cx: &mut Cx<'_>, what: &'static str, span: Span, fields: &'n [Field<'s>]) -> Self {
        let mut seen: HashMap<&str, Span> = HashMap::new();
        let mut list = Vec::with_capacity(fields.len());
        for field in fields {
            match seen.insert(field.name.text, field.name.span) {
                None => list.push((field.name.text, field.name.span, &field.value)),
                Some(_) => cx.error_hint(
                    field.name.span,
                    format!("duplicate field {} in {what}", quoted(field.name.text)),
                    "write each field once",
                ),
            }
        }
        Fields { what, span, list, asked: Vec::new() }
    }

    fn get(&mut self, cx: &mut Cx<'_>, field: &'static str) -> Option<&'n Node<'s>> {
        self.asked.push(field);
        cx.field = field;
        self.list.iter().find(|(name, ..)| *name == field).map(|(.., node)| *node)
    }

    /// Where all of it is.
    pub(crate) fn span(&self) -> Span {
        self.span
    }

    /// Where a field's value is, or the whole struct when it is absent.
    pub(crate) fn span_of(&self, field: &str) -> Span {
        self.list.iter().find(|(name, ..)| *name == field).map_or(self.span, |(.., node)| node.span)
    }

    /// An optional field. The outer `None` says that it failed and was reported.
    #[expect(clippy::option_option, reason = "failed and absent are different: one was reported")]
    pub(crate) fn opt<T>(
        &mut self,
        cx: &mut Cx<'_>,
        field: &'static str,
        decode: impl FnOnce(&mut Cx<'_>, &'n Node<'s>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.get(cx, field) {
            None => Some(None),
            Some(node) if matches!(&node.kind, Kind::Ident(name) if name.text == "None") => Some(None),
            Some(node) => decode(cx, unwrap_some(node)).map(Some),
        }
    }

    /// A field with a default.
    pub(crate) fn or<T>(
        &mut self,
        cx: &mut Cx<'_>,
        field: &'static str,
        default: T,
        decode: impl FnOnce(&mut Cx<'_>, &'n Node<'s>) -> Option<T>,
    ) -> Option<T> {
        match self.get(cx, field) {
            None => Some(default),
            Some(node) => decode(cx, node),
        }
    }

    /// A field that must be there.
    pub(crate) fn req<T>(
        &mut self,
        cx: &mut Cx<'_>,
        field: &'static str,
        decode: impl FnOnce(&mut Cx<'_>, &'n Node<'s>) -> Option<T>,
    ) -> Option<T> {
        let Some(node) = self.get(cx, field) else {
            let start = self.span.start;
            let span = Span { start, end: start + 1 };
            cx.error(span, format!("{} needs the field `{field}`", self.what));
            return None;
        };
        decode(cx, node)
    }

    /// Reports the fields that nothing asked for.
    pub(crate) fn finish(self, cx: &mut Cx<'_>) {
        for (name, span, _) in &self.list {
            if !self.asked.contains(name) {
                let hint = hint_for(cx, name, &self.asked, "its fields are");
                cx.error_hint(*span, format!("unknown field {} in {}", quoted(name), self.what), hint);
            }
        }
    }
}

/// A variant of an enum, while it is read.
pub(crate) struct Variant<'n, 's> {
    pub(crate) name: &'s str,
    pub(crate) span: Span,
    body: Body<'n, 's>,
}

#[derive(Clone, Copy)]
enum Body<'n, 's> {
    Unit,
    Items(&'n [Node<'s>]),
    Fields(&'n [Field<'s>]),
}

/// Reads one of the variants `known`. Reports anything else.
pub(crate) fn variant<'n, 's>(
    cx: &mut Cx<'_>,
    node: &'n Node<'s>,
    what: &'static str,
    known: &[&'static str],
) -> Option<Variant<'n, 's>> {
    let (name, body) = match &node.kind {
        Kind::Ident(name) => (*name, Body::Unit),
        Kind::Tuple { name: Some(name), items } => (*name, Body::Items(items)),
        Kind::Struct { name: Some(name), fields } => (*name, Body::Fields(fields)),
        Kind::Str(text) if known.contains(&&**text) => {
            let message = format!("`{}` must be {what}, not text in quotes", cx.field);
            cx.error_hint(node.span, message, format!("write it without quotes: {text}"));
            return None;
        }
        _ => {
            let wanted = format!("{what} ({})", known.join(", "));
            mismatch(cx, node, &wanted);
            return None;
        }
    };
    if !known.contains(&name.text) {
        let hint = hint_for(cx, name.text, known, "one of");
        cx.error_hint(name.span, format!("{} is not {what}", quoted(name.text)), hint);
        return None;
    }
    Some(Variant { name: name.text, span: node.span, body })
}

impl<'n, 's> Variant<'n, 's> {
    /// A variant without values.
    pub(crate) fn unit<T>(&self, cx: &mut Cx<'_>, value: T) -> Option<T> {
        match self.body {
            Body::Unit | Body::Items([]) => Some(value),
            _ => {
                cx.error_hint(
                    self.span,
                    format!("`{}` takes no values", self.name),
                    format!("write `{}`", self.name),
                );
                None
            }
        }
    }

    /// A variant with exactly one value.
    pub(crate) fn one(&self, cx: &mut Cx<'_>, example: &str) -> Option<&'n Node<'s>> {
        match self.body {
            Body::Items([node]) => Some(node),
            _ => self.wrong(cx, "one value", example),
        }
    }

    /// Reads the value of a variant with exactly one.
    pub(crate) fn only<T>(
        &self,
        cx: &mut Cx<'_>,
        example: &str,
        decode: impl FnOnce(&mut Cx<'_>, &'n Node<'s>) -> Option<T>,
    ) -> Option<T> {
        let node = self.one(cx, example)?;
        decode(cx, node)
    }

    /// A variant with exactly two values.
    pub(crate) fn two(&self, cx: &mut Cx<'_>, example: &str) -> Option<(&'n Node<'s>, &'n Node<'s>)> {
        match self.body {
            Body::Items([a, b]) => Some((a, b)),
            _ => self.wrong(cx, "two values", example),
        }
    }

    fn wrong<T>(&self, cx: &mut Cx<'_>, wanted: &str, example: &str) -> Option<T> {
        cx.error_hint(
            self.span,
            format!("`{}` takes {wanted}", self.name),
            format!("for instance `{}({example})`", self.name),
        );
        None
    }

    /// A variant with fields: `Name`, `Name()`, `Name(field: v)` or `Name((field: v))`. With `main`, also
    /// `Name(v)` for a single value that is that field.
    pub(crate) fn fields(
        &self,
        cx: &mut Cx<'_>,
        what: &'static str,
        main: Option<&'static str>,
    ) -> Option<Fields<'n, 's>> {
        match (self.body, main) {
            (Body::Unit | Body::Items([]), _) => Some(Fields::from_list(cx, what, self.span, &[])),
            (Body::Fields(fields), _) => Some(Fields::from_list(cx, what, self.span, fields)),
            (Body::Items([Node { kind: Kind::Struct { name: None, fields }, span }]), None) => {
                Some(Fields::from_list(cx, what, *span, fields))
            }
            (Body::Items([node]), Some(main)) => {
                Some(Fields { what, span: self.span, list: vec![(main, node.span, node)], asked: Vec::new() })
            }
            (Body::Items(_), _) => {
                cx.error_hint(
                    self.span,
                    format!("{what} takes named fields"),
                    format!("for instance `{}(field: value)`", self.name),
                );
                None
            }
        }
    }
}

/// A list whose elements `item` reads.
pub(crate) fn list<T>(
    cx: &mut Cx<'_>,
    node: &Node<'_>,
    mut item: impl FnMut(&mut Cx<'_>, &Node<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let Kind::List(items) = &node.kind else {
        mismatch(cx, node, "a list");
        return None;
    };
    let field = cx.field;
    let mut good = true;
    let mut out = Vec::with_capacity(items.len());
    for element in items {
        cx.field = field;
        match item(cx, element) {
            Some(value) => out.push(value),
            None => good = false,
        }
    }
    good.then_some(out)
}

/// Like [`list`]; an element that is there twice is a mistake.
pub(crate) fn set<T: Ord + Clone + Display>(
    cx: &mut Cx<'_>,
    node: &Node<'_>,
    mut item: impl FnMut(&mut Cx<'_>, &Node<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut seen = std::collections::BTreeSet::new();
    list(cx, node, |cx, element| {
        let value = item(cx, element)?;
        if !seen.insert(value.clone()) {
            let message = format!("duplicate {} in `{}`", quoted(&value.to_string()), cx.field);
            cx.error(element.span, message);
            return None;
        }
        Some(value)
    })
}

/// A map. A key that is there twice is a mistake. `value` is told the key, unless that failed.
pub(crate) fn map<K: Ord + Clone + Display, V>(
    cx: &mut Cx<'_>,
    node: &Node<'_>,
    what: &str,
    mut key: impl FnMut(&mut Cx<'_>, &Node<'_>) -> Option<K>,
    mut value: impl FnMut(&mut Cx<'_>, Option<&K>, &Node<'_>) -> Option<V>,
) -> Option<BTreeMap<K, V>> {
    let Kind::Map(entries) = &node.kind else {
        mismatch(cx, node, &format!("a map from {what} to value"));
        return None;
    };
    let field = cx.field;
    let mut good = true;
    let mut seen: BTreeMap<K, Span> = BTreeMap::new();
    let mut out = BTreeMap::new();
    for (key_node, value_node) in entries {
        cx.field = field;
        let name = key(cx, key_node);
        if let Some(name) = &name
            && let Some(first) = seen.insert(name.clone(), key_node.span)
        {
            let message = format!("duplicate {what} {}", quoted(&name.to_string()));
            // Counting lines for each of a hundred thousand duplicates would be quadratic.
            let line = if cx.is_full() { 0 } else { 1 + cx.text[..first.start].matches('\n').count() };
            let hint = format!("it is first written in line {line}; the two must be one");
            cx.error_hint(key_node.span, message, hint);
            good = false;
        }
        cx.field = field;
        match (value(cx, name.as_ref(), value_node), name) {
            (Some(value), Some(name)) => {
                out.insert(name, value);
            }
            _ => good = false,
        }
    }
    good.then_some(out)
}

/// `true` or `false`.
pub(crate) fn boolean(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<bool> {
    match node.kind {
        Kind::Bool(value) => Some(value),
        _ => {
            mismatch(cx, node, "true or false");
            None
        }
    }
}

/// Any text.
pub(crate) fn text(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    match &node.kind {
        Kind::Str(text) => Some(text.clone().into_owned()),
        _ => {
            mismatch(cx, node, "text");
            None
        }
    }
}

/// A whole number in a range.
pub(crate) fn whole(cx: &mut Cx<'_>, node: &Node<'_>, min: u64, max: u64) -> Option<u64> {
    match node.kind {
        Kind::Int { negative, magnitude }
            if (!negative || magnitude == 0) && (min..=max).contains(&magnitude) =>
        {
            Some(magnitude)
        }
        Kind::Int { .. } => {
            let message = format!(
                "`{}` must be a number from {min} to {max}, not {}",
                cx.field,
                quoted(cx.written(node))
            );
            cx.error(node.span, message);
            None
        }
        _ => {
            mismatch(cx, node, "a whole number");
            None
        }
    }
}

/// The same for 32 bits; `max` is usually `u32::MAX`.
pub(crate) fn whole32(cx: &mut Cx<'_>, node: &Node<'_>, min: u32, max: u32) -> Option<u32> {
    whole(cx, node, min.into(), max.into()).and_then(|n| u32::try_from(n).ok())
}

/// A number above zero.
pub(crate) fn positive(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "numbers above 2^53 lose digits in every f64")]
    let value = match node.kind {
        Kind::Int { negative: false, magnitude } => magnitude as f64,
        Kind::Float(value) => value,
        Kind::Int { .. } => 0.0,
        _ => {
            mismatch(cx, node, "a number");
            return None;
        }
    };
    if value > 0.0 {
        return Some(value);
    }
    let message = format!("`{}` must be larger than 0, not {}", cx.field, quoted(cx.written(node)));
    cx.error(node.span, message);
    None
}
