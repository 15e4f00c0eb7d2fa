//! Why an artifact cannot be unpacked, a release not be changed or not be started.
//!
//! Owns the texts; each names the object, the cause and what to do.

use crate::limits::Limit;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// What is wrong with one entry of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Begins with `/`.
    Absolute,
    /// Has a component `..`.
    Parent,
    /// Is a name of zed's own, or nothing at all.
    Name(&'static str),
    /// Longer, or deeper, than the limit.
    Long(usize),
    /// A parent is a symbolic link of the artifact itself.
    ThroughLink,
    /// A parent is there, and no folder.
    NotFolder,
    /// A folder is there already, with something in it perhaps.
    FolderThere,
    /// A hard link to what is not a file of the artifact.
    HardLink(String),
    /// Something that is no file, folder or link.
    Kind(&'static str),
    /// Too many symbolic links on the way.
    Links,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Absolute => f.write_str("its path is absolute"),
            Problem::Parent => f.write_str("its path contains `..`"),
            Problem::Name(what) => f.write_str(what),
            Problem::Long(limit) => write!(f, "its path or target is longer than {limit}"),
            Problem::ThroughLink => f.write_str("its path leads through a symbolic link of the archive"),
            Problem::NotFolder => f.write_str("a part of its path is no folder"),
            Problem::FolderThere => f.write_str("a folder of this name is there already"),
            Problem::HardLink(target) => {
                write!(f, "it is a hard link to `{target}`, which is no file of the artifact")
            }
            Problem::Kind(kind) => write!(f, "it is a {kind}; only files, folders and links are unpacked"),
            Problem::Links => f.write_str("its path leads through more than 40 symbolic links"),
        }
    }
}

/// Why an artifact was not unpacked. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Not there.
    #[error("the artifact `{}` is not there: put it there, or correct `artifact` in the spec", .artifact.display())]
    Missing {
        /// Its path.
        artifact: PathBuf,
    },
    /// Not what its kind says.
    #[error("the artifact `{}` cannot be used: {why}", .artifact.display())]
    Unusable {
        /// Its path.
        artifact: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Another content than was planned.
    #[error(
        "the artifact `{}` has the digest {found}, and not {wanted}: put the right one there, or correct the spec",
        .artifact.display()
    )]
    Digest {
        /// Its path.
        artifact: PathBuf,
        /// What the plan, the spec or a manifest says.
        wanted: String,
        /// What it has.
        found: String,
    },
    /// An entry that is refused.
    #[error("the artifact `{}` holds `{entry}`, which is refused: {problem}; pack it anew without", .artifact.display())]
    Entry {
        /// Its path.
        artifact: PathBuf,
        /// The entry, as far as it is text.
        entry: String,
        /// Why.
        problem: Problem,
    },
    /// Larger than the limits allow.
    #[error("the artifact `{}` is refused: {limit}", .artifact.display())]
    Limit {
        /// Its path.
        artifact: PathBuf,
        /// Which limit.
        limit: Limit,
    },
    /// Damaged, or cut short.
    #[error("the artifact `{}` is damaged or cut short: pack or copy it anew", .artifact.display())]
    Broken {
        /// Its path.
        artifact: PathBuf,
        /// What was found.
        #[source]
        source: io::Error,
    },
    /// Known before it was begun.
    #[error(
        "the artifact `{}` needs {needed} bytes in `{}`, where {available} are free: make room there",
        .artifact.display(), .directory.display()
    )]
    NoSpace {
        /// Its path.
        artifact: PathBuf,
        /// Where to.
        directory: PathBuf,
        /// At least so many bytes.
        needed: u64,
        /// So many are free.
        available: u64,
    },
    /// Found in the middle.
    #[error("`{}` is full: make room there; what was unpacked has been removed", .directory.display())]
    Full {
        /// Where to.
        directory: PathBuf,
    },
    /// The file system refused.
    #[error("failed to {doing} `{}`", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The release folder could not be changed.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// Given up by who asked.
    #[error("unpacking `{}` was given up", .artifact.display())]
    Cancelled {
        /// Its path.
        artifact: PathBuf,
    },
}

impl UnpackError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    /// For errors of writing below `directory`: a full disk has its own text.
    pub(crate) fn write(doing: &'static str, directory: &Path, name: &str, source: io::Error) -> Self {
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if full {
            return Self::Full { directory: directory.to_owned() };
        }
        Self::Io { doing, path: directory.join(name), source }
    }

    /// For errors of reading an archive: what is not the system's is the archive's.
    pub(crate) fn read(artifact: &Path, source: io::Error) -> Self {
        if let Some(limit) = source.get_ref().and_then(|inner| inner.downcast_ref::<Limit>()) {
            return Self::Limit { artifact: artifact.to_owned(), limit: *limit };
        }
        if source.raw_os_error().is_some() {
            return Self::Io { doing: "read", path: artifact.to_owned(), source };
        }
        Self::Broken { artifact: artifact.to_owned(), source }
    }
}

/// Why a release folder or the link to it was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Something that is not zed's is in the way.
    #[error("`{}` {why}: move it away", .path.display())]
    InTheWay {
        /// What.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `current` cannot lead there.
    #[error("the release folder `{}` is not there: deploy the version again, which unpacks it", .path.display())]
    NoRelease {
        /// The folder.
        path: PathBuf,
    },
    /// Not a name of a folder.
    #[error("`{name}` cannot be the name of a release folder")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The file system refused.
    #[error("failed to {doing} `{}`", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl ReleaseError {
    pub(crate) fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source: source.into() }
    }
}

/// Why a release without a `command` cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// Nothing in it says how.
    #[error("the release in `{}` does not say how it is started ({why}): give the app a `command`", .release.display())]
    NotStartable {
        /// The release folder.
        release: PathBuf,
        /// What was looked for.
        why: String,
    },
    /// The file system refused.
    #[error("failed to read `{}`", .path.display())]
    Io {
        /// Of what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}
