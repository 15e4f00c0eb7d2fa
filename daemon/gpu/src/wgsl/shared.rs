//! Zeroed workgroup memory for shaders of users, who must not see what others left there.
//!
//! naga can do it with one store for each word, which drivers compile for seconds. Here a function with loops is added to
//! the source, and called at the start of `main`. Names that begin with `zed_` are ours.

use naga::AddressSpace;
use naga::ArraySize;
use naga::Binding;
use naga::BuiltIn;
use naga::EntryPoint;
use naga::Handle;
use naga::Module;
use naga::Scalar;
use naga::ScalarKind;
use naga::Type;
use naga::TypeInner;

/// Whether a module has workgroup memory.
pub(super) fn is_used(module: &Module) -> bool {
    module.global_variables.iter().any(|(_, variable)| variable.space == AddressSpace::WorkGroup)
}

/// The source with zeroed workgroup memory; `None` when `main` is not found. The module is the one of the source.
pub(super) fn zeroed(source: &str, module: &Module) -> Option<String> {
    let entry = module.entry_points.first()?;
    let lanes: u32 = entry.workgroup_size.iter().product();
    let mut body = String::new();
    for (_, variable) in module.global_variables.iter() {
        if variable.space == AddressSpace::WorkGroup {
            let name = variable.name.as_deref().unwrap_or_default();
            body += &match module.types[variable.ty].inner {
                TypeInner::Array { .. } => zero(module, variable.ty, name, 0, lanes),
                _ => format!("if zed_lane == 0u {{ {}}}\n", zero(module, variable.ty, name, 1, lanes)),
            };
        }
    }
    let bare = without_comments(source);
    let parameters = main_parameters(&bare)?;
    let start = parameters + bare[parameters..].find('{')? + 1;
    let (parameter, lane) = match lane(module, entry) {
        Some(lane) => ("", lane),
        None => ("@builtin(local_invocation_index) zed_lane: u32, ", "zed_lane".to_owned()),
    };
    Some(format!(
        "{}{parameter}{} zed_zero_shared({lane}); workgroupBarrier();{}\nfn zed_zero_shared(zed_lane: u32) {{\n{body}}}\n",
        &source[..parameters],
        &source[parameters..start],
        &source[start..],
    ))
}

/// Statements that make a value of a type 0. An array at depth 0 is shared out among the threads.
fn zero(module: &Module, ty: Handle<Type>, path: &str, depth: u32, lanes: u32) -> String {
    match &module.types[ty].inner {
        TypeInner::Scalar(scalar) => format!("{path} = {}();\n", name(*scalar)),
        TypeInner::Vector { size, scalar } => format!("{path} = vec{}<{}>();\n", *size as u8, name(*scalar)),
        TypeInner::Matrix { columns, rows, scalar } => {
            format!("{path} = mat{}x{}<{}>();\n", *columns as u8, *rows as u8, name(*scalar))
        }
        TypeInner::Atomic(scalar) => format!("atomicStore(&{path}, {}());\n", name(*scalar)),
        TypeInner::Array { base, size: ArraySize::Constant(count), .. } => {
            let (first, step) =
                if depth == 0 { ("zed_lane".to_owned(), lanes) } else { ("0u".to_owned(), 1) };
            let index = format!("zed_{depth}");
            let inner = zero(module, *base, &format!("{path}[{index}]"), depth + 1, lanes);
            format!("for (var {index} = {first}; {index} < {count}u; {index} += {step}u) {{\n{inner}}}\n")
        }
        TypeInner::Struct { members, .. } => {
            let member = |member: &naga::StructMember| {
                let name = member.name.as_deref().unwrap_or_default();
                zero(module, member.ty, &format!("{path}.{name}"), depth, lanes)
            };
            members.iter().map(member).collect()
        }
        // Workgroup memory can hold nothing else.
        _ => String::new(),
    }
}

fn name(scalar: Scalar) -> String {
    let letter = match scalar.kind {
        ScalarKind::Sint | ScalarKind::AbstractInt => 'i',
        ScalarKind::Uint => 'u',
        ScalarKind::Float | ScalarKind::AbstractFloat => 'f',
        ScalarKind::Bool => return "bool".to_owned(),
    };
    format!("{letter}{}", u32::from(scalar.width) * 8)
}

/// What `main` calls its place in the workgroup, when it asks for it.
fn lane(module: &Module, entry: &EntryPoint) -> Option<String> {
    let is_lane =
        |binding: &Option<Binding>| matches!(binding, Some(Binding::BuiltIn(BuiltIn::LocalInvocationIndex)));
    entry.function.arguments.iter().find_map(|argument| {
        let name = argument.name.clone()?;
        if is_lane(&argument.binding) {
            return Some(name);
        }
        let TypeInner::Struct { members, .. } = &module.types[argument.ty].inner else { return None };
        let member = members.iter().find(|member| is_lane(&member.binding))?;
        Some(format!("{name}.{}", member.name.as_deref()?))
    })
}

/// The byte after the parenthesis that opens the parameters of `main`.
fn main_parameters(bare: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + bare[from..].find("main")?;
        let before = bare[..at].trim_end();
        let after = bare[at + 4..].trim_start();
        let whole = before.len() < at && before.ends_with("fn") && after.starts_with('(');
        if whole {
            return Some(bare.len() - after.len() + 1);
        }
        from = at + 4;
    }
}

/// The source with blanks for comments, so that every byte keeps its place.
fn without_comments(source: &str) -> String {
    let mut bytes = source.as_bytes().to_vec();
    let mut at = 0;
    while at + 1 < bytes.len() {
        let length = match &bytes[at..at + 2] {
            b"//" => bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at),
            b"/*" => block_comment(&bytes[at..]),
            _ => 0,
        };
        bytes[at..at + length].fill(b' ');
        at += length.max(1);
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// The length of a comment that may hold others.
fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}
