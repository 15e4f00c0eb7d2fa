use super::*;
use crate::device::Limits;
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

/// Two types, numbers of both, three ways to broadcast.
fn mixed() -> Job {
    let mut text = Text::default();
    let a = text.input(DType::F32, &[2, 3, 4]);
    let b = text.input(DType::F64, &[3, 1]);
    let c = text.input(DType::F32, &[2, 1, 4]);
    let array = Operand::Array;
    let d = text.step(Op::Binary(Binary::Mul, array(a), array(c)));
    let e = text.step(Op::Binary(Binary::Add, array(d), Operand::Number(1.5)));
    let f = text.step(Op::Cast(DType::F64, e));
    let g = text.step(Op::Binary(Binary::Pow, array(f), Operand::Number(2.5)));
    let h = text.step(Op::NormalLogPdf { x: array(g), mu: array(b), sigma: Operand::Number(3.0) });
    text.job(&[d, h])
}

#[test]
fn a_fused_kernel_of_both_types_with_broadcasts_is_valid_spirv() {
    let program = program(&mixed(), &limits()).expect("a program");
    let [dispatch] = program.dispatches.as_slice() else { panic!("{program:?}") };
    assert_eq!(dispatch.kernel.bindings, 5, "three inputs, two outputs");
    // n, the lengths of two axes, the single, the doubles.
    let numbers =
        [24u32.to_le_bytes(), 3u32.to_le_bytes(), 4u32.to_le_bytes(), 1.5f32.to_le_bytes()].concat();
    assert_eq!(dispatch.push, [numbers, [2.5f64.to_le_bytes(), 3f64.to_le_bytes()].concat()].concat());
    validate("a_fused_kernel_of_both_types_with_broadcasts_is_valid_spirv", &[program]);
}

/// A sum of one array after the other.
fn sums(inputs: usize) -> Job {
    let mut text = Text::default();
    let all: Vec<ArrayId> = (0..inputs).map(|_| text.input(DType::F32, &[10])).collect();
    let mut sum = all[0];
    for next in &all[1..] {
        sum = text.step(Op::Binary(Binary::Add, Operand::Array(sum), Operand::Array(*next)));
    }
    text.job(&[sum])
}

#[test]
fn a_run_ends_where_the_device_can_bind_or_push_no_more() {
    let dispatches = |job: &Job, limits: &Limits| program(job, limits).expect("a program").dispatches;
    assert_eq!(dispatches(&sums(12), &limits()).len(), 1);
    let four = Limits { bindings: 4, ..limits() };
    for dispatch in dispatches(&sums(12), &four) {
        assert!(dispatch.buffers.len() <= 4);
    }
    assert_eq!(dispatches(&sums(12), &four).len(), 6, "two sums each, one for the last");
    let mut text = Text::default();
    let mut last = text.input(DType::F64, &[10]);
    for _ in 0..100 {
        last = text.step(Op::Binary(Binary::Add, Operand::Array(last), Operand::Number(1.0)));
    }
    let numbers = dispatches(&text.job(&[last]), &limits());
    assert!(numbers.iter().all(|dispatch| dispatch.push.len() <= 128));
    assert_eq!(numbers.len(), 7, "the count and 15 doubles each");
}

#[test]
fn a_long_run_becomes_several_kernels() {
    let mut text = Text::default();
    let mut last = text.input(DType::F32, &[10]);
    for _ in 0..100 {
        last = text.step(Op::Unary(Unary::Neg, last));
    }
    let program = program(&text.job(&[last]), &limits()).expect("a program");
    assert_eq!(program.dispatches.len(), 4);
}

#[test]
fn doubles_need_a_device_that_has_them() {
    let error = program(&mixed(), &Limits { f64: false, ..limits() }).expect_err("no doubles");
    assert_eq!(error.to_string(), "step 3 (Cast) needs double precision, which this device does not have");
}

#[test]
fn no_thread_loops_for_long_and_workgroups_are_folded() {
    for (elements, groups) in
        [(1, 1), (256, 1), (257, 2), (1 << 18, 1024), (1 << 20, 1024), (1 << 30, 1 << 18)]
    {
        assert_eq!(groups_of(elements), groups, "{elements}");
        assert!(elements.div_ceil(groups * u64::from(GROUP)) <= ELEMENTS_PER_THREAD);
    }
    let job = sums(2);
    let few = Limits { groups: [100, 100, 1], ..limits() };
    let builder = Builder::new(&job, &few, crate::device::DeviceKind::Discrete);
    assert_eq!(builder.row_of_groups(1, 0), Ok([1, 1, 1]));
    assert_eq!(builder.row_of_groups(101, 0), Ok([51, 2, 1]));
    assert_eq!(builder.row_of_groups(10_000, 0), Ok([100, 100, 1]));
    assert!(builder.row_of_groups(10_001, 0).is_err());
}
