//! The front and its supervisor as a program of its own, for the tests of this crate. zedd is both instead:
//! `zedd front DIR` and `zedd supervise DIR` call the same functions. Never does anything else.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("front") => zed_front::front_main(&arguments.collect::<Vec<String>>()),
        Some("supervise") => zed_host::supervise_main(&arguments.collect::<Vec<String>>()),
        _ => ExitCode::from(2),
    }
}
