//! The catalogue of operations: what each takes and gives.
//!
//! Owns names and meaning; how an operation is computed is the node's.

use super::ArrayId;
use super::DType;
use super::Operand;
use serde::Deserialize;
use serde::Serialize;

/// A closed set of names that a text may use.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// As it is written.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => stringify!($variant),)* }
            }

            /// The one of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $(stringify!($variant) => Some($name::$variant),)* _ => None }
            }
        }
    };
}

names! {
    /// One operand, element by element.
    Unary {
        /// e^x.
        Exp,
        /// Natural logarithm.
        Log,
        /// Square root.
        Sqrt,
        /// Without its sign.
        Abs,
        /// With the other sign.
        Neg,
        /// 1 / (1 + e^-x).
        Sigmoid,
        /// Hyperbolic tangent.
        Tanh,
        /// max(x, 0); NaN stays NaN.
        Relu,
        /// Rounded up.
        Ceil,
        /// Rounded down.
        Floor,
        /// -1, 0, 1; NaN stays NaN.
        Sign,
        /// 1 / x.
        Recip,
        /// x * x.
        Square,
        /// The error function.
        Erf,
        /// e^x - 1, exact near 0.
        Expm1,
        /// ln(1 + x), exact near 0.
        Log1p,
    }
}

names! {
    /// Two operands, element by element, with NumPy's broadcasting.
    Binary {
        /// a + b.
        Add,
        /// a * b.
        Mul,
        /// a - b.
        Sub,
        /// a / b.
        Div,
        /// a to the power b.
        Pow,
        /// The larger; NaN when one is NaN.
        Max,
        /// The smaller; NaN when one is NaN.
        Min,
        /// 1 where equal, else 0.
        Eq,
        /// 1 where a < b, else 0.
        Lt,
        /// 1 where a > b, else 0.
        Gt,
    }
}

names! {
    /// What makes one value of many.
    Reduction {
        /// The sum.
        Sum,
        /// The smallest; NaN when one is NaN.
        ReduceMin,
        /// The largest; NaN when one is NaN.
        ReduceMax,
        /// ln of the sum of e^x, without overflow; of nothing but -inf it is -inf.
        LogSumExp,
    }
}

names! {
    /// What is drawn.
    Random {
        /// 32 random bits: type U32.
        Bits,
        /// At least 0, below 1.
        Uniform,
        /// Mean 0, variance 1.
        Normal,
    }
}

names! {
    /// How a matrix product is computed. All give the same up to rounding.
    MatmulVariant {
        /// By size.
        Auto,
        /// One element a thread, from global memory.
        Naive,
        /// Tiles of 16 x 16 in shared memory.
        Tiled,
        /// Tiles of 32 x 32 in shared memory.
        Tiled32,
        /// Tiles of 32 x 16, two rows a thread.
        Tiled16x2,
    }
}

