//! Shaders that came with a job.
//!
//! Checked against their buffers before anything is dispatched; the preludes are linked behind them, so that `exp_f64` and
//! the like can be called. The node binds each buffer with exactly its array's bytes.

use super::PlanError;
use super::builder::Builder;
use super::builder::Push;
use crate::program::Author;
use crate::program::Buffer;
use crate::program::Kernel;
use crate::wgsl;
use std::sync::Arc;
use zed_spec::job::Op;

/// One dispatch: inputs, then outputs. Returns how many steps it took.
pub(super) fn plan(builder: &mut Builder<'_>, at: usize) -> Result<usize, PlanError> {
    let step = &builder.job().steps[at];
    let Op::Wgsl { source, inputs, groups } = &step.op else { return Ok(0) };
    let arrays: Vec<_> = inputs.iter().chain(&step.results).copied().collect();
    let bindings = u32::try_from(arrays.len()).unwrap_or(u32::MAX);
    if bindings > builder.limits().bindings {
        return Err(builder.lacks(at, format!("{bindings} bindings")));
    }
    if groups.iter().zip(builder.limits().groups).any(|(groups, max)| *groups > max) {
        return Err(builder.lacks(at, format!("{groups:?} workgroups")));
    }
    let kernel = Kernel::new("wgsl", wgsl::link_source(source), Author::User, bindings, 0);
    let bytes: Vec<u64> = arrays.iter().map(|id| builder.array(*id).bytes()).collect();
    wgsl::check_user(&kernel, inputs.len(), &bytes, builder.limits())
        .map_err(|error| PlanError::Shader { step: at + 1, error })?;
    let buffers = arrays.into_iter().map(Buffer::Array).collect();
    builder.dispatch_kernel(Arc::new(kernel), buffers, Push::new(), *groups);
    Ok(1)
}
