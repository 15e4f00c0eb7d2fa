// Functions of both types. No driver's own exp, log and so on: theirs differ, and have no doubles.

// e^r 2^k, 2^k in two factors because the result may be subnormal or the factor infinite.
fn scaled_exp_real(r: real, k: i32) -> real {
    let half = k >> 1u;
    return (real(1.0) + fma(r * r, exp_series_real(r), r)) * exp2i_real(half) * exp2i_real(k - half);
}

// x - k ln 2.
fn without_ln2_real(x: real, k: real) -> real {
    return fma(k, -LN2_LOW_real, fma(k, -LN2_HIGH_real, x));
}

fn exp_real(x: real) -> real {
    let y = select(select(x, EXP_MAX_real, x > EXP_MAX_real), EXP_MIN_real, x < EXP_MIN_real);
    let k = round(y * INVERSE_LN2_real);
    return scaled_exp_real(without_ln2_real(y, k), i32(k));
}

// e^x - 1 = 2^k (e^r - 1 + (1 - 2^-k)).
fn expm1_real(x: real) -> real {
    if abs(x) < TINY_real {
        return x;
    }
    let y = select(select(x, EXP_MAX_real, x > EXP_MAX_real), real(-60.0), x < real(-60.0));
    let k = round(y * INVERSE_LN2_real);
    let r = without_ln2_real(y, k);
    let n = i32(k);
    let half = n >> 1u;
    let sum = fma(r * r, exp_series_real(r), r) + (real(1.0) - exp2i_real(-min(n, 100)));
    return sum * exp2i_real(half) * exp2i_real(n - half);
}

// ln x of an x that is 0, negative, infinite or NaN.
fn log_special_real(x: real) -> real {
    if x == real(0.0) {
        return -infinity_real();
    }
    return select((x - x) / (x - x), x, x > real(0.0));
}

// ln x + tail for positive, finite x: ln m = 2 s + s R = f - s (f - R) with f = m - 1, s = f / (2 + f).
fn log_sum_real(x: real, tail: real) -> real {
    let parts = parts_real(x);
    let f = parts.m - real(1.0);
    let s = f / (real(2.0) + f);
    let z = s * s;
    let square = real(0.5) * f * f;
    let low = fma(s, fma(z, log_series_real(z), square), fma(parts.k, LN2_LOW_real, tail));
    return ((low - square) + f) + parts.k * LN2_HIGH_real;
}

fn log_real(x: real) -> real {
    if !(x > real(0.0)) || x > LARGEST_real {
        return log_special_real(x);
    }
    return log_sum_real(x, real(0.0));
}

// ln(1 + x): what 1 + x loses by rounding comes back as tail.
fn log1p_real(x: real) -> real {
    let u = real(1.0) + x;
    if !(u > real(0.0)) || u > LARGEST_real {
        return log_special_real(u);
    }
    if abs(x) < TINY_real {
        return x;
    }
    let lost = select(x - (u - real(1.0)), real(1.0) - (u - x), x > real(1.0));
    return log_sum_real(u, lost / u);
}

// 1 / (1 + e^-x), from e^-|x| so that nothing overflows.
fn sigmoid_real(x: real) -> real {
    let e = exp_real(-abs(x));
    return select(e, real(1.0), x >= real(0.0)) / (real(1.0) + e);
}

// ln(1 + e^x).
fn softplus_real(x: real) -> real {
    return select(x, real(0.0), x < real(0.0)) + log1p_real(exp_real(-abs(x)));
}

fn tanh_real(x: real) -> real {
    if abs(x) < TINY_real {
        return x;
    }
    let t = expm1_real(real(-2.0) * abs(x));
    let y = -t / (real(2.0) + t);
    return select(y, -y, x < real(0.0));
}

fn erf_real(x: real) -> real {
    let a = abs(x);
    if a < real(1.0) {
        return x * erf_series_real(x * x);
    }
    let b = select(a, ERF_ONE_real, a > ERF_ONE_real);
    let y = real(1.0) - exp_real(-b * b) * erfc_series_real(real(1.0) / (b + real(2.0)));
    return select(y, -y, x < real(0.0));
}

