//! Debian packages below `target/`: fetched with apt's own solver and unpacked into a folder, for what tests need and
//! no registry has.
//!
//! Never installs anything and changes nothing of the system: apt gets lists and caches of its own.

use crate::shell::Cmd;
use crate::shell::has_program;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// Packages that are unpacked together with what they depend on and this machine has not installed.
#[derive(Debug)]
pub(crate) struct Packages {
    /// What they are, as a subject in the plural.
    pub(crate) what: &'static str,
    /// Their names.
    pub(crate) names: &'static [&'static str],
    /// Where they are from.
    pub(crate) suite: Suite,
}

/// Where packages are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// The release that this machine runs.
    Installed,
    /// The release of this code name.
    Release(&'static str),
    /// The backports to the release of this code name.
    Backports(&'static str),
}

impl Packages {
    /// Unpacks them into `folder` unless it is there. The inner error says why that is not possible here.
    ///
    /// # Errors
    ///
    /// When a folder cannot be written, or a program that is there cannot be started.
    pub(crate) fn ready(&self, folder: &Path, no_install: bool) -> Result<Result<(), String>, String> {
        if folder.exists() {
            return Ok(Ok(()));
        }
        if no_install {
            return Ok(Err(format!("{} is missing, and --no-install", folder.display())));
        }
        let installed = match debian() {
            Ok(codename) => codename,
            Err(why) => return Ok(Err(format!("{} come from Debian, and {why}", self.what))),
        };
        let parent = folder.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(|e| failed(parent, &e))?;
        let lock = folder.with_extension("lock");
        let guard = File::create(&lock).map_err(|e| failed(&lock, &e))?;
        guard.lock().map_err(|e| failed(&lock, &e))?;
        if folder.exists() {
            return Ok(Ok(()));
        }
        self.unpack(folder, &installed)
    }

    fn unpack(&self, folder: &Path, installed: &str) -> Result<Result<(), String>, String> {
        let apt = Apt::new(folder.with_extension("apt"), &self.sources(installed))?;
        if !apt.get().arg("update").run()?.ok() {
            return Ok(Err("apt-get cannot read Debian's package lists".into()));
        }
        // The solver of apt says which libraries are missing here. The packages themselves are wanted also when they
        // are installed.
        let get = match self.suite {
            Suite::Backports(codename) => apt.get().args(["-t", &format!("{codename}-backports")]),
            _ => apt.get(),
        };
        if !get.args(["--download-only", "--reinstall", "install"]).args(self.names).run()?.ok() {
            return Ok(Err(format!("apt-get cannot fetch {}", self.names.join(", "))));
        }
        let scratch = folder.with_extension("new");
        let _ = std::fs::remove_dir_all(&scratch);
        for package in apt.fetched()? {
            Cmd::new("dpkg-deb").arg("-x").arg(&package).arg(&scratch).read()?;
        }
        std::fs::rename(&scratch, folder).map_err(|e| failed(folder, &e))?;
        let _ = std::fs::remove_dir_all(&apt.dir);
        Ok(Ok(()))
    }

    /// The list of sources for apt, on a machine that runs the release `installed`.
    fn sources(&self, installed: &str) -> String {
        let mirrors = std::fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
        match self.suite {
            Suite::Installed => sources_list(installed, false, &mirrors),
            Suite::Release(codename) => sources_list(codename, false, &mirrors),
            Suite::Backports(codename) => sources_list(codename, true, &mirrors),
        }
    }
}

/// An apt with a folder of its own.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(dir: PathBuf, sources: &str) -> Result<Self, String> {
        for sub in ["lists/partial", "cache/archives/partial"] {
            let sub = dir.join(sub);
            std::fs::create_dir_all(&sub).map_err(|e| failed(&sub, &e))?;
        }
        let list = dir.join("sources.list");
        std::fs::write(&list, sources).map_err(|e| failed(&list, &e))?;
        Ok(Self { dir })
    }

    /// apt-get, to which a command is added.
    fn get(&self) -> Cmd {
        let option = |key: &str, value: &str| format!("{key}={}", self.dir.join(value).display());
        Cmd::new("apt-get")
            .args(["-q", "-y", "-o", &option("Dir::Etc::sourcelist", "sources.list")])
            .args(["-o", "Dir::Etc::sourceparts=-", "-o", &option("Dir::State::lists", "lists")])
            .args(["-o", &option("Dir::Cache", "cache"), "-o", "Debug::NoLocking=1"])
            .args(["-o", "APT::Sandbox::User=", "--no-install-recommends"])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .deadline(Duration::from_secs(600))
    }

    /// The packages that were fetched.
    fn fetched(&self) -> Result<Vec<PathBuf>, String> {
        let archives = self.dir.join("cache/archives");
        let files = std::fs::read_dir(&archives)
            .map_err(|e| format!("cannot read {}: {e}", archives.display()))?
            .flatten()
            .map(|entry| entry.path());
        Ok(files.filter(|path| path.extension() == Some(OsStr::new("deb"))).collect())
    }
}

