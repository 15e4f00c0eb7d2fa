//! Reductions, products, random numbers and chains: the CPU's versions against known answers, the device's against the CPU's.

#![expect(clippy::unwrap_used, reason = "a test stops at what is wrong")]

#[path = "../common/mod.rs"]
mod common;

mod chain;
mod matmul;
mod random;
mod reduce;

use zed_gpu::device::Limits;
use zed_gpu::node::Engine;
use zed_gpu::ops;
use zed_gpu::ops::PlanError;
use zed_gpu::program::Program;
use zed_spec::job::Array;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Fallback;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Reply;
use zed_spec::job::Source;
use zed_spec::job::Step;

/// Both types that the catalogue computes with.
pub(crate) const REALS: [DType; 2] = [DType::F32, DType::F64];

/// What every Vulkan device has, and double precision.
pub(crate) const LIMITS: Limits = Limits {
    push_bytes: 128,
    workgroup_threads: 1024,
    groups: [65_535; 3],
    shared_bytes: 32_768,
    buffer_bytes: 1 << 32,
    bindings: 16,
    f64: true,
};

/// One operation with its data.
pub(crate) struct Work {
    pub(crate) job: Job,
    inputs: Vec<Vec<u8>>,
}

impl Work {
    /// Inputs are the first arrays, results follow.
    pub(crate) fn new(op: Op, inputs: &[(DType, &[u32], &[f64])], results: &[(DType, &[u32])]) -> Self {
        let named = |(index, (dtype, shape)): (usize, (DType, &[u32]))| Array {
            name: format!("x{index}"),
            dtype,
            shape: shape.to_vec(),
        };
        let given = inputs.iter().map(|(dtype, shape, _)| (*dtype, *shape));
        let arrays: Vec<Array> = given.chain(results.iter().copied()).enumerate().map(named).collect();
        let outputs: Vec<ArrayId> =
            (inputs.len()..arrays.len()).map(|index| ArrayId(u32::try_from(index).unwrap())).collect();
        let job = Job {
            arrays,
            inputs: vec![Source::Raw; inputs.len()],
            steps: vec![Step { op, results: outputs.clone() }],
            outputs,
            deadline: Job::DEFAULT_DEADLINE,
            priority: 0,
            fallback: Fallback::Forbid,
            reply: Reply::Id,
        };
        Self { job, inputs: inputs.iter().map(|(dtype, _, values)| encode(*dtype, values)).collect() }
    }

    fn slices(&self) -> Vec<&[u8]> {
        self.inputs.iter().map(Vec::as_slice).collect()
    }

    fn decoded(&self, outputs: &[Vec<u8>]) -> Vec<Vec<f64>> {
        self.job.outputs().zip(outputs).map(|((_, array), bytes)| decode(array.dtype, bytes)).collect()
    }

    /// By the reference.
    pub(crate) fn on_cpu(&self) -> Vec<Vec<f64>> {
        self.decoded(&ops::on_cpu(&self.job, &self.slices()).unwrap())
    }

    /// By the catalogue's kernels.
    pub(crate) fn on(&self, engine: &mut Engine) -> Vec<Vec<f64>> {
        self.decoded(&engine.compute(&self.job, &self.slices()).unwrap())
    }

    /// By another program.
    pub(crate) fn by(&self, engine: &mut Engine, program: Program) -> Vec<Vec<f64>> {
        self.decoded(&engine.compute_by(&self.job, program, &self.slices()).unwrap())
    }

    pub(crate) fn program(&self, limits: &Limits) -> Result<Program, PlanError> {
        ops::program(&self.job, limits)
    }
}

/// Rounded to the type, little-endian.
pub(crate) fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect(),
        DType::F64 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::U32 => values.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect(),
    }
}

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F32 => bytes.as_chunks().0.iter().map(|four| f64::from(f32::from_le_bytes(*four))).collect(),
        DType::F64 => bytes.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight)).collect(),
        DType::U32 => bytes.as_chunks().0.iter().map(|four| f64::from(u32::from_le_bytes(*four))).collect(),
    }
}

/// Half of the distance from 1 to the next number of the type.
pub(crate) fn unit(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::EPSILON / 2.0 } else { f64::from(f32::EPSILON) / 2.0 }
}

/// As the type holds it.
pub(crate) fn rounded(dtype: DType, values: &[f64]) -> Vec<f64> {
    decode(dtype, &encode(dtype, values))
}

/// Numbers between -1 and 1 without a pattern.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
