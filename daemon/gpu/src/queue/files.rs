//! Arrays of jobs as files: `jobs/ID/in-NAME`, `jobs/ID/out-NAME` in a device's folder.
//!
//! A file has its array's size from the moment it is made, without taking room for it, and is for zedd's user only: who may
//! read it is the tree's to judge. Names are those of arrays, which cannot lead out of the folder.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use zed_fs::Side;

/// The folder of one device's jobs.
#[derive(Debug, Clone)]
pub(super) struct JobFiles {
    dir: PathBuf,
}

impl JobFiles {
    pub(super) fn new(device: &Path) -> Self {
        Self { dir: device.join("jobs") }
    }

    fn folder(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    fn path(&self, id: u64, side: Side, name: &str) -> PathBuf {
        let side = match side {
            Side::In => "in",
            Side::Out => "out",
        };
        self.folder(id).join(format!("{side}-{name}"))
    }

    /// Makes an array's file, of its true size, with these bytes at its beginning.
    pub(super) fn make(&self, id: u64, side: Side, name: &str, size: u64, bytes: &[u8]) -> io::Result<File> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.folder(id))?;
        let path = self.path(id, side, name);
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.set_len(size)?;
        file.write_all(bytes)?;
        Ok(file)
    }

    /// Opens an array's file.
    pub(super) fn open(&self, id: u64, side: Side, name: &str, write: bool) -> io::Result<File> {
        fs::OpenOptions::new().read(true).write(write).open(self.path(id, side, name))
    }

    /// Removes all files of a job. That there are none is no failure.
    pub(super) fn remove(&self, id: u64) {
        match fs::remove_dir_all(self.folder(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, job = id, "the files of a GPU job could not be removed");
            }
            _ => {}
        }
    }

    /// The ids of jobs that have files.
    pub(super) fn ids(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}
