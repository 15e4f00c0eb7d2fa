//! Attributes: true sizes, honest permission bits, and when a value last changed.

use super::Tree;
use super::node::AppFile;
use super::node::HostFile;
use super::node::Node;
use super::node::RootFile;
use super::node::ViewFile;
use super::render;
use crate::Fault;
use crate::SpecDir;
use nix::errno::Errno;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
use zed_ctl::World;

/// Whose the files are that nobody else owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// Whom this process runs as.
    pub fn of_this_process() -> Self {
        Self { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }
}

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// A folder.
    pub is_dir: bool,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes that a read would give now.
    pub size: u64,
    /// Last change of the value.
    pub mtime: SystemTime,
    /// Last access, where a client may set it.
    pub atime: SystemTime,
    /// The name stays what it is as long as the daemon runs.
    pub fixed_name: bool,
    /// How long all of this holds.
    pub lasts: Lasts,
}

/// How long attributes hold, and so how long the kernel may keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// For this answer only.
    Now,
    /// Until the world changes.
    World,
    /// As long as the daemon runs.
    Run,
}

/// When views last changed, found by comparing them with what was seen before.
#[derive(Default)]
pub(super) struct Changes {
    apps: Seen<zed_ctl::AppView>,
    hosts: Seen<zed_ctl::HostView>,
    datasets: Seen<zed_ctl::DatasetView>,
}

struct Seen<T>(HashMap<String, (Arc<T>, i64)>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: PartialEq> Seen<T> {
    /// When the view under `key` last changed: the same shared value, or an equal one, has not.
    fn since(&mut self, key: &str, view: &Arc<T>, now: i64) -> i64 {
        match self.0.get_mut(key) {
            Some((seen, at)) => {
                if !Arc::ptr_eq(seen, view) {
                    if **seen != **view {
                        *at = now;
                    }
                    *seen = Arc::clone(view);
                }
                *at
            }
            None => {
                self.0.insert(key.to_owned(), (Arc::clone(view), now));
                now
            }
        }
    }

    fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| exists(key));
    }
}

impl Changes {
    /// When what the node shows last changed, in seconds since 1970.
    fn of(&mut self, world: &World, node: &Node) -> i64 {
        let now = world.changed_at;
        // What is gone is forgotten when the maps have grown well beyond the world.
        if self.datasets.0.len() > 2 * world.datasets.len() + 64 {
            self.datasets.keep(|key| world.datasets.contains_key(key));
        }
        if self.apps.0.len() > 2 * world.apps.len() + 64 {
            self.apps.keep(|key| world.apps.contains_key(key));
        }
        match node {
            Node::App(app) | Node::AppFile(app, _) | Node::InstanceLog(app, _) => {
                world.apps.get(&**app).map_or(now, |view| self.apps.since(app, view, now))
            }
            // The lists of a host change with what is in them.
            Node::HostFile(_, HostFile::Apps | HostFile::Datasets | HostFile::Import) => now,
            Node::Host(host) | Node::HostFile(host, _) => self.hosts.since(host, &world.host, now),
            Node::Property(path, _) => {
                world.datasets.get(&**path).map_or(now, |view| self.datasets.since(path, view, now))
            }
            Node::View(dir, name, _) => {
                render::views(world, *dir).get(&**name).map_or(now, |view| view.changed_at)
            }
            _ => now,
        }
    }
}

fn seconds(at: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap_or(0))
}

/// Permission bits of what is not a spec.
fn mode_of(node: &Node) -> u32 {
    match node {
        _ if node.is_dir() => 0o755,
        Node::RootFile(RootFile::Ctl)
        | Node::AppFile(_, AppFile::Ctl | AppFile::Rollback)
        | Node::HostFile(_, HostFile::Ctl)
        | Node::View(SpecDir::Deploy, _, ViewFile::Plan) => 0o644,
        // Output and environment may hold what not everybody should read; the daemon's log names paths.
        Node::AppFile(
            _,
            AppFile::Log
            | AppFile::Log1
            | AppFile::Log2
            | AppFile::Log3
            | AppFile::Crash
            | AppFile::CrashJson
            | AppFile::Env,
        )
        | Node::InstanceLog(..)
        | Node::RootFile(RootFile::Log)
        | Node::HostFile(_, HostFile::Import)
        | Node::View(_, _, ViewFile::PlanJson) => 0o640,
        _ => 0o444,
    }
}

