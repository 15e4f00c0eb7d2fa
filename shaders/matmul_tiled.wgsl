// One workgroup a square of TILE x TILE elements of the product, one element a thread; tiles of both factors go through
// shared memory. Each split of k gives a product of its own: the output is [splits, m, n].

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

var<workgroup> tile_a: array<real, TILE * TILE>;
var<workgroup> tile_b: array<real, TILE * TILE>;

@compute @workgroup_size(TILE, TILE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let columns = (push.n + TILE - 1u) / TILE;
    let rows = (push.m + TILE - 1u) / TILE;
    let index = group.y * groups.x + group.x;
    let split = index / columns / rows;
    if split >= push.splits {
        return;
    }
    let row = (index / columns % rows) * TILE + local.y;
    let column = (index % columns) * TILE + local.x;
    let begin = split * push.chunk;
    let end = min(begin + push.chunk, push.k);

    var sum = real(0.0);
    for (var base = begin; base < end; base += TILE) {
        var left = real(0.0);
        if row < push.m && base + local.x < end {
            left = a[row * push.k + base + local.x];
        }
        var right = real(0.0);
        if column < push.n && base + local.y < end {
            right = b[(base + local.y) * push.n + column];
        }
        tile_a[local.y * TILE + local.x] = left;
        tile_b[local.y * TILE + local.x] = right;
        workgroupBarrier();
        // A sum a tile: sums of sums round less.
        var part = real(0.0);
        for (var inner = 0u; inner < TILE; inner += 8u) {
            let across = local.y * TILE + inner;
            let down = inner * TILE + local.x;
            part = fma(tile_a[across], tile_b[down], part);
            part = fma(tile_a[across + 1u], tile_b[down + TILE], part);
            part = fma(tile_a[across + 2u], tile_b[down + 2u * TILE], part);
            part = fma(tile_a[across + 3u], tile_b[down + 3u * TILE], part);
            part = fma(tile_a[across + 4u], tile_b[down + 4u * TILE], part);
            part = fma(tile_a[across + 5u], tile_b[down + 5u * TILE], part);
            part = fma(tile_a[across + 6u], tile_b[down + 6u * TILE], part);
            part = fma(tile_a[across + 7u], tile_b[down + 7u * TILE], part);
        }
        sum += part;
        workgroupBarrier();
    }
    if row < push.m && column < push.n {
        product[(split * push.m + row) * push.n + column] = sum;
    }
}
