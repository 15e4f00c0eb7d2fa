//! No request is lost while the traffic moves from instance to instance, and while the front itself ends.

#[expect(dead_code, reason = "this program uses a part of it")]
mod common;

use common::Place;
use common::Server;
use common::app;
use common::ask;
use common::get;
use common::post;
use common::wait_for;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use zed_host::Host;
use zed_host::LocalHost;
use zed_plan::Instance;

/// Each replaces the instance before, which is stopped as soon as nothing is open to it.
const UPGRADES: usize = 100;
const CLIENTS: usize = 6;
/// Requests that each client makes between two upgrades at least.
const REQUESTS: usize = 5;

/// Clients that make requests until they are told to end, and what became of them.
struct Load {
    end: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// `request` makes the nth request of a client, and says what was wrong with it.
    fn start<S: 'static>(
        new: fn() -> S,
        request: impl Fn(&mut S, usize) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let (end, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let request = Arc::new(request);
        let clients = (0..CLIENTS)
            .map(|_| {
                let (end, done, request) = (Arc::clone(&end), Arc::clone(&done), Arc::clone(&request));
                std::thread::spawn(move || {
                    let (mut state, mut wrong) = (new(), Vec::new());
                    for n in 0.. {
                        if end.load(Ordering::Relaxed) {
                            break;
                        }
                        if let Err(why) = request(&mut state, n) {
                            wrong.push(why);
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    wrong
                })
            })
            .collect();
        Self { end, done, clients }
    }

    fn wait_for_more(&self) {
        let enough = self.done.load(Ordering::Relaxed) + REQUESTS * CLIENTS;
        wait_for("requests", || (self.done.load(Ordering::Relaxed) >= enough).then_some(()));
    }

    /// How many requests were made; not one may have failed.
    fn finish(self) -> usize {
        self.end.store(true, Ordering::Relaxed);
        let wrong: Vec<String> = self.clients.into_iter().flat_map(|c| c.join().expect("a client")).collect();
        let done = self.done.load(Ordering::Relaxed);
        assert_eq!(wrong, Vec::<String>::new(), "{} of {done} requests", wrong.len());
        done
    }
}

/// Replaces the instance again and again. The last one.
fn upgrade(place: &Place, load: &Load) -> Server {
    let mut old = Server::http("0");
    place.route(&[old.port]);
    for n in 1..=UPGRADES {
        let new = Server::http(&n.to_string());
        place.route(&[new.port]);
        assert_eq!(place.drained(old.port), 0, "left open to {}", old.port);
        old.stop();
        old = new;
        load.wait_for_more();
    }
    old
}

fn check(message: Option<common::Message>, body: &str) -> Result<(), String> {
    match message {
        Some(m) if m.start == "HTTP/1.1 200 OK" && m.body.ends_with(&format!(" {body}")) => Ok(()),
        other => Err(format!("{body}: {other:?}")),
    }
}

fn with_new_connections(http: bool) {
    let place = Place::new(http);
    let first = Server::http("first");
    place.route(&[first.port]);
    let address = place.listen.address;
    let load = Load::start(
        || (),
        move |(), n| {
            let mut stream = TcpStream::connect(address).map_err(|e| format!("connect: {e}"))?;
            let body = format!("request {n}");
            let request = post(&body).replacen("Host:", "Connection: close\r\nHost:", 1);
            check(ask(&mut stream, &request), &body)
        },
    );
    let _last = upgrade(&place, &load);
    assert!(load.finish() >= UPGRADES * REQUESTS * CLIENTS);
}

#[test]
fn connections_are_not_lost() {
    with_new_connections(false);
}

#[test]
fn requests_of_new_connections_are_not_lost() {
    with_new_connections(true);
}

#[test]
fn requests_of_kept_connections_are_not_lost() {
    let place = Place::new(true);
    let first = Server::http("first");
    place.route(&[first.port]);
    let address = place.listen.address;
    let load = Load::start(
        || None::<TcpStream>,
        move |stream, n| {
            // One connection for all requests: opened once, and never again.
            if stream.is_none() {
                *stream = Some(TcpStream::connect(address).map_err(|e| format!("connect: {e}"))?);
            }
            let stream = stream.as_mut().ok_or("no connection")?;
            match n % 3 {
                0 => check(ask(stream, &get("")), ""),
                1 => check(ask(stream, &post(&format!("request {n}"))), &format!("request {n}")),
                _ => {
                    let request = "PUT / HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
                    check(ask(stream, request), "abcde")
                }
            }
        },
    );
    let _last = upgrade(&place, &load);
    assert!(load.finish() >= UPGRADES * REQUESTS * CLIENTS);
    let status = place.host.front_status(&app()).expect("status");
    assert!(status.accepted <= CLIENTS as u64, "{status:?}");
    assert_eq!(status.refused, 0);
}

#[test]
fn a_killed_front_is_started_again_and_goes_on_with_its_route() {
    for http in [false, true] {
        let place = Place::new(http);
        let (one, two) = (Server::http("one"), Server::http("two"));
        place.route(&[one.port]);
        place.route(&[two.port]);
        let before = wait_for("the front", || place.front_pid());
        nix::sys::signal::kill(Pid::from_raw(before.cast_signed()), Signal::SIGKILL).expect("kill");
        let answer = wait_for("an answer of the next front", || {
            let mut stream = TcpStream::connect(place.listen.address).ok()?;
            ask(&mut stream, &get("Connection: close\r\n"))
        });
        assert_eq!(answer.body, "two ");
        assert_ne!(wait_for("the next front", || place.front_pid()), before);
    }
}

#[test]
fn a_front_outlives_the_daemon_and_is_adopted_by_the_next() {
    let place = Place::new(false);
    let (one, two) = (Server::http("one"), Server::http("two"));
    place.route(&[one.port]);
    let pid = place.front_pid().expect("it runs");
    let next: LocalHost = place.new_daemon();
    next.route(&place.a_route(&[one.port])).expect("the same");
    next.route(&place.a_route(&[two.port, one.port])).expect("another");
    assert_eq!(place.front_pid(), Some(pid));
    let bodies: Vec<String> = (0..4)
        .map(|_| ask(&mut place.connect(), &get("Connection: close\r\n")).expect("an answer").body)
        .collect();
    assert!(bodies.contains(&"one ".to_owned()) && bodies.contains(&"two ".to_owned()), "{bodies:?}");
    // What still gets connections is not drained, and what has none is.
    let error = next.drain(&Instance::first(&app()), one.port, common::PATIENCE).expect_err("still served");
    assert!(error.to_string().contains("still gets connections"), "{error}");
    next.route(&place.a_route(&[])).expect("stop");
    assert_eq!(place.front_pid(), None);
    assert!(TcpStream::connect(place.listen.address).is_err());
    assert!(!place.files().join("route.json").exists());
    assert_eq!(next.drain(&Instance::first(&app()), one.port, common::PATIENCE).expect("no front").left, 0);
    next.route(&place.a_route(&[])).expect("again");
}

#[test]
fn a_front_moves_to_another_address() {
    let mut place = Place::new(false);
    let one = Server::http("one");
    place.route(&[one.port]);
    let before = place.listen.address;
    let pid = place.front_pid();
    place.listen.address.set_port(8001);
    place.route(&[one.port]);
    assert_ne!(place.front_pid(), pid);
    assert!(TcpStream::connect(before).is_err());
    assert_eq!(ask(&mut place.connect(), &get("")).expect("an answer").body, "one ");
}
