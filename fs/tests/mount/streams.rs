//! Streams: they block at their end, wake pollers, follow rotation, and end for those who walk the tree.

use crate::support::LIMIT;
use crate::support::Rig;
use crate::support::have;
use crate::support::quick;
use crate::support::until;
use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::sys::epoll::Epoll;
use nix::sys::epoll::EpollCreateFlags;
use nix::sys::epoll::EpollEvent;
use nix::sys::epoll::EpollFlags;
use nix::sys::epoll::EpollTimeout;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use zed_fs::tree::TreeSettings;

fn append(path: &Path, text: &str) {
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A tree whose streams stay open for longer than any test.
fn patient() -> Option<Rig> {
    Rig::with(TreeSettings { quiet: LIMIT * 3, ..quick() })
}

/// A reader whose output can be waited for.
struct Reader {
    child: Child,
    seen: String,
}

impl Reader {
    fn start(rig: &Rig, script: &str) -> Self {
        let child = Command::new("bash")
            .args(["-c", &format!("exec {script}")])
            .current_dir(&rig.at)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, seen: String::new() }
    }

    fn expect(&mut self, text: &str) {
        let output = self.child.stdout.as_mut().unwrap();
        while self.seen != text {
            let mut part = [0; 4096];
            let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            let limit = PollTimeout::try_from(LIMIT).unwrap();
            assert_eq!(nix::poll::poll(&mut fds, limit), Ok(1), "saw {:?}, expected {text:?}", self.seen);
            let count = output.read(&mut part).unwrap();
            assert!(count > 0, "ended after {:?}, expected {text:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&part[..count]));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// T40. A stream blocks at its end and goes on when there is news, through a rotation of the real file too:
/// nothing is lost and nothing comes twice.
#[test]
fn streams_block_and_go_on() {
    let Some(rig) = patient() else { return };
    let (app_log, app_events) = (("apps/hello/log", "hello.log"), ("apps/hello/events", "events.d/hello"));
    for (name, real) in [("events", "events"), ("log", "log"), app_log, app_events] {
        let real = rig.real(real);
        let mut seen = rig.ok(&format!("head -n 1 {name}"));
        let mut cat = Reader::start(&rig, &format!("cat {name}"));
        cat.expect(&seen);
        until("cat waits", || rig.mount().waiting() > 0);
        for text in ["two\n", "three\n"] {
            append(&real, text);
            seen.push_str(text);
            cat.expect(&seen);
        }
        // Renamed away with a last word, as logrotate does.
        fs::rename(&real, rig.real("rotated")).unwrap();
        append(&rig.real("rotated"), "last\n");
        append(&real, "fresh\n");
        seen.push_str("last\nfresh\n");
        cat.expect(&seen);
        // Cut, as copytruncate does.
        until("cat waits again", || rig.mount().waiting() > 0);
        File::create(&real).unwrap();
        append(&real, "cut\n");
        seen.push_str("cut\n");
        cat.expect(&seen);
        drop(cat);
        until("nobody waits", || rig.mount().waiting() == 0);
    }
}

/// T41. `tail -f` follows: sizes are true and grow.
#[test]
fn tail_follows() {
    let Some(rig) = patient() else { return };
    append(&rig.fake.events, "two\nthree\n");
    let mut tail = Reader::start(&rig, "tail -n 1 -f events");
    tail.expect("three\n");
    append(&rig.fake.events, "four\n");
    tail.expect("three\nfour\n");
    drop(tail);
    assert_eq!(rig.ok("tail -n 2 events; stat -c %s events"), "three\nfour\n28\n");
}

/// T42. A blocking read at the end of a quiet stream gives end of file after ten seconds, so that a program which
/// reads every file comes to an end. A non-blocking reader that never polls gets it at once, so `grep -r` does
/// not wait at all; one that has polled gets EAGAIN.
#[test]
fn quiet_streams_end() {
    let Some(rig) = Rig::with(TreeSettings { quiet: Duration::from_millis(50), ..quick() }) else { return };
    assert_eq!(rig.ok("cat events"), "events began\n");
    assert_eq!(rig.ok("grep -c began log"), "1\n");
    let Some(rig) = patient() else { return };
    assert!(rig.ok("grep -rh began .").contains("events began\nlog began\n"));
    assert_eq!(rig.mount().waiting(), 0);
    let open =
        || File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(rig.path("events")).unwrap();
    let (mut walker, mut poller) = (open(), open());
    let mut text = String::new();
    walker.read_to_string(&mut text).unwrap();
    assert_eq!(text, "events began\n");
    let poll = |file: &File| {
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO).unwrap()
    };
    assert_eq!(poll(&poller), 1, "there is something to read");
    assert_eq!(poller.read(&mut [0; 64]).unwrap(), 13);
    assert_eq!(poll(&poller), 0, "now there is not");
    let end = poller.read(&mut [0; 64]).unwrap_err();
    assert_eq!(end.raw_os_error(), Some(Errno::EAGAIN as i32));
}

/// T43. `poll`, `select` and `epoll` wake when a stream has news, each time.
#[test]
#[cfg(target_os = "linux")]
fn pollers_wake() {
    let Some(rig) = patient() else { return };
    let mut file = File::open(rig.path("events")).unwrap();
    file.read_exact(&mut [0; 13]).unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(&file, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
    let mut events = [EpollEvent::empty()];
    for round in 0..3 {
        assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(0), "round {round}: no news yet");
        std::thread::scope(|scope| {
            let woken = scope
                .spawn(|| epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::try_from(LIMIT).unwrap()));
            append(&rig.fake.events, "news\n");
            assert_eq!(woken.join().unwrap(), Ok(1), "round {round}");
        });
        file.read_exact(&mut [0; 5]).unwrap();
    }
    if have("python3") {
        let script = "import select,os,sys\nf=os.open('events',os.O_RDONLY)\nos.read(f,9999)\nprint('ready',flush=True)\n\
            r=select.select([f],[],[],20)[0]\nprint(os.read(f,99).decode() if r else 'timeout',flush=True)";
        let mut python = Reader::start(&rig, &format!("python3 -c \"{script}\""));
        python.expect("ready\n");
        append(&rig.fake.events, "selected\n");
        python.expect("ready\nselected\n\n");
    }
}

/// A stream whose file does not exist yet is empty, and begins when the file does.
#[test]
fn a_stream_may_begin_later() {
    let Some(rig) = patient() else { return };
    let log = rig.real("later/app.log");
    let at = log.clone();
    rig.fake.change_app("hello", |app| app.log = at);
    assert_eq!(rig.ok("stat -c %s apps/hello/log"), "0\n");
    let mut cat = Reader::start(&rig, "cat apps/hello/log");
    until("cat waits", || rig.mount().waiting() == 1);
    fs::create_dir(rig.real("later")).unwrap();
    append(&log, "first\n");
    cat.expect("first\n");
}
