//! The table of verbs, and the texts made from it.

use super::FileKind;
use super::gpu::GPU_VERBS;
use super::printable;
use crate::Code;
use crate::CtlError;
use std::fmt::Write as _;

/// One argument of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// As it is shown: `DEPLOY`.
    pub name: &'static str,
    /// False when it may be left out.
    pub required: bool,
}

/// Which verb a row describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VerbId {
    Apply,
    Reload,
    RetryDeploy,
    ReleaseDeploy,
    Heal,
    Log,
    Start,
    Stop,
    Restart,
    Release,
    Retry,
    Pause,
    Resume,
    Promote,
    Abort,
    Scale,
    Rollback,
    Converge,
    Gpu,
}

/// What has to be so for a verb to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A plan of that name; when it is carried out, a host as it was and a deploy that nobody else works on.
    Plan,
    /// A deploy of that name that nobody else works on.
    Deploy,
    /// The same when one is named.
    OptionalDeploy,
    /// An app that was deployed, and nobody else working on its deploy.
    App,
    /// The same, and a release as asked for.
    Release,
    /// An upgrade of the app that is going on.
    Upgrade,
    /// A job that waits for its inputs.
    WaitingJob,
    /// A job that has not ended.
    Job,
    /// A job that has not begun.
    QueuedJob,
}

