//! The fuzz target's promise on the stable compiler: texts near the examples never panic the parser, and what is
//! accepted keeps its meaning.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a promise that does not hold fails the test")]

#[path = "../fuzz/check.rs"]
mod check;

use proptest::prelude::ProptestConfig;
use proptest::prelude::any;
use proptest::proptest;
use proptest::sample::Index;
use std::fs;
use std::path::Path;

/// Pieces that mean something in RON or in a spec.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\\",
    "/*",
    "*/",
    "//",
    "r#\"",
    "\"#",
    "'",
    "0",
    "-1",
    "1.5",
    "()",
    "Some(",
    "None",
    "true",
    "\"x\"",
    "\"10s\"",
    "\"2G\"",
    "All",
    "Not(",
    "depends_on: [\"a\"],",
    "on: All,",
    "\0",
    "\u{e9}",
    "\u{feff}",
    "\n",
    "\r\n",
    "\t",
    "zed/",
    "..",
    "99999999999999999999",
    "\u{202e}",
    "when:",
];

fn examples() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut paths: Vec<_> = [root.clone(), root.join("bad")]
        .iter()
        .flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|e| e == "ron"))
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// A character boundary of the text.
fn place(text: &str, index: Index) -> usize {
    text.floor_char_boundary(index.index(text.len() + 1))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000.max(ProptestConfig::default().cases), ..ProptestConfig::default() })]

    #[test]
    fn texts_near_the_examples_keep_the_promise(
        base in any::<Index>(),
        edits in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<Index>(), 0..4_u8), 0..6),
    ) {
        let examples = examples();
        let mut text = base.get(&examples).clone();
        for (a, b, piece, kind) in edits {
            let (a, b) = (place(&text, a), place(&text, b));
            let piece = PIECES[piece.index(PIECES.len())];
            let (from, to) = (a.min(b), a.max(b));
            match kind {
                0 => text.insert_str(a, piece),
                // Short cuts leave more of the text to be looked at than long ones.
                1 => text.replace_range(from..text.floor_char_boundary(to.min(from + 3)), piece),
                2 => text.replace_range(from..to, ""),
                _ => {
                    let copy = text[from..to.min(text.floor_char_boundary(from + 200))].to_owned();
                    text.insert_str(to, &copy);
                }
            }
        }
        check::check(text.as_bytes());
    }

    #[test]
    fn any_bytes_keep_the_promise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check::check(&bytes);
    }
}
