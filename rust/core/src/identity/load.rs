//! Fills [`Known`] from what the database holds, in PostgreSQL's binary array format (`array_send`).
//!
//! The database sends arrays of thousands of keys. With a result row for each key the client would need more time
//! than the server needs to read the table.

use crate::identity::hash::hash_identity;
use crate::identity::known::{Known, OverBudget};
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
        if let Err(over_budget) = add(known, identity_seed, lanes, id, 0, Some(hash)) {
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
        let flag = flag.and_then(|bytes| bytes.last()).copied().unwrap_or(0);
        if let Err(over_budget) = add(known, identity_seed, lanes, id, flag, None) {
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
    flags: u8,
    hash: Option<i64>,
) -> Result<(), OverBudget> {
    let (lane_hash, identity) = hash_identity(id.unwrap_or_default(), identity_seed);
    if lanes.contains(lane_hash) {
        known.update(identity, |old| {
            (flags, hash.or(old.map(|old| old.1)).unwrap_or(0), ())
        })?;
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
}
