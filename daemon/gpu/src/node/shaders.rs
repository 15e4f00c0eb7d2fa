//! SPIR-V on disk, so that a shader is compiled once and not at every start.
//!
//! A file is named by the hash of everything that the compiler looks at, and carries the checksum of its words: what does
//! not match is compiled again. Losing a file costs a millisecond, so no write is waited for.

use super::folder;
use crate::device::Limits;
use crate::program::Author;
use crate::program::Kernel;
use crate::wgsl;
use sha2::Digest;
use sha2::Sha256;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::little_endian::U32;

/// The version of naga that is built in.
const NAGA: &str = "30.0.2";

const MAGIC: [u8; 8] = *b"zedspirv";

/// The most files that are kept; the oldest half goes when there are more.
const MAX_FILES: usize = 4096;

/// The most bytes of one file.
const MAX_FILE: u64 = 16 << 20;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    words: U32,
    _reserved: U32,
    sha256: [u8; 32],
}

/// The folder of compiled shaders.
#[derive(Debug, Clone)]
pub(super) struct Shaders {
    folder: PathBuf,
    /// The hash of the compiler.
    compiler: [u8; 32],
}

impl Shaders {
    /// In a folder that exists. Makes room in it when it is full.
    pub(super) fn new(folder: PathBuf) -> Self {
        let compiler = Sha256::digest([[NAGA].as_slice(), &wgsl::SOURCES].concat().join("\0")).into();
        let shaders = Self { folder, compiler };
        shaders.prune(MAX_FILES);
        shaders
    }

    /// The file for a kernel on a device with such limits: the compiler refuses what does not fit them.
    pub(super) fn path(&self, kernel: &Kernel, limits: &Limits) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(self.compiler);
        for part in [&format!("{limits:?}"), &kernel.source] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update([u8::from(kernel.author == Author::User)]);
        hash.update(kernel.bindings.to_le_bytes());
        hash.update(kernel.push_bytes.to_le_bytes());
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name).with_extension("spv")
    }

    fn prune(&self, most: usize) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        if files.len() <= most {
            return;
        }
        files.sort();
        for (_, path) in files.iter().take(files.len() - most / 2) {
            // Another node may have removed it.
            let _ = fs::remove_file(path);
        }
    }
}

/// The words of a file; nothing when it is not there or not whole.
pub(super) fn load(path: &Path) -> Option<Vec<u32>> {
    let file = folder::read(path, MAX_FILE).ok()??;
    let (header, bytes) = Header::read_from_prefix(&file).ok()?;
    let whole = header.magic == MAGIC
        && header._reserved.get() == 0
        && header.words.get() as usize * 4 == bytes.len()
        && <[u8; 32]>::from(Sha256::digest(bytes)) == header.sha256;
    let words = bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes);
    whole.then(|| words.collect())
}

/// The file for such words.
pub(super) fn encode(words: &[u32]) -> Vec<u8> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let header = Header {
        magic: MAGIC,
        words: U32::new(u32::try_from(words.len()).unwrap_or(u32::MAX)),
        _reserved: U32::ZERO,
        sha256: Sha256::digest(&bytes).into(),
    };
    [header.as_bytes(), &bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            push_bytes: 128,
            workgroup_threads: 256,
            groups: [65535; 3],
            shared_bytes: 32 << 10,
            buffer_bytes: 1 << 27,
            bindings: 16,
            f64: true,
        }
    }

    #[test]
    fn what_was_kept_is_found_and_what_is_damaged_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.spv");
        assert_eq!(load(&path), None);
        let words = [0x0723_0203, 1, 2, 3];
        let file = encode(&words);
        fs::write(&path, &file).unwrap();
        assert_eq!(load(&path).as_deref(), Some(words.as_slice()));
        for place in 0..file.len() {
            let mut damaged = file.clone();
            damaged[place] ^= 0x40;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(load(&path), None, "byte {place}");
            fs::write(&path, &file[..place]).unwrap();
            assert_eq!(load(&path), None, "cut at {place}");
        }
    }

    #[test]
    fn a_name_depends_on_everything_that_the_compiler_looks_at() {
        let shaders = Shaders::new(PathBuf::from("/there is no such folder"));
        let kernel =
            |source: &str, author, bindings, push| Kernel::new("k", source.into(), author, bindings, push);
        let mut double = limits();
        double.f64 = false;
        let paths: std::collections::BTreeSet<PathBuf> = [
            shaders.path(&kernel("a", Author::User, 1, 0), &limits()),
            shaders.path(&kernel("b", Author::User, 1, 0), &limits()),
            shaders.path(&kernel("a", Author::Catalogue, 1, 0), &limits()),
            shaders.path(&kernel("a", Author::User, 2, 0), &limits()),
            shaders.path(&kernel("a", Author::User, 1, 8), &limits()),
            shaders.path(&kernel("a", Author::User, 1, 0), &double),
        ]
        .into();
        assert_eq!(paths.len(), 6);
        let same = shaders.path(&kernel("a", Author::User, 1, 0), &limits());
        assert!(paths.contains(&same));
    }

    #[test]
    fn the_version_of_naga_is_the_one_that_is_built_in() {
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
        let wanted = format!("name = \"naga\"\nversion = \"{NAGA}\"\n");
        assert!(fs::read_to_string(lock).unwrap().contains(&wanted), "NAGA must be what Cargo.lock has");
    }

    #[test]
    fn all_of_our_part_of_the_compiler_counts() {
        // What links sources shows in the sources.
        let other = ["link.rs", "tests.rs"];
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wgsl")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let counts = wgsl::SOURCES.contains(&text.as_str());
            assert!(counts || other.iter().any(|name| path.ends_with(name)), "{} must count", path.display());
        }
    }

    #[test]
    fn another_compiler_does_not_find_what_this_one_kept() {
        let kernel = Kernel::new("k", "source".into(), Author::User, 1, 0);
        let ours = Shaders::new(PathBuf::from("/there is no such folder"));
        let other = Shaders { compiler: [0; 32], ..ours.clone() };
        assert_ne!(ours.path(&kernel, &limits()), other.path(&kernel, &limits()));
    }

    #[test]
    fn the_oldest_files_make_room() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..20_u64 {
            let file = fs::File::create(folder.path().join(format!("{number:02}.spv"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number)).unwrap();
        }
        let shaders = Shaders::new(folder.path().to_owned());
        shaders.prune(20);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 20);
        shaders.prune(10);
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["15.spv", "16.spv", "17.spv", "18.spv", "19.spv"]);
    }
}
