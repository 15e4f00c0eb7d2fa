//! Rules for single lines and single files.

use super::Finding;
use super::Tree;

/// Longest file, without its tests, in lines: about 500, so that nobody splits a file over its last function.
const MAX_LINES: usize = 550;

/// Files that a rule does not hold for, each with its reason. One that is no longer needed is a finding.
const EXEMPT: &[(&str, &str, &str)] = &[
    ("machine-path", "tests/xtask/src/tidy/tests.rs", "shows what the rule finds"),
    ("unfinished", "tests/xtask/src/tidy/tests.rs", "shows what the rule finds"),
    ("file-size", "specs/src/ast.rs", "one list of types: what a spec can say"),
    ("unfinished", "tests/xtask/src/tidy/sources.rs", "names the words"),
    ("machine-path", "tests/xtask/src/tidy/sources.rs", "names the folders"),
];

/// Words that say that something is not finished.
const UNFINISHED: &[&str] =
    &["TODO", "FIXME", "XXX:", "todo!(", "unimplemented!(", "placeholder", "Placeholder"];

/// Folders of one machine.
const MACHINE: &[&str] = &["/work/", "/root/", "/home/"];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut found = Vec::new();
    for (path, text) in &tree.files {
        if path.ends_with("Cargo.lock") {
            continue;
        }
        lines(path, text, &mut found);
        if path.ends_with(".rs") {
            rust_file(path, text, &mut found);
        }
    }
    for (rule, path, _) in EXEMPT {
        let before = found.len();
        found.retain(|f| f.rule != *rule || f.path != *path);
        if before == found.len() && tree.files.contains_key(*path) {
            found.push(Finding {
                path: (*path).to_owned(),
                line: 0,
                rule: "exempt",
                message: format!("is exempt from `{rule}` but does not need it: remove the exemption"),
            });
        }
    }
    findings.append(&mut found);
}

fn lines(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut add = |line, rule, message| findings.push(Finding { path: path.into(), line, rule, message });
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(word) = UNFINISHED.iter().find(|w| line.contains(**w)) {
            add(number, "unfinished", format!("`{word}`: finish it, or say what is so and why"));
        }
        if let Some(folder) = MACHINE.iter().find(|m| mentions_folder(line, m)) {
            add(number, "machine-path", format!("`{folder}` is a folder of one machine"));
        }
        if line.ends_with([' ', '\t']) {
            add(number, "trailing-space", "white space at the end of the line".into());
        }
        let code = line.trim_start();
        // A module that several test programs share cannot expect what only some of them would warn of.
        let shared_by_tests =
            path.contains("/tests/") && path.ends_with("/mod.rs") && line.contains("reason = ");
        if path.ends_with(".rs")
            && !shared_by_tests
            && (code.starts_with("#[allow(") || code.starts_with("#![allow("))
        {
            add(number, "allow", "use #[expect(lint, reason = \"...\")]".into());
        }
        if path.ends_with(".rs") && !line.is_ascii() {
            add(number, "ascii", "source is plain ASCII: write an escape".into());
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        add(text.lines().count(), "final-newline", "the last line has no newline".into());
    }
}

/// Does an absolute path in this folder occur, and not merely a longer path that ends like it (`/a/work/b`)?
fn mentions_folder(line: &str, folder: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "_-.$}{".contains(c);
    // `/home/u` is anybody.
    let anybody = |rest: &str| rest.starts_with("u/") || rest == "u" || rest.starts_with("u\"");
    line.match_indices(folder)
        .any(|(at, _)| !line[..at].ends_with(inside) && !anybody(&line[at + folder.len()..]))
}

fn rust_file(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut add = |line, rule, message| findings.push(Finding { path: path.into(), line, rule, message });
    let first = text.lines().find(|l| !l.trim().is_empty() && !l.starts_with("#!/")).unwrap_or_default();
    if !first.starts_with("//!") && !path.ends_with("/tests.rs") {
        add(1, "module-doc", "starts without `//!`: say what the module owns and must never do".into());
    }
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("_tests");
    let size = text.lines().take_while(|l| l.trim() != "#[cfg(test)]" || !opens_tests(text, l)).count();
    if !is_test && size > MAX_LINES {
        add(0, "file-size", format!("{size} lines without tests, more than {MAX_LINES}: split it"));
    }
}

/// Is this `#[cfg(test)]` the one above the tests module, and not above a single item?
fn opens_tests(text: &str, line: &str) -> bool {
    let at = line.as_ptr() as usize - text.as_ptr() as usize + line.len();
    let next = text[at..].lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with("#["));
    next.is_some_and(|l| l.starts_with("mod "))
}