fn failed(what: &Path, e: &std::io::Error) -> String {
    format!("cannot write {}: {e}", what.display())
}

/// The code name of this Debian; the error says why this is none, as the end of a sentence.
///
/// # Errors
///
/// On another system, or where Debian's tools are missing.
pub(crate) fn debian() -> Result<String, String> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !has_program("apt-get") || !has_program("dpkg-deb") {
        return Err("apt-get and dpkg-deb are not here".into());
    }
    codename(&release).ok_or_else(|| "this is another system".into())
}

/// The code name in the text of `/etc/os-release`; `None` when it is not Debian's.
fn codename(release: &str) -> Option<String> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME").unwrap_or_else(|| "sid".into()))
}

/// Main and security updates of one Debian release, and its backports, from the mirrors that this machine uses.
fn sources_list(codename: &str, backports: bool, installed: &str) -> String {
    let mut mirrors = installed.lines().filter_map(|line| line.strip_prefix("URIs:")).map(str::trim);
    let main = mirrors.next().unwrap_or("http://deb.debian.org/debian");
    let security = mirrors.next().unwrap_or("http://deb.debian.org/debian-security");
    let signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let mut list = format!("deb {signed} {main} {codename} main\n");
    if codename != "sid" {
        list.push_str(&format!("deb {signed} {security} {codename}-security main\n"));
    }
    if backports {
        list.push_str(&format!("deb {signed} {main} {codename}-backports main\n"));
    }
    list
}

/// The folder of libraries of this machine's own kind, as `usr/lib/x86_64-linux-gnu`, among what is unpacked in
/// `folder`.
pub(crate) fn libraries(folder: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(folder.join("usr/lib")).ok()?.flatten().map(|entry| entry.path());
    folders.into_iter().find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_come_from_the_mirrors_of_this_machine() {
        let here = "Types: deb\nURIs: http://mirror/debian\nSuites: x\n\nURIs:  http://mirror/security\n";
        let lines = |list: &str| -> Vec<String> {
            list.lines().map(|l| l.split("] ").nth(1).unwrap().to_owned()).collect()
        };
        let release = ["http://mirror/debian bookworm main", "http://mirror/security bookworm-security main"];
        assert_eq!(lines(&sources_list("bookworm", false, here)), release);
        let with_backports = [&release[..], &["http://mirror/debian bookworm-backports main"]].concat();
        assert_eq!(lines(&sources_list("bookworm", true, here)), with_backports);
        assert!(sources_list("bookworm", false, "").contains(" http://deb.debian.org/debian bookworm main"));
        assert_eq!(sources_list("sid", false, "").lines().count(), 1);
    }

    #[test]
    fn only_debian_has_a_code_name_here() {
        for (release, expected) in [
            ("ID=debian\nVERSION_CODENAME=bookworm\n", Some("bookworm")),
            ("VERSION_CODENAME=\"trixie\"\nID=\"debian\"\n", Some("trixie")),
            ("ID=debian\n", Some("sid")),
            ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", None),
            ("", None),
        ] {
            assert_eq!(codename(release).as_deref(), expected, "{release}");
        }
    }

    #[test]
    fn what_is_unpacked_already_is_not_fetched_again_and_what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let packages = Packages { what: "the things", names: &["thing"], suite: Suite::Installed };
        assert_eq!(packages.ready(dir.path(), true), Ok(Ok(())));
        let why = packages.ready(&dir.path().join("missing"), true).unwrap().unwrap_err();
        assert!(why.ends_with("missing is missing, and --no-install"), "{why}");
    }

    #[test]
    fn the_folder_of_libraries_is_the_one_named_after_a_kind_of_machine() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(libraries(dir.path()), None);
        for sub in ["usr/lib/cmake", "usr/lib/aarch64-linux-gnu"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        assert_eq!(libraries(dir.path()), Some(dir.path().join("usr/lib/aarch64-linux-gnu")));
    }
}
