//! A kernel that shows, at the start of a node, whether the driver runs loops to their end.
//!
//! Mesa before 23 stops all loops of an invocation after 65,535 rounds on CPUs, and reports success. A device that does so
//! is not used: its results would be wrong without a sign.

use super::engine::Engine;
use super::error::JobError;
use crate::program::Author;
use crate::program::Buffer;
use crate::program::Dispatch;
use crate::program::Kernel;
use crate::program::Program;
use std::sync::Arc;
use std::time::Duration;
use zed_spec::job::Array;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Fallback;
use zed_spec::job::Job;
use zed_spec::job::Reply;

/// More than any driver that counts loops in 16 bits gets to.
const ROUNDS: u32 = 70_001;

/// A sequence that no compiler can shorten, so that the loop is really run.
const SOURCE: &str = "
struct Push { rounds: u32 }
var<immediate> push: Push;
@group(0) @binding(0) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(1)
fn main() {
    var state = 1u;
    var done = 0u;
    for (var i = 0u; i < push.rounds; i++) {
        state = (state ^ (state >> 7u)) * 1664525u + 1013904223u;
        done++;
    }
    result[0] = done;
    result[1] = state;
}
";

/// What the kernel computes.
fn expected() -> u32 {
    (0..ROUNDS)
        .fold(1_u32, |state, _| (state ^ (state >> 7)).wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
}

/// What is wrong with a driver that gave these results; nothing when they are right.
fn judge(done: u32, state: u32) -> Option<String> {
    if done < ROUNDS {
        return Some(format!(
            "this driver stops loops after {done} iterations and reports success (Mesa before 23?): install a newer one"
        ));
    }
    let wrong = done != ROUNDS || state != expected();
    wrong.then(|| "this driver computes wrong results and reports success: install another one".to_owned())
}

/// Runs it.
///
/// # Errors
/// Why the device cannot be used.
pub(super) fn run(engine: &mut Engine) -> Result<(), String> {
    let array = Array { name: "result".to_owned(), dtype: DType::U32, shape: vec![2] };
    let job = Job {
        arrays: vec![array],
        inputs: Vec::new(),
        steps: Vec::new(),
        outputs: vec![ArrayId(0)],
        deadline: Duration::from_secs(1),
        priority: 0,
        fallback: Fallback::Forbid,
        reply: Reply::Id,
    };
    let kernel = Arc::new(Kernel::new("canary", SOURCE.to_owned(), Author::Catalogue, 1, 4));
    let dispatch = Dispatch {
        kernel,
        buffers: vec![Buffer::Array(ArrayId(0))],
        push: ROUNDS.to_le_bytes().to_vec(),
        groups: [1, 1, 1],
    };
    let program = Program { temporaries: Vec::new(), dispatches: vec![dispatch] };
    let failed = |error: JobError| format!("the first kernel on this device failed: {error}");
    let outputs = engine.compute_by(&job, program, &[]).map_err(failed)?;
    let words = outputs.first().map(|bytes| bytes.as_chunks::<4>().0).unwrap_or_default();
    match words {
        [done, state] => judge(u32::from_le_bytes(*done), u32::from_le_bytes(*state)).map_or(Ok(()), Err),
        _ => Err("the first kernel on this device gave nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_driver_that_runs_loops_to_their_end_and_computes_right_is_used() {
        assert_eq!(judge(ROUNDS, expected()), None);
        let short = judge(65_535, 7).unwrap();
        assert_eq!(
            short,
            "this driver stops loops after 65535 iterations and reports success (Mesa before 23?): install a newer one"
        );
        assert!(judge(ROUNDS, expected() + 1).unwrap().contains("computes wrong results"));
        assert!(judge(ROUNDS + 1, expected()).unwrap().contains("computes wrong results"));
    }
}
