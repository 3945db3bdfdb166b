//! From a source to batches: the threads, the memory that they share, and how they stop.

pub mod budget;
pub mod error;
mod lane;
pub mod reader;
pub mod routing;
pub mod sequencer;
pub mod source;

use crate::batch::blocks::Hashed;
use crate::identity::known::Known;
use budget::{Budget, Held, Outlet};
use crossbeam_channel::{Receiver, unbounded};
use error::Failure;
use reader::Reading;
use routing::Routing;
use sequencer::Sequencer;
use std::sync::Arc;

/// How a source ended.
pub struct Outcome {
    /// The batch of a last record without line end. Commit it when nothing more can come.
    pub tail: Option<Held>,
    /// Bytes of the source.
    pub end: u64,
    /// The hashes of all that was read.
    pub read: Hashed,
    /// How many customers with several rows have the same ones as before. They were counted as pending.
    pub unchanged: u64,
    /// The map for a second reading, which parks the rows of the others. None if there are none.
    pub changed: Option<Known>,
}

pub struct Pipeline {
    lanes: Vec<Receiver<Held>>,
    first_lane: u32,
    budget: Arc<Budget>,
    outcome: Receiver<Result<Outcome, Failure>>,
}

impl Pipeline {
    /// Starts the threads. All batches in flight take about `budget` bytes at most, whatever the routing says.
    pub fn start(
        reading: Reading,
        mut routing: Routing,
        known: Option<Known>,
        budget: usize,
    ) -> Self {
        let lanes = routing.done_to.len().max(1);
        // Closed batches may take half of the budget: for each lane the one that it sends and the next one. A batch
        // is closed when it is a little larger than this. With room for fewer batches the lanes would wait for each
        // other.
        routing.batch_bytes = routing.batch_bytes.min(budget / 4 / lanes).max(1);
        let first_lane = routing.first_lane;
        let budget = Arc::new(Budget::new(budget));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..lanes).map(|_| unbounded()).unzip();
        let outlets = senders
            .into_iter()
            .map(|sender| Outlet::new(sender, &budget))
            .collect();
        let mut sequencer = Sequencer::new(routing, known, outlets, Arc::clone(&budget));
        let (report, outcome) = unbounded();
        let (pieces, recycle) = reader::start(reading);
        let shared = Arc::clone(&budget);
        reader::spawn("cp-sequence".to_owned(), move || {
            let ended = sequencer.run(&pieces, &recycle);
            // Without a second reading the map is freed here, before the caller asks for that of the next pass.
            let (read, (unchanged, changed)) = (sequencer.hashed(), sequencer.into_chains());
            let ended = ended.map(|(tail, end)| Outcome {
                tail: tail.map(|batch| Held::uncounted(batch, &shared)),
                end,
                read,
                unchanged,
                changed,
            });
            // The pipeline may have been dropped.
            let _ = report.send(ended);
        });
        Pipeline {
            lanes: receivers,
            first_lane,
            budget,
            outcome,
        }
    }

    /// The next batch of a lane, in file order; None when no more will come, for whatever reason.
    pub fn next(&self, lane: u32) -> Option<Held> {
        self.lanes
            .get(lane.checked_sub(self.first_lane)? as usize)?
            .recv()
            .ok()
    }

    /// Waits for the end of the source. To be called once; later calls fail with `Broken`.
    pub fn outcome(&self) -> Result<Outcome, Failure> {
        self.outcome.recv().map_err(|_| Failure::Broken)?
    }

    /// Stops all threads at their next step. Batches that were closed can still be received.
    pub fn stop(&self) {
        self.budget.stop();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop();
    }
}
