//! What is wrong with a spec, and where: for people as text, for programs as JSON.
//!
//! Owns positions (line and column from byte offsets), the rendering and the limits on what a diagnostic may
//! carry. Must never repeat more of a hostile text than [`MAX_SHOWN`] characters, nor any control character.

use crate::syntax::Span;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::fmt::Write as _;

/// How many diagnostics are kept for one text; further ones are only counted.
pub const MAX_DIAGNOSTICS: usize = 50;

/// How many characters of a line a diagnostic shows; longer lines are cut around the place.
pub const MAX_SHOWN: usize = 160;

/// How many characters of a user's text a message repeats.
const MAX_QUOTED: usize = 80;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// The spec is not accepted.
    Error,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Line, from 1.
    pub line: usize,
    /// First column, from 1, in characters.
    pub column: usize,
    /// The column after the last one, always larger than `column`.
    pub end_column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line, or the part of a long line around the place, with control characters replaced.
    pub source_line: String,
    /// How many characters of the line come before `source_line`; 0 unless the line was cut.
    #[serde(default)]
    pub source_offset: usize,
}

/// All mistakes that were found in one text, in the text's order. Never empty as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics {
    diagnostics: Vec<Diagnostic>,
    omitted: usize,
}

impl Diagnostics {
    /// The mistakes, in the text's order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.diagnostics.iter()
    }

    /// How many mistakes are kept, at most [`MAX_DIAGNOSTICS`].
    pub fn len(&self) -> usize {
        self.diagnostics.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// How many mistakes were found beyond [`MAX_DIAGNOSTICS`].
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// The mistakes as text for a terminal, each with the line and a caret, as rustc shows them. `file` is the
    /// name to show. ASCII apart from what the spec itself holds; no colours.
    pub fn render(&self, file: &str) -> String {
        let mut out = String::new();
        for diagnostic in self {
            diagnostic.render_into(&mut out, file);
            out.push('\n');
        }
        let count = self.len() + self.omitted;
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        // Writing into a String cannot fail.
        let _ = match self.omitted {
            0 => writeln!(out, "{file}: {count} {mistakes}"),
            _ => writeln!(out, "{file}: {count} {mistakes}, the first {} are shown", self.len()),
        };
        out
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The first mistake in one line, and how many more there are.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.diagnostics.first() else {
            return f.write_str("no mistakes");
        };
        write!(f, "{first}")?;
        match self.len() + self.omitted - 1 {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// `LINE:COLUMN: message; hint`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    fn render_into(&self, out: &mut String, file: &str) {
        let Severity::Error = self.severity;
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        // The caret line repeats tabs, so that it lines up however wide a terminal shows them.
        let before = self.column.saturating_sub(1 + self.source_offset);
        let pad: String =
            self.source_line.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let room = self.source_line.chars().count().saturating_sub(before).max(1);
        let carets = "^".repeat(self.end_column.saturating_sub(self.column).clamp(1, room));
        // Writing into a String cannot fail.
        let _ = writeln!(out, "error: {}", self.message);
        let _ = writeln!(out, "{gutter}--> {file}:{}:{}", self.line, self.column);
        let _ = writeln!(out, "{gutter} |");
        let _ = writeln!(out, "{}", format!("{number} | {}", self.source_line).trim_end());
        let _ = writeln!(out, "{gutter} | {pad}{carets}");
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{gutter} = hint: {hint}");
        }
    }
}

/// Mistakes while a text is read: offsets instead of positions.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    kept: Vec<(Span, String, Option<String>)>,
    omitted: usize,
}

impl Findings {
    pub(crate) fn push(&mut self, span: Span, message: String, hint: Option<String>) {
        if self.kept.len() < MAX_DIAGNOSTICS {
            self.kept.push((span, message, hint));
        } else {
            self.omitted += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// True when further findings are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() == MAX_DIAGNOSTICS
    }

    /// Gives every finding its position in `text`.
    pub(crate) fn locate(mut self, text: &str) -> Diagnostics {
        self.kept.sort_by_key(|(span, ..)| *span);
        let lines = LineIndex::new(text);
        let diagnostics = self
            .kept
            .into_iter()
            .map(|(span, message, hint)| lines.diagnostic(span, &message, hint.as_deref()))
            .collect();
        Diagnostics { diagnostics, omitted: self.omitted }
    }
}

/// A text and the offsets at which its lines begin.
struct LineIndex<'s> {
    text: &'s str,
    starts: Vec<usize>,
}

impl<'s> LineIndex<'s> {
    fn new(text: &'s str) -> Self {
        let begin = usize::from(text.starts_with('\u{feff}')) * '\u{feff}'.len_utf8();
        let mut starts = vec![begin];
        starts.extend(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1));
        LineIndex { text, starts }
    }

    fn diagnostic(&self, span: Span, message: &str, hint: Option<&str>) -> Diagnostic {
        let index = self.starts.partition_point(|start| *start <= span.start).saturating_sub(1);
        let start = self.starts[index];
        let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        let line = self.text[start..end].trim_end_matches('\r');
        let chars_to = |offset: usize| {
            self.text[start..self.text.floor_char_boundary(offset.clamp(start, end))].chars().count()
        };
        let first = chars_to(span.start);
        let last = chars_to(span.end.min(start + line.len())).max(first + 1);
        let skipped = if line.chars().count() <= MAX_SHOWN { 0 } else { first.saturating_sub(MAX_SHOWN / 2) };
        Diagnostic {
            severity: Severity::Error,
            line: index + 1,
            column: first + 1,
            end_column: last + 1,
            message: plain(message),
            hint: hint.map(plain),
            source_line: line
                .chars()
                .skip(skipped)
                .take(MAX_SHOWN)
                .map(|c| if c != '\t' && is_unprintable(c) { '?' } else { c })
                .collect(),
            source_offset: skipped,
        }
    }
}

/// Control characters and those that reorder text would let a spec draw on the reader's terminal.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn plain(text: &str) -> String {
    if !text.chars().any(is_unprintable) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut out, c| {
        if is_unprintable(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        out
    })
}

/// A user's text as it is repeated in a message: in backquotes and not too long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((at, _)) => format!("`{}...`", &text[..at]),
        None => format!("`{text}`"),
    }
}
