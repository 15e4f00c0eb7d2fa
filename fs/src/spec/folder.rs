//! One folder of specs: names, files, saves.
//!
//! All methods may be called from any thread; each does its work under one lock, so that a save and the
//! daemon's view of it are never torn. Disk work is bounded by the size of a spec.

use super::COMMIT_PREFIX;
use super::MAX_SCRATCH;
use super::MAX_SPEC;
use super::SCRATCH_DIR;
use super::disk;
use super::disk::Meta;
use super::file::SpecFile;
use super::file::Unsaved;
use crate::Control;
use crate::Fault;
use crate::SpecDir;
use crate::tree::SPEC_BIT;
use crate::tree::ViewFile;
use crate::tree::deploy_of;
use crate::tree::path_hash;
use crate::tree::spec_dir_name;
use nix::errno::Errno;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// What can be chosen of a spec folder.
#[derive(Debug, Clone, Copy)]
pub struct SpecSettings {
    /// How long a spec that was removed or renamed away stays declared, so that a tool which removes the old
    /// file before it writes the new one (`install`, `tar`, `mv` from elsewhere), or keeps it as a backup (vim,
    /// `sed -i.bak`), does not stop the apps in between.
    pub grace: Duration,
    /// Age at which scratch files are removed.
    pub scratch_age: Duration,
}

impl Default for SpecSettings {
    fn default() -> Self {
        Self { grace: Duration::from_secs(1), scratch_age: Duration::from_secs(24 * 60 * 60) }
    }
}

/// One folder of specs.
pub struct SpecFolder {
    pub(super) dir: SpecDir,
    pub(super) real: PathBuf,
    pub(super) control: Arc<dyn Control>,
    pub(super) settings: SpecSettings,
    pub(super) inner: Mutex<Inner>,
    /// Why the last rename onto a spec was refused, by deploy, until its next save: the file itself does not
    /// show it, because it stayed as it was.
    pub(super) refused: Mutex<HashMap<String, Arc<[u8]>>>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// By inode number: files that a client has open or knows, or that have something unsaved.
    pub(super) files: HashMap<u64, SpecFile>,
    /// The names of those that have one.
    pub(super) names: HashMap<String, u64>,
    /// Specs that were removed or renamed away, and when that takes effect. Their real file is still there.
    pub(super) leaving: HashMap<String, Instant>,
}

