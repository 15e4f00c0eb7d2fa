//! What can be written to a verb file: the table of verbs, and the parser that judges one line against it.
//!
//! The table is the only place where a verb is described: the parser, the help text, the usage in error
//! messages and the section in docs/CTL.md are all made from it. Whether the target of a verb exists is not
//! known here.

mod gpu;
mod table;
mod token;

pub use table::*;
pub use token::*;

use crate::Code;
use crate::CtlError;

/// The longest write to a verb file, in bytes. A longer one is EFBIG.
pub const MAX_WRITE: usize = 4096;

/// The kinds of verb files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// `/zed/ctl`
    RootCtl,
    /// `/zed/apps/APP/ctl`
    AppCtl,
    /// `/zed/apps/APP/rollback`
    AppRollback,
    /// `/zed/hosts/HOST/ctl`
    HostCtl,
    /// `/zed/gpu/N/ctl`
    GpuCtl,
    /// `/zed/gpu/N/jobs/ID/ctl`
    GpuJobCtl,
}

impl FileKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [FileKind; 6] = [
        FileKind::RootCtl,
        FileKind::AppCtl,
        FileKind::AppRollback,
        FileKind::HostCtl,
        FileKind::GpuCtl,
        FileKind::GpuJobCtl,
    ];

    /// Where such files are, below the root of the tree.
    pub fn path(self) -> &'static str {
        match self {
            FileKind::RootCtl => "ctl",
            FileKind::AppCtl => "apps/APP/ctl",
            FileKind::AppRollback => "apps/APP/rollback",
            FileKind::HostCtl => "hosts/HOST/ctl",
            FileKind::GpuCtl => "gpu/N/ctl",
            FileKind::GpuJobCtl => "gpu/N/jobs/ID/ctl",
        }
    }
}

/// How much the daemon's log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Only errors.
    Error,
    /// Errors and warnings.
    Warn,
    /// What happens. The default.
    Info,
    /// Why it happens.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// All of them, quietest first.
    pub const ALL: [LogLevel; 5] =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    /// The word as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// What a rollback goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackTarget {
    /// `@latest`: the newest release before the running one.
    Latest,
    /// `undo`: what the last rollback left.
    Undo,
    /// `@NAME`: the release in this snapshot.
    Snapshot(String),
    /// The newest release of this version.
    Version(String),
}

/// What can be written to `gpu/N/ctl` and to `gpu/N/jobs/ID/ctl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuVerb {
    /// Begin no further job; what runs ends.
    Pause,
    /// Go on.
    Resume,
    /// Start the node anew when what runs has ended.
    Restart,
    /// Let a kernel back that was evicted for its timeouts; without a name all, and release the brake.
    Forgive {
        /// Its name, as in `suspects`.
        kernel: Option<String>,
    },
    /// A user's share of the device, 1 to 1000, relative to others.
    Weight {
        /// User id or name as written.
        user: String,
        /// The share.
        weight: u32,
    },
    /// Keep so many ended jobs.
    Retain {
        /// How many.
        jobs: u32,
    },
    /// Of a job: its inputs are complete.
    Start,
    /// Of a job: do not run it, or stop it. Of a device: all jobs of the caller that are not running.
    Cancel,
    /// Of a job that waits: before or after others of its user.
    Priority {
        /// -100 to 100.
        priority: i8,
    },
}

/// One verb, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Apply the plan of `plan/NAME.ron`, and only that.
    Apply {
        /// Its name.
        plan: String,
    },
    /// Read all spec files again and converge.
    Reload,
    /// Try a failed deploy again.
    RetryDeploy {
        /// Its name.
        deploy: String,
    },
    /// End the hold that a rollback put on the apps of a deploy.
    ReleaseDeploy {
        /// Its name.
        deploy: String,
    },
    /// Repair drift.
    Heal {
        /// Of this deploy; of all when absent.
        deploy: Option<String>,
    },
    /// Set the level of the daemon's log.
    Log {
        /// The new level.
        level: LogLevel,
    },
    /// Start the app.
    Start,
    /// Stop the app until it is started again.
    Stop,
    /// Stop the app and start it.
    Restart,
    /// End the hold that a rollback put on the app.
    Release,
    /// Try the app's failed deploy again.
    Retry,
    /// Hold the upgrade that is going on at its next step that watches.
    Pause,
    /// Let a held upgrade go on.
    Resume,
    /// End the watching: the upgrade goes on at once.
    Promote,
    /// Take the upgrade back.
    Abort,
    /// Run so many processes of the app, until its spec deploys it anew.
    Scale {
        /// How many.
        count: u32,
    },
    /// Put the app back.
    Rollback(RollbackTarget),
    /// Look at everything now, without waiting for the timer.
    Converge,
    /// Of a GPU or one of its jobs.
    Gpu(GpuVerb),
}

