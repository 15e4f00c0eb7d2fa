//! What the tests of unpacking share: making archives, a dataset to unpack into, and looking at what is there.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;
use zed_artifact::Digests;
use zed_artifact::Found;
use zed_artifact::Limits;
use zed_artifact::Owner;
use zed_artifact::Unpack;
use zed_artifact::UnpackError;
use zed_spec::Artifact;

/// One entry of an archive, with nothing checked: names may be anything.
pub(crate) struct Item<'a> {
    pub(crate) kind: u8,
    pub(crate) path: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) content: &'a [u8],
}

pub(crate) fn file<'a>(path: &'a str, content: &'a str) -> Item<'a> {
    Item { kind: b'0', path: path.as_bytes(), link: b"", mode: 0o644, content: content.as_bytes() }
}

pub(crate) fn folder(path: &str) -> Item<'_> {
    Item { kind: b'5', path: path.as_bytes(), link: b"", mode: 0o755, content: b"" }
}

pub(crate) fn link<'a>(path: &'a str, target: &'a str) -> Item<'a> {
    Item { kind: b'2', path: path.as_bytes(), link: target.as_bytes(), mode: 0o777, content: b"" }
}

pub(crate) fn hard_link<'a>(path: &'a str, target: &'a str) -> Item<'a> {
    Item { kind: b'1', path: path.as_bytes(), link: target.as_bytes(), mode: 0o644, content: b"" }
}

pub(crate) fn other(kind: u8, path: &str) -> Item<'_> {
    Item { kind, path: path.as_bytes(), link: b"", mode: 0o644, content: b"" }
}

/// A header with a right checksum and the size that is asked for.
pub(crate) fn header(item: &Item<'_>, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(item.kind));
    header.set_mode(item.mode);
    header.set_mtime(1_600_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    let mut out = Vec::new();
    for (field, kind, at) in [(item.path, b'L', 0), (item.link, b'K', 157)] {
        if field.len() > 100 {
            let long = Item { kind, path: b"././@LongLink", link: b"", mode: 0, content: field };
            out.extend(entry(&long));
        } else {
            header.as_mut_bytes()[at..at + field.len()].copy_from_slice(field);
        }
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out
}

pub(crate) fn entry(item: &Item<'_>) -> Vec<u8> {
    let mut out = header(item, item.content.len() as u64);
    out.extend_from_slice(item.content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub(crate) fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut out: Vec<u8> = items.iter().flat_map(entry).collect();
    out.resize(out.len() + 1024, 0);
    out
}

/// An entry whose values are given in an extended header.
pub(crate) fn extended(records: &[(&str, &[u8])], item: &Item<'_>, size: u64) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        content.extend_from_slice(format!("{length} {key}=").as_bytes());
        content.extend_from_slice(value);
        content.push(b'\n');
    }
    let mut out = entry(&Item { kind: b'x', path: b"pax", link: b"", mode: 0, content: &content });
    out.extend(header(item, size));
    out.extend_from_slice(item.content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A dataset, a place for artifacts, and something outside that nothing may touch.
pub(crate) struct Ground {
    pub(crate) top: TempDir,
    pub(crate) limits: Limits,
    pub(crate) owner: Option<Owner>,
}

impl Default for Ground {
    fn default() -> Self {
        let top = tempfile::tempdir().unwrap();
        for name in ["dataset", "artifacts", "outside"] {
            std::fs::create_dir(top.path().join(name)).unwrap();
        }
        std::fs::write(top.path().join("outside/file"), "untouched").unwrap();
        Self { top, limits: Limits::default(), owner: None }
    }
}

impl Ground {
    pub(crate) fn dataset(&self) -> PathBuf {
        self.top.path().join("dataset")
    }

    pub(crate) fn release(&self, folder: &str) -> PathBuf {
        self.dataset().join("releases").join(folder)
    }

    pub(crate) fn tar(&self, bytes: &[u8]) -> Artifact {
        let path = self.top.path().join("artifacts/app.tar");
        std::fs::write(&path, bytes).unwrap();
        Artifact::Tar { path: text(&path), sha256: None }
    }

    pub(crate) fn try_unpack(&self, artifact: &Artifact, folder: &str, run: &str) -> Result<(), UnpackError> {
        let digest = digest(artifact);
        self.unpack_as(artifact, &digest, folder, run)
    }

    pub(crate) fn unpack_as(
        &self,
        artifact: &Artifact,
        digest: &str,
        folder: &str,
        run: &str,
    ) -> Result<(), UnpackError> {
        zed_artifact::unpack(&Unpack {
            artifact,
            digest,
            dataset: &self.dataset(),
            folder,
            version: folder,
            run,
            owner: self.owner,
            limits: self.limits,
            cancel: &AtomicBool::new(false),
        })
    }

    /// Unpacks what must be refused, and shows that nothing is left and nothing outside was touched.
    pub(crate) fn refused(&self, artifact: &Artifact) -> String {
        let digest = match look(artifact) {
            Found::Digest(digest) => digest,
            // What cannot be looked at has no digest; then unpacking must fail in the same way.
            _ => "0".repeat(64),
        };
        let error = self.unpack_as(artifact, &digest, "1", "run1").expect_err("it was unpacked");
        assert_eq!(tree(&self.dataset()).keys().cloned().collect::<Vec<_>>(), self.empty(), "{error}");
        assert_eq!(
            tree(&self.top.path().join("outside")),
            BTreeMap::from([("file".into(), "untouched".into())])
        );
        chain(&error)
    }

    fn empty(&self) -> Vec<String> {
        if self.dataset().join("releases").exists() { vec!["releases/".into()] } else { vec![] }
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub(crate) fn look(artifact: &Artifact) -> Found {
    Digests::default().look([artifact]).into_values().next().unwrap()
}

pub(crate) fn digest(artifact: &Artifact) -> String {
    match look(artifact) {
        Found::Digest(digest) => digest,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Everything below a folder: `name/` for folders, content of files, `-> target` of links.
pub(crate) fn tree(top: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                found.insert(format!("{name}/"), String::new());
                open.push(path);
            } else if meta.is_symlink() {
                found.insert(name, format!("-> {}", std::fs::read_link(&path).unwrap().display()));
            } else {
                found.insert(name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
            }
        }
    }
    found
}

/// The release's tree without zed's own file.
pub(crate) fn content(release: &Path) -> BTreeMap<String, String> {
    let mut found = tree(release);
    found.remove(zed_artifact::MARKER).expect("a release has a marker");
    found
}

pub(crate) fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}
