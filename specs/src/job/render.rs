//! A job as text.
//!
//! Owns the inverse of the parser: what is rendered parses to the same job.

use super::Array;
use super::ArrayId;
use super::DType;
use super::Fallback;
use super::Family;
use super::Job;
use super::MatmulVariant;
use super::Op;
use super::Operand;
use super::Parsed;
use super::Random;
use super::Reply;
use super::Source;
use super::Step;
use crate::render::doc::Doc;
use crate::render::doc::Struct;
use crate::render_duration;

/// The text of a job; defaults are left out. Bytes that follow the text are not part of it.
pub fn render_job(parsed: &Parsed) -> String {
    let Parsed { job, data, .. } = parsed;
    let Job { arrays: _, inputs: _, steps, outputs, deadline, priority, fallback, reply } = job;
    let inputs = job.inputs().zip(data).map(|((_, array, source), data)| {
        let value = match (source, data) {
            (Source::Text, Some(bytes)) => Doc::tuple(written(array.dtype), vec![elements(array, bytes)]),
            (Source::Raw, _) => Doc::tuple("Raw", vec![Doc::plain(written(array.dtype)), shape(array)]),
            (Source::Upload | Source::Text, _) => {
                Doc::tuple("Upload", vec![Doc::plain(written(array.dtype)), shape(array)])
            }
        };
        (array.name.clone(), value)
    });
    let steps_doc = steps.iter().map(|step| {
        let name = step.results.first().map_or("", |id| job.array(*id).name.as_str());
        let name = name.split_once('.').map_or(name, |(step, _)| step);
        (name.to_owned(), render_step(job, step))
    });
    let is_default = steps.last().is_some_and(|step| step.results == *outputs);
    Struct::named("Job")
        .field("inputs", map(inputs))
        .field("steps", map(steps_doc))
        .unless(is_default, "outputs", || Doc::list(outputs, |id| name(job, *id)))
        .unless(*deadline == Job::DEFAULT_DEADLINE, "deadline", || Doc::text(&render_duration(*deadline)))
        .unless(*priority == 0, "priority", || Doc::plain(priority))
        .unless(*fallback == Fallback::Forbid, "fallback", || Doc::plain("Allow"))
        .unless(*reply == Reply::Id, "reply", || {
            Doc::plain(match reply {
                Reply::Id => "Id",
                Reply::Text => "Text",
                Reply::Raw => "Raw",
            })
        })
        .done()
        .render()
}

/// A map in this order.
fn map(entries: impl Iterator<Item = (String, Doc)>) -> Doc {
    let items = entries.map(|(name, value)| (format!("\"{name}\": "), value)).collect();
    Doc::Block { open: "{".to_owned(), items, close: '}' }
}

fn written(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::F64 => "F64",
        DType::U32 => "U32",
    }
}

fn shape(array: &Array) -> Doc {
    Doc::list(&array.shape, |length| Doc::plain(length))
}

fn name(job: &Job, id: ArrayId) -> Doc {
    Doc::text(&job.array(id).name)
}

/// A number with a point or an exponent, or a word that is read as one.
fn number(value: f64) -> Doc {
    Doc::plain(format_args!("{value:?}"))
}

/// Nested lists.
fn elements(array: &Array, bytes: &[u8]) -> Doc {
    let mut level: Vec<Doc> = match array.dtype {
        DType::F32 => bytes.as_chunks().0.iter().map(|b| plain_float(f32::from_le_bytes(*b))).collect(),
        DType::F64 => bytes.as_chunks().0.iter().map(|b| plain_float(f64::from_le_bytes(*b))).collect(),
        DType::U32 => bytes.as_chunks().0.iter().map(|b| Doc::plain(u32::from_le_bytes(*b))).collect(),
    };
    for length in array.shape.iter().rev() {
        let length = usize::try_from(*length).unwrap_or(usize::MAX).max(1);
        let mut left = level.into_iter().peekable();
        let mut above = Vec::new();
        while left.peek().is_some() {
            let items = left.by_ref().take(length).map(|item| (String::new(), item)).collect();
            above.push(Doc::Block { open: "[".to_owned(), items, close: ']' });
        }
        level = above;
    }
    level.into_iter().next().unwrap_or_else(|| Doc::list(&[(); 0], |()| Doc::plain("")))
}

