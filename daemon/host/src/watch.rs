//! Notices at once what apps and their supervisors do by themselves, so that the daemon need not wait for its timer.
//!
//! A supervisor replaces `status.json` when something happens to its app, and the kernel closes its `lock` when the
//! supervisor ends, however it ends: one watch on each app's folder sees both. What a daemon asked for (a start, a
//! stop) is not told: whoever asked knows. Only says that it is worth looking; decides nothing.

use crate::local::LocalHost;
use crate::local::Look;
use crate::record::State;
use std::collections::BTreeMap;
use std::io;
use zed_plan::Instance;
use zed_plan::ProcessStatus;

/// What was seen of each app: its status, and its restarts.
type Seen = BTreeMap<Instance, (ProcessStatus, u32)>;

impl LocalHost {
    /// Calls `changed` whenever an app or its supervisor has done something that nobody asked for. Does not return
    /// while watching works.
    ///
    /// # Errors
    ///
    /// When this system cannot watch, or not so many folders: a timer has to do.
    pub fn watch(&self, changed: &mut dyn FnMut(&Instance)) -> io::Result<()> {
        let mut seen = Seen::new();
        self.watch_folders(&mut |instance, first| {
            let Ok(look) = self.look(instance) else { return };
            if self.is_news(&mut seen, instance, &look) && !first {
                changed(instance);
            }
        })
    }

    /// Remembers the look. True when it shows something new that nobody asked for.
    fn is_news(&self, seen: &mut Seen, instance: &Instance, look: &Look) -> bool {
        let Some(info) = self.info(look) else {
            seen.remove(instance);
            return false;
        };
        let now = (info.observed.status, info.restarts);
        let news = seen.get(instance) != Some(&now);
        seen.insert(instance.clone(), now);
        news && by_itself(look)
    }
}

/// Is the app in a state that it came to by itself?
fn by_itself(look: &Look) -> bool {
    let supervised = look.supervisor.is_some();
    match &look.record {
        None => false,
        Some(Err(_)) => true,
        Some(Ok(record)) => match record.state {
            State::Starting | State::Stopping => !supervised,
            State::Running => !supervised || record.restarts > 0,
            State::Backoff | State::Completed | State::Failed(_) | State::Interrupted => true,
            State::Stopped => false,
        },
    }
}

#[cfg(target_os = "linux")]
mod folders {
    use super::Instance;
    use super::LocalHost;
    use super::io;
    use inotify::EventMask;
    use inotify::Inotify;
    use inotify::WatchDescriptor;
    use inotify::WatchMask;
    use std::collections::HashMap;
    use std::os::unix::fs::DirBuilderExt;

    /// The names that tell something in an app's folder.
    const TELLING: [&str; 2] = ["status.json", "lock"];

    impl LocalHost {
        /// Calls `look` for each app that is there, with true, and whenever a file of one tells something.
        pub(super) fn watch_folders(&self, look: &mut dyn FnMut(&Instance, bool)) -> io::Result<()> {
            let root = self.apps_folder();
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
            let mut inotify = Inotify::init()?;
            let watches = inotify.watches();
            watches.clone().add(root, WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR)?;
            let mut folders: HashMap<WatchDescriptor, Instance> = HashMap::new();
            let add = |name: &str, folders: &mut HashMap<_, _>| -> io::Result<Option<Instance>> {
                let Ok(instance) = name.parse::<Instance>() else { return Ok(None) };
                let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
                match watches.clone().add(root.join(name), mask) {
                    Ok(watch) => {
                        folders.insert(watch, instance.clone());
                        Ok(Some(instance))
                    }
                    // It is gone again, or no folder.
                    Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                        Ok(None)
                    }
                    Err(e) => Err(e),
                }
            };
            for entry in std::fs::read_dir(root)? {
                if let Some(name) = entry?.file_name().to_str()
                    && let Some(instance) = add(name, &mut folders)?
                {
                    look(&instance, true);
                }
            }
            let mut buffer = [0; 4096];
            loop {
                for event in inotify.read_events_blocking(&mut buffer)? {
                    if event.mask.contains(EventMask::Q_OVERFLOW) {
                        folders.values().for_each(|instance| look(instance, false));
                        continue;
                    }
                    if event.mask.contains(EventMask::IGNORED) {
                        folders.remove(&event.wd);
                        continue;
                    }
                    let Some(name) = event.name.and_then(|name| name.to_str()) else { continue };
                    match folders.get(&event.wd) {
                        Some(instance) if TELLING.contains(&name) => look(instance, false),
                        Some(_) => {}
                        // Of what happened in it before it was watched, the last thing counts.
                        None => {
                            if let Some(instance) = add(name, &mut folders)? {
                                look(&instance, false);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl LocalHost {
    fn watch_folders(&self, _look: &mut dyn FnMut(&Instance, bool)) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no inotify"))
    }
}
