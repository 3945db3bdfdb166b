//! From a source to batches: the threads, the memory they may hold between them, and how they stop.

pub mod reader;
pub mod sequencer;
pub mod source;

use crate::batch::Batch;
use crate::identity::known::Known;
use crate::identity::lanes::Routing;
use crossbeam_channel::{Receiver, Sender, unbounded};
use reader::Reading;
use sequencer::Sequencer;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Why a pipeline ended before its source did.
#[derive(Debug)]
pub enum Failure {
    Io(io::Error),
    /// The identities of these lanes need more memory than the map may take: run fewer lanes at a time.
    OverBudget,
    Stopped,
    /// A thread died; a defect of ours.
    Broken,
}

/// Memory of all batches in flight. Batches being filled may take half of it, closed ones the other half.
pub struct Budget {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed_bytes: usize,
    is_stopped: bool,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Budget {
            limit,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where the pipeline was stopped.
    pub fn check(&self) -> Result<(), Failure> {
        if self.state().is_stopped {
            Err(Failure::Stopped)
        } else {
            Ok(())
        }
    }

    /// Counts a batch that was closed, after waiting until there is room for it.
    pub fn take(&self, bytes: usize) -> Result<(), Failure> {
        let mut state = self.state();
        while !state.is_stopped
            && state.closed_bytes > 0
            && state.closed_bytes + bytes > self.limit / 2
        {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_stopped {
            return Err(Failure::Stopped);
        }
        state.closed_bytes += bytes;
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.state().closed_bytes -= bytes;
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.state().is_stopped = true;
        self.changed.notify_all();
    }
}

/// A closed batch; its memory counts until it is dropped.
pub struct Held {
    batch: Batch,
    bytes: usize,
    budget: Arc<Budget>,
}

impl Held {
    /// A batch that was not counted by the budget.
    fn uncounted(batch: Batch, budget: &Arc<Budget>) -> Self {
        Held {
            batch,
            bytes: 0,
            budget: Arc::clone(budget),
        }
    }

    /// Frees the rows and their part of the budget. Who waits for the next batch must not hold the last one.
    pub fn release(&mut self) {
        self.batch.clear_rows();
        self.budget.release(std::mem::take(&mut self.bytes));
    }
}

impl Deref for Held {
    type Target = Batch;
    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Batch {
        &mut self.batch
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// Where a lane's batches go.
pub struct Outlet {
    sender: Sender<Held>,
    budget: Arc<Budget>,
}

impl Outlet {
    /// Sends a batch that [`Budget::take`] has counted.
    pub fn send(&self, batch: Batch) -> Result<(), Failure> {
        let bytes = batch.bytes();
        let held = Held {
            batch,
            bytes,
            budget: Arc::clone(&self.budget),
        };
        self.sender.send(held).map_err(|_| Failure::Stopped)
    }
}

/// How a source ended.
pub struct Outcome {
    /// The batch of a last record without line end: to be committed when nothing more can come.
    pub tail: Option<Held>,
    /// Bytes of the source.
    pub end: u64,
}

pub struct Pipeline {
    lanes: Vec<Receiver<Held>>,
    first_lane: u32,
    budget: Arc<Budget>,
    outcome: Receiver<Result<Outcome, Failure>>,
}

impl Pipeline {
    /// Starts the threads. Batches in flight take at most `budget` bytes, whatever the routing asks for.
    pub fn start(
        reading: Reading,
        mut routing: Routing,
        known: Option<Known>,
        budget: usize,
    ) -> Self {
        let lanes = routing.done_to.len().max(1);
        // Closed batches may take half of the budget: for each lane the one that it is sending and the next one. With
        // room for fewer the lanes take turns, for a batch is closed when it is a little larger than this.
        routing.batch_bytes = routing.batch_bytes.min(budget / 4 / lanes).max(1);
        let first_lane = routing.first_lane;
        let budget = Arc::new(Budget::new(budget));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..lanes).map(|_| unbounded()).unzip();
        let outlets = senders
            .into_iter()
            .map(|sender| Outlet {
                sender,
                budget: Arc::clone(&budget),
            })
            .collect();
        let sequencer = Sequencer::new(routing, known, outlets, Arc::clone(&budget));
        let (report, outcome) = unbounded();
        let (pieces, recycle) = reader::start(reading);
        let shared = Arc::clone(&budget);
        reader::spawn("cp-sequence".to_owned(), move || {
            let ended = sequencer.run(&pieces, &recycle).map(|(tail, end)| Outcome {
                tail: tail.map(|batch| Held::uncounted(batch, &shared)),
                end,
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

    /// The next batch of a lane, in file order; `None` when there will be no more, for whatever reason.
    pub fn next(&self, lane: u32) -> Option<Held> {
        self.lanes
            .get(lane.checked_sub(self.first_lane)? as usize)?
            .recv()
            .ok()
    }

    /// Waits for the end of the source. Once only; later calls say `Broken`.
    pub fn outcome(&self) -> Result<Outcome, Failure> {
        self.outcome.recv().map_err(|_| Failure::Broken)?
    }

    /// Stops all threads at their next step. Batches that were closed can still be fetched.
    pub fn stop(&self) {
        self.budget.stop();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop();
    }
}
