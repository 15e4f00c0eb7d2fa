//! The catalogue: how each operation is computed, on a device and on the CPU.
//!
//! Owns kernels and their CPU references. Never touches a device, and never looks at data when it makes a program.
//! One file a family, and one beside it in `cpu/`.

mod builder;
mod chain;
mod cpu;
mod elementwise;
mod matmul;
mod random;
mod reduce;
mod user;

pub use cpu::CpuError;
pub use cpu::on_cpu;

use crate::device::DeviceKind;
use crate::device::Limits;
use crate::program::Program;
use crate::wgsl::CompileError;
use builder::Builder;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Operand;
use zed_spec::job::Step;

/// Why a job cannot be computed on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The device lacks something.
    #[error("step {step} ({op}) needs {needs}, which this device does not have")]
    Device {
        /// Which step, from 1.
        step: usize,
        /// Its operation.
        op: &'static str,
        /// What is missing: `double precision`.
        needs: String,
    },
    /// The shader of a `Wgsl` step is not to be dispatched.
    #[error("step {step} (Wgsl)")]
    Shader {
        /// Which step, from 1.
        step: usize,
        /// What is wrong.
        #[source]
        error: CompileError,
    },
}

/// Checks the shaders that came with a job. For a node only: parsing them may take the process with it.
///
/// # Errors
/// The first that is not to be dispatched, and why.
pub fn check_users(job: &Job, limits: &Limits) -> Result<(), PlanError> {
    (0..job.steps.len()).try_for_each(|at| user::check(job, at, limits))
}

/// The kernels for a job on a GPU with such limits, users' shaders unchecked. The same job and limits give the same program.
///
/// # Errors
/// What the device cannot do.
pub fn program(job: &Job, limits: &Limits) -> Result<Program, PlanError> {
    program_on(job, limits, DeviceKind::Discrete)
}

/// The kernels for a job on a device of that kind with such limits, users' shaders unchecked (see [`check_users`]). What is shared in a workgroup is worth its barriers on
/// GPUs only.
///
/// # Errors
/// What the device cannot do.
pub fn program_on(job: &Job, limits: &Limits, kind: DeviceKind) -> Result<Program, PlanError> {
    let mut builder = Builder::new(job, limits, kind);
    let double = |step: &Step| arrays_of(step).any(|id| job.array(id).dtype == DType::F64);
    if let Some(at) = job.steps.iter().position(double).filter(|_| !limits.f64) {
        return Err(builder.lacks(at, "double precision".to_owned()));
    }
    let mut at = 0;
    while let Some(step) = job.steps.get(at) {
        at += match &step.op {
            Op::Unary(..) | Op::Binary(..) | Op::Cast(..) | Op::NormalLogPdf { .. } => {
                elementwise::plan(&mut builder, at)?
            }
            Op::Reduce(..) | Op::KineticEnergy { .. } => reduce::plan(&mut builder, at)?,
            Op::Matmul(..) => matmul::plan(&mut builder, at)?,
            Op::Transpose(_) => matmul::plan_transpose(&mut builder, at)?,
            Op::Random { .. } => random::plan(&mut builder, at)?,
            Op::Leapfrog { .. } => chain::plan_leapfrog(&mut builder, at)?,
            Op::Chain { .. } => chain::plan(&mut builder, at)?,
            Op::Wgsl { .. } => user::plan(&mut builder, at)?,
        };
    }
    Ok(builder.finish())
}

/// All arrays that a step reads or gives.
fn arrays_of(step: &Step) -> impl Iterator<Item = ArrayId> {
    operands_of(&step.op).into_iter().chain(step.results.iter().copied())
}

/// The arrays that an operation reads.
fn operands_of(op: &Op) -> Vec<ArrayId> {
    let arrays = |operands: &[Operand]| {
        let array = |operand: &Operand| match operand {
            Operand::Array(id) => Some(*id),
            Operand::Number(_) => None,
        };
        operands.iter().filter_map(array).collect()
    };
    match op {
        Op::Unary(_, a) | Op::Cast(_, a) | Op::Reduce(_, a, _) | Op::Transpose(a) => vec![*a],
        Op::Binary(_, a, b) => arrays(&[*a, *b]),
        Op::KineticEnergy { p, inv_mass } => vec![*p, *inv_mass],
        Op::NormalLogPdf { x, mu, sigma } => arrays(&[*x, *mu, *sigma]),
        Op::Matmul(_, a, b) => vec![*a, *b],
        Op::Random { .. } => Vec::new(),
        Op::Leapfrog { q, p, inv_mass, .. } | Op::Chain { q, p, inv_mass, .. } => vec![*q, *p, *inv_mass],
        Op::Wgsl { inputs, .. } => inputs.clone(),
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
