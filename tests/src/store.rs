//! The store of a test: a folder, or a dataset of a real pool, made for the test and removed after it.

use crate::Zed;
use std::path::Path;
use std::path::PathBuf;
use xtask::leftovers;
use xtask::shell::Cmd;

/// Where a test's zedd keeps its datasets.
#[derive(Debug, Clone)]
pub enum Backend {
    /// A folder.
    Embedded(PathBuf),
    /// A dataset of a pool, below which everything is.
    Zfs(String),
}

impl Backend {
    /// As the environment says; makes what is needed.
    ///
    /// # Panics
    ///
    /// When `ZED_TEST_STORE` names something else, or the dataset cannot be made.
    pub(crate) fn from_env(dir: &Path) -> Self {
        match std::env::var("ZED_TEST_STORE").as_deref() {
            Err(_) | Ok("embedded") => Self::Embedded(dir.join("store")),
            Ok("zfs") => {
                let pool = std::env::var("ZED_TEST_POOL").unwrap_or_else(|_| "tank".into());
                let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let dataset = format!("{pool}/{name}");
                let mountpoint = format!("mountpoint={}", dir.join("store").display());
                let made = Cmd::new("zfs").args(["create", "-o", &mountpoint, &dataset]).quiet().run();
                let made = made.expect("zfs can be started");
                assert!(made.ok(), "zfs create {dataset}: {}", made.output);
                Self::Zfs(dataset)
            }
            Ok(other) => panic!("ZED_TEST_STORE={other} is neither `embedded` nor `zfs`"),
        }
    }

    /// The argument of `--store`.
    pub fn argument(&self) -> String {
        match self {
            Self::Embedded(dir) => format!("embedded:{}", dir.display()),
            Self::Zfs(dataset) => format!("zfs:{dataset}"),
        }
    }

    /// `com.zed:version` of a dataset, read without zedd where the store has a tool of its own.
    #[track_caller]
    pub(crate) fn version(&self, zed: &Zed, dataset: &str) -> String {
        match self {
            Self::Embedded(_) => zed.ok(&format!("cat $M/datasets/{dataset}/com.zed:version")),
            Self::Zfs(root) => zed.ok(&format!("zfs get -H -o value com.zed:version {root}/{dataset}")),
        }
    }

    /// Removes what [`Backend::from_env`] made.
    pub(crate) fn destroy(&self) {
        if let Self::Embedded(folder) = self {
            leftovers::unmount(folder);
        }
        if let Self::Zfs(dataset) = self {
            let destroyed = Cmd::new("zfs").args(["destroy", "-R", "-f", dataset]).quiet().run();
            if let Ok(ended) = destroyed
                && !ended.ok()
            {
                eprintln!("zfs destroy -R -f {dataset}: {}", ended.output);
            }
        }
    }
}