fn plain_float(value: impl std::fmt::Debug) -> Doc {
    Doc::plain(format_args!("{value:?}"))
}

fn render_step(job: &Job, step: &Step) -> Doc {
    let array = |id: &ArrayId| name(job, *id);
    let operand = |operand: &Operand| match operand {
        Operand::Array(id) => name(job, *id),
        Operand::Number(value) => number(*value),
    };
    let op = &step.op;
    match op {
        Op::Unary(_, a) | Op::Transpose(a) => Doc::tuple(op.name(), vec![array(a)]),
        Op::Binary(_, a, b) => Doc::tuple(op.name(), vec![operand(a), operand(b)]),
        Op::Cast(dtype, a) => Doc::tuple(op.name(), vec![Doc::plain(written(*dtype)), array(a)]),
        Op::Reduce(_, a, None) => Doc::tuple(op.name(), vec![array(a)]),
        Op::Reduce(_, a, Some(axis)) => Doc::tuple(op.name(), vec![array(a), Doc::plain(axis)]),
        Op::KineticEnergy { p, inv_mass } => Doc::tuple(op.name(), vec![array(p), array(inv_mass)]),
        Op::NormalLogPdf { x, mu, sigma } => {
            Doc::tuple(op.name(), vec![operand(x), operand(mu), operand(sigma)])
        }
        Op::Matmul(MatmulVariant::Auto, a, b) => Doc::tuple(op.name(), vec![array(a), array(b)]),
        Op::Matmul(variant, a, b) => {
            Doc::tuple(op.name(), vec![array(a), array(b), Doc::plain(variant.name())])
        }
        Op::Random { random, seed, offset } => {
            let fields = step.results.iter().map(|id| job.array(*id)).fold(
                Struct::named(op.name()),
                |fields, made| {
                    fields
                        .unless(*random == Random::Bits, "dtype", || Doc::plain(written(made.dtype)))
                        .field("shape", shape(made))
                },
            );
            fields
                .field("seed", Doc::plain(seed))
                .unless(*offset == 0, "offset", || Doc::plain(offset))
                .done()
        }
        Op::Leapfrog { family, q, p, inv_mass, eps } => {
            state(op, family, [q, p, inv_mass].map(array), *eps).done()
        }
        Op::Chain { family, q, p, inv_mass, eps, steps } => {
            state(op, family, [q, p, inv_mass].map(array), *eps).field("steps", Doc::plain(steps)).done()
        }
        Op::Wgsl { source, inputs, groups } => {
            let outputs = step.results.iter().map(|id| {
                let made = job.array(*id);
                let part = made.name.split_once('.').map_or("", |(_, part)| part);
                (part.to_owned(), Doc::tuple("", vec![Doc::plain(written(made.dtype)), shape(made)]))
            });
            Struct::named(op.name())
                .field("source", Doc::text(source))
                .field("inputs", Doc::list(inputs, array))
                .field("outputs", map(outputs))
                .field("groups", Doc::tuple("", groups.iter().map(Doc::plain).collect()))
                .done()
        }
    }
}

fn state(op: &Op, of: &Family, [q, p, inv_mass]: [Doc; 3], eps: f64) -> Struct {
    Struct::named(op.name())
        .field("family", family(of))
        .field("q", q)
        .field("p", p)
        .field("inv_mass", inv_mass)
        .field("eps", number(eps))
}

fn family(family: &Family) -> Doc {
    let (name, fields): (_, &[(&str, f64)]) = match family {
        Family::Normal { mu, sigma } => ("Normal", &[("mu", *mu), ("sigma", *sigma)]),
        Family::Exponential { lambda } => ("Exponential", &[("lambda", *lambda)]),
        Family::StudentT { nu, mu, sigma } => ("StudentT", &[("nu", *nu), ("mu", *mu), ("sigma", *sigma)]),
        Family::Cauchy { loc, scale } => ("Cauchy", &[("loc", *loc), ("scale", *scale)]),
        Family::HalfNormal { sigma } => ("HalfNormal", &[("sigma", *sigma)]),
        Family::Weibull { k, lambda } => ("Weibull", &[("k", *k), ("lambda", *lambda)]),
    };
    fields.iter().fold(Struct::named(name), |out, (name, value)| out.field(name, number(*value))).done()
}
