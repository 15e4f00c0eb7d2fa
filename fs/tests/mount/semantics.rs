//! Holds docs/SEMANTICS.md to the tests: its section about the tree is made of their doc comments.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const BEGIN: &str =
    "<!-- The tree: made from fs/tests/mount by `UPDATE_DOCS=1 cargo test -p zed-fs semantics`. -->\n";
const END: &str = "<!-- End of the tree. -->\n";

/// Number, text, file and name of each test that proves a paragraph.
fn paragraphs() -> Vec<(u32, String, String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mount")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let source = fs::read_to_string(&path).unwrap();
        let mut comment: Vec<&str> = Vec::new();
        for line in source.lines() {
            if let Some(text) = line.strip_prefix("/// ") {
                comment.push(text);
            } else if let Some(function) = line.strip_prefix("fn ") {
                let text = comment.join(" ");
                let numbered = text.strip_prefix('T').and_then(|text| text.split_once(". "));
                if let Some((Ok(number), text)) = numbered.map(|(number, text)| (number.parse(), text)) {
                    let name = function.split('(').next().unwrap().to_owned();
                    found.push((number, text.to_owned(), file.clone(), name));
                }
                comment.clear();
            } else if !line.starts_with("#[") {
                comment.clear();
            }
        }
    }
    found.sort();
    found
}

#[test]
fn semantics_are_what_the_tests_prove() {
    let paragraphs = paragraphs();
    assert!(paragraphs.len() > 30, "{}", paragraphs.len());
    let mut section = format!("{BEGIN}## The tree\n");
    for (number, text, file, name) in &paragraphs {
        write!(section, "\n**T{number}.** {text}\n(`fs/tests/mount/{file}`: `{name}`)\n").unwrap();
    }
    section.push('\n');
    section.push_str(END);
    let mut numbers: Vec<u32> = paragraphs.iter().map(|(number, ..)| *number).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), paragraphs.len(), "a number stands for one paragraph");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SEMANTICS.md");
    let page = fs::read_to_string(&path).unwrap();
    if page.contains(&section) {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_DOCS").is_some(),
        "docs/SEMANTICS.md is old: run this test with UPDATE_DOCS=1"
    );
    let rest = match (page.split_once(BEGIN), page.split_once(END)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{section}{after}"),
        _ => format!("{page}\n{section}"),
    };
    fs::write(path, rest).unwrap();
}
