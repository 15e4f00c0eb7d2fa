//! The canonical form of a spec, and its hash.
//!
//! Two specs are the same exactly when their canonical forms are. The form is a spec that [`crate::parse`] reads:
//! every default is written out, absent options and empty collections are not, maps are in order, all on one
//! line. Must not depend on how the spec was written.

use crate::ast::DeploySpec;
use ron::Options;
use ron::extensions::Extensions;
use sha2::Digest;
use sha2::Sha256;
use std::fmt::Write as _;

/// The version of the canonical form. It is part of the hash, so that a change of the form is not taken for
/// a change of specs, nor the other way round.
pub const SPEC_FORMAT: u32 = 1;

impl DeploySpec {
    /// The canonical form: a spec that [`crate::parse`] reads back to an equal one. It is longer than the file was;
    /// [`DeploySpec::from_canonical`] reads it at any length.
    ///
    /// # Panics
    ///
    /// Never: every type of a spec can be written as RON, and a test writes all of them.
    pub fn canonical(&self) -> String {
        let options = Options::default()
            .with_default_extension(Extensions::IMPLICIT_SOME)
            .with_default_extension(Extensions::UNWRAP_VARIANT_NEWTYPES)
            .without_recursion_limit();
        #[expect(
            clippy::expect_used,
            reason = "writing to a String fails only for types that RON cannot express"
        )]
        let mut text = options.to_string(self).expect("a spec is always expressible as RON");
        text.push('\n');
        text
    }

    /// SHA-256 of the canonical form with its version, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("zed spec format {SPEC_FORMAT}\n"));
        hash.update(self.canonical());
        hash.finalize().iter().fold(String::with_capacity(64), |mut out, byte| {
            // Writing into a String cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
    }
}
