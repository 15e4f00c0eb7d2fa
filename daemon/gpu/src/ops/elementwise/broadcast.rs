//! Where an element of a result finds its operands.
//!
//! Axes that all operands treat alike are one axis; most kernels are left with none and need no arithmetic of indices.

use super::fusion::Run;
use crate::ops::builder::Push;
use zed_spec::job::Array;
use zed_spec::job::Job;

/// An axis of the result, after merging.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Axis {
    length: u32,
    /// For each operand, whether it has this axis; one that has not repeats along it.
    has: Vec<bool>,
}

/// The axes of a result, and how its operands lie along them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    axes: Vec<Axis>,
    /// Of the result.
    pub(super) elements: u64,
}

impl Layout {
    pub(super) fn of(job: &Job, run: &Run) -> Self {
        let result = job.steps[run.steps.start].results.first().map(|id| job.array(*id));
        let shape = result.map_or(&[][..], |array| array.shape.as_slice());
        let operands: Vec<&Array> = run.inputs.iter().map(|id| job.array(*id)).collect();
        let mut axes: Vec<Axis> = Vec::new();
        for (axis, length) in shape.iter().enumerate().filter(|(_, length)| **length > 1) {
            let from_last = shape.len() - axis;
            let has = |operand: &&Array| {
                let own = operand.shape.len().checked_sub(from_last).and_then(|own| operand.shape.get(own));
                own.is_some_and(|own| *own > 1)
            };
            let has: Vec<bool> = operands.iter().map(has).collect();
            match axes.last_mut() {
                // An array has at most 2^30 elements, so merged axes are no longer.
                Some(last) if last.has == has => last.length *= length,
                _ => axes.push(Axis { length: *length, has }),
            }
        }
        Self { axes, elements: result.map_or(1, Array::elements) }
    }

    /// The axes whose length the kernel must know: those of coordinates, but for the first.
    pub(super) fn pushed(&self) -> impl Iterator<Item = usize> {
        1..if self.plain() { 1 } else { self.axes.len() }
    }

    /// Adds the number of elements and the lengths of [`Layout::pushed`].
    pub(super) fn push(&self, push: Push) -> Push {
        let elements = u32::try_from(self.elements).unwrap_or(u32::MAX);
        self.pushed().fold(push.u32(elements), |push, axis| push.u32(self.axes[axis].length))
    }

    /// Whether every operand either is as long as the result or has one element.
    fn plain(&self) -> bool {
        self.axes.len() <= 1
    }

    /// Lines that give coordinates `c0`, `c1`, ... of element `i`.
    pub(super) fn coordinates(&self) -> Vec<String> {
        if self.plain() {
            return Vec::new();
        }
        let last = self.axes.len() - 1;
        let mut lines = Vec::new();
        for axis in (1..=last).rev() {
            let from = if axis == last { "i".to_owned() } else { format!("r{}", axis + 1) };
            lines.push(format!("let r{axis} = {from} / push.d{axis};"));
            lines.push(format!("let c{axis} = {from} - r{axis} * push.d{axis};"));
        }
        lines.push("let c0 = r1;".to_owned());
        lines
    }

    /// The index of an operand, by its place among the inputs.
    pub(super) fn index(&self, operand: usize) -> String {
        let own: Vec<usize> = (0..self.axes.len()).filter(|axis| self.axes[*axis].has[operand]).collect();
        match own.as_slice() {
            [] => "0u".to_owned(),
            own if own.len() == self.axes.len() => "i".to_owned(),
            [first, rest @ ..] => {
                let start = format!("c{first}");
                rest.iter().fold(start, |index, axis| format!("({index}) * push.d{axis} + c{axis}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::elementwise::fusion;
    use crate::ops::testing;
    use crate::ops::testing::Text;
    use zed_spec::job::Binary;
    use zed_spec::job::DType;
    use zed_spec::job::Op;
    use zed_spec::job::Operand;

    fn layout(a: &[u32], b: &[u32]) -> Layout {
        let mut text = Text::default();
        let a = text.input(DType::F32, a);
        let b = text.input(DType::F32, b);
        let c = text.step(Op::Binary(Binary::Add, Operand::Array(a), Operand::Array(b)));
        let job = text.job(&[c]);
        Layout::of(&job, &fusion::longest(&job, &testing::limits(), 0))
    }

    #[test]
    fn axes_that_are_treated_alike_are_one() {
        for (a, b, axes, index_a, index_b) in [
            (&[2, 3, 4][..], &[2, 3, 4][..], 1, "i", "i"),
            (&[2, 3, 4], &[], 1, "i", "0u"),
            (&[2, 3, 4], &[4], 2, "i", "c1"),
            (&[2, 3, 4], &[3, 4], 2, "i", "c1"),
            (&[2, 3, 4], &[2, 1, 1], 2, "i", "c0"),
            (&[2, 3, 4], &[2, 1, 4], 3, "i", "(c0) * push.d2 + c2"),
            (&[3, 1], &[1, 4], 2, "c0", "c1"),
            (&[1, 1], &[1], 0, "0u", "0u"),
            (&[5, 1, 1, 6], &[7, 8, 1], 3, "(c0) * push.d2 + c2", "c1"),
        ] {
            let layout = layout(a, b);
            assert_eq!(layout.axes.len(), axes, "{a:?} {b:?}");
            assert_eq!(layout.index(0), index_a, "{a:?} {b:?}");
            assert_eq!(layout.index(1), index_b, "{a:?} {b:?}");
        }
    }
}
