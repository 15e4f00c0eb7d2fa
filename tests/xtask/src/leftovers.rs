//! Finds and ends what a demo or a test left: apps that outlive their daemon by design, and dead mounts.
//! Touches only what carries the folder that was made for it.

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

/// Kills every process that was started from this folder: its working folder, its arguments or the tag in
/// its environment name it.
pub fn end_apps(dir: &Path) {
    let mut cgroups = BTreeSet::new();
    // A process may start another while it is being killed: until none is left, but not for ever.
    for _ in 0..50 {
        let found = processes_of(dir);
        if found.is_empty() {
            break;
        }
        cgroups.extend(found.iter().flat_map(|pid| cgroups_of(*pid)));
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // A supervisor that is killed cannot remove what it made. Longer paths are below shorter ones.
    for cgroup in cgroups.iter().rev() {
        let _ = std::fs::remove_dir(cgroup);
    }
}

/// The folders of the cgroups that zed has made for a process, up to the one of its state folder.
fn cgroups_of(pid: i32) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((controllers, path)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':'))
        else {
            continue;
        };
        let Some(at) = path.rfind("/zed-") else { continue };
        let above = Path::new("/sys/fs/cgroup").join(controllers).join(path[..at].trim_start_matches('/'));
        let mut folder = above;
        for part in path[at + 1..].split('/') {
            folder.push(part);
            found.push(folder.clone());
        }
    }
    found
}

/// Processes of this folder that run (zombies do not).
pub fn processes_of(dir: &Path) -> Vec<i32> {
    let me = std::process::id().cast_signed();
    let needle = dir.as_os_str().as_encoded_bytes();
    let has = |bytes: Vec<u8>| bytes.windows(needle.len()).any(|w| w == needle);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let proc = entry.path();
        let ended = std::fs::read_to_string(proc.join("stat")).map_or(true, |s| s.contains(") Z "));
        if pid == me || ended {
            continue;
        }
        let here = std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        let told = ["cmdline", "environ"].iter().any(|f| std::fs::read(proc.join(f)).is_ok_and(has));
        if here || told {
            found.push(pid);
        }
    }
    found
}

/// Mounts at or below this folder, deepest first.
pub fn mounts_of(dir: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The kernel writes a space as \040; the folders that are made here have none.
    let points = mounts.lines().filter_map(|l| l.split(' ').nth(1)).map(PathBuf::from);
    let mut found: Vec<_> = points.filter(|p| p.starts_with(dir)).collect();
    found.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    found
}

/// Unmounts what is still mounted there, dead or alive.
#[cfg(target_os = "linux")]
pub fn unmount(mount: &Path) {
    for mount in mounts_of(mount) {
        if nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH).is_err() {
            let _ = crate::shell::Cmd::new("fusermount3").args(["-uz"]).arg(&mount).quiet().run();
        }
    }
}

/// Unmounts what is still mounted there. Elsewhere than on Linux there is no list of mounts that can be read as a
/// file, so it is tried; that nothing is mounted there is no trouble.
#[cfg(not(target_os = "linux"))]
pub fn unmount(mount: &Path) {
    let _ = crate::shell::Cmd::new("umount").arg("-f").arg(mount).quiet().run();
}
