//! The Prometheus text exposition of `/zed/metrics` and `apps/APP/metrics`.
//!
//! What can be seen in the [`World`] is counted here; what must be counted as it happens is given by zedd in
//! [`Counters`].

use crate::view::AppView;
use crate::view::World;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Upper bounds in seconds: a no-op takes milliseconds, a deploy with slow probes minutes.
pub const SECONDS_BOUNDS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0];

/// Durations by size, in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Observations up to each of [`SECONDS_BOUNDS`] and above the one before; the last are those above all.
    counts: [u64; SECONDS_BOUNDS.len() + 1],
    sum: f64,
}

impl Histogram {
    /// Adds one duration in seconds. What is not a number or negative counts as 0.
    pub fn observe(&mut self, seconds: f64) {
        let seconds = if seconds.is_finite() && seconds > 0.0 { seconds } else { 0.0 };
        let bucket = SECONDS_BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(count) = self.counts.get_mut(bucket.unwrap_or(SECONDS_BOUNDS.len())) {
            *count += 1;
        }
        self.sum += seconds;
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What zedd counts from its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters {
    /// Runs of the reconcile loop by outcome: `no-op`, `converged`, `failed`, `needs-operator`.
    pub converge_runs: BTreeMap<String, u64>,
    /// How long they took.
    pub converge_seconds: Histogram,
    /// Rollbacks by outcome: `done`, `failed`, `needs-operator`.
    pub rollbacks: BTreeMap<String, u64>,
    /// How long rollbacks took, stop and start of the app included.
    pub rollback_seconds: Histogram,
    /// Verbs by outcome: `accepted`, `refused`.
    pub verbs: BTreeMap<String, u64>,
    /// Saves of specs by outcome: `accepted`, `rejected`.
    pub specs: BTreeMap<String, u64>,
    /// Times that drift was found.
    pub drifts: u64,
    /// Events written.
    pub events: u64,
    /// Errors of the store, those that were tried again included.
    pub store_errors: u64,
    /// Probes asked after the deploy, and those of them that failed, by app.
    pub probes: BTreeMap<String, ProbeCounts>,
}

/// Probes of one app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// All.
    pub asked: u64,
    /// Those that failed.
    pub failed: u64,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

/// An exposition under construction.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{}\"", escape(text));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn by_label<'a, V: std::fmt::Display + 'a>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        label: &str,
        values: impl IntoIterator<Item = (&'a String, &'a V)>,
    ) {
        self.family(name, kind, help);
        for (text, value) in values {
            self.sample(name, &[(label, text)], value);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let mut total = 0;
        let bounds = SECONDS_BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(histogram.counts) {
            total += count;
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], total);
        }
        self.sample(&format!("{name}_sum"), &[], histogram.sum);
        self.sample(&format!("{name}_count"), &[], total);
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `/zed/metrics`.
pub fn render_metrics(world: &World, counters: &Counters) -> String {
    let mut out = Exposition::default();
    let host = &world.host;
    out.single("zed_up", "gauge", "1 while zedd runs.", 1);
    out.family("zed_build_info", "gauge", "Version of zedd and the store it uses.");
    let labels = [("host", &*host.name), ("version", &*host.zed_version), ("store", &*host.store)];
    out.sample("zed_build_info", &labels, 1);
    out.single("zed_start_time_seconds", "gauge", "When zedd started, in unix time.", host.started_at);
    out.single("zed_problems", "gauge", "What a person has to look at.", host.problems.len());
    out.by_label(("zed_deploys", "gauge", "Deploys by state."), "state", &host.deploys);
    out.by_label(("zed_apps", "gauge", "Apps by state."), "state", &host.apps);
    out.single(
        "zed_datasets",
        "gauge",
        "Datasets that zed manages, branches included.",
        world.datasets.len(),
    );
    out.single("zed_store_available_bytes", "gauge", "Bytes that can still be written.", host.available);
    app_families(&mut out, world.apps.values().map(AsRef::as_ref));
    let runs = ("zed_converge_runs_total", "counter", "Runs of the reconcile loop by outcome.");
    out.by_label(runs, "outcome", &counters.converge_runs);
    out.histogram("zed_converge_seconds", "How long runs took.", &counters.converge_seconds);
    out.by_label(("zed_rollbacks_total", "counter", "Rollbacks by outcome."), "outcome", &counters.rollbacks);
    let help = "How long rollbacks took, stop and start of the app included.";
    out.histogram("zed_rollback_seconds", help, &counters.rollback_seconds);
    out.by_label(("zed_verbs_total", "counter", "Verbs by outcome."), "outcome", &counters.verbs);
    out.by_label(("zed_specs_total", "counter", "Saved specs by outcome."), "outcome", &counters.specs);
    out.single("zed_drifts_total", "counter", "Times that drift was found.", counters.drifts);
    let asked = counters.probes.iter().map(|(app, counts)| (app, &counts.asked));
    out.by_label(("zed_probes_total", "counter", "Probes asked after the deploy, by app."), "app", asked);
    let failed = counters.probes.iter().map(|(app, counts)| (app, &counts.failed));
    let help = "Probes that failed after the deploy, by app.";
    out.by_label(("zed_probe_failures_total", "counter", help), "app", failed);
    out.single("zed_events_total", "counter", "Events written.", counters.events);
    out.single("zed_store_errors_total", "counter", "Errors of the store.", counters.store_errors);
    out.0
}

/// `apps/APP/metrics`: this app's part of `/zed/metrics`.
pub fn render_app_metrics(app: &AppView) -> String {
    let mut out = Exposition::default();
    app_families(&mut out, std::iter::once(app));
    out.0
}

fn app_families<'a>(out: &mut Exposition, apps: impl Iterator<Item = &'a AppView> + Clone) {
    out.family("zed_app_info", "gauge", "What an app is at.");
    for app in apps.clone() {
        let labels = [
            ("app", &*app.name),
            ("version", &*app.version),
            ("deploy", &*app.deploy),
            ("state", &*app.state),
        ];
        out.sample("zed_app_info", &labels, 1);
    }
    type Value = fn(&AppView) -> Option<u64>;
    let families: [(&str, &str, &str, Value); 7] = [
        // Unknown health has no sample: neither 0 nor 1 would be true.
        ("zed_app_healthy", "gauge", "1 when an app's probes pass, 0 when they fail.", |app| {
            match app.health.as_str() {
                "healthy" => Some(1),
                "unhealthy" => Some(0),
                _ => None,
            }
        }),
        ("zed_app_up", "gauge", "1 when an app has a process.", |app| Some(u64::from(app.pid != 0))),
        ("zed_app_held", "gauge", "1 while a rollback holds an app.", |app| {
            Some(u64::from(!app.held.is_empty()))
        }),
        ("zed_app_drift", "gauge", "1 while an app differs from its spec.", |app| {
            Some(u64::from(!app.drift.is_empty()))
        }),
        ("zed_app_restarts_total", "counter", "Restarts since an app was started on purpose.", |app| {
            Some(u64::from(app.restarts))
        }),
        ("zed_app_start_time_seconds", "gauge", "Last start of an app, in unix time.", |app| {
            u64::try_from(app.since).ok().filter(|since| *since > 0)
        }),
        ("zed_app_releases", "gauge", "Releases that can be reached, the running one included.", |app| {
            u64::try_from(app.history.len()).ok()
        }),
    ];
    for (name, kind, help, value) in families {
        out.family(name, kind, help);
        for app in apps.clone() {
            if let Some(value) = value(app) {
                out.sample(name, &[("app", &app.name)], value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
