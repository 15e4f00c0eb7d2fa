//! The catalog: one file of records that says what every dataset and snapshot of an embedded store is.
//!
//! The truth of the store. A change of any number of datasets is one line, appended and synced, so it is
//! there as a whole or not at all; what the folders look like is brought in line with it afterwards and at
//! every open. Never interprets what it records.
//!
//! `catalog.jsonl`: a header line, then a line for each change: CRC-32 of the JSON in hex, a space, the JSON.

use super::failure::Failure;
use super::faults::Steps;
use crate::UserProps;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use zed_spec::DatasetPath;

/// Version of the format that this program writes. It refuses newer ones.
const FORMAT: u32 = 1;
/// Smaller catalogs are never rewritten: replaying a megabyte takes a few milliseconds.
const REWRITE_FROM: u64 = 1 << 20;

/// A folder with the files of a dataset or of a snapshot: `content/<number>/tree`.
pub(super) type Content = u64;

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "zed-embedded-store")]
    format: u32,
}

/// All of one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) path: DatasetPath,
    pub(super) guid: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) native: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) user: UserProps,
    /// The guid of the snapshot it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<u64>,
    pub(super) content: Content,
    /// Bytes, as of the last time its files were walked.
    pub(super) referenced: u64,
    /// Oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) snapshots: Vec<SnapshotRecord>,
}

/// All of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    pub(super) name: String,
    pub(super) guid: u64,
    pub(super) txg: u64,
    pub(super) created: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) user: UserProps,
    pub(super) content: Content,
    pub(super) used: u64,
}

/// One transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// What these datasets are from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) set: Vec<Record>,
    /// Datasets that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) gone: Vec<DatasetPath>,
    /// Content to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) drop: Vec<Content>,
    /// Explicit mountpoints to remove, if they are still this store's links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unlink: Vec<PathBuf>,
}

/// The open catalog.
pub(super) struct Catalog {
    dir: PathBuf,
    file: File,
    /// Bytes of whole records; a failed append goes back to it.
    length: u64,
    /// The length when it was last written anew.
    rewritten: u64,
    /// A failed append could not be taken back: nothing may be written behind it.
    broken: bool,
}

fn line(text: &str) -> String {
    format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()))
}

fn encode(change: &Change) -> Result<String, Failure> {
    let text = serde_json::to_string(change).map_err(|e| Failure::new("encode a record", e))?;
    Ok(line(&text))
}

fn decode(line: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(line).ok()?;
    let (crc, json) = text.split_once(' ')?;
    (u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(json.as_bytes())).then_some(json)
}

fn damaged(path: &Path, number: usize, why: &str) -> Failure {
    let doing = format!("read line {number} of `{}`", path.display());
    Failure::new(doing, io::Error::new(io::ErrorKind::InvalidData, why.to_owned()))
}

/// What a catalog's bytes say, and how many of them are whole records.
struct Parsed {
    changes: Vec<Change>,
    length: usize,
}

/// Reads records up to the end, or up to a record that an interrupted append left unfinished at the end.
fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, Failure> {
    let mut parsed = Parsed { changes: Vec::new(), length: 0 };
    let mut torn = None;
    for (at, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let json = line.strip_suffix(b"\n").and_then(decode);
        match (json, torn) {
            (None, _) => torn = torn.or(Some(at + 1)),
            (Some(_), Some(bad)) => {
                return Err(damaged(
                    path,
                    bad,
                    "its checksum is wrong and records follow it; restore a backup",
                ));
            }
            (Some(json), None) => {
                if at == 0 {
                    read_header(path, json)?;
                } else {
                    let change =
                        serde_json::from_str(json).map_err(|e| damaged(path, at + 1, &e.to_string()))?;
                    parsed.changes.push(change);
                }
                parsed.length += line.len();
            }
        }
    }
    match parsed.length {
        0 => Err(damaged(path, 1, "it has no header; restore a backup")),
        _ => Ok(parsed),
    }
}

fn read_header(path: &Path, json: &str) -> Result<(), Failure> {
    let header: Header = serde_json::from_str(json).map_err(|e| damaged(path, 1, &e.to_string()))?;
    match header.format {
        1..=FORMAT => Ok(()),
        newer => {
            let why =
                format!("its format is {newer} and this program knows up to {FORMAT}; use a newer zedd");
            let doing = format!("read `{}`", path.display());
            Err(Failure::new(doing, io::Error::new(io::ErrorKind::Unsupported, why)))
        }
    }
}

