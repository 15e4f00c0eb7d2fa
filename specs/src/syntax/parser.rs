//! Values of RON from tokens.
//!
//! Owns the nesting and the messages about brackets and commas. Stops at the first mistake: what follows a
//! syntax error is guesswork, and a wrong guess hides the real place.

use super::Document;
use super::Field;
use super::Kind;
use super::MAX_DEPTH;
use super::Name;
use super::Node;
use super::Span;
use super::SyntaxError;
use super::lexer::Lexer;
use crate::diagnostics::quoted;

/// Parses a text from `start`: optional `#![enable(..)]` attributes, one value, nothing after it.
pub(crate) fn parse_document(text: &str, start: usize, document: Document) -> Result<Node<'_>, SyntaxError> {
    let Document { noun, smallest, max_values, .. } = document;
    let lexer = Lexer::new(text, start);
    let mut parser = Parser { lexer, open: Vec::new(), values_left: max_values, document };
    parser.lexer.skip_space()?;
    while parser.lexer.rest().starts_with("#!") {
        parser.attribute()?;
        parser.lexer.skip_space()?;
    }
    if parser.lexer.peek().is_none() {
        let at = parser.lexer.pos();
        return Err(SyntaxError::new(at, at, format!("unexpected end of the file: it holds no {noun}"))
            .hint(format!("the smallest {noun} is `{smallest}`")));
    }
    let node = parser.value()?;
    parser.lexer.skip_space()?;
    if parser.lexer.peek().is_some() {
        return Err(parser.lexer.unexpected("the end of the file").hint(format!("a file holds one {noun}")));
    }
    Ok(node)
}

struct Parser<'s> {
    lexer: Lexer<'s>,
    /// The brackets that are open, with their places.
    open: Vec<(char, usize)>,
    /// How many more values may come.
    values_left: usize,
    document: Document,
}

impl<'s> Parser<'s> {
    /// `#![enable(implicit_some, ...)]`. Both of ron's extensions that specs could need are always on, so the
    /// attribute changes nothing; unknown ones are mistakes.
    fn attribute(&mut self) -> Result<(), SyntaxError> {
        for c in ['#', '!', '['] {
            self.expect(c)?;
        }
        let name = self.lexer.ident();
        if name.is_none_or(|n| n.text != "enable") {
            return Err(self.attribute_error(name, "`enable`"));
        }
        self.lexer.skip_space()?;
        self.expect('(')?;
        while self.lexer.peek() != Some(')') {
            let known =
                ["implicit_some", "unwrap_newtypes", "unwrap_variant_newtypes", "explicit_struct_names"];
            let name = self.lexer.ident();
            if name.is_none_or(|n| !known.contains(&n.text)) {
                return Err(self.attribute_error(name, "an extension of RON"));
            }
            self.lexer.skip_space()?;
            if !self.lexer.eat(',') {
                break;
            }
            self.lexer.skip_space()?;
        }
        self.expect(')')?;
        self.expect(']')
    }

    fn attribute_error(&self, found: Option<Name<'s>>, wanted: &str) -> SyntaxError {
        let error = match found {
            Some(name) => SyntaxError::new(
                name.span.start,
                name.span.end,
                format!("expected {wanted}, found {}", quoted(name.text)),
            ),
            None => self.lexer.unexpected(wanted),
        };
        error.hint("the attribute `#![enable(implicit_some)]` is accepted and not needed")
    }

    fn expect(&mut self, c: char) -> Result<(), SyntaxError> {
        if !self.lexer.eat(c) {
            return Err(self.lexer.unexpected(&format!("`{c}`")));
        }
        self.lexer.skip_space()
    }

