// Functions of both types, from those of each.

// 1 / (1 + e^-x), from e^-|x| so that nothing overflows.
fn sigmoid_real(x: real) -> real {
    let e = exp_real(-abs(x));
    return select(e, real(1.0), x >= real(0.0)) / (real(1.0) + e);
}
