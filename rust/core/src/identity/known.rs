//! What is known of every identity: 60 bits of its hash, 4 flags, and the hash of its row. An entry has 16 bytes.
//!
//! Entries are sorted within a shard. A look-up begins where the hash would lie if all hashes were evenly spread, and
//! walks from there: one or two cache lines while less than 7/8 of the slots are full. Growing copies one shard, so
//! the map never needs twice its memory. Two identities that share 60 bits are taken for one: rows of the later one are
//! then parked or merged, and each of these ways compares the real `customer_id`.

use crate::identity::chains::{Chains, Parked};

/// This file has had a row of this identity.
pub const SEEN: u8 = 1;
/// The last file had several rows of this identity.
pub const MANY: u8 = 2;
/// A person made, edited or deleted this customer. MANY, HELD and PARKED are written as 2, 4, 8 in identities.sql too.
pub const HELD: u8 = 4;
/// An earlier run has parked rows of this identity; or two customers of the database share its 60 bits. With MANY: its
/// rows are parked whatever they are.
pub const PARKED: u8 = 8;

const FLAGS: u64 = 0xF;
const SHARDS: usize = 256;

#[derive(Clone, Copy, Default)]
struct Entry {
    /// Identity in the upper 60 bits, flags below; 0 is an empty slot.
    key: u64,
    source_hash: i64,
}

#[derive(Default)]
struct Shard {
    /// One for each home, and behind the last home as many as entries did not fit before it.
    slots: Vec<Entry>,
    /// Slots where a look-up may begin.
    homes: usize,
    len: usize,
}

/// The map would need more than its budget.
#[derive(Debug, PartialEq, Eq)]
pub struct OverBudget;

pub struct Known {
    shards: Vec<Shard>,
    len: usize,
    bytes: usize,
    budget: usize,
    chains: Chains,
}

fn identity_bits(identity: u64) -> u64 {
    // Below 16 the upper bits would all be zero, and that means an empty slot.
    (identity & !FLAGS).max(FLAGS + 1)
}

impl Shard {
    fn home(&self, bits: u64) -> usize {
        ((u128::from(bits << 8) * self.homes as u128) >> 64) as usize
    }

    /// The slot of `bits`, or the slot where it belongs.
    fn find(&self, bits: u64) -> Result<usize, usize> {
        let mut at = self.home(bits);
        while let Some(entry) = self.slots.get(at) {
            let found = entry.key & !FLAGS;
            if found == bits {
                return Ok(at);
            }
            if found == 0 || found > bits {
                break;
            }
            at += 1;
        }
        Err(at)
    }

    fn is_full(&self) -> bool {
        self.len * 8 >= self.homes * 7
    }

    fn resized(&self, homes: usize) -> Shard {
        let mut slots = Vec::with_capacity(homes + 16);
        slots.resize(homes, Entry::default());
        let mut next = Shard {
            slots,
            homes,
            len: self.len,
        };
        let mut free = 0;
        for entry in self.slots.iter().filter(|entry| entry.key != 0) {
            let at = free.max(next.home(entry.key & !FLAGS));
            match next.slots.get_mut(at) {
                Some(slot) => *slot = *entry,
                None => {
                    next.slots.reserve_exact(1);
                    next.slots.push(*entry);
                }
            }
            free = at + 1;
        }
        next
    }

    /// Puts `entry` into the slot where `find` says that it belongs.
    fn insert(&mut self, at: usize, entry: Entry) {
        match self.slots[at..].iter().position(|slot| slot.key == 0) {
            Some(gap) => {
                self.slots.copy_within(at..at + gap, at + 1);
                self.slots[at] = entry;
            }
            None => {
                // Without this the vector would double its memory.
                self.slots.reserve_exact(1);
                self.slots.insert(at, entry);
            }
        }
        self.len += 1;
    }
}

