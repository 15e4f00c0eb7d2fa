//! Reductions.

use crate::LIMITS;
use crate::REALS;
use crate::Work;
use crate::common::engine;
use crate::noise;
use crate::rounded;
use crate::unit;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Op;
use zed_spec::job::Reduction;

fn reduce(kind: Reduction, dtype: DType, shape: &[u32], axis: Option<u8>, values: &[f64]) -> Work {
    let mut result = shape.to_vec();
    match axis {
        Some(axis) => drop(result.remove(usize::from(axis))),
        None => result.clear(),
    }
    Work::new(Op::Reduce(kind, ArrayId(0), axis), &[(dtype, shape, values)], &[(dtype, &result)])
}

fn kinetic(dtype: DType, p: &[f64], inv_mass: &[f64]) -> Work {
    let shape = [u32::try_from(p.len()).unwrap()];
    let op = Op::KineticEnergy { p: ArrayId(0), inv_mass: ArrayId(1) };
    Work::new(op, &[(dtype, &shape, p), (dtype, &shape, inv_mass)], &[(dtype, &[])])
}

/// Shapes that take each way through the passes: single values, short and long rows, columns, several passes.
const SHAPES: &[(&[u32], Option<u8>)] = &[
    (&[1], None),
    (&[2], None),
    (&[63], None),
    (&[64], None),
    (&[65], None),
    (&[255], None),
    (&[4097], None),
    (&[70_000], None),
    (&[3, 5, 7, 11], None),
    (&[3, 5, 7, 11], Some(0)),
    (&[3, 5, 7, 11], Some(1)),
    (&[3, 5, 7, 11], Some(2)),
    (&[3, 5, 7, 11], Some(3)),
    (&[5000, 3], Some(1)),
    (&[5000, 3], Some(0)),
    (&[3, 5000], Some(1)),
    (&[3, 5000], Some(0)),
    (&[2, 300, 2], Some(1)),
    (&[1, 100], Some(0)),
    (&[100, 1], Some(1)),
    (&[9, 9000], Some(1)),
];

/// What the documentation promises: roundings on the longest way of an element into a sum, per pass.
fn sum_bound(dtype: DType, elements: usize, magnitude: f64) -> f64 {
    let passes = (elements.max(2) as f64).log(64.0).ceil();
    18.0 * passes * unit(dtype) * magnitude
}

