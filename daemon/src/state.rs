//! The state directory: what it holds, and how a file in it is replaced.
//!
//! Lives in the dataset `zed` of the store, so that it travels with it. Holds specs as saved, what became of
//! them, releases, journals and logs. Never holds what is deployed: that is in properties, beside the data.

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use zed_plan::Plan;
use zed_plan::Release;
use zed_spec::DatasetPath;
use zed_spec::DeployName;

/// Version of the state directory's layout. A newer one is refused.
pub const STATE_FORMAT: u32 = 1;

/// Folders that nobody but zedd looks into.
const PRIVATE: [&str; 5] = ["deploys", "plans", "journal", "releases", "failures"];

/// Why the state directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} `{}`", path.display())]
pub struct StateError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError { operation, path, source }
}

/// Paths below the state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

/// What is remembered of one deploy, beside its spec file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeployRecord {
    /// [`STATE_FORMAT`].
    pub format: u32,
    /// Counts accepted saves.
    pub generation: u64,
    /// sha256 (hex) of the file's bytes that were looked at last.
    pub file_sha256: String,
    /// The text of the last spec that was good: what the host converges to.
    pub accepted: Option<String>,
    /// Diagnostics when the file is not good.
    pub rejected: Option<String>,
    /// How the last run of the accepted spec ended.
    pub verdict: Option<Verdict>,
    /// The generation that was at rest after the last run; 0 when none was. What differs after that is drift.
    #[serde(default)]
    pub settled: u64,
    /// The datasets of this deploy as zed left them; nothing before the first look. One of them that is gone was
    /// destroyed or renamed by somebody else.
    #[serde(default)]
    pub datasets: Option<BTreeSet<DatasetPath>>,
    /// The file is gone: the deploy is being released.
    #[serde(default)]
    pub removed: bool,
    /// The deploy has been released: only its generation is remembered, so that a later spec of this name counts on.
    #[serde(default)]
    pub released: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// For this generation.
    pub generation: u64,
    /// The run, empty when there was nothing to do.
    pub run: String,
    /// How.
    pub outcome: Outcome,
    /// One line or more: why.
    pub text: String,
    /// Seconds since 1970.
    pub at: i64,
}

/// Kinds of ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As declared.
    Converged,
    /// It failed, and what was before is back. Not tried again until the spec is saved or `retry` is written.
    Failed,
}

impl StateDir {
    /// Opens or creates the directory.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let state = Self { root: root.to_owned() };
        for folder in ["deploy", "plan", "deploys", "plans", "journal", "releases", "failures", "apps"] {
            let path = state.root.join(folder);
            fs::create_dir_all(&path).map_err(failed("create", &path))?;
            if PRIVATE.contains(&folder) {
                // They hold specs and environments, whatever the modes of the files that were saved.
                let private = fs::Permissions::from_mode(0o700);
                fs::set_permissions(&path, private).map_err(failed("protect", &path))?;
            }
        }
        let marker = state.root.join("format");
        match fs::read_to_string(&marker) {
            Ok(text) => {
                let found: u32 = text.trim().parse().unwrap_or(u32::MAX);
                if found > STATE_FORMAT {
                    let text = format!(
                        "it was written by a newer zedd (format {}); this one knows {STATE_FORMAT}",
                        text.trim()
                    );
                    return Err(failed("use", &state.root)(io::Error::other(text)));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                replace_file(&marker, format!("{STATE_FORMAT}\n").as_bytes())
                    .map_err(failed("write", &marker))?;
            }
            Err(e) => return Err(failed("read", &marker)(e)),
        }
        Ok(state)
    }

