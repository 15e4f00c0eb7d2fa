//! Distributions, and the numbers in operations.
//!
//! Owns which numbers are allowed where. A number is judged as what it becomes in the type that it is used with: 1e-50
//! is 0 in F32.

use super::super::DType;
use super::super::Family;
use super::call::Call;
use super::call::Signature;
use super::call::call;
use crate::decode::Cx;
use crate::decode::shape::mismatch;
use crate::diagnostics::quoted;
use crate::syntax::Kind;
use crate::syntax::Node;

/// Which numbers a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// NaN and the infinities too.
    Any,
    Finite,
    /// Finite, not 0.
    NotZero,
    /// Finite, above 0.
    Positive,
}

/// The number that a value is, if it is one.
pub(super) fn number_of(node: &Node<'_>) -> Option<f64> {
    match &node.kind {
        #[expect(clippy::cast_precision_loss, reason = "numbers above 2^53 lose digits in every f64")]
        Kind::Int { negative, magnitude } => {
            Some(if *negative { -(*magnitude as f64) } else { *magnitude as f64 })
        }
        Kind::Float(value) => Some(*value),
        Kind::Ident(name) => match name.text {
            "inf" => Some(f64::INFINITY),
            "NaN" | "nan" => Some(f64::NAN),
            _ => None,
        },
        _ => None,
    }
}

/// What the number is in that type.
#[expect(clippy::cast_possible_truncation, reason = "rounding to the type that the number is used with")]
fn rounded(value: f64, dtype: DType) -> f64 {
    if dtype == DType::F32 { f64::from(value as f32) } else { value }
}

/// A number that is used with arrays of a type.
pub(super) fn number(cx: &mut Cx<'_>, node: &Node<'_>, dtype: DType, wanted: Wanted) -> Option<f64> {
    let Some(value) = number_of(node) else {
        mismatch(cx, node, "a number");
        return None;
    };
    let used = rounded(value, dtype);
    let name = dtype.name();
    let why = match wanted {
        Wanted::Any if value.is_infinite() || value.is_nan() => return Some(value),
        _ if value.is_finite() && used.is_infinite() => format!("it does not fit {name}"),
        Wanted::Any => return Some(value),
        _ if !value.is_finite() => "it must be finite".to_owned(),
        Wanted::Positive if used <= 0.0 => "it must be larger than 0".to_owned(),
        Wanted::NotZero if used == 0.0 => "it must not be 0".to_owned(),
        _ => return Some(value),
    };
    let is_tiny = value > 0.0 && used == 0.0;
    let hint = is_tiny.then(|| format!("in {name} it is 0"));
    let message = format!("`{}` cannot be {}: {why}", cx.field, quoted(cx.written(node)));
    cx.findings.push(node.span, message, hint);
    None
}

/// `Normal(mu: 0, sigma: 1)`.
pub(super) fn family(cx: &mut Cx<'_>, node: &Node<'_>, dtype: DType) -> Option<Family> {
    const NAMES: [&str; 6] = ["Normal", "Exponential", "StudentT", "Cauchy", "HalfNormal", "Weibull"];
    let find = |name: &str| {
        let params: &[&str] = match name {
            "Normal" => &["mu", "sigma"],
            "Exponential" => &["lambda"],
            "StudentT" => &["nu", "mu", "sigma"],
            "Cauchy" => &["loc", "scale"],
            "HalfNormal" => &["sigma"],
            "Weibull" => &["k", "lambda"],
            _ => return None,
        };
        let name = NAMES.into_iter().find(|known| *known == name)?;
        Some(((), Signature { name, params, required: params.len() }))
    };
    let ((), call) = call(cx, node, "a family", find, || NAMES.to_vec())?;
    let mut param = |index, wanted| argument(cx, &call, index, dtype, wanted);
    Some(match call.name {
        "Normal" => {
            let (mu, sigma) = (param(0, Wanted::Finite), param(1, Wanted::Positive));
            Family::Normal { mu: mu?, sigma: sigma? }
        }
        "Exponential" => Family::Exponential { lambda: param(0, Wanted::Positive)? },
        "StudentT" => {
            let nu = param(0, Wanted::Positive);
            let (mu, sigma) = (param(1, Wanted::Finite), param(2, Wanted::Positive));
            Family::StudentT { nu: nu?, mu: mu?, sigma: sigma? }
        }
        "Cauchy" => {
            let (loc, scale) = (param(0, Wanted::Finite), param(1, Wanted::Positive));
            Family::Cauchy { loc: loc?, scale: scale? }
        }
        "HalfNormal" => Family::HalfNormal { sigma: param(0, Wanted::Positive)? },
        _ => {
            let (k, lambda) = (param(0, Wanted::Positive), param(1, Wanted::Positive));
            Family::Weibull { k: k?, lambda: lambda? }
        }
    })
}

/// A parameter that is a number.
pub(super) fn argument(
    cx: &mut Cx<'_>,
    call: &Call<'_, '_>,
    index: usize,
    dtype: DType,
    wanted: Wanted,
) -> Option<f64> {
    let node = call.get(cx, index)?;
    number(cx, node, dtype, wanted)
}
