//! Checks of a validated module that naga does not make.
//!
//! Two kinds: what naga accepts and then translates wrongly, and what does not fit the buffers and limits that the shader
//! will meet.

use super::Fault;
use super::Place;
use super::place;
use crate::device::Limits;
use naga::AddressSpace;
use naga::Block;
use naga::Expression;
use naga::Function;
use naga::GlobalVariable;
use naga::Handle;
use naga::MathFunction;
use naga::Module;
use naga::ScalarKind;
use naga::ShaderStage;
use naga::Span;
use naga::Statement;
use naga::StorageAccess;
use naga::TypeInner;
use naga::valid::FunctionInfo;
use naga::valid::ModuleInfo;
use std::collections::BTreeSet;

/// Lengths of SPIR-V instructions are 16 bits wide and naga lets them wrap; some words are the instruction's own.
const MAX_VALUE_ELEMENTS: u64 = 65_000;

/// A case takes two words of its instruction.
const MAX_CASES: u64 = MAX_VALUE_ELEMENTS / 2;

fn at(span: Span, source: &str) -> Option<Place> {
    span.is_defined().then(|| place(span.location(source)))
}

/// One compute shader called `main`, of a size that the device has.
pub(super) fn entry_point(module: &Module, limits: &Limits) -> Result<(), Fault> {
    let [entry] = module.entry_points.as_slice() else {
        return Err(Fault::EntryPoint(match module.entry_points.len() {
            0 => "none".to_owned(),
            n => n.to_string(),
        }));
    };
    if entry.stage != ShaderStage::Compute || entry.name != "main" {
        return Err(Fault::EntryPoint(format!("{} ({:?})", entry.name, entry.stage)));
    }
    let threads = entry.workgroup_size.iter().map(|length| u64::from(*length)).fold(1, u64::saturating_mul);
    if threads > u64::from(limits.workgroup_threads) {
        return Err(Fault::Workgroup { threads, max: limits.workgroup_threads });
    }
    Ok(())
}

/// All of `var<workgroup>` together.
pub(super) fn shared_memory(module: &Module, limits: &Limits) -> Result<(), Fault> {
    let shared =
        module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    let bytes = shared.map(|(_, variable)| size(module, variable)).sum();
    if bytes > u64::from(limits.shared_bytes) {
        return Err(Fault::SharedMemory { bytes, max: limits.shared_bytes });
    }
    Ok(())
}

/// Bytes of a variable's type; an array without a length counts as one element.
fn size(module: &Module, variable: &GlobalVariable) -> u64 {
    u64::from(module.types[variable.ty].inner.size(module.to_ctx()))
}

/// No value of so many parts that its instruction wraps.
pub(super) fn values(module: &Module, source: &str) -> Result<(), Fault> {
    let large = |elements: usize, max, span| {
        let elements = u64::try_from(elements).unwrap_or(u64::MAX);
        if elements > max {
            Err(Fault::LargeValue { place: at(span, source), elements, max })
        } else {
            Ok(())
        }
    };
    let functions = module.functions.iter().map(|(_, function)| function);
    let functions: Vec<&Function> =
        functions.chain(module.entry_points.iter().map(|entry| &entry.function)).collect();
    let arenas = std::iter::once(&module.global_expressions);
    for arena in arenas.chain(functions.iter().map(|function| &function.expressions)) {
        for (handle, expression) in arena.iter() {
            if let Expression::Compose { components, .. } = expression {
                large(components.len(), MAX_VALUE_ELEMENTS, arena.get_span(handle))?;
            }
        }
    }
    for (handle, ty) in module.types.iter() {
        if let TypeInner::Struct { members, .. } = &ty.inner {
            large(members.len(), MAX_VALUE_ELEMENTS, module.types.get_span(handle))?;
        }
    }
    for function in functions {
        cases(&function.body, &mut |count, span| large(count, MAX_CASES, span))?;
    }
    Ok(())
}

