//! The tree through a real mount, used with the tools that people use.
//!
//! Paragraphs of docs/SEMANTICS.md are the doc comments that begin with a number (T1, T2, ...).

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test starts real tools, ends at the first surprise, and says what it could not run"
)]

mod gpu;
mod interrupts;
mod lifecycle;
mod model;
mod saves;
mod semantics;
mod socket;
mod streams;
mod support;
mod verbs;
mod views;
