//! `--offline`: handed to `zedd offline`, because only the daemon's program knows the stores.

use crate::args::Command;
use crate::args::Global;
use crate::paint::Ended;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use zed_ctl::Code;
use zed_ctl::CtlError;

/// Becomes `zedd offline --store STORE status|rollback APP TARGET`. Returns only when that fails.
pub(crate) fn run(global: &Global, command: &Command) -> Ended {
    let arguments = arguments(global, command)?;
    let zedd = find_zedd()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "exec: this process becomes zedd, nothing is left to supervise"
    )]
    let error = std::process::Command::new(&zedd).args(arguments).exec();
    let message = format!("failed to execute `{}`: {error}", zedd.display());
    Err(CtlError::new(Code::Failed, message).hint("zedctl and zedd belong to one installation").into())
}

fn arguments(global: &Global, command: &Command) -> Result<Vec<OsString>, CtlError> {
    let Some(store) = &global.store else {
        let error = CtlError::new(Code::BadArgument, "--offline needs --store");
        return Err(error.hint("--store embedded:DIR, or --store zfs:POOL[/PATH]"));
    };
    let mut arguments: Vec<OsString> = vec!["offline".into(), "--store".into(), store.into()];
    if let Some(state) = &global.state {
        arguments.extend(["--state".into(), state.into()]);
    }
    if global.json {
        arguments.push("--json".into());
    }
    match command {
        Command::Status { names } if names.is_empty() => arguments.push("status".into()),
        Command::Status { .. } => {
            let error =
                CtlError::new(Code::BadArgument, "--offline status shows all apps and takes no names");
            return Err(error.hint("leave the names away"));
        }
        Command::Rollback { app, target, .. } => {
            arguments.extend(["rollback".into(), app.into(), target.into()]);
        }
        _ => {
            let error = CtlError::new(Code::BadArgument, "--offline knows `status` and `rollback` only");
            return Err(error.hint("everything else needs the daemon: leave --offline away"));
        }
    }
    Ok(arguments)
}

/// `zedd` beside this program, else in PATH.
fn find_zedd() -> Result<PathBuf, CtlError> {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|dir| dir.join("zedd")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join("zedd"));
    beside.into_iter().chain(in_path).find(|candidate| candidate.is_file()).ok_or_else(|| {
        CtlError::new(Code::NotFound, "`zedd` is neither beside zedctl nor in PATH")
            .hint("--offline works through the daemon's program: install it beside zedctl")
    })
}
