//! What the host does for zed: processes that outlive the daemon, health probes, facts, the command runner.
//!
//! The only crate that starts processes, and of it only `command.rs`. Never reads or writes the store.

mod cgroup;
mod command;
mod container;
mod facts;
pub mod front;
pub mod guest;
mod identity;
mod launch;
mod leftover;
mod limits;
mod local;
mod probe;
mod process;
mod program;
mod record;
mod served;
mod sim;
mod supervisor;
mod tail;
mod traffic;
mod types;
mod watch;

pub use cgroup::container_cgroup;
pub use command::CommandError;
pub use command::CommandRequest;
pub use command::Ended;
pub use command::Finished;
pub use command::InFlight;
pub use command::Runner;
pub use container::ContainerRuntime;
pub use container::find_container_runtime;
pub use facts::observe_facts;
pub use identity::ids_of;
pub use launch::SupervisorProgram;
pub use limits::observe_limits;
pub use local::LocalHost;
pub use program::DEFAULT_PATH;
pub use served::Served;
pub use sim::SimHost;
pub use sim::SimProbe;
pub use supervisor::supervise_main;
pub use tail::tail;
pub use types::*;
