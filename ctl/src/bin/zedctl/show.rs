//! `events`, `import` and `version`: what a file of the tree says, passed on.

use crate::args::Tail;
use crate::paint::Ended;
use crate::paint::Failure;
use crate::paint::Ui;
use crate::paint::safe_lines;
use crate::status::host_name;
use crate::tree::Tree;
use serde::Serialize;
use std::io;
use std::io::Write;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::EXIT_OK;
use zed_ctl::Event;

/// Lines that `-f` begins with when nothing else is asked for, as `tail` does.
const FOLLOW_FROM: usize = 10;

/// `zedctl events [-f] [-n N]`: the lines as they are; with `--json` one object a line.
pub(crate) fn events(tree: &dyn Tree, ui: &mut Ui, tail: Tail) -> Ended {
    pass_on(tree, ui, "events", tail, |ui, line| {
        if !ui.json {
            return writeln!(ui.out, "{line}");
        }
        match Event::parse(line) {
            Ok(event) => writeln!(ui.out, "{}", serde_json::to_value(event).unwrap_or_default()),
            // An event of a newer zed is worth more than none.
            Err(_) => writeln!(ui.out, "{}", serde_json::json!({ "line": line })),
        }
    })
}

/// Passes the lines of a stream on.
pub(crate) fn pass_on(
    tree: &dyn Tree,
    ui: &mut Ui,
    path: &str,
    tail: Tail,
    print: impl Fn(&mut Ui, &str) -> io::Result<()>,
) -> Ended {
    let lines = tail.lines.or(tail.follow.then_some(FOLLOW_FROM));
    let mut output = None;
    let streamed = tree.stream(path, lines, tail.follow, &mut |line| {
        print(ui, line).and_then(|()| ui.out.flush()).map_err(|error| {
            output = Some(error);
            CtlError::new(Code::Failed, "standard output was closed")
        })
    });
    match (output, streamed) {
        (Some(error), _) => Err(Failure::Output(error)),
        (None, Err(error)) => Err(Failure::Refused(error)),
        (None, Ok(())) => Ok(EXIT_OK),
    }
}

/// `zedctl import`
pub(crate) fn import(tree: &dyn Tree, ui: &mut Ui) -> Ended {
    let host = host_name(tree)?;
    let spec = tree.read(&format!("hosts/{host}/import.ron"))?;
    ui.out.write_all(spec.as_bytes())?;
    Ok(EXIT_OK)
}

/// What `version` says.
#[derive(Debug, Serialize)]
struct Versions {
    zedctl: &'static str,
    zedd: Option<String>,
}

/// `zedctl version`. Without a daemon, half of the answer and the reason.
pub(crate) fn version(tree: Result<&dyn Tree, CtlError>, ui: &mut Ui) -> Ended {
    let zedctl = env!("CARGO_PKG_VERSION");
    let zedd = tree.and_then(|tree| tree.read("version"));
    let zedd_version = zedd.as_ref().ok().map(|text| text.trim_end().to_owned());
    if ui.json {
        ui.json(&Versions { zedctl, zedd: zedd_version })?;
    } else {
        writeln!(ui.out, "zedctl {zedctl}")?;
        if let Some(version) = zedd_version {
            write!(ui.out, "zedd {}", safe_lines(&version))?;
        }
    }
    match zedd {
        Ok(_) => Ok(EXIT_OK),
        Err(error) => Err(Failure::Refused(error)),
    }
}
