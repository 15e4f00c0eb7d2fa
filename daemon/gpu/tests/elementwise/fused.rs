//! Programs of many steps: fused they give the bits that their steps give one by one; broadcasts give what a naive model
//! gives.

use crate::Numbers;
use crate::Text;
use crate::common::engine;
use crate::decode;
use crate::encode;
use crate::on_device;
use zed_gpu::node::Engine;
use zed_gpu::ops;
use zed_spec::job::Array;
use zed_spec::job::ArrayId;
use zed_spec::job::Binary;
use zed_spec::job::DType;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Operand;
use zed_spec::job::Step;
use zed_spec::job::Unary;

const REALS: [DType; 2] = [DType::F32, DType::F64];

/// A shape of up to four axes, some of them 1.
fn shape(numbers: &mut Numbers) -> Vec<u32> {
    (0..numbers.below(5)).map(|_| [1, 2, 3, 5, 17][numbers.below(5)]).collect()
}

/// A shape that broadcasts to another: some axes 1, some of the first ones missing.
fn narrower(numbers: &mut Numbers, shape: &[u32]) -> Vec<u32> {
    let from = numbers.below(shape.len() + 1) * usize::from(numbers.below(3) == 0);
    shape[from..].iter().map(|length| if numbers.below(3) == 0 { 1 } else { *length }).collect()
}

fn data(numbers: &mut Numbers, array: &Array) -> Vec<u8> {
    let value = |numbers: &mut Numbers| match numbers.below(8) {
        0 => 0.0,
        1 => -0.0,
        2 => f64::NAN,
        3 => f64::INFINITY,
        4 => numbers.uniform() * 1e-20,
        _ => numbers.uniform() * 20.0 - 10.0,
    };
    let values: Vec<f64> = (0..array.elements()).map(|_| value(numbers)).collect();
    encode(array.dtype, &values)
}

/// Inputs of two types and many shapes, then steps that read any of what was there before and has their type.
fn program(numbers: &mut Numbers) -> Job {
    let whole = shape(numbers);
    let mut text = Text::default();
    let mut made: Vec<(ArrayId, DType, Vec<u32>)> = Vec::new();
    for index in 0..2 + numbers.below(5) {
        let dtype = REALS[index % 2];
        let shape = if index < 2 { whole.clone() } else { narrower(numbers, &whole) };
        made.push((text.input(dtype, &shape), dtype, shape));
    }
    for _ in 0..1 + numbers.below(40) {
        let dtype = REALS[numbers.below(2)];
        let mut pick = |dtype: DType| {
            let fitting: Vec<_> = made.iter().filter(|(_, other, _)| *other == dtype).collect();
            // Mostly the latest, so that chains come about.
            let back = numbers.below(fitting.len()).min(numbers.below(fitting.len()));
            let (id, _, shape) = fitting[fitting.len() - 1 - back];
            (Operand::Array(*id), *id, shape.clone())
        };
        let (a, b, c) = (pick(dtype), pick(dtype), pick(dtype));
        let other = if dtype == DType::F32 { DType::F64 } else { DType::F32 };
        let number = Operand::Number(numbers.uniform() * 4.0 - 2.0);
        let (op, dtype, shapes) = match numbers.below(7) {
            0 | 1 => (Op::Unary(Unary::ALL[numbers.below(Unary::ALL.len())], a.1), dtype, vec![&a.2]),
            2 => (Op::Binary(Binary::ALL[numbers.below(Binary::ALL.len())], a.0, number), dtype, vec![&a.2]),
            3 => (Op::Binary(Binary::ALL[numbers.below(Binary::ALL.len())], number, a.0), dtype, vec![&a.2]),
            4 => (Op::Cast(other, a.1), other, vec![&a.2]),
            5 => (Op::NormalLogPdf { x: a.0, mu: b.0, sigma: c.0 }, dtype, vec![&a.2, &b.2, &c.2]),
            _ => {
                // Mesa's driver for the CPU knows that x < x is 0, and takes a quotient by a constant 0 for undefined.
                let (b, shape) = if a.1 == b.1 { (number, &a.2) } else { (b.0, &b.2) };
                (Op::Binary(Binary::ALL[numbers.below(Binary::ALL.len())], a.0, b), dtype, vec![&a.2, shape])
            }
        };
        let result = broadcast(&shapes);
        made.push((text.step(op, dtype, &result), dtype, result));
    }
    // The last one, and some on the way.
    let last = made[made.len() - 1].0;
    let mut outputs: Vec<ArrayId> =
        made.iter().map(|(id, ..)| *id).filter(|_| numbers.below(6) == 0).collect();
    if !outputs.contains(&last) {
        outputs.push(last);
    }
    text.job(&outputs)
}

