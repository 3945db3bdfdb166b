//! One lane of a run: the batch that it fills, and where its finished batches go.

use crate::batch::Batch;
use crate::batch::blocks::{BLOCK_BYTES, Block};
use crate::batch::row_set::Pool;
use crate::identity::chains::Parked;
use crate::identity::classify::Class;
use crate::pipeline::budget::Outlet;

pub struct Lane {
    pub batch: Batch,
    pub outlet: Outlet,
    /// What begins before this offset is in the database already.
    pub done_to: u64,
    /// Blocks of the file whose hashes went out with a batch of this lane.
    blocks_sent: usize,
}

impl Lane {
    pub fn new(number: u32, done_to: u64, outlet: Outlet, pool: &Pool) -> Self {
        Lane {
            batch: Batch::begin(number, done_to, pool),
            outlet,
            done_to,
            blocks_sent: (done_to / BLOCK_BYTES) as usize,
        }
    }

    /// Adds a row to the batch, or only to its counts if the row need not be sent.
    pub fn add(&mut self, class: Class, columns: &[u8], line: u64, hash: i64) {
        let batch = &mut self.batch;
        batch.counts.processed += 1;
        batch.last_row_hash = Some(hash);
        batch.last_line = line;
        match class {
            Class::New => {
                batch.counts.new += 1;
                batch.new_rows.push(columns, line, hash);
            }
            Class::Changed => {
                batch.counts.changed += 1;
                batch.changed.push(columns, line, hash);
            }
            Class::Unchanged => batch.counts.unchanged += 1,
            Class::Parked(parked, hash) => {
                self.count_waiting(parked);
                self.park(parked, columns, line, hash);
            }
            Class::Waits(parked) => self.count_waiting(parked),
        }
    }

    fn count_waiting(&mut self, parked: Parked) {
        match parked {
            Parked::First => self.batch.counts.pending += 1,
            Parked::Later => self.batch.counts.duplicate += 1,
        }
    }

    /// Adds a row for `import_parked`, without counting it.
    pub fn park(&mut self, parked: Parked, columns: &[u8], line: u64, hash: i64) {
        self.batch.waiting.push(columns, line, hash);
        self.batch.parked.push(parked);
    }

    /// Ends the batch at `to` and begins the next one there.
    ///
    /// `blocks` are those of the whole file so far, `tail_hash` covers the bytes from the last of them to `to`.
    pub fn finish(&mut self, to: u64, blocks: &[Block], tail_hash: i64, pool: &Pool) -> Batch {
        let next = Batch::begin(self.batch.lane, to, pool);
        let mut batch = std::mem::replace(&mut self.batch, next);
        batch.to = to;
        batch.tail_hash = tail_hash;
        batch.blocks = blocks.get(self.blocks_sent..).unwrap_or_default().to_vec();
        self.blocks_sent = self.blocks_sent.max(blocks.len());
        batch
    }
}
