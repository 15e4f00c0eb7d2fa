//! The ping against an epmd and a node that misbehave; `tests/beam.rs` has the real ones.

use super::*;
use std::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(30);

/// Serves one connection after the other; gives its port.
fn serve(work: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            work(stream.unwrap());
        }
    });
    port
}

fn talk(stream: TcpStream) -> Talk {
    Talk { stream, timeout: PATIENCE, until: Instant::now() + PATIENCE }
}

/// An epmd that gives this answer.
fn epmd(answer: Vec<u8>) -> u16 {
    serve(move |stream| {
        let mut talk = talk(stream);
        talk.receive("nothing").unwrap();
        talk.send(&answer).unwrap();
    })
}

fn registered(port: u16, highest: u16, lowest: u16) -> Vec<u8> {
    let mut answer = vec![b'w', 0];
    answer.extend_from_slice(&port.to_be_bytes());
    answer.extend_from_slice(&[77, 0]);
    answer.extend_from_slice(&highest.to_be_bytes());
    answer.extend_from_slice(&lowest.to_be_bytes());
    answer.extend_from_slice(b"\x00\x04shop\x00\x00");
    answer
}

/// A node that sends these messages, each after one of ours.
fn node(messages: Vec<Vec<u8>>) -> u16 {
    serve(move |stream| {
        let mut talk = talk(stream);
        for message in &messages {
            if talk.receive("nothing").is_ok() {
                let _ = talk.send(message);
            }
        }
    })
}

fn challenge(name: &str) -> Vec<u8> {
    let mut message = b"N\x00\x00\x00\x0d\x07\xdf\x7f\xbd\x00\x00\x00\x07\x00\x00\x00\x01".to_vec();
    message.extend_from_slice(&u16::try_from(name.len()).unwrap().to_be_bytes());
    message.extend_from_slice(name.as_bytes());
    wire::frame(&message)
}

fn ping(epmd: u16, timeout: Duration) -> Seen {
    let (alive, cookie) = ("shop".to_owned(), "monster".to_owned());
    let probe = BeamProbe { alive, host: None, cookie, epmd };
    probe.ask(timeout, Instant::now() + timeout)
}

fn ping_node(messages: Vec<Vec<u8>>) -> String {
    ping(epmd(registered(node(messages), 6, 5)), PATIENCE).unwrap_err()
}

#[test]
fn what_epmd_may_say() {
    // Nobody listens there, whatever other tests do meanwhile: the kernel hands out no port so low.
    let closed = 1;
    let cases = [
        (ping(closed, PATIENCE), "no epmd answers: 127.0.0.1:"),
        (ping(epmd(b"w\x01".to_vec()), PATIENCE), "knows no node `shop`"),
        (ping(epmd(Vec::new()), PATIENCE), "epmd's answer is not what the protocol says: nothing"),
        (ping(epmd(b"220 mail".to_vec()), PATIENCE), "is not what the protocol says: 32 32 30"),
        (
            ping(epmd(registered(closed, 5, 5)), PATIENCE),
            "speaks versions 5 to 5 of the distribution protocol",
        ),
        (ping(epmd(registered(closed, 6, 5)), PATIENCE), "epmd says that node `shop` listens on port"),
    ];
    for (seen, words) in cases {
        let said = seen.unwrap_err();
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn what_a_node_may_say() {
    let status = |word: &str| wire::frame(format!("s{word}").as_bytes());
    let ok_then = |next: Vec<u8>| [status("ok"), next].concat();
    let wrong_ack = wire::frame(&[&b"a"[..], &[7; 16]].concat());
    let cases = [
        (
            vec![],
            "it closes the connection after our name; does it speak the distribution protocol without TLS?",
        ),
        (vec![status("nok")], "it refuses the connection: nok"),
        (vec![status("not_allowed")], "it refuses the connection: not_allowed"),
        (vec![status("what")], "the status is not what the protocol says: 73 77"),
        (vec![vec![0, 9, b's']], "in the middle of a message"),
        (vec![vec![0, 9]], "in the middle of its answer to our name"),
        (vec![ok_then(challenge("other@h"))], "another node is there: other@h"),
        (vec![ok_then(wire::frame(b"n\x00\x05"))], "the challenge is not what the protocol says: 6e 00 05"),
        (vec![ok_then(challenge("shop@h"))], "the cookie is wrong: it refuses our answer to its challenge"),
        (vec![ok_then(challenge("shop@h")), wrong_ack], "it does not know the cookie"),
        // `alive` is answered, and then the challenge follows.
        (vec![status("alive"), challenge("shop@h")], "the cookie is wrong"),
    ];
    for (messages, words) in cases {
        let said = ping_node(messages);
        assert!(said.starts_with("node `shop` at 127.0.0.1:") && said.contains(words), "{words}: {said}");
    }
}

#[test]
fn silence_and_single_bytes_get_no_more_than_the_timeout() {
    let timeout = Duration::from_millis(200);
    let (keep, kept) = std::sync::mpsc::channel();
    let silent = serve(move |stream| keep.send(stream).unwrap());
    let dripping = serve(|mut stream| {
        while stream.write_all(b"w").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    for epmd in [silent, epmd(registered(silent, 6, 5)), epmd(registered(dripping, 6, 5))] {
        let said = ping(epmd, timeout).unwrap_err();
        assert!(said.ends_with("no answer within 200ms"), "{said}");
    }
    drop(kept);
}

#[test]
fn node_and_cookie_come_from_where_the_app_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let of = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        BeamProbe::of(&pairs.collect(), folder.path())
    };
    assert_eq!(of(&[]).unwrap_err(), "the app has no `node_name`");
    let node = ("RELEASE_NODE", "shop@10.0.0.1");
    assert!(of(&[node]).unwrap_err().starts_with("the app has no `cookie`, and that of its release, `"));
    std::fs::create_dir(folder.path().join("releases")).unwrap();
    let file = folder.path().join(RELEASE_COOKIE);
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(of(&[node]).unwrap_err().contains("cannot be read"), "a link leads nowhere");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "built\n").unwrap();
    let probe = of(&[node]).unwrap();
    assert_eq!((probe.alive.as_str(), probe.host.as_deref()), ("shop", Some("10.0.0.1")));
    assert_eq!((probe.cookie.as_str(), probe.epmd), ("built", 4369));
    let probe =
        of(&[("RELEASE_NODE", "shop"), ("RELEASE_COOKIE", "given"), ("ERL_EPMD_PORT", "4370")]).unwrap();
    assert_eq!((probe.host, probe.cookie.as_str(), probe.epmd), (None, "given", 4370));
    let wrong = of(&[node, ("RELEASE_COOKIE", "x"), ("ERL_EPMD_PORT", "many")]);
    assert_eq!(wrong.unwrap_err(), "ERL_EPMD_PORT is `many`, not a port");
}

#[test]
fn names_are_used_again() {
    let numbers = |names: &[OwnName]| names.iter().map(|name| name.0).collect::<BTreeSet<_>>();
    let held: Vec<_> = (0..5).map(|_| OwnName::take()).collect();
    assert_eq!(numbers(&held).len(), 5);
    drop(held);
    for _ in 0..100 {
        // Other tests hold some at the same time.
        assert!(OwnName::take().0 < 50);
    }
}
