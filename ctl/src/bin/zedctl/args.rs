//! The command line of zedctl, as clap reads it.

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use std::path::PathBuf;

/// Look at and steer zed through its file tree.
#[derive(Debug, Parser)]
#[command(name = "zedctl", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Where the tree and the output are.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
The tree is looked for at --mount or --socket, then $ZED_MOUNT or $ZED_SOCKET, then /zed, \
$XDG_RUNTIME_DIR/zed, /run/zed/zedd.sock and $XDG_RUNTIME_DIR/zed.sock.

Exit status: 0 done; 1 failed or refused, and for `diff` and `plan`: there are differences; 2 not understood; \
130 interrupted while waiting (what was asked for goes on).";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The mounted tree to use
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "socket")]
    pub(crate) mount: Option<PathBuf>,
    /// The socket to use
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// JSON on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No colour, even on a terminal
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Work on the store itself, with no daemon: `status` and `rollback` only
    #[arg(long, global = true, conflicts_with_all = ["mount", "socket"])]
    pub(crate) offline: bool,
    /// With --offline: `embedded:DIR` or `zfs:POOL[/PATH]`
    #[arg(long, global = true, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// With --offline: the state directory of zedd, when it is not the default
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The host, its deploys and apps, and what needs attention
    Status {
        /// Only these apps or deploys
        #[arg(value_name = "APP|DEPLOY")]
        names: Vec<String>,
    },
    /// What would change; exit status 1 when something would
    Diff {
        /// Only this deploy
        deploy: Option<String>,
    },
    /// A dry run of a spec: what would change; exit status 1 when something would
    Plan {
        /// The spec, NAME.ron
        file: PathBuf,
    },
    /// Save a spec as deploy/NAME.ron and wait until it has converged
    Apply {
        /// The spec, NAME.ron
        #[arg(required_unless_present = "plan", conflicts_with = "plan")]
        file: Option<PathBuf>,
        /// Instead of a spec: exactly the plan that `zedctl plan` made last; refused when the host has moved since
        #[arg(long, value_name = "NAME", conflicts_with = "no_wait")]
        plan: Option<String>,
        /// Do not wait for the outcome
        #[arg(long, conflicts_with = "timeout")]
        no_wait: bool,
        /// How long to wait
        #[command(flatten)]
        wait: Patience,
    },
    /// Put an app back to a release, data and state together
    Rollback {
        /// The app
        app: String,
        /// @latest, a version, @SNAPSHOT, or undo
        target: String,
        /// How long to wait
        #[command(flatten)]
        wait: Patience,
    },
    /// The releases of an app, oldest first
    History {
        /// The app
        app: String,
    },
    /// The output of an app
    Logs {
        /// The app
        app: String,
        /// How much of it
        #[command(flatten)]
        options: LogOptions,
    },
    /// How the last runs of an app ended unexpectedly, newest first
    Crash {
        /// The app
        app: String,
    },
    /// What happens on this host
    Events {
        /// How much of it
        #[command(flatten)]
        tail: Tail,
    },
    /// Wait until a deploy has converged or failed, and print the verdict
    Wait {
        /// The deploy
        deploy: String,
        /// How long to wait
        #[command(flatten)]
        wait: Patience,
    },
    /// Start an app
    Start {
        /// The app
        app: String,
        /// How long to wait
        #[command(flatten)]
        wait: Patience,
    },
    /// Stop an app until it is started again
    Stop {
        /// The app
        app: String,
        /// How long to wait
        #[command(flatten)]
        wait: Patience,
    },
    /// Stop an app and start it
    Restart {
        /// The app
        app: String,
        /// How long to wait
        #[command(flatten)]
        wait: Patience,
    },
    /// End the hold of a rollback: the app converges to its spec again
    Release {
        /// The app
        app: String,
        /// How long to wait
        #[command(flatten)]
        wait: Patience,
    },
    /// GPUs: without a command, the devices
    Gpu {
        /// What of them
        #[command(subcommand)]
        command: Option<GpuCommand>,
    },
    /// Print a spec of what is on this host, whose plan is empty
    Import,
    /// Collect what a person needs to look into a problem; secret values are left out
    Bugreport {
        /// A file to write (NAME.tar.gz), or a folder to put it into
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// The versions of zedctl and of the daemon
    Version,
}

/// What to do with GPUs.
#[derive(Debug, Subcommand)]
pub(crate) enum GpuCommand {
    /// The jobs that are kept
    Jobs {
        /// Only of this GPU
        gpu: Option<u32>,
    },
    /// Submit a job, wait until it has ended, print its result
    Run {
        /// The job, as docs/GPU.md describes it; its raw bytes behind a NUL
        file: PathBuf,
        /// On this GPU; on the first one when absent
        #[arg(long, value_name = "N")]
        gpu: Option<u32>,
    },
    /// Counters, shares of users, and how long jobs took
    Stats {
        /// Only of this GPU
        gpu: Option<u32>,
    },
    /// Kernels that did not end in time
    Suspects {
        /// Only of this GPU
        gpu: Option<u32>,
    },
}

/// Options of commands that wait.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Patience {
    /// Give up waiting after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
}

/// Options of commands that show a stream.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Tail {
    /// Go on as more comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with the last N lines; all without -f, 10 with it
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<usize>,
}

/// Options of `logs`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LogOptions {
    /// Go on as more comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with the last N lines; all without -f, 10 with it
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<usize>,
    /// Begin with line N, older parts of the output included, and show the number of each line
    #[arg(long, value_name = "N", conflicts_with = "lines")]
    pub(crate) from: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
