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
pub(crate) mod shape;
#[cfg(test)]
mod tests;

use crate::ast::DeploySpec;
use crate::diagnostics::Diagnostics;
use crate::diagnostics::Findings;
use crate::names::DeployName;
use crate::syntax::Document;
use crate::syntax::MAX_VALUES;
use crate::syntax::Node;
use crate::syntax::Span;
use crate::syntax::parse_document;
pub use app::MAX_INSTANCES;
pub use check::RESERVED_DATASET;
pub use deploy::MAX_SECRET_BYTES;
use references::References;

/// The largest spec that is read, in bytes. A spec of 10,000 datasets and 1,000 apps stays below it.
pub const MAX_SPEC_BYTES: usize = 1024 * 1024;

/// The largest canonical form that is read, in bytes. It writes every default out, which makes a spec of very many
/// very short apps about ten times as long.
const MAX_CANONICAL_BYTES: usize = 32 * MAX_SPEC_BYTES;

/// Parses and checks a spec. All independent mistakes are reported at once; a syntax error is reported alone.
///
/// # Errors
///
/// Every mistake with its place. The text may be anything at all: time and memory are linear in its length, up
/// to [`MAX_SPEC_BYTES`] and [`MAX_VALUES`], and beyond that nothing is read.
pub fn parse(name: &DeployName, text: &[u8]) -> Result<DeploySpec, Diagnostics> {
    read(Some(name), text, MAX_SPEC_BYTES, MAX_VALUES)
}

impl DeploySpec {
    /// Reads what [`DeploySpec::canonical`] wrote, also when that is longer than a file may be. The name is the one
    /// in the text.
    ///
    /// # Errors
    ///
    /// The text is not the canonical form of a spec.
    pub fn from_canonical(text: &str) -> Result<DeploySpec, Diagnostics> {
        read(None, text.as_bytes(), MAX_CANONICAL_BYTES, usize::MAX)
    }
}

fn read(
    name: Option<&DeployName>,
    text: &[u8],
    max_bytes: usize,
    max_values: usize,
) -> Result<DeploySpec, Diagnostics> {
    let (text, start) = decode_text(text, max_bytes)?;
    let document = Document { noun: "spec", smallest: "Deploy()", max_values, numbers: false };
    let node = parse_document(text, start, document)
        .map_err(|error| alone(text, error.span, error.message, error.hint))?;
    let mut cx = Cx::new(text, "spec");
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

/// The text, and where it begins after a byte order mark.
fn decode_text(bytes: &[u8], max_bytes: usize) -> Result<(&str, usize), Diagnostics> {
    if bytes.len() > max_bytes {
        let message = format!("the file has {} bytes; a spec may have at most {max_bytes}", bytes.len());
        let hint = "is this really a spec? Split large ones into several files".to_owned();
        return Err(alone("", Span { start: 0, end: 0 }, message, Some(hint)));
    }
    let text = decode_utf8(bytes)?;
    if let Some(start) = text.find('\0') {
        let hint = "is this really a text file? UTF-16 and archives are not".to_owned();
        let span = Span { start, end: start + 1 };
        return Err(alone(text, span, "the file contains a NUL byte".to_owned(), Some(hint)));
    }
    Ok((text, after_mark(text)))
}

/// The bytes as text, or where they are none.
pub(crate) fn decode_utf8(bytes: &[u8]) -> Result<&str, Diagnostics> {
    std::str::from_utf8(bytes).map_err(|error| {
        let start = error.valid_up_to();
        let end = start + char::REPLACEMENT_CHARACTER.len_utf8();
        let message = "the file is not valid UTF-8 from here".to_owned();
        alone(&String::from_utf8_lossy(bytes), Span { start, end }, message, None)
    })
}

/// Where a text begins after a byte order mark.
pub(crate) fn after_mark(text: &str) -> usize {
    if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

/// A single mistake.
pub(crate) fn alone(text: &str, span: Span, message: String, hint: Option<String>) -> Diagnostics {
    let mut findings = Findings::default();
    findings.push(span, message, hint);
    findings.locate(text)
}

/// What every decoding function shares.
pub(crate) struct Cx<'s> {
    pub(crate) text: &'s str,
    pub(crate) findings: Findings,
    /// What the parts of a spec say about each other; jobs of GPUs keep their own.
    refs: References,
    /// The field being read, for messages.
    pub(crate) field: &'static str,
}

impl<'s> Cx<'s> {
    /// Nothing was found yet.
    pub(crate) fn new(text: &'s str, field: &'static str) -> Self {
        Cx { text, findings: Findings::default(), refs: References::default(), field }
    }

    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.findings.push(span, message.into(), None);
    }

    pub(crate) fn error_hint(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(span, message.into(), Some(hint.into()));
    }

    /// True when no further finding will be shown, so that hints need not be worked out.
    pub(crate) fn is_full(&self) -> bool {
        self.findings.is_full()
    }

    /// The text of a value as it was written.
    pub(crate) fn written(&self, node: &Node<'_>) -> &'s str {
        &self.text[node.span.start..node.span.end]
    }
}
