//! The command line of zedd, and the defaults that depend on who starts it.

use clap::Parser;
use clap::Subcommand;
use std::path::PathBuf;
use std::str::FromStr;
use zed_host::guest::service::ServiceManager;

/// Makes this host match the specs in its file tree, and shows its state there.
#[derive(Debug, Parser)]
#[command(name = "zedd", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Where the tree is mounted. Default: /zed, for a normal user $XDG_RUNTIME_DIR/zed
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,
    /// Serve the tree on the socket only
    #[arg(long, conflicts_with = "mount")]
    pub no_mount: bool,
    /// `zfs:POOL[/PATH]` or `embedded:DIR`. Default: the zfs store when there is exactly one pool, else
    /// embedded:/var/lib/zed (for a normal user embedded:$XDG_STATE_HOME/zed)
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// State directory. Default: the mountpoint of the store's dataset `zed`
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// This host's name. Default: the system's
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Unix socket with the same tree. Default: /run/zed/zedd.sock, for a normal user
    /// $XDG_RUNTIME_DIR/zed.sock
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Seconds between looks for drift
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub drift_interval: u64,
    /// Seconds between two checks of an app's health, for apps whose own interval is shorter
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub health_interval: u64,
    /// GPUs to use: `off`, `hardware`, `any` (drivers that compute on the CPU too) or `uuid:PREFIX`
    #[arg(long, value_name = "WHICH", default_value = "hardware")]
    pub gpu: GpuUse,
    /// For fault tests: `kill:N` or `fail:N` at the N-th fault point
    #[arg(long, hide = true)]
    pub fault: Option<String>,
    /// What else can be done
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Whether GPUs are used, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuUse {
    /// None: there is no `gpu/`.
    Off,
    /// These.
    Use(zed_gpu::queue::Use),
}

impl FromStr for GpuUse {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(GpuUse::Off);
        }
        text.parse().map(GpuUse::Use).map_err(|why: String| format!("{why}; or off"))
    }
}

/// What zedd does besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Work on the store while no zedd runs
    Offline {
        /// `zfs:POOL[/PATH]` or `embedded:DIR`
        #[arg(long, value_name = "STORE")]
        store: String,
        /// State directory. Default: the mountpoint of the store's dataset `zed`
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
        /// What to do
        #[command(subcommand)]
        action: Offline,
    },
    /// zedd as a service of this host: a systemd unit, an rc.d script or an SMF manifest
    Service {
        /// What to do
        #[command(subcommand)]
        action: ServiceAction,
    },
}

/// What can be done with the service.
#[derive(Debug, Subcommand)]
pub enum ServiceAction {
    /// Show the file
    Print(ServiceArgs),
    /// Write the file and have zedd started at boot
    Install(ServiceArgs),
}

/// How the service is to be.
#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    /// systemd, rc.d or smf. Default: this system's
    #[arg(long, value_name = "MANAGER", value_parser = ServiceManager::parse)]
    pub manager: Option<ServiceManager>,
    /// Absolute path of zedd. Default: this program's
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
    /// Arguments of zedd, after `--`
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<String>,
}

/// What can be done offline.
#[derive(Debug, Subcommand)]
pub enum Offline {
    /// Show what the store says of every app
    Status,
    /// Put an app back: its data, its state, and its process
    Rollback {
        /// The app
        app: String,
        /// `@latest`, `undo`, `@SNAPSHOT` or a version
        target: String,
    },
}

/// Where things are when the command line does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The mount.
    pub mount: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// The embedded store's directory.
    pub embedded: PathBuf,
}

impl Defaults {
    /// For root, or for a user with these variables.
    pub fn of(root: bool, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        if root {
            return Ok(Self {
                mount: "/zed".into(),
                socket: "/run/zed/zedd.sock".into(),
                embedded: "/var/lib/zed".into(),
            });
        }
        let get = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let runtime = get("XDG_RUNTIME_DIR")
            .ok_or("XDG_RUNTIME_DIR is not set: give --mount, --socket and --store, or start zedd from a login session")?;
        let state = get("XDG_STATE_HOME")
            .or_else(|| get("HOME").map(|home| home.join(".local/state")))
            .ok_or("neither XDG_STATE_HOME nor HOME is set: give --store")?;
        Ok(Self { mount: runtime.join("zed"), socket: runtime.join("zed.sock"), embedded: state.join("zed") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_user_gets_paths_of_his_own() {
        let variable = |name: &str| match name {
            "XDG_RUNTIME_DIR" => Some("/run/user/7".to_owned()),
            "HOME" => Some("/home/u".to_owned()),
            _ => None,
        };
        let defaults = Defaults::of(false, variable).unwrap();
        assert_eq!(defaults.mount, PathBuf::from("/run/user/7/zed"));
        assert_eq!(defaults.embedded, PathBuf::from("/home/u/.local/state/zed"));
        assert!(Defaults::of(false, |_| None).unwrap_err().contains("XDG_RUNTIME_DIR"));
        assert_eq!(Defaults::of(true, |_| None).unwrap().mount, PathBuf::from("/zed"));
    }
}
