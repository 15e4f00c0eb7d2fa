//! Nodes that hang, die and lie.

use crate::*;
use std::sync::atomic::Ordering::SeqCst;
use zed_gpu::queue::NoticeKind;

/// A deadline that a healthy fake always meets, but not for long.
const SHORT: &str = "deadline: \"200ms\"";

fn told(bench: &Bench, kind: NoticeKind) -> usize {
    bench.told.0.lock().iter().filter(|(told, _)| *told == kind).count()
}

fn hang(bench: &Bench) -> String {
    let id = bench.submit(user(1), &job_with(fake::HANG, SHORT));
    bench.outcome(id).unwrap_err().message
}

#[test]
fn a_job_that_never_ends_fails_by_its_deadline_and_the_next_ones_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    let first = bench.submit(user(1), &job_with(fake::HANG, SHORT));
    let others: Vec<u64> = (0..50).map(|_| bench.submit(user(2), &job("Exp"))).collect();
    let text = bench.outcome(first).unwrap_err().message;
    assert!(text.contains("within its deadline of 200ms") && text.contains("sqrt"), "{text}");
    for id in others {
        assert!(bench.outcome(id).is_ok());
    }
    let stats = bench.set.stats(0).unwrap();
    assert_eq!((stats.timeouts, stats.failed, stats.done), (1, 1, 50));
    assert_eq!(bench.set.info(0).unwrap().restarts, 1);
}

#[test]
fn mates_of_a_job_that_never_ends_are_run_again_and_only_it_is_blamed() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    bench.host.0.batch.store(true, SeqCst);
    bench.say(GpuVerb::Pause);
    let mates: Vec<u64> = (0..7).map(|_| bench.submit(user(1), &job_with("Exp", SHORT))).collect();
    let culprit = bench.submit(user(1), &job_with(fake::HANG, SHORT));
    let more: Vec<u64> = (0..7).map(|_| bench.submit(user(1), &job_with("Exp", SHORT))).collect();
    bench.say(GpuVerb::Resume);
    assert!(bench.outcome(culprit).unwrap_err().message.contains("deadline"));
    for id in mates.into_iter().chain(more) {
        assert_eq!(bench.outcome(id), Ok("done\n".to_owned()));
        assert!(bench.job(id).attempts <= 2);
    }
    let suspects = bench.set.suspects(0).unwrap();
    assert_eq!(suspects.kernels.len(), 1, "{suspects:?}");
    assert!(suspects.kernels[0].kernel.contains("sqrt"));
    assert_eq!(bench.set.stats(0).unwrap().timeouts, 1);
}

#[test]
fn the_third_offence_evicts_a_kernel_until_it_is_forgiven_or_the_cpu_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    for _ in 0..3 {
        assert!(hang(&bench).contains("deadline"));
    }
    let kernel = bench.set.suspects(0).unwrap().kernels[0].kernel.clone();
    assert!(bench.set.suspects(0).unwrap().kernels[0].evicted);
    assert_eq!(bench.set.shader(0, &kernel).unwrap().state, "evicted");
    let text = hang(&bench);
    assert!(text.contains("evicted") && text.contains(&kernel) && text.contains("forgive"), "{text}");
    assert_eq!((told(&bench, NoticeKind::Timeout), told(&bench, NoticeKind::Evicted)), (3, 1));
    let other = bench.submit(user(1), &job("Exp"));
    assert!(bench.outcome(other).is_ok());

    let again = Bench::restarted(bench, dir.path());
    assert!(hang(&again).contains("evicted"), "it is remembered");
    again.say(GpuVerb::Forgive { kernel: Some(kernel) });
    assert!(hang(&again).contains("deadline"));
    assert_eq!(again.set.suspects(0).unwrap().kernels[0].timeouts, 1);
}

