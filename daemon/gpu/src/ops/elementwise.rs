//! Element by element: unary and binary operations, casts, the normal log density; runs of them fused into one kernel.
//!
//! A fused kernel keeps what is only passed on between its steps in registers. It computes the same as its steps one by one,
//! bit for bit: no driver may contract or reorder arithmetic (see `wgsl`). Sources depend on operations, types and on
//! which axes are broadcast, never on lengths or numbers.

mod broadcast;
mod fusion;

use super::PlanError;
use super::builder::Builder;
use super::builder::GROUP;
use super::builder::Push;
use crate::program::Buffer;
use broadcast::Layout;
use fusion::Run;
use std::collections::BTreeMap;
use std::fmt::Write;
use zed_spec::job::ArrayId;
use zed_spec::job::Binary;
use zed_spec::job::DType;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Operand;
use zed_spec::job::Step;
use zed_spec::job::Unary;

/// Whether an operation is one of these.
pub(super) fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(..) | Op::Binary(..) | Op::Cast(..) | Op::NormalLogPdf { .. })
}

/// One dispatch of the longest run of steps from `at` that one kernel can do. Returns how many steps it took.
pub(super) fn plan(builder: &mut Builder<'_>, at: usize) -> Result<usize, PlanError> {
    let run = fusion::longest(builder.job(), builder.limits(), at);
    dispatch(builder, &run)?;
    Ok(run.steps.len())
}

fn dispatch(builder: &mut Builder<'_>, run: &Run) -> Result<(), PlanError> {
    let kernel = Source::of(builder.job(), run);
    let groups = builder.row_of_groups(groups_of(kernel.elements), run.steps.start)?;
    let buffers = run.inputs.iter().chain(&run.outputs).map(|id| Buffer::Array(*id)).collect();
    builder.dispatch(&kernel.label, kernel.text, buffers, kernel.push, groups);
    Ok(())
}

/// A kernel and its push constants.
struct Source {
    label: String,
    text: String,
    push: Push,
    elements: u64,
}

impl Source {
    fn of(job: &Job, run: &Run) -> Self {
        let steps = &job.steps[run.steps.clone()];
        let layout = Layout::of(job, run);
        let numbers = Numbers::of(job, steps);
        let mut text = String::new();
        declare(&mut text, job, run, &layout, &numbers);
        let mut names: BTreeMap<ArrayId, String> = BTreeMap::new();
        for (index, id) in run.inputs.iter().enumerate() {
            line(&mut text, &format!("let a{index} = in{index}[{}];", layout.index(index)));
            names.insert(*id, format!("a{index}"));
        }
        let mut number = 0;
        for (index, step) in steps.iter().enumerate() {
            let mut operand = |operand: &Operand| match operand {
                Operand::Array(id) => names.get(id).cloned().unwrap_or_default(),
                Operand::Number(_) => {
                    number += 1;
                    format!("push.k{}", number - 1)
                }
            };
            let value = value(job, step, &mut operand);
            line(&mut text, &format!("let v{index} = {value};"));
            if let [result] = step.results.as_slice() {
                names.insert(*result, format!("v{index}"));
            }
        }
        for (index, id) in run.outputs.iter().enumerate() {
            line(&mut text, &format!("out{index}[i] = {};", names.get(id).cloned().unwrap_or_default()));
        }
        text.push_str("    }\n}\n");
        let push = numbers.push(layout.push(Push::new()));
        Self {
            label: label(job, steps),
            text: crate::wgsl::link_source(&text),
            push,
            elements: layout.elements,
        }
    }
}

/// The numbers of the steps, in the order of the text; singles come first, so that doubles leave no gaps.
struct Numbers(Vec<(DType, f64)>);

impl Numbers {
    fn of(job: &Job, steps: &[Step]) -> Self {
        let of_step = |step: &Step| {
            let dtype = result_dtype(job, step);
            let number = move |operand: &Operand| match operand {
                Operand::Number(number) => Some((dtype, *number)),
                Operand::Array(_) => None,
            };
            fusion::operands(&step.op).iter().filter_map(number).collect::<Vec<_>>()
        };
        Self(steps.iter().flat_map(of_step).collect())
    }

    /// With their places in the text.
    fn in_layout(&self) -> impl Iterator<Item = (usize, DType, f64)> {
        let of = |doubles: bool| {
            let numbers =
                self.0.iter().enumerate().filter(move |(_, (dtype, _))| (*dtype == DType::F64) == doubles);
            numbers.map(|(index, (dtype, number))| (index, *dtype, *number))
        };
        of(false).chain(of(true))
    }

    fn push(&self, push: Push) -> Push {
        self.in_layout().fold(push, |push, (_, dtype, number)| push.number(dtype, number))
    }
}

