//! Each rule finds what it is for, and leaves alone what only looks like it.

use super::*;
use serde_json::json;

fn tree(files: &[(&str, &str)]) -> Tree {
    let files: BTreeMap<_, _> = files.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
    Tree { root: PathBuf::new(), paths: files.keys().cloned().collect(), files }
}

fn rules(check: fn(&Tree, &mut Vec<Finding>), files: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    check(&tree(files), &mut findings);
    findings.iter().map(|f| format!("{}:{} {}", f.path, f.line, f.rule)).collect()
}

#[test]
fn the_repository_keeps_every_rule() {
    let findings = check(&Tree::read(&crate::root()).unwrap()).unwrap();
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn source_lines() {
    for (line, wanted) in [
        ("// TODO: later", vec!["a.rs:2 unfinished"]),
        ("    todo!()", vec!["a.rs:2 unfinished"]),
        ("let x = \"/work/wt\";", vec!["a.rs:2 machine-path"]),
        ("let x = \"/srv/work/x\";", vec![]),
        ("let x = \"$HOME/home/x\";", vec![]),
        ("#[allow(dead_code)]", vec!["a.rs:2 allow"]),
        ("#[expect(dead_code, reason = \"...\")]", vec![]),
        ("let x = 1; ", vec!["a.rs:2 trailing-space"]),
        ("// caf\u{e9}", vec!["a.rs:2 ascii"]),
    ] {
        let text = format!("//! Owns a.\n{line}\n");
        assert_eq!(rules(sources::check, &[("a.rs", &text)]), wanted, "{line}");
    }
    assert_eq!(rules(sources::check, &[("a.rs", "fn a() {}\n")]), ["a.rs:1 module-doc"]);
    assert_eq!(rules(sources::check, &[("a.md", "text")]), ["a.md:1 final-newline"]);
}

#[test]
fn a_file_is_measured_without_its_tests() {
    let code = |n: usize| format!("//! Owns a.\n{}", "fn a() {}\n".repeat(n));
    let long = code(550);
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", code(400), "// x\n".repeat(300));
    let one_item = format!("{}#[cfg(test)]\nfn a() {{}}\n{}", code(10), "fn b() {}\n".repeat(600));
    assert_eq!(rules(sources::check, &[("a.rs", &long)]), ["a.rs:0 file-size"]);
    assert_eq!(rules(sources::check, &[("a.rs", &one_item)]), ["a.rs:0 file-size"]);
    assert!(rules(sources::check, &[("a.rs", &tested), ("x/tests.rs", &long)]).is_empty());
}

#[test]
fn imports_stay_where_they_belong() {
    for (path, line, breach) in [
        ("daemon/src/a.rs", "use fuser::Session;", true),
        ("fs/src/fuse/session.rs", "use fuser::Session;", false),
        ("daemon/src/a.rs", "/// as fuser::Session does", false),
        ("daemon/src/a.rs", "crash::report()", false),
        ("daemon/src/a.rs", "let e = ash::Entry::load();", true),
        ("daemon/src/a.rs", "std::process::Command::new(\"ls\")", true),
        ("daemon/src/a.rs", "tokio::process::Command::new(\"ls\")", true),
        ("daemon/host/src/command.rs", "std::process::Command::new(\"ls\")", false),
        ("ctl/src/a.rs", "#[expect(clippy::disallowed_methods, reason = \"r\")] Command::new(\"x\")", false),
    ] {
        let found = rules(deps::check_imports, &[(path, &format!("//! Owns a.\n{line}\n"))]);
        assert_eq!(!found.is_empty(), breach, "{path}: {line}");
    }
}

#[test]
fn the_crate_graph_is_followed_through_others() {
    let package =
        |name: &str| json!({"id": name, "name": name, "manifest_path": format!("/r/{name}/Cargo.toml")});
    let node = |name: &str, deps: &[(&str, serde_json::Value)]| {
        let deps: Vec<_> =
            deps.iter().map(|(to, kind)| json!({"pkg": to, "dep_kinds": [{"kind": kind}]})).collect();
        json!({"id": name, "deps": deps})
    };
    let null = serde_json::Value::Null;
    let json = json!({
        "workspace_root": "/r",
        "workspace_members": ["zed-spec", "zed-plan"],
        "packages": [package("zed-spec"), package("zed-plan"), package("between"), package("tokio"), package("libc")],
        "resolve": {"nodes": [
            node("zed-spec", &[("tokio", json!("dev"))]),
            node("zed-plan", &[("between", null.clone()), ("libc", null.clone())]),
            node("between", &[("tokio", null)]),
            node("tokio", &[]),
            node("libc", &[]),
        ]},
    });
    let mut findings = Vec::new();
    deps::check_graph(&deps::Graph::parse(&json), &mut findings);
    let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "zed-plan/Cargo.toml:0: dependencies: zed-plan reaches tokio, which it must not know",
            "zed-plan/Cargo.toml:0: dependencies: zed-plan depends on libc, which it must not use",
        ]
    );
}

