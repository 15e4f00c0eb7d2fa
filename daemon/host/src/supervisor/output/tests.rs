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
        assert_eq!(read(&folder, "log"), expect, "pieces of {piece}");
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
            let written = read(&folder, "log");
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
fn the_log_is_rotated_and_three_old_ones_are_kept() {
    let (folder, mut log) = fresh(100);
    for n in 0..60 {
        log.add("T", "out", format!("line {n:02}").as_bytes(), false);
        log.flush();
    }
    // 14 bytes a line: eight of them reach the limit.
    let first = |name: &str| String::from_utf8(read(&folder, name)[..14].to_vec()).expect("text");
    assert_eq!(first("log"), "T out line 56\n");
    assert_eq!(first("log.1"), "T out line 48\n");
    assert_eq!(first("log.2"), "T out line 40\n");
    assert_eq!(first("log.3"), "T out line 32\n");
    assert!(!folder.path().join("log.4").exists());
    // A supervisor that starts later goes on in the same file.
    drop(log);
    let mut log = AppLog::open(folder.path().join("log"), 100).expect("open");
    log.add("T", "out", b"more", false);
    log.flush();
    assert!(read(&folder, "log").ends_with(b"T out line 59\nT out more\n"));
}

#[test]
fn output_that_cannot_be_written_is_counted() {
    let (folder, mut log) = fresh(u64::MAX);
    // /dev/full refuses every byte.
    let Ok(full) = OpenOptions::new().append(true).open("/dev/full") else { return };
    let good = std::mem::replace(&mut log.file, full);
    log.add("T", "out", b"lost", false);
    log.flush();
    log.file = good;
    log.add("T", "out", b"kept", false);
    log.flush();
    let text = String::from_utf8(read(&folder, "log")).expect("text");
    assert!(text.contains(" zed 11 bytes of output were lost: the log could not be written\n"), "{text}");
    assert!(text.ends_with("T out kept\n"));
}
