//! `diff`, `plan`, `apply` and `wait`: from a spec file to a verdict.

use crate::args::Patience;
use crate::interrupt::say_on_interrupt;
use crate::paint::Ended;
use crate::paint::Failure;
use crate::paint::Ui;
use crate::paint::paint_of;
use crate::paint::safe;
use crate::paint::safe_lines;
use crate::status::deploys;
use crate::status::read_deploy;
use crate::status::read_json;
use crate::tree::POLL;
use crate::tree::Tree;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use zed_ctl::AppView;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::DeployView;
use zed_ctl::EXIT_FAILED;
use zed_ctl::EXIT_OK;

/// A spec file on its way into the tree.
struct SpecFile {
    name: String,
    file: String,
    text: Vec<u8>,
}

impl SpecFile {
    fn read(path: &Path) -> Result<Self, CtlError> {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
        let name = file.strip_suffix(".ron").unwrap_or_default();
        if name.is_empty() || name.starts_with('-') || !name.chars().all(allowed) {
            let message = format!("`{}` cannot be a spec's name", safe(&path.display().to_string()));
            return Err(CtlError::new(Code::BadArgument, message)
                .hint("the file's name is the deploy's: NAME.ron, NAME made of a-z, 0-9 and `-`"));
        }
        let text = std::fs::read(path)
            .map_err(|error| crate::tree::io_error("read", &path.display().to_string(), &error))?;
        Ok(Self { name: name.to_owned(), file, text })
    }

    /// Saves it into a folder of the tree. One that is not understood is refused with its diagnostics, and
    /// what was there before stays.
    fn save(&self, tree: &dyn Tree, folder: &str) -> Result<(), CtlError> {
        tree.save(folder, &self.file, &self.text).map_err(|error| match error.code {
            Code::BadSpec => CtlError { hint: error.hint, ..rejected(&self.name, &error.message) },
            _ => error,
        })
    }
}

fn rejected(name: &str, errors: &str) -> CtlError {
    let message = format!("the spec of `{name}` is rejected\n{}", safe_lines(errors));
    CtlError::new(Code::BadSpec, message)
}

/// `zedctl diff [DEPLOY]`
pub(crate) fn diff(tree: &dyn Tree, ui: &mut Ui, deploy: Option<&str>) -> Ended {
    let names = match deploy {
        Some(name) => vec![read_deploy(tree, name)?.name],
        None => deploys(tree)?,
    };
    let mut differs = false;
    let mut plans = Vec::new();
    for name in names {
        let deploy: DeployView = read_json(tree, &format!("deploy/{name}.status.json"))?;
        if !deploy.errors.trim().is_empty() {
            return Err(rejected(&name, &deploy.errors).into());
        }
        // What zed leaves as it is, is still a difference between the spec and the host.
        let left = matches!(deploy.state.as_str(), "drift" | "held");
        differs |= left || !deploy.plan.trim().is_empty();
        if ui.json {
            plans.push(plan_json(tree, &format!("deploy/{name}.plan.json"))?);
            continue;
        }
        ui.out.write_all(safe_lines(&deploy.plan).as_bytes())?;
        if left {
            writeln!(
                ui.out,
                "# {name} is left as it is: {}: {}",
                safe(&deploy.state),
                safe(&deploy.verdict)
            )?;
        }
    }
    if ui.json {
        ui.json(&plans)?;
    } else if !differs {
        writeln!(ui.out, "no changes")?;
    }
    Ok(if differs { EXIT_FAILED } else { EXIT_OK })
}

/// A plan as JSON; null when there is none.
fn plan_json(tree: &dyn Tree, path: &str) -> Result<serde_json::Value, CtlError> {
    if tree.read(path)?.trim().is_empty() { Ok(serde_json::Value::Null) } else { read_json(tree, path) }
}

