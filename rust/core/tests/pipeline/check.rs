//! Compares every batch of a run with the naive import.

use crate::case::Case;
use crate::naive::{Entry, batch_of, expected, records};
use crate::run::run;
use customer_panel_core::batch::row_set::RowRef;
use customer_panel_core::rows::findings::Code;

/// Whether a batch of these entries has to be closed.
fn is_full(case: &Case, entries: &[&Entry]) -> bool {
    let batch = batch_of(case, (0, 0), entries);
    let sent = [&batch.new_rows, &batch.changed, &batch.waiting];
    let rows: usize = sent.iter().map(|rows| rows.len()).sum();
    let columns: usize = sent.iter().copied().flatten().map(|row| row.2.len()).sum();
    let bytes = columns + rows * size_of::<RowRef>() + batch.findings.len();
    let most = case.batch_bytes.min(case.budget / 4 / case.done_to.len());
    rows >= case.batch_rows || bytes >= most.max(1)
}

/// Runs a case and compares every batch with the naive import.
pub fn check(case: &Case) {
    let records = records(case);
    let expected = expected(case, &records);
    let run = run(case);
    assert_eq!(run.decided, expected.end, "where the tail begins");
    if !expected.is_cut_short {
        assert_eq!(run.end, case.file.len() as u64);
    }
    // A record over the limit that lies in several chunks closes the batches before it.
    let oversize: Vec<_> = records
        .iter()
        .filter(|record| {
            record
                .finding
                .is_some_and(|it| it.code == Code::RecordOverLimit)
        })
        .collect();
    let borders: Vec<u64> = oversize.iter().map(|record| record.from).collect();
    let longest = (case.limits.record + case.limits.field + 2 + case.chunk_bytes) as u64;
    for (index, mut batches) in run.lanes.into_iter().enumerate() {
        let lane = case.first_lane + index as u32;
        let entries = &expected.lanes[index];
        let within = |(from, to): (u64, u64)| -> Vec<&Entry> {
            let is_in = |entry: &&Entry| (from..to).contains(&entry.record.from);
            entries.iter().filter(is_in).collect()
        };
        let mut at = case.done_to[index];
        let count = batches.len();
        for (number, batch) in batches.iter().enumerate() {
            let (from, to) = batch.span;
            assert!(
                from == at && from < to,
                "{from}..{to} does not go on at {at}"
            );
            at = to;
            let mine = within(batch.span);
            let is_full = is_full(case, &mine);
            if number + 1 < count && !is_full && !borders.contains(&to) {
                assert!(
                    to - from >= case.checkpoint_bytes,
                    "{from}..{to} is too early"
                );
            }
            // A record over the limit closes no batch; the next record of the lane does.
            let before = &mine[..mine.len().saturating_sub(1)];
            let is_late = before
                .last()
                .is_some_and(|last| !borders.contains(&last.record.from))
                && self::is_full(case, before);
            assert!(!is_late, "{from}..{to} is too late");
            let skipped = oversize
                .iter()
                .filter(|record| (from..to).contains(&record.from))
                .map(|record| record.to - record.from)
                .sum::<u64>();
            let most = case.checkpoint_bytes.saturating_add(longest + skipped);
            assert!(to - from < most, "{from}..{to} is too long");
        }
        assert_eq!(
            at,
            expected.end.max(case.done_to[index]),
            "lane {lane} ends"
        );
        let tails: Vec<_> = (run.tails.iter().filter(|(tail, _)| *tail == lane))
            .map(|(_, tail)| tail.clone())
            .collect();
        let is_in_tail = |entry: &&Entry| entry.record.from >= expected.end;
        let has_tail = entries.iter().any(|entry| is_in_tail(&entry));
        assert_eq!(tails.len(), usize::from(has_tail), "lane {lane} has a tail");
        if let Some(tail) = tails.first() {
            assert_eq!(tail.span, (at, run.end));
        }
        let mut taken = 0;
        batches.extend(tails);
        for batch in &batches {
            let mine = within(batch.span);
            taken += mine.len();
            assert_eq!(*batch, batch_of(case, batch.span, &mine), "lane {lane}");
        }
        assert_eq!(taken, entries.len(), "lane {lane} takes every record once");
    }
}
