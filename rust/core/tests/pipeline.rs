//! The pipeline against a naive import of the same file: one thread, one map, one record after the other.
//!
//! What a run may choose freely (sizes of chunks and batches, parsers, lanes at a time, the point of a resume) changes
//! where batches end. It never changes which rows, rejects and counts a span of the file gives.

use customer_panel_core::batch::row_set::{RowRef, RowSet};
use customer_panel_core::batch::{Batch, Counts, Part};
use customer_panel_core::csv::scanner::Limits;
use customer_panel_core::customer::FIELDS;
use customer_panel_core::identity::classify::Parked;
use customer_panel_core::identity::hash::HashKeys;
use customer_panel_core::identity::known::{HELD, Known, MANY, PARKED};
use customer_panel_core::pipeline::Pipeline;
use customer_panel_core::pipeline::error::Failure;
use customer_panel_core::pipeline::reader::{CHUNK_BYTES, Reading};
use customer_panel_core::pipeline::routing::{CHECKPOINT_BYTES, Routing};
use customer_panel_core::pipeline::source::{Feed, Source, feed};
use customer_panel_core::plan::Plan;
use customer_panel_core::rows::findings::{Code, Finding};
use customer_panel_core::rows::parse::{Parsed, parse_within};
use customer_panel_core::values::dates::DateOrder;
use proptest::prelude::*;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use twox_hash::XxHash3_64;

const HEADER: &[u8] = b"id,email,created at\n";
const IMPORT_ID: i64 = 77;
const BLOCK_BYTES: usize = 16 << 20;
/// So small that random input meets every limit.
const TIGHT: Limits = Limits {
    field: 24,
    record: 60,
};

/// An import, and how it is run.
#[derive(Clone, Debug)]
struct Case {
    file: Vec<u8>,
    lanes: u32,
    first_lane: u32,
    done_to: Vec<u64>,
    until: Option<u64>,
    /// Identities with flags and hash; None: no map.
    known: Option<Vec<(u64, u8, i64)>>,
    parks_changed: bool,
    batch_rows: usize,
    batch_bytes: usize,
    checkpoint_bytes: u64,
    budget: usize,
    hashes_blocks: bool,
    limits: Limits,
    /// Bytes of the file that are read before the pipeline starts.
    head: usize,
    chunk_bytes: usize,
    parsers: usize,
    /// Bytes of the buffers that the source sends, over and over.
    buffers: Vec<usize>,
}

impl Case {
    /// One lane, no map, one batch.
    fn new(records: &str) -> Case {
        Case {
            file: [HEADER, records.as_bytes()].concat(),
            lanes: 1,
            first_lane: 0,
            done_to: vec![HEADER.len() as u64],
            until: None,
            known: None,
            parks_changed: false,
            batch_rows: usize::MAX,
            batch_bytes: usize::MAX,
            checkpoint_bytes: CHECKPOINT_BYTES,
            budget: 64 << 20,
            hashes_blocks: true,
            limits: TIGHT,
            head: HEADER.len(),
            chunk_bytes: CHUNK_BYTES,
            parsers: 2,
            buffers: vec![CHUNK_BYTES],
        }
    }

    fn keys(&self) -> HashKeys {
        HashKeys::new(5, plan().mapped, false)
    }

    fn start(&self, source: Source) -> Pipeline {
        let known = self.known.as_ref().map(|entries| {
            let mut known = Known::new(0, usize::MAX);
            for &(identity, flags, hash) in entries {
                known.update(identity, |_| (flags, hash, ())).unwrap();
            }
            known
        });
        self.start_with(source, known)
    }

    fn start_with(&self, source: Source, known: Option<Known>) -> Pipeline {
        let reading = Reading {
            source,
            head: self.file[..self.head].to_vec(),
            data_start: HEADER.len(),
            plan: Arc::new(plan()),
            keys: self.keys(),
            limits: self.limits,
            chunk_bytes: self.chunk_bytes,
            parsers: self.parsers,
        };
        let routing = Routing {
            import_id: IMPORT_ID,
            lanes: self.lanes,
            first_lane: self.first_lane,
            done_to: self.done_to.clone(),
            until: self.until,
            batch_rows: self.batch_rows,
            batch_bytes: self.batch_bytes,
            checkpoint_bytes: self.checkpoint_bytes,
            parks_changed: self.parks_changed,
            header_lines: 1,
            hashes_blocks: self.hashes_blocks,
        };
        Pipeline::start(reading, routing, known, self.budget)
    }
}

