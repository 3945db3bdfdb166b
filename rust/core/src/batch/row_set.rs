//! The rows of a batch in memory. They are encoded once; a sort moves references.

use std::sync::{Arc, Mutex};

/// One row of a set. `prefix` holds the first eight bytes of the key: most comparisons of a sort need nothing else.
#[derive(Clone, Copy, Debug)]
pub struct RowRef {
    prefix: u64,
    at: u32,
    len: u32,
    /// How many rows were added before it.
    pub order: u32,
    pub line: u64,
    pub source_hash: i64,
}

/// Much more than the longest row: the limits of its columns are 2,000 characters at most.
const SEGMENT_BYTES: usize = 256 << 10;

/// Segments that no batch uses now. All have one size, so that any of them fits and memory does not fragment.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let used = self.0.lock().ok().and_then(|mut segments| segments.pop());
        used.unwrap_or_else(|| Vec::with_capacity(SEGMENT_BYTES))
    }

    fn put(&self, segments: &mut Vec<Vec<u8>>) {
        if let Ok(mut pool) = self.0.lock() {
            pool.extend(segments.drain(..).map(|mut segment| {
                segment.clear();
                segment
            }));
        }
    }
}

/// Rows whose columns lie encoded in segments. Each row lies in one segment.
#[derive(Default)]
pub struct RowSet {
    segments: Vec<Vec<u8>>,
    bytes: usize,
    refs: Vec<RowRef>,
    pool: Pool,
}

impl RowSet {
    pub fn from_pool(pool: &Pool) -> Self {
        let mut set = RowSet::default();
        set.pool = pool.clone();
        set
    }

    /// Adds a row; `columns` are the fields of a binary COPY tuple, the key first.
    pub fn push(&mut self, columns: &[u8], line: u64, source_hash: i64) {
        let has_room = |segment: &Vec<u8>| segment.len() + columns.len() <= SEGMENT_BYTES;
        if !self.segments.last().is_some_and(has_room) {
            self.segments.push(self.pool.take());
        }
        let number = self.segments.len() - 1;
        let segment = &mut self.segments[number];
        // A pipeline closes its batches at a gibibyte, so this holds; a wrong row would be worse than a panic.
        let at = u32::try_from(number * SEGMENT_BYTES + segment.len())
            .expect("a set of rows has less than 4 GiB");
        segment.extend_from_slice(columns);
        self.bytes += columns.len();
        let order = self.refs.len() as u32;
        let mut row = RowRef {
            prefix: 0,
            at,
            len: columns.len() as u32,
            order,
            line,
            source_hash,
        };
        row.prefix = prefix(self.key(&row));
        self.refs.push(row);
    }

    /// Sorts by key, and rows of one key by line. A page of an index is then written once for a batch, not for each
    /// row.
    pub fn sort(&mut self) {
        let mut refs = std::mem::take(&mut self.refs);
        refs.sort_unstable_by(|a, b| {
            (a.prefix.cmp(&b.prefix))
                .then_with(|| self.key(a).cmp(self.key(b)))
                .then(a.line.cmp(&b.line))
        });
        self.refs = refs;
    }

    pub fn refs(&self) -> &[RowRef] {
        &self.refs
    }

    pub fn columns(&self, row: &RowRef) -> &[u8] {
        let at = row.at as usize;
        &self.segments[at / SEGMENT_BYTES][at % SEGMENT_BYTES..][..row.len as usize]
    }

    fn key(&self, row: &RowRef) -> &[u8] {
        let columns = self.columns(row);
        let (len, rest) = columns
            .split_first_chunk::<4>()
            .expect("a row begins with the length of its key");
        &rest[..i32::from_be_bytes(*len) as usize]
    }

    pub fn len(&self) -> usize {
        self.refs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes + self.refs.len() * size_of::<RowRef>()
    }
}

impl Drop for RowSet {
    fn drop(&mut self) {
        self.pool.put(&mut self.segments);
    }
}

fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgcopy::put_bytes;

    fn columns(key: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, key.as_bytes());
        out
    }

    #[test]
    fn rows_sort_as_postgresql_sorts_collate_c() {
        let keys = [
            "b",
            "a",
            "",
            "aaaaaaaab",
            "aaaaaaaaa",
            "é",
            "aaaaaaaa",
            "a\u{1}",
        ];
        let mut set = RowSet::default();
        for (line, key) in keys.iter().enumerate() {
            set.push(&columns(key), line as u64, 0);
        }
        set.sort();
        let sorted: Vec<&[u8]> = set.refs().iter().map(|row| set.key(row)).collect();
        let mut expected: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        expected.sort_unstable();
        assert_eq!(sorted, expected);
    }

    #[test]
    fn prefixes_say_what_eight_bytes_can() {
        assert_eq!(prefix(b""), 0);
        assert_eq!(prefix(b"ab"), 0x6162_0000_0000_0000);
        assert_eq!(prefix(b"abcdefghi"), 0x6162_6364_6566_6768);
    }

    #[test]
    fn rows_of_one_key_sort_by_line() {
        let mut set = RowSet::default();
        for (key, line) in [("k", 3), ("k", 1), ("a", 9), ("k", 2)] {
            set.push(&columns(key), line, line as i64);
        }
        set.sort();
        let sorted: Vec<_> = set
            .refs()
            .iter()
            .map(|row| (row.line, row.source_hash, row.order))
            .collect();
        assert_eq!(sorted, [(9, 9, 2), (1, 1, 1), (2, 2, 3), (3, 3, 0)]);
    }

    #[test]
    fn any_number_of_rows_is_kept_whole() {
        let row = |i: usize| columns(&format!("{i}{}", "x".repeat(i * 37 % 3000)));
        let mut set = RowSet::default();
        assert!(set.is_empty());
        let mut bytes = 0;
        for i in 0..1000 {
            set.push(&row(i), i as u64, 0);
            bytes += row(i).len() + size_of::<RowRef>();
            assert_eq!(
                (set.len(), set.bytes(), set.is_empty()),
                (i + 1, bytes, false)
            );
        }
        assert!(set.segments.len() > 4);
        assert!(
            set.segments
                .iter()
                .all(|segment| segment.capacity() == SEGMENT_BYTES)
        );
        for (i, found) in set.refs().iter().enumerate() {
            assert_eq!(set.columns(found), row(i));
        }
    }

    #[test]
    fn a_row_may_fill_a_segment() {
        let mut set = RowSet::default();
        for _ in 0..2 {
            set.push(&columns(&"x".repeat(SEGMENT_BYTES / 2 - 4)), 0, 0);
        }
        assert_eq!(set.segments.len(), 1);
        set.push(&columns(""), 0, 0);
        assert_eq!(set.segments.len(), 2);
    }

    #[test]
    fn segments_are_used_again_and_hold_nothing_then() {
        let pool = Pool::default();
        let mut set = RowSet::from_pool(&pool);
        set.push(&columns("first"), 0, 0);
        let address = set.segments[0].as_ptr();
        drop(set);
        // It would get the same memory if that were free.
        let _taken = Vec::<u8>::with_capacity(SEGMENT_BYTES);
        let mut set = RowSet::from_pool(&pool);
        set.push(&columns("second"), 0, 0);
        assert_eq!(set.segments[0].as_ptr(), address);
        assert_eq!(set.segments[0], columns("second"));
    }
}
