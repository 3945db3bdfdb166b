//! Compares every batch of a run with the naive import.

use crate::case::{Case, HEADER};
use crate::naive::{Entry, batch_of, expected, records};
use crate::run::{RowSeen, run};
use customer_panel_core::batch::Counts;
use customer_panel_core::batch::row_set::RowRef;
use customer_panel_core::identity::chains::Parked;
use customer_panel_core::identity::known::Known;
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
    let mut run = run(case, case.map());
    assert_eq!(run.decided, expected.end, "where the tail begins");
    if !expected.is_cut_short {
        assert_eq!(run.end, case.file.len() as u64);
    }
    assert_eq!(run.unchanged, expected.unchanged);
    assert_eq!(run.changed.is_some(), !expected.second.is_empty());
    if let Some(known) = run.changed.take() {
        check_second(case, known, run.end, &expected.second);
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

/// The second reading parks the rows that it has to, and does nothing else.
fn check_second(case: &Case, known: Known, end: u64, expected: &[(u32, RowSeen, Parked)]) {
    let start = HEADER.len() as u64;
    let case = Case {
        is_second: true,
        done_to: vec![start; case.done_to.len()],
        until: case.until.or(Some(end)),
        ..case.clone()
    };
    let run = run(&case, Some(known));
    let mut found = Vec::new();
    let lanes = (case.first_lane..).zip(run.lanes);
    let batches = lanes.flat_map(|(lane, batches)| batches.into_iter().map(move |it| (lane, it)));
    for (lane, batch) in batches.chain(run.tails) {
        assert_eq!(batch.counts, Counts::default());
        assert!(batch.new_rows.is_empty() && batch.changed.is_empty());
        assert!(batch.findings.is_empty());
        let rows = batch.waiting.into_iter().zip(batch.parked);
        found.extend(rows.map(|(row, parked)| (lane, row, parked)));
    }
    found.sort_by_key(|(_, row, _)| row.0);
    assert_eq!(found, expected);
}
