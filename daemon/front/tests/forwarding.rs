//! What the front does with single connections and requests, good ones and bad ones.

#[expect(dead_code, reason = "this program uses a part of it")]
mod common;

use common::Message;
use common::PATIENCE;
use common::Place;
use common::Server;
use common::app;
use common::ask;
use common::get;
use common::post;
use common::read_message;
use common::wait_for;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;
use zed_host::Host;
use zed_plan::Instance;

/// More than all buffers on the way together.
const LARGE: usize = 64 << 20;

/// A port on which nobody listens, and nobody will who asks the kernel for a free one: those are above.
fn dead_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = std::process::id() * 16 + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + number % 10_000).expect("a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn each_side_may_end_first() {
    let place = Place::new(false);
    let server = Server::start(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("to the end");
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).expect("write");
    });
    place.route(&[server.port]);
    let mut client = place.connect();
    client.write_all(&vec![7; 3 << 20]).expect("write");
    client.shutdown(Shutdown::Write).expect("half close");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "3145728 bytes");
    // The other way round: the instance ends, the client goes on and is heard.
    let (said, hear) = channel();
    let server = Server::start(move |mut stream| {
        stream.shutdown(Shutdown::Write).expect("half close");
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("read");
        said.send(all).expect("the test waits");
    });
    place.route(&[server.port]);
    let mut client = place.connect();
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    client.write_all(b"still here").expect("write");
    drop(client);
    assert_eq!(hear.recv_timeout(PATIENCE).expect("what the client said"), "still here");
    wait_for("the end of all", || (place.host.front_status(&app())?.open.is_empty()).then_some(()));
}

// How a connection is reset without closing its last descriptor is different elsewhere.
#[cfg(target_os = "linux")]
#[test]
fn what_is_cut_off_is_not_a_quiet_end() {
    let place = Place::new(false);
    let server = Server::start(|stream| {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        let option = nix::sys::socket::sockopt::Linger;
        nix::sys::socket::setsockopt(&stream, option, &linger).expect("linger");
        // The descriptor in the server's list would keep it open.
        let fd = std::os::fd::AsRawFd::as_raw_fd(&stream);
        let unspecified = nix::libc::sockaddr {
            sa_family: u16::try_from(nix::libc::AF_UNSPEC).expect("small"),
            sa_data: [0; 14],
        };
        let size = u32::try_from(size_of::<nix::libc::sockaddr>()).expect("small");
        // SAFETY: connect to "unspecified" resets the connection; the address is valid for the call.
        unsafe { nix::libc::connect(fd, &raw const unspecified, size) };
    });
    place.route(&[server.port]);
    let mut client = place.connect();
    let error = client.read(&mut [0]).expect_err("no end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_client_that_reads_slowly_holds_up_nobody_and_gets_everything() {
    for http in [false, true] {
        let place = Place::new(http);
        let server = Server::start(|stream| {
            let mut reader = BufReader::new(stream.try_clone().expect("clone"));
            let mut writer = stream;
            while let Some(request) = read_message(&mut reader) {
                let size = if request.start.contains("/large") { LARGE } else { 2 };
                writer
                    .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes())
                    .expect("write");
                let chunk = [b'x'; 1024];
                for _ in 0..size / 1024 {
                    writer.write_all(&chunk).expect("write");
                }
                writer.write_all(&chunk[..size % 1024]).expect("write");
            }
        });
        place.route(&[server.port]);
        let mut slow = place.connect();
        slow.write_all(b"GET /large HTTP/1.1\r\nHost: api\r\n\r\n").expect("write");
        wait_for("the large answer to begin", || {
            (place.host.front_status(&app())?.open.get(&server.port) == Some(&1)).then_some(())
        });
        for _ in 0..200 {
            let answer = ask(&mut place.connect(), &get("Connection: close\r\n")).expect("an answer");
            assert_eq!(answer.body, "xx");
        }
        // It waits in the instance and not in the front.
        let pid = place.front_pid().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) {
            let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
            assert!(kilobytes < LARGE / 1024 / 2, "{kilobytes} kB");
        }
        let answer = read_message(&mut BufReader::new(slow)).expect("an answer");
        assert_eq!(answer.body.len(), LARGE);
    }
}

#[test]
fn many_clients_wait_for_an_instance_and_none_is_refused() {
    for http in [false, true] {
        let place = Place::new(http);
        let port = dead_port();
        place.route(&[port]);
        let mut clients: Vec<TcpStream> = (0..300).map(|_| place.connect()).collect();
        for client in &mut clients {
            client.write_all(post("hello").as_bytes()).expect("write");
        }
        wait_for("clients that wait", || {
            (place.host.front_status(&app())?.waiting == clients.len()).then_some(())
        });
        let server = Server::start_on(port, |stream| common::echo(stream, "late"));
        for client in clients {
            let answer = read_message(&mut BufReader::new(client)).expect("an answer");
            assert_eq!(answer.body, "late hello");
        }
        let status = place.host.front_status(&app()).expect("status");
        assert_eq!((status.waiting, status.refused), (0, 0));
        drop(server);
    }
}

