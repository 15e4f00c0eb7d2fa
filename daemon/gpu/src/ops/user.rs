//! Shaders that came with a job.
//!
//! Checked against their buffers before anything is dispatched; the preludes are linked behind them, so that `exp_f64` and
//! the like can be called. The node binds each buffer with exactly its array's bytes.

use super::PlanError;
use super::builder::Builder;
use super::builder::Push;
use crate::device::Limits;
use crate::program::Author;
use crate::program::Buffer;
use crate::program::Kernel;
use crate::wgsl;
use std::sync::Arc;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Step;

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
    let kernel = kernel(source, bindings);
    let buffers = arrays.into_iter().map(Buffer::Array).collect();
    builder.dispatch_kernel(Arc::new(kernel), buffers, Push::new(), *groups);
    Ok(1)
}

fn kernel(source: &str, bindings: u32) -> Kernel {
    Kernel::new("wgsl", wgsl::link_source(source), Author::User, bindings, 0)
}

/// Parses the shader of a step and checks it against its arrays. Only a node does this: a source can make the compiler
/// take the process with it.
pub(super) fn check(job: &Job, at: usize, limits: &Limits) -> Result<(), PlanError> {
    let Some(Step { op: Op::Wgsl { source, inputs, .. }, results }) = job.steps.get(at) else {
        return Ok(());
    };
    let bytes: Vec<u64> = inputs.iter().chain(results).map(|id| job.array(*id).bytes()).collect();
    let kernel = kernel(source, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    wgsl::check_user(&kernel, inputs.len(), &bytes, limits)
        .map_err(|error| PlanError::Shader { step: at + 1, error })
}

#[cfg(test)]
mod tests {
    use crate::ops::program;
    use crate::ops::testing::Text;
    use crate::ops::testing::limits;
    use crate::ops::testing::validate;
    use zed_spec::job::DType;
    use zed_spec::job::Job;
    use zed_spec::job::Op;

    const SOURCE: &str = "
        struct S { a: atomic<u32>, v: vec2<f64>, m: array<array<i32, 3>, 2>, d: mat2x3<f32> }
        var<workgroup> one: S;
        var<workgroup> many: array<S, 4>;
        var<workgroup> flag: bool;
        @group(0) @binding(0) var<storage, read> a: array<f64>;
        @group(0) @binding(1) var<storage, read_write> b: array<f64, 8>;
        @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            var sum = 0.0lf;
            for (var i = 0u; i < arrayLength(&a); i++) { sum += tanh_f64(a[i]) / f64(many[i].m[1][i] % 3); }
            loop { if flag { break; } sum += one.v[id.x]; flag = sum > 7.0lf; }
            b[id.x] = sum + f64(atomicAdd(&one.a, 1u)) + f64(one.d[1][id.x]);
        }";

    fn job(groups: [u32; 3]) -> Job {
        let mut text = Text::default();
        let a = text.input(DType::F64, &[8]);
        let op = Op::Wgsl { source: SOURCE.to_owned(), inputs: vec![a], groups };
        let b = text.step_as(op, &[(DType::F64, &[8])]);
        text.job(&b)
    }

    #[test]
    fn a_shader_with_all_checks_and_zeroed_memory_is_valid_spirv() {
        let program = program(&job([1, 1, 1]), &limits()).expect("a program");
        validate("a_shader_with_all_checks_and_zeroed_memory_is_valid_spirv", &[program]);
    }

    #[test]
    fn what_a_device_cannot_bind_or_dispatch_is_refused() {
        let few = crate::device::Limits { bindings: 1, ..limits() };
        let error = program(&job([1, 1, 1]), &few).expect_err("two bindings");
        assert_eq!(error.to_string(), "step 1 (Wgsl) needs 2 bindings, which this device does not have");
        let error = program(&job([1, 70_000, 1]), &limits()).expect_err("many groups");
        assert_eq!(
            error.to_string(),
            "step 1 (Wgsl) needs [1, 70000, 1] workgroups, which this device does not have"
        );
    }
}
