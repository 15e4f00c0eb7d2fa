//! Matrix products and transposition.
//!
//! Owns which variant is taken for which size and how a long inner axis is split, so that no thread's loop comes near the
//! count at which some drivers stop loops silently.

use super::PlanError;
use super::builder::Builder;
use super::builder::Push;
use super::reduce;
use super::reduce::Fold;
use crate::program::Buffer;
use crate::wgsl;
use zed_spec::job::DType;
use zed_spec::job::MatmulVariant;
use zed_spec::job::Op;

/// The most elements of the inner axis that one dispatch sums: at most 6/16 of as many iterations in any variant. A
/// multiple of every tile.
const MAX_CHUNK: u32 = 1 << 17;

/// The fewest elements of the inner axis that are worth a split.
const MIN_CHUNK: u32 = 512;

/// As many workgroups keep a device busy; with fewer the inner axis is split.
const BUSY_GROUPS: u64 = 256;

const NAIVE: &str = include_str!("../../../../shaders/matmul_naive.wgsl");
const TILED: &str = include_str!("../../../../shaders/matmul_tiled.wgsl");
const TILED_16X2: &str = include_str!("../../../../shaders/matmul_tiled16x2.wgsl");
const TRANSPOSE: &str = include_str!("../../../../shaders/transpose.wgsl");

/// [m, k] times [k, n].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    m: u32,
    n: u32,
    k: u32,
}

impl Size {
    fn multiplications(self) -> u64 {
        u64::from(self.m) * u64::from(self.n) * u64::from(self.k)
    }

    fn results(self) -> u64 {
        u64::from(self.m) * u64::from(self.n)
    }
}

/// The variant that `Auto` stands for. On a driver for CPUs the naive one is two to four times as fast as those with shared
/// memory, at all sizes from 64 on.
fn choose(size: Size, on_cpu_driver: bool) -> MatmulVariant {
    match size.multiplications() {
        _ if on_cpu_driver => MatmulVariant::Naive,
        0..4096 => MatmulVariant::Naive,
        4096..0x100_0000 => MatmulVariant::Tiled,
        _ => MatmulVariant::Tiled16x2,
    }
}

/// `Matmul`. Returns how many steps it took.
pub(super) fn plan(builder: &mut Builder<'_>, at: usize) -> Result<usize, PlanError> {
    let step = &builder.job().steps[at];
    let (Op::Matmul(variant, a, b), [result]) = (&step.op, step.results.as_slice()) else { return Ok(0) };
    let (left, right) = (builder.array(*a), builder.array(*b));
    let (&[m, k], &[_, n]) = (left.shape.as_slice(), right.shape.as_slice()) else { return Ok(0) };
    let product = Product {
        dtype: left.dtype,
        size: Size { m, n, k },
        a: Buffer::Array(*a),
        b: Buffer::Array(*b),
        output: Buffer::Array(*result),
    };
    match variant {
        MatmulVariant::Auto if m == 1 || n == 1 => product.with_vector(builder, at)?,
        MatmulVariant::Auto => {
            product.of_matrices(builder, at, choose(product.size, builder.on_cpu_driver()))?
        }
        _ => product.of_matrices(builder, at, *variant)?,
    }
    Ok(1)
}

#[derive(Debug, Clone, Copy)]
struct Product {
    dtype: DType,
    size: Size,
    a: Buffer,
    b: Buffer,
    output: Buffer,
}

impl Product {
    /// One factor is a vector: a weighted sum over an axis of the other.
    fn with_vector(self, builder: &mut Builder<'_>, at: usize) -> Result<(), PlanError> {
        let Size { m, n, k } = self.size;
        let (input, second, shape) = if n == 1 {
            (self.a, self.b, reduce::Shape { outer: m, length: k, inner: 1 })
        } else {
            (self.b, self.a, reduce::Shape { outer: 1, length: k, inner: n })
        };
        let load = reduce::Load::Weighted;
        let fold = Fold { load, second: Some(second), ..Fold::sum(self.dtype, input, self.output) };
        reduce::reduce(builder, at, &fold, shape)
    }

