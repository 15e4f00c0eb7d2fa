//! The lines of `/zed/events`: one event a line, in the order in which things happened.
//!
//! `2026-11-22T17:46:28.123Z seq=12 kind=deploy-converged deploy=hello app=hello run=k3v9 text="..."`.
//! Keys may be added: readers skip those they do not know.

use crate::time::parse_rfc3339_millis;
use crate::time::rfc3339_millis;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::fmt::Write as _;

macro_rules! kinds {
    ($(#[doc = $doc:literal] $name:ident = $word:literal,)*) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum EventKind {
            $(#[doc = $doc] $name,)*
        }

        impl EventKind {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$name,)*];

            /// The word in `kind=`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(EventKind::$name => $word,)*
                }
            }

            /// What it means, for the documentation.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(EventKind::$name => $doc.trim_ascii(),)*
                }
            }
        }
    };
}

kinds! {
    /// zedd is ready
    DaemonStarted = "daemon-started",
    /// zedd was told to stop; apps go on
    DaemonStopping = "daemon-stopping",
    /// a spec was saved and is accepted
    SpecAccepted = "spec-accepted",
    /// a spec was saved and does not parse or validate
    SpecRejected = "spec-rejected",
    /// a spec was removed
    SpecRemoved = "spec-removed",
    /// a dry run was made
    PlanMade = "plan-made",
    /// a run begins to make the host match a spec
    DeployStarted = "deploy-started",
    /// the host matches the spec, probes included
    DeployConverged = "deploy-converged",
    /// a run failed; what was before is back
    DeployFailed = "deploy-failed",
    /// a run that was cut short was found and is resumed or undone
    DeployResumed = "deploy-resumed",
    /// a deploy that went away was stopped and released, its data kept
    DeployRemoved = "deploy-removed",
    /// a rollback begins
    RollbackStarted = "rollback-started",
    /// data and state of the target are back; the app is held
    RollbackDone = "rollback-done",
    /// a rollback failed; what was before is back
    RollbackFailed = "rollback-failed",
    /// the hold of a rollback ended
    Released = "released",
    /// something could not be taken back: a person has to look
    NeedsOperator = "needs-operator",
    /// reality differs from the spec
    Drift = "drift",
    /// the drift that was told is no more
    Healed = "healed",
    /// the health of a pool changed, or cannot be seen
    PoolHealth = "pool-health",
    /// an app was started
    AppStarted = "app-started",
    /// an app was stopped on purpose
    AppStopped = "app-stopped",
    /// an app's process ended by itself
    AppExited = "app-exited",
    /// an app's process was started again after it ended
    AppRestarted = "app-restarted",
    /// an app that runs was found when zedd started
    AppAdopted = "app-adopted",
    /// a newly deployed or started app is healthy
    Healthy = "healthy",
    /// an app that runs has failed its probes several times in a row
    Unhealthy = "unhealthy",
    /// an app that was unhealthy passes its probes again
    Recovered = "recovered",
    /// a verb was accepted
    VerbAccepted = "verb-accepted",
    /// a verb was refused
    VerbRefused = "verb-refused",
    /// a GPU takes jobs
    GpuReady = "gpu-ready",
    /// the node of a GPU is gone, with what it was running; it is started again
    GpuLost = "gpu-lost",
    /// a GPU cannot be used
    GpuUnusable = "gpu-unusable",
    /// a GPU job did not end by its deadline
    GpuTimeout = "gpu-timeout",
    /// a kernel did not end in time three times in a row and is not run any more
    GpuEvicted = "gpu-evicted",
    /// too many timeouts within a minute: only jobs that allow the CPU are run
    GpuBraked = "gpu-braked",
    /// a GPU takes all jobs again
    GpuReleased = "gpu-released",
    /// something is wrong that belongs to no run
    Warning = "warning",
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Grows by one with each event of a host.
    pub seq: u64,
    /// What happened.
    pub kind: EventKind,
    /// The deploy, or empty.
    pub deploy: String,
    /// The app, or empty.
    pub app: String,
    /// The run, or empty.
    pub run: String,
    /// For a person; may have several lines.
    pub text: String,
}

/// A line that is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event: {reason}")]
pub struct EventError {
    /// What is wrong with it.
    pub reason: String,
}

fn not(reason: impl Into<String>) -> EventError {
    EventError { reason: reason.into() }
}

impl Event {
    /// One line, newline-terminated.
    pub fn render(&self) -> String {
        let mut line = format!("{} seq={} kind={}", rfc3339_millis(self.at_ms), self.seq, self.kind);
        for (key, value) in [("deploy", &self.deploy), ("app", &self.app), ("run", &self.run)] {
            if !value.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(line, " {key}={}", field(value));
            }
        }
        let _ = writeln!(line, " text={}", quote(&self.text));
        line
    }

    /// The inverse of [`Event::render`], with or without the newline.
    ///
    /// # Errors
    /// When the line is cut short, or its kind is of a newer zed.
    pub fn parse(line: &str) -> Result<Self, EventError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let (at, rest) = line.split_once(' ').ok_or_else(|| not("it has one word"))?;
        let at_ms = parse_rfc3339_millis(at).map_err(|error| not(error.to_string()))?;
        let (mut seq, mut kind, mut text) = (None, None, None);
        let (mut deploy, mut app, mut run) = (String::new(), String::new(), String::new());
        for (key, value) in fields(rest)? {
            match key.as_str() {
                "seq" => seq = Some(value.parse().map_err(|_| not(format!("seq is `{value}`")))?),
                "kind" => {
                    let known = EventKind::ALL.iter().find(|kind| kind.as_str() == value);
                    kind = Some(*known.ok_or_else(|| not(format!("its kind is `{value}`")))?);
                }
                "deploy" => deploy = value,
                "app" => app = value,
                "run" => run = value,
                "text" => text = Some(value),
                _ => {}
            }
        }
        let seq = seq.ok_or_else(|| not("seq is missing"))?;
        let kind = kind.ok_or_else(|| not("kind is missing"))?;
        let text = text.ok_or_else(|| not("text is missing"))?;
        Ok(Self { at_ms, seq, kind, deploy, app, run, text })
    }
}