fn plan() -> Plan {
    Plan::from_header(HEADER, None, &[], DateOrder::Auto)
        .unwrap()
        .0
}

// -- what the pipeline gives ---------------------------------------------------------------------

type RowSeen = (u64, i64, Vec<u8>);

/// A batch, taken apart.
#[derive(Debug, PartialEq)]
struct Seen {
    span: (u64, u64),
    counts: Counts,
    new_rows: Vec<RowSeen>,
    changed: Vec<RowSeen>,
    waiting: Vec<RowSeen>,
    parked: Vec<Parked>,
    findings: Vec<u8>,
    last_row_hash: Option<i64>,
    last_line: u64,
    blocks: Vec<(u64, i64)>,
    tail_hash: i64,
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

struct Run {
    /// For each lane its batches, in the order in which they came.
    lanes: Vec<Vec<Seen>>,
    tail: Option<(u32, Seen)>,
    end: u64,
}

/// Sends the rest of the file in buffers, until all is sent or nobody reads.
fn send(feed: Feed, case: &Case) {
    let mut rest = &case.file[case.head..];
    for bytes in case.buffers.iter().cycle() {
        let (buffer, later) = rest.split_at(rest.len().min(*bytes));
        rest = later;
        if buffer.is_empty() || !feed.push(Ok(buffer.to_vec())) {
            return;
        }
    }
}

fn run(case: &Case) -> Run {
    let (sender, fed) = feed();
    let pipeline = case.start(Source::Fed(fed));
    std::thread::scope(|scope| {
        scope.spawn(|| send(sender, case));
        let lane = |lane| {
            let pipeline = &pipeline;
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
        let tail = outcome.tail.map(|batch| (batch.lane, seen(&batch)));
        let end = outcome.end;
        Run { lanes, tail, end }
    })
}

// -- what a naive import gives -------------------------------------------------------------------

/// A record of the file. Without `row` it is a reject.
struct Record {
    from: u64,
    to: u64,
    line: u64,
    row: Option<Row>,
    finding: Option<Finding>,
}

struct Row {
    lane_hash: u64,
    identity: u64,
    hash: i64,
    columns: Vec<u8>,
}

fn records(case: &Case) -> Vec<Record> {
    let body = &case.file[HEADER.len()..];
    let mut parsed = Parsed::default();
    parse_within(body, &plan(), &case.keys(), case.limits, &mut parsed);
    let offset = |at: u32| (HEADER.len() + at as usize) as u64;
    let mut records = Vec::new();
    for row in &parsed.rows {
        records.push(Record {
            from: offset(row.start),
            to: offset(row.end),
            line: u64::from(row.line) + 2,
            row: Some(Row {
                lane_hash: row.lane_hash,
                // As many bits as the map keeps.
                identity: row.identity & !15,
                hash: row.source_hash,
                columns: parsed.payload[row.at as usize..][..row.len as usize].to_vec(),
            }),
            finding: None,
        });
    }
    for finding in &parsed.findings {
        let from = offset(finding.start);
        match records.iter_mut().find(|record| record.from == from) {
            Some(record) => record.finding = Some(*finding),
            None => records.push(Record {
                from,
                to: offset(finding.end),
                line: u64::from(finding.line) + 2,
                row: None,
                finding: Some(*finding),
            }),
        }
    }
    records.sort_by_key(|record| record.from);
    records
}

/// A lane is one of `lanes` equal ranges of all hashes.
fn lane_of(lane_hash: u64, lanes: u32) -> u32 {
    let first = |lane: u32| u128::from(lane) << 64;
    let mine = |lane: &u32| first(*lane) <= u128::from(lane_hash) * u128::from(lanes);
    (0..lanes).rev().find(mine).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    New,
    Changed,
    Unchanged,
    Parked(Parked),
    Reject,
}

/// What is known of an identity, and of its first row in this file.
#[derive(Clone, Copy, Default)]
struct State {
    stored: Option<(u8, i64)>,
    /// Hash, and whether the row is parked.
    first: Option<(i64, bool)>,
}

impl State {
    fn is(&self, flag: u8) -> bool {
        self.stored.is_some_and(|(flags, _)| flags & flag != 0)
    }

    fn classify(&mut self, hash: i64, parks_changed: bool) -> Outcome {
        if let Some((first, is_parked)) = self.first {
            let first_hash = (!is_parked).then_some(first);
            return Outcome::Parked(Parked::Later { first_hash });
        }
        let outcome = match self.stored {
            None => Outcome::New,
            Some(_) if self.is(MANY) => Outcome::Parked(Parked::First),
            Some((_, stored)) if stored == hash => Outcome::Unchanged,
            Some(_) if self.is(HELD) || parks_changed => Outcome::Parked(Parked::First),
            Some(_) => Outcome::Changed,
        };
        let is_parked = outcome == Outcome::Parked(Parked::First);
        self.first = Some((hash, is_parked || self.is(PARKED)));
        outcome
    }

    fn recall(&mut self, hash: i64) {
        self.first = self.first.or(Some((hash, self.is(PARKED))));
    }
}

/// A record that a lane of this run takes.
struct Entry<'a> {
    record: &'a Record,
    outcome: Outcome,
}

struct Expected<'a> {
    lanes: Vec<Vec<Entry<'a>>>,
    /// Where all lanes end; a tail lies behind it.
    end: u64,
    tail_lane: Option<u32>,
    is_cut_short: bool,
}

