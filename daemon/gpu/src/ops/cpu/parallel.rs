//! All cores, for what is worth it.
//!
//! Never decides what is computed: the results are those of one thread, in the same order.

use std::num::NonZero;
use std::thread;

/// Elementary operations below which the start of threads costs more than it gives.
const WORTH_IT: usize = 1 << 17;

/// `f(0)`, `f(1)`, ... `f(count - 1)`. `work`: about how many elementary operations each is.
pub(super) fn collect<T: Send>(count: usize, work: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = match count.saturating_mul(work) {
        0..WORTH_IT => 1,
        _ => thread::available_parallelism().map_or(1, NonZero::get).min(count),
    };
    if threads < 2 {
        return (0..count).map(f).collect();
    }
    let mut results: Vec<Option<T>> = Vec::new();
    results.resize_with(count, || None);
    let share = count.div_ceil(threads);
    thread::scope(|scope| {
        for (chunk, slots) in results.chunks_mut(share).enumerate() {
            let f = &f;
            scope.spawn(move || {
                for (index, slot) in slots.iter_mut().enumerate() {
                    *slot = Some(f(chunk * share + index));
                }
            });
        }
    });
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_on_one_thread_and_on_many() {
        for work in [1, 1 << 20] {
            for count in [0, 1, 2, 3, 1001] {
                assert_eq!(
                    collect(count, work, |index| 3 * index),
                    (0..count).map(|i| 3 * i).collect::<Vec<_>>()
                );
            }
        }
    }
}
