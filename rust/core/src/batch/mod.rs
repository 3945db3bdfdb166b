//! What one lane commits at once: rows ready for COPY, counts, rejects, and the byte span they stand for.

pub mod blocks;
pub mod frame;
pub mod row_set;

use crate::identity::chains::Parked;
use blocks::Block;
use frame::Target;
use row_set::{Pool, RowSet};

/// Rows by class. `processed` is the sum of all others but `warnings`. What becomes of changed and pending rows is
/// decided in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub processed: u64,
    pub new: u64,
    pub changed: u64,
    pub unchanged: u64,
    pub duplicate: u64,
    pub pending: u64,
    pub skipped: u64,
    pub warnings: u64,
}

#[derive(Default)]
pub struct Batch {
    pub lane: u32,
    /// The byte span of the file: every row of the lane that begins in it is in this batch.
    pub from: u64,
    pub to: u64,
    pub counts: Counts,
    /// Rows of new identities, for `customers`.
    pub new_rows: RowSet,
    /// Rows of known identities with another hash, for the merge.
    pub changed: RowSet,
    /// Rows for `import_parked`, and which row of its identity each is.
    pub waiting: RowSet,
    pub parked: Vec<Parked>,
    /// Binary COPY tuples of `import_rejects`, without header and trailer.
    pub findings: Vec<u8>,
    pub last_row_hash: Option<i64>,
    pub last_line: u64,
    /// Blocks that were completed since this lane's last batch, and the hash from the last block's end to `to`.
    pub blocks: Vec<Block>,
    pub tail_hash: i64,
}

/// The streams of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    New,
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
            new_rows: set(),
            changed: set(),
            waiting: set(),
            ..Batch::default()
        }
    }

    pub fn bytes(&self) -> usize {
        self.new_rows.bytes() + self.changed.bytes() + self.waiting.bytes() + self.findings.len()
    }

    pub fn rows(&self) -> usize {
        self.new_rows.len() + self.changed.len() + self.waiting.len()
    }

    /// Frees the rows; span and counts stay.
    pub fn clear_rows(&mut self) {
        (self.new_rows, self.changed, self.waiting) = Default::default();
        (self.parked, self.findings) = Default::default();
    }

    /// Sorts by key the rows that go to an index. The lane calls it, not the one thread that all lanes wait for.
    pub fn sort(&mut self) {
        self.new_rows.sort();
        self.changed.sort();
    }

    pub fn part(&self, part: Part) -> &RowSet {
        match part {
            Part::New => &self.new_rows,
            Part::Changed => &self.changed,
            Part::Waiting => &self.waiting,
        }
    }

    /// See [`frame::frame`].
    pub fn frame(
        &self,
        part: Part,
        target: &Target,
        next: &mut usize,
        enough: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        frame::frame(self.part(part), &self.parked, target, next, enough, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgcopy;

    fn columns(key: &str) -> Vec<u8> {
        let mut out = Vec::new();
        pgcopy::put_bytes(&mut out, key.as_bytes());
        out
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
                Parked::Later
            });
        }
        let target = &Target::Parked { import_id: 5 };
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

    fn filled() -> Batch {
        let mut batch = Batch::begin(3, 100, &Pool::default());
        for key in ["c", "a"] {
            batch.new_rows.push(&columns(key), 1, 0);
            batch.changed.push(&columns(key), 2, 0);
            batch.waiting.push(&columns(key), 3, 0);
            batch.parked.push(Parked::First);
        }
        batch.new_rows.push(&columns("b"), 1, 0);
        batch.findings.extend([0; 10]);
        batch
    }

    #[test]
    fn a_batch_begins_empty_where_the_last_one_ended() {
        let batch = Batch::begin(3, 100, &Pool::default());
        assert_eq!((batch.lane, batch.from, batch.to), (3, 100, 100));
        assert_eq!((batch.rows(), batch.bytes()), (0, 0));
    }

    #[test]
    fn rows_and_bytes_are_those_of_all_parts() {
        let batch = filled();
        assert_eq!(batch.rows(), 7);
        let row = columns("a").len() + size_of::<row_set::RowRef>();
        assert_eq!(batch.bytes(), 7 * row + 10);
        let lines =
            [Part::New, Part::Changed, Part::Waiting].map(|part| batch.part(part).refs()[0].line);
        assert_eq!(lines, [1, 2, 3]);
    }

    #[test]
    fn rows_for_an_index_are_sorted_and_waiting_ones_are_not() {
        let mut batch = filled();
        batch.sort();
        let keys = |part| -> String {
            let set = batch.part(part);
            let key = |row| char::from(*set.columns(row).last().unwrap());
            set.refs().iter().map(key).collect()
        };
        assert_eq!(
            [Part::New, Part::Changed, Part::Waiting].map(keys),
            ["abc", "ac", "ca"]
        );
    }

    #[test]
    fn cleared_rows_leave_span_and_counts() {
        let mut batch = filled();
        batch.counts.new = 3;
        batch.clear_rows();
        assert_eq!((batch.rows(), batch.bytes(), batch.parked.len()), (0, 0, 0));
        assert_eq!((batch.lane, batch.from, batch.counts.new), (3, 100, 3));
    }

    #[test]
    fn all_parts_use_the_memory_of_the_pool() {
        let pool = Pool::default();
        for part in [Part::New, Part::Changed, Part::Waiting] {
            let fill = |batch: &mut Batch| {
                let set = match part {
                    Part::New => &mut batch.new_rows,
                    Part::Changed => &mut batch.changed,
                    Part::Waiting => &mut batch.waiting,
                };
                set.push(&columns("k"), 1, 0);
                set.columns(&set.refs()[0]).as_ptr()
            };
            let mut first = Batch::begin(0, 0, &pool);
            let address = fill(&mut first);
            drop(first);
            // It would get the same memory if that were free.
            let _taken = Vec::<u8>::with_capacity(256 << 10);
            assert_eq!(fill(&mut Batch::begin(0, 0, &pool)), address, "{part:?}");
        }
    }
}
