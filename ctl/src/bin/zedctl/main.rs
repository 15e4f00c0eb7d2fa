//! zedctl: a thin client of the tree. It opens files under the mount, or asks for them on the socket, and does
//! nothing that a person with `cat` and `cp` could not do.

mod app;
mod args;
mod deploy;
mod find;
mod gpu;
mod interrupt;
mod logs;
mod mount;
mod offline;
mod paint;
mod report;
mod show;
mod socket;
mod status;
mod tree;

use args::Cli;
use args::Command;
use clap::Parser;
use paint::Ended;
use paint::Failure;
use paint::Ui;
use std::io;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tree::Tree;
use zed_ctl::EXIT_FAILED;
use zed_ctl::EXIT_OK;

fn main() -> ExitCode {
    // clap ends with 2 by itself when it does not understand.
    let cli = Cli::parse();
    let mut ui = Ui::new(cli.global.json, cli.global.no_color);
    let ended = run(&cli, &mut ui).and_then(|status| {
        ui.out.flush()?;
        Ok(status)
    });
    ExitCode::from(match ended {
        Ok(status) => status,
        // `zedctl logs | head`: the reader has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_OK,
        Err(Failure::Output(error)) => {
            ui.progress(&format!("zedctl: failed to write the output: {error}"));
            EXIT_FAILED
        }
        Err(Failure::Refused(error)) => {
            let text = paint::safe_lines(&error.render());
            let _ = write!(io::stderr(), "zedctl: {text}");
            error.code.exit_status()
        }
    })
}

fn run(cli: &Cli, ui: &mut Ui) -> Ended {
    if cli.global.offline {
        return offline::run(&cli.global, &cli.command);
    }
    let found = find::find_tree(&cli.global).map(Arc::from);
    if matches!(cli.command, Command::Version) {
        let tree: Result<Arc<dyn Tree>, _> = found;
        return show::version(tree.as_deref().map_err(Clone::clone), ui);
    }
    let shared: Arc<dyn Tree> = found?;
    let tree = shared.as_ref();
    match &cli.command {
        Command::Status { names } => status::status(tree, ui, names),
        Command::Diff { deploy } => deploy::diff(tree, ui, deploy.as_deref()),
        Command::Plan { file } => deploy::plan(tree, ui, file),
        Command::Apply { plan: Some(name), wait, .. } => app::apply_plan(&shared, ui, name, *wait),
        Command::Apply { file, no_wait, wait, .. } => {
            // clap asks for one of the two; an empty path is refused as a name.
            deploy::apply(&shared, ui, file.as_deref().unwrap_or(Path::new("")), (!no_wait).then_some(*wait))
        }
        Command::Rollback { app, target, wait } => app::rollback(&shared, ui, app, target, *wait),
        Command::History { app } => status::history(tree, ui, app),
        Command::Logs { app, options } => logs::logs(tree, ui, app, *options),
        Command::Crash { app } => logs::crash(tree, ui, app),
        Command::Events { tail } => show::events(tree, ui, *tail),
        Command::Wait { deploy, wait } => deploy::wait(&shared, ui, deploy, *wait),
        Command::Start { app, wait } => app::control(&shared, ui, app, "start", *wait),
        Command::Stop { app, wait } => app::control(&shared, ui, app, "stop", *wait),
        Command::Restart { app, wait } => app::control(&shared, ui, app, "restart", *wait),
        Command::Release { app, wait } => app::control(&shared, ui, app, "release", *wait),
        Command::Gpu { command } => gpu::gpu(tree, ui, command.as_ref()),
        Command::Import => show::import(tree, ui),
        Command::Bugreport { output } => report::bugreport(tree, ui, output.as_deref()),
        Command::Version => show::version(Ok(tree), ui),
    }
}
