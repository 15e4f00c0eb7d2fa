//! The tokens of RON: white space, comments, strings, characters, numbers, identifiers.
//!
//! Owns the position in the text. Must never step into the middle of a character, and reads every byte a
//! bounded number of times.

use super::Kind;
use super::Name;
use super::Span;
use super::SyntaxError;
use crate::diagnostics::quoted;
use std::borrow::Cow;

/// A position in a text, and what can be read there.
pub(super) struct Lexer<'s> {
    text: &'s str,
    pos: usize,
}

impl<'s> Lexer<'s> {
    pub(super) fn new(text: &'s str, pos: usize) -> Self {
        Lexer { text, pos }
    }

    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    /// Goes to a character boundary, usually back to a position that this lexer has reported.
    pub(super) fn rewind(&mut self, pos: usize) {
        self.pos = pos;
    }

    /// The text before a position that this lexer has reported.
    pub(super) fn before(&self, pos: usize) -> &'s str {
        &self.text[..pos]
    }

    pub(super) fn rest(&self) -> &'s str {
        &self.text[self.pos..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Moves past `c` if it is next.
    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.rest().starts_with(c);
        if found {
            self.pos += c.len_utf8();
        }
        found
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let len = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.pos += len;
        &rest[..len]
    }

    /// The error that something other than `wanted` comes next.
    pub(super) fn unexpected(&self, wanted: &str) -> SyntaxError {
        match self.peek() {
            None => SyntaxError::new(
                self.pos,
                self.pos,
                format!("unexpected end of the file: {wanted} is missing"),
            ),
            Some(c) => {
                let len = self.rest().find(|c: char| !is_ident(c)).unwrap_or(self.rest().len());
                let end = self.pos + len.max(c.len_utf8());
                SyntaxError::new(
                    self.pos,
                    end,
                    format!("expected {wanted}, found {}", quoted(&self.text[self.pos..end])),
                )
            }
        }
    }

    /// Moves past white space and comments. `/* */` nest.
    pub(super) fn skip_space(&mut self) -> Result<(), SyntaxError> {
        loop {
            self.take_while(is_space);
            if self.rest().starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest().starts_with("/*") {
                self.skip_block_comment()?;
            } else {
                return Ok(());
            }
        }
    }

    fn skip_block_comment(&mut self) -> Result<(), SyntaxError> {
        let start = self.pos;
        let mut level = 0_usize;
        loop {
            if self.rest().starts_with("/*") {
                self.pos += 2;
                level += 1;
            } else if self.rest().starts_with("*/") {
                self.pos += 2;
                level -= 1;
                if level == 0 {
                    return Ok(());
                }
            } else if self.bump().is_none() {
                return Err(SyntaxError::new(
                    start,
                    start + 2,
                    "the comment that begins here is never closed: the file ends first",
                )
                .hint("close it with `*/`; comments nest, so each `/*` needs its own"));
            }
        }
    }

    /// An identifier, if one is next. `r#name` is the same as `name`.
    pub(super) fn ident(&mut self) -> Option<Name<'s>> {
        let rest = self.rest();
        if rest.starts_with("r\"") || rest.starts_with("r#\"") || rest.starts_with("r##") {
            return None;
        }
        let start = self.pos;
        if rest.starts_with("r#") {
            self.pos += 2;
        }
        let text = match self.peek() {
            Some(c) if is_ident_start(c) => self.take_while(is_ident),
            _ => {
                self.pos = start;
                return None;
            }
        };
        Some(Name { span: Span { start, end: self.pos }, text })
    }

    /// A string, plain or raw; the caller has seen that one begins here.
    pub(super) fn string(&mut self) -> Result<Cow<'s, str>, SyntaxError> {
        if self.eat('r') { self.raw_string() } else { self.quoted_string() }
    }

    fn raw_string(&mut self) -> Result<Cow<'s, str>, SyntaxError> {
        let start = self.pos - 1;
        let hashes = self.take_while(|c| c == '#');
        if !self.eat('"') {
            return Err(self.unexpected("the `\"` of a raw string"));
        }
        let end = format!("\"{hashes}");
        let rest = self.rest();
        let Some(len) = rest.find(&end) else {
            return Err(SyntaxError::new(start, self.pos, "the raw string that begins here is never closed")
                .hint(format!("close it with `{end}`")));
        };
        self.pos += len + end.len();
        Ok(Cow::Borrowed(&rest[..len]))
    }

    fn quoted_string(&mut self) -> Result<Cow<'s, str>, SyntaxError> {
        let start = self.pos;
        self.pos += 1;
        let mut out = Cow::Borrowed("");
        loop {
            let part = self.take_while(|c| c != '"' && c != '\\');
            match &mut out {
                Cow::Borrowed("") => out = Cow::Borrowed(part),
                both => both.to_mut().push_str(part),
            }
            if self.eat('"') {
                return Ok(out);
            }
            if self.peek().is_none() {
                return Err(SyntaxError::new(
                    start,
                    start + 1,
                    "the text that begins here is never closed: the file ends first",
                )
                .hint("close it with `\"`"));
            }
            let at = self.pos;
            self.pos += 1;
            if self.rest().starts_with('\n') || self.rest().starts_with("\r\n") {
                self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
                continue;
            }
            let c = self.escape(at)?;
            out.to_mut().push(c);
        }
    }

    /// What follows a backslash at `at`.
    fn escape(&mut self, at: usize) -> Result<char, SyntaxError> {
        let bad = |end: usize, message: &str| {
            SyntaxError::new(at, end, message).hint(
                "the escapes are \\\" \\' \\\\ \\n \\r \\t \\0 \\x41 and \\u{1F600}; a raw string r\"...\" has none",
            )
        };
        let c = match self.bump() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('0') => '\0',
            Some(c @ ('\'' | '"' | '\\')) => c,
            Some('x') => {
                let digits: String = self.rest().chars().take(2).collect();
                let value = u8::from_str_radix(&digits, 16).ok().filter(u8::is_ascii);
                let value =
                    value.filter(|_| digits.bytes().all(|b| b.is_ascii_hexdigit()) && digits.len() == 2);
                let Some(value) = value else {
                    return Err(bad(self.pos, "`\\x` needs two hexadecimal digits, at most 7f"));
                };
                self.pos += 2;
                char::from(value)
            }
            Some('u') => {
                if !self.eat('{') {
                    return Err(bad(self.pos, "`\\u` needs `{`"));
                }
                let digits = self.take_while(|c| c.is_ascii_hexdigit());
                let value = (1..=6).contains(&digits.len()).then(|| u32::from_str_radix(digits, 16).ok());
                let value = value.flatten().and_then(char::from_u32);
                let (Some(value), true) = (value, self.eat('}')) else {
                    return Err(bad(
                        self.pos,
                        "this is not a character: `\\u{...}` needs 1 to 6 hexadecimal digits",
                    ));
                };
                value
            }
            _ => return Err(bad(self.pos, "unknown escape")),
        };
        Ok(c)
    }

    /// `'c'`; the caller has seen the quote.
    pub(super) fn character(&mut self) -> Result<char, SyntaxError> {
        let start = self.pos;
        self.pos += 1;
        let at = self.pos;
        let c = match self.bump() {
            Some('\\') => self.escape(at)?,
            Some(c) if c != '\'' => c,
            _ => return Err(SyntaxError::new(start, self.pos, "this character is empty")),
        };
        if self.eat('\'') {
            return Ok(c);
        }
        Err(SyntaxError::new(start, self.pos, "single quotes hold one character")
            .hint("text is written in double quotes"))
    }

    /// A number; the caller has seen that one begins here.
    pub(super) fn number(&mut self) -> Result<Kind<'s>, SyntaxError> {
        let start = self.pos;
        let negative = match self.peek() {
            Some(c @ ('+' | '-')) => {
                self.eat(c);
                c == '-'
            }
            _ => false,
        };
        let radix = match self.rest().as_bytes() {
            [b'0', b'x', ..] => 16,
            [b'0', b'o', ..] => 8,
            [b'0', b'b', ..] => 2,
            _ => 10,
        };
        if radix != 10 {
            self.pos += 2;
        }
        let digits_at = self.pos;
        let mut previous = ' ';
        while let Some(c) = self.peek() {
            let sign_of_exponent = radix == 10 && matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
            if !(is_ident(c) || (radix == 10 && c == '.') || sign_of_exponent) {
                break;
            }
            previous = c;
            self.pos += c.len_utf8();
        }
        let written = &self.text[digits_at..self.pos];
        let bad = |why: &str| {
            SyntaxError::new(
                start,
                self.pos,
                format!("{} is not a number: {why}", quoted(&self.text[start..self.pos])),
            )
        };
        if written.starts_with('_') || written.is_empty() {
            return Err(bad("it needs a digit"));
        }
        if (negative, written) == (true, "inf") {
            return Ok(Kind::Float(f64::NEG_INFINITY));
        }
        let digits: Cow<'_, str> =
            if written.contains('_') { written.replace('_', "").into() } else { written.into() };
        if digits.chars().all(|c| c.is_digit(radix)) {
            return u64::from_str_radix(&digits, radix)
                .map(|magnitude| Kind::Int { negative, magnitude })
                .map_err(|_| bad("it is larger than 18446744073709551615"));
        }
        let shape = radix == 10
            && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
            && !written.contains("_.")
            && !written.contains("._");
        match digits.parse::<f64>() {
            Ok(value) if shape && value.is_finite() => Ok(Kind::Float(if negative { -value } else { value })),
            _ => Err(bad("it has characters that do not belong to a number")
                .hint("text, sizes and durations are written in quotes: \"1.0.0\", \"512M\", \"10s\"")),
        }
    }
}

/// RON's white space: Rust's `Pattern_White_Space`.
fn is_space(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t'
            | '\n'
            | '\r'
            | '\x0B'
            | '\x0C'
            | '\u{85}'
            | '\u{200E}'
            | '\u{200F}'
            | '\u{2028}'
            | '\u{2029}'
    )
}

// Field names and variants of specs are ASCII; anything else is an error that names the character.
fn is_ident_start(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_ident(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}
