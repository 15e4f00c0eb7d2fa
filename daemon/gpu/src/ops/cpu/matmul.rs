//! Matrix products and transposition on the CPU: rows of the result on all cores.

use super::Cpu;
use super::Values;
use super::parallel;
use zed_spec::job::Op;
use zed_spec::job::Step;

/// Elements of the inner axis that are summed before they are added to the rest: sums of sums round less.
const RUN: usize = 64;

/// `Matmul`, whatever the variant.
pub(super) fn run(cpu: &mut Cpu<'_>, step: &Step) {
    let (Op::Matmul(_, a, b), [result]) = (&step.op, step.results.as_slice()) else { return };
    let (left, right) = (cpu.job().array(*a), cpu.job().array(*b));
    let (&[m, k], &[_, n]) = (left.shape.as_slice(), right.shape.as_slice()) else { return };
    let (m, n, k) = (m as usize, n as usize, k as usize);
    let (dtype, a) = (left.dtype, cpu.get(*a));
    // Read m times: converted once.
    let b: Vec<f64> = (0..k * n).map(|index| cpu.get(*b).at(index)).collect();
    let rows = parallel::collect(m, n * k, |row| {
        let mut sum = vec![0.0; n];
        let mut part = vec![0.0; n];
        for begin in (0..k).step_by(RUN) {
            part.fill(0.0);
            for inner in begin..k.min(begin + RUN) {
                let factor = a.at(row * k + inner);
                for (part, b) in part.iter_mut().zip(&b[inner * n..(inner + 1) * n]) {
                    *part += factor * b;
                }
            }
            for (sum, part) in sum.iter_mut().zip(&part) {
                *sum += part;
            }
        }
        sum
    });
    cpu.set(*result, Values::rounded(dtype, rows.into_iter().flatten()));
}

/// `Transpose`.
pub(super) fn run_transpose(cpu: &mut Cpu<'_>, step: &Step) {
    let (Op::Transpose(input), [result]) = (&step.op, step.results.as_slice()) else { return };
    let &[m, n] = cpu.job().array(*input).shape.as_slice() else { return };
    let (m, n) = (m as usize, n as usize);
    let order = (0..m * n).map(|index| index % m * n + index / m);
    let values = match cpu.get(*input) {
        Values::F32(values) => Values::F32(order.map(|from| values[from]).collect()),
        Values::F64(values) => Values::F64(order.map(|from| values[from]).collect()),
        Values::U32(values) => Values::U32(order.map(|from| values[from]).collect()),
    };
    cpu.set(*result, values);
}
