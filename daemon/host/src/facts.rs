//! Facts of this host, for the conditions of a spec and for `hosts/HOST/facts`.
//!
//! Read from files and system calls; no process is started.

use std::collections::BTreeMap;
use std::path::Path;

/// Runtimes and the programs by which they are known, looked for in the folders of [`crate::DEFAULT_PATH`].
const RUNTIMES: [(&str, &str); 9] = [
    ("runc", "runc"),
    ("crun", "crun"),
    ("podman", "podman"),
    ("bwrap", "bwrap"),
    ("systemd-nspawn", "systemd-nspawn"),
    ("jail", "jail"),
    ("bastille", "bastille"),
    ("zone", "zoneadm"),
    ("smf", "svcadm"),
];

/// What this host is, as far as it stays so while this program runs: `os`, `arch`, `kernel`, `hostname`, `cpus`,
/// `memory` (bytes), `boot_id`, `distribution` and `distribution_version` (of os-release), `cgroup` (`v1`, `v2` or
/// `hybrid`), `user` (whom this program runs as), and for each runtime that is there `runtime.NAME` `yes` and
/// `runtime.NAME.path`. What cannot be found out is absent.
pub fn observe_facts() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.insert(key.to_owned(), value);
        }
    };
    put("os", Some(std::env::consts::OS.to_owned()));
    put("arch", Some(std::env::consts::ARCH.to_owned()));
    if let Ok(name) = nix::sys::utsname::uname() {
        put("kernel", name.release().to_str().map(str::to_owned));
        put("hostname", name.nodename().to_str().map(str::to_owned));
    }
    put("cpus", std::thread::available_parallelism().ok().map(|count| count.to_string()));
    put("memory", observe_memory().map(|bytes| bytes.to_string()));
    put("boot_id", Some(crate::process::observe_boot_id()));
    let release = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| parse_os_release(&text))
        .unwrap_or_default();
    put("distribution", release.get("ID").cloned());
    put("distribution_version", release.get("VERSION_ID").cloned());
    put("cgroup", find_cgroup(Path::new("/sys/fs/cgroup")).map(str::to_owned));
    put("user", Some(user_name()));
    for (name, program) in RUNTIMES {
        let path = find_program(program);
        put(&format!("runtime.{name}"), path.as_ref().map(|_| "yes".to_owned()));
        put(&format!("runtime.{name}.path"), path);
    }
    // As sd_booted(3): the program may be there without being the one that runs the services.
    let systemd = Path::new("/run/systemd/system").is_dir();
    put("runtime.systemd", systemd.then(|| "yes".to_owned()));
    facts
}

/// Which hierarchy has the controllers. `hybrid` has those of v1, and beside them v2 without any that zed needs.
fn find_cgroup(root: &Path) -> Option<&'static str> {
    if root.join("cgroup.controllers").exists() {
        return Some("v2");
    }
    if !["memory", "cpu", "cpu,cpuacct", "pids"].iter().any(|name| root.join(name).is_dir()) {
        return None;
    }
    let hybrid = root.join("unified/cgroup.controllers").exists();
    Some(if hybrid { "hybrid" } else { "v1" })
}

/// The name of the user that this program runs as; the number when nobody has it.
fn user_name() -> String {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

fn find_program(name: &str) -> Option<String> {
    crate::program::resolve_program(&[name.to_owned()], &BTreeMap::new(), None)
        .ok()
        .and_then(|path| path.to_str().map(str::to_owned))
}

/// Reads os-release(5): `KEY=value` lines, values as a shell would quote them.
fn parse_os_release(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), unquote(value.trim())))
        .collect()
}

fn unquote(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            if quote == '\'' {
                return inner.to_owned();
            }
            let mut text = String::new();
            let mut escaped = false;
            for c in inner.chars() {
                if c == '\\' && !escaped {
                    escaped = true;
                } else {
                    text.push(c);
                    escaped = false;
                }
            }
            return text;
        }
    }
    value.to_owned()
}

/// The total of `/proc/meminfo`, in bytes.
fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn observe_memory() -> Option<u64> {
    let meminfo = Path::new("/proc/meminfo");
    if let Some(bytes) = std::fs::read_to_string(meminfo).ok().and_then(|text| parse_meminfo(&text)) {
        return Some(bytes);
    }
    // FreeBSD and illumos have no such file.
    // SAFETY: sysconf takes and returns plain numbers.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).ok()?.checked_mul(u64::try_from(size).ok()?).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_as_a_shell_would() {
        let cases = [
            ("ID=debian\nVERSION_ID=\"12\"\n", "debian", "12"),
            ("# c\n\nID='alpine'\r\nVERSION_ID=3.20\n", "alpine", "3.20"),
            ("ID=\"a\\\"b\\\\c\"\nVERSION_ID=\n", "a\"b\\c", ""),
            ("NAME=x\n ID = freebsd \nVERSION_ID=\"15.0", "freebsd", "\"15.0"),
        ];
        for (text, id, version) in cases {
            let read = parse_os_release(text);
            assert_eq!(read.get("ID").map(String::as_str), Some(id), "{text:?}");
            assert_eq!(read.get("VERSION_ID").map(String::as_str), Some(version), "{text:?}");
        }
        assert!(parse_os_release("no equals sign").is_empty());
    }

    #[test]
    fn meminfo_is_read_in_bytes() {
        let cases = [
            ("MemTotal:       16384 kB\nMemFree: 1 kB\n", Some(16_777_216)),
            ("MemFree: 1 kB\nMemTotal: 1 kB\n", Some(1024)),
            ("MemTotal: lots\n", None),
            ("MemTotal: 18446744073709551615 kB\n", None),
            ("", None),
        ];
        for (text, expect) in cases {
            assert_eq!(parse_meminfo(text), expect, "{text:?}");
        }
    }

    #[test]
    fn this_host_has_facts() {
        let facts = observe_facts();
        for key in ["os", "arch", "kernel", "hostname", "cpus", "memory", "boot_id", "user"] {
            assert!(facts.get(key).is_some_and(|value| !value.is_empty()), "{key} of {facts:?}");
        }
        for (name, path) in facts.iter().filter(|(name, _)| name.ends_with(".path")) {
            assert_eq!(facts.get(name.trim_end_matches(".path")).map(String::as_str), Some("yes"), "{name}");
            assert!(Path::new(path).is_absolute(), "{name} {path}");
        }
    }

    #[test]
    fn the_version_of_cgroups_is_that_of_the_controllers() {
        for (folders, file, expect) in [
            (vec![], Some("cgroup.controllers"), Some("v2")),
            (vec!["memory"], None, Some("v1")),
            (vec!["memory", "unified"], Some("unified/cgroup.controllers"), Some("hybrid")),
            (vec!["cpu,cpuacct"], None, Some("v1")),
            (vec![], None, None),
        ] {
            let root = tempfile::tempdir().unwrap();
            for folder in folders {
                std::fs::create_dir(root.path().join(folder)).unwrap();
            }
            if let Some(file) = file {
                std::fs::write(root.path().join(file), "").unwrap();
            }
            assert_eq!(find_cgroup(root.path()), expect, "{file:?}");
        }
    }
}