/// `zedctl plan FILE`
pub(crate) fn plan(tree: &dyn Tree, ui: &mut Ui, path: &Path) -> Ended {
    let spec = SpecFile::read(path)?;
    spec.save(tree, "plan")?;
    // It ends when all specs have been read and planned again: what is shown then is the plan of this save.
    tree.verb("ctl", "reload")?;
    let errors = tree.read(&format!("plan/{}.errors", spec.name))?;
    if !errors.trim().is_empty() {
        return Err(rejected(&spec.name, &errors).into());
    }
    let plan = plan_json(tree, &format!("plan/{}.plan.json", spec.name))?;
    if plan.is_null() {
        let message = format!("no plan of `{}` was made", spec.name);
        return Err(CtlError::new(Code::Failed, message).hint("`zedctl status` shows what is wrong").into());
    }
    if ui.json {
        ui.json(&plan)?;
    } else {
        let text = tree.read(&format!("plan/{}.plan", spec.name))?;
        ui.out.write_all(safe_lines(&text).as_bytes())?;
    }
    Ok(if has_steps(&plan) { EXIT_FAILED } else { EXIT_OK })
}

/// True when a plan would do something.
fn has_steps(plan: &serde_json::Value) -> bool {
    let units = plan.get("units").and_then(serde_json::Value::as_array);
    let steps = |unit: &serde_json::Value| {
        unit.get("steps").and_then(serde_json::Value::as_array).is_some_and(|steps| !steps.is_empty())
    };
    units.is_some_and(|units| units.iter().any(steps))
}

/// `zedctl apply FILE`
pub(crate) fn apply(tree: &Arc<dyn Tree>, ui: &mut Ui, path: &Path, wait: Option<Patience>) -> Ended {
    let spec = SpecFile::read(path)?;
    spec.save(tree.as_ref(), "deploy")?;
    let Some(wait) = wait else {
        ui.progress(&format!("saved: `zedctl wait {}` waits for the outcome", spec.name));
        return Ok(EXIT_OK);
    };
    settle(tree, ui, &spec.name, wait.timeout)
}

/// `zedctl wait NAME`
pub(crate) fn wait(tree: &Arc<dyn Tree>, ui: &mut Ui, name: &str, wait: Patience) -> Ended {
    read_deploy(tree.as_ref(), name)?;
    settle(tree, ui, name, wait.timeout)
}

