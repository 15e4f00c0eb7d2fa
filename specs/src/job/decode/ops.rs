//! Operations: what each takes, and the types and shapes of what it gives.
//!
//! Owns the rules of every operation of the catalogue. Whether a device can do it is the device's.

use super::super::Array;
use super::super::ArrayId;
use super::super::Binary;
use super::super::DType;
use super::super::MatmulVariant;
use super::super::Op;
use super::super::Operand;
use super::super::Random;
use super::super::Reduction;
use super::super::Step;
use super::super::Unary;
use super::arrays::dtype;
use super::arrays::shape;
use super::call::Call;
use super::call::Signature;
use super::call::call;
use super::families::Wanted;
use super::families::argument;
use super::families::number;
use super::families::number_of;
use super::scope::Scope;
use super::scope::shown;
use super::shaders;
use crate::decode::Cx;
use crate::decode::shape::found;
use crate::decode::shape::hint_for;
use crate::decode::shape::mismatch;
use crate::decode::shape::whole;
use crate::decode::shape::whole32;
use crate::diagnostics::quoted;
use crate::syntax::Kind;
use crate::syntax::Node;
use crate::syntax::Span;

/// The types of nearly all operations.
const FLOATS: [DType; 2] = [DType::F32, DType::F64];

#[derive(Clone, Copy)]
enum Which {
    Unary(Unary),
    Binary(Binary),
    Cast,
    Reduce(Reduction),
    KineticEnergy,
    NormalLogPdf,
    Matmul,
    Transpose,
    Random(Random),
    Leapfrog,
    Chain,
    Wgsl,
}

/// Operations that are not of one of the families of names.
const OTHERS: [&str; 8] =
    ["Cast", "KineticEnergy", "NormalLogPdf", "Matmul", "Transpose", "Leapfrog", "Chain", "Wgsl"];

fn find(name: &str) -> Option<(Which, Signature)> {
    let signature = |name, params, required| Signature { name, params, required };
    if let Some(unary) = Unary::from_name(name) {
        return Some((Which::Unary(unary), signature(unary.name(), &["a"], 1)));
    }
    if let Some(binary) = Binary::from_name(name) {
        return Some((Which::Binary(binary), signature(binary.name(), &["a", "b"], 2)));
    }
    if let Some(reduction) = Reduction::from_name(name) {
        return Some((Which::Reduce(reduction), signature(reduction.name(), &["a", "axis"], 1)));
    }
    if let Some(random) = Random::from_name(name) {
        let params: &[&str] = match random {
            Random::Bits => &["shape", "seed", "offset"],
            Random::Uniform | Random::Normal => &["dtype", "shape", "seed", "offset"],
        };
        return Some((Which::Random(random), signature(random.name(), params, params.len() - 1)));
    }
    Some(match name {
        "Cast" => (Which::Cast, signature("Cast", &["dtype", "a"], 2)),
        "KineticEnergy" => (Which::KineticEnergy, signature("KineticEnergy", &["p", "inv_mass"], 2)),
        "NormalLogPdf" => (Which::NormalLogPdf, signature("NormalLogPdf", &["x", "mu", "sigma"], 3)),
        "Matmul" => (Which::Matmul, signature("Matmul", &["a", "b", "variant"], 2)),
        "Transpose" => (Which::Transpose, signature("Transpose", &["a"], 1)),
        "Leapfrog" => (Which::Leapfrog, signature("Leapfrog", &["family", "q", "p", "inv_mass", "eps"], 5)),
        "Chain" => (Which::Chain, signature("Chain", &["family", "q", "p", "inv_mass", "eps", "steps"], 6)),
        "Wgsl" => (Which::Wgsl, signature("Wgsl", &["source", "inputs", "outputs", "groups"], 4)),
        _ => return None,
    })
}

