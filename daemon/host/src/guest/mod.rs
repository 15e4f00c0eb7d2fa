//! Jails, zones and service managers: what zed asks of them, and how it knows that it happened.
//!
//! Owns the trait through which the daemon makes guests, and the rules that all adapters keep: a command's exit
//! status proves nothing, the state afterwards does; what zed did not make is left alone; data are never
//! removed. Commands are built in pure parts (`jail`, `zone`, `service`) and run in one place (`commands`).

mod commands;
mod error;
mod inside;
mod jail;
mod local;
mod record;
pub mod service;
mod sim;
mod zone;

pub use commands::Commands;
pub use commands::Files;
pub use commands::LocalSystem;
pub use commands::Output;
pub use commands::ToolCommand;
pub use error::GuestError;
pub use error::GuestErrorKind;
pub use inside::Inside;
pub use inside::inside;
pub use jail::JailCommand;
pub use jail::render_fstab;
pub use jail::render_jail_conf;
pub use local::GuestPaths;
pub use local::LocalGuests;
pub use local::guest_kinds;
pub use sim::SimFault;
pub use sim::SimGuests;
pub use zone::ZoneCommand;
pub use zone::render_zone_config;

use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use zed_plan::GuestId;
use zed_plan::GuestSpec;
use zed_plan::ObservedGuest;

/// A guest that is to be made, with the places that its datasets have on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestRequest {
    /// What it shall be.
    pub spec: GuestSpec,
    /// Mountpoint of its dataset: a jail's root, a zone's zonepath.
    pub root: PathBuf,
    /// In the order of [`GuestSpec::mounts`].
    pub mounts: Vec<MountRequest>,
}

/// A folder of the host that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// On the host.
    pub source: PathBuf,
    /// Inside, absolute.
    pub at: String,
    /// Only to read.
    pub read_only: bool,
}

/// Makes jails and zones. Every call may be repeated, and blocks up to the deadlines of the tools.
pub trait Guests: Send + Sync {
    /// Every guest that zed has made here, and every other one that runs. A few short commands.
    ///
    /// # Errors
    /// When a tool cannot be run or says what is not understood.
    fn observe(&self) -> Result<BTreeMap<GuestId, ObservedGuest>, GuestError>;

    /// Fills an empty root with the system that the spec names; one that has a system is left as it is.
    ///
    /// # Errors
    /// When the system cannot be had, or another one is there.
    fn install(&self, request: &GuestRequest) -> Result<(), GuestError>;

    /// Writes its configuration. It takes effect at the next start.
    ///
    /// # Errors
    /// When somebody else's guest of that name is there, or a tool refuses.
    fn configure(&self, request: &GuestRequest) -> Result<(), GuestError>;

    /// Starts it; returns when it runs with this configuration and what runs inside can be started.
    ///
    /// # Errors
    /// When it does not run afterwards, or runs with another configuration.
    fn start(&self, request: &GuestRequest) -> Result<(), GuestError>;

    /// Puts packages, files, setup and services into the running guest.
    ///
    /// # Errors
    /// When one of them is not there afterwards.
    fn provision(&self, request: &GuestRequest) -> Result<(), GuestError>;

    /// Stops it; one that does not run, or that zed did not make, is accepted.
    ///
    /// # Errors
    /// When it still runs.
    fn stop(&self, guest: &GuestId) -> Result<(), GuestError>;

    /// Writes a script into a guest, readable by its root alone: see [`Inside::script`].
    ///
    /// # Errors
    /// When it cannot be written.
    fn write_script(&self, guest: &GuestId, path: &str, content: &[u8]) -> Result<(), GuestError>;

    /// Stops it and takes its configuration away. Its data stay. One that zed did not make is left alone.
    ///
    /// # Errors
    /// When it is still there.
    fn remove(&self, guest: &GuestId) -> Result<(), GuestError>;
}

/// Has a guest run as it was made, and leaves its content as it is: after a boot, and when its root was put back.
/// Repeatable.
///
/// # Errors
/// The first thing that is not as wanted afterwards.
pub fn start(guests: &dyn Guests, request: &GuestRequest) -> Result<(), GuestError> {
    guests.configure(request)?;
    guests.install(request)?;
    guests.start(request)
}

/// Makes a guest what it shall be, whatever it is now; it must not run with another configuration. Repeatable.
///
/// # Errors
/// The first thing that is not as wanted afterwards.
pub fn make(guests: &dyn Guests, request: &GuestRequest) -> Result<(), GuestError> {
    start(guests, request)?;
    guests.provision(request)
}
