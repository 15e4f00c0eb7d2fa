//! What zedd counts from its start, for `/zed/metrics`.

use parking_lot::Mutex;
use std::time::Duration;
use zed_ctl::Code;
use zed_ctl::Counters;
use zed_fs::Outcome;
use zed_plan::Purpose;

/// Counters behind a lock.
#[derive(Default)]
pub struct Metrics(Mutex<Counters>);

impl Metrics {
    /// A copy, for rendering.
    pub fn counters(&self) -> Counters {
        self.0.lock().clone()
    }

    /// A pass of the loop has ended; `started` runs came of it.
    pub fn pass(&self, took: Duration, started: usize) {
        let mut counters = self.0.lock();
        counters.converge_seconds.observe(took.as_secs_f64());
        if started == 0 {
            *counters.converge_runs.entry("no-op".to_owned()).or_default() += 1;
        }
    }

    /// A run has ended.
    pub fn run_ended(&self, purpose: &Purpose, took: Duration, outcome: &Outcome) {
        let word = match outcome {
            Ok(_) => None,
            Err(error) if error.code == Code::NeedsOperator => Some("needs-operator"),
            Err(_) => Some("failed"),
        };
        let mut counters = self.0.lock();
        if matches!(purpose, Purpose::Rollback { .. }) {
            *counters.rollbacks.entry(word.unwrap_or("done").to_owned()).or_default() += 1;
            counters.rollback_seconds.observe(took.as_secs_f64());
        } else {
            *counters.converge_runs.entry(word.unwrap_or("converged").to_owned()).or_default() += 1;
        }
    }

    /// A verb was judged.
    pub fn verb(&self, accepted: bool) {
        let word = if accepted { "accepted" } else { "refused" };
        *self.0.lock().verbs.entry(word.to_owned()).or_default() += 1;
    }

    /// A saved spec was judged.
    pub fn spec(&self, accepted: bool) {
        let word = if accepted { "accepted" } else { "rejected" };
        *self.0.lock().specs.entry(word.to_owned()).or_default() += 1;
    }

    /// Drift was found.
    pub fn drift(&self) {
        self.0.lock().drifts += 1;
    }

    /// The store could not be read or refused.
    pub fn store_error(&self) {
        self.0.lock().store_errors += 1;
    }
}
