//! The pipeline against a naive import of the same file: one thread, one map, one record after the other.
//!
//! What a run may choose freely (sizes of chunks and batches, parsers, lanes at a time, the point of a resume) changes
//! where batches end. It never changes which rows, rejects and counts a span of the file gives.

mod any_case;
mod case;
mod check;
mod naive;
mod run;

use any_case::case;
use case::Case;
use check::check;
use customer_panel_core::csv::scanner::Limits;
use customer_panel_core::identity::known::Known;
use customer_panel_core::pipeline::Pipeline;
use customer_panel_core::pipeline::error::Failure;
use customer_panel_core::pipeline::reader::CHUNK_BYTES;
use customer_panel_core::pipeline::source::{Feed, Source, feed};
use proptest::prelude::*;
use std::io;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_run_gives_what_a_naive_import_gives(case in case()) {
        check(&case);
    }
}

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
