// One workgroup a block of 32 rows x 16 columns of the product, two rows a thread; tiles of both factors go through shared
// memory. Each split of k gives a product of its own: the output is [splits, m, n].

struct Push {
    m: u32,
    n: u32,
    k: u32,
    splits: u32,
    chunk: u32,
}

var<immediate> push: Push;

@group(0) @binding(0) var<storage, read> a: array<real>;
@group(0) @binding(1) var<storage, read> b: array<real>;
@group(0) @binding(2) var<storage, read_write> product: array<real>;

var<workgroup> tile_a: array<real, 512>;
var<workgroup> tile_b: array<real, 256>;

fn load_a(row: u32, inner: u32, end: u32) -> real {
    if row < push.m && inner < end {
        return a[row * push.k + inner];
    }
    return real(0.0);
}

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let columns = (push.n + 15u) / 16u;
    let rows = (push.m + 31u) / 32u;
    let index = group.y * groups.x + group.x;
    let split = index / columns / rows;
    if split >= push.splits {
        return;
    }
    let row = (index / columns % rows) * 32u + local.y;
    let column = (index % columns) * 16u + local.x;
    let begin = split * push.chunk;
    let end = min(begin + push.chunk, push.k);

    var upper = real(0.0);
    var lower = real(0.0);
    for (var base = begin; base < end; base += 16u) {
        var right = real(0.0);
        if column < push.n && base + local.y < end {
            right = b[(base + local.y) * push.n + column];
        }
        tile_a[local.y * 16u + local.x] = load_a(row, base + local.x, end);
        tile_a[(local.y + 16u) * 16u + local.x] = load_a(row + 16u, base + local.x, end);
        tile_b[local.y * 16u + local.x] = right;
        workgroupBarrier();
        // A sum a tile: sums of sums round less.
        var upper_part = real(0.0);
        var lower_part = real(0.0);
        for (var inner = 0u; inner < 16u; inner += 4u) {
            let above = local.y * 16u + inner;
            let below = above + 256u;
            let down = inner * 16u + local.x;
            upper_part = fma(tile_a[above], tile_b[down], upper_part);
            lower_part = fma(tile_a[below], tile_b[down], lower_part);
            upper_part = fma(tile_a[above + 1u], tile_b[down + 16u], upper_part);
            lower_part = fma(tile_a[below + 1u], tile_b[down + 16u], lower_part);
            upper_part = fma(tile_a[above + 2u], tile_b[down + 32u], upper_part);
            lower_part = fma(tile_a[below + 2u], tile_b[down + 32u], lower_part);
            upper_part = fma(tile_a[above + 3u], tile_b[down + 48u], upper_part);
            lower_part = fma(tile_a[below + 3u], tile_b[down + 48u], lower_part);
        }
        upper += upper_part;
        lower += lower_part;
        workgroupBarrier();
    }
    let base = split * push.m;
    if row < push.m && column < push.n {
        product[(base + row) * push.n + column] = upper;
    }
    if row + 16u < push.m && column < push.n {
        product[(base + row + 16u) * push.n + column] = lower;
    }
}
