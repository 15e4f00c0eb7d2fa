//! What a rollback costs on ZFS, beside the bare `zfs rollback`, as the data that changed grows.

use super::Options;
use super::not_run;
use crate::shell::Cmd;
use std::time::Duration;

/// The measurement is a program of zed-store, which runs where ZFS is and prints its own table.
pub(super) fn run(options: &Options) -> Result<(), String> {
    println!("== rollback on ZFS (inside the guest where the host has none: compare only within this table)");
    let me = std::env::current_exe().map_err(|e| format!("cannot find xtask itself: {e}"))?;
    let sizes: &[&str] = if options.quick { &["restore", "1"] } else { &[] };
    let cmd = Cmd::new(me).args(["zfs", "bench"]).args(sizes).deadline(Duration::from_secs(60 * 60));
    let ended = cmd.run()?;
    if ended.code == i32::from(crate::zfs::NOT_RUN) {
        not_run("rollback", ended.output.lines().last().unwrap_or("it gave no reason").trim());
        return Ok(());
    }
    if ended.ok() { Ok(()) } else { Err(format!("it ended with {}", ended.code)) }
}
