//! Checks of single texts: paths, addresses, URLs, names of variables, quantities.
//!
//! Owns what is a well-formed value. Never looks at another field.

use super::Cx;
use super::shape::hint_for;
use super::shape::mismatch;
use super::shape::text;
use super::shape::whole;
use crate::diagnostics::quoted;
use crate::names::DatasetPath;
use crate::names::NameError;
use crate::quantity::MAX_SIZE;
use crate::quantity::QuantityError;
use crate::quantity::parse_duration;
use crate::quantity::parse_size;
use crate::syntax::Kind;
use crate::syntax::Node;
use std::net::IpAddr;
use std::time::Duration;

/// The dataset in which zed keeps its own things. No spec may use it or anything below it.
pub const RESERVED_DATASET: &str = "zed";

/// Native properties of ZFS that can only be read.
const READ_ONLY_PROPERTIES: &[&str] = &[
    "available",
    "compressratio",
    "createtxg",
    "creation",
    "defer_destroy",
    "encryptionroot",
    "filesystem_count",
    "guid",
    "keystatus",
    "logicalreferenced",
    "logicalused",
    "mounted",
    "name",
    "objsetid",
    "origin",
    "receive_resume_token",
    "redact_snaps",
    "refcompressratio",
    "referenced",
    "snapshot_count",
    "snapshots_changed",
    "type",
    "used",
    "usedbychildren",
    "usedbydataset",
    "usedbyrefreservation",
    "usedbysnapshots",
    "userrefs",
    "written",
];

/// Text on one line that is not empty.
pub(super) fn line(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    let value = text(cx, node)?;
    let problem = if value.is_empty() {
        "must not be empty"
    } else if value.contains(char::is_control) {
        "must not contain control characters"
    } else if value.trim() != value {
        "must not begin or end with white space"
    } else {
        return Some(value);
    };
    cx.error(node.span, format!("`{}` {problem}", cx.field));
    None
}

/// Any text that a program can be given: everything but NUL.
pub(super) fn argument(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    let value = text(cx, node)?;
    if value.contains('\0') {
        cx.error(
            node.span,
            format!("`{}` contains a NUL character, which no program can be given", cx.field),
        );
        return None;
    }
    Some(value)
}

/// One line that passes `rule`, which gives the reason when it does not.
pub(super) fn line_with(
    cx: &mut Cx<'_>,
    node: &Node<'_>,
    rule: impl FnOnce(&str) -> Result<(), String>,
) -> Option<String> {
    let value = line(cx, node)?;
    match rule(&value) {
        Ok(()) => Some(value),
        Err(reason) => {
            cx.error(node.span, format!("{} is no good for `{}`: {reason}", quoted(&value), cx.field));
            None
        }
    }
}

/// A name of the kind that `parse` makes.
pub(super) fn name<T>(
    cx: &mut Cx<'_>,
    node: &Node<'_>,
    parse: impl FnOnce(&str) -> Result<T, NameError>,
) -> Option<T> {
    let value = text(cx, node)?;
    match parse(&value) {
        Ok(name) => Some(name),
        Err(NameError { kind, reason, .. }) => {
            cx.error(node.span, format!("{} is not a valid {kind}: {reason}", quoted(&value)));
            None
        }
    }
}

/// A dataset's name outside zed's own.
pub(super) fn dataset_name(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<DatasetPath> {
    let path = name(cx, node, DatasetPath::parse)?;
    if path.as_str().split('/').next() == Some(RESERVED_DATASET) {
        cx.error_hint(
            node.span,
            format!(
                "{} is not a valid dataset name for a spec: `{RESERVED_DATASET}` belongs to zed itself",
                quoted(path.as_str())
            ),
            "choose another first component, for instance `apps/` or `data/`",
        );
        return None;
    }
    Some(path)
}

/// `tank` or `tank/path`.
pub(super) fn pool(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    let path =
        name(cx, node, |text| DatasetPath::parse(text).map_err(|error| NameError { kind: "pool", ..error }))?;
    let first = path.as_str().split('/').next().unwrap_or_default();
    let reserved =
        ["mirror", "raidz", "draid", "spare"].iter().any(|word| first.starts_with(word)) || first == "log";
    if reserved || !first.starts_with(|c: char| c.is_ascii_alphabetic()) {
        cx.error(
            node.span,
            format!(
                "{} is not a valid pool: a pool's name begins with a letter, and mirror, raidz, draid, spare and log are taken by ZFS",
                quoted(path.as_str())
            ),
        );
        return None;
    }
    Some(path.as_str().to_owned())
}

/// The name of an environment variable.
pub(super) fn env_name(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    let value = text(cx, node)?;
    let good = value.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && value.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
    if !good {
        cx.error_hint(
            node.span,
            format!("{} is not a valid name for an environment variable", quoted(&value)),
            "letters, digits and `_`, not beginning with a digit",
        );
        return None;
    }
    Some(value)
}

/// An absolute path without `..`.
pub(super) fn absolute_path(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    line_with(cx, node, check_absolute)
}

fn check_absolute(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("it must be an absolute path, beginning with `/`".to_owned());
    }
    if path.split('/').any(|part| part == "." || part == "..") {
        return Err("a path here has no `.` and no `..`".to_owned());
    }
    if path.len() > 1024 {
        return Err("it is longer than 1024 bytes".to_owned());
    }
    Ok(())
}

