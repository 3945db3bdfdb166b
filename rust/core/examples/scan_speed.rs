//! How fast one thread turns a file into rows: `scan_speed FILE.csv [ROUNDS]`.
//!
//! The file is read into memory first; the best of the rounds counts. Hashing and encoding are
//! included, reading is not.

use std::time::{Duration, Instant};

use customer_panel_core::parse::{HashKeys, Parsed, parse};
use customer_panel_core::plan::{DateOrder, Plan};
use customer_panel_core::scan::{Cut, Cutter};

const BLOCK_BYTES: usize = 1 << 20; // a chunk and its payload stay in the level 2 cache

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .ok_or("usage: scan_speed FILE.csv [ROUNDS]")?;
    let rounds: usize = arguments.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let bytes = std::fs::read(path)?;
    let (plan, start, _) = Plan::from_header(&bytes, None, &[], DateOrder::Auto)?;
    let keys = HashKeys::new(7, &plan, false);
    let records = &bytes[start..];

    let mut best = (Duration::MAX, Duration::MAX);
    let mut parsed = Parsed::default();
    for round in 0..rounds {
        let started = Instant::now();
        let mut chunks = 0;
        cut(records, plan.delimiter, |_| chunks += 1);
        let cut_in = started.elapsed();

        let started = Instant::now();
        let (mut rows, mut findings, mut payload, mut sum) = (0, 0, 0, 0i64);
        cut(records, plan.delimiter, |chunk| {
            parse(chunk, &plan, &keys, &mut parsed);
            rows += parsed.rows.len();
            findings += parsed.findings.len();
            payload += parsed.payload.len();
            for row in &parsed.rows {
                sum = sum.wrapping_add(row.source_hash);
            }
        });
        best = (best.0.min(started.elapsed()), best.1.min(cut_in));
        if round == 0 {
            println!("{chunks} chunks, {rows} rows, {findings} findings");
            println!("{payload} payload bytes, hash sum {sum:x}");
        }
    }
    let speed = |time: Duration| records.len() as f64 / 1e6 / time.as_secs_f64();
    println!(
        "cut and parse: {:.0} MB/s; cut alone: {:.0} MB/s",
        speed(best.0),
        speed(best.1)
    );
    Ok(())
}

/// Hands on chunks of whole records, as a reader of blocks would find them.
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
