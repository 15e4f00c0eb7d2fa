//! What an artifact is: its digest, cheap to ask for again and again.
//!
//! Owns the identity of the three kinds: of a tar archive the sha256 of the file, of a folder a digest over its sorted
//! tree, of an image layout the digest of the manifest for this host. The reconcile loop asks at every look, so a
//! digest is remembered by what stat says of the artifact, and a look that finds nothing changed reads no content.

use crate::error::UnpackError;
use crate::layout;
use crate::limits::Budget;
use crate::limits::Limits;
use crate::tree;
use parking_lot::Mutex;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use sha2::Digest;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
use zed_spec::Artifact;

/// A file whose last change is younger than this may change again without stat showing it: file systems count time
/// in steps, the coarsest in whole seconds.
const SETTLED_SECONDS: i64 = 2;

/// What was found where a spec says that an artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The artifact, with its digest: 64 hex digits.
    Digest(String),
    /// Nothing.
    Missing,
    /// Something that cannot be used; the text says why.
    Unusable(String),
}

/// Remembers digests by what stat said when they were computed.
#[derive(Debug, Default)]
pub struct Digests {
    known: Mutex<BTreeMap<Key, Known>>,
}

type Key = (&'static str, String, Option<String>);

#[derive(Debug, Clone)]
struct Known {
    stamp: String,
    found: Found,
}

impl Digests {
    /// Looks at artifacts, by the path in the spec. Forgets all others. An artifact that cannot be looked at is an
    /// answer like any other: one bad path must not blind the whole look.
    pub fn look<'a>(&self, artifacts: impl IntoIterator<Item = &'a Artifact>) -> BTreeMap<String, Found> {
        let mut known = self.known.lock();
        let mut kept = BTreeMap::new();
        let mut found = BTreeMap::new();
        for artifact in artifacts {
            let key = key(artifact);
            if kept.contains_key(&key) {
                continue;
            }
            let (answer, remember) = look_at(artifact, known.get(&key));
            found.insert(key.1.clone(), answer);
            if let Some(remember) = remember {
                kept.insert(key, remember);
            }
        }
        *known = kept;
        found
    }
}

fn key(artifact: &Artifact) -> Key {
    match artifact {
        Artifact::Tar { path, .. } => ("tar", path.clone(), None),
        Artifact::Dir { path } => ("dir", path.clone(), None),
        Artifact::Oci { path, digest } => ("oci", path.clone(), digest.clone()),
    }
}

fn look_at(artifact: &Artifact, known: Option<&Known>) -> (Found, Option<Known>) {
    let (stamp, newest) = match stamp(artifact) {
        Ok(stamp) => stamp,
        Err(UnpackError::Missing { .. }) => return (Found::Missing, None),
        Err(e) => return (Found::Unusable(chain(&e)), None),
    };
    if let Some(known) = known.filter(|known| known.stamp == stamp) {
        return (known.found.clone(), Some(known.clone()));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let found = match compute(artifact, Limits::default(), &AtomicBool::new(false)) {
        Ok(digest) => Found::Digest(digest),
        Err(UnpackError::Missing { .. }) => return (Found::Missing, None),
        Err(e) => Found::Unusable(chain(&e)),
    };
    let settled = newest < now - SETTLED_SECONDS;
    (found.clone(), settled.then_some(Known { stamp, found }))
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What stat says of one file, and when it last changed.
pub(crate) fn stat_line(stat: &Stat) -> (String, i64) {
    let line = format!(
        "{} {} {} {} {}.{} {}.{}",
        stat.st_dev,
        stat.st_ino,
        stat.st_mode,
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec
    );
    (line, stat.st_ctime)
}

/// What stat says of an artifact, and when it last changed.
fn stamp(artifact: &Artifact) -> Result<(String, i64), UnpackError> {
    let of = |path: &Path| match rustix::fs::stat(path) {
        Ok(stat) => Ok(stat_line(&stat)),
        Err(e) => Err(missing_or(path, "look at", e.into())),
    };
    match artifact {
        Artifact::Tar { path, .. } => of(path.as_ref()),
        Artifact::Dir { path } => tree::stamp(path.as_ref(), Limits::default()),
        // Everything else in a layout is named by its content. A folder that is no layout has its own answer.
        Artifact::Oci { path, .. } => match of(&Path::new(path).join(layout::INDEX)) {
            Err(UnpackError::Missing { .. }) => of(path.as_ref()),
            other => other,
        },
    }
}

/// Nothing there is its own answer.
pub(crate) fn missing_or(path: &Path, doing: &'static str, source: io::Error) -> UnpackError {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            UnpackError::Missing { artifact: path.to_owned() }
        }
        _ => UnpackError::Io { doing, path: path.to_owned(), source },
    }
}

/// The digest, from the content.
pub(crate) fn compute(
    artifact: &Artifact,
    limits: Limits,
    cancel: &AtomicBool,
) -> Result<String, UnpackError> {
    match artifact {
        Artifact::Tar { path, .. } => {
            let path = Path::new(path);
            hash_file(path, &mut open(path)?, cancel)
        }
        Artifact::Dir { path } => {
            let path = Path::new(path);
            tree::digest(path, &Budget::new(path, limits, cancel), None)
        }
        Artifact::Oci { path, digest } => layout::manifest_digest(path.as_ref(), digest.as_deref()),
    }
}

/// Opens a regular file; a pipe in its place is refused and not waited for. Links are followed: an operator may point
/// to the newest archive with one.
pub(crate) fn open(path: &Path) -> Result<File, UnpackError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| missing_or(path, "open", e.into()))?;
    let file = File::from(fd);
    let kind = file.metadata().map_err(UnpackError::io("look at", path))?.file_type();
    if !kind.is_file() {
        let what = if kind.is_dir() { "a folder" } else { "no regular file" };
        let why = format!("it is {what}; it must be a file");
        return Err(UnpackError::Unusable { artifact: PathBuf::from(path), why });
    }
    Ok(file)
}

/// sha256 of what a file holds from its beginning; reads the descriptor that will be unpacked.
pub(crate) fn hash_file(path: &Path, file: &mut File, cancel: &AtomicBool) -> Result<String, UnpackError> {
    io::Seek::rewind(file).map_err(UnpackError::io("read", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        if cancel.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(UnpackError::Cancelled { artifact: path.to_owned() });
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(hash)),
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(UnpackError::io("read", path)(e)),
        }
    }
}

/// A finished hash as lower-case hex.
pub(crate) fn hex(hash: Sha256) -> String {
    use std::fmt::Write;
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
