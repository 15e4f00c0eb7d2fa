//! The spec language: what a person writes into `/zed/deploy/NAME.ron`.
//!
//! Owns the types of a spec, parsing with diagnostics that carry line and column, validation, condition
//! evaluation, the canonical form and its hash. Knows no clock, no I/O, no process: text in, values out.

mod ast;
mod names;

pub use ast::*;
pub use names::*;
