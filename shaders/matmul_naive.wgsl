// One thread an element of the product. Each split of k gives a product of its own: the output is [splits, m, n].

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

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    if index >= push.splits * push.m * push.n {
        return;
    }
    let column = index % push.n;
    let row = (index / push.n) % push.m;
    var inner = (index / push.n / push.m) * push.chunk;
    let end = min(inner + push.chunk, push.k);
    let base = row * push.k;

    var sum = real(0.0);
    while inner + 3u < end {
        // Four at a time: sums of sums round less.
        var part = a[base + inner] * b[inner * push.n + column];
        part = fma(a[base + inner + 1u], b[(inner + 1u) * push.n + column], part);
        part = fma(a[base + inner + 2u], b[(inner + 2u) * push.n + column], part);
        part = fma(a[base + inner + 3u], b[(inner + 3u) * push.n + column], part);
        sum += part;
        inner += 4u;
    }
    while inner < end {
        sum = fma(a[base + inner], b[inner * push.n + column], sum);
        inner += 1u;
    }
    product[index] = sum;
}
