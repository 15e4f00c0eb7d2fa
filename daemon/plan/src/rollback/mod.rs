//! The plan of a rollback: data and state of an app go back together, and what they were is kept as a branch.
//!
//! Owns the choice of the snapshot, the hold that keeps the spec from undoing the rollback, and the way back.
//! Never loses anything: the present is stamped on a snapshot before it becomes a branch.

mod build;
mod error;

pub use error::RollbackError;

use crate::history::Candidate;
use crate::history::HistoryKind;
use crate::history::candidates;
use crate::observed::Observed;
use crate::plan::Plan;
use crate::plan::Release;
use crate::plan::RunId;
use crate::plan::Severity;
use crate::world::Located;
use crate::world::World;
use std::collections::BTreeMap;
use std::fmt;
use zed_spec::AppName;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackTarget {
    /// `@latest`: the newest snapshot of an older release.
    Latest,
    /// `undo`: the last rollback is taken back.
    Undo,
    /// `@NAME`: this snapshot.
    Snapshot(String),
    /// The newest snapshot that contains this version.
    Version(String),
}

impl RollbackTarget {
    /// Reads what an operator wrote.
    ///
    /// # Errors
    /// [`RollbackError::BadTarget`] for an empty text or one with white space in it.
    pub fn parse(text: &str) -> Result<Self, RollbackError> {
        let bad =
            |reason: &str| RollbackError::BadTarget { text: text.to_owned(), reason: reason.to_owned() };
        if text.is_empty() || text == "@" {
            return Err(bad("it is empty"));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad("it contains white space"));
        }
        Ok(match text {
            "@latest" => Self::Latest,
            "undo" => Self::Undo,
            _ => match text.strip_prefix('@') {
                Some(snapshot) => Self::Snapshot(snapshot.to_owned()),
                None => Self::Version(text.to_owned()),
            },
        })
    }
}

impl fmt::Display for RollbackTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("@latest"),
            Self::Undo => f.write_str("undo"),
            Self::Snapshot(name) => write!(f, "@{name}"),
            Self::Version(version) => f.write_str(version),
        }
    }
}

/// What [`plan_rollback`] is told.
#[derive(Debug, Clone)]
pub struct RollbackInput<'a> {
    /// The app to put back.
    pub app: &'a AppName,
    /// Where to.
    pub target: &'a RollbackTarget,
    /// The world.
    pub observed: &'a Observed,
    /// Known releases, by the hash that is stamped as `com.zed:spec`.
    pub releases: &'a BTreeMap<String, Release>,
    /// This run.
    pub run: &'a RunId,
    /// Seconds since 1970.
    pub now: i64,
    /// The generation of the spec that is there now: it and older ones do not move the app.
    pub generation_held: u64,
    /// The spec's `snapshots.keep`; nothing is pruned when there is no spec.
    pub keep: Option<u32>,
}

/// Plans a rollback.
///
/// # Errors
/// Why it cannot be done, with what is available instead.
pub fn plan_rollback(input: &RollbackInput<'_>) -> Result<Plan, RollbackError> {
    let world = World::read(input.observed, |_| None);
    let located = find_app(input, &world)?;
    let all = candidates(located.dataset, input.observed, input.app);
    let target = choose(input, located, &all)?;
    build::build(input, &world, located, target)
}

fn find_app<'w, 'a>(
    input: &RollbackInput<'_>,
    world: &'w World<'a>,
) -> Result<&'w Located<'a>, RollbackError> {
    if let Some(found) = world.apps.get(input.app) {
        return Ok(found);
    }
    if let Some((dataset, note)) = world.notes.iter().find(|(_, note)| note.severity == Severity::Fatal) {
        return Err(RollbackError::NewerSchema {
            app: input.app.clone(),
            dataset: (*dataset).clone(),
            text: note.text.clone(),
        });
    }
    Err(RollbackError::UnknownApp { app: input.app.clone(), known: world.apps.keys().cloned().collect() })
}

/// The newest candidate for which this holds. Newest is by the store's own order, not by a clock.
fn newest<'c, 'a>(
    all: &'c [Candidate<'a>],
    which: impl Fn(&Candidate<'a>) -> bool,
) -> Option<&'c Candidate<'a>> {
    all.iter().rev().find(|candidate| which(candidate))
}

fn choose<'c, 'a>(
    input: &RollbackInput<'_>,
    located: &Located<'_>,
    all: &'c [Candidate<'a>],
) -> Result<&'c Candidate<'a>, RollbackError> {
    let app = || input.app.clone();
    let available = || all.iter().map(describe).collect::<Vec<_>>();
    match input.target {
        // A dataset's own snapshots are its past in order: one of another run holds an older release.
        RollbackTarget::Latest => {
            newest(all, |c| c.kind == HistoryKind::Older && c.stamp.run != located.stamp.run).ok_or_else(
                || RollbackError::NoOlderRelease {
                    app: app(),
                    running: located.stamp.version.clone(),
                    available: available(),
                },
            )
        }
        RollbackTarget::Snapshot(name) => newest(all, |c| c.snapshot.name == *name).ok_or_else(|| {
            RollbackError::UnknownSnapshot { app: app(), snapshot: name.clone(), available: available() }
        }),
        RollbackTarget::Version(version) => {
            newest(all, |c| c.stamp.version == *version && c.kind != HistoryKind::Failed).ok_or_else(|| {
                RollbackError::UnknownVersion { app: app(), version: version.clone(), available: available() }
            })
        }
        RollbackTarget::Undo => {
            let Some(branch) = &located.stamp.rolled_back_from else {
                return Err(RollbackError::NothingToUndo {
                    app: app(),
                    running: located.stamp.version.clone(),
                });
            };
            newest(all, |c| c.holder == branch).ok_or_else(|| RollbackError::BranchGone {
                app: app(),
                branch: branch.clone(),
                available: available(),
            })
        }
    }
}

/// One line for a list of what is available.
fn describe(candidate: &Candidate<'_>) -> String {
    let Candidate { holder: _, snapshot, kind, stamp } = candidate;
    format!("{} @{} ({}, deployed {})", stamp.version, snapshot.name, kind.as_str(), stamp.deployed_at)
}

#[cfg(test)]
mod tests;
