//! `bugreport`: what a person needs to look into a problem, in one archive.
//!
//! Specs are never in it, and values of environment variables are masked wherever they appear: they may be
//! secrets. What an app wrote to its log is its own affair, and said so.

use crate::paint::Ended;
use crate::paint::Ui;
use crate::paint::now;
use crate::status::deploys;
use crate::status::host_name;
use crate::tree::Tree;
use crate::tree::io_error;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::EXIT_OK;
use zed_ctl::rfc3339;

/// Lines of each stream that are taken, from its end.
const TAIL: usize = 1000;
/// What stands for a value.
const MASK: &str = "***";
/// Values shorter than this are masked where they are known to be values, but not in running text: masking
/// every `1` would leave nothing to read.
const MASKED_IN_TEXT: usize = 4;

/// Files by name, and what could not be read.
#[derive(Default)]
struct Report {
    files: Vec<(String, String)>,
    unread: String,
    secrets: BTreeSet<String>,
}

/// `zedctl bugreport [-o PATH]`
pub(crate) fn bugreport(tree: &dyn Tree, ui: &mut Ui, output: Option<&Path>) -> Ended {
    let now = now();
    let host = host_name(tree).unwrap_or_else(|_| "unknown".to_owned());
    let stamp: String = rfc3339(now).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let name = format!("zed-bugreport-{host}-{stamp}");
    let mut report = Report::default();
    report.collect(tree, &host);
    let about =
        format!("zedctl {}\ntree {}\ntaken {}\n", env!("CARGO_PKG_VERSION"), tree.place(), rfc3339(now));
    report.files.insert(0, ("about".to_owned(), about));
    report.files.push(("unread".to_owned(), std::mem::take(&mut report.unread)));
    report.mask();
    let path = target(output, &name);
    let failed = |error: io::Error| {
        let mut error = io_error("write", &path.display().to_string(), &error);
        error.hint = None;
        error
    };
    // Only its owner reads it: logs may hold more than their writer meant to tell.
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    report.write(file, &name, now).map_err(failed)?;
    if ui.json {
        ui.json(&serde_json::json!({ "file": path, "files": report.files.len() }))?;
    } else {
        writeln!(ui.out, "{}", path.display())?;
        ui.progress("specs are not in it and environment values are masked; look at the apps' logs before you send it");
    }
    Ok(EXIT_OK)
}

/// A folder gets a file with the default name.
fn target(output: Option<&Path>, name: &str) -> PathBuf {
    let file = format!("{name}.tar.gz");
    match output {
        None => PathBuf::from(file),
        Some(folder) if folder.is_dir() => folder.join(file),
        Some(path) => path.to_owned(),
    }
}

impl Report {
    fn collect(&mut self, tree: &dyn Tree, host: &str) {
        for file in ["version", "metrics", "error"] {
            self.take(tree, file);
        }
        for stream in ["events", "log"] {
            self.take_tail(tree, stream);
        }
        for file in self.listed(tree, ".meta") {
            self.take(tree, &format!(".meta/{file}"));
        }
        for file in ["status.json", "facts", "apps", "datasets", "health", "error"] {
            self.take(tree, &format!("hosts/{host}/{file}"));
        }
        let names = deploys(tree).unwrap_or_else(|error| {
            self.failed("deploy", &error);
            Vec::new()
        });
        for name in names {
            // Only for the values in it, which are masked wherever else they stand.
            if let Ok(plan) = tree.read(&format!("deploy/{name}.plan.json"))
                && let Ok(plan) = serde_json::from_str(&plan)
            {
                self.mask_json(plan);
            }
            for file in ["status.json", "plan", "errors"] {
                self.take(tree, &format!("deploy/{name}.{file}"));
            }
        }
        for gpu in self.listed(tree, "gpu") {
            for file in ["info.json", "stats", "suspects", "error"] {
                self.take(tree, &format!("gpu/{gpu}/{file}"));
            }
        }
        for app in self.listed(tree, "apps") {
            for file in
                ["status.json", "history", "snapshots", "rollback", "health", "hosts", "crash", "error"]
            {
                self.take(tree, &format!("apps/{app}/{file}"));
            }
            self.remember_environment(tree, &format!("apps/{app}/env"));
            self.take_tail(tree, &format!("apps/{app}/log"));
        }
    }

    fn failed(&mut self, path: &str, error: &CtlError) {
        self.unread.push_str(&format!("{path}: {}\n", error.message));
    }

    fn listed(&mut self, tree: &dyn Tree, folder: &str) -> Vec<String> {
        tree.list(folder).unwrap_or_else(|error| {
            self.failed(folder, &error);
            Vec::new()
        })
    }