    fn value(&mut self) -> Result<Node<'s>, SyntaxError> {
        let start = self.lexer.pos();
        let rest = self.lexer.rest();
        let Some(left) = self.values_left.checked_sub(1) else {
            let noun = self.document.noun;
            return Err(SyntaxError::new(start, start, format!("the {noun} holds too many values"))
                .hint("split it into several files"));
        };
        self.values_left = left;
        let kind = match self.lexer.peek() {
            Some('"') => Kind::Str(self.lexer.string()?),
            Some('\'') => Kind::Char(self.lexer.character()?),
            Some('0'..='9' | '+' | '-' | '.') => self.lexer.number()?,
            Some('[') => match self.numbers() {
                Some(numbers) => Kind::Numbers(numbers),
                None => Kind::List(self.list()?),
            },
            Some('{') => Kind::Map(self.map()?),
            Some('(') => self.parens(None)?,
            _ if rest.starts_with("r\"") || rest.starts_with("r#\"") || rest.starts_with("r##") => {
                Kind::Str(self.lexer.string()?)
            }
            _ if rest.starts_with("b\"") || rest.starts_with("b'") || rest.starts_with("br") => {
                match self.lexer.ident() {
                    Some(name) if !matches!(self.lexer.peek(), Some('"' | '\'' | '#')) => self.named(name)?,
                    _ => {
                        let message = format!("a {} has no byte strings", self.document.noun);
                        return Err(SyntaxError::new(start, self.lexer.pos(), message)
                            .hint("write text in double quotes"));
                    }
                }
            }
            _ => match self.lexer.ident() {
                Some(name) => self.named(name)?,
                None => return Err(self.missing("a value")),
            },
        };
        Ok(Node { span: Span { start, end: self.lexer.pos() }, kind })
    }

    /// What begins with an identifier.
    fn named(&mut self, name: Name<'s>) -> Result<Kind<'s>, SyntaxError> {
        match name.text {
            "true" => return Ok(Kind::Bool(true)),
            "false" => return Ok(Kind::Bool(false)),
            _ => {}
        }
        let end = self.lexer.pos();
        self.lexer.skip_space()?;
        if self.lexer.peek() == Some('(') {
            return self.parens(Some(name));
        }
        // The space belongs to whatever follows, not to the name.
        self.lexer.rewind(end);
        Ok(Kind::Ident(name))
    }

    fn open(&mut self, c: char) -> Result<(), SyntaxError> {
        let at = self.lexer.pos();
        if self.open.len() == MAX_DEPTH {
            return Err(SyntaxError::new(
                at,
                at + 1,
                format!("brackets nest deeper than {MAX_DEPTH} levels"),
            )
            .hint(format!("no {} needs this: look for brackets that are never closed", self.document.noun)));
        }
        self.open.push((c, at));
        self.lexer.eat(c);
        self.lexer.skip_space()
    }

    /// After an element: true when the bracket closed, false when another element may follow a comma.
    fn closes(&mut self, close: char) -> Result<bool, SyntaxError> {
        self.lexer.skip_space()?;
        let comma = self.lexer.eat(',');
        self.lexer.skip_space()?;
        if self.lexer.eat(close) {
            self.open.pop();
            return Ok(true);
        }
        if comma {
            return Ok(false);
        }
        Err(self.missing(&format!("`,` or `{close}`")))
    }

    /// The error that `wanted` is missing here, which says what was open if the file ends.
    fn missing(&self, wanted: &str) -> SyntaxError {
        let error = self.lexer.unexpected(wanted);
        match (self.lexer.peek(), self.open.last()) {
            (None, Some((open, at))) => {
                let close = match open {
                    '[' => ']',
                    '{' => '}',
                    _ => ')',
                };
                let line = 1 + self.lexer.before(*at).bytes().filter(|b| *b == b'\n').count();
                self.lexer
                    .unexpected(&format!("`{close}`"))
                    .hint(format!("the `{open}` opened in line {line} is never closed"))
            }
            (Some('"' | '_' | 'a'..='z' | 'A'..='Z' | '[' | '(' | '{' | '0'..='9'), _)
                if wanted.starts_with("`,`") =>
            {
                error.hint("is a comma missing before this?")
            }
            (Some('#'), _) => error.hint("comments begin with `//`"),
            (Some(':'), Some(('(', _))) => {
                error.hint("in one pair of parentheses, either all values are written `name: value` or none")
            }
            _ => error,
        }
    }

    fn list(&mut self) -> Result<Vec<Node<'s>>, SyntaxError> {
        self.open('[')?;
        let mut items = Vec::new();
        if self.lexer.eat(']') {
            self.open.pop();
            return Ok(items);
        }
        loop {
            items.push(self.value()?);
            if self.closes(']')? {
                return Ok(items);
            }
        }
    }

    /// What is between the brackets of a list of numbers, if they are kept as written and one begins here.
    fn numbers(&mut self) -> Option<&'s str> {
        if !self.document.numbers {
            return None;
        }
        let inside = &self.lexer.rest()[1..];
        let is_first = |b: u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.');
        let is_space = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        let is_other = |b: u8| matches!(b, b',' | b'e' | b'E' | b'i' | b'n' | b'f' | b'N' | b'a');
        if !inside.bytes().find(|b| !is_space(*b)).is_some_and(is_first) {
            return None;
        }
        let len = inside.bytes().position(|b| !(is_first(b) || is_other(b) || is_space(b)))?;
        if inside.as_bytes()[len] != b']' {
            return None;
        }
        let start = self.lexer.pos();
        self.lexer.rewind(start + len + 2);
        Some(&inside[..len])
    }

    fn map(&mut self) -> Result<Vec<(Node<'s>, Node<'s>)>, SyntaxError> {
        self.open('{')?;
        let mut entries = Vec::new();
        if self.lexer.eat('}') {
            self.open.pop();
            return Ok(entries);
        }
        loop {
            let key = self.value()?;
            self.lexer.skip_space()?;
            self.colon()?;
            entries.push((key, self.value()?));
            if self.closes('}')? {
                return Ok(entries);
            }
        }
    }

    fn colon(&mut self) -> Result<(), SyntaxError> {
        if !self.lexer.eat(':') {
            let error = self.missing("`:`");
            return Err(match self.lexer.peek() {
                Some('=') => error.hint("RON writes `name: value`"),
                _ => error,
            });
        }
        self.lexer.skip_space()
    }

    /// What parentheses hold: nothing, values or named fields.
    fn parens(&mut self, name: Option<Name<'s>>) -> Result<Kind<'s>, SyntaxError> {
        self.open('(')?;
        if self.lexer.eat(')') {
            self.open.pop();
            return Ok(Kind::Tuple { name, items: Vec::new() });
        }
        if self.field_name()?.is_some() {
            return Ok(Kind::Struct { name, fields: self.fields()? });
        }
        let mut items = Vec::new();
        loop {
            items.push(self.value()?);
            if self.closes(')')? {
                return Ok(Kind::Tuple { name, items });
            }
        }
    }

    fn fields(&mut self) -> Result<Vec<Field<'s>>, SyntaxError> {
        let mut fields = Vec::new();
        loop {
            let Some(name) = self.field_name()? else {
                return Err(match self.lexer.peek() {
                    Some('"') => self.missing("a field name").hint("field names are written without quotes"),
                    _ => self.missing("a field name and `:`"),
                });
            };
            self.lexer.rewind(name.span.end);
            self.lexer.skip_space()?;
            self.colon()?;
            fields.push(Field { name, value: self.value()? });
            if self.closes(')')? {
                return Ok(fields);
            }
        }
    }

    /// An identifier that a colon follows. Moves nothing.
    fn field_name(&mut self) -> Result<Option<Name<'s>>, SyntaxError> {
        let start = self.lexer.pos();
        let name = self.lexer.ident();
        self.lexer.skip_space()?;
        let found = name.filter(|_| self.lexer.peek() == Some(':'));
        self.lexer.rewind(start);
        Ok(found)
    }
}
