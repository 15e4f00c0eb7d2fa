// Functions of doubles that SPIR-V does not have, from + - * / fma and the bits of a number.

// 2^k for -1022 <= k <= 1023.
fn exp2i_f64(k: i32) -> f64 {
    return bitcast<f64>(u64(k + 1023) << 52u);
}

fn is_nan_f64(x: f64) -> bool {
    return (bitcast<u64>(x) & 0x7ffffffffffffffflu) > 0x7ff0000000000000lu;
}

// e^x: x = k ln 2 + r with |r| <= ln 2 / 2, e^r by its series, 2^k in two factors because the result may be subnormal.
fn exp_f64(x: f64) -> f64 {
    let y = select(select(x, 710.0lf, x > 710.0lf), -746.0lf, x < -746.0lf);
    let k = round(y * 1.4426950408889634lf);
    let r = fma(k, -1.90821492927058770002e-10lf, fma(k, -6.93147180369123816490e-01lf, y));
    var p = 1.6059043836821613e-10lf;
    p = fma(p, r, 2.08767569878681e-09lf);
    p = fma(p, r, 2.505210838544172e-08lf);
    p = fma(p, r, 2.755731922398589e-07lf);
    p = fma(p, r, 2.7557319223985893e-06lf);
    p = fma(p, r, 2.48015873015873e-05lf);
    p = fma(p, r, 1.984126984126984e-04lf);
    p = fma(p, r, 1.3888888888888889e-03lf);
    p = fma(p, r, 8.333333333333333e-03lf);
    p = fma(p, r, 4.1666666666666664e-02lf);
    p = fma(p, r, 1.6666666666666666e-01lf);
    p = fma(p, r, 0.5lf);
    let e = 1.0lf + fma(r * r, p, r);
    let half = i32(k) >> 1u;
    return e * exp2i_f64(half) * exp2i_f64(i32(k) - half);
}