    fn take(&mut self, tree: &dyn Tree, path: &str) {
        match tree.read(path) {
            Ok(text) if path.ends_with(".json") => match serde_json::from_str(&text) {
                Ok(value) => {
                    let masked = self.mask_json(value);
                    self.files.push((path.to_owned(), zed_ctl::to_json(&masked)));
                }
                // Masking needs its structure: what has none is left out.
                Err(error) => self.failed(path, &CtlError::new(Code::Internal, error.to_string())),
            },
            Ok(text) if path.ends_with(".errors") => {
                self.files.push((path.to_owned(), without_source_lines(&text)));
            }
            Ok(text) => self.files.push((path.to_owned(), text)),
            Err(error) => self.failed(path, &error),
        }
    }

    /// Remembers the values of an app's environment; the file itself stays out of the report.
    fn remember_environment(&mut self, tree: &dyn Tree, path: &str) {
        match tree.read(path) {
            Ok(text) => {
                let values = text.lines().filter_map(|line| line.split_once('='));
                self.secrets.extend(values.map(|(_, value)| value.to_owned()));
            }
            Err(error) => self.failed(path, &error),
        }
    }

    fn take_tail(&mut self, tree: &dyn Tree, path: &str) {
        let mut text = String::new();
        let streamed = tree.stream(path, Some(TAIL), false, &mut |line| {
            text.push_str(line);
            text.push('\n');
            Ok(())
        });
        if let Err(error) = streamed {
            self.failed(path, &error);
        }
        self.files.push((path.to_owned(), text));
    }

    /// Masks the values below `env`, remembering them.
    fn mask_json(&mut self, value: Value) -> Value {
        match value {
            Value::Object(map) => map
                .into_iter()
                .map(|(key, value)| match (key.as_str(), value) {
                    ("env" | "environment", Value::Object(env)) => {
                        self.secrets.extend(env.values().filter_map(Value::as_str).map(str::to_owned));
                        let masked = env.into_iter().map(|(name, _)| (name, Value::from(MASK))).collect();
                        (key, Value::Object(masked))
                    }
                    ("errors", Value::String(text)) => (key, Value::from(without_source_lines(&text))),
                    (_, value) => {
                        let masked = self.mask_json(value);
                        (key, masked)
                    }
                })
                .collect(),
            Value::Array(items) => items.into_iter().map(|item| self.mask_json(item)).collect(),
            other => other,
        }
    }

    /// Masks the remembered values everywhere. Longest first: one may be a part of another.
    fn mask(&mut self) {
        let mut secrets: Vec<&String> =
            self.secrets.iter().filter(|value| value.trim().len() >= MASKED_IN_TEXT).collect();
        secrets.sort_by_key(|value| std::cmp::Reverse(value.len()));
        for (_, text) in &mut self.files {
            for secret in &secrets {
                if text.contains(secret.as_str()) {
                    *text = text.replace(secret.as_str(), MASK);
                }
            }
        }
    }

    fn write(&self, file: fs::File, folder: &str, now: i64) -> io::Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        for (name, text) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(now).unwrap_or(0));
            archive.append_data(&mut header, format!("{folder}/{name}"), text.as_bytes())?;
        }
        archive.into_inner()?.finish()?.sync_all()
    }
}

/// Diagnostics without the lines of the spec that they show (`12 | ...`).
fn without_source_lines(errors: &str) -> String {
    let is_source = |line: &&str| {
        let number = line.split(" |").next().unwrap_or_default();
        !number.is_empty() && number.len() < line.len() && number.chars().all(|c| c.is_ascii_digit())
    };
    errors.lines().filter(|line| !is_source(line)).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_masked_wherever_they_are() {
        let mut report = Report::default();
        report.mask_json(json!({ "units": [{ "env": { "NEW": "hunter3" } }] }));
        let masked = report.mask_json(json!({
            "env": { "PASSWORD": "hunter2", "N": "1" },
            "errors": "error: x\n --> a.ron:1:2\n  |\n1 | PASSWORD: hunter4\n  | ^\n",
            "restarts": 1,
        }));
        assert_eq!(
            masked,
            json!({
                "env": { "PASSWORD": "***", "N": "***" },
                "errors": "error: x\n --> a.ron:1:2\n  |\n  | ^\n",
                "restarts": 1,
            })
        );
        report.files.push(("log".to_owned(), "1 hunter2 hunter3\n".to_owned()));
        report.mask();
        assert_eq!(report.files[0].1, "1 *** ***\n");
    }
}
