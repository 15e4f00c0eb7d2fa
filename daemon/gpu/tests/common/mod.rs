//! A device for the tests of this crate: Mesa's driver for the CPU, where the environment says that it is there.

#![expect(dead_code, reason = "each test takes what it needs")]
#![expect(clippy::unwrap_used, reason = "a test stops at what is wrong")]
#![expect(clippy::print_stdout, reason = "a test that does not run says so")]

pub(crate) mod process;

use std::sync::Arc;
use std::time::Duration;
use zed_gpu::device::Selection;
use zed_gpu::node::Engine;
use zed_gpu::node::EngineOptions;
use zed_gpu::program::Author;
use zed_gpu::program::Buffer;
use zed_gpu::program::Dispatch;
use zed_gpu::program::Kernel;
use zed_gpu::program::Program;
use zed_gpu::vk::DeviceOptions;
use zed_spec::job::Array;
use zed_spec::job::ArrayId;
use zed_spec::job::Binary;
use zed_spec::job::DType;
use zed_spec::job::Fallback;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Operand;
use zed_spec::job::Reply;
use zed_spec::job::Source;
use zed_spec::job::Step;

/// Whether there is a driver; says so when not.
pub(crate) fn driver(test: &str) -> bool {
    let there = std::env::var_os("ZED_TEST_VULKAN").is_some();
    if !there {
        println!("{test}: not run: ZED_TEST_VULKAN is not set");
    }
    there
}

/// An engine on that driver.
pub(crate) fn engine(test: &str) -> Option<Engine> {
    engine_with(test, DeviceOptions::default())
}

/// An engine on that driver, opened in a certain way.
pub(crate) fn engine_with(test: &str, device: DeviceOptions<'_>) -> Option<Engine> {
    let options = EngineOptions { selection: Selection::Rank(0), allow_cpu: true, device };
    driver(test).then(|| Engine::open(&options).unwrap())
}

/// A job whose arrays are of F32; the first `inputs` of them are inputs. Without steps: for programs of tests.
pub(crate) fn job(arrays: &[(&str, u32)], inputs: usize, outputs: &[u32]) -> Job {
    Job {
        arrays: arrays
            .iter()
            .map(|(name, length)| Array { name: (*name).to_owned(), dtype: DType::F32, shape: vec![*length] })
            .collect(),
        inputs: vec![Source::Raw; inputs],
        steps: Vec::new(),
        outputs: outputs.iter().copied().map(ArrayId).collect(),
        deadline: Duration::from_secs(10),
        priority: 0,
        fallback: Fallback::Forbid,
        reply: Reply::Id,
    }
}

/// A kernel with as many bindings of `array<f32>` as there are names, the last one written; `body` is run for each
/// element `i`, and may use `scale`.
pub(crate) fn kernel(author: Author, names: &[&str], body: &str) -> Arc<Kernel> {
    let mut source = String::from("struct Push { n: u32, scale: f32 }\nvar<immediate> push: Push;\n");
    for (number, name) in names.iter().enumerate() {
        let access = if number + 1 == names.len() { "read_write" } else { "read" };
        source += &format!("@group(0) @binding({number}) var<storage, {access}> {name}: array<f32>;\n");
    }
    source += "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n\
               let i = id.x; let scale = push.scale; if (i >= push.n) { return; }\n";
    source += body;
    source += "\n}\n";
    let bindings = u32::try_from(names.len()).unwrap();
    Arc::new(Kernel::new("test", source, author, bindings, 8))
}

/// One dispatch of such a kernel over `n` elements.
pub(crate) fn dispatch(kernel: &Arc<Kernel>, buffers: &[Buffer], n: u32, scale: f32) -> Dispatch {
    Dispatch {
        kernel: Arc::clone(kernel),
        buffers: buffers.to_vec(),
        push: [n.to_le_bytes(), scale.to_le_bytes()].concat(),
        groups: [n.div_ceil(64), 1, 1],
    }
}

/// An array of a job as a buffer.
pub(crate) fn array(id: u32) -> Buffer {
    Buffer::Array(ArrayId(id))
}

/// A program without temporaries.
pub(crate) fn program(dispatches: Vec<Dispatch>) -> Program {
    Program { temporaries: Vec::new(), dispatches }
}

/// As a device sees them.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// As people see them.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// A user's job: `b` of `a`, by a body that is run for each element `i`.
pub(crate) fn user_job(n: u32, body: &str) -> Job {
    let source = format!(
        "@group(0) @binding(0) var<storage, read> a: array<f32>;
         @group(0) @binding(1) var<storage, read_write> b: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
             let i = id.x; if (i >= arrayLength(&b)) {{ return; }}
             {body}
         }}"
    );
    let op = Op::Wgsl { source, inputs: vec![ArrayId(0)], groups: [n.div_ceil(64), 1, 1] };
    let steps = vec![Step { op, results: vec![ArrayId(1)] }];
    Job { steps, ..job(&[("a", n), ("b", n)], 1, &[1]) }
}

/// A job of the catalogue: `c` is `a + b`.
pub(crate) fn add_job(n: u32) -> Job {
    let operand = |id| Operand::Array(ArrayId(id));
    let op = Op::Binary(Binary::Add, operand(0), operand(1));
    let steps = vec![Step { op, results: vec![ArrayId(2)] }];
    Job { steps, ..job(&[("a", n), ("b", n), ("c", n)], 2, &[2]) }
}