/// An absolute path, `none` or `legacy`.
pub(super) fn mountpoint(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    line_with(cx, node, |value| match value {
        "none" | "legacy" => Ok(()),
        _ => check_absolute(value).map_err(|reason| format!("{reason}, or it is `none` or `legacy`")),
    })
}

/// `HOST:PORT`, also `[::1]:80`.
pub(super) fn address(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    line_with(cx, node, |value| {
        let (host, port) = value.rsplit_once(':').ok_or("it must be HOST:PORT, and the port is missing")?;
        check_host(host)?;
        check_port(port)
    })
}

fn check_host(host: &str) -> Result<(), String> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("`[` is not closed")?;
        return match inner.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("{} is not an IPv6 address", quoted(inner))),
        };
    }
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if host.contains(':') {
        return Err("an IPv6 address is written in brackets, `[::1]:80`".to_owned());
    }
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if numeric && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err(format!("{} is not an IPv4 address", quoted(host)));
    }
    let good = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    if host.len() > 253 || !host.split('.').all(good) {
        return Err(format!("{} is not a host name", quoted(host)));
    }
    Ok(())
}

fn check_port(port: &str) -> Result<(), String> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(1..) if digits => Ok(()),
        _ => Err(format!("{} is not a port from 1 to 65535", quoted(port))),
    }
}

/// `http://HOST[:PORT][/PATH]`, or the same with `https://`.
pub(super) fn http_url(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    line_with(cx, node, |value| {
        let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
        let rest = rest.ok_or_else(|| "it must begin with `http://` or `https://`".to_owned())?;
        if value.contains(char::is_whitespace) || !value.is_ascii() {
            return Err("spaces and characters beyond ASCII are written as %XX".to_owned());
        }
        if value.contains('#') {
            return Err("a probe's URL has no `#`".to_owned());
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err("user names and passwords do not belong into a URL".to_owned());
        }
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => check_host(host).and_then(|()| check_port(port)),
            _ => check_host(authority),
        }
    })
}

/// `ADDRESS/PREFIX`, of the family that `family` accepts.
pub(super) fn prefix(
    cx: &mut Cx<'_>,
    node: &Node<'_>,
    kind: &str,
    family: fn(&IpAddr) -> bool,
) -> Option<String> {
    line_with(cx, node, |value| {
        let wrong = || format!("it must be {kind}/PREFIX");
        let (address, length) = value.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        if !family(&address) {
            return Err(wrong());
        }
        let max = if address.is_ipv4() { 32 } else { 128 };
        match length.parse::<u8>() {
            Ok(n) if n <= max && !length.starts_with('+') => Ok(()),
            _ => Err(format!("{} is not a prefix from 0 to {max}", quoted(length))),
        }
    })
}

/// A name that a command line takes: no white space, no leading `-`.
pub(super) fn word(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    line_with(cx, node, |value| {
        if value.starts_with('-') {
            Err("it must not begin with `-`".to_owned())
        } else if value.contains(char::is_whitespace) {
            Err("it must not contain white space".to_owned())
        } else if value.len() > 255 {
            Err("it is longer than 255 bytes".to_owned())
        } else {
            Ok(())
        }
    })
}

/// A version: one line, at most 128 bytes, not beginning with `@`, which marks snapshots in rollbacks.
pub(super) fn version(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    line_with(cx, node, |value| {
        if value.starts_with('@') {
            Err("`@` marks snapshots, so no version begins with it".to_owned())
        } else if value.len() > 128 {
            Err("it is longer than 128 bytes".to_owned())
        } else {
            Ok(())
        }
    })
}

