//! From the text of a job to its value.
//!
//! Owns the fields of a job, and what follows the text. It goes on after a mistake, so that all independent ones are
//! reported at once, and formats nothing while there is none: a small job is read in microseconds.

mod arrays;
mod call;
mod families;
mod ops;
mod scope;
mod shaders;

use super::Array;
use super::ArrayId;
use super::Fallback;
use super::Job;
use super::MAX_INPUTS;
use super::MAX_STEPS;
use super::MAX_TEXT;
use super::Op;
use super::Parsed;
use super::Reply;
use super::Source;
use super::Step;
use crate::decode::Cx;
use crate::decode::after_mark;
use crate::decode::alone;
use crate::decode::decode_utf8;
use crate::decode::shape::Fields;
use crate::decode::shape::mismatch;
use crate::decode::shape::variant;
use crate::diagnostics::Diagnostics;
use crate::diagnostics::quoted;
use crate::quantity::parse_duration;
use crate::syntax::Document;
use crate::syntax::Kind;
use crate::syntax::MAX_VALUES;
use crate::syntax::Node;
use crate::syntax::Span;
use crate::syntax::parse_document;
use scope::Scope;
use std::ffi::CStr;
use std::ops::Range;
use std::time::Duration;

/// The job, for messages.
const WHAT: &str = "a job";

/// A smallest job, for hints.
const SMALLEST: &str = "(inputs: {\"a\": F32([1, 2])}, op: Exp(\"a\"))";

/// The name of what `op` gives.
const SINGLE: &str = "out";

/// Parses and checks a job.
///
/// # Errors
/// Every mistake with its place; a syntax error alone. The bytes may be anything at all: time and memory are linear in
/// the length of the text, which is at most [`MAX_TEXT`], and do not depend on what follows it.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Diagnostics> {
    let (text, after) = split(bytes)?;
    read(text, |cx, job, inputs| {
        let raw = raw(cx, &job.arrays, &inputs, after)?;
        Some(Parsed { job, data: inputs.data, raw })
    })
}

/// How many bytes must follow the NUL byte after the text of a job, which may be there or not.
///
/// # Errors
/// Like [`parse`].
pub fn raw_bytes(text: &[u8]) -> Result<u64, Diagnostics> {
    let (text, _) = split(text)?;
    read(text, |_, _, inputs| Some(inputs.raw.map_or(0, |(bytes, _)| bytes)))
}

