//! Specs and jobs of GPUs inside documents: a block marked as RON is a whole one, and is judged as zedd would judge it.

use super::Finding;
use super::Tree;

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.with_extension("md") {
        ron_blocks(path, text, findings);
    }
}

/// What a block holds.
#[derive(Clone, Copy)]
enum Holds {
    Spec,
    BadSpec,
    Job,
}

/// Blocks marked as RON parse and validate; those marked `ron,bad` do not; those marked `ron,job` are jobs.
fn ron_blocks(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut block: Option<(usize, Holds, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        match (&mut block, line.trim()) {
            (None, "```ron") => block = Some((number, Holds::Spec, String::new())),
            (None, "```ron,bad") => block = Some((number, Holds::BadSpec, String::new())),
            (None, "```ron,job") => block = Some((number, Holds::Job, String::new())),
            (Some((at, holds, spec)), "```") => {
                if let Some(message) = judge(*holds, spec) {
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

fn judge(holds: Holds, text: &str) -> Option<String> {
    let spec = |text: &str| {
        let name = zed_spec::DeployName::parse("example").map_err(|e| e.to_string())?;
        zed_spec::parse(&name, text.as_bytes()).map_err(|findings| findings.render("example.ron"))
    };
    match holds {
        Holds::Spec => spec(text).err().map(|why| format!("the spec is refused: {why}")),
        Holds::BadSpec if spec(text).is_err() => None,
        Holds::BadSpec => Some("the spec is accepted, and the document says that it is not".into()),
        Holds::Job => zed_spec::job::parse(text.as_bytes())
            .err()
            .map(|findings| format!("the job is refused: {}", findings.render("job.ron"))),
    }
}