/// Push constants, bindings and the head of `main`, with `i` an element of this thread.
fn declare(text: &mut String, job: &Job, run: &Run, layout: &Layout, numbers: &Numbers) {
    // Writing to a string does not fail.
    text.push_str("struct Push {\n    n: u32,\n");
    for axis in layout.pushed() {
        let _ = writeln!(text, "    d{axis}: u32,");
    }
    for (index, dtype, _) in numbers.in_layout() {
        let _ = writeln!(text, "    k{index}: {},", dtype.name());
    }
    text.push_str("}\n\nvar<immediate> push: Push;\n");
    let mut buffer = |binding: usize, access: &str, name: String, id: &ArrayId| {
        let dtype = job.array(*id).dtype.name();
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "@group(0) @binding({binding}) var<storage, {access}> {name}: array<{dtype}>;");
    };
    for (index, id) in run.inputs.iter().enumerate() {
        buffer(index, "read", format!("in{index}"), id);
    }
    for (index, id) in run.outputs.iter().enumerate() {
        buffer(run.inputs.len() + index, "read_write", format!("out{index}"), id);
    }
    text.push_str(HEAD);
    for coordinate in layout.coordinates() {
        line(text, &coordinate);
    }
}

const HEAD: &str = "
@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.y * groups.x + group.x) * 256u + lane;
    for (var i = first; i < push.n; i += groups.x * groups.y * 256u) {
";

/// From so many workgroups on, threads compute several elements: a workgroup costs a driver for CPUs as much as a thousand
/// sums, and as many as this fill a large device.
const FULL: u64 = 1024;

/// The most elements that a thread computes.
const ELEMENTS_PER_THREAD: u64 = 16;

/// Workgroups for so many elements.
fn groups_of(elements: u64) -> u64 {
    let threads = u64::from(GROUP);
    elements.div_ceil(threads).min(elements.div_ceil(threads * ELEMENTS_PER_THREAD).max(FULL))
}

/// A line of the body.
fn line(text: &mut String, line: &str) {
    text.push_str("        ");
    text.push_str(line);
    text.push('\n');
}

/// `add-f32`; of several steps the first, the number of the others, and the type of the last.
fn label(job: &Job, steps: &[Step]) -> String {
    let [first, others @ ..] = steps else { return String::new() };
    let dtype = steps.last().map_or(DType::F32, |last| result_dtype(job, last)).name();
    let name = first.op.name().to_lowercase();
    match others.len() {
        0 => format!("{name}-{dtype}"),
        n => format!("{name}-and-{n}-{dtype}"),
    }
}

/// The type of what a step gives, which is the type of its numbers, too.
fn result_dtype(job: &Job, step: &Step) -> DType {
    step.results.first().map_or(DType::F32, |id| job.array(*id).dtype)
}

/// The expression of a step.
fn value(job: &Job, step: &Step, operand: &mut impl FnMut(&Operand) -> String) -> String {
    let t = result_dtype(job, step).name();
    match &step.op {
        Op::Unary(unary, a) => unary_value(*unary, &operand(&Operand::Array(*a)), t),
        Op::Binary(binary, a, b) => {
            let a = operand(a);
            let b = operand(b);
            binary_value(*binary, &a, &b, t)
        }
        Op::Cast(_, a) => format!("{t}({})", operand(&Operand::Array(*a))),
        Op::NormalLogPdf { x, mu, sigma } => {
            let (x, mu, sigma) = (operand(x), operand(mu), operand(sigma));
            format!("normal_logpdf_{t}({x}, {mu}, {sigma})")
        }
        // `is_elementwise` is asked before.
        _ => String::new(),
    }
}

fn unary_value(unary: Unary, a: &str, t: &str) -> String {
    match unary {
        Unary::Exp => format!("exp_{t}({a})"),
        Unary::Log => format!("log_{t}({a})"),
        Unary::Sqrt => format!("sqrt({a})"),
        Unary::Abs => format!("abs({a})"),
        Unary::Neg => format!("-{a}"),
        Unary::Sigmoid => format!("sigmoid_{t}({a})"),
        Unary::Tanh => format!("tanh_{t}({a})"),
        Unary::Relu => format!("relu_{t}({a})"),
        Unary::Ceil => format!("ceil({a})"),
        Unary::Floor => format!("floor({a})"),
        Unary::Sign => format!("sign_{t}({a})"),
        Unary::Recip => format!("{t}(1.0) / {a}"),
        Unary::Square => format!("{a} * {a}"),
        Unary::Erf => format!("erf_{t}({a})"),
        Unary::Expm1 => format!("expm1_{t}({a})"),
        Unary::Log1p => format!("log1p_{t}({a})"),
    }
}

fn binary_value(binary: Binary, a: &str, b: &str, t: &str) -> String {
    match binary {
        Binary::Add => format!("{a} + {b}"),
        Binary::Mul => format!("{a} * {b}"),
        Binary::Sub => format!("{a} - {b}"),
        Binary::Div => format!("{a} / {b}"),
        Binary::Pow => format!("pow_{t}({a}, {b})"),
        Binary::Max => format!("max_{t}({a}, {b})"),
        Binary::Min => format!("min_{t}({a}, {b})"),
        Binary::Eq => format!("select({t}(0.0), {t}(1.0), {a} == {b})"),
        Binary::Lt => format!("select({t}(0.0), {t}(1.0), {a} < {b})"),
        Binary::Gt => format!("select({t}(0.0), {t}(1.0), {a} > {b})"),
    }
}

#[cfg(test)]
mod tests;
