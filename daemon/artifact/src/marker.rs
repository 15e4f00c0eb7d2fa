//! `.zed-release.json`: what a release folder holds, and who put it there.
//!
//! Owns the file's format. A folder without it is not zed's, and is never removed.

use rustix::fs::Mode;
use rustix::fs::OFlags;
use serde::Deserialize;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;

/// Name of the file in a release folder. No artifact may hold it at its top.
pub const MARKER: &str = ".zed-release.json";
/// Version of the format.
const FORMAT: u32 = 1;
/// More is not a marker.
const MAX_BYTES: u64 = 64 << 10;

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Version of the format, 1.
    pub format: u32,
    /// Digest of the artifact.
    pub digest: String,
    /// The app's version.
    pub version: String,
    /// The run that unpacked it.
    pub run: String,
    /// Whose files they are; the daemon's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

impl Marker {
    pub(crate) fn new(digest: &str, version: &str, run: &str, owner: Option<Owner>) -> Self {
        Self { format: FORMAT, digest: digest.into(), version: version.into(), run: run.into(), owner }
    }

    /// The marker of a folder; nothing when it has none that this version understands.
    pub(crate) fn read(folder: impl AsFd) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(folder, MARKER, flags, Mode::empty()).ok()?);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
        let marker: Self = serde_json::from_slice(&text).ok()?;
        (marker.format <= FORMAT).then_some(marker)
    }

    pub(crate) fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        Ok(text)
    }
}
