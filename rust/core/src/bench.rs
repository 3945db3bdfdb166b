//! How fast one thread turns a file's bytes into rows. A measurement, for the example and the bench command.

use crate::csv::cutter::{Cut, Cutter};
use crate::identity::hash::HashKeys;
use crate::plan::Plan;
use crate::plan::error::PlanError;
use crate::rows::parse::{Parsed, parse};
use crate::values::dates::DateOrder;
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 1 << 20; // a chunk and its payload stay in the level 2 cache

/// What came out of one round, the same for every round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parse {
    pub records_bytes: usize,
    pub rows: usize,
    pub findings: usize,
    pub payload_bytes: usize,
    /// Sum of the source hashes: the compiler cannot remove the work, and two builds can be compared.
    pub hash_sum: i64,
}

/// The times of one round: to cut chunks of whole records; and to cut, parse, convert, hash and encode.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub cut: Duration,
    pub cut_and_parse: Duration,
}

/// Parses `bytes`, a whole file with its header, `rounds` times.
pub fn measure(bytes: &[u8], rounds: usize) -> Result<(Parse, Vec<Round>), PlanError> {
    let (plan, start, _) = Plan::from_header(bytes, None, &[], DateOrder::Auto)?;
    let keys = HashKeys::new(7, plan.mapped, false);
    let records = &bytes[start..];
    let mut seen = Parse::default();
    let mut times = Vec::with_capacity(rounds);
    let mut parsed = Parsed::default();
    for _ in 0..rounds {
        let started = Instant::now();
        cut(records, plan.delimiter, |chunk| {
            std::hint::black_box(chunk);
        });
        let cut_in = started.elapsed();

        let started = Instant::now();
        seen = Parse {
            records_bytes: records.len(),
            ..Parse::default()
        };
        cut(records, plan.delimiter, |chunk| {
            parse(chunk, &plan, &keys, &mut parsed);
            seen.rows += parsed.rows.len();
            seen.findings += parsed.findings.len();
            seen.payload_bytes += parsed.payload.len();
            for row in &parsed.rows {
                seen.hash_sum = seen.hash_sum.wrapping_add(row.source_hash);
            }
        });
        times.push(Round {
            cut: cut_in,
            cut_and_parse: started.elapsed(),
        });
    }
    Ok((seen, times))
}

/// Calls `take` with chunks of whole records, as a reader of blocks would cut them.
fn cut<'a>(records: &'a [u8], delimiter: u8, mut take: impl FnMut(&'a [u8])) {
    let mut cutter = Cutter::new(delimiter);
    let (mut from, mut to) = (0, 0);
    loop {
        match cutter.cut(&records[from..to], to == records.len()) {
            Cut::Records { end } => {
                take(&records[from..from + end]);
                from += end;
            }
            Cut::NeedMore => to = records.len().min(to + BLOCK_BYTES),
            Cut::Skip { end, .. } => from += end,
            Cut::End => return,
        }
    }
}
