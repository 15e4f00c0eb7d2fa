//! What a row of probe results says of an app: thresholds, and when something changed.
//!
//! Pure: times come from outside, nothing is asked here.

use std::collections::BTreeMap;
use zed_ctl::ProbeView;
use zed_host::ProbeResult;
use zed_plan::Instance;

/// So many failed checks in a row make an app unhealthy: one may be an accident, and three at the default interval are
/// noticed within a quarter of a minute.
pub(super) const FAILURES: u32 = 3;

/// How well a process, or an app, is.
///
/// Ordered by what an operator has to know first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Its probes pass.
    Healthy,
    /// Not asked yet, or not often enough.
    #[default]
    Unknown,
    /// They fail.
    Unhealthy,
}

impl Health {
    /// The word in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Unknown => "unknown",
            Health::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of one probe of one process.
#[derive(Debug, Clone)]
struct ProbeState {
    name: String,
    passing: bool,
    since: i64,
    failures: u32,
    last: String,
    latency_us: u64,
    checked_at: i64,
}

/// What is known of one process.
#[derive(Debug, Clone, Default)]
pub(super) struct ProcessState {
    pub(super) health: Health,
    /// Checks in a row in which all probes passed.
    passes: u32,
    /// Checks in a row in which one failed.
    failures: u32,
    /// Why it is not healthy: the last failure of the row.
    reason: String,
    probes: Vec<ProbeState>,
}

impl ProcessState {
    /// As the deploy has just seen it.
    pub(super) fn deployed(healthy: bool) -> Self {
        let health = if healthy { Health::Healthy } else { Health::Unknown };
        Self { health, ..Self::default() }
    }

    /// Takes in one check: one result of each probe, or one of `the process`. `successes` passes in a row make it
    /// healthy again.
    pub(super) fn take(&mut self, results: &[ProbeResult], successes: u32, now: i64) {
        let before = std::mem::take(&mut self.probes);
        self.probes = results
            .iter()
            .map(|result| {
                let old = before.iter().find(|probe| probe.name == result.probe);
                let same = old.filter(|old| old.passing == result.passed);
                ProbeState {
                    name: result.probe.clone(),
                    passing: result.passed,
                    since: same.map_or(now, |old| old.since),
                    failures: if result.passed { 0 } else { same.map_or(0, |old| old.failures) + 1 },
                    last: result.text.clone(),
                    latency_us: u64::try_from(result.took.as_micros()).unwrap_or(u64::MAX),
                    checked_at: now,
                }
            })
            .collect();
        let Some(failed) = self.probes.iter().find(|probe| !probe.passing) else {
            self.failures = 0;
            self.passes = self.passes.saturating_add(1);
            if self.passes >= successes.max(1) {
                self.health = Health::Healthy;
                self.reason.clear();
            }
            return;
        };
        self.passes = 0;
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.health = Health::Unhealthy;
            self.reason = format!("{}: {}", failed.name, failed.last);
        }
    }
}

/// What is told of an app: the worst of its processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppHealth {
    /// How well.
    pub health: Health,
    /// Seconds since 1970 at which that began, 0 for an app that was never asked.
    pub since: i64,
    /// Why it is not healthy, or empty.
    pub reason: String,
}

/// The worst process and its reason. An app without any is unknown.
pub(super) fn worst<'a>(
    processes: impl Iterator<Item = (&'a Instance, &'a ProcessState)>,
) -> (Health, String) {
    let mut worst: Option<(Health, String)> = None;
    for (instance, state) in processes {
        if worst.as_ref().is_none_or(|(health, _)| state.health > *health) {
            let reason = match (state.reason.as_str(), instance.number) {
                ("", _) => String::new(),
                (reason, 1) => reason.to_owned(),
                (reason, _) => format!("{instance}: {reason}"),
            };
            worst = Some((state.health, reason));
        }
    }
    worst.unwrap_or_default()
}