    fn of_matrices(
        self,
        builder: &mut Builder<'_>,
        at: usize,
        variant: MatmulVariant,
    ) -> Result<(), PlanError> {
        if variant == MatmulVariant::Tiled32 && builder.limits().workgroup_threads < 1024 {
            return Err(builder.lacks(at, "workgroups of 1024 threads".to_owned()));
        }
        let size = self.size;
        let blocks = groups(size, variant);
        let (chunk, splits) = split(size.k, blocks);
        let results = size.results();
        let output = if splits == 1 {
            self.output
        } else {
            builder.temporary(u64::from(splits) * results * self.dtype.size())
        };
        let push = Push::new().u32(size.m).u32(size.n).u32(size.k).u32(splits).u32(chunk);
        let groups = match variant {
            MatmulVariant::Naive => builder.groups_for(results * u64::from(splits), at)?,
            _ => builder.row_of_groups(blocks * u64::from(splits), at)?,
        };
        let (label, source) = source(variant, self.dtype);
        let label = format!("{label}-{}", self.dtype.name());
        builder.dispatch(&label, source, vec![self.a, self.b, output], push, groups);
        if splits > 1 {
            let inner = size.m * size.n;
            let shape = reduce::Shape { outer: 1, length: splits, inner };
            reduce::reduce(builder, at, &Fold::sum(self.dtype, output, self.output), shape)?;
        }
        Ok(())
    }
}

/// How many workgroups an unsplit product has.
fn groups(size: Size, variant: MatmulVariant) -> u64 {
    let tiles =
        |rows: u32, columns: u32| u64::from(size.m.div_ceil(rows)) * u64::from(size.n.div_ceil(columns));
    match variant {
        MatmulVariant::Auto | MatmulVariant::Naive => size.results().div_ceil(256),
        MatmulVariant::Tiled => tiles(16, 16),
        MatmulVariant::Tiled32 => tiles(32, 32),
        MatmulVariant::Tiled16x2 => tiles(32, 16),
    }
}

/// How much of the inner axis each split sums, and how many splits there are.
fn split(k: u32, groups: u64) -> (u32, u32) {
    let wanted = u32::try_from(BUSY_GROUPS / groups.max(1)).unwrap_or(1);
    let splits = wanted.min(k / MIN_CHUNK).max(k.div_ceil(MAX_CHUNK)).max(1);
    let chunk = k.div_ceil(splits).next_multiple_of(32);
    (chunk, k.div_ceil(chunk))
}

fn source(variant: MatmulVariant, dtype: DType) -> (&'static str, String) {
    let tiled = |tile: u32| wgsl::link(dtype, &format!("{TILED}\nconst TILE: u32 = {tile}u;\n"));
    match variant {
        MatmulVariant::Auto | MatmulVariant::Naive => ("matmul-naive", wgsl::link(dtype, NAIVE)),
        MatmulVariant::Tiled => ("matmul-tiled", tiled(16)),
        MatmulVariant::Tiled32 => ("matmul-tiled32", tiled(32)),
        MatmulVariant::Tiled16x2 => ("matmul-tiled16x2", wgsl::link(dtype, TILED_16X2)),
    }
}

/// `Transpose`. Returns how many steps it took.
pub(super) fn plan_transpose(builder: &mut Builder<'_>, at: usize) -> Result<usize, PlanError> {
    let step = &builder.job().steps[at];
    let (Op::Transpose(input), [result]) = (&step.op, step.results.as_slice()) else { return Ok(0) };
    let array = builder.array(*input);
    let &[m, n] = array.shape.as_slice() else { return Ok(0) };
    let dtype = array.dtype;
    let tiles = u64::from(m.div_ceil(16)) * u64::from(n.div_ceil(16));
    let groups = builder.row_of_groups(tiles, at)?;
    let buffers = vec![Buffer::Array(*input), Buffer::Array(*result)];
    let push = Push::new().u32(m).u32(n);
    let source = wgsl::link(dtype, TRANSPOSE);
    builder.dispatch(&format!("transpose-{}", dtype.name()), source, buffers, push, groups);
    Ok(1)
}
