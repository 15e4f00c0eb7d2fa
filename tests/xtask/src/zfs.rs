//! `cargo xtask zfs`: runs a command, or the tests, where real ZFS is.

use crate::shell::Cmd;

/// Command line of `cargo xtask zfs`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The command to run; `test` runs the tests that need ZFS.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

/// Exit status when there is no ZFS to be had: the caller prints the last line as the reason.
pub const NOT_RUN: u8 = 77;

/// Runs it on this host when it has ZFS.
///
/// # Errors
///
/// When the command cannot be started.
pub fn run(options: &Options) -> Result<u8, String> {
    if !std::path::Path::new("/dev/zfs").exists() {
        println!("this host has no ZFS (there is no /dev/zfs)");
        return Ok(NOT_RUN);
    }
    let (program, args) = options.command.split_first().ok_or("no command is given")?;
    let ended = Cmd::new(program).args(args).run()?;
    Ok(u8::try_from(ended.code).unwrap_or(u8::MAX))
}
