//! The configuration of a zone: a zonecfg(8) command file, and the reading of what `export` prints.
//!
//! Owns every line. An installed zone cannot be created anew, so a change is made of removals of what is there and
//! additions of what shall be. Pure.

use crate::guest::GuestRequest;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use zed_spec::Zone;
use zed_spec::ZoneName;

/// Resources that zed sets, in the order in which they are written.
const RESOURCES: [&str; 4] = ["net", "fs", "capped-memory", "capped-cpu"];
/// Least that zonecfg(8) takes for swap.
const LEAST_SWAP: u64 = 50 << 20;

/// What an existing configuration has, as far as a change has to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Existing {
    pub(super) brand: Option<String>,
    pub(super) zonepath: Option<String>,
    /// Kinds of resources that it has.
    resources: BTreeSet<String>,
    /// Global properties that zed sets and may have to clear.
    properties: BTreeSet<String>,
}

/// Reads `zonecfg -z NAME export`.
pub(super) fn parse_export(text: &str) -> Existing {
    let mut found = Existing::default();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, inside) {
            ("add", false) => {
                found.resources.insert(rest.trim().to_owned());
                inside = true;
            }
            ("end", true) => inside = false,
            ("set", false) => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
                let value = value.trim_matches('"').to_owned();
                match name {
                    "brand" => found.brand = Some(value),
                    "zonepath" => found.zonepath = Some(value),
                    _ => {
                        found.properties.insert(name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Name of the VNIC of a zone: letters, digits and `_`, a letter first, a digit last, at most 31 characters.
pub(super) fn vnic_of(name: &ZoneName) -> String {
    let safe: String = name.as_str().chars().map(|c| if c == '-' { '_' } else { c }).collect();
    if safe.len() <= 28 && safe.starts_with(|c: char| c.is_ascii_lowercase()) {
        return format!("{safe}0");
    }
    let digest = zed_plan::sha256_hex(name.as_str().as_bytes());
    format!("z{}0", digest.get(..20).unwrap_or_default())
}

/// A zonecfg(8) command file. `existing` is the configuration of a zone that cannot be created anew.
pub fn render_zone_config(name: &ZoneName, zone: &Zone, request: &GuestRequest) -> String {
    render(name, zone, request, None)
}

pub(super) fn render(
    name: &ZoneName,
    zone: &Zone,
    request: &GuestRequest,
    existing: Option<&Existing>,
) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    match existing {
        None => {
            // -b: from nothing; -F: over what a killed zed left.
            line("create -F -b");
            line(&format!("set zonepath={}", quoted(&request.root.to_string_lossy())));
            line(&format!("set brand={}", zone.brand));
        }
        Some(existing) => {
            for resource in RESOURCES.iter().filter(|resource| existing.resources.contains(**resource)) {
                line(&format!("remove -F {resource}"));
            }
            if existing.properties.contains("max-lwps") && zone.limits.pids.is_none() {
                line("clear max-lwps");
            }
        }
    }
    // zedd starts it: once its datasets are mounted.
    line("set autoboot=false");
    line("set ip-type=exclusive");
    if let Some(pids) = zone.limits.pids {
        line(&format!("set max-lwps={pids}"));
    }
    if zone.over.is_some() {
        line("add net");
        line(&format!("set physical={}", vnic_of(name)));
        if let Some(ip) = &zone.ip {
            line(&format!("set allowed-address={ip}"));
        }
        line("end");
    }
    for mount in &request.mounts {
        line("add fs");
        line(&format!("set dir={}", quoted(&mount.at)));
        line(&format!("set special={}", quoted(&mount.source.to_string_lossy())));
        line("set type=lofs");
        line(&format!("add options {}", if mount.read_only { "ro" } else { "rw" }));
        line("end");
    }
    if let Some(memory) = zone.limits.memory {
        line("add capped-memory");
        line(&format!("set physical={}K", memory.div_ceil(1024)));
        line(&format!("set swap={}K", memory.max(LEAST_SWAP).div_ceil(1024)));
        line("end");
    }
    if let Some(cpus) = zone.limits.cpus {
        line("add capped-cpu");
        line(&format!("set ncpus={:.2}", cpus.max(0.01)));
        line("end");
    }
    line("verify");
    line("commit");
    out
}

/// In quotes, where zonecfg(8) reads no more than the closing one.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_s_name_is_what_dladm_takes() {
        for (name, expect) in [("shop-z", "shop_z0"), ("a", "a0")] {
            assert_eq!(vnic_of(&ZoneName::parse(name).unwrap()), expect);
        }
        for name in ["9lives", &"a".repeat(63)] {
            let vnic = vnic_of(&ZoneName::parse(name).unwrap());
            assert!(vnic.len() <= 31 && vnic.starts_with('z') && vnic.ends_with('0'), "{vnic}");
        }
    }

    #[test]
    fn an_export_says_what_has_to_be_removed() {
        let text = "create -b\nset zonepath=/zones/shop\nset brand=pkgsrc\nset autoboot=false\nset max-lwps=10\n\
                    add net\nset physical=a0\nend\nadd net\nset physical=b0\nend\nadd capped-cpu\nset ncpus=2.00\nend\n";
        let existing = parse_export(text);
        assert_eq!(existing.brand.as_deref(), Some("pkgsrc"));
        assert_eq!(existing.zonepath.as_deref(), Some("/zones/shop"));
        assert!(existing.resources.iter().eq(["capped-cpu", "net"]), "{existing:?}");
        assert!(existing.properties.contains("max-lwps"));
    }
}
