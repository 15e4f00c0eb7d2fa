//! Answers that come later: what a request waits for, said without knowing who waits.
//!
//! The FUSE layer parks the reply, the socket layer blocks its own thread; both get the same [`Step`]. Nothing
//! here may block.

use crate::Fault;
use crate::Outcome;
use nix::errno::Errno;
use parking_lot::Mutex;
use std::ops::Deref;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Takes the result of a wait, once, from any thread. False when nobody takes it any more: whoever waited was interrupted.
pub type Finish<T> = Box<dyn FnOnce(Result<T, Fault>) -> bool + Send>;

/// Starts a wait.
pub type Start<T> = Box<dyn FnOnce(Finish<T>) + Send>;

/// What a request came to.
pub enum Step<T> {
    /// It is answered.
    Done(Result<T, Fault>),
    /// It has to wait.
    Wait(Waiting<T>),
}

/// A wait that has not been started.
pub struct Waiting<T> {
    /// Starts it. May call what it is given before it returns.
    pub start: Start<T>,
    /// How long to wait at most.
    pub limit: Duration,
    /// The answer when that time has passed.
    pub late: Late<T>,
}

/// The answer to a wait that took too long.
pub enum Late<T> {
    /// A value.
    Value(T),
    /// An error.
    Fail(Errno),
}

/// A text that is known once something has ended, and stays the same for the handle that waited for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict(Arc<Mutex<Option<Arc<[u8]>>>>);

impl Verdict {
    /// What a read gives that does not have to wait any more.
    pub(crate) fn known(&self, offset: u64, size: usize) -> Option<Chunk> {
        self.0.lock().as_ref().map(|text| Chunk::of(text, offset, size))
    }

    /// A read that waits: `when` calls what it is given with the outcome.
    pub(crate) fn wait(
        &self,
        (offset, size): (u64, usize),
        limit: Duration,
        when: impl FnOnce(Box<dyn FnOnce(Outcome) + Send>) + Send + 'static,
    ) -> Step<Chunk> {
        let kept = Arc::clone(&self.0);
        let start = move |finish: Finish<Chunk>| {
            when(Box::new(move |outcome| {
                let text = text_of(outcome);
                *kept.lock() = Some(Arc::clone(&text));
                finish(Ok(Chunk::of(&text, offset, size)));
            }));
        };
        Step::Wait(Waiting { start: Box::new(start), limit, late: Late::Fail(Errno::ETIMEDOUT) })
    }
}

/// An outcome as a reader sees it: its text, or the error with its hint; newline-terminated.
pub(crate) fn text_of(outcome: Outcome) -> Arc<[u8]> {
    let mut text = outcome.unwrap_or_else(|error| error.render());
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.into_bytes().into()
}

impl<T> Late<T> {
    /// The same as a result.
    pub fn into_result(self) -> Result<T, Fault> {
        match self {
            Late::Value(value) => Ok(value),
            Late::Fail(errno) => Err(errno.into()),
        }
    }
}

impl<T> From<Result<T, Fault>> for Step<T> {
    fn from(result: Result<T, Fault>) -> Self {
        Step::Done(result)
    }
}

/// Bytes of a read: part of a shared text, or fresh ones.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// A part of a text that others read too.
    Shared(Arc<[u8]>, Range<usize>),
    /// Bytes of its own.
    Own(Vec<u8>),
}

impl Chunk {
    /// What a read of `size` bytes at `offset` of `text` gives.
    pub fn of(text: &Arc<[u8]>, offset: u64, size: usize) -> Self {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let end = start.saturating_add(size).min(text.len());
        Chunk::Shared(Arc::clone(text), start..end)
    }

    /// End of file.
    pub fn empty() -> Self {
        Chunk::Own(Vec::new())
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Chunk::Shared(text, range) => text.get(range.clone()).unwrap_or_default(),
            Chunk::Own(bytes) => bytes,
        }
    }
}