#[test]
fn an_evicted_kernels_job_that_allows_it_runs_on_the_cpu_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    for _ in 0..3 {
        hang(&bench);
    }
    // The fake hangs with it on its CPU too: what is looked at is what it was told.
    let id = bench.submit(user(1), &job_with(fake::HANG, &format!("{SHORT}, fallback: Allow")));
    let text = bench.outcome(id).unwrap_err().message;
    assert!(text.contains("on the CPU"), "{text}");
    let window = bench.set.suspects(0).unwrap().window;
    assert_eq!(window, 3, "the CPU is no suspect");
}

#[test]
fn five_timeouts_within_a_minute_set_the_brake_and_jobs_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    for _ in 0..5 {
        assert!(hang(&bench).contains("deadline"));
        // An evicted kernel would not get as far.
        let kernel = bench.set.suspects(0).unwrap().kernels[0].kernel.clone();
        bench.say(GpuVerb::Forgive { kernel: Some(kernel) });
    }
    assert!(bench.set.suspects(0).unwrap().brake);
    bench.ready();
    let waits = bench.submit(user(1), &job("Exp"));
    let allowed = bench.submit(user(1), &job_with("Exp", "fallback: Allow"));
    assert!(bench.outcome(allowed).is_ok());
    let view = bench.job(allowed);
    assert_eq!(view.ran_on, "cpu");
    assert!(view.fallback.contains("brake"), "{}", view.fallback);
    assert_eq!(bench.set.stats(0).unwrap().fallbacks, 1);
    assert_eq!(bench.job(waits).state, "queued");
    bench.say(GpuVerb::Forgive { kernel: None });
    assert!(bench.outcome(waits).is_ok());
    assert_eq!(bench.job(waits).ran_on, "gpu");
    assert_eq!((told(&bench, NoticeKind::Braked), told(&bench, NoticeKind::Released)), (1, 1));
}

#[test]
fn kill_9_of_the_node_fails_what_ran_once_and_the_rest_of_100_jobs_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    let ids: Vec<u64> = (0..100).map(|_| bench.submit(user(1), &job(fake::SLOW))).collect();
    bench.until("some are done", || bench.set.stats(0).unwrap().done > 10);
    bench.host.kill_node();
    let outcomes: Vec<Outcome> = ids.iter().map(|id| bench.outcome(*id)).collect();
    let failed: Vec<&CtlError> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(failed.len() <= 1, "{failed:?}");
    for error in failed {
        assert!(error.message.contains("ended while it ran this job"), "{}", error.message);
    }
    let stats = bench.set.stats(0).unwrap();
    assert_eq!(stats.done + stats.failed, 100);
}

#[test]
fn all_jobs_of_a_batch_that_a_lost_device_took_along_fail_with_one_cause() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    bench.host.0.batch.store(true, SeqCst);
    bench.say(GpuVerb::Pause);
    let mut ids: Vec<u64> = (0..3).map(|_| bench.submit(user(1), &job("Exp"))).collect();
    ids.push(bench.submit(user(1), &job(fake::LOSE)));
    bench.say(GpuVerb::Resume);
    let texts: Vec<String> = ids.iter().map(|id| bench.outcome(*id).map(drop).unwrap_err().message).collect();
    for (id, text) in ids.iter().zip(&texts) {
        let expected =
            format!("job {id}: the node of gpu 0 ended while it ran this job: the device fell off the bus");
        assert_eq!(*text, expected);
    }
    let next = bench.submit(user(1), &job("Exp"));
    assert!(bench.outcome(next).is_ok());
    assert_eq!(told(&bench, NoticeKind::Lost), 1);
}

#[test]
fn a_node_that_lies_is_ended_and_its_jobs_fail() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    let liar = bench.submit(user(1), &job(fake::LIE));
    let text = bench.outcome(liar).unwrap_err().message;
    assert!(text.contains("which it does not have"), "{text}");
    let next = bench.submit(user(1), &job("Exp"));
    assert!(bench.outcome(next).is_ok());
}

