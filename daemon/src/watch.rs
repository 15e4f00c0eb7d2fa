//! Wakes the loop when a spec is placed in the state directory by other means than the tree (git, rsync, cp), and
//! when an app or its supervisor ends by itself.
//!
//! Only a wake-up: the loop looks itself. Where there is no inotify the drift timer finds the same.

use crate::shared::Shared;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zed_host::LocalHost;

/// A wake-up for several apps that end at once, not one for each.
const PAUSE: Duration = Duration::from_millis(50);

/// Starts watching the apps. Failing to is said in the log, and costs only time: the timer looks as well.
pub(crate) fn start_apps(host: Arc<LocalHost>, shared: Arc<Shared>) {
    let started = std::thread::Builder::new().name("watch-apps".to_owned()).spawn(move || {
        let watched = host.watch(&mut |_| {
            shared.wake();
            std::thread::sleep(PAUSE);
        });
        if let Err(error) = watched {
            tracing::warn!(%error, "the apps are not watched; they are looked at when the drift timer runs");
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "no thread to watch the apps");
    }
}

/// Starts watching the folders of specs. Failing to is said in the log, and costs only time: the timer looks as well.
pub(crate) fn start(folders: Vec<PathBuf>, shared: Arc<Shared>) {
    let started = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        if let Err(error) = watch(&folders, &shared) {
            tracing::warn!(%error, "the spec folders are not watched; they are looked at when the drift timer runs");
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "no thread to watch the spec folders");
    }
}

#[cfg(target_os = "linux")]
fn watch(folders: &[PathBuf], shared: &Shared) -> std::io::Result<()> {
    use inotify::WatchMask;
    let mut inotify = inotify::Inotify::init()?;
    // Writers that replace a file whole end in CLOSE_WRITE or MOVED_TO; a half-written file is never announced.
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
    for folder in folders {
        inotify.watches().add(folder, mask)?;
    }
    let mut buffer = [0; 4096];
    loop {
        let events = inotify.read_events_blocking(&mut buffer)?;
        let relevant = events
            .filter_map(|event| event.name)
            .any(|name| name.to_str().is_some_and(|name| name.ends_with(".ron") && !name.starts_with('.')));
        if relevant {
            shared.wake();
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn watch(_folders: &[PathBuf], _shared: &Shared) -> std::io::Result<()> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "this system has no inotify"))
}