impl Tree {
    /// What `stat` says about a node. Costs no call to the store.
    ///
    /// # Errors
    /// ENOENT or ESTALE when it is gone.
    pub fn attr(&self, node: &Node) -> Result<Attr, Fault> {
        if let Node::Spec(dir, ino) = node {
            let (meta, size) = self.specs(*dir).attr(*ino)?;
            return Ok(Attr {
                is_dir: false,
                mode: meta.mode,
                uid: meta.uid,
                gid: meta.gid,
                size,
                mtime: meta.mtime,
                atime: meta.atime,
                fixed_name: false,
                lasts: Lasts::Now,
            });
        }
        let mut attr = Attr {
            is_dir: node.is_dir(),
            mode: mode_of(node),
            uid: self.owner.uid,
            gid: self.owner.gid,
            size: 0,
            mtime: self.started,
            atime: self.started,
            fixed_name: fixed_name(node),
            lasts: Lasts::Now,
        };
        if let Node::Gpu(gpu) = node {
            gpu.fill(self.control.gpus().as_deref(), (&self.errors, &self.gpu_seen), &mut attr)?;
        } else if let Node::Specs(dir) = node {
            let real = std::fs::metadata(self.specs(*dir).real())?;
            attr.mode = real.mode() & 0o7777;
            (attr.uid, attr.gid) = (real.uid(), real.gid());
            attr.mtime = real.modified()?;
        } else if let Some(path) = self.old_log(node) {
            // Gone when there is less output than that, as after somebody removed it.
            let real = std::fs::metadata(path)?;
            (attr.size, attr.mtime) = (real.len(), real.modified()?);
        } else if let Node::AppFile(app, AppFile::Crash | AppFile::CrashJson) = node {
            attr.size = self.text(node)?.len() as u64;
            attr.mtime = crate::tree::crash::modified(&self.crash_files(app)?).unwrap_or(self.started);
        } else if let Some(path) = self.stream_path(node) {
            if let Ok(real) = std::fs::metadata(path) {
                (attr.size, attr.mtime) = (real.len(), real.modified()?);
            }
        } else {
            self.fill(node, &mut attr)?;
        }
        attr.atime = attr.mtime;
        Ok(attr)
    }

    /// Size and time of what the tree makes itself.
    fn fill(&self, node: &Node, attr: &mut Attr) -> Result<(), Fault> {
        let world = self.control.world();
        match node {
            Node::App(app) if !world.apps.contains_key(&**app) => return Err(Errno::ENOENT.into()),
            Node::Host(host) if world.host.name != **host => return Err(Errno::ENOENT.into()),
            Node::Dataset(path) if !render::dataset_exists(&world, path) => {
                return Err(Errno::ENOENT.into());
            }
            // The time of these folders never moves.
            Node::Root | Node::Hosts | Node::Meta | Node::Host(_) => {
                attr.lasts = Lasts::Run;
                return Ok(());
            }
            _ => {}
        }
        if let Some((text, at)) = self.errors.get(node) {
            (attr.size, attr.mtime) = (text.len() as u64, at);
            return Ok(());
        }
        if !node.is_dir() {
            attr.size = match render::quick_size(&world, node) {
                Some(size) => size,
                None => self.text(node)?.len() as u64,
            };
        }
        match node {
            Node::MetaFile(_)
            | Node::RootFile(RootFile::Metrics)
            | Node::AppFile(_, AppFile::Health | AppFile::HealthJson) => attr.mtime = SystemTime::now(),
            Node::RootFile(RootFile::Help | RootFile::Version | RootFile::Ctl) => attr.lasts = Lasts::Run,
            Node::RootFile(_) | Node::AppFile(_, AppFile::Error) | Node::HostFile(_, HostFile::Error) => {}
            // A rename that is refused changes it without the world.
            Node::View(_, _, ViewFile::Errors) => attr.mtime = seconds(self.changes.lock().of(&world, node)),
            _ => {
                attr.mtime = seconds(self.changes.lock().of(&world, node));
                attr.lasts = Lasts::World;
            }
        }
        Ok(())
    }
}

/// Names that no change of the world takes away.
fn fixed_name(node: &Node) -> bool {
    match node {
        Node::Root
        | Node::Specs(_)
        | Node::Apps
        | Node::Hosts
        | Node::Host(_)
        | Node::HostFile(..)
        | Node::Meta
        | Node::MetaFile(_)
        | Node::RootFile(_) => true,
        Node::Dataset(path) => path.is_empty(),
        Node::Gpu(node) => node.has_fixed_name(),
        Node::App(_)
        | Node::AppFile(..)
        | Node::InstanceLog(..)
        | Node::Property(..)
        | Node::View(..)
        | Node::Spec(..) => false,
    }
}
