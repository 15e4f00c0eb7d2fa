//! Starting a supervisor, and talking to one.

use crate::command::CommandRequest;
use crate::command::Ended;
use crate::command::Runner;
use crate::supervisor::LaunchReply;
use crate::supervisor::LaunchRequest;
use crate::types::HostErrorKind;
use std::collections::BTreeMap;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

/// From the launch of a supervisor to its answer that the program has been executed.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(15);
/// What is kept of what a supervisor says when it cannot start.
const REPLY: usize = 16 * 1024;

/// What a supervisor is called in `ps`, whatever path it is started by.
const NAME: &str = "zedd";

/// How a supervisor is started: a program that calls [`crate::supervise_main`] with the arguments after these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorProgram {
    /// The program.
    pub path: PathBuf,
    /// Its arguments before the app's folder.
    pub arguments: Vec<String>,
}

impl SupervisorProgram {
    /// The running program itself with the subcommand `supervise`: what zedd uses.
    pub fn this_program() -> io::Result<Self> {
        // The link stays right when the program's file has been replaced by an upgrade.
        let link = Path::new("/proc/self/exe");
        let path = if link.exists() { link.to_owned() } else { std::env::current_exe()? };
        Ok(Self { path, arguments: vec!["supervise".to_owned()] })
    }

    /// The arguments, its name in `ps` first.
    pub(crate) fn argv(&self, last: &str) -> Vec<String> {
        let own = std::iter::once(NAME).chain(self.arguments.iter().map(String::as_str));
        own.chain(std::iter::once(last)).map(str::to_owned).collect()
    }

    /// Starts a supervisor and waits until it says that the program has been executed, or why not.
    pub(crate) fn launch(
        &self,
        runner: &Runner,
        folder: &Path,
        request: &LaunchRequest,
    ) -> Result<LaunchReply, HostErrorKind> {
        let command = CommandRequest {
            argv: self.argv(&folder.to_string_lossy()),
            program: Some(self.path.clone()),
            environment: BTreeMap::new(),
            directory: None,
            input: serde_json::to_vec(request).map_err(|e| HostErrorKind::Io(e.to_string()))?,
            deadline: START_DEADLINE,
            grace: Duration::ZERO,
            keep: REPLY,
        };
        let finished = runner
            .run(&command, None)
            .map_err(|e| HostErrorKind::Io(format!("the supervisor cannot be started: {}", e.kind)))?;
        match finished.ended {
            Ended::Deadline(after) => Err(HostErrorKind::Deadline(after)),
            ended => serde_json::from_slice(&finished.output).map_err(|_| {
                let said = String::from_utf8_lossy(&finished.output).trim().to_owned();
                HostErrorKind::Io(format!("the supervisor ended without an answer ({ended}): {said}"))
            }),
        }
    }
}

/// Asks a supervisor to stop its app and waits for the answer.
pub(crate) fn ask_to_stop(socket: &Path, grace: Duration, until: Instant) -> io::Result<()> {
    let mut stream = crate::supervisor::connect(socket)?;
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))?;
    stream.write_all(format!("stop {}\n", grace.as_millis()).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(())
}
