use super::*;
use std::time::Duration;

fn fresh(rotate_at: u64) -> (tempfile::TempDir, AppLog) {
    let folder = tempfile::tempdir().expect("tempdir");
    let log = AppLog::open(folder.path().join("log"), rotate_at).expect("open");
    (folder, log)
}

fn read(folder: &tempfile::TempDir, name: &str) -> Vec<u8> {
    std::fs::read(folder.path().join(name)).unwrap_or_default()
}

/// What follows the first line, which says its own number.
fn body(folder: &tempfile::TempDir, name: &str) -> Vec<u8> {
    let bytes = read(folder, name);
    let end = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let first = String::from_utf8_lossy(&bytes[..end]).into_owned();
    assert!(first.is_empty() || first.contains(" zed line "), "{first}");
    bytes[end..].to_vec()
}

/// Number and text of every line that is kept, oldest first; notes as they are, without their time.
fn numbered(folder: &tempfile::TempDir) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    for name in ["log.3", "log.2", "log.1", "log"] {
        numbers::read_lines(&folder.path().join(name), |number, line| {
            let line = String::from_utf8_lossy(line).into_owned();
            all.push((number, line.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned())));
        })
        .expect("read");
    }
    all
}

fn assert_gap_free(lines: &[(u64, String)]) {
    for pair in lines.windows(2) {
        assert_eq!(pair[0].0 + 1, pair[1].0, "{pair:?}");
    }
}

#[test]
fn times_are_rfc_3339() {
    let cases = [
        (0, 0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, 1, "2000-02-29T00:00:00.001Z"),
        (951_868_799, 999, "2000-02-29T23:59:59.999Z"),
        (1_709_164_800, 0, "2024-02-29T00:00:00.000Z"),
        (1_795_369_588, 123, "2026-11-22T17:46:28.123Z"),
        (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
    ];
    for (seconds, millis, expect) in cases {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
        assert_eq!(render_time(time), expect);
    }
}

#[test]
fn lines_are_cut_whatever_the_pieces_they_come_in() {
    let text = b"one\ntwo\r\n\nthree \xff\x00 end\nlast";
    let expect = b"T out one\nT out two\nT out \nT out three \xff\\0 end\nT out last\n";
    for piece in 1..=text.len() {
        let (folder, mut log) = fresh(u64::MAX);
        let mut lines = Lines::new("out");
        for part in text.chunks(piece) {
            lines.feed("T", part, &mut log);
        }
        assert!(lines.has_partial());
        lines.finish("T", false, &mut log);
        log.flush();
        assert_eq!(body(&folder, "log"), expect, "pieces of {piece}");
    }
}

#[test]
fn a_line_that_is_too_long_is_written_in_marked_pieces_and_loses_nothing() {
    for (length, pieces) in [(MAX_LINE, 1), (MAX_LINE + 1, 2), (MAX_LINE * 3, 3), (MAX_LINE * 3 + 7, 4)] {
        for read_size in [4096, 65_536, usize::MAX] {
            let (folder, mut log) = fresh(u64::MAX);
            let mut lines = Lines::new("err");
            let mut text: Vec<u8> =
                (0..length).map(|n| b'a' + u8::try_from(n % 26).expect("small")).collect();
            text.push(b'\n');
            for part in text.chunks(read_size.min(text.len())) {
                lines.feed("T", part, &mut log);
            }
            log.flush();
            let written = body(&folder, "log");
            let written: Vec<&[u8]> =
                written.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
            assert_eq!(written.len(), pieces, "{length} bytes in reads of {read_size}");
            let mut joined = Vec::new();
            for (n, line) in written.iter().enumerate() {
                let line = line.strip_prefix(b"T err ").expect("prefix");
                let body = line.strip_suffix(CONTINUES);
                assert_eq!(body.is_some(), n + 1 < pieces, "every piece but the last is marked");
                joined.extend_from_slice(body.unwrap_or(line));
            }
            joined.push(b'\n');
            assert!(joined == text, "{length} bytes in reads of {read_size}");
        }
    }
}

#[test]
fn the_log_is_rotated_and_three_old_ones_are_kept_and_numbers_go_on() {
    let (folder, mut log) = fresh(100);
    let add = |log: &mut AppLog, n: u32| {
        log.add("2026-11-22T17:46:28.123Z", "out", format!("line {n:02}").as_bytes(), false);
        log.flush();
    };
    for n in 0..60 {
        add(&mut log, n);
    }
    assert!(folder.path().join("log.3").exists() && !folder.path().join("log.4").exists());
    for name in ["log", "log.1", "log.2", "log.3"] {
        let text = String::from_utf8(read(&folder, name)).expect("text");
        assert!(text.lines().next().is_some_and(|line| line[24..].starts_with(" zed line ")), "{text}");
    }
    let lines = numbered(&folder);
    assert_gap_free(&lines);
    let newest = lines.iter().rev().find(|(_, text)| text.starts_with("out "));
    assert_eq!(newest.map(|(_, text)| text.as_str()), Some("out line 59"));
    let last = lines.last().expect("lines").0;
    // A supervisor that starts later goes on in the same file, with the next number.
    drop(log);
    let mut log = AppLog::open(folder.path().join("log"), 1 << 20).expect("open");
    assert_eq!(log.next_number(), last + 1);
    add(&mut log, 60);
    // One that was killed in the middle of a rotation has left no file.
    drop(log);
    std::fs::rename(folder.path().join("log"), folder.path().join("log.1")).expect("rename");
    let mut log = AppLog::open(folder.path().join("log"), 1 << 20).expect("open");
    add(&mut log, 61);
    let lines: Vec<_> = numbered(&folder).into_iter().filter(|(number, _)| *number > last).collect();
    assert_gap_free(&lines);
    let texts: Vec<&str> = lines.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["out line 60", &format!("zed line {}", last + 2), "out line 61"]);
}

