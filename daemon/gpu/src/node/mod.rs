//! The node: what runs jobs on one device, in a process of its own.
//!
//! [`engine`] runs jobs in this process, for tests and benches too. A hang of the driver hangs whoever calls it; that is
//! why zedd talks to a process.

pub mod engine;
mod layout;

pub use engine::Engine;
pub use engine::EngineOptions;
pub use engine::JobError;
