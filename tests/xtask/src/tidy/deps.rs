//! Which crate may know what: direct dependencies, what reaches a crate through others, and which files may
//! import what.

use super::Finding;
use super::Tree;
use crate::shell::Cmd;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Crates that must not reach a crate of ours, directly or through others (build and dev dependencies aside).
const NEVER_REACHED: &[(&str, &[&str])] = &[
    ("zed-spec", &["tokio", "fuser", "nix", "zed-store", "zed-host", "zed-fs", "zedd", "ureq"]),
    ("zed-ctl", &["tokio", "fuser", "nix", "zed-store", "zed-host", "zed-fs", "zed-plan", "zedd"]),
    ("zed-plan", &["tokio", "fuser", "nix", "zed-host", "zed-fs", "zedd", "ureq"]),
    ("zed-fs", &["zed-store", "zed-host", "zed-plan", "zedd"]),
    ("zed-store", &["fuser", "zed-host", "zed-fs", "zed-plan", "zedd", "tokio"]),
    ("zed-host", &["fuser", "zed-fs", "zedd", "tokio", "hyper", "zed-artifact"]),
    ("zed-front", &["fuser", "zed-fs", "zed-store", "zedd"]),
    ("zed-gpu", &["tokio", "zed-store", "zedd"]),
    ("zed-artifact", &["tokio", "fuser", "zed-store", "zed-host", "zed-fs", "zed-plan", "zedd"]),
];

/// Crates that must not be named in a crate's own dependencies.
const NEVER_DIRECT: &[(&str, &[&str])] =
    &[("zed-spec", &["libc"]), ("zed-plan", &["libc"]), ("zed-host", &["zed-store"])];

/// Imports that only some files may have. The text is searched for in code, not in comments.
const IMPORTS: &[(&str, &[&str], &str)] = &[
    (
        "fuser::",
        &["fs/src/fuse.rs", "fs/src/fuse/", "fs/examples/", "fs/tests/", "tests/"],
        "fuser stays below fs/src/fuse",
    ),
    ("ash::", &["daemon/gpu/", "tests/"], "Vulkan stays in daemon/gpu"),
    ("process::Command::new", PROCESS, "processes are started only by daemon/host/src/command.rs"),
    ("Command::new(", PROCESS, "processes are started only by daemon/host/src/command.rs"),
];

/// Where processes may be started.
const PROCESS: &[&str] = &[
    "daemon/host/src/command.rs",
    "tests/",
    "daemon/tests/",
    "daemon/host/tests/",
    "daemon/front/tests/",
    "daemon/gpu/tests/",
    "daemon/store/tests/",
    "daemon/store/examples/",
    "fs/tests/",
    "ctl/tests/",
];

/// The crate graph that cargo resolves.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Normal dependencies by package name, as the lock file resolves them.
    pub(super) normal: BTreeMap<String, BTreeSet<String>>,
    /// Folder of each member of the workspace.
    pub(super) members: BTreeMap<String, String>,
}

impl Graph {
    /// Asks cargo, with default features.
    ///
    /// # Errors
    ///
    /// When cargo fails or prints something else than its format.
    pub(super) fn read(root: &std::path::Path) -> Result<Self, String> {
        let text =
            Cmd::cargo().dir(root).args(["metadata", "--format-version", "1", "--locked", "--offline"]);
        let text = text.read().or_else(|_| {
            // A fresh clone has not downloaded every package yet.
            Cmd::cargo().dir(root).args(["metadata", "--format-version", "1", "--locked"]).read()
        })?;
        let json = text.lines().find(|l| l.starts_with('{')).ok_or("cargo metadata printed no JSON")?;
        let json: Value = serde_json::from_str(json).map_err(|e| format!("cargo metadata: {e}"))?;
        Ok(Self::parse(&json))
    }

