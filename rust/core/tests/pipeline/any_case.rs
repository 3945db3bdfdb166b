//! Any file, any run.

use crate::case::{Case, HEADER};
use crate::naive::{self, Row};
use customer_panel_core::identity::classify::Rules;
use customer_panel_core::identity::known::{HELD, MANY, PARKED};
use customer_panel_core::pipeline::reader::CHUNK_BYTES;
use proptest::prelude::*;

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
    pub fn case()(
        records in prop::collection::vec(record(), 0..40),
        is_open in prop::bool::weighted(0.3),
        lanes in 1u32..5,
        run in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        resume in prop::option::of(prop::collection::vec(any::<prop::sample::Index>(), 5)),
        until in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        known in prop::option::weighted(0.8, prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![0, 0, MANY, HELD, PARKED, MANY | HELD, MANY | PARKED]),
                0..3),
            0..6,
        )),
        rules in (any::<bool>(), prop::bool::weighted(0.3), prop::bool::weighted(0.3)),
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
            lanes, batch_rows, batch_bytes, checkpoint_bytes, budget, hashes_blocks,
            chunk_bytes, parsers, buffers,
            ..Case::new("")
        };
        case.file.extend(records.concat());
        let (parks_changed, parks_many, parks_done) = rules;
        // A stream cannot be resumed.
        case.rules = Rules { parks_changed, parks_many, parks_done: parks_done && !parks_many };
        if is_open {
            while matches!(case.file.last(), Some(b'\n' | b'\r')) && case.file.len() > HEADER.len() {
                case.file.pop();
            }
        }
        let records = naive::records(&case);
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
                .map(|(index, flags, stored)| {
                    let row = rows[index.index(rows.len())];
                    let hash = match stored {
                        0 => 1,
                        1 => row.hash,
                        _ => naive::chain_of(&rows, row.identity),
                    };
                    (row.identity, *flags, hash)
                })
                .collect()
        });
        case.head = HEADER.len() + head.index(case.file.len() - HEADER.len() + 1);
        case
    }
}
