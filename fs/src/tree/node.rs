//! The nodes of the tree: which ones there are, and what they are called.
//!
//! A node is a name, not a promise: whether an app exists is asked of the world each time.

use super::gpu::GpuNode;
use crate::SpecDir;
use std::fmt;
use std::sync::Arc;

/// A closed set of file names.
macro_rules! files {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them, in the order of a listing.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The name of the file.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The file of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some($name::$variant),)* _ => None }
            }
        }
    };
}

pub(super) use files;

files! {
    /// Files at the top.
    RootFile {
        /// What can be read and written where.
        Help = "help",
        /// Of zedd.
        Version = "version",
        /// Verbs for the whole host.
        Ctl = "ctl",
        /// Everything that happens: a stream.
        Events = "events",
        /// The daemon's log: a stream.
        Log = "log",
        /// Prometheus text.
        Metrics = "metrics",
        /// Why the last write to `ctl`, or the last save of a spec, was refused.
        Error = "error",
    }
}

files! {
    /// Files of an app.
    AppFile {
        /// Verbs.
        Ctl = "ctl",
        /// Flat-keyed.
        Status = "status",
        /// The same as JSON.
        StatusJson = "status.json",
        /// The running release.
        Version = "version",
        /// Targets, and where one is written.
        Rollback = "rollback",
        /// One a line.
        Snapshots = "snapshots",
        /// Releases, oldest first.
        History = "history",
        /// One word, and a line for each probe.
        Health = "health",
        /// The same as JSON.
        HealthJson = "health.json",
        /// What happened to it: a stream.
        Events = "events",
        /// Its output: a stream.
        Log = "log",
        /// The output before that, once there is so much.
        Log1 = "log.1",
        /// The output before that.
        Log2 = "log.2",
        /// The oldest output that is kept.
        Log3 = "log.3",
        /// How its last runs ended unexpectedly, newest first.
        Crash = "crash",
        /// The same as JSON.
        CrashJson = "crash.json",
        /// Prometheus text of this app.
        Metrics = "metrics",
        /// Its environment.
        Env = "env",
        /// Where it is.
        Hosts = "hosts",
        /// Why the last write to `ctl` or `rollback` was refused.
        Error = "error",
    }
}

files! {
    /// Files of a host.
    HostFile {
        /// Flat-keyed.
        Status = "status",
        /// The same as JSON.
        StatusJson = "status.json",
        /// What the host is.
        Facts = "facts",
        /// The same as JSON.
        FactsJson = "facts.json",
        /// One app a line.
        Apps = "apps",
        /// One dataset a line.
        Datasets = "datasets",
        /// What is there and in no spec yet, as a spec.
        Import = "import.ron",
        /// Verbs.
        Ctl = "ctl",
        /// One word.
        Health = "health",
        /// Why the last write to `ctl` was refused.
        Error = "error",
    }
}

files! {
    /// Files about the daemon itself.
    MetaFile {
        /// Seconds since it started.
        Uptime = "uptime",
        /// Requests answered, failed and waiting, by operation.
        Requests = "requests",
        /// How long answers took, by operation.
        Latency = "latency",
        /// Of zedd.
        Version = "version",
        /// Level of the daemon's log, as `log LEVEL` sets it.
        LogLevel = "log_level",
    }
}

files! {
    /// Virtual files beside a spec.
    ViewFile {
        /// Flat-keyed.
        Status = "status",
        /// The same as JSON.
        StatusJson = "status.json",
        /// What would change.
        Plan = "plan",
        /// The same as JSON.
        PlanJson = "plan.json",
        /// Diagnostics.
        Errors = "errors",
        /// Reading it waits for the verdict.
        Wait = "wait",
    }
}

impl ViewFile {
    /// True when the folder has such a file.
    pub fn is_in(self, dir: SpecDir) -> bool {
        match dir {
            SpecDir::Deploy => true,
            SpecDir::Plan => matches!(self, ViewFile::Plan | ViewFile::PlanJson | ViewFile::Errors),
        }
    }

    /// Splits `prod.plan.json` into `prod` and its kind; nothing when no spec can have that name.
    pub fn split(file: &str) -> Option<(&str, Self)> {
        let (name, kind) = file.split_once('.')?;
        let view = Self::from_name(kind)?;
        is_deploy_name(name).then_some((name, view))
    }
}

/// True for `[a-z0-9][a-z0-9-]*`.
pub fn is_deploy_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.next().is_some_and(alphanumeric) && bytes.all(|b| alphanumeric(b) || b == b'-')
}

