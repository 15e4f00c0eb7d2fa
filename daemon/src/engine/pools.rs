//! Pools as the last look found them: facts, problems and what changed.
//!
//! Looked at once in a drift interval and when a person asks for a look, not in each pass: the kernel reads every
//! pool's configuration for it. Decides nothing: no plan depends on what is here.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;
use zed_store::Pool;
use zed_store::Store;

#[derive(Default)]
pub(super) struct Pools {
    seen: Vec<Pool>,
    trouble: Option<String>,
    at: Option<Instant>,
}

impl Pools {
    /// The next refresh looks, however recent the last look is.
    pub(super) fn expire(&mut self) {
        self.at = None;
    }

    /// Looks when the last look is too old. Gives what changed for the better or worse, one line a pool; the first
    /// look tells what is not well.
    pub(super) fn refresh(&mut self, store: &dyn Store, every: Duration) -> Vec<String> {
        if self.at.is_some_and(|at| at.elapsed() < every) {
            return Vec::new();
        }
        self.at = Some(Instant::now());
        match store.pools() {
            Ok(pools) => {
                let told = changes(&self.seen, &pools);
                self.seen = pools;
                self.trouble = None;
                told
            }
            Err(error) => {
                let trouble = format!("the pools cannot be looked at: {}", crate::chain(&error));
                let told = self.trouble.as_ref() != Some(&trouble);
                self.trouble = Some(trouble.clone());
                if told { vec![trouble] } else { Vec::new() }
            }
        }
    }

    /// `pool.NAME.health`, `.size`, `.allocated` and `.free`.
    pub(super) fn facts(&self) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::new();
        for pool in &self.seen {
            // A key has no blank in it; the name of a pool may.
            let name = pool.name.replace(' ', "_");
            let mut put = |what: &str, value: String| facts.insert(format!("pool.{name}.{what}"), value);
            put("health", pool.health.clone());
            put("size", pool.size.to_string());
            put("allocated", pool.allocated.to_string());
            put("free", pool.free.to_string());
        }
        facts
    }

    /// What a person has to do, one line a pool.
    pub(super) fn problems(&self) -> Vec<String> {
        let ill = self.seen.iter().filter(|pool| pool.health != Pool::ONLINE);
        let lines = ill.map(|pool| format!("pool {}: {}: {}", pool.name, pool.health, advice(pool)));
        lines.chain(self.trouble.clone()).collect()
    }
}

fn advice(pool: &Pool) -> String {
    if pool.health == "READONLY" {
        "the filesystem takes no writes; the kernel's log says why".to_owned()
    } else {
        format!("`zpool status -x {}` names the device and the remedy", pool.name)
    }
}

fn changes(before: &[Pool], after: &[Pool]) -> Vec<String> {
    let health = |pools: &[Pool], name: &str| {
        pools.iter().find(|pool| pool.name == name).map(|pool| pool.health.clone())
    };
    let gone = before.iter().filter(|pool| health(after, &pool.name).is_none());
    let gone = gone.map(|pool| format!("pool {}: {} -> no longer imported", pool.name, pool.health));
    let told = after.iter().filter_map(|pool| match health(before, &pool.name) {
        Some(old) if old == pool.health => None,
        Some(old) => Some(format!("pool {}: {old} -> {}", pool.name, pool.health)),
        None if pool.health == Pool::ONLINE => None,
        None => Some(format!("pool {}: {}", pool.name, pool.health)),
    });
    told.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zed_store::SimStore;

    #[test]
    fn a_change_of_health_is_told_once_and_stays_a_problem() {
        let store = SimStore::new();
        let mut pools = Pools::default();
        let now = Duration::ZERO;
        assert_eq!(pools.refresh(&store, now), Vec::<String>::new());
        assert_eq!(pools.problems(), Vec::<String>::new());
        store.set_pool_health("DEGRADED");
        assert_eq!(pools.refresh(&store, now), ["pool sim: ONLINE -> DEGRADED"]);
        assert_eq!(pools.refresh(&store, now), Vec::<String>::new());
        assert_eq!(
            pools.problems(),
            ["pool sim: DEGRADED: `zpool status -x sim` names the device and the remedy"]
        );
        assert_eq!(pools.facts().get("pool.sim.health").map(String::as_str), Some("DEGRADED"));
        store.set_pool_health("ONLINE");
        assert_eq!(pools.refresh(&store, now), ["pool sim: DEGRADED -> ONLINE"]);
        assert_eq!(pools.problems(), Vec::<String>::new());
    }

    #[test]
    fn what_is_ill_at_the_first_look_is_told_and_what_cannot_be_seen_too() {
        let store = SimStore::new();
        store.set_pool_health("SUSPENDED");
        let mut pools = Pools::default();
        assert_eq!(pools.refresh(&store, Duration::ZERO), ["pool sim: SUSPENDED"]);
        store.crash_at(1);
        assert!(store.snapshot(&[]).is_err());
        let told = pools.refresh(&store, Duration::ZERO);
        assert!(
            matches!(told.as_slice(), [line] if line.starts_with("the pools cannot be looked at: ")),
            "{told:?}"
        );
        assert_eq!(pools.refresh(&store, Duration::ZERO), Vec::<String>::new());
        assert_eq!(pools.problems().len(), 2, "what was seen last, and that it cannot be seen now");
    }

    #[test]
    fn it_is_not_looked_at_in_each_pass() {
        let store = SimStore::new();
        let mut pools = Pools::default();
        let day = Duration::from_secs(86_400);
        pools.refresh(&store, day);
        store.set_pool_health("FAULTED");
        assert_eq!(pools.refresh(&store, day), Vec::<String>::new());
        pools.expire();
        assert_eq!(pools.refresh(&store, day), ["pool sim: ONLINE -> FAULTED"]);
    }
}
