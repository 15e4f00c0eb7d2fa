//! Ctrl-C and kill for clients that wait: finds the kernel's INTERRUPT requests, which fuser does not pass on.
//!
//! fuser 0.18 answers FUSE_INTERRUPT with ENOSYS, after which the kernel never sends one again and waits
//! uninterruptibly (docs/adr/0060). It logs every request on its loop thread before it dispatches it, so a
//! logger can answer the interrupted request first; the kernel then ignores the ENOSYS, because the request
//! that it names is gone. The version of fuser is pinned, a mount is refused when the log cannot be heard, and
//! tests send real signals. Must never be slow for other requests: it stops formatting at their first letter.

use super::parked::Parked;
use log::Level;
use log::LevelFilter;
use log::Log;
use log::Metadata;
use log::Record;
use std::cell::Cell;
use std::cell::RefCell;
use std::fmt;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

/// The module of fuser that logs requests.
const REQUESTS: &str = "fuser::request";
/// The module of fuser that complains when the kernel does not want an answer.
const REPLIES: &str = "fuser::reply";

static INSTALLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The parked requests of the mount whose loop this thread is. Numbers of requests mean nothing elsewhere.
    static PARKED: RefCell<Weak<Parked>> = const { RefCell::new(Weak::new()) };
    static ANSWERED: Cell<bool> = const { Cell::new(false) };
}

/// Installs the logger that interrupts depend on; everything but fuser's request lines goes to `forward`.
/// Call it once, before mounting.
///
/// # Errors
/// When the process has another logger already.
pub fn install_interrupt_logger(forward: Box<dyn Log>) -> Result<(), log::SetLoggerError> {
    log::set_boxed_logger(Box::new(InterruptLogger { forward }))?;
    log::set_max_level(LevelFilter::Debug);
    INSTALLED.store(true, SeqCst);
    Ok(())
}

/// True when the logger is ours and gets what it needs.
pub(super) fn is_installed() -> bool {
    let most = log::STATIC_MAX_LEVEL.min(log::max_level());
    INSTALLED.load(SeqCst) && most >= LevelFilter::Debug
}

/// Called on the loop thread, before a request is parked: interrupts that this thread reads are for these.
pub(super) fn serve(parked: &Weak<Parked>) {
    PARKED.with_borrow_mut(|current| {
        if current.strong_count() == 0 {
            *current = Weak::clone(parked);
        }
    });
}

struct InterruptLogger {
    forward: Box<dyn Log>,
}

impl Log for InterruptLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == REQUESTS || self.forward.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if record.target() == REQUESTS && record.level() == Level::Debug {
            let interrupted = interrupted(record.args());
            let answered = interrupted.is_some_and(|unique| {
                PARKED.with_borrow(Weak::upgrade).is_some_and(|parked| parked.interrupt(unique))
            });
            ANSWERED.set(answered);
        } else if record.target() == REPLIES && ANSWERED.replace(false) {
            // The kernel's ENOENT for fuser's ENOSYS: what we wanted.
        } else if self.forward.enabled(record.metadata()) {
            self.forward.log(record);
        }
    }

    fn flush(&self) {
        self.forward.flush();
    }
}

/// The number of the request that is to be interrupted, when the line is about that.
fn interrupted(line: &fmt::Arguments<'_>) -> Option<u64> {
    let mut scan = Scan { text: [0; Scan::SIZE], filled: 0 };
    // An error is how the scan says that it has seen enough.
    let _ = fmt::write(&mut scan, *line);
    let text = std::str::from_utf8(scan.text.get(..scan.filled)?).ok()?;
    let operation = text.get(scan.operation()?..)?;
    let number = operation.strip_prefix("INTERRUPT unique RequestId(")?;
    number.split(')').next()?.parse().ok()
}

/// Takes the line `FUSE(  9) ino 0x0000000000000001 INTERRUPT unique RequestId(7) ...` as far as it is needed.
struct Scan {
    text: [u8; Scan::SIZE],
    filled: usize,
}

impl Scan {
    /// The longest such line is shorter, with both numbers at their greatest.
    const SIZE: usize = 128;
    /// ` ino `, `0x` with 16 digits, and a space.
    const BETWEEN: usize = 5 + 18 + 1;

    /// Where the operation begins.
    fn operation(&self) -> Option<usize> {
        let close = self.text.get(..self.filled)?.iter().position(|byte| *byte == b')')?;
        Some(close + 1 + Self::BETWEEN)
    }
}

impl fmt::Write for Scan {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = self.text.get_mut(self.filled..).unwrap_or_default();
        let count = piece.len().min(room.len());
        if let (Some(room), Some(piece)) = (room.get_mut(..count), piece.as_bytes().get(..count)) {
            room.copy_from_slice(piece);
        }
        self.filled += count;
        let first = self.operation().filter(|at| *at < self.filled).and_then(|at| self.text.get(at));
        // Only INTERRUPT, INIT and IOCTL begin with I.
        if first.is_some_and(|letter| *letter != b'I') || count < piece.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_an_interrupt_names_the_request() {
        for (unique, target) in [(9_u64, 7_u64), (1234, 1232), (u64::MAX, u64::MAX - 1)] {
            let found = interrupted(&format_args!(
                "FUSE({unique:3}) ino {:#018x} INTERRUPT unique RequestId({target}) thread=fuser-0",
                1
            ));
            assert_eq!(found, Some(target));
        }
    }

    #[test]
    fn other_lines_are_left_at_their_first_letter() {
        struct Trap;
        impl fmt::Display for Trap {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("formatted beyond what decides")
            }
        }
        assert_eq!(interrupted(&format_args!("FUSE({:3}) ino {:#018x} GETATTR{}", 9, 1, Trap)), None);
        assert_eq!(interrupted(&format_args!("FUSE({:3}) ino {:#018x} IOCTL fh 1", 9, 1)), None);
        assert_eq!(interrupted(&format_args!("FUSE(no")), None);
        // A file may be called anything.
        let name = "INTERRUPT unique RequestId(2)";
        assert_eq!(interrupted(&format_args!("FUSE({:3}) ino {:#018x} LOOKUP name {name:?}", 9, 1)), None);
    }
}
