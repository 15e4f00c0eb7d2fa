//! The tree through a real mount, used with the tools that people use.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test starts real tools, ends at the first surprise, and says what it could not run"
)]

mod interrupts;
mod socket;
mod support;

use support::Rig;

/// A verb is judged inside the write: the shell reports the error, and `error` says why until the next success.
#[test]
fn a_refused_verb_is_reported_by_the_shell() {
    let Some(rig) = Rig::new() else { return };
    let refused = rig.sh("echo nonsense > apps/hello/rollback");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Invalid argument"), "{refused:?}");
    assert!(rig.read("apps/hello/error").contains("unknown verb `nonsense`"));
    rig.ok("echo ok > apps/hello/rollback");
    assert_eq!(rig.read("apps/hello/error"), "");
}

/// `find` and `grep -r` over the whole tree end.
#[test]
fn walkers_end() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("cp /etc/hostname deploy/prod.ron; find . -ls; grep -r . . | cat");
}
