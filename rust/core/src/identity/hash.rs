//! What an identity and a row are known by: two hashes, and their seeds.

use crate::customer::RULES_VERSION;
use twox_hash::{XxHash3_64, XxHash3_128};

/// The seeds of the hashes of one import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKeys {
    /// The same for every import into one database.
    pub identity_seed: u64,
    /// Also covers what decides how a record becomes a row, so that other rules, other columns
    /// or another treatment of blanks make it another row.
    pub row_seed: u64,
}

impl HashKeys {
    /// `mapped`: the fields that have a column, as a plan tells them.
    pub fn new(database_seed: u64, mapped: u32, blank_clear: bool) -> Self {
        let mut rules = [0u8; 9];
        rules[..4].copy_from_slice(&RULES_VERSION.to_le_bytes());
        rules[4..8].copy_from_slice(&mapped.to_le_bytes());
        rules[8] = u8::from(blank_clear);
        HashKeys {
            identity_seed: database_seed,
            row_seed: XxHash3_64::oneshot_with_seed(database_seed, &rules),
        }
    }
}

/// The first and second half of the 128-bit hash of a `customer_id`: its lane, and what it is
/// known by.
pub fn hash_identity(customer_id: &[u8], seed: u64) -> (u64, u64) {
    let hash = XxHash3_128::oneshot_with_seed(seed, customer_id);
    ((hash >> 64) as u64, hash as u64)
}