#[test]
fn nobody_waits_for_ever() {
    let place = Place::new(true);
    place.route(&[dead_port()]);
    let answer = ask(&mut place.connect(), &get("")).expect("an answer");
    assert_eq!(answer.start, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(answer.field("retry-after"), Some("1"));
    let place = Place::new(false);
    place.route(&[dead_port()]);
    assert_eq!(place.connect().read(&mut [0]).expect("the end"), 0);
    assert_eq!(place.host.front_status(&app()).expect("status").refused, 1);
}

#[test]
fn the_next_instance_is_tried_when_one_does_not_accept() {
    for http in [false, true] {
        let place = Place::new(http);
        let server = Server::http("live");
        place.route(&[dead_port(), server.port, dead_port()]);
        for _ in 0..30 {
            let answer = ask(&mut place.connect(), &get("Connection: close\r\n")).expect("an answer");
            assert_eq!(answer.body, "live ");
        }
    }
}

/// Answers with the request as it arrived.
fn mirror() -> Server {
    Server::start(|stream| {
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        let mut writer = stream;
        while let Some(Message { start, mut fields, body }) = read_message(&mut reader) {
            fields.sort();
            let text = format!("{start}\n{}\n{body}", fields.join("\n"));
            let head =
                "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Kept: 2\r\nKeep-Alive: timeout=5\r\n";
            write!(writer, "{head}Content-Length: {}\r\n\r\n{text}", text.len()).expect("write");
        }
    })
}

#[test]
fn fields_of_one_connection_stay_there_and_the_instance_learns_who_asks() {
    let place = Place::new(true);
    let server = mirror();
    place.route(&[server.port]);
    let mut client = place.connect();
    let from = client.local_addr().expect("address").ip();
    let request =
        get("Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nX-Forwarded-For: 9.9.9.9\r\n");
    let answer = ask(&mut client, &request).expect("an answer");
    let expect =
        format!("GET /x HTTP/1.1\nhost: api\nx-forwarded-for: 9.9.9.9, {from}\nx-forwarded-proto: http\n");
    assert_eq!(answer.body, expect);
    assert_eq!(answer.fields, ["x-kept: 2".to_owned(), format!("content-length: {}", expect.len())]);
    // A URL as to a proxy, and a client of the first version that keeps no connection.
    let answer = ask(&mut client, "GET http://other/y?z HTTP/1.1\r\nHost: api\r\n\r\n").expect("an answer");
    assert!(answer.body.starts_with("GET /y?z HTTP/1.1\nhost: other\n"), "{}", answer.body);
    let answer = ask(&mut client, "CONNECT other:80 HTTP/1.1\r\nHost: other\r\n\r\n").expect("an answer");
    assert_eq!(answer.start, "HTTP/1.1 405 Method Not Allowed");
    let answer = ask(&mut place.connect(), "GET / HTTP/1.0\r\n\r\n").expect("an answer");
    assert!(
        answer.start.starts_with("HTTP/1.0 200") || answer.start.starts_with("HTTP/1.1 200"),
        "{answer:?}"
    );
    let answer = ask(&mut place.connect(), "no request at all\r\n\r\n").expect("an answer");
    assert_eq!(answer.start, "HTTP/1.1 400 Bad Request");
}

#[test]
fn bodies_are_streamed_both_ways() {
    let place = Place::new(true);
    let server = Server::start(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            std::io::BufRead::read_line(&mut reader, &mut line).expect("read");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").expect("write");
        // Each byte of the request is answered when it is there, long before the request ends.
        let mut byte = [0];
        while byte != *b"." {
            reader.read_exact(&mut byte).expect("read");
            if byte[0].is_ascii_uppercase() || byte == *b"." {
                stream.write_all(&[b'1', b'\r', b'\n', byte[0], b'\r', b'\n']).expect("write");
            }
        }
        stream.write_all(b"0\r\n\r\n").expect("write");
        // The rest of the request.
        let _ = reader.read(&mut [0; 64]);
    });
    place.route(&[server.port]);
    let mut client = place.connect();
    client.write_all(b"POST / HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n").expect("write");
    for letter in ["A", "B", "."] {
        client.write_all(format!("1\r\n{letter}\r\n").as_bytes()).expect("write");
        let mut seen = Vec::new();
        while !seen.ends_with(format!("1\r\n{letter}\r\n").as_bytes()) {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("read");
            seen.push(byte[0]);
        }
    }
    client.write_all(b"0\r\n\r\n").expect("write");
}

