use super::*;
use crate::ops::program;
use crate::ops::testing::Text;
use crate::ops::testing::limits;
use crate::ops::testing::validate;

const REALS: [DType; 2] = [DType::F32, DType::F64];

/// One job for each operation and type.
fn one_of_each() -> Vec<Job> {
    let mut jobs = Vec::new();
    for dtype in REALS {
        let other = if dtype == DType::F32 { DType::F64 } else { DType::F32 };
        let with = |op: &dyn Fn(ArrayId, ArrayId) -> Op| {
            let mut text = Text::default();
            let (a, b) = (text.input(dtype, &[1000]), text.input(dtype, &[1000]));
            let c = text.step(op(a, b));
            text.job(&[c])
        };
        jobs.extend(Unary::ALL.iter().map(|unary| with(&|a, _| Op::Unary(*unary, a))));
        let array = Operand::Array;
        jobs.extend(Binary::ALL.iter().map(|binary| with(&|a, b| Op::Binary(*binary, array(a), array(b)))));
        jobs.push(with(&|a, _| Op::Binary(Binary::Sub, Operand::Number(2.0), array(a))));
        jobs.push(with(&|a, _| Op::Cast(other, a)));
        jobs.push(with(&|a, b| Op::NormalLogPdf { x: array(a), mu: array(b), sigma: Operand::Number(2.0) }));
    }
    jobs
}

#[test]
fn every_kernel_is_valid_spirv() {
    let programs: Vec<_> =
        one_of_each().iter().map(|job| program(job, &limits()).expect("a program")).collect();
    validate("every_kernel_is_valid_spirv", &programs);
}
