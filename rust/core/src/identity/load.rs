//! Fills [`Known`] from what the database holds, in PostgreSQL's binary array format (`array_send`).
//!
//! The database sends arrays of thousands of keys. With a result row for each key the client would need more time
//! than the server needs to read the table.

use crate::identity::hash::hash_identity;
use crate::identity::known::{HELD, Known, MANY, OverBudget, PARKED};
use crate::identity::lanes::Lanes;

/// The bytes are not a one-dimensional binary array of PostgreSQL.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnArray;

/// The elements of a binary array; None for a NULL among them. No bytes at all (a NULL array) have no elements.
pub fn elements(array: &[u8]) -> Result<impl Iterator<Item = Option<&[u8]>>, NotAnArray> {
    let dimensions = array
        .first_chunk::<4>()
        .map_or(0, |bytes| i32::from_be_bytes(*bytes));
    let mut rest = match dimensions {
        0 => &[][..],
        1 => array.get(20..).ok_or(NotAnArray)?,
        _ => return Err(NotAnArray),
    };
    Ok(std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let len = i32::from_be_bytes(*len);
        if len < 0 {
            rest = after;
            return Some(None);
        }
        let (element, after) = after.split_at_checked(len as usize)?;
        rest = after;
        Some(Some(element))
    }))
}

/// Adds identities (`text[]`) with their source hashes (`int8[]` of the same length). Those of other lanes are left
/// out.
///
/// No identity is given twice. So if its bits are known already they are those of another customer, and rows of either
/// are parked: only the merge, which goes by the real identity, can tell the two apart.
pub fn load_hashes(
    known: &mut Known,
    identity_seed: u64,
    lanes: Lanes,
    ids: &[u8],
    hashes: &[u8],
) -> Result<Result<(), OverBudget>, NotAnArray> {
    for (id, hash) in elements(ids)?.zip(elements(hashes)?) {
        // A customer made by hand has no source hash. Zero will do: its flag HELD decides.
        let hash = hash
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, i64::from_be_bytes);
        let twice = MANY | PARKED;
        if let Err(over_budget) = add(known, identity_seed, lanes, id, |old| match old {
            None => (0, hash, ()),
            Some(_) => (twice, hash, ()),
        }) {
            return Ok(Err(over_budget));
        }
    }
    Ok(Ok(()))
}

/// Adds flags (`int4[]`) to identities (`text[]`).
pub fn load_flags(
    known: &mut Known,
    identity_seed: u64,
    lanes: Lanes,
    ids: &[u8],
    flags: &[u8],
) -> Result<Result<(), OverBudget>, NotAnArray> {
    for (id, flag) in elements(ids)?.zip(elements(flags)?) {
        // What this file has had is not for the database to say.
        let flag = flag
            .and_then(|bytes| bytes.last())
            .map_or(0, |flag| flag & (MANY | HELD | PARKED));
        if let Err(over_budget) = add(known, identity_seed, lanes, id, |old| {
            (flag, old.map_or(0, |old| old.1), ())
        }) {
            return Ok(Err(over_budget));
        }
    }
    Ok(Ok(()))
}

