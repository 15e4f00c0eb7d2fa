//! The node: what runs jobs on one device, in a process of its own.
//!
//! [`engine`] runs jobs in this process, for tests and benches too. A hang of the driver hangs whoever calls it; that is
//! why zedd talks to a process, [`node_main`], and lists devices by another one, [`list_main`].

mod batch;
mod cache;
mod canary;
mod cpu;
pub mod engine;
mod error;
mod folder;
mod keeper;
mod layout;
mod message;
mod process;
mod serve;
mod shaders;
mod start;

pub use cpu::cpu_main;
pub use engine::Engine;
pub use engine::EngineOptions;
pub use error::JobError;
pub use error::OpenError;
pub use process::list_main;
pub use process::node_main;
