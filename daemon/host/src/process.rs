//! The host's process table: who runs, since when, whose child it is.
//!
//! Reads only; starts nothing and sends no signal. A process is identified by its id *and* its start time, so
//! that a process id which the kernel has given to somebody else is never mistaken for an app.

use std::collections::BTreeMap;

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessEntry {
    /// Process id.
    pub(crate) pid: u32,
    /// Parent.
    pub(crate) parent: u32,
    /// Process group.
    pub(crate) group: u32,
    /// Session.
    pub(crate) session: u32,
    /// When it was started, in the kernel's unit since its epoch: only compared for equality.
    pub(crate) start: u64,
    /// Ended, and not yet waited for.
    pub(crate) zombie: bool,
}

/// The process with this id, if there is one.
pub(crate) fn observe_process(pid: u32) -> Option<ProcessEntry> {
    platform::observe_process(pid)
}

/// Every process that this one may see.
pub(crate) fn observe_processes() -> Vec<ProcessEntry> {
    platform::observe_processes()
}

/// True when the process lives and is the one that was started then.
pub(crate) fn is_alive(pid: u32, start: u64) -> bool {
    observe_process(pid).is_some_and(|entry| entry.start == start && !entry.zombie)
}

/// What is below `roots` in the tree of processes, the roots themselves not included.
pub(crate) fn descendants(table: &[ProcessEntry], roots: &[u32]) -> Vec<ProcessEntry> {
    let mut children: BTreeMap<u32, Vec<&ProcessEntry>> = BTreeMap::new();
    for entry in table {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut found: Vec<ProcessEntry> = Vec::new();
    let mut todo: Vec<u32> = roots.to_vec();
    while let Some(pid) = todo.pop() {
        // A parent's entry is removed once it is used: a table read while processes move cannot loop.
        for child in children.remove(&pid).unwrap_or_default() {
            if !roots.contains(&child.pid) {
                found.push(*child);
                todo.push(child.pid);
            }
        }
    }
    found
}

/// Changes at every boot of the host, and only then.
pub(crate) fn observe_boot_id() -> String {
    platform::observe_boot_id()
}

/// Reads one `/proc/PID/stat` of Linux. The program's name stands in brackets and may itself hold brackets,
/// spaces and newlines, so the fields are counted from the last bracket.
#[cfg_attr(
    not(any(test, target_os = "linux")),
    expect(dead_code, reason = "Linux's format; tested everywhere")
)]
fn parse_linux_stat(text: &[u8]) -> Option<ProcessEntry> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(text.get(..open)?).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok());
    Some(ProcessEntry {
        pid,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        start: fields.get(19)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X" | "x"),
    })
}

/// Reads one `/proc/PID/psinfo` of a 64-bit illumos (`psinfo_t` in `sys/procfs.h`).
#[cfg_attr(
    not(any(test, target_os = "illumos")),
    expect(dead_code, reason = "illumos' format; tested everywhere")
)]
fn parse_illumos_psinfo(bytes: &[u8]) -> Option<ProcessEntry> {
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    let long =
        |at: usize| -> Option<u64> { Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
    Some(ProcessEntry {
        pid: word(8)?,
        parent: word(12)?,
        group: word(16)?,
        session: word(20)?,
        // pr_start, a timespec: seconds and nanoseconds.
        start: long(88)?.wrapping_mul(1_000_000_000).wrapping_add(long(96)?),
        // pr_nlwp is 0 for a zombie.
        zombie: word(4)? == 0,
    })
}

#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod platform {
    use super::ProcessEntry;

    #[cfg(target_os = "linux")]
    const FILE: &str = "stat";
    #[cfg(target_os = "illumos")]
    const FILE: &str = "psinfo";

    #[cfg(target_os = "linux")]
    use super::parse_linux_stat as parse;

    #[cfg(target_os = "illumos")]
    use super::parse_illumos_psinfo as parse;

    pub(super) fn observe_process(pid: u32) -> Option<ProcessEntry> {
        parse(&std::fs::read(format!("/proc/{pid}/{FILE}")).ok()?)
    }

    pub(super) fn observe_processes() -> Vec<ProcessEntry> {
        let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
        folder
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(observe_process)
            .collect()
    }

    #[cfg(target_os = "linux")]
    pub(super) fn observe_boot_id() -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    }

    #[cfg(target_os = "illumos")]
    pub(super) fn observe_boot_id() -> String {
        // The scheduler is process 0 and as old as the boot.
        observe_process(0).map(|entry| format!("boot-{}", entry.start)).unwrap_or_default()
    }
}

#[cfg(target_os = "freebsd")]
mod platform {
    use super::ProcessEntry;

