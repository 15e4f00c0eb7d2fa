//! Documents tell the truth: links lead somewhere, specs in them are real and parse, the code map is whole.

use super::Finding;
use super::Tree;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.with_extension("md") {
        links(tree, path, text, findings);
        example_paths(tree, path, text, findings);
        named_tests(tree, path, text, findings);
    }
    code_map(tree, findings);
    adrs(tree, findings);
    error_texts(tree, findings);
}

/// `[text](target)`: a target without a scheme is a file of this repository, and an anchor one of its headings.
fn links(tree: &Tree, path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (number, line) in prose(text) {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let full = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
            let message = if !exists(tree, &full) {
                format!("`{target}` leads to {full}, which is not there")
            } else if !anchor.is_empty()
                && tree.files.get(&full).is_some_and(|t| !headings(t).any(|h| h == anchor))
            {
                format!("`{target}`: {full} has no heading with that anchor")
            } else {
                continue;
            };
            findings.push(Finding { path: path.into(), line: number, rule: "links", message });
        }
    }
}

/// Every `specs/examples/NAME.ron` that a document names is a file.
fn example_paths(tree: &Tree, path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (number, line) in (1..).zip(text.lines()) {
        for (at, _) in line.match_indices("specs/examples/") {
            let name = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
            let end = line[at..].find(|c| !name(c)).map_or(line.len(), |n| at + n);
            let named = line[at..end].trim_end_matches('.');
            if Path::new(named).extension().is_some_and(|e| e == "ron") && !tree.files.contains_key(named) {
                findings.push(Finding {
                    path: path.into(),
                    line: number,
                    rule: "examples-in-docs",
                    message: format!("{named} is not there"),
                });
            }
        }
    }
}

/// A test that a document names, as `name` in `path/file.rs`, is there.
fn named_tests(tree: &Tree, path: &str, text: &str, findings: &mut Vec<Finding>) {
    const BETWEEN: &str = "` in `";
    // The two may stand on two lines.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (at, _) in flat.match_indices(BETWEEN) {
        let name = flat[..at].rsplit('`').next().unwrap_or_default();
        let file = flat[at + BETWEEN.len()..].split('`').next().unwrap_or_default();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name || Path::new(file).extension().is_none_or(|e| e != "rs") {
            continue;
        }
        if !tree.files.get(file).is_some_and(|source| source.contains(&format!("fn {name}("))) {
            let line = 1 + text.lines().position(|line| line.contains(name)).unwrap_or_default();
            let message = format!("{file} has no `{name}`");
            findings.push(Finding { path: path.into(), line, rule: "named-tests", message });
        }
    }
}

/// ARCHITECTURE names every crate, by name and by folder.
fn code_map(tree: &Tree, findings: &mut Vec<Finding>) {
    const MAP: &str = "docs/ARCHITECTURE.md";
    let Some(map) = tree.files.get(MAP) else { return };
    for (path, manifest) in tree.files.iter().filter(|(p, _)| p.ends_with("/Cargo.toml")) {
        let name = manifest.lines().find_map(|l| l.strip_prefix("name = \"")?.strip_suffix('"'));
        let folder = path.trim_end_matches("Cargo.toml");
        for wanted in [name.unwrap_or_default(), folder] {
            if !map.contains(&format!("`{wanted}`")) {
                let message = format!("does not name `{wanted}` ({path})");
                findings.push(Finding { path: MAP.into(), line: 0, rule: "code-map", message });
            }
        }
    }
}

/// Every decision has the same four parts and at most 60 lines.
fn adrs(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.files.iter().filter(|(p, _)| p.starts_with("docs/adr/") && p.ends_with(".md")) {
        for part in ["Status", "Context", "Decision", "Consequences"] {
            let heading = |l: &str| {
                l.trim_end() == format!("## {part}") || (part == "Status" && l.starts_with("Status: "))
            };
            if !text.lines().any(heading) {
                let message = format!("has no `## {part}`");
                findings.push(Finding { path: path.clone(), line: 0, rule: "adr", message });
            }
        }
    }
}

/// Every error that TROUBLESHOOTING explains, or GPU lists, is one that the program prints.
fn error_texts(tree: &Tree, findings: &mut Vec<Finding>) {
    let sources = tree.with_extension("rs").filter(|(path, _)| !path.starts_with("tests/"));
    let sources: String = sources.map(|(_, text)| joined_lines(text)).collect();
    let heading = |line: &str| line.strip_prefix("### `")?.strip_suffix('`').map(str::to_owned);
    explained(tree, "docs/TROUBLESHOOTING.md", "", heading, &sources, findings);
    explained(tree, "docs/GPU.md", "## Errors by their text", first_cell, &sources, findings);
}

/// The texts of one section of a page, or of the whole page, are in the sources.
fn explained(
    tree: &Tree,
    page: &str,
    section: &str,
    text_of: impl Fn(&str) -> Option<String>,
    sources: &str,
    findings: &mut Vec<Finding>,
) {
    let Some(text) = tree.files.get(page) else { return };
    let mut inside = section.is_empty();
    for (number, line) in (1..).zip(text.lines()) {
        if !section.is_empty() && line.starts_with("## ") {
            inside = line == section;
        }
        let Some(text) = text_of(line).filter(|_| inside) else { continue };
        let pieces = text.split("...").map(|piece| piece.trim_matches(['(', ')', ' ']));
        for piece in pieces.filter(|piece| piece.len() > 5 && !sources.contains(piece)) {
            let message = format!("no source prints `{piece}`");
            findings.push(Finding { path: page.into(), line: number, rule: "error-texts", message });
        }
    }
}

/// What a table's row begins with, if that is in backquotes.
fn first_cell(line: &str) -> Option<String> {
    let cell = line.strip_prefix("| `")?;
    let text = match cell.strip_prefix('`') {
        Some(text) => text.split_once("``")?.0,
        None => cell.split_once('`')?.0,
    };
    Some(text.to_owned())
}

/// Source text in which a string that goes on over lines is one line.
fn joined_lines(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let mut goes_on = false;
    for line in text.lines() {
        let line = if goes_on { line.trim_start() } else { line };
        goes_on = line.ends_with('\\');
        joined.push_str(line.strip_suffix('\\').unwrap_or(line));
        if !goes_on {
            joined.push('\n');
        }
    }
    joined
}

/// Lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence && !line.starts_with("    ")
    })
}

/// Anchors of a document's headings, as code hosts make them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        let is_heading = title.len() < line.len() && title.starts_with(' ');
        is_heading.then(|| {
            let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
    })
}

/// `target` as seen from the file `from`, without `.` and `..`.
fn resolve(from: &str, target: &str) -> String {
    let mut full = PathBuf::from(from);
    full.pop();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                full.pop();
            }
            Component::Normal(name) => full.push(name),
            _ => {}
        }
    }
    full.to_string_lossy().into_owned()
}

fn exists(tree: &Tree, path: &str) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    path.is_empty() || tree.paths.iter().any(|p| p == path || p.starts_with(&folder))
}
