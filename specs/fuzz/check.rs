//! What holds for every text, spec or not. Run by the fuzz target, and by a property test on the stable
//! compiler (specs/tests/any_text.rs).

use zed_spec::DeployName;

/// Parses the text; what is accepted keeps its meaning in every form, what is refused says where.
pub(crate) fn check(text: &[u8]) {
    let name = DeployName::parse("fuzz").expect("`fuzz` is a deploy name");
    match zed_spec::parse(&name, text) {
        Ok(spec) => {
            let canonical = spec.canonical();
            let again = zed_spec::parse(&name, canonical.as_bytes()).expect("the canonical form is a spec");
            assert_eq!(spec, again);
            assert_eq!(canonical, again.canonical());
            assert_eq!(spec.sha256(), again.sha256());
            let rendered = zed_spec::render_spec(&spec);
            let again = zed_spec::parse(&name, rendered.as_bytes()).expect("the rendered form is a spec");
            assert_eq!(spec, again);
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty() && diagnostics.len() <= zed_spec::MAX_DIAGNOSTICS);
            for diagnostic in &diagnostics {
                assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
                assert!(diagnostic.end_column > diagnostic.column);
                assert!(diagnostic.source_line.chars().count() <= zed_spec::MAX_SHOWN);
                let hint = diagnostic.hint.as_deref().unwrap_or_default();
                assert!(diagnostic.message.chars().count() <= 600 && hint.chars().count() <= 1_000);
                assert!(!diagnostic.message.contains(char::is_control), "{:?}", diagnostic.message);
            }
            assert!(!diagnostics.render("fuzz.ron").is_empty());
        }
    }
}
