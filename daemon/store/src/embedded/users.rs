//! Which process uses the files of a dataset: what `EBUSY` of an unmount says for a real filesystem.
//!
//! Looks at `/proc` on Linux. Elsewhere, and for processes that this user may not look at, it sees nobody.
//! Never touches a process.

use std::path::Path;

/// A process that has its working directory, its root, its program or an open file in `tree`, in words.
#[cfg(target_os = "linux")]
pub(super) fn of(tree: &Path) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .find_map(|process| use_of(&process.path(), tree))
}

/// Processes end while they are looked at: what cannot be read is not in use.
#[cfg(target_os = "linux")]
fn use_of(process: &Path, tree: &Path) -> Option<String> {
    let is_in = |link: &Path| std::fs::read_link(link).is_ok_and(|target| target.starts_with(tree));
    let how = if is_in(&process.join("cwd")) {
        "has its working directory in it"
    } else if is_in(&process.join("root")) {
        "has its root in it"
    } else if is_in(&process.join("exe")) {
        "runs a program of it"
    } else {
        let mut files = std::fs::read_dir(process.join("fd")).ok()?.flatten();
        files.any(|fd| is_in(&fd.path())).then_some("has a file of it open")?
    };
    let id = process.file_name()?.to_string_lossy().into_owned();
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(format!("process {id} ({}) {how}", name.trim()))
}

/// No cheap way to know on this platform.
#[cfg(not(target_os = "linux"))]
pub(super) fn of(_tree: &Path) -> Option<String> {
    None
}
