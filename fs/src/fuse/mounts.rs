//! What is mounted where: tells our own dead mount from a living one and from somebody else's.

use std::io;
use std::path::Path;

/// What the kernel's list of mounts calls us.
pub(super) const FS_NAME: &str = "zed";
/// The type behind `fuse.`.
pub(super) const SUBTYPE: &str = "zed";

/// What is at a mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mounted {
    /// Nothing.
    Nothing,
    /// A tree of ours.
    Ours,
    /// Something else, of this type.
    Other(String),
}

/// Looks for a mount at exactly this folder.
///
/// # Errors
/// When the list of mounts cannot be read.
#[cfg(target_os = "linux")]
pub(super) fn mounted_at(folder: &Path) -> io::Result<Mounted> {
    let list = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(find(&list, folder))
}

/// FreeBSD: a folder on another device than the one above it is a mount, and statfs(2) says of which type.
///
/// # Errors
/// When the folder cannot be looked at.
#[cfg(not(target_os = "linux"))]
pub(super) fn mounted_at(folder: &Path) -> io::Result<Mounted> {
    use std::os::unix::fs::MetadataExt;
    let here = match std::fs::symlink_metadata(folder) {
        Ok(here) => here,
        // Whoever served it is gone.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOTCONN) => return Ok(Mounted::Ours),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mounted::Nothing),
        Err(error) => return Err(error),
    };
    let above = std::fs::symlink_metadata(folder.parent().unwrap_or(folder))?;
    if here.dev() == above.dev() {
        return Ok(Mounted::Nothing);
    }
    let fs_type = nix::sys::statfs::statfs(folder)?.filesystem_type_name().to_owned();
    Ok(if fs_type == format!("fusefs.{SUBTYPE}") { Mounted::Ours } else { Mounted::Other(fs_type) })
}

/// The last line for a folder is the mount on top.
#[cfg(target_os = "linux")]
fn find(list: &str, folder: &Path) -> Mounted {
    use std::os::unix::ffi::OsStrExt;
    let mut found = Mounted::Nothing;
    for line in list.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let Some(point) = place.split(' ').nth(4) else { continue };
        if unescape(point) != folder.as_os_str().as_bytes() {
            continue;
        }
        let mut kind = kind.split(' ');
        let (fs_type, source) = (kind.next().unwrap_or_default(), kind.next().unwrap_or_default());
        found = if fs_type == format!("fuse.{SUBTYPE}") && source == FS_NAME {
            Mounted::Ours
        } else {
            Mounted::Other(fs_type.to_owned())
        };
    }
    found
}

/// Spaces and the like are `\040` in the list.
#[cfg(target_os = "linux")]
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if *byte == b'\\' => {
                plain.push(escaped);
                at += 4;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    plain
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const LIST: &str = "\
22 1 0:20 / / rw - ext4 /dev/vda rw
30 22 0:30 / /zed rw,nosuid - fuse.zed zed rw,user_id=0
31 22 0:31 / /mnt/a\\040b rw - tmpfs tmpfs rw
32 22 0:32 / /top rw - fuse.zed zed rw
33 32 0:33 / /top rw - tmpfs tmpfs rw
34 22 0:34 / /ssh rw - fuse.sshfs host:/ rw
";

    #[test]
    fn the_mount_on_top_counts() {
        for (folder, expected) in [
            ("/zed", Mounted::Ours),
            ("/zed/apps", Mounted::Nothing),
            ("/mnt/a b", Mounted::Other("tmpfs".to_owned())),
            ("/top", Mounted::Other("tmpfs".to_owned())),
            ("/ssh", Mounted::Other("fuse.sshfs".to_owned())),
        ] {
            assert_eq!(find(LIST, Path::new(folder)), expected, "{folder}");
        }
    }
}
