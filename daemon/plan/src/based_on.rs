//! One hash over everything observed that a plan depends on. Owns the choice of what that is: process ids and free
//! space are not in it, because a plan does not change with them.

use crate::naming::branch_stem;
use crate::observed::Observed;
use crate::observed::ProcessStatus;
use crate::release::hex;
use crate::world::World;
use sha2::Digest;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::DeployName;

/// A hash that is fed with texts, each with its length, through one buffer.
struct Feed {
    hash: Sha256,
    buffer: Vec<u8>,
}

impl Feed {
    fn text(&mut self, text: &str) {
        self.buffer.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() > 16_384 {
            self.hash.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn map(&mut self, map: &BTreeMap<String, String>) {
        self.number(map.len() as u64);
        for (key, value) in map {
            self.text(key);
            self.text(value);
        }
    }

    fn number(&mut self, number: u64) {
        self.buffer.extend_from_slice(&number.to_le_bytes());
    }

    fn dataset(&mut self, observed: &Observed, path: &DatasetPath) {
        self.text(path.as_str());
        let Some(dataset) = observed.datasets.get(path) else { return self.text("absent") };
        self.number(u64::from(dataset.mounted) + 2 * u64::from(dataset.mountpoint.is_some()));
        self.map(&dataset.native);
        self.map(&dataset.user);
        for snapshot in observed.snapshots.get(path).into_iter().flatten() {
            self.text(&snapshot.name);
            self.number(snapshot.txg);
            self.number(snapshot.clones.len() as u64);
            self.map(&snapshot.user);
        }
    }
}

/// Hashes what is relevant to a deploy: the datasets it wants, those it has, their branches, their apps'
/// processes, and the values that its spec reads.
pub(crate) fn based_on<'p>(
    observed: &'p Observed,
    deploy: &DeployName,
    wanted: impl Iterator<Item = &'p DatasetPath>,
    apps: impl Iterator<Item = &'p AppName>,
    world: &World<'p>,
) -> String {
    let mut feed = Feed { hash: Sha256::new(), buffer: Vec::with_capacity(32_768) };
    feed.text("zed based on 1");
    feed.text(observed.host.as_ref().map_or("", |host| host.as_str()));
    feed.text(observed.pool.as_deref().unwrap_or_default());
    feed.map(&observed.facts);
    feed.map(&observed.env);
    feed.map(&observed.files);
    for runtime in &observed.runtimes {
        feed.text(runtime);
    }
    let stamped = world.by_deploy.get(deploy.as_str()).into_iter().flatten().copied();
    let datasets: BTreeSet<&DatasetPath> = wanted.chain(stamped).collect();
    for path in datasets {
        feed.dataset(observed, path);
        if !world.branches.is_empty() {
            for branch in world.branches.get(branch_stem(path).as_str()).into_iter().flatten() {
                feed.dataset(observed, branch);
            }
        }
    }
    for app in apps {
        let Some(process) = observed.processes.get(app) else { continue };
        feed.text(app.as_str());
        feed.text(&process.run_hash);
        feed.text(status(&process.status));
    }
    let Feed { mut hash, buffer } = feed;
    hash.update(&buffer);
    hex(&hash.finalize())
}

/// The part of a process's state that a plan depends on.
fn status(status: &ProcessStatus) -> &'static str {
    match status {
        ProcessStatus::Running { pid: _ } => "running",
        ProcessStatus::Backoff { restarts: _ } => "backoff",
        ProcessStatus::Completed => "completed",
        ProcessStatus::Failed(_) => "failed",
        ProcessStatus::Stopped => "stopped",
        ProcessStatus::Gone { rebooted: true } => "gone since boot",
        ProcessStatus::Gone { rebooted: false } => "gone",
    }
}
