//! One open `gpu/N/queue`: what is written is gathered into jobs and handed over; what is read are their replies.
//!
//! A handle is a stream in both directions: offsets mean nothing. No lock is held while a reader waits, and a reply is
//! given to somebody who is there to take it: one whose reader was interrupted is there for the next.

use super::Gpus;
use super::JobKey;
use super::scan::Scan;
use super::scan::Seen;
use crate::Caller;
use crate::Fault;
use crate::tree::Errors;
use crate::tree::Node;
use crate::wait::Chunk;
use crate::wait::Finish;
use crate::wait::Late;
use crate::wait::Step;
use crate::wait::Waiting;
use nix::errno::Errno;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use zed_ctl::CtlError;

/// The longest text of a job, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// The most raw bytes that follow a text.
const MAX_RAW: u64 = 64 << 20;

/// The most bytes of jobs that are not complete, of all handles together.
const MAX_GATHERED: usize = 256 << 20;

/// How many there are.
static GATHERED: AtomicUsize = AtomicUsize::new(0);

/// The most replies of one handle that nobody has read.
const MAX_OWED: usize = 1 << 16;

/// How long a read waits for a job. A job has a deadline of its own, and whoever waits can be interrupted.
pub(crate) const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An open queue.
pub(crate) struct QueueHandle {
    readable: bool,
    gathered: Mutex<Gathered>,
    shared: Arc<Shared>,
}

struct Shared {
    gpus: Arc<dyn Gpus>,
    gpu: u32,
    errors: Arc<Errors>,
    error_file: Node,
    replies: Mutex<Replies>,
}

/// A job of which not all has been written.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    part: Part,
    /// Who wrote last: only their close is the end of what they wrote. Others close a descriptor that they inherited.
    writer: u32,
    /// A job was handed over before: blanks between two are nobody's.
    later: bool,
    /// The queue was full when the last piece came; it may come again.
    full: bool,
    /// The job is too big: what else its writer has of it is refused as well, until the close.
    too_big: bool,
}

/// Where a job is in.
#[derive(Clone, Copy)]
enum Part {
    Text(Scan),
    /// After a text with `Raw` inputs: the NUL, before so many bytes.
    Nul(u64),
    /// So many bytes are left.
    Raw(u64),
}

impl Default for Part {
    fn default() -> Self {
        Part::Text(Scan::default())
    }
}

/// What the handle owes its readers, in the order of the jobs.
#[derive(Default)]
struct Replies {
    next: Next,
    /// Jobs after that one.
    owed: VecDeque<u64>,
    waiting: VecDeque<(usize, Finish<Chunk>)>,
    /// The kernel wakes all pollers of a handle at once.
    poller: Option<Box<dyn FnOnce() + Send>>,
}

/// The reply that is read next.
#[derive(Default)]
enum Next {
    /// None has been asked for.
    #[default]
    Nothing,
    Asked,
    /// It is here, and has been read so far.
    Here(Arc<[u8]>, usize),
    Failed(Fault),
}

impl QueueHandle {
    /// Opens the queue of a device. Replies are kept only for a handle that can read them.
    pub(crate) fn new(
        gpus: Arc<dyn Gpus>,
        gpu: u32,
        errors: Arc<Errors>,
        error_file: Node,
        readable: bool,
    ) -> Self {
        let shared = Shared { gpus, gpu, errors, error_file, replies: Mutex::default() };
        Self { readable, gathered: Mutex::default(), shared: Arc::new(shared) }
    }

