//! Pure planning: observed state in, a plan out. The same inputs give the same plan.
//!
//! Owns the property schema (`com.zed:*`), the diff, the plan of a deploy, of an undeclare and of a rollback,
//! retention, the plan linter, and the text that a person reads. No clock, no I/O, no tokio, no process.

mod observed;
mod plan;

pub use observed::*;
pub use plan::*;
