// StudentT(nu, mu, sigma) over z = x: location mu, scale 1 / sigma, shape nu, constant
// ln gamma((nu + 1) / 2) - ln gamma(nu / 2) - ln(nu pi) / 2 - ln sigma.

fn density(z: real) -> Density {
    let d = (z - push.location) * push.scale;
    let above = push.shape + real(1.0);
    let logp = fma(real(-0.5) * above, log1p_real(d * d / push.shape), push.constant);
    return Density(logp, -above * d * push.scale / fma(d, d, push.shape));
}
