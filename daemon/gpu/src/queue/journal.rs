//! What was submitted and how it ended, in files that survive the death of zedd.
//!
//! A base (everything as of one moment) and logs that go on from it: each entry is one `write(2)`, so that it survives a
//! kill as soon as it was written; `fsync` is the caller's, against the loss of power. A log is cut at the first entry that
//! is not whole. Owns the format and nothing of its meaning; entries are replayed in the order in which they were appended.

use serde::Deserialize;
use serde::Serialize;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::little_endian::U32;

/// Changes with every change of an entry. A newer one is refused.
pub const JOURNAL_FORMAT: u32 = 1;

/// A log that is longer than this, and than twice its base, is replaced by a base, in bytes.
const COMPACT_AT: u64 = 64 << 20;

/// The longest part of an entry, in bytes: text of a job with what follows it, or results.
const MAX_PART: u32 = 64 << 20;

const MAGIC: [u8; 8] = *b"zedgpuq\n";

/// What a file begins with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    format: U32,
    reserved: U32,
}

/// What an entry begins with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Frame {
    value: U32,
    raw: U32,
    /// CRC-32 of the two lengths and both parts.
    crc: U32,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// With its outputs.
    Done {
        /// Computed on the CPU.
        on_cpu: bool,
        /// Why it was, when it should not have been.
        fallback: String,
    },
    /// Without, and why.
    Failed(String),
    /// Because somebody wanted it so.
    Cancelled,
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// How.
    pub how: How,
    /// Microseconds in the queue.
    pub queued_us: u64,
    /// Microseconds of compiling.
    pub compile_us: u64,
    /// Microseconds on the device.
    pub device_us: u64,
    /// How often it was begun.
    pub attempts: u32,
    /// Bytes of each output in the raw part; none when they are files, or there are none.
    pub outputs: Vec<u32>,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// All ids below this are used up.
    Next(u64),
    /// A job was taken. Raw: its text, and what followed it if that is small.
    Submitted {
        /// Its id.
        id: u64,
        /// Whose.
        uid: u32,
        /// The submitter's group.
        gid: u32,
        /// Milliseconds since 1970.
        at_ms: i64,
        /// Bytes that followed the text and are files now.
        tail: u64,
    },
    /// Its inputs are complete.
    Started(u64),
    /// It has another priority.
    Priority(u64, i8),
    /// A node runs these.
    Begun(Vec<u64>),
    /// It does not any more, and they wait again.
    Requeued(Vec<u64>),
    /// It was running so many times when zedd died.
    Interrupted(u64, u32),
    /// It ended. Raw: its outputs, one after the other.
    Ended(u64, End),
    /// A user's share.
    Weight(u32, u32),
    /// So many ended jobs are kept.
    Retain(u32),
    /// Whether no job is begun.
    Paused(bool),
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file or folder cannot be read or written.
    #[error("failed to {operation} `{}`", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A newer zedd wrote it.
    #[error(
        "`{}` was written by a newer zedd (format {format}); this one knows {JOURNAL_FORMAT}",
        path.display()
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { operation, path, source }
}

/// Entries in memory that are to be written as a base.
pub type Snapshot = Vec<(Entry, Vec<Arc<[u8]>>)>;

/// The log that is being written.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// Of the log that is written now.
    number: u64,
    file: Arc<File>,
    length: u64,
    base_length: u64,
    /// Older logs that no base has replaced yet.
    older: Vec<Arc<File>>,
    buffer: Vec<u8>,
}

/// What reading a journal found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The number after the last file's.
    pub next_number: u64,
    /// Files that were damaged, and at which byte; not those that were cut in the middle of their last entry.
    pub damaged: Vec<(PathBuf, u64)>,
}

/// Replays what is in `dir`.
///
/// # Errors
/// What cannot be read, and files of a newer zedd. Damage is no error.
pub fn replay(dir: &Path, each: &mut dyn FnMut(Entry, Vec<u8>)) -> Result<Found, JournalError> {
    let (bases, logs) = numbers(dir)?;
    let base = bases.last().copied();
    let mut found = Found::default();
    let after_base = logs.into_iter().filter(|log| base.is_none_or(|base| *log >= base));
    let files = base.map(|base| (base, base_path(dir, base)));
    for (number, path) in files.into_iter().chain(after_base.map(|log| (log, log_path(dir, log)))) {
        found.next_number = found.next_number.max(number + 1);
        if let Some(at) = replay_file(&path, each)? {
            found.damaged.push((path, at));
        }
    }
    Ok(found)
}

