//! The pipeline against a naive import of the same file: one thread, one map, one record after the other.
//!
//! What a run may choose freely (sizes of chunks and batches, parsers, lanes at a time, the point of a resume) changes
//! where batches end. It never changes which rows, rejects and counts a span of the file gives.

mod any_case;
mod case;
mod check;
mod grown;
mod naive;
mod run;

use any_case::case;
use case::{Case, plan};
use check::check;
use customer_panel_core::csv::scanner::Limits;
use customer_panel_core::identity::known::Known;
use customer_panel_core::pipeline::Pipeline;
use customer_panel_core::pipeline::error::Failure;
use customer_panel_core::pipeline::reader::{CHUNK_BYTES, Reading};
use customer_panel_core::pipeline::routing::Routing;
use customer_panel_core::pipeline::source::{Feed, Source, feed};
use customer_panel_core::plan::mapping::Target;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_run_gives_what_a_naive_import_gives(case in case()) {
        check(&case);
    }

    #[test]
    fn checkpoints_of_a_part_of_a_file_are_checkpoints_of_the_whole(
        case in case(),
        cut in any::<prop::sample::Index>(),
        kills in prop::collection::vec(any::<prop::sample::Index>(), 4),
    ) {
        grown::check(case, cut, &kills);
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

/// A pipeline whose source the test feeds, behind its header.
fn fed(case: &Case) -> (Feed, Pipeline) {
    let (sender, fed) = feed();
    sender.push(&case.file);
    (sender, case.start(&Source::from_fed(fed)))
}

fn failure(pipeline: &Pipeline) -> Failure {
    match pipeline.outcome() {
        Ok(_) => panic!("it does not succeed"),
        Err(failure) => failure,
    }
}

#[test]
fn a_failed_read_is_the_outcome_and_no_batch_hides_it() {
    let (sender, pipeline) = fed(&Case::new("a,1@x\n"));
    sender.end(Err("broken pipe".to_owned()));
    assert!(pipeline.next(0).is_none());
    match failure(&pipeline) {
        Failure::Io(error) => assert_eq!(error.to_string(), "broken pipe"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(failure(&pipeline), Failure::Broken));
}

#[test]
fn a_feed_that_dies_is_no_end() {
    let (sender, pipeline) = fed(&Case::new("a,1@x\n"));
    drop(sender);
    assert!(pipeline.next(0).is_none());
    assert!(matches!(failure(&pipeline), Failure::Io(_)));
}

#[test]
fn a_stopped_pipeline_ends_though_its_source_does_not() {
    let case = Case {
        chunk_bytes: 1,
        ..Case::new("")
    };
    let (sender, pipeline) = fed(&case);
    pipeline.stop();
    while sender.push(b"a,1@x\n") {}
    assert!(pipeline.next(0).is_none());
    assert!(matches!(failure(&pipeline), Failure::Stopped));
}

#[test]
fn a_stop_ends_a_pipeline_whose_source_gives_nothing() {
    let (_sender, pipeline) = fed(&Case::new("a,1@x\n"));
    let patience = Duration::from_millis(30);
    assert!(pipeline.next_within(0, patience).is_err());
    assert!(pipeline.outcome_within(patience).is_err());
    pipeline.stop();
    assert!(pipeline.next(0).is_none());
    assert!(matches!(failure(&pipeline), Failure::Stopped));
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
    while sender.push(b"a,1@x\n") {}
}

#[test]
fn a_map_without_room_is_over_budget() {
    let case = Case::new("");
    let (sender, source) = feed();
    let known = Known::new(0, 0);
    let pipeline = case.start_with(&Source::from_fed(source), Some(known));
    let rows: String = (0..50_000).map(|id| format!("{id},\n")).collect();
    sender.push(rows.as_bytes());
    sender.end(Ok(()));
    assert!(pipeline.next(0).is_none());
    assert!(matches!(failure(&pipeline), Failure::OverBudget));
}

#[test]
fn other_lanes_have_no_batches() {
    let case = Case {
        lanes: 4,
        first_lane: 2,
        ..Case::new("a,1@x\n")
    };
    let (_sender, pipeline) = fed(&case);
    for lane in [0, 1, 3, 4] {
        assert!(pipeline.next(lane).is_none(), "lane {lane}");
    }
}

/// What a pipeline gives of two rows when one of its threads panics.
fn broken(case: &Case, change: impl FnOnce(&mut Reading, &mut Routing)) {
    let (sender, fed) = feed();
    sender.push(&case.file);
    sender.end(Ok(()));
    let (mut reading, mut routing) = case.parts(&Source::from_fed(fed));
    change(&mut reading, &mut routing);
    let pipeline = Pipeline::start(reading, routing, None, case.budget).unwrap();
    while pipeline.next(0).is_some() {}
    assert!(matches!(failure(&pipeline), Failure::Broken));
}

#[test]
fn a_thread_that_panics_is_no_end() {
    let case = Case::new("a,1@x\nb,2@x\n");
    // The reader: no memory is so large.
    broken(&case, |reading, _| reading.chunk_bytes = usize::MAX);
    // The parsers: there is no such field.
    broken(&case, |reading, _| {
        let mut plan = plan();
        plan.columns[0] = Target::Field(200);
        reading.plan = Arc::new(plan);
    });
    // The sequencer: the number of the line overflows, which builds for tests check.
    broken(&case, |_, routing| routing.header_lines = u64::MAX);
}