/// Reads a text, and with it what `finish` makes of the job.
fn read<T>(
    text: &[u8],
    finish: impl FnOnce(&mut Cx<'_>, Job, Inputs) -> Option<T>,
) -> Result<T, Diagnostics> {
    let text = decode_utf8(text)?;
    let document = Document { noun: "job", smallest: SMALLEST, max_values: MAX_VALUES, numbers: true };
    let node = parse_document(text, after_mark(text), document)
        .map_err(|error| alone(text, error.span, error.message, error.hint))?;
    let mut cx = Cx::new(text, WHAT);
    let made = job(&mut cx, &node).and_then(|(job, inputs)| finish(&mut cx, job, inputs));
    match made {
        Some(made) if cx.findings.is_empty() => Ok(made),
        _ => {
            debug_assert!(!cx.findings.is_empty(), "a part failed without a finding");
            Err(cx.findings.locate(text))
        }
    }
}

/// The text, and where the bytes are that follow the NUL byte after it.
fn split(bytes: &[u8]) -> Result<(&[u8], Option<Range<usize>>), Diagnostics> {
    let head = &bytes[..bytes.len().min(MAX_TEXT + 1)];
    if let Ok(text) = CStr::from_bytes_until_nul(head) {
        return Ok((text.to_bytes(), Some(text.count_bytes() + 1..bytes.len())));
    }
    if head.len() > MAX_TEXT {
        let message = format!("the text of a job may have at most {MAX_TEXT} bytes");
        let hint =
            "give large arrays as `Raw`, after a NUL byte that ends the text, or as `Upload`".to_owned();
        return Err(alone("", Span { start: 0, end: 0 }, message, Some(hint)));
    }
    Ok((bytes, None))
}

/// The inputs while they are read.
#[derive(Default)]
struct Inputs {
    sources: Vec<Source>,
    data: Vec<Option<Vec<u8>>>,
    /// Bytes of all Raw inputs, and where the first of them stands.
    raw: Option<(u64, Span)>,
}

fn job(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<(Job, Inputs)> {
    let mut fields = Fields::open(cx, node, "Job", WHAT)?;
    let mut scope = Scope::default();
    let (inputs, steps) = work(cx, &mut fields, &mut scope);
    let default = steps.last().map(|step| step.results.clone()).unwrap_or_default();
    let outputs = fields.or(cx, "outputs", default, |cx, node| outputs(cx, &scope, node));

    let deadline = fields.or(cx, "deadline", Job::DEFAULT_DEADLINE, deadline);
    let priority = fields.or(cx, "priority", 0, priority);
    let fallback = fields.or(cx, "fallback", Fallback::default(), fallback);
    let reply = fields.or(cx, "reply", Reply::default(), reply);
    if fallback == Some(Fallback::Allow) && steps.iter().any(|step| matches!(step.op, Op::Wgsl { .. })) {
        let message = "`fallback: Allow` cannot be: the CPU does not run `Wgsl`";
        cx.error_hint(fields.span_of("fallback"), message, "leave `fallback` out");
    }
    fields.finish(cx);
    let job = Job {
        arrays: scope.arrays,
        inputs: inputs.sources.clone(),
        steps,
        outputs: outputs?,
        deadline: deadline?,
        priority: priority?,
        fallback: fallback?,
        reply: reply?,
    };
    Some((job, inputs))
}

/// Inputs and steps. Of those that have mistakes, only the names are known afterwards.
fn work<'n>(cx: &mut Cx<'_>, fields: &mut Fields<'n, '_>, scope: &mut Scope<'n>) -> (Inputs, Vec<Step>) {
    let input_nodes = fields.or(cx, "inputs", &[][..], |cx, node| entries(cx, node, MAX_INPUTS));
    let op = fields.opt(cx, "op", |_, node| Some(node)).flatten();
    let step_nodes = fields.or(cx, "steps", &[][..], |cx, node| entries(cx, node, MAX_STEPS));
    let (input_nodes, step_nodes) = (input_nodes.unwrap_or_default(), step_nodes.unwrap_or_default());
    if op.is_some() && !step_nodes.is_empty() {
        cx.error(fields.span_of("op"), "a job has either `steps` or `op`, not both");
    } else if op.is_none() && step_nodes.is_empty() && cx.findings.is_empty() {
        let hint = format!("the smallest job is {SMALLEST}");
        cx.error_hint(fields.span(), "the job does nothing: it needs `steps` or `op`", hint);
    }
    let input_names = declare(cx, scope, "input", input_nodes);
    let step_names = declare(cx, scope, "step", step_nodes);
    let single = op.map(|op| (scope.declare(cx, SINGLE, op.span, "step"), op));

    let mut inputs = Inputs::default();
    for ((_, node), name) in input_nodes.iter().zip(input_names) {
        input(cx, scope, &mut inputs, name, node);
    }
    let named = step_nodes.iter().zip(step_names).map(|((_, node), name)| (name, node));
    let mut steps = Vec::with_capacity(step_nodes.len() + usize::from(single.is_some()));
    for (name, node) in single.into_iter().chain(named) {
        match ops::step(cx, scope, name, node) {
            Some(step) => steps.push(step),
            None => scope.fail(name),
        }
    }
    (inputs, steps)
}

/// A map in the text's order, with a limit.
fn entries<'n, 's>(cx: &mut Cx<'_>, node: &'n Node<'s>, max: usize) -> Option<&'n [(Node<'s>, Node<'s>)]> {
    let Kind::Map(entries) = &node.kind else {
        let wanted = match cx.field {
            "steps" => "a map from names to operations, {\"NAME\": Add(\"a\", \"b\")}",
            _ => "a map from names to arrays, {\"NAME\": F32([1, 2])}",
        };
        mismatch(cx, node, wanted);
        return None;
    };
    if let Some((key, _)) = entries.get(max) {
        cx.error(key.span, format!("a job may have at most {max} {}", cx.field));
        return None;
    }
    Some(entries)
}

/// The names of all entries; of those that cannot be used there is none.
fn declare<'n>(
    cx: &mut Cx<'_>,
    scope: &mut Scope<'n>,
    what: &'static str,
    entries: &'n [(Node<'_>, Node<'_>)],
) -> Vec<Option<&'n str>> {
    let name = |(key, _): &'n (Node<'_>, Node<'_>)| match &key.kind {
        Kind::Str(text) => scope.declare(cx, text, key.span, what),
        _ => {
            cx.field = "name";
            mismatch(cx, key, "text");
            None
        }
    };
    entries.iter().map(name).collect()
}