fn names() -> Vec<&'static str> {
    let unary = Unary::ALL.iter().map(|op| op.name());
    let binary = Binary::ALL.iter().map(|op| op.name());
    let reductions = Reduction::ALL.iter().map(|op| op.name());
    let random = Random::ALL.iter().map(|op| op.name());
    unary.chain(binary).chain(reductions).chain(random).chain(OTHERS).collect()
}

/// One step, and the arrays that it gives.
pub(super) fn step(
    cx: &mut Cx<'_>,
    scope: &mut Scope<'_>,
    name: Option<&str>,
    node: &Node<'_>,
) -> Option<Step> {
    let (which, call) = call(cx, node, "an operation", find, names)?;
    let mut at = At { cx, scope, name, call };
    match which {
        Which::Unary(unary) => {
            let a = at.floats(0)?;
            let Array { dtype, shape, .. } = at.scope.array(a).clone();
            at.single(Op::Unary(unary, a), dtype, shape)
        }
        Which::Binary(binary) => {
            let ([a, b], dtype, shape) = at.broadcast()?;
            at.single(Op::Binary(binary, a, b), dtype, shape)
        }
        Which::NormalLogPdf => {
            let ([x, mu, sigma], dtype, shape) = at.broadcast()?;
            at.single(Op::NormalLogPdf { x, mu, sigma }, dtype, shape)
        }
        Which::Cast => at.cast(),
        Which::Reduce(reduction) => at.reduce(reduction),
        Which::KineticEnergy => {
            let [p, inv_mass] = at.alike([0, 1])?;
            let dtype = at.scope.array(p).dtype;
            at.single(Op::KineticEnergy { p, inv_mass }, dtype, Vec::new())
        }
        Which::Matmul => at.matmul(),
        Which::Transpose => at.transpose(),
        Which::Random(random) => at.random(random),
        Which::Leapfrog => at.leapfrog(),
        Which::Chain => at.chain(),
        Which::Wgsl => shaders::wgsl(&mut at),
    }
}

/// An operation while it is read.
pub(super) struct At<'a, 'n, 's, 't> {
    pub(super) cx: &'a mut Cx<'t>,
    pub(super) scope: &'a mut Scope<'n>,
    /// The step's name, if it has a good one.
    pub(super) name: Option<&'a str>,
    pub(super) call: Call<'a, 's>,
}

impl<'a, 's> At<'a, '_, 's, '_> {
    pub(super) fn get(&mut self, index: usize) -> Option<&'a Node<'s>> {
        self.call.get(self.cx, index)
    }

    fn single(&mut self, op: Op, dtype: DType, shape: Vec<u32>) -> Option<Step> {
        let id = self.scope.make(self.cx, self.call.span, self.name, None, dtype, shape)?;
        Some(Step { op, results: vec![id] })
    }

    pub(super) fn part(&mut self, part: &str, dtype: DType, shape: Vec<u32>) -> Option<ArrayId> {
        self.scope.make(self.cx, self.call.span, self.name, Some(part), dtype, shape)
    }

    /// An array that `node` names.
    pub(super) fn array(&mut self, node: &Node<'_>) -> Option<ArrayId> {
        if let Kind::Str(name) = &node.kind {
            return self.scope.find(self.cx, name, node.span);
        }
        let message =
            format!("`{}` takes the name of an array here, not {}", self.call.name, found(self.cx, node));
        let hint = match &node.kind {
            Kind::Ident(name) => Some(format!("names are written in quotes: \"{}\"", name.text)),
            Kind::Tuple { name: Some(_), .. } | Kind::Struct { name: Some(_), .. } => Some(
                "give it a step and a name of its own: steps: {\"x\": ..., \"y\": Exp(\"x\")}".to_owned(),
            ),
            Kind::Int { .. } | Kind::Float(_) | Kind::Numbers(_) | Kind::List(_) => {
                Some("give it as an input: inputs: {\"x\": F32([1, 2])}".to_owned())
            }
            _ => None,
        };
        self.cx.findings.push(node.span, message, hint);
        None
    }

