//! Zeroed workgroup memory for shaders of users, who must not see what others left there.
//!
//! naga can do it with one store for each word, which drivers compile for seconds. Here a function with loops is added to
//! the source, and called at the start of `main`. Names that begin with `zed_` are ours.
//!
//! The source is changed as text, and its author may be hostile. So what came of it is read in the compiler's form, and
//! no name that the added code uses may be one of the source's own.

use naga::AddressSpace;
use naga::ArraySize;
use naga::Barrier;
use naga::Binding;
use naga::Block;
use naga::BuiltIn;
use naga::EntryPoint;
use naga::Expression;
use naga::Function;
use naga::GlobalVariable;
use naga::Handle;
use naga::Literal;
use naga::Module;
use naga::Scalar;
use naga::ScalarKind;
use naga::Statement;
use naga::Type;
use naga::TypeInner;
use std::collections::BTreeSet;

/// The function that is added.
const FUNCTION: &str = "zed_zero_shared";

/// What the added code uses of the language, besides types that begin as `TYPES` do.
const USED: [&str; 10] =
    ["workgroupBarrier", "atomicStore", "bool", "i32", "u32", "i64", "u64", "f16", "f32", "f64"];

/// How names of vectors and matrices begin.
const TYPES: [&str; 6] = ["vec2", "vec3", "vec4", "mat2x", "mat3x", "mat4x"];

/// What is written before the name that a declaration gives, variables excepted.
const DECLARES: [&str; 5] = ["fn", "struct", "alias", "const", "override"];

/// A part of a variable: the variable, then the member at each level, or `None` for every element of an array.
type Part = (Handle<GlobalVariable>, Vec<Option<u32>>);

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
        "{}{parameter}{} {FUNCTION}({lane}); workgroupBarrier();{}\nfn {FUNCTION}(zed_lane: u32) {{\n{body}}}\n",
        &source[..parameters],
        &source[parameters..start],
        &source[start..],
    ))
}

/// Refuses a source that declares a name which the added code uses. The module is the one of the source.
pub(super) fn names(source: &str, module: &Module) -> Result<(), String> {
    let bare = without_comments(source);
    let mut words = bare.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    let mut declared = Vec::new();
    while let Some(word) = words.next() {
        if DECLARES.contains(&word) {
            declared.extend(words.next());
        }
    }
    let variables = module.global_variables.iter().filter_map(|(_, variable)| variable.name.as_deref());
    let functions = module.functions.iter().filter_map(|(_, function)| function.name.as_deref());
    let is_used = |name: &&str| {
        name.starts_with("zed_") || USED.contains(name) || TYPES.iter().any(|start| name.starts_with(start))
    };
    match declared.into_iter().chain(variables).chain(functions).find(is_used) {
        Some(name) => Err(format!("the source may not declare {name}, which is used for it")),
        None => Ok(()),
    }
}

/// Refuses a module, parsed with the added code, where that does not zero all workgroup memory before anything else.
pub(super) fn check(module: &Module) -> Result<(), &'static str> {
    let entry = module.entry_points.first().ok_or("there is no entry point")?;
    let mut body = entry.function.body.iter().filter(|statement| match statement {
        Statement::Emit(range) => {
            let mut emitted = range.clone().map(|handle| &entry.function.expressions[handle]);
            !emitted.all(|expression| matches!(expression, Expression::AccessIndex { .. }))
        }
        _ => true,
    });
    let (
        Some(Statement::Call { function, arguments, result: None }),
        Some(Statement::ControlBarrier(barrier)),
    ) = (body.next(), body.next())
    else {
        return Err("main does not begin with it");
    };
    let function = &module.functions[*function];
    let [argument] = arguments.as_slice() else { return Err("it has other parameters") };
    let at_lane = is_lane_value(module, &entry.function, *argument);
    if function.name.as_deref() != Some(FUNCTION) || *barrier != Barrier::WORK_GROUP || !at_lane {
        return Err("main does not begin with it");
    }
    let mut wanted = BTreeSet::new();
    for (handle, variable) in module.global_variables.iter() {
        if variable.space == AddressSpace::WorkGroup {
            parts(module, variable.ty, &(handle, Vec::new()), &mut wanted);
        }
    }
    let mut found = BTreeSet::new();
    stores(function, &function.body, true, &mut found)?;
    if found == wanted { Ok(()) } else { Err("not every variable is stored to") }
}

