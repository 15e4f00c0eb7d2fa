//! Datasets, user properties and snapshots behind one trait.
//!
//! Three implementations, one conformance suite: OpenZFS through libzfs, the embedded store on plain
//! directories, and a simulator with scripted failures. Calls block; the daemon makes them from one place.
//! Requests are typed values of bounded size, so that they can cross a privilege boundary.
//! Never interprets `com.zed:*` values: that is zed-plan's business.

pub mod conformance;
mod embedded;
mod open;
mod rules;
mod sim;
mod types;
#[cfg(feature = "zfs")]
pub mod zfs;

pub use embedded::EmbeddedStore;
pub use embedded::Fate;
pub use embedded::Faults;
pub use open::open;
pub use sim::SimStore;
pub use types::*;
