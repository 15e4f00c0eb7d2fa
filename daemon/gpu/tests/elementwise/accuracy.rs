//! Every operation and type against libm and the standard library, in double precision, on edges, over ranges and over
//! random bits.
//!
//! A unit in the last place is the distance between two neighbours of the type at the true value. Results below the smallest
//! normal number may be 0, and operands below it may be taken for 0: devices differ there.

use crate::Numbers;
use crate::Text;
use crate::common::engine;
use crate::decode;
use crate::encode;
use crate::on_device;
use zed_gpu::ops;
use zed_spec::job::ArrayId;
use zed_spec::job::Binary;
use zed_spec::job::DType;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Operand;
use zed_spec::job::Unary;

const COUNT: usize = 40_000;

/// What is promised in ulp: of F32, of F64. docs/GPU.md says the same.
fn unary_bound(op: Unary) -> [f64; 2] {
    match op {
        Unary::Abs | Unary::Neg | Unary::Relu | Unary::Ceil | Unary::Floor | Unary::Sign => [0.0, 0.0],
        Unary::Sqrt | Unary::Recip | Unary::Square => [0.501, 0.501],
        Unary::Exp | Unary::Log | Unary::Log1p => [1.5, 2.0],
        Unary::Expm1 => [2.0, 3.0],
        Unary::Sigmoid | Unary::Erf => [3.0, 3.0],
        Unary::Tanh => [4.0, 4.0],
    }
}

fn binary_bound(op: Binary) -> [f64; 2] {
    match op {
        Binary::Max | Binary::Min | Binary::Eq | Binary::Lt | Binary::Gt => [0.0, 0.0],
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Div => [0.501, 0.501],
        Binary::Pow => [1.5, 2.0],
    }
}

/// Functions of the reference that are independent of the crate's own.
fn unary_reference(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Exp => libm::exp(x),
        Unary::Log => libm::log(x),
        Unary::Sqrt => x.sqrt(),
        Unary::Abs => x.abs(),
        Unary::Neg => -x,
        Unary::Sigmoid if x < 0.0 => libm::exp(x) / (1.0 + libm::exp(x)),
        Unary::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        Unary::Tanh => libm::tanh(x),
        Unary::Relu if x <= 0.0 => 0.0,
        Unary::Relu => x,
        Unary::Ceil => x.ceil(),
        Unary::Floor => x.floor(),
        Unary::Sign if x > 0.0 => 1.0,
        Unary::Sign if x < 0.0 => -1.0,
        Unary::Sign => x,
        Unary::Recip => 1.0 / x,
        Unary::Square => x * x,
        Unary::Erf => libm::erf(x),
        Unary::Expm1 => libm::expm1(x),
        Unary::Log1p => libm::log1p(x),
    }
}

fn binary_reference(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Mul => a * b,
        Binary::Sub => a - b,
        Binary::Div => a / b,
        Binary::Pow => libm::pow(a, b),
        Binary::Max | Binary::Min if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
        Binary::Eq => f64::from(u8::from(a == b)),
        Binary::Lt => f64::from(u8::from(a < b)),
        Binary::Gt => f64::from(u8::from(a > b)),
    }
}

/// The smallest normal number, the largest, and the bits after the point.
struct Format {
    smallest: f64,
    largest: f64,
    digits: i32,
}

fn format(dtype: DType) -> Format {
    match dtype {
        DType::F32 => {
            Format { smallest: f64::from(f32::MIN_POSITIVE), largest: f64::from(f32::MAX), digits: 23 }
        }
        _ => Format { smallest: f64::MIN_POSITIVE, largest: f64::MAX, digits: 52 },
    }
}