fn expected<'a>(case: &Case, records: &'a [Record]) -> Expected<'a> {
    let mut states: HashMap<u64, State> = HashMap::new();
    for &(identity, flags, hash) in case.known.iter().flatten() {
        let state = states.entry(identity).or_default();
        let before = state.stored.map_or(0, |(flags, _)| flags);
        state.stored = Some((before | flags, hash));
    }
    let file_end = case.file.len() as u64;
    let is_open = !matches!(case.file.last(), Some(b'\n' | b'\r'));
    let mut expected = Expected {
        lanes: case.done_to.iter().map(|_| Vec::new()).collect(),
        end: file_end,
        tail_lane: None,
        is_cut_short: false,
    };
    for record in records {
        if case.until.is_some_and(|until| record.from >= until) {
            (expected.end, expected.is_cut_short) = (record.from, true);
            break;
        }
        let lane = record
            .row
            .as_ref()
            .map_or(0, |row| lane_of(row.lane_hash, case.lanes));
        let index = (lane as usize).wrapping_sub(case.first_lane as usize);
        let is_ours = index < case.done_to.len();
        if is_open && record.to == file_end {
            expected.end = record.from;
            expected.tail_lane = is_ours.then_some(lane);
        }
        if !is_ours {
            continue;
        }
        let is_done = record.from < case.done_to[index];
        let outcome = match &record.row {
            None => Outcome::Reject,
            Some(_) if case.known.is_none() => Outcome::New,
            Some(row) if is_done => {
                states.entry(row.identity).or_default().recall(row.hash);
                continue;
            }
            Some(row) => states
                .entry(row.identity)
                .or_default()
                .classify(row.hash, case.parks_changed),
        };
        if !is_done {
            expected.lanes[index].push(Entry { record, outcome });
        }
    }
    expected
}

fn field(out: &mut Vec<u8>, value: &[u8]) {
    out.extend((value.len() as u32).to_be_bytes());
    out.extend(value);
}