impl Known {
    /// A map with room for `expected` identities. It takes no more than `budget` bytes, but for a few overflow slots.
    pub fn new(expected: usize, budget: usize) -> Self {
        let homes = expected / SHARDS * 8 / 7 * 17 / 16;
        let mut known = Known {
            shards: Vec::with_capacity(SHARDS),
            len: 0,
            bytes: 0,
            budget,
            chains: Chains::default(),
        };
        let affordable = budget / size_of::<Entry>() / SHARDS;
        let homes = homes.min(affordable).max(8);
        for _ in 0..SHARDS {
            let shard = Shard::default().resized(homes);
            known.bytes += shard.slots.len() * size_of::<Entry>();
            known.shards.push(shard);
        }
        known
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes taken by slots and chains.
    pub fn bytes(&self) -> usize {
        self.bytes + self.chains.bytes()
    }

    /// The chains of the customers with several rows.
    pub fn chains(&mut self) -> &mut Chains {
        &mut self.chains
    }

    /// Begins the next chain; see [`Chains::begin`].
    pub fn begin_chain(
        &mut self,
        stored: i64,
        hash: i64,
        is_unlike: bool,
    ) -> Result<(), OverBudget> {
        let budget = self.budget - self.bytes.min(self.budget);
        match self.chains.begin(stored, hash, is_unlike, budget) {
            true => Ok(()),
            false => Err(OverBudget),
        }
    }

    /// A row in the second reading; see [`Chains::park`].
    pub fn park(&mut self, identity: u64, hash: i64) -> Option<(Parked, i64)> {
        match self.get(identity) {
            Some((flags, number)) if flags & (SEEN | MANY) == SEEN | MANY => {
                self.chains.park(number, hash)
            }
            _ => None,
        }
    }

    /// Reads the slot where a look-up of `identity` will begin. The processor overlaps a group of such reads.
    pub fn touch(&self, identity: u64) -> u64 {
        let bits = identity_bits(identity);
        let shard = &self.shards[(bits >> 56) as usize];
        shard
            .slots
            .get(shard.home(bits))
            .map_or(0, |entry| entry.key)
    }

    /// Flags and source hash of an identity.
    pub fn get(&self, identity: u64) -> Option<(u8, i64)> {
        let bits = identity_bits(identity);
        let shard = &self.shards[(bits >> 56) as usize];
        let entry = shard.slots[shard.find(bits).ok()?];
        Some(((entry.key & FLAGS) as u8, entry.source_hash))
    }

    /// Looks an identity up and lets `decide` say what is known from now on.
    ///
    /// `decide` gets flags and hash (None: not known) and returns the flags to add, the hash to keep, and the answer.
    pub fn update<T>(
        &mut self,
        identity: u64,
        decide: impl FnOnce(Option<(u8, i64)>) -> (u8, i64, T),
    ) -> Result<T, OverBudget> {
        let bits = identity_bits(identity);
        let index = (bits >> 56) as usize;
        let shard = &mut self.shards[index];
        match shard.find(bits) {
            Ok(at) => {
                let entry = &mut shard.slots[at];
                let (flags, source_hash, answer) =
                    decide(Some(((entry.key & FLAGS) as u8, entry.source_hash)));
                entry.key |= u64::from(flags);
                entry.source_hash = source_hash;
                Ok(answer)
            }
            Err(at) => {
                let (flags, source_hash, answer) = decide(None);
                let entry = Entry {
                    key: bits | u64::from(flags),
                    source_hash,
                };
                if shard.is_full() {
                    self.grow(index)?;
                    let at = self.shards[index].find(bits).unwrap_or_else(|at| at);
                    self.shards[index].insert(at, entry);
                } else {
                    shard.insert(at, entry);
                }
                self.len += 1;
                Ok(answer)
            }
        }
    }

    fn grow(&mut self, index: usize) -> Result<(), OverBudget> {
        let shard = &self.shards[index];
        let before = shard.slots.len() * size_of::<Entry>();
        // A fifth more: the map then takes 18 to 22 bytes for each identity at any size.
        let homes = (shard.homes + shard.homes / 5).max(16);
        if self.bytes() + homes * size_of::<Entry>() - before > self.budget {
            return Err(OverBudget);
        }
        let next = shard.resized(homes);
        self.bytes += next.slots.len() * size_of::<Entry>() - before;
        self.shards[index] = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn mixed(i: u64) -> u64 {
        (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (i << 7).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    #[test]
    fn finds_what_was_put_whatever_the_first_size() {
        for expected in [0, 1000, 200_000] {
            let mut known = Known::new(expected, usize::MAX);
            let mut oracle = HashMap::new();
            for i in 0..100_000 {
                let identity = mixed(i % 70_000);
                let before = known.update(identity, |old| (SEEN, i as i64, old)).unwrap();
                let expected = oracle
                    .insert(identity & !FLAGS, i as i64)
                    .map(|hash| (SEEN, hash));
                assert_eq!(before, expected);
            }
            assert_eq!(known.len(), oracle.len());
            assert!(
                oracle
                    .iter()
                    .all(|(&identity, &hash)| known.get(identity) == Some((SEEN, hash)))
            );
            assert_eq!(known.get(mixed(70_001)), None);
        }
    }

    #[test]
    fn skewed_hashes_cost_time_and_nothing_else() {
        let mut known = Known::new(0, usize::MAX);
        for i in 0..5_000u64 {
            known
                .update(u64::MAX - (i << 4), |_| (0, i as i64, ()))
                .unwrap();
        }
        assert!((0..5_000u64).all(|i| known.get(u64::MAX - (i << 4)) == Some((0, i as i64))));
    }

    #[test]
    fn stays_within_25_bytes_an_identity_and_within_its_budget() {
        let mut known = Known::new(0, 10 << 20);
        let mut i = 0;
        while known.update(mixed(i), |_| (0, 0, ())).is_ok() {
            i += 1;
        }
        assert!(known.bytes() <= 10 << 20);
        assert!(i > (10 << 20) / 25, "{i} identities only");
        assert!(known.get(mixed(i / 2)).is_some());
    }

    #[test]
    fn flags_add_up() {
        let mut known = Known::new(0, usize::MAX);
        known.update(99 << 40, |_| (MANY, 1, ())).unwrap();
        known
            .update(99 << 40, |old| (SEEN, old.unwrap().1 + 1, ()))
            .unwrap();
        assert_eq!(known.get(99 << 40), Some((MANY | SEEN, 2)));
    }

    #[test]
    fn as_many_as_expected_need_no_growth_and_little_more_room() {
        for count in [100_000, 1_000_000] {
            let mut known = Known::new(count, usize::MAX);
            let before = known.bytes();
            assert!(
                (17 * count..22 * count).contains(&before),
                "{before} bytes for {count}"
            );
            for i in 0..count as u64 {
                known.update(mixed(i), |_| (0, 0, ())).unwrap();
            }
            // A crowded shard may need a few slots behind its last home.
            assert!(
                known.bytes() < before + before / 100,
                "{before} bytes became {}",
                known.bytes()
            );
            assert_eq!((known.len(), known.is_empty()), (count, false));
            let ways = known.shards.iter().flat_map(|shard| {
                let full = (0..).zip(&shard.slots).filter(|(_, entry)| entry.key != 0);
                full.map(|(at, entry)| at - shard.home(entry.key & !FLAGS))
            });
            assert!(
                ways.sum::<usize>() < 16 * count,
                "a look-up walks over few slots"
            );
        }
        assert!(Known::new(0, 0).is_empty());
    }

    #[test]
    fn room_for_too_many_is_not_taken() {
        assert!(Known::new(1 << 40, 1 << 20).bytes() <= 1 << 20);
        assert!(Known::new(1 << 40, 1 << 20).bytes() > (1 << 20) - (1 << 13));
        assert_eq!(Known::new(0, 0).bytes(), SHARDS * 8 * size_of::<Entry>());
    }

    #[test]
    fn growing_keeps_to_18_to_23_bytes_an_identity() {
        let mut known = Known::new(0, usize::MAX);
        for i in 0..300_000 {
            known.update(mixed(i), |_| (0, 0, ())).unwrap();
            if i > 100_000 && i % 1000 == 0 {
                let each = known.bytes() as f64 / known.len() as f64;
                assert!((18.0..23.0).contains(&each), "{each} bytes each");
            }
        }
        let slots: usize = known.shards.iter().map(|shard| shard.slots.len()).sum();
        let bytes = slots * size_of::<Entry>();
        // The few slots behind the last homes are not counted.
        assert!(known.bytes() <= bytes && bytes - known.bytes() < bytes / 20);
    }

    #[test]
    fn a_look_up_begins_where_it_touches() {
        let mut known = Known::new(1000, usize::MAX);
        for identity in (0..64).map(|i| mixed(i) | 15) {
            assert_eq!(known.touch(identity), 0);
            known.update(identity, |_| (MANY, 0, ())).unwrap();
            assert_eq!(known.touch(identity), identity & !FLAGS | u64::from(MANY));
            known = Known::new(1000, usize::MAX);
        }
    }

    #[test]
    fn identities_near_zero_are_identities() {
        let mut known = Known::new(0, usize::MAX);
        assert_eq!(known.get(0), None);
        known.update(3, |_| (SEEN, 5, ())).unwrap();
        assert_eq!(known.get(0), Some((SEEN, 5)));
        assert_eq!(known.get(16), Some((SEEN, 5)));
        assert_eq!(known.get(32), None);
    }
}
