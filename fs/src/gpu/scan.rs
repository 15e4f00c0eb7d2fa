//! Where the text of a job ends, without understanding it: brackets, strings and comments of RON are followed, nothing
//! else.
//!
//! Each byte is looked at once, however the text is cut into pieces. Judges nothing: what cannot become a job is handed
//! to the parser, which says why.

/// What a piece brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The text goes on after it.
    More,
    /// The text ends after so many of its bytes.
    Ends(usize),
    /// It cannot be a job, whatever follows.
    Wrong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Plain,
    /// After a `/`.
    Slash,
    LineComment,
    /// So many `/*` are open; the last byte.
    BlockComment(u32, u8),
    Text,
    TextEscape,
    Char,
    CharEscape,
    /// After `r` and so many `#`.
    RawOpen(u32),
    /// In `r#"..."#` with so many `#`, of which so many have been seen after a quote.
    RawText(u32, Option<u32>),
}

/// How far a text has been followed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scan {
    mode: Mode,
    depth: u32,
    /// In `#![...]` before the job.
    attribute: bool,
    /// The first bytes of the last word, and how many it has.
    word: [u8; 3],
    word_len: usize,
    /// There was a blank after it.
    gap: bool,
    content: bool,
    raw: bool,
}

impl Scan {
    /// There is more than blanks and comments.
    pub(super) fn has_content(&self) -> bool {
        self.content
    }

    /// Something is called `Raw(`: bytes follow the text.
    pub(super) fn has_raw(&self) -> bool {
        self.raw
    }

