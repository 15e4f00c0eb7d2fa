//! The kernel's table of mounted ZFS datasets, and who uses a mountpoint. Reads only.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// Mountpoints by dataset name, in the order they were mounted.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    by_dataset: HashMap<String, Vec<PathBuf>>,
}

impl Mounts {
    /// The table as it is now.
    pub(super) fn read() -> io::Result<Self> {
        let mut by_dataset: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for (dataset, path) in table()? {
            by_dataset.entry(dataset).or_default().push(path);
        }
        Ok(Self { by_dataset })
    }

    pub(super) fn is_mounted(&self, dataset: &str) -> bool {
        self.by_dataset.contains_key(dataset)
    }

    pub(super) fn of(&self, dataset: &str) -> &[PathBuf] {
        self.by_dataset.get(dataset).map_or(&[], Vec::as_slice)
    }

    /// Datasets below `dataset` that are mounted inside one of its mountpoints, parents before children.
    pub(super) fn inside(&self, dataset: &str) -> Vec<String> {
        let above = self.of(dataset);
        let mut found: Vec<(&PathBuf, &String)> = self
            .by_dataset
            .iter()
            .filter(|(name, _)| name.strip_prefix(dataset).is_some_and(|rest| rest.starts_with('/')))
            .filter_map(|(name, paths)| {
                let inside = paths.iter().find(|p| above.iter().any(|a| p.starts_with(a)))?;
                Some((inside, name))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name.clone()).collect()
    }
}

/// `(dataset, mountpoint)` of each mounted ZFS filesystem; automounted snapshots are left out.
#[cfg(any(target_os = "linux", target_os = "illumos"))]
fn table() -> io::Result<Vec<(String, PathBuf)>> {
    use std::os::unix::ffi::OsStringExt;
    let file = if cfg!(target_os = "linux") { "/proc/self/mounts" } else { "/etc/mnttab" };
    let text = std::fs::read(file)?;
    let mut found = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b' ' || *b == b'\t');
        let (Some(device), Some(path), Some(b"zfs")) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if !device.contains(&b'@') {
            let dataset = String::from_utf8_lossy(&unescape(device)).into_owned();
            found.push((dataset, PathBuf::from(std::ffi::OsString::from_vec(unescape(path)))));
        }
    }
    Ok(found)
}

/// Blanks, tabs, newlines and backslashes are written as `\ooo`.
#[cfg(any(target_os = "linux", target_os = "illumos"))]
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| byte == b'\\' && d.iter().all(|b| matches!(b, b'0'..=b'7')));
        if let Some(digits) = octal {
            let value = digits.iter().fold(0u32, |v, d| v * 8 + u32::from(d - b'0'));
            out.push(u8::try_from(value & 0xff).unwrap_or(b'?'));
            rest = &tail[3..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

/// `(dataset, mountpoint)` of each mounted ZFS filesystem; automounted snapshots are left out.
#[cfg(target_os = "freebsd")]
fn table() -> io::Result<Vec<(String, PathBuf)>> {
    use std::ffi::CStr;
    let mut raw: *mut libc::statfs = std::ptr::null_mut();
    // SAFETY: getmntinfo stores a pointer to its own static buffer; this runs under the store's lock only.
    let count = unsafe { libc::getmntinfo(&mut raw, libc::MNT_NOWAIT) };
    let count = usize::try_from(count).ok().filter(|c| *c > 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the buffer holds `count` entries until the next call.
    let entries = unsafe { std::slice::from_raw_parts(raw, count) };
    // SAFETY: the kernel terminates each of these fixed-size fields with NUL.
    let text =
        |field: &[libc::c_char]| unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy().into_owned();
    Ok(entries
        .iter()
        .filter(|e| text(&e.f_fstypename) == "zfs")
        .map(|e| (text(&e.f_mntfromname), PathBuf::from(text(&e.f_mntonname))))
        .filter(|(dataset, _)| !dataset.contains('@'))
        .collect())
}

/// Up to four processes that keep `mountpoint` busy, for a message; empty where that cannot be told.
#[cfg(target_os = "linux")]
pub(super) fn users_of(mountpoint: &Path) -> Vec<String> {
    let uses = |link: PathBuf| std::fs::read_link(link).is_ok_and(|to| to.starts_with(mountpoint));
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|n| n.parse::<u32>().is_ok()))
        .filter(|entry| {
            let dir = entry.path();
            ["cwd", "root", "exe"].iter().any(|link| uses(dir.join(link)))
                || std::fs::read_dir(dir.join("fd")).is_ok_and(|fds| fds.flatten().any(|fd| uses(fd.path())))
        })
        .take(4)
        .map(|entry| {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            format!("{} (pid {})", name.trim_end(), entry.file_name().to_string_lossy())
        })
        .collect()
}

/// Up to four processes that keep `mountpoint` busy; other systems have no cheap way to tell (`fstat`, `fuser -c`).
#[cfg(not(target_os = "linux"))]
pub(super) fn users_of(_mountpoint: &Path) -> Vec<String> {
    Vec::new()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_mount_table_are_undone() {
        for (raw, want) in [("a\\040b", "a b"), ("\\134", "\\"), ("a\\", "a\\"), ("\\09", "\\09"), ("x", "x")]
        {
            assert_eq!(unescape(raw.as_bytes()), want.as_bytes(), "{raw}");
        }
    }

    #[test]
    fn only_descendants_within_the_mountpoint_are_inside() {
        let table = [("t/a", "/srv/a"), ("t/a/x", "/srv/a/x"), ("t/a/y", "/else"), ("t/ab", "/srv/a/z")];
        let by_dataset =
            table.iter().map(|(d, p)| ((*d).to_owned(), vec![PathBuf::from(p)])).collect::<HashMap<_, _>>();
        assert_eq!(Mounts { by_dataset }.inside("t/a"), ["t/a/x"]);
    }
}
