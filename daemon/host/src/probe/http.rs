//! HTTP and HTTPS probes: one GET, judged by its status and by a text in its body.
//!
//! Asks this very app: no proxy of the environment, no redirect is followed, at most [`MAX_BODY`] bytes of a body are
//! read. Certificates are checked against the host's authorities or against those of one file, unless the spec says
//! not to.

use super::Seen;
use super::aside::no_answer;
use std::fs::File;
use std::io;
use std::io::Read;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use ureq::http::Uri;
use ureq::tls::Certificate;
use ureq::tls::PemItem;
use ureq::tls::RootCerts;
use ureq::tls::TlsConfig;
use ureq::tls::parse_pem;
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::DefaultConnector;
use ureq::unversioned::transport::NextTimeout;

/// Most that is read of a body.
const MAX_BODY: usize = 64 * 1024;
/// Longest file of authorities.
const MAX_CA: u64 = 4 << 20;
/// Characters of a body that are shown.
const EXCERPT: usize = 80;

/// One GET and what its answer has to be.
#[derive(Debug, Clone)]
pub(super) struct HttpProbe {
    pub(super) url: String,
    pub(super) expect: Option<u16>,
    pub(super) body: Option<String>,
    pub(super) ca: Option<String>,
    pub(super) insecure: bool,
}

impl HttpProbe {
    /// Blocks until `until` at most, a lookup of a name aside.
    pub(super) fn ask(&self, timeout: Duration, until: Instant) -> Seen {
        let agent = self.agent(until)?;
        let answer = agent.get(&self.url).call().map_err(|e| explain(&e, timeout))?;
        let status = answer.status().as_u16();
        let fine = self.expect.map_or(answer.status().is_success(), |wanted| wanted == status);
        let mut reader = answer.into_body().into_reader();
        if !fine {
            let wanted = self.expect.map_or("2xx".to_owned(), |wanted| wanted.to_string());
            let begin = read_until(&mut reader, EXCERPT * 4, |_| false).bytes;
            return Err(format!("status {status}, expected {wanted}{}", excerpt(&begin)));
        }
        match &self.body {
            None => Ok(format!("status {status}")),
            Some(wanted) => judge_body(&mut reader, status, wanted, timeout),
        }
    }

    fn agent(&self, until: Instant) -> Result<ureq::Agent, String> {
        let left = until.saturating_duration_since(Instant::now());
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(left))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent("zed-probe");
        if self.url.starts_with("https:") {
            config = config.tls_config(self.tls()?);
        }
        Ok(ureq::Agent::with_parts(config.build(), DefaultConnector::default(), InlineResolver))
    }

    fn tls(&self) -> Result<TlsConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        if self.insecure {
            return Ok(config.disable_verification(true).root_certs(RootCerts::from(Vec::new())).build());
        }
        let authorities = match &self.ca {
            Some(path) => authorities_of(path)?,
            None => authorities_of_host()?,
        };
        Ok(config.root_certs(RootCerts::from(authorities)).build())
    }
}

/// ureq's own resolver leaves a thread behind for each lookup that hangs; this one hangs in the caller's, which is
/// counted.
#[derive(Debug)]
struct InlineResolver;

impl Resolver for InlineResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let found = (host, uri.port_u16().unwrap_or(default)).to_socket_addrs().map_err(|e| {
            io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no such address `{host}`: {e}"))
        })?;
        let mut addresses = self.empty();
        // It has room for sixteen.
        for address in found.take(16) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

/// What the host trusts. Read anew each time: an authority that is added counts at once.
fn authorities_of_host() -> Result<Vec<Certificate<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or("none is installed".to_owned(), ToString::to_string);
        return Err(format!("this host has no certificate authorities ({why}); name one with `ca`"));
    }
    Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
}

fn authorities_of(path: &str) -> Result<Vec<Certificate<'static>>, String> {
    let unreadable = |e: io::Error| format!("the file `{path}` of `ca` cannot be read: {e}");
    let file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(format!("`{path}` of `ca` is not a file"));
    }
    let mut text = Vec::new();
    file.take(MAX_CA).read_to_end(&mut text).map_err(unreadable)?;
    let certificates: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            Ok(_) | Err(_) => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(format!("the file `{path}` of `ca` has no certificate in PEM form"));
    }
    Ok(certificates)
}

/// What has come of a body.
struct Received {
    bytes: Vec<u8>,
    /// Why there is no more, when it is not its end.
    broken: Option<io::Error>,
}

/// Reads until it is enough, until there is no more, or until `most` bytes have come.
fn read_until(reader: &mut impl Read, most: usize, enough: impl Fn(&[u8]) -> bool) -> Received {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while bytes.len() < most && !enough(&bytes) {
        let room = piece.len().min(most - bytes.len());
        match reader.read(&mut piece[..room]) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Received { bytes, broken: Some(e) },
        }
    }
    Received { bytes, broken: None }
}

fn judge_body(reader: &mut impl Read, status: u16, wanted: &str, timeout: Duration) -> Seen {
    let has = |bytes: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted.as_bytes());
    let Received { bytes, broken } = read_until(reader, MAX_BODY, has);
    if has(&bytes) {
        return Ok(format!("status {status}, the body has `{wanted}`"));
    }
    let begin = excerpt(&bytes);
    match broken {
        Some(e) if is_timeout(&e) => {
            Err(format!("status {status}, but no `{wanted}` in the body within {timeout:?}{begin}"))
        }
        Some(e) => Err(format!("status {status}, then: {e}{begin}")),
        None => {
            let part = if bytes.len() >= MAX_BODY { "the first 64 KiB of the body" } else { "the body" };
            Err(format!("status {status}, but {part} has no `{wanted}`{begin}"))
        }
    }
}

fn is_timeout(e: &io::Error) -> bool {
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    e.kind() == io::ErrorKind::TimedOut || matches!(inner, Some(ureq::Error::Timeout(_)))
}

/// The begin of a body on one line, after a colon; nothing when there is none.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let text = text.collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        return String::new();
    }
    let begin: String = text.chars().take(EXCERPT).collect();
    let more = if begin.len() < text.len() { "..." } else { "" };
    format!(": {begin}{more}")
}

fn explain(error: &ureq::Error, timeout: Duration) -> String {
    match error {
        ureq::Error::Timeout(_) => no_answer(timeout),
        ureq::Error::Rustls(e) => explain_tls(e),
        ureq::Error::Io(e) => match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => explain_tls(tls),
            None if e.kind() == io::ErrorKind::TimedOut => no_answer(timeout),
            None => e.to_string(),
        },
        other => other.to_string(),
    }
}

fn explain_tls(error: &rustls::Error) -> String {
    use rustls::CertificateError;
    match error {
        // A wrong signature: somebody else of the same name.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "its certificate is signed by nobody who is trusted here; name the authority with `ca`".to_owned()
        }
        rustls::Error::InvalidCertificate(why) => format!("its certificate is not accepted: {why}"),
        rustls::Error::InvalidMessage(_) => format!("it does not speak TLS: {error}"),
        other => format!("TLS: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b""), "");
        assert_eq!(excerpt(b" \r\n\t"), "");
        assert_eq!(excerpt(b"<h1>\n  down\x1b[31m </h1>"), ": <h1> down [31m </h1>");
        let long = excerpt("x".repeat(200).as_bytes());
        assert_eq!(long, format!(": {}...", "x".repeat(EXCERPT)));
    }
}
