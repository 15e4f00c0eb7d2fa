//! The control vocabulary: verbs, error codes, views of the daemon's state and how they are written as text.
//!
//! Shared by the daemon, the file tree and zedctl, so that one word means one thing everywhere. No I/O.

mod errno;
mod error;
mod event;
mod metrics;
mod render;
mod time;
mod verbs;
mod view;

pub use errno::*;
pub use error::*;
pub use event::*;
pub use metrics::*;
pub use render::*;
pub use time::*;
pub use verbs::*;
pub use view::*;
