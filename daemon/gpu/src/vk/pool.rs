//! A pool of memory in size classes: which slab a piece is cut from, what is kept, and when to give it up.
//!
//! Pure bookkeeping over slabs of any kind, so that its rules are tested without a device. Never makes or destroys a
//! slab by itself.

use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// Every piece begins at a multiple of this: no device asks for more of a storage buffer.
const ALIGNMENT: u64 = 256;

/// What a pool did since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStats {
    /// Pieces that were there already.
    pub hits: u64,
    /// Pieces for which memory had to be allocated.
    pub misses: u64,
    /// Bytes allocated now.
    pub held: u64,
    /// Bytes of them that are in use now.
    pub used: u64,
    /// Bytes given up to stay below the bound.
    pub freed: u64,
}

/// A piece that was taken. Not a copy type: it is given back once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot {
    class: u64,
    slab: usize,
    index: u64,
}

/// Why there is no piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TakeError<E> {
    /// The bound does not allow it.
    Bound,
    /// No slab could be made.
    Make(E),
}

#[derive(Debug)]
struct Slab<S> {
    value: S,
    used: u64,
}

#[derive(Debug)]
struct Class<S> {
    slabs: Vec<Option<Slab<S>>>,
    free: Vec<(usize, u64)>,
}

/// Slabs of a kind `S`, each cut into pieces of one size.
#[derive(Debug)]
pub(super) struct Pool<S> {
    bound: u64,
    classes: BTreeMap<u64, Class<S>>,
    stats: PoolStats,
}

/// The size of the piece that so many bytes get: wastes at most an eighth of what is above 2 KiB.
pub(super) fn class_of(bytes: u64) -> u64 {
    let step = (bytes.max(1).next_power_of_two() / 8).max(ALIGNMENT);
    bytes.max(1).div_ceil(step).saturating_mul(step)
}

/// How many pieces one slab holds: allocations are few and dear, small pieces are many.
fn pieces(class: u64) -> u64 {
    match class {
        0..=0x4000 => 64,
        0x4001..=0x2_0000 => 16,
        _ => 1,
    }
}

impl<S> Pool<S> {
    /// Holds at most `bound` bytes.
    pub(super) fn new(bound: u64) -> Self {
        Self { bound, classes: BTreeMap::new(), stats: PoolStats::default() }
    }

    /// What it did.
    pub(super) fn stats(&self) -> PoolStats {
        self.stats
    }

    /// A piece for so many bytes, with its slab and where in it the piece begins. `make` is asked for a slab of a size
    /// when there is none; `drop` gets slabs that make room for it.
    pub(super) fn take<E>(
        &mut self,
        bytes: u64,
        make: impl FnOnce(u64) -> Result<S, E>,
        drop: impl FnMut(S),
    ) -> Result<(Slot, &S, u64), TakeError<E>> {
        let class = class_of(bytes);
        let free = self.classes.get_mut(&class).and_then(|class| class.free.pop());
        let (slab, index) = match free {
            Some(place) => {
                self.stats.hits += 1;
                place
            }
            None => (self.grow(class, make, drop)?, 0),
        };
        self.stats.used += class;
        let slot = Slot { class, slab, index };
        let slabs = self.classes.get_mut(&class).map(|class| &mut class.slabs);
        match slabs.and_then(|slabs| slabs.get_mut(slab)).and_then(Option::as_mut) {
            Some(found) => {
                found.used += 1;
                Ok((slot, &found.value, index * class))
            }
            None => Err(TakeError::Bound),
        }
    }

    /// Makes a slab; its first piece is not free.
    fn grow<E>(
        &mut self,
        class: u64,
        make: impl FnOnce(u64) -> Result<S, E>,
        drop: impl FnMut(S),
    ) -> Result<usize, TakeError<E>> {
        let size = class.saturating_mul(pieces(class));
        if self.stats.held.saturating_add(size) > self.bound {
            self.trim(drop);
        }
        if self.stats.held.saturating_add(size) > self.bound {
            return Err(TakeError::Bound);
        }
        let value = make(size).map_err(TakeError::Make)?;
        self.stats.misses += 1;
        self.stats.held += size;
        let class_entry =
            self.classes.entry(class).or_insert_with(|| Class { slabs: Vec::new(), free: Vec::new() });
        let place = class_entry.slabs.iter().position(Option::is_none).unwrap_or_else(|| {
            class_entry.slabs.push(None);
            class_entry.slabs.len() - 1
        });
        if let Some(slab) = class_entry.slabs.get_mut(place) {
            *slab = Some(Slab { value, used: 0 });
        }
        // The lowest is taken first.
        class_entry.free.extend((1..pieces(class)).rev().map(|index| (place, index)));
        Ok(place)
    }

