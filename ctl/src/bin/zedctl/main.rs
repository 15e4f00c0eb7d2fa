//! zedctl: a thin client of the tree. It opens files under the mount, or asks for them on the socket, and does
//! nothing that a person with `cat` and `cp` could not do.

mod app;
mod args;
mod deploy;
mod find;
mod interrupt;
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
        Command::Apply { file, wait } => deploy::apply(&shared, ui, file, *wait),
        Command::Rollback { app, target, wait } => app::rollback(&shared, ui, app, target, *wait),
        Command::History { app } => status::history(tree, ui, app),
        Command::Logs { app, tail } => show::logs(tree, ui, app, *tail),
        Command::Events { tail } => show::events(tree, ui, *tail),
        Command::Wait { deploy, timeout } => deploy::wait(&shared, ui, deploy, *timeout),
        Command::Start { app } => app::control(&shared, ui, app, "start"),
        Command::Stop { app } => app::control(&shared, ui, app, "stop"),
        Command::Restart { app } => app::control(&shared, ui, app, "restart"),
        Command::Release { app } => app::control(&shared, ui, app, "release"),
        Command::Import => show::import(tree, ui),
        Command::Bugreport { output } => report::bugreport(tree, ui, output.as_deref()),
        Command::Version => show::version(Ok(tree), ui),
    }
}
