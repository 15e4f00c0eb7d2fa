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
        let elements = d.div_ceil(threads * parts);
        let block = block_iterations(threads, elements);
        // One turn more than steps.
        Self { threads, parts, steps: MAX_ITERATIONS / block * BLOCK - 1 }
    }
}

/// Of chain.wgsl, for a block: itself, its turns with their elements, the levels of the tree with its sums. Drivers count the
/// round that ends a loop, too.
fn block_iterations(threads: u32, elements: u32) -> u32 {
    let levels = threads.ilog2();
    1 + (BLOCK + 1) + BLOCK * (elements + 1) + (levels + 1) + levels * (BLOCK + 1)
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
        let push = push.u32(layout.steps.min(steps - begin)).u32(layout.threads / 2);
        constants.push(push, dtype, *eps)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_logarithms_of_gamma_is_exact() {
        // Of whole and half numbers gamma is known: gamma(1/2) is the root of pi.
        let root_pi = PI.sqrt();
        let cases = [
            (0.5, (1.0 / root_pi).ln()),
            (1.0, (root_pi / 2.0).ln()),
            (1.5, (2.0 / root_pi).ln()),
            (2.0, (0.75 * root_pi).ln()),
            (5.0, (945.0 / 32.0 / 24.0 * root_pi).ln()),
        ];
        for (x, expected) in cases {
            let error = (ln_gamma_half_step(x) - expected).abs();
            assert!(error <= 2e-15, "{x}: {error:e}");
        }
        // gamma(x + 1/2) / gamma(x) * gamma(x + 1) / gamma(x + 1/2) = x.
        for x in [1e-9, 0.3, 7.7, 31.9, 32.0, 100.0, 1e6, 1e12] {
            let sum = ln_gamma_half_step(x) + ln_gamma_half_step(x + 0.5);
            assert!((sum - x.ln()).abs() <= 4e-15 * x.ln().abs().max(1.0), "{x}: {sum}");
        }
    }

    #[test]
    fn no_dispatch_of_a_chain_makes_too_many_iterations() {
        for d in [1, 31, 32, 33, 255, 256, 257, 1000, 1024, 1025, 4097, 1 << 20, 1 << 30] {
            let Layout { threads, parts, steps } = Layout::of(d);
            assert!(threads * parts * ELEMENTS_A_THREAD >= d && threads <= 256, "{d}");
            let blocks = (steps + 1).div_ceil(BLOCK);
            let elements = d.div_ceil(threads * parts);
            let iterations = blocks * block_iterations(threads, elements);
            assert!(iterations <= 60_000 && steps > 1000, "{d}: {iterations} for {steps}");
        }
    }
}
