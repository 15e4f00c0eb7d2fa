//! Jobs that go well: files, replies, verbs, limits.

use crate::*;
use std::io::Read;
use std::io::Write;
use std::sync::atomic::Ordering::SeqCst;
use zed_ctl::Code;
use zed_fs::BufferContent;
use zed_fs::Side;

const VALUES: [u8; 8] = [0, 0, 128, 63, 0, 0, 0, 64];

fn bytes(bench: &Bench, id: u64, side: Side, name: &str) -> Vec<u8> {
    match bench.set.open_buffer(key(id), side, name, false).unwrap() {
        BufferContent::Memory(bytes) => bytes.to_vec(),
        BufferContent::File(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        }
    }
}

#[test]
fn a_job_is_done_and_its_files_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    let id = bench.submit(user(1000), &job("Exp"));
    assert_eq!(bench.outcome(id), Ok("done\n".to_owned()));
    let view = bench.job(id);
    assert_eq!((view.state.as_str(), view.ops.as_str(), view.ran_on.as_str()), ("done", "Exp", "gpu"));
    assert_eq!((view.uid, view.attempts, view.device.len()), (1000, 1, 32));
    assert_eq!(bytes(&bench, id, Side::In, "a"), VALUES);
    assert_eq!(bytes(&bench, id, Side::Out, "out"), VALUES);
    let result = bench.set.result(key(id)).unwrap();
    assert_eq!(std::str::from_utf8(&result).unwrap(), "# out f32 [2]\n1 2\n");
    assert_eq!(bench.reply(id).unwrap().as_ref(), format!("{id}\n").as_bytes());
    let stats = bench.set.stats(0).unwrap();
    assert_eq!((stats.submitted, stats.done, stats.kept), (1, 1, 1));
    assert_eq!(bench.set.jobs(0), [id]);
}

#[test]
fn the_handle_gives_what_the_job_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    let raw = bench.submit(ROOT, &job_with("Exp", "reply: Raw"));
    assert_eq!(bench.reply(raw).unwrap().as_ref(), VALUES);
    let text = bench.submit(ROOT, &job_with("Exp", "reply: Text"));
    assert_eq!(bench.reply(text).unwrap().as_ref(), b"# out f32 [2]\n1 2\n");
    let failed = bench.submit(ROOT, &job_with(fake::REFUSE, "reply: Text"));
    let error = bench.reply(failed).unwrap_err();
    assert_eq!(error.code, Code::Failed);
    assert!(error.message.contains("does not compile"), "{}", error.message);
}

#[test]
fn large_arrays_are_files_of_their_true_size_and_go_with_their_job() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut text = b"(inputs: {\"a\": Raw(F32, [100000])}, op: Exp(\"a\"), reply: Raw)\0".to_vec();
    text.extend_from_slice(&content);
    let id = bench.set.submit(ROOT, 0, &text).unwrap();
    assert_eq!(bench.reply(id).unwrap().as_ref(), content);
    let folder = dir.path().join("ab000000000000000000000000000000/jobs").join(id.to_string());
    for name in ["in-a", "out-out"] {
        assert_eq!(std::fs::metadata(folder.join(name)).unwrap().len(), 400_000, "{name}");
    }
    bench.say(GpuVerb::Retain { jobs: 0 });
    bench.until("its files are removed", || !folder.exists());
    assert!(bench.set.job(key(id)).is_none());
    assert_eq!(bench.set.open_buffer(key(id), Side::Out, "out", false).unwrap_err().code, Code::NotFound);
}

#[test]
fn an_upload_is_written_and_started() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    let id = bench.submit(user(5), "(inputs: {\"a\": Upload(F32, [2])}, op: Exp(\"a\"))");
    assert_eq!(bench.job(id).state, "waiting");
    assert!(bench.set.buffers(key(id), Side::In).unwrap()[0].writable);
    let BufferContent::File(mut file) = bench.set.open_buffer(key(id), Side::In, "a", true).unwrap() else {
        panic!("no file")
    };
    assert_eq!(file.metadata().unwrap().len(), 8);
    file.write_all(&VALUES).unwrap();
    bench.set.verb(user(5), 0, Some(id), GpuVerb::Start).unwrap();
    assert!(bench.outcome(id).is_ok());
    assert_eq!(bytes(&bench, id, Side::Out, "out"), VALUES);
    assert_eq!(bench.set.open_buffer(key(id), Side::In, "a", true).unwrap_err().code, Code::Busy);
    assert_eq!(bench.set.verb(user(5), 0, Some(id), GpuVerb::Start).unwrap_err().code, Code::Busy);
}

