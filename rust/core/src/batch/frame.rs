//! The tuples of each table that a batch is copied into.
//!
//! The columns of a row arrive ready from [`crate::rows::parse`]. What is added here is the same for all rows of a
//! stream, or known only when the batch is sent (its ids), so a batch is never rewritten.

use crate::batch::row_set::RowSet;
use crate::customer::FIELDS;
use crate::identity::classify::Parked;
use crate::pgcopy::{HEADER, TRAILER, put_bytes, put_field_count, put_i32, put_i64, put_null};
use crate::rows::findings::Finding;

const CUSTOMER_COLUMNS: u16 = FIELDS.len() as u16;
/// Bytes of a rejected record that are kept.
pub const RAW_BYTES: usize = 64 << 10;

/// Which table a stream is for, with what all its rows share.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// `customers (id, import_id, source_id, source_line, source_hash, <columns of the customer>)`; ids count up from
    /// `first_id`.
    Customers {
        first_id: i64,
        import_id: i64,
        source_id: i32,
    },
    /// `stage (source_line, source_hash, clears, <columns of the customer>)`; `clears`: the columns that a blank
    /// erases.
    Stage { clears: i32 },
    /// `import_parked (import_id, source_line, source_hash, first_hash, <columns of the customer>, is_first)`.
    Parked { import_id: i64 },
}

/// Writes the stream of `rows` for `target` piece by piece, from row `next` on. The caller keeps `next` between calls.
///
/// Appends to `out` until it holds at least `enough` bytes or the stream is complete; true when it is complete.
pub fn frame(
    rows: &RowSet,
    parked: &[Parked],
    target: Target,
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
                first_id,
                import_id,
                source_id,
            } => {
                put_field_count(out, CUSTOMER_COLUMNS + 5);
                put_i64(out, first_id + *next as i64);
                put_i64(out, import_id);
                put_i32(out, source_id);
                put_i64(out, row.line as i64);
                put_i64(out, row.source_hash);
                out.extend_from_slice(rows.columns(row));
            }
            Target::Stage { clears } => {
                put_field_count(out, CUSTOMER_COLUMNS + 3);
                put_i64(out, row.line as i64);
                put_i64(out, row.source_hash);
                put_i32(out, clears);
                out.extend_from_slice(rows.columns(row));
            }
            Target::Parked { import_id } => {
                let parked = parked[row.order as usize];
                put_field_count(out, CUSTOMER_COLUMNS + 5);
                put_i64(out, import_id);
                put_i64(out, row.line as i64);
                put_i64(out, row.source_hash);
                match parked {
                    Parked::Later {
                        first_hash: Some(hash),
                    } => put_i64(out, hash),
                    _ => put_null(out),
                }
                out.extend_from_slice(rows.columns(row));
                put_bytes(out, &[u8::from(matches!(parked, Parked::First))]);
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

/// Appends a tuple of `import_rejects`: import_id, source_line, byte_from, byte_to, severity, code, field, message, raw.
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
