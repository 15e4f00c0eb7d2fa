//! Looks for bytes that break the promise in check_job.rs. From the repository's root:
//! `cargo +nightly fuzz run --fuzz-dir specs/fuzz job specs/fuzz/corpus/job specs/examples/jobs specs/examples/jobs/bad`

#![no_main]

#[path = "../check_job.rs"]
mod check_job;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check_job::check(bytes));