/// The deploy that a file name declares: `prod` for `prod.ron`. Every other name is scratch.
pub fn deploy_of(file: &str) -> Option<&str> {
    file.strip_suffix(".ron").filter(|name| is_deploy_name(name))
}

/// The folder's name at the top.
pub fn spec_dir_name(dir: SpecDir) -> &'static str {
    match dir {
        SpecDir::Deploy => "deploy",
        SpecDir::Plan => "plan",
    }
}

/// One place in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// `/zed`
    Root,
    /// `deploy`, `plan`
    Specs(SpecDir),
    /// `apps`
    Apps,
    /// `apps/APP`
    App(Arc<str>),
    /// `hosts`
    Hosts,
    /// `hosts/HOST`
    Host(Arc<str>),
    /// A dataset or a folder on the way to one; the empty path is `datasets`.
    Dataset(Arc<str>),
    /// `.meta`
    Meta,
    /// A file at the top.
    RootFile(RootFile),
    /// A file of an app.
    AppFile(Arc<str>, AppFile),
    /// `apps/APP/INSTANCE.log`: the output of a process of the app that `log` does not show: a stream.
    InstanceLog(Arc<str>, Arc<str>),
    /// A file of a host.
    HostFile(Arc<str>, HostFile),
    /// A property of a dataset.
    Property(Arc<str>, Arc<str>),
    /// A file in `.meta`.
    MetaFile(MetaFile),
    /// A virtual file beside a spec.
    View(SpecDir, Arc<str>, ViewFile),
    /// A spec or a scratch file, by its inode number: it keeps that when it is renamed.
    Spec(SpecDir, u64),
    /// What is below `gpu`, and that.
    Gpu(GpuNode),
}

impl Node {
    /// True for folders.
    pub fn is_dir(&self) -> bool {
        if let Node::Gpu(node) = self {
            return node.is_dir();
        }
        matches!(
            self,
            Node::Root
                | Node::Specs(_)
                | Node::Apps
                | Node::App(_)
                | Node::Hosts
                | Node::Host(_)
                | Node::Dataset(_)
                | Node::Meta
        )
    }
}

/// The path below the top, which inode numbers are made from.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Root => Ok(()),
            Node::Specs(dir) => f.write_str(spec_dir_name(*dir)),
            Node::Apps => f.write_str("apps"),
            Node::App(app) => write!(f, "apps/{app}"),
            Node::Hosts => f.write_str("hosts"),
            Node::Host(host) => write!(f, "hosts/{host}"),
            Node::Dataset(path) => write!(f, "datasets/{path}"),
            Node::Meta => f.write_str(".meta"),
            Node::RootFile(file) => f.write_str(file.name()),
            Node::AppFile(app, file) => write!(f, "apps/{app}/{}", file.name()),
            Node::InstanceLog(app, instance) => write!(f, "apps/{app}/{instance}.log"),
            Node::HostFile(host, file) => write!(f, "hosts/{host}/{}", file.name()),
            // Two slashes keep a property apart from a child dataset of the same name.
            Node::Property(path, name) => write!(f, "datasets/{path}//{name}"),
            Node::MetaFile(file) => write!(f, ".meta/{}", file.name()),
            Node::View(dir, name, view) => write!(f, "{}/{name}.{}", spec_dir_name(*dir), view.name()),
            Node::Spec(dir, ino) => write!(f, "{}//{ino}", spec_dir_name(*dir)),
            Node::Gpu(node) => node.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_names_are_told_from_scratch() {
        for (file, deploy) in [
            ("prod.ron", Some("prod")),
            ("a-1.ron", Some("a-1")),
            ("9.ron", Some("9")),
            (".prod.ron", None),
            (".prod.ron.swp", None),
            ("prod.ron~", None),
            ("prod.ron.bak", None),
            ("-prod.ron", None),
            ("Prod.ron", None),
            (".ron", None),
            ("prod", None),
            ("a.b.ron", None),
        ] {
            assert_eq!(deploy_of(file), deploy, "{file}");
        }
    }

    #[test]
    fn views_split_at_the_first_dot() {
        assert_eq!(ViewFile::split("prod.plan.json"), Some(("prod", ViewFile::PlanJson)));
        assert_eq!(ViewFile::split("prod.status"), Some(("prod", ViewFile::Status)));
        assert_eq!(ViewFile::split("prod.ron"), None);
        assert_eq!(ViewFile::split(".status"), None);
        assert_eq!(ViewFile::split("pro d.status"), None);
    }
}