fn add(
    known: &mut Known,
    identity_seed: u64,
    lanes: Lanes,
    id: Option<&[u8]>,
    decide: impl FnOnce(Option<(u8, i64)>) -> (u8, i64, ()),
) -> Result<(), OverBudget> {
    let (lane_hash, identity) = hash_identity(id.unwrap_or_default(), identity_seed);
    if lanes.contains(lane_hash) {
        known.update(identity, decide)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(elements: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = [1, 1, 25, elements.len() as i32, 1]
            .iter()
            .flat_map(|n: &i32| n.to_be_bytes())
            .collect::<Vec<_>>();
        for element in elements {
            out.extend(element.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
            out.extend(element.unwrap_or_default());
        }
        out
    }

    #[test]
    fn arrays_are_read_with_their_nulls() {
        let bytes = array(&[Some(b"ab"), None, Some(b"")]);
        let read: Vec<_> = elements(&bytes).unwrap().collect();
        assert_eq!(read, [Some(&b"ab"[..]), None, Some(&b""[..])]);
        assert_eq!(elements(&[]).unwrap().count(), 0);
        assert_eq!(elements(&[0, 0, 0, 2, 0, 0, 0, 0]).err(), Some(NotAnArray));
    }

    const ALL: Lanes = Lanes {
        total: 1,
        first: 0,
        count: 1,
    };
    const SEED: u64 = 3;

    fn known_of(known: &Known, id: &str) -> Option<(u8, i64)> {
        known.get(hash_identity(id.as_bytes(), SEED).1)
    }

    fn numbers<const N: usize>(numbers: &[Option<[u8; N]>]) -> Vec<u8> {
        let parts: Vec<_> = numbers.iter().map(|n| n.as_ref().map(|n| &n[..])).collect();
        array(&parts)
    }

    #[test]
    fn hashes_and_flags_of_an_identity_come_together() {
        let mut known = Known::new(0, usize::MAX);
        let ids = array(&[Some(b"a"), Some(b"b"), None]);
        let hashes = numbers(&[Some(7i64.to_be_bytes()), None, Some(9i64.to_be_bytes())]);
        assert_eq!(
            load_hashes(&mut known, SEED, ALL, &ids, &hashes),
            Ok(Ok(()))
        );
        assert_eq!(known_of(&known, "a"), Some((0, 7)));
        assert_eq!(known_of(&known, "b"), Some((0, 0)), "made by hand");
        let ids = array(&[Some(b"a"), Some(b"c")]);
        let flags = numbers(&[Some(6i32.to_be_bytes()), Some(8i32.to_be_bytes())]);
        assert_eq!(load_flags(&mut known, SEED, ALL, &ids, &flags), Ok(Ok(())));
        assert_eq!(known_of(&known, "a"), Some((6, 7)));
        assert_eq!(known_of(&known, "c"), Some((8, 0)));
    }

    /// Their 60 bits are the same with seed 7.
    const TWINS: [&str; 2] = ["625cbad76658ec1", "e722b359281c513"];

    #[test]
    fn two_customers_of_the_same_bits_are_parked_whatever_comes() {
        let [one, other] = TWINS.map(|id| hash_identity(id.as_bytes(), 7).1);
        assert_eq!(one >> 4, other >> 4);
        let mut known = Known::new(0, usize::MAX);
        let ids = TWINS.map(|id| Some(id.as_bytes()));
        let hashes = numbers(&[Some(5i64.to_be_bytes()), Some(6i64.to_be_bytes())]);
        assert_eq!(
            load_hashes(&mut known, 7, ALL, &array(&ids), &hashes),
            Ok(Ok(()))
        );
        assert_eq!(known.get(one).unwrap().0, MANY | PARKED);
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn identities_of_other_lanes_are_left_out() {
        let ids: Vec<String> = (0..100).map(|id| id.to_string()).collect();
        let parts: Vec<_> = ids.iter().map(|id| Some(id.as_bytes())).collect();
        let hashes = numbers(&vec![Some(1i64.to_be_bytes()); ids.len()]);
        let flags = numbers(&vec![Some(2i32.to_be_bytes()); ids.len()]);
        let lanes = Lanes {
            total: 3,
            first: 1,
            count: 1,
        };
        let mut known = Known::new(0, usize::MAX);
        assert_eq!(
            load_hashes(&mut known, SEED, lanes, &array(&parts), &hashes),
            Ok(Ok(()))
        );
        assert_eq!(
            load_flags(&mut known, SEED, lanes, &array(&parts), &flags),
            Ok(Ok(()))
        );
        let mut count = 0;
        for id in &ids {
            let is_ours = lanes.contains(hash_identity(id.as_bytes(), SEED).0);
            assert_eq!(known_of(&known, id), is_ours.then_some((2, 1)), "{id}");
            count += usize::from(is_ours);
        }
        assert_eq!(known.len(), count);
        assert!(
            (20..50).contains(&count),
            "{count} of 100 are in one of three lanes"
        );
    }

    #[test]
    fn a_map_without_room_is_over_budget() {
        let ids: Vec<String> = (0..5000).map(|id| id.to_string()).collect();
        let parts: Vec<_> = ids.iter().map(|id| Some(id.as_bytes())).collect();
        let hashes = numbers(&vec![Some(1i64.to_be_bytes()); ids.len()]);
        let flags = numbers(&vec![Some(2i32.to_be_bytes()); ids.len()]);
        let mut known = Known::new(0, 0);
        assert_eq!(
            load_hashes(&mut known, SEED, ALL, &array(&parts), &hashes),
            Ok(Err(OverBudget))
        );
        assert_eq!(
            load_flags(&mut known, SEED, ALL, &array(&parts), &flags),
            Ok(Err(OverBudget))
        );
    }

    #[test]
    fn what_is_no_array_is_refused() {
        let mut known = Known::new(0, usize::MAX);
        let (array, other) = (array(&[]), [0, 0, 0, 2]);
        for (ids, hashes) in [
            (&array[..], &other[..]),
            (&other[..], &array[..]),
            (&[0, 0, 0, 1], &array),
        ] {
            assert_eq!(
                load_hashes(&mut known, SEED, ALL, ids, hashes),
                Err(NotAnArray)
            );
            assert_eq!(
                load_flags(&mut known, SEED, ALL, ids, hashes),
                Err(NotAnArray)
            );
        }
    }
}
