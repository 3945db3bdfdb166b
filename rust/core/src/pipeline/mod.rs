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
use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use error::Failure;
use reader::Reading;
use routing::Routing;
use sequencer::Sequencer;
use source::Halt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A batch is closed at this size whatever the caller says, so that its rows have offsets of 32 bits.
const BATCH_BYTES_MOST: usize = 1 << 30;

/// Nothing came in time; ask again.
#[derive(Debug)]
pub struct Waiting;

/// How a source ended.
pub struct Outcome {
    /// The batches of the tail, one for each lane that has rows or rejects in it: records that end where they do only
    /// because the source ended. Commit them when nothing more can come.
    pub tails: Vec<Held>,
    /// Where the tail begins, whichever lanes it has rows for; the end if there is none.
    pub decided: u64,
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
    halt: Halt,
    outcome: Receiver<Result<Outcome, Failure>>,
}

impl Pipeline {
    /// Starts the threads. All batches in flight take about `budget` bytes at most, whatever the routing says.
    ///
    /// Fails if the system starts no thread.
    pub fn start(
        reading: Reading,
        mut routing: Routing,
        known: Option<Known>,
        budget: usize,
    ) -> io::Result<Self> {
        let lanes = routing.done_to.len().max(1);
        // Closed batches may take half of the budget: for each lane the one that it sends and the next one. A batch
        // is closed when it is a little larger than this. With room for fewer batches the lanes would wait for each
        // other.
        let most = (budget / 4 / lanes).min(BATCH_BYTES_MOST);
        routing.batch_bytes = routing.batch_bytes.min(most).max(1);
        let first_lane = routing.first_lane;
        let budget = Arc::new(Budget::new(budget));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..lanes).map(|_| unbounded()).unzip();
        let outlets = senders
            .into_iter()
            .map(|sender| Outlet::new(sender, &budget))
            .collect();
        let mut sequencer = Sequencer::new(routing, known, outlets, Arc::clone(&budget));
        let (report, outcome) = unbounded();
        let halt = reading.input.halt();
        let (pieces, recycle) = reader::start(reading)?;
        let shared = Arc::clone(&budget);
        reader::spawn("cp-sequence".to_owned(), move || {
            let ended = sequencer.run(&pieces, &recycle);
            // Without a second reading the map is freed here, before the caller asks for that of the next pass.
            let (read, (unchanged, changed)) = (sequencer.hashed(), sequencer.into_chains());
            let ended = ended.map(|reached| Outcome {
                tails: (reached.tails.into_iter())
                    .map(|batch| Held::uncounted(batch, &shared))
                    .collect(),
                decided: reached.decided,
                end: reached.end,
                read,
                unchanged,
                changed,
            });
            // The pipeline may have been dropped.
            let _ = report.send(ended);
        })?;
        Ok(Pipeline {
            lanes: receivers,
            first_lane,
            budget,
            halt,
            outcome,
        })
    }

    /// The next batch of a lane, in file order; None when no more will come, for whatever reason: see
    /// [`Pipeline::outcome`].
    pub fn next(&self, lane: u32) -> Option<Held> {
        self.receiver(lane)?.recv().ok()
    }

    /// [`Pipeline::next`], but `Err` if nothing came for `patience`.
    pub fn next_within(&self, lane: u32, patience: Duration) -> Result<Option<Held>, Waiting> {
        let Some(receiver) = self.receiver(lane) else {
            return Ok(None);
        };
        match receiver.recv_timeout(patience) {
            Ok(batch) => Ok(Some(batch)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Waiting),
        }
    }

    fn receiver(&self, lane: u32) -> Option<&Receiver<Held>> {
        self.lanes.get(lane.checked_sub(self.first_lane)? as usize)
    }

    /// Waits for the end of the source. To be called once; later calls fail with `Broken`.
    pub fn outcome(&self) -> Result<Outcome, Failure> {
        self.outcome.recv().map_err(|_| Failure::Broken)?
    }

    /// [`Pipeline::outcome`], but `Err(Waiting)` if it is not known within `patience`.
    pub fn outcome_within(&self, patience: Duration) -> Result<Result<Outcome, Failure>, Waiting> {
        match self.outcome.recv_timeout(patience) {
            Ok(outcome) => Ok(outcome),
            Err(RecvTimeoutError::Disconnected) => Ok(Err(Failure::Broken)),
            Err(RecvTimeoutError::Timeout) => Err(Waiting),
        }
    }

    /// Stops all threads, also one that waits for its source. Batches that were closed can still be received.
    pub fn stop(&self) {
        // First the budget: what ends because its source was halted was stopped.
        self.budget.stop();
        self.halt.stop();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop();
    }
}