fn input(cx: &mut Cx<'_>, scope: &mut Scope<'_>, inputs: &mut Inputs, name: Option<&str>, node: &Node<'_>) {
    let made = arrays::input(cx, node).and_then(|input| {
        scope.make(cx, node.span, name, None, input.dtype, input.shape)?;
        Some((input.source, input.data))
    });
    let Some((source, data)) = made else {
        scope.fail(name);
        return;
    };
    if source == Source::Raw {
        let bytes = scope.arrays.last().map_or(0, Array::bytes);
        let (sum, first) = inputs.raw.unwrap_or((0, node.span));
        inputs.raw = Some((sum + bytes, first));
    }
    inputs.sources.push(source);
    inputs.data.push(data);
}

fn outputs(cx: &mut Cx<'_>, scope: &Scope<'_>, node: &Node<'_>) -> Option<Vec<ArrayId>> {
    let Kind::List(items) = &node.kind else {
        mismatch(cx, node, "a list of names");
        return None;
    };
    if items.is_empty() {
        cx.error_hint(node.span, "a job needs an output", "left out, it is what the last step gives");
        return None;
    }
    let mut seen = vec![false; scope.arrays.len()];
    let mut good = true;
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        cx.field = "outputs";
        let found = match &item.kind {
            Kind::Str(text) => scope.find(cx, text, item.span),
            _ => {
                mismatch(cx, item, "text: the name of an array");
                None
            }
        };
        match found {
            Some(id) if std::mem::replace(&mut seen[id.0 as usize], true) => {
                cx.error(item.span, format!("duplicate output {}", quoted(&scope.array(id).name)));
                good = false;
            }
            Some(id) => out.push(id),
            None => good = false,
        }
    }
    good.then_some(out)
}

fn deadline(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Duration> {
    let Kind::Str(text) = &node.kind else {
        mismatch(cx, node, "text: a duration like \"10s\"");
        return None;
    };
    match parse_duration(text) {
        Ok(value) if value > Duration::ZERO && value <= Job::MAX_DEADLINE => return Some(value),
        Ok(_) => {
            let message = format!("`deadline` must be from 1ms to 1d, not {}", quoted(text));
            cx.error(node.span, message);
        }
        Err(error) => cx.error(node.span, error.to_string()),
    }
    None
}

fn priority(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<i8> {
    let Kind::Int { negative, magnitude } = node.kind else {
        mismatch(cx, node, "a whole number");
        return None;
    };
    match i8::try_from(magnitude) {
        Ok(value) if value <= 100 => Some(if negative { -value } else { value }),
        _ => {
            let message = format!("`priority` must be from -100 to 100, not {}", quoted(cx.written(node)));
            cx.error(node.span, message);
            None
        }
    }
}

fn fallback(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Fallback> {
    let found = variant(cx, node, "a fallback", &["Forbid", "Allow"])?;
    let value = if found.name == "Allow" { Fallback::Allow } else { Fallback::Forbid };
    found.unit(cx, value)
}

fn reply(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Reply> {
    let found = variant(cx, node, "a reply", &["Id", "Text", "Raw"])?;
    let value = match found.name {
        "Text" => Reply::Text,
        "Raw" => Reply::Raw,
        _ => Reply::Id,
    };
    found.unit(cx, value)
}

/// Checks what follows the text against the Raw inputs. The outer `None` says that it does not fit.
#[expect(clippy::option_option, reason = "failed and absent are different: one was reported")]
fn raw(
    cx: &mut Cx<'_>,
    arrays: &[Array],
    inputs: &Inputs,
    after: Option<Range<usize>>,
) -> Option<Option<Range<usize>>> {
    let given = after.as_ref().map_or(0, |range| range.len() as u64);
    let Some((needed, span)) = inputs.raw else {
        if given == 0 || !cx.findings.is_empty() {
            return Some(None);
        }
        let end = cx.text.len();
        let message = format!("{given} bytes follow the NUL byte after the text, and no input is `Raw`");
        cx.error(Span { start: end, end }, message);
        return None;
    };
    if needed == given && after.is_some() {
        return Some(after);
    }
    if cx.findings.is_empty() {
        let list: Vec<_> = arrays
            .iter()
            .zip(&inputs.sources)
            .filter(|(_, source)| **source == Source::Raw)
            .take(8)
            .map(|(array, _)| format!("{} has {}", scope::shown(array), array.bytes()))
            .collect();
        let message = match after {
            Some(_) => {
                format!("the Raw inputs have {needed} bytes, and {given} follow the NUL byte after the text")
            }
            None => format!("the Raw inputs have {needed} bytes, and no NUL byte ends the text before them"),
        };
        cx.error_hint(span, message, list.join(", "));
    }
    None
}