// cos and sin of 2 pi x, for |x| up to 2^20.
fn cos_sin_turns_real(x: real) -> vec2<real> {
    let quarter = round(x * real(4.0));
    let r = x - quarter * real(0.25);
    let c = cos_series_real(r * r);
    let s = r * sin_series_real(r * r);
    let odd = select(vec2<real>(c, s), vec2<real>(-s, c), (i32(quarter) & 1) == 1);
    return select(odd, -odd, (i32(quarter) & 2) == 2);
}

// The base-2 logarithm of a positive, finite number, in two parts; the product of two numbers of so few bits as the first
// is exact.
struct Log2_real {
    high: real,
    low: real,
}

// ln m = 2/3 s (3 + s^2 + s^4 L), every product in parts that are exact.
fn log2_real(x: real) -> Log2_real {
    let parts = parts_real(x);
    let f = parts.m - real(1.0);
    let t = real(2.0) + f;
    let s = f / t;
    let s_high = upper_real(s);
    let t_high = upper_real(t);
    let t_low = f - (t_high - real(2.0));
    let s_low = ((f - s_high * t_high) - s_high * t_low) / t;
    let square = s_high * s_high;
    let z = s * s;
    let rest = fma(z * z, pow_series_real(z), s_low * (s_high + s));
    let u_high = upper_real(real(3.0) + square + rest);
    let u_low = rest - ((u_high - real(3.0)) - square);
    let a = s_high * u_high;
    let b = s_low * u_high + u_low * s;
    let p_high = upper_real(a + b);
    let p_low = b - (p_high - a);
    let q_high = POW_SCALE_HIGH_real * p_high;
    let q_low = POW_SCALE_LOW_real * p_high + p_low * POW_SCALE_real;
    let high = upper_real((q_high + q_low) + parts.k);
    return Log2_real(high, q_low - ((high - parts.k) - q_high));
}

// x^y for positive x: 2^(y log2 x) with the product in two parts.
fn pow_positive_real(x: real, y: real) -> real {
    var log2 = Log2_real(infinity_real(), real(0.0));
    if x == real(0.0) {
        log2.high = -log2.high;
    } else if x <= LARGEST_real {
        log2 = log2_real(x);
    }
    let rough = y * log2.high;
    if abs(rough) > EXP2_LIMIT_real {
        return select(real(0.0), infinity_real(), rough > real(0.0));
    }
    let y_high = upper_real(y);
    let p_high = y_high * log2.high;
    let p_low = (y - y_high) * log2.high + y * log2.low;
    let k = round(p_high + p_low);
    let e = (p_high - k) + p_low;
    return scaled_exp_real(e * LN2_real, i32(k));
}

// IEEE 754's pow: of a negative x only whole powers, NaN otherwise; x^0 and 1^y are 1 whatever the other is.
fn pow_real(x: real, y: real) -> real {
    if x == real(1.0) || y == real(0.0) {
        return real(1.0);
    }
    if is_nan_real(x) || is_nan_real(y) {
        return x + y;
    }
    let size = select(pow_positive_real(abs(x), y), real(1.0), x == real(-1.0) && abs(y) > LARGEST_real);
    let half = y * real(0.5);
    let odd = floor(y) == y && floor(half) != half;
    if x < real(0.0) && floor(y) != y && x >= -LARGEST_real {
        return (x - x) / (x - x);
    }
    return select(size, -size, odd && is_negative_real(x));
}

fn relu_real(x: real) -> real {
    return select(x, real(0.0), x <= real(0.0));
}

// -1, 0 or 1; -0 and NaN stay as they are.
fn sign_real(x: real) -> real {
    return select(select(x, real(-1.0), x < real(0.0)), real(1.0), x > real(0.0));
}

// The larger; NaN when one is NaN, which the built-in max does not promise.
fn max_real(a: real, b: real) -> real {
    return select(b, a, a > b || is_nan_real(a));
}

fn min_real(a: real, b: real) -> real {
    return select(b, a, a < b || is_nan_real(a));
}

fn normal_logpdf_real(x: real, mu: real, sigma: real) -> real {
    let z = (x - mu) / sigma;
    return real(-0.5) * z * z - log_real(sigma) - HALF_LOG_2PI_real;
}
