//! One hash over everything observed that a plan depends on. Owns the choice of what that is: process ids and free
//! space are not in it, because a plan does not change with them.

use crate::guest::GuestId;
use crate::naming::branch_stem;
use crate::observed::ObservedDataset;
use crate::observed::ObservedSnapshot;
use crate::observed::ProcessStatus;
use crate::release::hex;
use crate::world::World;
use sha2::Digest;
use sha2::Sha256;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use zed_spec::AppName;
use zed_spec::DatasetPath;

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

    fn dataset(
        &mut self,
        path: &DatasetPath,
        found: Option<&ObservedDataset>,
        snapshots: Option<&Vec<ObservedSnapshot>>,
    ) {
        self.text(path.as_str());
        let Some(dataset) = found else { return self.text("absent") };
        self.number(u64::from(dataset.mounted) + 2 * u64::from(dataset.mountpoint.is_some()));
        self.map(&dataset.native);
        self.map(&dataset.user);
        // A snapshot never changes: its name and its place in the order say which one it is.
        for snapshot in snapshots.into_iter().flatten() {
            self.text(&snapshot.name);
            self.number(snapshot.txg);
            self.number(snapshot.clones.len() as u64);
        }
    }
}

/// Looks keys up in a sorted map, in their order: a walk instead of a search for each.
pub(crate) struct Walk<'a, V> {
    rest: std::iter::Peekable<std::collections::btree_map::Iter<'a, DatasetPath, V>>,
}

impl<'a, V> Walk<'a, V> {
    pub(crate) fn new(map: &'a BTreeMap<DatasetPath, V>) -> Self {
        Self { rest: map.iter().peekable() }
    }

    /// The value of a key that is greater than all those asked for before.
    pub(crate) fn get(&mut self, key: &DatasetPath) -> Option<&'a V> {
        loop {
            let (other, value) = self.rest.peek()?;
            match (*other).cmp(key) {
                Ordering::Less => {
                    self.rest.next();
                }
                Ordering::Equal => return Some(value),
                Ordering::Greater => return None,
            }
        }
    }
}

/// Hashes what is relevant to a deploy: the datasets it wants and those it has (both sorted), their branches, its
/// apps' processes, and the values that its spec reads.
pub(crate) fn based_on<'p>(
    world: &World<'p>,
    wanted: impl Iterator<Item = (&'p DatasetPath, Option<&'p ObservedDataset>)>,
    released: &[&'p DatasetPath],
    apps: impl Iterator<Item = &'p AppName>,
    guests: &[GuestId],
) -> String {
    let observed = world.observed;
    let mut feed = Feed { hash: Sha256::new(), buffer: Vec::with_capacity(32_768) };
    feed.text("zed based on 1");
    feed.text(observed.host.as_ref().map_or("", |host| host.as_str()));
    feed.text(observed.pool.as_deref().unwrap_or_default());
    feed.map(&observed.facts);
    feed.map(&observed.env);
    feed.map(&observed.files);
    feed.map(&observed.artifacts);
    for runtime in &observed.runtimes {
        feed.text(runtime);
    }
    let mut snapshots = Walk::new(&observed.snapshots);
    for (path, found) in wanted {
        feed.dataset(path, found, snapshots.get(path));
        feed_branches(&mut feed, world, path);
    }
    for path in released {
        feed.dataset(path, observed.datasets.get(*path), observed.snapshots.get(*path));
        feed_branches(&mut feed, world, path);
    }
    for app in apps {
        for (number, process) in observed.processes_of(app) {
            feed.text(app.as_str());
            feed.number(u64::from(number));
            feed.text(&process.run_hash);
            feed.text(status(&process.status));
        }
    }
    for guest in guests {
        feed.text(&guest.to_string());
        // Its state is small, and all of it counts.
        let seen = observed.guests.get(guest);
        feed.text(&seen.and_then(|seen| serde_json::to_string(seen).ok()).unwrap_or_default());
    }
    let Feed { mut hash, buffer } = feed;
    hash.update(&buffer);
    hex(&hash.finalize())
}

fn feed_branches(feed: &mut Feed, world: &World<'_>, dataset: &DatasetPath) {
    if world.branches.is_empty() {
        return;
    }
    for branch in world.branches.get(branch_stem(dataset).as_str()).into_iter().flatten() {
        feed.dataset(branch, world.observed.datasets.get(*branch), world.observed.snapshots.get(*branch));
    }
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