    /// An array whose elements are F32 or F64.
    fn floats(&mut self, index: usize) -> Option<ArrayId> {
        let node = self.get(index)?;
        let id = self.array(node)?;
        let array = self.scope.array(id);
        if array.dtype != DType::U32 {
            return Some(id);
        }
        let message = format!("`{}` takes f32 or f64; {} is neither", self.call.name, shown(array));
        self.cx.error_hint(
            node.span,
            message,
            "u32 is for `Wgsl` and for outputs; Uniform and Normal give floats",
        );
        None
    }

    /// Several operands, at least one of them an array, with what they are broadcast to.
    fn broadcast<const N: usize>(&mut self) -> Option<([Operand; N], DType, Vec<u32>)> {
        let mut arrays = [None; N];
        let mut good = true;
        for (index, slot) in arrays.iter_mut().enumerate() {
            let node = self.get(index)?;
            if number_of(node).is_none() {
                *slot = self.floats(index);
                good &= slot.is_some();
            }
        }
        if !good {
            return None;
        }
        let Some(first) = arrays.iter().flatten().next() else {
            let message = format!("`{}` needs an array: all of its values are numbers", self.call.name);
            self.cx.error_hint(self.call.span, message, "arrays are named in quotes: Add(\"a\", 2)");
            return None;
        };
        let Array { dtype, mut shape, .. } = self.scope.array(*first).clone();
        let mut operands = [Operand::Number(0.0); N];
        for (index, operand) in operands.iter_mut().enumerate() {
            let node = self.get(index)?;
            *operand = match arrays[index] {
                Some(id) => {
                    for earlier in arrays[..index].iter().flatten() {
                        self.same_type(node.span, *earlier, id)?;
                        self.broadcasts(node.span, *earlier, id)?;
                    }
                    shape = joined(&shape, &self.scope.array(id).shape)?;
                    Operand::Array(id)
                }
                None => Operand::Number(number(self.cx, node, dtype, Wanted::Any)?),
            };
        }
        Some((operands, dtype, shape))
    }

    fn same_type(&mut self, span: Span, a: ArrayId, b: ArrayId) -> Option<()> {
        let (a, b) = (self.scope.array(a), self.scope.array(b));
        if a.dtype == b.dtype {
            return Some(());
        }
        let message = format!("{} and {} must be of one type", shown(a), shown(b));
        let narrow = if a.dtype == DType::F32 { a } else { b };
        self.cx.error_hint(
            span,
            message,
            format!("make one of the other type first: Cast(F64, \"{}\")", narrow.name),
        );
        None
    }

    fn broadcasts(&mut self, span: Span, a: ArrayId, b: ArrayId) -> Option<()> {
        let (a, b) = (self.scope.array(a), self.scope.array(b));
        if joined(&a.shape, &b.shape).is_some() {
            return Some(());
        }
        let message = format!("the shapes of {} and {} do not agree", shown(a), shown(b));
        let hint = "compared from the right, the lengths of an axis must be equal, or one of them 1";
        self.cx.error_hint(span, message, hint);
        None
    }

    /// Arrays of one type and one shape.
    fn alike<const N: usize>(&mut self, indices: [usize; N]) -> Option<[ArrayId; N]> {
        let found = indices.map(|index| self.floats(index));
        let mut ids = [ArrayId(0); N];
        for (slot, (id, index)) in ids.iter_mut().zip(found.into_iter().zip(indices)) {
            *slot = id?;
            let span = self.get(index)?.span;
            let first = found[0]?;
            self.same_type(span, first, *slot)?;
            let (a, b) = (self.scope.array(first), self.scope.array(*slot));
            if a.shape != b.shape {
                let message = format!("{} and {} must have the same shape", shown(a), shown(b));
                self.cx.error(span, message);
                return None;
            }
        }
        Some(ids)
    }

    fn cast(&mut self) -> Option<Step> {
        let node = self.get(0)?;
        let to = dtype(self.cx, node, &FLOATS);
        let a = self.floats(1);
        let (to, a) = (to?, a?);
        let array = self.scope.array(a);
        if array.dtype == to {
            let message = format!("{} is of that type already", shown(array));
            self.cx.error_hint(node.span, message, "leave this step out");
            return None;
        }
        let shape = array.shape.clone();
        self.single(Op::Cast(to, a), to, shape)
    }

