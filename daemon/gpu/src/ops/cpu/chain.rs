//! Leapfrog steps and chains on the CPU: instances on all cores.

use super::Cpu;
use super::Values;
use super::parallel;
use crate::ops::chain::Constants;
use zed_spec::job::Family;
use zed_spec::job::Op;
use zed_spec::job::Step;

/// Log density over unconstrained z, with Jacobian and normaliser, and its derivative.
#[derive(Debug, Clone, Copy)]
struct Density {
    logp: f64,
    grad: f64,
}

/// A density, with what its shader takes.
#[derive(Debug, Clone, Copy)]
struct Model {
    family: Family,
    constants: Constants,
    eps: f64,
}

/// Position, momentum, gradient.
#[derive(Debug, Clone, Copy)]
struct State {
    q: f64,
    p: f64,
    grad: f64,
}

impl Model {
    fn of(family: Family, eps: f64) -> Self {
        Self { family, constants: Constants::of(family), eps }
    }

    fn density(&self, z: f64) -> Density {
        let Constants { location, scale, shape, constant } = self.constants;
        let d = (z - location) * scale;
        match self.family {
            Family::Normal { .. } => Density { logp: constant - 0.5 * d * d, grad: -d * scale },
            Family::Exponential { .. } => Density { logp: d - d.exp(), grad: 1.0 - d.exp() },
            Family::StudentT { .. } => Density {
                logp: constant - 0.5 * (shape + 1.0) * (d * d / shape).ln_1p(),
                grad: -(shape + 1.0) * d * scale / (shape + d * d),
            },
            Family::Cauchy { .. } => {
                Density { logp: constant - (d * d).ln_1p(), grad: -2.0 * d * scale / (1.0 + d * d) }
            }
            Family::HalfNormal { .. } => {
                let e = (2.0 * d).exp();
                Density { logp: constant + d - 0.5 * e, grad: 1.0 - e }
            }
            Family::Weibull { .. } => {
                let e = (shape * d).exp();
                Density { logp: constant + shape * d - e, grad: shape * (1.0 - e) }
            }
        }
    }

    fn start(&self, q: f64, p: f64) -> State {
        State { q, p, grad: self.density(q).grad }
    }

    /// One leapfrog step, and the log density where it ends.
    fn step(&self, state: State, inv_mass: f64) -> (State, f64) {
        let middle = state.p + 0.5 * self.eps * state.grad;
        let q = state.q + self.eps * inv_mass * middle;
        let there = self.density(q);
        (State { q, p: middle + 0.5 * self.eps * there.grad, grad: there.grad }, there.logp)
    }
}

/// `Leapfrog`.
pub(super) fn run_leapfrog(cpu: &mut Cpu<'_>, step: &Step) {
    let Op::Leapfrog { family, q, p, inv_mass, eps } = &step.op else { return };
    let [q_next, p_next] = step.results.as_slice() else { return };
    let array = cpu.job().array(*q);
    let (dtype, elements) = (array.dtype, array.elements() as usize);
    let (q, p, inv_mass) = (cpu.get(*q), cpu.get(*p), cpu.get(*inv_mass));
    let model = Model::of(*family, *eps);
    let next: Vec<State> =
        (0..elements).map(|i| model.step(model.start(q.at(i), p.at(i)), inv_mass.at(i)).0).collect();
    cpu.set(*q_next, Values::rounded(dtype, next.iter().map(|state| state.q)));
    cpu.set(*p_next, Values::rounded(dtype, next.iter().map(|state| state.p)));
}

/// The rows of one instance.
struct Rows {
    states: Vec<State>,
    logp: Vec<f64>,
}

/// `Chain`.
pub(super) fn run(cpu: &mut Cpu<'_>, step: &Step) {
    let Op::Chain { family, q, p, inv_mass, eps, steps } = &step.op else { return };
    let [q_chain, p_chain, grad_chain, logp_chain] = step.results.as_slice() else { return };
    let array = cpu.job().array(*q);
    let (dtype, d) = (array.dtype, array.shape.last().copied().unwrap_or(1) as usize);
    let instances = array.elements() as usize / d;
    let (q, p, inv_mass) = (cpu.get(*q), cpu.get(*p), cpu.get(*inv_mass));
    let model = Model::of(*family, *eps);
    let steps = *steps as usize;
    // About 32 operations an element and step.
    let chains = parallel::collect(instances, 32 * d * steps, |instance| {
        let place = |i: usize| instance * d + i;
        let mut states: Vec<State> = (0..d).map(|i| model.start(q.at(place(i)), p.at(place(i)))).collect();
        let mut rows = Rows { states: Vec::with_capacity(d * steps), logp: Vec::with_capacity(steps) };
        for _ in 0..steps {
            let mut logp = 0.0;
            for (i, state) in states.iter_mut().enumerate() {
                let (next, lp) = model.step(*state, inv_mass.at(place(i)));
                *state = next;
                logp += lp;
            }
            rows.states.extend_from_slice(&states);
            rows.logp.push(logp);
        }
        rows
    });
    let states = || chains.iter().flat_map(|rows| &rows.states);
    cpu.set(*q_chain, Values::rounded(dtype, states().map(|state| state.q)));
    cpu.set(*p_chain, Values::rounded(dtype, states().map(|state| state.p)));
    cpu.set(*grad_chain, Values::rounded(dtype, states().map(|state| state.grad)));
    cpu.set(*logp_chain, Values::rounded(dtype, chains.iter().flat_map(|rows| rows.logp.iter().copied())));
}