#[test]
fn an_upgraded_connection_goes_through_and_is_drained() {
    let place = Place::new(true);
    let server = Server::start(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        let request = read_message(&mut reader).expect("a request");
        assert!(request.says("upgrade", "websocket") && request.says("connection", "upgrade"), "{request:?}");
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .expect("write");
        let mut four = [0; 4];
        while reader.read_exact(&mut four).is_ok() {
            stream.write_all(&four).expect("write");
        }
    });
    place.route(&[server.port]);
    let mut client = place.connect();
    let answer = ask(&mut client, &get("Connection: Upgrade\r\nUpgrade: websocket\r\n")).expect("an answer");
    assert_eq!(answer.start, "HTTP/1.1 101 Switching Protocols");
    assert!(answer.says("upgrade", "websocket"), "{answer:?}");
    let next = Server::http("next");
    place.route(&[next.port]);
    for _ in 0..3 {
        client.write_all(b"ping").expect("write");
        let mut four = [0; 4];
        client.read_exact(&mut four).expect("read");
        assert_eq!(&four, b"ping");
    }
    let left = place.host.drain(&Instance::first(&app()), server.port, Duration::ZERO).expect("drain").left;
    assert_eq!(left, 1);
    drop(client);
    assert_eq!(place.drained(server.port), 0);
}

/// Answers `count` requests of each connection and then closes it without a word, as servers do with idle ones.
fn closing(count: usize) -> Server {
    Server::start(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        for _ in 0..count {
            if read_message(&mut reader).is_none() {
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("write");
        }
    })
}

#[test]
fn an_instance_may_close_its_idle_connections_at_any_moment() {
    let place = Place::new(true);
    let server = closing(2);
    place.route(&[server.port]);
    let mut client = place.connect();
    for n in 0..500 {
        let request = if n % 2 == 0 { get("") } else { post("x") };
        let answer = ask(&mut client, &request);
        assert_eq!(answer.map(|answer| answer.body).as_deref(), Some("ok"), "request {n}");
    }
}

#[test]
fn only_what_may_be_sent_twice_is() {
    let place = Place::new(true);
    // Reads the request and closes: whether it did what it was asked is not known.
    let server = Server::start(|stream| {
        let _ = read_message(&mut BufReader::new(stream));
    });
    place.route(&[server.port]);
    let mut client = place.connect();
    let answer = ask(&mut client, &post("pay")).expect("an answer");
    assert_eq!(answer.start, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(server.accepted.load(std::sync::atomic::Ordering::SeqCst), 1);
    let answer = ask(&mut client, &get("")).expect("an answer");
    assert_eq!(answer.start, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(server.accepted.load(std::sync::atomic::Ordering::SeqCst), 4);
    let log = std::fs::read_to_string(place.files().join("log")).expect("log");
    assert!(log.contains("an instance broke a request off"), "{log}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a front of its own, with few open files")]
fn few_open_files_make_clients_wait_and_lose_none() {
    for http in [false, true] {
        let place = Place::new(http);
        let server = Server::start(|stream| {
            // Long enough that the others come meanwhile.
            std::thread::sleep(Duration::from_millis(20));
            common::echo(stream, "few");
        });
        let folder = place.folder.path();
        let route = format!(
            r#"{{"format": 1, "listen": "{}", "ports": [{}], "identity": null}}"#,
            place.listen, server.port
        );
        std::fs::write(folder.join("route.json"), route).expect("write");
        let script =
            format!("ulimit -n 40; exec {} front {}", env!("CARGO_BIN_EXE_zed-front"), folder.display());
        let mut front = std::process::Command::new("/bin/sh").args(["-c", &script]).spawn().expect("a shell");
        wait_for("the front", || TcpStream::connect(place.listen.address).ok());
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let mut client = place.connect();
                std::thread::spawn(move || ask(&mut client, &get("Connection: close\r\n")))
            })
            .collect();
        let answers: Vec<_> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
        front.kill().expect("kill");
        front.wait().expect("its end");
        for answer in answers {
            assert_eq!(answer.expect("an answer").body, "few ");
        }
    }
}

#[test]
fn a_taken_address_is_named_with_who_has_it() {
    let place = Place::new(false);
    let holder = TcpListener::bind(place.listen.address).expect("bind");
    let error = place.host.route(&place.a_route(&[1])).expect_err("taken").to_string();
    assert!(error.contains(&format!("the address {} is taken", place.listen.address)), "{error}");
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    assert_eq!(place.front_pid(), None);
    drop(holder);
    place.route(&[1]);
}

#[test]
fn a_front_gives_its_privileges_up_once_it_listens() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: only root may listen below port 1024 and become somebody else");
        return;
    }
    let mut place = Place::new(false);
    place.listen.address.set_port(80);
    let server = Server::http("root");
    let mut route = place.a_route(&[server.port]);
    route.user = Some("nobody".to_owned());
    place.host.route(&route).expect("route");
    assert_eq!(ask(&mut place.connect(), &get("")).expect("an answer").body, "root ");
    let pid = place.front_pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let uid = nix::unistd::User::from_name("nobody").expect("users").expect("nobody").uid;
    let line = status.lines().find(|line| line.starts_with("Uid:")).expect("Uid");
    assert_eq!(line.split_whitespace().skip(1).collect::<Vec<_>>(), vec![uid.to_string(); 4]);
    let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("environ");
    assert_eq!(String::from_utf8_lossy(&environment), "");
}