impl SpecFolder {
    /// Opens the real folder and sweeps what a killed daemon left.
    ///
    /// # Errors
    /// When the scratch folder cannot be made.
    pub fn open(control: Arc<dyn Control>, dir: SpecDir, settings: SpecSettings) -> io::Result<Self> {
        let real = control.spec_dir(dir).to_path_buf();
        let scratch = real.join(SCRATCH_DIR);
        match fs::DirBuilder::new().mode(0o700).create(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for folder in [&real, &scratch] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(COMMIT_PREFIX) {
                    disk::remove(&entry.path(), false)?;
                }
            }
        }
        let folder =
            Self { dir, real, control, settings, inner: Mutex::default(), refused: Mutex::default() };
        folder.sweep(SystemTime::now());
        Ok(folder)
    }

    /// Where the folder really is.
    pub fn real(&self) -> &Path {
        &self.real
    }

    /// The real file of a name.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        match deploy_of(name) {
            Some(_) => self.real.join(name),
            None => self.real.join(SCRATCH_DIR).join(name),
        }
    }

    pub(super) fn temporary(&self, ino: u64) -> PathBuf {
        self.real.join(format!("{COMMIT_PREFIX}{ino:x}"))
    }

    /// The number of a file with this name, when there is one.
    ///
    /// # Errors
    /// When the real folder cannot be read.
    pub fn lookup(&self, name: &str) -> Result<Option<u64>, Fault> {
        Ok(self.find(&mut self.inner.lock(), name)?)
    }

    pub(super) fn find(&self, inner: &mut Inner, name: &str) -> io::Result<Option<u64>> {
        if let Some(ino) = inner.names.get(name).copied() {
            let keep =
                inner.files.get(&ino).is_some_and(|file| file.handles > 0 || file.unsaved != Unsaved::Clean);
            if keep || disk::look(&self.path(name))?.is_some() {
                return Ok(Some(ino));
            }
            // Somebody removed the real file behind our back.
            inner.detach(name);
            return Ok(None);
        }
        if inner.leaving.contains_key(name) || !is_file_name(name) {
            return Ok(None);
        }
        let Some((meta, stamp)) = disk::look(&self.path(name))? else { return Ok(None) };
        let ino = self.fresh_ino(inner, name);
        let file = SpecFile {
            name: Some(name.to_owned()),
            content: None,
            stamp: Some(stamp),
            meta,
            unsaved: Unsaved::Clean,
            handles: 0,
            writers: 0,
            known: false,
        };
        inner.files.insert(ino, file);
        inner.names.insert(name.to_owned(), ino);
        Ok(Some(ino))
    }

    fn fresh_ino(&self, inner: &Inner, name: &str) -> u64 {
        let mut ino = path_hash(&format!("{}/{name}", spec_dir_name(self.dir))) | SPEC_BIT;
        while inner.files.contains_key(&ino) {
            ino = (ino + 1) | SPEC_BIT;
        }
        ino
    }

    /// Names of all files, in order.
    ///
    /// # Errors
    /// When the real folder cannot be read.
    pub fn list(&self) -> Result<BTreeSet<String>, Fault> {
        let inner = self.inner.lock();
        Ok(self.names(&inner)?)
    }

    pub(super) fn names(&self, inner: &Inner) -> io::Result<BTreeSet<String>> {
        let mut names: BTreeSet<String> = inner.names.keys().cloned().collect();
        for (folder, specs) in [(self.real.clone(), true), (self.real.join(SCRATCH_DIR), false)] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let wanted = deploy_of(&name).is_some() == specs && is_file_name(&name);
                if wanted && entry.file_type()?.is_file() && !inner.leaving.contains_key(&name) {
                    names.insert(name);
                }
            }
        }
        Ok(names)
    }

    /// What the file is now: its metadata and its size in bytes.
    ///
    /// # Errors
    /// ESTALE when there is no such file any more.
    pub fn attr(&self, ino: u64) -> Result<(Meta, u64), Fault> {
        let mut inner = self.inner.lock();
        let file = inner.files.get_mut(&ino).ok_or(Errno::ESTALE)?;
        if let (Unsaved::Clean, Some(name)) = (file.unsaved, &file.name)
            && let Some((meta, stamp)) = disk::look(&self.path(name))?
        {
            file.meta = meta;
            if file.handles == 0 && file.stamp != Some(stamp) {
                (file.content, file.stamp) = (None, Some(stamp));
            }
        }
        Ok((file.meta, file.size()))
    }

    /// Creates a file and opens it for writing.
    ///
    /// # Errors
    /// EEXIST, ENOSPC above [`MAX_SCRATCH`] scratch files, ENAMETOOLONG, EPERM for the name of a virtual file.
    pub fn create(&self, name: &str, meta: Meta) -> Result<u64, Fault> {
        let mut inner = self.inner.lock();
        self.check_name(name)?;
        if self.find(&mut inner, name)?.is_some() {
            return Err(Errno::EEXIST.into());
        }
        if deploy_of(name).is_none() {
            self.check_scratch_room(&inner)?;
        }
        let ino = self.fresh_ino(&inner, name);
        let file = SpecFile {
            name: Some(name.to_owned()),
            content: Some(Vec::new()),
            stamp: None,
            meta,
            unsaved: Unsaved::Emptied,
            handles: 1,
            writers: 1,
            known: false,
        };
        inner.files.insert(ino, file);
        inner.names.insert(name.to_owned(), ino);
        Ok(ino)
    }

    fn check_scratch_room(&self, inner: &Inner) -> Result<(), Fault> {
        let scratch = self.names(inner)?.iter().filter(|name| deploy_of(name).is_none()).count();
        if scratch < MAX_SCRATCH {
            return Ok(());
        }
        Err(Fault::new(
            Errno::ENOSPC,
            format!(
                "{}/ holds {scratch} scratch files already\nhint: a spec is called NAME.ron, with NAME of \
                 lower-case letters, digits and '-'; remove what is not needed",
                spec_dir_name(self.dir)
            ),
        ))
    }

    pub(super) fn check_name(&self, name: &str) -> Result<(), Fault> {
        if name.len() > 255 {
            return Err(Errno::ENAMETOOLONG.into());
        }
        if !is_file_name(name) || ViewFile::split(name).is_some_and(|(_, view)| view.is_in(self.dir)) {
            return Err(Fault::new(
                Errno::EPERM,
                format!("{}/{name} is made by zed and cannot be written", spec_dir_name(self.dir)),
            ));
        }
        Ok(())
    }

    /// Opens a file. Its content is in memory from here on.
    ///
    /// # Errors
    /// ESTALE when there is no such file any more; what reading the real file fails with.
    pub fn open_file(&self, ino: u64, write: bool) -> Result<(), Fault> {
        let mut inner = self.inner.lock();
        self.load(&mut inner, ino)?;
        let file = inner.files.get_mut(&ino).ok_or(Errno::ESTALE)?;
        file.handles += 1;
        file.writers += u32::from(write);
        Ok(())
    }

    /// Brings the content into memory; again when the real file is another one now and nobody reads it.
    pub(super) fn load(&self, inner: &mut Inner, ino: u64) -> Result<(), Fault> {
        let file = inner.files.get_mut(&ino).ok_or(Errno::ESTALE)?;
        if file.unsaved != Unsaved::Clean {
            return Ok(());
        }
        let Some(name) = &file.name else {
            return if file.content.is_some() { Ok(()) } else { Err(Errno::ESTALE.into()) };
        };
        let path = self.path(name);
        let now = disk::look(&path)?;
        let same = now.is_some_and(|(_, stamp)| file.stamp == Some(stamp));
        if file.content.is_none() || (!same && file.handles == 0) {
            let (meta, stamp) = now.ok_or(Errno::ENOENT)?;
            file.content = Some(disk::read(&path, MAX_SPEC)?);
            (file.meta, file.stamp) = (meta, Some(stamp));
        }
        Ok(())
    }

    /// Reads from the content, unsaved changes included.
    ///
    /// # Errors
    /// ESTALE when there is no such file any more.
    pub fn read(&self, ino: u64, offset: u64, size: usize) -> Result<Vec<u8>, Fault> {
        let inner = self.inner.lock();
        let file = inner.files.get(&ino).ok_or(Errno::ESTALE)?;
        let content = file.content.as_deref().unwrap_or_default();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let end = start.saturating_add(size).min(content.len());
        Ok(content.get(start..end).unwrap_or_default().to_vec())
    }

    /// Writes into the content; at its end when there is no offset.
    ///
    /// # Errors
    /// EFBIG above [`MAX_SPEC`].
    pub fn write(&self, ino: u64, offset: u64, data: &[u8]) -> Result<usize, Fault> {
        let mut inner = self.inner.lock();
        let file = inner.files.get_mut(&ino).ok_or(Errno::ESTALE)?;
        file.write(offset, data).map_err(|errno| too_big(errno, self.dir, file))?;
        Ok(data.len())
    }

    /// Cuts or extends; a change that no open handle will close is saved at once.
    ///
    /// # Errors
    /// EFBIG above [`MAX_SPEC`]; what saving fails with.
    pub fn resize(&self, ino: u64, size: u64) -> Result<(), Fault> {
        let mut inner = self.inner.lock();
        self.load(&mut inner, ino)?;
        let file = inner.files.get_mut(&ino).ok_or(Errno::ESTALE)?;
        file.resize(size).map_err(|errno| too_big(errno, self.dir, file))?;
        let alone = file.writers == 0;
        drop(inner);
        if alone { self.save(ino) } else { Ok(()) }
    }

    /// Changes mode, owner or times, of the real file too.
    ///
    /// # Errors
    /// EPERM when the daemon may not do that.
    pub fn set_meta(&self, ino: u64, change: impl FnOnce(&mut Meta)) -> Result<(), Fault> {
        let mut inner = self.inner.lock();
        let file = inner.files.get_mut(&ino).ok_or(Errno::ESTALE)?;
        let mut meta = file.meta;
        change(&mut meta);
        if let (Some(name), Some(_)) = (&file.name, &file.stamp) {
            let path = self.path(name);
            disk::change(&path, &file.meta, &meta)?;
            if file.unsaved == Unsaved::Clean
                && let Some((_, stamp)) = disk::look(&path)?
            {
                file.stamp = Some(stamp);
            }
        }
        file.meta = meta;
        Ok(())
    }

    /// The deploy that the file declares, when it is a spec that still has its name.
    pub fn deploy(&self, ino: u64) -> Option<String> {
        let inner = self.inner.lock();
        let name = inner.files.get(&ino)?.name.as_deref()?;
        deploy_of(name).map(str::to_owned)
    }

    /// The kernel knows the number from here on.
    pub fn remember(&self, ino: u64) {
        if let Some(file) = self.inner.lock().files.get_mut(&ino) {
            file.known = true;
        }
    }

    /// The kernel does not know the number any more.
    pub fn forget(&self, ino: u64) {
        let mut inner = self.inner.lock();
        let Some(file) = inner.files.get_mut(&ino) else { return };
        file.known = false;
        if file.handles > 0 || file.unsaved != Unsaved::Clean {
            return;
        }
        if let Some(name) = inner.files.remove(&ino).and_then(|file| file.name) {
            inner.names.remove(&name);
        }
    }

    /// Removes a file. A spec stays declared for the grace, and longer when it comes back in that time.
    ///
    /// # Errors
    /// ENOENT; what removing the real file fails with.
    pub fn unlink(&self, name: &str) -> Result<(), Fault> {
        let mut inner = self.inner.lock();
        let ino = self.find(&mut inner, name)?.ok_or(Errno::ENOENT)?;
        if inner.files.get(&ino).is_some_and(|file| file.handles > 0) {
            self.load(&mut inner, ino)?;
        }
        self.take_away(&mut inner, name)?;
        inner.detach(name);
        Ok(())
    }

    /// Takes a real file away: scratch at once, a spec when its grace has ended.
    pub(super) fn take_away(&self, inner: &mut Inner, name: &str) -> io::Result<()> {
        let path = self.path(name);
        if deploy_of(name).is_none() {
            disk::remove(&path, false)?;
        } else if disk::look(&path)?.is_some() {
            inner.leaving.insert(name.to_owned(), Instant::now() + self.settings.grace);
        }
        Ok(())
    }

    /// Ends the grace of specs that went away and have not come back. Gives the time of the next.
    pub fn settle(&self, now: Instant) -> Option<Instant> {
        let mut inner = self.inner.lock();
        let due: Vec<String> =
            inner.leaving.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        let mut gone = Vec::new();
        for name in due {
            if inner.names.contains_key(&name) {
                // It is being written again: the save will replace the real file.
                inner.leaving.insert(name, now + self.settings.grace);
                continue;
            }
            match disk::remove(&self.path(&name), true) {
                Ok(_) => {
                    inner.leaving.remove(&name);
                    gone.push(name);
                }
                Err(error) => {
                    tracing::error!(spec = %name, %error, "a spec that was removed stays, because its file does");
                    inner.leaving.insert(name, now + self.settings.grace);
                }
            }
        }
        let next = inner.leaving.values().min().copied();
        drop(inner);
        for name in &gone {
            self.announce(name);
        }
        next
    }

    /// Removes scratch files that nobody has touched for long.
    pub fn sweep(&self, now: SystemTime) {
        let inner = self.inner.lock();
        let Ok(entries) = fs::read_dir(self.real.join(SCRATCH_DIR)) else { return };
        for entry in entries.flatten() {
            let open = entry.file_name().to_str().is_some_and(|name| inner.names.contains_key(name));
            let modified = entry.metadata().and_then(|found| found.modified());
            let age = modified.ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
            if !open
                && age > self.settings.scratch_age
                && let Err(error) = disk::remove(&entry.path(), false)
            {
                tracing::warn!(file = %entry.path().display(), %error, "an old scratch file stays");
            }
        }
    }
}

impl Inner {
    /// Takes the name from its file, which stays for those that have it open.
    pub(super) fn detach(&mut self, name: &str) {
        let Some(ino) = self.names.remove(name) else { return };
        let Some(file) = self.files.get_mut(&ino) else { return };
        file.name = None;
        file.stamp = None;
        // There is no name that it could be saved under.
        file.unsaved = Unsaved::Clean;
        if file.handles == 0 {
            file.content = None;
        }
        if file.is_lost() {
            self.files.remove(&ino);
        }
    }
}

pub(super) fn too_big(errno: Errno, dir: SpecDir, file: &SpecFile) -> Fault {
    let name = file.name.as_deref().unwrap_or("a removed file");
    Fault::new(errno, format!("{}/{name}: a spec has at most {MAX_SPEC} bytes", spec_dir_name(dir)))
}

/// True for what can be a file here at all: our own folders and temporary names cannot.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name != SCRATCH_DIR
        && !name.starts_with(COMMIT_PREFIX)
        && !name.contains('/')
        && name != "."
        && name != ".."
}
