//! Finding a command's program, and saying what is wrong with it.
//!
//! Looks only; starts nothing.

use crate::types::HostErrorKind;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

/// Where programs are looked for when the environment has no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds the program of a command, as an absolute path, and says what is wrong with it or with the directory.
pub(crate) fn resolve_program(
    argv: &[String],
    environment: &BTreeMap<String, String>,
    directory: Option<&Path>,
) -> Result<PathBuf, HostErrorKind> {
    let directory = directory.unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        let text = format!("the working directory `{}` does not exist", directory.display());
        return Err(HostErrorKind::NotFound(text));
    }
    let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
        return Err(HostErrorKind::NotFound("the command is empty".to_owned()));
    };
    let inner_nul = argv.iter().any(|argument| argument.contains('\0'))
        || environment.iter().any(|(key, value)| key.contains(['\0', '=']) || value.contains('\0'));
    if inner_nul {
        let text = format!("an argument or variable of `{program}` holds a NUL byte, or a name holds `=`");
        return Err(HostErrorKind::Io(text));
    }
    if program.contains('/') {
        let path = directory.join(program);
        return check_program(&path).map(|()| path);
    }
    let search = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let mut refused = None;
    // An empty entry would mean the working directory, which the app itself may write: it is passed over.
    for folder in search.split(':').filter(|folder| !folder.is_empty()) {
        let path = directory.join(folder).join(program);
        match check_program(&path) {
            Ok(()) => return Ok(path),
            Err(error @ HostErrorKind::Permission(_)) => refused = Some(error),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| {
        HostErrorKind::NotFound(format!("the program `{program}` is in none of the folders {search}"))
    }))
}

fn check_program(path: &Path) -> Result<(), HostErrorKind> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err(HostErrorKind::Permission(format!("`{shown}` is a folder"))),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
            Err(HostErrorKind::Permission(format!("`{shown}` is not executable (chmod +x it)")))
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(HostErrorKind::Permission(format!("`{shown}` cannot be reached: {e}")))
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(HostErrorKind::NotFound(format!("the program `{shown}` does not exist")))
        }
        Err(e) => Err(HostErrorKind::Io(format!("`{shown}` cannot be looked at: {e}"))),
    }
}

/// Says what a failed exec means for a program that [`resolve_program`] has found.
pub(crate) fn kind_of(error: &io::Error, program: &Path) -> HostErrorKind {
    let shown = program.display();
    match error.raw_os_error().map(Errno::from_raw) {
        // The file is there, so it is its interpreter that is not.
        Some(Errno::ENOENT) => HostErrorKind::NotFound(format!(
            "`{shown}` cannot be executed: its interpreter (after `#!`) or loader, or the working directory, \
             does not exist"
        )),
        Some(Errno::EACCES | Errno::EPERM) => {
            HostErrorKind::Permission(format!("`{shown}` cannot be executed: {error}"))
        }
        Some(Errno::ENOEXEC) => HostErrorKind::Io(format!(
            "`{shown}` cannot be executed: it is no program of this system, and as a script it lacks a `#!` line"
        )),
        _ => HostErrorKind::Io(format!("`{shown}` cannot be executed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_given_path_only_and_never_in_an_empty_entry() {
        let folder = tempfile::tempdir().expect("tempdir");
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).expect("mkdir");
        for path in [bin.join("tool"), folder.path().join("tool")] {
            std::fs::write(&path, "#!/bin/sh\n").expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        let tool = ["tool".to_owned()];
        let find = |path: &str| {
            let environment = BTreeMap::from([("PATH".to_owned(), path.to_owned())]);
            resolve_program(&tool, &environment, Some(folder.path()))
        };
        assert_eq!(find(&format!("/nowhere:{}", bin.display())), Ok(bin.join("tool")));
        assert_eq!(find("bin"), Ok(bin.join("tool")), "relative to the working directory");
        assert!(matches!(find("::/nowhere"), Err(HostErrorKind::NotFound(_))));
        std::fs::set_permissions(bin.join("tool"), std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(find("bin"), Err(HostErrorKind::Permission(_))));
    }
}
