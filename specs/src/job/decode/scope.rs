//! The names of a job: which are known, which array each one is.
//!
//! Owns the rules of names and what is said about one that is not there.

use super::super::Array;
use super::super::ArrayId;
use super::super::DType;
use super::super::MAX_ELEMENTS;
use crate::decode::Cx;
use crate::decode::shape::closest;
use crate::diagnostics::quoted;
use crate::syntax::Span;
use std::borrow::Cow;
use std::collections::HashMap;

/// The longest name, in bytes: names are files.
const MAX_NAME: usize = 64;

/// How many names a hint lists.
const MAX_LISTED: usize = 12;

/// All arrays so far, and all names.
#[derive(Default)]
pub(super) struct Scope<'n> {
    pub(super) arrays: Vec<Array>,
    names: HashMap<Cow<'n, str>, Entry>,
}

struct Entry {
    /// Where it is written first.
    span: Span,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Declared; its input or step was not read yet.
    Later,
    /// It has a mistake, which was reported.
    Failed,
    Array(ArrayId),
    /// A step that gives several arrays, which have longer names.
    Several,
}

impl<'n> Scope<'n> {
    /// Takes a name for an input or a step; none when it cannot be one.
    pub(super) fn declare(
        &mut self,
        cx: &mut Cx<'_>,
        name: &'n str,
        span: Span,
        what: &'static str,
    ) -> Option<&'n str> {
        if !is_name(name) {
            bad_name(cx, name, span, what);
            return None;
        }
        if let Some(first) = self.names.get(name) {
            // Counting lines for each of many duplicates would be quadratic.
            let line = if cx.is_full() { 0 } else { 1 + cx.text[..first.span.start].matches('\n').count() };
            let hint =
                format!("it is first written in line {line}; inputs and steps each need a name of their own");
            cx.error_hint(span, format!("duplicate name {}", quoted(name)), hint);
            return None;
        }
        self.names.insert(Cow::Borrowed(name), Entry { span, state: State::Later });
        Some(name)
    }

    /// What `name` stands for has a mistake: uses of it are not mistakes of their own.
    pub(super) fn fail(&mut self, name: Option<&str>) {
        if let Some(entry) = name.and_then(|name| self.names.get_mut(name)) {
            entry.state = State::Failed;
        }
    }

    /// Adds an array; with `part`, it is one of several of a step. Reports one that is too large.
    pub(super) fn make(
        &mut self,
        cx: &mut Cx<'_>,
        span: Span,
        name: Option<&str>,
        part: Option<&str>,
        dtype: DType,
        shape: Vec<u32>,
    ) -> Option<ArrayId> {
        let elements = shape.iter().fold(1_u64, |product, length| product.saturating_mul((*length).into()));
        if elements > MAX_ELEMENTS {
            let message =
                format!("{shape:?} has more than {MAX_ELEMENTS} elements, the most that an array may have");
            cx.error(span, message);
            return None;
        }
        let id = ArrayId(u32::try_from(self.arrays.len()).ok()?);
        let mut full =
            String::with_capacity(name.map_or(0, str::len) + part.map_or(0, |part| part.len() + 1));
        if let Some(name) = name {
            full.push_str(name);
            if let Some(part) = part {
                full.push('.');
                full.push_str(part);
                self.names.insert(Cow::Owned(full.clone()), Entry { span, state: State::Array(id) });
            }
            if let Some(entry) = self.names.get_mut(name) {
                entry.state = if part.is_some() { State::Several } else { State::Array(id) };
            }
        }
        self.arrays.push(Array { name: full, dtype, shape });
        Some(id)
    }

    /// An array of this scope.
    pub(super) fn array(&self, id: ArrayId) -> &Array {
        &self.arrays[id.0 as usize]
    }

    /// The array of that name. Reports when there is none, unless that follows from another mistake.
    pub(super) fn find(&self, cx: &mut Cx<'_>, name: &str, span: Span) -> Option<ArrayId> {
        let step = || name.split_once('.').and_then(|(step, _)| self.names.get(step));
        match self.names.get(name).or_else(step).map(|entry| entry.state) {
            Some(State::Array(id)) if self.array(id).name == name => return Some(id),
            Some(State::Failed) => {}
            Some(State::Later) => {
                let message = format!("{} is not made yet", quoted(name));
                cx.error_hint(
                    span,
                    message,
                    "steps run in the order of the text: write its step before this one",
                );
            }
            Some(State::Several) if self.names.contains_key(name) => {
                let prefix = format!("{name}.");
                let parts = self.arrays.iter().filter(|array| array.name.starts_with(&prefix));
                let message = format!("{} gives several arrays", quoted(name));
                cx.error_hint(span, message, format!("name one of {}", listed(parts)));
            }
            Some(_) | None => self.unknown(cx, name, span),
        }
        None
    }

    fn unknown(&self, cx: &mut Cx<'_>, name: &str, span: Span) {
        let names = self.arrays.iter().map(|array| array.name.as_str());
        let hint = match closest(name, names.filter(|_| !cx.is_full())) {
            // A hundred thousand of these need no hint.
            None if cx.is_full() => String::new(),
            None if self.arrays.is_empty() => "there is no array before this".to_owned(),
            None => format!("the arrays before this are {}", listed(self.arrays.iter())),
            Some(close) => format!("did you mean `{close}`?"),
        };
        cx.error_hint(span, format!("there is no array {}", quoted(name)), hint);
    }
}

/// Whether inputs, steps and results of `Wgsl` may be called that.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

pub(super) fn bad_name(cx: &mut Cx<'_>, name: &str, span: Span, what: &'static str) {
    let message = format!("{} cannot be the name of an {what}", quoted(name));
    let message = if what == "step" { message.replace("an step", "a step") } else { message };
    let hint =
        format!("a name begins with a letter a-z; letters, digits and `_` follow, at most {MAX_NAME} in all");
    cx.error_hint(span, message, hint);
}

/// An array as messages show it: `a` f32 [2, 3].
pub(super) fn shown(array: &Array) -> String {
    format!("`{}` {} {:?}", array.name, array.dtype.name(), array.shape)
}

fn listed<'a>(mut arrays: impl Iterator<Item = &'a Array>) -> String {
    let names: Vec<_> = arrays.by_ref().take(MAX_LISTED).map(|array| array.name.as_str()).collect();
    let more = if arrays.next().is_some() { ", ..." } else { "" };
    format!("{}{more}", names.join(", "))
}
