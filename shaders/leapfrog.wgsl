// One leapfrog step of each element by itself, one thread an element. A family's file says `density`: the log density over
// unconstrained z, Jacobian and normaliser included, and its derivative.

struct Push {
    elements: u32,
    eps: real,
    location: real,
    scale: real,
    shape: real,
    constant: real,
}

var<immediate> push: Push;

@group(0) @binding(0) var<storage, read> q_first: array<real>;
@group(0) @binding(1) var<storage, read> p_first: array<real>;
@group(0) @binding(2) var<storage, read> inv_mass: array<real>;
@group(0) @binding(3) var<storage, read_write> q_next: array<real>;
@group(0) @binding(4) var<storage, read_write> p_next: array<real>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let element = (group.y * groups.x + group.x) * 256u + local;
    if element >= push.elements {
        return;
    }
    let mass = inv_mass[element];
    let first = advance(State(q_first[element], p_first[element], real(0.0)), mass, real(0.0)).state;
    let next = advance(first, mass, push.eps).state;
    q_next[element] = next.q;
    p_next[element] = next.p;
}
