//! What an artifact may cost: bytes, entries, names, compression ratio.
//!
//! Owns the defaults and the running count. Limits protect the host from an archive that is a trap or a mistake; they
//! are far above what real releases need.

use crate::error::UnpackError;
use std::cell::Cell;
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Limits of one unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together, unpacked.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of one path or link target.
    pub path: usize,
    /// Components of one path.
    pub depth: usize,
    /// Unpacked bytes for each packed byte, once [`Limits::free`] bytes have come out.
    pub ratio: u64,
    /// Bytes that may come out whatever the ratio.
    pub free: u64,
}

impl Default for Limits {
    /// 64 GiB in a million entries; paths of 4096 bytes (Linux' own limit) and 128 components; 200 to 1 above 256 MiB
    /// (programs reach 3 to 10, a file of zeros 1000 with gzip and far more with zstd).
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 1_000_000, path: 4096, depth: 128, ratio: 200, free: 256 << 20 }
    }
}

/// The limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::bytes`].
    Bytes(u64),
    /// [`Limits::entries`].
    Entries(u64),
    /// [`Limits::ratio`].
    Ratio(u64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Bytes(bytes) => write!(f, "more than {bytes} bytes unpacked"),
            Limit::Entries(entries) => write!(f, "more than {entries} entries"),
            Limit::Ratio(ratio) => write!(f, "more than {ratio} bytes unpacked for each packed byte"),
        }
    }
}

// So that a reader in the middle of a chain of readers can report it.
impl std::error::Error for Limit {}

/// The running count of one unpacking.
pub(crate) struct Budget<'a> {
    artifact: &'a Path,
    pub(crate) limits: Limits,
    entries: Cell<u64>,
    bytes: Cell<u64>,
    cancel: &'a AtomicBool,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(artifact: &'a Path, limits: Limits, cancel: &'a AtomicBool) -> Self {
        Self { artifact, limits, entries: Cell::new(0), bytes: Cell::new(0), cancel }
    }

    /// The artifact that is unpacked.
    pub(crate) fn artifact(&self) -> &'a Path {
        self.artifact
    }

    /// Entries so far.
    pub(crate) fn entries(&self) -> u64 {
        self.entries.get()
    }

    /// One more entry.
    pub(crate) fn entry(&self) -> Result<(), UnpackError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(UnpackError::Cancelled { artifact: self.artifact.to_owned() });
        }
        self.entries.set(self.entries.get() + 1);
        if self.entries.get() > self.limits.entries {
            return Err(self.reached(Limit::Entries(self.limits.entries)));
        }
        Ok(())
    }

    /// So many more bytes.
    pub(crate) fn bytes(&self, more: u64) -> Result<(), UnpackError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(UnpackError::Cancelled { artifact: self.artifact.to_owned() });
        }
        self.bytes.set(self.bytes.get().saturating_add(more));
        if self.bytes.get() > self.limits.bytes {
            return Err(self.reached(Limit::Bytes(self.limits.bytes)));
        }
        Ok(())
    }

    fn reached(&self, limit: Limit) -> UnpackError {
        UnpackError::Limit { artifact: self.artifact.to_owned(), limit }
    }
}
