//! zedd: the composition root, the reconcile loop, the journal and what carries out plans.
//!
//! A library, so that fault tests can build a daemon from a simulated store and host and stop it anywhere.
//! The program is `main.rs`. Whatever needs privileges goes through [`steps`], by typed values only.

pub mod args;
pub mod control;
pub mod engine;
pub mod events;
pub mod executor;
pub mod faults;
pub mod gpus;
mod guests;
pub mod import;
pub mod inventory;
pub mod journal;
pub mod logging;
pub mod metrics;
pub mod monitor;
mod mount;
pub mod observe;
pub mod offline;
mod releases;
pub mod rollout;
pub mod serve;
pub mod service;
pub mod shared;
pub mod state;
pub mod steps;
mod watch;

use crate::shared::AppPlace;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_plan::Observed;
use zed_plan::RollbackError;
use zed_plan::RollbackTarget;
use zed_plan::props::AppStamp;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_store::StoreError;
use zed_store::StoreErrorKind;

/// An error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}

/// An app's stamp, and the dataset that carries it.
pub type Stamp = (DatasetPath, AppStamp);

/// Every stamped app with its dataset, branches and zed's own datasets left out.
pub fn stamps(observed: &Observed) -> Vec<Stamp> {
    zed_plan::stamped(observed)
        .flat_map(|(path, stamps)| stamps.into_iter().map(move |stamp| (path.clone(), stamp)))
        .collect()
}

/// Where each stamped app is.
pub fn places(observed: &Observed) -> BTreeMap<AppName, AppPlace> {
    places_of(&stamps(observed))
}

/// The same, from stamps that were read before.
pub fn places_of(stamps: &[Stamp]) -> BTreeMap<AppName, AppPlace> {
    let place = |(dataset, stamp): &Stamp| AppPlace {
        deploy: stamp.deploy.clone(),
        dataset: dataset.clone(),
        spec: stamp.spec.clone(),
    };
    stamps.iter().map(|found| (found.1.app.clone(), place(found))).collect()
}

/// There is no release of this app on this host.
pub fn not_deployed(app: &AppName) -> CtlError {
    CtlError::new(Code::NotFound, format!("app `{app}` is not deployed on this host")).hint(
        "`ls /zed/apps` shows those that are known; `cat /zed/deploy/NAME.status` says why one is missing",
    )
}

/// A rollback target, from the vocabulary of the tree to that of the planner.
pub fn rollback_target(target: &zed_ctl::RollbackTarget) -> RollbackTarget {
    match target {
        zed_ctl::RollbackTarget::Latest => RollbackTarget::Latest,
        zed_ctl::RollbackTarget::Undo => RollbackTarget::Undo,
        zed_ctl::RollbackTarget::Snapshot(name) => RollbackTarget::Snapshot(name.clone()),
        zed_ctl::RollbackTarget::Version(version) => RollbackTarget::Version(version.clone()),
    }
}

/// Why a rollback cannot be planned, as seen from outside.
pub fn rollback_error(error: &RollbackError) -> CtlError {
    let code = match error {
        RollbackError::BadTarget { .. } => Code::BadArgument,
        RollbackError::UnknownApp { .. }
        | RollbackError::NoOlderRelease { .. }
        | RollbackError::UnknownSnapshot { .. }
        | RollbackError::UnknownVersion { .. }
        | RollbackError::NothingToUndo { .. }
        | RollbackError::BranchGone { .. } => Code::NotFound,
        RollbackError::NewerSchema { .. } => Code::Unsupported,
        RollbackError::MissingRelease { .. } | RollbackError::MissingValue { .. } => Code::Failed,
    };
    CtlError::new(code, chain(error))
}

/// A refusal of the store, as seen from outside.
pub fn store_error(error: &StoreError) -> CtlError {
    let code = match &error.kind {
        StoreErrorKind::NotFound | StoreErrorKind::NoParent => Code::NotFound,
        StoreErrorKind::Busy(_) => Code::Busy,
        StoreErrorKind::NoSpace => Code::NoSpace,
        StoreErrorKind::Permission(_) | StoreErrorKind::NotOurs => Code::NotPermitted,
        StoreErrorKind::Unsupported(_) => Code::Unsupported,
        StoreErrorKind::Exists | StoreErrorKind::Invalid(_) | StoreErrorKind::Io(_) => Code::Failed,
    };
    CtlError::new(code, chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("above")]
    struct Above(#[source] std::io::Error);

    #[test]
    fn a_chain_names_every_cause_once() {
        assert_eq!(chain(&Above(std::io::Error::other("below"))), "above: below");
    }
}
