//! `crash` and `crash.json` of an app: what the supervisors of its processes wrote, put together.
//!
//! Owns no format: a supervisor writes text and JSON, and this passes both on. Never writes.

use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

/// A file's bytes; of one that is not there, none.
fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The texts beside these `crash.json`, one process after another.
pub(super) fn text(files: &[PathBuf]) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for file in files {
        let text = read(&file.with_extension(""))?;
        if !text.is_empty() && !all.is_empty() {
            all.push(b'\n');
        }
        all.extend(text);
    }
    Ok(all)
}

/// One JSON of all, newest first; nothing when there is no post-mortem.
pub(super) fn json(files: &[PathBuf]) -> io::Result<Vec<u8>> {
    let mut texts = Vec::new();
    for file in files {
        let text = read(file)?;
        if !text.is_empty() {
            texts.push(text);
        }
    }
    if texts.len() < 2 {
        return Ok(texts.pop().unwrap_or_default());
    }
    let mut all: Vec<Value> = Vec::new();
    let mut format = Value::from(1);
    for text in texts {
        let mut file: Value = serde_json::from_slice(&text)?;
        format = file["format"].take();
        if let Value::Array(crashes) = file["crashes"].take() {
            all.extend(crashes);
        }
    }
    // RFC 3339 in UTC with as many digits each: the order of the texts is that of the times.
    all.sort_by(|one, other| other["at"].as_str().cmp(&one["at"].as_str()));
    Ok(zed_ctl::to_json(&serde_json::json!({ "format": format, "crashes": all })).into_bytes())
}

/// When the newest was written.
pub(super) fn modified(files: &[PathBuf]) -> Option<SystemTime> {
    files.iter().filter_map(|file| std::fs::metadata(file).ok()?.modified().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_processes_left_is_put_together() {
        let folder = tempfile::tempdir().expect("tempdir");
        let files: Vec<PathBuf> =
            ["api", "api.2", "api.3"].map(|name| folder.path().join(name).join("crash.json")).into();
        assert_eq!((text(&files).expect("text"), json(&files).expect("json")), (Vec::new(), Vec::new()));
        assert_eq!(modified(&files), None);
        for (file, at) in files.iter().zip(["2026-11-22T17:46:28.123Z", "2026-11-22T17:46:29.123Z"]) {
            std::fs::create_dir_all(file.parent().expect("parent")).expect("mkdir");
            std::fs::write(file, format!("{{\"format\": 1, \"crashes\": [{{\"at\": \"{at}\"}}]}}\n"))
                .expect("write");
            std::fs::write(file.with_extension(""), format!("crash {at}\n")).expect("write");
        }
        let shown = String::from_utf8(text(&files).expect("text")).expect("UTF-8");
        assert_eq!(shown, "crash 2026-11-22T17:46:28.123Z\n\ncrash 2026-11-22T17:46:29.123Z\n");
        let merged: Value = serde_json::from_slice(&json(&files).expect("json")).expect("JSON");
        assert_eq!(merged["format"], 1);
        assert_eq!(merged["crashes"][0]["at"], "2026-11-22T17:46:29.123Z");
        assert_eq!(merged["crashes"].as_array().map(Vec::len), Some(2));
        // A single one is passed on byte for byte.
        assert_eq!(json(&files[..1]).expect("json"), std::fs::read(&files[0]).expect("read"));
        assert!(modified(&files).is_some());
    }
}
