//! Random numbers by counter: Philox 2x32-10 and what is made of its words.
//!
//! Bits and Uniform are the same bits on every device and on the CPU; Normal goes through functions that are rounded and is
//! the same up to its stated error.

use super::PlanError;
use super::builder::Builder;
use super::builder::Push;
use crate::program::Buffer;
use crate::wgsl;
use zed_spec::job::DType;
use zed_spec::job::Op;
use zed_spec::job::Random;

const PHILOX: &str = include_str!("../../../../shaders/philox.wgsl");
const WORDS: &str = include_str!("../../../../shaders/random_words.wgsl");
const BLOCKS: &str = include_str!("../../../../shaders/random_blocks.wgsl");

const BITS: &str = "fn draw(words: vec2<u32>) -> vec2<u32> { return words; }\n";

/// The 24 upper bits over 2^24.
const UNIFORM_F32: &str = "\
fn draw(words: vec2<u32>) -> vec2<f32> {
    return vec2<f32>(words >> vec2<u32>(8u)) * 5.9604644775390625e-8;
}
";

/// The 27 upper bits of the first word and the 26 upper bits of the second over 2^53.
const UNIFORM_F64: &str = "\
fn draw(words: vec2<u32>) -> f64 {
    return fma(f64(words.x >> 5u), 67108864.0lf, f64(words.y >> 6u)) * 1.1102230246251565e-16lf;
}
";

/// Box and Muller: the radius from the first word, u = (word + 1/2) over 2^32, the angle from the second. Near 1 a single
/// cannot hold u, so its logarithm is taken from 1 - u.
const NORMAL_F32: &str = "\
fn draw(words: vec2<u32>) -> vec2<f32> {
    let upper = words.x >= 0x80000000u;
    let u = fma(f32(select(words.x, ~words.x, upper)), 2.3283064365386963e-10, 1.1641532182693481e-10);
    let radius = sqrt(-2.0 * select(log_f32(u), log1p_f32(-u), upper));
    return radius * cos_sin_turns_f32(f32(words.y >> 8u) * 5.9604644775390625e-8);
}
";

const NORMAL_F64: &str = "\
fn draw(words: vec2<u32>) -> f64 {
    let u = fma(f64(words.x), 2.3283064365386963e-10lf, 1.1641532182693481e-10lf);
    return sqrt(-2.0lf * log_f64(u)) * cos_sin_turns_f64(f64(words.y) * 2.3283064365386963e-10lf).x;
}
";

/// `Bits`, `Uniform`, `Normal`. Returns how many steps it took.
pub(super) fn plan(builder: &mut Builder<'_>, at: usize) -> Result<usize, PlanError> {
    let step = &builder.job().steps[at];
    let (Op::Random { random, seed, offset }, [result]) = (&step.op, step.results.as_slice()) else {
        return Ok(0);
    };
    let array = builder.array(*result);
    let (dtype, elements) = (array.dtype, array.elements());
    let blocks = if dtype == DType::F64 { elements } else { elements.div_ceil(2) };
    let draw = match (random, dtype) {
        (Random::Bits, _) | (_, DType::U32) => BITS,
        (Random::Uniform, DType::F32) => UNIFORM_F32,
        (Random::Uniform, DType::F64) => UNIFORM_F64,
        (Random::Normal, DType::F32) => NORMAL_F32,
        (Random::Normal, DType::F64) => NORMAL_F64,
    };
    let frame = if dtype == DType::F64 { BLOCKS } else { WORDS };
    let source = wgsl::link(dtype, &[PHILOX, draw, frame].concat());
    let label = format!("{}-{}", random.name().to_lowercase(), dtype.name());
    let groups = builder.groups_for(blocks, at)?;
    let push = Push::new()
        // Arrays have at most MAX_ELEMENTS.
        .u32(u32::try_from(elements).unwrap_or(u32::MAX))
        .u32(*offset)
        .u32(*seed as u32)
        .u32((seed >> 32) as u32);
    builder.dispatch(&label, source, vec![Buffer::Array(*result)], push, groups);
    Ok(1)
}