/// Waits until the last save of a deploy has settled, with its steps as progress, and tells the verdict.
fn settle(tree: &Arc<dyn Tree>, ui: &mut Ui, name: &str, timeout: Option<u64>) -> Ended {
    say_on_interrupt(format!("interrupted: deploy {name} goes on; `zedctl wait {name}` waits for it again"))?;
    let deadline = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let status = format!("deploy/{name}.status.json");
    let mut shown = String::new();
    loop {
        let waited = wait_once(tree, name);
        let outcome = loop {
            match waited.recv_timeout(POLL) {
                Ok(outcome) => break outcome,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    break Err(CtlError::new(Code::Internal, "the waiting thread ended"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            match read_json::<DeployView>(tree.as_ref(), &status) {
                Ok(deploy) if deploy.step != shown && !deploy.step.is_empty() => {
                    ui.progress(&format!("  {}", deploy.step));
                    shown = deploy.step;
                }
                Ok(_) => {}
                // Its first save is not shown yet.
                Err(error) if error.code == Code::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let message = format!("deploy `{name}` has not settled within {}s", timeout.unwrap_or(0));
                let error = CtlError::new(Code::Busy, message);
                return Err(error
                    .hint(format!("it goes on; `zedctl wait {name}` waits for it again"))
                    .into());
            }
        };
        let deploy: DeployView = match (read_json(tree.as_ref(), &status), &outcome) {
            (Ok(deploy), _) => deploy,
            (Err(_), Err(refused)) => return Err(refused.clone().into()),
            (Err(error), Ok(_)) => return Err(error.into()),
        };
        if is_settled(&deploy.state) {
            return tell(tree.as_ref(), ui, &deploy);
        }
        // A read that took too long fails as one of a failed deploy does; every other refusal is final.
        if let Err(refused) = outcome
            && refused.code != Code::Failed
        {
            return Err(refused.into());
        }
        // The daemon ended the wait early: not in a tight loop.
        std::thread::sleep(POLL);
    }
}

/// Reads `NAME.wait` on a thread, because the read blocks.
fn wait_once(tree: &Arc<dyn Tree>, name: &str) -> mpsc::Receiver<Result<String, CtlError>> {
    let (send, receive) = mpsc::channel();
    let (tree, path) = (Arc::clone(tree), format!("deploy/{name}.wait"));
    std::thread::spawn(move || {
        // The receiver is gone when the deadline came first.
        let _ = send.send(tree.read(&path));
    });
    receive
}

/// True when nothing more happens by itself.
fn is_settled(state: &str) -> bool {
    matches!(state, "converged" | "held" | "drift" | "failed" | "rejected" | "needs-operator")
}

/// Prints the verdict, and what runs now.
pub(crate) fn tell(tree: &dyn Tree, ui: &mut Ui, deploy: &DeployView) -> Ended {
    let ok = deploy.state == "converged";
    if ui.json {
        ui.json(deploy)?;
        return Ok(if ok { EXIT_OK } else { EXIT_FAILED });
    }
    if !ok {
        return Err(verdict_error(tree, deploy).into());
    }
    let state = ui.paint(paint_of(&deploy.state), &deploy.state);
    writeln!(ui.out, "deploy {} {state}: {}", deploy.name, safe(&deploy.verdict))?;
    for app in &deploy.apps {
        match read_json::<AppView>(tree, &format!("apps/{app}/status.json")) {
            Ok(app) => app_line(ui, &app)?,
            // An app that this host does not run is not shown here.
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(EXIT_OK)
}

/// `app hello runs 1.0.0: running, healthy`
pub(crate) fn app_line(ui: &mut Ui, app: &AppView) -> Result<(), Failure> {
    let state = ui.paint(paint_of(&app.state), &safe(&app.state));
    let health = ui.paint(paint_of(&app.health), &safe(&app.health));
    let held = if app.held.is_empty() { String::new() } else { format!("; held: {}", safe(&app.held)) };
    writeln!(ui.out, "app {} is at {}: {state}, {health}{held}", safe(&app.name), safe(&app.version))?;
    Ok(())
}

/// Why a deploy is not converged, with what its apps and its diagnostics say.
fn verdict_error(tree: &dyn Tree, deploy: &DeployView) -> CtlError {
    let mut message =
        format!("deploy `{}` is {}:{}", deploy.name, deploy.state, lines_below(&deploy.verdict));
    for app in &deploy.apps {
        if let Ok(app) = read_json::<AppView>(tree, &format!("apps/{app}/status.json")) {
            let texts = [&app.error, &app.held, &app.drift];
            // What the verdict says already is not said again.
            for text in texts.into_iter().filter(|text| !deploy.verdict.contains(text.as_str())) {
                message.push_str(&format!("\n  app {}:{}", app.name, lines_below(text)));
            }
        }
    }
    if !deploy.errors.is_empty() {
        message.push('\n');
        message.push_str(&safe_lines(&deploy.errors));
    }
    let (code, hint) = match deploy.state.as_str() {
        "rejected" => (Code::BadSpec, "correct the lines shown and save the spec again".to_owned()),
        "held" => {
            (Code::Failed, "save the spec again, or `zedctl release APP`, to converge to it".to_owned())
        }
        "drift" => (Code::Failed, format!("`echo heal {} > ctl` in the tree repairs it", deploy.name)),
        "needs-operator" => (Code::NeedsOperator, Code::NeedsOperator.default_hint().to_owned()),
        _ => (Code::Failed, "`zedctl logs APP` and `zedctl events -n 20` say more".to_owned()),
    };
    CtlError::new(code, message).hint(hint)
}

/// One line behind the colon, several below it.
fn lines_below(text: &str) -> String {
    match text.lines().collect::<Vec<_>>().as_slice() {
        [] => " no reason is known".to_owned(),
        [line] => format!(" {}", safe(line)),
        lines => lines.iter().map(|line| format!("\n    {}", safe(line))).collect(),
    }
}