    /// Takes a piece back. It stays for the next one of its class.
    pub(super) fn give(&mut self, slot: Slot) {
        let Some(class) = self.classes.get_mut(&slot.class) else { return };
        if let Some(Some(slab)) = class.slabs.get_mut(slot.slab) {
            slab.used = slab.used.saturating_sub(1);
            class.free.push((slot.slab, slot.index));
            self.stats.used = self.stats.used.saturating_sub(slot.class);
        }
    }

    /// Gives up every slab of which nothing is used.
    pub(super) fn trim(&mut self, mut drop: impl FnMut(S)) {
        for (size, class) in &mut self.classes {
            for slab in &mut class.slabs {
                if let Some(unused) = slab.take_if(|slab| slab.used == 0) {
                    let bytes = size.saturating_mul(pieces(*size));
                    self.stats.held = self.stats.held.saturating_sub(bytes);
                    self.stats.freed += bytes;
                    drop(unused.value);
                }
            }
            let slabs = &class.slabs;
            class.free.retain(|(slab, _)| slabs.get(*slab).is_some_and(Option::is_some));
        }
        self.classes.retain(|_, class| class.slabs.iter().any(Option::is_some));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(size: u64) -> Result<u64, ()> {
        Ok(size)
    }

    #[test]
    fn a_piece_fits_and_wastes_little() {
        for bytes in (0..70_000).chain([1 << 20, (1 << 20) + 1, 3 << 30, (1 << 40) + 12_345]) {
            let class = class_of(bytes);
            assert!(class >= bytes && class.is_multiple_of(256), "{bytes}: {class}");
            assert!(class <= 256.max(bytes + bytes / 4 + 256), "{bytes}: {class}");
            assert_eq!(class_of(class), class, "{bytes}: a class is its own class");
        }
    }

    #[test]
    fn pieces_of_a_slab_do_not_overlap_and_come_back() {
        let mut pool = Pool::new(1 << 20);
        let mut slots = Vec::new();
        let mut offsets = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let (slot, slab, offset) = pool.take(1000, made, |_| ()).unwrap();
            assert!(offset + 1024 <= *slab);
            assert!(offsets.insert(offset), "{offset} twice");
            slots.push(slot);
        }
        assert_eq!((pool.stats().misses, pool.stats().hits, pool.stats().held), (1, 63, 64 << 10));
        assert_eq!(pool.stats().used, pool.stats().held);
        slots.into_iter().for_each(|slot| pool.give(slot));
        assert_eq!((pool.stats().used, pool.stats().held), (0, 64 << 10));
        for _ in 0..64 {
            pool.take(1000, made, |_| ()).unwrap();
        }
        assert_eq!(pool.stats().misses, 1, "all were there");
    }

    #[test]
    fn the_bound_holds_and_what_is_unused_makes_room() {
        let mut pool = Pool::new(1 << 20);
        let (slot, ..) = pool.take(600 << 10, made, |_| ()).unwrap();
        let refused = pool.take(500 << 10, made, |_| ()).unwrap_err();
        assert_eq!(refused, TakeError::Bound, "the first is in use");
        pool.give(slot);
        let mut dropped = Vec::new();
        let (slot, slab, offset) = pool.take(500 << 10, made, |slab| dropped.push(slab)).unwrap();
        assert_eq!((*slab, offset), (class_of(500 << 10), 0));
        assert_eq!(dropped, [class_of(600 << 10)]);
        assert_eq!(pool.stats().freed, class_of(600 << 10));
        pool.give(slot);
        assert!(matches!(pool.take(2 << 20, made, |_| ()), Err(TakeError::Bound)));
    }

    #[test]
    fn a_slab_that_cannot_be_made_leaves_the_pool_as_it_was() {
        let mut pool: Pool<u64> = Pool::new(1 << 20);
        assert_eq!(pool.take(100, |_| Err("no"), |_| ()).unwrap_err(), TakeError::Make("no"));
        assert_eq!(pool.stats(), PoolStats::default());
        assert!(pool.take(100, made, |_| ()).is_ok());
    }

    #[test]
    fn after_a_trim_places_are_used_again() {
        let mut pool = Pool::new(u64::MAX);
        for round in 0..10 {
            let (one, ..) = pool.take(1 << 20, made, |_| ()).unwrap();
            let (two, ..) = pool.take(100, made, |_| ()).unwrap();
            pool.give(one);
            pool.trim(|_| ());
            assert_eq!(pool.stats().held, 64 * 256, "round {round}: the small slab is in use");
            pool.give(two);
            pool.trim(|_| ());
            assert_eq!((pool.stats().held, pool.stats().used), (0, 0));
            assert!(pool.classes.is_empty());
        }
    }
}
