//! One thread that walks the rows of all chunks in file order, classifies them, and fills the lanes' batches.
//!
//! All of the reading that depends on order happens here and only here (the fold of parked rows, in SQL, orders them by
//! line again): which row of an identity is the first, where a batch ends,
//! and the hash of the bytes before a checkpoint. So the number of parsers or lanes cannot change the outcome.

use crate::batch::Batch;
use crate::batch::blocks::{Block, BlockHasher, Hashed};
use crate::batch::frame::{Place, put_finding};
use crate::batch::row_set::Pool;
use crate::identity::classify::{Class, classify};
use crate::identity::known::Known;
use crate::identity::lanes::{REJECT_LANE, lane_of};
use crate::pipeline::budget::{Budget, Outlet};
use crate::pipeline::error::Failure;
use crate::pipeline::lane::Lane;
use crate::pipeline::reader::{Chunk, Piece};
use crate::pipeline::routing::Routing;
use crate::rows::findings::{Code, Finding};
use crate::rows::parse::Row;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;

/// Rows whose slots in the map are read ahead of their turn. 16 reads overlap; 32 were not faster.
const AHEAD: usize = 16;

/// How far a walk came.
pub struct Reached {
    /// The batches of the tail: see [`crate::pipeline::Outcome`].
    pub tails: Vec<Batch>,
    /// Where the tail begins.
    pub decided: u64,
    pub end: u64,
}

pub struct Sequencer {
    routing: Routing,
    /// Without it every row is new: for a caller that wants the parsed rows and no import.
    known: Option<Known>,
    lanes: Vec<Lane>,
    pool: Pool,
    hasher: BlockHasher,
    blocks: Vec<Block>,
    /// Line ends before the current chunk.
    lines: u64,
    /// Where the tail begins, once it has.
    tail: Option<u64>,
    budget: Arc<Budget>,
}

impl Sequencer {
    pub fn new(
        routing: Routing,
        known: Option<Known>,
        outlets: Vec<Outlet>,
        budget: Arc<Budget>,
    ) -> Self {
        let pool = Pool::default();
        let lanes = (routing.first_lane..).zip(outlets).zip(&routing.done_to);
        let lanes = lanes
            .map(|((lane, outlet), &done_to)| Lane::new(lane, done_to, outlet, &pool))
            .collect();
        let lines = routing.header_lines;
        Sequencer {
            routing,
            known,
            lanes,
            pool,
            hasher: BlockHasher::default(),
            blocks: Vec::new(),
            lines,
            tail: None,
            budget,
        }
    }

    /// Walks to the end of the file (or to `until`) and closes every lane's last batch.
    ///
    /// What a longer file might hold differently, its tail, is in batches of its own: the caller commits them when
    /// nothing more can come.
    pub fn run(
        &mut self,
        pieces: &Receiver<Piece>,
        recycle: &Sender<Chunk>,
    ) -> Result<Reached, Failure> {
        let mut offset = 0;
        for piece in pieces {
            self.budget.check()?;
            match piece {
                Piece::Bytes(bytes) => {
                    self.hash(&bytes);
                    offset += bytes.len() as u64;
                }
                Piece::Records { chunk, is_tail } => {
                    let chunk = chunk.recv().map_err(|_| Failure::Broken)?;
                    if is_tail {
                        self.begin_tail(offset)?;
                    }
                    if let Some(end) = self.walk(&chunk, offset)? {
                        return self.reached(end);
                    }
                    offset += chunk.bytes.len() as u64;
                    self.lines += u64::from(chunk.parsed.lines);
                    self.checkpoint(offset)?;
                    // The reader may have ended already.
                    let _ = recycle.send(chunk);
                }
                Piece::OversizeBegins => {
                    // Its bytes are hashed as they pass, so no later checkpoint can lie before them.
                    self.close_all(offset)?;
                    if self.routing.until.is_some_and(|until| offset >= until) {
                        return self.reached(offset);
                    }
                }
                Piece::Oversize {
                    span,
                    lines,
                    raw,
                    is_tail,
                } => {
                    if is_tail {
                        self.begin_tail(offset - span)?;
                    }
                    let finding = Finding {
                        start: 0,
                        end: 0,
                        line: 0,
                        code: Code::RecordOverLimit,
                        field: None,
                        is_warning: false,
                    };
                    self.reject(&finding, offset - span, offset, &raw);
                    self.lines += lines;
                }
                Piece::End { offset: end } if end == offset => return self.reached(end),
                // The pieces do not add up to what was read.
                Piece::End { .. } => return Err(Failure::Broken),
                Piece::Failed(failure) => return Err(failure),
            }
        }
        // The reader is gone without a word: because it was stopped, or because it died.
        self.budget.check()?;
        Err(Failure::Broken)
    }

