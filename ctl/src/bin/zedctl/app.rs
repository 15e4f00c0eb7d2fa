//! `rollback`, `start`, `stop`, `restart` and `release`: one verb for one app, and what came of it.

use crate::args::Wait;
use crate::deploy::app_line;
use crate::interrupt::say_on_interrupt;
use crate::paint::Ended;
use crate::paint::Ui;
use crate::status::read_app;
use crate::status::read_json;
use crate::tree::POLL;
use crate::tree::Tree;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use zed_ctl::AppView;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::DeployView;
use zed_ctl::EXIT_OK;
use zed_ctl::FileKind;
use zed_ctl::parse_verb;

/// `zedctl rollback APP TARGET`
pub(crate) fn rollback(tree: &Arc<dyn Tree>, ui: &mut Ui, app: &str, target: &str, wait: Wait) -> Ended {
    // A blank in a version is one word to the person who quoted it.
    let word = if target.contains(char::is_whitespace) { format!("'{target}'") } else { target.to_owned() };
    parse_verb(FileKind::AppRollback, &word)?;
    let verb = Verb { app, file: "rollback", word: &word };
    verb.carry_out(tree, ui, wait)
}

/// `zedctl start APP` and its like.
pub(crate) fn control(tree: &Arc<dyn Tree>, ui: &mut Ui, app: &str, word: &str) -> Ended {
    let wait = Wait { no_wait: false, timeout: None };
    Verb { app, file: "ctl", word }.carry_out(tree, ui, wait)
}

/// A verb for an app.
struct Verb<'a> {
    app: &'a str,
    file: &'a str,
    word: &'a str,
}

impl Verb<'_> {
    fn carry_out(&self, tree: &Arc<dyn Tree>, ui: &mut Ui, wait: Wait) -> Ended {
        read_app(tree.as_ref(), self.app)?;
        say_on_interrupt(format!(
            "interrupted: `{}` of app {} goes on; `zedctl status {}` shows it",
            self.word, self.app, self.app
        ))?;
        self.write(tree, ui, wait)?;
        let app: AppView = read_json(tree.as_ref(), &format!("apps/{}/status.json", self.app))?;
        if ui.json {
            ui.json(&app)?;
        } else if wait.no_wait {
            ui.progress(&format!("accepted: `zedctl status {}` shows the outcome", self.app));
        } else {
            app_line(ui, &app)?;
        }
        Ok(EXIT_OK)
    }

    /// Writes it on a thread, because the write waits for the outcome, and shows the steps meanwhile.
    fn write(&self, tree: &Arc<dyn Tree>, ui: &Ui, wait: Wait) -> Result<(), CtlError> {
        let (send, receive) = mpsc::channel();
        let (writer, path, word) =
            (Arc::clone(tree), format!("apps/{}/{}", self.app, self.file), self.word.to_owned());
        std::thread::spawn(move || {
            // The receiver is gone when the deadline came first.
            let _ = send.send(writer.verb(&path, &word, wait.no_wait));
        });
        let deadline = wait.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut shown = String::new();
        loop {
            match receive.recv_timeout(POLL) {
                Ok(outcome) => return outcome,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(CtlError::new(Code::Internal, "the writing thread ended"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if let Some(step) = self.step(tree.as_ref())
                && step != shown
            {
                ui.progress(&format!("  {step}"));
                shown = step;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let seconds = wait.timeout.unwrap_or(0);
                let message =
                    format!("`{}` of app `{}` has not ended within {seconds}s", self.word, self.app);
                let error = CtlError::new(Code::Busy, message);
                return Err(error.hint(format!("it goes on; `zedctl status {}` shows it", self.app)));
            }
        }
    }

    /// What is being done now. Progress is worth no failure: what cannot be read is not shown.
    fn step(&self, tree: &dyn Tree) -> Option<String> {
        let app: AppView = read_json(tree, &format!("apps/{}/status.json", self.app)).ok()?;
        let deploy: DeployView = read_json(tree, &format!("deploy/{}.status.json", app.deploy)).ok()?;
        Some(deploy.step).filter(|step| !step.is_empty())
    }
}
