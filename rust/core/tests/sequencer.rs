//! Where the batches of a lane end: chunks as the reader cuts them, spans as the sequencer closes them.

use crossbeam_channel::{bounded, unbounded};
use customer_panel_core::batch::Batch;
use customer_panel_core::identity::classify::Rules;
use customer_panel_core::identity::hash::HashKeys;
use customer_panel_core::pipeline::budget::{Budget, Outlet};
use customer_panel_core::pipeline::error::Failure;
use customer_panel_core::pipeline::reader::{Chunk, Piece};
use customer_panel_core::pipeline::routing::Routing;
use customer_panel_core::pipeline::sequencer::Sequencer;
use customer_panel_core::plan::Plan;
use customer_panel_core::rows::parse::parse;
use customer_panel_core::values::dates::DateOrder;
use std::sync::Arc;

/// One lane of one, from the start of the file, with batches of any size.
fn routing() -> Routing {
    Routing {
        import_id: 1,
        lanes: 1,
        first_lane: 0,
        done_to: vec![0],
        until: None,
        batch_rows: usize::MAX,
        batch_bytes: usize::MAX,
        checkpoint_bytes: u64::MAX,
        rules: Rules::default(),
        is_second: false,
        header_lines: 0,
        hashes_blocks: true,
    }
}

fn shown(batch: &Batch) -> String {
    format!("{}-{}:{}", batch.from, batch.to, batch.counts.processed)
}

/// Every batch as `from-to:rows`, a tail behind `+`. A chunk `<n` is an oversize record of n bytes. What a chunk ends
/// with `!` belongs to the tail.
fn spans(chunks: &[&str], routing: Routing) -> String {
    let (plan, ..) = Plan::from_header(b"id,email\n", None, &[], DateOrder::Auto).unwrap();
    let keys = HashKeys::new(1, plan.mapped, false);
    let (pieces, received) = unbounded();
    let mut offset = 0;
    for text in chunks {
        let (text, is_tail) = match text.strip_suffix('!') {
            Some(text) => (text, true),
            None => (*text, false),
        };
        if let Some(bytes) = text.strip_prefix('<') {
            let span: usize = bytes.parse().unwrap();
            offset += span as u64;
            pieces.send(Piece::OversizeBegins).unwrap();
            pieces.send(Piece::Bytes(vec![b'x'; span])).unwrap();
            let oversize = Piece::Oversize {
                span: span as u64,
                lines: 1,
                raw: vec![b'x'; span],
                is_tail,
            };
            pieces.send(oversize).unwrap();
            continue;
        }
        offset += text.len() as u64;
        let mut chunk = Chunk {
            bytes: text.as_bytes().to_vec(),
            ..Chunk::default()
        };
        parse(&chunk.bytes, &plan, &keys, &mut chunk.parsed);
        let (sender, parsed) = bounded(1);
        sender.send(chunk).unwrap();
        let records = Piece::Records {
            chunk: parsed,
            is_tail,
        };
        pieces.send(records).unwrap();
    }
    pieces.send(Piece::End { offset }).unwrap();
    let budget = Arc::new(Budget::new(1 << 30));
    let (sender, batches) = unbounded();
    let outlet = Outlet::new(sender, &budget);
    let mut sequencer = Sequencer::new(routing, None, vec![outlet], budget);
    let (recycle, _used) = unbounded();
    let reached = sequencer.run(&received, &recycle).ok().unwrap();
    drop(sequencer);
    let mut shown: Vec<String> = batches.iter().map(|batch| self::shown(&batch)).collect();
    shown.extend(
        reached
            .tails
            .iter()
            .map(|tail| format!("+{}", self::shown(tail))),
    );
    shown.join(" ")
}

macro_rules! spans {
    ($($name:ident: [$($chunk:literal),*], { $($field:ident: $value:expr),* } => $expected:literal;)*) => {
        $(#[test] fn $name() {
            let routing = Routing { $($field: $value,)* ..routing() };
            assert_eq!(spans(&[$($chunk),*], routing), $expected);
        })*
    };
}