/// How far a result is from the true value, in ulp; none where it is as different as it may be.
fn error(dtype: DType, got: f64, wants: f64) -> f64 {
    let format = format(dtype);
    let rounded = if dtype == DType::F32 { f64::from(wants as f32) } else { wants };
    if rounded.is_nan() || got.is_nan() {
        return if rounded.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == rounded {
        // The distance to what was not rounded yet, which is half an ulp at most.
        return if rounded.is_infinite() || wants == 0.0 { 0.0 } else { ulps(&format, got, wants) };
    }
    if wants.abs() < format.smallest && got == 0.0 {
        return 0.0;
    }
    if got.is_infinite() && rounded.abs() < format.largest
        || rounded.is_infinite() && got.abs() < format.largest
    {
        return f64::INFINITY;
    }
    ulps(&format, got, wants)
}

fn ulps(format: &Format, got: f64, wants: f64) -> f64 {
    let exponent = wants.abs().max(format.smallest).log2().floor() as i32;
    // In two steps, because the unit itself may be subnormal.
    (got - wants) * 2f64.powi(-exponent) * 2f64.powi(format.digits)
}

fn edges(dtype: DType) -> Vec<f64> {
    let format = format(dtype);
    let epsilon = 2f64.powi(-format.digits);
    let sizes = [
        0.0,
        format.smallest,
        format.smallest * (1.0 + epsilon),
        format.smallest / 2.0,
        format.smallest * epsilon,
        format.largest,
        format.largest / 2.0,
        f64::INFINITY,
        1.0,
        1.0 + epsilon,
        1.0 - epsilon / 2.0,
        epsilon,
        epsilon / 4.0,
        1e-3,
        0.5,
        0.25,
        std::f64::consts::SQRT_2,
        std::f64::consts::FRAC_1_SQRT_2,
        std::f64::consts::LN_2 / 2.0,
        1.5,
        2.0,
        2.5,
        3.0,
        5.0,
        10.0,
        88.0,
        88.72,
        88.73,
        87.33,
        103.9,
        104.0,
        709.78,
        709.79,
        745.13,
        745.14,
        1e10,
        1e15,
        8_388_607.5,
        16_777_217.0,
        9_007_199_254_740_993.0,
    ];
    let signed = sizes.iter().flat_map(|size| [*size, -size]).chain([f64::NAN]);
    match dtype {
        DType::F32 => signed.map(|value| f64::from(value as f32)).collect(),
        _ => signed.collect(),
    }
}

/// Edges, numbers around 0 and 1, numbers of all sizes, and any bits at all.
fn values(dtype: DType, seed: u64) -> Vec<f64> {
    let mut numbers = Numbers(seed);
    let mut all = edges(dtype);
    while all.len() < COUNT {
        let sign = if numbers.bits() & 1 == 0 { 1.0 } else { -1.0 };
        let value = match numbers.below(6) {
            0 => sign * numbers.uniform(),
            1 => sign * numbers.uniform() * 10.0,
            2 => sign * numbers.uniform() * 800.0,
            3 => sign * 2f64.powf(numbers.uniform() * 60.0 - 40.0),
            4 => 1.0 + sign * 2f64.powf(numbers.uniform() * -30.0),
            _ if dtype == DType::F32 => f64::from(f32::from_bits(numbers.bits() as u32)),
            _ => f64::from_bits(numbers.bits()),
        };
        all.push(if dtype == DType::F32 { f64::from(value as f32) } else { value });
    }
    all
}

/// Whether an operand is one that a device may take for 0.
fn subnormal(dtype: DType, value: f64) -> bool {
    value != 0.0 && value.abs() < format(dtype).smallest
}

struct Worst {
    error: f64,
    text: String,
}

/// The largest error of a job with one output over all its elements.
fn worst(got: &[f64], wants: impl Fn(usize) -> (Vec<f64>, DType, f64)) -> Worst {
    let mut worst = Worst { error: 0.0, text: String::new() };
    for (index, got) in got.iter().enumerate() {
        let (operands, dtype, wants) = wants(index);
        if operands.iter().any(|operand| subnormal(dtype, *operand)) {
            continue;
        }
        let error = error(dtype, *got, wants).abs();
        if error > worst.error {
            worst = Worst { error, text: format!("{operands:?}: {got:e}, not {wants:e}") };
        }
    }
    worst
}

fn unary_job(op: Unary, dtype: DType) -> Job {
    let mut text = Text::default();
    let a = text.input(dtype, &[COUNT as u32]);
    let b = text.step(Op::Unary(op, a), dtype, &[COUNT as u32]);
    text.job(&[b])
}

fn binary_job(op: Binary, dtype: DType) -> Job {
    let mut text = Text::default();
    let a = text.input(dtype, &[COUNT as u32]);
    let b = text.input(dtype, &[COUNT as u32]);
    let op = Op::Binary(op, Operand::Array(a), Operand::Array(b));
    let c = text.step(op, dtype, &[COUNT as u32]);
    text.job(&[c])
}

const REALS: [DType; 2] = [DType::F32, DType::F64];

#[expect(clippy::print_stdout, reason = "how exact an operation is is worth a line")]
fn report(failures: &mut Vec<String>, name: &str, dtype: DType, worst: &Worst, bound: f64) {
    println!("{name} {}: {:.3} ulp, at most {bound} ({})", dtype.name(), worst.error, worst.text);
    if worst.error > bound {
        failures.push(format!("{name} {}: {} ulp at {}", dtype.name(), worst.error, worst.text));
    }
}

#[test]
fn unary_operations_are_as_exact_as_the_documentation_says() {
    let Some(mut engine) = engine("unary operations") else { return };
    let mut failures = Vec::new();
    for (index, dtype) in REALS.into_iter().enumerate() {
        let values = values(dtype, 1);
        for op in Unary::ALL {
            let got = on_device(&mut engine, &unary_job(*op, dtype), &[encode(dtype, &values)]);
            let got = decode(dtype, &got[0]);
            let worst = worst(&got, |at| (vec![values[at]], dtype, unary_reference(*op, values[at])));
            report(&mut failures, op.name(), dtype, &worst, unary_bound(*op)[index]);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn binary_operations_are_as_exact_as_the_documentation_says() {
    let Some(mut engine) = engine("binary operations") else { return };
    let mut failures = Vec::new();
    for (index, dtype) in REALS.into_iter().enumerate() {
        // Every edge with every edge, then random ones.
        let edges = edges(dtype);
        let pairs = edges.iter().flat_map(|a| edges.iter().map(|b| (*a, *b)));
        let random = values(dtype, 2).into_iter().zip(values(dtype, 3));
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.chain(random).take(COUNT).unzip();
        for op in Binary::ALL {
            let inputs = [encode(dtype, &a), encode(dtype, &b)];
            let got = decode(dtype, &on_device(&mut engine, &binary_job(*op, dtype), &inputs)[0]);
            let worst = worst(&got, |at| (vec![a[at], b[at]], dtype, binary_reference(*op, a[at], b[at])));
            report(&mut failures, op.name(), dtype, &worst, binary_bound(*op)[index]);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Without a device: what a job with `fallback: Allow` gets, and what other tests compare devices with.
#[test]
fn the_cpu_s_versions_are_as_exact() {
    let mut failures = Vec::new();
    for dtype in REALS {
        let (a, b) = (values(dtype, 2), values(dtype, 3));
        let inputs = [encode(dtype, &a), encode(dtype, &b)];
        // Singles are rounded once from doubles.
        let bound = if dtype == DType::F32 { 0.501 } else { 3.0 };
        for op in Unary::ALL {
            let got = decode(dtype, &ops::on_cpu(&unary_job(*op, dtype), &[&inputs[0]]).unwrap()[0]);
            let worst = worst(&got, |at| (vec![a[at]], dtype, unary_reference(*op, a[at])));
            report(&mut failures, op.name(), dtype, &worst, bound);
        }
        for op in Binary::ALL {
            let got = ops::on_cpu(&binary_job(*op, dtype), &[&inputs[0], &inputs[1]]).unwrap();
            let got = decode(dtype, &got[0]);
            let worst = worst(&got, |at| (vec![a[at], b[at]], dtype, binary_reference(*op, a[at], b[at])));
            report(&mut failures, op.name(), dtype, &worst, bound);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Values that another program computed with 50 digits, rounded once: they judge the reference, too.
#[test]
fn known_values_are_met_by_the_device_and_the_cpu() {
    let unary = [
        (Unary::Exp, 1e-09, 1.000000001),
        (Unary::Exp, 0.5, 1.6487212707001282),
        (Unary::Exp, -30.25, 7.287724095819692e-14),
        (Unary::Exp, 700.5, 1.6721859620674984e+304),
        (Unary::Log, 1.0000001, 9.999999505838704e-08),
        (Unary::Log, 0.6875, -0.3746934494414107),
        (Unary::Log, 3e-300, -689.6769156095456),
        (Unary::Log, 12345.678, 9.421061321291832),
        (Unary::Sigmoid, -700.25, 7.678723813110872e-305),
        (Unary::Sigmoid, -1.5, 0.18242552380635635),
        (Unary::Sigmoid, 0.25, 0.5621765008857981),
        (Unary::Sigmoid, 30.0, 0.9999999999999064),
        (Unary::Tanh, 1e-09, 1e-09),
        (Unary::Tanh, 0.3, 0.2913126124515909),
        (Unary::Tanh, -2.5, -0.9866142981514303),
        (Unary::Tanh, 19.0, 0.9999999999999999),
        (Unary::Erf, 1e-09, 1.1283791670955127e-09),
        (Unary::Erf, 0.75, 0.7111556336535151),
        (Unary::Erf, -1.5, -0.9661051464753108),
        (Unary::Erf, 4.5, 0.9999999998033839),
        (Unary::Expm1, 1e-12, 1.0000000000005e-12),
        (Unary::Expm1, -0.25, -0.22119921692859512),
        (Unary::Expm1, 0.75, 1.1170000166126746),
        (Unary::Expm1, -20.5, -0.9999999987498471),
        (Unary::Log1p, 1e-12, 9.999999999995e-13),
        (Unary::Log1p, -0.25, -0.2876820724517809),
        (Unary::Log1p, 0.75, 0.5596157879354227),
        (Unary::Log1p, 10000000000.0, 23.025850930040455),
    ];
    let pow = [
        (0.1, -300.0, 9.999999999999834e+299),
        (1.0000001, 1000000000.0, 2.6881038582144647e+43),
        (2.5, 0.75, 1.9881768219176266),
        (123.456, 100.5, 1.5738968406240058e+210),
    ];
    let mut engine = engine("known values on a device");
    let mut check = |op: Op, inputs: &[f64], wants: f64| {
        let mut text = Text::default();
        for _ in inputs {
            text.input(DType::F64, &[]);
        }
        let name = format!("{op:?} of {inputs:?}");
        let result = text.step(op, DType::F64, &[]);
        let job = text.job(&[result]);
        let inputs: Vec<Vec<u8>> = inputs.iter().map(|input| encode(DType::F64, &[*input])).collect();
        let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let on_device = engine.as_mut().map(|engine| on_device(engine, &job, &inputs));
        for got in on_device.into_iter().chain([ops::on_cpu(&job, &slices).unwrap()]) {
            let got = decode(DType::F64, &got[0])[0];
            assert!(error(DType::F64, got, wants).abs() <= 3.0, "{name}: {got:e}, not {wants:e}");
        }
    };
    for (op, x, wants) in unary {
        check(Op::Unary(op, ArrayId(0)), &[x], wants);
    }
    for (a, b, wants) in pow {
        check(
            Op::Binary(Binary::Pow, Operand::Array(ArrayId(0)), Operand::Array(ArrayId(1))),
            &[a, b],
            wants,
        );
    }
}

#[test]
fn casts_round_to_the_nearest_and_lose_nothing_on_the_way_to_doubles() {
    let Some(mut engine) = engine("casts") else { return };
    for (from, to) in [(DType::F32, DType::F64), (DType::F64, DType::F32)] {
        let mut text = Text::default();
        let a = text.input(from, &[COUNT as u32]);
        let b = text.step(Op::Cast(to, a), to, &[COUNT as u32]);
        let values = values(from, 4);
        let got = decode(to, &on_device(&mut engine, &text.job(&[b]), &[encode(from, &values)])[0]);
        let worst = worst(&got, |at| {
            let rounded = if to == DType::F32 { f64::from(values[at] as f32) } else { values[at] };
            (vec![values[at]], from, rounded)
        });
        // Exactly the nearest one, or 0 where that is subnormal.
        let wrong = |(got, value): (&f64, &f64)| {
            let rounded = if to == DType::F32 { f64::from(*value as f32) } else { *value };
            let flushed = *got == 0.0 && rounded.abs() < f64::from(f32::MIN_POSITIVE);
            *got != rounded && !flushed && !(got.is_nan() && rounded.is_nan())
        };
        let wrong = got.iter().zip(&values).find(|pair| wrong(*pair));
        assert_eq!(wrong, None, "{from:?} to {to:?}; {}", worst.text);
    }
}

/// The error is measured against the largest term: where terms cancel, no digits are left in any way of computing it.
#[test]
fn the_normal_log_density_is_exact_to_a_few_ulp_of_its_largest_term() {
    let Some(mut engine) = engine("the normal log density") else { return };
    for dtype in REALS {
        let mut text = Text::default();
        let [x, mu, sigma] = [0; 3].map(|_| text.input(dtype, &[COUNT as u32]));
        let op =
            Op::NormalLogPdf { x: Operand::Array(x), mu: Operand::Array(mu), sigma: Operand::Array(sigma) };
        let y = text.step(op, dtype, &[COUNT as u32]);
        let mut numbers = Numbers(5);
        let mut draw = |low: f64, high: f64| -> Vec<f64> {
            let value = |numbers: &mut Numbers| low + (high - low) * numbers.uniform();
            let rounded = |value: f64| if dtype == DType::F32 { f64::from(value as f32) } else { value };
            (0..COUNT).map(|_| rounded(value(&mut numbers))).collect()
        };
        let (x, mu, sigma) = (draw(-10.0, 10.0), draw(-2.0, 2.0), draw(0.1, 10.0));
        let inputs = [&x, &mu, &sigma].map(|values| encode(dtype, values));
        let got = decode(dtype, &on_device(&mut engine, &text.job(&[y]), &inputs)[0]);
        let mut most = 0.0f64;
        for (at, got) in got.iter().enumerate() {
            let z = (x[at] - mu[at]) / sigma[at];
            let terms = [-0.5 * z * z, -libm::log(sigma[at]), -0.918_938_533_204_672_7];
            let largest = terms.iter().fold(0.0f64, |most, term| most.max(term.abs()));
            let unit = 2f64.powi(largest.log2().floor() as i32 - format(dtype).digits);
            most = most.max((got - terms.iter().sum::<f64>()).abs() / unit);
        }
        println!("NormalLogPdf {}: {most:.3} ulp of the largest term", dtype.name());
        assert!(most <= 6.0, "{dtype:?}: {most}");
    }
}

/// Functions of the prelude that shaders may call and no element-wise operation is made of.
#[test]
fn the_other_functions_of_the_prelude_are_as_exact() {
    let Some(mut engine) = engine("the prelude") else { return };
    // By quarters of a turn, because the product with 2 pi would cost digits.
    let turns = |x: f64| {
        let quarters = (x * 4.0).round();
        let (sin, cos) = libm::sincos((x - quarters / 4.0) * std::f64::consts::TAU);
        [(cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos)][quarters.rem_euclid(4.0) as usize]
    };
    let softplus = |x: f64| x.max(0.0) + libm::log1p(libm::exp(-x.abs()));
    for dtype in REALS {
        let t = dtype.name();
        let mut numbers = Numbers(6);
        let rounded = |value: f64| if dtype == DType::F32 { f64::from(value as f32) } else { value };
        let values: Vec<f64> = (0..COUNT).map(|_| rounded(numbers.uniform() * 20.0 - 10.0)).collect();
        for (call, reference) in [
            (format!("softplus_{t}(a[id.x])"), &softplus as &dyn Fn(f64) -> f64),
            (format!("cos_sin_turns_{t}(a[id.x]).x"), &|x| turns(x).0),
            (format!("cos_sin_turns_{t}(a[id.x]).y"), &|x| turns(x).1),
        ] {
            let source = format!(
                "@group(0) @binding(0) var<storage, read> a: array<{t}>;
                 @group(0) @binding(1) var<storage, read_write> b: array<{t}>;
                 @compute @workgroup_size(250) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                     b[id.x] = {call};
                 }}"
            );
            let mut text = Text::default();
            let a = text.input(dtype, &[COUNT as u32]);
            let groups = [COUNT as u32 / 250, 1, 1];
            let b = text.step(Op::Wgsl { source, inputs: vec![a], groups }, dtype, &[COUNT as u32]);
            let got = decode(dtype, &on_device(&mut engine, &text.job(&[b]), &[encode(dtype, &values)])[0]);
            let most = worst(&got, |at| (vec![values[at]], dtype, reference(values[at])));
            println!("{call}: {:.3} ulp ({})", most.error, most.text);
            assert!(most.error <= 3.0, "{call}: {} at {}", most.error, most.text);
        }
    }
}
