//! Ctrl-C while waiting: says that what was asked for goes on, and ends with 130.

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;
use std::io::Write;
use zed_ctl::Code;
use zed_ctl::CtlError;

/// Exit status after Ctrl-C, as a shell gives it for a program that the signal killed.
const EXIT_INTERRUPTED: i32 = 130;

/// From now on Ctrl-C prints this line and ends the program. A thread waits for the signal, because the
/// others may be blocked in a read.
pub(crate) fn say_on_interrupt(line: String) -> Result<(), CtlError> {
    let failed = |error| CtlError::new(Code::Internal, format!("failed to watch for Ctrl-C: {error}"));
    let mut signals = Signals::new([SIGINT]).map_err(failed)?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = writeln!(std::io::stderr(), "\n{line}");
            std::process::exit(EXIT_INTERRUPTED);
        }
    });
    Ok(())
}
