// K leapfrog steps of a separable density in one dispatch: `parts` workgroups an instance, each thread the elements t,
// t + stride, t + 2 * stride, ... of it. A thread's first element lives in registers; of its others the state is the row
// before, which the same thread wrote. So a chain that goes on in another dispatch goes on with the same bits.
//
// logp is summed over the elements by each thread, then over threads in a tree, for eight steps at once; the output is
// [instances, total, parts].

struct Push {
    instances: u32,
    d: u32,
    parts: u32,
    total: u32,
    begin: u32,
    steps: u32,
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
@group(0) @binding(3) var<storage, read_write> q_chain: array<real>;
@group(0) @binding(4) var<storage, read_write> p_chain: array<real>;
@group(0) @binding(5) var<storage, read_write> grad_chain: array<real>;
@group(0) @binding(6) var<storage, read_write> logp_chain: array<real>;

const BLOCK: u32 = 8u;

var<workgroup> tree: array<real, BLOCK * GROUP>;

// Of an element of an instance before step k; row is where the instance's element has its first step.
fn state_before(k: u32, first: u32, row: u32) -> State {
    if k == 0u {
        let q = q_first[first];
        return State(q, p_first[first], density(q).grad);
    }
    let before = row + (k - 1u) * push.d;
    return State(q_chain[before], p_chain[before], grad_chain[before]);
}

fn write(at: u32, state: State) {
    q_chain[at] = state.q;
    p_chain[at] = state.p;
    grad_chain[at] = state.grad;
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group.y * groups.x + group.x;
    let instance = index / push.parts;
    if instance >= push.instances {
        return;
    }
    let part = index % push.parts;
    let stride = push.parts * GROUP;
    let element = part * GROUP + local;
    let inputs = instance * push.d;
    let rows = instance * push.total * push.d;
    let end = push.begin + push.steps;

    // Threads without an element go on: all must reach every barrier.
    var state = State(real(0.0), real(0.0), real(0.0));
    var mass = real(0.0);
    if element < push.d {
        state = state_before(push.begin, inputs + element, rows + element);
        mass = inv_mass[inputs + element];
    }
    for (var block = push.begin; block < end; block += BLOCK) {
        let count = min(BLOCK, end - block);
        for (var k = block; k < block + count; k += 1u) {
            var logp = real(0.0);
            if element < push.d {
                let next = advance(state, mass);
                state = next.state;
                logp = next.logp;
                write(rows + k * push.d + element, state);
            }
            for (var other = element + stride; other < push.d; other += stride) {
                let next = advance(state_before(k, inputs + other, rows + other), inv_mass[inputs + other]);
                logp += next.logp;
                write(rows + k * push.d + other, next.state);
            }
            tree[(k - block) * GROUP + local] = logp;
        }
        for (var half = GROUP / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            // Thread t of the half adds for every step, so a step's sum does not depend on the block that it is in.
            if local < half {
                for (var k = 0u; k < count; k += 1u) {
                    tree[k * GROUP + local] += tree[k * GROUP + local + half];
                }
            }
        }
        workgroupBarrier();
        if local < count {
            logp_chain[(instance * push.total + block + local) * push.parts + part] = tree[local * GROUP];
        }
        workgroupBarrier();
    }
}
