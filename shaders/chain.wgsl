// K leapfrog steps of a separable density in one dispatch: `parts` workgroups an instance, each thread the elements t,
// t + stride, t + 2 * stride, ... of it. A thread's first element lives in registers; of its others the state is the row
// before, which the same thread wrote. So a chain that goes on in another dispatch goes on with the same bits.
//
// Turn 0 is a step of size 0, which gives the first gradient; it leaves the state where the chain begins in the row of the
// first step, which is turn 1. So the density is evaluated in one place: kernels are half as large.
//
// logp is summed over the elements by each thread, then over threads in a tree, for eight turns at once; the output is
// [instances, total, parts].

struct Push {
    instances: u32,
    d: u32,
    parts: u32,
    total: u32,
    begin: u32,
    steps: u32,
    half_group: u32,
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

// Of an element before a turn. `first`: where it is in the inputs; `row`: where its first step is.
fn state_before(turn: u32, first: u32, row: u32) -> State {
    if turn == 0u {
        return State(q_first[first], p_first[first], real(0.0));
    }
    let before = row + (max(turn, 2u) - 2u) * push.d;
    return State(q_chain[before], p_chain[before], grad_chain[before]);
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
    let begin = select(push.begin + 1u, 0u, push.begin == 0u);
    let end = push.begin + push.steps + 1u;

    // Threads without an element go on: all must reach every barrier.
    var state = State(real(0.0), real(0.0), real(0.0));
    var mass = real(0.0);
    if element < push.d {
        state = state_before(begin, inputs + element, rows + element);
        mass = inv_mass[inputs + element];
    }
    for (var block = begin; block < end; block += BLOCK) {
        let count = min(BLOCK, end - block);
        for (var turn = block; turn < block + count; turn += 1u) {
            let eps = select(push.eps, real(0.0), turn == 0u);
            let row = rows + (max(turn, 1u) - 1u) * push.d;
            var logp = real(0.0);
            for (var other = element; other < push.d; other += stride) {
                var old = state;
                var old_mass = mass;
                if other != element {
                    old = state_before(turn, inputs + other, rows + other);
                    old_mass = inv_mass[inputs + other];
                }
                let next = advance(old, old_mass, eps);
                if other == element {
                    state = next.state;
                }
                logp += next.logp;
                q_chain[row + other] = next.state.q;
                p_chain[row + other] = next.state.p;
                grad_chain[row + other] = next.state.grad;
            }
            tree[(turn - block) * GROUP + local] = logp;
        }
        // From a push constant: drivers for CPUs took seconds to compile it unrolled, with a barrier a level.
        for (var half = push.half_group; half > 0u; half /= 2u) {
            workgroupBarrier();
            // The same tree for every turn: its sum does not depend on the block that it is in.
            if local < half {
                for (var k = 0u; k < count; k += 1u) {
                    tree[k * GROUP + local] += tree[k * GROUP + local + half];
                }
            }
        }
        workgroupBarrier();
        let turn = block + local;
        if local < count && turn > 0u {
            logp_chain[(instance * push.total + turn - 1u) * push.parts + part] = tree[local * GROUP];
        }
        workgroupBarrier();
    }
}
