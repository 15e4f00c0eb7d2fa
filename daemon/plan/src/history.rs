//! Where an app's releases are: on its dataset, and on the branches that rollbacks and failed deploys left.

use crate::naming::branch_stem;
use crate::naming::stem_of_branch;
use crate::observed::Observed;
use crate::observed::ObservedSnapshot;
use crate::props::AppStamp;
use crate::props::BRANCHES;
use crate::props::BranchKind;
use crate::props::name;
use crate::props::parse_stamps;
use std::ops::Bound;
use zed_spec::AppName;
use zed_spec::DatasetPath;

/// What a release in the history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryKind {
    /// A snapshot of the dataset.
    Older,
    /// On a branch that a rollback left.
    Undone,
    /// On a branch that a failed deploy or rollback left.
    Failed,
    /// The release that is stamped on the dataset.
    Running,
}

impl HistoryKind {
    /// `running`, `older`, `undone`, `failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Older => "older",
            Self::Undone => "undone",
            Self::Failed => "failed",
            Self::Running => "running",
        }
    }
}

/// One release that can be reached, or the running one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// What it is.
    pub kind: HistoryKind,
    /// Its version.
    pub version: String,
    /// The dataset that holds it now.
    pub dataset: DatasetPath,
    /// The snapshot's name after `@`; nothing for the running release, and for a branch of a failed deploy,
    /// which holds the data as the deploy left it.
    pub snapshot: Option<String>,
    /// Generation of its spec.
    pub generation: u64,
    /// When it was deployed, RFC 3339.
    pub deployed_at: String,
    /// Seconds since 1970 at which the snapshot was taken.
    pub taken_at: Option<i64>,
    /// The run that deployed it.
    pub run: String,
}

/// A stamped snapshot that contains an app.
#[derive(Debug, Clone)]
pub(crate) struct Candidate<'a> {
    pub(crate) holder: &'a DatasetPath,
    pub(crate) snapshot: &'a ObservedSnapshot,
    pub(crate) kind: HistoryKind,
    pub(crate) stamp: AppStamp,
}

/// Branches of a dataset with their kinds.
pub(crate) fn branches_of<'a>(
    dataset: &DatasetPath,
    observed: &'a Observed,
) -> Vec<(&'a DatasetPath, BranchKind)> {
    let stem = branch_stem(dataset);
    let prefix = format!("{BRANCHES}/{stem}-");
    let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
    observed
        .datasets
        .range::<str, _>(from)
        .take_while(|(path, _)| path.as_str().starts_with(&prefix))
        .filter(|(path, _)| stem_of_branch(path.as_str()) == Some(stem.as_str()))
        .map(|(path, found)| {
            let kind = found.user.get(name::BRANCH_KIND).and_then(|text| BranchKind::parse(text));
            // What a failed first deploy created is set aside without a further mark.
            (path, kind.unwrap_or(BranchKind::Failed))
        })
        .collect()
}

/// Every stamped snapshot that contains the app, oldest first.
pub(crate) fn candidates<'a>(
    dataset: &'a DatasetPath,
    observed: &'a Observed,
    app: &AppName,
) -> Vec<Candidate<'a>> {
    let branches = branches_of(dataset, observed).into_iter().map(|(path, kind)| match kind {
        BranchKind::Undone => (path, HistoryKind::Undone),
        BranchKind::Failed => (path, HistoryKind::Failed),
    });
    let mut found: Vec<Candidate<'a>> = std::iter::once((dataset, HistoryKind::Older))
        .chain(branches)
        .flat_map(|(holder, kind)| {
            let list = observed.snapshots.get(holder).into_iter().flatten();
            list.map(move |snapshot| (holder, kind, snapshot))
        })
        .filter_map(|(holder, kind, snapshot)| {
            let stamps = parse_stamps(&format_args!("snapshot {holder}@{}", snapshot.name), &snapshot.user);
            let stamp = stamps.apps.into_iter().find(|stamp| stamp.app == *app)?;
            Some(Candidate { holder, snapshot, kind, stamp })
        })
        .collect();
    found.sort_by_key(|candidate| candidate.snapshot.txg);
    found
}

/// All releases of an app, oldest first, the running one last.
pub fn history(dataset: &DatasetPath, observed: &Observed, app: &AppName) -> Vec<HistoryEntry> {
    let entry =
        |kind, holder: &DatasetPath, snapshot: Option<&ObservedSnapshot>, stamp: AppStamp| HistoryEntry {
            kind,
            version: stamp.version,
            dataset: holder.clone(),
            snapshot: snapshot.map(|s| s.name.clone()),
            generation: stamp.generation,
            deployed_at: stamp.deployed_at,
            taken_at: snapshot.map(|s| s.created),
            run: stamp.run.0,
        };
    let mut all = Vec::new();
    for (branch, kind) in branches_of(dataset, observed) {
        let Some(found) = observed.datasets.get(branch).filter(|_| kind == BranchKind::Failed) else {
            continue;
        };
        let stamps = parse_stamps(&format_args!("dataset {branch}"), &found.user).apps;
        if let Some(stamp) = stamps.into_iter().find(|stamp| stamp.app == *app) {
            all.push(entry(HistoryKind::Failed, branch, None, stamp));
        }
    }
    for candidate in candidates(dataset, observed, app) {
        all.push(entry(candidate.kind, candidate.holder, Some(candidate.snapshot), candidate.stamp));
    }
    let running = observed.datasets.get(dataset).map(|found| &found.user);
    let stamps = running.map(|user| parse_stamps(&format_args!("dataset {dataset}"), user).apps);
    if let Some(stamp) = stamps.into_iter().flatten().find(|stamp| stamp.app == *app) {
        all.push(entry(HistoryKind::Running, dataset, None, stamp));
    }
    all
}
