// Weibull(k, lambda) over z = ln x, Jacobian included: location ln lambda, shape k, constant ln k.

fn density(z: real) -> Density {
    let u = push.shape * (z - push.location);
    let e = exp_real(u);
    return Density(u - e + push.constant, push.shape * (real(1.0) - e));
}
