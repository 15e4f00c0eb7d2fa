//! What `.meta/` says: requests and how long they took, by operation.
//!
//! Counting is a few relaxed atomic additions; it must never be what makes a request slow.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

/// Upper bounds of the latency buckets in microseconds; the last bucket has none.
const BOUNDS_US: [u64; 12] = [5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 20_000, 100_000, 1_000_000];

/// Operations that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Op {
    /// A name was asked for.
    Lookup,
    /// Attributes were asked for.
    Getattr,
    /// Attributes were set.
    Setattr,
    /// A file was opened.
    Open,
    /// A file was made.
    Create,
    /// A file was read.
    Read,
    /// A file was written.
    Write,
    /// A handle was closed.
    Flush,
    /// A file was synced.
    Fsync,
    /// A folder was listed.
    Readdir,
    /// A name was moved.
    Rename,
    /// A name was removed.
    Unlink,
    /// A handle was polled.
    Poll,
}

impl Op {
    const ALL: [(Op, &'static str); 13] = [
        (Op::Lookup, "lookup"),
        (Op::Getattr, "getattr"),
        (Op::Setattr, "setattr"),
        (Op::Open, "open"),
        (Op::Create, "create"),
        (Op::Read, "read"),
        (Op::Write, "write"),
        (Op::Flush, "flush"),
        (Op::Fsync, "fsync"),
        (Op::Readdir, "readdir"),
        (Op::Rename, "rename"),
        (Op::Unlink, "unlink"),
        (Op::Poll, "poll"),
    ];
}

#[derive(Debug, Default)]
struct Counter {
    requests: AtomicU64,
    errors: AtomicU64,
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
}

/// Counters of all operations.
#[derive(Debug, Default)]
pub struct Meter {
    counters: [Counter; Op::ALL.len()],
}

impl Meter {
    /// Counts one request that began at `begun`, without the time it was parked.
    pub fn count(&self, op: Op, begun: Instant, failed: bool) {
        let Some(counter) = self.counters.get(op as usize) else { return };
        let took = begun.elapsed();
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| microseconds <= *bound).unwrap_or(BOUNDS_US.len());
        counter.requests.fetch_add(1, Relaxed);
        counter.errors.fetch_add(u64::from(failed), Relaxed);
        counter.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        if let Some(bucket) = counter.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// `.meta/requests`: `op requests=N errors=N` lines.
    pub fn requests(&self, waiting: usize) -> String {
        let mut text = format!("waiting {waiting}\n");
        for (counter, (_, name)) in self.counters.iter().zip(Op::ALL) {
            let (requests, errors) = (counter.requests.load(Relaxed), counter.errors.load(Relaxed));
            let _ = writeln!(text, "{name} requests={requests} errors={errors}");
        }
        text
    }

    /// `.meta/latency`: `op count=N mean_us=N le_5us=N ...` lines, each bucket with what is in it alone.
    pub fn latency(&self) -> String {
        let mut text = String::new();
        for (counter, (_, name)) in self.counters.iter().zip(Op::ALL) {
            let requests = counter.requests.load(Relaxed);
            let mean = Duration::from_nanos(
                counter.nanoseconds.load(Relaxed).checked_div(requests).unwrap_or_default(),
            );
            let _ = write!(text, "{name} count={requests} mean_us={}", mean.as_micros());
            for (bucket, bound) in counter.buckets.iter().zip(BOUNDS_US) {
                let _ = write!(text, " le_{bound}us={}", bucket.load(Relaxed));
            }
            let over = counter.buckets.last().map_or(0, |bucket| bucket.load(Relaxed));
            let _ = writeln!(text, " over={over}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_own_counter() {
        let meter = Meter::default();
        for (op, name) in Op::ALL {
            meter.count(op, Instant::now(), true);
            assert!(meter.requests(0).contains(&format!("\n{name} requests=1 errors=1\n")), "{name}");
        }
        assert!(meter.latency().lines().all(|line| line.contains(" count=1 ")));
        assert!(meter.requests(3).starts_with("waiting 3\n"));
    }
}
