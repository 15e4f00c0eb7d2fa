//! Which steps become one kernel.
//!
//! A run is consecutive element-wise steps whose results have one shape. Its length is bounded, so that a kernel stays
//! small, and by what the device can bind and push.

use super::broadcast::Layout;
use super::is_elementwise;
use crate::device::Limits;
use crate::ops::operands_of;
use std::collections::BTreeSet;
use std::ops::Range;
use zed_spec::job::ArrayId;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Operand;
use zed_spec::job::Step;

/// The most steps of one kernel.
const MAX_FUSED: usize = 32;

/// Steps that one kernel does.
pub(super) struct Run {
    /// Which.
    pub(super) steps: Range<usize>,
    /// What they read and none of them gives, each once.
    pub(super) inputs: Vec<ArrayId>,
    /// What they give and is an output of the job or read by a later step.
    pub(super) outputs: Vec<ArrayId>,
}

/// The longest run that begins with a step.
pub(super) fn longest(job: &Job, limits: &Limits, at: usize) -> Run {
    let shape = |step: &Step| step.results.first().map(|id| job.array(*id).shape.as_slice());
    let first = shape(&job.steps[at]);
    let alike = job.steps[at..]
        .iter()
        .take(MAX_FUSED)
        .take_while(|step| is_elementwise(&step.op) && shape(step) == first);
    let most = alike.count();
    // A longer run may need fewer bindings than a shorter one, so each length is looked at.
    let runs = (1..=most).rev().map(|length| run(job, at..at + length));
    let mut fitting = runs.filter(|run| fits(job, limits, run));
    fitting.next().unwrap_or_else(|| run(job, at..at + 1))
}

fn run(job: &Job, steps: Range<usize>) -> Run {
    let inside = &job.steps[steps.clone()];
    let made: BTreeSet<ArrayId> = inside.iter().flat_map(|step| step.results.iter().copied()).collect();
    let mut inputs: Vec<ArrayId> = Vec::new();
    for id in inside.iter().flat_map(|step| operands_of(&step.op)) {
        if !made.contains(&id) && !inputs.contains(&id) {
            inputs.push(id);
        }
    }
    let later = job.steps[steps.end..].iter().flat_map(|step| operands_of(&step.op));
    let needed: BTreeSet<ArrayId> = later.chain(job.outputs.iter().copied()).collect();
    let outputs = made.into_iter().filter(|id| needed.contains(id)).collect();
    Run { steps, inputs, outputs }
}

fn fits(job: &Job, limits: &Limits, run: &Run) -> bool {
    let bindings = run.inputs.len() + run.outputs.len();
    let numbers = super::Numbers::of(job, &job.steps[run.steps.clone()]);
    let push = numbers.push(Layout::of(job, run).push(super::Push::new()));
    bindings <= limits.bindings as usize && push.len() <= limits.push_bytes as usize
}

/// What an element-wise operation takes, in the order of its text.
pub(super) fn operands(op: &Op) -> Vec<Operand> {
    match op {
        Op::Unary(_, a) | Op::Cast(_, a) => vec![Operand::Array(*a)],
        Op::Binary(_, a, b) => vec![*a, *b],
        Op::NormalLogPdf { x, mu, sigma } => vec![*x, *mu, *sigma],
        _ => Vec::new(),
    }
}
