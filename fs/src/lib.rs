//! The tree under `/zed`: nodes, handles, spec files and streams, served by FUSE and by a Unix socket.
//!
//! Sees the daemon only through [`Control`]. A handler never waits for convergence or for a command; only
//! waiters are parked, with a deadline, and can always be interrupted. `fuse/` is the only place that
//! imports fuser.

mod control;
mod fault;
#[cfg(not(target_os = "illumos"))]
pub mod fuse;
mod gpu;
pub mod socket;
pub mod spec;
pub mod stream;
pub mod tree;
mod verb;
pub mod wait;

pub use control::*;
pub use fault::Fault;
pub use fault::errno_of;
pub use gpu::*;
pub use verb::TICKET_LIMIT;
