//! Element-wise operations on the CPU.

use super::Cpu;
use super::Values;
use zed_spec::job::ArrayId;
use zed_spec::job::Binary;
use zed_spec::job::Op;
use zed_spec::job::Operand;
use zed_spec::job::Step;
use zed_spec::job::Unary;

/// What a step gives, each element rounded once to its type.
pub(super) fn run(cpu: &mut Cpu<'_>, step: &Step) {
    let [result] = step.results.as_slice() else { return };
    let values = match &step.op {
        Op::Unary(op, a) => each(cpu, *result, [Operand::Array(*a)], |[a]| unary(*op, a)),
        Op::Binary(op, a, b) => each(cpu, *result, [*a, *b], |[a, b]| binary(*op, a, b)),
        Op::Cast(_, a) => each(cpu, *result, [Operand::Array(*a)], |[a]| a),
        Op::NormalLogPdf { x, mu, sigma } => each(cpu, *result, [*x, *mu, *sigma], normal_logpdf),
        _ => return,
    };
    cpu.set(*result, values);
}

/// `f` of the operands of each element of the result.
fn each<const N: usize>(
    cpu: &Cpu<'_>,
    result: ArrayId,
    operands: [Operand; N],
    f: impl Fn([f64; N]) -> f64,
) -> Values {
    let array = cpu.job().array(result);
    let readers = operands.map(|operand| Reader::of(cpu, result, operand));
    let count = usize::try_from(array.elements()).unwrap_or(usize::MAX);
    Values::rounded(array.dtype, (0..count).map(|index| f(std::array::from_fn(|n| readers[n].at(index)))))
}

/// Reads an operand by the index of the result.
enum Reader<'a> {
    Number(f64),
    /// As many elements as the result.
    Same(&'a Values),
    /// Of each axis of the result its length and the operand's stride along it, the last axis first.
    Strided(&'a Values, Vec<(usize, usize)>),
}

impl<'a> Reader<'a> {
    fn of(cpu: &'a Cpu<'_>, result: ArrayId, operand: Operand) -> Self {
        let (result, id) = match operand {
            // A number has the type of the result.
            Operand::Number(number) => {
                return Reader::Number(
                    Values::rounded(cpu.job().array(result).dtype, std::iter::once(number)).at(0),
                );
            }
            Operand::Array(id) => (cpu.job().array(result), id),
        };
        let array = cpu.job().array(id);
        if array.elements() == result.elements() {
            return Reader::Same(cpu.get(id));
        }
        let mut stride = 1;
        let mut own = array.shape.iter().rev();
        let axes = result.shape.iter().rev().map(|length| {
            let own = own.next().copied().unwrap_or(1);
            let axis = (*length as usize, if own == 1 { 0 } else { stride });
            stride *= own as usize;
            axis
        });
        Reader::Strided(cpu.get(id), axes.collect())
    }

    fn at(&self, index: usize) -> f64 {
        match self {
            Reader::Number(number) => *number,
            Reader::Same(values) => values.at(index),
            Reader::Strided(values, axes) => {
                let mut rest = index;
                let mut at = 0;
                for (length, stride) in axes {
                    at += rest % length * stride;
                    rest /= length;
                }
                values.at(at)
            }
        }
    }
}

/// The standard library's functions, and libm's error function.
fn unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Abs => x.abs(),
        Unary::Neg => -x,
        Unary::Sigmoid => {
            let e = (-x.abs()).exp();
            if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
        }
        Unary::Tanh => x.tanh(),
        Unary::Relu => {
            if x <= 0.0 {
                0.0
            } else {
                x
            }
        }
        Unary::Ceil => x.ceil(),
        Unary::Floor => x.floor(),
        Unary::Sign => {
            if x == 0.0 || x.is_nan() {
                x
            } else {
                x.signum()
            }
        }
        Unary::Recip => 1.0 / x,
        Unary::Square => x * x,
        Unary::Erf => libm::erf(x),
        Unary::Expm1 => x.exp_m1(),
        Unary::Log1p => x.ln_1p(),
    }
}

fn binary(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Mul => a * b,
        Binary::Sub => a - b,
        Binary::Div => a / b,
        Binary::Pow => a.powf(b),
        Binary::Max => {
            if a > b || a.is_nan() {
                a
            } else {
                b
            }
        }
        Binary::Min => {
            if a < b || a.is_nan() {
                a
            } else {
                b
            }
        }
        Binary::Eq => f64::from(a == b),
        Binary::Lt => f64::from(a < b),
        Binary::Gt => f64::from(a > b),
    }
}

fn normal_logpdf([x, mu, sigma]: [f64; 3]) -> f64 {
    let z = (x - mu) / sigma;
    -0.5 * z * z - sigma.ln() - 0.5 * (2.0 * std::f64::consts::PI).ln()
}
