//! Why a rollback cannot be planned.

use zed_spec::AppName;
use zed_spec::DatasetPath;

/// Why a rollback cannot be planned. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    /// The target is not one.
    #[error("`{text}` is not a rollback target: {reason}; write `@latest`, `undo`, `@SNAPSHOT` or a version")]
    BadTarget {
        /// What was written.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// No dataset carries a stamp of the app.
    #[error("app {app} is not deployed here{}", deployed(.known))]
    UnknownApp {
        /// The app.
        app: AppName,
        /// Apps that are.
        known: Vec<AppName>,
    },
    /// A newer zed wrote here.
    #[error("app {app} may be on dataset {dataset}, but {text}")]
    NewerSchema {
        /// The app.
        app: AppName,
        /// The dataset.
        dataset: DatasetPath,
        /// What is wrong.
        text: String,
    },
    /// There is only the running release.
    #[error("app {app} has no release older than {running}{}", list(.available))]
    NoOlderRelease {
        /// The app.
        app: AppName,
        /// The running version.
        running: String,
        /// What there is.
        available: Vec<String>,
    },
    /// No such snapshot.
    #[error("app {app} has no snapshot `{snapshot}`{}", list(.available))]
    UnknownSnapshot {
        /// The app.
        app: AppName,
        /// The name after `@`.
        snapshot: String,
        /// What there is.
        available: Vec<String>,
    },
    /// No snapshot contains the version.
    #[error("app {app} has no snapshot that contains version {version}{}", list(.available))]
    UnknownVersion {
        /// The app.
        app: AppName,
        /// The version.
        version: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The running release is not the result of a rollback.
    #[error("app {app} runs {running}, which no rollback brought: there is nothing to undo")]
    NothingToUndo {
        /// The app.
        app: AppName,
        /// The running version.
        running: String,
    },
    /// The branch that the rollback left is gone or empty.
    #[error("app {app} cannot go back: `{branch}`, which its last rollback left, holds no snapshot of it{}", list(.available))]
    BranchGone {
        /// The app.
        app: AppName,
        /// The branch.
        branch: DatasetPath,
        /// What there is.
        available: Vec<String>,
    },
    /// It is not known how the release was started.
    #[error(
        "the record of release {version} of app {app} (spec {spec}) is missing, so it cannot be started: save a spec \
         with version {version} instead, or copy the record from another host"
    )]
    MissingRelease {
        /// The app.
        app: AppName,
        /// Its version.
        version: String,
        /// The stamped hash.
        spec: String,
    },
    /// The release needs a value that is not there.
    #[error("release {version} of app {app} cannot be started: {text}")]
    MissingValue {
        /// The app.
        app: AppName,
        /// Its version.
        version: String,
        /// What is missing and what to do.
        text: String,
    },
}

fn list(available: &[String]) -> String {
    if available.is_empty() {
        return "; there are no stamped snapshots of it: each deploy of a new version takes one".to_owned();
    }
    format!("; there are:\n  {}", available.join("\n  "))
}

fn deployed(apps: &[AppName]) -> String {
    if apps.is_empty() {
        return ": no app is".to_owned();
    }
    let names: Vec<&str> = apps.iter().map(AppName::as_str).collect();
    format!("; deployed are: {}", names.join(", "))
}
