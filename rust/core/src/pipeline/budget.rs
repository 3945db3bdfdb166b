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

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, unbounded};
    use std::time::Duration;

    /// Takes on another thread; the answer comes when the budget lets it.
    fn take(budget: &Arc<Budget>, bytes: usize) -> Receiver<bool> {
        let (sender, taken) = unbounded();
        let budget = Arc::clone(budget);
        std::thread::spawn(move || sender.send(budget.take(bytes).is_ok()));
        taken
    }

    fn waits(taken: &Receiver<bool>) -> bool {
        taken.recv_timeout(Duration::from_millis(30)).is_err()
    }

    #[test]
    fn closed_batches_take_half_of_the_budget_and_no_more() {
        let budget = Arc::new(Budget::new(100));
        budget.take(20).unwrap();
        budget.take(30).unwrap();
        let third = take(&budget, 1);
        assert!(waits(&third));
        budget.release(20);
        assert_eq!(third.recv(), Ok(true));
        assert_eq!(budget.state().closed_bytes, 31);
        let fourth = take(&budget, 20);
        assert!(waits(&fourth));
        budget.release(1);
        assert_eq!(fourth.recv(), Ok(true));
    }

    #[test]
    fn one_batch_has_room_however_large_it_is() {
        let budget = Arc::new(Budget::new(0));
        budget.take(1 << 30).unwrap();
        let second = take(&budget, 0);
        assert!(waits(&second));
        budget.release(1 << 30);
        assert_eq!(second.recv(), Ok(true));
    }

    #[test]
    fn stopping_wakes_whoever_waits() {
        let budget = Arc::new(Budget::new(0));
        assert!(budget.check().is_ok());
        budget.take(1).unwrap();
        let second = take(&budget, 1);
        assert!(waits(&second));
        budget.stop();
        assert_eq!(second.recv(), Ok(false));
        assert!(matches!(budget.check(), Err(Failure::Stopped)));
        assert!(matches!(budget.take(0), Err(Failure::Stopped)));
    }

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.new_rows.push(b"\0\0\0\x01k", 1, 0);
        batch
    }

    #[test]
    fn a_batch_counts_until_it_is_released_or_dropped() {
        let budget = Arc::new(Budget::new(1 << 20));
        let (sender, batches) = unbounded();
        let outlet = Outlet::new(sender, &budget);
        let bytes = batch().bytes();
        for _ in 0..2 {
            budget.take(bytes).unwrap();
            outlet.send(batch()).unwrap();
        }
        assert_eq!(budget.state().closed_bytes, 2 * bytes);
        let mut first = batches.recv().unwrap();
        first.release();
        assert_eq!((first.rows(), budget.state().closed_bytes), (0, bytes));
        first.release();
        drop(first);
        assert_eq!(budget.state().closed_bytes, bytes);
        drop(batches.recv().unwrap());
        assert_eq!(budget.state().closed_bytes, 0);
        drop(batches);
        budget.take(bytes).unwrap();
        assert!(matches!(outlet.send(batch()), Err(Failure::Stopped)));
    }

    #[test]
    fn a_tail_is_not_counted() {
        let budget = Arc::new(Budget::new(1 << 20));
        let mut tail = Held::uncounted(batch(), &budget);
        tail.counts.new = 1;
        assert_eq!((tail.counts.new, tail.rows()), (1, 1));
        drop(tail);
        assert_eq!(budget.state().closed_bytes, 0);
    }
}