    fn query(name: &[libc::c_int]) -> Vec<ProcessEntry> {
        let entry_size = size_of::<libc::kinfo_proc>();
        // The table may grow between the two calls: ask again with more room.
        for _ in 0..8 {
            let mut size: libc::size_t = 0;
            let names = name.len() as libc::c_uint;
            // SAFETY: `name` has `names` elements; a null buffer only asks for the size.
            let asked = unsafe {
                libc::sysctl(name.as_ptr(), names, std::ptr::null_mut(), &mut size, std::ptr::null(), 0)
            };
            if asked != 0 {
                return Vec::new();
            }
            let room = size / entry_size + 16;
            let mut entries: Vec<libc::kinfo_proc> = Vec::with_capacity(room);
            size = room * entry_size;
            let buffer: *mut libc::c_void = entries.as_mut_ptr().cast();
            // SAFETY: the buffer has room for `size` bytes, and the kernel writes at most that.
            let got = unsafe { libc::sysctl(name.as_ptr(), names, buffer, &mut size, std::ptr::null(), 0) };
            if got == 0 {
                // SAFETY: the kernel has filled `size` bytes with whole `kinfo_proc` values.
                unsafe { entries.set_len(size / entry_size) };
                return entries.iter().map(entry_of).collect();
            }
        }
        Vec::new()
    }

    fn entry_of(info: &libc::kinfo_proc) -> ProcessEntry {
        // SZOMB of sys/proc.h.
        const ZOMBIE: libc::c_char = 5;
        let start = &info.ki_start;
        ProcessEntry {
            pid: info.ki_pid.cast_unsigned(),
            parent: info.ki_ppid.cast_unsigned(),
            group: info.ki_pgid.cast_unsigned(),
            session: info.ki_sid.cast_unsigned(),
            start: start.tv_sec.cast_unsigned().wrapping_mul(1_000_000) + start.tv_usec.cast_unsigned(),
            zombie: info.ki_stat == ZOMBIE,
        }
    }

    pub(super) fn observe_process(pid: u32) -> Option<ProcessEntry> {
        let name = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid.cast_signed()];
        query(&name).into_iter().find(|entry| entry.pid == pid)
    }

    pub(super) fn observe_processes() -> Vec<ProcessEntry> {
        query(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PROC])
    }

    pub(super) fn observe_boot_id() -> String {
        // The first process is as old as the boot.
        observe_process(1).map(|entry| format!("boot-{}", entry.start)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_stat_is_read_past_odd_program_names() {
        let tail = "S 1 42 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2 3";
        let cases = [
            (format!("42 (sleep) {tail}"), Some((42, 98765, false))),
            (format!("42 (a) b (c)) {tail}"), Some((42, 98765, false))),
            (format!("42 (new\nline) {tail}"), Some((42, 98765, false))),
            (format!("42 (gone) {}", tail.replacen('S', "Z", 1)), Some((42, 98765, true))),
            ("42 (short) S 1 2".to_owned(), None),
            (String::new(), None),
            ("x (y) S 1".to_owned(), None),
        ];
        for (text, expect) in cases {
            let got = parse_linux_stat(text.as_bytes());
            assert_eq!(got.map(|e| (e.pid, e.start, e.zombie)), expect, "{text:?}");
            if let Some(entry) = got {
                assert_eq!((entry.parent, entry.group, entry.session), (1, 42, 7));
            }
        }
    }

    #[test]
    fn illumos_psinfo_is_read_by_offset() {
        let mut bytes = vec![0u8; 416];
        for (at, value) in [(4, 1u32), (8, 77), (12, 3), (16, 77), (20, 70)] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes[88..96].copy_from_slice(&5u64.to_ne_bytes());
        bytes[96..104].copy_from_slice(&9u64.to_ne_bytes());
        let expect =
            ProcessEntry { pid: 77, parent: 3, group: 77, session: 70, start: 5_000_000_009, zombie: false };
        assert_eq!(parse_illumos_psinfo(&bytes), Some(expect));
        assert_eq!(parse_illumos_psinfo(&bytes[..90]), None);
    }

    #[test]
    fn descendants_cross_sessions_and_end_on_cycles() {
        let entry = |pid, parent| ProcessEntry {
            pid,
            parent,
            group: pid,
            session: pid,
            start: u64::from(pid),
            zombie: false,
        };
        let table = [
            entry(1, 0),
            entry(10, 1),
            entry(11, 10),
            entry(12, 11),
            entry(20, 1),
            entry(30, 31),
            entry(31, 30),
        ];
        let mut found: Vec<u32> = descendants(&table, &[10]).iter().map(|e| e.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [11, 12]);
        assert_eq!(descendants(&table, &[30]).iter().map(|e| e.pid).collect::<Vec<_>>(), [31]);
        assert!(descendants(&table, &[99]).is_empty());
    }

    #[test]
    fn this_process_is_in_the_table() {
        let me = std::process::id();
        let entry = observe_process(me).expect("own entry");
        assert_eq!(entry.pid, me);
        assert!(is_alive(me, entry.start) && !is_alive(me, entry.start + 1));
        assert!(observe_processes().iter().any(|e| e.pid == me && e.start == entry.start));
        assert!(!observe_boot_id().is_empty());
    }
}
