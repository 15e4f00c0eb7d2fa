//! Looking into a container's root file system as the container itself sees it: a link in it leads nowhere else.
//!
//! Reads only. The files are a stranger's.

use crate::program::DEFAULT_PATH;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Opens a regular file as the container itself would see it.
#[cfg(target_os = "linux")]
pub(super) fn open_inside(root: &Path, name: &str) -> io::Result<File> {
    use nix::fcntl::OFlag;
    use nix::fcntl::OpenHow;
    use nix::fcntl::ResolveFlag;
    let top = File::open(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let file = File::from(nix::fcntl::openat2(&top, name, how)?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open_inside(_root: &Path, _name: &str) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// True when a program may be there: it is found in the root, or lies where something is mounted.
pub(super) fn has_program(
    root: &Path,
    command: &str,
    workdir: &Path,
    environment: &BTreeMap<String, String>,
    mounts: &[&Path],
) -> bool {
    let there = |path: &Path| {
        let mounted = mounts.iter().any(|mount| path.starts_with(mount));
        mounted || open_inside(root, &path.strip_prefix("/").unwrap_or(path).to_string_lossy()).is_ok()
    };
    if command.contains('/') {
        return there(&workdir.join(command));
    }
    let search = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    search
        .split(':')
        .filter(|folder| !folder.is_empty())
        .any(|folder| there(&workdir.join(folder).join(command)))
}