#[test]
fn a_node_that_does_not_start_is_tried_again_and_then_the_device_is_unusable_until_restart() {
    let dir = tempfile::tempdir().unwrap();
    let host = FakeHost::default();
    host.0.failing_starts.store(2, SeqCst);
    let bench = Bench::with(dir.path(), QueueLimits::default(), host, Told::default());
    bench.ready();
    assert_eq!(bench.host.0.starts.load(SeqCst), 3);

    bench.host.0.failing_starts.store(3, SeqCst);
    let limits = QueueLimits { failed_starts: 3, ..QueueLimits::default() };
    let bench = Bench::restarted_with(bench, dir.path(), limits);
    bench.until("it is unusable", || bench.set.info(0).unwrap().state == "unusable");
    let error = bench.set.info(0).unwrap().error;
    assert!(error.contains("3 times in vain") && error.contains("does not start"), "{error}");
    assert_eq!(told(&bench, NoticeKind::Unusable), 1);
    bench.say(GpuVerb::Restart);
    bench.ready();
}

#[test]
fn on_an_unusable_device_jobs_fail_at_once_or_run_on_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let host = FakeHost::default();
    host.0.unusable.store(true, SeqCst);
    let bench = Bench::with(dir.path(), QueueLimits::default(), host, Told::default());
    let fails = bench.submit(user(1), &job("Exp"));
    let text = bench.outcome(fails).unwrap_err().message;
    assert!(text.contains("unusable") && text.contains("lacks everything"), "{text}");
    let runs = bench.submit(user(1), &job_with("Exp", "fallback: Allow"));
    assert!(bench.outcome(runs).is_ok());
    let view = bench.job(runs);
    assert_eq!((view.ran_on.as_str(), view.device.as_str()), ("cpu", ""));
    assert!(view.fallback.contains("unusable"), "{}", view.fallback);
    bench.host.0.unusable.store(false, SeqCst);
    bench.say(GpuVerb::Restart);
    bench.ready();
    let next = bench.submit(user(1), &job("Exp"));
    assert!(bench.outcome(next).is_ok());
    assert_eq!(bench.job(next).ran_on, "gpu");
}

#[test]
fn a_running_job_that_is_cancelled_ends_at_once_and_its_node_soon() {
    let dir = tempfile::tempdir().unwrap();
    let limits = QueueLimits { cancel_grace: Duration::from_millis(50), ..QueueLimits::default() };
    let bench = Bench::on(dir.path(), limits);
    bench.ready();
    let hangs = bench.submit(user(1), &job_with(fake::HANG, "deadline: \"1h\""));
    let waits = bench.submit(user(1), &job("Exp"));
    bench.until("it runs", || bench.job(hangs).state == "running");
    bench.set.verb(user(1), 0, Some(hangs), GpuVerb::Cancel).unwrap();
    assert_eq!(bench.job(hangs).state, "cancelled");
    assert!(bench.outcome(waits).is_ok());
    assert!(bench.set.suspects(0).unwrap().kernels.is_empty(), "nobody is blamed");
    let ends = bench.submit(user(1), &job(fake::SLOW));
    bench.until("it runs", || bench.job(ends).state != "queued");
    let _ = bench.set.verb(user(1), 0, Some(ends), GpuVerb::Cancel);
    let next = bench.submit(user(1), &job("Exp"));
    assert!(bench.outcome(next).is_ok());
    assert_eq!(bench.set.info(0).unwrap().restarts, 1, "one that ends by itself costs no node");
}

#[test]
fn a_node_that_begins_nothing_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let limits = QueueLimits { stall: Duration::from_millis(200), ..QueueLimits::default() };
    let bench = Bench::on(dir.path(), limits);
    bench.ready();
    bench.host.0.held.store(true, SeqCst);
    let first = bench.submit(user(1), &job("Exp"));
    let second = bench.submit(user(1), &job("Exp"));
    let text = bench.outcome(first).unwrap_err().message;
    assert!(text.contains("did not begin it"), "{text}");
    bench.host.0.held.store(false, SeqCst);
    drop(bench.outcome(second));
    let next = bench.submit(user(1), &job("Exp"));
    assert!(bench.outcome(next).is_ok());
}
