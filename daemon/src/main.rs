//! zedd.
fn main() {}
