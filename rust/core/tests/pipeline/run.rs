//! Runs a case through the pipeline, a thread for each lane, and takes its batches apart.

use crate::case::Case;
use customer_panel_core::batch::row_set::{RowRef, RowSet};
use customer_panel_core::batch::{Batch, Counts, Part};
use customer_panel_core::identity::chains::Parked;
use customer_panel_core::identity::known::Known;
use customer_panel_core::pipeline::source::{Feed, Source, feed};
use std::sync::Arc;
use std::time::Duration;

pub type RowSeen = (u64, i64, Vec<u8>);

/// A batch, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub span: (u64, u64),
    pub counts: Counts,
    pub new_rows: Vec<RowSeen>,
    pub changed: Vec<RowSeen>,
    pub waiting: Vec<RowSeen>,
    pub parked: Vec<Parked>,
    pub findings: Vec<u8>,
    pub last_row_hash: Option<i64>,
    pub last_line: u64,
    pub blocks: Vec<(u64, i64)>,
    pub tail_hash: i64,
}

fn rows_of(set: &RowSet) -> Vec<RowSeen> {
    let row = |row: &RowRef| (row.line, row.source_hash, set.columns(row).to_vec());
    set.refs().iter().map(row).collect()
}

fn seen(batch: &Batch) -> Seen {
    let blocks = batch.blocks.iter();
    Seen {
        span: (batch.from, batch.to),
        counts: batch.counts,
        new_rows: rows_of(batch.part(Part::New)),
        changed: rows_of(batch.part(Part::Changed)),
        waiting: rows_of(batch.part(Part::Waiting)),
        parked: batch.parked.clone(),
        findings: batch.findings.clone(),
        last_row_hash: batch.last_row_hash,
        last_line: batch.last_line,
        blocks: blocks.map(|block| (block.number, block.hash)).collect(),
        tail_hash: batch.tail_hash,
    }
}

pub struct Run {
    /// For each lane its batches, in the order in which they came.
    pub lanes: Vec<Vec<Seen>>,
    /// Lane and batch.
    pub tails: Vec<(u32, Seen)>,
    pub decided: u64,
    pub end: u64,
    pub unchanged: u64,
    /// The map for the second reading.
    pub changed: Option<Known>,
}

/// Sends the rest of the file in buffers, until all is sent or nobody reads.
fn send(feed: Feed, case: &Case) {
    let mut rest = &case.file[..];
    for bytes in case.buffers.iter().cycle() {
        let (buffer, later) = rest.split_at(rest.len().min(*bytes));
        rest = later;
        if buffer.is_empty() || !feed.push(buffer) {
            break;
        }
    }
    feed.end(Ok(()));
}

pub fn run(case: &Case, known: Option<Known>) -> Run {
    let (sender, fed) = feed();
    let source = Source::from_fed(fed);
    std::thread::scope(|scope| {
        scope.spawn(|| send(sender, case));
        let head = source.head(case.head, Duration::from_secs(60)).unwrap();
        assert_eq!(head.as_deref(), Some(&case.file[..case.head]));
        let pipeline = Arc::new(case.start_with(&source, known));
        let lane = |lane| {
            let pipeline = Arc::clone(&pipeline);
            let batches = move || {
                let mut batches = Vec::new();
                while let Some(mut batch) = pipeline.next(lane) {
                    assert_eq!(batch.lane, lane);
                    batches.push(seen(&batch));
                    batch.release();
                }
                batches
            };
            scope.spawn(batches)
        };
        let lanes = case.first_lane..case.first_lane + case.done_to.len() as u32;
        let threads: Vec<_> = lanes.map(lane).collect();
        let lanes = threads.into_iter().map(|thread| thread.join().unwrap());
        let lanes = lanes.collect();
        let outcome = pipeline.outcome().expect("the run succeeds");
        let tails = outcome.tails.iter();
        Run {
            lanes,
            tails: tails.map(|batch| (batch.lane, seen(batch))).collect(),
            decided: outcome.decided,
            end: outcome.end,
            unchanged: outcome.unchanged,
            changed: outcome.changed,
        }
    })
}
