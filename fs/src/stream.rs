//! Streams: `events`, `log` and the logs of apps, files that others append to.
//!
//! A read at the end waits for news; a quiet stream ends after [`QUIET`]. Replacing or cutting the real file
//! (log rotation) is followed by an open handle without losing its place. Owns the watch on the real files;
//! never writes to them.

mod hub;

pub use hub::Hub;
use hub::Wake;

use crate::wait::Chunk;
use crate::wait::Finish;
use crate::wait::Late;
use crate::wait::Step;
use crate::wait::Waiting;
use nix::errno::Errno;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

/// How long a blocking read at the end waits for news before it gives end of file, so that what reads every
/// file of a tree comes to an end. `tail -f` and pollers follow for ever.
pub const QUIET: Duration = Duration::from_secs(10);

/// The most bytes that one read gives.
pub(crate) const MAX_READ: usize = 1 << 20;

/// One open stream.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    file: Option<File>,
    /// Offset, as the reader counts, at which the present real file begins.
    base: u64,
    /// Where the last read ended, as the reader counts.
    end: u64,
    /// The handle was polled: at the end a non-blocking read says EAGAIN, not end of file.
    polled: bool,
    /// A poller waits already.
    armed: bool,
}

impl Stream {
    /// Opens a stream. The real file may be made later.
    pub fn open(path: &Path) -> Self {
        let place = Place { file: File::open(path).ok(), ..Place::default() };
        Self { path: path.to_path_buf(), place: Mutex::new(place) }
    }

    /// Reads what is there; nothing at the end.
    ///
    /// # Errors
    /// What reading the real file fails with.
    pub fn read_now(&self, offset: u64, size: usize) -> io::Result<Option<Vec<u8>>> {
        self.place.lock().read(&self.path, offset, size.min(MAX_READ))
    }

    /// A read, as the reader asked for it.
    pub fn read(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        offset: u64,
        size: usize,
        nonblock: bool,
        quiet: Duration,
    ) -> Step<Chunk> {
        match self.read_now(offset, size) {
            Err(error) => Step::Done(Err(error.into())),
            Ok(Some(bytes)) => Step::Done(Ok(Chunk::Own(bytes))),
            Ok(None) if nonblock && self.place.lock().polled => Step::Done(Err(Errno::EAGAIN.into())),
            // One that never polls is a walker, `grep -r` for one: a file that ends is what it expects.
            Ok(None) if nonblock => Step::Done(Ok(Chunk::empty())),
            Ok(None) => {
                let (stream, hub) = (Arc::clone(self), Arc::clone(hub));
                Step::Wait(Waiting {
                    start: Box::new(move |finish| stream.follow(&hub, offset, size, quiet, finish)),
                    limit: quiet,
                    late: Late::Value(Chunk::empty()),
                })
            }
        }
    }

    fn follow(self: Arc<Self>, hub: &Hub, offset: u64, size: usize, quiet: Duration, finish: Finish<Chunk>) {
        let path = self.path.clone();
        let mut finish = Some(finish);
        let wake = move || {
            let result = match self.read_now(offset, size) {
                Ok(None) => return Wake::Again,
                Ok(Some(bytes)) => Ok(Chunk::Own(bytes)),
                Err(error) => Err(error.into()),
            };
            if let Some(finish) = finish.take() {
                finish(result);
            }
            Wake::Done
        };
        hub.subscribe(&path, Instant::now() + quiet, Box::new(wake));
    }

    /// True when a read where the last one ended would give something.
    pub fn ready(&self) -> bool {
        let mut place = self.place.lock();
        place.polled = true;
        place.has_news(&self.path)
    }

    /// Calls `notify` once when there is news. A second poller of the same handle shares the first one's
    /// call, because the kernel wakes all of them.
    pub fn when_ready(self: &Arc<Self>, hub: &Hub, notify: Box<dyn FnOnce() + Send>) {
        if std::mem::replace(&mut self.place.lock().armed, true) {
            return;
        }
        let stream = Arc::downgrade(self);
        let mut notify = Some(notify);
        let wake = move || {
            let Some(stream) = stream.upgrade() else { return Wake::Done };
            if !stream.ready() {
                return Wake::Again;
            }
            stream.place.lock().armed = false;
            if let Some(notify) = notify.take() {
                notify();
            }
            Wake::Done
        };
        // Pollers wait as long as they like; the handle's end ends this too.
        let forever = Instant::now() + Duration::from_secs(365 * 24 * 60 * 60);
        hub.subscribe(&self.path, forever, Box::new(wake));
    }
}

impl Place {
    fn read(&mut self, path: &Path, offset: u64, size: usize) -> io::Result<Option<Vec<u8>>> {
        if offset < self.base {
            // The reader went back to before the present file: it counts anew, from this one's begin.
            self.base = 0;
        }
        self.reopen_if_needed(path, offset)?;
        let Some(file) = &self.file else { return Ok(None) };
        let mut bytes = vec![0; size];
        let count = file.read_at(&mut bytes, offset - self.base)?;
        if count == 0 {
            return Ok(None);
        }
        bytes.truncate(count);
        self.end = offset + count as u64;
        Ok(Some(bytes))
    }

    /// Goes over to the new real file when the old one was read to its end and is replaced or cut.
    fn reopen_if_needed(&mut self, path: &Path, offset: u64) -> io::Result<()> {
        let Some(file) = &self.file else {
            self.file = File::open(path).ok();
            return Ok(());
        };
        let here = file.metadata()?;
        let at = offset - self.base;
        if here.len() > at {
            return Ok(());
        }
        let continues = offset == self.end;
        if here.len() < at {
            if continues {
                self.base = offset;
            }
            return Ok(());
        }
        let replaced =
            std::fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) != (here.dev(), here.ino()));
        // A last word may have come between the two looks: the old file is read to its end first.
        if replaced && file.metadata()?.len() == at && (continues || at == here.len()) {
            self.file = File::open(path).ok();
            self.base = offset;
        }
        Ok(())
    }

    fn has_news(&mut self, path: &Path) -> bool {
        let end = self.end;
        if self.reopen_if_needed(path, end).is_err() {
            // The read will say what is wrong.
            return true;
        }
        let length = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |found| found.len());
        self.base + length > end
    }
}
