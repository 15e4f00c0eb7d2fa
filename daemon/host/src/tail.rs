//! The last lines of a log, without reading all of it.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;

/// Read at most, from the end.
const MOST: u64 = 1 << 20;
/// Read first; doubles until there are enough lines.
const FIRST: u64 = 16 * 1024;

/// The last `lines` lines of a file, oldest first, of its last MiB; invalid UTF-8 is replaced. Empty when there
/// is no file.
pub fn tail(path: &Path, lines: usize) -> io::Result<Vec<String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let size = file.metadata()?.len();
    let mut want = FIRST;
    loop {
        let start = size.saturating_sub(want);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&mut file).take(size - start).read_to_end(&mut bytes)?;
        let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
        if start > 0 && newlines <= lines && want < MOST {
            want *= 2;
            continue;
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut found: Vec<&str> = text.lines().collect();
        if start > 0 && !found.is_empty() {
            // Its beginning is not here.
            found.remove(0);
        }
        let from = found.len().saturating_sub(lines);
        return Ok(found[from..].iter().map(|line| (*line).to_owned()).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_come_back_whatever_the_size() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("log");
        assert!(tail(&path, 3).expect("no file").is_empty());
        let long = "x".repeat(50_000);
        let many: Vec<String> = (0..5000).map(|n| format!("line {n}")).collect();
        let cases: Vec<(String, usize, Vec<String>)> = vec![
            (String::new(), 3, vec![]),
            ("one".into(), 3, vec!["one".into()]),
            ("one\ntwo\n".into(), 1, vec!["two".into()]),
            ("one\ntwo".into(), 0, vec![]),
            (format!("{}\n", many.join("\n")), 2, vec!["line 4998".into(), "line 4999".into()]),
            (format!("{}\n", many.join("\n")), 9000, many.clone()),
            (format!("a\n{long}\nb\n"), 2, vec![long.clone(), "b".into()]),
        ];
        for (text, lines, expect) in cases {
            std::fs::write(&path, &text).expect("write");
            assert_eq!(tail(&path, lines).expect("tail"), expect, "{} bytes, {lines} lines", text.len());
        }
        std::fs::write(&path, b"\xff\xfe\n").expect("write");
        assert_eq!(tail(&path, 1).expect("tail"), ["\u{fffd}\u{fffd}"]);
    }
}
