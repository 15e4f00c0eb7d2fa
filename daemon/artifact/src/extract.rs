//! From an artifact to a filled folder: verify first, then place.
//!
//! Owns the order of things for each kind. [`prepare`] only reads; [`Prepared::fill`] writes below the folder that it
//! is given, and compares what it has unpacked with what was verified.

use crate::decode::Decoded;
use crate::digest;
use crate::error::Problem;
use crate::error::UnpackError;
use crate::layout;
use crate::layout::Image;
use crate::limits::Budget;
use crate::marker::Owner;
use crate::place::Attributes;
use crate::place::Place;
use crate::place::PlaceError;
use crate::place::Rules;
use crate::remove::open_folder;
use crate::tarball::Entry;
use crate::tarball::Kind;
use crate::tarball::Tarball;
use crate::tree;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use zed_spec::Artifact;

/// An artifact that is what the plan says.
pub(crate) enum Prepared {
    Tar(File),
    Folder,
    Image(Image),
}

/// Opens and verifies. Changes nothing.
pub(crate) fn prepare(
    artifact: &Artifact,
    digest: &str,
    budget: &Budget<'_>,
    cancel: &AtomicBool,
) -> Result<Prepared, UnpackError> {
    let path = budget.artifact();
    let differs = |wanted: &str, found: String| UnpackError::Digest {
        artifact: path.to_owned(),
        wanted: wanted.to_owned(),
        found,
    };
    match artifact {
        Artifact::Tar { sha256, .. } => {
            let mut file = digest::open(path)?;
            let found = digest::hash_file(path, &mut file, cancel)?;
            // What the spec says comes first: it is the operator's word.
            for wanted in sha256.iter().map(String::as_str).chain([digest]) {
                if found != wanted {
                    return Err(differs(wanted, found));
                }
            }
            Ok(Prepared::Tar(file))
        }
        Artifact::Dir { .. } => {
            let found = digest::compute(artifact, budget.limits, cancel)?;
            if found == digest { Ok(Prepared::Folder) } else { Err(differs(digest, found)) }
        }
        Artifact::Oci { digest: wanted, .. } => {
            Ok(Prepared::Image(layout::open_image(path, wanted.as_deref(), digest, cancel)?))
        }
    }
}

impl Prepared {
    /// Bytes that it needs at least.
    pub(crate) fn size(&self, budget: &Budget<'_>, cancel: &AtomicBool) -> Result<u64, UnpackError> {
        match self {
            Prepared::Tar(file) => {
                Ok(file.metadata().map_err(UnpackError::io("look at", budget.artifact()))?.len())
            }
            Prepared::Folder => {
                tree::size(budget.artifact(), &Budget::new(budget.artifact(), budget.limits, cancel))
            }
            Prepared::Image(image) => Ok(image.size),
        }
    }

    /// Fills the folder `into`, which is called `directory` in errors.
    pub(crate) fn fill(
        self,
        digest: &str,
        into: OwnedFd,
        directory: &Path,
        owner: Option<Owner>,
        budget: &Budget<'_>,
    ) -> Result<(), UnpackError> {
        let target = Target { directory, owner, budget };
        let artifact = budget.artifact();
        match self {
            Prepared::Tar(file) => {
                let mut place = Place::new(into, Rules::Release, budget.limits, owner);
                target.archive(&mut place, artifact, file, digest, true)?;
                place.finish().map_err(|e| target.failed(b"", e))?;
            }
            Prepared::Folder => {
                let mut place = Place::new(into, Rules::Release, budget.limits, owner);
                let failed = |path: &[u8], e| target.failed(path, e);
                let copy = tree::Copy { place: &mut place, owner, failed: &failed };
                let found = tree::digest(artifact, budget, Some(copy))?;
                if found != digest {
                    return Err(target.changed(artifact, digest, found));
                }
                place.finish().map_err(|e| target.failed(b"", e))?;
            }
            Prepared::Image(image) => target.image(image, &into)?,
        }
        if budget.entries() == 0 {
            let why = "it holds nothing".to_owned();
            return Err(UnpackError::Unusable { artifact: artifact.to_owned(), why });
        }
        Ok(())
    }
}

/// Where an artifact goes.
struct Target<'a> {
    directory: &'a Path,
    owner: Option<Owner>,
    budget: &'a Budget<'a>,
}

/// An error while a file is placed: of reading its content, of writing it, or of placing it.
enum Filling {
    Stopped(UnpackError),
    Place(PlaceError),
}

impl From<PlaceError> for Filling {
    fn from(e: PlaceError) -> Self {
        Self::Place(e)
    }
}