    /// Follows the next piece.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Seen {
        for (at, byte) in piece.iter().enumerate() {
            match self.step(*byte) {
                Seen::More => {}
                Seen::Ends(_) => return Seen::Ends(at + 1),
                Seen::Wrong => return Seen::Wrong,
            }
        }
        Seen::More
    }

    fn step(&mut self, byte: u8) -> Seen {
        match (self.mode, byte) {
            (Mode::Plain, _) => return self.plain(byte),
            (Mode::Slash, b'/') => self.mode = Mode::LineComment,
            (Mode::Slash, b'*') => self.mode = Mode::BlockComment(1, 0),
            (Mode::Slash, _) => {
                self.mode = Mode::Plain;
                return self.plain(byte);
            }
            (Mode::LineComment, b'\n') => self.mode = Mode::Plain,
            (Mode::BlockComment(1, b'*'), b'/') => self.mode = Mode::Plain,
            (Mode::BlockComment(open, b'*'), b'/') => self.mode = Mode::BlockComment(open - 1, 0),
            (Mode::BlockComment(open, b'/'), b'*') => self.mode = Mode::BlockComment(open + 1, 0),
            (Mode::BlockComment(open, _), _) => self.mode = Mode::BlockComment(open, byte),
            (Mode::Text, b'"') | (Mode::Char, b'\'') => self.mode = Mode::Plain,
            (Mode::Text, b'\\') => self.mode = Mode::TextEscape,
            (Mode::TextEscape, _) => self.mode = Mode::Text,
            (Mode::Char, b'\\') => self.mode = Mode::CharEscape,
            (Mode::CharEscape, _) => self.mode = Mode::Char,
            (Mode::RawOpen(hashes), b'#') => self.mode = Mode::RawOpen(hashes + 1),
            (Mode::RawOpen(hashes), b'"') => self.mode = Mode::RawText(hashes, None),
            (Mode::RawOpen(_), _) => return Seen::Wrong,
            (Mode::RawText(0, _), b'"') => self.mode = Mode::Plain,
            (Mode::RawText(hashes, _), b'"') => self.mode = Mode::RawText(hashes, Some(0)),
            (Mode::RawText(hashes, Some(seen)), b'#') if seen + 1 == hashes => self.mode = Mode::Plain,
            (Mode::RawText(hashes, Some(seen)), b'#') => self.mode = Mode::RawText(hashes, Some(seen + 1)),
            (Mode::RawText(hashes, Some(_)), _) => self.mode = Mode::RawText(hashes, None),
            (Mode::LineComment | Mode::Text | Mode::Char | Mode::RawText(..), _) => {}
        }
        Seen::More
    }

    fn plain(&mut self, byte: u8) -> Seen {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                // `hello`, without a bracket on its line: said at once, because nobody may look at the close.
                if byte == b'\n' && self.depth == 0 && self.word_len > 0 {
                    return Seen::Wrong;
                }
                self.gap = true;
                return Seen::More;
            }
            b'/' => self.mode = Mode::Slash,
            _ => {
                self.content = true;
                return self.token(byte);
            }
        }
        Seen::More
    }

    fn token(&mut self, byte: u8) -> Seen {
        let outside = self.depth == 0 && !self.attribute;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' => {
                if std::mem::take(&mut self.gap) {
                    self.word_len = 0;
                }
                if let Some(place) = self.word.get_mut(self.word_len) {
                    *place = byte;
                }
                self.word_len += 1;
                return Seen::More;
            }
            b'"' if self.is_word(b"r") => self.mode = Mode::RawText(0, None),
            b'#' if self.is_word(b"r") => self.mode = Mode::RawOpen(1),
            b'#' if self.depth == 0 => self.attribute = true,
            b'(' | b'[' | b'{' => {
                self.raw |= byte == b'(' && self.is_word(b"Raw");
                self.depth += 1;
            }
            b')' | b']' | b'}' if self.depth == 0 => return Seen::Wrong,
            b')' | b']' | b'}' => {
                self.depth -= 1;
                // That of an attribute is not the job's.
                if self.depth == 0 && !std::mem::take(&mut self.attribute) {
                    return Seen::Ends(0);
                }
            }
            0 => return Seen::Wrong,
            _ if outside => return Seen::Wrong,
            b'"' => self.mode = Mode::Text,
            b'\'' => self.mode = Mode::Char,
            _ => {}
        }
        self.word_len = 0;
        self.gap = false;
        Seen::More
    }

    fn is_word(&self, word: &[u8]) -> bool {
        self.word_len == word.len() && self.word.starts_with(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_ends_with_its_last_bracket() {
        // The end is where the `@` is.
        for marked in [
            "Job()@",
            "Job()@\n",
            "()@x",
            "// (\nJob(a: [1, 2], b: {})@\n",
            "/* ( /* [ */ ( */ Job(a: (1))@)",
            "#![enable(implicit_some)]\nJob()@",
            "Job(a: \")\")@",
            r#"Job(a: "\")")@"#,
            r##"Job(a: r#")" ) " # "#)@"##,
            "Job(a: r\")\\\")@",
            "Job(a: ')', b: '\\'')@",
            "Job(a: 1 / 2)@",
            "Job(a: // )\n1)@",
            "Job(",
            "",
            "// nothing\n",
            "Job(a: \"",
        ] {
            let seen = marked.find('@').map_or(Seen::More, Seen::Ends);
            assert_eq!(Scan::default().feed(marked.replace('@', "").as_bytes()), seen, "{marked}");
        }
    }

    #[test]
    fn what_cannot_be_a_job_is_told_at_once() {
        for text in ["hello\n", ")", "1, 2", "Job(\0", "\0", "\"Job()\"", "hello: (", "r#x", "\u{fc}"] {
            assert_eq!(Scan::default().feed(text.as_bytes()), Seen::Wrong, "{text:?}");
        }
        for text in ["Job", "J", "#!", "Job \t", "  \n\t"] {
            assert_eq!(Scan::default().feed(text.as_bytes()), Seen::More, "{text:?}");
        }
    }

    #[test]
    fn raw_inputs_and_content_are_seen() {
        for (text, raw) in [
            ("Job(a: Raw(F32, [3]))", true),
            ("Job(a: Raw  (F32, [3]))", true),
            ("Job(reply: Raw)", false),
            ("Job(a: Rawer(1))", false),
            ("Job(a: \"Raw(\")", false),
            ("// Raw(\nJob()", false),
        ] {
            let mut scan = Scan::default();
            scan.feed(text.as_bytes());
            assert_eq!(scan.has_raw(), raw, "{text}");
            assert!(scan.has_content(), "{text}");
        }
        let mut scan = Scan::default();
        scan.feed(b" // Job()\n/* x */");
        assert!(!scan.has_content());
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(text in "[A-Za-z#\"'\\\\/*(){}\\[\\] \nr]{0,60}", cut in 0_usize..60) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let (first, second) = bytes.split_at(cut);
            let whole = Scan::default().feed(bytes);
            let mut scan = Scan::default();
            let pieces = match scan.feed(first) {
                Seen::More => match scan.feed(second) {
                    Seen::Ends(at) => Seen::Ends(cut + at),
                    other => other,
                },
                other => other,
            };
            prop_assert_eq!(whole, pieces);
        }
    }
}