/// Calls `check` with the number of cases of each `switch`.
fn cases(block: &Block, check: &mut impl FnMut(usize, Span) -> Result<(), Fault>) -> Result<(), Fault> {
    for (statement, span) in block.span_iter() {
        match statement {
            Statement::Block(inner) => cases(inner, check)?,
            Statement::If { accept, reject, .. } => {
                cases(accept, check)?;
                cases(reject, check)?;
            }
            Statement::Loop { body, continuing, .. } => {
                cases(body, check)?;
                cases(continuing, check)?;
            }
            Statement::Switch { cases: all, .. } => {
                check(all.len(), *span)?;
                for case in all {
                    cases(&case.body, check)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// No function of doubles that SPIR-V's extended instructions do not have: naga emits it all the same, and drivers give a
/// number that is wrong.
pub(super) fn math(module: &Module, info: &ModuleInfo, source: &str) -> Result<(), Fault> {
    for (handle, function) in module.functions.iter() {
        math_of(module, function, &info[handle], source)?;
    }
    for (index, entry) in module.entry_points.iter().enumerate() {
        math_of(module, &entry.function, info.get_entry_point(index), source)?;
    }
    Ok(())
}

fn math_of(module: &Module, function: &Function, info: &FunctionInfo, source: &str) -> Result<(), Fault> {
    for (handle, expression) in function.expressions.iter() {
        let Expression::Math { fun, arg, .. } = expression else { continue };
        let scalar = info[*arg].ty.inner_with(&module.types).scalar();
        let double = scalar.is_some_and(|scalar| scalar.kind == ScalarKind::Float && scalar.width == 8);
        if double && !has_double(*fun) {
            return Err(Fault::DoubleMath {
                place: at(function.expressions.get_span(handle), source),
                function: format!("{fun:?}").to_lowercase(),
            });
        }
    }
    Ok(())
}

fn has_double(function: MathFunction) -> bool {
    use naga::MathFunction as M;
    matches!(
        function,
        M::Abs
            | M::Min
            | M::Max
            | M::Clamp
            | M::Saturate
            | M::Ceil
            | M::Floor
            | M::Round
            | M::Fract
            | M::Trunc
            | M::Ldexp
            | M::Sign
            | M::Fma
            | M::Mix
            | M::Step
            | M::Sqrt
            | M::InverseSqrt
            | M::Dot
    )
}

/// Only storage buffers in group 0 with bindings below `bindings`, each once, and push constants of at most `push_bytes`.
pub(super) fn interface(module: &Module, source: &str, bindings: u32, push_bytes: u32) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for (handle, variable) in module.global_variables.iter() {
        let fail = |wants: String| Err(binding_fault(module, handle, source, wants));
        match variable.space {
            AddressSpace::Private | AddressSpace::WorkGroup => {}
            AddressSpace::Storage { .. } => match &variable.binding {
                Some(at) if at.group == 0 && at.binding < bindings => {
                    if !seen.insert(at.binding) {
                        return fail(format!("has the binding of another one, {}", at.binding));
                    }
                }
                _ => return fail(format!("must be in group 0 and have a binding below {bindings}")),
            },
            AddressSpace::Immediate if size(module, variable) <= u64::from(push_bytes) => {}
            AddressSpace::Immediate => {
                return fail(match push_bytes {
                    0 => "cannot be var<immediate>: put numbers into a buffer".to_owned(),
                    bytes => format!("is larger than the {bytes} bytes of push constants"),
                });
            }
            _ => return fail("must be a storage buffer, or of the workgroup or private".to_owned()),
        }
    }
    if let Some((handle, constant)) = module.overrides.iter().next() {
        return Err(Fault::Binding {
            place: at(module.overrides.get_span(handle), source),
            variable: constant.name.clone().unwrap_or_default(),
            wants: "cannot be an override: write const".to_owned(),
        });
    }
    Ok(())
}

/// The first `inputs` bindings are only read, and no variable is declared larger than its buffer.
pub(super) fn buffers(module: &Module, source: &str, inputs: usize, bytes: &[u64]) -> Result<(), Fault> {
    for (handle, variable) in module.global_variables.iter() {
        let (AddressSpace::Storage { access }, Some(binding)) = (variable.space, &variable.binding) else {
            continue;
        };
        let index = binding.binding as usize;
        let fail = |wants: String| Err(binding_fault(module, handle, source, wants));
        if index < inputs && access != StorageAccess::LOAD {
            return fail("is an input and must be declared var<storage, read>".to_owned());
        }
        let (declared, given) = (size(module, variable), bytes.get(index).copied().unwrap_or(0));
        if declared > given {
            return fail(format!("is declared with {declared} bytes, its array has {given}"));
        }
    }
    Ok(())
}

fn binding_fault(module: &Module, handle: Handle<GlobalVariable>, source: &str, wants: String) -> Fault {
    Fault::Binding {
        place: at(module.global_variables.get_span(handle), source),
        variable: module.global_variables[handle].name.clone().unwrap_or_default(),
        wants,
    }
}
