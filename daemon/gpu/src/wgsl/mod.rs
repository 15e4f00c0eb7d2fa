//! From WGSL to SPIR-V.
//!
//! Owns the compiler's options, the checks that naga does not make, and the linking of templates with the preludes of
//! `shaders/`. Pure: no device, no file. Never gives a driver a module that it has not walked.

mod check;
mod link;
mod shared;
mod spirv;

pub use link::link;
pub use link::link_source;

use crate::chain;
use crate::device::Limits;
use crate::program::Author;
use crate::program::Kernel;
use crate::program::KernelId;
use naga::back::spv;
use naga::proc::BoundsCheckPolicies;
use naga::proc::BoundsCheckPolicy;
use naga::valid::Capabilities;
use naga::valid::ModuleInfo;
use naga::valid::ValidationFlags;
use naga::valid::Validator;
use std::fmt;

/// What of ours decides what a source becomes, options included: compiled shaders that are kept go by it. Linking is not
/// part of it, because its result is the source.
pub(crate) const SOURCES: [&str; 4] =
    [include_str!("mod.rs"), include_str!("check.rs"), include_str!("shared.rs"), include_str!("spirv.rs")];

/// Where in a source, both from 1; columns count bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// `12:5`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A shader that is not dispatched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shader {kernel}: {fault}")]
pub struct CompileError {
    /// Which one.
    pub kernel: KernelId,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a shader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is no WGSL.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// The compiler's words.
        message: String,
    },
    /// It is WGSL and breaks a rule of it.
    #[error("{}{message}", prefix(*place))]
    Rule {
        /// Where, when the compiler says it.
        place: Option<Place>,
        /// Which rule.
        message: String,
    },
    /// Drivers compute it wrongly in double precision, without an error.
    #[error("{}{function} has no double precision{}", prefix(*place), instead(function))]
    DoubleMath {
        /// Where.
        place: Option<Place>,
        /// WGSL's name of the function.
        function: String,
    },
    /// A constant or value so large that its SPIR-V wraps around.
    #[error("{}a value of {elements} elements in the source, at most {max} are possible: put data into a buffer", prefix(*place))]
    LargeValue {
        /// Where.
        place: Option<Place>,
        /// How many it has.
        elements: u64,
        /// How many it may have.
        max: u64,
    },
    /// There must be exactly one entry point, called `main`.
    #[error("it must have one entry point, a compute shader called main, and has {0}")]
    EntryPoint(String),
    /// A variable that is not among the buffers that it is given.
    #[error("{}variable {variable} {wants}", prefix(*place))]
    Binding {
        /// Where.
        place: Option<Place>,
        /// Its name.
        variable: String,
        /// What it would have to be.
        wants: String,
    },
    /// The workgroup is larger than the device's.
    #[error("a workgroup of {threads} threads, this device has at most {max}")]
    Workgroup {
        /// How many it has.
        threads: u64,
        /// How many it may have.
        max: u32,
    },
    /// More memory in `var<workgroup>` than the device has.
    #[error("{bytes} bytes of workgroup memory, this device has {max}")]
    SharedMemory {
        /// How many it declares.
        bytes: u64,
        /// How many it may.
        max: u32,
    },
    /// What zeroes the workgroup memory of a user's shader would not do it.
    #[error("its workgroup memory cannot be zeroed: {0}")]
    Zeroing(String),
    /// The compiler itself did not come to an end. No fault of the source.
    #[error("the compiler {0}")]
    Compiler(String),
    /// The compiler made something that is not SPIR-V, or would be computed wrongly. No fault of the source.
    #[error("the compiler's result is not valid SPIR-V: {0}; report this")]
    Spirv(String),
}

fn prefix(place: Option<Place>) -> String {
    place.map(|place| format!("{place}: ")).unwrap_or_default()
}

fn instead(function: &str) -> String {
    let name = format!("{function}_f64");
    if link::has(&name) { format!("; call {name}") } else { String::new() }
}

/// The longest source of a user, in bytes, the preludes that are linked behind it included.
pub const MAX_USER_SOURCE: usize = 64 << 10;

/// Bytes of stack for a user's shader: enough for one operator after the other in the longest source. Only what is used
/// takes memory.
const DEEP_STACK: usize = 1 << 30;

/// A module that was parsed, validated and checked.
struct Checked {
    module: naga::Module,
    info: ModuleInfo,
}

/// SPIR-V 1.3 of a kernel, for Vulkan 1.1 and later.
///
/// # Errors
/// What is wrong with it, with the place in its source.
pub fn compile(kernel: &Kernel, limits: &Limits) -> Result<Vec<u32>, CompileError> {
    match kernel.author {
        Author::Catalogue => compile_here(kernel, limits),
        Author::User => deep(kernel, || compile_here(kernel, limits)),
    }
}

