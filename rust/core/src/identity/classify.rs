//! What a row is, by what is known of its identity. Pure: the map is the caller's.

use crate::identity::known::{HELD, MANY, PARKED, SEEN};

/// Why a row waits in `import_parked` for the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// The first row of its identity in this file.
    First,
    /// A later one; with the first row's hash where that went its way.
    Later { first_hash: Option<i64> },
}

/// What becomes of a row.
pub enum Verdict {
    Fresh,
    Changed,
    Unchanged,
    Parked(Parked),
}

/// What a row is, given what is known of its identity; and what is known of it from now on.
pub fn judge(old: Option<(u8, i64)>, hash: i64, parks_changed: bool) -> (u8, i64, Verdict) {
    match old {
        None => (SEEN, hash, Verdict::Fresh),
        Some((flags, first)) if flags & SEEN != 0 => {
            let first_hash = (flags & PARKED == 0).then_some(first);
            (0, first, Verdict::Parked(Parked::Later { first_hash }))
        }
        Some((flags, _)) if flags & MANY != 0 => {
            (SEEN | PARKED, hash, Verdict::Parked(Parked::First))
        }
        Some((_, known)) if known == hash => (SEEN, hash, Verdict::Unchanged),
        Some((flags, _)) if flags & HELD != 0 || parks_changed => {
            (SEEN | PARKED, hash, Verdict::Parked(Parked::First))
        }
        Some(_) => (SEEN, hash, Verdict::Changed),
    }
}

/// What is known of an identity after one of its rows whose outcome is in the database already, and whose hash later
/// rows need.
pub fn recall(old: Option<(u8, i64)>, hash: i64) -> (u8, i64, ()) {
    match old {
        Some((flags, first)) if flags & SEEN != 0 => (0, first, ()),
        _ => (SEEN, hash, ()),
    }
}
