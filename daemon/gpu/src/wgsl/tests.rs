use super::*;
use crate::program::Author;

fn limits() -> Limits {
    Limits {
        push_bytes: 128,
        workgroup_threads: 1024,
        groups: [65_535; 3],
        shared_bytes: 32 << 10,
        buffer_bytes: 128 << 20,
        bindings: 16,
        f64: true,
    }
}

fn user(source: &str) -> Kernel {
    Kernel::new("user", source.to_owned(), Author::User, 2, 0)
}

fn fault(source: &str) -> String {
    compile(&user(source), &limits()).expect_err(source).to_string()
}

const BUFFERS: &str = "@group(0) @binding(0) var<storage, read> a: array<f64>;\n\
                       @group(0) @binding(1) var<storage, read_write> b: array<f64>;\n";

#[test]
fn what_cannot_be_dispatched_is_named_with_its_place() {
    let main = "@compute @workgroup_size(1) fn main() { b[0] = a[0]; }";
    assert!(compile(&user(&format!("{BUFFERS}{main}")), &limits()).is_ok());
    for (source, wants) in [
        (format!("{BUFFERS}@compute @workgroup_size(1) fn main() {{\n  b[0] = a[0] +;\n}}"), "4:16: "),
        (
            format!("{BUFFERS}@compute @workgroup_size(1) fn main() {{\n  b[0] = exp(a[0]);\n}}"),
            "4:10: exp has no double precision; call exp_f64",
        ),
        (
            format!("{BUFFERS}@compute @workgroup_size(1) fn main() {{\n  b[0] = frexp(a[0]).fract;\n}}"),
            "4:10: frexp has",
        ),
        (format!("{BUFFERS}@compute @workgroup_size(1) fn start() {{ b[0] = a[0]; }}"), "one entry point"),
        (BUFFERS.to_owned(), "has none"),
        (format!("{BUFFERS}@compute @workgroup_size(2048) fn main() {{ b[0] = a[0]; }}"), "2048 threads"),
        (
            format!(
                "{BUFFERS}var<workgroup> s: array<f64, 5000>;\n@compute @workgroup_size(1) fn main() {{ b[0] = s[1]; }}"
            ),
            "40000 bytes of workgroup memory",
        ),
        (
            format!("@group(0) @binding(2) var<storage, read> c: array<f32>;\n{BUFFERS}{main}"),
            "1:23: variable c must be in group 0",
        ),
        (
            format!("@group(0) @binding(1) var<storage, read> c: array<f32>;\n{BUFFERS}{main}"),
            "variable b has the binding of",
        ),
        (format!("@group(0) @binding(1) var<uniform> c: vec4<f32>;\n{main}"), ""),
        (format!("{BUFFERS}var<immediate> c: u32;\n{main}"), "put numbers into a buffer"),
        (format!("{BUFFERS}override c: u32 = 1;\n{main}"), "write const"),
    ] {
        let text = fault(&source);
        assert!(text.contains(wants), "{source}\n{text}");
        assert!(text.starts_with("shader user-"), "{text}");
    }
}

#[test]
fn a_constant_too_long_for_one_instruction_is_found() {
    let values = |count: usize| {
        let list = vec!["1"; count].join(",");
        format!(
            "@group(0) @binding(0) var<storage, read_write> b: array<u32>;\n\
             const table = array<u32, {count}>({list});\n\
             @compute @workgroup_size(1) fn main() {{ var t = table; b[0] = t[b[1]]; }}"
        )
    };
    assert!(compile(&user(&values(1000)), &limits()).is_ok());
    // Longer than a user's source may be.
    let long = Kernel::new("long", values(70_000), Author::Catalogue, 1, 0);
    let error = compile(&long, &limits()).expect_err("too long").fault.to_string();
    assert!(error.contains("a value of 70000 elements"), "{error}");
}

#[test]
fn without_double_precision_it_is_refused() {
    let source = format!("{BUFFERS}@compute @workgroup_size(1) fn main() {{ b[0] = a[0]; }}");
    assert!(compile(&user(&source), &Limits { f64: false, ..limits() }).is_err());
}

#[test]
fn a_user_s_shader_must_fit_its_buffers_and_not_write_its_inputs() {
    let body = "@compute @workgroup_size(1) fn main() { b[0] = a[0]; }";
    let check = |a: &str, bytes: u64| {
        let source = format!(
            "@group(0) @binding(0) var<storage, {a}> a: array<f32, 8>;\n\
             @group(0) @binding(1) var<storage, read_write> b: array<f32>;\n{body}"
        );
        check_user(&user(&source), 1, &[bytes, 4], &limits()).map_err(|error| error.fault.to_string())
    };
    assert_eq!(check("read", 32), Ok(()));
    assert_eq!(
        check("read", 28),
        Err("1:23: variable a is declared with 32 bytes, its array has 28".to_owned())
    );
    assert_eq!(
        check("read_write", 32),
        Err("1:23: variable a is an input and must be declared var<storage, read>".to_owned())
    );
}

