//! `logs` and `crash`: what an app wrote, also from a numbered line on, and how its last runs ended.
//!
//! The lines of `apps/APP/log` are passed on as they are. Their numbers are counted from the lines `TIME zed line N`,
//! which say their own; older parts are in `log.1` to `log.3`.

use crate::args::LogOptions;
use crate::args::Tail;
use crate::paint::Ended;
use crate::paint::Failure;
use crate::paint::Ui;
use crate::show::pass_on;
use crate::status::read_app;
use crate::tree::Tree;
use std::io;
use std::io::Write;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::EXIT_OK;

/// Characters of the time at the begin of a line.
const TIME: usize = 24;
/// Older parts of the output, oldest first.
const OLDER: [&str; 3] = ["log.3", "log.2", "log.1"];

/// `zedctl logs [-f] [-n N] APP`: byte for byte what the app wrote, as `cat` would show it. `zedctl logs --from N APP`:
/// from line N on, each line with its number.
pub(crate) fn logs(tree: &dyn Tree, ui: &mut Ui, app: &str, options: LogOptions) -> Ended {
    read_app(tree, app)?;
    let LogOptions { follow, lines, from } = options;
    let Some(from) = from else {
        return pass_on(tree, ui, &format!("apps/{app}/log"), Tail { follow, lines }, |ui, line| {
            if ui.json {
                writeln!(ui.out, "{}", serde_json::Value::from(line))
            } else {
                writeln!(ui.out, "{line}")
            }
        });
    };
    let mut reader =
        Numbered { tree, app, next: from.max(1), wanted: from.max(1), at: 0, begun: false, output: None };
    let path = format!("apps/{app}/log");
    let streamed = tree.stream(&path, None, follow, &mut |line| reader.line(ui, line));
    let older = if reader.begun || streamed.is_err() { Ok(()) } else { reader.older(ui, u64::MAX) };
    match (reader.output.take(), streamed.and(older)) {
        (Some(error), _) => Err(Failure::Output(error)),
        (None, Err(error)) => Err(Failure::Refused(error)),
        (None, Ok(())) => Ok(EXIT_OK),
    }
}

/// What a line says about numbers: its own, and whether it tells of lines that were lost.
fn mark_of(line: &str) -> Option<(u64, bool)> {
    let text = line.get(TIME..)?.strip_prefix(" zed line ")?;
    let (number, rest) = text.split_once(';').map_or((text, ""), |(number, rest)| (number, rest));
    Some((number.parse().ok()?, !rest.is_empty()))
}

/// The lines from one number on.
struct Numbered<'a> {
    tree: &'a dyn Tree,
    app: &'a str,
    /// The number of the first line that was not shown yet.
    next: u64,
    /// The first that was asked for.
    wanted: u64,
    /// The number of the last line of the stream.
    at: u64,
    begun: bool,
    /// Standard output failed.
    output: Option<io::Error>,
}

impl Numbered<'_> {
    /// One line of the stream, which begins at the newest part of the output and follows it.
    fn line(&mut self, ui: &mut Ui, line: &str) -> Result<(), CtlError> {
        let mark = mark_of(line);
        let number = mark.map_or(self.at + 1, |(number, _)| number);
        // What lies between is in older parts: at the begin, and when the output was rotated faster than read.
        if (!self.begun || number > self.at + 1) && number > self.next {
            self.begun = true;
            self.older(ui, number)?;
            if number > self.next && !mark.is_some_and(|(_, tells)| tells) {
                self.missing(ui, number);
            }
        }
        self.begun = true;
        self.at = number;
        self.show(ui, number, line)
    }

    /// What older parts have, up to a number.
    fn older(&mut self, ui: &mut Ui, before: u64) -> Result<(), CtlError> {
        let folder = format!("apps/{}", self.app);
        let names = self.tree.list(&folder)?;
        for name in OLDER.into_iter().filter(|name| names.iter().any(|there| there == name)) {
            let text = match self.tree.read(&format!("{folder}/{name}")) {
                Ok(text) => text,
                // Rotated away in the meantime.
                Err(error) if error.code == Code::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut at = 0;
            for line in text.lines() {
                let mark = mark_of(line);
                at = mark.map_or(at + 1, |(number, _)| number);
                if at >= before {
                    break;
                }
                if at > self.next && mark.is_some_and(|(_, tells)| !tells) {
                    self.missing(ui, at);
                }
                self.show(ui, at, line)?;
            }
        }
        Ok(())
    }

    /// Says that there is nothing to show before a number.
    fn missing(&mut self, ui: &Ui, before: u64) {
        if self.next < before && before > self.wanted {
            ui.progress(&format!("lines {} to {} are no longer kept", self.next, before - 1));
            self.next = before;
        }
    }

    fn show(&mut self, ui: &mut Ui, number: u64, line: &str) -> Result<(), CtlError> {
        if number < self.next {
            return Ok(());
        }
        self.next = number + 1;
        let written = if ui.json {
            writeln!(ui.out, "{}", serde_json::json!({ "number": number, "line": line }))
        } else {
            writeln!(ui.out, "{number} {line}")
        };
        written.and_then(|()| ui.out.flush()).map_err(|error| {
            self.output = Some(error);
            CtlError::new(Code::Failed, "standard output was closed")
        })
    }
}

/// `zedctl crash APP`: the post-mortems, newest first. Nothing when there is none.
pub(crate) fn crash(tree: &dyn Tree, ui: &mut Ui, app: &str) -> Ended {
    read_app(tree, app)?;
    if !ui.json {
        ui.out.write_all(tree.read(&format!("apps/{app}/crash"))?.as_bytes())?;
        return Ok(EXIT_OK);
    }
    let text = tree.read(&format!("apps/{app}/crash.json"))?;
    let crashes: serde_json::Value = if text.is_empty() {
        serde_json::json!({ "crashes": [] })
    } else {
        serde_json::from_str(&text).map_err(|error| {
            CtlError::new(Code::Internal, format!("`apps/{app}/crash.json` is not readable: {error}"))
        })?
    };
    ui.json(&crashes)?;
    Ok(EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_what_apps_write() {
        let time = "2026-11-22T17:46:28.123Z";
        for (text, expect) in [
            ("zed line 7", Some((7, false))),
            ("zed line 7; lines 3 to 6 were lost, the log could not be written: no", Some((7, true))),
            ("out line 7", None),
            ("zed line seven", None),
            ("zed started version 1", None),
        ] {
            assert_eq!(mark_of(&format!("{time} {text}")), expect, "{text}");
        }
        assert_eq!(mark_of("short"), None);
    }
}
