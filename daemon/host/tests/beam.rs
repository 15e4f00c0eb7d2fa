//! BeamPing against a real Erlang node and a real epmd. Without Erlang these tests say that they did not run.

#[expect(dead_code, reason = "this program uses a part of it")]
mod common;

use common::Place;
use common::free_port;
use common::instance;
use common::wait_for;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use zed_host::Host;
use zed_host::ProbeReport;
use zed_host::ProbeRequest;
use zed_spec::Health;
use zed_spec::Probe;

/// Prints every second whom it sees, so that the log shows whether a ping disturbs it.
const LOOK: &str = "net_kernel:monitor_nodes(true), F = fun G() -> io:format(\"sees ~p ~p~n\", [nodes(), \
                    nodes(hidden)]), receive {nodeup, N} -> io:format(\"nodeup ~p~n\", [N]) after 50 -> ok end, G() end, \
                    io:format(\"ready ~p~n\", [node()]), F().";

/// A node in a host of its own, with an epmd of its own, that end with it.
struct Node {
    place: Place,
    epmd: u16,
}

impl Node {
    /// `None` where there is no Erlang.
    fn start(kind: &str, name: &str) -> Option<Self> {
        let found = |program: &str| Path::new("/usr/bin").join(program).exists();
        if !found("erl") || !found("epmd") {
            eprintln!("not checked: no Erlang here (Debian: erlang-base)");
            return None;
        }
        let epmd = free_port();
        let place = Place::new();
        let data = place.data().to_string_lossy().into_owned();
        let environment = |start: &mut zed_host::Start| {
            start.environment.insert("ERL_EPMD_PORT".to_owned(), epmd.to_string());
            start.environment.insert("HOME".to_owned(), data.clone());
        };
        let mut start = place.command("epmd", &["/usr/bin/epmd"]);
        environment(&mut start);
        place.host.start(&start).expect("start epmd");
        wait_for("epmd", || std::net::TcpStream::connect(("127.0.0.1", epmd)).ok());
        let mut start = place.command(
            "shop",
            &[
                "/usr/bin/erl",
                "-noinput",
                kind,
                name,
                "-setcookie",
                "monster",
                "-start_epmd",
                "false",
                "-eval",
                LOOK,
            ],
        );
        environment(&mut start);
        place.host.start(&start).expect("start erl");
        place.wait_for_log("shop", "ready ");
        Some(Self { place, epmd })
    }

    fn ping(&self, name: &str, cookie: Option<&str>) -> ProbeReport {
        let mut environment = BTreeMap::from([
            ("RELEASE_NODE".to_owned(), name.to_owned()),
            ("ERL_EPMD_PORT".to_owned(), self.epmd.to_string()),
        ]);
        environment.extend(cookie.map(|cookie| ("RELEASE_COOKIE".to_owned(), cookie.to_owned())));
        let probes = vec![Probe::BeamPing];
        let timeout = Duration::from_secs(30);
        let request = ProbeRequest {
            instance: instance("shop"),
            health: Health {
                probes,
                interval: Duration::from_millis(10),
                timeout,
                attempts: 1,
                successes: 1,
            },
            run_hash: "h1".to_owned(),
            directory: self.place.data(),
            environment,
            user: None,
            group: None,
        };
        self.place.host.probe(&request, &Arc::new(AtomicBool::new(false)))
    }

    fn refused(&self, name: &str, cookie: &str, words: &str) {
        let report = self.ping(name, Some(cookie));
        assert!(!report.healthy && report.summary.contains(words), "{name} {words}: {report:?}");
    }
}

#[test]
fn a_node_with_a_long_name_answers_and_is_not_disturbed() {
    let Some(node) = Node::start("-name", "shop@127.0.0.1") else { return };
    let report = node.ping("shop@127.0.0.1", Some("monster"));
    assert!(report.healthy, "{report:?}");
    assert_eq!(report.summary, "BeamPing: shop@127.0.0.1 completed the handshake");
    // Without a cookie in the spec, that of the release.
    let missing = node.ping("shop@127.0.0.1", None);
    assert!(missing.summary.contains("the app has no `cookie`"), "{missing:?}");
    std::fs::create_dir(node.place.data().join("releases")).expect("mkdir");
    std::fs::write(node.place.data().join("releases/COOKIE"), "monster\n").expect("write");
    assert!(node.ping("shop@127.0.0.1", None).healthy);
    // Many in a row, as the steady state does it.
    for _ in 0..50 {
        let report = node.ping("shop@127.0.0.1", Some("monster"));
        assert!(report.healthy, "{report:?}");
    }
    node.refused("shop@127.0.0.1", "wrong", "the cookie is wrong: it refuses our answer to its challenge");
    node.refused("shop2@127.0.0.1", "monster", "knows no node `shop2`");
    let report = node.ping("shop@127.0.0.1", Some("monster"));
    assert!(report.healthy, "a wrong cookie leaves nothing behind: {report:?}");
    // All connections are gone again, and nobody was told of a node.
    let before = node.place.log("shop").lines().count();
    let log = wait_for("two more looks", || {
        let log = node.place.log("shop");
        (log.lines().count() > before + 2).then_some(log)
    });
    assert!(log.lines().next_back().expect("a line").ends_with("sees [] []"), "{log}");
    assert!(!log.contains("nodeup"), "{log}");
    assert!(!log.contains("sees [zed") && !log.contains("sees ['zed"), "{log}");
    // epmd goes away: that is another text, and the node's own death yet another.
    node.place.host.stop(&instance("epmd"), Duration::from_secs(10)).expect("stop");
    node.refused("shop@127.0.0.1", "monster", "no epmd answers: 127.0.0.1:");
}

#[test]
fn a_node_with_a_short_name_answers_with_and_without_its_host() {
    let Some(node) = Node::start("-sname", "shop") else { return };
    let host = nix::unistd::gethostname().expect("a name").to_string_lossy().into_owned();
    let full = format!("shop@{}", host.split('.').next().expect("a part"));
    for name in ["shop", &full] {
        let report = node.ping(name, Some("monster"));
        assert!(report.healthy, "{name}: {report:?}");
        assert!(report.summary.ends_with(&format!("{full} completed the handshake")), "{report:?}");
    }
    node.refused("shop", "wrong", "the cookie is wrong");
    node.refused("shop@no-such-host.invalid", "monster", "no such host `no-such-host.invalid`");
}