#[test]
fn lines_that_cannot_be_written_are_named() {
    let (folder, mut log) = fresh(u64::MAX);
    // /dev/full refuses every byte.
    let Ok(full) = OpenOptions::new().append(true).open("/dev/full") else {
        eprintln!("not run: there is no /dev/full");
        return;
    };
    log.add("T", "out", b"before", false);
    log.flush();
    let good = std::mem::replace(&mut log.file, full);
    for text in [&b"lost"[..], b"this too"] {
        log.add("T", "out", text, false);
        log.flush();
    }
    log.add("T", "out", b"and this", false);
    log.flush();
    log.file = good;
    log.add("T", "out", b"kept", false);
    log.flush();
    let lines = numbered(&folder);
    let expect = [
        (1, "zed line 1".to_owned()),
        (2, "out before".to_owned()),
        (
            6,
            "zed line 6; lines 3 to 5 were lost, the log could not be written: No space left on device (os error 28)"
                .to_owned(),
        ),
        (7, "out kept".to_owned()),
    ];
    assert_eq!(lines, expect);
}

#[test]
fn a_file_that_is_full_in_the_middle_of_a_line_keeps_whole_lines_and_names_the_rest() {
    let (folder, mut log) = fresh(u64::MAX);
    let mount = folder.path().join("small");
    std::fs::create_dir(&mount).expect("mkdir");
    #[cfg(target_os = "linux")]
    let mounted = nix::mount::mount(
        Some("tmpfs"),
        &mount,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=8k"),
    )
    .is_ok();
    #[cfg(not(target_os = "linux"))]
    let mounted = false;
    if !mounted {
        eprintln!("not run: only root can mount a small file system");
        return;
    }
    drop(log);
    log = AppLog::open(mount.join("log"), u64::MAX).expect("open");
    let add = |log: &mut AppLog, n: usize| {
        log.add("2026-11-22T17:46:28.123Z", "out", format!("{n:0100}").as_bytes(), false);
    };
    // 130 bytes a line: 8 KiB are full after 62 of them, in the middle of a piece of ten.
    for n in 0..100 {
        add(&mut log, n);
        if n % 10 == 9 {
            log.flush();
        }
    }
    let path = mount.join("log");
    let text = std::fs::read_to_string(&path).expect("read");
    assert!(text.ends_with('\n'), "no half line: {text:?}");
    let kept = u64::try_from(text.lines().count()).expect("small");
    assert!((50..70).contains(&kept), "{kept}");
    // There is room again: somebody has cut the file.
    OpenOptions::new().write(true).truncate(true).open(&path).expect("cut");
    add(&mut log, 100);
    log.flush();
    let text = std::fs::read_to_string(&path).expect("read");
    let first = text.lines().next().expect("a line").to_owned();
    // Line 1 is the mark; the lines of the app are 2 to 101, and 102 is the next mark.
    let expect = format!(" zed line 102; lines {} to 101 were lost", kept + 1);
    assert!(first.contains(&expect), "{first}");
    assert_eq!(log.next_number(), 104);
    #[cfg(target_os = "linux")]
    nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH).expect("unmount");
}

