// Tiles of 16 x 16 through shared memory, so that both the reads and the writes of neighbours are neighbours.

struct Push {
    m: u32,
    n: u32,
}

var<immediate> push: Push;

@group(0) @binding(0) var<storage, read> input: array<real>;
@group(0) @binding(1) var<storage, read_write> output: array<real>;

// 17 columns, so that a column of the tile lies in different banks.
var<workgroup> tile: array<real, 272>;

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let columns = (push.n + 15u) / 16u;
    let index = group.y * groups.x + group.x;
    let top = index / columns * 16u;
    let left = index % columns * 16u;
    if top >= push.m {
        return;
    }
    if top + local.y < push.m && left + local.x < push.n {
        tile[local.y * 17u + local.x] = input[(top + local.y) * push.n + left + local.x];
    }
    workgroupBarrier();
    if left + local.y < push.n && top + local.x < push.m {
        output[(left + local.y) * push.m + top + local.x] = tile[local.x * 17u + local.y];
    }
}
