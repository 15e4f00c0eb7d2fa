//! Wakes those who wait for a file to grow: inotify on Linux, a look every 200 ms elsewhere and for files whose
//! folder cannot be watched.
//!
//! One thread; it sleeps when nobody waits. Never reads the files itself.

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use parking_lot::Mutex;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// How often files without a watch are looked at, in milliseconds.
const TICK_MS: u16 = 200;

/// What a waiter says when it was woken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// It has what it waited for.
    Done,
    /// Not yet.
    Again,
}

struct Waiter {
    folder: PathBuf,
    until: Instant,
    wake: Box<dyn FnMut() -> Wake + Send>,
}

#[derive(Default)]
struct Waiters {
    all: Vec<Waiter>,
    watch: watch::Watch,
    /// Folders with a watch, and how many wait in each.
    watched: Vec<(PathBuf, watch::Id)>,
    closed: bool,
}

/// The waiters on all streams.
pub struct Hub {
    waiters: Arc<Mutex<Waiters>>,
    /// Closing it ends the thread; a byte makes it look again.
    bell: UnixStream,
}

impl Hub {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread or descriptor.
    pub fn start() -> io::Result<Arc<Self>> {
        let (bell, ear) = UnixStream::pair()?;
        ear.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        let waiters = Arc::new(Mutex::new(Waiters::default()));
        let listener = watch::Listener::open(&mut waiters.lock().watch)?;
        let shared = Arc::clone(&waiters);
        std::thread::Builder::new()
            .name("zed-streams".to_owned())
            .spawn(move || listen(&shared, listener, ear))?;
        Ok(Arc::new(Self { waiters, bell }))
    }

    /// Calls `wake` whenever the file may have changed, until it is done or the time has come; once at once,
    /// for what happened before the watch was there.
    pub(super) fn subscribe(&self, path: &Path, until: Instant, wake: Box<dyn FnMut() -> Wake + Send>) {
        let folder = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let mut waiters = self.waiters.lock();
        let now = Instant::now();
        waiters.all.retain(|waiter| waiter.until > now);
        waiters.watch_folder(&folder);
        let mut waiter = Waiter { folder, until, wake };
        if (waiter.wake)() == Wake::Again {
            waiters.all.push(waiter);
        }
        drop(waiters);
        // A full pipe means that the thread has been told already.
        let _ = (&self.bell).write(&[1]);
    }

    /// How many wait; those whose client was interrupted count until the next news.
    pub fn waiting(&self) -> usize {
        self.waiters.lock().all.len()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.waiters.lock().closed = true;
        let _ = (&self.bell).write(&[1]);
    }
}

impl Waiters {
    fn watch_folder(&mut self, folder: &Path) {
        if self.watched.iter().any(|(known, _)| known == folder) {
            return;
        }
        if let Some(id) = self.watch.add(folder) {
            self.watched.push((folder.to_path_buf(), id));
        }
    }

    fn is_watched(&self, folder: &Path) -> bool {
        self.watched.iter().any(|(known, _)| known == folder)
    }

    /// Wakes all: there are few, and what they do when nothing has changed is one `fstat`.
    fn wake(&mut self) {
        let now = Instant::now();
        self.all.retain_mut(|waiter| waiter.until > now && (waiter.wake)() == Wake::Again);
    }

    /// Lets go of folders in which nobody waits; gives how long to sleep.
    fn tidy(&mut self) -> PollTimeout {
        let (all, watch) = (&self.all, &mut self.watch);
        self.watched.retain(|(folder, id)| {
            let needed = all.iter().any(|waiter| waiter.folder == *folder);
            if !needed {
                watch.remove(id);
            }
            needed
        });
        if self.all.iter().all(|waiter| self.is_watched(&waiter.folder)) {
            PollTimeout::NONE
        } else {
            PollTimeout::from(TICK_MS)
        }
    }
}

fn listen(waiters: &Mutex<Waiters>, mut listener: watch::Listener, mut ear: UnixStream) {
    let mut sleep = PollTimeout::NONE;
    loop {
        let mut fds = vec![PollFd::new(ear.as_fd(), PollFlags::POLLIN)];
        fds.extend(listener.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match nix::poll::poll(&mut fds, sleep) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "streams are no longer watched");
                return;
            }
        }
        drop(fds);
        let mut rings = [0; 64];
        while matches!(ear.read(&mut rings), Ok(count) if count > 0) {}
        let lost = listener.drain();
        let mut waiters = waiters.lock();
        if waiters.closed {
            return;
        }
        // A folder that was removed takes its watch along.
        waiters.watched.retain(|(_, id)| !lost.contains(id));
        waiters.wake();
        sleep = waiters.tidy();
    }
}

#[cfg(target_os = "linux")]
mod watch {
    //! inotify on the folder of a stream, so that a replaced file is seen too.

    use inotify::EventMask;
    use inotify::Inotify;
    use inotify::WatchDescriptor;
    use inotify::WatchMask;
    use inotify::Watches;
    use std::io;
    use std::os::fd::AsFd;
    use std::os::fd::BorrowedFd;
    use std::path::Path;

    /// One watch.
    pub(super) type Id = WatchDescriptor;

    /// Adds and removes watches.
    #[derive(Default)]
    pub(super) struct Watch {
        watches: Option<Watches>,
    }

    impl Watch {
        pub(super) fn add(&mut self, folder: &Path) -> Option<Id> {
            let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
            self.watches.as_mut()?.add(folder, mask).ok()
        }

        pub(super) fn remove(&mut self, id: &Id) {
            if let Some(watches) = &mut self.watches {
                // It may be gone with its folder.
                let _ = watches.remove(id.clone());
            }
        }
    }

    /// Hears of changes.
    pub(super) struct Listener {
        inotify: Inotify,
        buffer: Vec<u8>,
    }

    impl Listener {
        pub(super) fn open(watch: &mut Watch) -> io::Result<Self> {
            let inotify = Inotify::init()?;
            watch.watches = Some(inotify.watches());
            Ok(Self { inotify, buffer: vec![0; 16 * 1024] })
        }

        pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
            Some(self.inotify.as_fd())
        }

        /// Takes all events; gives the watches that are gone.
        pub(super) fn drain(&mut self) -> Vec<Id> {
            let mut lost = Vec::new();
            while let Ok(events) = self.inotify.read_events(&mut self.buffer) {
                let mut any = false;
                for event in events {
                    any = true;
                    if event.mask.contains(EventMask::IGNORED) {
                        lost.push(event.wd.clone());
                    }
                }
                if !any {
                    break;
                }
            }
            lost
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod watch {
    //! No watch: every stream is looked at on each tick.

    use std::io;
    use std::os::fd::BorrowedFd;
    use std::path::Path;

    /// There are none.
    pub(super) type Id = std::convert::Infallible;

    /// Adds nothing.
    #[derive(Default)]
    pub(super) struct Watch;

    impl Watch {
        pub(super) fn add(&mut self, _folder: &Path) -> Option<Id> {
            None
        }

        pub(super) fn remove(&mut self, id: &Id) {
            match *id {}
        }
    }

    /// Hears nothing.
    pub(super) struct Listener;

    impl Listener {
        pub(super) fn open(_watch: &mut Watch) -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        pub(super) fn drain(&mut self) -> Vec<Id> {
            Vec::new()
        }
    }
}
