//! How the adapters of guests and services reach the system: commands with a deadline, and files.
//!
//! Owns two narrow traits and their real side. A simulator implements the same two. Nothing here knows a jail.

use crate::command::CommandRequest;
use crate::command::Ended;
use crate::command::Runner;
use crate::program::DEFAULT_PATH;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::fcntl::renameat;
use nix::sys::stat::Mode;
use nix::sys::stat::mkdirat;
use nix::unistd::UnlinkatFlags;
use nix::unistd::unlinkat;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// From TERM to KILL for a tool that has passed its deadline.
const GRACE: Duration = Duration::from_secs(5);
/// Output of a tool that is kept: a list of a few thousand jails.
const KEEP: usize = 1 << 20;

/// A command of a guest's or a service manager's tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCommand {
    /// Program and arguments; no secret is ever in them, because everybody can see them.
    pub argv: Vec<String>,
    /// Killed after this.
    pub deadline: Duration,
}

impl ToolCommand {
    /// Of these words.
    pub fn new<'a>(deadline: Duration, words: impl IntoIterator<Item = &'a str>) -> Self {
        Self { argv: words.into_iter().map(str::to_owned).collect(), deadline }
    }

    /// As one line, for messages.
    pub fn line(&self) -> String {
        self.argv.join(" ")
    }
}

/// What a command said. That it ended well says nothing about what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub ended: Ended,
    /// Its stdout and stderr.
    pub text: String,
}

impl Output {
    /// True when it exited 0.
    pub fn ok(&self) -> bool {
        self.ended == Ended::Exit(0)
    }

    /// How it ended and the last thing it said, on one line.
    pub fn summary(&self) -> String {
        let last = self.text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        match last {
            Some(line) => format!("{}: {line}", self.ended),
            None => format!("{} without a word", self.ended),
        }
    }
}

/// Runs commands.
pub trait Commands: Send + Sync {
    /// Runs one and waits for it, at most until its deadline.
    ///
    /// # Errors
    /// Only when it could not be run at all; the text says why.
    fn run(&self, command: &ToolCommand) -> Result<Output, String>;
}

/// Reads and writes the few files that the adapters generate or look at.
pub trait Files: Send + Sync {
    /// A file's content, or `None` when there is none.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Replaces a file as a whole, with these permission bits from its first moment. Folders above are made.
    fn write(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()>;
    /// Removes a file or a link; one that is not there is accepted.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder; one that is not there, or holds something, is left alone.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and those above it.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes a symbolic link; the same link is accepted, anything else there is an error.
    fn link(&self, path: &Path, target: &Path) -> io::Result<()>;
    /// Names in a folder, sorted; none when it is not there.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// True when a file or folder is there (links are followed).
    fn exists(&self, path: &Path) -> bool;
    /// Reads a file inside a guest's root. No link is followed below the root: who is root inside could have
    /// made one that leads out.
    fn read_in(&self, root: &Path, inside: &str) -> io::Result<Option<(Vec<u8>, u32)>>;
    /// Replaces a file inside a guest's root, with these permission bits, following no link.
    fn write_in(&self, root: &Path, inside: &str, content: &[u8], mode: u32) -> io::Result<()>;
    /// Makes a folder inside a guest's root and those above it, following no link.
    fn make_folder_in(&self, root: &Path, inside: &str) -> io::Result<()>;
}

/// [`Commands`] and [`Files`] of this machine.
#[derive(Debug, Clone, Default)]
pub struct LocalSystem {
    runner: Runner,
}

impl LocalSystem {
    /// With this runner, so that what runs is seen in its list.
    pub fn new(runner: Runner) -> Self {
        Self { runner }
    }
}

impl Commands for LocalSystem {
    fn run(&self, command: &ToolCommand) -> Result<Output, String> {
        let environment = BTreeMap::from([
            // /usr/local: pkg's programs and Bastille on FreeBSD.
            ("PATH".to_owned(), format!("{DEFAULT_PATH}:/usr/local/sbin:/usr/local/bin")),
            ("LC_ALL".to_owned(), "C".to_owned()),
            // Tools that colour their output and ask questions do neither.
            ("NO_COLOR".to_owned(), "1".to_owned()),
            ("ASSUME_ALWAYS_YES".to_owned(), "yes".to_owned()),
        ]);
        let request = CommandRequest {
            argv: command.argv.clone(),
            program: None,
            environment,
            directory: None,
            input: Vec::new(),
            deadline: command.deadline,
            grace: GRACE,
            keep: KEEP,
        };
        let finished = self.runner.run(&request, None).map_err(|error| error.to_string())?;
        Ok(Output { ended: finished.ended, text: String::from_utf8_lossy(&finished.output).into_owned() })
    }
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

impl Files for LocalSystem {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        unless_missing(std::fs::read(path))
    }

