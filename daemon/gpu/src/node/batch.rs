//! Which jobs share a submit.
//!
//! Pure. Small jobs of the catalogue do, so that many of them cost one wait; what may take long, or came from a user, runs
//! alone, because the jobs of a submit share their fate and their deadlines begin together.

use zed_spec::job::Job;
use zed_spec::job::Op;

/// The most jobs of one submit.
pub(super) const MAX_JOBS: usize = 64;

/// The most bytes of all arrays of one submit's jobs.
const MAX_BYTES: u64 = 16 << 20;

/// The most bytes of a small job's arrays.
const SMALL_BYTES: u64 = 1 << 20;

/// The most elementary operations of a small job: a millisecond of a slow device.
const SMALL_WORK: u64 = 4 << 20;

/// Whether a job may share a submit; then how many bytes its arrays have.
fn small(job: &Job) -> Option<u64> {
    let bytes = job.arrays.iter().fold(0_u64, |sum, array| sum.saturating_add(array.bytes()));
    if bytes > SMALL_BYTES {
        return None;
    }
    let length =
        |id: &zed_spec::job::ArrayId| job.arrays.get(id.0 as usize).map_or(0, |array| array.elements());
    let mut work = 0_u64;
    for step in &job.steps {
        let results = step.results.iter().map(length).fold(0, u64::saturating_add);
        work = work.saturating_add(match &step.op {
            Op::Wgsl { .. } => return None,
            Op::Chain { q, steps, .. } => length(q).saturating_mul(u64::from(*steps)).saturating_mul(32),
            Op::Matmul(_, a, b) => {
                let inner = job.arrays.get(a.0 as usize).and_then(|array| array.shape.last());
                length(b).max(results).saturating_mul(u64::from(inner.copied().unwrap_or(1)))
            }
            Op::Reduce(_, a, _) | Op::Transpose(a) | Op::Unary(_, a) | Op::Cast(_, a) => length(a),
            _ => results.saturating_mul(8),
        });
    }
    (work <= SMALL_WORK).then_some(bytes)
}

/// A submit that is being put together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    jobs: usize,
    bytes: u64,
    closed: bool,
}

impl Batch {
    /// Whether a job joins; then it counts.
    pub(super) fn admit(&mut self, job: &Job) -> bool {
        let small = small(job);
        let fits = match small {
            _ if self.closed || self.jobs >= MAX_JOBS => false,
            Some(bytes) => self.jobs == 0 || self.bytes.saturating_add(bytes) <= MAX_BYTES,
            None => self.jobs == 0,
        };
        if fits {
            self.jobs += 1;
            self.bytes += small.unwrap_or(0);
            self.closed = small.is_none();
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use zed_spec::job::Array;
    use zed_spec::job::ArrayId;
    use zed_spec::job::DType;
    use zed_spec::job::Fallback;
    use zed_spec::job::Family;
    use zed_spec::job::MatmulVariant;
    use zed_spec::job::Reply;
    use zed_spec::job::Source;
    use zed_spec::job::Step;
    use zed_spec::job::Unary;

    fn job(shape: &[u32], op: Op) -> Job {
        let array = |name: &str| Array { name: name.into(), dtype: DType::F32, shape: shape.to_vec() };
        Job {
            arrays: vec![array("a"), array("b"), array("c")],
            inputs: vec![Source::Raw; 2],
            steps: vec![Step { op, results: vec![ArrayId(2)] }],
            outputs: vec![ArrayId(2)],
            deadline: Duration::from_secs(1),
            priority: 0,
            fallback: Fallback::Forbid,
            reply: Reply::Id,
        }
    }

    fn add(length: u32) -> Job {
        job(&[length], Op::Unary(Unary::Exp, ArrayId(0)))
    }

    fn matmul(side: u32) -> Job {
        job(&[side, side], Op::Matmul(MatmulVariant::Auto, ArrayId(0), ArrayId(1)))
    }

    fn chain(length: u32, steps: u32) -> Job {
        let (q, p, inv_mass) = (ArrayId(0), ArrayId(1), ArrayId(1));
        let family = Family::Normal { mu: 0.0, sigma: 1.0 };
        job(&[length], Op::Chain { family, q, p, inv_mass, eps: 0.1, steps })
    }

    #[test]
    fn jobs_that_may_take_long_run_alone() {
        let user = job(&[1], Op::Wgsl { source: String::new(), inputs: vec![], groups: [1; 3] });
        for (name, job, shares) in [
            ("1 kB", add(256), true),
            ("a megabyte", add(80_000), true),
            ("more", add(100_000), false),
            ("a small product", matmul(100), true),
            ("a product of some size", matmul(200), false),
            ("a short chain", chain(50, 32), true),
            ("a long chain", chain(50, 10_000), false),
            ("a user's", user, false),
        ] {
            let mut batch = Batch::default();
            assert!(batch.admit(&job), "{name}: the first is always admitted");
            assert_eq!(batch.admit(&add(1)), shares, "{name}: then another");
            let mut batch = Batch::default();
            assert!(batch.admit(&add(1)));
            assert_eq!(batch.admit(&job), shares, "{name}: after another");
        }
    }

    #[test]
    fn a_batch_is_bounded_by_jobs_and_by_bytes() {
        let count = |length| {
            let mut batch = Batch::default();
            (0..1000).take_while(|_| batch.admit(&add(length))).count()
        };
        assert_eq!(count(1), MAX_JOBS);
        assert_eq!(count(80_000), 17, "each has 960,000 bytes");
    }
}