/// A distribution with its log density over unconstrained z, Jacobian and normaliser included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Family {
    /// Mean and standard deviation.
    Normal {
        /// Mean.
        mu: f64,
        /// Standard deviation, above 0.
        sigma: f64,
    },
    /// x = e^z.
    Exponential {
        /// Rate, above 0.
        lambda: f64,
    },
    /// Student's t.
    StudentT {
        /// Degrees of freedom, above 0.
        nu: f64,
        /// Location.
        mu: f64,
        /// Scale, above 0.
        sigma: f64,
    },
    /// Location and scale.
    Cauchy {
        /// Location.
        loc: f64,
        /// Scale, above 0.
        scale: f64,
    },
    /// x = e^z.
    HalfNormal {
        /// Scale, above 0.
        sigma: f64,
    },
    /// x = e^z.
    Weibull {
        /// Shape, above 0.
        k: f64,
        /// Scale, above 0.
        lambda: f64,
    },
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// `Exp("a")`: an array of the same shape. F32 or F64.
    Unary(Unary, ArrayId),
    /// `Add("a", "b")`, `Mul("a", 2.0)`: of the broadcast shape, both of one type. F32 or F64.
    Binary(Binary, Operand, Operand),
    /// `Cast(F64, "a")`: between F32 and F64.
    Cast(DType, ArrayId),
    /// `Sum("a")` over all elements gives a single value, shape `[]`; `Sum("a", 1)` over axis 1 removes that axis.
    Reduce(Reduction, ArrayId, Option<u8>),
    /// `KineticEnergy("p", "inv_mass")`: the sum of p^2 * inv_mass / 2, shape `[]`.
    KineticEnergy {
        /// Momenta.
        p: ArrayId,
        /// Diagonal of the inverse mass matrix, of the same shape.
        inv_mass: ArrayId,
    },
    /// `NormalLogPdf("x", "mu", "sigma")`: log density of each x; operands broadcast.
    NormalLogPdf {
        /// Where.
        x: Operand,
        /// Means.
        mu: Operand,
        /// Standard deviations.
        sigma: Operand,
    },
    /// `Matmul("a", "b")`, `Matmul("a", "b", Tiled)`: [m, k] times [k, n], row-major.
    Matmul(MatmulVariant, ArrayId, ArrayId),
    /// `Transpose("a")`: [m, n] to [n, m].
    Transpose(ArrayId),
    /// `Uniform(dtype: F32, shape: [1000], seed: 42)`: Philox 2x32-10; element i of a 32-bit type is word i % 2 of
    /// the block with counter (offset + i / 2), key `seed`'s low 32 bits, high counter word `seed`'s high 32 bits. F64
    /// elements take a whole block each.
    Random {
        /// What is drawn.
        random: Random,
        /// Key and high counter word.
        seed: u64,
        /// The first counter: draws of one stream in several jobs go on where the last ended.
        offset: u32,
    },
    /// `Leapfrog(family: Normal(mu: 0, sigma: 1), q: "q", p: "p", inv_mass: "m", eps: 0.1)`: one step of each element by itself.
    /// Gives `NAME.q`, `NAME.p`.
    Leapfrog {
        /// The density.
        family: Family,
        /// Positions.
        q: ArrayId,
        /// Momenta, of the same shape.
        p: ArrayId,
        /// Diagonal of the inverse mass matrix, of the same shape.
        inv_mass: ArrayId,
        /// Step size; negative goes back.
        eps: f64,
    },
    /// `Chain(family: Normal(mu: 0, sigma: 1), q: "q", p: "p", inv_mass: "m", eps: 0.1, steps: 32)`: q, p and inv_mass are `[d]` or
    /// `[instances, d]`. Gives `NAME.q`, `NAME.p`, `NAME.grad` of `[steps, d]` and `NAME.logp` of `[steps]`, each with the
    /// instances before.
    Chain {
        /// The density.
        family: Family,
        /// Positions.
        q: ArrayId,
        /// Momenta, of the same shape.
        p: ArrayId,
        /// Diagonal of the inverse mass matrix, of the same shape.
        inv_mass: ArrayId,
        /// Step size; negative goes back.
        eps: f64,
        /// How many steps.
        steps: u32,
    },
    /// `Wgsl(source: "...", inputs: ["a"], outputs: {"c": (F32, [n])}, groups: (1, 1, 1))`: a compute shader of the
    /// user. Entry point `main`; bindings of group 0 in the order of inputs, then outputs. Gives `NAME.c` for each.
    Wgsl {
        /// The shader.
        source: String,
        /// Bindings that are read.
        inputs: Vec<ArrayId>,
        /// Workgroups.
        groups: [u32; 3],
    },
}

impl Op {
    /// As it is written: `Add`.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Unary(unary, _) => unary.name(),
            Op::Binary(binary, ..) => binary.name(),
            Op::Cast(..) => "Cast",
            Op::Reduce(reduction, ..) => reduction.name(),
            Op::KineticEnergy { .. } => "KineticEnergy",
            Op::NormalLogPdf { .. } => "NormalLogPdf",
            Op::Matmul(..) => "Matmul",
            Op::Transpose(_) => "Transpose",
            Op::Random { random, .. } => random.name(),
            Op::Leapfrog { .. } => "Leapfrog",
            Op::Chain { .. } => "Chain",
            Op::Wgsl { .. } => "Wgsl",
        }
    }
}