#[test]
fn every_reduction_over_every_axis_is_the_reference_s_within_its_bound() {
    let Some(mut engine) = engine("every_reduction") else { return };
    for dtype in REALS {
        for (shape, axis) in SHAPES {
            let count = shape.iter().product::<u32>() as usize;
            let values = rounded(dtype, &noise(count, 7));
            let length = axis.map_or(count, |axis| shape[usize::from(axis)] as usize);
            for kind in Reduction::ALL {
                let work = reduce(*kind, dtype, shape, *axis, &values);
                let cpu = work.on_cpu();
                let bound = match kind {
                    Reduction::Sum => sum_bound(dtype, length, length as f64),
                    Reduction::ReduceMin | Reduction::ReduceMax => 0.0,
                    // A relative error of the sum is an absolute one of its logarithm.
                    Reduction::LogSumExp => {
                        sum_bound(dtype, length, 1.0) + 16.0 * unit(dtype) * (length as f64).ln().max(1.0)
                    }
                };
                for device in work.both(&mut engine) {
                    assert_eq!(device[0].len(), cpu[0].len());
                    for (device, cpu) in device[0].iter().zip(&cpu[0]) {
                        assert!(
                            (device - cpu).abs() <= bound,
                            "{kind:?} {dtype:?} {shape:?} {axis:?}: {device} {cpu}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_reference_s_answers_are_known() {
    let values: Vec<f64> = (1..=12).map(f64::from).collect();
    for dtype in REALS {
        let of = |kind, axis| reduce(kind, dtype, &[2, 3, 2], axis, &values).on_cpu().remove(0);
        assert_eq!(of(Reduction::Sum, None), [78.0]);
        assert_eq!(of(Reduction::Sum, Some(0)), [8.0, 10.0, 12.0, 14.0, 16.0, 18.0]);
        assert_eq!(of(Reduction::Sum, Some(1)), [9.0, 12.0, 27.0, 30.0]);
        assert_eq!(of(Reduction::ReduceMax, Some(2)), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        assert_eq!(of(Reduction::ReduceMin, Some(1)), [1.0, 2.0, 7.0, 8.0]);
        let four_equal = reduce(Reduction::LogSumExp, dtype, &[4], None, &[1.0; 4]).on_cpu().remove(0);
        assert!((four_equal[0] - (1.0 + 4f64.ln())).abs() <= 4.0 * unit(dtype));
        assert_eq!(kinetic(dtype, &[1.0, -2.0, 3.0], &[2.0, 1.0, 0.5]).on_cpu(), [[5.25]]);
    }
}

#[test]
fn ten_million_elements_are_summed_exactly_where_the_sum_is_exact() {
    let Some(mut engine) = engine("ten_million_elements") else { return };
    let count = 10_000_000;
    // Small whole numbers that cancel: every partial sum is exact in both types.
    let values: Vec<f64> = (0..count).map(|i| f64::from(i % 7) - 3.0).collect();
    let expected: f64 = values.iter().sum();
    for dtype in REALS {
        let work = reduce(Reduction::Sum, dtype, &[count], None, &values);
        for sums in work.both(&mut engine) {
            assert_eq!(sums, [[expected]]);
        }
        assert_eq!(work.on_cpu(), [[expected]]);
    }
    let mut values = values;
    values[9_876_543] = 1e3;
    for axis in [None, Some(0)] {
        let work = reduce(Reduction::ReduceMax, DType::F32, &[count, 1], axis, &values);
        for largest in work.both(&mut engine) {
            assert_eq!(largest, [[1e3]]);
        }
    }
}

#[test]
fn a_sum_of_many_equal_numbers_does_not_drift() {
    // One after the other, ten million tenths are off by 9 % in single precision.
    let Some(mut engine) = engine("a_sum_does_not_drift") else { return };
    let count = 10_000_000;
    let tenths = vec![0.1; count as usize];
    let work = reduce(Reduction::Sum, DType::F32, &[count], None, &tenths);
    let exact = f64::from(0.1f32) * f64::from(count);
    for sum in work.both(&mut engine).into_iter().chain([work.on_cpu()]) {
        assert!((sum[0][0] / exact - 1.0).abs() <= 4.0 * unit(DType::F32), "{sum:?} {exact}");
    }
}

#[test]
fn no_number_wins_and_infinities_are_kept() {
    let mut engine = engine("no_number_wins");
    // A power of two: its sums are exact.
    let (inf, nan, huge) = (f64::INFINITY, f64::NAN, 2f64.powi(100));
    type Case<'a> = (&'a [f64], [f64; 4]);
    // Sum, smallest, largest, LogSumExp.
    let cases: &[Case<'_>] = &[
        (&[1.0, nan, 2.0], [nan, nan, nan, nan]),
        (&[nan, 1.0], [nan, nan, nan, nan]),
        (&[1.0, nan], [nan, nan, nan, nan]),
        (&[-inf, nan], [nan, nan, nan, nan]),
        (&[-inf, -inf, -inf], [-inf, -inf, -inf, -inf]),
        (&[-inf, 0.0], [-inf, -inf, 0.0, 0.0]),
        (&[inf, 1.0, inf], [inf, 1.0, inf, inf]),
        (&[inf, -inf], [nan, -inf, inf, inf]),
        (&[huge, -huge], [0.0, -huge, huge, huge]),
    ];
    for dtype in REALS {
        for (values, expected) in cases {
            // Short, and so long that there are several passes.
            for repeat in [1, 5000] {
                let many = values.repeat(repeat);
                let shape = [u32::try_from(many.len()).unwrap()];
                for (kind, expected) in Reduction::ALL.iter().zip(expected) {
                    if repeat > 1 && *kind == Reduction::LogSumExp && expected.is_finite() {
                        continue;
                    }
                    let work = reduce(*kind, dtype, &shape, None, &many);
                    let expected = rounded(dtype, &[*expected])[0];
                    let results = engine.as_mut().map(|engine| work.both(engine)).into_iter().flatten();
                    for result in results.chain([work.on_cpu()]) {
                        let same = result[0][0] == expected || result[0][0].is_nan() && expected.is_nan();
                        assert!(same, "{kind:?} {dtype:?} {values:?} x {repeat}: {result:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn log_sum_exp_does_not_overflow_or_vanish() {
    let mut engine = engine("log_sum_exp");
    for dtype in REALS {
        for offset in [-2000.0, -90.0, 0.0, 90.0, 2000.0] {
            let values: Vec<f64> = (0..1000).map(|i| offset + f64::from(i % 10) * 0.125).collect();
            let exact = offset + (0..10).map(|i| (f64::from(i) * 0.125).exp() * 100.0).sum::<f64>().ln();
            let work = reduce(Reduction::LogSumExp, dtype, &[1000], None, &values);
            let results = engine.as_mut().map(|engine| work.both(engine)).into_iter().flatten();
            for result in results.chain([work.on_cpu()]) {
                let bound = unit(dtype) * (2.0 * exact.abs() + 64.0);
                assert!((result[0][0] - exact).abs() <= bound, "{dtype:?} {offset}: {result:?} {exact}");
            }
        }
    }
}

#[test]
fn kinetic_energy_is_the_reference_s() {
    let Some(mut engine) = engine("kinetic_energy") else { return };
    for dtype in REALS {
        for count in [1, 64, 65, 1000, 70_000] {
            let p = rounded(dtype, &noise(count, 1));
            let inv_mass: Vec<f64> = rounded(dtype, &noise(count, 2)).iter().map(|m| m.abs()).collect();
            let work = kinetic(dtype, &p, &inv_mass);
            let cpu = work.on_cpu()[0][0];
            for device in work.both(&mut engine) {
                let bound = sum_bound(dtype, count, cpu) + 4.0 * unit(dtype) * cpu;
                assert!((device[0][0] - cpu).abs() <= bound, "{dtype:?} {count}");
            }
        }
    }
}

#[test]
fn the_largest_array_is_reduced_in_few_passes() {
    for (shape, axis, most) in [
        (vec![1 << 30], None, 3),
        (vec![1 << 15, 1 << 15], Some(0), 3),
        (vec![1 << 15, 1 << 15], Some(1), 2),
        (vec![1 << 29, 2], Some(0), 5),
        (vec![1 << 29, 2], Some(1), 1),
    ] {
        let work = reduce(Reduction::Sum, DType::F32, &shape, axis, &[]);
        let passes = work.program(&LIMITS).unwrap().dispatches.len();
        assert!(passes <= most, "{shape:?} {axis:?}: {passes}");
    }
}
