//! Where traffic goes, and how much of it is open.
//!
//! Owns the set of ports, the round robin over them and the count of what is open to each. A count is taken in the
//! same instant as the look at the set: once a port is no longer in the set and its count is zero, nothing more goes
//! there. Never opens a connection.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The state that all tasks of the front share.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    ports: RefCell<Vec<u16>>,
    next: Cell<usize>,
    open: RefCell<BTreeMap<u16, usize>>,
    closed: Notify,
    /// Told when waiting clients should look again: another set of ports, or an instance that accepts.
    pub(crate) look_again: Notify,
    /// Clients that wait for an instance.
    pub(crate) waiting: Cell<usize>,
    /// True while one of them tries to connect; the others wait for its success.
    pub(crate) probed: Cell<bool>,
    /// Connections accepted.
    pub(crate) accepted: Cell<u64>,
    /// Connections or requests that found no instance in time.
    pub(crate) refused: Cell<u64>,
}

/// Something open to an instance, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Open {
    routes: Rc<Routes>,
    /// The instance's port.
    pub(crate) port: u16,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.routes.open.borrow_mut();
        if let Some(count) = open.get_mut(&self.port) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.port);
                self.routes.closed.notify_waiters();
            }
        }
    }
}

impl Routes {
    pub(crate) fn new(ports: Vec<u16>) -> Self {
        Self { ports: RefCell::new(ports), ..Self::default() }
    }

    /// Replaces the set.
    pub(crate) fn set(&self, ports: Vec<u16>) {
        *self.ports.borrow_mut() = ports;
        self.look_again.notify_waiters();
    }

    /// The set.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.ports.borrow().clone()
    }

    /// Every port of the set, beginning with the one whose turn it is.
    pub(crate) fn in_turn(&self) -> Vec<u16> {
        let mut ports = self.ports();
        if !ports.is_empty() {
            let turn = self.next.get() % ports.len();
            self.next.set(turn + 1);
            ports.rotate_left(turn);
        }
        ports
    }

    /// Counts something that is about to be opened; `None` when the port is not in the set any more.
    pub(crate) fn enter(self: &Rc<Self>, port: u16) -> Option<Open> {
        if !self.ports.borrow().contains(&port) {
            return None;
        }
        *self.open.borrow_mut().entry(port).or_default() += 1;
        Some(Open { routes: Rc::clone(self), port })
    }

    /// How much is open to a port.
    pub(crate) fn count(&self, port: u16) -> usize {
        self.open.borrow().get(&port).copied().unwrap_or(0)
    }

    /// How much is open to each port that has any.
    pub(crate) fn counts(&self) -> BTreeMap<u16, usize> {
        self.open.borrow().clone()
    }

    /// Waits until nothing is open to a port, or the time has passed. What is left.
    pub(crate) async fn drain(&self, port: u16, at_most: Duration) -> usize {
        let until = Instant::now() + at_most;
        loop {
            let closed = self.closed.notified();
            let left = self.count(port);
            if left == 0 || tokio::time::timeout_at(until, closed).await.is_err() {
                return left;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_take_turns_and_none_is_entered_that_is_not_in_the_set() {
        let routes = Rc::new(Routes::new(vec![1, 2, 3]));
        let first: Vec<u16> = (0..4).map(|_| routes.in_turn()[0]).collect();
        assert_eq!(first, [1, 2, 3, 1]);
        let open = routes.enter(1).unwrap();
        routes.set(vec![2]);
        assert!(routes.enter(1).is_none());
        assert_eq!((routes.count(1), routes.in_turn()), (1, vec![2]));
        drop(open);
        assert_eq!(routes.count(1), 0);
        routes.set(vec![]);
        assert!(routes.in_turn().is_empty());
    }

    #[tokio::test]
    async fn draining_ends_with_the_last_one_or_with_the_time() {
        let routes = Rc::new(Routes::new(vec![1]));
        assert_eq!(routes.drain(1, Duration::from_secs(9)).await, 0);
        let (one, two) = (routes.enter(1).unwrap(), routes.enter(1).unwrap());
        assert_eq!(routes.drain(1, Duration::ZERO).await, 2);
        let ended = async {
            tokio::task::yield_now().await;
            drop(one);
            tokio::task::yield_now().await;
            drop(two);
        };
        let (left, ()) = tokio::join!(routes.drain(1, Duration::from_secs(3600)), ended);
        assert_eq!(left, 0);
    }
}