/// `key=value` pairs separated by one space, values bare or quoted.
fn fields(mut rest: &str) -> Result<Vec<(String, String)>, EventError> {
    let mut pairs = Vec::new();
    loop {
        let (key, after) = rest.split_once('=').ok_or_else(|| not(format!("`{rest}` is not key=value")))?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(' ').unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                (value.to_owned(), after)
            }
        };
        pairs.push((key.to_owned(), value));
        if after.is_empty() {
            return Ok(pairs);
        }
        rest = after.strip_prefix(' ').ok_or_else(|| not(format!("`{after}` follows a value")))?;
    }
}

/// A value of a `k=v` line: bare when it is a plain word, else quoted.
pub(crate) fn field(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '@' | '+' | '-');
    if !value.is_empty() && value.chars().all(plain) { value.to_owned() } else { quote(value) }
}

fn quote(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // Also the line separators that some readers would break a line at.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(quoted, "\\u{{{:x}}}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Result<(String, &str), EventError> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((value, chars.as_str())),
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('u') => {
                    let inner = chars.as_str().strip_prefix('{').and_then(|rest| rest.split_once('}'));
                    let (digits, rest) = inner.ok_or_else(|| not("an escape is cut short"))?;
                    let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                    value.push(code.ok_or_else(|| not(format!("`{digits}` is not a character")))?);
                    chars = rest.chars();
                }
                Some(c @ ('"' | '\\')) => value.push(c),
                _ => return Err(not("an escape is unknown")),
            },
            c => value.push(c),
        }
    }
    Err(not("a quote is not closed"))
}

/// The section of docs/CTL.md that lists the kinds.
pub fn events_markdown() -> String {
    EventKind::ALL.iter().fold(String::from("| kind | meaning |\n|---|---|\n"), |mut text, kind| {
        let _ = writeln!(text, "| {kind} | {} |", kind.meaning());
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> Event {
        Event {
            at_ms: 1_795_369_588_123,
            seq: 12,
            kind: EventKind::DeployConverged,
            deploy: "hello".to_owned(),
            app: String::new(),
            run: "k3v9".to_owned(),
            text: "1.0.0 \"runs\"\nnow".to_owned(),
        }
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            event().render(),
            "2026-11-22T17:46:28.123Z seq=12 kind=deploy-converged deploy=hello run=k3v9 \
             text=\"1.0.0 \\\"runs\\\"\\nnow\"\n"
        );
    }

    #[test]
    fn keys_of_a_newer_zed_are_skipped() {
        let line = event().render().replace(" run=", " peer=\"web 2\" run=");
        assert_eq!(Event::parse(&line), Ok(event()));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for (line, reason) in [
            ("", "it has one word"),
            ("yesterday seq=1", "`yesterday` is not a time: expected `2026-11-22T17:46:28Z`"),
            ("1970-01-01T00:00:00Z seq", "`seq` is not key=value"),
            ("1970-01-01T00:00:00Z seq=-1", "seq is `-1`"),
            ("1970-01-01T00:00:00Z seq=1 kind=party", "its kind is `party`"),
            ("1970-01-01T00:00:00Z seq=1 kind=drift", "text is missing"),
            ("1970-01-01T00:00:00Z seq=1 kind=drift text=\"a", "a quote is not closed"),
            ("1970-01-01T00:00:00Z seq=1 kind=drift text=\"a\"b", "`b` follows a value"),
            ("1970-01-01T00:00:00Z seq=1 text=\"\\u{110000}\"", "`110000` is not a character"),
        ] {
            assert_eq!(Event::parse(line), Err(not(reason)), "{line}");
        }
    }

    #[test]
    fn every_kind_has_one_word_and_a_meaning() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert!(!kind.meaning().is_empty());
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9-]{0,12}",
            "\\PC{0,30}",
            prop::collection::vec(any::<char>(), 0..20)
                .prop_map(|chars| chars.into_iter().collect::<String>())
        ]
    }

    proptest! {
        #[test]
        fn round_trip(
            at_ms in 0_i64..4_102_444_800_000,
            seq: u64,
            kind in prop::sample::select(EventKind::ALL),
            deploy in any_text(),
            app in any_text(),
            run in any_text(),
            text in any_text(),
        ) {
            let event = Event { at_ms, seq, kind, deploy, app, run, text };
            let line = event.render();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(Event::parse(&line), Ok(event));
        }

        #[test]
        fn any_line_is_judged(line in "1970-01-01T00:00:00Z [a-z=\"\\\\{}0-9 ]{0,60}|\\PC*") {
            let _ = Event::parse(&line);
        }
    }
}
