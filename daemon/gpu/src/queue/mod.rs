//! zedd's side: queues, the journal behind them, and the processes that work them off.
//!
//! One [`schedule`] and one [`journal`] a device, behind one lock; a thread that watches the device's node, and one that
//! reads what it says. Threads, not tasks: a job's way from `write(2)` to the node and back is two system calls here.
//! Never loads a driver, never waits for a device while a lock is held.

mod device;
mod dispatch;
mod files;
pub mod histogram;
mod host;
mod inner;
pub mod journal;
mod kernels;
mod messages;
mod metrics;
mod node;
mod record;
mod restore;
pub mod schedule;
mod set;
mod store;
mod supervisor;
pub mod suspects;
mod verbs;
mod views;

pub use host::NodeHandle;
pub use host::NodeHost;
pub use host::NodeProcess;
pub use host::NoticeKind;
pub use host::Notices;
pub use inner::QueueLimits;
pub use set::GpuSet;
pub use set::Use;