/// A tuple of `import_rejects` in the binary format of COPY.
fn finding_tuple(case: &Case, record: &Record, finding: &Finding) -> Vec<u8> {
    let mut out = vec![0, 9];
    for number in [
        IMPORT_ID,
        record.line as i64,
        record.from as i64,
        record.to as i64,
    ] {
        field(&mut out, &number.to_be_bytes());
    }
    let severity: &[u8] = if record.row.is_some() {
        b"warning"
    } else {
        b"reject"
    };
    field(&mut out, severity);
    field(&mut out, finding.code.as_str().as_bytes());
    match finding.field {
        None => out.extend([0xff; 4]),
        Some(number) => field(&mut out, FIELDS[number as usize].name.as_bytes()),
    }
    field(&mut out, finding.code.message().as_bytes());
    let raw = &case.file[record.from as usize..record.to as usize];
    field(&mut out, &raw[..raw.len().min(64 << 10)]);
    out
}

/// The batch of a span that holds these entries.
fn batch_of(case: &Case, span: (u64, u64), entries: &[&Entry]) -> Seen {
    let mut seen = Seen {
        span,
        counts: Counts::default(),
        new_rows: Vec::new(),
        changed: Vec::new(),
        waiting: Vec::new(),
        parked: Vec::new(),
        findings: Vec::new(),
        last_row_hash: None,
        last_line: 0,
        blocks: Vec::new(),
        tail_hash: 0,
    };
    for Entry { record, outcome } in entries {
        seen.counts.processed += 1;
        seen.last_line = record.line;
        if let Some(row) = &record.row {
            seen.last_row_hash = Some(row.hash);
            let row = (record.line, row.hash, row.columns.clone());
            match outcome {
                Outcome::New => seen.new_rows.push(row),
                Outcome::Changed => seen.changed.push(row),
                Outcome::Parked(parked) => {
                    seen.waiting.push(row);
                    seen.parked.push(*parked);
                }
                _ => {}
            }
        }
        match outcome {
            Outcome::New => seen.counts.new += 1,
            Outcome::Changed => seen.counts.changed += 1,
            Outcome::Unchanged => seen.counts.unchanged += 1,
            Outcome::Parked(Parked::First) => seen.counts.pending += 1,
            Outcome::Parked(Parked::Later { .. }) => seen.counts.duplicate += 1,
            Outcome::Reject => seen.counts.skipped += 1,
        }
        if let Some(finding) = &record.finding {
            seen.counts.warnings += u64::from(record.row.is_some());
            seen.findings.extend(finding_tuple(case, record, finding));
        }
    }
    let hash = |from: usize, to: usize| XxHash3_64::oneshot(&case.file[from..to]) as i64;
    let (from, to) = (span.0 as usize, span.1 as usize);
    seen.tail_hash = hash(to - to % BLOCK_BYTES, to);
    let blocks = from / BLOCK_BYTES..to / BLOCK_BYTES;
    seen.blocks = blocks
        .map(|number| {
            let start = number * BLOCK_BYTES;
            (number as u64, hash(start, start + BLOCK_BYTES))
        })
        .collect();
    if !case.hashes_blocks {
        (seen.blocks, seen.tail_hash) = (Vec::new(), XxHash3_64::oneshot(b"") as i64);
    }
    seen
}

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
fn check(case: &Case) {
    let records = records(case);
    let expected = expected(case, &records);
    let run = run(case);
    assert_eq!(
        run.tail.as_ref().map(|(lane, _)| *lane),
        expected.tail_lane,
        "the lane of the tail"
    );
    if !expected.is_cut_short {
        assert_eq!(run.end, case.file.len() as u64);
    }
    // A record over the limit that lies in several chunks closes the batches before it.
    let borders: Vec<u64> = records
        .iter()
        .filter(|record| {
            record
                .finding
                .is_some_and(|it| it.code == Code::RecordOverLimit)
        })
        .map(|record| record.from)
        .collect();
    let longest =
        (case.limits.record + case.limits.field + 2 + case.chunk_bytes + case.head) as u64;
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
            assert!(to - from < case.checkpoint_bytes.saturating_add(longest));
        }
        assert_eq!(
            at,
            expected.end.max(case.done_to[index]),
            "lane {lane} ends"
        );
        if let Some((_, tail)) = run.tail.as_ref().filter(|(tail, _)| *tail == lane) {
            assert_eq!(tail.span, (at, case.file.len() as u64));
        }
        let mut taken = 0;
        let tail = run.tail.iter().filter(|(tail, _)| *tail == lane);
        batches.extend(tail.map(|(_, tail)| Seen {
            new_rows: tail.new_rows.clone(),
            changed: tail.changed.clone(),
            waiting: tail.waiting.clone(),
            parked: tail.parked.clone(),
            findings: tail.findings.clone(),
            blocks: tail.blocks.clone(),
            ..*tail
        }));
        for batch in &batches {
            let mine = within(batch.span);
            taken += mine.len();
            assert_eq!(*batch, batch_of(case, batch.span, &mine), "lane {lane}");
        }
        assert_eq!(taken, entries.len(), "lane {lane} takes every record once");
    }
}

