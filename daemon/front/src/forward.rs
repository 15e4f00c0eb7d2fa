//! Forwarding one connection, byte for byte.
//!
//! All connections share one buffer, because one thread serves them: an idle one has none. What does not fit the
//! other side's socket is kept until it does, and nothing more is read before. Each direction ends by itself.

use crate::connect::connect;
use crate::routes::Routes;
use nix::sys::socket::Shutdown;
use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Read at once. More would not be faster, and less would be for large answers.
const BUFFER: usize = 64 * 1024;
/// How long a side may go on sending what the other does not take any more.
const LINGER: Duration = Duration::from_secs(5);

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// Serves a client: finds an instance and forwards until both sides have ended.
pub(crate) async fn serve(routes: &Rc<Routes>, client: TcpStream) {
    // Without an instance the client sees its connection closed.
    let Ok((instance, _open)) = connect(routes).await else { return };
    forward(&client, &instance).await;
}

/// Forwards both ways until both have ended.
async fn forward(client: &TcpStream, instance: &TcpStream) {
    let both = async { tokio::try_join!(pump(client, instance), pump(instance, client)) };
    if both.await.is_err() {
        // One side was cut off. A quiet end would tell the other that it has everything.
        let _ = client.set_zero_linger();
        let _ = instance.set_zero_linger();
    }
}

/// Moves bytes one way until there are no more, and says so to the other side. An error is that of the reading
/// side: when the other side no longer listens, what it still has to say is waited for.
async fn pump(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    loop {
        from.readable().await?;
        let rest = SHARED.with_borrow_mut(|buffer| {
            let count = match from.try_read(buffer) {
                Ok(0) => return Ok(Moved::End),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Moved::All),
                Err(e) => return Err(e),
            };
            match to.try_write(&buffer[..count]) {
                Ok(written) if written == count => Ok(Moved::All),
                Ok(written) => Ok(Moved::Part(buffer[written..count].to_vec())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Moved::Part(buffer[..count].to_vec())),
                Err(_) => Ok(Moved::Unwanted),
            }
        })?;
        let wanted = match rest {
            Moved::All => true,
            Moved::Part(rest) => write_all(to, &rest).await.is_ok(),
            Moved::Unwanted => false,
            Moved::End => {
                shut(to, Shutdown::Write);
                return Ok(());
            }
        };
        if !wanted {
            // What is sent in vain is still read for a while: an end with unread bytes would be a reset, which
            // could overtake the answer that says why (RFC 9112, 9.6).
            return tokio::time::timeout(LINGER, discard(from)).await.unwrap_or(Ok(()));
        }
    }
}

async fn discard(from: &TcpStream) -> io::Result<()> {
    loop {
        from.readable().await?;
        match SHARED.with_borrow_mut(|buffer| from.try_read(buffer)) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// What became of what was read.
enum Moved {
    /// Everything is written.
    All,
    /// This is not written yet.
    Part(Vec<u8>),
    /// The other side takes no more.
    Unwanted,
    /// There is no more.
    End,
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn shut(stream: &TcpStream, how: Shutdown) {
    // It may be gone already.
    let _ = nix::sys::socket::shutdown(stream.as_raw_fd(), how);
}
