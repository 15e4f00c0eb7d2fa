//! The spec language: what a person writes into `/zed/deploy/NAME.ron`.
//!
//! Owns the types of a spec, parsing with diagnostics that carry line and column, validation, condition
//! evaluation, the canonical form and its hash. Knows no clock, no I/O, no process: text in, values out.

mod ast;
mod canonical;
mod condition;
mod decode;
mod defaults;
mod diagnostics;
pub mod job;
mod listen;
mod names;
mod quantity;
mod render;
mod syntax;

pub use ast::*;
pub use canonical::SPEC_FORMAT;
pub use condition::is_changing_fact;
pub use decode::MAX_INSTANCES;
pub use decode::MAX_SECRET_BYTES;
pub use decode::MAX_SPEC_BYTES;
pub use decode::RESERVED_DATASET;
pub use decode::parse;
pub use diagnostics::Diagnostic;
pub use diagnostics::Diagnostics;
pub use diagnostics::MAX_DIAGNOSTICS;
pub use diagnostics::MAX_SHOWN;
pub use diagnostics::Severity;
pub use listen::Listen;
pub use names::*;
pub use quantity::MAX_DURATION;
pub use quantity::MAX_SIZE;
pub use quantity::QuantityError;
pub use quantity::parse_duration;
pub use quantity::parse_size;
pub use quantity::render_duration;
pub use quantity::render_size;
pub use render::render_spec;
pub use syntax::MAX_DEPTH;
pub use syntax::MAX_VALUES;
