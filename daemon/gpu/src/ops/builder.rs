//! Makes a program step by step.
//!
//! Owns what all families share: buffers, push constants, the shape of a dispatch, one kernel for equal sources. Knows no
//! operation.

use super::PlanError;
use crate::device::DeviceKind;
use crate::device::Limits;
use crate::program::Author;
use crate::program::Buffer;
use crate::program::Dispatch;
use crate::program::Kernel;
use crate::program::Program;
use std::collections::BTreeMap;
use std::sync::Arc;
use zed_spec::job::Array;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Job;

/// Threads of a workgroup, where a kernel has no reason for another number.
pub(super) const GROUP: u32 = 256;

/// A program in the making.
pub(super) struct Builder<'a> {
    job: &'a Job,
    limits: &'a Limits,
    kind: DeviceKind,
    program: Program,
    kernels: BTreeMap<String, Arc<Kernel>>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(job: &'a Job, limits: &'a Limits, kind: DeviceKind) -> Self {
        Self { job, limits, kind, program: Program::default(), kernels: BTreeMap::new() }
    }

    /// The job.
    pub(super) fn job(&self) -> &'a Job {
        self.job
    }

    /// What the device can do.
    pub(super) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Its driver computes on the CPU: a barrier costs more than what it saves.
    pub(super) fn on_cpu_driver(&self) -> bool {
        self.kind == DeviceKind::Cpu
    }

    /// An array of the job.
    pub(super) fn array(&self, id: ArrayId) -> &'a Array {
        self.job.array(id)
    }

    /// A buffer of this program's own.
    pub(super) fn temporary(&mut self, bytes: u64) -> Buffer {
        let index = self.program.temporaries.len();
        self.program.temporaries.push(bytes);
        // A job has at most MAX_STEPS steps, each with a few of them.
        Buffer::Temporary(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// A kernel of the catalogue; equal sources give one.
    pub(super) fn kernel(
        &mut self,
        label: &str,
        source: String,
        bindings: usize,
        push: &Push,
    ) -> Arc<Kernel> {
        let bindings = u32::try_from(bindings).unwrap_or(u32::MAX);
        let bytes = u32::try_from(push.len()).unwrap_or(u32::MAX);
        let make = |source| Arc::new(Kernel::new(label, source, Author::Catalogue, bindings, bytes));
        self.kernels.entry(source).or_insert_with_key(|source| make(source.clone())).clone()
    }

    /// Links a source that names its types itself, makes its kernel and dispatches it.
    pub(super) fn dispatch(
        &mut self,
        label: &str,
        source: String,
        buffers: Vec<Buffer>,
        push: Push,
        groups: [u32; 3],
    ) {
        let kernel = self.kernel(label, source, buffers.len(), &push);
        self.dispatch_kernel(kernel, buffers, push, groups);
    }

    /// Dispatches a kernel after all that were dispatched before.
    pub(super) fn dispatch_kernel(
        &mut self,
        kernel: Arc<Kernel>,
        buffers: Vec<Buffer>,
        push: Push,
        groups: [u32; 3],
    ) {
        self.program.dispatches.push(Dispatch { kernel, buffers, push: push.finish(), groups });
    }

    /// Workgroups for so many of them in a row: folded into y where x has too few. The kernel computes its number as
    /// `group.y * groups.x + group.x` and must expect numbers above the last.
    pub(super) fn row_of_groups(&self, count: u64, step: usize) -> Result<[u32; 3], PlanError> {
        let [max_x, max_y, _] = self.limits.groups.map(u64::from);
        let y = count.div_ceil(max_x.max(1));
        let x = count.div_ceil(y.max(1));
        match (u32::try_from(x), u32::try_from(y)) {
            (Ok(x), Ok(y)) if u64::from(y) <= max_y => Ok([x, y, 1]),
            _ => Err(self.lacks(step, format!("{count} workgroups"))),
        }
    }

    /// Workgroups of [`GROUP`] threads for so many threads.
    pub(super) fn groups_for(&self, threads: u64, step: usize) -> Result<[u32; 3], PlanError> {
        self.row_of_groups(threads.div_ceil(u64::from(GROUP)), step)
    }

    /// The device lacks what a step (from 0) needs.
    pub(super) fn lacks(&self, step: usize, needs: String) -> PlanError {
        let op = self.job.steps.get(step).map_or("", |step| step.op.name());
        PlanError::Device { step: step + 1, op, needs }
    }

    pub(super) fn finish(self) -> Program {
        self.program
    }
}

/// Push constants, laid out as WGSL lays out a structure of the same members in the same order.
#[derive(Debug, Clone, Default)]
pub(super) struct Push {
    bytes: Vec<u8>,
    align: usize,
}

impl Push {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), align: 4 }
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.align = self.align.max(bytes.len());
        self.bytes.resize(self.bytes.len().next_multiple_of(bytes.len()), 0);
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A `u32`.
    pub(super) fn u32(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }

    /// A number of the array's type: an `f32`, an `f64`, or a `u32` that is cut off to a whole number.
    pub(super) fn number(self, dtype: DType, value: f64) -> Self {
        match dtype {
            DType::F32 => self.put(&(value as f32).to_le_bytes()),
            DType::F64 => self.put(&value.to_le_bytes()),
            DType::U32 => self.put(&(value as u32).to_le_bytes()),
        }
    }

    /// Bytes of the structure.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().next_multiple_of(self.align.max(1))
    }

    fn finish(self) -> Vec<u8> {
        let length = self.len();
        let mut bytes = self.bytes;
        bytes.resize(length, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_constants_have_the_layout_of_wgsl() {
        let push = Push::new().u32(7).number(DType::F64, 1.5).u32(9);
        assert_eq!(push.len(), 24);
        let bytes = push.finish();
        assert_eq!(bytes[..4], 7u32.to_le_bytes());
        assert_eq!(bytes[8..16], 1.5f64.to_le_bytes());
        assert_eq!(bytes[16..20], 9u32.to_le_bytes());
        assert_eq!(bytes.len(), 24);
        assert_eq!(Push::new().u32(1).number(DType::F32, 0.5).finish().len(), 8);
        assert!(Push::new().finish().is_empty());
    }
}
