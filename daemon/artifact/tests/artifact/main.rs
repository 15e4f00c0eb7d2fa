//! Artifacts as the daemon meets them: real files, real folders, hostile archives.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod archives;
mod common;
mod images;
mod looks;
mod random;
mod releases;
