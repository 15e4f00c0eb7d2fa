//! A Vulkan driver for tests: `cargo xtask vulkan -- COMMAND`, and the environment of the tier `gpu`.
//!
//! Mesa's driver for CPUs, lavapipe, is unpacked below `target/` from Debian's packages; nothing is installed. There
//! are two: the one that tests run on, and an old one whose loops end too early, for the test that zed notices.
//! With `ZED_TEST_GPU=real` it is the system's own driver, and nothing here chooses it.

use crate::debian;
use crate::debian::Packages;
use crate::debian::Suite;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;

/// Command line of `cargo xtask vulkan`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Take the old driver, whose loops end after 65,535 rounds.
    #[arg(long)]
    pub old: bool,
    /// The command, as `vulkaninfo --summary`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

/// Names and values of variables.
pub(crate) type Environment = Vec<(&'static str, OsString)>;

/// The driver for tests, and the programs that they use.
const NAMES: &[&str] = &["mesa-vulkan-drivers", "libvulkan1", "vulkan-tools", "spirv-tools"];

/// The driver whose loops end too early: that of Debian 12.
const OLD: Packages = Packages {
    what: "Mesa 22.3.6 and its libraries",
    names: &["mesa-vulkan-drivers", "libvulkan1"],
    suite: Suite::Release("bookworm"),
};

/// Runs a command with a driver that needs no GPU.
///
/// # Errors
///
/// When the driver cannot be fetched, or the command cannot be started; else this does not come back.
pub fn run(options: &Options) -> Result<u8, String> {
    let (program, args) = options.command.split_first().ok_or("no command is given")?;
    let mut env = environment(false)??;
    if options.old {
        env.extend(Mesa::old(false)??.chosen());
    }
    // In this process's place: a person's command gets the terminal and the signals as they are.
    let error = std::process::Command::new(program).args(args).envs(env).exec();
    Err(format!("cannot start `{program}`: {error}"))
}

/// What tests of GPU nodes need in their environment. The inner error says why there is no driver here.
///
/// # Errors
///
/// When something cannot be written, or a program that is there cannot be started.
pub(crate) fn environment(no_install: bool) -> Result<Result<Environment, String>, String> {
    let real = std::env::var_os("ZED_TEST_GPU").is_some_and(|value| value == "real");
    let mesa = match (Mesa::new(no_install)?, real) {
        (Ok(mesa), _) => mesa,
        // The system's own files lie as those of a package do, and its driver is what is wanted.
        (Err(why), true) if Path::new("/usr/bin/spirv-val").exists() => {
            println!("   the system's own tools: {why}");
            return Ok(Ok(vec![("ZED_TEST_VULKAN", OsString::from("/"))]));
        }
        (Err(why), true) => return Ok(Err(format!("{why}, and the system has no spirv-val of its own"))),
        (Err(why), false) => return Ok(Err(why)),
    };
    let mut env = vec![
        ("ZED_TEST_VULKAN", mesa.folder.clone().into_os_string()),
        ("PATH", before("PATH", &mesa.folder.join("usr/bin"))),
        // Mesa's default is in the home folder.
        ("MESA_SHADER_CACHE_DIR", target()?.join("vulkan-cache").into_os_string()),
    ];
    match Mesa::old(no_install)? {
        Ok(old) => env.push(("ZED_TEST_VULKAN_OLD", old.folder.into_os_string())),
        Err(why) => println!("   the driver whose loops end too early is not tried: {why}"),
    }
    if !real {
        env.extend(mesa.chosen());
    }
    Ok(Ok(env))
}

/// An unpacked Mesa.
#[derive(Debug)]
struct Mesa {
    folder: PathBuf,
    libraries: PathBuf,
}

impl Mesa {
    /// The one that tests run on.
    fn new(no_install: bool) -> Result<Result<Self, String>, String> {
        let suite = suite(&debian::debian().unwrap_or_default());
        let packages = Packages { what: "Mesa and its libraries", names: NAMES, suite };
        Self::ready(&packages, target()?.join("vulkan"), no_install)
    }

    /// The one whose loops end too early.
    fn old(no_install: bool) -> Result<Result<Self, String>, String> {
        Self::ready(&OLD, target()?.join("vulkan-old"), no_install)
    }

    fn ready(packages: &Packages, folder: PathBuf, no_install: bool) -> Result<Result<Self, String>, String> {
        if let Err(why) = packages.ready(&folder, no_install)? {
            return Ok(Err(why));
        }
        let not_whole = || format!("{} is not whole: remove it to fetch it again", folder.display());
        let Some(libraries) = debian::libraries(&folder) else { return Ok(Err(not_whole())) };
        let Some(packed) = lavapipe(&folder) else { return Ok(Err(not_whole())) };
        // Each time: the working tree may have moved since.
        let manifest = folder.join("lvp.json");
        let text = absolute(&packed, &libraries)?;
        if std::fs::read_to_string(&manifest).is_ok_and(|old| old == text) {
            return Ok(Ok(Self { folder, libraries }));
        }
        std::fs::write(&manifest, text).map_err(|e| format!("cannot write {}: {e}", manifest.display()))?;
        Ok(Ok(Self { folder, libraries }))
    }

    /// The variables by which the loader takes this driver and no other.
    fn chosen(&self) -> Environment {
        let manifest = self.folder.join("lvp.json").into_os_string();
        vec![
            ("VK_DRIVER_FILES", manifest.clone()),
            // The name that loaders before 1.3.207 know.
            ("VK_ICD_FILENAMES", manifest),
            ("LD_LIBRARY_PATH", before("LD_LIBRARY_PATH", &self.libraries)),
        ]
    }
}

/// Where Mesa 25 is: Debian 12 has it in its backports, what came after it has it or a newer one.
fn suite(installed: &str) -> Suite {
    if installed == "bookworm" { Suite::Backports("bookworm") } else { Suite::Installed }
}

/// Below where cargo builds, and absolute: programs are started in other folders.
fn target() -> Result<PathBuf, String> {
    let target = crate::target();
    std::path::absolute(&target).map_err(|e| format!("cannot resolve {}: {e}", target.display()))
}

/// The manifest of lavapipe in an unpacked Mesa: its name has the kind of machine in it.
fn lavapipe(folder: &Path) -> Option<PathBuf> {
    let manifests = std::fs::read_dir(folder.join("usr/share/vulkan/icd.d")).ok()?.flatten();
    manifests.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("lvp_icd") && path.extension() == Some(OsStr::new("json"))
    })
}

