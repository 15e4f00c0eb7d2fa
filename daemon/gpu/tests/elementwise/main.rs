//! Element-wise operations on a device: against libm, edge by edge and with errors in ulp; fused against step by step;
//! broadcast against a naive model.

#![expect(clippy::unwrap_used, reason = "a test stops at what is wrong")]

#[path = "../common/mod.rs"]
mod common;

mod accuracy;
mod fused;
mod user;

use zed_gpu::node::Engine;
use zed_spec::job::Array;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Fallback;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Reply;
use zed_spec::job::Source;
use zed_spec::job::Step;

/// A job in the making: all inputs, then all steps.
#[derive(Debug, Default, Clone)]
pub(crate) struct Text {
    arrays: Vec<Array>,
    inputs: usize,
    steps: Vec<Step>,
}

impl Text {
    fn array(&mut self, dtype: DType, shape: &[u32]) -> ArrayId {
        let id = ArrayId(u32::try_from(self.arrays.len()).unwrap());
        self.arrays.push(Array { name: format!("a{}", id.0), dtype, shape: shape.to_vec() });
        id
    }

    pub(crate) fn input(&mut self, dtype: DType, shape: &[u32]) -> ArrayId {
        self.inputs += 1;
        self.array(dtype, shape)
    }

    /// A step with one result of this type and shape.
    pub(crate) fn step(&mut self, op: Op, dtype: DType, shape: &[u32]) -> ArrayId {
        let result = self.array(dtype, shape);
        self.steps.push(Step { op, results: vec![result] });
        result
    }

    pub(crate) fn job(self, outputs: &[ArrayId]) -> Job {
        Job {
            arrays: self.arrays,
            inputs: vec![Source::Raw; self.inputs],
            steps: self.steps,
            outputs: outputs.to_vec(),
            deadline: Job::DEFAULT_DEADLINE,
            priority: 0,
            fallback: Fallback::Forbid,
            reply: Reply::Id,
        }
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

pub(crate) fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F32 => bytes.as_chunks().0.iter().map(|four| f64::from(f32::from_le_bytes(*four))).collect(),
        DType::F64 => bytes.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight)).collect(),
        DType::U32 => bytes.as_chunks().0.iter().map(|four| f64::from(u32::from_le_bytes(*four))).collect(),
    }
}

/// The outputs of a job on the device.
pub(crate) fn on_device(engine: &mut Engine, job: &Job, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    engine.compute(job, &slices).unwrap()
}

/// Numbers that look random and are the same each time: a linear congruential generator's upper bits.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn bits(&mut self) -> u64 {
        let mut next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 32
        };
        next() << 32 | next()
    }

    /// At least 0, below 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.bits() % most as u64).unwrap()
    }
}
