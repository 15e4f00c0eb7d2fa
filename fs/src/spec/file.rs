//! One file of a spec folder as clients see it: its content in memory while it is open or unsaved.
//!
//! Knows the rules of when a change is a save; touches no disk.

use super::MAX_SPEC;
use super::disk::Meta;
use super::disk::Stamp;
use nix::errno::Errno;
use std::time::SystemTime;

/// What is in memory and not in the real file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsaved {
    /// Nothing.
    Clean,
    /// It was created or cut to nothing, and nothing was written since. A `FLUSH` in this state is the one
    /// that comes before any data (`echo x > file`), so only the last close makes it an empty file.
    Emptied,
    /// Content that the next flush, fsync or close saves.
    Dirty,
    /// A write went beyond the limit: what is in memory is not what the client meant and is never saved. The
    /// last close forgets it.
    Overflown,
}

/// A file that a client knows, or that has something unsaved.
#[derive(Debug)]
pub(crate) struct SpecFile {
    /// Its name; none after it was removed or replaced.
    pub(crate) name: Option<String>,
    /// The content; none when it is only in the real file.
    pub(crate) content: Option<Vec<u8>>,
    /// The real file that the content was read from or saved to; none when there is no real file yet.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) meta: Meta,
    pub(crate) unsaved: Unsaved,
    pub(crate) handles: u32,
    pub(crate) writers: u32,
    /// The kernel knows the number.
    pub(crate) known: bool,
}

impl SpecFile {
    /// Nobody can reach it any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.name.is_none() && self.handles == 0 && !self.known
    }

    /// Bytes that a read would give now.
    pub(crate) fn size(&self) -> u64 {
        match (&self.content, &self.stamp) {
            (Some(content), _) => content.len() as u64,
            (None, Some(stamp)) => stamp.size(),
            (None, None) => 0,
        }
    }

    /// Writes into the content. A hole is filled with zeros.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(end) = start.checked_add(data.len()).filter(|end| *end <= MAX_SPEC) else {
            self.unsaved = Unsaved::Overflown;
            return Err(Errno::EFBIG);
        };
        if self.unsaved == Unsaved::Overflown {
            return Err(Errno::EFBIG);
        }
        let content = self.content.get_or_insert_default();
        if content.len() < end {
            content.resize(end, 0);
        }
        if let Some(place) = content.get_mut(start..end) {
            place.copy_from_slice(data);
        }
        self.changed(Unsaved::Dirty);
        Ok(())
    }

    /// Cuts or extends the content.
    pub(crate) fn resize(&mut self, size: u64) -> Result<(), Errno> {
        // A size that is refused changes nothing: nobody has written half of anything.
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_SPEC).ok_or(Errno::EFBIG)?;
        if self.unsaved == Unsaved::Overflown && size > 0 {
            return Err(Errno::EFBIG);
        }
        let content = self.content.get_or_insert_default();
        // O_TRUNC of an empty file that nobody changed is nothing new, but it does begin a save.
        content.resize(size, 0);
        self.changed(if size == 0 { Unsaved::Emptied } else { Unsaved::Dirty });
        Ok(())
    }

    fn changed(&mut self, unsaved: Unsaved) {
        self.unsaved = unsaved;
        self.meta.mtime = SystemTime::now();
    }
}
