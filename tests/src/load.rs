//! Clients that ask an HTTP server all the time, as those of a real service do while it is upgraded.
//!
//! Half of them keep their connection, the others make a new one for each request. A request counts as failed when
//! it has any answer but a whole 200, or none; nothing is asked again.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// How many ask at once.
const CLIENTS: usize = 4;
/// Between two requests of a client: the load is there for requests to be lost, not for the machine to be busy.
const PAUSE: Duration = Duration::from_millis(4);
/// A request that takes longer has failed: longer than a front makes clients wait, as test machines are shared.
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients that ask until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    /// Of each client.
    answered: Vec<Arc<AtomicUsize>>,
    clients: Vec<JoinHandle<Seen>>,
}

/// What one client has seen.
#[derive(Debug, Default)]
struct Seen {
    failures: Vec<String>,
    answers: Vec<String>,
}

impl Load {
    /// Asks `http://127.0.0.1:PORT/` from now on.
    pub fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered: Vec<Arc<AtomicUsize>> = (0..CLIENTS).map(|_| Arc::default()).collect();
        let client = |(number, answered): (usize, &Arc<AtomicUsize>)| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || ask_until(&stop, &answered, port, number.is_multiple_of(2)))
        };
        let clients = answered.iter().enumerate().map(client).collect();
        Self { stop, answered, clients }
    }

    /// Waits for some more answers to each client, so that all have seen what is there now.
    pub fn some_more(&self) {
        let start = std::time::Instant::now();
        let wanted: Vec<usize> = self.answered.iter().map(|count| count.load(Ordering::SeqCst) + 5).collect();
        let all_seen = || {
            self.answered.iter().zip(&wanted).all(|(count, wanted)| count.load(Ordering::SeqCst) >= *wanted)
        };
        while !all_seen() && start.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
    }

    /// Stops. Gives what each client was answered, in order, without repetitions.
    ///
    /// # Panics
    ///
    /// When a request has failed.
    #[track_caller]
    pub fn finish(self) -> Vec<Vec<String>> {
        self.some_more();
        self.stop.store(true, Ordering::SeqCst);
        let seen: Vec<Seen> =
            self.clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect();
        let failures: Vec<&String> = seen.iter().flat_map(|seen| &seen.failures).collect();
        let answered: usize = self.answered.iter().map(|count| count.load(Ordering::SeqCst)).sum();
        assert!(failures.is_empty(), "{} requests failed, {answered} did not: {failures:?}", failures.len());
        seen.into_iter().map(|seen| seen.answers).collect()
    }
}

fn ask_until(stop: &AtomicBool, answered: &AtomicUsize, port: u16, keeps: bool) -> Seen {
    let (mut seen, mut kept) = (Seen::default(), None);
    while !stop.load(Ordering::SeqCst) {
        match ask(port, &mut kept, keeps) {
            Ok(answer) => {
                answered.fetch_add(1, Ordering::SeqCst);
                if seen.answers.last() != Some(&answer) {
                    seen.answers.push(answer);
                }
            }
            Err(why) => {
                kept = None;
                seen.failures.push(why);
            }
        }
        std::thread::sleep(PAUSE);
    }
    seen
}

/// One request, on the kept connection if there is one. Gives the body.
fn ask(port: u16, kept: &mut Option<TcpStream>, keeps: bool) -> Result<String, String> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| format!("connect: {e}"))?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(|e| format!("timeout: {e}"))?;
            stream
        }
    };
    let connection = if keeps { "keep-alive" } else { "close" };
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| format!("write: {e}"))?;
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if let Some(head) = head_of(&bytes) {
            break head;
        }
        more(&mut stream, &mut bytes)?;
    };
    while bytes.len() < head.len() + length {
        more(&mut stream, &mut bytes)?;
    }
    let body = String::from_utf8_lossy(&bytes[head.len()..]).trim_end().to_owned();
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("{} {body}", head.lines().next().unwrap_or_default()));
    }
    if keeps {
        *kept = Some(stream);
    }
    Ok(body)
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), String> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece) {
        Ok(0) => Err(format!("closed after {} bytes", bytes.len())),
        Ok(length) => {
            bytes.extend_from_slice(&piece[..length]);
            Ok(())
        }
        Err(error) => Err(format!("read: {error}")),
    }
}

/// The head of an answer with its empty line, and the length of the body, once the head is complete.
fn head_of(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((head, length.unwrap_or(0)))
}
