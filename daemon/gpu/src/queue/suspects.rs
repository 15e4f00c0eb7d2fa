//! Kernels that do not end in time: which are not run any more, and when the device takes nothing at all.
//!
//! Three timeouts of a kernel in a row evict it until somebody forgives it. Five timeouts of any kernels within a minute set
//! the brake, which releases itself when the minute has passed. Pure: time is passed in, in milliseconds since 1970.

use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::VecDeque;

/// So many timeouts of a kernel in a row evict it.
pub const EVICT_AFTER: u32 = 3;

/// So many timeouts of any kernels within [`WINDOW_MS`] set the brake.
pub const BRAKE_AT: usize = 5;

/// How far back the brake looks, in milliseconds.
pub const WINDOW_MS: i64 = 60_000;

/// The most kernels that are remembered; users write as many as they like.
const MOST: usize = 1024;

/// One kernel that did not end in time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Timeouts since it last ended in time.
    pub timeouts: u32,
    /// It is not run any more.
    pub evicted: bool,
    /// The last timeout.
    pub last_ms: i64,
}

/// What a timeout led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consequence {
    /// Kernels that were evicted for it.
    pub evicted: Vec<String>,
    /// The brake was set for it.
    pub braked: bool,
}

/// All suspects of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspects {
    kernels: BTreeMap<String, Suspect>,
    window: VecDeque<i64>,
    brake: bool,
}

