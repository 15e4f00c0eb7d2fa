//! The cross tier: the whole workspace type-checks for FreeBSD and illumos.
//!
//! No registry of ours has the standard library of these targets, so it is checked from source as well. Debian packs
//! a compiler together with that source: `rustc-web`, which its browsers are built with. It is unpacked below
//! `target/cross`; nothing is installed and nothing of the system changes. Nothing is linked and nothing runs.

use super::Options;
use super::Outcome;
use crate::count::Counts;
use crate::shell::Cmd;
use crate::shell::has_program;
use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// The systems, in the words of the compiler.
const TARGETS: [&str; 2] = ["x86_64-unknown-freebsd", "x86_64-unknown-illumos"];

/// What is unpacked, with what it depends on.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

pub(super) fn tier(options: &Options, _: &mut Counts) -> Result<Outcome, String> {
    let target_dir = target_dir();
    let toolchain = match Toolchain::ready(&target_dir, options.no_install)? {
        Ok(toolchain) => toolchain,
        Err(why) => return Ok(Outcome::NotRun(why)),
    };
    let zfs = crate::zfs::build_env();
    let mut failed = Vec::new();
    for target in TARGETS {
        if !toolchain.check(target, &target_dir, None)? {
            failed.push(target.to_owned());
        } else if let Ok(zfs) = &zfs
            && !toolchain.check(target, &target_dir, Some(zfs))?
        {
            failed.push(format!("{target} with the feature zfs"));
        }
    }
    Ok(match (failed.as_slice(), zfs) {
        ([], Ok(_)) => Outcome::Passed,
        ([], Err(why)) => Outcome::NotRun(format!("the part with the feature zfs: {}", why.trim())),
        _ => Outcome::Failed(format!("the workspace does not type-check for {}", failed.join(" and "))),
    })
}

/// A folder of its own: the compiler is another one, and must not make the usual one build everything again.
fn target_dir() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from);
    target.join("cross")
}

/// Variables that a build needs.
type Environment = [(String, String)];

/// An unpacked compiler.
struct Toolchain {
    usr: PathBuf,
    libraries: PathBuf,
}

impl Toolchain {
    /// The compiler below `target`, unpacked first if need be; the inner error says why there is none.
    fn ready(target: &Path, no_install: bool) -> Result<Result<Self, String>, String> {
        let folder = target.join("toolchain");
        if !folder.exists() {
            if no_install {
                return Ok(Err(format!("{} is missing, and --no-install", folder.display())));
            }
            if let Some(why) = unpack(target, &folder)? {
                return Ok(Err(why));
            }
        }
        let usr = folder.join("usr");
        let Some(libraries) = multiarch(&usr.join("lib")) else {
            return Ok(Err(format!("{} is not whole: remove it to fetch it again", folder.display())));
        };
        let toolchain = Self { usr, libraries };
        let version = toolchain.command("rustc").arg("--version").read()?;
        let manifest = std::fs::read_to_string(crate::root().join("Cargo.toml"))
            .map_err(|e| format!("cannot read Cargo.toml: {e}"))?;
        let wanted = numbers(manifest.lines().find(|l| l.starts_with("rust-version")).unwrap_or_default());
        if numbers(&version) < wanted {
            return Ok(Err(format!("Debian has {}, and the workspace needs a newer one", version.trim())));
        }
        Ok(Ok(toolchain))
    }

    /// A program of this compiler.
    fn command(&self, program: &str) -> Cmd {
        Cmd::new(self.usr.join("bin").join(program)).env("LD_LIBRARY_PATH", &self.libraries)
    }

