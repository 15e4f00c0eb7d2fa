// HalfNormal(sigma) over z = ln x, Jacobian included: location ln sigma, constant ln(2 / pi) / 2.

fn density(z: real) -> Density {
    let u = z - push.location;
    let e = exp_real(real(2.0) * u);
    return Density(fma(real(-0.5), e, u + push.constant), real(1.0) - e);
}