    /// An error of something else that keeps the state from being brought up to date.
    pub fn blame(&self, problem: &str) -> StateError {
        failed("bring up to date", &self.root)(io::Error::other(problem.to_owned()))
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Specs as saved: `/zed/deploy`.
    pub fn deploy_dir(&self) -> PathBuf {
        self.root.join("deploy")
    }

    /// Dry-run specs: `/zed/plan`.
    pub fn plan_dir(&self) -> PathBuf {
        self.root.join("plan")
    }

    /// Journals of runs that have not ended.
    pub fn journal_dir(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Evidence of a failed run.
    pub fn failure_dir(&self, run: &str) -> PathBuf {
        self.root.join("failures").join(run)
    }

    /// Queues, results and caches of GPUs.
    pub fn gpu_dir(&self) -> PathBuf {
        self.root.join("gpu")
    }

    /// The daemon's events.
    pub fn events_path(&self) -> PathBuf {
        self.root.join("events")
    }

    /// The daemon's log.
    pub fn log_path(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Names of deploys for which a record is kept.
    pub fn records(&self) -> Result<BTreeMap<DeployName, DeployRecord>, StateError> {
        let dir = self.root.join("deploys");
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(failed("list", &dir))? {
            let path = entry.map_err(failed("list", &dir))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".json"))
            else {
                continue;
            };
            let Ok(name) = DeployName::parse(name) else { continue };
            found.insert(name, read_json(&path)?);
        }
        Ok(found)
    }

    /// Writes a deploy's record, durably.
    pub fn write_record(&self, name: &DeployName, record: &DeployRecord) -> Result<(), StateError> {
        let path = self.root.join("deploys").join(format!("{name}.json"));
        write_json(&path, record)
    }

    /// Forgets a deploy's record.
    pub fn remove_record(&self, name: &DeployName) -> Result<(), StateError> {
        let path = self.root.join("deploys").join(format!("{name}.json"));
        remove_file(&path)
    }

    /// Keeps a release, durably, by its hash.
    pub fn write_release(&self, release: &Release) -> Result<(), StateError> {
        let path = self.root.join("releases").join(format!("{}.json", release.spec_hash));
        if path.exists() {
            return Ok(());
        }
        write_json(&path, release)
    }

    /// Every kept release by its hash. One that cannot be read is left out with a warning: it is needed only
    /// by a rollback to it, which then says that the record is missing.
    pub fn releases(&self) -> Result<BTreeMap<String, Release>, StateError> {
        let dir = self.root.join("releases");
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(failed("list", &dir))? {
            let path = entry.map_err(failed("list", &dir))?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            match read_json::<Release>(&path) {
                Ok(release) => {
                    found.insert(release.spec_hash.clone(), release);
                }
                Err(e) => tracing::warn!(error = %crate::chain(&e), "a release record is unreadable"),
            }
        }
        Ok(found)
    }

    /// Forgets a release.
    pub fn remove_release(&self, spec_hash: &str) -> Result<(), StateError> {
        remove_file(&self.root.join("releases").join(format!("{spec_hash}.json")))
    }

    /// Keeps the plan that `plan/NAME.plan` shows, so that it can be applied exactly.
    pub fn write_plan(&self, name: &DeployName, plan: &Plan) -> Result<(), StateError> {
        write_json(&self.root.join("plans").join(format!("{name}.json")), plan)
    }

    /// The plan that `plan/NAME.plan` shows.
    pub fn plan(&self, name: &DeployName) -> Result<Option<Plan>, StateError> {
        let path = self.root.join("plans").join(format!("{name}.json"));
        if !path.exists() {
            return Ok(None);
        }
        read_json(&path).map(Some)
    }

    /// Forgets it.
    pub fn remove_plan(&self, name: &DeployName) -> Result<(), StateError> {
        remove_file(&self.root.join("plans").join(format!("{name}.json")))
    }

    /// Keeps a piece of evidence of a failed run.
    pub fn write_evidence(&self, run: &str, name: &str, text: &str) -> Result<PathBuf, StateError> {
        let dir = self.failure_dir(run);
        fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
        let path = dir.join(name);
        replace_file(&path, text.as_bytes()).map_err(failed("write", &path))?;
        Ok(path)
    }

    /// Keeps the newest `keep` failures.
    pub fn prune_evidence(&self, keep: usize) -> Result<(), StateError> {
        let dir = self.root.join("failures");
        let mut found: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed("list", &dir))? {
            let entry = entry.map_err(failed("list", &dir))?;
            let modified = entry.metadata().and_then(|m| m.modified()).map_err(failed("look at", &dir))?;
            found.push((modified, entry.path()));
        }
        found.sort();
        let excess = found.len().saturating_sub(keep);
        for (_, path) in &found[..excess] {
            fs::remove_dir_all(path).map_err(failed("remove", path))?;
        }
        Ok(())
    }
}

