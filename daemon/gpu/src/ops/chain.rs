//! Leapfrog steps and chains of them, for the densities that have a file of their own in `shaders/`.
//!
//! A density's parameters are push constants: other values need no other kernel. Many steps are one dispatch, as many as
//! keep a thread's loops below the count at which some drivers stop loops silently; the rest are further dispatches,
//! which go on with the same bits.

use super::PlanError;
use super::builder::Builder;
use super::builder::Push;
use super::reduce;
use super::reduce::Fold;
use crate::program::Buffer;
use crate::wgsl;
use std::f64::consts::PI;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Family;
use zed_spec::job::Op;

/// The most elements of an instance that a thread has; a larger instance has several workgroups.
const ELEMENTS_A_THREAD: u32 = 4;

/// Steps whose log densities are summed at once: `BLOCK` of chain.wgsl.
const BLOCK: u32 = 8;

/// The most iterations that one dispatch makes in one thread, over all its loops.
const MAX_ITERATIONS: u32 = 60_000;

const CHAIN: &str = include_str!("../../../../shaders/chain.wgsl");
const CHAIN_STEP: &str = include_str!("../../../../shaders/chain_step.wgsl");
const LEAPFROG: &str = include_str!("../../../../shaders/leapfrog.wgsl");

/// What a density's shader and its CPU version take in place of the parameters that people know. What each is: the
/// density's own shader says it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Constants {
    pub(super) location: f64,
    pub(super) scale: f64,
    pub(super) shape: f64,
    pub(super) constant: f64,
}

impl Constants {
    pub(super) fn of(family: Family) -> Self {
        let none = Self { location: 0.0, scale: 1.0, shape: 0.0, constant: 0.0 };
        match family {
            Family::Normal { mu, sigma } => {
                let constant = -sigma.ln() - 0.5 * (2.0 * PI).ln();
                Self { location: mu, scale: 1.0 / sigma, constant, ..none }
            }
            Family::Exponential { lambda } => Self { location: -lambda.ln(), ..none },
            Family::StudentT { nu, mu, sigma } => {
                let constant = ln_gamma_half_step(0.5 * nu) - 0.5 * (nu * PI).ln() - sigma.ln();
                Self { location: mu, scale: 1.0 / sigma, shape: nu, constant }
            }
            Family::Cauchy { loc, scale } => {
                Self { location: loc, scale: 1.0 / scale, constant: -PI.ln() - scale.ln(), ..none }
            }
            Family::HalfNormal { sigma } => {
                Self { location: sigma.ln(), constant: 0.5 * (2.0 / PI).ln(), ..none }
            }
            Family::Weibull { k, lambda } => {
                Self { location: lambda.ln(), shape: k, constant: k.ln(), ..none }
            }
        }
    }

    fn push(self, push: Push, dtype: DType, eps: f64) -> Push {
        [eps, self.location, self.scale, self.shape, self.constant]
            .into_iter()
            .fold(push, |push, value| push.number(dtype, value))
    }
}

/// ln gamma(x + 1/2) - ln gamma(x), for x above 0: the asymptotic series (Abramowitz and Stegun 6.1.47, its logarithm) from
/// 32 on, and the recurrence of gamma up to there. The difference of two logarithms of gamma would cancel.
fn ln_gamma_half_step(mut x: f64) -> f64 {
    let mut ratio = 1.0;
    while x < 32.0 {
        ratio *= x / (x + 0.5);
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    let series = -1.0 / 8.0 + y * (1.0 / 192.0 + y * (-1.0 / 640.0 + y * (17.0 / 14336.0)));
    0.5 * x.ln() + series / x + ratio.ln()
}

/// Name and source of a density.
fn density(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Normal { .. } => ("normal", include_str!("../../../../shaders/chain_normal.wgsl")),
        Family::Exponential { .. } => {
            ("exponential", include_str!("../../../../shaders/chain_exponential.wgsl"))
        }
        Family::StudentT { .. } => ("studentt", include_str!("../../../../shaders/chain_studentt.wgsl")),
        Family::Cauchy { .. } => ("cauchy", include_str!("../../../../shaders/chain_cauchy.wgsl")),
        Family::HalfNormal { .. } => {
            ("halfnormal", include_str!("../../../../shaders/chain_halfnormal.wgsl"))
        }
        Family::Weibull { .. } => ("weibull", include_str!("../../../../shaders/chain_weibull.wgsl")),
    }
}

