//! What holds for every sequence of bytes, job or not. Run by the fuzz target, and by a property test on the stable
//! compiler (specs/tests/jobs.rs).

use zed_spec::job;

/// Parses the bytes; what is accepted is consistent, what is refused says where.
pub(crate) fn check(bytes: &[u8]) {
    match job::parse(bytes) {
        Ok(parsed) => {
            let job = &parsed.job;
            assert!(!job.outputs.is_empty() && !job.steps.is_empty());
            assert_eq!(parsed.data.len(), job.inputs.len());
            let mut raw = 0;
            for ((_, array, source), data) in job.inputs().zip(&parsed.data) {
                let given = data.as_ref().map(|bytes| bytes.len() as u64);
                assert_eq!(given, (source == job::Source::Text).then(|| array.bytes()));
                raw += if source == job::Source::Raw { array.bytes() } else { 0 };
            }
            assert_eq!(parsed.raw.as_ref().map_or(0, |range| bytes[range.clone()].len() as u64), raw);
            for array in &job.arrays {
                assert!(array.shape.len() <= job::MAX_RANK && array.elements() <= job::MAX_ELEMENTS);
                assert!(!array.shape.contains(&0));
            }
            // NaN differs from itself, so the texts are compared.
            let rendered = job::render_job(&parsed);
            let mut whole = rendered.clone().into_bytes();
            if let Some(range) = parsed.raw.clone() {
                whole.push(0);
                whole.extend_from_slice(&bytes[range]);
            }
            let again = job::parse(&whole).expect("the rendered form is a job");
            assert_eq!(rendered, job::render_job(&again));
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty() && diagnostics.len() <= zed_spec::MAX_DIAGNOSTICS);
            for diagnostic in &diagnostics {
                assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
                assert!(diagnostic.end_column > diagnostic.column);
                let hint = diagnostic.hint.as_deref().unwrap_or_default();
                assert!(diagnostic.message.chars().count() <= 600, "{}", diagnostic.message);
                assert!(hint.chars().count() <= 1_000, "{hint}");
                assert!(!diagnostic.message.contains(char::is_control), "{:?}", diagnostic.message);
            }
            assert!(!diagnostics.render("job.ron").is_empty());
        }
    }
}
