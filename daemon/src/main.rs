//! zedd: serves the tree, or supervises one app, or works on the store while no daemon runs.

use clap::Parser;
use std::process::ExitCode;
use zedd::args::Args;
use zedd::args::Command;

fn main() -> ExitCode {
    // A supervisor is started by zedd itself, and must stay small: nothing of the daemon is set up before it.
    let mut arguments = std::env::args();
    if arguments.nth(1).as_deref() == Some("supervise") {
        return zed_host::supervise_main(&arguments.collect::<Vec<String>>());
    }
    let args = Args::parse();
    let result = match &args.command {
        Some(Command::Offline { store, state, json, action }) => {
            zedd::offline::run(store, state.as_deref(), *json, action)
        }
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
