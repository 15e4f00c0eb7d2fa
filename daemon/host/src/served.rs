//! A process that is spoken to over a socket, until it ends or is killed.
//!
//! The only kind of start without a deadline of its own: whoever speaks to it has one. Never waits for it.

use crate::command::Ended;
use crate::command::ended_of;
use crate::command::has_exited;
use crate::command::start_served;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io;
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;

/// A process with a socket as its standard input. Dropping it kills its group.
#[derive(Debug)]
pub struct Served {
    child: Child,
    ended: Option<Ended>,
}

impl Served {
    /// Starts a program in its own process group; the first of `argv` is what it is called in `ps`. Its standard error is what the returned pipe gives; its standard output is
    /// nothing.
    ///
    /// # Errors
    /// The system's.
    pub fn start(
        program: &Path,
        argv: &[String],
        environment: &BTreeMap<String, String>,
        socket: OwnedFd,
    ) -> io::Result<(Self, PipeReader)> {
        let (child, stderr) = start_served(program, argv, environment, socket)?;
        Ok((Self { child, ended: None }, stderr))
    }

    /// Its process id, also the id of its group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Kills its group. Returns at once.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // The only failure is that nobody is left in the group.
            let _ = nix::sys::signal::killpg(self.group(), Signal::SIGKILL);
        }
    }

    /// How it ended, once it has. What is left of its group is killed then.
    ///
    /// # Errors
    /// The system's.
    pub fn ended(&mut self) -> io::Result<Option<Ended>> {
        if self.ended.is_none() && has_exited(self.group())? {
            // Before it is reaped: until then its number belongs to this group.
            self.kill();
            self.ended = Some(ended_of(self.child.wait()?));
        }
        Ok(self.ended)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
        // One that hangs in a driver cannot be waited for: it is reaped when zedd ends.
        let _ = self.ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;
    use std::time::Instant;

    fn start(script: &str) -> (Served, UnixStream, PipeReader) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let environment = BTreeMap::from([("WORD".to_owned(), "given".to_owned())]);
        let arguments = ["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let (served, stderr) =
            Served::start(Path::new("/bin/sh"), &arguments, &environment, theirs.into()).unwrap();
        (served, ours, stderr)
    }

    fn end(served: &mut Served) -> Ended {
        let began = Instant::now();
        loop {
            if let Some(ended) = served.ended().unwrap() {
                return ended;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_is_spoken_to_over_its_standard_input_and_its_complaints_are_read() {
        let (mut served, mut socket, mut stderr) =
            start("read line; echo \"$line $WORD\" >&0; echo why >&2; exit 7");
        socket.write_all(b"hello\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello given\n");
        let mut why = String::new();
        stderr.read_to_string(&mut why).unwrap();
        assert_eq!(why, "why\n");
        assert_eq!(end(&mut served), Ended::Exit(7));
        assert_eq!(end(&mut served), Ended::Exit(7));
    }

    #[test]
    fn killing_it_kills_its_group() {
        let (mut served, mut socket, _stderr) = start("sleep 1000 & wait");
        assert_eq!(served.ended().unwrap(), None);
        served.kill();
        assert_eq!(end(&mut served), Ended::Signal(9));
        // The child of the shell held the socket, too.
        assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    }
}
