//! Leapfrog steps and chains.

use crate::LIMITS;
use crate::REALS;
use crate::Work;
use crate::common::engine;
use crate::noise;
use crate::rounded;
use crate::unit;
use std::sync::Arc;
use zed_gpu::node::Engine;
use zed_gpu::program::Author;
use zed_gpu::program::Kernel;
use zed_gpu::program::Program;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Family;
use zed_spec::job::Op;

/// Where a chain begins.
#[derive(Clone)]
struct Start {
    q: Vec<f64>,
    p: Vec<f64>,
    inv_mass: Vec<f64>,
}

impl Start {
    fn of(count: usize) -> Self {
        let inv_mass = noise(count, 13).iter().map(|x| 1.0 + 0.5 * x).collect();
        Self { q: noise(count, 11), p: noise(count, 12), inv_mass }
    }

    /// As the type holds it: both sides begin with the same numbers.
    fn rounded(&self, dtype: DType) -> Self {
        let of = |values: &[f64]| rounded(dtype, values);
        Self { q: of(&self.q), p: of(&self.p), inv_mass: of(&self.inv_mass) }
    }
}

/// How a chain goes.
#[derive(Clone, Copy)]
struct Way {
    family: Family,
    dtype: DType,
    eps: f64,
    steps: u32,
}

/// Rows of q, of p, of the gradient; log densities.
type Rows = [Vec<f64>; 4];

fn chain(way: Way, instances: Option<u32>, start: &Start) -> Work {
    let Way { family, dtype, eps, steps } = way;
    let d = u32::try_from(start.q.len()).unwrap() / instances.unwrap_or(1);
    let with = |tail: &[u32]| instances.into_iter().chain(tail.iter().copied()).collect::<Vec<u32>>();
    let (shape, rows, logp) = (with(&[d]), with(&[steps, d]), with(&[steps]));
    let (q, p, inv_mass) = (ArrayId(0), ArrayId(1), ArrayId(2));
    let op = Op::Chain { family, q, p, inv_mass, eps, steps };
    let inputs =
        [&start.q, &start.p, &start.inv_mass].map(|values| (dtype, shape.as_slice(), values.as_slice()));
    let row = (dtype, rows.as_slice());
    Work::new(op, &inputs, &[row, row, row, (dtype, &logp)])
}

fn leapfrog(way: Way, start: &Start) -> Work {
    let Way { family, dtype, eps, .. } = way;
    let shape = [u32::try_from(start.q.len()).unwrap()];
    let (q, p, inv_mass) = (ArrayId(0), ArrayId(1), ArrayId(2));
    let op = Op::Leapfrog { family, q, p, inv_mass, eps };
    let inputs =
        [&start.q, &start.p, &start.inv_mass].map(|values| (dtype, shape.as_slice(), values.as_slice()));
    Work::new(op, &inputs, &[(dtype, &shape), (dtype, &shape)])
}

fn on_cpu(way: Way, start: &Start) -> Rows {
    chain(way, None, start).on_cpu().try_into().unwrap()
}

fn on(engine: &mut Engine, way: Way, start: &Start) -> Rows {
    chain(way, None, start).on(engine).try_into().unwrap()
}

/// With the parameters of the known answers.
const FAMILIES: [Family; 6] = [
    Family::Normal { mu: 0.0, sigma: 1.0 },
    Family::Exponential { lambda: 2.0 },
    Family::StudentT { nu: 3.0, mu: 0.0, sigma: 1.0 },
    Family::Cauchy { loc: 0.0, scale: 1.0 },
    Family::HalfNormal { sigma: 1.0 },
    Family::Weibull { k: 2.0, lambda: 1.0 },
];

/// With parameters that are all different from 0 and 1.
const OTHERS: [Family; 6] = [
    Family::Normal { mu: 0.7, sigma: 2.5 },
    Family::Exponential { lambda: 0.3 },
    Family::StudentT { nu: 7.5, mu: -0.4, sigma: 1.7 },
    Family::Cauchy { loc: 0.6, scale: 0.8 },
    Family::HalfNormal { sigma: 2.2 },
    Family::Weibull { k: 1.4, lambda: 0.6 },
];