/// The shape of a result by NumPy's rule.
fn broadcast(shapes: &[&Vec<u32>]) -> Vec<u32> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap();
    let length = |from_last: usize| {
        let lengths = shapes.iter().filter_map(|shape| shape.iter().rev().nth(from_last));
        lengths.copied().max().unwrap_or(1)
    };
    (0..rank).rev().map(length).collect()
}

/// Every step as a job of its own.
fn step_by_step(engine: &mut Engine, job: &Job, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = inputs.to_vec();
    for step in &job.steps {
        // All arrays so far are inputs, and the step's result follows.
        let count = values.len();
        let one = Job {
            arrays: job.arrays[..=count].to_vec(),
            inputs: vec![zed_spec::job::Source::Raw; count],
            steps: vec![Step { op: step.op.clone(), results: step.results.clone() }],
            outputs: step.results.clone(),
            ..job.clone()
        };
        let mut got = on_device(engine, &one, &values);
        values.push(got.remove(0));
    }
    job.outputs.iter().map(|id| values[id.0 as usize].clone()).collect()
}

/// One line a step.
fn listing(job: &Job) -> String {
    job.steps.iter().map(|step| format!("{:?} = {:?}\n", step.results, step.op)).collect()
}

#[test]
fn fused_steps_give_the_bits_that_they_give_one_by_one() {
    let Some(mut engine) = engine("fused steps") else { return };
    let mut numbers = Numbers(7);
    let (mut steps, mut dispatches) = (0, 0);
    for case in 0..25 {
        let job = program(&mut numbers);
        let inputs: Vec<Vec<u8>> = job.inputs().map(|(_, array, _)| data(&mut numbers, array)).collect();
        steps += job.steps.len();
        dispatches += ops::program(&job, &engine.info().limits).unwrap().dispatches.len();
        let fused = on_device(&mut engine, &job, &inputs);
        let single = step_by_step(&mut engine, &job, &inputs);
        for ((id, array), (fused, single)) in job.outputs().zip(fused.iter().zip(&single)) {
            let (fused, single) = (decode(array.dtype, fused), decode(array.dtype, single));
            // The sign of a NaN means nothing.
            let same = |(a, b): &(&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            let differ = fused.iter().zip(&single).find(|pair| !same(pair));
            assert_eq!(differ, None, "case {case}, {id:?}\n{}", listing(&job));
        }
    }
    assert!(dispatches * 2 < steps, "{dispatches} dispatches for {steps} steps");
}

#[test]
fn a_double_that_becomes_a_single_and_a_double_again_is_rounded() {
    let Some(mut engine) = engine("rounding") else { return };
    let mut text = Text::default();
    let a = text.input(DType::F64, &[2]);
    let b = text.step(Op::Cast(DType::F32, a), DType::F32, &[2]);
    let c = text.step(Op::Cast(DType::F64, b), DType::F64, &[2]);
    let got = on_device(&mut engine, &text.job(&[c]), &[encode(DType::F64, &[0.1, 1e300])]);
    assert_eq!(decode(DType::F64, &got[0]), [f64::from(0.1f32), f64::INFINITY]);
}

#[test]
fn programs_of_many_steps_agree_with_the_cpu() {
    let Some(mut engine) = engine("programs of many steps") else { return };
    let mut numbers = Numbers(8);
    for case in 0..25 {
        // Steps that give the same bits everywhere.
        let mut job = program(&mut numbers);
        for step in &mut job.steps {
            match &mut step.op {
                Op::Unary(unary, _) => {
                    *unary = [Unary::Abs, Unary::Neg, Unary::Relu, Unary::Sqrt][numbers.below(4)]
                }
                Op::Binary(binary, ..) if *binary == Binary::Pow => *binary = Binary::Max,
                Op::NormalLogPdf { x, mu, .. } => step.op = Op::Binary(Binary::Sub, *x, *mu),
                _ => {}
            }
        }
        let shapes_kept = job.steps.iter().all(|step| !matches!(step.op, Op::NormalLogPdf { .. }));
        assert!(shapes_kept);
        let inputs: Vec<Vec<u8>> = job.inputs().map(|(_, array, _)| data(&mut numbers, array)).collect();
        let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let got = on_device(&mut engine, &job, &inputs);
        let wants = ops::on_cpu(&job, &slices).unwrap();
        for ((_, array), (got, wants)) in job.outputs().zip(got.iter().zip(&wants)) {
            let (got, wants) = (decode(array.dtype, got), decode(array.dtype, wants));
            let same = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan());
            let differ = got.iter().zip(&wants).find(|pair| !same(*pair));
            assert_eq!(differ, None, "case {case}, {array:?}\n{}", listing(&job));
        }
    }
}

