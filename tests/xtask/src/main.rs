//! `cargo xtask`: demo, test, bench, tidy, zfs, vulkan. Parses the command line and says how it ended.

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

use clap::Parser;
use clap::Subcommand;
use std::process::ExitCode;

/// Builds, tests and shows zed.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show zed at work: deploy, status, change, rollback, on a store and a mount that are gone afterwards.
    Demo(xtask::demo::Options),
    /// Run the tests: every tier, or those named.
    Test(xtask::suite::Options),
    /// Measure zed beside its alternatives.
    Bench(xtask::bench::Options),
    /// Check the rules that the sources and the documents keep.
    Tidy,
    /// Run a command, or the tests, where real ZFS is.
    Zfs(xtask::zfs::Options),
    /// Run a command with a Vulkan driver that needs no GPU (lavapipe), as `vulkaninfo --summary`.
    Vulkan(xtask::vulkan::Options),
}

fn main() -> ExitCode {
    xtask::shell::clean_up_on_signals();
    let ended = match Cli::parse().command {
        Command::Demo(options) => xtask::demo::run(&options),
        Command::Test(options) => xtask::suite::run(&options),
        Command::Bench(options) => xtask::bench::run(&options),
        Command::Tidy => tidy(),
        Command::Zfs(options) => xtask::zfs::run(&options),
        Command::Vulkan(options) => xtask::vulkan::run(&options),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn tidy() -> Result<u8, String> {
    let tree = xtask::tidy::Tree::read(&xtask::root())?;
    let findings = xtask::tidy::check(&tree)?;
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", tree.files.len(), findings.len());
    Ok(u8::from(!findings.is_empty()))
}
