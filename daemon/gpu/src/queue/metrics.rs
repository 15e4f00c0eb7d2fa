//! The queues in Prometheus' text form.
//!
//! Names and units are part of the interface: counters end in `_total`, times are in seconds.

use super::histogram::Histogram;
use super::inner::Inner;
use super::node::Phase;
use std::fmt::Write as _;

/// One family: its name, type, meaning and its lines.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    lines: String,
}

fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "counter", help, lines: String::new() }
}

fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "gauge", help, lines: String::new() }
}

fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "histogram", help, lines: String::new() }
}

impl Family {
    fn value(&mut self, labels: &str, value: u64) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.lines, "{}{{{labels}}} {value}", self.name);
    }

    fn buckets(&mut self, gpu: u32, histogram: &Histogram) {
        let (name, mut below) = (self.name, 0);
        for (bound, count) in histogram.buckets() {
            below += count;
            let seconds = bound.parse::<u64>().map_or_else(|_| "+Inf".to_owned(), seconds);
            let _ = writeln!(self.lines, "{name}_bucket{{gpu=\"{gpu}\",le=\"{seconds}\"}} {below}");
        }
        let _ = writeln!(self.lines, "{name}_sum{{gpu=\"{gpu}\"}} {}", seconds(histogram.sum()));
        let _ = writeln!(self.lines, "{name}_count{{gpu=\"{gpu}\"}} {}", histogram.count());
    }
}

fn seconds(microseconds: u64) -> String {
    let text = format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The families of all devices. Empty without a device.
#[derive(Default)]
pub(super) struct Metrics(Vec<Family>);

impl Metrics {
    pub(super) fn new() -> Self {
        Self(vec![
            gauge("zed_gpu_up", "1 when the node of the device takes jobs."),
            counter("zed_gpu_node_restarts_total", "Starts of the node after its first."),
            gauge("zed_gpu_jobs", "Jobs that have not ended."),
            gauge("zed_gpu_queue_bytes", "Memory that they hold."),
            counter("zed_gpu_jobs_submitted_total", "Jobs that were taken."),
            counter("zed_gpu_jobs_refused_total", "Jobs that were refused because the queue was full."),
            counter("zed_gpu_jobs_ended_total", "Jobs that ended, by how."),
            counter("zed_gpu_timeouts_total", "Jobs that did not end by their deadline."),
            counter("zed_gpu_fallbacks_total", "Jobs that were run on the CPU instead."),
            counter("zed_gpu_batches_total", "Submits to the device."),
            gauge("zed_gpu_brake", "1 while too many timeouts keep jobs from the device."),
            gauge("zed_gpu_evicted_kernels", "Kernels that are not run any more."),
            histogram("zed_gpu_queue_seconds", "From a job's submission to its begin."),
            histogram("zed_gpu_device_seconds", "The device's time for a job's submit."),
            histogram("zed_gpu_job_seconds", "From a job's submission to its end."),
        ])
    }

    pub(super) fn add(&mut self, inner: &Inner) {
        let gpu = inner.gpu;
        let label = format!("gpu=\"{gpu}\"");
        let counts = &inner.counts;
        let evicted = inner.suspects.iter().filter(|(_, suspect)| suspect.evicted).count();
        for family in &mut self.0 {
            let value = match family.name {
                "zed_gpu_up" => u64::from(inner.node.phase == Phase::Ready),
                "zed_gpu_node_restarts_total" => inner.node.restarts,
                "zed_gpu_jobs" => inner.open_jobs as u64,
                "zed_gpu_queue_bytes" => inner.open_bytes,
                "zed_gpu_jobs_submitted_total" => counts.submitted,
                "zed_gpu_jobs_refused_total" => counts.refused,
                "zed_gpu_timeouts_total" => counts.timeouts,
                "zed_gpu_fallbacks_total" => counts.fallbacks,
                "zed_gpu_batches_total" => counts.batches,
                "zed_gpu_brake" => u64::from(inner.suspects.brake()),
                "zed_gpu_evicted_kernels" => evicted as u64,
                "zed_gpu_jobs_ended_total" => {
                    let ends =
                        [("done", counts.done), ("failed", counts.failed), ("cancelled", counts.cancelled)];
                    for (how, count) in ends {
                        family.value(&format!("{label},how=\"{how}\""), count);
                    }
                    continue;
                }
                "zed_gpu_queue_seconds" => {
                    family.buckets(gpu, &inner.queue_us);
                    continue;
                }
                "zed_gpu_device_seconds" => {
                    family.buckets(gpu, &inner.device_us);
                    continue;
                }
                _ => {
                    family.buckets(gpu, &inner.total_us);
                    continue;
                }
            };
            family.value(&label, value);
        }
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for Family { name, kind, help, lines } in self.0.iter().filter(|family| !family.lines.is_empty()) {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_all_that_is_below_them() {
        let mut family = histogram("zed_gpu_x_seconds", "X.");
        let mut counted = Histogram::default();
        [5, 15, 1_500_000, 99_000_000].into_iter().for_each(|took| counted.observe(took));
        family.buckets(3, &counted);
        for line in [
            "zed_gpu_x_seconds_bucket{gpu=\"3\",le=\"0.00001\"} 1",
            "zed_gpu_x_seconds_bucket{gpu=\"3\",le=\"1\"} 2",
            "zed_gpu_x_seconds_bucket{gpu=\"3\",le=\"+Inf\"} 4",
            "zed_gpu_x_seconds_sum{gpu=\"3\"} 100.50002",
            "zed_gpu_x_seconds_count{gpu=\"3\"} 4",
        ] {
            assert!(family.lines.lines().any(|found| found == line), "{line}\n{}", family.lines);
        }
        assert_eq!(Metrics::new().render(), "");
    }
}