/// A spec file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecFile {
    /// Its content, cut off behind the longest that a spec may be.
    pub bytes: Vec<u8>,
    /// Which save this is: another one, also of equal bytes, is another file or has another time.
    pub save: SaveId,
}

/// Inode and modification time (seconds and nanoseconds) of a saved file.
pub type SaveId = (u64, i64, i64);

/// Spec files of a folder by name. Names that are no deploy's are scratch and left out.
pub fn spec_files(dir: &Path) -> Result<BTreeMap<DeployName, Result<SpecFile, StateError>>, StateError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let path = entry.map_err(failed("list", dir))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".ron"))
        else {
            continue;
        };
        let Ok(name) = DeployName::parse(name) else { continue };
        match read_regular(&path, zed_spec::MAX_SPEC_BYTES + 1) {
            Ok((bytes, save)) => found.insert(name, Ok(SpecFile { bytes, save })),
            // Removed between listing and reading: it is simply not there.
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => found.insert(name, Err(failed("read", &path)(e))),
        };
    }
    Ok(found)
}

/// At most `limit` bytes of a regular file. Anything else is refused without waiting for it: the loop must not
/// hang on a FIFO or a device that somebody put there.
pub fn read_regular(path: &Path, limit: usize) -> io::Result<(Vec<u8>, SaveId)> {
    let file = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limit as u64), &mut bytes)?;
    Ok((bytes, (found.ino(), found.mtime(), found.mtime_nsec())))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StateError> {
    let bytes = fs::read(path).map_err(failed("read", path))?;
    serde_json::from_slice(&bytes).map_err(|e| failed("parse", path)(io::Error::other(e)))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|e| failed("write", path)(io::Error::other(e)))?;
    replace_file(path, &bytes).map_err(failed("write", path))
}

fn remove_file(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Replaces a file so that after a crash it is the old one or the new one: write, fsync, rename, fsync.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no parent"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("the path has no name"))?;
    let temp = dir.join(format!(".{}.new", name.to_string_lossy()));
    let mut file = fs::File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_state_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        StateDir::open(dir.path()).unwrap();
        fs::write(dir.path().join("format"), "99\n").unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(crate::chain(&error).contains("newer zedd (format 99)"), "{}", crate::chain(&error));
        assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), "99\n");
    }

    #[test]
    fn records_come_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let name = DeployName::parse("prod").unwrap();
        let record = DeployRecord {
            format: STATE_FORMAT,
            generation: 3,
            accepted: Some("Deploy()".into()),
            verdict: Some(Verdict {
                generation: 3,
                run: "r1".into(),
                outcome: Outcome::Failed,
                text: "no".into(),
                at: 7,
            }),
            ..DeployRecord::default()
        };
        state.write_record(&name, &record).unwrap();
        assert_eq!(state.records().unwrap(), BTreeMap::from([(name.clone(), record)]));
        state.remove_record(&name).unwrap();
        state.remove_record(&name).unwrap();
        assert!(state.records().unwrap().is_empty());
    }

    #[test]
    fn scratch_files_are_no_specs() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.ron", "a.ron", ".a.ron.swp", "A.ron", "sedXYZ", "a.ron~", "notes.txt"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let names: Vec<String> =
            spec_files(dir.path()).unwrap().into_keys().map(|name| name.to_string()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
