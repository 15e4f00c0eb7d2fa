//! docs/SPEC.md says everything there is: each type has a section, each field and variant is in it, and what it
//! shows is what happens.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files fails")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use zed_spec::DeployName;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn document() -> String {
    fs::read_to_string(root().join("docs/SPEC.md")).unwrap()
}

/// The text below the heading that names the type in backquotes, up to the next heading.
fn section<'d>(document: &'d str, type_name: &str) -> &'d str {
    let marker = format!("(`{type_name}`)");
    let heading = document
        .lines()
        .find(|line| line.starts_with('#') && line.ends_with(&marker))
        .unwrap_or_else(|| panic!("docs/SPEC.md has no heading that ends with {marker}"));
    let start = document.find(heading).unwrap() + heading.len();
    let rest = &document[start..];
    &rest[..rest.find("\n#").unwrap_or(rest.len())]
}

/// Types of src/ast with their fields (lower case) and variants (upper case), those of struct variants included.
fn types() -> Vec<(String, Vec<String>)> {
    let files = ["mod.rs", "app.rs", "fleet.rs"].map(|file| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ast").join(file)).unwrap()
    });
    let source = files.concat();
    let mut types: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in source.lines() {
        let word = |text: &str| -> String {
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        let trimmed = line.trim();
        if let Some(name) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) {
            types.push((word(name), Vec::new()));
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if inside && !trimmed.starts_with(['/', '#', '}']) {
            let name = word(trimmed.strip_prefix("pub ").unwrap_or(trimmed));
            assert!(!name.is_empty(), "not understood: {line}");
            types.last_mut().unwrap().1.push(name);
        }
    }
    types
}

#[test]
fn every_type_field_and_variant_is_documented() {
    let document = document();
    let types = types();
    assert!(types.len() >= 32 && types.iter().all(|(_, members)| !members.is_empty()), "{types:?}");
    for (name, members) in types {
        let section = section(&document, &name);
        for member in members {
            let shown = format!("`{member}");
            let found = section.match_indices(&shown).any(|(at, _)| {
                !section[at + shown.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
            });
            assert!(found, "docs/SPEC.md: the section of `{name}` does not mention `{member}`");
        }
    }
}

/// The fenced block after each `<!-- KIND: FILE -->`.
fn shown(document: &str, kind: &str) -> Vec<(String, String)> {
    let marker = format!("<!-- {kind}: ");
    let found: Vec<_> = document
        .split(&marker)
        .skip(1)
        .map(|rest| {
            let (file, rest) = rest.split_once(" -->\n").unwrap();
            let (_, block) = rest.split_once('\n').unwrap();
            (file.to_owned(), block.split_once("```").unwrap().0.to_owned())
        })
        .collect();
    assert!(!found.is_empty(), "docs/SPEC.md shows no {kind}");
    found
}

#[test]
fn what_the_document_shows_is_what_happens() {
    let document = document();
    let diagnostics = |file: &str| {
        let path = root().join(file);
        let name = DeployName::parse(path.file_stem().unwrap().to_str().unwrap()).unwrap();
        let found = zed_spec::parse(&name, &fs::read(&path).unwrap()).unwrap_err();
        (found, path.file_name().unwrap().to_str().unwrap().to_owned())
    };
    for (file, block) in shown(&document, "file") {
        assert_eq!(block, fs::read_to_string(root().join(&file)).unwrap(), "{file}");
    }
    for (file, block) in shown(&document, "diagnostics") {
        let (found, name) = diagnostics(&file);
        assert_eq!(block, found.render(&name), "{file}");
    }
    for (file, block) in shown(&document, "json") {
        let (found, _) = diagnostics(&file);
        assert_eq!(block, serde_json::to_string_pretty(&found).unwrap() + "\n", "{file}");
    }
    let blocks = document.matches("```ron").count();
    assert_eq!(blocks, shown(&document, "file").len(), "a RON block that is not a file of specs/examples");
}

#[test]
fn links_lead_somewhere() {
    let document = document();
    let anchors: Vec<String> = document
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            text.chars()
                .filter(|c| c.is_alphanumeric() || " -".contains(*c))
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect();
    for link in document.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        match link.strip_prefix('#') {
            Some(anchor) => assert!(anchors.iter().any(|a| a == anchor), "no heading for #{anchor}"),
            None => {
                let file = link.split('#').next().unwrap_or(link);
                assert!(root().join("docs").join(file).exists(), "no file {link}");
            }
        }
    }
}
