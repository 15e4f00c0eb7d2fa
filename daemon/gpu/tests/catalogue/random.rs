//! Random numbers.

use crate::REALS;
use crate::Work;
use crate::common::engine;
use zed_spec::job::DType;
use zed_spec::job::Op;
use zed_spec::job::Random;

fn draw(random: Random, dtype: DType, count: u32, seed: u64, offset: u32) -> Work {
    Work::new(Op::Random { random, seed, offset }, &[], &[(dtype, &[count])])
}

/// All that can be drawn.
const KINDS: [(Random, DType); 5] = [
    (Random::Bits, DType::U32),
    (Random::Uniform, DType::F32),
    (Random::Uniform, DType::F64),
    (Random::Normal, DType::F32),
    (Random::Normal, DType::F64),
];

#[test]
fn bits_are_the_known_answers_of_random123() {
    let mut engine = engine("bits_are_the_known_answers");
    // Counter words, key, result: of Random123's kat_vectors and of its program.
    let cases: [([u32; 2], u32, [u32; 2]); 6] = [
        ([0, 0], 0, [0xff1d_ae59, 0x6cd1_0df2]),
        ([0xffff_ffff, 0xffff_ffff], 0xffff_ffff, [0x2c3f_628b, 0xab4f_d7ad]),
        ([0x243f_6a88, 0x85a3_08d3], 0x1319_8a2e, [0xdd7c_e038, 0xf62a_4c12]),
        ([0, 0], 42, [0x2531_bef0, 0xfc3b_c596]),
        ([1, 0], 42, [0x4e10_2387, 0x72d0_12be]),
        ([9, 0], 42, [0x3a58_8ea4, 0x3de6_06ff]),
    ];
    for ([low, high], key, expected) in cases {
        let work = draw(Random::Bits, DType::U32, 2, u64::from(high) << 32 | u64::from(key), low);
        let expected = expected.map(f64::from);
        assert_eq!(work.on_cpu(), [expected]);
        if let Some(engine) = &mut engine {
            assert_eq!(work.on(engine), [expected]);
        }
    }
}

#[test]
fn bits_and_uniforms_are_the_same_on_the_device_and_on_the_cpu() {
    let Some(mut engine) = engine("bits_and_uniforms") else { return };
    for (random, dtype) in KINDS.into_iter().filter(|(random, _)| *random != Random::Normal) {
        for count in [1, 2, 3, 255, 512, 513, 100_001] {
            for (seed, offset) in [(0, 0), (42, 7), (u64::MAX, u32::MAX - 5), (0x0123_4567_89ab_cdef, 1)] {
                let work = draw(random, dtype, count, seed, offset);
                assert!(
                    work.on(&mut engine) == work.on_cpu(),
                    "{random:?} {dtype:?} {count} {seed} {offset}"
                );
            }
        }
    }
}

#[test]
fn normals_are_the_same_up_to_their_error() {
    let Some(mut engine) = engine("normals_are_the_same") else { return };
    for dtype in REALS {
        let work = draw(Random::Normal, dtype, 100_001, 42, 0);
        let (device, cpu) = (work.on(&mut engine), work.on_cpu());
        let bound = if dtype == DType::F64 { 4e-15 } else { 2e-6 };
        let worst = device[0].iter().zip(&cpu[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= bound, "{dtype:?}: {worst:e}");
    }
}

#[test]
fn a_stream_goes_on_by_its_offset() {
    let mut engine = engine("a_stream_goes_on");
    for (random, dtype) in KINDS {
        let whole = draw(random, dtype, 1000, 5, 3);
        // 400 elements are 400 blocks of 64 bits, or 200 of two times 32.
        let blocks = if dtype == DType::F64 { 400 } else { 200 };
        let parts = [draw(random, dtype, 400, 5, 3), draw(random, dtype, 600, 5, 3 + blocks)];
        assert_eq!(whole.on_cpu()[0], parts.each_ref().map(|part| part.on_cpu().remove(0)).concat());
        if let Some(engine) = &mut engine {
            let joined = parts.each_ref().map(|part| part.on(engine).remove(0)).concat();
            assert_eq!(whole.on(engine)[0], joined);
        }
    }
}

/// Largest distance between the empirical distribution and `cdf`, times the root of the count.
fn kolmogorov_smirnov(mut values: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let distance = |(i, x): (usize, &f64)| {
        let at = cdf(*x);
        (at - i as f64 / n).abs().max(((i + 1) as f64 / n - at).abs())
    };
    values.iter().enumerate().map(distance).fold(0.0, f64::max) * n.sqrt()
}

/// Mean, variance, fourth central moment.
fn moments(values: &[f64]) -> [f64; 3] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let central = |power: i32| values.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
    [mean, central(2), central(4)]
}

/// By its integral: Simpson's rule over the density.
fn normal_cdf(x: f64) -> f64 {
    let steps = 200;
    let h = x / f64::from(steps);
    let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
    let weight = |i: i32| if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
    0.5 + (0..=steps).map(|i| weight(i) * density(f64::from(i) * h)).sum::<f64>() * h / 3.0
}

#[test]
fn what_is_drawn_has_its_distribution() {
    let count = 200_000;
    let n = f64::from(count);
    let mut engine = engine("what_is_drawn");
    for (random, dtype) in KINDS.into_iter().filter(|(random, _)| *random != Random::Bits) {
        let work = draw(random, dtype, count, 20_261_128, 0);
        let drawn = engine.as_mut().map(|engine| work.on(engine)).into_iter();
        for mut values in drawn.chain([work.on_cpu()]) {
            let values = values.remove(0);
            let [mean, variance, fourth] = moments(&values);
            let (mu, sigma2, mu4) = match random {
                Random::Uniform => (0.5, 1.0 / 12.0, 1.0 / 80.0),
                _ => (0.0, 1.0, 3.0),
            };
            // Five standard errors; that of the fourth moment from the eighth.
            let eighth = if random == Random::Uniform { 1.0 / 2304.0 } else { 105.0 };
            assert!((mean - mu).abs() <= 5.0 * (sigma2 / n).sqrt(), "{random:?} {dtype:?} {mean}");
            assert!((variance - sigma2).abs() <= 5.0 * ((mu4 - sigma2 * sigma2) / n).sqrt());
            assert!((fourth - mu4).abs() <= 5.0 * ((eighth - mu4 * mu4) / n).sqrt());
            // Neighbours are independent: both elements of a block, and those of different blocks.
            let pairs =
                |lag: usize| values.iter().zip(&values[lag..]).map(|(a, b)| (a - mu) * (b - mu)).sum::<f64>();
            for lag in [1, 2] {
                assert!(pairs(lag).abs() <= 5.0 * sigma2 * n.sqrt(), "{random:?} {dtype:?} lag {lag}");
            }
            // 1.95: one sample in a thousand would be farther.
            let statistic = match random {
                Random::Uniform => kolmogorov_smirnov(values.clone(), |x| x),
                _ => kolmogorov_smirnov(values.clone(), normal_cdf),
            };
            assert!(statistic < 1.95, "{random:?} {dtype:?} {statistic}");
            if random == Random::Uniform {
                assert!(values.iter().all(|x| (0.0..1.0).contains(x)));
            }
        }
    }
}
