//! `status` and `history`: what there is, read from the `status.json` files.

use crate::paint::Cell;
use crate::paint::Ended;
use crate::paint::Failure;
use crate::paint::Paint;
use crate::paint::Ui;
use crate::paint::age;
use crate::paint::now;
use crate::paint::paint_of;
use crate::paint::safe;
use crate::paint::size;
use crate::tree::Tree;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::io::Write;
use zed_ctl::AppView;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::DeployView;
use zed_ctl::EXIT_OK;
use zed_ctl::HostView;
use zed_ctl::did_you_mean;
use zed_ctl::parse_rfc3339;

/// Characters of a verdict in its row.
const VERDICT: usize = 80;

/// Everything that `status` shows.
#[derive(Debug, Serialize)]
struct Shown {
    host: HostView,
    deploys: Vec<DeployView>,
    apps: Vec<AppView>,
}

/// Reads a `.json` file of the tree.
pub(crate) fn read_json<T: DeserializeOwned>(tree: &dyn Tree, path: &str) -> Result<T, CtlError> {
    let text = tree.read(path)?;
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("`{path}` is not what this zedctl understands: {error}");
        CtlError::new(Code::Internal, message).hint("use the zedctl that came with the daemon")
    })
}

/// The status of an app. One that is not there is told with the nearest name that is.
pub(crate) fn read_app(tree: &dyn Tree, app: &str) -> Result<AppView, CtlError> {
    known(tree, "app", app, || tree.list("apps"))?;
    read_json(tree, &format!("apps/{app}/status.json"))
}

/// The status of a deploy, likewise.
pub(crate) fn read_deploy(tree: &dyn Tree, deploy: &str) -> Result<DeployView, CtlError> {
    known(tree, "deploy", deploy, || deploys(tree))?;
    read_json(tree, &format!("deploy/{deploy}.status.json"))
}

/// The names of the deploys. One that is being removed has no spec any more, but still a status.
pub(crate) fn deploys(tree: &dyn Tree) -> Result<Vec<String>, CtlError> {
    let files = tree.list("deploy")?;
    let stem = |file: &String| file.strip_suffix(".ron").or(file.strip_suffix(".status")).map(str::to_owned);
    // What is not a deploy's name is the scratch file of an editor.
    let is_name = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    let named = |name: &String| !name.starts_with('-') && name.chars().all(is_name);
    let names: BTreeSet<String> = files.iter().filter_map(stem).filter(named).collect();
    Ok(names.into_iter().collect())
}

/// Refuses a name that is not in the list.
pub(crate) fn known(
    tree: &dyn Tree,
    what: &str,
    name: &str,
    list: impl FnOnce() -> Result<Vec<String>, CtlError>,
) -> Result<(), CtlError> {
    let names = list()?;
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let message = format!("there is no {what} `{}` in {}", safe(name), tree.place());
    let error = CtlError::new(Code::NotFound, message);
    Err(match did_you_mean(name, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None if names.is_empty() => error.hint("nothing is deployed yet: `zedctl apply NAME.ron`"),
        None => error.hint(format!("there are: {}", names.join(", "))),
    })
}

/// The name of the host whose tree this is.
pub(crate) fn host_name(tree: &dyn Tree) -> Result<String, CtlError> {
    let hosts = tree.list("hosts")?;
    match hosts.first() {
        Some(host) => Ok(host.clone()),
        None => Err(CtlError::new(Code::Internal, format!("{} shows no host", tree.place()))),
    }
}

/// `zedctl status [NAME...]`
pub(crate) fn status(tree: &dyn Tree, ui: &mut Ui, names: &[String]) -> Ended {
    let shown = collect(tree, names)?;
    if ui.json {
        ui.json(&shown)?;
        return Ok(EXIT_OK);
    }
    let now = now();
    host_line(ui, &shown.host, now)?;
    if !shown.deploys.is_empty() {
        writeln!(ui.out)?;
    }
    let rows: Vec<Vec<Cell>> = shown.deploys.iter().map(|deploy| deploy_row(deploy, now)).collect();
    ui.table(&["DEPLOY", "STATE", "GENERATION", "SINCE", "VERDICT"], &rows)?;
    if !shown.apps.is_empty() {
        writeln!(ui.out)?;
    }
    let rows: Vec<Vec<Cell>> = shown.apps.iter().map(|app| app_row(app, now)).collect();
    ui.table(&["APP", "VERSION", "STATE", "HEALTH", "SINCE", "RESTARTS", "DEPLOY"], &rows)?;
    problems(ui, &shown)?;
    Ok(EXIT_OK)
}

fn collect(tree: &dyn Tree, names: &[String]) -> Result<Shown, CtlError> {
    let mut host: HostView = read_json(tree, &format!("hosts/{}/status.json", host_name(tree)?))?;
    let (all_deploys, all_apps) = (deploys(tree)?, tree.list("apps")?);
    for name in names {
        known(tree, "app or deploy", name, || Ok([all_deploys.clone(), all_apps.clone()].concat()))?;
    }
    let wanted = |name: &String| names.is_empty() || names.contains(name);
    let deploys = all_deploys.iter().filter(|name| wanted(name));
    let deploys = deploys
        .map(|name| read_json(tree, &format!("deploy/{name}.status.json")))
        .collect::<Result<_, _>>()?;
    let apps = all_apps.iter().map(|name| read_json(tree, &format!("apps/{name}/status.json")));
    let apps: Vec<AppView> = apps.collect::<Result<_, _>>()?;
    // A deploy that is asked for is shown with its apps.
    let apps = apps.into_iter().filter(|app| wanted(&app.name) || wanted(&app.deploy)).collect();
    // Of the others nothing is told, problems neither.
    host.problems.retain(|problem| {
        names.is_empty() || names.iter().any(|name| problem.starts_with(&format!("deploy {name}:")))
    });
    Ok(Shown { host, deploys, apps })
}

