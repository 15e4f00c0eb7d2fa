//! The store on real OpenZFS: the conformance suite, and what only ZFS can show.
//!
//! Needs a pool: `ZED_TEST_POOL` names it. `cargo xtask zfs test` runs this where there is one.

#![cfg(feature = "zfs")]
#![expect(clippy::disallowed_methods, reason = "tests look at ZFS with its own programs")]

#[path = "zfs/support.rs"]
mod support;

#[path = "zfs/properties.rs"]
mod properties;
#[path = "zfs/restore.rs"]
mod restore;
#[path = "zfs/rootless.rs"]
mod rootless;
#[path = "zfs/space.rs"]
mod space;

use support::Pool;
use zed_store::conformance;

#[test]
fn conformance_suite() {
    for (name, case) in conformance::cases() {
        eprintln!("conformance: {name}");
        case(&mut Pool::new());
    }
}
