//! Jobs over the socket: what is written to a queue, and the replies, on one handle.

use super::protocol::Answer;
use super::protocol::MAX_DATA;
use super::protocol::bytes_of;
use super::session::Refused;
use super::session::Session;
use crate::Fault;
use crate::tree::Access;
use crate::tree::Caching;
use crate::tree::Handle;
use nix::errno::Errno;
use std::io;

impl Session {
    /// Hands jobs over and sends their replies; gives the last answer. The outer error is the connection's.
    pub(super) fn submit(&self, path: &str, data: String, hex: bool) -> io::Result<Refused<Answer>> {
        let opened = bytes_of(data, hex)
            .and_then(|data| Ok((data, self.open(path, Access { read: true, write: true })?)));
        let (data, handle) = match opened {
            Ok(opened) => opened,
            Err(fault) => return Ok(Err(fault)),
        };
        let done = if handle.caching() == Caching::Stream {
            self.hand_over(path, &handle, &data)
        } else {
            Ok(Err(Fault::new(Errno::EINVAL, format!("{path} takes no jobs"))))
        };
        self.tree.release(&handle);
        done
    }

    fn hand_over(&self, path: &str, handle: &Handle, data: &[u8]) -> io::Result<Refused<Answer>> {
        let flush = |()| self.wait(self.tree.flush(handle, self.caller));
        if let Err(fault) = self.write_all(handle, 0, data).and_then(flush) {
            return Ok(Err(self.told(path, fault)));
        }
        let mut at = 0;
        loop {
            let step = self.tree.read(handle, at, MAX_DATA, false);
            match self.wait(step) {
                Ok(chunk) if chunk.is_empty() => return Ok(Ok(Answer::data(&[], at, true))),
                Ok(chunk) => {
                    at += chunk.len() as u64;
                    self.send(&Answer::data(&chunk, at, false))?;
                }
                Err(fault) => return Ok(Err(self.told(path, fault))),
            }
        }
    }

    fn told(&self, path: &str, fault: Fault) -> Fault {
        match fault.text {
            None => Fault::new(fault.errno, self.why(path, fault.errno)),
            Some(_) => fault,
        }
    }
}
