//! PostgreSQL's binary COPY format (PostgreSQL manual, COPY, "Binary Format"): how rows of a batch are framed.
//!
//! The twelve columns of a row arrive ready from `parse`; what is added here is the same for all rows of a stream or
//! known only when the batch is sent (its ids), so a batch is never rewritten.

use crate::batch::{Parked, RowSet};

/// Signature, flags and the length of the (empty) header extension.
pub const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A tuple with -1 fields ends the stream.
pub const TRAILER: [u8; 2] = [0xff, 0xff];
const CUSTOMER_COLUMNS: u16 = 12;

pub fn put_i16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
    out.extend_from_slice(value);
}

pub fn put_null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1i32).to_be_bytes());
}

pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_bytes(out, &value.to_be_bytes());
}

pub fn put_i32(out: &mut Vec<u8>, value: i32) {
    put_bytes(out, &value.to_be_bytes());
}

/// Which table a stream is for, with what all its rows share.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// `customers (id, import_id, source_id, source_line, source_hash, <12 columns>)`; ids count up from `first_id`.
    Customers {
        first_id: i64,
        import_id: i64,
        source_id: i32,
    },
    /// `stage (source_line, source_hash, clears, <12 columns>)`; `clears`: the columns that a blank erases.
    Stage { clears: i32 },
    /// `import_parked (import_id, source_line, source_hash, first_hash, <12 columns>, is_first)`.
    Parked { import_id: i64 },
}

/// Frames `rows` for `target`, piece by piece, from row `next` on; the caller keeps `next` between calls.
///
/// Appends to `out` until it holds at least `enough` bytes or the stream is complete; answers whether it is complete.
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
                put_i16(out, CUSTOMER_COLUMNS + 5);
                put_i64(out, first_id + *next as i64);
                put_i64(out, import_id);
                put_i32(out, source_id);
                put_i64(out, row.line as i64);
                put_i64(out, row.source_hash);
                out.extend_from_slice(rows.columns(row));
            }
            Target::Stage { clears } => {
                put_i16(out, CUSTOMER_COLUMNS + 3);
                put_i64(out, row.line as i64);
                put_i64(out, row.source_hash);
                put_i32(out, clears);
                out.extend_from_slice(rows.columns(row));
            }
            Target::Parked { import_id } => {
                let parked = parked[row.order as usize];
                put_i16(out, CUSTOMER_COLUMNS + 5);
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