/// Replays one file, up to the first entry that is not whole. The place of the damage, when more follows it than one
/// unfinished entry.
fn replay_file(path: &Path, each: &mut dyn FnMut(Entry, Vec<u8>)) -> Result<Option<u64>, JournalError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let whole = file.metadata().map_err(failed("read", path))?.len();
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; size_of::<Header>()];
    if !fill(&mut file, &mut header).map_err(failed("read", path))? {
        return Ok(None);
    }
    let header =
        Header::read_from_bytes(&header).map_err(|_| failed("read", path)(io::ErrorKind::Other.into()))?;
    if header.magic != MAGIC {
        return Ok(Some(0));
    }
    if header.format.get() > JOURNAL_FORMAT {
        return Err(JournalError::Newer { path: path.to_owned(), format: header.format.get() });
    }
    let mut at = size_of::<Header>() as u64;
    loop {
        match read_entry(&mut file).map_err(failed("read", path))? {
            Next::Entry(entry, raw, length) => {
                at += length;
                each(entry, raw);
            }
            Next::End => return Ok(None),
            Next::Broken(length) => return Ok((at + length < whole).then_some(at)),
        }
    }
}

/// What stands at one place of a log.
enum Next {
    Entry(Entry, Vec<u8>, u64),
    End,
    /// Not whole; it would have had so many bytes.
    Broken(u64),
}

fn read_entry(file: &mut impl Read) -> io::Result<Next> {
    const FRAME: u64 = size_of::<Frame>() as u64;
    let mut frame = [0; size_of::<Frame>()];
    let got = read_up_to(file, &mut frame)?;
    if got == 0 {
        return Ok(Next::End);
    }
    let Ok(parsed) = Frame::read_from_bytes(&frame) else { return Ok(Next::Broken(FRAME)) };
    let (value_length, raw_length) = (parsed.value.get(), parsed.raw.get());
    if got < frame.len() || value_length > MAX_PART || raw_length > MAX_PART {
        return Ok(Next::Broken(FRAME));
    }
    let length = FRAME + u64::from(value_length) + u64::from(raw_length);
    let (mut value, mut raw) = (Vec::new(), Vec::new());
    // Not more memory than there are bytes, whatever a damaged length says.
    file.take(u64::from(value_length)).read_to_end(&mut value)?;
    file.take(u64::from(raw_length)).read_to_end(&mut raw)?;
    if value.len() as u64 != u64::from(value_length) || raw.len() as u64 != u64::from(raw_length) {
        return Ok(Next::Broken(length));
    }
    if checksum(value_length, raw_length, &value, &[&raw]) != parsed.crc.get() {
        return Ok(Next::Broken(length));
    }
    Ok(match postcard::from_bytes(&value) {
        Ok(entry) => Next::Entry(entry, raw, length),
        Err(_) => Next::Broken(length),
    })
}

fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// False when there is less.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    Ok(read_up_to(file, buffer)? == buffer.len())
}

fn checksum(value_length: u32, raw_length: u32, value: &[u8], raw: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&value_length.to_le_bytes());
    crc.update(&raw_length.to_le_bytes());
    crc.update(value);
    raw.iter().for_each(|piece| crc.update(piece));
    crc.finalize()
}

/// The bytes of an entry, after those that `buffer` has.
fn encode(buffer: Vec<u8>, entry: &Entry, raw: &[&[u8]]) -> io::Result<Vec<u8>> {
    let begin = buffer.len();
    let mut buffer = buffer;
    buffer.extend_from_slice(&[0; size_of::<Frame>()]);
    let body = buffer.len();
    let mut buffer = postcard::to_extend(entry, buffer).map_err(io::Error::other)?;
    let bounded = |length: usize| match u32::try_from(length) {
        Ok(small) if small <= MAX_PART => Ok(small),
        _ => Err(io::Error::other(format!("an entry of {length} bytes; at most {MAX_PART} are kept"))),
    };
    let value = buffer.get(body..).unwrap_or_default();
    let value_length = bounded(value.len())?;
    let raw_length = bounded(raw.iter().map(|piece| piece.len()).sum())?;
    let crc = checksum(value_length, raw_length, value, raw);
    let frame = Frame { value: U32::new(value_length), raw: U32::new(raw_length), crc: U32::new(crc) };
    if let Some(place) = buffer.get_mut(begin..body) {
        place.copy_from_slice(frame.as_bytes());
    }
    raw.iter().for_each(|piece| buffer.extend_from_slice(piece));
    Ok(buffer)
}

fn header() -> Header {
    Header { magic: MAGIC, format: U32::new(JOURNAL_FORMAT), reserved: U32::new(0) }
}

fn log_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number}.log"))
}

fn base_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number}.base"))
}

