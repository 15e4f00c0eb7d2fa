//! Rules that the compiler cannot hold: which crate may know what, how large a file may be, that documents
//! tell the truth about files. Reads the tracked files; changes nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;

mod deps;
mod docs;
mod examples;
mod sources;
mod specs;

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path from the root.
    pub path: String,
    /// Line, counted from 1; 0 when it is about the whole file.
    pub line: usize,
    /// Name of the rule, as docs/ARCHITECTURE.md names it.
    pub rule: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.message)
    }
}

/// The tracked files of a working tree.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Its root.
    pub root: PathBuf,
    /// Text by path from the root; files that are not UTF-8 are left out.
    pub files: BTreeMap<String, String>,
    /// Paths of all tracked files, also of those that are not text.
    pub paths: Vec<String>,
}

impl Tree {
    /// Reads the files that git tracks, and those that it would track.
    ///
    /// # Errors
    ///
    /// When git cannot list them or one cannot be read.
    pub fn read(root: &Path) -> Result<Self, String> {
        let list = crate::shell::Cmd::new("git").dir(root);
        let list = list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).read()?;
        let mut tree = Self { root: root.to_path_buf(), ..Self::default() };
        for path in list.split('\0').map(str::trim).filter(|p| !p.is_empty()) {
            let full = root.join(path);
            // Deleted in the working tree, but not yet in the index; and links are not read.
            if !full.symlink_metadata().is_ok_and(|m| m.is_file()) {
                continue;
            }
            let bytes = std::fs::read(&full).map_err(|e| format!("cannot read {}: {e}", full.display()))?;
            tree.paths.push(path.to_owned());
            if let Ok(text) = String::from_utf8(bytes) {
                tree.files.insert(path.to_owned(), text);
            }
        }
        Ok(tree)
    }

    /// Files whose name ends in `.EXT`.
    fn with_extension<'a>(&'a self, ext: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| Path::new(path).extension().is_some_and(|e| e == ext))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// Checks every rule; sorted findings.
///
/// # Errors
///
/// When the crate graph cannot be had from cargo.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    sources::check(tree, &mut findings);
    deps::check_imports(tree, &mut findings);
    deps::check_graph(&deps::Graph::read(&tree.root)?, &mut findings);
    docs::check(tree, &mut findings);
    examples::check(tree, &mut findings);
    specs::check(tree, &mut findings);
    findings.sort();
    Ok(findings)
}

#[cfg(test)]
mod tests;
