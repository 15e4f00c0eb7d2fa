use super::*;
use proptest::prelude::*;

fn order(schedule: &mut Schedule) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Some(turn) = schedule.pop() {
        schedule.settle(turn, 100);
        ids.push(turn.id);
    }
    ids
}

#[test]
fn within_a_user_higher_priorities_are_first_and_then_older_jobs() {
    let mut schedule = Schedule::default();
    for (id, priority) in [(1, 0), (2, 0), (3, 5), (4, -7), (5, 5)] {
        schedule.push(7, id, priority);
    }
    assert_eq!(order(&mut schedule), [3, 5, 1, 2, 4]);
}

#[test]
fn a_user_with_ten_thousand_jobs_delays_anothers_by_its_share_only() {
    let mut schedule = Schedule::default();
    for id in 0..10_000 {
        schedule.push(1, id, 100);
    }
    for _ in 0..50 {
        let turn = schedule.pop().unwrap();
        schedule.settle(turn, 100);
    }
    for id in 20_000..20_010 {
        schedule.push(2, id, 0);
    }
    let next: Vec<u32> = (0..20)
        .map(|_| {
            let turn = schedule.pop().unwrap();
            schedule.settle(turn, 100);
            turn.uid
        })
        .collect();
    assert_eq!(next.iter().filter(|uid| **uid == 2).count(), 10, "{next:?}");
}

#[test]
fn having_been_away_earns_no_credit() {
    let mut schedule = Schedule::default();
    for id in 0..1000 {
        schedule.push(1, id, 0);
    }
    for _ in 0..500 {
        let turn = schedule.pop().unwrap();
        schedule.settle(turn, 100);
    }
    for id in 2000..2100 {
        schedule.push(2, id, 0);
    }
    let first: Vec<u32> = (0..10).map(|_| schedule.pop().unwrap().uid).collect();
    assert_eq!(first.iter().filter(|uid| **uid == 1).count(), 5, "{first:?}");
}

#[test]
fn what_a_job_really_took_is_what_counts() {
    let mut schedule = Schedule::default();
    for id in 0..1000 {
        schedule.push(1, id, 0);
        schedule.push(2, 10_000 + id, 0);
    }
    let (mut slow, mut fast) = (0, 0);
    for _ in 0..330 {
        let turn = schedule.pop().unwrap();
        let took = if turn.uid == 1 { 1000 } else { 100 };
        *(if turn.uid == 1 { &mut slow } else { &mut fast }) += took;
        schedule.settle(turn, took);
    }
    let (slow, fast) = (i64::try_from(slow).unwrap(), i64::try_from(fast).unwrap());
    assert!((slow - fast).abs() <= 2000, "{slow} {fast}");
}

#[test]
fn a_job_that_was_given_back_is_where_it_was_and_cost_nothing() {
    let mut schedule = Schedule::default();
    schedule.push(1, 1, 0);
    schedule.push(1, 2, 0);
    let turn = schedule.pop().unwrap();
    schedule.give_back(turn, 0);
    let again = schedule.pop().unwrap();
    assert_eq!(again, turn);
    assert_eq!(schedule.len(), 1);
}

#[test]
fn users_that_are_gone_are_forgotten_unless_they_have_a_weight() {
    let mut schedule = Schedule::default();
    schedule.set_weight(1, 5);
    for uid in 0..100 {
        schedule.push(uid, u64::from(uid), 0);
    }
    for round in 1..4 {
        assert_eq!(order(&mut schedule).len(), 100);
        for uid in 0..100 {
            schedule.push(uid, u64::from(uid) + round * 1000, 0);
        }
    }
    for uid in 0..100 {
        assert!(schedule.remove(uid, u64::from(uid) + 3000, 0));
    }
    assert!(schedule.users.len() < 100, "{}", schedule.users.len());
    assert_eq!(schedule.weights().collect::<Vec<_>>(), [(1, 5)]);
}