#[test]
fn a_log_that_somebody_cuts_or_removes_goes_on_with_its_numbers() {
    let (folder, mut log) = fresh(u64::MAX);
    let add = |log: &mut AppLog, text: &str| {
        log.add("2026-11-22T17:46:28.123Z", "out", text.as_bytes(), false);
        log.flush();
    };
    add(&mut log, "one");
    OpenOptions::new().write(true).truncate(true).open(folder.path().join("log")).expect("cut");
    add(&mut log, "two");
    assert_eq!(numbered(&folder), [(3, "zed line 3".to_owned()), (4, "out two".to_owned())]);
    std::fs::remove_file(folder.path().join("log")).expect("remove");
    add(&mut log, "three");
    assert_eq!(numbered(&folder), [(5, "zed line 5".to_owned()), (6, "out three".to_owned())]);
}

#[test]
fn logs_of_an_earlier_zed_and_torn_ones_are_gone_on_with() {
    let time = "2026-11-22T17:46:28.123Z";
    let cases = [
        // Without numbers: counted from 1.
        (format!("{time} out a\n{time} out b\n"), vec![1, 2, 3, 4]),
        // Killed in the middle of a line.
        (format!("{time} zed line 7\n{time} out a\n{time} ou"), vec![7, 8, 9, 10, 11]),
        // An app cannot say what only the supervisor says.
        (format!("{time} zed line 7\n{time} out line 99\n"), vec![7, 8, 9]),
    ];
    for (text, expect) in cases {
        let folder = tempfile::tempdir().expect("tempdir");
        std::fs::write(folder.path().join("log"), &text).expect("write");
        let mut log = AppLog::open(folder.path().join("log"), u64::MAX).expect("open");
        log.add(time, "out", b"new", false);
        log.flush();
        let lines = numbered(&folder);
        assert_eq!(
            lines.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
            expect,
            "{text:?}: {lines:?}"
        );
        assert_eq!(lines.last().expect("lines").1, "out new");
    }
}

#[test]
fn the_last_output_is_found_over_a_rotation_and_within_bounds() {
    let (folder, mut log) = fresh(2000);
    for n in 0..60 {
        log.add("2026-11-22T17:46:28.123Z", if n % 2 == 0 { "out" } else { "err" }, b"text", false);
        if n % 10 == 0 {
            log.add("2026-11-22T17:46:28.123Z", "zed", b"a note", false);
        }
        log.flush();
    }
    assert!(folder.path().join("log.1").exists(), "it was rotated");
    let path = folder.path().join("log");
    let next = log.next_number();
    let last = |from, lines, bytes| numbers::last_output(&path, from, lines, bytes).expect("read");
    let all = last(next - 20, 200, 1 << 20);
    assert!(all.iter().all(|(number, line)| *number >= next - 20 && !line.windows(5).any(|w| w == b" zed ")));
    assert_eq!(all.back().map(|(number, _)| *number), Some(next - 1));
    assert_eq!(last(0, 3, 1 << 20).len(), 3);
    assert_eq!(last(0, 200, 70).len(), 2, "33 bytes a line");
    assert!(last(next, 200, 1 << 20).is_empty());
}

#[test]
fn lines_that_another_has_appended_are_counted() {
    let (folder, mut log) = fresh(400);
    let path = folder.path().join("log");
    for round in 0..20 {
        log.note(&format!("own {round}"));
        note_lines(&path, &["hook a".to_owned(), format!("hook {round}")]).expect("append");
    }
    log.note("own last");
    assert_gap_free(&numbered(&folder));
    assert!(folder.path().join("log.1").exists(), "it was rotated");
}