    /// From `offset` on everything is the tail. Its rows are few: fewer bytes than the longest record and field have.
    fn begin_tail(&mut self, offset: u64) -> Result<(), Failure> {
        if self.tail.is_none() {
            self.close_all(offset)?;
            self.tail = Some(offset);
        }
        Ok(())
    }

    /// Closes the last batches at `end`.
    fn reached(&mut self, end: u64) -> Result<Reached, Failure> {
        let mut tails = Vec::new();
        if self.tail.is_none() {
            self.close_all(end)?;
        } else {
            for index in 0..self.lanes.len() {
                let batch = &self.lanes[index].batch;
                if batch.counts.processed > 0 || batch.rows() > 0 {
                    tails.push(self.finish_batch(index, end));
                }
            }
        }
        Ok(Reached {
            tails,
            decided: self.tail.unwrap_or(end),
            end,
        })
    }

    /// Walks the records of one chunk. `Some`: the walk ends at this offset, because it has come to `until`.
    fn walk(&mut self, chunk: &Chunk, offset: u64) -> Result<Option<u64>, Failure> {
        let Chunk { bytes, parsed } = chunk;
        let mut findings = parsed.findings.iter().peekable();
        let mut hashed = 0;
        let mut rows = parsed.rows.iter().enumerate().peekable();
        loop {
            let (start, end, lane) = match (rows.peek(), findings.peek()) {
                (Some((_, row)), Some(finding)) if finding.start < row.start => {
                    (finding.start, finding.end, REJECT_LANE)
                }
                (Some((_, row)), _) => (
                    row.start,
                    row.end,
                    lane_of(row.lane_hash, self.routing.lanes),
                ),
                (None, Some(finding)) => (finding.start, finding.end, REJECT_LANE),
                (None, None) => break,
            };
            let from = offset + u64::from(start);
            if self.routing.until.is_some_and(|until| from >= until) {
                self.hash(&bytes[hashed..start as usize]);
                return Ok(Some(from));
            }
            let to = offset + u64::from(end);
            if rows.peek().is_some_and(|(_, row)| row.start == start) {
                let (number, row) = rows.next().expect("peek has seen it");
                if number % AHEAD == 0 {
                    self.touch_ahead(&parsed.rows[number..]);
                }
                let warning = findings.next_if(|finding| finding.start == start);
                if self.place(row, &parsed.payload, from, lane)?
                    && let Some(warning) = warning
                {
                    self.warn(
                        warning,
                        from,
                        to,
                        lane,
                        &bytes[start as usize..end as usize],
                    );
                }
            } else {
                let finding = findings.next().expect("peek has seen it");
                self.reject(finding, from, to, &bytes[start as usize..end as usize]);
            }
            if let Some(index) = self.index(lane)
                && self.is_full(index)
            {
                self.hash(&bytes[hashed..end as usize]);
                hashed = end as usize;
                self.close(index, to)?;
            }
        }
        self.hash(&bytes[hashed..]);
        Ok(None)
    }

    /// The index of a lane in this run; None for a lane of another run.
    fn index(&self, lane: u32) -> Option<usize> {
        let index = lane.checked_sub(self.routing.first_lane)? as usize;
        (index < self.lanes.len()).then_some(index)
    }

    fn touch_ahead(&self, rows: &[Row]) {
        if let Some(known) = &self.known {
            let next = rows.iter().skip(AHEAD).take(AHEAD);
            std::hint::black_box(next.fold(0, |sum, row| sum ^ known.touch(row.identity)));
        }
    }

    /// Ends the first reading: how many customers with several rows have the same ones as before, and the map if others
    /// have not.
    pub fn into_chains(self) -> (u64, Option<Known>) {
        let Some(mut known) = self.known else {
            return (0, None);
        };
        let (same, has_changed) = known.chains().end();
        (same, has_changed.then_some(known))
    }

