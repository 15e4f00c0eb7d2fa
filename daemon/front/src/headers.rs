//! Header fields that a proxy takes out, and those that it puts in (RFC 9110, 7.6).

use hyper::HeaderMap;
use hyper::header::CONNECTION;
use hyper::header::EXPECT;
use hyper::header::HeaderName;
use hyper::header::HeaderValue;
use hyper::header::UPGRADE;
use std::net::IpAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that belong to one connection, besides those that `Connection` names.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The protocol that an upgrade is to, when the message asks for one or grants one.
pub(crate) fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = listed(headers).contains(&UPGRADE);
    if asked { headers.get(UPGRADE).cloned() } else { None }
}

/// The fields that `Connection` names.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// Takes out what belongs to the connection that the message came through; an upgrade goes on.
pub(crate) fn strip(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    for name in listed(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
}

/// Says to the instance who asks, and how. What the client says of that itself is believed only when it is on this
/// host, where another proxy may stand before this one.
pub(crate) fn say_who(headers: &mut HeaderMap, client: IpAddr) {
    // The front has answered it.
    headers.remove(EXPECT);
    let client = client.to_canonical();
    let mut chain = String::new();
    if client.is_loopback() {
        let before = headers.get_all(&FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        for value in before {
            chain.push_str(value);
            chain.push_str(", ");
        }
    } else {
        headers.remove(&FORWARDED_PROTO);
    }
    chain.push_str(&client.to_string());
    if let Ok(value) = HeaderValue::from_str(&chain) {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        fields.for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    #[test]
    fn what_belongs_to_one_connection_goes() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Mine"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("host", "a"),
        ]);
        assert_eq!(upgrade_of(&headers), None);
        strip(&mut headers, None);
        assert_eq!(headers, map(&[("host", "a")]));
    }

    #[test]
    fn an_upgrade_goes_on() {
        let mut headers = map(&[("connection", "Keep-Alive, Upgrade"), ("upgrade", "websocket")]);
        let upgrade = upgrade_of(&headers);
        strip(&mut headers, upgrade.as_ref());
        assert_eq!(headers, map(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }

    #[test]
    fn only_a_proxy_on_this_host_is_believed() {
        let said =
            [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https"), ("expect", "100-continue")];
        let mut local = map(&said);
        say_who(&mut local, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(local, map(&[("x-forwarded-for", "9.9.9.9, 127.0.0.1"), ("x-forwarded-proto", "https")]));
        let mut remote = map(&said);
        say_who(&mut remote, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(remote, map(&[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "http")]));
    }
}
