//! The control vocabulary: verbs, error codes, views of the daemon's state and how they are written as text.
//!
//! Shared by the daemon, the file tree and zedctl, so that one word means one thing everywhere. No I/O.

mod error;
mod view;

pub use error::*;
pub use view::*;
