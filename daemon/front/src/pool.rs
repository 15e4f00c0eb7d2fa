//! Connections to instances that wait for their next request.
//!
//! Only requests that may be sent twice use them: an instance may close one at the very moment it is used.

use crate::body;
use crate::routes::Open;
use crate::routes::Routes;
use hyper::client::conn::http1::SendRequest;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Kept for one instance. More are closed.
const MOST: usize = 256;
/// Not used for so long: closed when the next one is kept.
const OLDEST: Duration = Duration::from_secs(30);

/// A connection to an instance.
pub(crate) type Sender = SendRequest<body::Request>;

/// See the module.
pub(crate) struct Pool {
    routes: Rc<Routes>,
    idle: RefCell<BTreeMap<u16, Vec<(Sender, Instant)>>>,
}

impl Pool {
    pub(crate) fn new(routes: Rc<Routes>) -> Self {
        Self { routes, idle: RefCell::default() }
    }

    /// One to this port that seems to live, the last used first.
    pub(crate) fn take(&self, port: u16) -> Option<(Sender, Open)> {
        let mut idle = self.idle.borrow_mut();
        let senders = idle.get_mut(&port)?;
        while let Some((sender, _)) = senders.pop() {
            if sender.is_ready() {
                return Some((sender, self.routes.enter(port)?));
            }
        }
        None
    }

    /// Keeps one.
    pub(crate) fn put(&self, port: u16, sender: Sender) {
        let ports = self.routes.ports();
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|port, _| ports.contains(port));
        if !ports.contains(&port) {
            return;
        }
        let senders = idle.entry(port).or_default();
        // They are in the order of their last use.
        let old = senders.partition_point(|(_, since)| now.duration_since(*since) > OLDEST);
        senders.drain(..old);
        if senders.len() < MOST {
            senders.push((sender, now));
        }
    }
}
