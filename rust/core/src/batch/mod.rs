//! What one lane commits at once: rows ready for COPY, counts, rejects, and the byte span they stand for.

pub mod blocks;

use crate::pgcopy::{self, Target};
use std::sync::{Arc, Mutex};

/// Why a row waits in `import_parked` for the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// The first row of its identity in this file.
    First,
    /// A later one; with the first row's hash where that went its way.
    Later { first_hash: Option<i64> },
}

/// One row of a set. `prefix` holds the first eight bytes of the key, so that most comparisons of a sort touch nothing else.
#[derive(Clone, Copy, Debug)]
pub struct RowRef {
    prefix: u64,
    at: u32,
    len: u32,
    /// Place in which the row was added.
    pub order: u32,
    pub line: u64,
    pub source_hash: i64,
}

/// A row is shorter: its values are limited, to 2,000 characters the longest.
const SEGMENT_BYTES: usize = 256 << 10;

/// Segments that no batch needs now. All are of one size, so they are never too small, and memory does not fragment.
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

/// Rows whose columns lie encoded in segments; none lies across two.
#[derive(Default)]
pub struct RowSet {
    segments: Vec<Vec<u8>>,
    bytes: usize,
    refs: Vec<RowRef>,
    pool: Pool,
}

impl RowSet {
    fn from_pool(pool: &Pool) -> Self {
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
        let at = (number * SEGMENT_BYTES + segment.len()) as u32;
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

    /// Rows by key, and rows of one key by line: index pages are then written once a batch, not once a row.
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

/// Rows by outcome. `processed` is the sum of all but `warnings`; `changed` and `pending` are judged by the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub processed: u64,
    pub fresh: u64,
    pub changed: u64,
    pub unchanged: u64,
    pub duplicate: u64,
    pub pending: u64,
    pub skipped: u64,
    pub warnings: u64,
}

/// The hash of a whole 16 MiB block of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub number: u64,
    pub hash: i64,
}

#[derive(Default)]
pub struct Batch {
    pub lane: u32,
    /// The byte span of the file: every row of the lane that begins in it is in this batch.
    pub from: u64,
    pub to: u64,
    pub counts: Counts,
    /// New identities, for `customers`.
    pub fresh: RowSet,
    /// Known ones with another hash, for the merge.
    pub changed: RowSet,
    pub waiting: RowSet,
    pub parked: Vec<Parked>,
    /// Binary COPY tuples of `import_rejects`, without header and trailer.
    pub findings: Vec<u8>,
    pub last_row_hash: Option<i64>,
    pub last_line: u64,
    /// Blocks that were completed since this lane's last batch, and the hash from the last border to `to`.
    pub blocks: Vec<Block>,
    pub tail_hash: i64,
}

/// The streams of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Fresh,
    Changed,
    Waiting,
}

impl Batch {
    /// An empty batch that begins at `from`.
    pub fn begin(lane: u32, from: u64, pool: &Pool) -> Self {
        let set = || RowSet::from_pool(pool);
        Batch {
            lane,
            from,
            to: from,
            fresh: set(),
            changed: set(),
            waiting: set(),
            ..Batch::default()
        }
    }

    pub fn bytes(&self) -> usize {
        self.fresh.bytes() + self.changed.bytes() + self.waiting.bytes() + self.findings.len()
    }

    pub fn rows(&self) -> usize {
        self.fresh.len() + self.changed.len() + self.waiting.len()
    }

    /// Frees the rows; span and counts stay.
    pub fn clear_rows(&mut self) {
        (self.fresh, self.changed, self.waiting) = Default::default();
        (self.parked, self.findings) = Default::default();
    }

    /// Sorts by key what goes to an index. Done by the lane, not by the one thread that all lanes wait for.
    pub fn sort(&mut self) {
        self.fresh.sort();
        self.changed.sort();
    }

    pub fn part(&self, part: Part) -> &RowSet {
        match part {
            Part::Fresh => &self.fresh,
            Part::Changed => &self.changed,
            Part::Waiting => &self.waiting,
        }
    }

    /// See [`pgcopy::frame`].
    pub fn frame(
        &self,
        part: Part,
        target: Target,
        next: &mut usize,
        enough: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        pgcopy::frame(self.part(part), &self.parked, target, next, enough, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(key: &str) -> Vec<u8> {
        let mut out = Vec::new();
        pgcopy::put_bytes(&mut out, key.as_bytes());
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
    fn a_stream_is_the_same_in_pieces_of_any_size() {
        let mut batch = Batch::default();
        for i in 0..50u64 {
            batch
                .waiting
                .push(&columns(&format!("key{i}")), i, i as i64);
            batch.parked.push(if i % 2 == 0 {
                Parked::First
            } else {
                Parked::Later {
                    first_hash: Some(7),
                }
            });
        }
        let target = Target::Parked { import_id: 5 };
        let mut whole = Vec::new();
        assert!(batch.frame(Part::Waiting, target, &mut 0, usize::MAX, &mut whole));
        for enough in [1, 19, 100, 1000] {
            let (mut pieces, mut next) = (Vec::new(), 0);
            loop {
                let mut piece = Vec::new();
                let is_complete = batch.frame(Part::Waiting, target, &mut next, enough, &mut piece);
                pieces.extend(piece);
                if is_complete {
                    break;
                }
            }
            assert_eq!(pieces, whole);
        }
        assert!(whole.starts_with(&pgcopy::HEADER) && whole.ends_with(&pgcopy::TRAILER));
    }
}
