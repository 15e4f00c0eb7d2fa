//! Which names and values are taken, and what is recorded of them.

use super::*;

#[test]
fn native_values_are_checked_and_made_canonical() {
    let ok = |value: &str| Ok(Some(value.to_owned()));
    for (name, value, expected) in [
        ("compression", "zstd-19", ok("zstd-19")),
        ("compression", "gzip-9", ok("gzip-9")),
        ("compression", "zstd-fast-100", ok("zstd-fast-100")),
        ("atime", "off", ok("off")),
        ("quota", "00010", ok("10")),
        ("quota", "0", Ok(None)),
        ("quota", "none", Ok(None)),
        ("recordsize", "131072", ok("131072")),
        ("mountpoint", "/srv/web", ok("/srv/web")),
        ("mountpoint", "legacy", ok("legacy")),
    ] {
        assert_eq!(native_value(name, value), expected, "{name}={value}");
    }
    for (name, value) in [
        ("compression", "zstd-"),
        ("compression", "brotli-3"),
        ("atime", "yes"),
        ("quota", "10G"),
        ("quota", "-1"),
        ("recordsize", "256"),
        ("recordsize", "33554432"),
        ("mountpoint", "/"),
        ("mountpoint", "/srv/../etc"),
        ("mountpoint", "/srv//web"),
        ("mountpoint", "/srv/web/"),
        ("mountpoint", ""),
        ("used", "1"),
    ] {
        let why = native_value(name, value).expect_err(&format!("{name}={value}"));
        assert!(why.contains(name), "{name}={value}: the reason names no property: {why}");
    }
}

#[test]
fn only_what_is_below_zed_branches_is_a_branch() {
    for (name, expected) in [
        ("zed/branches/x", true),
        ("zed/branches/x/y", true),
        ("zed/branches", false),
        ("zed/branches-x", false),
        ("zed", false),
        ("a/zed/branches/x", false),
    ] {
        let path = DatasetPath::parse(name).unwrap();
        assert_eq!(is_branch(&path), expected, "{name}");
    }
}
