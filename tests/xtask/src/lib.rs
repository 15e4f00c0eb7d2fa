//! The work of `cargo xtask`: what a person runs in this repository, and the rules its sources keep.
//!
//! Owns no behaviour of zed: it builds, starts and checks the programs as a user would. Everything that it
//! starts has a deadline and is printed as it would be typed, except for a command that a person gives to `vulkan`.

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "the rule is for the daemon; this crate runs build and test tools"
)]

pub mod bench;
pub mod count;
mod debian;
pub mod demo;
pub mod leftovers;
pub mod shell;
pub mod suite;
pub mod tidy;
pub mod vulkan;
pub mod zfs;

use std::path::PathBuf;

/// The root of the working tree.
///
/// # Panics
///
/// Never: the crate lies two folders below the root.
pub fn root() -> PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate lies in tests/xtask").to_path_buf()
}

/// Where cargo builds, and what tests need is unpacked.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
