//! The cgroups of one app on this host: made, entered, counted, emptied and removed. Does what a [`Plan`] says;
//! decides nothing.

use super::plan::Missing;
use super::plan::Plan;
use super::plan::Unenforceable;
use serde::Deserialize;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

/// Between two looks at a cgroup whose processes have been killed.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// From KILL to the removal: longer only for what hangs in the kernel.
const REMOVE_DEADLINE: Duration = Duration::from_secs(10);

/// The cgroups of one app.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    paths: Vec<PathBuf>,
    leaves: Vec<PathBuf>,
}

/// What cgroups have counted since they were made. Absent is what the kernel does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Usage {
    /// Processes killed because memory was used up, those in cgroups below included.
    pub(crate) oom_kills: Option<u64>,
    /// The most memory in use at once, in bytes.
    pub(crate) memory_peak: Option<u64>,
    /// The most processes and threads at once.
    pub(crate) pids_peak: Option<u64>,
    /// Processes and threads that were refused because of the limit.
    pub(crate) pids_refused: Option<u64>,
    /// Periods in which it had to wait because its share of the CPUs was used up.
    pub(crate) cpu_throttled: Option<u64>,
}

impl Groups {
    /// Those of a record: to look into them and to remove them.
    pub(crate) fn recorded(paths: &[PathBuf]) -> Self {
        Self { paths: paths.to_vec(), leaves: Vec::new() }
    }

    /// Their folders.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Makes them anew: whatever is left of an earlier run of the app is killed and removed first, so that all
    /// counters begin at nothing.
    pub(crate) fn create(plan: &Plan) -> Result<Self, Unenforceable> {
        let mut groups = Self::default();
        for group in &plan.groups {
            let made = remove_tree(&group.path).and_then(|()| std::fs::create_dir_all(&group.path));
            match (made, group.settings.first()) {
                (Ok(()), _) => {
                    groups.paths.push(group.path.clone());
                    groups.leaves.push(group.leaf.clone());
                }
                (Err(error), Some(setting)) => {
                    groups.remove_quietly();
                    return Err(refused(&group.path, &error).of(&setting.limit));
                }
                (Err(_), None) => {}
            }
        }
        match groups.fill(plan) {
            Ok(()) => Ok(groups),
            Err(error) => {
                groups.remove_quietly();
                Err(error)
            }
        }
    }

    fn fill(&mut self, plan: &Plan) -> Result<(), Unenforceable> {
        for enable in &plan.enable {
            let file = enable.folder.join("cgroup.subtree_control");
            if let (Err(error), Some(limit)) = (std::fs::write(&file, &enable.word), &enable.limit) {
                return Err(refused(&file, &error).of(limit));
            }
        }
        for group in plan.groups.iter().filter(|group| self.paths.contains(&group.path)) {
            for setting in &group.settings {
                let file = group.path.join(setting.file);
                if setting.if_present && !file.exists() {
                    continue;
                }
                std::fs::write(&file, &setting.value).map_err(|e| refused(&file, &e).of(&setting.limit))?;
            }
        }
        // A leaf that cannot be made is one that only counts: the program is then put into none.
        let made = |leaf: &PathBuf| std::fs::create_dir_all(leaf);
        for group in plan.groups.iter().filter(|group| self.paths.contains(&group.path)) {
            match (made(&group.leaf), group.settings.first()) {
                (Ok(()), _) => {}
                (Err(error), Some(setting)) => return Err(refused(&group.leaf, &error).of(&setting.limit)),
                (Err(_), None) => self.leaves.retain(|leaf| *leaf != group.leaf),
            }
        }
        Ok(())
    }

    /// The files into which a process writes `0` to enter. To be opened before the fork: the child then only
    /// writes.
    pub(crate) fn entrances(&self) -> io::Result<Vec<File>> {
        self.leaves.iter().map(|leaf| File::options().write(true).open(leaf.join("cgroup.procs"))).collect()
    }

    /// Process ids of everything in them and below.
    pub(crate) fn members(&self) -> Vec<u32> {
        let mut found: Vec<u32> = self.paths.iter().flat_map(|path| members_of(path)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// What they have counted.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for path in &self.paths {
            let put = |slot: &mut Option<u64>, value: Option<u64>| *slot = slot.or(value);
            put(&mut usage.oom_kills, oom_kills(path));
            put(&mut usage.memory_peak, number(path, "memory.peak"));
            put(&mut usage.memory_peak, number(path, "memory.max_usage_in_bytes"));
            put(&mut usage.pids_peak, number(path, "pids.peak"));
            put(&mut usage.pids_refused, pids_refused(path));
            put(&mut usage.cpu_throttled, keyed(path, "cpu.stat", "nr_throttled"));
        }
        usage
    }