/// Whether a value is the thread's place in its workgroup, as `main` is told it.
fn is_lane_value(module: &Module, main: &Function, value: Handle<Expression>) -> bool {
    let binding = |argument: u32| main.arguments.get(argument as usize);
    let binding = match main.expressions[value] {
        Expression::FunctionArgument(argument) => {
            binding(argument).and_then(|argument| argument.binding.as_ref())
        }
        Expression::AccessIndex { base, index } => match main.expressions[base] {
            Expression::FunctionArgument(argument) => {
                binding(argument).and_then(|argument| match &module.types[argument.ty].inner {
                    TypeInner::Struct { members, .. } => members.get(index as usize)?.binding.as_ref(),
                    _ => None,
                })
            }
            _ => None,
        },
        _ => None,
    };
    matches!(binding, Some(Binding::BuiltIn(BuiltIn::LocalInvocationIndex)))
}

/// Adds the parts of a type that are stored to one by one.
fn parts(module: &Module, ty: Handle<Type>, path: &Part, all: &mut BTreeSet<Part>) {
    let below = |step| (path.0, [path.1.as_slice(), &[step]].concat());
    match &module.types[ty].inner {
        TypeInner::Array { base, .. } => parts(module, *base, &below(None), all),
        TypeInner::Struct { members, .. } => {
            for (index, member) in (0..).zip(members) {
                parts(module, member.ty, &below(Some(index)), all);
            }
        }
        _ => {
            all.insert(path.clone());
        }
    }
}

/// Adds the parts to which a block stores 0. It may do nothing else, but count, and return where the function ends
/// anyway: `ends` says that nothing follows the block.
fn stores(
    function: &Function,
    block: &Block,
    ends: bool,
    found: &mut BTreeSet<Part>,
) -> Result<(), &'static str> {
    for (index, statement) in block.iter().enumerate() {
        let ends = ends && index + 1 == block.len();
        match statement {
            Statement::Emit(_) | Statement::Break => {}
            Statement::Return { value: None } if ends => {}
            Statement::Block(inner) => stores(function, inner, ends, found)?,
            Statement::If { accept, reject, .. } => {
                stores(function, accept, ends, found)?;
                stores(function, reject, ends, found)?;
            }
            Statement::Loop { body, continuing, .. } => {
                stores(function, body, false, found)?;
                stores(function, continuing, false, found)?;
            }
            Statement::Store { pointer, value } => {
                if matches!(function.expressions[*pointer], Expression::LocalVariable(_)) {
                    continue;
                }
                let part = part(function, *pointer).ok_or("it stores to something else")?;
                if !is_zero(&function.expressions[*value]) {
                    return Err("it stores something else");
                }
                found.insert(part);
            }
            _ => return Err("it does something else"),
        }
    }
    Ok(())
}

/// Where a pointer points to.
fn part(function: &Function, pointer: Handle<Expression>) -> Option<Part> {
    let (base, step) = match function.expressions[pointer] {
        Expression::GlobalVariable(variable) => return Some((variable, Vec::new())),
        Expression::Access { base, .. } => (base, None),
        Expression::AccessIndex { base, index } => (base, Some(index)),
        _ => return None,
    };
    let (variable, mut path) = part(function, base)?;
    path.push(step);
    Some((variable, path))
}

/// Whether an expression is nothing but 0.
fn is_zero(expression: &Expression) -> bool {
    match expression {
        Expression::ZeroValue(_) => true,
        Expression::Literal(literal) => matches!(
            literal,
            Literal::U32(0) | Literal::I32(0) | Literal::U64(0) | Literal::I64(0) | Literal::Bool(false)
        ),
        _ => false,
    }
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

/// Whether naga ends a comment of one line there.
fn ends_line(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The source with blanks for comments, so that every byte keeps its place.
fn without_comments(source: &str) -> String {
    let mut bytes = source.as_bytes().to_vec();
    let mut at = 0;
    while at + 1 < bytes.len() {
        let length = match &bytes[at..at + 2] {
            b"//" => source[at..].find(ends_line).unwrap_or(source.len() - at),
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
