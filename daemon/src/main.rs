//! zedd: serves the tree, or supervises one app, or forwards its traffic, or runs jobs on one GPU, or works on the store
//! while no daemon runs, or shows the file of its service.

use clap::Parser;
use std::process::ExitCode;
use zedd::args::Args;
use zedd::args::Command;

fn main() -> ExitCode {
    // Supervisors, fronts and GPU nodes are started by zedd itself, and must stay small: nothing of the daemon is set up before.
    let mut arguments = std::env::args();
    match arguments.nth(1).as_deref() {
        Some("supervise") => return zed_host::supervise_main(&arguments.collect::<Vec<String>>()),
        Some("gpu-node") => return zed_gpu::node::node_main(&arguments.collect::<Vec<String>>()),
        Some("gpu-list") => return zed_gpu::node::list_main(&arguments.collect::<Vec<String>>()),
        Some("gpu-cpu") => return zed_gpu::node::cpu_main(),
        Some("front") => return zed_front::front_main(&arguments.collect::<Vec<String>>()),
        _ => {}
    }
    let args = Args::parse();
    let result = match &args.command {
        Some(Command::Offline { store, state, json, action }) => {
            zedd::offline::run(store, state.as_deref(), *json, action)
        }
        Some(Command::Service { action }) => zedd::service::run(action).map_err(|error| zedd::chain(&error)),
        None => zedd::serve::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zedd: {error}");
            ExitCode::FAILURE
        }
    }
}