// -- any file, any run ---------------------------------------------------------------------------

/// A record with its line end: all that a row or a reject can be.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let id = "[a-h]";
    let text = prop_oneof![
        6 => (id, 0..3).prop_map(|(id, mail)| format!("{id},{mail}@x")),
        1 => (0..3).prop_map(|mail| format!(",{mail}@x")),
        1 => id.prop_map(|id| format!("{id},,soon")),
        1 => id.prop_map(|id| format!("{id},,2021-01-02")),
        1 => id.prop_map(|id| format!("\"{id}\",\"x\r\ny\"")),
        1 => id.prop_map(|id| format!("{id},\"x")),
        1 => id.prop_map(|id| format!("{id},\u{fc}@x")),
        1 => id.prop_map(|id| format!("{id},{}", "x".repeat(30))),
        1 => id.prop_map(|id| format!("{id},{}", "123456789,".repeat(7))),
        1 => Just(",,".to_owned()),
        1 => Just(String::new()),
    ]
    .prop_map(String::into_bytes);
    let bytes = prop_oneof![15 => text, 1 => Just(b"a,\xff".to_vec())];
    let end = prop_oneof![5 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\r")];
    (bytes, end).prop_map(|(record, end)| [&record, end.as_bytes()].concat())
}

prop_compose! {
    fn case()(
        records in prop::collection::vec(record(), 0..40),
        is_open in prop::bool::weighted(0.3),
        lanes in 1u32..5,
        run in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        resume in prop::option::of(prop::collection::vec(any::<prop::sample::Index>(), 5)),
        until in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        known in prop::option::weighted(0.8, prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![0, 0, MANY, HELD, PARKED, MANY | HELD]), any::<bool>()),
            0..6,
        )),
        parks_changed in any::<bool>(),
        batch_rows in prop_oneof![1usize..6, Just(usize::MAX)],
        batch_bytes in prop_oneof![1usize..600, Just(usize::MAX)],
        checkpoint_bytes in prop_oneof![1u64..200, Just(u64::MAX)],
        budget in prop_oneof![1usize..4000, Just(64 << 20)],
        hashes_blocks in prop::bool::weighted(0.9),
        head in any::<prop::sample::Index>(),
        chunk_bytes in prop_oneof![1usize..100, Just(CHUNK_BYTES)],
        parsers in 0usize..4,
        buffers in prop::collection::vec(1usize..100, 1..4),
    ) -> Case {
        let mut case = Case {
            lanes, parks_changed, batch_rows, batch_bytes, checkpoint_bytes, budget, hashes_blocks,
            chunk_bytes, parsers, buffers,
            ..Case::new("")
        };
        case.file.extend(records.concat());
        if is_open {
            while matches!(case.file.last(), Some(b'\n' | b'\r')) && case.file.len() > HEADER.len() {
                case.file.pop();
            }
        }
        let records = self::records(&case);
        case.first_lane = run.0.index(lanes as usize) as u32;
        let count = 1 + run.1.index((lanes - case.first_lane) as usize);
        let mut places: Vec<u64> = records.iter().map(|record| record.from).collect();
        places.extend([HEADER.len() as u64, case.file.len() as u64]);
        let place = |index: &prop::sample::Index| places[index.index(places.len())];
        case.done_to = match &resume {
            Some(done) => done[..count].iter().map(place).collect(),
            None => vec![HEADER.len() as u64; count],
        };
        case.until = until.as_ref().map(place);
        let rows: Vec<&Row> = records.iter().filter_map(|record| record.row.as_ref()).collect();
        case.known = known.map(|known| {
            let known = known.iter().filter(|_| !rows.is_empty());
            known
                .map(|(index, flags, is_same)| {
                    let row = rows[index.index(rows.len())];
                    (row.identity, *flags, if *is_same { row.hash } else { 1 })
                })
                .collect()
        });
        case.head = HEADER.len() + head.index(case.file.len() - HEADER.len() + 1);
        case
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_run_gives_what_a_naive_import_gives(case in case()) {
        check(&case);
    }
}