impl Catalog {
    /// Opens the catalog in `dir`, made anew when there is none, and gives every change it holds, oldest first.
    pub(super) fn open(dir: &Path, steps: &Steps) -> Result<(Self, Vec<Change>), Failure> {
        let path = dir.join("catalog.jsonl");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let (file, length) = write_anew(dir, std::iter::empty(), steps)?;
                let catalog = Self { dir: dir.to_owned(), file, length, rewritten: length, broken: false };
                return Ok((catalog, Vec::new()));
            }
            Err(e) => return Err(Failure::at("read", &path)(e)),
        };
        let Parsed { changes, length } = parse(&path, &bytes)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Failure::at("open", &path))?;
        if length < bytes.len() {
            tracing::warn!(catalog = %path.display(), bytes = bytes.len() - length,
                "dropped an unfinished record: a change was interrupted before it was committed");
            steps.step("cut an unfinished record off")?;
            file.set_len(length as u64).map_err(Failure::at("shorten", &path))?;
            file.sync_all().map_err(Failure::at("sync", &path))?;
        }
        let length = length as u64;
        Ok((Self { dir: dir.to_owned(), file, length, rewritten: length, broken: false }, changes))
    }

    /// Commits a change. After an error it is as if the call had not been made.
    pub(super) fn append(&mut self, change: &Change, steps: &Steps) -> Result<(), Failure> {
        if self.broken {
            let why = "a failed write could not be taken back; restart zedd";
            return Err(Failure::new("write the catalog", io::Error::other(why)));
        }
        let record = encode(change)?;
        match self.write(record.as_bytes(), steps) {
            Ok(()) => {
                self.length += record.len() as u64;
                Ok(())
            }
            Err(failure) => {
                // A dead process takes nothing back: the next open does.
                if steps.alive().is_ok() {
                    let back = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
                    self.broken = back.is_err();
                }
                Err(failure)
            }
        }
    }

    fn write(&mut self, record: &[u8], steps: &Steps) -> Result<(), Failure> {
        let failed = || Failure::at::<io::Error>("write", &self.dir.join("catalog.jsonl"));
        steps.step("write a record")?;
        let half = if steps.are_watched() { record.len() / 2 } else { record.len() };
        self.file.write_all(&record[..half]).map_err(failed())?;
        if half < record.len() {
            steps.step("write the rest of a record")?;
            self.file.write_all(&record[half..]).map_err(failed())?;
        }
        steps.step("sync a record")?;
        self.file.sync_data().map_err(failed())
    }

    /// True when most of the file is history.
    pub(super) fn wants_rewrite(&self) -> bool {
        self.length > REWRITE_FROM && self.length > 4 * self.rewritten
    }

    /// Writes the catalog anew with only what is true now.
    pub(super) fn rewrite(
        &mut self,
        records: impl Iterator<Item = Record>,
        steps: &Steps,
    ) -> Result<(), Failure> {
        let (file, length) = write_anew(&self.dir, records, steps)?;
        self.file = file;
        self.length = length;
        self.rewritten = length;
        self.broken = false;
        Ok(())
    }
}

/// Writes a whole catalog beside the old one and renames it over that one.
fn write_anew(
    dir: &Path,
    records: impl Iterator<Item = Record>,
    steps: &Steps,
) -> Result<(File, u64), Failure> {
    let path = dir.join("catalog.jsonl");
    let new = dir.join("catalog.new");
    steps.step("write a catalog anew")?;
    let header = serde_json::to_string(&Header { format: FORMAT });
    let mut text = line(&header.map_err(|e| Failure::new("encode the header", e))?);
    for record in records {
        text.push_str(&encode(&Change { set: vec![record], ..Change::default() })?);
    }
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(Failure::at("write", &new))?;
    steps.step("put a new catalog in place")?;
    std::fs::rename(&new, &path).map_err(Failure::at("rename", &new))?;
    sync_dir(dir)?;
    let file = OpenOptions::new().append(true).open(&path).map_err(Failure::at("open", &path))?;
    Ok((file, text.len() as u64))
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Failure> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Failure::at("sync", dir))
}
