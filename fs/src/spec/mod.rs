//! The folders of specs, `deploy/` and `plan/`: real files that clients write in any way tools do.
//!
//! Owns what is pending in memory, and when it becomes a file: a save is complete before the daemon hears of
//! it. Must never apply a scratch file, and never hand the daemon half a save.

mod disk;
mod file;
mod folder;
mod rename;
mod save;

pub use disk::Meta;
pub use folder::SpecFolder;
pub use folder::SpecSettings;

/// The longest spec, in bytes.
pub const MAX_SPEC: usize = 1 << 20;

/// The most scratch files in a folder.
pub const MAX_SCRATCH: usize = 256;

/// The folder of scratch files inside the folder of specs.
pub(crate) const SCRATCH_DIR: &str = ".scratch";

/// What temporary files of a save begin with; the daemon's own watch ignores such names.
pub(crate) const COMMIT_PREFIX: &str = ".commit-";