#[test]
fn sources_with_random_faults_are_refused_or_compiled_and_nothing_panics() {
    let source = format!(
        "{BUFFERS}var<workgroup> s: array<u32, 8>;\nstruct P {{ x: f32, y: vec4<f32> }}\n\
         fn f(p: P, n: u32) -> f32 {{ switch n {{ case 1u: {{ return p.x; }} default: {{ return p.y[n]; }} }} }}\n\
         @compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{\n\
         for (var i = 0u; i < 8u; i++) {{ s[i] = i << 2u; workgroupBarrier(); }}\n\
         if id.x < 4u {{ b[id.x] = sqrt(a[s[id.y]]) + f64(f(P(1.0, vec4(2.0)), id.z)); }} }}"
    );
    assert!(compile(&user(&source), &limits()).is_ok());
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut compiled = 0;
    for _ in 0..1500 {
        let mut bytes = source.clone().into_bytes();
        for _ in 0..=random(3) {
            let (at, length) = (random(bytes.len()), 1 + random(6));
            let piece: Vec<u8> = bytes[random(bytes.len())..].iter().take(random(8)).copied().collect();
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        let text = String::from_utf8(bytes).expect("ASCII");
        compiled += usize::from(compile(&user(&text), &limits()).is_ok());
    }
    assert!(compiled > 0);
}

#[test]
fn kept_shaders_go_by_every_file_of_the_compiler() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/wgsl");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("a file").path());
    let files: Vec<_> =
        files.filter(|path| !path.ends_with("tests.rs") && !path.ends_with("link.rs")).collect();
    assert_eq!(files.len(), SOURCES.len());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("text");
        assert!(SOURCES.contains(&text.as_str()), "{}", file.display());
    }
}

#[test]
fn a_long_sum_of_a_user_does_not_take_the_process_along() {
    let sum = |terms: usize| {
        let sum = vec!["1u"; terms].join("+");
        format!(
            "@group(0) @binding(0) var<storage, read_write> a: array<u32>;\n\
             @compute @workgroup_size(1) fn main() {{ var x = a[0]; x = x+{sum}; a[0] = x; }}"
        )
    };
    // As long as it may be: it may be compiled or refused.
    let _ = compile(&user(&sum(21_000)), &limits());
    let error = compile(&user(&sum(30_000)), &limits()).expect_err("too long");
    assert!(error.fault.to_string().contains("at most 65536 are possible"), "{}", error.fault);
}

/// How many stores of a block are not to local variables.
fn stores_outside(function: &naga::Function, block: &naga::Block) -> usize {
    let count = |statement: &naga::Statement| match statement {
        naga::Statement::Block(inner) => stores_outside(function, inner),
        naga::Statement::If { accept, .. } => stores_outside(function, accept),
        naga::Statement::Loop { body, continuing, .. } => {
            stores_outside(function, body) + stores_outside(function, continuing)
        }
        naga::Statement::Store { pointer, .. } => {
            usize::from(!matches!(function.expressions[*pointer], naga::Expression::LocalVariable(_)))
        }
        _ => 0,
    };
    block.iter().map(count).sum()
}

/// Whether `main` begins with the call of the function that zeroes and then a barrier, and the function stores as often
/// as it must. An error is a refusal.
fn zeroes(source: &str, stores: usize) -> Result<bool, String> {
    let checked = parse(source, &limits()).map_err(|fault| format!("not a shader: {fault}")).expect(source);
    let Checked { module, .. } =
        with_zeroed_memory(source, &checked.module, &limits()).map_err(|fault| fault.to_string())?;
    let body = module.entry_points[0].function.body.iter();
    let mut body = body.filter(|statement| !matches!(statement, naga::Statement::Emit(_)));
    let (Some(naga::Statement::Call { function, .. }), Some(naga::Statement::ControlBarrier(barrier))) =
        (body.next(), body.next())
    else {
        return Ok(false);
    };
    let function = &module.functions[*function];
    let found = stores_outside(function, &function.body);
    Ok(function.name.as_deref() == Some("zed_zero_shared")
        && *barrier == naga::Barrier::WORK_GROUP
        && found == stores)
}

const READS: &str = "@group(0) @binding(0) var<storage, read_write> b: array<u32>;\n\
                     var<workgroup> s: array<u32, 64>;\n";

#[test]
fn workgroup_memory_of_every_type_is_zeroed() {
    let source = "struct In { @builtin(local_invocation_index) place: u32 }\n\
                  struct P { x: array<vec2<i32>, 3>, y: bool, z: mat2x3<f32>, w: atomic<u32> }\n\
                  var<workgroup> p: P;\nvar<workgroup> q: array<array<P, 2>, 4>;\nvar<workgroup> d: f64;\n\
                  var<workgroup> unused: array<atomic<i32>, 7>;\n\
                  @group(0) @binding(0) var<storage, read_write> b: array<u32>;\n\
                  @compute @workgroup_size(8) fn main(in: In) { b[0] = atomicLoad(&p.w) + u32(q[1][1].x[0].y); }";
    assert_eq!(zeroes(source, 10), Ok(true));
    let source = format!(
        "{READS}var<workgroup> last: f64; /* fn main() {{ */ @compute @workgroup_size(8) fn main() {{ b[0] = s[0]; }} // end"
    );
    assert_eq!(zeroes(&source, 2), Ok(true));
    assert!(compile(&user(&source), &limits()).is_ok());
}

