//! The folder that a node keeps its caches in.
//!
//! ```text
//! pipeline_cache/DEVICE.bin    what the driver gave, see `cache.rs`
//! pipeline_cache/DEVICE.lock   held by the one node that writes it
//! spirv/HASH.spv               shaders, see `shaders.rs`
//! driver/                      what drivers keep by themselves
//! ```
//!
//! A file is written whole or not at all. Nothing here is state: all of it may be removed at any time.

use crate::device::DeviceUuid;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// Ends the names of files that are being written.
const TEMPORARY: &str = "tmp";

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

/// Lets one node write a device's pipeline cache, until it is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes what is missing; only its owner may look into it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let folder = Self(path.to_owned());
        for below in [folder.pipelines(), folder.shaders(), folder.drivers()] {
            DirBuilder::new().recursive(true).mode(0o700).create(below)?;
        }
        Ok(folder)
    }

    fn pipelines(&self) -> PathBuf {
        self.0.join("pipeline_cache")
    }

    /// Where compiled shaders are.
    pub(super) fn shaders(&self) -> PathBuf {
        self.0.join("spirv")
    }

    /// Where drivers keep theirs.
    pub(super) fn drivers(&self) -> PathBuf {
        self.0.join("driver")
    }

    /// The file of a device's pipeline cache; nothing when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is too large.
    pub(super) fn pipeline_cache(&self, device: DeviceUuid, most: u64) -> io::Result<Option<Vec<u8>>> {
        read(&self.pipelines().join(format!("{device}.bin")), most)
    }

    /// Becomes the one who writes a device's pipeline cache; nothing while another node is. Removes what a node that died
    /// left half written.
    ///
    /// # Errors
    /// What the system answers.
    pub(super) fn writer(&self, device: DeviceUuid) -> io::Result<Option<Writer>> {
        let name = format!("{device}.lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(self.pipelines().join(name))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        let path = self.pipelines().join(format!("{device}.bin"));
        let stale = temporary(&path);
        match fs::remove_file(stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Some(Writer { path, _lock: lock })),
        }
    }
}

impl Writer {
    /// Writes the file: after a crash the old one is there, or the new one.
    ///
    /// # Errors
    /// What the system answers.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        write_whole(&self.path, bytes, true)
    }
}

fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension(TEMPORARY)
}

/// Reads a file that has at most so many bytes.
///
/// # Errors
/// When it cannot be read, or is larger.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {most} bytes")));
    }
    Ok(Some(bytes))
}

/// Puts a file in place of another at once. `durable`: it has reached the disk before it replaces what was there, and is
/// there after a power cut.
///
/// # Errors
/// What the system answers; then the old file is as it was.
pub(super) fn write_whole(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let new = temporary(path);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&new, path)?;
        match path.parent() {
            Some(parent) if durable => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    })();
    if written.is_err() {
        // It is in nobody's way: the next writer truncates it.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceUuid = DeviceUuid([0xab; 16]);

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn one_node_writes_a_device_s_cache_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(&place.path().join("new/cache")).unwrap();
        assert_eq!(folder.pipeline_cache(DEVICE, 100).unwrap(), None);
        let one = folder.writer(DEVICE).unwrap().unwrap();
        assert!(folder.writer(DEVICE).unwrap().is_none(), "another node has it");
        assert!(folder.writer(DeviceUuid([1; 16])).unwrap().is_some(), "another device's");
        one.write(b"first").unwrap();
        one.write(b"second").unwrap();
        assert_eq!(folder.pipeline_cache(DEVICE, 100).unwrap().unwrap(), b"second");
        assert!(folder.pipeline_cache(DEVICE, 5).is_err(), "too large");
        drop(one);
        assert!(folder.writer(DEVICE).unwrap().is_some());
    }

    #[test]
    fn what_a_dead_node_left_half_written_is_removed_and_harms_nobody() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path()).unwrap();
        folder.writer(DEVICE).unwrap().unwrap().write(b"whole").unwrap();
        let stale = folder.pipelines().join(format!("{DEVICE}.bin.tmp"));
        fs::write(&stale, b"half").unwrap();
        assert_eq!(folder.pipeline_cache(DEVICE, 100).unwrap().unwrap(), b"whole");
        let writer = folder.writer(DEVICE).unwrap().unwrap();
        assert_eq!(names(&folder.pipelines()), [format!("{DEVICE}.bin"), format!("{DEVICE}.lock")]);
        // A folder in the way: the write fails, and what was there stays.
        fs::create_dir(&stale).unwrap();
        assert!(writer.write(b"new").is_err());
        assert_eq!(folder.pipeline_cache(DEVICE, 100).unwrap().unwrap(), b"whole");
    }
}
