//! What a field means that a spec leaves out. The one place for every default that is more than "none".

use crate::ast::App;
use crate::ast::Backoff;
use crate::ast::Health;
use crate::ast::Hooks;
use crate::ast::JailFile;
use crate::ast::Placement;
use crate::ast::Restart;
use crate::ast::SnapshotPolicy;
use crate::ast::Strategy;
use std::time::Duration;

impl App {
    /// Time from TERM to KILL unless the spec says otherwise.
    pub const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);
}

impl JailFile {
    /// Permission bits of a file in a jail unless the spec says otherwise.
    pub const DEFAULT_MODE: &str = "0644";
}

impl Strategy {
    /// Time the old side of `BlueGreen` may finish its work unless the spec says otherwise.
    pub const DEFAULT_DRAIN: Duration = Duration::from_secs(10);
    /// How long a canary must stay healthy unless the spec says otherwise.
    pub const DEFAULT_CANARY_PAUSE: Duration = Duration::from_secs(60);
}

impl Hooks {
    /// Time that one command may take unless the spec says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

    pub(crate) fn default_timeout() -> Duration {
        Self::DEFAULT_TIMEOUT
    }

    pub(crate) fn is_default_timeout(timeout: &Duration) -> bool {
        *timeout == Self::DEFAULT_TIMEOUT
    }
}

/// No commands.
impl Default for Hooks {
    fn default() -> Self {
        Hooks {
            timeout: Self::DEFAULT_TIMEOUT,
            before_deploy: Vec::new(),
            after_deploy: Vec::new(),
            before_rollback: Vec::new(),
            after_rollback: Vec::new(),
            on_failure: Vec::new(),
        }
    }
}

/// No probes; one attempt a second of at most two seconds, 30 attempts, one success.
impl Default for Health {
    fn default() -> Self {
        Health {
            probes: Vec::new(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            attempts: 30,
            successes: 1,
        }
    }
}

/// From one second to one minute, without end.
impl Default for Backoff {
    fn default() -> Self {
        Backoff { backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(60), give_up_after: None }
    }
}

/// Always, with the default pauses.
impl Default for Restart {
    fn default() -> Self {
        Restart::Always(Backoff::default())
    }
}

/// One before each deploy, five kept.
impl Default for SnapshotPolicy {
    fn default() -> Self {
        SnapshotPolicy { before_deploy: true, keep: 5 }
    }
}

/// Everywhere.
impl Default for Placement {
    fn default() -> Self {
        Placement::All
    }
}
