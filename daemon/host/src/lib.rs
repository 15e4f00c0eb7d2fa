//! What the host does for zed: processes that outlive the daemon, health probes, facts, the command runner.
//!
//! The only crate that starts processes, and of it only `command.rs`. Never reads or writes the store.

mod types;

pub use types::*;