/// The element of an operand for an element of the result: coordinates from the first axis on, as NumPy says.
fn naive(result: &[u32], operand: &[u32], index: usize) -> usize {
    let mut rest = index;
    let mut coordinates = vec![0; result.len()];
    for (axis, length) in result.iter().enumerate().rev() {
        coordinates[axis] = rest % *length as usize;
        rest /= *length as usize;
    }
    let own = &coordinates[result.len() - operand.len()..];
    own.iter().zip(operand).fold(0, |at, (coordinate, length)| {
        at * *length as usize + if *length == 1 { 0 } else { *coordinate }
    })
}

#[test]
fn operands_are_broadcast_as_numpy_does() {
    let Some(mut engine) = engine("broadcast") else { return };
    let mut numbers = Numbers(9);
    for _ in 0..60 {
        let whole = shape(&mut numbers);
        let (left, right) = (narrower(&mut numbers, &whole), narrower(&mut numbers, &whole));
        let result = broadcast(&[&left, &right]);
        let mut text = Text::default();
        let a = text.input(DType::F32, &left);
        let b = text.input(DType::F32, &right);
        let op = Op::Binary(Binary::Sub, Operand::Array(a), Operand::Array(b));
        let c = text.step(op, DType::F32, &result);
        let job = text.job(&[c]);
        // Each element says where it is.
        let count = |id| usize::try_from(job.array(id).elements()).unwrap();
        let left_data: Vec<f64> = (0..count(a)).map(|at| at as f64).collect();
        let right_data: Vec<f64> = (0..count(b)).map(|at| (at * 2048) as f64).collect();
        let inputs = [encode(DType::F32, &left_data), encode(DType::F32, &right_data)];
        let got = decode(DType::F32, &on_device(&mut engine, &job, &inputs)[0]);
        let wants: Vec<f64> = (0..count(c))
            .map(|at| left_data[naive(&result, &left, at)] - right_data[naive(&result, &right, at)])
            .collect();
        assert_eq!(got, wants, "{left:?} {right:?}");
        let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        assert_eq!(
            decode(DType::F32, &ops::on_cpu(&job, &slices).unwrap()[0]),
            wants,
            "on the CPU: {left:?} {right:?}"
        );
    }
}

#[test]
fn what_is_only_passed_on_gets_no_buffer_and_another_number_no_other_kernel() {
    let Some(engine) = engine("fusion") else { return };
    let job = |number: f64| {
        let mut text = Text::default();
        let a = text.input(DType::F32, &[100]);
        let b = text.step(
            Op::Binary(Binary::Mul, Operand::Array(a), Operand::Number(number)),
            DType::F32,
            &[100],
        );
        let c = text.step(Op::Unary(Unary::Exp, b), DType::F32, &[100]);
        let d = text.step(Op::Binary(Binary::Add, Operand::Array(c), Operand::Array(a)), DType::F32, &[100]);
        ops::program(&text.job(&[d]), &engine.info().limits).unwrap()
    };
    let (two, three) = (job(2.0), job(3.0));
    let [dispatch] = two.dispatches.as_slice() else { panic!("{two:?}") };
    assert_eq!(dispatch.buffers.len(), 2, "a and d");
    assert!(two.temporaries.is_empty());
    assert_eq!(dispatch.kernel.id, three.dispatches[0].kernel.id);
    assert_ne!(dispatch.push, three.dispatches[0].push);
}

#[test]
fn a_million_elements_are_all_computed() {
    let Some(mut engine) = engine("a million elements") else { return };
    let n = 1_000_003;
    let mut text = Text::default();
    let a = text.input(DType::F32, &[n]);
    let b = text.step(Op::Binary(Binary::Add, Operand::Array(a), Operand::Number(1.0)), DType::F32, &[n]);
    let values: Vec<f64> = (0..n).map(f64::from).collect();
    let got = on_device(&mut engine, &text.job(&[b]), &[encode(DType::F32, &values)]);
    let wants: Vec<f64> = (0..n).map(|i| f64::from(i + 1)).collect();
    assert!(decode(DType::F32, &got[0]) == wants);
}
