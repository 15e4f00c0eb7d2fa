//! Inputs: types, shapes, and arrays that are written out.
//!
//! Owns the way from decimal digits to little-endian bytes: each number is rounded once, to its own type.

use super::super::DType;
use super::super::MAX_RANK;
use super::super::Source;
use super::call::Signature;
use super::call::call;
use crate::decode::Cx;
use crate::decode::shape::found;
use crate::decode::shape::hint_for;
use crate::decode::shape::mismatch;
use crate::decode::shape::whole32;
use crate::diagnostics::quoted;
use crate::syntax::Kind;
use crate::syntax::Node;
use crate::syntax::Span;

/// An input as it is written.
pub(super) struct Input {
    pub(super) dtype: DType,
    pub(super) shape: Vec<u32>,
    pub(super) source: Source,
    /// Its elements, of [`Source::Text`].
    pub(super) data: Option<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Given {
    Here(DType),
    Elsewhere(Source),
}

/// `F32([1, 2])`, `Upload(F32, [2])`, `Raw(F32, [2])`.
pub(super) fn input(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Input> {
    let find = |name: &str| {
        let here = |dtype, name| (Given::Here(dtype), Signature { name, params: &["values"], required: 1 });
        let elsewhere = |source, name| {
            (Given::Elsewhere(source), Signature { name, params: &["dtype", "shape"], required: 2 })
        };
        Some(match name {
            "F32" => here(DType::F32, "F32"),
            "F64" => here(DType::F64, "F64"),
            "U32" => here(DType::U32, "U32"),
            "Upload" => elsewhere(Source::Upload, "Upload"),
            "Raw" => elsewhere(Source::Raw, "Raw"),
            _ => return None,
        })
    };
    let names = || vec!["F32", "F64", "U32", "Upload", "Raw"];
    let (given, call) = call(cx, node, "an input", find, names)?;
    match given {
        Given::Here(dtype) => {
            let mut literal = Literal { dtype, lengths: [0; MAX_RANK], rank: None, bytes: Vec::new() };
            let node = call.get(cx, 0)?;
            literal.value(cx, node, 0)?;
            let shape = literal.lengths[..literal.rank?].to_vec();
            Some(Input { dtype, shape, source: Source::Text, data: Some(literal.bytes) })
        }
        Given::Elsewhere(source) => {
            let node = call.get(cx, 0)?;
            let dtype = dtype(cx, node, &[DType::F32, DType::F64, DType::U32]);
            let node = call.get(cx, 1)?;
            let shape = shape(cx, node);
            Some(Input { dtype: dtype?, shape: shape?, source, data: None })
        }
    }
}

/// One of the types `allowed`.
pub(super) fn dtype(cx: &mut Cx<'_>, node: &Node<'_>, allowed: &[DType]) -> Option<DType> {
    let written = |dtype: &DType| match dtype {
        DType::F32 => "F32",
        DType::F64 => "F64",
        DType::U32 => "U32",
    };
    let name = match &node.kind {
        Kind::Ident(name) => name.text,
        Kind::Str(text) => text,
        _ => "",
    };
    let known = allowed.iter().find(|dtype| written(dtype) == name);
    match (known, &node.kind) {
        (Some(dtype), Kind::Ident(_)) => return Some(*dtype),
        (Some(_), _) => {
            let message = format!("`{}` must be a type, not text in quotes", cx.field);
            cx.error_hint(node.span, message, format!("write it without quotes: {name}"));
        }
        (None, _) => {
            let names: Vec<_> = allowed.iter().map(written).collect();
            let message =
                format!("`{}` must be one of {}, not {}", cx.field, names.join(", "), found(cx, node));
            let hint = hint_for(cx, name, &names, "the types are");
            cx.error_hint(node.span, message, hint);
        }
    }
    None
}

/// Lengths of axes: `[2, 3]`; `[]` is a single value.
pub(super) fn shape(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Vec<u32>> {
    let shape = match &node.kind {
        Kind::Numbers(text) => {
            let mut lengths = Vec::with_capacity(MAX_RANK);
            for (token, span) in tokens(text, node.span.start + 1) {
                match token.parse::<u32>() {
                    Ok(length) if length > 0 => lengths.push(length),
                    _ => {
                        let message = format!(
                            "a length must be a whole number from 1 to {}, not {}",
                            u32::MAX,
                            quoted(token)
                        );
                        cx.error(span, message);
                        return None;
                    }
                }
                if lengths.len() > MAX_RANK {
                    break;
                }
            }
            lengths
        }
        Kind::List(items) => {
            let items = items.iter().take(MAX_RANK + 1);
            items.map(|item| whole32(cx, item, 1, u32::MAX)).collect::<Option<_>>()?
        }
        _ => {
            mismatch(cx, node, "a list of lengths, one for each axis");
            return None;
        }
    };
    if shape.len() > MAX_RANK {
        cx.error(node.span, format!("an array may have at most {MAX_RANK} axes"));
        return None;
    }
    Some(shape)
}

/// What is between the commas, and where. A comma may follow the last one.
fn tokens(text: &str, start: usize) -> impl Iterator<Item = (&str, Span)> {
    let body = text.trim_ascii_end();
    let body = body.strip_suffix(',').unwrap_or(body);
    let mut at = start;
    body.split(',').map(move |part| {
        let token = part.trim_ascii_start();
        let begin = at + part.len() - token.len();
        at += part.len() + 1;
        let token = token.trim_ascii_end();
        (token, Span { start: begin, end: begin + token.len().max(1) })
    })
}

/// An array while its lists are read.
struct Literal {
    dtype: DType,
    /// The length of each axis, 0 until its first list has ended.
    lengths: [u32; MAX_RANK],
    /// How deep the numbers are, when the first was seen.
    rank: Option<usize>,
    bytes: Vec<u8>,
}

impl Literal {
    /// A number, or a list at `depth`.
    fn value(&mut self, cx: &mut Cx<'_>, node: &Node<'_>, depth: usize) -> Option<()> {
        match &node.kind {
            Kind::Numbers(text) => {
                self.enter(cx, node, depth)?;
                self.reach(cx, node, depth + 1)?;
                let count = self.numbers(cx, text, node.span.start + 1)?;
                self.leave(cx, node, depth, count)
            }
            Kind::List(items) => {
                self.enter(cx, node, depth)?;
                for item in items {
                    self.value(cx, item, depth + 1)?;
                }
                self.leave(cx, node, depth, items.len())
            }
            Kind::Int { .. } | Kind::Float(_) => {
                self.reach(cx, node, depth)?;
                self.number(cx, cx.written(node), node.span)
            }
            Kind::Ident(name) if matches!(name.text, "inf" | "NaN" | "nan") => {
                self.reach(cx, node, depth)?;
                self.number(cx, name.text, node.span)
            }
            _ => {
                mismatch(cx, node, "a number or a list of numbers");
                None
            }
        }
    }

    fn enter(&self, cx: &mut Cx<'_>, node: &Node<'_>, depth: usize) -> Option<()> {
        if depth == MAX_RANK {
            cx.error(node.span, format!("an array may have at most {MAX_RANK} axes"));
            return None;
        }
        if self.rank.is_some_and(|rank| depth >= rank) {
            cx.error(node.span, "a list stands where the others of this array have a number");
            return None;
        }
        Some(())
    }

    fn reach(&mut self, cx: &mut Cx<'_>, node: &Node<'_>, depth: usize) -> Option<()> {
        if *self.rank.get_or_insert(depth) == depth {
            return Some(());
        }
        cx.error(node.span, "a number stands where the others of this array have a list");
        None
    }

    fn leave(&mut self, cx: &mut Cx<'_>, node: &Node<'_>, depth: usize, count: usize) -> Option<()> {
        let count = u32::try_from(count).ok()?;
        if count == 0 {
            cx.error(node.span, "this list is empty: no length of an array may be 0");
            return None;
        }
        if self.lengths[depth] == 0 {
            self.lengths[depth] = count;
        } else if self.lengths[depth] != count {
            let message =
                format!("this list has {count} elements, those before it have {}", self.lengths[depth]);
            cx.error_hint(node.span, message, "all lists of one axis have the same length");
            return None;
        }
        Some(())
    }

    /// All numbers of a list; how many they are.
    fn numbers(&mut self, cx: &mut Cx<'_>, text: &str, start: usize) -> Option<usize> {
        let size = if self.dtype == DType::F64 { 8 } else { 4 };
        self.bytes.reserve(text.len() / 3 * size);
        let before = self.bytes.len();
        for (token, span) in tokens(text, start) {
            self.number(cx, token, span)?;
        }
        Some((self.bytes.len() - before) / size)
    }

    fn number(&mut self, cx: &mut Cx<'_>, text: &str, span: Span) -> Option<()> {
        let good = match self.dtype {
            DType::F32 => match text.parse::<f32>() {
                Ok(value) if value.is_finite() || is_word(text) => {
                    self.bytes.extend_from_slice(&value.to_le_bytes());
                    true
                }
                _ => false,
            },
            DType::F64 => match text.parse::<f64>() {
                Ok(value) if value.is_finite() || is_word(text) => {
                    self.bytes.extend_from_slice(&value.to_le_bytes());
                    true
                }
                _ => false,
            },
            DType::U32 => match text.parse::<u32>() {
                Ok(value) => {
                    self.bytes.extend_from_slice(&value.to_le_bytes());
                    true
                }
                Err(_) => false,
            },
        };
        if good { Some(()) } else { self.unusual(cx, text, span) }
    }

    /// Forms that Rust does not read, `1_000` and `0xff`, and what is no number of the type.
    #[cold]
    fn unusual(&mut self, cx: &mut Cx<'_>, text: &str, span: Span) -> Option<()> {
        if let Some(plain) = plain(text)
            && plain != text
        {
            return self.number(cx, &plain, span);
        }
        let name = self.dtype.name();
        let (message, hint) = match (self.dtype, text.parse::<f64>()) {
            _ if text.is_empty() => ("a number is missing here".to_owned(), None),
            (DType::U32, Ok(_)) => {
                let message = format!("{} is no {name}: a whole number from 0 to {}", quoted(text), u32::MAX);
                (message, None)
            }
            (dtype, Ok(_)) => {
                let hint = (dtype == DType::F32).then(|| "F64 holds numbers up to 1.8e308".to_owned());
                (format!("{} does not fit {name}", quoted(text)), hint)
            }
            (_, Err(_)) => {
                let spaced = text.contains(|c: char| c.is_ascii_whitespace());
                let hint = spaced.then(|| "is a comma missing?".to_owned());
                (format!("{} is not a number", quoted(text)), hint)
            }
        };
        cx.findings.push(span, message, hint);
        None
    }
}

/// `inf`, `-inf`, `NaN`.
fn is_word(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_digit())
}

/// A number in decimal digits without underscores.
fn plain(text: &str) -> Option<String> {
    let text = text.replace('_', "");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(&text)),
    };
    let radix = match digits.get(..2) {
        Some("0x") => 16,
        Some("0o") => 8,
        Some("0b") => 2,
        _ => return Some(text),
    };
    let value = u64::from_str_radix(&digits[2..], radix).ok()?;
    Some(format!("{sign}{value}"))
}
