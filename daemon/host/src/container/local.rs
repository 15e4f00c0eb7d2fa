//! What the real host does for an app in a container, where that differs.

use super::Launch;
use super::inside::Wanted;
use super::inside::run_inside;
use super::inside::run_once;
use crate::command::CommandError;
use crate::command::CommandRequest;
use crate::command::Finished;
use crate::local::LocalHost;
use crate::types::ContainerRequest;
use crate::types::HookRequest;
use crate::types::HostErrorKind;
use crate::types::Start;
use std::sync::atomic::AtomicBool;
use zed_plan::Instance;

impl LocalHost {
    /// What a supervisor needs for a container; nothing for an app that runs on the host itself.
    pub(crate) fn container_of(&self, request: &Start) -> Result<Option<Launch>, HostErrorKind> {
        let Some(container) = &request.container else { return Ok(None) };
        let run = &request.run;
        let wanted = Wanted {
            id: run.instance().to_string(),
            container,
            command: &run.command,
            environment: &request.environment,
            user: run.user.as_deref(),
            group: run.group.as_deref(),
        };
        wanted.launch(self.runner()).map(Some)
    }

    /// Runs a command of an app where the app is: inside its container, or on the host as its user.
    pub(crate) fn run_beside(
        &self,
        instance: &Instance,
        command: CommandRequest,
        user: Option<&str>,
        group: Option<&str>,
        cancel: Option<&AtomicBool>,
    ) -> Result<Finished, CommandError> {
        match run_inside(self.runner(), &self.files(instance).folder, &command, cancel) {
            Some(finished) => finished,
            None => self.run_as(command, user, group, cancel),
        }
    }

    /// Runs a hook in a container of its own: the app's may not run yet, or no longer.
    pub(crate) fn run_contained(
        &self,
        request: &HookRequest,
        container: &ContainerRequest,
        command: &CommandRequest,
    ) -> Result<Finished, CommandError> {
        let id = format!("{}.hook", request.instance.app);
        let folder = self.apps().join(&id);
        let wanted = Wanted {
            id,
            container,
            command: &request.command,
            environment: &request.environment,
            user: request.user.as_deref(),
            group: request.group.as_deref(),
        };
        run_once(self.runner(), &folder, &wanted, command)
    }
}