    fn write(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".zed-new");
        let scratch = PathBuf::from(name);
        // A link that somebody inside has put there must not lead the write elsewhere.
        unless_missing(std::fs::remove_file(&scratch))?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch)?;
        file.write_all(content)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_data()?;
        std::fs::rename(&scratch, path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        unless_missing(std::fs::remove_file(path)).map(|_| ())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => unless_missing(other).map(|_| ()),
        }
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        match std::fs::read_link(path) {
            Ok(there) if there == target => Ok(()),
            _ => std::os::unix::fs::symlink(target, path),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let Some(folder) = unless_missing(std::fs::read_dir(path))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in folder {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn read_in(&self, root: &Path, inside: &str) -> io::Result<Option<(Vec<u8>, u32)>> {
        let (folders, name) = split_inside(inside)?;
        let Some(folder) = unless_missing(walk(root, &folders, false))? else { return Ok(None) };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let opened = openat(&folder, name, flags, Mode::empty()).map_err(io::Error::from);
        let Some(file) = unless_missing(opened)? else { return Ok(None) };
        let mut file = File::from(file);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other(format!("`{inside}` in `{}` is not a file", root.display())));
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(Some((content, meta.permissions().mode() & 0o7777)))
    }

    fn write_in(&self, root: &Path, inside: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let (folders, name) = split_inside(inside)?;
        let folder = walk(root, &folders, true)?;
        let scratch = format!(".{name}.zed-new");
        match unlinkat(&folder, scratch.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut file = File::from(openat(&folder, scratch.as_str(), flags, private)?);
        file.write_all(content)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_data()?;
        Ok(renameat(&folder, scratch.as_str(), &folder, name)?)
    }

    fn make_folder_in(&self, root: &Path, inside: &str) -> io::Result<()> {
        let folders: Vec<&str> = inside.split('/').filter(|part| !part.is_empty()).collect();
        walk(root, &folders, true).map(|_| ())
    }
}

/// The folders and the name of a path inside.
fn split_inside(inside: &str) -> io::Result<(Vec<&str>, &str)> {
    let mut parts: Vec<&str> = inside.split('/').filter(|part| !part.is_empty()).collect();
    let name = parts.pop().filter(|name| *name != "..");
    name.map(|name| (parts, name)).ok_or_else(|| io::Error::other(format!("`{inside}` names no file")))
}

/// Opens a folder below `root` one step at a time; a link or `..` on the way is an error.
fn walk(root: &Path, folders: &[&str], make: bool) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = nix::fcntl::open(root, flags, Mode::empty())?;
    for part in folders {
        if *part == ".." {
            return Err(io::Error::other("a path inside a guest has no `..`"));
        }
        let step = flags | OFlag::O_NOFOLLOW;
        at = match openat(&at, *part, step, Mode::empty()) {
            Err(Errno::ENOENT) if make => {
                mkdirat(&at, *part, Mode::from_bits_truncate(0o755))?;
                openat(&at, *part, step, Mode::empty())?
            }
            // ELOOP on Linux, EMLINK on FreeBSD, ENOTDIR on both with O_DIRECTORY.
            Err(Errno::ELOOP | Errno::EMLINK | Errno::ENOTDIR) => {
                let text = format!("`{part}` on the way in `{}` is a link or a file", root.display());
                return Err(io::Error::other(text));
            }
            other => other?,
        };
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_made_inside_never_leads_out() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        std::fs::create_dir_all(root.join("ok")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("etc")).unwrap();
        std::os::unix::fs::symlink(outside.join("x"), root.join("ok/.file.zed-new")).unwrap();
        std::os::unix::fs::symlink(outside.join("y"), root.join("ok/file")).unwrap();
        let system = LocalSystem::default();
        let error = system.write_in(&root, "/etc/passwd", b"x", 0o644).unwrap_err();
        assert!(error.to_string().contains("link"), "{error}");
        assert!(system.make_folder_in(&root, "/etc/a/b").is_err());
        assert!(system.write_in(&root, "/ok/../../outside/z", b"x", 0o644).is_err());
        // A link in the place of the file itself is replaced.
        system.write_in(&root, "/ok/file", b"good", 0o640).unwrap();
        assert_eq!(system.read_in(&root, "ok/file").unwrap(), Some((b"good".to_vec(), 0o640)));
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(system.read_in(&root, "/no/such").unwrap(), None);
    }

    #[test]
    fn a_tool_is_run_without_questions_and_within_its_deadline() {
        let system = LocalSystem::default();
        let echo =
            ToolCommand::new(Duration::from_secs(20), ["sh", "-c", "echo $NO_COLOR; echo bad >&2; exit 3"]);
        let output = system.run(&echo).unwrap();
        assert!(!output.ok() && output.text == "1\nbad\n", "{output:?}");
        assert_eq!(output.summary(), "exit 3: bad");
        let missing = ToolCommand::new(Duration::from_secs(1), ["no-such-tool-here"]);
        assert!(system.run(&missing).unwrap_err().contains("no-such-tool-here"));
        let hang = ToolCommand::new(Duration::from_millis(50), ["sleep", "60"]);
        assert!(system.run(&hang).unwrap().summary().contains("deadline"));
    }
}
