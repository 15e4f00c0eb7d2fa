//! What the queues need of the host they are on: processes, and somebody to tell.
//!
//! Narrow on purpose: the daemon implements these with real processes, tests with threads that speak the same wire.

use crate::device::DeviceInfo;
use crate::device::DeviceUuid;
use std::io;
use std::os::unix::net::UnixStream;

/// Starts what runs jobs.
pub trait NodeHost: Send + Sync + 'static {
    /// The devices of this host, in any order, drivers that compute on the CPU included. May take seconds.
    ///
    /// # Errors
    /// In words, when they cannot be listed.
    fn devices(&self) -> Result<Vec<DeviceInfo>, String>;

    /// Nobody waits for a list of devices any more.
    fn stop(&self);

    /// Starts a node for one device, or, without one, a node that computes everything on the CPU.
    ///
    /// # Errors
    /// The system's.
    fn start(&self, device: Option<DeviceUuid>) -> io::Result<NodeProcess>;
}

/// A node that was started.
pub struct NodeProcess {
    /// Our end of its pair of sockets.
    pub socket: UnixStream,
    /// Its process id.
    pub pid: u32,
    /// How it is ended.
    pub handle: Box<dyn NodeHandle>,
}

/// Ends a node. Dropping it kills what still runs.
pub trait NodeHandle: Send {
    /// Kills it with all its children. Returns at once; the process may linger in its driver.
    fn kill(&mut self);

    /// How it ended, in words (`exit 1`, `signal 9`), once it has.
    fn ended(&mut self) -> Option<String>;
}

/// What operators are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// A node is ready.
    Ready,
    /// A node is gone, with what it was running.
    Lost,
    /// A device cannot be used.
    Unusable,
    /// A job did not end in time.
    Timeout,
    /// A kernel is not run any more.
    Evicted,
    /// The brake was set.
    Braked,
    /// The brake was released.
    Released,
    /// Something else that somebody should know.
    Warning,
}

/// Is told what happens. Must be quick.
pub trait Notices: Send + Sync + 'static {
    /// Something happened on `gpu/N`, or on none in particular.
    fn notice(&self, kind: NoticeKind, gpu: Option<u32>, text: &str);
}