impl Target<'_> {
    fn failed(&self, path: &[u8], error: PlaceError) -> UnpackError {
        let entry = String::from_utf8_lossy(path).into_owned();
        match error {
            PlaceError::Entry(problem) => self.refused(path, problem),
            PlaceError::Io(source) => UnpackError::write("write", self.directory, &entry, source),
        }
    }

    fn refused(&self, path: &[u8], problem: Problem) -> UnpackError {
        let entry = String::from_utf8_lossy(path).into_owned();
        UnpackError::Entry { artifact: self.budget.artifact().to_owned(), entry, problem }
    }

    fn changed(&self, artifact: &Path, wanted: &str, found: String) -> UnpackError {
        UnpackError::Digest { artifact: artifact.to_owned(), wanted: wanted.to_owned(), found }
    }

    /// Unpacks one archive; `digest` is what was verified, compared with what was read.
    fn archive(
        &self,
        place: &mut Place,
        artifact: &Path,
        file: File,
        digest: &str,
        release: bool,
    ) -> Result<(), UnpackError> {
        let read = |e| UnpackError::read(artifact, e);
        // A layer's end is proved by its digest; builders exist that leave out the closing blocks.
        let mut tarball = Tarball::new(Decoded::open(artifact, file, self.budget.limits)?, release);
        while let Some(entry) = tarball.next().map_err(read)? {
            self.budget.entry()?;
            if release {
                self.entry(place, artifact, &entry, &mut tarball)?;
            } else {
                self.layer_entry(place, artifact, &entry, &mut tarball)?;
            }
        }
        let found = tarball.into_inner().finish().map_err(read)?;
        if found == digest { Ok(()) } else { Err(self.changed(artifact, digest, found)) }
    }

    fn entry(
        &self,
        place: &mut Place,
        artifact: &Path,
        entry: &Entry,
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let attributes = Attributes { mode: entry.mode, owner: self.owner, mtime: entry.mtime };
        self.put(place, artifact, entry, attributes, content)
    }

    fn layer_entry(
        &self,
        place: &mut Place,
        artifact: &Path,
        entry: &Entry,
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let failed = |e| self.failed(&entry.path, e);
        let path = entry.path.strip_prefix(b"/").unwrap_or(&entry.path);
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..=at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        if name == b".wh..wh..opq" {
            return place.make_opaque(parent).map_err(failed);
        }
        if name.starts_with(b".wh..wh.") {
            // Notes of the old AUFS to itself.
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return place.white_out(&[parent, hidden].concat()).map_err(failed);
        }
        if matches!(entry.kind, Kind::Other(_))
            && path.strip_prefix(b"./").unwrap_or(path).starts_with(b"dev/")
        {
            // A container gets a `/dev` of its own, so what an image has there is never seen.
            return Ok(());
        }
        // Ids of the image, where nothing else is asked for and the daemon may give files away.
        let image = Owner { uid: entry.uid, gid: entry.gid };
        let owner = self.owner.or_else(|| rustix::process::geteuid().is_root().then_some(image));
        let attributes = Attributes { mode: entry.mode, owner, mtime: entry.mtime };
        self.put(place, artifact, entry, attributes, content)
    }

    fn put(
        &self,
        place: &mut Place,
        artifact: &Path,
        entry: &Entry,
        attributes: Attributes,
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let failed = |e| self.failed(&entry.path, e);
        match &entry.kind {
            Kind::Folder => place.folder(&entry.path, attributes).map_err(failed),
            Kind::Link(target) => place.link(&entry.path, target, attributes).map_err(failed),
            Kind::HardLink(target) => place.hard_link(&entry.path, target).map_err(failed),
            Kind::Other(what) => Err(self.refused(&entry.path, Problem::Kind(what))),
            Kind::File => {
                let filled = place.file(&entry.path, attributes, |file| {
                    self.copy(artifact, entry, content, file).map_err(Filling::Stopped)
                });
                filled.map_err(|e| match e {
                    Filling::Stopped(e) => e,
                    Filling::Place(e) => failed(e),
                })
            }
        }
    }

    fn copy(
        &self,
        artifact: &Path,
        entry: &Entry,
        content: &mut impl Read,
        file: &mut File,
    ) -> Result<(), UnpackError> {
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(UnpackError::read(artifact, e)),
            };
            self.budget.bytes(n as u64)?;
            file.write_all(&buffer[..n]).map_err(|e| self.failed(&entry.path, e.into()))?;
        }
    }

    /// Applies the layers of an image below `rootfs`, and puts its configuration beside.
    fn image(&self, image: Image, into: &OwnedFd) -> Result<(), UnpackError> {
        let here = |e: rustix::io::Errno| self.failed(layout::ROOTFS.as_bytes(), e.into());
        rustix::fs::mkdirat(into, layout::ROOTFS, Mode::RWXU).map_err(here)?;
        let rootfs = open_folder(into, layout::ROOTFS).map_err(here)?;
        rustix::fs::fchmod(&rootfs, Mode::from_raw_mode(0o755)).map_err(here)?;
        let mut place = Place::new(rootfs, Rules::Layers, self.budget.limits, self.owner);
        for (path, digest, file) in image.layers {
            place.begin_layer();
            self.archive(&mut place, &path, file, &digest, false)?;
        }
        place.finish().map_err(|e| self.failed(layout::ROOTFS.as_bytes(), e))?;
        let text = serde_json::to_vec(&image.config)
            .map_err(|e| UnpackError::io("write", self.directory)(e.into()))?;
        write_new(into, layout::IMAGE_FILE, &text)
            .map_err(|e| self.failed(layout::IMAGE_FILE.as_bytes(), e.into()))
    }
}

/// Writes a small file that is not there yet.
pub(crate) fn write_new(at: &OwnedFd, name: &str, text: &[u8]) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(at, name, flags, Mode::from_raw_mode(0o644))?;
    File::from(fd).write_all(text)
}