impl Needs {
    /// For the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Needs::Nothing => "nothing",
            Needs::Plan => "the plan; an idle deploy; a host that has not moved since",
            Needs::Deploy => "the deploy, idle",
            Needs::OptionalDeploy => "the deploy that is named, idle",
            Needs::App => "a deployed app, its deploy idle",
            Needs::Release => "a deployed app, its deploy idle; such a release",
            Needs::Upgrade => "an upgrade of the app that is going on",
            Needs::WaitingJob => "a job that waits for its inputs; its submitter or root",
            Needs::Job => "a job that has not ended; its submitter or root",
            Needs::QueuedJob => "a job that has not begun; its submitter or root",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerbSpec {
    /// The first word; for the rollback file, the form of the target.
    pub name: &'static str,
    /// What follows it.
    pub arguments: &'static [Argument],
    /// The file it is written to.
    pub file: FileKind,
    /// What has to be so.
    pub needs: Needs,
    /// What it can be refused with, besides `bad-argument` and `not-permitted`.
    pub refusals: &'static [Code],
    /// One line.
    pub help: &'static str,
    pub(super) id: VerbId,
}

pub(super) const fn required(name: &'static str) -> Argument {
    Argument { name, required: true }
}

pub(super) const fn optional(name: &'static str) -> Argument {
    Argument { name, required: false }
}

/// All verbs but those of GPUs, in the order of the help text.
const VERBS: &[VerbSpec] = &[
    VerbSpec {
        id: VerbId::Apply,
        name: "apply",
        arguments: &[required("PLAN")],
        file: FileKind::RootCtl,
        needs: Needs::Plan,
        refusals: &[Code::NotFound, Code::Stale, Code::Busy, Code::Unsupported],
        help: "apply the plan of plan/PLAN.ron exactly as plan/PLAN.plan shows it; refused when the host has moved since",
    },
    VerbSpec {
        id: VerbId::Reload,
        name: "reload",
        arguments: &[],
        file: FileKind::RootCtl,
        needs: Needs::Nothing,
        refusals: &[],
        help: "read all spec files again and converge",
    },
    VerbSpec {
        id: VerbId::RetryDeploy,
        name: "retry",
        arguments: &[required("DEPLOY")],
        file: FileKind::RootCtl,
        needs: Needs::Deploy,
        refusals: &[Code::NotFound, Code::Busy],
        help: "try a failed deploy again",
    },
    VerbSpec {
        id: VerbId::ReleaseDeploy,
        name: "release",
        arguments: &[required("DEPLOY")],
        file: FileKind::RootCtl,
        needs: Needs::Deploy,
        refusals: &[Code::NotFound, Code::Busy],
        help: "end the hold of a rollback on all apps of a deploy: it converges to its spec again",
    },
    VerbSpec {
        id: VerbId::Heal,
        name: "heal",
        arguments: &[optional("DEPLOY")],
        file: FileKind::RootCtl,
        needs: Needs::OptionalDeploy,
        refusals: &[Code::NotFound, Code::Busy],
        help: "repair drift of one deploy, or of all",
    },
    VerbSpec {
        id: VerbId::Log,
        name: "log",
        arguments: &[required("LEVEL")],
        file: FileKind::RootCtl,
        needs: Needs::Nothing,
        refusals: &[],
        help: "set the level of the daemon's log: error, warn, info, debug or trace",
    },
    VerbSpec {
        id: VerbId::Start,
        name: "start",
        arguments: &[],
        file: FileKind::AppCtl,
        needs: Needs::App,
        refusals: &[Code::NotFound, Code::Busy],
        help: "start the app; nothing happens when it runs",
    },
    VerbSpec {
        id: VerbId::Stop,
        name: "stop",
        arguments: &[],
        file: FileKind::AppCtl,
        needs: Needs::App,
        refusals: &[Code::NotFound, Code::Busy],
        help: "stop the app; it stays stopped, whatever is saved meanwhile, until it is started",
    },
    VerbSpec {
        id: VerbId::Restart,
        name: "restart",
        arguments: &[],
        file: FileKind::AppCtl,
        needs: Needs::App,
        refusals: &[Code::NotFound, Code::Busy],
        help: "stop the app and start it",
    },
    VerbSpec {
        id: VerbId::Release,
        name: "release",
        arguments: &[],
        file: FileKind::AppCtl,
        needs: Needs::App,
        refusals: &[Code::NotFound, Code::Busy],
        help: "end the hold of a rollback: the app converges to its spec again",
    },
    VerbSpec {
        id: VerbId::Retry,
        name: "retry",
        arguments: &[],
        file: FileKind::AppCtl,
        needs: Needs::App,
        refusals: &[Code::NotFound, Code::Busy],
        help: "try the app's failed deploy again",
    },
    VerbSpec {
        id: VerbId::Scale,
        name: "scale",
        arguments: &[required("COUNT")],
        file: FileKind::AppCtl,
        needs: Needs::App,
        refusals: &[Code::NotFound, Code::Busy, Code::Failed],
        help: "run so many processes of the app, until its spec deploys it anew",
    },
    VerbSpec {
        id: VerbId::Pause,
        name: "pause",
        arguments: &[],
        file: FileKind::AppCtl,
        needs: Needs::Upgrade,
        refusals: &[Code::NotFound],
        help: "hold the upgrade that is going on: before the next batch, or before traffic moves",
    },
    VerbSpec {
        id: VerbId::Resume,
        name: "resume",
        arguments: &[],
        file: FileKind::AppCtl,
        needs: Needs::Upgrade,
        refusals: &[Code::NotFound],
        help: "let an upgrade that is held go on",
    },
    VerbSpec {
        id: VerbId::Promote,
        name: "promote",
        arguments: &[],
        file: FileKind::AppCtl,
        needs: Needs::Upgrade,
        refusals: &[Code::NotFound],
        help: "watch no longer: the upgrade goes on at once, to its end",
    },
    VerbSpec {
        id: VerbId::Abort,
        name: "abort",
        arguments: &[],
        file: FileKind::AppCtl,
        needs: Needs::Upgrade,
        refusals: &[Code::NotFound],
        help: "take the upgrade that is going on back",
    },
    VerbSpec {
        id: VerbId::Rollback,
        name: "@latest",
        arguments: &[],
        file: FileKind::AppRollback,
        needs: Needs::Release,
        refusals: &[Code::NotFound, Code::Busy],
        help: "data and state of the newest release before the running one",
    },
    VerbSpec {
        id: VerbId::Rollback,
        name: "VERSION",
        arguments: &[],
        file: FileKind::AppRollback,
        needs: Needs::Release,
        refusals: &[Code::NotFound, Code::Busy],
        help: "data and state of the newest release with this version",
    },
    VerbSpec {
        id: VerbId::Rollback,
        name: "@SNAPSHOT",
        arguments: &[],
        file: FileKind::AppRollback,
        needs: Needs::Release,
        refusals: &[Code::NotFound, Code::Busy],
        help: "data and state of the release in this snapshot",
    },
    VerbSpec {
        id: VerbId::Rollback,
        name: "undo",
        arguments: &[],
        file: FileKind::AppRollback,
        needs: Needs::Release,
        refusals: &[Code::NotFound, Code::Busy],
        help: "take the last rollback back",
    },
    VerbSpec {
        id: VerbId::Converge,
        name: "converge",
        arguments: &[],
        file: FileKind::HostCtl,
        needs: Needs::Nothing,
        refusals: &[],
        help: "look at everything now, without waiting for the timer",
    },
    VerbSpec {
        id: VerbId::Heal,
        name: "heal",
        arguments: &[],
        file: FileKind::HostCtl,
        needs: Needs::Nothing,
        refusals: &[],
        help: "repair drift of everything on this host",
    },
];

/// All rows, in the order of the help text.
pub fn all_verbs() -> impl Iterator<Item = &'static VerbSpec> {
    VERBS.iter().chain(GPU_VERBS)
}