/// The text of a driver's manifest, with its library in `libraries`.
fn absolute(manifest: &Path, libraries: &Path) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("cannot use {}: {why}", manifest.display());
    let text = std::fs::read_to_string(manifest).map_err(|e| failed(&e))?;
    let mut value: serde_json::Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
    let path = value.pointer_mut("/ICD/library_path").ok_or_else(|| failed(&"it names no library"))?;
    let name = path.as_str().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    *path = libraries.join(name).to_string_lossy().into();
    Ok(format!("{value:#}\n"))
}

/// A variable that is a list of folders, with `first` before what it has.
fn before(variable: &str, first: &Path) -> OsString {
    let old = std::env::var_os(variable).filter(|old| !old.is_empty());
    let mut list = first.as_os_str().to_owned();
    if let Some(old) = old {
        list.push(":");
        list.push(old);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the two packages have.
    const MANIFEST: &str = r#"{
    "ICD": {
        "api_version": "1.1.230",
        "library_path": "/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so"
    },
    "file_format_version": "1.0.0"
}"#;

    fn unpacked(manifest: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["usr/share/vulkan/icd.d", "usr/lib/x86_64-linux-gnu"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let drivers = dir.path().join("usr/share/vulkan/icd.d");
        std::fs::write(drivers.join("radeon_icd.x86_64.json"), "{}").unwrap();
        std::fs::write(drivers.join("lvp_icd.x86_64.json"), manifest).unwrap();
        dir
    }

    fn ready(folder: &Path) -> Result<Mesa, String> {
        Mesa::ready(&OLD, folder.to_owned(), true).and_then(|found| found)
    }

    #[test]
    fn the_manifest_names_the_unpacked_library_however_the_package_named_it() {
        for packed in [MANIFEST.to_owned(), MANIFEST.replace("/usr/lib/x86_64-linux-gnu/", "")] {
            let dir = unpacked(&packed);
            let mesa = ready(dir.path()).unwrap();
            let written = std::fs::read_to_string(dir.path().join("lvp.json")).unwrap();
            let written: serde_json::Value = serde_json::from_str(&written).unwrap();
            let library = dir.path().join("usr/lib/x86_64-linux-gnu/libvulkan_lvp.so");
            assert_eq!(written["ICD"]["library_path"], library.to_str().unwrap());
            assert_eq!(written["ICD"]["api_version"], "1.1.230");
            let chosen = mesa.chosen();
            assert_eq!(chosen[0], ("VK_DRIVER_FILES", dir.path().join("lvp.json").into_os_string()));
            assert!(chosen.iter().any(|(name, value)| *name == "LD_LIBRARY_PATH"
                && value.to_str().unwrap().starts_with(mesa.libraries.to_str().unwrap())));
        }
    }

    #[test]
    fn a_folder_that_moved_gets_a_manifest_with_its_new_place() {
        let dir = unpacked(MANIFEST);
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        std::fs::rename(dir.path().join("usr"), old.join("usr")).unwrap();
        ready(&old).unwrap();
        std::fs::rename(&old, &new).unwrap();
        ready(&new).unwrap();
        let written = std::fs::read_to_string(new.join("lvp.json")).unwrap();
        assert!(written.contains(new.to_str().unwrap()), "{written}");
    }

    #[test]
    fn an_unpacked_folder_without_the_driver_is_said_not_to_be_whole() {
        let dir = unpacked(MANIFEST);
        std::fs::remove_dir_all(dir.path().join("usr/share")).unwrap();
        let why = ready(dir.path()).unwrap_err();
        assert!(why.ends_with("is not whole: remove it to fetch it again"), "{why}");
        let dir = unpacked("{}");
        let why = ready(dir.path()).unwrap_err();
        assert!(why.ends_with("lvp_icd.x86_64.json: it names no library"), "{why}");
    }

    #[test]
    fn debian_12_takes_its_backports_and_others_their_own_mesa() {
        assert_eq!(suite("bookworm"), Suite::Backports("bookworm"));
        assert_eq!(suite("trixie"), Suite::Installed);
        assert_eq!(suite(""), Suite::Installed);
    }
}
