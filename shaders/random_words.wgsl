// One thread a block of two words: two elements of 32 bits.

@group(0) @binding(0) var<storage, read_write> output: array<real>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = (group.y * groups.x + group.x) * 256u + local;
    let first = block * 2u;
    if first >= push.elements {
        return;
    }
    let pair = draw(philox(block));
    output[first] = pair.x;
    if first + 1u < push.elements {
        output[first + 1u] = pair.y;
    }
}
