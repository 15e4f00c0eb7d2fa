//! Products of matrices, and transposition.

use crate::LIMITS;
use crate::REALS;
use crate::Work;
use crate::common::engine;
use crate::noise;
use crate::rounded;
use crate::unit;
use zed_gpu::device::Limits;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::MatmulVariant;
use zed_spec::job::Op;

fn matmul(variant: MatmulVariant, dtype: DType, [m, n, k]: [u32; 3], a: &[f64], b: &[f64]) -> Work {
    let op = Op::Matmul(variant, ArrayId(0), ArrayId(1));
    Work::new(op, &[(dtype, &[m, k], a), (dtype, &[k, n], b)], &[(dtype, &[m, n])])
}

fn transpose(dtype: DType, m: u32, n: u32, values: &[f64]) -> Work {
    Work::new(Op::Transpose(ArrayId(0)), &[(dtype, &[m, n], values)], &[(dtype, &[n, m])])
}

/// m, n, k: ones, primes, multiples of tiles and their neighbours, long inner axes.
const SIZES: &[[u32; 3]] = &[
    [1, 1, 1],
    [1, 1, 3],
    [1, 7, 5],
    [7, 1, 5],
    [1, 1, 5000],
    [1, 300, 700],
    [300, 1, 700],
    [2, 3, 4],
    [15, 17, 16],
    [16, 16, 16],
    [17, 15, 33],
    [31, 33, 32],
    [32, 32, 32],
    [33, 31, 65],
    [100, 50, 70],
    [5, 6, 3000],
    [129, 130, 131],
];

#[test]
fn every_variant_gives_the_reference_s_product_within_its_bound() {
    let Some(mut engine) = engine("every_variant") else { return };
    for dtype in REALS {
        for size in SIZES {
            let [m, n, k] = size.map(|length| length as usize);
            let (a, b) = (rounded(dtype, &noise(m * k, 3)), rounded(dtype, &noise(k * n, 4)));
            for variant in MatmulVariant::ALL {
                let work = matmul(*variant, dtype, *size, &a, &b);
                let (devices, cpu) = (work.both(&mut engine), work.on_cpu());
                for device in devices {
                    assert_eq!(device[0].len(), m * n);
                    for (index, (device, cpu)) in device[0].iter().zip(&cpu[0]).enumerate() {
                        let (row, column) = (index / n, index % n);
                        let magnitude: f64 = (0..k).map(|i| (a[row * k + i] * b[i * n + column]).abs()).sum();
                        let bound = (36.0 + k as f64 / 4.0) * unit(dtype) * magnitude;
                        assert!(
                            (device - cpu).abs() <= bound,
                            "{variant:?} {dtype:?} {size:?}: {device} {cpu}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_reference_s_answers_are_known() {
    for dtype in REALS {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0, 9.0, 10.0, 11.0, 12.0]);
        let work = matmul(MatmulVariant::Auto, dtype, [2, 2, 3], &a, &b);
        assert_eq!(work.on_cpu(), [[58.0, 64.0, 139.0, 154.0]]);
        assert_eq!(transpose(dtype, 2, 3, &a).on_cpu(), [[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]]);
    }
}

#[test]
fn a_long_inner_axis_is_summed_to_its_end() {
    let Some(mut engine) = engine("a_long_inner_axis") else { return };
    // Beyond the 65,535 iterations after which some drivers stop, and beyond one split.
    for k in [70_000u32, 300_001] {
        let a: Vec<f64> = (0..2 * k).map(|i| f64::from(i % 5) - 2.0).collect();
        let b: Vec<f64> = (0..3 * k).map(|i| f64::from(i % 3) - 1.0).collect();
        for dtype in REALS {
            for variant in MatmulVariant::ALL {
                let work = matmul(*variant, dtype, [2, 3, k], &a, &b);
                assert_eq!(work.on(&mut engine), work.on_cpu(), "{variant:?} {dtype:?} {k}");
            }
        }
    }
}

#[test]
fn a_device_with_small_workgroups_is_told_what_tiled32_needs() {
    let small = Limits { workgroup_threads: 512, ..LIMITS };
    let work = |variant| matmul(variant, DType::F32, [64, 64, 64], &[], &[]);
    let error = work(MatmulVariant::Tiled32).program(&small).unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 1 (Matmul) needs workgroups of 1024 threads, which this device does not have"
    );
    for variant in MatmulVariant::ALL.iter().filter(|variant| **variant != MatmulVariant::Tiled32) {
        assert!(work(*variant).program(&small).is_ok(), "{variant:?}");
    }
    let no_doubles = Limits { f64: false, ..LIMITS };
    let error = matmul(MatmulVariant::Auto, DType::F64, [2, 2, 2], &[], &[]).program(&no_doubles);
    assert_eq!(
        error.unwrap_err().to_string(),
        "step 1 (Matmul) needs double precision, which this device does not have"
    );
}

#[test]
fn transposition_moves_every_element() {
    let Some(mut engine) = engine("transposition") else { return };
    for dtype in REALS {
        for (m, n) in [(1, 1), (1, 100), (100, 1), (15, 17), (16, 16), (17, 33), (3, 70_000), (70_000, 3)] {
            let values: Vec<f64> = (0..m * n).map(f64::from).collect();
            let work = transpose(dtype, m, n, &values);
            assert!(work.on(&mut engine) == work.on_cpu(), "{dtype:?} {m} {n}");
        }
    }
}