#[test]
fn others_may_command_only_their_own_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    bench.say(GpuVerb::Pause);
    let id = bench.submit(user(5), &job("Exp"));
    let refused = |verb| bench.set.verb(user(6), 0, Some(id), verb).unwrap_err().code;
    assert_eq!(refused(GpuVerb::Cancel), Code::NotPermitted);
    assert_eq!(refused(GpuVerb::Priority { priority: 1 }), Code::NotPermitted);
    for verb in [
        GpuVerb::Pause,
        GpuVerb::Resume,
        GpuVerb::Restart,
        GpuVerb::Forgive { kernel: None },
        GpuVerb::Weight { user: "6".to_owned(), weight: 9 },
        GpuVerb::Retain { jobs: 1 },
    ] {
        let error = bench.set.verb(user(6), 0, None, verb.clone()).unwrap_err();
        assert_eq!(error.code, Code::NotPermitted, "{verb:?}");
    }
    bench.set.verb(user(5), 0, Some(id), GpuVerb::Priority { priority: 7 }).unwrap();
    assert_eq!(bench.job(id).priority, 7);
    bench.set.verb(user(6), 0, None, GpuVerb::Cancel).unwrap();
    assert_eq!(bench.job(id).state, "queued");
    bench.set.verb(user(5), 0, None, GpuVerb::Cancel).unwrap();
    assert_eq!(bench.job(id).state, "cancelled");
    assert!(bench.outcome(id).unwrap_err().message.contains("cancelled"));
    assert_eq!(bench.set.verb(ROOT, 0, Some(id), GpuVerb::Cancel).unwrap_err().code, Code::Busy);
    assert_eq!(bench.set.verb(ROOT, 0, Some(99), GpuVerb::Cancel).unwrap_err().code, Code::NotFound);
    let nobody = GpuVerb::Weight { user: "no-such-user".to_owned(), weight: 2 };
    assert_eq!(bench.set.verb(ROOT, 0, None, nobody).unwrap_err().code, Code::NotFound);
    bench.say(GpuVerb::Weight { user: "root".to_owned(), weight: 4 });
    assert_eq!(bench.set.stats(0).unwrap().users["0"].weight, 4);
}

#[test]
fn a_full_queue_says_so_and_loses_nothing_and_one_user_cannot_fill_it() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits { jobs: 8, ..QueueLimits::default() });
    bench.ready();
    bench.say(GpuVerb::Pause);
    let mut ids: Vec<u64> = (0..6).map(|_| bench.submit(user(1), &job("Exp"))).collect();
    let full = |uid| bench.set.submit(user(uid), 0, job("Exp").as_bytes()).unwrap_err().code;
    assert_eq!(full(1), Code::Full);
    ids.extend((0..2).map(|_| bench.submit(user(2), &job("Exp"))));
    assert_eq!((full(2), full(3)), (Code::Full, Code::Full));
    assert_eq!(bench.set.stats(0).unwrap().refused, 3);
    bench.say(GpuVerb::Resume);
    for id in ids {
        assert!(bench.outcome(id).is_ok());
    }
    bench.submit(user(1), &job("Exp"));
}

#[test]
fn memory_is_bounded_by_bytes_too() {
    let dir = tempfile::tempdir().unwrap();
    let limits = QueueLimits { bytes: 1 << 20, retain_bytes: 1 << 20, ..QueueLimits::default() };
    let bench = Bench::on(dir.path(), limits);
    bench.ready();
    bench.host.0.held.store(true, SeqCst);
    let large = format!("(inputs: {{\"a\": F32([{}])}}, op: Exp(\"a\"))", "1, ".repeat(10_000));
    let mut ids = Vec::new();
    let refused = loop {
        match bench.set.submit(user(1), 0, large.as_bytes()) {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code, Code::Full);
    let held = bench.set.stats(0).unwrap().queued_bytes;
    assert!(held <= 1 << 20 && ids.len() < 16 && ids.len() > 1, "{held} {}", ids.len());
    bench.host.0.held.store(false, SeqCst);
    for id in &ids {
        assert!(bench.outcome(*id).is_ok());
    }
    for _ in 0..50 {
        let id = bench.submit(user(1), &large);
        assert!(bench.outcome(id).is_ok());
    }
    let kept = bench.set.stats(0).unwrap().kept;
    assert!(kept < 16 && bench.set.jobs(0).len() as u64 == kept, "{kept}");
}

#[test]
fn what_is_no_job_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    let error = bench.set.submit(ROOT, 0, b"(op: Exp(\"a\"))").unwrap_err();
    assert_eq!(error.code, Code::BadSpec);
    assert!(error.message.contains("1:"), "{}", error.message);
    assert_eq!(bench.set.submit(ROOT, 7, b"").unwrap_err().code, Code::NotFound);
}

#[test]
fn a_restart_that_was_asked_for_waits_for_what_runs_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    let ids: Vec<u64> = (0..20).map(|_| bench.submit(ROOT, &job(fake::SLOW))).collect();
    bench.say(GpuVerb::Restart);
    for id in ids {
        assert!(bench.outcome(id).is_ok());
        assert_eq!(bench.job(id).attempts, 1);
    }
    bench.until("it was started again", || bench.host.0.starts.load(SeqCst) == 2);
    assert_eq!(bench.set.stats(0).unwrap().failed, 0);
}