/// The compiler recurses once for each operator of a long sum, and a thread's usual stack ends long before a text does.
fn deep<T: Send>(
    kernel: &Kernel,
    work: impl FnOnce() -> Result<T, CompileError> + Send,
) -> Result<T, CompileError> {
    let failed = |what: String| CompileError { kernel: kernel.id.clone(), fault: Fault::Compiler(what) };
    if kernel.source.len() > MAX_USER_SOURCE {
        let message =
            format!("a shader of {} bytes, at most {MAX_USER_SOURCE} are possible", kernel.source.len());
        return Err(CompileError { kernel: kernel.id.clone(), fault: Fault::Rule { place: None, message } });
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(DEEP_STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| failed(format!("could not be started: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(failed("panicked; report this".to_owned())))
    })
}

fn compile_here(kernel: &Kernel, limits: &Limits) -> Result<Vec<u32>, CompileError> {
    let fail = |fault| CompileError { kernel: kernel.id.clone(), fault };
    let checked = parse(&kernel.source, limits).map_err(fail)?;
    check::interface(&checked.module, &kernel.source, kernel.bindings, kernel.push_bytes).map_err(fail)?;
    if kernel.author == Author::Catalogue || !shared::is_used(&checked.module) {
        return emit(&checked, kernel.author).map_err(fail);
    }
    let zeroed = with_zeroed_memory(&kernel.source, &checked.module, limits).map_err(fail)?;
    emit(&zeroed, kernel.author).map_err(fail)
}

/// The source of a user once more, with code that zeroes its workgroup memory. The module is the one of the source.
fn with_zeroed_memory(source: &str, module: &naga::Module, limits: &Limits) -> Result<Checked, Fault> {
    let written = shared::zeroed(source, module)
        .ok_or_else(|| Fault::EntryPoint("one that is not written as fn main(".to_owned()))?;
    shared::names(source, module).map_err(Fault::Zeroing)?;
    let checked = parse(&written, limits)?;
    shared::check(&checked.module).map_err(|what| Fault::Zeroing(what.to_owned()))?;
    Ok(checked)
}

/// Checks the shader of a user against the buffers that it will be given: the first `inputs` of `bytes` are read only, and
/// none may be declared larger than its buffer, because the compiler's bounds are those that are declared.
///
/// # Errors
/// What is wrong with it, with the place in its source.
pub fn check_user(
    kernel: &Kernel,
    inputs: usize,
    bytes: &[u64],
    limits: &Limits,
) -> Result<(), CompileError> {
    let fail = |fault| CompileError { kernel: kernel.id.clone(), fault };
    deep(kernel, || {
        let checked = parse(&kernel.source, limits).map_err(fail)?;
        check::interface(&checked.module, &kernel.source, kernel.bindings, kernel.push_bytes)
            .map_err(fail)?;
        check::buffers(&checked.module, &kernel.source, inputs, bytes).map_err(fail)
    })
}

/// Parses, validates and makes all checks that need no buffers.
fn parse(source: &str, limits: &Limits) -> Result<Checked, Fault> {
    let module = naga::front::wgsl::parse_str(source).map_err(|error| Fault::Syntax {
        place: error.location(source).map_or(Place { line: 1, column: 1 }, place),
        message: error.message().to_owned(),
    })?;
    let mut capabilities = Capabilities::IMMEDIATES;
    if limits.f64 {
        capabilities |= Capabilities::FLOAT64 | Capabilities::SHADER_INT64;
    }
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module).map_err(|error| {
        Fault::Rule { place: error.location(source).map(place), message: chain(error.as_inner()) }
    })?;
    check::entry_point(&module, limits)?;
    check::shared_memory(&module, limits)?;
    check::values(&module, source)?;
    check::math(&module, &info, source)?;
    Ok(Checked { module, info })
}

fn place(location: naga::SourceLocation) -> Place {
    Place { line: location.line_number, column: location.line_position }
}

/// Our own kernels stay within their buffers and end, so they are compiled without bounds checks and counted loops. A
/// user's have both: counted loops, too, because a driver's optimiser may take a loop without end as a proof that a bounds
/// check before it holds. The count is 2^64: a loop that spins still spins, and ends with its node. Workgroup memory is
/// zeroed by `shared` where it is a user's.
fn emit(checked: &Checked, author: Author) -> Result<Vec<u32>, Fault> {
    let user = author == Author::User;
    let bounds = if user { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        bounds_check_policies: BoundsCheckPolicies {
            index: bounds,
            buffer: bounds,
            image_load: bounds,
            binding_array: bounds,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: user,
        emit_int_div_checks: user,
        ..spv::Options::default()
    };
    let words = spv::write_vec(&checked.module, &checked.info, &options, None)
        .map_err(|error| Fault::Rule { place: None, message: chain(&error) })?;
    spirv::check(&words).map_err(Fault::Spirv)?;
    Ok(spirv::mark_exact(&words))
}

#[cfg(test)]
mod tests;