    fn reduce(&mut self, reduction: Reduction) -> Option<Step> {
        let a = self.floats(0);
        let Some(node) = self.get(1) else {
            let a = a?;
            let dtype = self.scope.array(a).dtype;
            return self.single(Op::Reduce(reduction, a, None), dtype, Vec::new());
        };
        let Array { dtype, mut shape, .. } = self.scope.array(a?).clone();
        let axis = match node.kind {
            Kind::Int { negative: false, magnitude } => u8::try_from(magnitude).ok(),
            Kind::Int { .. } => None,
            _ => {
                mismatch(self.cx, node, "a number: which axis");
                return None;
            }
        };
        let Some(axis) = axis.filter(|axis| usize::from(*axis) < shape.len()) else {
            let message = format!("{} has no axis {}", shown(self.scope.array(a?)), self.cx.written(node));
            let hint = match shape.len() {
                0 => "it is a single value".to_owned(),
                1 => "its axis is 0; left out, all elements are taken".to_owned(),
                rank => format!("its axes are 0 to {}; left out, all elements are taken", rank - 1),
            };
            self.cx.error_hint(node.span, message, hint);
            return None;
        };
        shape.remove(axis.into());
        self.single(Op::Reduce(reduction, a?, Some(axis)), dtype, shape)
    }

    /// The two lengths of a matrix.
    fn matrix(&mut self, index: usize) -> Option<(ArrayId, [u32; 2])> {
        let id = self.floats(index)?;
        let array = self.scope.array(id);
        if let [m, n] = array.shape[..] {
            return Some((id, [m, n]));
        }
        let message =
            format!("`{}` takes matrices; {} has {} axes", self.call.name, shown(array), array.shape.len());
        let span = self.get(index)?.span;
        let hint = "a row is written [[1, 2]], a column [[1], [2]]";
        self.cx.error_hint(span, message, hint);
        None
    }

    fn matmul(&mut self) -> Option<Step> {
        let (a, b) = (self.matrix(0), self.matrix(1));
        let variant = match self.get(2) {
            None => MatmulVariant::Auto,
            Some(node) => self.matmul_variant(node)?,
        };
        let ((a, [m, k]), (b, [rows, n])) = (a?, b?);
        let span = self.get(1)?.span;
        self.same_type(span, a, b)?;
        if k != rows {
            let (a, b) = (self.scope.array(a), self.scope.array(b));
            let message = format!("{} has {k} columns, and {} has {rows} rows", shown(a), shown(b));
            self.cx.error_hint(span, message, "a product of matrices needs [m, k] and [k, n]");
            return None;
        }
        let dtype = self.scope.array(a).dtype;
        self.single(Op::Matmul(variant, a, b), dtype, vec![m, n])
    }

    fn matmul_variant(&mut self, node: &Node<'_>) -> Option<MatmulVariant> {
        let names: Vec<_> = MatmulVariant::ALL.iter().map(|variant| variant.name()).collect();
        let Kind::Ident(name) = &node.kind else {
            mismatch(self.cx, node, &format!("one of {}", names.join(", ")));
            return None;
        };
        let variant = MatmulVariant::from_name(name.text);
        if variant.is_none() {
            let hint = hint_for(self.cx, name.text, &names, "one of");
            self.cx.error_hint(node.span, format!("{} is no variant of `Matmul`", quoted(name.text)), hint);
        }
        variant
    }

    fn transpose(&mut self) -> Option<Step> {
        let (a, [m, n]) = self.matrix(0)?;
        let dtype = self.scope.array(a).dtype;
        self.single(Op::Transpose(a), dtype, vec![n, m])
    }

