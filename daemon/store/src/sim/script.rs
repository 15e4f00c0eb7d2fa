//! The scripted failures of a simulated store. Owns the count of calls; never looks at the store's state.

use crate::StoreErrorKind;
use std::collections::BTreeMap;

/// What happens to one mutating call.
pub(super) enum Verdict {
    Go,
    Fail(StoreErrorKind),
    DieAfter,
}

#[derive(Default)]
pub(super) struct Script {
    calls: u64,
    fail: BTreeMap<u64, StoreErrorKind>,
    crash_at: Option<u64>,
    crash_after: Option<u64>,
    dead: bool,
}

/// What every call answers after a crash.
pub(super) fn crashed() -> StoreErrorKind {
    StoreErrorKind::Io("crashed".to_owned())
}

impl Script {
    pub(super) fn fail_at(&mut self, n: u64, kind: StoreErrorKind) {
        self.fail.insert(self.calls + n, kind);
    }

    pub(super) fn crash_at(&mut self, n: u64) {
        self.crash_at = Some(self.calls + n);
    }

    pub(super) fn crash_after(&mut self, n: u64) {
        self.crash_after = Some(self.calls + n);
    }

    pub(super) fn clear(&mut self) {
        *self = Self { calls: self.calls, ..Self::default() };
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Counts a mutating call and says what becomes of it.
    pub(super) fn next(&mut self) -> Verdict {
        self.calls += 1;
        if self.dead || self.crash_at == Some(self.calls) {
            self.dead = true;
            return Verdict::Fail(crashed());
        }
        if let Some(kind) = self.fail.remove(&self.calls) {
            return Verdict::Fail(kind);
        }
        if self.crash_after == Some(self.calls) {
            self.dead = true;
            return Verdict::DieAfter;
        }
        Verdict::Go
    }
}
