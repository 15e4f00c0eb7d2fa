//! Reductions, in passes of bounded depth.
//!
//! Each pass gives every thread at most [`THREAD_SHARE`] elements, whatever the size: no loop comes near the count at which
//! some drivers stop loops silently, and a sum is a sum of sums, so that its error grows with the number of passes and not
//! with the number of elements. Knows no operation that is not a fold.

use super::PlanError;
use super::builder::Builder;
use super::builder::Push;
use crate::program::Buffer;
use crate::wgsl;
use zed_spec::job::Array;
use zed_spec::job::DType;
use zed_spec::job::Op;
use zed_spec::job::Reduction;

/// The most elements that a thread combines in one pass.
const THREAD_SHARE: u32 = 64;

/// The shortest row for a workgroup: four elements a thread.
const GROUP_FROM: u32 = 1024;

/// Elements that a workgroup combines in one pass: `CHUNK` of reduce_groups.wgsl.
const GROUP_SHARE: u32 = 4096;

const THREADS: &str = include_str!("../../../../shaders/reduce_threads.wgsl");
const GROUPS: &str = include_str!("../../../../shaders/reduce_groups.wgsl");

const INPUT: &str = "@group(0) @binding(0) var<storage, read> input: array<real>;\n";
const OUTPUT: &str = "@group(0) @binding(1) var<storage, read_write> output: array<real>;\n";
const SECOND: &str = "@group(0) @binding(2) var<storage, read> second: array<real>;\n";

/// What a fold runs over: element (o, r, i) of [outer, length, inner] goes into result (o, i).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) outer: u32,
    pub(super) length: u32,
    pub(super) inner: u32,
}

impl Shape {
    /// Of one axis of an array, or of all its elements.
    pub(super) fn of(array: &Array, axis: Option<u8>) -> Self {
        let product = |lengths: &[u32]| lengths.iter().product();
        match axis.map(usize::from) {
            Some(axis) if axis < array.shape.len() => Self {
                outer: product(&array.shape[..axis]),
                length: array.shape[axis],
                inner: product(&array.shape[axis + 1..]),
            },
            _ => Self { outer: 1, length: product(&array.shape), inner: 1 },
        }
    }
}

/// How two values become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Combine {
    Add,
    Min,
    Max,
}

impl Combine {
    fn source(self) -> &'static str {
        match self {
            Combine::Add => "fn combine(a: real, b: real) -> real { return a + b; }\n",
            Combine::Min => {
                "fn combine(a: real, b: real) -> real { return select(a, b, b < a || is_nan_real(b)); }\n"
            }
            Combine::Max => {
                "fn combine(a: real, b: real) -> real { return select(a, b, b > a || is_nan_real(b)); }\n"
            }
        }
    }
}

/// What becomes of an element before it is combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Nothing.
    Plain,
    /// Times the element of the second array at the place on the axis: products of matrix and vector.
    Weighted,
    /// x^2 * m / 2, m of the second array.
    Kinetic,
    /// e^(x - peak), the peak of each result in the second array.
    Exp,
}

impl Load {
    fn source(self) -> &'static str {
        match self {
            Load::Plain => {
                "fn prepare(result: u32) {}\n\
                 fn load(base: u32, element: u32) -> real { return input[base + element]; }\n"
            }
            Load::Weighted => {
                "fn prepare(result: u32) {}\n\
                 fn load(base: u32, element: u32) -> real {\n    \
                     return input[base + element] * second[element / push.inner];\n\
                 }\n"
            }
            Load::Kinetic => {
                "fn prepare(result: u32) {}\n\
                 fn load(base: u32, element: u32) -> real {\n    \
                     let p = input[base + element];\n    \
                     return real(0.5) * p * p * second[base + element];\n\
                 }\n"
            }
            // The peak itself is 1, also where it is infinite.
            Load::Exp => {
                "var<private> peak: real;\n\
                 fn prepare(result: u32) { peak = second[result]; }\n\
                 fn load(base: u32, element: u32) -> real {\n    \
                     let x = input[base + element];\n    \
                     if x == peak { return real(1.0); }\n    \
                     return exp_real(x - peak);\n\
                 }\n"
            }
        }
    }
}

/// What becomes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// Nothing.
    Plain,
    /// Its logarithm, plus the peak of the second array.
    Log,
}

impl Store {
    fn source(self) -> &'static str {
        match self {
            Store::Plain => "fn store(result: u32, value: real) { output[result] = value; }\n",
            Store::Log => {
                "fn store(result: u32, value: real) { output[result] = second[result] + log_real(value); }\n"
            }
        }
    }
}

/// One fold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fold {
    pub(super) dtype: DType,
    pub(super) combine: Combine,
    pub(super) load: Load,
    pub(super) store: Store,
    pub(super) input: Buffer,
    /// What [`Load`] and [`Store`] call the second array.
    pub(super) second: Option<Buffer>,
    pub(super) output: Buffer,
}