    fn random(&mut self, random: Random) -> Option<Step> {
        let (typed, first) = match random {
            Random::Bits => (Some(DType::U32), 0),
            Random::Uniform | Random::Normal => {
                let node = self.get(0)?;
                (dtype(self.cx, node, &FLOATS), 1)
            }
        };
        let node = self.get(first)?;
        let lengths = shape(self.cx, node);
        let node = self.get(first + 1)?;
        let seed = whole(self.cx, node, 0, u64::MAX);
        let offset_at = self.get(first + 2);
        let offset = match offset_at {
            Some(node) => whole32(self.cx, node, 0, u32::MAX),
            None => Some(0),
        };
        let (typed, lengths, seed, offset) = (typed?, lengths?, seed?, offset?);
        let step = self.single(Op::Random { random, seed, offset }, typed, lengths)?;
        let elements = self.scope.arrays.last().map_or(0, Array::elements);
        let blocks = if typed == DType::F64 { elements } else { elements.div_ceil(2) };
        if u64::from(offset) + blocks > 1 << 32 {
            let message =
                format!("`offset` is too large: from {offset}, {blocks} blocks go beyond the last, 2^32 - 1");
            self.cx.error_hint(
                offset_at.map_or(self.call.span, |node| node.span),
                message,
                "take another seed",
            );
            return None;
        }
        Some(step)
    }

    /// Positions, momenta and inverse masses, and the step size.
    fn state(&mut self) -> Option<([ArrayId; 3], DType, f64)> {
        let arrays = self.alike([1, 2, 3]);
        // What a number becomes is not known without the type; mistakes in F64 are mistakes in both.
        let dtype = arrays.map_or(DType::F64, |[q, ..]| self.scope.array(q).dtype);
        let eps = argument(self.cx, &self.call, 4, dtype, Wanted::NotZero);
        Some((arrays?, dtype, eps?))
    }

    fn leapfrog(&mut self) -> Option<Step> {
        let state = self.state();
        let node = self.get(0)?;
        let family = super::families::family(self.cx, node, state.map_or(DType::F64, |(_, dtype, _)| dtype));
        let ([q, p, inv_mass], dtype, eps) = state?;
        let op = Op::Leapfrog { family: family?, q, p, inv_mass, eps };
        let shape = self.scope.array(q).shape.clone();
        let results = vec![self.part("q", dtype, shape.clone())?, self.part("p", dtype, shape)?];
        Some(Step { op, results })
    }

    fn chain(&mut self) -> Option<Step> {
        let state = self.state();
        let node = self.get(0)?;
        let family = super::families::family(self.cx, node, state.map_or(DType::F64, |(_, dtype, _)| dtype));
        let node = self.get(5)?;
        let steps = whole32(self.cx, node, 1, u32::MAX);
        let (([q, p, inv_mass], dtype, eps), family, steps) = (state?, family?, steps?);
        let array = self.scope.array(q);
        let (rows, logp) = match array.shape[..] {
            [d] => (vec![steps, d], vec![steps]),
            [instances, d] => (vec![instances, steps, d], vec![instances, steps]),
            _ => {
                let message =
                    format!("`Chain` takes arrays [d] or [instances, d]; {} is neither", shown(array));
                let span = self.get(1)?.span;
                self.cx.error(span, message);
                return None;
            }
        };
        let mut results = Vec::with_capacity(4);
        for part in ["q", "p", "grad"] {
            results.push(self.part(part, dtype, rows.clone())?);
        }
        results.push(self.part("logp", dtype, logp)?);
        Some(Step { op: Op::Chain { family, q, p, inv_mass, eps, steps }, results })
    }
}

/// The shape that both are broadcast to.
fn joined(a: &[u32], b: &[u32]) -> Option<Vec<u32>> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut out = long.to_vec();
    let skipped = long.len() - short.len();
    for (length, other) in out[skipped..].iter_mut().zip(short) {
        match (*length, *other) {
            (x, y) if x == y || y == 1 => {}
            (1, y) => *length = y,
            _ => return None,
        }
    }
    Some(out)
}
