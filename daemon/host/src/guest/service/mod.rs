//! zedd as a service of the host: a systemd unit, an rc.d script, an SMF manifest, and the commands that install it.
//!
//! Owns these three texts and how their managers are asked. In all three a stop of zedd ends zedd alone: the
//! supervisors of the apps go on, and the next zedd adopts them.

mod render;

use super::Commands;
use super::Files;
use super::GuestErrorKind;
use super::ToolCommand;
use std::path::PathBuf;
use std::time::Duration;

/// The managers do little else than read a file.
const SHORT: Duration = Duration::from_secs(60);
/// zedd's service in SMF.
const FMRI: &str = "svc:/system/zedd:default";

/// A service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceManager {
    /// systemd(1).
    Systemd,
    /// rc(8) of FreeBSD.
    Rcd,
    /// smf(7) of illumos.
    Smf,
}

/// How zedd is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeddService {
    /// Absolute path of zedd.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl ServiceManager {
    /// The one of this system.
    pub fn of_this_platform() -> Self {
        match std::env::consts::OS {
            "freebsd" => Self::Rcd,
            "illumos" | "solaris" => Self::Smf,
            _ => Self::Systemd,
        }
    }

    /// Reads `systemd`, `rc.d` or `smf`.
    ///
    /// # Errors
    /// Any other word.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "systemd" => Ok(Self::Systemd),
            "rc.d" => Ok(Self::Rcd),
            "smf" => Ok(Self::Smf),
            _ => Err("there are systemd, rc.d and smf".to_owned()),
        }
    }

    /// Where its file belongs, with its permission bits.
    pub fn place(self) -> (PathBuf, u32) {
        match self {
            Self::Systemd => ("/etc/systemd/system/zedd.service".into(), 0o644),
            Self::Rcd => ("/usr/local/etc/rc.d/zedd".into(), 0o755),
            Self::Smf => ("/lib/svc/manifest/site/zedd.xml".into(), 0o644),
        }
    }

    /// Its file.
    ///
    /// # Errors
    /// A program or an argument that the file cannot hold; the text says which.
    pub fn render(self, service: &ZeddService) -> Result<String, String> {
        render::check(service)?;
        Ok(match self {
            Self::Systemd => render::systemd(service),
            Self::Rcd => render::rcd(service),
            Self::Smf => render::smf(service),
        })
    }

    /// What makes the manager read the file and start zedd at boot.
    fn enable(self) -> Vec<ToolCommand> {
        let lines: &[&[&str]] = match self {
            // systemctl(1)
            Self::Systemd => &[&["systemctl", "daemon-reload"], &["systemctl", "enable", "zedd.service"]],
            // sysrc(8)
            Self::Rcd => &[&["sysrc", "zedd_enable=YES"]],
            // svccfg(8): the manifest enables its instance.
            Self::Smf => &[
                &["svccfg", "validate", "/lib/svc/manifest/site/zedd.xml"],
                &["svccfg", "import", "/lib/svc/manifest/site/zedd.xml"],
            ],
        };
        lines.iter().map(|line| ToolCommand::new(SHORT, line.iter().copied())).collect()
    }

    /// Asks whether it is enabled, and how the answer begins.
    fn is_enabled(self) -> (ToolCommand, &'static [&'static str]) {
        match self {
            // systemctl(1)
            Self::Systemd => {
                (ToolCommand::new(SHORT, ["systemctl", "is-enabled", "zedd.service"]), &["enabled"])
            }
            // sysrc(8): -n prints the value alone.
            Self::Rcd => (ToolCommand::new(SHORT, ["sysrc", "-n", "zedd_enable"]), &["YES"]),
            // svcs(1): `offline*` and `online*` are on their way.
            Self::Smf => (
                ToolCommand::new(SHORT, ["svcs", "-H", "-o", "state", FMRI]),
                &["online", "offline", "degraded"],
            ),
        }
    }

    /// The line with which an operator starts it now.
    pub fn start_line(self) -> &'static str {
        match self {
            Self::Systemd => "systemctl start zedd",
            Self::Rcd => "service zedd start",
            Self::Smf => "svcs -x zedd",
        }
    }

    /// Writes the file, and has zedd started at boot; gives the file's place.
    ///
    /// # Errors
    /// When the file cannot be written, or the manager does not have the service enabled afterwards.
    pub fn install(
        self,
        service: &ZeddService,
        commands: &dyn Commands,
        files: &dyn Files,
    ) -> Result<PathBuf, GuestErrorKind> {
        let text = self.render(service).map_err(GuestErrorKind::Missing)?;
        let (path, mode) = self.place();
        files.write(&path, text.as_bytes(), mode).map_err(|e| GuestErrorKind::file(&path, &e))?;
        let run = |command: &ToolCommand| {
            let problem = |problem| GuestErrorKind::Tool { command: command.line(), problem };
            commands.run(command).map_err(problem)
        };
        let mut last = None;
        for command in self.enable() {
            let output = run(&command)?;
            if !output.ok() {
                return Err(GuestErrorKind::state(&command, &output, "zedd is not enabled"));
            }
            last = Some((command, output));
        }
        let (ask, good) = self.is_enabled();
        let answer = run(&ask)?;
        let state = answer.text.trim();
        if good.iter().any(|word| state.starts_with(word)) {
            return Ok(path);
        }
        let (command, output) = last.unwrap_or((ask, answer.clone()));
        Err(GuestErrorKind::state(&command, &output, format!("its state is `{state}`")))
    }
}

#[cfg(test)]
mod tests;
