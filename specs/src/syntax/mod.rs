//! RON as a syntax tree in which every value, key and name knows its place in the text.
//!
//! Owns the grammar and nothing else: it knows no field of any spec. The `ron` crate reads the same texts, but
//! gives no places for values and drops duplicate keys silently, which is why this module exists
//! (docs/adr/0010-own-ron-syntax-tree.md). It must never recurse deeper than [`MAX_DEPTH`] and never copy text
//! that has no escapes.

mod lexer;
mod parser;
#[cfg(test)]
mod tests;

pub(crate) use parser::parse_document;
use std::borrow::Cow;

/// How deep brackets may nest. The deepest spec a person writes has about ten levels; conditions may add some.
pub const MAX_DEPTH: usize = 64;

/// How many values a text may hold. A value takes about a hundred bytes of memory and as little as two bytes of
/// text; a spec of 10,000 datasets and 1,000 apps has about 60,000.
pub const MAX_VALUES: usize = 250_000;

/// What a text is to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Document {
    /// What it is called in messages: `spec`.
    pub(crate) noun: &'static str,
    /// The smallest one, for a hint.
    pub(crate) smallest: &'static str,
    /// How many values it may hold at most.
    pub(crate) max_values: usize,
    /// Whether lists of nothing but numbers become [`Kind::Numbers`].
    pub(crate) numbers: bool,
}

/// A half-open range of byte offsets into the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<'s> {
    pub(crate) span: Span,
    pub(crate) kind: Kind<'s>,
}

/// An identifier and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'s> {
    pub(crate) span: Span,
    pub(crate) text: &'s str,
}

/// `name: value` in a struct.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field<'s> {
    pub(crate) name: Name<'s>,
    pub(crate) value: Node<'s>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind<'s> {
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int { negative: bool, magnitude: u64 },
    /// A number with a point.
    Float(f64),
    /// `'c'`.
    Char(char),
    /// `"text"`, `r"text"`.
    Str(Cow<'s, str>),
    /// `Name`.
    Ident(Name<'s>),
    /// `[a, b]`.
    List(Vec<Node<'s>>),
    /// `[1, 2.5]`, what is between the brackets: digits, signs, points, commas, spaces and the letters of `e`, `inf` and
    /// `NaN`. Not looked into, because only the reader knows the type, and because there may be half a million.
    Numbers(&'s str),
    /// `{a: b}`.
    Map(Vec<(Node<'s>, Node<'s>)>),
    /// `(a, b)`, `Name(a, b)`, and `()` which is also the struct without fields.
    Tuple { name: Option<Name<'s>>, items: Vec<Node<'s>> },
    /// `(a: b)`, `Name(a: b)`.
    Struct { name: Option<Name<'s>>, fields: Vec<Field<'s>> },
}

impl Kind<'_> {
    /// What the value is called in messages, with its article.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Kind::Bool(_) => "a yes-or-no value",
            Kind::Int { .. } | Kind::Float(_) => "a number",
            Kind::Char(_) => "a character in single quotes",
            Kind::Str(_) => "text in quotes",
            Kind::Ident(_) => "a name",
            Kind::List(_) => "a list",
            Kind::Numbers(_) => "a list of numbers",
            Kind::Map(_) => "a map",
            Kind::Tuple { name: Some(_), .. } => "a variant with values",
            Kind::Tuple { items, .. } if items.is_empty() => "`()`",
            Kind::Tuple { .. } => "a tuple",
            Kind::Struct { .. } => "a struct",
        }
    }
}

/// Why a text is not RON, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl SyntaxError {
    fn new(start: usize, end: usize, message: impl Into<String>) -> Self {
        SyntaxError { span: Span { start, end }, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
