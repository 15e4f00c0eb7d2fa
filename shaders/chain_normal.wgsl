// Normal(mu, sigma) over z = x: location mu, scale 1 / sigma, constant -ln sigma - ln(2 pi) / 2.

fn density(z: real) -> Density {
    let d = (z - push.location) * push.scale;
    return Density(fma(real(-0.5) * d, d, push.constant), -d * push.scale);
}