fn host_line(ui: &mut Ui, host: &HostView, now: i64) -> Result<(), Failure> {
    let state = ui.paint(paint_of(&host.state), &safe(&host.state));
    let name = ui.paint(Paint::Strong, &safe(&host.name));
    writeln!(
        ui.out,
        "{name} is {state}: zedd {}, up {}, store {} with {} available",
        safe(&host.zed_version),
        age(host.started_at, now),
        safe(&host.store),
        size(host.available),
    )?;
    Ok(())
}

fn deploy_row(deploy: &DeployView, now: i64) -> Vec<Cell> {
    let since = match parse_rfc3339(&deploy.verdict_at) {
        Ok(at) => age(at, now),
        Err(_) => age(deploy.changed_at, now),
    };
    let verdict = match (deploy.step.as_str(), deploy.state.as_str()) {
        ("", _) | (_, "converged" | "failed" | "held" | "drift" | "rejected" | "needs-operator") => {
            deploy.verdict.as_str()
        }
        (step, _) => step,
    };
    vec![
        Cell::plain(&deploy.name),
        Cell::new(&deploy.state, paint_of(&deploy.state)),
        Cell::plain(&deploy.generation.to_string()),
        Cell::plain(&since),
        Cell::note(&shortened(verdict), Paint::Plain),
    ]
}

/// The first line, and not more of it than a row can hold; all of it is in `NAME.status`.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let end = line.char_indices().nth(VERDICT).map_or(line.len(), |(at, _)| at);
    let more = if line.len() > end || text.lines().nth(1).is_some() { "..." } else { "" };
    format!("{}{more}", line.get(..end).unwrap_or_default())
}

fn app_row(app: &AppView, now: i64) -> Vec<Cell> {
    vec![
        Cell::plain(&app.name),
        Cell::plain(&app.version),
        Cell::new(&app.state, paint_of(&app.state)),
        Cell::new(&app.health, paint_of(&app.health)),
        Cell::plain(&age(app.since, now)),
        Cell::plain(&app.restarts.to_string()),
        Cell::plain(&app.deploy),
    ]
}

/// Last, so that they stand just above the next prompt. What the host says of a deploy is not said again for
/// its apps.
fn problems(ui: &mut Ui, shown: &Shown) -> Result<(), Failure> {
    let mut lines: Vec<(Paint, String)> =
        shown.host.problems.iter().map(|problem| (Paint::Bad, problem.clone())).collect();
    let mut add = |paint: Paint, object: String, word: &str, text: &str| {
        let first = text.lines().next().unwrap_or_default();
        if !text.is_empty() && !lines.iter().any(|(_, line)| line.contains(first)) {
            lines.push((paint, format!("{object}: {word}: {text}")));
        }
    };
    for deploy in &shown.deploys {
        add(Paint::Bad, format!("deploy {}", deploy.name), "rejected", &deploy.errors);
    }
    for app in &shown.apps {
        let object = || format!("app {}", app.name);
        add(Paint::Bad, object(), "failed", &app.error);
        add(Paint::Notice, object(), "drift", &app.drift);
        add(Paint::Notice, object(), "held", &app.held);
    }
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(ui.out, "\n{}", ui.paint(Paint::Strong, "needs attention:"))?;
    for (paint, text) in lines {
        for (number, line) in text.lines().enumerate() {
            let line = ui.paint(paint, &safe(line));
            writeln!(ui.out, "  {}{line}", if number == 0 { "" } else { "  " })?;
        }
    }
    Ok(())
}

/// `zedctl history APP`
pub(crate) fn history(tree: &dyn Tree, ui: &mut Ui, app: &str) -> Ended {
    let app = read_app(tree, app)?;
    if ui.json {
        ui.json(&app.history)?;
        return Ok(EXIT_OK);
    }
    let rows: Vec<Vec<Cell>> = app
        .history
        .iter()
        .map(|release| {
            let paint = match release.kind.as_str() {
                "running" => Paint::Good,
                "failed" => Paint::Bad,
                _ => Paint::Plain,
            };
            let target =
                if release.snapshot.is_empty() { String::new() } else { format!("@{}", release.snapshot) };
            vec![
                Cell::plain(&release.version),
                Cell::new(&release.kind, paint),
                Cell::plain(&release.generation.to_string()),
                Cell::plain(&release.deployed_at),
                Cell::plain(&release.taken_at),
                Cell::note(&target, Paint::Plain),
            ]
        })
        .collect();
    if rows.is_empty() {
        ui.progress(&format!("app {} has no release yet", app.name));
    }
    ui.table(&["VERSION", "KIND", "GENERATION", "DEPLOYED", "SNAPSHOT TAKEN", "TARGET"], &rows)?;
    Ok(EXIT_OK)
}