#[test]
fn no_end_of_a_comment_hides_main_from_the_code_that_zeroes() {
    for end in ['\n', '\u{b}', '\u{c}', '\r', '\u{85}', '\u{2028}', '\u{2029}'] {
        // What opens a block comment for naga is, where the line goes on, part of the first one.
        for decoy in ["// {end}/*\nfn main() { */", "// {end}// fn main() {\n", "/* // {end} fn main() { */"]
        {
            let source = format!(
                "{READS}{}\n@compute @workgroup_size(8) fn main() {{ b[0] = s[0]; }}",
                decoy.replace("{end}", &end.to_string())
            );
            assert_eq!(zeroes(&source, 1), Ok(true), "{source:?}");
        }
        let source = format!("{READS}@compute @workgroup_size(8) // {end} fn main() {{ b[0] = s[0]; }}");
        assert_eq!(zeroes(&source, 1), Ok(true), "{source:?}");
    }
}

#[test]
fn names_that_the_code_that_zeroes_uses_are_refused() {
    let barrier = "fn workgroupBarrier() {}";
    for (memory, declares, name) in [
        ("array<u32, 64>", barrier, "workgroupBarrier"),
        ("array<u32, 64>", "fn/**/\u{85}workgroupBarrier() {}", "workgroupBarrier"),
        ("array<atomic<u32>, 4>", "fn atomicStore(v: u32) {}", "atomicStore"),
        ("vec4<f32>", "alias i32 = f32;", "i32"),
        ("vec4f", "struct vec4 { x: f32 }", "vec4"),
        ("vec4f", "const bool = 1;", "bool"),
        ("vec4f", "var<private> mat2x2: f32;", "mat2x2"),
        ("vec4f", "fn zed_zero_shared() {}", "zed_zero_shared"),
        ("vec4f", "var<private> zed_0: u32;", "zed_0"),
    ] {
        let source = format!(
            "@group(0) @binding(0) var<storage, read_write> b: array<u32>;\n{declares}\n\
             var<workgroup> s: {memory};\n@compute @workgroup_size(8) fn main() {{ b[0] = 1u; _ = &s; }}"
        );
        let error = zeroes(&source, 1).expect_err(&source);
        assert!(error.contains("workgroup memory") && error.contains(name), "{source}\n{error}");
    }
    let source = format!(
        "{READS}// fn workgroupBarrier\nstruct P {{ u32: f32 }}\nfn workgroupBarriers() {{}}\n\
         @compute @workgroup_size(8) fn main() {{ b[0] = s[0]; workgroupBarrier(); }}"
    );
    assert_eq!(zeroes(&source, 1), Ok(true));
}

#[test]
fn code_that_zeroes_too_little_is_refused() {
    let header = "var<workgroup> s: array<u32, 4>;\nvar<workgroup> t: vec2<f32>;\n\
                  @compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32, \
                  @builtin(subgroup_size) n: u32)";
    let main = "{ zed_zero_shared(i); workgroupBarrier(); }";
    let zero =
        "for (var k = zed_lane; k < 4u; k += 8u) { s[k] = u32(); } if zed_lane == 0u { t = vec2<f32>(); }";
    let check = |main: &str, zero: &str, lane: &str| {
        let source = format!("{header} {main}\n{lane}\nfn zed_zero_shared(zed_lane: u32) {{ {zero} }}");
        let module = naga::front::wgsl::parse_str(&source).expect(&source);
        shared::check(&module)
    };
    assert_eq!(check(main, zero, ""), Ok(()));
    for (main, zero) in [
        ("{ }", zero),
        ("{ workgroupBarrier(); zed_zero_shared(i); }", zero),
        ("{ zed_zero_shared(i); }", zero),
        ("{ zed_zero_shared(i); storageBarrier(); }", zero),
        ("{ zed_zero_shared(n); workgroupBarrier(); }", zero),
        ("{ zed_zero_shared(1u); workgroupBarrier(); }", zero),
        ("{ other(i); workgroupBarrier(); }", zero),
        ("{ let x = s[1]; zed_zero_shared(i + x); workgroupBarrier(); }", zero),
        ("{ if i > 1u { zed_zero_shared(i); } workgroupBarrier(); }", zero),
        (main, ""),
        (main, "if zed_lane == 0u { t = vec2<f32>(); }"),
        (main, &format!("if zed_lane == 9u {{ return; }} {zero}")),
        (main, &format!("other(1u); {zero}")),
        (main, &zero.replace("u32()", "7u")),
        (main, &zero.replace("u32()", "s[0]")),
        (main, &zero.replace("s[k]", "s[0]")),
        (main, &zero.replace("t = vec2<f32>()", "t.x = f32()")),
        (main, &zero.replace("t = vec2<f32>()", "var t = vec2<f32>(); t.x = 0.0")),
    ] {
        assert!(check(main, zero, "fn other(i: u32) {}").is_err(), "{main} {zero}");
    }
}
