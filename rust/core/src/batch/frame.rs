//! The tuples of each table that a batch is copied into.
//!
//! The columns of a row arrive ready from [`crate::rows::parse`]. What is added here is the same for all rows of a
//! stream, or known only when the batch is sent (its ids), so a batch is never rewritten.

use crate::batch::row_set::RowSet;
use crate::customer::FIELDS;
use crate::identity::chains::Parked;
use crate::pgcopy::{HEADER, TRAILER, put_bytes, put_field_count, put_i32, put_i64, put_null};
use crate::rows::findings::Finding;
use std::sync::Arc;

const CUSTOMER_COLUMNS: u16 = FIELDS.len() as u16;
/// Bytes of a rejected record that are kept.
pub const RAW_BYTES: usize = 64 << 10;

/// The ids of rows in their order: runs of consecutive numbers. Between two runs are the ids that other sessions have
/// drawn meanwhile.
#[derive(Clone, Debug)]
pub struct Ids {
    /// The place of the first row of each run, and its id.
    runs: Arc<[(usize, i64)]>,
}

impl Ids {
    /// `runs` are first ids and how many follow each other; None unless they are ids for exactly `rows` rows.
    pub fn new(runs: &[(i64, i64)], rows: usize) -> Option<Ids> {
        let mut place = 0usize;
        let mut places = Vec::with_capacity(runs.len());
        for &(first, count) in runs {
            let count = usize::try_from(count).ok()?;
            first.checked_add(i64::try_from(count).ok()?)?;
            places.push((place, first));
            place = place.checked_add(count)?;
        }
        (place == rows).then(|| Ids {
            runs: places.into(),
        })
    }

    fn of(&self, row: usize) -> i64 {
        let run = self.runs.partition_point(|&(place, _)| place <= row);
        self.runs[..run]
            .last()
            .map_or(0, |&(place, first)| first + (row - place) as i64)
    }
}

/// Which table a stream is for, with what all its rows share.
#[derive(Clone, Debug)]
pub enum Target {
    /// `customers (id, import_id, source_id, source_line, source_hash, <columns of the customer>)`.
    Customers {
        ids: Ids,
        import_id: i64,
        source_id: i32,
    },
    /// `stage (source_line, source_hash, clears, <columns of the customer>)`; `clears`: the columns that a blank
    /// erases.
    Stage { clears: i32 },
    /// `import_parked (import_id, source_line, source_hash, <columns of the customer>, is_first)`.
    Parked { import_id: i64 },
}

/// Writes the stream of `rows` for `target` piece by piece, from row `next` on. The caller keeps `next` between calls.
///
/// Appends to `out` until it holds at least `enough` bytes or the stream is complete; true when it is complete.
pub fn frame(
    rows: &RowSet,
    parked: &[Parked],
    target: &Target,
    next: &mut usize,
    enough: usize,
    out: &mut Vec<u8>,
) -> bool {
    if *next == 0 {
        out.extend_from_slice(&HEADER);
    }
    while let Some(row) = rows.refs().get(*next) {
        match target {
            Target::Customers {
                ids,
                import_id,
                source_id,
            } => {
                put_field_count(out, CUSTOMER_COLUMNS + 5);
                put_i64(out, ids.of(*next));
                put_i64(out, *import_id);
                put_i32(out, *source_id);
                put_i64(out, row.line as i64);
                put_i64(out, row.source_hash);
                out.extend_from_slice(rows.columns(row));
            }
            Target::Stage { clears } => {
                put_field_count(out, CUSTOMER_COLUMNS + 3);
                put_i64(out, row.line as i64);
                put_i64(out, row.source_hash);
                put_i32(out, *clears);
                out.extend_from_slice(rows.columns(row));
            }
            Target::Parked { import_id } => {
                let parked = parked[row.order as usize];
                put_field_count(out, CUSTOMER_COLUMNS + 4);
                put_i64(out, *import_id);
                put_i64(out, row.line as i64);
                put_i64(out, row.source_hash);
                out.extend_from_slice(rows.columns(row));
                put_bytes(out, &[u8::from(parked == Parked::First)]);
            }
        }
        *next += 1;
        if out.len() >= enough && *next < rows.len() {
            return false;
        }
    }
    out.extend_from_slice(&TRAILER);
    true
}

/// Where a finding lies in the file.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Counted from 1.
    pub line: u64,
    pub from: u64,
    pub to: u64,
}