/// 64 lower-case hexadecimal digits after `before`.
pub(super) fn sha256(cx: &mut Cx<'_>, node: &Node<'_>, before: &'static str) -> Option<String> {
    line_with(cx, node, |value| {
        let digits = value.strip_prefix(before).ok_or_else(|| format!("it must begin with `{before}`"))?;
        if digits.len() != 64 {
            return Err(format!("it has {} hexadecimal digits instead of 64", digits.chars().count()));
        }
        match digits.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
            Some(c) => Err(format!("`{c}` is not a lower-case hexadecimal digit")),
            None => Ok(()),
        }
    })
}

/// A compression that ZFS knows.
pub(super) fn compression(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    const PLAIN: &[&str] = &["on", "off", "lz4", "zstd", "zstd-fast", "gzip", "zle", "lzjb"];
    let value = line(cx, node)?;
    let level = |prefix: &str| value.strip_prefix(prefix).and_then(|n| n.parse::<u32>().ok());
    let canonical = |prefix: &str, n: u32| value == format!("{prefix}{n}");
    let fast = |n: u32| {
        (1..=10).contains(&n) || ((10..=100).contains(&n) && n.is_multiple_of(10)) || matches!(n, 500 | 1000)
    };
    let good = PLAIN.contains(&value.as_str())
        || level("zstd-").is_some_and(|n| (1..=19).contains(&n) && canonical("zstd-", n))
        || level("gzip-").is_some_and(|n| (1..=9).contains(&n) && canonical("gzip-", n))
        || level("zstd-fast-").is_some_and(|n| fast(n) && canonical("zstd-fast-", n));
    if !good {
        let hint = match value.split_once('-') {
            Some(("zstd", _)) => {
                "zstd has the levels zstd-1 to zstd-19, and zstd-fast-1 to zstd-fast-1000".to_owned()
            }
            Some(("gzip", _)) => "gzip has the levels gzip-1 to gzip-9".to_owned(),
            _ => hint_for(cx, &value, PLAIN, "one of"),
        };
        cx.error_hint(node.span, format!("{} is not a compression of ZFS", quoted(&value)), hint);
        return None;
    }
    Some(value)
}

/// The name of a native ZFS property that can be set.
pub(super) fn property_name(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<String> {
    line_with(cx, node, |value| {
        if value.contains(':') {
            return Err("names with `:` are user properties; specs set native ones".to_owned());
        }
        if READ_ONLY_PROPERTIES.contains(&value) {
            return Err("ZFS only reports this property; it cannot be set".to_owned());
        }
        let good = value.starts_with(|c: char| c.is_ascii_lowercase())
            && value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_@".contains(c));
        if good && value.len() <= 64 {
            Ok(())
        } else {
            Err("it is not the name of a ZFS property".to_owned())
        }
    })
}

/// A duration of at least `min`.
pub(super) fn duration(cx: &mut Cx<'_>, node: &Node<'_>, min: Duration) -> Option<Duration> {
    let Kind::Str(value) = &node.kind else {
        let hint = match node.kind {
            Kind::Int { negative: false, magnitude } => {
                Some(format!("write the unit, in quotes: \"{magnitude}s\""))
            }
            _ => None,
        };
        match hint {
            Some(hint) => {
                let message = format!("`{}` must be a duration, not {}", cx.field, quoted(cx.written(node)));
                cx.error_hint(node.span, message, hint);
            }
            None => mismatch(cx, node, "text that is a duration, for instance \"10s\""),
        }
        return None;
    };
    match parse_duration(value) {
        Ok(value) if value >= min => Some(value),
        Ok(_) => {
            cx.error(node.span, format!("`{}` must be longer than 0", cx.field));
            None
        }
        Err(QuantityError { reason, .. }) => {
            cx.error_hint(
                node.span,
                format!("{} is not a duration: {reason}", quoted(value)),
                "for instance \"500ms\", \"10s\" or \"1m30s\"",
            );
            None
        }
    }
}

/// A size in bytes: a plain number or text with a unit.
pub(super) fn size(cx: &mut Cx<'_>, node: &Node<'_>, min: u64) -> Option<u64> {
    let Kind::Str(value) = &node.kind else {
        return match node.kind {
            Kind::Int { .. } => whole(cx, node, min, MAX_SIZE),
            _ => {
                mismatch(cx, node, "text that is a size, for instance \"512M\"");
                None
            }
        };
    };
    match parse_size(value) {
        Ok(bytes) if bytes >= min => Some(bytes),
        Ok(_) => {
            cx.error(node.span, format!("`{}` must be at least {min}, not {}", cx.field, quoted(value)));
            None
        }
        Err(QuantityError { reason, .. }) => {
            cx.error_hint(
                node.span,
                format!("{} is not a size: {reason}", quoted(value)),
                "for instance \"512M\" or \"2G\"; K is 1024",
            );
            None
        }
    }
}
