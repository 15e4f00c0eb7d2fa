// Functions of singles that are exact to an ulp or so on every driver, whatever its own are.

// 2^k for -126 <= k <= 127.
fn exp2i_f32(k: i32) -> f32 {
    return bitcast<f32>(u32(k + 127) << 23u);
}

fn is_nan_f32(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// e^x: x = k ln 2 + r with |r| <= ln 2 / 2, e^r by its series, 2^k in two factors because the result may be subnormal.
fn exp_f32(x: f32) -> f32 {
    let y = select(select(x, 89.0, x > 89.0), -104.0, x < -104.0);
    let k = round(y * 1.44269504);
    let r = fma(k, 2.12194440e-4, fma(k, -0.693359375, y));
    var p = 1.9841270e-4;
    p = fma(p, r, 1.3888889e-3);
    p = fma(p, r, 8.3333333e-3);
    p = fma(p, r, 4.1666667e-2);
    p = fma(p, r, 1.6666667e-1);
    p = fma(p, r, 0.5);
    let e = 1.0 + fma(r * r, p, r);
    let half = i32(k) >> 1u;
    return e * exp2i_f32(half) * exp2i_f32(i32(k) - half);
}
