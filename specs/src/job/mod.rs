//! Jobs of a GPU node: what a person writes into `/zed/gpu/N/queue`.
//!
//! Owns the value of a job in which every name is resolved and every type and shape is known, the parser of its text
//! and every check that needs no device. Knows no kernel, no driver, no data beyond what the text itself holds.

mod decode;
mod op;
mod render;

pub use decode::parse;
pub use decode::raw_bytes;
pub use op::Binary;
pub use op::Family;
pub use op::MatmulVariant;
pub use op::Op;
pub use op::Random;
pub use op::Reduction;
pub use op::Unary;
pub use render::render_job;

use serde::Deserialize;
use serde::Serialize;
use std::ops::Range;
use std::time::Duration;

/// The most axes that an array may have.
pub const MAX_RANK: usize = 4;

/// The most elements that one array may have: indices in kernels are 32 bits wide.
pub const MAX_ELEMENTS: u64 = 1 << 30;

/// The most inputs of one job.
pub const MAX_INPUTS: usize = 256;

/// The most steps of one job.
pub const MAX_STEPS: usize = 256;

/// The longest text of a job, in bytes; what follows its NUL byte does not count.
pub const MAX_TEXT: usize = 1024 * 1024;

/// The most arrays that one `Wgsl` binds.
pub const MAX_BINDINGS: usize = 16;

/// The most workgroups of one axis: what every Vulkan device can do.
pub const MAX_GROUPS: u32 = 65_535;

/// What the elements of an array are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Unsigned, 32 bits: random bits, results of `Wgsl`.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F64 => 8,
        }
    }

    /// As status files say it: `f32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::U32 => "u32",
        }
    }
}

/// An array of a job: its place in [`Job::arrays`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArrayId(pub u32);

/// One array: given, made on the way, or a result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Array {
    /// `a`; of a step with several results `chain.q`.
    pub name: String,
    /// Its elements.
    pub dtype: DType,
    /// Length of each axis, the last one varies fastest; no axis is a single value. No length is 0.
    pub shape: Vec<u32>,
}

impl Array {
    /// How many elements it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|length| u64::from(*length)).product()
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.size()
    }
}

/// Where the elements of an input come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// The text: `F32([1, 2, 3])`.
    Text,
    /// The bytes after the text's end, after a NUL byte, in the order of the inputs: `Raw(F32, [3])`.
    Raw,
    /// `jobs/ID/in/NAME`, written after the job was accepted: `Upload(F32, [3])`.
    Upload,
}

/// What an operation takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Operand {
    /// An array that an input or an earlier step gives.
    Array(ArrayId),
    /// A number in the text; of the type of the operation's other operand.
    Number(f64),
}

/// One operation, and the arrays that it gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// What it gives, in the order that [`Op`] says.
    pub results: Vec<ArrayId>,
}

/// What happens to a job whose kernels are not to be run on the device now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Fallback {
    /// It fails.
    #[default]
    Forbid,
    /// It runs on the CPU; its status, its result and the stats say so.
    Allow,
}

/// What reading the handle that submitted a job gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Reply {
    /// Its id, at once.
    #[default]
    Id,
    /// Its result as text, when it has ended.
    Text,
    /// The bytes of its outputs, one after the other, when it has ended.
    Raw,
}

/// A job that has been checked: all names are resolved, all shapes agree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// All arrays: first the inputs, then the results of the steps in their order.
    pub arrays: Vec<Array>,
    /// Where the first of [`Job::arrays`] come from.
    pub inputs: Vec<Source>,
    /// What is done, in this order.
    pub steps: Vec<Step>,
    /// What is kept. Never empty.
    pub outputs: Vec<ArrayId>,
    /// From the moment that the device begins; after that the job has failed and its node is restarted.
    pub deadline: Duration,
    /// Higher ones of the same user are first. -100 to 100.
    pub priority: i8,
    /// Whether the CPU may do it.
    pub fallback: Fallback,
    /// What the submitting handle gives to read.
    pub reply: Reply,
}

/// A job with what came with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The job.
    pub job: Job,
    /// For each input the bytes of its elements, little-endian, when the text gives them.
    pub data: Vec<Option<Vec<u8>>>,
    /// Where the bytes of the Raw inputs are in what was parsed: one after the other, in the order of the inputs, exactly
    /// as long as these. None when no input is Raw.
    pub raw: Option<Range<usize>>,
}

impl Job {
    /// The deadline of a job that names none.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

    /// The longest deadline that a job may have.
    pub const MAX_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

    /// An array of this job.
    ///
    /// # Panics
    /// When the id is another job's.
    pub fn array(&self, id: ArrayId) -> &Array {
        &self.arrays[id.0 as usize]
    }

    /// The inputs, with where they come from.
    pub fn inputs(&self) -> impl Iterator<Item = (ArrayId, &Array, Source)> {
        (0..).map(ArrayId).zip(&self.arrays).zip(&self.inputs).map(|((id, array), from)| (id, array, *from))
    }

    /// The outputs.
    pub fn outputs(&self) -> impl Iterator<Item = (ArrayId, &Array)> {
        self.outputs.iter().map(|id| (*id, self.array(*id)))
    }

    /// Bytes of all outputs together.
    pub fn output_bytes(&self) -> u64 {
        self.outputs().map(|(_, array)| array.bytes()).sum()
    }

    /// Bytes of all inputs together.
    pub fn input_bytes(&self) -> u64 {
        self.inputs().map(|(_, array, _)| array.bytes()).sum()
    }
}
