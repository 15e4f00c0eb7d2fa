//! Shaders that come with a job.

use crate::Text;
use crate::common::engine;
use crate::decode;
use crate::encode;
use crate::on_device;
use zed_gpu::node::Engine;
use zed_spec::job::DType;
use zed_spec::job::Job;
use zed_spec::job::Op;

fn job(source: &str, dtype: DType, groups: u32) -> Job {
    let mut text = Text::default();
    let a = text.input(dtype, &[8]);
    let b = text.input(dtype, &[4]);
    let op = Op::Wgsl { source: source.to_owned(), inputs: vec![a, b], groups: [groups, 1, 1] };
    let c = text.step(op, dtype, &[8]);
    text.job(&[c])
}

fn run(engine: &mut Engine, source: &str, dtype: DType) -> Vec<f64> {
    let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let b = [10.0, 20.0, 30.0, 40.0];
    let got = on_device(engine, &job(source, dtype, 2), &[encode(dtype, &a), encode(dtype, &b)]);
    decode(dtype, &got[0])
}

const HEAD: &str = "
@group(0) @binding(0) var<storage, read> a: array<f64>;
@group(0) @binding(1) var<storage, read> b: array<f64>;
@group(0) @binding(2) var<storage, read_write> c: array<f64>;
@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
";

#[test]
fn bindings_are_the_inputs_then_the_outputs() {
    let Some(mut engine) = engine("a user's shader") else { return };
    let source = format!("{HEAD} c[id.x] = a[id.x] + b[id.x / 2]; }}");
    assert_eq!(run(&mut engine, &source, DType::F64), [11.0, 12.0, 23.0, 24.0, 35.0, 36.0, 47.0, 48.0]);
    assert_eq!(
        run(&mut engine, &source.replace("f64", "f32"), DType::F32),
        [11.0, 12.0, 23.0, 24.0, 35.0, 36.0, 47.0, 48.0]
    );
}

#[test]
fn the_functions_of_the_prelude_can_be_called() {
    let Some(mut engine) = engine("a user's shader") else { return };
    let got = run(&mut engine, &format!("{HEAD} c[id.x] = log_f64(exp_f64(a[id.x])); }}"), DType::F64);
    for (got, wants) in got.iter().zip([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) {
        assert!((got - wants).abs() < 1e-15 * wants, "{got} {wants}");
    }
}

#[test]
fn what_is_out_of_bounds_is_neither_read_nor_written() {
    let Some(mut engine) = engine("a user's shader") else { return };
    let source = format!("{HEAD} c[id.x * 1000u] = b[id.x * 1000000u] + 1.0lf; }}");
    let got = run(&mut engine, &source, DType::F64);
    // Indices are restricted to the last element.
    assert_eq!(got[0], 11.0);
    assert_eq!(got[1..7], [0.0; 6]);
    assert_eq!(got[7], 41.0);
}

#[test]
fn a_shader_that_is_wrong_is_refused_with_its_place() {
    let Some(mut engine) = engine("a user's shader") else { return };
    for (line, wants) in [
        ("c[id.x] = exp(a[id.x]);", "shader wgsl-"),
        ("c[id.x] = exp(a[id.x]);", ": 6:11: exp has no double precision; call exp_f64"),
        ("c[id.x] = a[id.x]", ": 6:"),
        ("a[id.x] = c[id.x];", ": 6:"),
    ] {
        let job = job(&format!("{HEAD}{line} }}"), DType::F64, 1);
        let error = engine.compute(&job, &[&[0; 64], &[0; 32]]).unwrap_err();
        let error: &dyn std::error::Error = &error;
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        assert!(text.starts_with("step 1 (Wgsl): shader wgsl-") && text.contains(wants), "{text}");
    }
}

/// What one shader leaves in workgroup memory, the next does not see.
#[test]
fn workgroup_memory_is_zero_at_the_start() {
    let Some(mut engine) = engine("workgroup memory") else { return };
    let job = |parameters: &str, body: &str| {
        let source = format!(
            "struct S {{ a: atomic<u32>, v: vec4<f32>, m: array<array<u32, 3>, 2>, d: mat2x3<f32> }}
             struct In {{ @builtin(local_invocation_index) lane: u32 }}
             // fn main() {{ in a comment
             /* fn /* main( */ {{ */
             var<workgroup> words: array<u32, 4000>; var<workgroup> one: S; var<workgroup> many: array<S, 5>;
             var<workgroup> flag: bool;
             @group(0) @binding(0) var<storage, read_write> c: array<u32>;
             fn sum() -> u32 {{
                 var sum = u32(flag) + atomicLoad(&one.a) + u32(one.v.w) + one.m[1][2] + u32(one.d[1].z);
                 for (var i = 0u; i < 4000u; i++) {{ sum += words[i]; }}
                 for (var i = 0u; i < 5u; i++) {{ sum += atomicLoad(&many[i].a) + many[i].m[0][1]; }}
                 return sum;
             }}
             fn fill() {{
                 for (var i = 0u; i < 4000u; i++) {{ words[i] = 7u; }}
                 for (var i = 0u; i < 5u; i++) {{ atomicStore(&many[i].a, 7u); many[i].m[0][1] = 7u; }}
                 atomicStore(&one.a, 7u); one.v = vec4(7.0); one.m[1][2] = 7u; one.d[1].z = 7.0; flag = true;
             }}
             @compute @workgroup_size(64) fn main({parameters}) {{ {body} }}"
        );
        let mut text = Text::default();
        let op = Op::Wgsl { source, inputs: Vec::new(), groups: [1, 1, 1] };
        let c = text.step(op, DType::U32, &[64]);
        text.job(&[c])
    };
    for _ in 0..2 {
        on_device(&mut engine, &job("", "fill(); workgroupBarrier(); c[0] = sum();"), &[]);
        for (parameters, lane) in [
            ("@builtin(local_invocation_index) i: u32", "i"),
            ("in: In", "in.lane"),
            ("@builtin(local_invocation_id) id: vec3<u32>", "id.x"),
        ] {
            let got = on_device(&mut engine, &job(parameters, &format!("c[{lane}] = sum() + 1u;")), &[]);
            assert_eq!(decode(DType::U32, &got[0]), [1.0; 64], "{parameters}");
        }
    }
}
