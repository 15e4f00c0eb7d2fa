// Exponential(lambda) over z = ln x, Jacobian included: location -ln lambda.

fn density(z: real) -> Density {
    let u = z - push.location;
    let e = exp_real(u);
    return Density(u - e, real(1.0) - e);
}