/// Each probe of an app, for `apps/APP/health`.
pub(super) fn probe_views(processes: &BTreeMap<&Instance, &ProcessState>) -> Vec<ProbeView> {
    let of = |instance: &Instance, probe: &ProbeState| ProbeView {
        instance: instance.to_string(),
        probe: probe.name.clone(),
        state: if probe.passing { "passing" } else { "failing" }.to_owned(),
        since: probe.since,
        failures: probe.failures,
        latency_us: probe.latency_us,
        checked_at: probe.checked_at,
        last: probe.last.clone(),
    };
    processes
        .iter()
        .flat_map(|(instance, state)| state.probes.iter().map(move |probe| of(instance, probe)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn result(probe: &str, passed: bool, text: &str) -> ProbeResult {
        ProbeResult { probe: probe.to_owned(), passed, text: text.to_owned(), took: Duration::from_micros(7) }
    }

    fn instance(text: &str) -> Instance {
        text.parse().unwrap()
    }

    #[test]
    fn three_failures_in_a_row_make_it_unhealthy_and_passes_heal_it() {
        let mut state = ProcessState::deployed(true);
        let (good, bad) = ([result("GET x", true, "status 200")], [result("GET x", false, "status 500")]);
        let mut seen = Vec::new();
        // Two failures, and a pass between: nothing.
        for (check, now) in
            [&bad, &bad, &good, &bad, &bad, &bad, &bad, &good, &good, &bad].into_iter().zip(1..)
        {
            state.take(check, 2, now);
            seen.push(state.health);
        }
        use Health::Healthy as H;
        use Health::Unhealthy as U;
        assert_eq!(seen, [H, H, H, H, H, U, U, U, H, H]);
        assert_eq!(state.reason, "");
        assert_eq!(
            (state.probes[0].since, state.probes[0].failures, state.probes[0].checked_at),
            (10, 1, 10)
        );
    }

    #[test]
    fn the_reason_is_the_first_probe_that_fails_and_what_it_saw_last() {
        let mut state = ProcessState::default();
        for (number, now) in [1, 2, 3].into_iter().zip(100..) {
            let text = format!("status 50{number}");
            state.take(&[result("connect to y", true, "connected"), result("GET x", false, &text)], 1, now);
        }
        assert_eq!(state.reason, "GET x: status 503");
        assert_eq!(
            state.probes.iter().map(|probe| (probe.since, probe.failures)).collect::<Vec<_>>(),
            [(100, 0), (100, 3)]
        );
        // The process goes: another probe fails for the first time, in the same row.
        state.take(&[result("the process", false, "it was stopped")], 1, 104);
        assert_eq!(state.reason, "the process: it was stopped");
        state.take(&[result("GET x", true, "status 200")], 1, 105);
        assert_eq!((state.health, state.reason.as_str()), (Health::Healthy, ""));
    }

    #[test]
    fn an_app_is_as_well_as_its_worst_process() {
        let mut bad = ProcessState::default();
        for now in 0..3 {
            bad.take(&[result("GET x", false, "no")], 1, now);
        }
        let (good, unknown) = (ProcessState::deployed(true), ProcessState::default());
        let (one, two, three) = (instance("api"), instance("api.2"), instance("api.3"));
        let of = |all: &[(&Instance, &ProcessState)]| worst(all.iter().copied());
        assert_eq!(of(&[]), (Health::Unknown, String::new()));
        assert_eq!(of(&[(&one, &good), (&two, &unknown)]).0, Health::Unknown);
        let said = "api.2: GET x: no";
        assert_eq!(
            of(&[(&one, &good), (&two, &bad), (&three, &unknown)]),
            (Health::Unhealthy, said.to_owned())
        );
        assert_eq!(of(&[(&one, &bad)]).1, said.trim_start_matches("api.2: "));
        let views = probe_views(&BTreeMap::from([(&one, &good), (&two, &bad)]));
        assert_eq!(views.len(), 1, "what was not asked yet has no line");
        assert_eq!(
            (views[0].instance.as_str(), views[0].state.as_str(), views[0].latency_us),
            ("api.2", "failing", 7)
        );
    }
}
