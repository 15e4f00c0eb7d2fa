// Cosine and sine of an angle in turns, from 0 to 1. The angle is reduced to an eighth of a turn before it is multiplied by
// 2 pi, so the reduction is exact; then the series of Taylor, to full precision of f64.

fn cos_sin_turns(turns: real) -> vec2<real> {
    let quarter = floor(turns * real(4.0) + real(0.5));
    let x = (turns - quarter * real(0.25)) * real(6.283185307179586);
    let y = x * x;
    var sine = real(-7.647163731819816e-13);
    sine = fma(sine, y, real(1.6059043836821613e-10));
    sine = fma(sine, y, real(-2.505210838544172e-8));
    sine = fma(sine, y, real(2.7557319223985893e-6));
    sine = fma(sine, y, real(-1.984126984126984e-4));
    sine = fma(sine, y, real(8.333333333333333e-3));
    sine = fma(sine, y, real(-1.6666666666666666e-1));
    sine = fma(sine * y, x, x);
    var cosine = real(4.779477332387385e-14);
    cosine = fma(cosine, y, real(-1.1470745597729725e-11));
    cosine = fma(cosine, y, real(2.08767569878681e-9));
    cosine = fma(cosine, y, real(-2.755731922398589e-7));
    cosine = fma(cosine, y, real(2.48015873015873e-5));
    cosine = fma(cosine, y, real(-1.388888888888889e-3));
    cosine = fma(cosine, y, real(4.1666666666666664e-2));
    cosine = fma(cosine, y, real(-0.5));
    cosine = fma(cosine, y, real(1.0));
    switch u32(quarter) & 3u {
        case 1u: { return vec2<real>(-sine, cosine); }
        case 2u: { return vec2<real>(-cosine, -sine); }
        case 3u: { return vec2<real>(sine, -cosine); }
        default: { return vec2<real>(cosine, sine); }
    }
}
