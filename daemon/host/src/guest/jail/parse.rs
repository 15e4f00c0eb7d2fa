//! What jls(8) and bastille(8) print, as values.
//!
//! Owns the reading; a line that is not understood is an error, never left out in silence.

use crate::guest::GuestErrorKind;

/// A jail as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its number: another one after each start.
    pub(super) jid: u32,
    /// Its name; its number when it has none.
    pub(super) name: String,
    /// Its root.
    pub(super) path: String,
    /// Removed, and held by something that has not ended.
    pub(super) dying: bool,
}

/// Reads `jls -d -q jid dying name path`: columns separated by a space, quoted where they hold one.
pub(super) fn parse_jls(text: &str) -> Result<Vec<Listed>, GuestErrorKind> {
    let mut jails = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let bad = || GuestErrorKind::Output { tool: "jls", line: line.to_owned() };
        let columns = split_quoted(line).ok_or_else(bad)?;
        let [jid, dying, name, path] = &columns[..] else { return Err(bad()) };
        let dying = match dying.as_str() {
            "false" | "0" | "nodying" => false,
            "true" | "1" | "dying" => true,
            _ => return Err(bad()),
        };
        let jid = jid.parse().map_err(|_| bad())?;
        jails.push(Listed { jid, name: name.clone(), path: path.clone(), dying });
    }
    Ok(jails)
}

/// Words separated by spaces; double or single quotes hold spaces, a backslash takes what follows as it is.
fn split_quoted(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        if chars.peek().is_none() {
            return Some(words);
        }
        let mut word = String::new();
        let mut quote = None;
        loop {
            match (chars.next(), quote) {
                (None, None) => break,
                (None, Some(_)) => return None,
                (Some('\\'), _) => word.push(chars.next()?),
                (Some(c), Some(open)) if c == open => quote = None,
                (Some(c), Some(_)) => word.push(c),
                (Some(c @ ('"' | '\'')), None) => quote = Some(c),
                (Some(' ' | '\t'), None) => break,
                (Some(c), None) => word.push(c),
            }
        }
        words.push(word);
    }
}

/// Reads `bastille list jails`: a name a line. Colours and empty lines are left out.
pub(super) fn parse_bastille_jails(text: &str) -> Vec<String> {
    let names = text.lines().map(|line| strip_colour(line).trim().to_owned());
    names.filter(|name| !name.is_empty() && !name.contains(' ')).collect()
}

/// Without the terminal's colour sequences, which older versions print to pipes as well.
fn strip_colour(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // Up to the letter that ends the sequence.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jls_is_read() {
        let text = "1 false shop /zroot/jails/shop\n7 true old \"/zroot/with space\"\n\n";
        let jails = parse_jls(text).unwrap();
        assert_eq!(jails.len(), 2);
        assert_eq!((jails[0].jid, jails[0].name.as_str(), jails[0].dying), (1, "shop", false));
        assert_eq!((jails[1].path.as_str(), jails[1].dying), ("/zroot/with space", true));
        assert_eq!(parse_jls("").unwrap(), []);
        for bad in [
            "jls: jail \"x\" not found",
            "1 false shop",
            "x false shop /",
            "1 maybe shop /",
            "1 false \"shop /",
        ] {
            assert!(parse_jls(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bastille_s_list_is_read_with_and_without_colour() {
        assert_eq!(parse_bastille_jails("shop\nedge\n"), ["shop", "edge"]);
        assert_eq!(parse_bastille_jails("\u{1b}[0;32mshop\u{1b}[0m\n\n"), ["shop"]);
    }
}