    /// Adds one row to its lane's batch; false if the row is not of this run or is done already.
    fn place(&mut self, row: &Row, payload: &[u8], from: u64, lane: u32) -> Result<bool, Failure> {
        let Some(index) = self.index(lane) else {
            return Ok(false);
        };
        let lane = &mut self.lanes[index];
        let hash = row.source_hash;
        // Lines are counted from 1.
        let line = self.lines + u64::from(row.line) + 1;
        let columns = &payload[row.at as usize..][..row.len as usize];
        if self.routing.is_second {
            let known = self.known.as_mut();
            if let Some((parked, hash)) = known.and_then(|known| known.park(row.identity, hash)) {
                lane.park(parked, columns, line, hash);
            }
            return Ok(false);
        }
        let (rules, is_done) = (self.routing.rules, from < lane.done_to);
        let class = match &mut self.known {
            None => Class::New,
            Some(known) => classify(known, row.identity, hash, rules, is_done)?,
        };
        if !is_done {
            lane.add(class, columns, line, hash);
        }
        Ok(!is_done)
    }

    fn reject(&mut self, finding: &Finding, from: u64, to: u64, raw: &[u8]) {
        if let Some(index) = self.index(REJECT_LANE)
            && from >= self.lanes[index].done_to
            && !self.routing.is_second
        {
            let counts = &mut self.lanes[index].batch.counts;
            counts.processed += 1;
            counts.skipped += 1;
            self.add_finding(finding, from, to, index, raw);
        }
    }

    fn warn(&mut self, finding: &Finding, from: u64, to: u64, lane: u32, raw: &[u8]) {
        if let Some(index) = self.index(lane) {
            self.lanes[index].batch.counts.warnings += 1;
            self.add_finding(finding, from, to, index, raw);
        }
    }

    fn add_finding(&mut self, finding: &Finding, from: u64, to: u64, index: usize, raw: &[u8]) {
        let line = self.lines + u64::from(finding.line) + 1;
        let batch = &mut self.lanes[index].batch;
        batch.last_line = line;
        let place = Place { line, from, to };
        put_finding(
            &mut batch.findings,
            self.routing.import_id,
            finding,
            place,
            raw,
        );
    }

    fn hash(&mut self, bytes: &[u8]) {
        if self.routing.hashes_blocks {
            self.hasher.feed(bytes, |block| self.blocks.push(block));
        }
    }

    /// The hashes of all that was read.
    pub fn hashed(&self) -> Hashed {
        Hashed {
            blocks: self.blocks.clone(),
            to: self.hasher.position(),
            tail_hash: self.hasher.tail(),
        }
    }

    fn is_full(&self, index: usize) -> bool {
        let batch = &self.lanes[index].batch;
        self.tail.is_none()
            && (batch.rows() >= self.routing.batch_rows
                || batch.bytes() >= self.routing.batch_bytes)
    }

    /// Closes the batches that have grown old, at the end of a chunk.
    fn checkpoint(&mut self, to: u64) -> Result<(), Failure> {
        self.budget.check()?;
        if self.tail.is_some() {
            return Ok(());
        }
        for index in 0..self.lanes.len() {
            if to.saturating_sub(self.lanes[index].batch.from) >= self.routing.checkpoint_bytes {
                self.close(index, to)?;
            }
        }
        Ok(())
    }

    fn close_all(&mut self, to: u64) -> Result<(), Failure> {
        (0..self.lanes.len()).try_for_each(|index| self.close(index, to))
    }

    /// Sends a lane's batch and begins the next one. After a resume a lane may be ahead of `to`: it has nothing to
    /// send.
    fn close(&mut self, index: usize, to: u64) -> Result<(), Failure> {
        if to <= self.lanes[index].batch.from {
            return Ok(());
        }
        let batch = self.finish_batch(index, to);
        self.budget.take(batch.bytes())?;
        self.lanes[index].outlet.send(batch)
    }

    fn finish_batch(&mut self, index: usize, to: u64) -> Batch {
        self.lanes[index].finish(to, &self.blocks, self.hasher.tail(), &self.pool)
    }
}
