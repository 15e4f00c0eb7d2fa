//! Where clients reach an app: an address of the host and what is spoken there.
//!
//! Owns the text of it, `127.0.0.1:8000` or `http://127.0.0.1:8000`. Looks nothing up: only numeric addresses.

use crate::names::NameError;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;

const HTTP: &str = "http://";

/// Where clients reach an app, `127.0.0.1:8000` or `http://127.0.0.1:8000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listen {
    /// True when what is spoken there is HTTP/1.1, so that each request may go to another instance; false when
    /// connections are forwarded as they are.
    pub http: bool,
    /// The address; its port is not 0.
    pub address: SocketAddr,
}

impl Listen {
    /// Reads its text.
    ///
    /// # Errors
    /// The rule that the text breaks, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let bad =
            |reason: &str| NameError { kind: "address", text: text.to_owned(), reason: reason.to_owned() };
        let (http, address) = match text.strip_prefix(HTTP) {
            Some(rest) => (true, rest),
            None if text.contains("://") => {
                return Err(bad("before the address may stand `http://`, and nothing else"));
            }
            None => (false, text),
        };
        let Ok(address) = address.parse::<SocketAddr>() else {
            let what = match address.rsplit_once(':') {
                None => "it must be ADDRESS:PORT, and the port is missing",
                Some((host, _)) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => {
                    "an IPv6 address is written in brackets, `[::1]:80`"
                }
                Some(_) => {
                    "it must be a numeric address with a port: `127.0.0.1:8000` for clients on this host, \
                     `0.0.0.0:8000` or `[::]:8000` for all"
                }
            };
            return Err(bad(what));
        };
        if address.port() == 0 {
            return Err(bad("the port must be from 1 to 65535"));
        }
        Ok(Self { http, address })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { http, address } = self;
        write!(f, "{}{address}", if *http { HTTP } else { "" })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_are_written() {
        for text in ["127.0.0.1:8000", "0.0.0.0:80", "[::]:443", "http://127.0.0.1:1", "http://[::1]:65535"] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn everything_else_is_refused_with_what_to_write() {
        for (text, expect) in [
            ("127.0.0.1", "port is missing"),
            ("localhost:80", "numeric address"),
            ("::1:80", "brackets"),
            ("127.0.0.1:0", "from 1"),
            ("127.0.0.1:65536", "numeric address"),
            ("https://127.0.0.1:443", "`http://`"),
            ("http://127.0.0.1:80/path", "numeric address"),
            ("http://", "port is missing"),
            ("", "port is missing"),
        ] {
            let error = Listen::parse(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{text}: {error}");
        }
    }
}
