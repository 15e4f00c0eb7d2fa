//! The file behind `/zed/events`: one line an event, appended, rotated once.
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

/// The file becomes `events.1` when it is longer than this, in bytes.
const ROTATE_AT: u64 = 8 << 20;

/// Appends events.
pub struct Events {
    path: PathBuf,
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
        Ok(Self { path: path.to_owned(), inner: Mutex::new(Inner { file, length, seq }) })
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
        if let Err(error) = inner.append(&self.path, event.render().as_bytes()) {
            tracing::error!(%error, kind = %event.kind, text, "an event could not be written");
        }
    }
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
}
