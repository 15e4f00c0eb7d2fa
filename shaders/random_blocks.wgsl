// One thread a block of two words: one element of 64 bits.

@group(0) @binding(0) var<storage, read_write> output: array<real>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = (group.y * groups.x + group.x) * 256u + local;
    if block >= push.elements {
        return;
    }
    output[block] = draw(philox(block));
}
