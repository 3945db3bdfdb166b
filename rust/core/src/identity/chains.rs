//! Customers that had several rows in the last file: does this file bring the same rows again?
//!
//! The source hash of such a customer is the chain of the hashes of its rows, in line order. It is complete only at the
//! end of the file. Until then the rows wait without being parked: if the chain is the stored one, nothing has to be
//! written. The rows of all others are parked by a second reading of the file.

use twox_hash::XxHash3_64;

/// Which row of its identity a row is, of those that wait for the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// The first row of its identity in this file.
    First,
    Later,
}

/// The hash of several rows: the chain of all rows before, and the hash of the next one.
pub fn chained(before: i64, hash: i64) -> i64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&before.to_le_bytes());
    bytes[8..].copy_from_slice(&hash.to_le_bytes());
    XxHash3_64::oneshot(&bytes) as i64
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the first reading.
    Open,
    /// In the first reading; to be parked whatever its chain is.
    Unlike,
    /// The file has brought the same rows.
    Same,
    /// To be parked by the second reading, which has not come to its first row yet.
    Changed,
    /// The second reading has parked its first row.
    Parked,
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    stored: i64,
    hash: i64,
    state: State,
}

/// The chains of one run, by their numbers.
#[derive(Default)]
pub struct Chains(Vec<Chain>);

impl Chains {
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Chain>()
    }

    /// The number of the next chain.
    pub fn next(&self) -> i64 {
        self.0.len() as i64
    }

    /// Begins the next chain with the hash of its first row. `is_unlike`: it does not count as the same, whatever
    /// comes. All chains take `budget` bytes at most; false if there is no room.
    pub fn begin(&mut self, stored: i64, hash: i64, is_unlike: bool, budget: usize) -> bool {
        if self.0.len() == self.0.capacity() {
            // A quarter more: a vector that doubles would need three times its memory for a moment.
            let more = self.0.len() / 4 + 64;
            if (self.0.len() + more) * size_of::<Chain>() > budget {
                return false;
            }
            self.0.reserve_exact(more);
        }
        let state = if is_unlike {
            State::Unlike
        } else {
            State::Open
        };
        self.0.push(Chain {
            stored,
            hash,
            state,
        });
        true
    }

    /// Adds a row to a chain, if there is one of that number.
    pub fn follow(&mut self, number: i64, hash: i64) {
        if let Some(chain) = self.0.get_mut(number as usize) {
            chain.hash = chained(chain.hash, hash);
        }
    }

    /// Ends the first reading. Returns how many customers have the same rows as before, and whether any has not.
    pub fn end(&mut self) -> (u64, bool) {
        let mut same = 0;
        for chain in &mut self.0 {
            let is_same = chain.state == State::Open && chain.hash == chain.stored;
            same += u64::from(is_same);
            chain.state = if is_same { State::Same } else { State::Changed };
        }
        (same, same < self.0.len() as u64)
    }

    /// A row in the second reading: None if its customer has the same rows as before; else how it is parked, and with
    /// which hash.
    pub fn park(&mut self, number: i64, hash: i64) -> Option<(Parked, i64)> {
        let chain = self.0.get_mut(number as usize)?;
        let parked = match chain.state {
            State::Changed => Parked::First,
            State::Parked => Parked::Later,
            State::Open | State::Unlike | State::Same => return None,
        };
        chain.hash = match parked {
            Parked::First => hash,
            Parked::Later => chained(chain.hash, hash),
        };
        chain.state = State::Parked;
        Some((parked, chain.hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is stored with every customer of several rows.
    #[test]
    fn chains_that_are_stored_never_change() {
        assert_eq!(chained(1, 2), 571_542_372_673_154_031);
        assert_ne!(chained(1, 2), chained(2, 1));
        assert_ne!(chained(0, 0), 0);
    }

    fn begin(chains: &mut Chains, stored: i64, is_unlike: bool) {
        assert!(chains.begin(stored, 7, is_unlike, usize::MAX));
    }

    #[test]
    fn the_same_rows_in_the_same_order_are_the_same() {
        let mut chains = Chains::default();
        begin(&mut chains, chained(7, 8), false);
        chains.follow(0, 8);
        assert_eq!(chains.end(), (1, false));
        assert_eq!(chains.park(0, 7), None);
    }

    #[test]
    fn fewer_more_other_and_exchanged_rows_are_not() {
        for (stored, later) in [
            (chained(7, 8), &[][..]),
            (7, &[8][..]),
            (chained(7, 8), &[9]),
            (chained(8, 7), &[8]),
        ] {
            let mut chains = Chains::default();
            begin(&mut chains, stored, false);
            later.iter().for_each(|hash| chains.follow(0, *hash));
            assert_eq!(chains.end(), (0, true));
            assert_eq!(chains.park(0, 7), Some((Parked::First, 7)));
            assert_eq!(chains.park(0, 8), Some((Parked::Later, chained(7, 8))));
            assert_eq!(
                chains.park(0, 9),
                Some((Parked::Later, chained(chained(7, 8), 9)))
            );
        }
    }

    #[test]
    fn one_that_is_unlike_is_parked_though_its_rows_are_the_same() {
        let mut chains = Chains::default();
        begin(&mut chains, 7, true);
        begin(&mut chains, 7, false);
        assert_eq!((chains.next(), chains.end()), (2, (1, true)));
        assert_eq!(chains.park(0, 7), Some((Parked::First, 7)));
        assert_eq!(chains.park(1, 7), None);
    }

    #[test]
    fn chains_keep_to_their_budget() {
        let mut chains = Chains::default();
        let budget = 100_000;
        let count = (0..).take_while(|_| chains.begin(0, 0, false, budget));
        assert!((3000..=budget / size_of::<Chain>()).contains(&count.count()));
        assert!(chains.bytes() <= budget);
    }
}
