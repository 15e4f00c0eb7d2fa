//! The catalogue: how each operation is computed, on a device and on the CPU.
//!
//! Owns kernels and their CPU references. Never touches a device, and never looks at data when it makes a program.

use crate::device::Limits;
use crate::program::Program;
use zed_spec::job::Job;

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
    /// This version has no kernel for it.
    #[error("step {step} ({op}) cannot be computed on a device by this version of zed")]
    Unsupported {
        /// Which step, from 1.
        step: usize,
        /// Its operation.
        op: &'static str,
    },
}

/// The kernels for a job on a device with such limits. The same job and limits give the same program.
///
/// # Errors
/// What the device cannot do.
pub fn program(job: &Job, _limits: &Limits) -> Result<Program, PlanError> {
    match job.steps.first() {
        Some(step) => Err(PlanError::Unsupported { step: 1, op: step.op.name() }),
        None => Ok(Program::default()),
    }
}