    /// Type-checks the workspace for one system; a warning is an error. With `zfs`, what finds its libraries, it
    /// takes that feature too: any system's will do, because only our declarations of them are looked at. True when
    /// it passes.
    fn check(&self, target: &str, target_dir: &Path, zfs: Option<&Environment>) -> Result<bool, String> {
        let check =
            ["check", "--workspace", "--lib", "--bins", "--keep-going", "--quiet", "--target", target];
        let cc = crate::root().join("tests/cross/cc");
        let variable = |tool: &str| format!("{tool}_{}", target.replace('-', "_"));
        let cargo = self.command("cargo").args(check);
        let cargo = cargo.args(["-Zbuild-std=std,panic_abort", "-Zwarnings", "--config"]);
        let cargo = cargo
            .arg(r#"build.warnings="deny""#)
            // What a released compiler keeps from others, a distribution's may use: the standard library's source.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", self.usr.join("bin/rustc"))
            .env("CARGO_TARGET_DIR", target_dir)
            .env(&variable("CC"), &cc)
            .env(&variable("CXX"), &cc)
            .env(&variable("AR"), "ar");
        let Some(zfs) = zfs else { return Ok(cargo.run()?.ok()) };
        let cargo = cargo.args(["--features", "zedd/zfs"]).env("PKG_CONFIG_ALLOW_CROSS", "1");
        let paths = zfs.iter().filter(|(key, _)| key == "PKG_CONFIG_PATH");
        Ok(paths.fold(cargo, |cargo, (key, value)| cargo.env(key, value)).run()?.ok())
    }
}

/// Fetches and unpacks the compiler into `folder`. `Some` says why that is not possible here.
fn unpack(target: &Path, folder: &Path) -> Result<Option<String>, String> {
    let codename = match debian() {
        Ok(codename) => codename,
        Err(why) => return Ok(Some(why)),
    };
    let failed = |what: &Path, e: std::io::Error| format!("cannot write {}: {e}", what.display());
    let apt = target.join("apt");
    let packages = apt.join("cache/archives");
    for dir in [apt.join("lists/partial"), packages.join("partial")] {
        std::fs::create_dir_all(&dir).map_err(|e| failed(&dir, e))?;
    }
    let sources = apt.join("sources.list");
    let installed = std::fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    std::fs::write(&sources, sources_list(&codename, &installed)).map_err(|e| failed(&sources, e))?;
    let option = |key: &str, value: &Path| format!("{key}={}", value.display());
    let get = || {
        Cmd::new("apt-get")
            .args(["-q", "-y", "-o", &option("Dir::Etc::sourcelist", &sources)])
            .args(["-o", "Dir::Etc::sourceparts=-", "-o", &option("Dir::State::lists", &apt.join("lists"))])
            .args(["-o", &option("Dir::Cache", &apt.join("cache")), "-o", "Debug::NoLocking=1"])
            .args(["-o", "APT::Sandbox::User=", "--no-install-recommends"])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .deadline(Duration::from_secs(600))
    };
    if !get().arg("update").run()?.ok() {
        return Ok(Some("apt-get cannot read Debian's package lists".into()));
    }
    // The solver of apt says which libraries are missing here.
    if !get().args(["--download-only", "install"]).args(PACKAGES).run()?.ok() {
        return Ok(Some(format!("apt-get cannot fetch {}", PACKAGES.join(", "))));
    }
    let scratch = target.join("toolchain.new");
    let _ = std::fs::remove_dir_all(&scratch);
    for package in std::fs::read_dir(&packages).map_err(|e| failed(&packages, e))?.flatten() {
        let path = package.path();
        if path.extension() == Some(OsStr::new("deb")) {
            Cmd::new("dpkg-deb").arg("-x").arg(&path).arg(&scratch).read()?;
        }
    }
    std::fs::rename(&scratch, folder).map_err(|e| failed(folder, e))?;
    let _ = std::fs::remove_dir_all(&apt);
    Ok(None)
}

/// The code name of this Debian; the error says why this is none.
fn debian() -> Result<String, String> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    if value("ID").as_deref() != Some("debian") || !has_program("apt-get") || !has_program("dpkg-deb") {
        return Err(
            "the compiler and its library's source come from Debian, and this is another system".into()
        );
    }
    Ok(value("VERSION_CODENAME").unwrap_or_else(|| "sid".into()))
}

/// Main and security updates of one Debian release, from the mirrors that this machine uses.
fn sources_list(codename: &str, installed: &str) -> String {
    let mut mirrors = installed.lines().filter_map(|line| line.strip_prefix("URIs:")).map(str::trim);
    let main = mirrors.next().unwrap_or("http://deb.debian.org/debian");
    let security = mirrors.next().unwrap_or("http://deb.debian.org/debian-security");
    let signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let mut list = format!("deb {signed} {main} {codename} main\n");
    if codename != "sid" {
        list.push_str(&format!("deb {signed} {security} {codename}-security main\n"));
    }
    list
}

/// The folder of libraries of this machine's own kind: `lib/x86_64-linux-gnu`.
fn multiarch(lib: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(lib).ok()?.flatten().map(|entry| entry.path());
    folders.into_iter().find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
}

/// The first version in a text: `rustc 1.96.0 (..)` and `rust-version = "1.95"` are comparable.
fn numbers(text: &str) -> Vec<u32> {
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let word = text.split(|c: char| c.is_whitespace() || c == '"').find(is_version).unwrap_or_default();
    word.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(numbers("rustc 1.96.0 (ac68faa20 2026-05-25)"), [1, 96, 0]);
        assert_eq!(numbers("rust-version = \"1.95\""), [1, 95]);
        assert!(numbers("rustc 1.100.0") > numbers("rust-version = \"1.95\""));
        assert!(numbers("rustc 1.85.0") < numbers("rust-version = \"1.95\""));
    }

    #[test]
    fn packages_come_from_the_mirrors_of_this_machine() {
        let here = "Types: deb\nURIs: http://mirror/debian\nSuites: x\n\nURIs:  http://mirror/security\n";
        let list = sources_list("bookworm", here);
        let lines: Vec<_> = list.lines().map(|l| l.split("] ").nth(1).unwrap()).collect();
        assert_eq!(
            lines,
            ["http://mirror/debian bookworm main", "http://mirror/security bookworm-security main"]
        );
        assert!(sources_list("bookworm", "").contains(" http://deb.debian.org/debian bookworm main"));
        assert_eq!(sources_list("sid", "").lines().count(), 1);
    }

    #[test]
    fn the_compiler_for_checks_makes_empty_objects_and_passes_questions_on() {
        let dir = tempfile::tempdir().unwrap();
        let cc = crate::root().join("tests/cross/cc");
        let object = dir.path().join("a.o");
        let ended = Cmd::new(&cc).args(["-O2", "-c", "no-such.c", "-o"]).arg(&object).quiet().run().unwrap();
        assert_eq!((ended.code, std::fs::read(&object).unwrap()), (0, Vec::new()));
        if !has_program("cc") {
            println!("the_compiler_for_checks: only in part: there is no C compiler here");
            return;
        }
        assert!(Cmd::new(&cc).arg("-dumpmachine").read().unwrap().contains('-'));
    }
}
