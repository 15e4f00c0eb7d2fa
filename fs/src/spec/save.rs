//! Saves: when unsaved content becomes a file, and who is told.
//!
//! A save is complete on disk before the daemon hears of it, and is announced once.

use super::disk;
use super::file::Unsaved;
use super::folder::SpecFolder;
use super::folder::too_big;
use crate::Fault;
use crate::tree::deploy_of;
use nix::errno::Errno;
use std::sync::Arc;

impl SpecFolder {
    /// Saves what is unsaved, as one complete file, and tells the daemon; then gives the verdict.
    ///
    /// # Errors
    /// EBADMSG when the spec does not parse: it is saved all the same, byte for byte.
    pub fn save(&self, ino: u64) -> Result<(), Fault> {
        let mut inner = self.inner.lock();
        let file = inner.files.get_mut(&ino).ok_or(Errno::ESTALE)?;
        match file.unsaved {
            Unsaved::Clean => return Ok(()),
            Unsaved::Overflown => return Err(too_big(Errno::EFBIG, self.dir, file)),
            Unsaved::Emptied | Unsaved::Dirty => {}
        }
        let Some(name) = file.name.clone() else {
            file.unsaved = Unsaved::Clean;
            return Ok(());
        };
        let deploy = deploy_of(&name);
        let path = self.path(&name);
        let content = file.content.as_deref().unwrap_or_default();
        disk::place(&self.temporary(ino), &path, content, &file.meta, deploy.is_some())?;
        let text = content.to_vec();
        file.unsaved = Unsaved::Clean;
        file.stamp = disk::look(&path)?.map(|(_, stamp)| stamp);
        inner.leaving.remove(&name);
        drop(inner);
        match deploy {
            Some(deploy) => {
                self.announce(&name);
                Ok(self.control.check_spec(self.dir, deploy, &text)?)
            }
            None => Ok(()),
        }
    }

    /// Tells the daemon that a spec was placed, replaced or removed; scratch is nothing to it.
    pub(super) fn announce(&self, name: &str) {
        if let Some(deploy) = deploy_of(name) {
            self.refused.lock().remove(deploy);
            self.control.spec_saved(self.dir, deploy);
        }
    }

    /// Diagnostics of a rename onto this deploy's spec that was refused since its last save.
    pub fn refusal(&self, deploy: &str) -> Option<Arc<[u8]>> {
        self.refused.lock().get(deploy).cloned()
    }

    /// A close of a handle that may write: saves, except what was only cut to nothing (see `Unsaved`).
    ///
    /// # Errors
    /// As [`SpecFolder::save`].
    pub fn flush(&self, ino: u64) -> Result<(), Fault> {
        let unsaved = self.inner.lock().files.get(&ino).map_or(Unsaved::Clean, |file| file.unsaved);
        match unsaved {
            Unsaved::Dirty | Unsaved::Overflown => self.save(ino),
            Unsaved::Clean | Unsaved::Emptied => Ok(()),
        }
    }

    /// `fsync` through a handle that may write: saves whatever is unsaved, and gives the verdict again when
    /// nothing was.
    ///
    /// # Errors
    /// As [`SpecFolder::save`].
    pub fn commit(&self, ino: u64) -> Result<(), Fault> {
        let inner = self.inner.lock();
        let file = inner.files.get(&ino).ok_or(Errno::ESTALE)?;
        if file.unsaved != Unsaved::Clean {
            drop(inner);
            return self.save(ino);
        }
        let (Some(name), Some(content)) = (file.name.clone(), file.content.clone()) else { return Ok(()) };
        drop(inner);
        match deploy_of(&name) {
            Some(deploy) => Ok(self.control.check_spec(self.dir, deploy, &content)?),
            None => Ok(()),
        }
    }

    /// The last close of a handle: saves what no flush has saved.
    ///
    /// # Errors
    /// As [`SpecFolder::save`]; nobody sees them but the log.
    pub fn release(&self, ino: u64, write: bool) -> Result<(), Fault> {
        let mut inner = self.inner.lock();
        let file = inner.files.get_mut(&ino).ok_or(Errno::ESTALE)?;
        file.writers -= u32::from(write);
        let last = write && file.writers == 0;
        let unsaved = file.unsaved;
        drop(inner);
        let saved = match unsaved {
            Unsaved::Dirty if write => self.save(ino),
            Unsaved::Emptied if last => self.save(ino),
            _ => Ok(()),
        };
        let mut inner = self.inner.lock();
        if let Some(file) = inner.files.get_mut(&ino) {
            file.handles -= 1;
            if file.unsaved == Unsaved::Overflown && last {
                // Back to the real file; one that was never saved is gone.
                (file.content, file.unsaved) = (None, Unsaved::Clean);
                if let (None, Some(name)) = (file.stamp, file.name.clone()) {
                    inner.detach(&name);
                }
            }
        }
        if let Some(file) = inner.files.get_mut(&ino) {
            if file.handles == 0 && file.unsaved == Unsaved::Clean {
                file.content = None;
            }
            if file.is_lost() {
                inner.files.remove(&ino);
            }
        }
        saved
    }
}