spans! {
    nothing: [], {} => "";
    all_in_one: ["1\n2\n", "3\n"], {} => "0-6:3";
    blank_lines_are_of_the_span: ["1\n\n\n"], {} => "0-4:1";
    full_by_rows: ["1\n2\n3\n"], { batch_rows: 2 } => "0-4:2 4-6:1";
    full_at_the_end_of_the_file: ["1\n2\n"], { batch_rows: 2 } => "0-4:2";
    full_across_chunks: ["1\n", "2\n", "3\n"], { batch_rows: 2 } => "0-4:2 4-6:1";
    full_by_bytes: ["1\n2\n3\n"], { batch_bytes: 1 } => "0-2:1 2-4:1 4-6:1";
    rejects_fill_no_rows: ["1\n,\n2\n"], { batch_rows: 2 } => "0-6:3";
    rejects_fill_bytes: [",\n,\n"], { batch_bytes: 1 } => "0-2:1 2-4:1";
    blank_lines_behind_a_full_batch: ["1\n\n2\n"], { batch_rows: 1 } => "0-2:1 2-5:1";
    a_checkpoint_at_its_bytes: ["1\n2\n", "3\n"], { checkpoint_bytes: 4 } => "0-4:2 4-6:1";
    no_checkpoint_before_its_bytes: ["1\n2\n", "3\n"], { checkpoint_bytes: 5 } => "0-6:3";
    checkpoints_lie_between_chunks: ["1\n2\n3\n", "4\n"], { checkpoint_bytes: 2 } => "0-6:3 6-8:1";
    a_checkpoint_counts_from_the_last_batch: ["1\n2\n3\n", "4\n5\n"], { batch_rows: 2, checkpoint_bytes: 4 } => "0-4:2 4-8:2 8-10:1";
    a_checkpoint_without_rows: ["\n\n", "\n\n", "1\n"], { checkpoint_bytes: 2 } => "0-2:0 2-4:0 4-6:1";
    done_rows_are_left_out: ["1\n2\n3\n"], { done_to: vec![2] } => "2-6:2";
    done_rejects_are_left_out: [",\n,\n,\n"], { done_to: vec![2] } => "2-6:2";
    all_is_done: ["1\n2\n"], { done_to: vec![4] } => "";
    no_checkpoint_of_what_is_done: ["1\n", "2\n", "3\n"], { done_to: vec![4], checkpoint_bytes: 1 } => "4-6:1";
    no_checkpoint_of_other_lanes_rows: ["1\n2\n"], { lanes: 9, first_lane: 9 } => "0-4:0";
    until_between_records: ["1\n2\n3\n"], { until: Some(4) } => "0-4:2";
    until_inside_a_record: ["1\n2\n3\n"], { until: Some(3) } => "0-4:2";
    until_the_start: ["1\n2\n"], { until: Some(0) } => "";
    until_the_end: ["1\n2\n"], { until: Some(4) } => "0-4:2";
    until_the_next_chunk: ["1\n", "2\n"], { until: Some(2) } => "0-2:1";
    until_an_oversize_record: ["1\n", "<100", "2\n"], { until: Some(2) } => "0-2:1";
    until_behind_an_oversize_record: ["1\n", "<100", "2\n"], { until: Some(3) } => "0-2:1 2-102:1";
    a_tail_is_a_batch_of_its_own: ["1\n2\n", "3!"], {} => "0-4:2 +4-5:1";
    a_tail_alone: ["1!"], {} => "+0-1:1";
    a_tail_of_a_reject: ["1\n", ",!"], {} => "0-2:1 +2-3:1";
    a_tail_of_many_records: ["1\n", "2,\"\n3\n!"], {} => "0-2:1 +2-8:2";
    a_tail_of_blank_lines: ["1\n", "\r!"], {} => "0-2:1";
    a_tail_in_chunks: ["1\n", "<100!", "3!"], {} => "0-2:1 +2-103:2";
    a_tail_fills_no_batch: ["1\n", "2\n3\n!"], { batch_rows: 1, checkpoint_bytes: 1 } => "0-2:1 +2-6:2";
    a_tail_of_another_lane: ["1\n", "2!"], { lanes: 9, first_lane: 9 } => "0-2:0";
    a_tail_that_is_done: ["1\n", "2!"], { done_to: vec![3] } => "";
    a_tail_behind_until: ["1\n", "2!"], { until: Some(2) } => "0-2:1";
    a_tail_up_to_until: ["1\n", "2\n3\n!"], { until: Some(4) } => "0-2:1 +2-4:1";
    batches_end_before_an_oversize_record: ["1\n", "<100", "2\n"], {} => "0-2:1 2-104:2";
    an_oversize_record_first: ["<100", "1\n"], {} => "0-102:2";
    two_oversize_records: ["<100", "<200"], {} => "0-100:1 100-300:1";
    an_open_oversize_record: ["1\n", "<100!"], {} => "0-2:1 +2-102:1";
    an_oversize_record_that_is_done: ["1\n", "<100", "2\n"], { done_to: vec![102] } => "102-104:1";
    an_oversize_record_of_another_lane: ["1\n", "<100!"], { lanes: 9, first_lane: 9 } => "0-2:0";
}

#[test]
fn pieces_that_end_without_a_word_are_no_end() {
    let end = Piece::End { offset: 3 };
    let begin = || Piece::Bytes(b"1\n".to_vec());
    for pieces in [vec![], vec![begin()], vec![begin(), end]] {
        let (sender, received) = unbounded();
        for piece in pieces {
            sender.send(piece).unwrap();
        }
        drop(sender);
        let budget = Arc::new(Budget::new(1 << 30));
        let (sender, batches) = unbounded();
        let outlet = Outlet::new(sender, &budget);
        let mut sequencer = Sequencer::new(routing(), None, vec![outlet], budget);
        let (recycle, _used) = unbounded();
        let reached = sequencer.run(&received, &recycle);
        assert!(matches!(reached, Err(Failure::Broken)));
        drop(sequencer);
        assert_eq!(batches.iter().count(), 0);
    }
}
