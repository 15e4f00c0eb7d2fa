//! The file behind `/zed/events`: one line an event, appended, rotated once; and one such file for each app.
//!
//! Events tell people and scripts what happened; nothing in zed reads them back to decide anything.

use parking_lot::Mutex;
use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
use zed_ctl::Event;
use zed_ctl::EventKind;
use zed_spec::AppName;

/// The file becomes `events.1` when it is longer than this, in bytes.
const ROTATE_AT: u64 = 8 << 20;
/// The same for the file of an app.
const ROTATE_APP_AT: u64 = 1 << 20;

/// Appends events.
pub struct Events {
    path: PathBuf,
    /// The files of apps.
    apps: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: fs::File,
    length: u64,
    seq: u64,
}

/// What an event is about; empty texts are left out of the line.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The deploy.
    pub deploy: String,
    /// The app.
    pub app: String,
    /// The run.
    pub run: String,
}

impl About {
    /// Nothing in particular.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// A deploy.
    pub fn deploy(name: &str) -> Self {
        Self { deploy: name.to_owned(), ..Self::default() }
    }

    /// A run of a deploy.
    pub fn run(deploy: &str, run: &str) -> Self {
        Self { deploy: deploy.to_owned(), run: run.to_owned(), app: String::new() }
    }

    /// An app of a deploy.
    pub fn app(deploy: &str, app: &str) -> Self {
        Self { deploy: deploy.to_owned(), app: app.to_owned(), run: String::new() }
    }
}

impl Events {
    /// Opens the file and goes on counting where its last line ended.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        let seq = last_seq(path)?;
        let apps = path.with_extension("d");
        fs::create_dir_all(&apps)?;
        Ok(Self { path: path.to_owned(), apps, inner: Mutex::new(Inner { file, length, seq }) })
    }

    /// Appends one event. A disk that is full loses it, with a line in the log: no work stops for it.
    pub fn emit(&self, kind: EventKind, about: About, text: &str) {
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let mut inner = self.inner.lock();
        inner.seq += 1;
        let event = Event {
            at_ms: i64::try_from(at_ms).unwrap_or(i64::MAX),
            seq: inner.seq,
            kind,
            deploy: about.deploy,
            app: about.app,
            run: about.run,
            text: text.to_owned(),
        };
        let line = event.render();
        if let Err(error) = inner.append(&self.path, line.as_bytes()) {
            tracing::error!(%error, kind = %event.kind, text, "an event could not be written");
        }
        if let Ok(app) = AppName::parse(&event.app)
            && let Err(error) = append_rotated(&self.path_of_app(app.as_str()), line.as_bytes())
        {
            tracing::error!(%error, %app, text, "an event could not be written to the app's own file");
        }
    }

    /// The file behind `apps/APP/events`: the lines of `events` that name the app.
    pub fn path_of_app(&self, app: &str) -> PathBuf {
        self.apps.join(app)
    }

    /// The app is neither declared nor deployed any more: its events stay in the file of all.
    pub fn forget_app(&self, app: &str) {
        let path = self.path_of_app(app);
        for path in [path.with_extension("1"), path] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "the events of an app stay");
            }
        }
    }
}

/// Appends to a file that is not kept open: an app has few events.
fn append_rotated(path: &Path, line: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() > ROTATE_APP_AT) {
        fs::rename(path, path.with_extension("1"))?;
    }
    fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(line)
}

impl Inner {
    fn append(&mut self, path: &Path, line: &[u8]) -> io::Result<()> {
        if self.length > ROTATE_AT {
            fs::rename(path, path.with_extension("1"))?;
            self.file = fs::OpenOptions::new().create(true).append(true).open(path)?;
            self.length = 0;
        }
        self.file.write_all(line)?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// The number of the last whole line, 0 when there is none.
fn last_seq(path: &Path) -> io::Result<u64> {
    let text = fs::read(path)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().rev().find_map(|line| Event::parse(line).ok()).map_or(0, |event| event.seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        Events::open(&path).unwrap().emit(EventKind::DaemonStarted, About::nothing(), "one");
        Events::open(&path).unwrap().emit(EventKind::Drift, About::app("d", "a"), "two\nlines");
        let text = fs::read_to_string(&path).unwrap();
        let seqs: Vec<u64> = text.lines().map(|line| Event::parse(line).unwrap().seq).collect();
        assert_eq!(seqs, [1, 2]);
    }

    #[test]
    fn an_app_s_events_have_a_file_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let events = Events::open(&path).unwrap();
        for (app, text) in [("a", "one"), ("b", "two"), ("../a", "three"), ("", "four"), ("a", "five")] {
            events.emit(EventKind::Healthy, About::app("d", app), text);
        }
        let of = |app: &str| {
            let text = fs::read_to_string(events.path_of_app(app)).unwrap_or_default();
            text.lines().map(|line| Event::parse(line).unwrap().text).collect::<Vec<_>>()
        };
        assert_eq!((of("a"), of("b")), (vec!["one".into(), "five".into()], vec!["two".to_owned()]));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 5);
        events.forget_app("a");
        events.forget_app("a");
        assert_eq!((of("a"), of("b").len()), (vec![], 1));
    }
}
