//! Health after the deploy: an app whose port is closed and opened again while its process goes on.

use nix::sys::signal::Signal;
use zed_tests::Zed;
use zed_tests::free_port;

/// Serves while the file is there.
const SERVER: &str = r#"
import http.server, os, sys, threading, time
port, flag, server = int(sys.argv[1]), sys.argv[2], None
class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
while True:
    up = os.path.exists(flag)
    if up and not server:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Quiet)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    if not up and server:
        server.shutdown()
        server.server_close()
        server = None
    time.sleep(0.02)
"#;

/// `web` with these fields of its health.
fn write_spec(zed: &Zed, version: &str, port: u16, health: &str) {
    let dir = zed.dir().display();
    let spec = format!(
        "Deploy(datasets: {{\"apps/web\": ()}}, apps: {{\"web\": (dataset: \"apps/web\", version: \"{version}\", command: \
         [\"python3\", \"{dir}/server.py\", \"{port}\", \"{dir}/flag\"], health: ({health}))}})\n"
    );
    std::fs::write(zed.dir().join("web.ron"), spec).expect("write");
}

/// A daemon that asks every second, with `web` deployed and serving.
fn deployed() -> (Zed, u16) {
    let mut zed = Zed::stopped().with_args(&["--health-interval", "1"]);
    zed.launch();
    let port = free_port();
    std::fs::write(zed.dir().join("server.py"), SERVER).expect("write");
    std::fs::write(zed.dir().join("flag"), "").expect("write");
    let probes =
        format!("probes: [Http(\"http://127.0.0.1:{port}/\"), Tcp(\"127.0.0.1:{port}\")], timeout: \"20s\"");
    write_spec(&zed, "1", port, &probes);
    zed.ok("cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
    (zed, port)
}

/// The kinds of events about health, oldest first.
fn told(zed: &Zed) -> String {
    zed.ok("dd iflag=nonblock status=none if=$M/apps/web/events | grep -oE 'kind=(healthy|unhealthy|recovered) ' | cut -d= -f2 | tr -d '\\n'")
}

#[test]
fn an_app_whose_port_is_closed_is_unhealthy_until_it_is_open_again() {
    let (mut zed, port) = deployed();
    assert_eq!(zed.key("apps/web/status", "health"), "healthy");
    assert_eq!(told(&zed), "healthy ");
    let pid = zed.key("apps/web/status", "pid");
    let url = format!("GET http://127.0.0.1:{port}/");
    zed.eventually(&format!("grep '^\"{url}\" instance=web state=passing ' $M/apps/web/health"));

    zed.ok("rm flag");
    zed.eventually("grep -qx 'health unhealthy' $M/apps/web/status");
    let reason = zed.key("apps/web/status", "health_reason");
    assert!(reason.starts_with(&url) && reason.contains("refused"), "{reason}");
    assert_ne!(zed.key("apps/web/status", "health_since"), "-");
    assert_eq!(zed.key("apps/web/status", "state"), "running");
    assert_eq!(zed.key("hosts/testhost/status", "unhealthy"), "1");
    assert!(zed.ok("head -n 1 $M/apps/web/health").starts_with("unhealthy since="));
    let failing = "import json,sys; print([p['state'] for p in json.load(open(sys.argv[1]))['probes']])";
    assert_eq!(
        zed.ok(&format!("python3 -c \"{failing}\" $M/apps/web/health.json")),
        "['failing', 'failing']"
    );
    zed.ok("grep -qx 'zed_app_healthy{app=\"web\"} 0' $M/metrics");
    zed.ok("grep -qE '^zed_probe_failures_total.app=\"web\". [1-9]' $M/metrics");
    zed.ok("grep -qE 'kind=unhealthy deploy=web app=web text=\"3 checks in a row failed; ' $M/events");
    // What the deploy has stamped is not touched.
    assert_eq!(zed.ok("cat $M/datasets/apps/web/com.zed:health"), "healthy");

    zed.ok("touch flag");
    zed.eventually("grep -qx 'health healthy' $M/apps/web/status");
    assert_eq!(zed.key("hosts/testhost/status", "unhealthy"), "0");
    assert_eq!(told(&zed), "healthy unhealthy recovered ");
    assert_eq!(zed.key("apps/web/status", "pid"), pid, "it was never restarted");

    // A new daemon asks before it says anything, and tells nothing that did not happen.
    zed.signal(Signal::SIGTERM);
    zed.launch();
    zed.eventually("grep -qx 'health healthy' $M/apps/web/status");
    zed.eventually("grep -q state=passing $M/apps/web/health");
    assert_eq!(told(&zed), "healthy unhealthy recovered ");
    assert_eq!(zed.key("apps/web/status", "pid"), pid);
    assert_eq!(
        zed.ok("cat $M/.meta/log_level; echo log debug > $M/ctl; cat $M/.meta/log_level"),
        "info\ndebug"
    );
}

/// A port that accepts connections and never answers, as long as the listener is there.
fn silent() -> (std::net::TcpListener, u16) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    (listener, port)
}

#[test]
fn a_probe_that_never_answers_ends_with_what_was_before() {
    let (zed, port) = deployed();
    let (_listener, silent) = silent();
    let url = format!("GET http://127.0.0.1:{silent}/");
    let probes =
        format!("probes: [Http(\"http://127.0.0.1:{silent}/\")], interval: \"100ms\", timeout: \"300ms\"");
    write_spec(&zed, "2", port, &format!("{probes}, attempts: 2"));
    zed.fails("cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
    let verdict = zed.key("deploy/web.status", "verdict");
    let says = format!("{url} failed 2 times; the last one: {url}: no answer within 300ms");
    assert!(verdict.contains(&says), "{verdict}");
    zed.eventually("grep -qx 'version 1' $M/apps/web/status && grep -qx 'health healthy' $M/apps/web/status");
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/"));
    // A newer save does not wait for it.
    write_spec(&zed, "3", port, &probes.replace("300ms", "1000s"));
    zed.ok("cp web.ron $M/deploy/");
    zed.eventually("grep -q '^step .*probe' $M/deploy/web.status");
    write_spec(&zed, "4", port, &format!("probes: [Tcp(\"127.0.0.1:{port}\")]"));
    zed.ok("cp web.ron $M/deploy/ && sync $M/deploy/web.ron");
    assert_eq!(zed.key("apps/web/status", "version"), "4");
    assert_eq!(zed.key("apps/web/status", "health"), "healthy");
}
