//! Clients that go on asking, and count what is not answered.

use super::super::Samples;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// Clients that ask at once.
pub(super) const CLIENTS: usize = 16;
/// Between two requests of a client: the load must leave room for what is measured.
const PAUSE: Duration = Duration::from_millis(2);
/// A request that takes longer is lost.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A number of clients at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

/// What clients saw.
#[derive(Default)]
pub(super) struct Seen {
    /// Of the requests that were answered.
    pub(super) times: Samples,
    /// Requests without a whole answer of status 200.
    pub(super) lost: usize,
    /// Why the first of them was lost.
    pub(super) example: Option<String>,
}

/// A connection that may serve several requests.
struct Connection(BufReader<TcpStream>);

impl Load {
    pub(super) fn start(port: u16, kept: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || client(port, kept, &stop))
            })
            .collect();
        Self { stop, clients }
    }

    pub(super) fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for seen in self.clients.into_iter().filter_map(|client| client.join().ok()) {
            all.times.0.extend(seen.times.0);
            all.lost += seen.lost;
            all.example = all.example.or(seen.example);
        }
        all
    }
}

/// A request is never sent twice: what is lost is lost, as for a POST.
fn client(port: u16, kept: bool, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let asked = match connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(port, TIMEOUT),
        };
        match asked.and_then(|open| open.ask(kept)) {
            Ok((_, next)) => {
                seen.times.add(begin.elapsed());
                connection = next;
            }
            Err(why) => {
                seen.lost += 1;
                seen.example.get_or_insert(why);
            }
        }
        std::thread::sleep(PAUSE);
    }
    seen
}

/// What the app at this port says now, if it says something.
pub(super) fn answers(port: u16) -> Option<String> {
    // A front that has nobody to forward to lets clients wait; the next round asks again.
    let connection = Connection::open(port, Duration::from_secs(1)).ok()?;
    connection.ask(false).ok().map(|(text, _)| text)
}

impl Connection {
    fn open(port: u16, timeout: Duration) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("connect: {e}");
        let stream =
            TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), timeout).map_err(failed)?;
        stream.set_read_timeout(Some(timeout)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The answer, and the connection when it may be used again.
    fn ask(mut self, kept: bool) -> Result<(String, Option<Self>), String> {
        let wish = if kept { "" } else { "Connection: close\r\n" };
        let request = format!("GET /version HTTP/1.1\r\nHost: localhost\r\n{wish}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).map_err(|e| format!("send: {e}"))?;
        let mut line = String::new();
        let mut read_line = |from: &mut BufReader<TcpStream>| -> Result<String, String> {
            line.clear();
            match from.read_line(&mut line) {
                Ok(0) => Err("the connection was closed without an answer".to_owned()),
                Ok(_) => Ok(line.trim_end().to_ascii_lowercase()),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Err("no answer in time".to_owned()),
                Err(e) => Err(format!("receive: {e}")),
            }
        };
        let status = read_line(&mut self.0)?;
        let (mut length, mut closes) = (None, !kept || status.starts_with("http/1.0"));
        loop {
            let header = read_line(&mut self.0)?;
            match header.split_once(": ") {
                Some(("content-length", value)) => length = value.parse::<u64>().ok(),
                Some(("connection", "close")) => closes = true,
                _ if header.is_empty() => break,
                _ => {}
            }
        }
        let length = length.ok_or("an answer without a length")?;
        let mut body = String::new();
        let got =
            (&mut self.0).take(length).read_to_string(&mut body).map_err(|e| format!("receive: {e}"))?;
        if got as u64 != length || status.split(' ').nth(1) != Some("200") {
            return Err(format!("`{status}` with {got} of {length} bytes"));
        }
        Ok((body, (!closes).then_some(self)))
    }
}
