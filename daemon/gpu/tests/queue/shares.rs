//! Several users at once.

use crate::*;
use std::sync::atomic::Ordering::SeqCst;

#[test]
fn seven_users_get_their_share_beside_one_with_ten_thousand_jobs_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits::default());
    bench.ready();
    bench.host.0.takes_us.store(1, SeqCst);
    bench.say(GpuVerb::Pause);
    let many: Vec<u64> = (0..10_000).map(|_| bench.submit(user(1), &job("Exp"))).collect();
    let mut few: Vec<u64> = Vec::new();
    for _ in 0..100 {
        few.extend((2..9).map(|uid| bench.submit(user(uid), &job("Exp"))));
    }
    bench.say(GpuVerb::Resume);
    for id in few.iter().chain(&many) {
        assert!(bench.outcome(*id).is_ok());
    }
    let begun = bench.host.0.begun.lock().clone();
    assert_eq!(begun.len(), 10_700);
    let last = begun.iter().rposition(|id| few.contains(id)).unwrap();
    // Eight equal shares: 100 jobs of each are through after about 800.
    assert!(last < 1000, "the last of the others was number {last}");
    let stats = bench.set.stats(0).unwrap();
    assert_eq!((stats.submitted, stats.done, stats.failed, stats.refused), (10_700, 10_700, 0, 0));
    for uid in 2..9 {
        assert_eq!(stats.users[&uid.to_string()].ended, 100);
    }
    assert!(stats.kept <= 16_384);
}

#[test]
fn priorities_count_within_a_user_and_weights_between_users() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), QueueLimits { window: 1, ..QueueLimits::default() });
    bench.ready();
    bench.say(GpuVerb::Pause);
    bench.say(GpuVerb::Weight { user: "1".to_owned(), weight: 3 });
    bench.host.0.takes_us.store(100, SeqCst);
    let low: Vec<u64> = (0..30).map(|_| bench.submit(user(1), &job_with("Exp", "priority: -1"))).collect();
    let high: Vec<u64> = (0..30).map(|_| bench.submit(user(1), &job_with("Exp", "priority: 1"))).collect();
    let other: Vec<u64> = (0..60).map(|_| bench.submit(user(2), &job("Exp"))).collect();
    bench.say(GpuVerb::Resume);
    for id in low.iter().chain(&high).chain(&other) {
        assert!(bench.outcome(*id).is_ok());
    }
    let begun = bench.host.0.begun.lock().clone();
    let mine: Vec<u64> = begun.iter().filter(|id| !other.contains(id)).copied().collect();
    assert_eq!(mine, [high, low].concat());
    let others_among_first = begun.iter().take(40).filter(|id| other.contains(id)).count();
    assert!((8..=13).contains(&others_among_first), "{others_among_first}");
}
