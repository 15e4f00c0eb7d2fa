// One thread a result. The input is [outer, length], the output [outer, width]: thread (o, t) combines elements t,
// t + width, t + 2 * width, ... of row o, so that neighbours read neighbours whatever the axis.

struct Push {
    outer: u32,
    length: u32,
    width: u32,
    inner: u32,
}

var<immediate> push: Push;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let result = (group.y * groups.x + group.x) * 256u + local;
    if result >= push.outer * push.width {
        return;
    }
    let row = result / push.width;
    let column = result % push.width;
    let base = row * push.length;
    prepare(row * push.inner + column % push.inner);

    var element = column;
    var sum = load(base, element);
    element += push.width;
    if element + 3u * push.width < push.length {
        // Four sums at once: more reads in flight, and a shorter chain of roundings.
        var second = load(base, element);
        var third = load(base, element + push.width);
        var fourth = load(base, element + 2u * push.width);
        element += 3u * push.width;
        while element + 3u * push.width < push.length {
            sum = combine(sum, load(base, element));
            second = combine(second, load(base, element + push.width));
            third = combine(third, load(base, element + 2u * push.width));
            fourth = combine(fourth, load(base, element + 3u * push.width));
            element += 4u * push.width;
        }
        sum = combine(combine(sum, second), combine(third, fourth));
    }
    while element < push.length {
        sum = combine(sum, load(base, element));
        element += push.width;
    }
    store(result, sum);
}
