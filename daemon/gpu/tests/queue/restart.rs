//! zedd ends, in every way and at every point, and comes back over the same folder.

use crate::*;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;

const FOLDER: &str = "ab000000000000000000000000000000";

impl Bench {
    /// zedd stops and comes back.
    pub(crate) fn restarted(self, root: &Path) -> Bench {
        self.restarted_with(root, QueueLimits::default())
    }

    pub(crate) fn restarted_with(self, root: &Path, limits: QueueLimits) -> Bench {
        let host = self.host.clone();
        drop(self);
        Bench::with(root, limits, host, Told::default())
    }
}

fn journal(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join(FOLDER)).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).max().unwrap()
}

/// Where entries end, after the header.
fn ends(log: &[u8]) -> Vec<usize> {
    let mut ends = vec![16];
    loop {
        let at = *ends.last().unwrap();
        let Some(frame) = log.get(at..at + 12) else { return ends };
        let length = |from: usize| u32::from_le_bytes(frame[from..from + 4].try_into().unwrap()) as usize;
        ends.push(at + 12 + length(0) + length(4));
    }
}

/// A copy of everything but the log, which is cut.
fn as_of(dir: &Path, log: &Path, bytes: &[u8]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join(FOLDER)).unwrap();
    for entry in fs::read_dir(dir.join(FOLDER)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, copy.path().join(FOLDER).join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::write(copy.path().join(FOLDER).join(log.file_name().unwrap()), bytes).unwrap();
    copy
}

#[test]
fn after_a_kill_at_every_point_each_job_ends_once_and_what_had_ended_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    bench.host.0.batch.store(true, SeqCst);
    let mut ids: Vec<u64> = (0..3).map(|_| bench.submit(user(1), &job("Exp"))).collect();
    ids.iter().for_each(|id| drop(bench.outcome(*id)));
    bench.say(GpuVerb::Pause);
    ids.extend((0..8).map(|uid| bench.submit(user(uid), &job("Exp"))));
    ids.push(bench.submit(user(1), &job(fake::REFUSE)));
    bench.set.verb(ROOT, 0, Some(ids[5]), GpuVerb::Priority { priority: 9 }).unwrap();
    bench.set.verb(ROOT, 0, Some(ids[6]), GpuVerb::Cancel).unwrap();
    bench.say(GpuVerb::Resume);
    ids.iter().for_each(|id| drop(bench.outcome(*id)));
    let log = journal(dir.path());
    let whole = fs::read(&log).unwrap();
    let ends = ends(&whole);
    assert!(ends.len() > 30, "{}", ends.len());
    // What a cut inside an entry gives is the journal's own test.
    let cuts: BTreeSet<usize> = ends.iter().copied().chain([ends[9] + 7]).collect();
    let mut ended: BTreeMap<u64, String> = BTreeMap::new();
    let mut reruns = 0;
    for cut in cuts {
        let copy = as_of(dir.path(), &log, &whole[..cut]);
        let again = Bench::on(copy.path(), QueueLimits::default());
        again.say(GpuVerb::Resume);
        let jobs = again.set.jobs(0);
        for id in &jobs {
            drop(again.outcome(*id));
            let view = again.job(*id);
            assert!(["done", "failed", "cancelled"].contains(&view.state.as_str()), "{view:?}");
            reruns += u32::from(view.attempts > 1);
            assert!(view.attempts <= 2, "{view:?}");
        }
        for (id, state) in &ended {
            let view = again.job(*id);
            assert_eq!(format!("{} {}", view.state, view.ended_at), *state, "job {id}, cut at {cut}");
        }
        // What this cut has as ended must be so in every longer one.
        let begun = again.host.0.begun.lock().clone();
        for id in jobs.iter().filter(|id| !begun.contains(id)) {
            let view = again.job(*id);
            ended.insert(*id, format!("{} {}", view.state, view.ended_at));
        }
        let stats = again.set.stats(0).unwrap();
        assert_eq!((stats.queued, stats.running, stats.kept), (0, 0, jobs.len() as u64));
        let next = again.submit(ROOT, &job("Exp"));
        assert!(jobs.iter().all(|id| *id < next), "ids are never used again");
    }
    assert!(reruns > 0, "some cut was in the middle of a run");
    assert_eq!(ended.len(), ids.len());
}

#[test]
fn a_job_that_was_running_twice_when_zedd_died_is_not_run_a_third_time() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    let id = bench.submit(user(1), &job_with(fake::HANG, "deadline: \"1h\""));
    let other = bench.submit(user(1), &job("Exp"));
    bench.until("it runs", || bench.job(id).state == "running");
    let mut copies = Vec::new();
    let mut last = bench;
    let mut root = dir.path().to_owned();
    for _ in 0..2 {
        let log = journal(&root);
        let copy = as_of(&root, &log, &fs::read(&log).unwrap());
        root = copy.path().to_owned();
        copies.push(copy);
        last = Bench::on(&root, QueueLimits::default());
        last.until("it runs or has ended", || ["running", "failed"].contains(&last.job(id).state.as_str()));
    }
    let text = last.outcome(id).unwrap_err().message;
    assert!(text.contains("zedd ended 2 times while it ran this job"), "{text}");
    assert!(last.outcome(other).is_ok());
}

#[test]
fn a_clean_stop_is_no_death_of_a_job_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    let id = bench.submit(user(1), &job_with(fake::HANG, "deadline: \"1h\""));
    bench.until("it runs", || bench.job(id).state == "running");
    bench = bench.restarted(dir.path());
    bench.until("it runs", || bench.job(id).state == "running");
    let log = journal(dir.path());
    let copy = as_of(dir.path(), &log, &fs::read(&log).unwrap());
    let again = Bench::on(copy.path(), QueueLimits::default());
    again.until("it runs", || again.job(id).state == "running");
}

#[test]
fn settings_results_and_uploads_survive() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.say(GpuVerb::Weight { user: "77".to_owned(), weight: 5 });
    bench.say(GpuVerb::Retain { jobs: 3 });
    let done: Vec<u64> = (0..5).map(|_| bench.submit(user(1), &job("Exp"))).collect();
    done.iter().for_each(|id| drop(bench.outcome(*id)));
    bench.say(GpuVerb::Pause);
    let queued = bench.submit(user(2), &job("Exp"));
    let mut large = b"(inputs: {\"a\": Raw(F32, [100000])}, op: Exp(\"a\"), reply: Raw)\0".to_vec();
    large.resize(large.len() + 400_000, 7);
    let large = bench.set.submit(ROOT, 0, &large).unwrap();
    let upload = bench.submit(user(2), "(inputs: {\"a\": Upload(F32, [2])}, op: Exp(\"a\"))");
    let bench = bench.restarted(dir.path());
    assert_eq!(bench.set.jobs(0), [&done[2..], &[queued, large, upload]].concat());
    assert_eq!(bench.set.stats(0).unwrap().users["77"].weight, 5);
    let result = bench.set.result(key(done[4])).unwrap();
    assert_eq!(std::str::from_utf8(&result).unwrap(), "# out f32 [2]\n1 2\n");
    assert_eq!(bench.job(upload).state, "waiting");
    assert_eq!(bench.job(queued).state, "queued");
    bench.say(GpuVerb::Resume);
    assert!(bench.outcome(queued).is_ok());
    assert_eq!(bench.reply(large).unwrap().as_ref(), vec![7; 400_000]);
    bench.set.verb(user(2), 0, Some(upload), GpuVerb::Start).unwrap();
    assert!(bench.outcome(upload).is_ok());
}
