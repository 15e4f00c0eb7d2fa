//! The cross tier: the whole workspace type-checks for FreeBSD and illumos.
//!
//! No registry of ours has the standard library of these targets, so it is checked from source as well. Debian packs
//! a compiler together with that source: `rustc-web`, which its browsers are built with. It is unpacked below
//! `target/cross`; nothing is installed and nothing of the system changes. Nothing is linked and nothing runs.

use super::Options;
use super::Outcome;
use crate::count::Counts;
use crate::debian;
use crate::debian::Packages;
use crate::debian::Suite;
use crate::shell::Cmd;
use std::path::Path;
use std::path::PathBuf;

/// The systems, in the words of the compiler.
const TARGETS: [&str; 2] = ["x86_64-unknown-freebsd", "x86_64-unknown-illumos"];

/// What is unpacked, with what it depends on.
const PACKAGES: Packages = Packages {
    what: "the compiler and its library's source",
    names: &["rustc-web", "cargo-web", "rust-web-src"],
    suite: Suite::Installed,
};

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
    crate::target().join("cross")
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
        if let Err(why) = PACKAGES.ready(&folder, no_install)? {
            return Ok(Err(why));
        }
        let usr = folder.join("usr");
        let Some(libraries) = debian::libraries(&folder) else {
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

/// The first version in a text: `rustc 1.96.0 (..)` and `rust-version = "1.95"` are comparable.
fn numbers(text: &str) -> Vec<u32> {
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let word = text.split(|c: char| c.is_whitespace() || c == '"').find(is_version).unwrap_or_default();
    word.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::has_program;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(numbers("rustc 1.96.0 (ac68faa20 2026-05-25)"), [1, 96, 0]);
        assert_eq!(numbers("rust-version = \"1.95\""), [1, 95]);
        assert!(numbers("rustc 1.100.0") > numbers("rust-version = \"1.95\""));
        assert!(numbers("rustc 1.85.0") < numbers("rust-version = \"1.95\""));
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
