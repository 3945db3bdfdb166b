//! What a row is, by what is known of its identity. The map of known identities belongs to the caller.

use crate::identity::chains::{Parked, chained};
use crate::identity::known::{HELD, Known, MANY, OverBudget, PARKED, SEEN};

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    New,
    Changed,
    Unchanged,
    /// It goes to `import_parked`, with this hash: of a later row the chain of all rows so far.
    Parked(Parked, i64),
    /// It waits without being parked; see [`crate::identity::chains`].
    Waits(Parked),
}

/// What a run does with rows that cannot be judged yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Changed rows are parked: the key that a merge needs does not exist yet.
    pub parks_changed: bool,
    /// Rows of customers with several rows are parked: the source cannot be read twice.
    pub parks_many: bool,
    /// The second reading parks every row that an earlier run has done: another import has written since then.
    pub parks_done: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Is(Class),
    Begin { stored: i64, is_unlike: bool },
    Follow(i64),
}

/// Classifies a row. `is_done`: an earlier run has done it, and only what is known of its identity matters.
pub fn classify(
    known: &mut Known,
    identity: u64,
    hash: i64,
    rules: Rules,
    is_done: bool,
) -> Result<Class, OverBudget> {
    let next = known.chains().next();
    match known.update(identity, |old| step(old, hash, next, rules, is_done))? {
        Step::Is(class) => Ok(class),
        Step::Begin { stored, is_unlike } => {
            known.begin_chain(stored, hash, is_unlike)?;
            Ok(Class::Waits(Parked::First))
        }
        Step::Follow(number) => {
            known.chains().follow(number, hash);
            Ok(Class::Waits(Parked::Later))
        }
    }
}

