//! A naive import: one thread, one map, one record after the other.

use crate::case::{Case, HEADER, IMPORT_ID, plan};
use crate::run::{RowSeen, Seen};
use customer_panel_core::batch::Counts;
use customer_panel_core::customer::FIELDS;
use customer_panel_core::identity::chains::Parked;
use customer_panel_core::identity::classify::Rules;
use customer_panel_core::identity::known::{HELD, MANY, PARKED};
use customer_panel_core::rows::findings::Finding;
use customer_panel_core::rows::parse::{Parsed, parse_within};
use std::collections::HashMap;
use twox_hash::XxHash3_64;

const BLOCK_BYTES: usize = 16 << 20;

/// A record of the file. Without `row` it is a reject.
pub struct Record {
    pub from: u64,
    pub to: u64,
    pub line: u64,
    pub row: Option<Row>,
    pub finding: Option<Finding>,
}

pub struct Row {
    pub lane_hash: u64,
    pub identity: u64,
    pub hash: i64,
    pub columns: Vec<u8>,
}

/// How a file may go on behind its end, so that every way to continue a record is among them.
const CONTINUATIONS: [&[u8]; 5] = [b"\n", b"x\n", b"\"\n", b"\",\n", b",\"\"\n"];

/// Where the records begin that a longer file might hold differently; the end of the file if none.
pub fn decided(case: &Case, records: &[Record]) -> u64 {
    let mut same = records.len();
    for more in CONTINUATIONS {
        let longer = Case {
            file: [&case.file, more].concat(),
            ..case.clone()
        };
        let longer = self::records(&longer);
        let pairs = std::iter::zip(records, &longer);
        let is_same = |(a, b): &(&Record, &Record)| (a.from, a.to) == (b.from, b.to);
        same = same.min(pairs.take_while(is_same).count());
    }
    match records.get(same) {
        Some(record) => record.from,
        // It may be half of a line end.
        None => (case.file.len() - usize::from(case.file.ends_with(b"\r"))) as u64,
    }
}

pub fn records(case: &Case) -> Vec<Record> {
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
pub enum Outcome {
    New,
    Changed,
    Unchanged,
    Parked(Parked, i64),
    Waits(Parked),
    Reject,
}

fn chained(before: i64, hash: i64) -> i64 {
    let bytes = [before.to_le_bytes(), hash.to_le_bytes()].concat();
    XxHash3_64::oneshot(&bytes) as i64
}

/// The chain of all rows of an identity.
pub fn chain_of(rows: &[&Row], identity: u64) -> i64 {
    let mine = rows.iter().filter(|row| row.identity == identity);
    mine.map(|row| row.hash).reduce(chained).unwrap()
}

/// What is known of an identity, and of its rows in this file.
#[derive(Clone, Copy, Default)]
struct State {
    stored: Option<(u8, i64)>,
    chain: Option<i64>,
    /// Its rows wait for the end of the file.
    waits: bool,
    is_unlike: bool,
}

impl State {
    fn is(&self, flag: u8) -> bool {
        self.stored.is_some_and(|(flags, _)| flags & flag != 0)
    }

    fn classify(&mut self, hash: i64, rules: Rules, is_done: bool) -> Outcome {
        if let Some(before) = self.chain {
            let chain = chained(before, hash);
            self.chain = Some(chain);
            return match self.waits {
                true => Outcome::Waits(Parked::Later),
                false => Outcome::Parked(Parked::Later, chain),
            };
        }
        self.chain = Some(hash);
        let is_again = rules.parks_done && is_done;
        self.waits = is_again || self.is(MANY) && !rules.parks_many;
        self.is_unlike = is_again || self.is(PARKED);
        match self.stored {
            _ if self.waits => Outcome::Waits(Parked::First),
            None => Outcome::New,
            Some((_, stored)) if stored == hash && !self.is(MANY) => Outcome::Unchanged,
            Some(_) if self.is(HELD | MANY) || rules.parks_changed => {
                Outcome::Parked(Parked::First, hash)
            }
            Some(_) => Outcome::Changed,
        }
    }

    /// Whether its rows waited, and are those of the last import.
    fn is_same(&self) -> bool {
        let stored = self.stored.map(|(_, hash)| hash);
        self.waits && !self.is_unlike && self.chain == stored
    }
}

/// A record that a lane of this run takes.
pub struct Entry<'a> {
    pub record: &'a Record,
    pub outcome: Outcome,
}

pub struct Expected<'a> {
    pub lanes: Vec<Vec<Entry<'a>>>,
    /// Where all lanes end; the tail lies behind it.
    pub end: u64,
    pub is_cut_short: bool,
    /// Customers of several rows that are the same as before.
    pub unchanged: u64,
    /// What the second reading parks: the lane, the row, and which of its identity it is.
    pub second: Vec<(u32, RowSeen, Parked)>,
}

pub fn expected<'a>(case: &Case, records: &'a [Record]) -> Expected<'a> {
    let mut states: HashMap<u64, State> = HashMap::new();
    for &(identity, flags, hash) in case.known.iter().flatten() {
        let state = states.entry(identity).or_default();
        let before = state.stored.map_or(0, |(flags, _)| flags);
        state.stored = Some((before | flags, hash));
    }
    let mut expected = Expected {
        lanes: case.done_to.iter().map(|_| Vec::new()).collect(),
        end: decided(case, records),
        is_cut_short: false,
        unchanged: 0,
        second: Vec::new(),
    };
    let mut rows = Vec::new();
    for record in records {
        if case.until.is_some_and(|until| record.from >= until) {
            expected.end = expected.end.min(record.from);
            expected.is_cut_short = true;
            break;
        }
        let lane = record
            .row
            .as_ref()
            .map_or(0, |row| lane_of(row.lane_hash, case.lanes));
        let index = (lane as usize).wrapping_sub(case.first_lane as usize);
        let is_ours = index < case.done_to.len();
        if !is_ours {
            continue;
        }
        let is_done = record.from < case.done_to[index];
        let outcome = match &record.row {
            None => Outcome::Reject,
            Some(_) if case.known.is_none() => Outcome::New,
            Some(row) => {
                rows.push((lane, record.line, row));
                let state = states.entry(row.identity).or_default();
                state.classify(row.hash, case.rules, is_done)
            }
        };
        if !is_done {
            expected.lanes[index].push(Entry { record, outcome });
        }
    }
    expected.unchanged = states.values().filter(|state| state.is_same()).count() as u64;
    let mut chains: HashMap<u64, i64> = HashMap::new();
    for (lane, line, row) in rows {
        let state = &states[&row.identity];
        if state.waits && !state.is_same() {
            let before = chains.get(&row.identity);
            let parked = before.map_or(Parked::First, |_| Parked::Later);
            let hash = before.map_or(row.hash, |before| chained(*before, row.hash));
            chains.insert(row.identity, hash);
            let row = (line, hash, row.columns.clone());
            expected.second.push((lane, row, parked));
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
pub fn batch_of(case: &Case, span: (u64, u64), entries: &[&Entry]) -> Seen {
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
                Outcome::Parked(parked, hash) => {
                    seen.waiting.push((row.0, *hash, row.2));
                    seen.parked.push(*parked);
                }
                _ => {}
            }
        }
        match outcome {
            Outcome::New => seen.counts.new += 1,
            Outcome::Changed => seen.counts.changed += 1,
            Outcome::Unchanged => seen.counts.unchanged += 1,
            Outcome::Parked(parked, _) | Outcome::Waits(parked) => match parked {
                Parked::First => seen.counts.pending += 1,
                Parked::Later => seen.counts.duplicate += 1,
            },
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