impl Fold {
    /// The sum of `input`.
    pub(super) fn sum(dtype: DType, input: Buffer, output: Buffer) -> Self {
        let (load, store) = (Load::Plain, Store::Plain);
        Self { dtype, combine: Combine::Add, load, store, input, second: None, output }
    }
}

/// How one pass goes over a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pass {
    /// A workgroup a result, not a thread.
    grouped: bool,
    /// Results of each of `outer`.
    width: u32,
}

impl Pass {
    /// Long contiguous rows are for workgroups. Short rows, which would leave most of a workgroup idle, and columns, whose
    /// neighbours are those of other results, are for threads; so is everything where barriers are dear.
    fn of(shape: Shape, on_cpu_driver: bool) -> Self {
        if shape.inner == 1 && shape.length >= GROUP_FROM && !on_cpu_driver {
            Self { grouped: true, width: shape.length.div_ceil(GROUP_SHARE) }
        } else {
            Self { grouped: false, width: shape.length.div_ceil(THREAD_SHARE) * shape.inner }
        }
    }
}

/// `Sum`, `ReduceMin`, `ReduceMax`, `LogSumExp`, `KineticEnergy`. Returns how many steps it took.
pub(super) fn plan(builder: &mut Builder<'_>, at: usize) -> Result<usize, PlanError> {
    let step = &builder.job().steps[at];
    let Some(output) = step.results.first().map(|id| Buffer::Array(*id)) else { return Ok(1) };
    let (input, axis) = match &step.op {
        Op::Reduce(_, input, axis) => (*input, *axis),
        Op::KineticEnergy { p, .. } => (*p, None),
        _ => return Ok(0),
    };
    let array = builder.array(input);
    let shape = Shape::of(array, axis);
    let fold = Fold::sum(array.dtype, Buffer::Array(input), output);
    match &step.op {
        Op::Reduce(Reduction::ReduceMin, ..) => {
            reduce(builder, at, &Fold { combine: Combine::Min, ..fold }, shape)?;
        }
        Op::Reduce(Reduction::ReduceMax, ..) => {
            reduce(builder, at, &Fold { combine: Combine::Max, ..fold }, shape)?;
        }
        Op::Reduce(Reduction::LogSumExp, ..) => {
            let results = u64::from(shape.outer) * u64::from(shape.inner);
            let peak = builder.temporary(results * fold.dtype.size());
            reduce(builder, at, &Fold { combine: Combine::Max, output: peak, ..fold }, shape)?;
            let fold = Fold { load: Load::Exp, store: Store::Log, second: Some(peak), ..fold };
            reduce(builder, at, &fold, shape)?;
        }
        Op::KineticEnergy { inv_mass, .. } => {
            let second = Some(Buffer::Array(*inv_mass));
            reduce(builder, at, &Fold { load: Load::Kinetic, second, ..fold }, shape)?;
        }
        _ => reduce(builder, at, &fold, shape)?,
    }
    Ok(1)
}

/// Dispatches the passes of a fold.
pub(super) fn reduce(
    builder: &mut Builder<'_>,
    at: usize,
    fold: &Fold,
    mut shape: Shape,
) -> Result<(), PlanError> {
    let mut input = fold.input;
    let mut load = fold.load;
    loop {
        let pass = Pass::of(shape, builder.on_cpu_driver());
        let last = pass.width == shape.inner;
        let results = u64::from(shape.outer) * u64::from(pass.width);
        let output = if last { fold.output } else { builder.temporary(results * fold.dtype.size()) };
        let store = if last { fold.store } else { Store::Plain };
        let second = fold.second.filter(|_| load != Load::Plain || store != Store::Plain);
        let push =
            Push::new().u32(shape.outer).u32(shape.length * shape.inner).u32(pass.width).u32(shape.inner);
        let groups = if pass.grouped {
            builder.row_of_groups(results, at)?
        } else {
            builder.groups_for(results, at)?
        };
        let source = source(fold.dtype, pass, fold.combine, load, store);
        let label = if pass.grouped { "reduce-groups" } else { "reduce-threads" };
        let buffers = [input, output].into_iter().chain(second).collect();
        builder.dispatch(&format!("{label}-{}", fold.dtype.name()), source, buffers, push, groups);
        if last {
            return Ok(());
        }
        shape.length = pass.width / shape.inner;
        input = output;
        load = Load::Plain;
    }
}

fn source(dtype: DType, pass: Pass, combine: Combine, load: Load, store: Store) -> String {
    let second = if load != Load::Plain || store != Store::Plain { SECOND } else { "" };
    let frame = if pass.grouped { GROUPS } else { THREADS };
    let parts = [INPUT, OUTPUT, second, load.source(), combine.source(), store.source(), frame];
    wgsl::link(dtype, &parts.concat())
}