/// `old`: flags and hash that are known of the identity; `next`: the number of the next chain.
///
/// Returns the flags to add, the hash to keep (of an identity with a chain its number), and what to do.
fn step(
    old: Option<(u8, i64)>,
    hash: i64,
    next: i64,
    rules: Rules,
    is_done: bool,
) -> (u8, i64, Step) {
    let first = |class| (SEEN, hash, Step::Is(class));
    let parked = Class::Parked(Parked::First, hash);
    match old {
        Some((flags, number)) if flags & (SEEN | MANY) == SEEN | MANY && !rules.parks_many => {
            (0, number, Step::Follow(number))
        }
        Some((flags, before)) if flags & SEEN != 0 => {
            let chain = chained(before, hash);
            (0, chain, Step::Is(Class::Parked(Parked::Later, chain)))
        }
        _ if rules.parks_done && is_done => {
            let begin = Step::Begin {
                stored: 0,
                is_unlike: true,
            };
            (SEEN | MANY, next, begin)
        }
        None => first(Class::New),
        Some((flags, _)) if flags & MANY != 0 && rules.parks_many => first(parked),
        Some((flags, stored)) if flags & MANY != 0 => {
            let is_unlike = flags & PARKED != 0;
            (SEEN, next, Step::Begin { stored, is_unlike })
        }
        Some((_, stored)) if stored == hash => first(Class::Unchanged),
        Some((flags, _)) if flags & HELD != 0 || rules.parks_changed => first(parked),
        Some(_) => first(Class::Changed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Step = Step::Is(Class::Parked(Parked::First, 7));
    const RULES: Rules = Rules {
        parks_changed: false,
        parks_many: false,
        parks_done: false,
    };
    const CHANGED: Rules = Rules {
        parks_changed: true,
        ..RULES
    };
    const STREAM: Rules = Rules {
        parks_many: true,
        ..RULES
    };
    const AGAIN: Rules = Rules {
        parks_done: true,
        ..RULES
    };
    const NEXT: i64 = 33;

    fn later(hash: i64) -> Step {
        Step::Is(Class::Parked(Parked::Later, hash))
    }

    fn begin(stored: i64, is_unlike: bool) -> Step {
        Step::Begin { stored, is_unlike }
    }

    /// What is known, by which rules; what is known then, and the step. The hash of the row is 7.
    macro_rules! steps {
        ($($name:ident: $old:expr, $rules:expr => $flags:expr, $kept:expr, $step:expr;)*) => {
            $(#[test] fn $name() { assert_eq!(step($old, 7, NEXT, $rules, false), ($flags, $kept, $step)); })*
        };
    }

    steps! {
        an_unknown_one_is_new: None, RULES => SEEN, 7, Step::Is(Class::New);
        an_unknown_one_is_new_whatever_is_parked: None, CHANGED => SEEN, 7, Step::Is(Class::New);
        the_same_hash_is_unchanged: Some((0, 7)), RULES => SEEN, 7, Step::Is(Class::Unchanged);
        the_same_hash_is_unchanged_whatever_is_parked: Some((0, 7)), CHANGED => SEEN, 7, Step::Is(Class::Unchanged);
        another_hash_is_changed: Some((0, 5)), RULES => SEEN, 7, Step::Is(Class::Changed);
        a_changed_one_may_have_to_wait: Some((0, 5)), CHANGED => SEEN, 7, FIRST;
        an_edited_one_waits: Some((HELD, 5)), RULES => SEEN, 7, FIRST;
        an_edited_one_may_be_unchanged: Some((HELD, 7)), RULES => SEEN, 7, Step::Is(Class::Unchanged);
        one_of_many_begins_a_chain: Some((MANY, 5)), RULES => SEEN, NEXT, begin(5, false);
        one_of_many_begins_a_chain_though_it_is_the_same: Some((MANY | HELD, 7)), CHANGED => SEEN, NEXT, begin(7, false);
        one_that_is_parked_is_parked_again: Some((MANY | PARKED, 5)), RULES => SEEN, NEXT, begin(5, true);
        a_second_row_of_many_follows: Some((SEEN | MANY, 2)), RULES => 0, 2, Step::Follow(2);
        one_of_many_in_a_stream_is_parked: Some((MANY, 7)), STREAM => SEEN, 7, FIRST;
        a_second_row_in_a_stream_is_parked: Some((SEEN | MANY, 5)), STREAM => 0, chained(5, 7), later(chained(5, 7));
        a_second_row_is_parked_with_the_chain: Some((SEEN, 5)), RULES => 0, chained(5, 7), later(chained(5, 7));
        a_second_row_of_an_edited_one: Some((SEEN | HELD, 5)), CHANGED => 0, chained(5, 7), later(chained(5, 7));
        what_is_not_done_is_judged_as_always: Some((0, 5)), AGAIN => SEEN, 7, Step::Is(Class::Changed);
    }

    #[test]
    fn what_is_done_is_done_again_if_another_import_has_written() {
        for old in [None, Some((0, 7)), Some((HELD, 5)), Some((MANY, 5))] {
            let step = step(old, 7, NEXT, AGAIN, true);
            assert_eq!(step, (SEEN | MANY, NEXT, begin(0, true)));
        }
        let step = step(Some((SEEN | MANY, 2)), 7, NEXT, AGAIN, true);
        assert_eq!(step, (0, 2, Step::Follow(2)));
    }

    #[test]
    fn the_chain_of_an_identity_goes_on_from_row_to_row() {
        let mut known = Known::new(0, usize::MAX);
        let mut row = |identity, hash| classify(&mut known, identity, hash, RULES, false).unwrap();
        assert_eq!(row(1 << 20, 3), Class::New);
        assert_eq!(row(1 << 20, 4), Class::Parked(Parked::Later, chained(3, 4)));
        let chain = chained(chained(3, 4), 5);
        assert_eq!(row(1 << 20, 5), Class::Parked(Parked::Later, chain));
    }

    #[test]
    fn rows_of_many_wait_for_the_end_of_the_file() {
        let mut known = Known::new(0, usize::MAX);
        let (same, other) = (1 << 20, 2 << 20);
        for identity in [same, other] {
            known
                .update(identity, |_| (MANY, chained(3, 4), ()))
                .unwrap();
        }
        let mut row = |identity, hash| classify(&mut known, identity, hash, RULES, false).unwrap();
        for identity in [same, other] {
            assert_eq!(row(identity, 3), Class::Waits(Parked::First));
        }
        assert_eq!(row(same, 4), Class::Waits(Parked::Later));
        assert_eq!(row(other, 5), Class::Waits(Parked::Later));
        assert_eq!(known.chains().end(), (1, true));
        assert_eq!(known.park(same, 3), None);
        assert_eq!(known.park(other, 3), Some((Parked::First, 3)));
        assert_eq!(known.park(other, 5), Some((Parked::Later, chained(3, 5))));
        assert_eq!(known.park(9 << 20, 3), None, "it was never known");
    }
}
