//! Random numbers on the CPU: bits and uniforms are the device's, bit for bit.

use super::Cpu;
use super::Values;
use super::parallel;
use std::f64::consts::TAU;
use zed_spec::job::DType;
use zed_spec::job::Op;
use zed_spec::job::Random;
use zed_spec::job::Step;

/// 1 / 2^24.
const PER_24_BITS: f32 = 1.0 / 16_777_216.0;

/// 1 / 2^32.
const PER_WORD: f64 = 1.0 / 4_294_967_296.0;

/// 1 / 2^53.
const PER_53_BITS: f64 = 1.0 / 9_007_199_254_740_992.0;

/// Elements that one piece of work draws.
const PIECE: u32 = 1 << 12;

/// Philox 2x32-10 of one counter.
pub(super) fn philox(counter: [u32; 2], key: u32) -> [u32; 2] {
    let [mut low, mut high] = counter;
    let mut key = key;
    for _ in 0..10 {
        let product = u64::from(low) * 0xD256_D193;
        (low, high) = ((product >> 32) as u32 ^ key ^ high, product as u32);
        key = key.wrapping_add(0x9E37_79B9);
    }
    [low, high]
}

/// `Bits`, `Uniform`, `Normal`.
pub(super) fn run(cpu: &mut Cpu<'_>, step: &Step) {
    let (Op::Random { random, seed, offset }, [result]) = (&step.op, step.results.as_slice()) else { return };
    let array = cpu.job().array(*result);
    let (dtype, elements) = (array.dtype, array.elements());
    let words = |block: u32| philox([offset.wrapping_add(block), (seed >> 32) as u32], *seed as u32);
    let values = match (random, dtype) {
        (Random::Bits, _) | (_, DType::U32) => Values::U32(pairs_of(elements, words)),
        (Random::Uniform, DType::F32) => {
            let uniform = |block| words(block).map(|word| (word >> 8) as f32 * PER_24_BITS);
            Values::F32(pairs_of(elements, uniform))
        }
        (Random::Normal, DType::F32) => {
            let normal = |block| {
                let [radius, angle] = words(block);
                // The device's angle has 24 bits.
                polar(radius, f64::from(angle >> 8) * f64::from(PER_24_BITS)).map(|value| value as f32)
            };
            Values::F32(pairs_of(elements, normal))
        }
        (Random::Uniform, DType::F64) => Values::F64(draw(elements as u32, |block| {
            let [high, low] = words(block);
            (f64::from(high >> 5) * 67_108_864.0 + f64::from(low >> 6)) * PER_53_BITS
        })),
        (Random::Normal, DType::F64) => Values::F64(draw(elements as u32, |block| {
            let [radius, angle] = words(block);
            polar(radius, f64::from(angle) * PER_WORD)[0]
        })),
    };
    cpu.set(*result, values);
}

/// Two elements of each block.
fn pairs_of<T: Send + Copy>(elements: u64, f: impl Fn(u32) -> [T; 2] + Sync) -> Vec<T> {
    // Arrays have at most MAX_ELEMENTS.
    let mut values = draw(elements.div_ceil(2) as u32, f).into_flattened();
    values.truncate(elements as usize);
    values
}

/// What `f` makes of blocks 0, 1, ...
fn draw<T: Send>(blocks: u32, f: impl Fn(u32) -> T + Sync) -> Vec<T> {
    let pieces = blocks.div_ceil(PIECE) as usize;
    let piece = |index: usize| {
        let begin = index as u32 * PIECE;
        (begin..blocks.min(begin + PIECE)).map(&f).collect::<Vec<T>>()
    };
    parallel::collect(pieces, 64 * PIECE as usize, piece).into_iter().flatten().collect()
}

/// Box and Muller: two normal numbers of one random word and an angle in turns.
fn polar(word: u32, turns: f64) -> [f64; 2] {
    let u = (f64::from(word) + 0.5) * PER_WORD;
    let radius = (-2.0 * u.ln()).sqrt();
    let (sine, cosine) = (TAU * turns).sin_cos();
    [radius * cosine, radius * sine]
}
