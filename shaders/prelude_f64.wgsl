// What the functions of prelude_real.wgsl need of doubles: bits, constants and polynomials.
// The coefficients are those of least maximal error over the stated range (Remez), rounded.

// 2^k for -1022 <= k <= 1023.
fn exp2i_f64(k: i32) -> f64 {
    return bitcast<f64>(u64(k + 1023) << 52u);
}

// Its bits, because a driver may take a comparison with itself for true.
fn is_nan_f64(x: f64) -> bool {
    return (bitcast<u64>(x) & 0x7ffffffffffffffflu) > 0x7ff0000000000000lu;
}

// Its sign, of -0, too.
fn is_negative_f64(x: f64) -> bool {
    return (bitcast<u64>(x) >> 63u) != 0lu;
}

fn infinity_f64() -> f64 {
    var bits = 0x7ff0000000000000lu;
    return bitcast<f64>(bits);
}

// x without its lower half: products of two such numbers are exact, fused multiplication or not.
fn upper_f64(x: f64) -> f64 {
    return bitcast<f64>(bitcast<u64>(x) & 0xfffffffff8000000lu);
}

// x = 2^k m with sqrt(1/2) <= m < sqrt(2), for positive x.
struct Parts_f64 {
    k: f64,
    m: f64,
}

// Subnormal numbers are read as whole numbers, so that a device that takes them for 0 never sees them.
fn parts_f64(x: f64) -> Parts_f64 {
    let bits = bitcast<u64>(x);
    let subnormal = bits < 0x0010000000000000lu;
    let moved = select(bits, bitcast<u64>(f64(bits)), subnormal) + 0x00095f6200000000lu;
    let k = i32(u32(moved >> 52u)) - select(1023, 1023 + 1074, subnormal);
    return Parts_f64(f64(k), bitcast<f64>((moved & 0x000ffffffffffffflu) + 0x3fe6a09e00000000lu));
}

// The largest finite number.
const LARGEST_f64 = 1.7976931348623157e308lf;

// Below it x, e^x - 1 and the like are the same.
const TINY_f64 = 1e-17lf;

const INVERSE_LN2_f64 = 1.4426950408889634lf;

const LN2_f64 = 0.6931471805599453lf;

// ln 2 in two parts: the first has so few bits that its product with an exponent is exact.
const LN2_HIGH_f64 = 0.6931471803691238lf;

const LN2_LOW_f64 = 1.9082149292705877e-10lf;

// 2 / (3 ln 2), and in two parts.
const POW_SCALE_f64 = 0.9617966939259756lf;

const POW_SCALE_HIGH_f64 = 0.9617966860532761lf;

const POW_SCALE_LOW_f64 = 7.872699542894897e-09lf;

// Where e^x is infinite, where it is 0, and where 2^x is one of both.
const EXP_MAX_f64 = 710.0lf;

const EXP_MIN_f64 = -746.0lf;

const EXP2_LIMIT_f64 = 1100.0lf;

// Where erf(x) is 1.
const ERF_ONE_f64 = 6.0lf;

// ln(2 pi) / 2.
const HALF_LOG_2PI_f64 = 0.9189385332046728lf;

// (e^x - 1 - x) / x^2 for |x| <= ln 2 / 2.
fn exp_series_f64(x: f64) -> f64 {
    var p = 2.092159834592418e-09lf;
    p = fma(p, x, 2.510522901903256e-08lf);
    p = fma(p, x, 2.7557252885929167e-07lf);
    p = fma(p, x, 2.755725537092107e-06lf);
    p = fma(p, x, 2.480158734736693e-05lf);
    p = fma(p, x, 0.00019841269874844137lf);
    p = fma(p, x, 0.0013888888888874387lf);
    p = fma(p, x, 0.008333333333326129lf);
    p = fma(p, x, 0.041666666666666685lf);
    p = fma(p, x, 0.1666666666666667lf);
    p = fma(p, x, 0.5lf);
    return p;
}