/// Splits what was written in one `write(2)` into its lines, one verb a line; a newline at the end may be
/// absent. Fails when there is nothing, too much, or bytes that are not text.
pub fn verb_lines(written: &[u8]) -> Result<Vec<&str>, CtlError> {
    if written.len() > MAX_WRITE {
        let message = format!("{} bytes were written; a verb file takes at most {MAX_WRITE}", written.len());
        return Err(CtlError::new(Code::TooLarge, message));
    }
    let text = std::str::from_utf8(written).map_err(|error| {
        let message = format!("what was written is not UTF-8 (from byte {})", error.valid_up_to());
        CtlError::new(Code::BadArgument, message)
    })?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(CtlError::new(Code::BadArgument, "nothing was written: expected a verb"));
    }
    Ok(text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect())
}

/// Judges one line that was written to a file of this kind.
///
/// # Errors
/// [`Code::BadArgument`], naming the verb and what is expected in its place.
pub fn parse_verb(kind: FileKind, line: &str) -> Result<Verb, CtlError> {
    let words = tokenize(line).map_err(|error| bad(kind, format!("`{}`: {error}", printable(line))))?;
    if kind == FileKind::AppRollback {
        return parse_rollback(&words);
    }
    let Some((name, arguments)) = words.split_first() else {
        return Err(bad(kind, "nothing was written: expected a verb".to_owned()));
    };
    let Some(spec) = verbs_of(kind).find(|spec| spec.name == name) else {
        return Err(unknown(kind, name));
    };
    let least = spec.arguments.iter().filter(|argument| argument.required).count();
    if arguments.len() < least || arguments.len() > spec.arguments.len() {
        let given = match arguments.len() {
            0 => "no argument".to_owned(),
            1 => "1 argument".to_owned(),
            n => format!("{n} arguments"),
        };
        let message = format!("`{name}` was given {given}: expected `{}`", spec.form());
        return Err(CtlError::new(Code::BadArgument, message).hint(spec.help));
    }
    for (value, argument) in arguments.iter().zip(spec.arguments) {
        if !matches!(spec.id, VerbId::Log | VerbId::Scale | VerbId::Gpu) {
            argument.check(name, value)?;
        }
    }
    build(kind, spec, arguments)
}

/// The verb of a row of the table, with arguments that were checked against it.
fn build(kind: FileKind, spec: &VerbSpec, arguments: &[String]) -> Result<Verb, CtlError> {
    let first = arguments.first().cloned();
    if spec.id == VerbId::Gpu {
        return gpu::build(spec, arguments).map(Verb::Gpu);
    }
    Ok(match (spec.id, first) {
        (VerbId::Apply, Some(plan)) => Verb::Apply { plan },
        (VerbId::Reload, None) => Verb::Reload,
        (VerbId::RetryDeploy, Some(deploy)) => Verb::RetryDeploy { deploy },
        (VerbId::ReleaseDeploy, Some(deploy)) => Verb::ReleaseDeploy { deploy },
        (VerbId::Heal, deploy) => Verb::Heal { deploy },
        (VerbId::Log, Some(level)) => Verb::Log { level: parse_level(&level)? },
        (VerbId::Start, None) => Verb::Start,
        (VerbId::Stop, None) => Verb::Stop,
        (VerbId::Restart, None) => Verb::Restart,
        (VerbId::Release, None) => Verb::Release,
        (VerbId::Retry, None) => Verb::Retry,
        (VerbId::Pause, None) => Verb::Pause,
        (VerbId::Resume, None) => Verb::Resume,
        (VerbId::Promote, None) => Verb::Promote,
        (VerbId::Abort, None) => Verb::Abort,
        (VerbId::Scale, Some(count)) => Verb::Scale { count: parse_count(&count)? },
        (VerbId::Converge, None) => Verb::Converge,
        (_, _) => return Err(bad(kind, format!("`{}`: expected `{}`", spec.name, spec.form()))),
    })
}