    /// Kills what is in them, and removes them, and the folder above when it was the last in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for path in &self.paths {
            let removed = remove_tree(path);
            if let Some(above) = path.parent() {
                // Other apps may be in it.
                let _ = std::fs::remove_dir(above);
            }
            result = result.and(removed);
        }
        result
    }

    fn remove_quietly(&self) {
        // There is an error already, and it says what matters.
        let _ = self.remove();
    }

    /// Kills everything in them at once.
    pub(crate) fn kill(&self) {
        for path in &self.paths {
            kill_all(path);
        }
    }
}

pub(super) fn refused(path: &Path, error: &io::Error) -> Missing {
    let remedy = if cfg!(target_os = "linux") && !nix::unistd::geteuid().is_root() {
        "run zedd as root, or delegate a cgroup to its user"
    } else {
        "make sure that zedd may write there (systemd: Delegate=yes)"
    };
    Missing { reason: format!("`{}`: {error}", path.display()), remedy: remedy.to_owned() }
}

fn number(folder: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
}

/// The value of one key of a flat-keyed file.
fn keyed(folder: &Path, file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(folder.join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// Version 2 counts for the whole tree below, version 1 for each cgroup.
fn oom_kills(folder: &Path) -> Option<u64> {
    if let Some(count) = keyed(folder, "memory.events", "oom_kill") {
        return Some(count);
    }
    let own = keyed(folder, "memory.oom_control", "oom_kill")?;
    Some(children(folder).iter().filter_map(|child| oom_kills(child)).fold(own, u64::saturating_add))
}

/// Counted by the cgroup that has the limit or, by kernels before 6.11 and in version 1, by the one that the process is in;
/// never by both.
fn pids_refused(folder: &Path) -> Option<u64> {
    let own = keyed(folder, "pids.events", "max")?;
    Some(children(folder).iter().filter_map(|child| pids_refused(child)).fold(own, u64::saturating_add))
}

/// The cgroups right below.
fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

fn members_of(folder: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // Processes of another namespace are shown as 0.
    let mut found: Vec<u32> =
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect();
    found.extend(children(folder).iter().flat_map(|child| members_of(child)));
    found
}

fn kill_all(folder: &Path) {
    // Version 2 kills the whole tree at once, and nothing that is forked meanwhile escapes.
    if std::fs::write(folder.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for pid in members_of(folder) {
        kill_member(folder, pid);
    }
}

/// Kills a process of a cgroup, and nobody who has got its number since.
#[cfg(target_os = "linux")]
fn kill_member(folder: &Path, pid: u32) {
    use std::os::fd::AsRawFd;
    use std::os::fd::FromRawFd;
    use std::os::fd::OwnedFd;
    // SAFETY: pidfd_open takes and returns plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0 as libc::c_long) };
    let Ok(fd) = i32::try_from(fd) else { return };
    if fd < 0 {
        // Gone, or a kernel before 5.3: there the window between the list and the signal stays.
        if nix::errno::Errno::last() == nix::errno::Errno::ENOSYS {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.cast_signed()),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        return;
    }
    // SAFETY: the kernel has just given this descriptor to us, and nobody else owns it.
    let process = unsafe { OwnedFd::from_raw_fd(fd) };
    // The descriptor holds one process; that it is one of the cgroup is asked after it was taken.
    if members_of(folder).contains(&pid) {
        // SAFETY: the descriptor is open; a null siginfo means what kill(2) sends.
        let _ = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                process.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
    }
}

/// There are no cgroups elsewhere, so there is never a member.
#[cfg(not(target_os = "linux"))]
fn kill_member(_folder: &Path, _pid: u32) {}

/// Kills what is in a cgroup and below, and removes it. One that is not there is accepted.
fn remove_tree(folder: &Path) -> io::Result<()> {
    let until = Instant::now() + REMOVE_DEADLINE;
    loop {
        let mut todo = vec![folder.to_owned()];
        let mut found = Vec::new();
        while let Some(next) = todo.pop() {
            todo.extend(children(&next));
            found.push(next);
        }
        // Children come after their parents in the list.
        let mut result = Ok(());
        for path in found.iter().rev() {
            match std::fs::remove_dir(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => result = Err(e),
                _ => {}
            }
        }
        let Err(error) = result else { return Ok(()) };
        if Instant::now() >= until {
            return Err(error);
        }
        kill_all(folder);
        std::thread::sleep(LOOK_AGAIN);
    }
}
