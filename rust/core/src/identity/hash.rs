//! The hashes by which an identity and a row are known, and their seeds.

use crate::customer::RULES_VERSION;
use twox_hash::{XxHash3_64, XxHash3_128};

/// The seeds of the hashes of one import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKeys {
    /// The same for every import into one database.
    pub identity_seed: u64,
    /// Made from all that decides how a record becomes a row. With other rules, other columns or another treatment of
    /// blanks the same record is another row.
    pub row_seed: u64,
}

impl HashKeys {
    /// `mapped`: the bit set of the fields that have a column. `clears_blanks`: a blank erases the value in the
    /// database.
    pub fn new(database_seed: u64, mapped: u32, clears_blanks: bool) -> Self {
        let mut rules = [0u8; 9];
        rules[..4].copy_from_slice(&RULES_VERSION.to_le_bytes());
        rules[4..8].copy_from_slice(&mapped.to_le_bytes());
        rules[8] = u8::from(clears_blanks);
        HashKeys {
            identity_seed: database_seed,
            row_seed: XxHash3_64::oneshot_with_seed(database_seed, &rules),
        }
    }
}

/// The two halves of the 128-bit hash of a `customer_id`: the lane hash, and the identity.
pub fn hash_identity(customer_id: &[u8], seed: u64) -> (u64, u64) {
    let hash = XxHash3_128::oneshot_with_seed(seed, customer_id);
    ((hash >> 64) as u64, hash as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are stored with every row: with another hash all rows of all imports would count as changed.
    #[test]
    fn hashes_that_are_stored_never_change() {
        let keys = HashKeys::new(7, 0b11, false);
        assert_eq!(keys.identity_seed, 7);
        let clearing = HashKeys::new(7, 0b11, true);
        assert_eq!(
            (keys.row_seed, clearing.row_seed),
            (15_029_915_487_514_535_939, 6_329_075_969_422_827_185)
        );
        assert_eq!(
            hash_identity(b"C-1", 7),
            (16_271_511_624_634_402_673, 2_776_187_880_053_133_460)
        );
    }
}
