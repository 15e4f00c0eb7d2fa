//! A host whose fronts end with the test, instances to forward to, and clients.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use zed_host::Host;
use zed_host::LocalHost;
use zed_host::SupervisorProgram;
use zed_plan::Instance;
use zed_plan::ProcessStatus;
use zed_plan::Route;
use zed_spec::AppName;
use zed_spec::Listen;

/// No wait in these tests ends by time except as a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn app() -> AppName {
    AppName::parse("api").expect("a name")
}

/// Waits for something that another process does.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An address that nobody else has: each test has a loopback address of its own, where the kernel takes no port
/// for outgoing connections.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, high, low, NEXT.fetch_add(1, Ordering::Relaxed)), 8000))
}

/// A host of its own.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) host: LocalHost,
    pub(crate) listen: Listen,
}

impl Place {
    pub(crate) fn new(http: bool) -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let host = Self::daemon(&folder);
        Self { folder, host, listen: Listen { http, address: own_address() } }
    }

    fn daemon(folder: &tempfile::TempDir) -> LocalHost {
        let path = PathBuf::from(env!("CARGO_BIN_EXE_zed-front"));
        let program = SupervisorProgram { path, arguments: vec!["supervise".to_owned()] };
        LocalHost::new(folder.path().join("state"), program)
    }

    /// What a daemon that has just been started sees.
    pub(crate) fn new_daemon(&self) -> LocalHost {
        Self::daemon(&self.folder)
    }

    pub(crate) fn a_route(&self, ports: &[u16]) -> Route {
        let backends: BTreeMap<Instance, u16> =
            (1..).zip(ports).map(|(number, port)| (Instance::new(&app(), number), *port)).collect();
        Route { app: app(), listen: self.listen, backends, user: None }
    }

    pub(crate) fn route(&self, ports: &[u16]) {
        self.host.route(&self.a_route(ports)).expect("route");
    }

    pub(crate) fn drained(&self, port: u16) -> u64 {
        self.host.drain(&Instance::first(&app()), port, PATIENCE).expect("drain").left
    }

    pub(crate) fn front_pid(&self) -> Option<u32> {
        let all = self.host.observe().expect("observe");
        match all.get(&Instance::front(&app()))?.observed.status {
            ProcessStatus::Running { pid } => Some(pid),
            _ => None,
        }
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.folder.path().join("state/apps/api.front")
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.listen.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        stream
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.host.route(&self.a_route(&[]));
    }
}

/// How an instance treats one connection.
type Handler = Arc<dyn Fn(TcpStream) + Send + Sync>;

/// An instance of the app, in this process: a real socket, a thread for each connection.
pub(crate) struct Server {
    pub(crate) port: u16,
    ended: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// Connections that it has accepted.
    pub(crate) accepted: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_on(0, handler)
    }

    pub(crate) fn start_on(port: u16, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let ended = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(Vec::new()));
        let accepted = Arc::new(AtomicUsize::new(0));
        let handler: Handler = Arc::new(handler);
        let thread = std::thread::spawn({
            let (ended, open, accepted) = (Arc::clone(&ended), Arc::clone(&open), Arc::clone(&accepted));
            move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let stream = stream.expect("accept");
                    accepted.fetch_add(1, Ordering::SeqCst);
                    stream.set_nodelay(true).expect("nodelay");
                    open.lock().expect("lock").push(stream.try_clone().expect("clone"));
                    let handler = Arc::clone(&handler);
                    std::thread::spawn(move || {
                        let end = stream.try_clone().expect("clone");
                        handler(stream);
                        // Another descriptor of it is in the list.
                        let _ = end.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { port, ended, open, accepted, thread: Some(thread) }
    }

    /// An instance that answers every request with its version and the request's body.
    pub(crate) fn http(version: &str) -> Self {
        let version = version.to_owned();
        Self::start(move |stream| echo(stream, &version))
    }

    /// Everything is cut off, as when the process is killed.
    pub(crate) fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread, which closes the listener.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        thread.join().expect("the accepting thread");
        for stream in self.open.lock().expect("lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers until the client has no more requests.
pub(crate) fn echo(stream: TcpStream, version: &str) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let mut writer = stream;
    while let Some(message) = read_message(&mut reader) {
        let body = format!("{version} {}", message.body);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if writer.write_all(answer.as_bytes()).is_err() || message.says("connection", "close") {
            return;
        }
    }
}

/// A request or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) start: String,
    /// Header fields, names in lower case, one `name: value` each.
    pub(crate) fields: Vec<String>,
    /// The body, chunks put together.
    pub(crate) body: String,
}

impl Message {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn says(&self, name: &str, value: &str) -> bool {
        self.field(name) == Some(value)
    }
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    Some(line.trim_end().to_owned())
}

/// Reads a message; `None` when the connection ends before the whole of it is there.
pub(crate) fn read_message(reader: &mut impl BufRead) -> Option<Message> {
    let start = read_line(reader)?;
    let mut fields = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        fields.push(format!("{}: {}", name.to_lowercase(), value.trim()));
    }
    let mut message = Message { start, fields, body: String::new() };
    let mut body = Vec::new();
    if message.says("transfer-encoding", "chunked") {
        loop {
            let size = usize::from_str_radix(&read_line(reader)?, 16).ok()?;
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk).ok()?;
            read_line(reader)?;
            if size == 0 {
                break;
            }
            body.extend(chunk);
        }
    } else {
        body = vec![0; message.field("content-length").map_or(0, |size| size.parse().expect("a size"))];
        reader.read_exact(&mut body).ok()?;
    }
    message.body = String::from_utf8(body).expect("text");
    Some(message)
}

/// Sends a request and reads its answer.
pub(crate) fn ask(stream: &mut TcpStream, request: &str) -> Option<Message> {
    stream.write_all(request.as_bytes()).ok()?;
    read_message(&mut BufReader::new(stream))
}

/// A request with a body.
pub(crate) fn post(body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: api\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A request without one.
pub(crate) fn get(more: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: api\r\n{more}\r\n")
}
