//! `cargo xtask`: demo, test, bench, tidy, zfs.
fn main() {}