    /// Takes what is written. Several jobs in one piece are taken one after the other; when a later one is refused, the
    /// answer is how far the piece was taken, and the error comes when the rest is written again.
    ///
    /// # Errors
    /// What a job is refused with: EBADMSG, EAGAIN, EFBIG.
    pub(crate) fn write(&self, caller: Caller, piece: &[u8]) -> Result<usize, Fault> {
        let mut gathered = self.gathered.lock();
        gathered.writer = caller.pid;
        if gathered.too_big {
            return Err(Errno::EFBIG.into());
        }
        let mut taken = 0;
        while let Some(rest) = piece.get(taken..).filter(|rest| !rest.is_empty()) {
            if gathered.bytes.is_empty() && gathered.later && blanks(rest) > 0 {
                taken += blanks(rest);
                continue;
            }
            match self.take(&mut gathered, caller, rest) {
                Ok(count) => taken += count,
                Err(fault) if taken == 0 => {
                    self.shared.note(&fault);
                    return Err(fault);
                }
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    /// Takes a piece up to the end of the job that it completes.
    fn take(&self, gathered: &mut Gathered, caller: Caller, rest: &[u8]) -> Result<usize, Fault> {
        let before = gathered.part;
        let seen = gathered.follow(&self.shared, rest);
        let judged = match seen {
            Ok(Seen::More) => match gathered.keep(rest) {
                Ok(()) => return Ok(rest.len()),
                Err(full) => Err(full),
            },
            Ok(Seen::Ends(count)) => self.submit(gathered, caller, rest.get(..count).unwrap_or_default()),
            Ok(Seen::Wrong) => self.submit(gathered, caller, rest),
            Err(fault) => Err(fault),
        };
        match judged {
            Err(fault) if fault.errno == Errno::EAGAIN => {
                gathered.part = before;
                gathered.full = true;
                Err(fault)
            }
            judged => {
                gathered.forget();
                gathered.too_big = judged.as_ref().is_err_and(|fault| fault.errno == Errno::EFBIG);
                judged
            }
        }
    }

    /// Hands over what was gathered and these bytes; gives how many those are.
    fn submit(&self, gathered: &mut Gathered, caller: Caller, last: &[u8]) -> Result<usize, Fault> {
        if self.readable && self.shared.replies.lock().owed.len() >= MAX_OWED {
            let text = format!("{MAX_OWED} replies of this handle were not read: read them first");
            return Err(Fault::new(Errno::EAGAIN, text));
        }
        let before = gathered.bytes.len();
        let job: &[u8] = if before == 0 {
            last
        } else {
            gathered.bytes.extend_from_slice(last);
            &gathered.bytes
        };
        match self.shared.gpus.submit(caller, self.shared.gpu, job) {
            Ok(id) => {
                gathered.bytes.truncate(before);
                self.shared.errors.clear(&self.shared.error_file);
                if self.readable {
                    self.shared.owe(id);
                }
                Ok(last.len())
            }
            Err(error) => {
                // As it was, should this piece come again.
                gathered.bytes.truncate(before);
                Err(error.into())
            }
        }
    }

    /// A close of a descriptor: a job that is not complete by then is refused.
    ///
    /// # Errors
    /// EBADMSG; EAGAIN when it was only the queue that was full.
    pub(crate) fn flush(&self, caller: Caller) -> Result<(), Fault> {
        if self.gathered.lock().writer == caller.pid { self.end() } else { Ok(()) }
    }

    /// The last descriptor is closed.
    pub(crate) fn release(&self) {
        // Nobody hears it; `error` beside the queue says it.
        let _ = self.end();
    }

    fn end(&self) -> Result<(), Fault> {
        let mut gathered = self.gathered.lock();
        let blank = matches!(gathered.part, Part::Text(scan) if !scan.has_content());
        let full = gathered.full;
        if gathered.bytes.is_empty() || blank || full {
            let lost = full && !gathered.bytes.is_empty();
            gathered.forget();
            return if lost { Err(Errno::EAGAIN.into()) } else { Ok(()) };
        }
        let refused = self.incomplete(&gathered);
        gathered.forget();
        self.shared.note(&refused);
        Err(refused)
    }

    fn incomplete(&self, gathered: &Gathered) -> Fault {
        let left = match gathered.part {
            Part::Text(_) => {
                // The parser says where the text ends too early.
                let judged = self.shared.gpus.raw_bytes(self.shared.gpu, &gathered.bytes);
                let unknown = || Fault::new(Errno::EBADMSG, "the text of the job does not end");
                return judged.map_or_else(Fault::from, |_| unknown());
            }
            Part::Raw(left) | Part::Nul(left) => left,
        };
        let text = format!(
            "the queue was closed {left} bytes before the end of the job's raw inputs\nhint: a NUL and the bytes of all \
             `Raw` inputs follow the text, written by one program: cat job.ron nul a.bin > queue"
        );
        Fault::new(Errno::EBADMSG, text)
    }

    /// What was taken survives the loss of power. A job that is not complete is judged, as at a close.
    ///
    /// # Errors
    /// When the disk refuses; EBADMSG.
    pub(crate) fn fsync(&self) -> Result<(), Fault> {
        self.end()?;
        self.shared.gpus.commit(self.shared.gpu).map_err(Fault::from)
    }

    /// Reads on in the reply that is next; end of file when none is owed.
    pub(crate) fn read(&self, size: usize, nonblock: bool) -> Step<Chunk> {
        if let Some(answer) = self.shared.take_now(size) {
            return Step::Done(answer);
        }
        if nonblock {
            return Step::Done(Err(Errno::EAGAIN.into()));
        }
        let shared = Arc::clone(&self.shared);
        let start = move |finish: Finish<Chunk>| {
            shared.replies.lock().waiting.push_back((size, finish));
            shared.serve();
        };
        Step::Wait(Waiting { start: Box::new(start), limit: LONGEST, late: Late::Fail(Errno::ETIMEDOUT) })
    }

    /// True when a read gives a reply, or an error, at once. Otherwise `notify` is called once when it does.
    pub(crate) fn poll(&self, notify: Option<Box<dyn FnOnce() + Send>>) -> bool {
        self.shared.ask();
        let mut replies = self.shared.replies.lock();
        let ready = matches!(replies.next, Next::Here(..) | Next::Failed(_));
        if !ready && notify.is_some() {
            replies.poller = notify;
        }
        ready
    }
}

/// How many blanks a piece begins with.
fn blanks(piece: &[u8]) -> usize {
    piece.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

impl Gathered {
    /// What the next piece is to the job.
    fn follow(&mut self, shared: &Shared, piece: &[u8]) -> Result<Seen, Fault> {
        let mut at = 0;
        if let Part::Text(mut scan) = self.part {
            let seen = scan.feed(piece);
            self.part = Part::Text(scan);
            let new = if let Seen::Ends(count) = seen { count } else { piece.len() };
            if self.bytes.len() + new > MAX_TEXT {
                let text = format!(
                    "the text of a job has at most {MAX_TEXT} bytes; large inputs are `Raw` or `Upload`"
                );
                return Err(Fault::new(Errno::EFBIG, text));
            }
            let Seen::Ends(end) = seen else { return Ok(seen) };
            if !scan.has_raw() {
                return Ok(seen);
            }
            at = end;
            let raw = self.raw_bytes(shared, piece.get(..end).unwrap_or_default())?;
            if raw == 0 {
                return Ok(seen);
            }
            self.part = Part::Nul(raw);
        }
        if let Part::Nul(raw) = self.part {
            let rest = piece.get(at..).unwrap_or_default();
            let nul = blanks(rest);
            match rest.get(nul) {
                None => return Ok(Seen::More),
                Some(0) => self.part = Part::Raw(raw),
                Some(_) => return Ok(Seen::Wrong),
            }
            at += nul + 1;
        }
        let Part::Raw(left) = self.part else { return Ok(Seen::More) };
        let here = piece.len() - at;
        match usize::try_from(left) {
            Ok(left) if left <= here => Ok(Seen::Ends(at + left)),
            _ => {
                self.part = Part::Raw(left - here as u64);
                Ok(Seen::More)
            }
        }
    }

    /// How many bytes follow the text that ends with this.
    fn raw_bytes(&self, shared: &Shared, end: &[u8]) -> Result<u64, Fault> {
        let raw = if self.bytes.is_empty() {
            shared.gpus.raw_bytes(shared.gpu, end)
        } else {
            shared.gpus.raw_bytes(shared.gpu, &[&self.bytes, end].concat())
        }?;
        if raw > MAX_RAW {
            let text = format!(
                "the job has {raw} bytes of `Raw` inputs, and {MAX_RAW} are the most\nhint: make large inputs `Upload` and \
                 write them to in/NAME"
            );
            return Err(Fault::new(Errno::EFBIG, text));
        }
        Ok(raw)
    }

    /// Keeps a piece until the rest comes.
    fn keep(&mut self, piece: &[u8]) -> Result<(), Fault> {
        if GATHERED.fetch_add(piece.len(), Relaxed) + piece.len() > MAX_GATHERED {
            GATHERED.fetch_sub(piece.len(), Relaxed);
            let text = format!(
                "jobs that are not complete take {MAX_GATHERED} bytes already\nhint: write this again when some of them are"
            );
            return Err(Fault::new(Errno::EAGAIN, text));
        }
        if let Part::Raw(left) = self.part {
            self.bytes.reserve_exact(piece.len() + usize::try_from(left).unwrap_or(0));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn forget(&mut self) {
        GATHERED.fetch_sub(self.bytes.len(), Relaxed);
        // A large buffer is given back; a small one serves the next job.
        if self.bytes.capacity() > MAX_TEXT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.part = Part::default();
        self.later = true;
        self.full = false;
        self.too_big = false;
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        GATHERED.fetch_sub(self.bytes.len(), Relaxed);
    }
}

impl Shared {
    fn note(&self, fault: &Fault) {
        if let Some(text) = &fault.text {
            self.errors.set(&self.error_file, text);
        }
    }

    /// A job was taken: its reply comes after those before it.
    fn owe(self: &Arc<Self>, id: u64) {
        let mut replies = self.replies.lock();
        replies.owed.push_back(id);
        let wanted = replies.poller.is_some() || !replies.waiting.is_empty();
        drop(replies);
        if wanted {
            self.serve();
        }
    }

    /// Asks for the reply that is next, if none is asked for and one is owed.
    fn ask(self: &Arc<Self>) {
        let mut replies = self.replies.lock();
        if !matches!(replies.next, Next::Nothing) {
            return;
        }
        let Some(id) = replies.owed.pop_front() else { return };
        replies.next = Next::Asked;
        drop(replies);
        let shared = Arc::clone(self);
        let key = JobKey { gpu: self.gpu, id };
        self.gpus.reply(key, Box::new(move |reply| shared.arrived(reply)));
    }

    fn arrived(self: &Arc<Self>, reply: Result<Arc<[u8]>, CtlError>) {
        let mut replies = self.replies.lock();
        replies.next = match reply {
            Ok(text) => Next::Here(text, 0),
            Err(error) => Next::Failed(error.into()),
        };
        let poller = replies.poller.take();
        drop(replies);
        if let Some(notify) = poller {
            notify();
        }
        if self.replies.lock().waiting.is_empty() {
            return;
        }
        self.serve();
    }

    /// What a read gives without waiting; nothing when it has to wait.
    fn take_now(self: &Arc<Self>, size: usize) -> Option<Result<Chunk, Fault>> {
        self.ask();
        let mut replies = self.replies.lock();
        let answer = replies.answer(size)?;
        self.taken(&mut replies, &answer);
        Some(answer)
    }

    /// Gives what is here to those who wait, the first one first.
    fn serve(self: &Arc<Self>) {
        loop {
            self.ask();
            let mut replies = self.replies.lock();
            let Some((size, _)) = replies.waiting.front() else { return };
            let Some(answer) = replies.answer(*size) else { return };
            let Some((_, finish)) = replies.waiting.pop_front() else { return };
            // Under the lock: whoever was interrupted has taken nothing, and the next one gets it.
            if finish(answer.clone()) {
                self.taken(&mut replies, &answer);
            }
        }
    }

    fn taken(&self, replies: &mut Replies, answer: &Result<Chunk, Fault>) {
        match answer {
            Ok(chunk) => replies.advance(chunk.len()),
            Err(fault) => {
                replies.next = Next::Nothing;
                self.note(fault);
            }
        }
    }
}

impl Replies {
    /// What a read of this size gives now; nothing when the reply is not here yet.
    fn answer(&self, size: usize) -> Option<Result<Chunk, Fault>> {
        match &self.next {
            Next::Nothing => Some(Ok(Chunk::empty())),
            Next::Asked => None,
            Next::Here(text, at) => Some(Ok(Chunk::of(text, *at as u64, size))),
            Next::Failed(fault) => Some(Err(fault.clone())),
        }
    }

    fn advance(&mut self, count: usize) {
        if let Next::Here(text, at) = &mut self.next {
            *at += count;
            if *at >= text.len() {
                self.next = Next::Nothing;
            }
        }
    }
}
