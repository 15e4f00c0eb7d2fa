//! A GPU node as a program of its own, for the tests of this crate. zedd is it too: `zedd gpu-node` and `zedd gpu-list` call
//! the same functions. Never does anything else.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("node") => zed_gpu::node::node_main(&arguments.collect::<Vec<String>>()),
        Some("list") => zed_gpu::node::list_main(&arguments.collect::<Vec<String>>()),
        Some("cpu") => zed_gpu::node::cpu_main(),
        _ => ExitCode::from(2),
    }
}
