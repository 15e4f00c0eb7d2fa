//! What a release without a `command` is started with: the foreground command of a BEAM release.
//!
//! Owns the knowledge of how Mix and relx lay out a release. Reads only the release folder. Always the foreground
//! command: `daemon` writes no pid file, so nothing could tell whether the app runs, and the supervisor does what it
//! is for. TERM makes the node shut down in order.

use crate::error::StartupError;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

/// Longest start script that is looked into.
const MAX_SCRIPT: u64 = 1 << 20;
/// Says which runtime and which version of the release start: `13.2 1.0.0`.
const START_DATA: &str = "releases/start_erl.data";

/// Program and arguments that start a release in the foreground.
///
/// # Errors
///
/// The folder holds no BEAM release, or one whose start script cannot be told.
pub fn startup(release: &Path) -> Result<Vec<String>, StartupError> {
    let not = |why: String| StartupError::NotStartable { release: release.to_owned(), why };
    let Some(data) = read(release.join(START_DATA), 4096)? else {
        return Err(not(format!("no `{START_DATA}`, so it is no BEAM release")));
    };
    let Some(version) = data.split_whitespace().nth(1) else {
        return Err(not(format!("`{START_DATA}` does not name a version")));
    };
    if version.starts_with('.') || version.contains('/') {
        return Err(not(format!("`{START_DATA}` names the version `{version}`")));
    }
    let mut names = release_names(&release.join("releases").join(version))?;
    names.retain(|name| is_program(&release.join("bin").join(name)));
    let script = match names.as_slice() {
        [one] => release.join("bin").join(one),
        [] => return Err(not(format!("no `bin/NAME` for a `releases/{version}/NAME.rel`"))),
        several => return Err(not(format!("several start scripts in `bin`: {}", several.join(", ")))),
    };
    let text = read(script.clone(), MAX_SCRIPT)?.unwrap_or_default();
    let verb = if text.contains("start_iex") {
        "start"
    } else if text.contains("foreground") {
        "foreground"
    } else {
        return Err(not(format!("`{}` is neither a script of Mix nor of relx", script.display())));
    };
    let script = script.into_os_string().into_string();
    let script = script.map_err(|path: OsString| not(format!("`{}` is not UTF-8", path.display())))?;
    Ok(vec![script, verb.to_owned()])
}

/// Names of the releases that a version's folder describes.
fn release_names(folder: &Path) -> Result<Vec<String>, StartupError> {
    let failed = |source| StartupError::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(names),
        other => other.map_err(failed)?,
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "rel")
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The beginning of a text file; nothing when there is none.
fn read(path: PathBuf, most: u64) -> Result<Option<String>, StartupError> {
    let mut text = Vec::new();
    let read = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => Err(e),
        // A pipe in its place would never end.
        Ok(file) if file.metadata().is_ok_and(|meta| meta.is_file()) => {
            file.take(most).read_to_end(&mut text)
        }
        Ok(_) => return Ok(None),
    };
    read.map_err(|source| StartupError::Io { path, source })?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}
