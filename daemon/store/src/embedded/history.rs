//! What the changes of a catalog come to: what is true now, and what may still have to be carried out.

use super::catalog::Change;
use super::catalog::Content;
use super::catalog::Record;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use zed_spec::DatasetPath;

/// What all records of a catalog come to.
#[derive(Default)]
pub(super) struct History {
    pub(super) records: BTreeMap<DatasetPath, Record>,
    pub(super) gone: BTreeSet<DatasetPath>,
    pub(super) unlink: Vec<PathBuf>,
    pub(super) drop: Vec<Content>,
    pub(super) highest_content: Content,
    /// True when the catalog holds nothing but what is true now.
    pub(super) is_plain: bool,
}

impl History {
    pub(super) fn of(changes: Vec<Change>) -> Self {
        let mut history = Self { is_plain: true, ..Self::default() };
        for change in changes {
            history.is_plain &= change.gone.is_empty() && change.drop.is_empty() && change.unlink.is_empty();
            for path in change.gone {
                history.records.remove(&path);
                history.gone.insert(path);
            }
            for record in change.set {
                let contents = record.snapshots.iter().map(|s| s.content).chain([record.content]);
                history.highest_content = contents.fold(history.highest_content, Content::max);
                history.is_plain &= history.records.insert(record.path.clone(), record).is_none();
            }
            history.highest_content = change.drop.iter().copied().fold(history.highest_content, Content::max);
            history.drop.extend(change.drop);
            history.unlink.extend(change.unlink);
        }
        history
    }

    pub(super) fn content(&self) -> BTreeSet<Content> {
        let of = |r: &Record| r.snapshots.iter().map(|s| s.content).chain([r.content]).collect::<Vec<_>>();
        self.records.values().flat_map(of).collect()
    }

    pub(super) fn highest_txg(&self) -> u64 {
        self.records.values().flat_map(|r| &r.snapshots).map(|s| s.txg).max().unwrap_or(0)
    }
}
