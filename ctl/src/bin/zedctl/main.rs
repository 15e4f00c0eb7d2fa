//! zedctl: a thin client of the tree.

fn main() {}
