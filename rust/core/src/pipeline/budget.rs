//! The memory that all batches in flight may take, and the batches that count against it.

use crate::batch::Batch;
use crate::pipeline::error::Failure;
use crossbeam_channel::Sender;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
    pub fn new(limit: usize) -> Self {
        Budget {
            limit,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if the pipeline was stopped.
    pub fn check(&self) -> Result<(), Failure> {
        if self.state().is_stopped {
            Err(Failure::Stopped)
        } else {
            Ok(())
        }
    }

    /// Waits until there is room for a closed batch, and counts it. One batch always has room: it may be larger than
    /// all.
    ///
    /// Fails if the pipeline was stopped.
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

    pub fn stop(&self) {
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
    /// A batch that the budget has not counted.
    pub fn uncounted(batch: Batch, budget: &Arc<Budget>) -> Self {
        Held {
            batch,
            bytes: 0,
            budget: Arc::clone(budget),
        }
    }

    /// Frees the rows and their part of the budget. Whoever waits for the next batch must not hold the last one.
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
    pub fn new(sender: Sender<Held>, budget: &Arc<Budget>) -> Self {
        Outlet {
            sender,
            budget: Arc::clone(budget),
        }
    }

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