#[test]
fn documents_tell_the_truth_about_files() {
    let files = [
        ("docs/a.md", "[b](b.md) [c](../README.md#get-it) [d](gone.md) [e](b.md#no) [f](https://x.y/z)\n"),
        (
            "docs/b.md",
            "    [x](not-a-link.md)\n\nsee specs/examples/hello.ron, not specs/examples/nope.ron.\n",
        ),
        ("README.md", "# Get it\n"),
        ("specs/examples/hello.ron", "Deploy()\n"),
        ("docs/ARCHITECTURE.md", "`zed-x` in `x/`\n"),
        ("x/Cargo.toml", "[package]\nname = \"zed-x\"\n"),
        ("y/Cargo.toml", "[package]\nname = \"zed-y\"\n"),
        ("docs/c.md", "`shown` in\n`x/a.rs`, `gone` in `x/a.rs`, `zed-x` in `x/`\n"),
        ("x/a.rs", "fn shown() {}\n"),
        ("docs/adr/0001-x.md", "## Status\n\n## Context\n\n## Consequences\n"),
    ];
    assert_eq!(
        rules(docs::check, &files),
        [
            "docs/a.md:1 links",
            "docs/a.md:1 links",
            "docs/b.md:3 examples-in-docs",
            "docs/c.md:2 named-tests",
            "docs/ARCHITECTURE.md:0 code-map",
            "docs/ARCHITECTURE.md:0 code-map",
            "docs/adr/0001-x.md:0 adr",
        ]
    );
}

#[test]
fn an_example_that_was_changed_added_or_removed_is_found() {
    let mut files = tree(&[]);
    let real = Tree::read(&crate::root()).unwrap();
    for (path, text) in real.files.iter().filter(|(p, _)| p.starts_with("specs/examples/")) {
        files.files.insert(path.clone(), text.clone());
    }
    files.files.remove("specs/examples/prod.ron");
    files.files.insert("specs/examples/hello.ron".into(), "Deploy()\n".into());
    files.files.insert("specs/examples/new.ron".into(), "Deploy()\n".into());
    files.paths = files.files.keys().cloned().collect();
    let mut findings = Vec::new();
    examples::check(&files, &mut findings);
    let paths: Vec<_> = findings.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, ["specs/examples/hello.ron", "specs/examples/prod.ron", "specs/examples/new.ron"]);
}

#[test]
fn specs_in_documents_are_judged() {
    for (block, rule) in [
        ("```ron\nDeploy(datasets: {\"apps/a\": ()})\n```\n", None),
        ("```ron\nDeploy(datsets: {})\n```\n", Some("ron-block")),
        ("```ron,bad\nDeploy(datsets: {})\n```\n", None),
        ("```ron,bad\nDeploy(datasets: {})\n```\n", Some("ron-block")),
        ("```\nDeploy(datsets: {})\n```\n", None),
        ("```ron,job\n(op: Bits([1], 0))\n```\n", None),
        ("```ron,job\n(op: Bits([1]))\n```\n", Some("ron-block")),
    ] {
        let found = rules(specs::check, &[("docs/a.md", block)]);
        assert_eq!(
            found,
            rule.map(|r| format!("docs/a.md:1 {r}")).into_iter().collect::<Vec<_>>(),
            "{block}"
        );
    }
}

#[test]
fn errors_that_are_explained_are_printed_somewhere() {
    let source = "//! Owns a.\nlet e = format!(\"the pool {name} is \\\n    full\");\n";
    for (heading, found) in [
        ("### `the pool ... is full`\n", 0),
        ("### `the pool ... is empty`\n", 1),
        ("### System: `Bad message`\n", 0),
    ] {
        let files = [("daemon/a.rs", source), ("docs/TROUBLESHOOTING.md", heading)];
        assert_eq!(rules(docs::check, &files).len(), found, "{heading}");
    }
    let table = "## Other\n| `nobody says this` | |\n## Errors by their text\n| `the pool ... is full` (EAGAIN) | |\n\
                 | ``the pool `x` is lost`` | |\n";
    let files = [("daemon/a.rs", source), ("docs/GPU.md", table)];
    assert_eq!(rules(docs::check, &files), ["docs/GPU.md:5 error-texts"]);
}
