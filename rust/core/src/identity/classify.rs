//! What a row is, by what is known of its identity. The map of known identities belongs to the caller.

use crate::identity::known::{HELD, MANY, PARKED, SEEN};

/// Why a row waits in `import_parked` for the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// The first row of its identity in this file.
    First,
    /// A later one, with the hash of the first row unless that row is parked too.
    Later { first_hash: Option<i64> },
}

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    New,
    Changed,
    Unchanged,
    Parked(Parked),
}

/// Classifies a row. `old`: flags and hash that are known of its identity.
///
/// Returns the flags to add and the hash to keep, and the class of the row.
pub fn classify(old: Option<(u8, i64)>, hash: i64, parks_changed: bool) -> (u8, i64, Class) {
    match old {
        None => (SEEN, hash, Class::New),
        Some((flags, first)) if flags & SEEN != 0 => {
            let first_hash = (flags & PARKED == 0).then_some(first);
            (0, first, Class::Parked(Parked::Later { first_hash }))
        }
        Some((flags, _)) if flags & MANY != 0 => {
            (SEEN | PARKED, hash, Class::Parked(Parked::First))
        }
        Some((_, known)) if known == hash => (SEEN, hash, Class::Unchanged),
        Some((flags, _)) if flags & HELD != 0 || parks_changed => {
            (SEEN | PARKED, hash, Class::Parked(Parked::First))
        }
        Some(_) => (SEEN, hash, Class::Changed),
    }
}

/// What is known of an identity after a row that is in the database already: later rows of the file need its hash.
pub fn recall(old: Option<(u8, i64)>, hash: i64) -> (u8, i64, ()) {
    match old {
        Some((flags, first)) if flags & SEEN != 0 => (0, first, ()),
        _ => (SEEN, hash, ()),
    }
}
