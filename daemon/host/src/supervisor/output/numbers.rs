//! The numbers of a log's lines, found by reading it.
//!
//! A line `TIME zed line N` says that it is line N itself; each line after it is one more. A file begins with such a
//! line, and another stands where lines were lost. A file without one is of an earlier zed: its lines are counted
//! from 1.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;

/// Begins the text of a line that says its own number.
pub(super) const MARK: &str = "line ";
/// `2026-11-22T17:46:28.123Z`
const TIME: usize = 24;

/// The parts of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) time: &'a str,
    /// `out`, `err`, `zed`.
    pub(crate) source: &'a str,
    pub(crate) text: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Of a line without its newline. Nothing for what no supervisor wrote.
    pub(crate) fn of(line: &'a [u8]) -> Option<Self> {
        let head = std::str::from_utf8(line.get(..TIME + 5)?).ok()?;
        let (time, source) = (head.get(..TIME)?, head.get(TIME + 1..TIME + 4)?);
        let known = matches!(source, "out" | "err" | "zed");
        let blanks = head.as_bytes()[TIME] == b' ' && head.as_bytes()[TIME + 4] == b' ';
        (known && blanks).then_some(Self { time, source, text: &line[TIME + 5..] })
    }

    /// The number that it says it has.
    fn mark(&self) -> Option<u64> {
        let text = std::str::from_utf8(self.text).ok().filter(|_| self.source == "zed")?;
        let digits = text.strip_prefix(MARK)?;
        digits.split(';').next()?.parse().ok()
    }
}

/// Calls `each` with the number of each line and the line without its newline.
pub(super) fn read_lines(path: &Path, mut each: impl FnMut(u64, &[u8])) -> io::Result<End> {
    let mut end = End { next: 1, ..End::default() };
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::with_capacity(64 * 1024, file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(end),
        Err(e) => return Err(e),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(end);
        }
        end.size += count as u64;
        end.torn = line.pop_if(|last| *last == b'\n').is_none();
        if let Some(mark) = Parts::of(&line).and_then(|parts| parts.mark()) {
            end.marked = true;
            end.next = mark;
        }
        each(end.next, &line);
        end.next += 1;
    }
}

/// How many lines end from this byte on.
pub(super) fn lines_from(path: &Path, offset: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut lines = 0;
    for byte in BufReader::new(file).bytes() {
        lines += u64::from(byte? == b'\n');
    }
    Ok(lines)
}

/// Where a log ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Bytes.
    pub(super) size: u64,
    /// The number of the line after the last.
    pub(super) next: u64,
    /// It says somewhere which number a line has.
    pub(super) marked: bool,
    /// Its last line has no newline.
    pub(super) torn: bool,
}

/// Reads a log to its end. One that is not there is empty.
pub(super) fn end_of(path: &Path) -> io::Result<End> {
    read_lines(path, |_, _| {})
}

/// The last lines of the app's own output from number `from` on: at most so many, and so many bytes together.
pub(crate) fn last_output(
    path: &Path,
    from: u64,
    lines: usize,
    bytes: usize,
) -> io::Result<VecDeque<(u64, Vec<u8>)>> {
    let mut found: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
    let mut size = 0;
    let mut first = None;
    let mut take = |number: u64, line: &[u8], found: &mut VecDeque<(u64, Vec<u8>)>| {
        let is_output = Parts::of(line).is_some_and(|parts| parts.source != "zed");
        if number < from || !is_output {
            return;
        }
        size += line.len();
        found.push_back((number, line.to_vec()));
        while found.len() > lines || size > bytes {
            size -= found.pop_front().map_or(size, |(_, line)| line.len());
        }
    };
    let now = read_lines(path, |number, _| {
        first.get_or_insert(number);
    })?;
    // It was rotated since.
    if first.unwrap_or(now.next) > from {
        read_lines(&super::old_log(path, 1), |number, line| take(number, line, &mut found))?;
    }
    read_lines(path, |number, line| take(number, line, &mut found))?;
    Ok(found)
}
