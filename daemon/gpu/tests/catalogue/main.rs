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
use zed_spec::job::Family;
use zed_spec::job::Job;
use zed_spec::job::MatmulVariant;
use zed_spec::job::Op;
use zed_spec::job::Random;
use zed_spec::job::Reduction;
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

    /// By the kernels that the catalogue has for this device, and by those that it has for GPUs.
    pub(crate) fn both(&self, engine: &mut Engine) -> [Vec<Vec<f64>>; 2] {
        let program = self.program(&engine.info().limits).unwrap();
        [self.on(engine), self.by(engine, program)]
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

/// A device whose axes have few workgroups: a row of them is folded.
fn narrow(engine: &Engine) -> Limits {
    Limits { groups: [3, 65_535, 1], ..engine.info().limits.clone() }
}

#[test]
fn rows_of_workgroups_that_are_too_long_are_folded() {
    let Some(mut engine) = common::engine("rows_of_workgroups") else { return };
    let id = ArrayId;
    let (shape, chains) = ([50u32, 70], [50u32, 3, 70]);
    let dtype = DType::F64;
    let (a, b) = (noise(3500, 1), noise(3500, 2));
    let one = (dtype, &shape[..], &a[..]);
    let two = (dtype, &shape[..], &b[..]);
    let (q, p, inv_mass, eps) = (id(0), id(1), id(2), 0.1);
    let family = Family::Normal { mu: 0.5, sigma: 2.0 };
    let rows = (dtype, &chains[..]);
    let many = noise(10_000, 3);
    let reduce = |reduction| Op::Reduce(reduction, id(0), Some(1));
    let (sum, largest) = (reduce(Reduction::Sum), reduce(Reduction::ReduceMax));
    let works = [
        Work::new(sum, &[(dtype, &[1000, 10], &many)], &[(dtype, &[1000])]),
        Work::new(largest, &[(dtype, &[5, 2000], &many)], &[(dtype, &[5])]),
        Work::new(Op::Transpose(id(0)), &[one], &[(dtype, &[70, 50])]),
        Work::new(
            Op::Matmul(MatmulVariant::Naive, id(0), id(1)),
            &[one, (dtype, &[70, 50], &b)],
            &[(dtype, &[50, 50])],
        ),
        Work::new(
            Op::Matmul(MatmulVariant::Tiled16x2, id(0), id(1)),
            &[one, (dtype, &[70, 50], &b)],
            &[(dtype, &[50, 50])],
        ),
        Work::new(
            Op::Matmul(MatmulVariant::Tiled, id(0), id(1)),
            &[one, (dtype, &[70, 50], &b)],
            &[(dtype, &[50, 50])],
        ),
        Work::new(Op::Random { random: Random::Uniform, seed: 1, offset: 2 }, &[], &[(dtype, &shape)]),
        Work::new(Op::Random { random: Random::Bits, seed: 1, offset: 2 }, &[], &[(DType::U32, &shape)]),
        Work::new(Op::Leapfrog { family, q, p, inv_mass, eps }, &[one, two, one], &[(dtype, &shape[..]); 2]),
        Work::new(
            Op::Chain { family, q, p, inv_mass, eps, steps: 3 },
            &[one, two, one],
            &[rows, rows, rows, (dtype, &[50, 3])],
        ),
    ];
    for work in works {
        let program = work.program(&narrow(&engine)).unwrap();
        let op = work.job.steps[0].op.name();
        assert!(program.dispatches.iter().any(|dispatch| dispatch.groups[1] > 1), "{op}");
        assert_eq!(work.by(&mut engine, program), work.both(&mut engine)[1], "{op}");
    }
}