/// The numbers of bases and of logs, ascending.
fn numbers(dir: &Path) -> Result<(Vec<u64>, Vec<u64>), JournalError> {
    let (mut bases, mut logs) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let name = entry.map_err(failed("list", dir))?.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("journal-")) else { continue };
        let number = |ending| rest.strip_suffix(ending).and_then(|digits: &str| digits.parse::<u64>().ok());
        bases.extend(number(".base"));
        logs.extend(number(".log"));
    }
    bases.sort_unstable();
    logs.sort_unstable();
    Ok((bases, logs))
}

/// Writes everything as of now: it counts from the moment that it has its name. Its length in bytes.
///
/// # Errors
/// When the disk refuses; then what was before still counts.
pub fn write_base(dir: &Path, number: u64, snapshot: &Snapshot) -> io::Result<u64> {
    let path = base_path(dir, number);
    let temp = path.with_extension("new");
    let mut file = BufWriter::with_capacity(1 << 20, private(&temp, false)?);
    file.write_all(header().as_bytes())?;
    let mut length = size_of::<Header>() as u64;
    let mut buffer = Vec::new();
    for (entry, raw) in snapshot {
        let raw: Vec<&[u8]> = raw.iter().map(AsRef::as_ref).collect();
        buffer.clear();
        buffer = encode(buffer, entry, &raw)?;
        length += buffer.len() as u64;
        file.write_all(&buffer)?;
    }
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&temp, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(length)
}

/// Made anew, or appended to; for nobody else's eyes.
fn private(path: &Path, append: bool) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.create(true).mode(0o600);
    if append {
        options.append(true)
    } else {
        options.write(true).truncate(true)
    };
    options.open(path)
}

impl Journal {
    /// Goes on in `dir` after a replay, from a base of its own.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn start(dir: &Path, found: &Found, snapshot: &Snapshot) -> Result<Self, JournalError> {
        for (path, _) in &found.damaged {
            let kept = path.with_extension("damaged");
            fs::rename(path, &kept).map_err(failed("set aside", path))?;
        }
        let number = found.next_number;
        let base_length =
            write_base(dir, number, snapshot).map_err(failed("write", &base_path(dir, number)))?;
        let path = log_path(dir, number);
        let file = Self::open_log(&path).map_err(failed("create", &path))?;
        let journal = Self {
            dir: dir.to_owned(),
            number,
            file: Arc::new(file),
            length: size_of::<Header>() as u64,
            base_length,
            older: Vec::new(),
            buffer: Vec::new(),
        };
        journal.remove_before(number);
        Ok(journal)
    }

    fn open_log(path: &Path) -> io::Result<File> {
        let file = private(path, true)?;
        file.set_len(0)?;
        (&file).write_all(header().as_bytes())?;
        Ok(file)
    }

    /// Appends one entry, by one system call.
    ///
    /// # Errors
    /// When the disk refuses; then the journal is as it was.
    pub fn append(&mut self, entry: &Entry, raw: &[&[u8]]) -> io::Result<()> {
        self.buffer.clear();
        self.buffer = encode(std::mem::take(&mut self.buffer), entry, raw)?;
        let written = (&*self.file).write_all(&self.buffer);
        if written.is_ok() {
            self.length += self.buffer.len() as u64;
        } else {
            // A part of it may be there; what is appended later would be behind it and never read.
            self.file.set_len(self.length)?;
        }
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        written
    }

    /// It is time for a new base.
    pub fn wants_base(&self) -> bool {
        self.older.is_empty() && self.length > COMPACT_AT.max(2 * self.base_length)
    }

    /// Goes on in a new log, for which a base with the returned number is to be written.
    ///
    /// # Errors
    /// When the disk refuses; then it goes on in the old one.
    pub fn rotate(&mut self) -> io::Result<u64> {
        let file = Self::open_log(&log_path(&self.dir, self.number + 1))?;
        self.number += 1;
        self.length = size_of::<Header>() as u64;
        self.older.push(std::mem::replace(&mut self.file, Arc::new(file)));
        Ok(self.number)
    }

    /// The base that [`Journal::rotate`] asked for is written.
    pub fn has_base(&mut self, number: u64, length: u64) {
        self.base_length = length;
        self.older.clear();
        self.remove_before(number);
    }

    /// The files that must be synced for everything to survive the loss of power.
    pub fn files(&self) -> Vec<Arc<File>> {
        self.older.iter().chain([&self.file]).map(Arc::clone).collect()
    }

    /// What is left is replayed again and harmless, so a failure is none.
    fn remove_before(&self, number: u64) {
        let Ok((bases, logs)) = numbers(&self.dir) else { return };
        // Logs first: without their base they would be read from a moment at which they do not begin.
        for log in logs.into_iter().filter(|log| *log < number) {
            let _ = fs::remove_file(log_path(&self.dir, log));
        }
        for base in bases.into_iter().filter(|base| *base < number) {
            let _ = fs::remove_file(base_path(&self.dir, base));
        }
    }
}

#[cfg(test)]
mod tests;
