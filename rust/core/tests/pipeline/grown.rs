//! A file that was read before it was whole: what was committed of it before its end stands, and a resume of the whole
//! file adds the rest.

use crate::case::{Case, HEADER};
use crate::run::{RowSeen, Run, Seen, run};
use proptest::sample::Index;

/// Rows and rejects of one lane, in the order of the file.
#[derive(Debug, Default, PartialEq)]
struct Lane {
    rows: Vec<RowSeen>,
    findings: Vec<u8>,
    processed: u64,
}

impl Lane {
    fn add(&mut self, batch: &Seen) {
        self.rows.extend(batch.new_rows.iter().cloned());
        self.findings.extend(&batch.findings);
        self.processed += batch.counts.processed;
    }

    fn add_all(&mut self, run: &Run, lane: usize) {
        run.lanes[lane].iter().for_each(|batch| self.add(batch));
        let tails = run.tails.iter().filter(|(tail, _)| *tail == lane as u32);
        tails.for_each(|(_, batch)| self.add(batch));
    }
}

/// Reads the first part of the file, up to `cut`; keeps of each lane as many batches as were committed before a kill;
/// reads the whole file from there; and compares with one reading of the whole.
pub fn check(case: Case, cut: Index, kills: &[Index]) {
    let start = HEADER.len();
    let whole = Case {
        first_lane: 0,
        done_to: vec![start as u64; case.lanes as usize],
        until: None,
        known: None,
        ..case
    };
    let part = start + cut.index(whole.file.len() - start + 1);
    let grown = Case {
        file: whole.file[..part].to_vec(),
        head: whole.head.min(part),
        ..whole.clone()
    };
    let seen = run(&grown, grown.map());
    let mut lanes: Vec<Lane> = Vec::new();
    let mut resumed = whole.clone();
    for (lane, batches) in seen.lanes.iter().enumerate() {
        let mut found = Lane::default();
        for batch in &batches[..kills[lane].index(batches.len() + 1)] {
            found.add(batch);
            resumed.done_to[lane] = batch.span.1;
        }
        lanes.push(found);
    }
    let (rest, once) = (run(&resumed, resumed.map()), run(&whole, whole.map()));
    for (number, lane) in lanes.iter_mut().enumerate() {
        lane.add_all(&rest, number);
        let mut expected = Lane::default();
        expected.add_all(&once, number);
        assert_eq!(*lane, expected, "lane {number}, cut at {part}");
    }
}
