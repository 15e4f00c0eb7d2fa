// What the functions of prelude_real.wgsl need of singles: bits, constants and polynomials.
// The coefficients are those of least maximal error over the stated range (Remez), rounded.

// 2^k for -126 <= k <= 127.
fn exp2i_f32(k: i32) -> f32 {
    return bitcast<f32>(u32(k + 127) << 23u);
}

// Its bits, because a driver may take a comparison with itself for true.
fn is_nan_f32(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Its sign, of -0, too.
fn is_negative_f32(x: f32) -> bool {
    return (bitcast<u32>(x) >> 31u) != 0u;
}

fn infinity_f32() -> f32 {
    var bits = 0x7f800000u;
    return bitcast<f32>(bits);
}

// x without its lower half: products of two such numbers are exact, fused multiplication or not.
fn upper_f32(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
}

// x = 2^k m with sqrt(1/2) <= m < sqrt(2), for positive x.
struct Parts_f32 {
    k: f32,
    m: f32,
}

// Subnormal numbers are read as whole numbers, so that a device that takes them for 0 never sees them.
fn parts_f32(x: f32) -> Parts_f32 {
    let bits = bitcast<u32>(x);
    let subnormal = bits < 0x00800000u;
    let moved = select(bits, bitcast<u32>(f32(bits)), subnormal) + 0x004afb0du;
    let k = i32(moved >> 23u) - select(127, 127 + 149, subnormal);
    return Parts_f32(f32(k), bitcast<f32>((moved & 0x007fffffu) + 0x3f3504f3u));
}

// The largest finite number.
const LARGEST_f32: f32 = 3.40282347e38;

// Below it x, e^x - 1 and the like are the same.
const TINY_f32: f32 = 1e-8;

const INVERSE_LN2_f32: f32 = 1.44269504;

const LN2_f32: f32 = 0.693147181;

// ln 2 in two parts: the first has so few bits that its product with an exponent is exact.
const LN2_HIGH_f32: f32 = 0.693359375;

const LN2_LOW_f32: f32 = -2.12194440e-4;

// 2 / (3 ln 2), and in two parts.
const POW_SCALE_f32: f32 = 0.961796701;

const POW_SCALE_HIGH_f32: f32 = 0.961669922;

const POW_SCALE_LOW_f32: f32 = 0.000126772051;

// Where e^x is infinite, where it is 0, and where 2^x is one of both.
const EXP_MAX_f32: f32 = 89.0;

const EXP_MIN_f32: f32 = -104.0;

const EXP2_LIMIT_f32: f32 = 160.0;

// Where erf(x) is 1.
const ERF_ONE_f32: f32 = 4.0;

// ln(2 pi) / 2.
const HALF_LOG_2PI_f32: f32 = 0.918938533;

// (e^x - 1 - x) / x^2 for |x| <= ln 2 / 2.
fn exp_series_f32(x: f32) -> f32 {
    var p = 0.000199075977;
    p = fma(p, x, 0.00139336637);
    p = fma(p, x, 0.00833328627);
    p = fma(p, x, 0.041666463);
    p = fma(p, x, 0.166666672);
    p = fma(p, x, 0.5);
    return p;
}

// (ln m - 2 s) / (s x) with s = (m - 1) / (m + 1), x = s^2, for sqrt(1/2) <= m <= sqrt(2).
fn log_series_f32(x: f32) -> f32 {
    var p = 0.233328432;
    p = fma(p, x, 0.285507202);
    p = fma(p, x, 0.400001228);
    p = fma(p, x, 0.666666687);
    return p;
}

// (3/2 ln m / s - 3 - x) / x^2 with s and x as above.
fn pow_series_f32(x: f32) -> f32 {
    var p = 0.286836118;
    p = fma(p, x, 0.333070189);
    p = fma(p, x, 0.428572983);
    p = fma(p, x, 0.600000024);
    return p;
}

// erf(s) / s with x = s^2, for |s| <= 1.
fn erf_series_f32(x: f32) -> f32 {
    var p = 7.8891193e-05;
    p = fma(p, x, -0.000802084571);
    p = fma(p, x, 0.00518953661);
    p = fma(p, x, -0.0268544462);
    p = fma(p, x, 0.112836003);
    p = fma(p, x, -0.37612626);
    p = fma(p, x, 1.12837911);
    return p;
}

// erfc(a) e^(a^2) with x = 1 / (a + 2), for a from 1 to where erfc(a) no longer matters.
fn erfc_series_f32(x: f32) -> f32 {
    var p = -7.38565636;
    p = fma(p, x, 10.1868849);
    p = fma(p, x, -0.515687585);
    p = fma(p, x, 1.58720911);
    p = fma(p, x, 0.519401133);
    p = fma(p, x, 0.00182248803);
    return p;
}

// sin(2 pi s) / s with x = s^2, for |s| <= 1/8.
fn sin_series_f32(x: f32) -> f32 {
    var p = 41.4698906;
    p = fma(p, x, -76.6977768);
    p = fma(p, x, 81.6052017);
    p = fma(p, x, -41.3417015);
    p = fma(p, x, 6.28318548);
    return p;
}

// cos(2 pi s) with x = s^2, for |s| <= 1/8.
fn cos_series_f32(x: f32) -> f32 {
    var p = 59.2204056;
    p = fma(p, x, -85.4428558);
    p = fma(p, x, 64.9393158);
    p = fma(p, x, -19.7392082);
    p = fma(p, x, 1.0);
    return p;
}
