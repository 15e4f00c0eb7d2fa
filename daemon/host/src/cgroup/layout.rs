//! Where the cgroup hierarchies are and where this process is in them: `/proc/self/mountinfo` and
//! `/proc/self/cgroup`, read. Pure but for [`Layout::observe`].

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its top, as this process sees it.
    pub(crate) top: PathBuf,
    /// The folder of the cgroup that this process is in.
    pub(crate) own: PathBuf,
    /// Mounted read-only, as in most containers.
    pub(crate) read_only: bool,
}

/// The hierarchies of a host. A hybrid host has both kinds; a controller is in one of them only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Version 1, by controller: `memory`, `cpu`, `pids`.
    pub(crate) v1: BTreeMap<String, Hierarchy>,
    /// Version 2.
    pub(crate) v2: Option<Hierarchy>,
}

/// The controllers that limits need.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

impl Layout {
    /// Of this process, as it is now.
    pub(crate) fn observe() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// From the two files' texts. What is not understood is passed over: it is as if it were not mounted.
    pub(crate) fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut layout = Self::default();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            match mount.kind {
                "cgroup2" if layout.v2.is_none() => {
                    layout.v2 = membership(cgroup, |id, list| id == "0" && list.is_empty())
                        .and_then(|path| mount.hierarchy(path));
                }
                "cgroup" => {
                    for name in CONTROLLERS.into_iter().filter(|name| mount.has_option(name)) {
                        let path = membership(cgroup, |_, list| list.split(',').any(|one| one == name));
                        if let Some(found) = path.and_then(|path| mount.hierarchy(path)) {
                            layout.v1.entry(name.to_owned()).or_insert(found);
                        }
                    }
                }
                _ => {}
            }
        }
        layout
    }
}

/// The path in the first line `ID:CONTROLLERS:PATH` that is meant.
fn membership(cgroup: &str, is_meant: impl Fn(&str, &str) -> bool) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let (id, rest) = line.split_once(':')?;
        let (list, path) = rest.split_once(':')?;
        is_meant(id, list).then_some(path)
    })
}

/// One line of mountinfo; see proc(5).
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    read_only: bool,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let before: Vec<&str> = before.split(' ').collect();
        let after: Vec<&str> = after.split(' ').collect();
        Some(Self {
            root: unescape(before.get(3)?),
            point: unescape(before.get(4)?),
            read_only: before.get(5)?.split(',').any(|option| option == "ro"),
            kind: after.first()?,
            options: after.get(2)?,
        })
    }

    fn has_option(&self, name: &str) -> bool {
        self.options.split(',').any(|option| option == name)
    }

    /// Nothing when the cgroup of `path` is outside of what is mounted here.
    fn hierarchy(&self, path: &str) -> Option<Hierarchy> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        if below.components().any(|part| part == std::path::Component::ParentDir) {
            return None;
        }
        // Joining an empty path would add a slash at the end.
        let own = if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) };
        Some(Hierarchy { top: self.point.clone(), own, read_only: self.read_only })
    }
}

/// Space, tab, newline and backslash are written `\040` and so on.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if *byte == b'\\' => {
                plain.push(value);
                at += 4;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;

    fn hierarchy(top: &str, own: &str) -> Hierarchy {
        Hierarchy { top: top.into(), own: own.into(), read_only: false }
    }

    #[test]
    fn a_hybrid_host_is_read() {
        let layout = Layout::parse(recorded::HYBRID_MOUNTS, recorded::HYBRID_OWN);
        let at = |name: &str, own: &str| {
            (
                name.to_owned(),
                hierarchy(&format!("/sys/fs/cgroup/{name}"), &format!("/sys/fs/cgroup/{name}{own}")),
            )
        };
        let expect = BTreeMap::from([at("memory", "/tasks/e03d"), at("cpu", ""), at("pids", "")]);
        assert_eq!(layout.v1, expect);
        assert_eq!(layout.v2, Some(hierarchy("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_host_with_systemd_and_version_2_is_read() {
        let layout = Layout::parse(recorded::UNIFIED_MOUNTS, recorded::UNIFIED_OWN);
        assert_eq!(layout.v1, BTreeMap::new());
        assert_eq!(layout.v2, Some(hierarchy("/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/zedd.service")));
    }

    #[test]
    fn co_mounted_controllers_and_bound_subtrees_are_read() {
        let mounts = "1 2 0:3 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct\n\
                      1 2 0:4 /other /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      1 2 0:5 / /sys/fs/cgroup/with\\040space rw - cgroup cgroup rw,pids\n";
        let own = "3:cpu,cpuacct:/docker/ab/x\n4:memory:/docker/ab\n5:pids:/a\n";
        let layout = Layout::parse(mounts, own);
        let cpu = Hierarchy {
            top: "/sys/fs/cgroup/cpu,cpuacct".into(),
            own: "/sys/fs/cgroup/cpu,cpuacct/x".into(),
            read_only: true,
        };
        let pids = hierarchy("/sys/fs/cgroup/with space", "/sys/fs/cgroup/with space/a");
        assert_eq!(layout.v1, BTreeMap::from([("cpu".to_owned(), cpu), ("pids".to_owned(), pids)]));
        assert_eq!(layout.v2, None);
    }

    #[test]
    fn nonsense_is_passed_over() {
        for (mounts, own) in
            [("", ""), ("a b c", "x"), ("1 2 0:3 / /m rw - cgroup2 cgroup2 rw", "0::/../../x")]
        {
            assert_eq!(Layout::parse(mounts, own), Layout::default(), "{mounts:?} {own:?}");
        }
    }
}
