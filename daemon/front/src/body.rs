//! Bodies on their way through: an instance's answer, the front's own, a client's request.
//!
//! Nothing is collected: a frame is read when the other side has room for it.

use crate::routes::Open;
use hyper::body::Body;
use hyper::body::Bytes;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::body::SizeHint;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

/// The body of an answer.
pub(crate) enum Answer {
    /// An instance's. The request counts as open until the whole of it has been passed on.
    Instance {
        /// What it sends.
        incoming: Incoming,
        /// Until then.
        _open: Open,
    },
    /// The front's own.
    Own(Bytes),
}

/// The body of a request to an instance.
pub(crate) enum Request {
    /// The client's.
    Client(Incoming),
    /// None: a request that is sent a second time.
    Empty,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Answer::Instance { incoming, .. } => Pin::new(incoming).poll_frame(cx),
            Answer::Own(text) if text.is_empty() => Poll::Ready(None),
            Answer::Own(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Instance { incoming, .. } => incoming.is_end_stream(),
            Answer::Own(text) => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Instance { incoming, .. } => incoming.size_hint(),
            Answer::Own(text) => SizeHint::with_exact(text.len() as u64),
        }
    }
}

impl Body for Request {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Request::Client(incoming) => Pin::new(incoming).poll_frame(cx),
            Request::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Request::Client(incoming) => incoming.is_end_stream(),
            Request::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Request::Client(incoming) => incoming.size_hint(),
            Request::Empty => SizeHint::with_exact(0),
        }
    }
}