fn parse_level(word: &str) -> Result<LogLevel, CtlError> {
    LogLevel::ALL.into_iter().find(|level| level.as_str() == word).ok_or_else(|| {
        let levels: Vec<&str> = LogLevel::ALL.iter().map(|level| level.as_str()).collect();
        let message = format!("`{}` is not a log level: expected {}", printable(word), levels.join(", "));
        let error = CtlError::new(Code::BadArgument, message);
        match did_you_mean(word, levels) {
            Some(level) => error.hint(format!("did you mean `log {level}`?")),
            None => error.hint("`log info` is the default"),
        }
    })
}

/// As many processes as a spec may ask for.
const MOST_PROCESSES: u32 = 1024;

fn parse_count(word: &str) -> Result<u32, CtlError> {
    match word.parse() {
        Ok(count) if (1..=MOST_PROCESSES).contains(&count) => Ok(count),
        _ => {
            let message =
                format!("`{}` is not a number of processes: expected 1 to {MOST_PROCESSES}", printable(word));
            Err(CtlError::new(Code::BadArgument, message).hint("`stop` stops all of them"))
        }
    }
}

fn parse_rollback(words: &[String]) -> Result<Verb, CtlError> {
    let kind = FileKind::AppRollback;
    let word = match words {
        [] => return Err(bad(kind, "nothing was written: expected a target".to_owned())),
        [word] => word.as_str(),
        [first, ..] => {
            let message = format!("a rollback has one target, `{}` is followed by more", printable(first));
            return Err(bad(kind, message));
        }
    };
    let target = match (word, word.strip_prefix('@')) {
        ("undo", _) => RollbackTarget::Undo,
        ("@latest", _) => RollbackTarget::Latest,
        (_, Some(name)) if is_snapshot_name(name) => RollbackTarget::Snapshot(name.to_owned()),
        (_, Some(name)) => {
            return Err(bad(kind, format!("`@{}` cannot be the name of a snapshot", printable(name))));
        }
        (_, None) if word.is_empty() || word.contains(['/', '@']) => {
            return Err(bad(kind, format!("`{}` is neither a version nor a snapshot", printable(word))));
        }
        ("latest", None) => {
            let error = CtlError::new(Code::BadArgument, "`latest` is not a version");
            return Err(error.hint("did you mean `@latest`?"));
        }
        (version, None) => RollbackTarget::Version(version.to_owned()),
    };
    Ok(Verb::Rollback(target))
}

/// What ZFS allows after `@`.
fn is_snapshot_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.' | '+');
    !name.is_empty() && name.len() < 256 && name.chars().all(allowed)
}

fn bad(kind: FileKind, message: String) -> CtlError {
    CtlError::new(Code::BadArgument, message).hint(format!("expected {}", forms(kind)))
}

fn unknown(kind: FileKind, name: &str) -> CtlError {
    let shown = printable(name);
    let error = CtlError::new(Code::BadArgument, format!("`{shown}` is not a verb of `{}`", kind.path()));
    if let Some(spec) = did_you_mean(name, verbs_of(kind).map(|spec| spec.name))
        .and_then(|near| verbs_of(kind).find(|spec| spec.name == near))
    {
        return error.hint(format!("did you mean `{}`?", spec.form()));
    }
    let elsewhere = all_verbs().find(|spec| spec.name == name && spec.file != FileKind::AppRollback);
    match elsewhere {
        Some(spec) => error.hint(format!("`{}` is written to `{}`", spec.form(), spec.file.path())),
        None => error.hint(format!("expected {}", forms(kind))),
    }
}

/// `` `start`, `stop` or `restart` ``
fn forms(kind: FileKind) -> String {
    let forms: Vec<String> = verbs_of(kind).map(|spec| format!("`{}`", spec.form())).collect();
    match forms.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// At most 80 characters of a text from outside, control characters escaped.
fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(80)
        .flat_map(|c| {
            let escape = c.is_control();
            let plain = (!escape).then_some(c);
            let escaped = escape.then(|| c.escape_default());
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect();
    if text.chars().nth(80).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The candidate nearest to a word, when it is near enough to be what was meant.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One slip in a short word, two in a longer one. Transpositions count as one.
    let allowed = if word.chars().count() < 5 { 1 } else { 2 };
    if word.len() > 256 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
