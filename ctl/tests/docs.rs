//! docs/CTL.md holds what the program says of itself, word for word.
//!
//! With ZED_BLESS=1 in the environment the document is brought up to date instead.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that runs the program under test"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_zedctl")).args(arguments).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help text lists.
fn commands_of(text: &str) -> Vec<String> {
    let listed =
        text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn usage_of(text: &str) -> String {
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap();
    format!("    {}\n", usage.replace(" [OPTIONS]", ""))
}

/// The reference of zedctl: its help, then the lines of each command that say what is special about it.
fn zedctl_reference() -> String {
    let top = help(&["--help"]);
    let commands = commands_of(&top);
    let usages = commands.iter().map(|command| {
        let text = help(&[command, "--help"]);
        let below = commands_of(&text);
        let below = below.iter().map(|sub| usage_of(&help(&[command, sub, "--help"])));
        std::iter::once(usage_of(&text)).chain(below).collect::<String>()
    });
    let indented: String = top
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") })
        .collect();
    format!("{indented}\nThe commands with their arguments:\n\n{}", usages.collect::<String>())
}

/// The document with the text between the markers of `section` replaced.
fn replaced(document: &str, section: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {section}: generated -->\n"), format!("<!-- {section}: end -->\n"));
    let start = document.find(&begin).unwrap_or_else(|| panic!("{begin} is missing")) + begin.len();
    let stop = document.find(&end).unwrap_or_else(|| panic!("{end} is missing"));
    format!("{}\n{}\n{}", &document[..start], text.trim_end_matches('\n'), &document[stop..])
        .replace("\n<!-- ", "\n\n<!-- ")
        .replace("\n\n\n<!-- ", "\n\n<!-- ")
}

#[test]
fn the_document_says_what_the_program_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/CTL.md");
    let document = fs::read_to_string(&path).unwrap();
    let sections = [
        ("verbs", zed_ctl::verbs_markdown()),
        ("codes", zed_ctl::codes_markdown()),
        ("events", zed_ctl::events_markdown()),
        ("zedctl", zedctl_reference()),
    ];
    let current = sections.iter().fold(document.clone(), |text, (name, part)| replaced(&text, name, part));
    if std::env::var_os("ZED_BLESS").is_some() {
        fs::write(&path, &current).unwrap();
        return;
    }
    let differs = document.lines().zip(current.lines()).find(|(is, should)| is != should);
    assert!(
        document == current,
        "docs/CTL.md is out of date, first at {differs:?}: run this test with ZED_BLESS=1 and look at the difference"
    );
}
