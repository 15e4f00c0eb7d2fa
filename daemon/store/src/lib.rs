//! Datasets, user properties and snapshots behind one trait.
//!
//! Three implementations, one conformance suite: OpenZFS through libzfs, the embedded store on plain
//! directories, and a simulator with scripted failures. Calls block; the daemon makes them from one place.
//! Requests are typed values of bounded size, so that they can cross a privilege boundary.
//! Never interprets `com.zed:*` values: that is zed-plan's business.

pub mod conformance;
mod types;

pub use types::*;