fn families() -> impl Iterator<Item = Family> {
    FAMILIES.into_iter().chain(OTHERS)
}

/// From q = 0.3, p = 1, mass 1, step 0.05: q, p, gradient and log density after one step and after three, computed
/// independently of this program.
const GOLDEN: [[[f64; 4]; 2]; 6] = [
    [
        [0.349625, 0.983759375, -0.349625, -0.980057353517173],
        [0.44613093515625, 0.943946679746094, -0.44613093515625, -1.01845493885637],
    ],
    [
        [0.34787535298106, 0.911704273040529, -1.83211146322685, -1.79108892968584],
        [0.429571949104125, 0.716200454006334, -2.07319927980405, -1.95048015013998],
    ],
    [
        [0.349514563106796, 0.97909662396909, -0.447785526673309, -1.08071468758324],
        [0.445044888912816, 0.928788462463593, -0.556642714182298, -1.12875612180363],
    ],
    [
        [0.349311926605505, 0.97067230809785, -0.622648960489667, -1.25985946827163],
        [0.443107582383289, 0.902287798694345, -0.740769311029707, -1.32400040091686],
    ],
    [
        [0.348972351499512, 0.954206577541466, -1.00961809795084, -0.881628050120638],
        [0.438855836614146, 0.833568850011793, -1.40538908752815, -0.989630059794655],
    ],
    [
        [0.347944702999024, 0.908619461102728, -2.01098395510987, -0.616455390996942],
        [0.427853008562102, 0.672169495170382, -2.70607015464839, -0.804181879640043],
    ],
];

