// One workgroup a result. The input is [outer, length], the output [outer, width]: group (o, s) combines the CHUNK
// elements from s * CHUNK on of row o, each thread every GROUP-th of them, then all threads in a tree.

const GROUP: u32 = 256u;
const CHUNK: u32 = 4096u;

struct Push {
    outer: u32,
    length: u32,
    width: u32,
    inner: u32,
}

var<immediate> push: Push;

var<workgroup> tree: array<real, GROUP>;

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let result = group.y * groups.x + group.x;
    if result >= push.outer * push.width {
        return;
    }
    let row = result / push.width;
    let base = row * push.length;
    let begin = (result % push.width) * CHUNK;
    let end = min(begin + CHUNK, push.length);
    prepare(row);

    var element = begin + local;
    if element < end {
        var sum = load(base, element);
        element += GROUP;
        if element + 3u * GROUP < end {
            var second = load(base, element);
            var third = load(base, element + GROUP);
            var fourth = load(base, element + 2u * GROUP);
            element += 3u * GROUP;
            while element + 3u * GROUP < end {
                sum = combine(sum, load(base, element));
                second = combine(second, load(base, element + GROUP));
                third = combine(third, load(base, element + 2u * GROUP));
                fourth = combine(fourth, load(base, element + 3u * GROUP));
                element += 4u * GROUP;
            }
            sum = combine(combine(sum, second), combine(third, fourth));
        }
        while element < end {
            sum = combine(sum, load(base, element));
            element += GROUP;
        }
        tree[local] = sum;
    }

    // Threads that had no element take no part, so that no operation needs a neutral element.
    var filled = min(end - begin, GROUP);
    while filled > 1u {
        workgroupBarrier();
        let half = (filled + 1u) / 2u;
        if local + half < filled {
            tree[local] = combine(tree[local], tree[local + half]);
        }
        filled = half;
    }
    if local == 0u {
        store(result, tree[0]);
    }
}
