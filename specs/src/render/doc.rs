//! RON laid out on lines: what is short stays on one line, what is long gets a line for each part.
//!
//! Owns brackets, commas, indentation and quoting. Knows no field of any spec.

use crate::diagnostics::is_unprintable;
use std::collections::BTreeMap;
use std::fmt::Display;

/// Lines are kept below this many characters where the layout has a choice.
const WIDTH: usize = 100;

/// A value to lay out.
pub(crate) enum Doc {
    /// Written as it is.
    Plain(String),
    /// An opening, elements and a closing; the opening may begin with a name.
    Block { open: String, items: Vec<(String, Doc)>, close: char },
}

impl Doc {
    /// A number, a truth value or a variant's name.
    pub(crate) fn plain(value: impl Display) -> Doc {
        Doc::Plain(value.to_string())
    }

    /// Text in quotes. What a terminal would not show is escaped.
    pub(crate) fn text(value: &str) -> Doc {
        let mut out = String::with_capacity(value.len() + 2);
        out.push('"');
        for c in value.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if is_unprintable(c) => out.extend(c.escape_unicode()),
                c => out.push(c),
            }
        }
        out.push('"');
        Doc::Plain(out)
    }

    /// `[a, b]`.
    pub(crate) fn list<T>(items: &[T], item: impl Fn(&T) -> Doc) -> Doc {
        let items = items.iter().map(|i| (String::new(), item(i))).collect();
        Doc::Block { open: "[".to_owned(), items, close: ']' }
    }

    /// `Name(a, b)`.
    pub(crate) fn tuple(name: &str, items: Vec<Doc>) -> Doc {
        let items = items.into_iter().map(|item| (String::new(), item)).collect();
        Doc::Block { open: format!("{name}("), items, close: ')' }
    }

    /// The text of a whole file: the outermost block and the maps in it always have a line for each part.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out.push('\n');
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        let Doc::Block { open, items, close } = self else {
            self.write_inline(out);
            return;
        };
        let column = out.len() - out.rfind('\n').map_or(0, |at| at + 1);
        let section = (depth == 0 || (depth == 1 && open == "{")) && !items.is_empty();
        if !section && self.width() + column < WIDTH {
            self.write_inline(out);
            return;
        }
        out.push_str(open);
        for (label, item) in items {
            out.push('\n');
            out.push_str(&"    ".repeat(depth + 1));
            out.push_str(label);
            item.write(out, depth + 1);
            out.push(',');
        }
        if !items.is_empty() {
            out.push('\n');
            out.push_str(&"    ".repeat(depth));
        }
        out.push(*close);
    }

    fn width(&self) -> usize {
        match self {
            Doc::Plain(text) => text.chars().count(),
            Doc::Block { open, items, .. } => {
                let parts: usize =
                    items.iter().map(|(label, item)| label.chars().count() + item.width() + 2).sum();
                open.chars().count() + parts + 1
            }
        }
    }

    fn write_inline(&self, out: &mut String) {
        match self {
            Doc::Plain(text) => out.push_str(text),
            Doc::Block { open, items, close } => {
                out.push_str(open);
                for (index, (label, item)) in items.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    out.push_str(label);
                    item.write_inline(out);
                }
                out.push(*close);
            }
        }
    }
}

/// A struct while its fields are added.
pub(crate) struct Struct {
    open: String,
    fields: Vec<(String, Doc)>,
}

impl Struct {
    /// `(..)`.
    pub(crate) fn plain() -> Struct {
        Struct::named("")
    }

    /// `Name(..)`.
    pub(crate) fn named(name: &str) -> Struct {
        Struct { open: format!("{name}("), fields: Vec::new() }
    }

    /// A field that is always written.
    pub(crate) fn field(mut self, name: &str, value: Doc) -> Struct {
        self.fields.push((format!("{name}: "), value));
        self
    }

    /// A field that is written when there is a value.
    pub(crate) fn opt(self, name: &str, value: Option<Doc>) -> Struct {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// A field that is written unless it has its default.
    pub(crate) fn unless(self, is_default: bool, name: &str, value: impl FnOnce() -> Doc) -> Struct {
        if is_default { self } else { self.field(name, value()) }
    }

    /// A list that is written unless it is empty.
    pub(crate) fn list<T>(self, name: &str, items: &[T], item: impl Fn(&T) -> Doc) -> Struct {
        if items.is_empty() { self } else { self.field(name, Doc::list(items, item)) }
    }

    /// A map that is written unless it is empty.
    pub(crate) fn map<K: Display, V>(
        self,
        name: &str,
        map: &BTreeMap<K, V>,
        value: impl Fn(&V) -> Doc,
    ) -> Struct {
        if map.is_empty() {
            return self;
        }
        let items = map
            .iter()
            .map(|(k, v)| {
                let mut label = String::new();
                Doc::text(&k.to_string()).write_inline(&mut label);
                label.push_str(": ");
                (label, value(v))
            })
            .collect();
        self.field(name, Doc::Block { open: "{".to_owned(), items, close: '}' })
    }

    /// The finished value.
    pub(crate) fn done(self) -> Doc {
        Doc::Block { open: self.open, items: self.fields, close: ')' }
    }
}
