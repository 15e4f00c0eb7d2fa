//! From the syntax tree to the types of a spec.
//!
//! Owns the meaning of fields, variants and defaults, and every check that looks at one value. It goes on after
//! a mistake, so that all independent ones are reported at once. Must never guess a value: a field that failed
//! makes its owner fail.

mod app;
mod check;
mod deploy;
mod fleet;
mod place;
mod references;
mod shape;
#[cfg(test)]
mod tests;

use crate::ast::DeploySpec;
use crate::diagnostics::Diagnostics;
use crate::diagnostics::Findings;
use crate::names::DeployName;
use crate::syntax::Node;
use crate::syntax::Span;
use crate::syntax::parse_document;
pub use app::MAX_INSTANCES;
pub use check::RESERVED_DATASET;
pub use deploy::MAX_SECRET_BYTES;
use references::References;

/// The largest spec that is read, in bytes. A spec of 10,000 datasets and 1,000 apps stays below it.
pub const MAX_SPEC_BYTES: usize = 1024 * 1024;

/// Parses and checks a spec. All independent mistakes are reported at once; a syntax error is reported alone.
///
/// # Errors
///
/// Every mistake with its place. The text may be anything at all: the time is linear in its length, up to
/// [`MAX_SPEC_BYTES`], and beyond that nothing is read.
pub fn parse(name: &DeployName, text: &[u8]) -> Result<DeploySpec, Diagnostics> {
    if text.len() > MAX_SPEC_BYTES {
        return Err(alone(
            "",
            0..0,
            format!("the file has {} bytes; a spec may have at most {MAX_SPEC_BYTES}", text.len()),
            Some("is this really a spec? Split large ones into several files".to_owned()),
        ));
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            let shown = String::from_utf8_lossy(text);
            let end = at + char::REPLACEMENT_CHARACTER.len_utf8();
            return Err(alone(&shown, at..end, "the file is not valid UTF-8 from here".to_owned(), None));
        }
    };
    if let Some(at) = text.find('\0') {
        let hint = "is this really a text file? UTF-16 and archives are not".to_owned();
        return Err(alone(text, at..at + 1, "the file contains a NUL byte".to_owned(), Some(hint)));
    }
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let node = match parse_document(text, start) {
        Ok(node) => node,
        Err(error) => {
            return Err(alone(text, error.span.start..error.span.end, error.message, error.hint));
        }
    };
    let mut cx = Cx { text, findings: Findings::default(), refs: References::default(), field: "spec" };
    let spec = deploy::deploy(&mut cx, name, &node);
    let refs = std::mem::take(&mut cx.refs);
    refs.check(&mut cx);
    match spec {
        Some(spec) if cx.findings.is_empty() => Ok(spec),
        _ => {
            debug_assert!(!cx.findings.is_empty(), "a part failed without a finding");
            Err(cx.findings.locate(text))
        }
    }
}

fn alone(text: &str, place: std::ops::Range<usize>, message: String, hint: Option<String>) -> Diagnostics {
    let mut findings = Findings::default();
    findings.push(Span { start: place.start, end: place.end }, message, hint);
    findings.locate(text)
}

/// What every decoding function shares.
struct Cx<'s> {
    text: &'s str,
    findings: Findings,
    refs: References,
    /// The field being read, for messages.
    field: &'static str,
}

impl Cx<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.findings.push(span, message.into(), None);
    }

    fn error_hint(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(span, message.into(), Some(hint.into()));
    }

    /// True when no further finding will be shown, so that hints need not be worked out.
    fn is_full(&self) -> bool {
        self.findings.is_full()
    }

    /// The text of a value as it was written.
    fn written(&self, node: &Node<'_>) -> &str {
        &self.text[node.span.start..node.span.end]
    }
}
