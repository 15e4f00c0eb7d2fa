//! Pure planning: observed state in, a plan out. The same inputs give the same plan.
//!
//! Owns the property schema (`com.zed:*`), the diff, the plan of a deploy, of an undeclare and of a rollback,
//! retention, the plan linter, and the text that a person reads. No clock, no I/O, no tokio, no process.

mod based_on;
mod deploy;
mod guest;
mod history;
mod instance;
mod lint;
mod naming;
mod observed;
mod placement;
mod plan;
#[cfg(test)]
mod properties;
pub mod props;
mod release;
mod render;
mod retention;
mod rollback;
mod shape;
#[cfg(test)]
mod testing;
mod time;
mod verb;
mod world;

pub use deploy::DRIFT;
pub use deploy::LOST;
pub use deploy::UndeclareInput;
pub use deploy::datasets_of_deploy;
pub use deploy::plan_deploy;
pub use deploy::plan_undeclare;
pub use guest::*;
pub use history::HistoryEntry;
pub use history::HistoryKind;
pub use history::history;
pub use instance::Instance;
pub use instance::InstanceError;
pub use lint::lint;
pub use naming::SNAPSHOT_PREFIX;
pub use naming::is_own;
pub use naming::release_folder;
pub use observed::*;
pub use plan::*;
pub use release::MissingValue;
pub use release::Resolved;
pub use release::has_process;
pub use release::resolve;
pub use release::run_spec_of;
pub use release::sha256_hex;
pub use render::Summary;
pub use render::plan_json;
pub use render::render_plan;
pub use render::summarize;
pub use rollback::RollbackError;
pub use rollback::RollbackInput;
pub use rollback::RollbackTarget;
pub use rollback::plan_rollback;
pub use shape::health_of;
pub use shape::numbers;
pub use shape::port_of;
pub use time::compact_time;
pub use time::rfc3339;
pub use verb::AppVerb;
pub use verb::apps_to_start_after_boot;
pub use verb::plan_app_verb;
pub use verb::release_edit;
pub use verb::stamped;
