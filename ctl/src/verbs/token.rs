//! Splits a line into words as a shell does, without expansions.

/// Why a line cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `'` or `"` without its end.
    #[error("the quote {0} is not closed")]
    OpenQuote(char),
    /// A backslash with nothing behind it.
    #[error("the backslash at the end escapes nothing")]
    OpenEscape,
    /// A control character other than a tab.
    #[error("it contains the control character U+{:04X}", u32::from(*.0))]
    Control(char),
}

/// Words are separated by blanks. `'...'` is literal; in `"..."` a backslash escapes `"` and `\`; elsewhere a
/// backslash makes the next character literal. Quoted and unquoted parts that touch are one word.
pub fn tokenize(line: &str) -> Result<Vec<String>, TokenError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            '\\' => {
                let next = chars.next().ok_or(TokenError::OpenEscape)?;
                word.get_or_insert_default().push(checked(next)?);
            }
            c => word.get_or_insert_default().push(checked(c)?),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(
    quote: char,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &mut String,
) -> Result<(), TokenError> {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => {
                let escaped = chars.next_if(|next| matches!(next, '"' | '\\'));
                word.push(escaped.unwrap_or('\\'));
            }
            c => word.push(checked(c)?),
        }
    }
    Err(TokenError::OpenQuote(quote))
}

fn checked(c: char) -> Result<char, TokenError> {
    if c.is_control() && c != '\t' { Err(TokenError::Control(c)) } else { Ok(c) }
}
