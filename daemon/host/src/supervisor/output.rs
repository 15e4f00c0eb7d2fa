//! The app's log: its output line by line, and what the supervisor has to say.
//!
//! A line is `TIME SOURCE TEXT`: the time in RFC 3339 with milliseconds, UTC; the source `out` (stdout), `err`
//! (stderr) or `zed` (the supervisor); the text as the app wrote it, only that NUL is written `\0`. Nothing of the
//! output is dropped, except when the file cannot be written; then a `zed` line says which lines are missing.
//!
//! Every line has a number, one more than the line before it, over restarts, rotations and supervisors. The number
//! is not in each line: a file begins with a line that says its own number, and the rest is counted ([`numbers`]).

pub(crate) mod numbers;

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

/// A longer line is written in pieces of this size.
pub(crate) const MAX_LINE: usize = 64 * 1024;
/// Ends each piece of a line but the last.
pub(crate) const CONTINUES: &[u8] = b" ...[continues]";
/// The log is rotated when it has reached this.
pub(crate) const ROTATE_AT: u64 = 16 << 20;
/// Old logs kept: `log.1` (the newest) to `log.3`.
pub(crate) const KEEP: u32 = 3;

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn render_time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        since.subsec_millis()
    )
}

/// Year, month and day of a number of days since 1970: Howard Hinnant's `civil_from_days`, for days from 1970 on.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Appends lines that are not the supervisor's own, whoever holds the log open: in one piece, and whole. A supervisor
/// counts what it finds before it writes on.
pub(crate) fn note_lines(path: &Path, lines: &[String]) -> io::Result<()> {
    let time = render_time(SystemTime::now());
    let text: String =
        lines.iter().map(|line| format!("{time} zed {}\n", line.replace('\0', "\\0"))).collect();
    open(path)?.write_all(text.as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// The log of one app.
pub(crate) struct AppLog {
    path: PathBuf,
    file: File,
    size: u64,
    rotate_at: u64,
    buffer: Vec<u8>,
    /// Lines in the buffer.
    buffered: u64,
    /// The number of the next line.
    next: u64,
    /// The file does not say yet which number its next line has.
    mark_due: bool,
    /// The end of the file is not the end of a line.
    torn: bool,
    /// The number of the first line that could not be written, and why.
    lost: Option<(u64, String)>,
}

impl AppLog {
    pub(crate) fn open(path: PathBuf, rotate_at: u64) -> io::Result<Self> {
        let mut end = numbers::end_of(&path)?;
        if end.size == 0 {
            // A supervisor that was killed while it rotated.
            end.next = numbers::end_of(&old_log(&path, 1))?.next;
        }
        let file = open(&path)?;
        Ok(Self {
            path,
            file,
            size: end.size,
            rotate_at,
            buffer: Vec::new(),
            buffered: 0,
            next: end.next,
            mark_due: !end.marked || end.size == 0,
            torn: end.torn,
            lost: None,
        })
    }

    /// The number that the next line gets, or a higher one.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Adds a line; [`Self::flush`] writes it.
    pub(crate) fn add(&mut self, time: &str, source: &str, text: &[u8], continues: bool) {
        self.buffer.extend_from_slice(time.as_bytes());
        self.buffer.push(b' ');
        self.buffer.extend_from_slice(source.as_bytes());
        self.buffer.push(b' ');
        if text.contains(&0) {
            for byte in text {
                match byte {
                    0 => self.buffer.extend_from_slice(b"\\0"),
                    other => self.buffer.push(*other),
                }
            }
        } else {
            self.buffer.extend_from_slice(text);
        }
        if continues {
            self.buffer.extend_from_slice(CONTINUES);
        }
        self.buffer.push(b'\n');
        self.buffered += 1;
        self.next += 1;
    }

    /// Writes a line of the supervisor's own.
    pub(crate) fn note(&mut self, text: &str) {
        let time = render_time(SystemTime::now());
        self.add(&time, "zed", text.replace('\n', " ").as_bytes(), false);
        self.flush();
    }

    /// Writes what was added, and rotates when the file is large enough. The app is never held up by a log that
    /// cannot be written.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        self.look_at_file();
        let buffer = std::mem::take(&mut self.buffer);
        let lines = std::mem::take(&mut self.buffered);
        let first = self.next - lines;
        let due = self.mark_due || self.lost.is_some() || self.torn;
        let marked = if due { self.write_mark(first) } else { Ok(()) };
        // The mark may have taken a number.
        let first = self.next - lines;
        let written = marked.map_err(|e| (0, e)).and_then(|()| self.write(&buffer));
        if let Err((whole, error)) = written {
            let from = self.lost.take().map_or(first + whole, |(from, _)| from);
            self.lost = Some((from, error.to_string()));
        }
        self.buffer = buffer;
        self.buffer.clear();
        if self.size >= self.rotate_at {
            self.rotate();
        }
    }

    /// Somebody may have cut the file or removed it.
    fn look_at_file(&mut self) {
        let Ok(meta) = self.file.metadata() else { return };
        if meta.nlink() == 0
            && meta.is_file()
            && let Ok(file) = open(&self.path)
        {
            self.file = file;
            self.size = 0;
            (self.mark_due, self.torn) = (true, false);
        } else if meta.is_file() && meta.len() < self.size {
            self.size = meta.len();
            self.mark_due = true;
            // Nobody knows where it was cut; an empty line more does no harm.
            self.torn = self.size > 0;
        } else if meta.is_file() && meta.len() > self.size {
            // What a hook has printed. Should it not be readable, a mark says where the numbers go on.
            match numbers::lines_from(&self.path, self.size) {
                Ok(lines) => self.next += lines,
                Err(_) => self.mark_due = true,
            }
            self.size = meta.len();
        }
    }

    /// Writes the line that says its own number, `first`, and what was lost before it.
    fn write_mark(&mut self, first: u64) -> io::Result<()> {
        let mut text = format!("{} zed {}{first}", render_time(SystemTime::now()), numbers::MARK);
        if let Some((from, why)) = &self.lost {
            let to = first - 1;
            text.push_str(&format!("; lines {from} to {to} were lost, the log could not be written: {why}"));
        }
        let before = if self.torn { "\n" } else { "" };
        self.write(format!("{before}{text}\n").as_bytes()).map_err(|(_, error)| error)?;
        (self.mark_due, self.torn, self.lost) = (false, false, None);
        self.next += 1;
        Ok(())
    }

    /// Writes whole lines. Of what cannot be written no half line stays; the error comes with the number of lines
    /// that are there.
    fn write(&mut self, bytes: &[u8]) -> Result<(), (u64, io::Error)> {
        let mut done = 0;
        let error = loop {
            if done == bytes.len() {
                self.size += bytes.len() as u64;
                return Ok(());
            }
            match self.file.write(&bytes[done..]) {
                Ok(0) => break io::Error::from(io::ErrorKind::WriteZero),
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break e,
            }
        };
        let whole = bytes[..done].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = bytes[..whole].iter().filter(|byte| **byte == b'\n').count() as u64;
        let kept = self.size + whole as u64;
        if done > whole && self.file.set_len(kept).is_err() {
            self.torn = true;
            self.size += done as u64;
        } else {
            self.size = kept;
        }
        Err((lines, error))
    }

    fn rotate(&mut self) {
        for number in (1..KEEP).rev() {
            // Not there yet, the first times.
            let _ = std::fs::rename(old_log(&self.path, number), old_log(&self.path, number + 1));
        }
        // Should the rename or the open fail, the old file is written on and the next flush tries again.
        if std::fs::rename(&self.path, old_log(&self.path, 1)).is_ok()
            && let Ok(file) = open(&self.path)
        {
            self.file = file;
            self.size = 0;
            self.torn = false;
            self.mark_due = true;
            // Should it fail, the next flush tries again.
            let _ = self.write_mark(self.next);
        }
    }
}

/// `log.1` of `log`.
pub(crate) fn old_log(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Cuts one stream of an app into lines.
pub(crate) struct Lines {
    source: &'static str,
    partial: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(source: &'static str) -> Self {
        Self { source, partial: Vec::new() }
    }

    /// Takes what was read.
    pub(crate) fn feed(&mut self, time: &str, mut bytes: &[u8], log: &mut AppLog) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(time, &bytes[..end], log);
            let line = std::mem::take(&mut self.partial);
            log.add(time, self.source, line.strip_suffix(b"\r").unwrap_or(&line), false);
            self.partial = line;
            self.partial.clear();
            bytes = &bytes[end + 1..];
        }
        self.extend(time, bytes, log);
    }

    fn extend(&mut self, time: &str, mut bytes: &[u8], log: &mut AppLog) {
        while self.partial.len() + bytes.len() > MAX_LINE {
            let (head, tail) = bytes.split_at(MAX_LINE - self.partial.len());
            self.partial.extend_from_slice(head);
            log.add(time, self.source, &self.partial, true);
            self.partial.clear();
            bytes = tail;
        }
        self.partial.extend_from_slice(bytes);
    }

    /// True when something was written that is not a whole line.
    pub(crate) fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Writes the unfinished line. `continues`: more of it may come.
    pub(crate) fn finish(&mut self, time: &str, continues: bool, log: &mut AppLog) {
        if self.has_partial() {
            log.add(time, self.source, &self.partial, continues);
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests;
