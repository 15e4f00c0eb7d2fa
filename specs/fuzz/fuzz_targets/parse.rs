//! Looks for a text that breaks the promise in check.rs. From the repository's root:
//! `cargo +nightly fuzz run --fuzz-dir specs/fuzz parse specs/fuzz/corpus/parse specs/examples specs/examples/bad`

#![no_main]

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|text: &[u8]| check::check(text));
