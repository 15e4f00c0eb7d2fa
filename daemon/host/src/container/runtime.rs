//! Which OCI runtime this host has.

use super::command;
use crate::command::Ended;
use crate::command::Runner;
use crate::program::DEFAULT_PATH;
use crate::program::resolve_program;
use crate::types::HostErrorKind;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Runtimes in the order in which they are taken, the oldest version that does what zed needs, and whether it can
/// keep an ended container.
const KNOWN: [(&str, (u32, u32), bool); 2] = [("runc", (1, 1), true), ("crun", (1, 0), false)];
/// For `--version`.
const DEADLINE: Duration = Duration::from_secs(10);

/// A runtime that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRuntime {
    /// `runc` or `crun`.
    pub name: String,
    /// `1.1.5`.
    pub version: String,
    /// The program.
    pub path: PathBuf,
    /// Can keep an ended container, so that its cgroup can be asked how it ended.
    pub keeps: bool,
}

impl fmt::Display for ContainerRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// Finds the runtime of this host: runc, or else crun, in the folders of [`crate::DEFAULT_PATH`]. Runs it with
/// `--version`.
///
/// # Errors
///
/// There is none that can be used; the text says what to install.
pub fn find_container_runtime(runner: &Runner) -> Result<ContainerRuntime, HostErrorKind> {
    find_in(runner, DEFAULT_PATH)
}

fn find_in(runner: &Runner, search: &str) -> Result<ContainerRuntime, HostErrorKind> {
    if !cfg!(target_os = "linux") {
        return Err(HostErrorKind::NotFound("containers need Linux: use a jail or a zone here".to_owned()));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(HostErrorKind::Permission("containers need a zedd that runs as root".to_owned()));
    }
    let path = BTreeMap::from([("PATH".to_owned(), search.to_owned())]);
    let mut unusable = Vec::new();
    for (name, oldest, keeps) in KNOWN {
        let Ok(path) = resolve_program(&[name.to_owned()], &path, None) else { continue };
        let argv = vec![path.to_string_lossy().into_owned(), "--version".to_owned()];
        let said = match runner.run(&command(argv, DEADLINE), None) {
            Ok(finished) if finished.ended == Ended::Exit(0) => finished.output,
            Ok(finished) => {
                unusable.push(format!("`{}` ended with {}", path.display(), finished.ended));
                continue;
            }
            Err(e) => {
                unusable.push(e.to_string());
                continue;
            }
        };
        let version = parse_version(name, &String::from_utf8_lossy(&said)).unwrap_or_default();
        if is_at_least(&version, oldest) {
            return Ok(ContainerRuntime { name: name.to_owned(), version, path, keeps });
        }
        let (major, minor) = oldest;
        unusable.push(format!("`{}` is version `{version}`, and {major}.{minor} is needed", path.display()));
    }
    let found = if unusable.is_empty() { String::new() } else { format!(" ({})", unusable.join("; ")) };
    Err(HostErrorKind::NotFound(format!(
        "this host has no OCI runtime that zed can use{found}: install runc or crun, as with `apt-get install runc`"
    )))
}

/// The version in `runc version 1.1.5+ds1` and `crun version 1.8.1`, without what distributions add.
fn parse_version(name: &str, text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" version "))?;
    let end = line.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(line.len());
    Some(line[..end].trim_end_matches('.').to_owned()).filter(|version| !version.is_empty())
}

fn is_at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    found >= (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_runtime_says_what_to_install() {
        if !cfg!(target_os = "linux") || !nix::unistd::geteuid().is_root() {
            println!("not run: containers need root on Linux");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let search = place.path().to_str().unwrap();
        let find = || find_in(&Runner::default(), search);
        let put = |name: &str, script: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        };
        let text = find().unwrap_err().to_string();
        assert_eq!(
            text,
            "this host has no OCI runtime that zed can use: install runc or crun, as with `apt-get install runc`"
        );
        put("runc", "echo runc version 1.0.3");
        let text = find().unwrap_err().to_string();
        assert!(text.contains("is version `1.0.3`, and 1.1 is needed"), "{text}");
        put("crun", "echo crun version 1.8.1; echo commit: x");
        assert_eq!(find().unwrap().to_string(), "crun 1.8.1");
        put("runc", "exit 3");
        assert_eq!(find().unwrap().to_string(), "crun 1.8.1");
        put("runc", "echo runc version 1.1.5+ds1");
        assert_eq!(find().unwrap().to_string(), "runc 1.1.5");
    }

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        for (name, text, expected, enough) in [
            ("runc", "runc version 1.1.5+ds1\ncommit: 1.1.5\nspec: 1.0.2-dev\n", Some("1.1.5"), true),
            ("runc", "runc version 1.0.0~rc93+ds1\nspec: 1.0.2-dev\n", Some("1.0.0"), false),
            ("runc", "runc version 1.2.0-rc.1\n", Some("1.2.0"), true),
            ("crun", "crun version 1.8.1\ncommit: f8a0\n", Some("1.8.1"), true),
            ("crun", "crun version UNKNOWN\n", None, false),
            ("runc", "youki version 0.1\n", None, false),
        ] {
            let version = parse_version(name, text);
            assert_eq!(version.as_deref(), expected, "{text}");
            let oldest = KNOWN.iter().find(|(known, ..)| *known == name).unwrap().1;
            assert_eq!(is_at_least(&version.unwrap_or_default(), oldest), enough, "{text}");
        }
    }
}
