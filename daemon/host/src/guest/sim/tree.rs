//! Files, folders and links in memory; below one folder, where a store keeps its datasets, the real ones.

use super::super::LocalSystem;
use crate::guest::Files;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;

#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
    folders: BTreeSet<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
    /// Below it, files are real.
    pub(super) real: Option<PathBuf>,
}

impl Tree {
    /// Follows a link on the way; one level is all that the adapters make.
    fn resolve(&self, path: &Path) -> PathBuf {
        for (link, target) in &self.links {
            if let Ok(rest) = path.strip_prefix(link) {
                return if rest.as_os_str().is_empty() { target.clone() } else { target.join(rest) };
            }
        }
        path.to_owned()
    }

    fn is_real(&self, path: &Path) -> bool {
        self.real.as_ref().is_some_and(|real| path.starts_with(real))
    }

    fn real() -> LocalSystem {
        LocalSystem::default()
    }

    /// A file that is simply there.
    pub(super) fn put(&mut self, path: &Path, content: &[u8], mode: u32) {
        // The simulated world has no failing disk.
        let _ = self.write(path, content, mode);
    }

    /// A file that is simply no longer there.
    pub(super) fn take(&mut self, path: &Path) {
        let _ = self.remove(path);
    }

    pub(super) fn text(&self, path: &Path) -> Option<String> {
        let (content, _) = self.read(path).ok().flatten()?;
        Some(String::from_utf8_lossy(&content).into_owned())
    }

    pub(super) fn read(&self, path: &Path) -> io::Result<Option<(Vec<u8>, u32)>> {
        let path = self.resolve(path);
        if self.is_real(&path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(folder) = path.parent().filter(|folder| folder.is_dir()) else { return Ok(None) };
            return Self::real().read_in(folder, &name);
        }
        Ok(self.files.get(&path).cloned())
    }

    pub(super) fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        let path = self.resolve(path);
        if self.is_real(&path) {
            return Self::real().write(&path, content, mode);
        }
        if self.folders.contains(&path) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if let Some(folder) = path.parent() {
            self.make_folder(folder)?;
        }
        self.files.insert(path, (content.to_vec(), mode));
        Ok(())
    }

    /// Removes a file, or a link and not what it leads to.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        if self.links.remove(path).is_some() {
            return Ok(());
        }
        let path = self.resolve(path);
        if self.is_real(&path) {
            return Self::real().remove(&path);
        }
        self.files.remove(&path);
        Ok(())
    }

    pub(super) fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        if self.is_real(path) {
            return Self::real().remove_folder(path);
        }
        let used = self.files.keys().chain(&self.folders).chain(self.links.keys());
        if !used.into_iter().any(|other| other != path && other.starts_with(path)) {
            self.folders.remove(path);
        }
        Ok(())
    }

    pub(super) fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        let path = self.resolve(path);
        if self.is_real(&path) {
            return Self::real().make_folder(&path);
        }
        for folder in path.ancestors() {
            if self.files.contains_key(folder) {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            }
            self.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    pub(super) fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        match self.links.get(path) {
            Some(there) if there == target => return Ok(()),
            None if !self.folders.contains(path) && !self.files.contains_key(path) => {}
            _ => return Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        }
        self.links.insert(path.to_owned(), target.to_owned());
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn is_link(&self, path: &Path) -> bool {
        self.links.contains_key(path)
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = self.resolve(path);
        if self.is_real(&path) {
            return Self::real().list(&path);
        }
        let all = self.files.keys().chain(&self.folders).chain(self.links.keys());
        let below = all.filter_map(|other| other.strip_prefix(&path).ok()?.components().next());
        let names: BTreeSet<String> =
            below.map(|name| name.as_os_str().to_string_lossy().into_owned()).collect();
        Ok(names.into_iter().collect())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        let path = self.resolve(path);
        if self.is_real(&path) {
            return path.exists();
        }
        self.files.contains_key(&path) || self.folders.contains(&path) || self.links.contains_key(&path)
    }

    pub(super) fn is_folder(&self, path: &Path) -> bool {
        let path = self.resolve(path);
        if self.is_real(&path) { path.is_dir() } else { self.folders.contains(&path) }
    }

    /// Removes everything below a folder; a link is removed, what it leads to stays.
    pub(super) fn remove_all(&mut self, path: &Path) {
        self.links.retain(|link, _| !link.starts_with(path));
        self.files.retain(|file, _| !file.starts_with(path));
        self.folders.retain(|folder| !folder.starts_with(path));
    }
}