// -- single cases --------------------------------------------------------------------------------

#[test]
fn blocks_are_hashed_whatever_ends_between_them() {
    let filler = "x".repeat(900_000);
    let record = |n: usize| format!("{n},{n}@x,,{filler}\n");
    let mut case = Case::new(&(0..40).map(record).collect::<String>());
    case.limits = Limits::default();
    case.lanes = 3;
    for (checkpoint_bytes, done_to) in [(5 << 20, 20), (1 << 20, 20), (u64::MAX, 17_000_000)] {
        (case.checkpoint_bytes, case.done_to) = (checkpoint_bytes, vec![20, 20, done_to]);
        check(&case);
    }
}

#[test]
fn a_reject_keeps_64_kib_of_its_record() {
    let long = format!("a,{}\n", "1234567,".repeat(20_000));
    for chunk_bytes in [7000, CHUNK_BYTES] {
        let case = Case {
            chunk_bytes,
            ..Case::new(&format!("{long}b,\n"))
        };
        check(&case);
    }
}

/// A pipeline whose source the test feeds.
fn fed(case: &Case) -> (Feed, Pipeline) {
    let (sender, fed) = feed();
    (sender, case.start(Source::Fed(fed)))
}

#[test]
fn a_failed_read_is_the_outcome_and_no_batch_hides_it() {
    let (sender, pipeline) = fed(&Case::new(""));
    sender.push(Ok(b"a,1@x\n".to_vec()));
    sender.push(Err(io::Error::other("broken pipe")));
    assert!(pipeline.next(0).is_none());
    match pipeline.outcome() {
        Err(Failure::Io(error)) => assert_eq!(error.to_string(), "broken pipe"),
        _ => panic!("the read failed"),
    }
    assert!(matches!(pipeline.outcome(), Err(Failure::Broken)));
}

#[test]
fn a_stopped_pipeline_ends_though_its_source_does_not() {
    let case = Case {
        chunk_bytes: 1,
        ..Case::new("")
    };
    let (sender, pipeline) = fed(&case);
    pipeline.stop();
    while sender.push(Ok(b"a,1@x\n".to_vec())) {}
    assert!(pipeline.next(0).is_none());
    assert!(matches!(pipeline.outcome(), Err(Failure::Stopped)));
}

#[test]
fn a_dropped_pipeline_reads_no_more() {
    let case = Case {
        chunk_bytes: 1,
        batch_rows: 1,
        budget: 1,
        ..Case::new("")
    };
    let (sender, pipeline) = fed(&case);
    drop(pipeline);
    while sender.push(Ok(b"a,1@x\n".to_vec())) {}
}

#[test]
fn a_map_without_room_is_over_budget() {
    let case = Case::new("");
    let (sender, source) = feed();
    let known = Known::new(0, 0);
    let pipeline = case.start_with(Source::Fed(source), Some(known));
    let rows: String = (0..50_000).map(|id| format!("{id},\n")).collect();
    sender.push(Ok(rows.into_bytes()));
    drop(sender);
    assert!(pipeline.next(0).is_none());
    assert!(matches!(pipeline.outcome(), Err(Failure::OverBudget)));
}

#[test]
fn other_lanes_have_no_batches() {
    let case = Case {
        lanes: 4,
        first_lane: 2,
        ..Case::new("a,1@x\n")
    };
    let (sender, pipeline) = fed(&case);
    drop(sender);
    for lane in [0, 1, 3, 4] {
        assert!(pipeline.next(lane).is_none(), "lane {lane}");
    }
}
