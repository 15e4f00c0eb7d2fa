//! HTTPS probes against a real TLS server with an authority of its own.

#[expect(dead_code, reason = "this program uses a part of it")]
mod common;

use common::Place;
use common::instance;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;
use rustls::pki_types::PrivateKeyDer;
use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use zed_host::Host;
use zed_host::ProbeReport;
use zed_host::ProbeRequest;
use zed_spec::Health;
use zed_spec::Probe;

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("key");
        Self(CertifiedIssuer::self_signed(params, key).expect("certificate"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server for these names that answers every request with this body.
    fn serve(&self, names: &[&str], days: std::ops::Range<i32>, body: &'static str) -> SocketAddr {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.not_before = rcgen::date_time_ymd(days.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(days.end, 1, 1);
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("configuration");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("connection");
                let mut tls = StreamOwned::new(connection, stream.expect("accept"));
                let mut request = Vec::new();
                let mut byte = [0u8];
                while !request.ends_with(b"\r\n\r\n") && tls.read(&mut byte).is_ok_and(|count| count == 1) {
                    request.push(byte[0]);
                }
                let length = body.len();
                // A client that does not trust it has gone away.
                let _ = write!(tls, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                let _ = tls.flush();
            }
        });
        address
    }
}

fn probe(place: &Place, url: String, ca: Option<&str>, insecure: bool) -> ProbeReport {
    let ca = ca.map(|name| place.data().join(name).to_string_lossy().into_owned());
    let (expect, body) = (None, Some("fine".to_owned()));
    let probes = vec![Probe::Http { url, expect, body, ca, insecure }];
    let timeout = Duration::from_secs(30);
    let request = ProbeRequest {
        instance: instance("idle"),
        health: Health { probes, interval: Duration::from_millis(10), timeout, attempts: 1, successes: 1 },
        run_hash: "h1".to_owned(),
        directory: place.data(),
        environment: BTreeMap::new(),
        user: None,
        group: None,
    };
    place.host.probe(&request, &Arc::new(AtomicBool::new(false)))
}

#[test]
fn a_certificate_is_checked_unless_the_spec_says_not_to() {
    let place = Place::new();
    place.host.start(&place.script("idle", "exec sleep 1000")).expect("start");
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let pretender = Authority::new("ours");
    let write = |name: &str, text: &str| std::fs::write(place.data().join(name), text).expect("write");
    write("ours.pem", &ours.pem());
    write("theirs.pem", &theirs.pem());
    write("pretender.pem", &pretender.pem());
    write("both.pem", &format!("{}{}", theirs.pem(), ours.pem()));
    write("empty.pem", "no certificate\n");
    let good = ours.serve(&["localhost", "127.0.0.1"], 2020..2100, "all is fine");
    let named = ours.serve(&["elsewhere.example"], 2020..2100, "all is fine");
    let old = ours.serve(&["127.0.0.1"], 2020..2021, "all is fine");
    let plain = TcpListener::bind("127.0.0.1:0").expect("bind");
    let plain_address = plain.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in plain.incoming() {
            let _ = stream.expect("accept").write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let port = good.port();
    let says = "its certificate is not accepted: ";
    let cases = [
        (format!("https://{good}/"), Some("ours.pem"), false, Ok(())),
        (format!("https://localhost:{port}/"), Some("both.pem"), false, Ok(())),
        (format!("https://{good}/"), None, true, Ok(())),
        (format!("https://{old}/"), None, true, Ok(())),
        (format!("https://{named}/"), None, true, Ok(())),
        (format!("https://{good}/"), Some("theirs.pem"), false, Err("name the authority with `ca`")),
        (format!("https://{good}/"), Some("pretender.pem"), false, Err("name the authority with `ca`")),
        // Whether this machine has authorities or not, none of them has signed it.
        (format!("https://{good}/"), None, false, Err("with `ca`")),
        (format!("https://{named}/"), Some("ours.pem"), false, Err(says)),
        (format!("https://{old}/"), Some("ours.pem"), false, Err(says)),
        (format!("https://{good}/"), Some("empty.pem"), false, Err("has no certificate in PEM form")),
        (format!("https://{good}/"), Some("absent.pem"), false, Err("cannot be read: No such file")),
        (format!("https://{good}/"), Some(""), false, Err("is not a file")),
        (format!("https://{plain_address}/"), None, true, Err("it does not speak TLS")),
        (format!("http://{good}/"), None, false, Err("GET http://")),
    ];
    for (url, ca, insecure, wanted) in cases {
        let report = probe(&place, url.clone(), ca, insecure);
        match wanted {
            Ok(()) => assert!(report.healthy, "{url} {ca:?}: {report:?}"),
            Err(words) => {
                assert!(
                    !report.healthy && report.summary.contains(words),
                    "{url} {ca:?} {words}: {report:?}"
                );
            }
        }
    }
}