/// Appends a tuple of `import_rejects`: import_id, line, byte_from, byte_to, severity, code, field, message, raw.
///
/// `raw` is the record; its first [`RAW_BYTES`] are kept.
pub fn put_finding(out: &mut Vec<u8>, import_id: i64, finding: &Finding, place: Place, raw: &[u8]) {
    put_field_count(out, 9);
    put_i64(out, import_id);
    put_i64(out, place.line as i64);
    put_i64(out, place.from as i64);
    put_i64(out, place.to as i64);
    put_bytes(
        out,
        if finding.is_warning {
            b"warning"
        } else {
            b"reject"
        },
    );
    put_bytes(out, finding.code.as_str().as_bytes());
    match finding.field {
        Some(field) => put_bytes(out, FIELDS[field as usize].name.as_bytes()),
        None => put_null(out),
    }
    put_bytes(out, finding.code.message().as_bytes());
    put_bytes(out, &raw[..raw.len().min(RAW_BYTES)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::findings::Code;

    /// A stream of one tuple, whose fields are given with their lengths.
    fn stream(count: u8, fields: &[&[u8]]) -> Vec<u8> {
        [&HEADER[..], &[0, count], &fields.concat(), &TRAILER].concat()
    }

    fn long(value: i64) -> Vec<u8> {
        [&[0, 0, 0, 8], &value.to_be_bytes()[..]].concat()
    }

    fn int(value: i32) -> Vec<u8> {
        [&[0, 0, 0, 4], &value.to_be_bytes()[..]].concat()
    }

    fn framed(target: Target, parked: Parked, rows: u64) -> Vec<u8> {
        let (mut set, mut out, mut next) = (RowSet::default(), Vec::new(), 0);
        for line in 0..rows {
            set.push(b"\0\0\0\x01k", 5 + line, -6);
        }
        let parked = vec![parked; rows as usize];
        assert!(frame(
            &set,
            &parked,
            &target,
            &mut next,
            usize::MAX,
            &mut out
        ));
        assert_eq!(next, rows as usize);
        out
    }

    const KEY: &[u8] = b"\0\0\0\x01k";

    #[test]
    fn customers_have_ids_that_count_up() {
        let target = |rows| Target::Customers {
            ids: Ids::new(&[(90, rows)], rows as usize).unwrap(),
            import_id: 4,
            source_id: 3,
        };
        let one = framed(target(1), Parked::First, 1);
        let fields = [&long(90), &long(4), &int(3), &long(5), &long(-6), KEY];
        assert_eq!(one, stream(17, &fields));
        let two = framed(target(2), Parked::First, 2);
        let second = [&long(91), &long(4), &int(3), &long(6), &long(-6), KEY];
        let tuple = [&[0, 17], &second.concat()[..]].concat();
        assert!(two.starts_with(&one[..one.len() - 2]));
        assert_eq!(two[one.len() - 2..], [&tuple[..], &TRAILER].concat());
    }

    #[test]
    fn ids_leave_out_what_others_have_drawn() {
        let ids = Ids::new(&[(5, 2), (9, 1), (12, 3)], 6).unwrap();
        let found: Vec<i64> = (0..6).map(|row| ids.of(row)).collect();
        assert_eq!(found, [5, 6, 9, 12, 13, 14]);
        assert!(Ids::new(&[], 0).is_some());
        for (runs, rows) in [
            (vec![(5, 2)], 3),
            (vec![(5, 2)], 1),
            (vec![(5, -1), (7, 3)], 2),
            (vec![(i64::MAX, 1)], 1),
            (vec![(0, i64::MAX), (0, i64::MAX)], 2),
        ] {
            assert!(Ids::new(&runs, rows).is_none(), "{runs:?} for {rows}");
        }
    }

    #[test]
    fn staged_rows_say_what_a_blank_clears() {
        let stage = framed(Target::Stage { clears: 9 }, Parked::First, 1);
        assert_eq!(stage, stream(15, &[&long(5), &long(-6), &int(9), KEY]));
    }

    #[test]
    fn parked_rows_say_whether_they_are_the_first() {
        let parked = |parked| framed(Target::Parked { import_id: 4 }, parked, 1);
        let tuple = |is_first: u8| {
            let is_first = [0, 0, 0, 1, is_first];
            stream(16, &[&long(4), &long(5), &long(-6), KEY, &is_first])
        };
        assert_eq!(parked(Parked::First), tuple(1));
        assert_eq!(parked(Parked::Later), tuple(0));
    }

    #[test]
    fn a_stream_is_complete_with_its_last_row() {
        let (mut set, mut out, mut next) = (RowSet::default(), Vec::new(), 0);
        (0..2).for_each(|line| set.push(KEY, line, 0));
        let target = Target::Stage { clears: 0 };
        assert!(!frame(&set, &[], &target, &mut next, 1, &mut out));
        assert!(frame(&set, &[], &target, &mut next, 1, &mut out));
    }

    #[test]
    fn no_rows_are_a_stream_too() {
        let stage = framed(Target::Stage { clears: 0 }, Parked::First, 0);
        assert_eq!(stage, [&HEADER[..], &TRAILER].concat());
    }

    #[test]
    fn findings_keep_their_severity_their_field_and_some_of_the_record() {
        let text = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
        let place = Place {
            line: 2,
            from: 10,
            to: 20,
        };
        let raw = vec![b'x'; RAW_BYTES + 1];
        for (code, severity) in [(Code::TooLong, "reject"), (Code::AmbiguousDate, "warning")] {
            let finding = Finding {
                start: 0,
                end: 0,
                line: 0,
                code,
                field: Some(2),
                is_warning: code.is_warning(),
            };
            let mut out = Vec::new();
            put_finding(&mut out, 4, &finding, place, &raw);
            let numbers = [long(4), long(2), long(10), long(20)].concat();
            let texts = [severity, code.as_str(), "last_name", code.message()].map(text);
            let kept = text(&"x".repeat(RAW_BYTES));
            assert_eq!(
                out,
                [&[0, 9], &numbers[..], &texts.concat(), &kept].concat()
            );
        }
    }
}
