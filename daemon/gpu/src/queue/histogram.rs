//! How long jobs took: counts by upper bound.
//!
//! Counting is one comparison a bound and one addition; it is done under the queue's lock.

/// Upper bounds in microseconds; the last bucket has none.
const BOUNDS_US: [u64; 21] = [
    10, 20, 50, 100, 200, 300, 500, 700, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    200_000, 500_000, 1_000_000, 5_000_000, 20_000_000,
];

/// Counts by upper bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS_US.len() + 1],
    sum: u64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, microseconds: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < microseconds);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(microseconds);
    }

    /// Upper bound (the last is `inf`) and count of each bucket, each with what is in it alone.
    pub fn buckets(&self) -> Vec<(String, u64)> {
        let bounds = BOUNDS_US.iter().map(ToString::to_string).chain(["inf".to_owned()]);
        bounds.zip(self.counts.iter().copied()).collect()
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Microseconds of all together.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_counted_below_its_bound() {
        let mut histogram = Histogram::default();
        for value in [0, 10, 11, 1_000, 1_001, u64::MAX] {
            histogram.observe(value);
        }
        let filled: Vec<(String, u64)> =
            histogram.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        let expected =
            [("10", 2), ("20", 1), ("1000", 1), ("2000", 1), ("inf", 1)].map(|(b, n)| (b.to_owned(), n));
        assert_eq!(filled, expected);
        assert_eq!((histogram.count(), histogram.sum()), (6, u64::MAX));
        assert!(BOUNDS_US.is_sorted());
    }
}