#[test]
fn chains_give_the_golden_vectors() {
    let mut engine = engine("chains_give_the_golden_vectors");
    let start = Start { q: vec![0.3], p: vec![1.0], inv_mass: vec![1.0] };
    for (family, golden) in FAMILIES.into_iter().zip(GOLDEN) {
        for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-5)] {
            let way = Way { family, dtype, eps: 0.05, steps: 3 };
            let device = engine.as_mut().map(|engine| on(engine, way, &start)).into_iter();
            for rows in device.chain([on_cpu(way, &start)]) {
                for (row, golden) in [0, 2].into_iter().zip(golden) {
                    for (values, golden) in rows.iter().zip(golden) {
                        let error = (values[row] - golden).abs();
                        assert!(
                            error <= tolerance * golden.abs().max(1.0),
                            "{family:?} {dtype:?} {row}: {error:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_leapfrog_step_is_the_first_row_of_a_chain() {
    let mut engine = engine("a_leapfrog_step");
    for family in families() {
        for dtype in REALS {
            let start = Start::of(700).rounded(dtype);
            let way = Way { family, dtype, eps: 0.2, steps: 1 };
            let step = leapfrog(way, &start);
            assert_eq!(step.on_cpu()[..], on_cpu(way, &start)[..2]);
            if let Some(engine) = &mut engine {
                assert_eq!(step.on(engine)[..], on(engine, way, &start)[..2], "{family:?} {dtype:?}");
            }
        }
    }
}

/// Log density and gradient of each position by itself: one step of size 0, one instance each.
fn density(engine: Option<&mut Engine>, family: Family, dtype: DType, q: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let count = q.len();
    let start = Start { q: q.to_vec(), p: vec![0.0; count], inv_mass: vec![1.0; count] };
    let way = Way { family, dtype, eps: 0.0, steps: 1 };
    let work = chain(way, Some(u32::try_from(count).unwrap()), &start);
    let mut rows = engine.map_or_else(|| work.on_cpu(), |engine| work.on(engine));
    let logp = rows.pop().unwrap();
    (logp, rows.pop().unwrap())
}

#[test]
fn gradients_are_the_slopes_of_the_log_density() {
    let mut engine = engine("gradients_are_the_slopes");
    for family in families() {
        for (dtype, h, relative, absolute) in [(DType::F64, 1e-5, 1e-7, 1e-7), (DType::F32, 1e-3, 5e-3, 2e-3)]
        {
            let q: Vec<f64> = noise(200, 21).iter().map(|x| 1.5 * x).collect();
            let moved = |by: f64| rounded(dtype, &q.iter().map(|q| q + by).collect::<Vec<_>>());
            let (lower, upper) = (moved(-h), moved(h));
            let mut of =
                |q: &[f64]| [density(engine.as_mut(), family, dtype, q), density(None, family, dtype, q)];
            let (at, below, above) = (of(&rounded(dtype, &q)), of(&lower), of(&upper));
            for side in 0..2 {
                for i in 0..q.len() {
                    let slope = (above[side].0[i] - below[side].0[i]) / (upper[i] - lower[i]);
                    let gradient = at[side].1[i];
                    let bound = (relative * gradient.abs()).max(absolute);
                    assert!((slope - gradient).abs() <= bound, "{family:?} {dtype:?}: {slope} {gradient}");
                }
            }
        }
    }
}

#[test]
fn densities_integrate_to_one() {
    // The normaliser and the Jacobian: over z, exp(logp) is a density.
    for family in families() {
        let (steps, width) = (40_000, 400.0);
        // The tails of Cauchy and Student are outside of any window: compared with their own distribution functions.
        let missing = match family {
            Family::Cauchy { loc, scale } => {
                let tail = |x: f64| 0.5 - (x / scale).atan() / std::f64::consts::PI;
                tail(0.5 * width - loc) + tail(0.5 * width + loc)
            }
            _ => 0.0,
        };
        let h = width / f64::from(steps);
        let z: Vec<f64> = (0..steps).map(|i| (f64::from(i) + 0.5) * h - 0.5 * width).collect();
        let total: f64 = density(None, family, DType::F64, &z).0.iter().map(|logp| logp.exp()).sum();
        let bound = if matches!(family, Family::StudentT { nu, .. } if nu < 4.0) { 1e-5 } else { 1e-8 };
        assert!((total * h + missing - 1.0).abs() <= bound, "{family:?}: {}", total * h + missing);
    }
}

/// How far a chain that goes there and back ends from where it began.
fn distance_after_return(family: Family, run: &mut dyn FnMut(Way, &Start) -> Rows) -> f64 {
    let start = Start::of(50);
    let way = Way { family, dtype: DType::F64, eps: 0.1, steps: 20 };
    let last = |values: &[f64]| values[values.len() - 50..].to_vec();
    let there = run(way, &start);
    let turned = Start { q: last(&there[0]), p: last(&there[1]), inv_mass: start.inv_mass.clone() };
    let back = run(Way { eps: -way.eps, ..way }, &turned);
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    distance(&last(&back[0]), &start.q).max(distance(&last(&back[1]), &start.p))
}

/// The catalogue's program with something changed in its source.
fn changed(work: &Work, from: &str, to: &str) -> Program {
    let mut program = work.program(&LIMITS).unwrap();
    for dispatch in &mut program.dispatches {
        let kernel = &dispatch.kernel;
        assert!(kernel.source.contains(from));
        let source = kernel.source.replace(from, to);
        dispatch.kernel =
            Arc::new(Kernel::new("changed", source, Author::Catalogue, kernel.bindings, kernel.push_bytes));
    }
    program
}

#[test]
fn chains_go_back_the_way_they_came_and_one_with_a_wrong_sign_does_not() {
    let mut engine = engine("chains_go_back");
    for family in families() {
        let distance = distance_after_return(family, &mut |way, start| on_cpu(way, start));
        assert!(distance <= 1e-11, "{family:?}: {distance:e}");
        let Some(engine) = &mut engine else { continue };
        let distance = distance_after_return(family, &mut |way, start| on(engine, way, start));
        assert!(distance <= 1e-11, "{family:?}: {distance:e}");
        let mut wrong = |way: Way, start: &Start| {
            let work = chain(way, None, start);
            let program = changed(&work, "fma(half, old.grad, old.p)", "fma(-half, old.grad, old.p)");
            Rows::try_from(work.by(engine, program)).unwrap()
        };
        let distance = distance_after_return(family, &mut wrong);
        assert!(distance > 1e-3, "{family:?}: {distance:e}");
    }
}

/// Largest change of the energy on the way, for a step size and for half of it.
fn energy_errors(family: Family, run: &mut dyn FnMut(Way, &Start) -> Rows) -> [f64; 2] {
    let start = Start::of(1);
    let energy = |q_logp: f64, p: f64| 0.5 * p * p * start.inv_mass[0] - q_logp;
    let (logp, _) = density(None, family, DType::F64, &start.q);
    let first = energy(logp[0], start.p[0]);
    [(0.1, 16), (0.05, 32)].map(|(eps, steps)| {
        let rows = run(Way { family, dtype: DType::F64, eps, steps }, &start);
        let errors = rows[3].iter().zip(&rows[1]).map(|(logp, p)| (energy(*logp, *p) - first).abs());
        errors.fold(0.0, f64::max)
    })
}

#[test]
fn half_the_step_size_has_a_quarter_of_the_energy_error() {
    let mut engine = engine("half_the_step_size");
    for family in families() {
        let device =
            engine.as_mut().map(|engine| energy_errors(family, &mut |way, start| on(engine, way, start)));
        let cpu = energy_errors(family, &mut |way, start| on_cpu(way, start));
        for [whole, half] in device.into_iter().chain([cpu]) {
            let ratio = whole / half;
            assert!((3.0..5.0).contains(&ratio), "{family:?}: {whole:e} / {half:e} = {ratio}");
        }
    }
    // The gradient of another sign is a force uphill: the energy is not kept.
    let Some(engine) = &mut engine else { return };
    let mut uphill = |way: Way, start: &Start| {
        let work = chain(way, None, start);
        let program = changed(
            &work,
            "Density(fma(f64(-0.5) * d, d, push.constant), -d",
            "Density(fma(f64(-0.5) * d, d, push.constant), d",
        );
        Rows::try_from(work.by(engine, program)).unwrap()
    };
    let [whole, half] = energy_errors(FAMILIES[0], &mut uphill);
    assert!(whole / half < 2.0, "{whole:e} / {half:e}");
}

#[test]
fn a_shorter_chain_is_the_beginning_of_a_longer_one_bit_for_bit() {
    let Some(mut engine) = engine("a_shorter_chain") else { return };
    for family in FAMILIES {
        for (dtype, d) in [(DType::F32, 40), (DType::F64, 300)] {
            let start = Start::of(d);
            let way = |steps| Way { family, dtype, eps: 0.1, steps };
            let long = on(&mut engine, way(19), &start);
            for steps in [1, 2, 7, 8, 9, 16] {
                let short = on(&mut engine, way(steps), &start);
                for (short, long) in short.iter().zip(&long) {
                    assert_eq!(short[..], long[..short.len()], "{family:?} {dtype:?} {steps}");
                }
            }
        }
    }
}

#[test]
fn instances_of_one_dispatch_are_those_of_their_own_bit_for_bit() {
    let Some(mut engine) = engine("instances_of_one_dispatch") else { return };
    for family in FAMILIES {
        for (dtype, d) in [(DType::F32, 1), (DType::F64, 50), (DType::F64, 257), (DType::F32, 1500)] {
            let instances = 5;
            let start = Start::of(instances * d);
            let way = Way { family, dtype, eps: 0.1, steps: 4 };
            let batched = chain(way, Some(5), &start).on(&mut engine);
            for i in 0..instances {
                let part = |values: &[f64]| values[i * d..(i + 1) * d].to_vec();
                let start = Start { q: part(&start.q), p: part(&start.p), inv_mass: part(&start.inv_mass) };
                for (single, batched) in on(&mut engine, way, &start).iter().zip(&batched) {
                    let length = single.len();
                    assert_eq!(single[..], batched[i * length..(i + 1) * length], "{family:?} {dtype:?} {d}");
                }
            }
        }
    }
}

#[test]
fn chains_of_every_dimension_are_the_reference_s() {
    let Some(mut engine) = engine("chains_of_every_dimension") else { return };
    for d in [1, 2, 31, 33, 64, 255, 256, 257, 1000, 1024, 1025, 5000] {
        for (family, dtype) in families().zip([DType::F64, DType::F32].into_iter().cycle()) {
            for dtype in [dtype, if dtype == DType::F32 { DType::F64 } else { DType::F32 }] {
                let start = Start::of(d).rounded(dtype);
                let way = Way { family, dtype, eps: 0.1, steps: 9 };
                let (device, cpu) = (on(&mut engine, way, &start), on_cpu(way, &start));
                for (values, (device, cpu)) in device.iter().zip(&cpu).enumerate() {
                    // logp is a sum of d.
                    let size = if values == 3 { d as f64 } else { 1.0 };
                    for (a, b) in device.iter().zip(cpu) {
                        let bound = 64.0 * unit(dtype) * size * b.abs().max(1.0);
                        assert!((a - b).abs() <= bound, "{family:?} {dtype:?} {d} {values}: {a} {b}");
                    }
                    assert_eq!(device.len(), cpu.len());
                }
            }
        }
    }
}

#[test]
fn a_chain_of_several_dispatches_goes_on_with_the_same_bits() {
    let Some(mut engine) = engine("a_chain_of_several_dispatches") else { return };
    for (d, steps) in [(1, 20_000), (300, 6_000)] {
        for dtype in REALS {
            let start = Start::of(d);
            let way = Way { family: OTHERS[0], dtype, eps: 0.05, steps };
            assert!(chain(way, None, &start).program(&LIMITS).unwrap().dispatches.len() > 1);
            let whole = on(&mut engine, way, &start);
            // Two halves, by hand: the second computes its first gradient, where the whole carries it.
            let half = Way { steps: steps / 2, ..way };
            let first = on(&mut engine, half, &start);
            let last = |values: &[f64]| values[values.len() - d..].to_vec();
            let middle = Start { q: last(&first[0]), p: last(&first[1]), inv_mass: start.inv_mass };
            let second = on(&mut engine, half, &middle);
            for ((whole, first), second) in whole.iter().zip(&first).zip(&second) {
                assert!(
                    whole[..first.len()] == first[..] && whole[first.len()..] == second[..],
                    "{dtype:?} {d}"
                );
            }
            assert!(whole[3].iter().all(|logp| logp.is_finite()));
        }
    }
}

#[test]
fn what_is_no_number_stays_in_its_element_and_infinite_positions_give_no_density() {
    let mut engine = engine("what_is_no_number");
    for family in families() {
        for dtype in REALS {
            let d = 40;
            let mut start = Start::of(3 * d);
            start.q[d + 7] = f64::NAN;
            start.q[2 * d] = f64::INFINITY;
            let work = chain(Way { family, dtype, eps: 0.1, steps: 3 }, Some(3), &start);
            let device = engine.as_mut().map(|engine| work.on(engine)).into_iter();
            for rows in device.chain([work.on_cpu()]) {
                let finite =
                    |instance: usize, element: usize| rows[0][(instance * 3 + 2) * d + element].is_finite();
                assert!((0..d).all(|element| finite(0, element)));
                assert!((0..d).all(|element| finite(1, element) == (element != 7)), "{family:?} {dtype:?}");
                assert!((1..d).all(|element| finite(2, element)));
                assert!(rows[3][..3].iter().all(|logp| logp.is_finite()));
                assert!(rows[3][3..6].iter().all(|logp| logp.is_nan()));
                assert!(
                    rows[3][6..].iter().all(|logp| !logp.is_finite()),
                    "{family:?} {dtype:?} {:?}",
                    &rows[3][6..]
                );
            }
        }
    }
}

#[test]
fn other_parameters_need_no_other_kernel() {
    let kernels = |families: [Family; 6]| {
        families.map(|family| {
            let way = Way { family, dtype: DType::F64, eps: 0.1, steps: 3 };
            let program = chain(way, None, &Start::of(10)).program(&LIMITS).unwrap();
            program.dispatches[0].kernel.id.clone()
        })
    };
    assert_eq!(kernels(FAMILIES), kernels(OTHERS));
}

#[test]
fn a_device_with_few_bindings_is_told_what_a_chain_needs() {
    let way = Way { family: FAMILIES[0], dtype: DType::F32, eps: 0.1, steps: 3 };
    let few = zed_gpu::device::Limits { bindings: 4, ..LIMITS };
    let error = chain(way, None, &Start::of(10)).program(&few).unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 1 (Chain) needs 7 storage buffers in a kernel, which this device does not have"
    );
}