/// `Leapfrog`. Returns how many steps it took.
pub(super) fn plan_leapfrog(builder: &mut Builder<'_>, at: usize) -> Result<usize, PlanError> {
    let step = &builder.job().steps[at];
    let Op::Leapfrog { family, q, p, inv_mass, eps } = &step.op else { return Ok(0) };
    let array = builder.array(*q);
    let (dtype, elements) = (array.dtype, array.elements());
    let buffers = buffers(builder, at, &[*q, *p, *inv_mass], &step.results)?;
    let (name, density) = density(*family);
    let source = wgsl::link(dtype, &[LEAPFROG, CHAIN_STEP, density].concat());
    // Arrays have at most MAX_ELEMENTS.
    let push = Push::new().u32(u32::try_from(elements).unwrap_or(u32::MAX));
    let push = Constants::of(*family).push(push, dtype, *eps);
    let groups = builder.groups_for(elements, at)?;
    builder.dispatch(&format!("leapfrog-{name}-{}", dtype.name()), source, buffers, push, groups);
    Ok(1)
}

fn buffers(
    builder: &Builder<'_>,
    at: usize,
    inputs: &[ArrayId],
    results: &[ArrayId],
) -> Result<Vec<Buffer>, PlanError> {
    let buffers: Vec<Buffer> = inputs.iter().chain(results).map(|id| Buffer::Array(*id)).collect();
    if buffers.len() > builder.limits().bindings as usize {
        return Err(builder.lacks(at, format!("{} storage buffers in a kernel", buffers.len())));
    }
    Ok(buffers)
}

/// How the elements of an instance are spread, and how many steps a dispatch makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Threads of a workgroup.
    threads: u32,
    /// Workgroups of an instance.
    parts: u32,
    /// Steps of a dispatch.
    steps: u32,
}

impl Layout {
    fn of(d: u32) -> Self {
        let threads = d.clamp(32, 256).next_power_of_two();
        let parts = d.div_ceil(threads * ELEMENTS_A_THREAD);
        let others = d.div_ceil(threads * parts) - 1;
        // Of chain.wgsl, for a block: itself, its steps with the other elements, the levels of the tree with its sums.
        let iterations = 1 + BLOCK * (1 + others) + threads.ilog2() * (1 + BLOCK);
        Self { threads, parts, steps: MAX_ITERATIONS / iterations * BLOCK }
    }
}

/// `Chain`. Returns how many steps it took.
pub(super) fn plan(builder: &mut Builder<'_>, at: usize) -> Result<usize, PlanError> {
    let step = &builder.job().steps[at];
    let Op::Chain { family, q, p, inv_mass, eps, steps } = &step.op else { return Ok(0) };
    let array = builder.array(*q);
    let (dtype, d) = (array.dtype, array.shape.last().copied().unwrap_or(1));
    let instances = u32::try_from(array.elements() / u64::from(d)).unwrap_or(u32::MAX);
    let mut buffers = buffers(builder, at, &[*q, *p, *inv_mass], &step.results)?;
    let layout = Layout::of(d);
    let rows = u64::from(instances) * u64::from(*steps);
    let logp = buffers.last().copied();
    let partial = if layout.parts > 1 {
        let partial = builder.temporary(rows * u64::from(layout.parts) * dtype.size());
        if let Some(last) = buffers.last_mut() {
            *last = partial;
        }
        Some(partial)
    } else {
        None
    };
    let (name, density) = density(*family);
    let group = format!("\nconst GROUP: u32 = {}u;\n", layout.threads);
    let source = wgsl::link(dtype, &[CHAIN, CHAIN_STEP, density, &group].concat());
    let label = format!("chain-{name}-{}", dtype.name());
    let groups = builder.row_of_groups(u64::from(instances) * u64::from(layout.parts), at)?;
    let constants = Constants::of(*family);
    let push = |begin: u32| {
        let push = Push::new().u32(instances).u32(d).u32(layout.parts).u32(*steps).u32(begin);
        constants.push(push.u32(layout.steps.min(steps - begin)), dtype, *eps)
    };
    let kernel = builder.kernel(&label, source, buffers.len(), &push(0));
    for begin in (0..*steps).step_by(layout.steps as usize) {
        builder.dispatch_kernel(kernel.clone(), buffers.clone(), push(begin), groups);
    }
    if let (Some(partial), Some(logp)) = (partial, logp) {
        let fold = Fold::sum(dtype, partial, logp);
        let outer = u32::try_from(rows).unwrap_or(u32::MAX);
        reduce::reduce(builder, at, &fold, reduce::Shape { outer, length: layout.parts, inner: 1 })?;
    }
    Ok(1)
}
