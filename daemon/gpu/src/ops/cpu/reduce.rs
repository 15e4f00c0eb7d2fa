//! Reductions on the CPU: pairwise sums, whose error grows with the logarithm of their length.

use super::Cpu;
use super::Values;
use super::parallel;
use crate::ops::reduce::Shape;
use zed_spec::job::Op;
use zed_spec::job::Reduction;
use zed_spec::job::Step;

/// Elements that one piece of work combines.
const PIECE: usize = 1 << 14;

/// Elements that are added one after the other.
const RUN: usize = 32;

/// `Sum`, `ReduceMin`, `ReduceMax`, `LogSumExp`, `KineticEnergy`.
pub(super) fn run(cpu: &mut Cpu<'_>, step: &Step) {
    let (input, axis) = match &step.op {
        Op::Reduce(_, input, axis) => (*input, *axis),
        Op::KineticEnergy { p, .. } => (*p, None),
        _ => return,
    };
    let Some(result) = step.results.first() else { return };
    let (dtype, shape) = (cpu.job().array(input).dtype, Shape::of(cpu.job().array(input), axis));
    let values = cpu.get(input);
    let fold = Fold::of(shape);
    let reduced = match &step.op {
        Op::Reduce(Reduction::ReduceMin, ..) => fold.each(&|at, _| values.at(at), &smaller),
        Op::Reduce(Reduction::ReduceMax, ..) => fold.each(&|at, _| values.at(at), &larger),
        Op::Reduce(Reduction::LogSumExp, ..) => {
            let peaks = fold.each(&|at, _| values.at(at), &larger);
            // The peak itself is 1, also where it is infinite.
            let exp = |at: usize, result: usize| {
                if values.at(at) == peaks[result] { 1.0 } else { (values.at(at) - peaks[result]).exp() }
            };
            let sums = fold.each(&exp, &add);
            peaks.iter().zip(sums).map(|(peak, sum)| peak + sum.ln()).collect()
        }
        Op::KineticEnergy { inv_mass, .. } => {
            let masses = cpu.get(*inv_mass);
            fold.each(&|at, _| 0.5 * values.at(at) * values.at(at) * masses.at(at), &add)
        }
        _ => fold.each(&|at, _| values.at(at), &add),
    };
    cpu.set(*result, Values::rounded(dtype, reduced.into_iter()));
}

fn add(a: f64, b: f64) -> f64 {
    a + b
}

/// NaN when one is NaN.
fn smaller(a: f64, b: f64) -> f64 {
    if b < a || b.is_nan() { b } else { a }
}

/// NaN when one is NaN.
fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

struct Fold {
    outer: usize,
    length: usize,
    inner: usize,
}

impl Fold {
    fn of(shape: Shape) -> Self {
        Self { outer: shape.outer as usize, length: shape.length as usize, inner: shape.inner as usize }
    }

    /// Each result; `load` is given the place of an element and of its result.
    fn each(
        &self,
        load: &(impl Fn(usize, usize) -> f64 + Sync),
        combine: &(impl Fn(f64, f64) -> f64 + Sync),
    ) -> Vec<f64> {
        let pieces = self.length.div_ceil(PIECE).max(1);
        let results = self.outer * self.inner;
        let partial = parallel::collect(results * pieces, self.length.min(PIECE), |index| {
            let (result, piece) = (index / pieces, index % pieces);
            let base = result / self.inner * self.length * self.inner + result % self.inner;
            let (begin, end) = (piece * PIECE, self.length.min((piece + 1) * PIECE));
            pairwise(begin, end, &|r| load(base + r * self.inner, result), combine)
        });
        if pieces == 1 {
            return partial;
        }
        partial.chunks(pieces).map(|piece| pairwise(0, pieces, &|r| piece[r], combine)).collect()
    }
}

/// Combines `load(begin)` to `load(end - 1)` in a tree; there is at least one.
fn pairwise(
    begin: usize,
    end: usize,
    load: &impl Fn(usize) -> f64,
    combine: &impl Fn(f64, f64) -> f64,
) -> f64 {
    if end - begin <= RUN {
        return (begin + 1..end).fold(load(begin), |sum, r| combine(sum, load(r)));
    }
    let middle = begin + (end - begin) / 2;
    combine(pairwise(begin, middle, load, combine), pairwise(middle, end, load, combine))
}