impl Suspects {
    /// A job with these kernels did not end in time.
    pub fn timeout<'a>(&mut self, kernels: impl IntoIterator<Item = &'a str>, now_ms: i64) -> Consequence {
        let mut consequence = Consequence::default();
        for kernel in kernels {
            let suspect = self.kernels.entry(kernel.to_owned()).or_default();
            suspect.timeouts = suspect.timeouts.saturating_add(1);
            suspect.last_ms = now_ms;
            if suspect.timeouts >= EVICT_AFTER && !suspect.evicted {
                suspect.evicted = true;
                consequence.evicted.push(kernel.to_owned());
            }
        }
        self.window.push_back(now_ms);
        self.slide(now_ms);
        if self.window.len() >= BRAKE_AT && !self.brake {
            self.brake = true;
            consequence.braked = true;
        }
        self.bound();
        consequence
    }

    /// A job with these kernels ended in time. True when that changed something.
    pub fn success<'a>(&mut self, kernels: impl IntoIterator<Item = &'a str>) -> bool {
        let mut changed = false;
        for kernel in kernels {
            let Some(suspect) = self.kernels.get_mut(kernel) else { continue };
            changed |= suspect.timeouts > 0;
            suspect.timeouts = 0;
            if !suspect.evicted {
                self.kernels.remove(kernel);
            }
        }
        changed
    }

    /// Looks again. True when the brake was released by it.
    pub fn look(&mut self, now_ms: i64) -> bool {
        self.slide(now_ms);
        let released = self.brake && self.window.len() < BRAKE_AT;
        self.brake &= !released;
        released
    }

    /// Lets one kernel back, or all, and then the brake too. False when there was nothing to forgive.
    pub fn forgive(&mut self, kernel: Option<&str>) -> bool {
        match kernel {
            Some(kernel) => self.kernels.remove(kernel).is_some(),
            None => {
                let was = std::mem::take(self);
                was.brake || !was.kernels.is_empty() || !was.window.is_empty()
            }
        }
    }

    /// Only jobs that allow the CPU are run now.
    pub fn brake(&self) -> bool {
        self.brake
    }

    /// Some kernel is evicted.
    pub fn any_evicted(&self) -> bool {
        self.kernels.values().any(|suspect| suspect.evicted)
    }

    /// Some kernel has a timeout that a success would clear, or the brake is set.
    pub fn is_clear(&self) -> bool {
        self.kernels.is_empty() && !self.brake
    }

    /// A kernel, when it is one.
    pub fn get(&self, kernel: &str) -> Option<&Suspect> {
        self.kernels.get(kernel)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Suspect)> {
        self.kernels.iter().map(|(name, suspect)| (name.as_str(), suspect))
    }

    /// Timeouts in the window.
    pub fn window(&self) -> usize {
        self.window.len()
    }

    fn slide(&mut self, now_ms: i64) {
        // After the clock was set back, a timeout of the future is as good as one of now.
        self.window.retain(|at| now_ms - *at < WINDOW_MS && *at - now_ms < WINDOW_MS);
    }

    /// Forgets the oldest that are not evicted, and only then evicted ones.
    fn bound(&mut self) {
        while self.kernels.len() > MOST {
            let oldest = self
                .kernels
                .iter()
                .min_by_key(|(_, suspect)| (suspect.evicted, suspect.last_ms))
                .map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            self.kernels.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Then {
        Timeout(&'static str, i64),
        Success(&'static str),
        Look(i64),
        Forgive(Option<&'static str>),
        Evicted(&'static [&'static str]),
        Brake(bool),
    }

    fn play(name: &str, script: &[Then]) {
        let mut suspects = Suspects::default();
        for (step, then) in script.iter().enumerate() {
            match then {
                Then::Timeout(kernel, at) => drop(suspects.timeout([*kernel], *at)),
                Then::Success(kernel) => drop(suspects.success([*kernel])),
                Then::Look(at) => drop(suspects.look(*at)),
                Then::Forgive(kernel) => assert!(suspects.forgive(*kernel), "{name} {step}"),
                Then::Evicted(expected) => {
                    let evicted: Vec<&str> = suspects
                        .iter()
                        .filter(|(_, suspect)| suspect.evicted)
                        .map(|(name, _)| name)
                        .collect();
                    assert_eq!(evicted, *expected, "{name}, step {step}");
                }
                Then::Brake(expected) => assert_eq!(suspects.brake(), *expected, "{name}, step {step}"),
            }
            // What is persisted is all there is.
            let text = serde_json::to_string(&suspects).unwrap();
            assert_eq!(serde_json::from_str::<Suspects>(&text).unwrap(), suspects, "{name}, step {step}");
        }
    }

    #[test]
    fn three_timeouts_in_a_row_evict_a_kernel_until_it_is_forgiven() {
        use Then::Evicted;
        use Then::Forgive;
        use Then::Success;
        use Then::Timeout;
        let far = 1_000_000;
        play(
            "in a row",
            &[
                Timeout("a", 0),
                Timeout("a", far),
                Evicted(&[]),
                Timeout("a", 2 * far),
                Evicted(&["a"]),
                Success("a"),
                Evicted(&["a"]),
                Forgive(Some("a")),
                Evicted(&[]),
                Timeout("a", 3 * far),
                Timeout("a", 4 * far),
                Evicted(&[]),
                Timeout("a", 5 * far),
                Evicted(&["a"]),
            ],
        );
        play(
            "a success between",
            &[
                Timeout("a", 0),
                Timeout("a", far),
                Success("a"),
                Timeout("a", 2 * far),
                Timeout("a", 3 * far),
                Evicted(&[]),
            ],
        );
        play(
            "another kernel's timeouts",
            &[
                Timeout("a", 0),
                Timeout("a", far),
                Timeout("b", 2 * far),
                Evicted(&[]),
                Timeout("a", 3 * far),
                Evicted(&["a"]),
            ],
        );
    }

    #[test]
    fn five_timeouts_within_a_minute_set_the_brake_which_releases_itself() {
        use Then::Brake;
        use Then::Forgive;
        use Then::Look;
        use Then::Success;
        use Then::Timeout;
        play(
            "sliding",
            &[
                Timeout("a", 0),
                Timeout("b", 10_000),
                Timeout("c", 20_000),
                Timeout("d", 30_000),
                // The first one is a minute old.
                Timeout("e", 60_000),
                Brake(false),
                Timeout("f", 69_999),
                Brake(true),
                Success("a"),
                Look(69_999),
                Brake(true),
                Look(70_000),
                Brake(false),
            ],
        );
        play(
            "released by a timeout that finds the window short",
            &[
                Timeout("a", 0),
                Timeout("b", 1),
                Timeout("c", 2),
                Timeout("d", 3),
                Timeout("e", 4),
                Brake(true),
                Look(200_000),
                Timeout("f", 200_000),
                Brake(false),
            ],
        );
        play(
            "forgiven",
            &[
                Timeout("a", 0),
                Timeout("b", 1),
                Timeout("c", 2),
                Timeout("d", 3),
                Timeout("e", 4),
                Forgive(None),
                Brake(false),
                Timeout("f", 5),
                Brake(false),
            ],
        );
    }

    #[test]
    fn a_timeout_says_once_what_it_led_to() {
        let mut suspects = Suspects::default();
        let told: Vec<Consequence> = (0..6).map(|at| suspects.timeout(["x", "y"], at)).collect();
        let nothing = Consequence::default();
        let both = Consequence { evicted: vec!["x".to_owned(), "y".to_owned()], braked: false };
        let brake = Consequence { evicted: Vec::new(), braked: true };
        assert_eq!(told, [nothing.clone(), nothing.clone(), both, nothing.clone(), brake, nothing]);
        assert_eq!(suspects.window(), 6);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_evicted_kernels_are_forgotten_last() {
        let mut suspects = Suspects::default();
        for at in 0..3 {
            suspects.timeout(["bad"], at);
        }
        for number in 0..3000_i64 {
            suspects.timeout([format!("k{number}").as_str()], 10 + number);
        }
        assert_eq!(suspects.iter().count(), MOST);
        assert!(suspects.get("bad").is_some_and(|suspect| suspect.evicted));
        assert!(suspects.get("k2999").is_some() && suspects.get("k0").is_none());
    }
}
