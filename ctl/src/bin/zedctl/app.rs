//! Verbs that are waited for: `rollback`, `start`, `stop`, `restart`, `release`, and `apply --plan`.

use crate::args::Patience;
use crate::deploy::app_line;
use crate::deploy::tell;
use crate::interrupt::say_on_interrupt;
use crate::paint::Ended;
use crate::paint::Ui;
use crate::status::known;
use crate::status::read_app;
use crate::status::read_json;
use crate::tree::POLL;
use crate::tree::Tree;
use crate::tree::error_file;
use crate::tree::told_error;
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
pub(crate) fn rollback(tree: &Arc<dyn Tree>, ui: &mut Ui, app: &str, target: &str, wait: Patience) -> Ended {
    // A blank in a version is one word to the person who quoted it.
    let word = if target.contains(char::is_whitespace) { format!("'{target}'") } else { target.to_owned() };
    parse_verb(FileKind::AppRollback, &word)?;
    app_verb(tree, ui, (app, "rollback"), &word, wait)
}

/// `zedctl start APP` and its like.
pub(crate) fn control(tree: &Arc<dyn Tree>, ui: &mut Ui, app: &str, word: &str, wait: Patience) -> Ended {
    app_verb(tree, ui, (app, "ctl"), word, wait)
}

fn app_verb(
    tree: &Arc<dyn Tree>,
    ui: &mut Ui,
    (app, file): (&str, &str),
    word: &str,
    wait: Patience,
) -> Ended {
    let deploy = read_app(tree.as_ref(), app)?.deploy;
    let verb =
        Verb { path: &format!("apps/{app}/{file}"), word, object: &format!("app {app}"), deploy: &deploy };
    verb.carry_out(tree, ui, wait)?;
    let app: AppView = read_json(tree.as_ref(), &format!("apps/{app}/status.json"))?;
    if ui.json {
        ui.json(&app)?;
    } else {
        app_line(ui, &app)?;
    }
    Ok(EXIT_OK)
}

/// `zedctl apply --plan NAME`
pub(crate) fn apply_plan(tree: &Arc<dyn Tree>, ui: &mut Ui, name: &str, wait: Patience) -> Ended {
    let word = format!("apply {name}");
    parse_verb(FileKind::RootCtl, &word)?;
    known(tree.as_ref(), "plan", name, || {
        let files = tree.list("plan")?;
        Ok(files.iter().filter_map(|file| file.strip_suffix(".ron")).map(str::to_owned).collect())
    })?;
    let verb = Verb { path: "ctl", word: &word, object: &format!("deploy {name}"), deploy: name };
    verb.carry_out(tree, ui, wait)?;
    let deploy: DeployView = read_json(tree.as_ref(), &format!("deploy/{name}.status.json"))?;
    tell(tree.as_ref(), ui, &deploy)
}

/// A verb on its way.
struct Verb<'a> {
    /// The file it is written to.
    path: &'a str,
    /// What is written.
    word: &'a str,
    /// What it is about, for messages.
    object: &'a str,
    /// The deploy whose steps are shown meanwhile.
    deploy: &'a str,
}

impl Verb<'_> {
    /// Writes it on a thread, because that waits for the outcome, and shows the steps meanwhile.
    fn carry_out(&self, tree: &Arc<dyn Tree>, ui: &Ui, wait: Patience) -> Result<(), CtlError> {
        say_on_interrupt(format!("interrupted: {}", self.goes_on()))?;
        let (send, receive) = mpsc::channel();
        let (writer, path, word) = (Arc::clone(tree), self.path.to_owned(), self.word.to_owned());
        std::thread::spawn(move || {
            // The receiver is gone when the deadline came first.
            let _ = send.send(writer.verb(&path, &word));
        });
        let deadline = wait.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut shown = String::new();
        loop {
            match receive.recv_timeout(POLL) {
                Ok(outcome) => {
                    outcome?;
                    break;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(CtlError::new(Code::Internal, "the writing thread ended"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            self.show_step(tree.as_ref(), ui, &mut shown);
            self.check_deadline(deadline, wait)?;
        }
        if !self.is_busy(tree.as_ref())? {
            return Ok(());
        }
        // The daemon answers before the end of what takes very long. Then the file `error` says how it ended.
        while self.is_busy(tree.as_ref())? {
            self.show_step(tree.as_ref(), ui, &mut shown);
            self.check_deadline(deadline, wait)?;
            std::thread::sleep(POLL);
        }
        match tree.read(&error_file(self.path))? {
            told if told.trim().is_empty() => Ok(()),
            told => Err(told_error(Code::Failed, &told)),
        }
    }

    fn goes_on(&self) -> String {
        format!("`{}` of {} goes on; `zedctl status` shows it", self.word, self.object)
    }

    fn check_deadline(&self, deadline: Option<Instant>, wait: Patience) -> Result<(), CtlError> {
        if deadline.is_none_or(|deadline| Instant::now() < deadline) {
            return Ok(());
        }
        let seconds = wait.timeout.unwrap_or(0);
        let message = format!("`{}` of {} has not ended within {seconds}s", self.word, self.object);
        Err(CtlError::new(Code::Busy, message).hint(self.goes_on()))
    }

    fn is_busy(&self, tree: &dyn Tree) -> Result<bool, CtlError> {
        match read_json::<DeployView>(tree, &format!("deploy/{}.status.json", self.deploy)) {
            Ok(deploy) => Ok(matches!(deploy.state.as_str(), "accepted" | "converging" | "removing")),
            // An app whose deploy was removed.
            Err(error) if error.code == Code::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn show_step(&self, tree: &dyn Tree, ui: &Ui, shown: &mut String) {
        if let Some(step) = self.step(tree)
            && step != *shown
        {
            ui.progress(&format!("  {step}"));
            *shown = step;
        }
    }

    /// What is being done now. Progress is worth no failure: what cannot be read is not shown.
    fn step(&self, tree: &dyn Tree) -> Option<String> {
        let deploy: DeployView = read_json(tree, &format!("deploy/{}.status.json", self.deploy)).ok()?;
        Some(deploy.step).filter(|step| !step.is_empty())
    }
}
