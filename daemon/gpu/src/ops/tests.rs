use super::program;
use super::testing::Text;
use super::testing::limits;
use super::testing::validate;
use crate::program::Program;
use zed_spec::job::DType;
use zed_spec::job::Family;
use zed_spec::job::MatmulVariant;
use zed_spec::job::Op;
use zed_spec::job::Random;
use zed_spec::job::Reduction;

const REALS: [DType; 2] = [DType::F32, DType::F64];

/// A job of one step.
fn one(inputs: &[(DType, &[u32])], op: Op, results: &[(DType, &[u32])]) -> Program {
    let mut text = Text::default();
    for (dtype, shape) in inputs {
        text.input(*dtype, shape);
    }
    let results = text.step_as(op, results);
    program(&text.job(&results), &limits()).expect("a program")
}

fn id(index: u32) -> zed_spec::job::ArrayId {
    zed_spec::job::ArrayId(index)
}

#[test]
fn kernels_of_reductions_are_valid_spirv() {
    let mut programs = Vec::new();
    // One pass and several, of threads and of workgroups.
    for (shape, axis, result) in [
        (&[3u32, 5][..], Some(1), &[3u32][..]),
        (&[3, 500], Some(1), &[3]),
        (&[3, 500], Some(0), &[500]),
        (&[500, 3], Some(0), &[3]),
        (&[3, 5000], Some(1), &[3]),
        (&[3, 50_000], Some(1), &[3]),
    ] {
        for dtype in REALS {
            for reduction in Reduction::ALL {
                let op = Op::Reduce(*reduction, id(0), axis);
                programs.push(one(&[(dtype, shape)], op, &[(dtype, result)]));
            }
            let op = Op::KineticEnergy { p: id(0), inv_mass: id(1) };
            programs.push(one(&[(dtype, shape), (dtype, shape)], op, &[(dtype, &[])]));
        }
    }
    validate("kernels_of_reductions_are_valid_spirv", &programs);
}

#[test]
fn kernels_of_products_and_transpositions_are_valid_spirv() {
    let mut programs = Vec::new();
    for dtype in REALS {
        for variant in MatmulVariant::ALL {
            for [m, n, k] in [[1, 7, 5], [7, 1, 500], [5, 6, 7], [5, 6, 7000], [300, 300, 300]] {
                let op = Op::Matmul(*variant, id(0), id(1));
                programs.push(one(&[(dtype, &[m, k]), (dtype, &[k, n])], op, &[(dtype, &[m, n])]));
            }
        }
        programs.push(one(&[(dtype, &[5, 7])], Op::Transpose(id(0)), &[(dtype, &[7, 5])]));
    }
    validate("kernels_of_products_and_transpositions_are_valid_spirv", &programs);
}

#[test]
fn kernels_of_random_numbers_are_valid_spirv() {
    let mut programs = Vec::new();
    for (random, dtypes) in
        [(Random::Bits, &[DType::U32][..]), (Random::Uniform, &REALS), (Random::Normal, &REALS)]
    {
        for dtype in dtypes {
            programs.push(one(&[], Op::Random { random, seed: 1, offset: 2 }, &[(*dtype, &[9])]));
        }
    }
    validate("kernels_of_random_numbers_are_valid_spirv", &programs);
}

#[test]
fn kernels_of_chains_are_valid_spirv() {
    let mut programs = Vec::new();
    for family in [
        Family::Normal { mu: 0.0, sigma: 1.0 },
        Family::Exponential { lambda: 2.0 },
        Family::StudentT { nu: 3.0, mu: 0.0, sigma: 1.0 },
        Family::Cauchy { loc: 0.0, scale: 1.0 },
        Family::HalfNormal { sigma: 1.0 },
        Family::Weibull { k: 2.0, lambda: 1.0 },
    ] {
        for dtype in REALS {
            let (q, p, inv_mass, eps) = (id(0), id(1), id(2), 0.1);
            for d in [1, 40, 100, 200, 2000] {
                let (shape, rows) = ([d], [3, d]);
                let op = Op::Chain { family, q, p, inv_mass, eps, steps: 3 };
                let row = (dtype, &rows[..]);
                programs.push(one(&[(dtype, &shape[..]); 3], op, &[row, row, row, (dtype, &[3])]));
            }
            let op = Op::Leapfrog { family, q, p, inv_mass, eps };
            programs.push(one(&[(dtype, &[10][..]); 3], op, &[(dtype, &[10][..]); 2]));
        }
    }
    validate("kernels_of_chains_are_valid_spirv", &programs);
}
