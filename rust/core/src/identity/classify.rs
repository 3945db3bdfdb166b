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

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Class = Class::Parked(Parked::First);

    fn later(first_hash: Option<i64>) -> Class {
        Class::Parked(Parked::Later { first_hash })
    }

    /// What is known, the hash of the row, whether changed rows are parked; what is known then, and the class.
    macro_rules! classes {
        ($($name:ident: $old:expr, $hash:literal, $parks:literal => $flags:expr, $kept:literal, $class:expr;)*) => {
            $(#[test] fn $name() { assert_eq!(classify($old, $hash, $parks), ($flags, $kept, $class)); })*
        };
    }

    classes! {
        an_unknown_one_is_new: None, 7, false => SEEN, 7, Class::New;
        an_unknown_one_is_new_whatever_is_parked: None, 7, true => SEEN, 7, Class::New;
        the_same_hash_is_unchanged: Some((0, 7)), 7, false => SEEN, 7, Class::Unchanged;
        the_same_hash_is_unchanged_whatever_is_parked: Some((0, 7)), 7, true => SEEN, 7, Class::Unchanged;
        another_hash_is_changed: Some((0, 5)), 7, false => SEEN, 7, Class::Changed;
        a_changed_one_may_have_to_wait: Some((0, 5)), 7, true => SEEN | PARKED, 7, FIRST;
        an_edited_one_waits: Some((HELD, 5)), 7, false => SEEN | PARKED, 7, FIRST;
        an_edited_one_may_be_unchanged: Some((HELD, 7)), 7, false => SEEN, 7, Class::Unchanged;
        one_of_many_waits: Some((MANY, 5)), 7, false => SEEN | PARKED, 7, FIRST;
        one_of_many_waits_though_it_is_the_same: Some((MANY, 7)), 7, false => SEEN | PARKED, 7, FIRST;
        a_second_row_waits_with_the_first_hash: Some((SEEN, 5)), 7, false => 0, 5, later(Some(5));
        a_second_row_waits_though_it_is_the_same: Some((SEEN, 7)), 7, false => 0, 7, later(Some(7));
        a_second_row_behind_a_parked_one: Some((SEEN | PARKED, 5)), 7, false => 0, 5, later(None);
        a_second_row_of_an_edited_one: Some((SEEN | HELD, 5)), 7, false => 0, 5, later(Some(5));
        a_second_row_of_many: Some((SEEN | MANY | PARKED, 5)), 7, true => 0, 5, later(None);
        parked_by_the_last_run_but_not_seen: Some((PARKED, 5)), 7, false => SEEN, 7, Class::Changed;
    }

    #[test]
    fn of_the_rows_that_are_done_the_first_is_remembered() {
        assert_eq!(recall(None, 7), (SEEN, 7, ()));
        assert_eq!(recall(Some((HELD | PARKED, 5)), 7), (SEEN, 7, ()));
        assert_eq!(recall(Some((SEEN, 5)), 7), (0, 5, ()));
        assert_eq!(recall(Some((SEEN | PARKED, 5)), 7), (0, 5, ()));
    }
}