    pub(super) fn parse(json: &Value) -> Self {
        let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut names = BTreeMap::new();
        let mut graph = Self::default();
        let root = text(&json["workspace_root"]);
        let members: BTreeSet<String> = each(&json["workspace_members"]).iter().map(text).collect();
        for package in each(&json["packages"]) {
            let id = text(&package["id"]);
            let name = text(&package["name"]);
            if members.contains(&id) {
                let folder = text(&package["manifest_path"]);
                let folder = folder.strip_prefix(&root).unwrap_or(&folder).trim_start_matches('/');
                graph.members.insert(name.clone(), folder.trim_end_matches("Cargo.toml").to_owned());
            }
            names.insert(id, name);
        }
        for node in each(&json["resolve"]["nodes"]) {
            let Some(name) = names.get(&text(&node["id"])) else { continue };
            let normal = graph.normal.entry(name.clone()).or_default();
            for dep in each(&node["deps"]) {
                let is_normal = each(&dep["dep_kinds"]).iter().any(|k| k["kind"].is_null());
                if let (true, Some(dep)) = (is_normal, names.get(&text(&dep["pkg"]))) {
                    normal.insert(dep.clone());
                }
            }
        }
        graph
    }

    /// Everything that `name` reaches.
    fn reached(&self, name: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![name];
        while let Some(next) = open.pop() {
            for dep in self.normal.get(next).into_iter().flatten() {
                if reached.insert(dep.as_str()) {
                    open.push(dep);
                }
            }
        }
        reached
    }
}

pub(super) fn check_graph(graph: &Graph, findings: &mut Vec<Finding>) {
    let mut add = |krate: &str, message: String| {
        let folder = graph.members.get(krate).cloned().unwrap_or_default();
        findings.push(Finding {
            path: format!("{folder}Cargo.toml"),
            line: 0,
            rule: "dependencies",
            message,
        });
    };
    for (krate, banned) in NEVER_REACHED {
        let reached = graph.reached(krate);
        for name in banned.iter().filter(|b| reached.contains(**b)) {
            add(krate, format!("{krate} reaches {name}, which it must not know"));
        }
    }
    for (krate, banned) in NEVER_DIRECT {
        let direct = graph.normal.get(*krate).cloned().unwrap_or_default();
        for name in banned.iter().filter(|b| direct.contains(**b)) {
            add(krate, format!("{krate} depends on {name}, which it must not use"));
        }
    }
    for krate in graph.members.keys().filter(|k| k.starts_with("zed-") && *k != "zed-tests") {
        for outward in ["zed-tests", "xtask"] {
            if graph.reached(krate).contains(outward) {
                add(krate, format!("{krate} reaches {outward}: dependencies point inwards"));
            }
        }
    }
}

pub(super) fn check_imports(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.with_extension("rs") {
        // A module of unit tests may start what it tests with.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
        if path.ends_with("/tests.rs") {
            continue;
        }
        for (number, line) in (1..).zip(code.lines()) {
            let code = line.trim_start();
            if code.starts_with("//") || has_expectation(text, number) {
                continue;
            }
            let breach = IMPORTS.iter().find(|(name, places, _)| {
                uses(code, name) && !places.iter().any(|place| path.starts_with(place))
            });
            if let Some((_, _, why)) = breach {
                findings.push(Finding {
                    path: path.into(),
                    line: number,
                    rule: "imports",
                    message: format!("{why}: `{}`", code.trim()),
                });
            }
        }
    }
}

/// Does `name` occur as a path of its own, and not as the end of a longer word (`crash::`)?
fn uses(code: &str, name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| !code[..at].ends_with(word))
}

/// Does one of the four lines above this one expect the lint that forbids starting processes, with a reason?
fn has_expectation(text: &str, number: usize) -> bool {
    let above = number.saturating_sub(8);
    let mut lines = text.lines().skip(above).take(number - above);
    lines.any(|l| l.contains("clippy::disallowed_methods"))
}
