//! How fast one thread turns a file into rows: `scan_speed FILE.csv [ROUNDS]`.
//!
//! The file is read into memory first; the best of the rounds counts. Hashing and encoding are
//! included, reading is not.

use customer_panel_core::bench::measure;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .ok_or("usage: scan_speed FILE.csv [ROUNDS]")?;
    let rounds: usize = arguments.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let (seen, times) = measure(&std::fs::read(path)?, rounds)?;
    println!(
        "{} rows, {} findings, {} payload bytes, hash sum {:x}",
        seen.rows, seen.findings, seen.payload_bytes, seen.hash_sum
    );
    let speed = |time: f64| seen.records_bytes as f64 / 1e6 / time;
    let best = |seconds: fn(&customer_panel_core::bench::Round) -> f64| {
        times.iter().map(seconds).fold(f64::MAX, f64::min)
    };
    println!(
        "cut and parse: {:.0} MB/s; cut alone: {:.0} MB/s",
        speed(best(|round| round.cut_and_parse.as_secs_f64())),
        speed(best(|round| round.cut.as_secs_f64()))
    );
    Ok(())
}
