//! The supervisor as a program of its own, for the tests of this crate. zedd is its own supervisor instead:
//! `zedd supervise DIR` calls the same function. Never does anything else.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    zed_host::supervise_main(&arguments)
}
