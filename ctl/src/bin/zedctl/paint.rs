//! What people see: aligned tables, colours on a terminal, sizes and ages in words.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
use zed_ctl::CtlError;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Refused or failed.
    Refused(CtlError),
    /// Standard output cannot be written.
    Output(io::Error),
}

impl From<CtlError> for Failure {
    fn from(error: CtlError) -> Self {
        Failure::Refused(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

/// What a command came to: its exit status.
pub(crate) type Ended = Result<u8, Failure>;

/// Where a command writes: results to `out`, progress to the standard error.
pub(crate) struct Ui {
    pub(crate) out: io::StdoutLock<'static>,
    pub(crate) json: bool,
    color: bool,
}

/// Colours by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Notice,
    /// Wrong.
    Bad,
    /// A heading.
    Strong,
    /// As it comes.
    Plain,
}

impl Ui {
    /// Colours are for terminals, and for people who did not say no (<https://no-color.org>).
    pub(crate) fn new(json: bool, no_color: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let stdout = io::stdout();
        let color = !json && !no_color && !unwanted && stdout.is_terminal();
        Self { out: stdout.lock(), json, color }
    }

    /// A text in its colour.
    pub(crate) fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Good => "32",
            Paint::Notice => "33",
            Paint::Bad => "31",
            Paint::Strong => "1",
            Paint::Plain => return text.to_owned(),
        };
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// One line on the standard error. Progress that cannot be written is lost: nothing depends on it.
    pub(crate) fn progress(&self, line: &str) {
        let _ = writeln!(io::stderr(), "{}", safe(line));
    }

    /// A value as JSON, newline-terminated.
    pub(crate) fn json<T: serde::Serialize>(&mut self, value: &T) -> io::Result<()> {
        self.out.write_all(zed_ctl::to_json(value).as_bytes())
    }

    /// An aligned table below its heading; nothing when it has no rows.
    pub(crate) fn table(&mut self, heading: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let heading: Vec<Cell> = heading.iter().map(|text| Cell::new(text, Paint::Strong)).collect();
        let all = || std::iter::once(&heading).chain(rows);
        let widths: Vec<usize> = (0..heading.len())
            .map(|column| all().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0))
            .collect();
        for row in all() {
            // The blanks before a cell are written with it, so that no line ends in blanks.
            let (mut line, mut blanks) = (String::new(), 0);
            for (cell, width) in row.iter().zip(&widths) {
                if cell.width() > 0 {
                    line.extend(std::iter::repeat_n(' ', blanks));
                    line.push_str(&self.paint(cell.paint, &cell.text));
                    blanks = 0;
                }
                blanks += width - cell.width() + 2;
            }
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }
}

/// One cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A text in a colour; `-` for an empty one.
    pub(crate) fn new(text: &str, paint: Paint) -> Self {
        let text = if text.is_empty() { "-".to_owned() } else { safe(text) };
        Self { text, paint }
    }

    /// A text.
    pub(crate) fn plain(text: &str) -> Self {
        Self::new(text, Paint::Plain)
    }

    /// The last cell of a row that has nothing to say.
    pub(crate) fn note(text: &str, paint: Paint) -> Self {
        Self { text: safe(text), paint }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// A text whose control characters cannot steer a terminal: what apps and specs say is not ours.
pub(crate) fn safe(text: &str) -> String {
    zed_ctl::one_line(text).replace("\\\\", "\\")
}

/// The same for a text of several lines.
pub(crate) fn safe_lines(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        all.push_str(&line.split('\t').map(safe).collect::<Vec<_>>().join("\t"));
        all.push('\n');
        all
    })
}

/// The colour of a state or a health.
pub(crate) fn paint_of(word: &str) -> Paint {
    match word {
        "converged" | "running" | "completed" | "healthy" => Paint::Good,
        "failed" | "rejected" | "needs-operator" | "gone" | "unhealthy" | "backoff" => Paint::Bad,
        "accepted" | "converging" | "held" | "drift" | "deploying" | "rolling-back" | "removing"
        | "stopped" => Paint::Notice,
        _ => Paint::Plain,
    }
}

/// `12.3 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = u128::from(bytes) * 10;
    let mut unit = 0;
    while value >= 10_240 && unit + 1 < UNITS.len() {
        value = (value + 512) / 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{} {name}", value / 10) } else { format!("{}.{} {name}", value / 10, value % 10) }
}

/// `3m`: how long ago something was, in the largest unit that fits. `-` for 0, which stands for unknown.
pub(crate) fn age(then: i64, now: i64) -> String {
    let seconds = (now - then).max(0);
    match seconds {
        _ if then == 0 => "-".to_owned(),
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m", s / 60),
        s if s < 86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
            (13_207_024_435, "12.3 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (then, now, text) in [
            (0, 100, "-"),
            (100, 100, "0s"),
            (100, 50, "0s"),
            (100, 159, "59s"),
            (100, 160, "1m"),
            (100, 7300, "2h"),
            (100, 864_100, "10d"),
        ] {
            assert_eq!(age(then, now), text);
        }
    }

    #[test]
    fn texts_cannot_steer_the_terminal() {
        assert_eq!(safe("a\x1b[2J\nb\\c"), "a\\u{1b}[2J\\nb\\c");
        assert_eq!(safe_lines("a\tb\x07\nc"), "a\tb\\u{7}\nc\n");
    }

    #[test]
    fn colour_is_a_choice_of_the_ui() {
        let ui = |color| Ui { out: io::stdout().lock(), json: false, color };
        assert_eq!(ui(true).paint(Paint::Bad, "failed"), "\x1b[31mfailed\x1b[0m");
        assert_eq!(ui(true).paint(Paint::Bad, ""), "");
        assert_eq!(ui(true).paint(Paint::Plain, "x"), "x");
        assert_eq!(ui(false).paint(Paint::Bad, "failed"), "failed");
    }
}
