//! The write-ahead journal: what a run intends, how far it has come, how it ended.
//!
//! One file a run, one JSON line a record. The first line is the whole plan with every step's undo; it is
//! durable before the first effect, and a step's `begin` before that step. A journal without an ending is
//! found at the next start. Owns the files; decides nothing.

use crate::state::StateDir;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use zed_plan::PLAN_FORMAT;
use zed_plan::Plan;

/// Ended journals that are kept for people to read.
const KEEP_ENDED: usize = 50;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// First line: the intent.
    Intent {
        /// All that will be done, and how it is taken back.
        plan: Box<Plan>,
    },
    /// Steps `from..to` of a unit are about to run.
    Begin {
        /// The unit.
        unit: String,
        /// First.
        from: usize,
        /// One past the last.
        to: usize,
    },
    /// All steps before the commit point are done: from here on the unit is completed, not undone.
    Committing {
        /// The unit.
        unit: String,
    },
    /// The unit failed; its begun steps are being taken back.
    Undoing {
        /// The unit.
        unit: String,
        /// Why.
        reason: String,
    },
    /// The undo of one step is done.
    StepUndone {
        /// The unit.
        unit: String,
        /// The step.
        step: usize,
    },
    /// The unit has ended.
    Ended {
        /// The unit.
        unit: String,
        /// How.
        ending: Ending,
    },
}

/// How a unit ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// All done.
    Committed,
    /// Not started, because a unit before it failed.
    Skipped {
        /// Which.
        reason: String,
    },
    /// Taken back.
    Undone {
        /// Why.
        reason: String,
    },
    /// Could not be completed or taken back.
    NeedsOperator {
        /// Why, and what failed while taking it back.
        reason: String,
    },
}

/// How far a unit had come, read back from a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Steps before this index have begun.
    pub begun: usize,
    /// Where the last begun steps start: a resumed run goes on from there.
    pub resume_at: usize,
    /// The commit point was passed.
    pub committing: bool,
    /// It was being taken back, because of this.
    pub undoing: Option<String>,
    /// Steps whose undo is done.
    pub undone: Vec<usize>,
    /// It has ended.
    pub ending: Option<Ending>,
}

/// A run's journal, open for appending. Lines of parallel units interleave, and share a wait for the disk.
pub struct Journal {
    path: PathBuf,
    file: Mutex<fs::File>,
    /// Lines written; counted under the lock of `file`.
    written: AtomicU64,
    /// Held while the disk is waited for, so that lines gather meanwhile.
    synced: Mutex<Synced>,
}

/// Which lines are on disk.
#[derive(Debug, Default)]
struct Synced {
    /// So many.
    lines: u64,
    /// Lines up to this one were not when a wait failed. The kernel tells that once and may then have dropped them,
    /// so a later wait proves nothing for them.
    doubtful: u64,
}

impl Synced {
    /// Settles a wait for the first `until` lines.
    fn settle(&mut self, until: u64, waited: io::Result<()>) -> io::Result<()> {
        match waited {
            Ok(()) => self.lines = self.lines.max(until),
            Err(_) => self.doubtful = self.doubtful.max(until),
        }
        waited
    }

    /// Whether line `mine` needs no wait any more, or an error when no wait can help it.
    fn of(&self, mine: u64) -> io::Result<bool> {
        if mine <= self.doubtful {
            return Err(io::Error::other(
                "the disk refused lines of the journal that were written with this one",
            ));
        }
        Ok(mine <= self.lines)
    }
}