// (ln m - 2 s) / (s x) with s = (m - 1) / (m + 1), x = s^2, for sqrt(1/2) <= m <= sqrt(2).
fn log_series_f64(x: f64) -> f64 {
    var p = 0.14618416871215997lf;
    p = fma(p, x, 0.15331552896669207lf);
    p = fma(p, x, 0.18182894545355477lf);
    p = fma(p, x, 0.22222211054622024lf);
    p = fma(p, x, 0.28571428626510875lf);
    p = fma(p, x, 0.399999999998982lf);
    p = fma(p, x, 0.666666666666667lf);
    return p;
}

// (3/2 ln m / s - 3 - x) / x^2 with s and x as above.
fn pow_series_f64(x: f64) -> f64 {
    var p = 0.16145948878624533lf;
    p = fma(p, x, 0.15684224514094758lf);
    p = fma(p, x, 0.17650232142702604lf);
    p = fma(p, x, 0.19999944498301553lf);
    p = fma(p, x, 0.2307692364584356lf);
    p = fma(p, x, 0.2727272726945549lf);
    p = fma(p, x, 0.3333333333334275lf);
    p = fma(p, x, 0.4285714285714285lf);
    p = fma(p, x, 0.6lf);
    return p;
}

// erf(s) / s with x = s^2, for |s| <= 1.
fn erf_series_f64(x: f64) -> f64 {
    var p = 5.960685338520971e-11lf;
    p = fma(p, x, -1.137495573607015e-09lf);
    p = fma(p, x, 1.466032872274226e-08lf);
    p = fma(p, x, -1.6350396222864617e-07lf);
    p = fma(p, x, 1.64610084778027e-06lf);
    p = fma(p, x, -1.4925595772180906e-05lf);
    p = fma(p, x, 0.0001205533113295582lf);
    p = fma(p, x, -0.0008548326981425542lf);
    p = fma(p, x, 0.005223977624828431lf);
    p = fma(p, x, -0.026866170645077875lf);
    p = fma(p, x, 0.11283791670954885lf);
    p = fma(p, x, -0.3761263890318375lf);
    p = fma(p, x, 1.1283791670955126lf);
    return p;
}

// erfc(a) e^(a^2) with x = 1 / (a + 2), for a from 1 to where erfc(a) no longer matters.
fn erfc_series_f64(x: f64) -> f64 {
    var p = -212.13384639919144lf;
    p = fma(p, x, 748.0185270570153lf);
    p = fma(p, x, -1153.0338581759638lf);
    p = fma(p, x, 994.7923793763912lf);
    p = fma(p, x, -510.8265270612745lf);
    p = fma(p, x, 161.227026525786lf);
    p = fma(p, x, -41.11819003170585lf);
    p = fma(p, x, 9.88796149600712lf);
    p = fma(p, x, 1.8974591149347853lf);
    p = fma(p, x, 2.058496713786321lf);
    p = fma(p, x, 1.1232650731482134lf);
    p = fma(p, x, 0.5643774178473461lf);
    p = fma(p, x, -3.130705506788932e-06lf);
    return p;
}

// sin(2 pi s) / s with x = s^2, for |s| <= 1/8.
fn sin_series_f64(x: f64) -> f64 {
    var p = -0.7116149808473227lf;
    p = fma(p, x, 3.819786980475875lf);
    p = fma(p, x, -15.094640379389729lf);
    p = fma(p, x, 42.05869392872755lf);
    p = fma(p, x, -76.7058597529967lf);
    p = fma(p, x, 81.60524927607493lf);
    p = fma(p, x, -41.34170224039976lf);
    p = fma(p, x, 6.283185307179586lf);
    return p;
}

// cos(2 pi s) with x = s^2, for |s| <= 1/8.
fn cos_series_f64(x: f64) -> f64 {
    var p = -1.6968505716309112lf;
    p = fma(p, x, 7.903091747982923lf);
    p = fma(p, x, -26.42625090991621lf);
    p = fma(p, x, 60.24464132888108lf);
    p = fma(p, x, -85.45681720652279lf);
    p = fma(p, x, 64.93939402266795lf);
    p = fma(p, x, -19.739208802178716lf);
    p = fma(p, x, 1.0lf);
    return p;
}
