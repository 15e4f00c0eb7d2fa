//! Specs inside documents: a block marked as RON is a whole spec, and is judged as zedd would judge it.

use super::Finding;
use super::Tree;

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.with_extension("md") {
        ron_blocks(path, text, findings);
    }
}

/// Blocks marked as RON parse and validate; those marked `ron,bad` do not.
fn ron_blocks(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut block: Option<(usize, bool, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        match (&mut block, line.trim()) {
            (None, "```ron") => block = Some((number, true, String::new())),
            (None, "```ron,bad") => block = Some((number, false, String::new())),
            (Some((at, good, spec)), "```") => {
                if let Some(message) = judge(*good, spec) {
                    findings.push(Finding { path: path.into(), line: *at, rule: "ron-block", message });
                }
                block = None;
            }
            (Some((_, _, spec)), _) => {
                spec.push_str(line);
                spec.push('\n');
            }
            (None, _) => {}
        }
    }
}

fn judge(good: bool, spec: &str) -> Option<String> {
    let name = zed_spec::DeployName::parse("example").map_err(|e| e.to_string());
    let verdict = name.and_then(|name| match zed_spec::parse(&name, spec.as_bytes()) {
        Ok(_) => Ok(()),
        Err(diagnostics) => Err(diagnostics.render("example.ron")),
    });
    match (good, verdict) {
        (true, Err(why)) => Some(format!("the spec is refused: {why}")),
        (false, Ok(())) => Some("the spec is accepted, and the document says that it is not".into()),
        _ => None,
    }
}