/// The rows for one kind of file.
pub fn verbs_of(kind: FileKind) -> impl Iterator<Item = &'static VerbSpec> {
    all_verbs().filter(move |spec| spec.file == kind)
}

impl Argument {
    /// Names of deploys and plans are a component of a path, with or without what follows the dot.
    pub(super) fn check(&self, verb: &str, value: &str) -> Result<(), CtlError> {
        let shown = printable(value);
        let wrong = |what: &str| {
            let message = format!("`{verb}`: `{shown}` cannot be a {}: {what}", self.name);
            let error = CtlError::new(Code::BadArgument, message);
            Err(error.hint("a name is made of a-z, 0-9 and `-`, as the spec's file without `.ron`"))
        };
        match value {
            "" => wrong("it is empty"),
            _ if value.len() > 63 => wrong("it is longer than 63 bytes"),
            _ if value.starts_with('-') => wrong("it starts with `-`"),
            _ => match value.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
                Some(c) => wrong(&format!("`{}` is not allowed in it", printable(&c.to_string()))),
                None => Ok(()),
            },
        }
    }
}

impl VerbSpec {
    /// The verb with its arguments: `heal [DEPLOY]`.
    pub fn form(&self) -> String {
        self.arguments.iter().fold(self.name.to_owned(), |mut form, argument| {
            form.push_str(&match argument.required {
                true => format!(" {}", argument.name),
                false => format!(" [{}]", argument.name),
            });
            form
        })
    }
}

/// The forms that a file takes, one a line.
pub fn usage(kind: FileKind) -> String {
    let width = verbs_of(kind).map(|spec| spec.form().len()).max().unwrap_or(0);
    verbs_of(kind).fold(String::new(), |mut text, spec| {
        text.push_str(format!("{:width$}  {}", spec.form(), spec.help).trim_end());
        text.push('\n');
        text
    })
}

/// What `/zed/help` says.
pub fn help_text() -> String {
    let mut text = String::from(HELP_HEAD);
    for kind in FileKind::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\necho VERB > {}", kind.path());
        for line in usage(kind).lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text.push_str(HELP_TAIL);
    text
}

const HELP_HEAD: &str = "\
zed makes this host match the specs in deploy/ and shows what it knows as files.

    cp NAME.ron deploy/          declare: this converges
    sync deploy/NAME.ron         wait until that has converged; fails when it did not
    cat deploy/NAME.status       the verdict; NAME.errors and NAME.plan beside it
    cat deploy/NAME.wait         wait, then print the verdict
    rm deploy/NAME.ron           undeclare: stop and release, the data is kept
    cp NAME.ron plan/            a dry run: plan/NAME.plan shows what would change
    cat apps/APP/status          an app; health, history, snapshots, log, events, env, metrics beside it
    cat apps/APP/crash           how its last runs ended unexpectedly, newest first
    cat apps/APP/rollback        what it can be rolled back to
    cat hosts/HOST/status        this host
    cat job.ron > gpu/N/queue    run a job on a GPU; gpu/N/jobs/ID has its status, result, in/ and out/
    tail -f events               everything that happens
    cat error                    why the last write to ctl was refused (one in every folder with a ctl)

Every status has a status.json beside it.
";

const HELP_TAIL: &str = "
One write is one verb; several lines are several verbs. Words may be quoted with '...' or \"...\".
The same from a command line: zedctl help
";

/// The section of docs/CTL.md that lists the verbs.
pub fn verbs_markdown() -> String {
    let mut text = String::new();
    for kind in FileKind::ALL {
        let _ = writeln!(text, "### `{}`\n", kind.path());
        text.push_str("| verb | what it does | needs | refused with |\n");
        text.push_str("|---|---|---|---|\n");
        for spec in verbs_of(kind) {
            let mut errnos: Vec<&str> = vec!["EINVAL", "EPERM"];
            for code in spec.refusals {
                if !errnos.contains(&code.errno().name()) {
                    errnos.push(code.errno().name());
                }
            }
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                spec.form(),
                spec.help,
                spec.needs.as_str(),
                errnos.join(", ")
            );
        }
        text.push('\n');
    }
    text
}

/// The section of docs/CTL.md that lists the error codes.
pub fn codes_markdown() -> String {
    let mut text =
        String::from("| code | errno | exit status | worth repeating | hint when none is given |\n");
    text.push_str("|---|---|---|---|---|\n");
    for code in Code::ALL {
        let again = if code.retryable() { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {again} | {} |",
            code.as_str(),
            code.errno(),
            code.exit_status(),
            code.default_hint()
        );
    }
    text
}
