//! `zedd service`: the file with which a service manager runs zedd, shown or installed.
//!
//! Owns the defaults and the words that an operator reads. The files are made in `zed-host`.

use crate::args::ServiceAction;
use crate::args::ServiceArgs;
use std::io::Write as _;
use std::path::PathBuf;
use zed_host::guest::GuestErrorKind;
use zed_host::guest::LocalSystem;
use zed_host::guest::service::ServiceManager;
use zed_host::guest::service::ZeddService;

/// Why the service could not be shown or installed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The path of this program is not known.
    #[error("the path of this program is not known ({0}): give --program")]
    Program(#[source] std::io::Error),
    /// A word that cannot be in the file.
    #[error("{0}")]
    Words(String),
    /// It could not be installed.
    #[error("failed to install zedd as a service: {0}")]
    Install(GuestErrorKind),
    /// It could not be shown.
    #[error("failed to write to standard output")]
    Output(#[from] std::io::Error),
}

/// Runs the command.
///
/// # Errors
/// When there is no such file, or it cannot be installed.
pub fn run(action: &ServiceAction) -> Result<(), ServiceError> {
    let (ServiceAction::Print(args) | ServiceAction::Install(args)) = action;
    let manager = args.manager.unwrap_or_else(ServiceManager::of_this_platform);
    let service = ZeddService { program: program(args)?, arguments: args.arguments.clone() };
    let text = manager.render(&service).map_err(ServiceError::Words)?;
    let mut out = std::io::stdout().lock();
    match action {
        ServiceAction::Print(_) => out.write_all(text.as_bytes())?,
        ServiceAction::Install(_) => {
            let system = LocalSystem::default();
            let path = manager.install(&service, &system, &system).map_err(ServiceError::Install)?;
            writeln!(out, "installed {}; now: {}", path.display(), manager.start_line())?;
        }
    }
    Ok(())
}

fn program(args: &ServiceArgs) -> Result<PathBuf, ServiceError> {
    match &args.program {
        Some(program) => Ok(program.clone()),
        None => std::env::current_exe().map_err(ServiceError::Program),
    }
}