impl Journal {
    /// Writes the intent, durably.
    pub fn create(state: &StateDir, plan: &Plan) -> io::Result<Self> {
        let dir = state.journal_dir();
        let path = dir.join(format!("{}.jsonl", plan.run));
        let file = fs::OpenOptions::new().create_new(true).append(true).open(&path)?;
        let journal = Self::on(path.clone(), file);
        let written = journal
            .append(&Record::Intent { plan: Box::new(plan.clone()) }, true)
            .and_then(|()| fs::File::open(dir)?.sync_all());
        if let Err(error) = written {
            // The run will be reported as not begun: it must not be found at the next start.
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(journal)
    }

    /// Opens one that was left behind. A torn last line is cut off: its step had not begun.
    pub fn reopen(path: &Path) -> io::Result<(Self, Plan, Vec<Record>)> {
        let text = fs::read(path)?;
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let mut records = Vec::new();
        for line in text[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            records.push(serde_json::from_slice::<Record>(line).map_err(io::Error::other)?);
        }
        let plan = match records.first() {
            Some(Record::Intent { plan }) if plan.format > PLAN_FORMAT => {
                let text = format!(
                    "it was written by a newer zedd (format {}, this one knows {PLAN_FORMAT})",
                    plan.format
                );
                return Err(io::Error::other(text));
            }
            Some(Record::Intent { plan }) => (**plan).clone(),
            _ => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the intent is not complete")),
        };
        let file = fs::OpenOptions::new().append(true).open(path)?;
        file.set_len(whole as u64)?;
        Ok((Self::on(path.to_owned(), file), plan, records))
    }

    fn on(path: PathBuf, file: fs::File) -> Self {
        Self { path, file: Mutex::new(file), written: AtomicU64::new(0), synced: Mutex::default() }
    }

    /// Appends a line; `durable` waits until it is on disk.
    pub fn append(&self, record: &Record, durable: bool) -> io::Result<()> {
        let mut line = serde_json::to_vec(record).map_err(io::Error::other)?;
        line.push(b'\n');
        let mine = self.write(&line)?;
        if durable { self.sync(mine) } else { Ok(()) }
    }

    /// Gives how many lines there are now.
    fn write(&self, line: &[u8]) -> io::Result<u64> {
        let mut file = self.file.lock();
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(line) {
            // Half a line would make everything after it unreadable.
            file.set_len(before)?;
            return Err(error);
        }
        Ok(self.written.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Waits until the first `mine` lines are on disk. Whoever comes while another waits is often served by the
    /// next wait of a third: fifty apps that change at once do not wait for the disk one after the other.
    fn sync(&self, mine: u64) -> io::Result<()> {
        let mut synced = self.synced.lock();
        if synced.of(mine)? {
            return Ok(());
        }
        // Read before the wait begins: what is written meanwhile need not be on disk after it.
        let until = self.written.load(Ordering::SeqCst);
        let file = self.file.lock().try_clone()?;
        synced.settle(until, file.sync_data())
    }

    /// The run has ended: the file moves out of the way, for people to read; the oldest of those go.
    pub fn close(self) -> io::Result<()> {
        let Some(dir) = self.path.parent() else { return Ok(()) };
        let ended = dir.join("ended");
        fs::create_dir_all(&ended)?;
        if let Some(name) = self.path.file_name() {
            fs::rename(&self.path, ended.join(name))?;
        }
        let mut kept: Vec<_> = fs::read_dir(&ended)?
            .filter_map(Result::ok)
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        kept.sort();
        let excess = kept.len().saturating_sub(KEEP_ENDED);
        kept[..excess].iter().try_for_each(|(_, path)| fs::remove_file(path))
    }

    /// The run whose journal this is.
    pub fn run_of(path: &Path) -> Option<&str> {
        path.file_stem().and_then(|stem| stem.to_str())
    }

    /// Journals without an ending, oldest first.
    pub fn unfinished(state: &StateDir) -> io::Result<Vec<PathBuf>> {
        let mut found: Vec<_> = fs::read_dir(state.journal_dir())?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
            .collect();
        found.sort_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).ok());
        Ok(found)
    }
}

/// What the records say of one unit.
pub fn progress(records: &[Record], name: &str) -> Progress {
    let mut progress = Progress::default();
    for record in records {
        match record {
            Record::Begin { unit, from, to } if unit == name => {
                progress.begun = progress.begun.max(*to);
                progress.resume_at = *from;
            }
            Record::Committing { unit } if unit == name => progress.committing = true,
            Record::Undoing { unit, reason } if unit == name => progress.undoing = Some(reason.clone()),
            Record::StepUndone { unit, step } if unit == name => progress.undone.push(*step),
            Record::Ended { unit, ending } if unit == name => progress.ending = Some(ending.clone()),
            _ => {}
        }
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;
    use zed_plan::Purpose;
    use zed_plan::RunId;
    use zed_spec::DeployName;

    fn plan(run: &str) -> Plan {
        Plan {
            format: PLAN_FORMAT,
            run: RunId(run.into()),
            purpose: Purpose::Deploy,
            deploy: DeployName::parse("d").unwrap(),
            generation: 1,
            spec_sha256: String::new(),
            made_at: 0,
            based_on: String::new(),
            units: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_torn_last_line_is_as_if_it_had_not_been_written() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let journal = Journal::create(&state, &plan("r1")).unwrap();
        journal.append(&Record::Begin { unit: "a".into(), from: 0, to: 1 }, true).unwrap();
        let path = journal.path.clone();
        drop(journal);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"record\":\"beg").unwrap();

        let (journal, found, records) = Journal::reopen(&path).unwrap();
        assert_eq!(found, plan("r1"));
        assert_eq!(progress(&records, "a"), Progress { begun: 1, ..Progress::default() });
        journal.append(&Record::Committing { unit: "a".into() }, true).unwrap();
        let (_, _, records) = Journal::reopen(&path).unwrap();
        assert!(progress(&records, "a").committing);
    }

    #[test]
    fn lines_of_parallel_units_are_all_there_once_they_were_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let journal = Journal::create(&state, &plan("r1")).unwrap();
        std::thread::scope(|scope| {
            for unit in 0..8 {
                let journal = &journal;
                scope.spawn(move || {
                    for step in 0..20 {
                        let record = Record::Begin { unit: format!("u{unit}"), from: step, to: step + 1 };
                        journal.append(&record, step % 3 != 0).unwrap();
                    }
                });
            }
        });
        assert_eq!(journal.written.load(Ordering::SeqCst), 161);
        let (_, _, records) = Journal::reopen(&journal.path).unwrap();
        assert_eq!(records.len(), 161);
        for unit in 0..8 {
            assert_eq!(progress(&records, &format!("u{unit}")).begun, 20);
        }
    }

    #[test]
    fn a_line_that_the_disk_refused_is_never_taken_for_durable() {
        let mut synced = Synced::default();
        synced.settle(3, Ok(())).unwrap();
        assert!(synced.of(3).unwrap() && !synced.of(4).unwrap());
        synced.settle(5, Err(io::Error::other("EIO"))).unwrap_err();
        // Another unit's line was part of that wait: its own, which would succeed, proves nothing.
        synced.of(5).unwrap_err();
        assert!(!synced.of(6).unwrap());
        synced.settle(6, Ok(())).unwrap();
        synced.of(5).unwrap_err();
        assert!(synced.of(6).unwrap());
    }

    #[test]
    fn an_ended_journal_is_not_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let journal = Journal::create(&state, &plan("r1")).unwrap();
        assert_eq!(Journal::unfinished(&state).unwrap().len(), 1);
        journal.close().unwrap();
        assert!(Journal::unfinished(&state).unwrap().is_empty());
    }
}
