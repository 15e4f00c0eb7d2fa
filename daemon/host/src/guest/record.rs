//! What zed remembers of a guest: a record on the host, and a mark in its root.
//!
//! The record says what zed configured and started; it is written before the first effect, so that what a killed
//! daemon left is known as zed's. The mark lives in the root itself, so that a rollback of the root takes what is
//! known of its content back with it.

use super::commands::Files;
use super::error::GuestErrorKind;
use crate::guest::MountRequest;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use zed_plan::GuestId;
use zed_plan::GuestSpec;

/// Version of both files; newer ones are refused.
const FORMAT: u32 = 1;
/// The mark's path in the root of a jail, or in the zonepath of a zone.
const MARK: &str = "/.zed-guest.json";

/// What zed configured and started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    /// The guest.
    pub(crate) guest: GuestId,
    /// Mountpoint of its dataset.
    pub(crate) root: PathBuf,
    /// What its files say; `None` until they are written.
    pub(crate) made: Option<GuestSpec>,
    /// sha256 of each file that was generated, or that a tool made of what was generated.
    #[serde(default)]
    pub(crate) files: BTreeMap<PathBuf, String>,
    /// The last start.
    #[serde(default)]
    pub(crate) started: Option<Started>,
    /// What it sees of the host.
    #[serde(default)]
    pub(crate) mounts: Vec<MountRequest>,
}

/// One start of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The boot of the host in which it happened.
    pub(crate) boot: String,
    /// The number that the kernel gave it: after another start it is another one.
    pub(crate) id: String,
    /// [`GuestSpec::configuration`] of what was started.
    pub(crate) configuration: String,
}

impl Record {
    pub(crate) fn new(guest: GuestId, root: PathBuf) -> Self {
        let (files, mounts) = (BTreeMap::new(), Vec::new());
        Self { format: FORMAT, guest, root, made: None, files, started: None, mounts }
    }

    /// True when every file is as it was written.
    pub(crate) fn is_intact(&self, files: &dyn Files) -> bool {
        self.made.is_some()
            && self.files.iter().all(|(path, hash)| {
                let content = files.read(path).ok().flatten();
                content.is_some_and(|content| zed_plan::sha256_hex(&content) == *hash)
            })
    }

    /// What it was started with, if this is still that start. A start by somebody else (rc at boot) uses the files
    /// as they are.
    pub(crate) fn running(&self, boot: &str, id: &str, intact: bool) -> Option<String> {
        match &self.started {
            Some(started) if started.boot == boot && started.id == id => Some(started.configuration.clone()),
            _ if intact => self.made.as_ref().map(GuestSpec::configuration),
            _ => None,
        }
    }
}

/// What is known of a root's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    format: u32,
    /// The system that was put into it; `None` while it is being filled.
    pub(crate) base: Option<String>,
    /// [`GuestSpec::content`], once all of it is there.
    #[serde(default)]
    pub(crate) content: Option<String>,
    /// Packages that zed installed because the spec named them.
    #[serde(default)]
    pub(crate) packages: Vec<String>,
    /// Services that zed enabled.
    #[serde(default)]
    pub(crate) services: Vec<String>,
    /// sha256 of the setup commands that were run to their end.
    #[serde(default)]
    pub(crate) setup: Option<String>,
}

impl Mark {
    pub(crate) fn new(base: Option<String>) -> Self {
        Self { format: FORMAT, base, ..Self::default() }
    }
}

/// The records of this host.
pub(crate) struct Records<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) folder: &'a Path,
}

impl Records<'_> {
    fn path(&self, guest: &GuestId) -> PathBuf {
        self.folder.join(format!("{}-{}.json", guest.kind(), guest.name()))
    }

    /// Every record.
    pub(crate) fn all(&self) -> Result<Vec<Record>, GuestErrorKind> {
        let names = self.files.list(self.folder).map_err(|e| GuestErrorKind::file(self.folder, &e))?;
        let mut records = Vec::new();
        for name in names.iter().filter(|name| name.ends_with(".json")) {
            let path = self.folder.join(name);
            let bytes = self.files.read(&path).map_err(|e| GuestErrorKind::file(&path, &e))?;
            if let Some(bytes) = bytes {
                records.push(parse(&path, &bytes)?);
            }
        }
        Ok(records)
    }

    pub(crate) fn read(&self, guest: &GuestId) -> Result<Option<Record>, GuestErrorKind> {
        let path = self.path(guest);
        let bytes = self.files.read(&path).map_err(|e| GuestErrorKind::file(&path, &e))?;
        bytes.map(|bytes| parse(&path, &bytes)).transpose()
    }

    pub(crate) fn write(&self, record: &Record) -> Result<(), GuestErrorKind> {
        let path = self.path(&record.guest);
        let bytes = to_json(&path, record)?;
        self.files.write(&path, &bytes, 0o600).map_err(|e| GuestErrorKind::file(&path, &e))
    }

    pub(crate) fn remove(&self, guest: &GuestId) -> Result<(), GuestErrorKind> {
        let path = self.path(guest);
        self.files.remove(&path).map_err(|e| GuestErrorKind::file(&path, &e))
    }
}

/// The mark of a root; `None` when zed has put nothing into it.
pub(crate) fn read_mark(files: &dyn Files, root: &Path) -> Result<Option<Mark>, GuestErrorKind> {
    let path = root.join(MARK.trim_start_matches('/'));
    let found = files.read_in(root, MARK);
    match found {
        Ok(found) => found.map(|(bytes, _)| parse(&path, &bytes)).transpose(),
        // The dataset is not mounted, or its mountpoint has moved.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(GuestErrorKind::file(&path, &e)),
    }
}

pub(crate) fn write_mark(files: &dyn Files, root: &Path, mark: &Mark) -> Result<(), GuestErrorKind> {
    let path = root.join(MARK.trim_start_matches('/'));
    let bytes = to_json(&path, mark)?;
    files.write_in(root, MARK, &bytes, 0o600).map_err(|e| GuestErrorKind::file(&path, &e))
}

fn to_json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, GuestErrorKind> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| damaged(path, &e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, GuestErrorKind> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|e| damaged(path, &e.to_string()))?;
    if head.format > FORMAT {
        let problem = format!("has format {}, and this zed knows formats up to {FORMAT}", head.format);
        return Err(GuestErrorKind::File { path: path.display().to_string(), problem });
    }
    serde_json::from_slice(bytes).map_err(|e| damaged(path, &e.to_string()))
}

fn damaged(path: &Path, problem: &str) -> GuestErrorKind {
    GuestErrorKind::File { path: path.display().to_string(), problem: format!("is damaged: {problem}") }
}
