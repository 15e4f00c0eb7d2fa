//! Renames inside a spec folder: how most tools save, and how editors keep backups.
//!
//! A rename onto a spec's name is a save and is judged before anything moves. A rename of a spec to another
//! name removes the spec, a little later (see [`super::SpecSettings::grace`]).

use super::disk;
use super::disk::Meta;
use super::file::Unsaved;
use super::folder::Inner;
use super::folder::SpecFolder;
use crate::Fault;
use crate::tree::deploy_of;
use nix::errno::Errno;

/// One side of a rename, as it is before.
struct Side {
    ino: u64,
    name: String,
    content: Vec<u8>,
    meta: Meta,
}

impl SpecFolder {
    /// Renames `from` to `to`; `exclusive` refuses to replace (`RENAME_NOREPLACE`).
    ///
    /// # Errors
    /// ENOENT, EEXIST; EBADMSG when `to` is a spec's name and the content does not parse: both files stay
    /// as they were.
    pub fn rename(&self, from: &str, to: &str, exclusive: bool) -> Result<(), Fault> {
        let mut inner = self.inner.lock();
        self.check_name(to)?;
        let source = self.side(&mut inner, from)?;
        if from == to {
            return Ok(());
        }
        let target = self.find(&mut inner, to)?;
        if exclusive && target.is_some() {
            return Err(Errno::EEXIST.into());
        }
        self.judge(&source, to)?;
        if let Some(target) = target
            && inner.files.get(&target).is_some_and(|file| file.handles > 0)
        {
            self.load(&mut inner, target)?;
        }
        inner.names.remove(from);
        inner.detach(to);
        self.move_to(&mut inner, &source, to)?;
        self.take_away(&mut inner, from)?;
        drop(inner);
        self.announce(to);
        Ok(())
    }

    /// Swaps two files (`RENAME_EXCHANGE`).
    ///
    /// # Errors
    /// ENOENT; EBADMSG as for a rename, for either of the two.
    pub fn exchange(&self, one: &str, other: &str) -> Result<(), Fault> {
        let mut inner = self.inner.lock();
        let first = self.side(&mut inner, one)?;
        let second = self.side(&mut inner, other)?;
        if one == other {
            return Ok(());
        }
        self.judge(&first, other)?;
        self.judge(&second, one)?;
        inner.names.remove(one);
        inner.names.remove(other);
        self.move_to(&mut inner, &first, other)?;
        self.move_to(&mut inner, &second, one)?;
        drop(inner);
        self.announce(one);
        self.announce(other);
        Ok(())
    }

    /// The content of a file that is about to be renamed by nobody: for a plan moved into `deploy/`.
    ///
    /// # Errors
    /// ENOENT.
    pub fn content_of(&self, name: &str) -> Result<Vec<u8>, Fault> {
        Ok(self.side(&mut self.inner.lock(), name)?.content)
    }

    fn side(&self, inner: &mut Inner, name: &str) -> Result<Side, Fault> {
        let ino = self.find(inner, name)?.ok_or(Errno::ENOENT)?;
        self.load(inner, ino)?;
        let file = inner.files.get(&ino).ok_or(Errno::ENOENT)?;
        Ok(Side {
            ino,
            name: name.to_owned(),
            content: file.content.clone().unwrap_or_default(),
            meta: file.meta,
        })
    }

    fn judge(&self, side: &Side, to: &str) -> Result<(), Fault> {
        match deploy_of(to) {
            Some(deploy) => self.control.check_spec(self.dir, deploy, &side.content).map_err(|mut error| {
                self.refused.lock().insert(deploy.to_owned(), error.render().into_bytes().into());
                error.message = format!("{} cannot become {to}: {}", side.name, error.message);
                error.into()
            }),
            None => Ok(()),
        }
    }

    /// Places the file under its new name; unsaved changes go with it.
    fn move_to(&self, inner: &mut Inner, side: &Side, to: &str) -> Result<(), Fault> {
        let path = self.path(to);
        let placed =
            disk::place(&self.temporary(side.ino), &path, &side.content, &side.meta, deploy_of(to).is_some());
        if let Err(error) = placed {
            // Nothing has moved: the name goes back to its file.
            inner.names.insert(side.name.clone(), side.ino);
            return Err(error.into());
        }
        inner.leaving.remove(to);
        inner.names.insert(to.to_owned(), side.ino);
        if let Some(file) = inner.files.get_mut(&side.ino) {
            file.name = Some(to.to_owned());
            file.unsaved = Unsaved::Clean;
            file.stamp = disk::look(&path)?.map(|(_, stamp)| stamp);
            if file.handles == 0 {
                file.content = None;
            }
        }
        Ok(())
    }
}
