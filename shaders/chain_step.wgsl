// The leapfrog step of one element, and what a family's file gives: `density`, over unconstrained z, with the logarithm of
// the Jacobian and the normaliser.

struct Density {
    logp: real,
    grad: real,
}

// The gradient is carried from step to step: one evaluation a step.
struct State {
    q: real,
    p: real,
    grad: real,
}

struct Stepped {
    state: State,
    logp: real,
}

// With a step of size 0 nothing moves: it gives the gradient where a chain begins.
fn advance(old: State, inv_mass: real, eps: real) -> Stepped {
    let half = real(0.5) * eps;
    let middle = fma(half, old.grad, old.p);
    let q = fma(eps * inv_mass, middle, old.q);
    // After the position has moved: all that is given out describes one state.
    let there = density(q);
    return Stepped(State(q, fma(half, there.grad, middle), there.grad), there.logp);
}
