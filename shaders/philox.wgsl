// Philox 2x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011): two random words of
// each counter.

struct Push {
    elements: u32,
    offset: u32,
    key: u32,
    high: u32,
}

var<immediate> push: Push;

// Both halves of a product of 32 x 32 bits; not every device has 64-bit integers.
fn multiply(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let cross = a1 * b0 + ((a0 * b0) >> 16u);
    let middle = a0 * b1 + (cross & 0xffffu);
    return vec2<u32>(a1 * b1 + (cross >> 16u) + (middle >> 16u), a * b);
}

fn philox(block: u32) -> vec2<u32> {
    var counter = vec2<u32>(push.offset + block, push.high);
    var key = push.key;
    for (var round = 0u; round < 10u; round += 1u) {
        let product = multiply(0xD256D193u, counter.x);
        counter = vec2<u32>(product.x ^ key ^ counter.y, product.y);
        key += 0x9E3779B9u;
    }
    return counter;
}
