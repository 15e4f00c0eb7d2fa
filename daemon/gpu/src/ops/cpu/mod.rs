//! The catalogue on the CPU: the reference that kernels are compared with, and what a job with `fallback: Allow` gets.
//!
//! Operations of F32 compute in double precision and round each step's result once, so they are at least as exact as the
//! device's. Knows no device; never called unless a job asks for it.

mod chain;
mod elementwise;
mod matmul;
mod parallel;
mod random;
mod reduce;

use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Step;

/// Why a job cannot be computed on the CPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// There is no version of it for the CPU.
    #[error("step {step} ({op}) cannot be computed on the CPU: only a device runs it")]
    Unsupported {
        /// Which step, from 1.
        step: usize,
        /// Its operation.
        op: &'static str,
    },
    /// An input has another length than its shape says.
    #[error("input {name} has {given} bytes, its shape needs {wants}")]
    Input {
        /// Its name.
        name: String,
        /// How many came.
        given: usize,
        /// How many it needs.
        wants: u64,
    },
}

/// The elements of an array.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    U32(Vec<u32>),
}

impl Values {
    /// Of little-endian bytes.
    fn from_bytes(dtype: DType, bytes: &[u8]) -> Self {
        fn of<const N: usize, T>(bytes: &[u8], make: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks().0.iter().copied().map(make).collect()
        }
        match dtype {
            DType::F32 => Values::F32(of(bytes, f32::from_le_bytes)),
            DType::F64 => Values::F64(of(bytes, f64::from_le_bytes)),
            DType::U32 => Values::U32(of(bytes, u32::from_le_bytes)),
        }
    }

    /// Little-endian bytes.
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Values::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::U32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    /// Each rounded to the type.
    pub(super) fn rounded(dtype: DType, values: impl Iterator<Item = f64>) -> Self {
        match dtype {
            DType::F32 => Values::F32(values.map(|value| value as f32).collect()),
            DType::F64 => Values::F64(values.collect()),
            DType::U32 => Values::U32(values.map(|value| value as u32).collect()),
        }
    }

    /// Element `index`, exactly.
    ///
    /// # Panics
    /// When there are not so many.
    pub(super) fn at(&self, index: usize) -> f64 {
        match self {
            Values::F32(values) => f64::from(values[index]),
            Values::F64(values) => values[index],
            Values::U32(values) => f64::from(values[index]),
        }
    }
}

/// A job on its way.
pub(super) struct Cpu<'a> {
    job: &'a Job,
    /// By array; what no step has given yet is empty.
    values: Vec<Values>,
}

impl<'a> Cpu<'a> {
    /// The job.
    pub(super) fn job(&self) -> &'a Job {
        self.job
    }

    /// An input, or what an earlier step has given.
    pub(super) fn get(&self, id: ArrayId) -> &Values {
        &self.values[id.0 as usize]
    }

    /// Gives a result.
    pub(super) fn set(&mut self, id: ArrayId, values: Values) {
        self.values[id.0 as usize] = values;
    }

    fn run(&mut self, at: usize, step: &Step) -> Result<(), CpuError> {
        match &step.op {
            Op::Unary(..) | Op::Binary(..) | Op::Cast(..) | Op::NormalLogPdf { .. } => {
                elementwise::run(self, step);
            }
            Op::Reduce(..) | Op::KineticEnergy { .. } => reduce::run(self, step),
            Op::Matmul(..) => matmul::run(self, step),
            Op::Transpose(_) => matmul::run_transpose(self, step),
            Op::Random { .. } => random::run(self, step),
            Op::Leapfrog { .. } => chain::run_leapfrog(self, step),
            Op::Chain { .. } => chain::run(self, step),
            Op::Wgsl { .. } => {
                return Err(CpuError::Unsupported { step: at + 1, op: step.op.name() });
            }
        }
        Ok(())
    }
}

/// The bytes of the outputs, in their order.
///
/// # Errors
/// A step that only devices run, an input of a wrong length.
pub fn on_cpu(job: &Job, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, CpuError> {
    let mut values = vec![Values::U32(Vec::new()); job.arrays.len()];
    for (index, (_, array, _)) in job.inputs().enumerate() {
        let bytes = inputs.get(index).copied().unwrap_or_default();
        if bytes.len() as u64 != array.bytes() {
            return Err(CpuError::Input {
                name: array.name.clone(),
                given: bytes.len(),
                wants: array.bytes(),
            });
        }
        values[index] = Values::from_bytes(array.dtype, bytes);
    }
    let mut cpu = Cpu { job, values };
    for (at, step) in job.steps.iter().enumerate() {
        cpu.run(at, step)?;
    }
    Ok(job.outputs.iter().map(|id| cpu.get(*id).to_bytes()).collect())
}
