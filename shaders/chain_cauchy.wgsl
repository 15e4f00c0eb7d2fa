// Cauchy(loc, scale) over z = x: location loc, scale 1 / scale, constant -ln pi - ln scale.

fn density(z: real) -> Density {
    let d = (z - push.location) * push.scale;
    return Density(push.constant - log1p_real(d * d), real(-2.0) * d * push.scale / fma(d, d, real(1.0)));
}