#[derive(Debug, Clone)]
enum Act {
    Push { uid: u32, priority: i8 },
    Pop { took: u64 },
    Back,
    Take(usize),
    Cancel(usize),
    Weight { uid: u32, weight: u32 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..4_u32, -2..3_i8).prop_map(|(uid, priority)| Act::Push { uid, priority }),
        3 => (0..5000_u64).prop_map(|took| Act::Pop { took }),
        1 => Just(Act::Back),
        1 => (0..50_usize).prop_map(Act::Take),
        1 => (0..50_usize).prop_map(Act::Cancel),
        1 => (0..4_u32, 1..9_u32).prop_map(|(uid, weight)| Act::Weight { uid, weight }),
    ]
}

proptest! {
    /// Against a plain list of what waits: nothing is lost, nothing comes twice, and of a user always the best job.
    #[test]
    fn nothing_is_lost_and_users_jobs_are_in_order(acts in prop::collection::vec(act(), 1..200)) {
        let mut schedule = Schedule::default();
        let mut model: Vec<(u32, i8, u64)> = Vec::new();
        for (id, act) in (0_u64..).zip(acts) {
            match act {
                Act::Push { uid, priority } => {
                    schedule.push(uid, id, priority);
                    model.push((uid, priority, id));
                }
                Act::Pop { .. } | Act::Back => {
                    let Some(turn) = schedule.pop() else {
                        prop_assert!(model.is_empty());
                        continue;
                    };
                    let best = model
                        .iter()
                        .filter(|(uid, ..)| *uid == turn.uid)
                        .min_by_key(|(_, priority, id)| (Reverse(*priority), *id))
                        .copied();
                    let (_, priority, best) = best.unwrap();
                    prop_assert_eq!(best, turn.id);
                    if let Act::Pop { took } = act {
                        model.retain(|(.., id)| *id != turn.id);
                        schedule.settle(turn, took);
                    } else {
                        schedule.give_back(turn, priority);
                    }
                }
                Act::Take(place) | Act::Cancel(place) => {
                    if model.is_empty() {
                        continue;
                    }
                    let (uid, priority, id) = model.remove(place % model.len());
                    if matches!(act, Act::Take(_)) {
                        let turn = schedule.take(uid, id, priority).unwrap();
                        schedule.settle(turn, 10);
                    } else {
                        prop_assert!(schedule.remove(uid, id, priority));
                    }
                    prop_assert!(!schedule.remove(uid, id, priority));
                }
                Act::Weight { uid, weight } => schedule.set_weight(uid, weight),
            }
            prop_assert_eq!(schedule.len(), model.len());
            for uid in 0..4 {
                let waiting = model.iter().filter(|(of, ..)| *of == uid).count();
                prop_assert_eq!(schedule.waiting_of(uid), waiting);
            }
        }
    }

    /// Users who always have work get device time by weight, up to what one window of the longest jobs amounts to.
    #[test]
    fn shares_are_by_weight(
        weights in prop::collection::vec(1..6_u32, 2..6),
        costs in prop::collection::vec(1..2000_u64, 600..1200),
        window in 1..16_usize,
    ) {
        let mut schedule = Schedule::default();
        let mut next = 0;
        let mut push = |schedule: &mut Schedule, uid| {
            next += 1;
            schedule.push(uid, next, 0);
        };
        let mut took = vec![0_u64; weights.len()];
        for (uid, weight) in (0..).zip(&weights) {
            schedule.set_weight(uid, *weight);
            for _ in 0..=window {
                push(&mut schedule, uid);
            }
        }
        for costs in costs.chunks(window) {
            let turns: Vec<Turn> = costs.iter().map(|_| schedule.pop().unwrap()).collect();
            for (turn, cost) in turns.iter().zip(costs) {
                schedule.settle(*turn, *cost);
                took[turn.uid as usize] += cost;
                push(&mut schedule, turn.uid);
            }
        }
        let share = |uid: usize| took[uid] / u64::from(weights[uid]);
        let (least, most) = (
            (0..weights.len()).map(share).min().unwrap(),
            (0..weights.len()).map(share).max().unwrap(),
        );
        prop_assert!(most - least <= 2000 * (window as u64 + 1), "{took:?} {weights:?}");
    }
}
