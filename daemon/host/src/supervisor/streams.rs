//! What the running program writes: its two pipes, read without waiting and cut into lines.

use super::output::AppLog;
use super::output::Lines;
use super::output::render_time;
use crate::command::set_nonblocking;
use std::io;
use std::io::PipeReader;
use std::io::PipeWriter;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// An unfinished line is written after this much silence, so that a prompt or a hang can be seen.
const PARTIAL_AFTER: Duration = Duration::from_secs(1);
/// Reads of one stream in one turn of the loop, so that no stream starves a stop.
const READS_A_TURN: usize = 16;
/// The most that one read gives: what a pipe holds.
const CHUNK: usize = 64 * 1024;

struct Stream {
    pipe: PipeReader,
    lines: Lines,
    last: Instant,
    closed: bool,
}

/// The streams of the running program; none when nothing runs.
#[derive(Default)]
pub(super) struct Streams(Vec<Stream>);

impl Streams {
    /// Two pipes, and their other ends for stdout and stderr.
    pub(super) fn open() -> io::Result<(Self, PipeWriter, PipeWriter)> {
        let now = Instant::now();
        let pipe = |source| -> io::Result<(Stream, PipeWriter)> {
            let (pipe, writer) = io::pipe()?;
            set_nonblocking(&pipe)?;
            Ok((Stream { pipe, lines: Lines::new(source), last: now, closed: false }, writer))
        };
        let ((out, stdout), (err, stderr)) = (pipe("out")?, pipe("err")?);
        Ok((Self(vec![out, err]), stdout, stderr))
    }

    /// What to poll for reading.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|stream| stream.pipe.as_fd())
    }

    /// How long until an unfinished line is to be written.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let partial = self.0.iter().filter(|stream| stream.lines.has_partial());
        partial.map(|stream| (stream.last + PARTIAL_AFTER).saturating_duration_since(now)).min()
    }

    /// Reads what is there, but not for ever.
    pub(super) fn read(&mut self, log: &mut AppLog) {
        self.read_pieces(READS_A_TURN, log);
    }

    /// Everything that is left in the pipes: nobody writes to them any more.
    pub(super) fn drain(&mut self, log: &mut AppLog) {
        self.read_pieces(usize::MAX, log);
        let time = render_time(SystemTime::now());
        for stream in &mut self.0 {
            stream.lines.finish(&time, false, log);
        }
        log.flush();
        self.0.clear();
    }

    fn read_pieces(&mut self, pieces: usize, log: &mut AppLog) {
        if self.0.is_empty() {
            return;
        }
        // Lives for this call only: a quiet app costs its supervisor no buffer.
        let mut chunk = vec![0u8; CHUNK];
        let now = Instant::now();
        let mut time = None;
        for stream in &mut self.0 {
            for _ in 0..pieces {
                match stream.pipe.read(&mut chunk) {
                    Ok(0) => {
                        stream.closed = true;
                        break;
                    }
                    Ok(count) => {
                        let time = time.get_or_insert_with(|| render_time(SystemTime::now()));
                        stream.lines.feed(time, &chunk[..count], log);
                        stream.last = now;
                        log.flush();
                    }
                    Err(_) => break,
                }
            }
            if stream.closed || now >= stream.last + PARTIAL_AFTER {
                stream.lines.finish(&render_time(SystemTime::now()), !stream.closed, log);
            }
        }
        log.flush();
        self.0.retain(|stream| !stream.closed);
    }
}
